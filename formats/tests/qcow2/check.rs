//! Checking and repairing, beside qemu-img.

use std::fs::{File, OpenOptions as FileOptions};

use formats::FileSink;
use formats::check::Check;
use formats::qcow2::{Repair, repair};

use super::*;

/// What we find in the file at `path`.
fn check(path: &Path) -> Result<Check> {
    formats::check::check(&source(path)?, &options(Never), &Progress::default())
}

/// What qemu-img finds; `None` when it cannot open the image.
fn theirs(folder: &Path, name: &str) -> Option<serde_json::Value> {
    let output = Command::new("qemu-img")
        .args(["check", "-f", "qcow2", "--output=json", name])
        .current_dir(folder)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

/// The two agree on `name` in all that is counted.
#[track_caller]
fn agree(folder: &Path, name: &str, what: &str) -> Check {
    let ours = check(&folder.join(name)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let theirs = theirs(folder, name).unwrap_or_else(|| panic!("{what}: qemu-img gave up"));
    let count = |key: &str| theirs[key].as_u64().unwrap_or(0);
    let expected = [
        ("corruptions", ours.corruptions),
        ("leaks", ours.leaks),
        ("allocated-clusters", ours.allocated_units),
        ("total-clusters", ours.total_units),
        ("compressed-clusters", ours.compressed_units),
        ("fragmented-clusters", ours.fragmented_units),
        ("image-end-offset", ours.end_offset),
    ];
    for (key, value) in expected {
        assert_eq!(
            value,
            count(key),
            "{what}, {key}: {theirs} {:#?}",
            ours.problems
        );
    }
    assert_eq!(count("check-errors"), 0, "{what}");
    ours
}

/// Small images of every kind, with their names.
fn images(folder: &Path) -> Vec<String> {
    let guest = guest(2 * MIB, 51);
    std::fs::write(folder.join("guest.raw"), &guest).unwrap();
    let mut names = Vec::new();
    for (n, (options, is_compressed)) in [
        ("cluster_size=4k", false),
        ("cluster_size=512", true),
        ("compat=0.10", true),
        ("refcount_bits=1,cluster_size=1k", false),
        ("refcount_bits=4,cluster_size=1k", true),
        ("refcount_bits=64,cluster_size=2k", false),
        ("extended_l2=on,cluster_size=16k", false),
        (
            "extended_l2=on,cluster_size=16k,compression_type=zstd",
            true,
        ),
        ("preallocation=metadata", false),
        ("lazy_refcounts=on,cluster_size=2M", false),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("image{n}");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        if is_compressed {
            args.push("-c");
        }
        args.extend(["guest.raw", &name]);
        qemu_img(folder, &args);
        names.push(name);
    }
    for (name, options) in [
        ("snapshots", "cluster_size=4k"),
        ("old", "cluster_size=1k,compat=0.10"),
        ("bits", "extended_l2=on,cluster_size=16k,refcount_bits=8"),
    ] {
        let create = ["create", "-f", "qcow2", "-o", options, name, "2M"];
        qemu_img(folder, &create);
        for state in 0..3 {
            for command in [
                format!("write -P {} {}k 300k", state + 1, 200 * state),
                format!("write -z {}k 64k", 150 * state + 64),
                format!("discard {}k 64k", 170 * state),
            ] {
                run("qemu-io", folder, &["-f", "qcow2", "-c", &command, name]);
            }
            qemu_img(folder, &["snapshot", "-c", &format!("s{state}"), name]);
        }
        run(
            "qemu-io",
            folder,
            &["-f", "qcow2", "-c", "write -P 9 1M 10k", name],
        );
        if name != "old" {
            qemu_img(folder, &["bitmap", "--add", "-g", "4k", name, "bits"]);
            qemu_img(folder, &["bitmap", "--add", name, "more"]);
            run(
                "qemu-io",
                folder,
                &["-f", "qcow2", "-c", "write -P 8 0 1M", name],
            );
        }
        names.push(name.to_owned());
    }
    names
}

#[test]
fn sound_images_are_counted_as_qemu_img_counts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in images(at) {
        let check = agree(at, &name, &name);
        assert!(check.is_clean(), "{name}: {check:?}");
    }
    for (pairs, compress) in [
        (&[("cluster_size", "512"), ("refcount_bits", "1")][..], true),
        (&[("extended_l2", "on"), ("refcount_bits", "64")], true),
        (
            &[("preallocation", "metadata"), ("refcount_bits", "2")],
            false,
        ),
    ] {
        std::fs::write(
            at.join("ours"),
            write(&guest(2 * MIB, 52), pairs, compress, 2),
        )
        .unwrap();
        let check = agree(at, "ours", &format!("{pairs:?}"));
        assert!(check.is_clean(), "{pairs:?}: {check:?}");
    }
}

#[test]
fn an_external_data_file_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("guest.raw"), guest(MIB, 53)).unwrap();
    let data = "data_file=data,data_file_raw=on";
    let convert = [
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        data,
        "guest.raw",
        "image",
    ];
    qemu_img(at, &convert);
    assert!(agree(at, "image", "data file").is_clean());
}

/// A table of an image: where it begins, its bytes in use.
fn tables(image: &[u8]) -> Vec<(usize, usize)> {
    let number = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let cluster = 1 << image[23];
    let offset = |at: usize| (number(at) & 0x00ff_ffff_ffff_fe00) as usize;
    let l1 = number(40) as usize;
    let l1_len = 8 * u32::from_be_bytes(image[36..40].try_into().unwrap()) as usize;
    let refcounts = number(48) as usize;
    let mut all = vec![(l1, l1_len), (refcounts, 16)];
    all.extend((0..l1_len / 8).map(|n| (offset(l1 + 8 * n), cluster)));
    all.extend((0..2).map(|n| (offset(refcounts + 8 * n), cluster.min(2048))));
    all.retain(|(at, _)| *at > 0);
    all
}

/// Changes a byte or two of the tables, or of the last refcount block alone.
fn damage(image: &mut [u8], noise: &mut Noise, is_any: bool) -> String {
    let mut tables = tables(image);
    if !is_any {
        tables.drain(..tables.len() - 1);
    }
    let mut done = String::new();
    for _ in 0..=noise.below(2) {
        let (table, len) = tables[noise.below(tables.len())];
        let at = (table + noise.below(len)).min(image.len() - 1);
        let old = image[at];
        image[at] = match noise.below(4) {
            0 => 0,
            1 => image[table + noise.below(len.min(64))],
            _ => old ^ 1 << noise.below(8),
        };
        done.push_str(&format!("{at:#x}: {old:#x} to {:#x}; ", image[at]));
    }
    done
}

#[test]
fn damage_is_counted_as_qemu_img_counts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut noise = Noise(77);
    let (mut same, mut wrong) = (0, 0);
    for name in images(at) {
        let image = std::fs::read(at.join(&name)).unwrap();
        for _ in 0..16 {
            let mut broken = image.clone();
            let what = format!("{name}: {}", damage(&mut broken, &mut noise, true));
            std::fs::write(at.join("broken"), &broken).unwrap();
            let Some(theirs) = theirs(at, "broken") else {
                // What it does not open has no sound header, names or L1 table.
                continue;
            };
            let ours = check(&at.join("broken")).unwrap_or_else(|e| panic!("{what}: {e}"));
            let count = |key: &str| theirs[key].as_u64().unwrap_or(0);
            let is_wrong = count("corruptions") + count("check-errors") + count("leaks") > 0;
            assert_eq!(!ours.is_clean(), is_wrong, "{what}: {theirs} {ours:#?}");
            wrong += u32::from(is_wrong);
            if is_ours_alone(&ours) {
                continue;
            }
            let found = [
                ("corruptions", ours.corruptions),
                ("leaks", ours.leaks),
                ("allocated-clusters", ours.allocated_units),
                ("compressed-clusters", ours.compressed_units),
                ("fragmented-clusters", ours.fragmented_units),
                ("image-end-offset", ours.end_offset),
            ];
            for (key, value) in found {
                assert_eq!(value, count(key), "{what}, {key}: {theirs} {ours:#?}");
            }
            same += 1;
        }
    }
    assert!(same > 150 && wrong > 100, "{same} {wrong}");
}

/// What reading refuses is told, and what is in use is no leak.
#[test]
fn compressed_clusters_at_the_end_are_held_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("guest.raw"), guest(2 * MIB, 5)).unwrap();
    let args = ["convert", "-c", "-O", "qcow2", "guest.raw", "sound"];
    qemu_img(at, &args);
    let sound = std::fs::read(at.join("sound")).unwrap();
    let end = sound.len();
    let mut told = 0;
    // Within the last sector, beyond it, in another cluster, at the border of one.
    for len in [end, end - 1, end - 600, end - 5000, end & !0xffff] {
        std::fs::write(at.join("cut"), &sound[..len]).unwrap();
        let found = check(&at.join("cut")).unwrap();
        let is_refused = inspect(&sound[..len]).verdict() != Verdict::Safe;
        assert_eq!(found.corruptions > 0, is_refused, "{len}: {found:#?}");
        told += u32::from(is_refused);
        let leaks = theirs(at, "cut").unwrap()["leaks"].as_u64().unwrap_or(0);
        assert_eq!(found.leaks, leaks, "{len}: {found:#?}");
    }
    assert!(told >= 2, "{told}");
}

/// Damage that qemu-img counts differently: it takes an L1 entry without an offset to point to
/// the header, and reads an L2 table from between two clusters.
fn is_ours_alone(check: &Check) -> bool {
    check.problems.iter().any(|p| {
        p.place.starts_with("L1 table")
            && (p.message.ends_with("has no offset") || p.message.ends_with("between two clusters"))
    })
}

/// Repairs the file at `path`.
fn repaired(path: &Path, what: Repair) -> Result<Check> {
    let file = FileOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let sink = FileSink::new(file);
    let source: Arc<dyn Source> = Arc::new(FileSource::new(File::open(path).unwrap())?);
    repair(&source, &sink, what, &Progress::default())
}

#[test]
fn what_is_repaired_is_sound_and_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut noise = Noise(78);
    let mut mended = 0;
    for name in images(at) {
        let image = std::fs::read(at.join(&name)).unwrap();
        for n in 0..8 {
            let mut broken = image.clone();
            let what = format!("{name}: {}", damage(&mut broken, &mut noise, n % 2 == 0));
            std::fs::write(at.join("broken"), &broken).unwrap();
            let (Some(_), Ok(before)) = (theirs(at, "broken"), check(&at.join("broken"))) else {
                continue;
            };
            let read = |name: &str| {
                let disk = formats::open(source(&at.join(name)).unwrap(), &options(Never));
                disk.and_then(|disk| content(disk.as_ref(), MIB)).ok()
            };
            let guest = read("broken");
            let mode = if n % 3 == 0 {
                Repair::Leaks
            } else {
                Repair::All
            };
            let after =
                repaired(&at.join("broken"), mode).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(read("broken"), guest, "{what}: the guest's bytes");
            let left = (after.corruptions, after.leaks);
            assert!(
                left <= (before.corruptions, before.leaks),
                "{what}: {after:?}"
            );
            let now = agree_mostly(at, &after, &what);
            if mode == Repair::All {
                assert_eq!(after.leaks, 0, "{what}: {after:?}");
                // The same repair, by qemu-img.
                std::fs::write(at.join("peer"), &broken).unwrap();
                let peer = ["check", "-r", "all", "-f", "qcow2", "peer"];
                Command::new("qemu-img")
                    .args(peer)
                    .current_dir(at)
                    .output()
                    .unwrap();
                let peer =
                    theirs(at, "peer").map_or(u64::MAX, |t| t["corruptions"].as_u64().unwrap_or(0));
                assert!(
                    now <= peer || is_ours_alone(&after),
                    "{what}: we leave {now}, qemu-img {peer}: {after:?}"
                );
                mended += u32::from(!before.is_clean() && after.is_clean());
            }
        }
    }
    assert!(mended > 12, "{mended}");
}

/// qemu-img finds nothing wrong in "broken" where `after` says so; gives its corruptions.
fn agree_mostly(folder: &Path, after: &Check, what: &str) -> u64 {
    let theirs = theirs(folder, "broken").unwrap_or_else(|| panic!("{what}: cannot be opened"));
    let count = |key: &str| theirs[key].as_u64().unwrap_or(0);
    if after.is_clean() {
        let left = count("corruptions") + count("leaks") + count("check-errors");
        assert_eq!(left, 0, "{what}: {theirs}");
    }
    count("corruptions")
}
