//! Options of the writers together: of each format enough images that every value of an option
//! meets every value of every other that it goes with. Each is read back here and, where it knows
//! the format, by qemu-img.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use formats::check::check;
use formats::copy::{CopyOptions, Progress, copy};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, FileSink, FileSource, Format, GuestOffset, OpenOptions, Parts, Passphrase,
    Result, Sink, Source, create, open, qcow2,
};

/// An option and its values; `-` leaves it out.
type Axis = (&'static str, &'static [&'static str]);
/// An option and its value.
type Pair = (&'static str, &'static str);

/// Not options, but chosen like them: `-c`, and encryption.
const COMPRESS: &str = "-c";
const ENCRYPT: &str = "encrypt";
const PASSPHRASE: &str = "open sesame";

const AXES: &[(Format, &str, &[Axis])] = &[
    (
        Format::Raw,
        "raw",
        &[("preallocation", &["-", "off", "falloc", "full"])],
    ),
    (
        Format::Qcow2,
        "qcow2",
        &[
            ("compat", &["0.10", "1.1"]),
            ("cluster_size", &["512", "4k", "64k", "2M"]),
            ("extended_l2", &["off", "on"]),
            ("refcount_bits", &["1", "2", "4", "8", "16", "32", "64"]),
            ("preallocation", &["off", "metadata", "falloc", "full"]),
            ("lazy_refcounts", &["off", "on"]),
            ("compression_type", &["-", "zlib", "zstd"]),
            (COMPRESS, &["off", "on"]),
            (ENCRYPT, &["off", "on"]),
        ],
    ),
    (
        Format::Vhd,
        "vpc",
        &[
            ("subformat", &["-", "dynamic", "fixed"]),
            ("force_size", &["-", "off", "on"]),
            ("profile", &["-", "azure"]),
        ],
    ),
    (
        Format::Vhdx,
        "vhdx",
        &[
            ("subformat", &["dynamic", "fixed"]),
            ("block_size", &["0", "1M", "8M", "32M"]),
            ("log_size", &["1M", "3M"]),
            ("logical_sector_size", &["512", "4096"]),
            ("physical_sector_size", &["512", "4096"]),
            ("block_state_zero", &["off", "on"]),
        ],
    ),
    (
        Format::Vmdk,
        "vmdk",
        &[
            (
                "subformat",
                &[
                    "monolithicSparse",
                    "streamOptimized",
                    "monolithicFlat",
                    "twoGbMaxExtentSparse",
                    "twoGbMaxExtentFlat",
                ],
            ),
            (
                "adapter_type",
                &["ide", "buslogic", "lsilogic", "legacyESX"],
            ),
            ("hwversion", &["-", "4", "21"]),
            ("compat6", &["-", "on", "off"]),
            ("zeroed_grain", &["off", "on"]),
            ("compression_level", &["1", "12"]),
        ],
    ),
    (Format::Vdi, "vdi", &[("static", &["-", "off", "on"])]),
];

/// The rows that together have every pair of values that some row has.
fn covering(axes: &[Axis], is_possible: impl Fn(&[Pair]) -> bool) -> Vec<Vec<Pair>> {
    let mut rows: Vec<Vec<Pair>> = vec![Vec::new()];
    for (key, values) in axes {
        let longer = |row: &Vec<Pair>| {
            let row = row.clone();
            values
                .iter()
                .map(move |v| [&row[..], &[(*key, *v)]].concat())
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    rows.retain(|row| is_possible(row));
    let pairs_of = |row: &[Pair]| -> Vec<(Pair, Pair)> {
        let at = |n: usize| row[n..].iter().map(move |b| (row[n], *b));
        (0..row.len()).flat_map(at).collect()
    };
    let mut left: HashSet<_> = rows.iter().flat_map(|row| pairs_of(row)).collect();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let gain = |row: &&Vec<Pair>| pairs_of(row).iter().filter(|p| left.contains(p)).count();
        let best = rows.iter().max_by_key(gain).expect("it has what is left");
        for pair in pairs_of(best) {
            left.remove(&pair);
        }
        chosen.push(best.clone());
    }
    chosen
}

/// Options out of a row; `None` where they do not go together.
fn options(format: Format, row: &[Pair]) -> Option<CreateOptions> {
    let is_option = |(key, value): &&Pair| ![COMPRESS, ENCRYPT].contains(key) && *value != "-";
    let pairs: Vec<_> = row
        .iter()
        .filter(is_option)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut options = CreateOptions::parse(format, &pairs, row.contains(&(COMPRESS, "on"))).ok()?;
    if let (CreateOptions::Qcow2(options), true) = (&mut options, row.contains(&(ENCRYPT, "on"))) {
        options.encryption = Some(qcow2::Encryption {
            passphrase: Passphrase::new(PASSPHRASE.as_bytes()).unwrap(),
            seed: [7; 32],
            iterations: 1000,
        });
    }
    create(&options, 1 << 20).is_ok().then_some(options)
}

/// Files of a folder, by their names.
struct Folder(std::path::PathBuf);

impl Resolver for Folder {
    fn resolve(&self, _: Format, _: Wanted, name: &str) -> Result<Granted> {
        Ok(Granted::alone(source(&self.0.join(name))))
    }
}

fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(FileSource::new(File::open(path).unwrap()).unwrap())
}

/// Data, zeros and a hole, of a length that is no multiple of a sector.
fn guest(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; (5 << 19) + 777];
    let len = bytes.len();
    let mut state = 1_u32;
    for at in (0..300_000).chain(len - 200_000..len) {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        // Half of it compresses.
        bytes[at] = if at / 10_000 % 2 == 0 {
            (state >> 16) as u8
        } else {
            (at / 999) as u8
        };
    }
    let file = File::create(path).unwrap();
    file.write_all_at(&bytes[..500_000], 0).unwrap();
    file.write_all_at(&bytes[len - 400_000..], (len - 400_000) as u64)
        .unwrap();
    bytes
}

/// Writes `disk` as `folder/image` and the files beside it; answers their bytes.
fn write(folder: &Path, disk: &dyn Disk, options: &CreateOptions, threads: usize) -> Vec<Vec<u8>> {
    let target = create(&options.clone().named("image"), disk.virtual_size()).unwrap();
    let parts = target.parts();
    let mut names: Vec<_> = parts.iter().map(|part| part.name.clone()).collect();
    if names.is_empty() {
        names.push("image".into());
    }
    let files: Vec<_> = names
        .iter()
        .map(|name| Arc::new(FileSink::new(File::create(folder.join(name)).unwrap())))
        .collect();
    let threads = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    let progress = Progress::default();
    let summary = match parts.is_empty() {
        true => copy(disk, target, files[0].as_ref(), &threads, &progress),
        false => {
            let ranges = parts.iter().map(|part| part.range.clone()).collect();
            let sink = Parts::new(ranges, |n| Ok(files[n].clone() as Arc<dyn Sink>));
            copy(disk, target, &sink, &threads, &progress)
        }
    };
    let read = |name: &String| std::fs::read(folder.join(name)).unwrap();
    let written: Vec<_> = names.iter().map(read).collect();
    let size: usize = written.iter().map(Vec::len).sum();
    assert_eq!(summary.unwrap().file_size, size as u64);
    written
}

/// qemu-img finds in `image` what is in `guest.raw`.
fn witnessed(folder: &Path, driver: &str, row: &[Pair]) {
    let mut image = format!("driver={driver},file.filename=image");
    let mut args = vec!["compare".to_owned()];
    if row.contains(&(ENCRYPT, "on")) {
        image += ",encrypt.format=luks,encrypt.key-secret=s";
        args.extend(["--object".into(), format!("secret,id=s,data={PASSPHRASE}")]);
    }
    let raw = "driver=raw,file.filename=guest.raw".to_owned();
    args.extend(["--image-opts".into(), image, raw]);
    let out = Command::new("qemu-img")
        .args(&args)
        .current_dir(folder)
        .output()
        .expect("qemu-img is installed");
    assert!(
        out.status.success(),
        "{driver} {row:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn values_of_any_two_options_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let guest = guest(&path.join("guest.raw"));
    let raw = formats::raw::Reader::new(source(&path.join("guest.raw"))).unwrap();
    for (format, driver, axes) in AXES {
        let rows = covering(axes, |row| options(*format, row).is_some());
        // Every value goes with something.
        for (key, value) in axes.iter().flat_map(|(k, vs)| vs.iter().map(|v| (*k, *v))) {
            assert!(
                rows.iter().any(|row| row.contains(&(key, value))),
                "{key}={value}"
            );
        }
        for row in rows {
            let what = format!("{format} {row:?}");
            let create = options(*format, &row).unwrap();
            let files = write(path, &raw, &create, 1);
            assert!(
                files == write(path, &raw, &create, 7),
                "{what}: threads show"
            );

            let reading = OpenOptions {
                format: Some(*format),
                resolver: Arc::new(Folder(path.to_owned())),
                passphrase: Some(Passphrase::new(PASSPHRASE.as_bytes()).unwrap()),
                ..OpenOptions::default()
            };
            let image = source(&path.join("image"));
            let disk = open(image.clone(), &reading).unwrap();
            let size = disk.virtual_size() as usize;
            assert!(size >= guest.len(), "{what}: {size}");
            let mut bytes = vec![1; size];
            disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
            assert!(bytes[..guest.len()] == guest, "{what}");
            assert!(bytes[guest.len()..].iter().all(|b| *b == 0), "{what}");
            if *format != Format::Raw {
                let found = check(&image, &reading, &Progress::default()).unwrap();
                assert!(found.is_clean(), "{what}: {found:?}");
            }
            // It opens no disks of 4096-byte sectors.
            if !row.contains(&("logical_sector_size", "4096")) {
                witnessed(path, driver, &row);
            }
        }
    }
}
