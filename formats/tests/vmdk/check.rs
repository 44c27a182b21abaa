//! `check`: clean where qemu-img is content, and telling of what was damaged.

use std::ops::Range;

use formats::check::{Check, ProblemKind, check};

use super::*;

fn check_with(bytes: &[u8], options: &OpenOptions) -> Result<Check> {
    let source: Arc<dyn Source> = Arc::new(bytes.to_vec());
    check(&source, options, &Progress::default())
}

fn checked(bytes: &[u8]) -> Check {
    check_with(bytes, &alone()).unwrap()
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn what_qemu_img_writes_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (n, size) in [(35 << 20) + 512, 50 << 10].into_iter().enumerate() {
        std::fs::write(path.join("guest.raw"), guest(size, n as u64)).unwrap();
        for subformat in [
            "monolithicSparse",
            "streamOptimized",
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
        ] {
            let option = format!("subformat={subformat}");
            let args = [
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &option,
                "guest.raw",
                "x.vmdk",
            ];
            qemu_convert(&args, path);
            let progress = Progress::default();
            let source: Arc<dyn Source> = Arc::new(load(&path.join("x.vmdk")));
            let found = check(&source, &within(path), &progress).unwrap();
            assert_eq!(found.problems, [], "{subformat}");
            assert!(found.is_clean());
            assert_eq!(progress.done(), progress.total());
            if !subformat.ends_with("Flat") {
                assert!(found.allocated_units > 0);
                assert_eq!(found.total_units, size.div_ceil(64 << 10) as u64);
                assert_eq!(found.fragmented_units, 0, "{subformat}");
            }
            let is_packed = subformat == "streamOptimized";
            assert_eq!(found.compressed_units > 0, is_packed, "{subformat}");
        }
    }
}

#[test]
fn what_we_write_and_the_corpus_is_clean() {
    let guest = guest(40 << 20, 77);
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let image = write(&guest, &[("subformat", subformat)], 3);
        let found = checked(&image);
        assert_eq!(found.problems, [], "{subformat}");
        assert!(found.end_offset <= image.len() as u64 && found.end_offset > 1 << 20);
    }
    let Some(corpus) = corpus() else { return };
    for (name, row) in manifest(&corpus) {
        if row["expect"] != "ok" {
            continue;
        }
        let path = corpus.join(&name);
        let found = check_with(&load(&path), &within(path.parent().unwrap())).unwrap();
        let bad = found
            .problems
            .iter()
            .any(|p| p.kind == ProblemKind::Corruption);
        assert!(!bad, "{name}: {:?}", found.problems);
    }
}

/// A disk of two tables and three grains, with the places of its tables: `[copy, first]`.
fn sparse() -> (Vec<u8>, [usize; 2]) {
    let mut guest = vec![0; 40 << 20];
    for at in [0, 5 << 20, 39 << 20] {
        guest[at..at + 70].fill(9);
    }
    let image = write(&guest, &[], 1);
    let table = |field: usize| le32(&image, le32(&image, field) * 512) * 512;
    let tables = [table(48), table(56)];
    (image, tables)
}

/// What it is, the words put in place, and what is told of it.
type Damage = (&'static str, Vec<(usize, u32)>, &'static str);

#[test]
fn each_contradiction_is_told() {
    let (good, [copy, table]) = sparse();
    assert_eq!(checked(&good).problems, []);
    assert_eq!(checked(&good).allocated_units, 3);
    let grain = le32(&good, table) as u32;
    let directory = le32(&good, 56) * 512;
    let middle = table + 80 * 4;
    let cases: [Damage; 9] = [
        (
            "out of file",
            vec![(table, 0x00ff_0000), (copy, 0x00ff_0000)],
            "past the end",
        ),
        (
            "twice",
            vec![(middle, grain), (copy + 80 * 4, grain)],
            "two structures",
        ),
        (
            "in part",
            vec![(middle, grain + 64), (copy + 80 * 4, grain + 64)],
            "two structures",
        ),
        (
            "in the header",
            vec![(middle, 2), (copy + 80 * 4, 2)],
            "two structures",
        ),
        ("zeroed", vec![(table, 1), (copy, 1)], "zeroed grain"),
        (
            "copy differs",
            vec![(copy, grain + 128)],
            "differs from the first in 1 entries",
        ),
        (
            "table out of file",
            vec![(directory, 0x00ff_0000)],
            "past the end",
        ),
        (
            "table twice",
            vec![(directory + 4, le32(&good, directory) as u32)],
            "overlaps another",
        ),
        (
            "directory out of file",
            vec![(56, 0x00ff_0000)],
            "past the end",
        ),
    ];
    for (what, changes, says) in cases {
        let mut bad = good.clone();
        for (at, value) in changes {
            put(&mut bad, at, value);
        }
        let found = checked(&bad);
        assert!(found.corruptions > 0, "{what}");
        let told: Vec<_> = found.problems.iter().map(|p| p.message.as_str()).collect();
        assert!(told.iter().any(|m| m.contains(says)), "{what}: {told:?}");
    }
    let text = with_text(&good, "RW 81920 SPARSE", "RW 81900 SPARSE");
    assert_eq!(checked(&text).corruptions, 0, "within a grain");
    let text = with_text(&good, "RW 81920 SPARSE", "RW 80000 SPARSE");
    assert_eq!(checked(&text).corruptions, 1);

    // A grain that no table names any more is lost, not wrong.
    let mut lost = good.clone();
    put(&mut lost, table, 0);
    put(&mut lost, copy, 0);
    let found = checked(&lost);
    assert_eq!(
        (found.corruptions, found.leaks, found.leaked_bytes),
        (0, 1, 65536)
    );
    let mut longer = good;
    longer.extend([0; 128 << 10]);
    assert_eq!(checked(&longer).leaked_bytes, 128 << 10);
}

fn with_text(image: &[u8], old: &str, new: &str) -> Vec<u8> {
    let at = image
        .windows(old.len())
        .position(|w| w == old.as_bytes())
        .unwrap();
    let mut image = image.to_vec();
    image[at..at + new.len()].copy_from_slice(new.as_bytes());
    image
}

#[test]
fn compressed_grains_are_opened_and_streams_have_an_end() {
    let guest = guest(3 << 20, 3);
    let good = write(&guest, &[("subformat", "streamOptimized")], 1);
    assert_eq!(checked(&good).problems, []);
    let first = 128 * 512;
    for (at, says) in [
        (first, "says it is for guest sector"),
        (first + 10, "allowed 1 to"),
        (first + 60, "at sector 0x80"),
        (good.len() - 1, "end-of-stream"),
        (good.len() - 1024 + 12, "footer"),
        (good.len() - 1536 + 12, "footer marker"),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        let found = checked(&bad);
        assert_eq!(found.corruptions, 1, "{at:#x}: {:?}", found.problems);
        let problem = &found.problems[0];
        let told = format!("{}: {}", problem.place, problem.message);
        assert!(told.contains(says), "{at:#x}: {told}");
    }
    for cut in [1, 512, 1024, 5000] {
        assert!(checked(&good[..good.len() - cut]).corruptions > 0, "{cut}");
    }
}

#[test]
fn qemu_img_and_we_agree_on_damaged_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (good, [copy, table]) = sparse();
    let mut chance = Chance(6);
    for n in 0..60 {
        let mut image = good.clone();
        let entry = [0, 80, chance.below(512) as usize][n % 3] * 4;
        let sectors = good.len() as u64 / 512;
        // Far outside, or in place of what was there.
        let value = match n % 2 {
            0 => (sectors + 1 + chance.below(1 << 20)) as u32,
            _ => le32(&good, table + entry) as u32,
        };
        put(&mut image, table + entry, value);
        put(&mut image, copy + entry, value);
        std::fs::write(folder.path().join("x.vmdk"), &image).unwrap();
        let theirs = qemu_img(&["check", "-f", "vmdk", "x.vmdk"], folder.path());
        let ours = checked(&image);
        assert_eq!(theirs.status.success(), ours.corruptions == 0, "{n}");
    }
}

#[test]
fn parents_and_extent_files_are_held_to_what_is_said_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("guest.raw"), guest(2 << 20, 4)).unwrap();
    let split = [
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=twoGbMaxExtentSparse",
    ];
    qemu_convert(&[&split[..], &["guest.raw", "base.vmdk"]].concat(), path);
    let args = [
        "create",
        "-f",
        "vmdk",
        "-b",
        "base.vmdk",
        "-F",
        "vmdk",
        "top.vmdk",
    ];
    assert!(qemu_img(&args, path).status.success());
    let (top, base) = (load(&path.join("top.vmdk")), load(&path.join("base.vmdk")));
    assert_eq!(check_with(&top, &within(path)).unwrap().problems, []);
    // Without permission the parent is nobody's business.
    assert_eq!(checked(&top).problems, []);
    let error = check_with(&base, &alone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");

    let text = String::from_utf8(base.clone()).unwrap();
    let cid = text.lines().find(|l| l.starts_with("CID=")).unwrap();
    std::fs::write(path.join("base.vmdk"), text.replace(cid, "CID=00abcdef")).unwrap();
    let found = check_with(&top, &within(path)).unwrap();
    assert_eq!(found.corruptions, 1);
    assert!(
        found.problems[0].message.contains("00abcdef"),
        "{:?}",
        found.problems
    );

    let mut extent = load(&path.join("base-s001.vmdk"));
    let table = le32(&extent, le32(&extent, 56) * 512) * 512;
    put(&mut extent, table, 0x00ff_0000);
    std::fs::write(path.join("base-s001.vmdk"), &extent).unwrap();
    let found = check_with(&base, &within(path)).unwrap();
    assert!(found.corruptions >= 1);
    assert!(
        found.problems[0].place.contains("base-s001.vmdk"),
        "{:?}",
        found.problems
    );
}

/// A file that is all hole but for a few pieces: no memory for what is not there.
struct Holes {
    len: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Source for Holes {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: formats::HostOffset) -> Result<()> {
        assert!(at.0 + buf.len() as u64 <= self.len);
        buf.fill(0);
        for (n, byte) in (at.0..).zip(buf) {
            for (start, piece) in &self.pieces {
                if let Some(there) = n.checked_sub(*start).and_then(|i| piece.get(i as usize)) {
                    *byte = *there;
                }
            }
        }
        Ok(())
    }

    fn next_data(&self, from: formats::HostOffset) -> Result<Option<Range<formats::HostOffset>>> {
        let next = self.pieces.iter().find_map(|(start, piece)| {
            let end = start + piece.len() as u64;
            (end > from.0)
                .then(|| formats::HostOffset(from.0.max(*start))..formats::HostOffset(end))
        });
        Ok(next)
    }
}

#[test]
fn an_empty_disk_of_eight_tib_is_checked_by_its_holes() {
    // What a writer puts into an empty one: header, descriptor, both directories.
    let image = write(&vec![0; 512], &[], 1);
    let tables = (8u64 << 40) / (32 << 20);
    let directory = tables * 4 / 512;
    let mut header = image[..512].to_vec();
    let first = [21, 21 + directory + tables * 4];
    let overhead = (first[1] + directory + tables * 4).next_multiple_of(128);
    header[12..20].copy_from_slice(&((8u64 << 40) / 512).to_le_bytes());
    header[48..56].copy_from_slice(&first[0].to_le_bytes());
    header[56..64].copy_from_slice(&first[1].to_le_bytes());
    header[64..72].copy_from_slice(&overhead.to_le_bytes());
    let text = String::from_utf8(image[512..512 * 21].to_vec()).unwrap();
    let text = text.replace("RW 1 SPARSE", &format!("RW {} SPARSE", (8u64 << 40) / 512));
    let mut pieces = vec![(0, header), (512, text.into_bytes())];
    for at in first {
        let words = (0..tables).flat_map(|n| ((at + directory + n * 4) as u32).to_le_bytes());
        pieces.push((at * 512, words.collect()));
    }
    let len = overhead * 512;
    let source: Arc<dyn Source> = Arc::new(Holes { len, pieces });
    let found = check(&source, &alone(), &Progress::default()).unwrap();
    assert_eq!(found.problems, []);
    assert_eq!((found.allocated_units, found.total_units), (0, 1 << 27));
}
