//! Parallels bundles and ploop disks: a descriptor and the image files beside it.

use std::collections::HashMap;
use std::sync::Arc;

use formats::inspect::{Verdict, inspect};
use formats::parallels::bundle;
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    Disk, Error, ErrorKind, Extent, ExtentKind, Format, GuestOffset, Limits, OpenOptions, Result,
    Source,
};

const SECTOR: usize = 512;
/// Sectors of a block; no power of two, as the format allows.
const BLOCK: usize = 3;
const FIRST: &str = "{11111111-1111-1111-1111-111111111111}";
const SECOND: &str = "{2222AAAA-2222-2222-2222-222222222222}";
const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

/// An expanding disk of `sectors` whose blocks in `stored` are filled with a byte.
fn expanding(magic: &str, sectors: usize, stored: &[(usize, u8)]) -> Vec<u8> {
    let entries = sectors.div_ceil(BLOCK);
    let mut file = vec![0; BLOCK * SECTOR];
    assert!(64 + 4 * entries <= file.len(), "the BAT fits one block");
    file[..16].copy_from_slice(magic.as_bytes());
    for (at, value) in [
        (16, 2),
        (28, BLOCK),
        (32, entries),
        (36, sectors),
        (48, BLOCK),
    ] {
        file[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    for (block, byte) in stored {
        let unit = if magic == "WithoutFreeSpace" {
            SECTOR
        } else {
            BLOCK * SECTOR
        };
        let entry = (file.len() / unit) as u32;
        file[64 + 4 * block..][..4].copy_from_slice(&entry.to_le_bytes());
        file.resize(file.len() + BLOCK * SECTOR, *byte);
    }
    file
}

/// The XML of a storage: its sectors and its images (GUID, type, file).
fn storage(start: usize, end: usize, images: &[(&str, &str, &str)]) -> String {
    let images: String = images
        .iter()
        .map(|(guid, kind, file)| {
            format!("<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>")
        })
        .collect();
    format!(
        "<Storage><Start>{start}</Start><End>{end}</End><Blocksize>{BLOCK}</Blocksize>{images}\
         </Storage>"
    )
}

fn shot(guid: &str, parent: &str) -> String {
    format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
}

fn descriptor(sectors: usize, storages: &str, snapshots: &str) -> Vec<u8> {
    format!(
        "\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n\
         <Disk_Parameters><Disk_size>{sectors}</Disk_size><Padding>0</Padding><Encryption>\
         <Engine>{NONE}</Engine></Encryption></Disk_Parameters>\
         <StorageData>{storages}</StorageData><Snapshots>{snapshots}</Snapshots>\
         </Parallels_disk_image>\n"
    )
    .into_bytes()
}

/// The files of a folder.
struct Folder(HashMap<String, Arc<dyn Source>>);

impl Resolver for Folder {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        assert_eq!((by, wanted), (Format::Parallels, Wanted::Extent));
        match self.0.get(name) {
            Some(source) => Ok(Granted::alone(source.clone())),
            None => Err(Error::refused(
                by,
                wanted.name(),
                format!("{name:?} is not there"),
            )),
        }
    }
}

fn folder(files: &[(&str, Vec<u8>)]) -> OpenOptions {
    let files = files.iter().map(|(name, bytes)| {
        (
            (*name).to_owned(),
            Arc::new(bytes.clone()) as Arc<dyn Source>,
        )
    });
    OpenOptions {
        resolver: Arc::new(Folder(files.collect())),
        ..OpenOptions::default()
    }
}

fn read(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![9; disk.virtual_size() as usize];
    disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
    bytes
}

fn extents(disk: &dyn Disk) -> Vec<Extent> {
    let mut all = Vec::new();
    let end = GuestOffset(disk.virtual_size());
    disk.extents(GuestOffset::ZERO..end, &mut all).unwrap();
    assert_eq!(all.last().map(|e| e.range.end), Some(end));
    all
}

/// The first byte of each block.
fn blocks(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(BLOCK * SECTOR).map(|block| block[0]).collect()
}

/// A disk of six blocks: a plain or expanding first snapshot, and two on top of it.
fn three_snapshots(first: (&str, Vec<u8>)) -> (Vec<u8>, OpenOptions) {
    let images = [
        (FIRST, first.0, "a.hds"),
        (SECOND, "Compressed", "b.hds"),
        (TOP, "Compressed", "c.hds"),
    ];
    let snapshots = shot(TOP, SECOND) + &shot(&SECOND.to_lowercase(), FIRST) + &shot(FIRST, NONE);
    let files = [
        ("a.hds", first.1),
        (
            "b.hds",
            expanding("WithoutFreeSpace", 18, &[(2, 20), (1, 21)]),
        ),
        (
            "c.hds",
            expanding("WithouFreSpacExt", 18, &[(1, 31), (5, 35)]),
        ),
    ];
    let xml = descriptor(18, &storage(0, 18, &images), &snapshots);
    (xml, folder(&files))
}

#[test]
fn snapshots_lie_upon_each_other() {
    let expanded = expanding(
        "WithouFreSpacExt",
        18,
        &[(0, 10), (1, 11), (2, 12), (3, 13)],
    );
    let plain: Vec<u8> = [10, 11, 12, 13, 0, 0]
        .into_iter()
        .flat_map(|byte| vec![byte; BLOCK * SECTOR])
        .collect();
    for first in [("Compressed", expanded), ("Plain", plain)] {
        let is_plain = first.0 == "Plain";
        let (xml, mut options) = three_snapshots(first);
        for (snapshot, expected) in [
            (None, [10, 31, 20, 13, 0, 35]),
            (Some(SECOND), [10, 21, 20, 13, 0, 0]),
            (Some(FIRST), [10, 11, 12, 13, 0, 0]),
            (
                Some("11111111-1111-1111-1111-111111111111"),
                [10, 11, 12, 13, 0, 0],
            ),
        ] {
            options.snapshot = snapshot.map(str::to_owned);
            let disk = formats::open(Arc::new(xml.clone()), &options).unwrap();
            let bytes = read(disk.as_ref());
            assert_eq!(blocks(&bytes), expected, "{snapshot:?}");
            for extent in extents(disk.as_ref()) {
                let range = extent.range.start.0 as usize..extent.range.end.0 as usize;
                let is_zero = bytes[range].iter().all(|&b| b == 0);
                assert!(is_zero || !extent.kind.is_hole(), "{extent:?}");
                assert!(is_plain || is_zero == extent.kind.is_hole(), "{extent:?}");
                assert!(
                    !matches!(extent.kind, ExtentKind::Data { host: Some(_) }),
                    "another file's offset: {extent:?}"
                );
            }
        }
        options.snapshot = Some("{33333333-3333-3333-3333-333333333333}".into());
        let error = bundle::open(&xml, &options).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

#[test]
fn a_split_disk_is_read_across_its_storages() {
    // In any order; the first file is longer than its storage, as allocation rounds it up.
    let storages = storage(6, 14, &[(TOP, "Compressed", "b.hds")])
        + &storage(14, 16, &[(TOP, "Plain", "c.hds")])
        + &storage(0, 6, &[(TOP, "Plain", "a.hds")]);
    let options = folder(&[
        ("a.hds", vec![1; 9 * SECTOR]),
        ("b.hds", expanding("WithouFreSpacExt", 8, &[(2, 5), (0, 4)])),
        ("c.hds", vec![7; 2 * SECTOR]),
    ]);
    let disk = bundle::open(&descriptor(16, &storages, &shot(TOP, NONE)), &options).unwrap();
    let bytes = read(disk.as_ref());
    let sectors: Vec<_> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [1, 1, 1, 1, 1, 1, 4, 4, 4, 0, 0, 0, 5, 5, 7, 7]);
    let starts: Vec<_> = extents(disk.as_ref())
        .iter()
        .map(|e| (e.range.start.0 / SECTOR as u64, e.kind.is_hole()))
        .collect();
    assert_eq!(starts, [(0, false), (9, true), (12, false)]);
    for at in [0, 511, 3071, 3072, 7000, 8191] {
        let mut part = vec![0; bytes.len() - at];
        disk.read_at(&mut part, GuestOffset(at as u64)).unwrap();
        assert!(part == bytes[at..], "from {at}");
    }
    assert!(
        disk.read_at(&mut [0; 2], GuestOffset(16 * 512 - 1))
            .is_err()
    );
}

#[test]
fn the_present_state_is_found_without_being_named() {
    let image = || expanding("WithouFreSpacExt", 6, &[(1, 3)]);
    let one = storage(0, 6, &[(FIRST, "Compressed", "a.hds")]);
    let two = storage(
        0,
        6,
        &[
            (FIRST, "Compressed", "a.hds"),
            (SECOND, "Compressed", "b.hds"),
        ],
    );
    let options = folder(&[
        ("a.hds", image()),
        ("b.hds", expanding("WithouFreSpacExt", 6, &[(0, 4)])),
    ]);
    let both = shot(FIRST, NONE) + &shot(SECOND, FIRST);
    for (storages, snapshots, expected) in [
        (&one, String::new(), Some([0, 3])),
        (&one, shot(FIRST, NONE), Some([0, 3])),
        (
            &two,
            format!("<TopGUID>{SECOND}</TopGUID>{both}"),
            Some([4, 3]),
        ),
        (
            &two,
            format!("<TopGUID>{FIRST}</TopGUID>{both}"),
            Some([0, 3]),
        ),
        (&two, both, None),
    ] {
        let xml = descriptor(6, storages, &snapshots);
        let opened = bundle::open(&xml, &options);
        assert_eq!(
            opened.ok().map(|disk| blocks(&read(disk.as_ref()))),
            expected.map(Vec::from),
            "{snapshots}"
        );
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    let good = storage(0, 6, &[(TOP, "Compressed", "a.hds")]);
    let top = shot(TOP, NONE);
    let with = |file: &str| storage(0, 6, &[(TOP, "Compressed", file)]);
    let chain: Vec<_> = (0..20)
        .map(|n| format!("{{{n:08}-0000-4000-8000-000000000000}}"))
        .collect();
    let long: String = chain
        .windows(2)
        .map(|pair| shot(&pair[0], &pair[1]))
        .collect();
    use ErrorKind::{Limit, Malformed, Refused, Unsupported};
    for (storages, snapshots, kind) in [
        (with("/etc/passwd"), top.clone(), Refused),
        (with("../a.hds"), top.clone(), Refused),
        (with("..\\a.hds"), top.clone(), Refused),
        (with("file:a.hds"), top.clone(), Refused),
        (with(".."), top.clone(), Refused),
        (with("other.hds"), top.clone(), Refused),
        (
            storage(0, 6, &[(TOP, "Sparse", "a.hds")]),
            top.clone(),
            Unsupported,
        ),
        (
            storage(0, 5, &[(TOP, "Compressed", "a.hds")]),
            top.clone(),
            Malformed,
        ),
        (
            storage(1, 6, &[(TOP, "Compressed", "a.hds")]),
            top.clone(),
            Malformed,
        ),
        (format!("{good}{good}"), top.clone(), Malformed),
        (String::new(), top.clone(), Malformed),
        (
            storage(0, 6, &[(FIRST, "Compressed", "a.hds")]),
            top.clone(),
            Malformed,
        ),
        (
            storage(0, 6, &[(TOP, "Plain", "short")]),
            top.clone(),
            Malformed,
        ),
        (
            storage(0, 6, &[(TOP, "Compressed", "short")]),
            top.clone(),
            Malformed,
        ),
        (
            storage(0, 6, &[(TOP, "Compressed", "wide")]),
            top.clone(),
            Malformed,
        ),
        (good.clone(), shot(TOP, TOP), Malformed),
        (
            good.clone(),
            shot(TOP, FIRST) + &shot(FIRST, TOP),
            Malformed,
        ),
        (good.clone(), shot(TOP, FIRST), Malformed),
        (good.clone(), format!("{top}{top}"), Malformed),
        (
            good.clone(),
            format!("<TopGUID>{}</TopGUID>{long}", chain[0]),
            Refused,
        ),
        (good.repeat(1025), top.clone(), Limit),
    ] {
        let mut wide = expanding("WithouFreSpacExt", 6, &[]);
        wide[28] = 4;
        let options = folder(&[
            ("a.hds", expanding("WithouFreSpacExt", 6, &[(0, 1)])),
            ("short", vec![0; 5 * SECTOR]),
            ("wide", wide),
        ]);
        let xml = descriptor(6, &storages, &snapshots);
        let error = bundle::open(&xml, &options).err().expect("an error");
        assert_eq!(error.kind(), kind, "{error}\n{storages}\n{snapshots}");
    }
    let upside_down = storage(
        0,
        6,
        &[(FIRST, "Compressed", "a.hds"), (TOP, "Plain", "b.hds")],
    );
    let options = folder(&[
        ("a.hds", expanding("WithouFreSpacExt", 6, &[])),
        ("b.hds", vec![0; 6 * SECTOR]),
    ]);
    let xml = descriptor(6, &upside_down, &(shot(TOP, FIRST) + &shot(FIRST, NONE)));
    let error = bundle::open(&xml, &options).err().expect("an error");
    assert!(error.message().contains("is plain"), "{error}");
}

#[test]
fn a_descriptor_is_described_and_refused_alone() {
    let good = descriptor(
        6,
        &storage(0, 6, &[(TOP, "Compressed", "a.hds")]),
        &shot(TOP, NONE),
    );
    let text = String::from_utf8(good.clone()).unwrap();
    let engine = "<Engine>{00000000";
    for (xml, rule) in [
        (good.clone(), "extent_file"),
        (
            text.replace(engine, "<Engine>{10000000").into_bytes(),
            "encrypted",
        ),
        (text.replace("a.hds", "/a.hds").into_bytes(), "extent_path"),
        (
            text.replace("<Padding>0", "<Padding>1").into_bytes(),
            "unsupported",
        ),
        (good[..good.len() - 9].to_vec(), "malformed"),
        ([good.clone(), vec![b' '; 1 << 20]].concat(), "limit"),
    ] {
        let found = inspect(&xml, &Limits::default()).unwrap();
        assert_eq!(
            (found.format, found.verdict()),
            (Format::Parallels, Verdict::Unsafe)
        );
        assert_eq!(found.unsafe_finding().map(|f| f.rule), Some(rule));
        if rule == "extent_file" {
            assert_eq!(found.virtual_size, Some(6 * 512));
            assert_eq!(found.details["images"], serde_json::json!(["a.hds"]));
        }
        let error = formats::open(Arc::new(xml), &OpenOptions::default())
            .err()
            .expect("an error");
        assert_ne!(error.kind(), ErrorKind::Io, "{error}");
    }
}

#[test]
fn blocks_that_share_bytes_are_unsafe() {
    let mut file = expanding("WithoutFreeSpace", 9, &[(0, 1), (2, 2)]);
    let rule = |file: &Vec<u8>| {
        let found = inspect(file, &Limits::default()).unwrap();
        found.unsafe_finding().map(|f| f.rule)
    };
    assert_eq!(rule(&file), None);
    for entry in [4, 5, 6u8] {
        file[68] = entry;
        assert_eq!(rule(&file), Some("overlap"), "{entry}");
    }
}
