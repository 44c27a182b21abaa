//! Checking: sound images are clean, and each kind of damage is found.

use super::differencing::{
    Layer, Names, Shelf, base, random_guest, vdi_child, vhd_child, vhdx_child,
};
use super::*;

use formats::check::{Check, ProblemKind, check};

pub(crate) fn checked(file: &[u8], format: Format) -> formats::Result<Check> {
    let source: Arc<dyn Source> = Arc::new(file.to_vec());
    check(&source, &options(format), &Progress::default())
}

const MIB: usize = 1 << 20;

/// Two blocks of data in a disk of five, and the byte of the table's entry of block 1.
fn image(format: Format) -> (Vec<u8>, usize) {
    let mut guest = vec![0; 10 * MIB];
    guest[5 * MIB..7 * MIB].fill(7);
    let (pairs, table): (&[_], _) = match format {
        Format::Vhd => (&[("force_size", "on")], 1536),
        Format::Vhdx => (&[("block_size", "2M")], 3 * MIB),
        _ => (&[], 512),
    };
    (base(format, pairs, &guest), table)
}

/// The message of the first problem, and its kind.
fn first(file: &[u8], format: Format) -> (ProblemKind, String) {
    let found = checked(file, format).unwrap();
    assert!(!found.is_clean());
    assert!(found.problems.iter().all(|p| !p.place.is_empty()));
    let problem = &found.problems[0];
    (
        problem.kind,
        format!("{}: {}", problem.place, problem.message),
    )
}

#[test]
fn sound_images_are_clean() {
    for (format, allocated, total) in [
        (Format::Vhd, 2, 5),
        (Format::Vhdx, 2, 5),
        (Format::Vdi, 2, 10),
    ] {
        let (file, _) = image(format);
        let found = checked(&file, format).unwrap();
        assert!(found.is_clean(), "{format}: {:?}", found.problems);
        assert_eq!(
            (found.allocated_units, found.total_units),
            (allocated, total)
        );
        assert_eq!(
            (found.fragmented_units, found.end_offset),
            (0, file.len() as u64)
        );
    }
    for (driver, format, option) in witness::OPTIONS {
        let dir = tempfile::tempdir().unwrap();
        let [raw, image] = ["raw", "image"].map(|name| dir.path().join(name));
        random_raw(&raw, 9 << 20, 5);
        let args = ["convert", "-f", "raw", "-O", driver, "-o", option];
        qemu_img(&args, &[&raw, &image]);
        let found = check(&source(&image), &options(*format), &Progress::default()).unwrap();
        assert!(found.is_clean(), "{driver} {option}: {:?}", found.problems);
    }
}

#[test]
fn checking_is_cancelled_and_counts() {
    let (file, _) = image(Format::Vhdx);
    let source: Arc<dyn Source> = Arc::new(file);
    let progress = Progress::default();
    check(&source, &options(Format::Vhdx), &progress).unwrap();
    assert_eq!((progress.done(), progress.total()), (40, 40));
    progress.cancel();
    let e = check(&source, &options(Format::Vhdx), &progress).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let e = check(&source, &options(Format::Raw), &progress).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
}

#[test]
fn damage_to_vhd_is_told() {
    let (file, table) = image(Format::Vhd);
    let entry = |n: usize| table + n * 4..table + n * 4 + 4;
    let with = |n: usize, sector: u32| {
        let mut bad = file.clone();
        bad[entry(n)].copy_from_slice(&sector.to_be_bytes());
        first(&bad, Format::Vhd)
    };
    let block = u32::from_be_bytes(file[entry(2)].try_into().unwrap());
    let corrupt = |(kind, message): (ProblemKind, String), part: &str| {
        assert_eq!(kind, ProblemKind::Corruption, "{message}");
        assert!(message.contains(part), "{message}");
    };
    corrupt(with(1, block), "overlap");
    corrupt(with(1, block + 100), "overlap");
    corrupt(with(1, 0), "sector 0");
    corrupt(with(1, 1), "over the dynamic header");
    corrupt(with(1, 0x7fff_ffff), "the file ends");
    corrupt(with(3, (file.len() / 512 - 4097) as u32), "over the footer");
    let (kind, message) = with(2, u32::MAX);
    assert_eq!(kind, ProblemKind::Leak, "{message}");
    let mut bad = file.clone();
    bad[100] ^= 1;
    corrupt(first(&bad, Format::Vhd), "footer copy at byte 0");
    bad[file.len() - 400] ^= 1;
    assert!(checked(&bad, Format::Vhd).is_err());
    let found = checked(&file[..file.len() - 512], Format::Vhd).unwrap();
    assert_eq!(found.corruptions, 1, "{:?}", found.problems);
    // Bytes between a fixed disk and its footer.
    let mut fixed = base(Format::Vhd, &[("subformat", "fixed")], &vec![1; MIB]);
    assert!(checked(&fixed, Format::Vhd).unwrap().is_clean());
    let footer = fixed.len() - 512;
    fixed.splice(footer..footer, [0; 4096]);
    let found = checked(&fixed, Format::Vhd).unwrap();
    assert_eq!((found.leaks, found.leaked_bytes), (1, 4096));
}

#[test]
fn damage_to_vhdx_is_told() {
    let (file, table) = image(Format::Vhdx);
    let entry = |n: usize| table + n * 8..table + n * 8 + 8;
    let with = |n: usize, value: u64| {
        let mut bad = file.clone();
        bad[entry(n)].copy_from_slice(&value.to_le_bytes());
        first(&bad, Format::Vhdx)
    };
    let block = u64::from_le_bytes(file[entry(2)].try_into().unwrap());
    let corrupt = |(kind, message): (ProblemKind, String), part: &str| {
        assert_eq!(kind, ProblemKind::Corruption, "{message}");
        assert!(message.contains(part), "{message}");
    };
    corrupt(with(1, block), "where something else is");
    corrupt(with(1, block + MIB as u64), "where something else is");
    corrupt(with(1, (2 * MIB as u64) | 6), "inside the structures");
    corrupt(with(1, (1 << 40) | 6), "the file ends");
    corrupt(with(2, block | 0x1000), "reserved bits");
    corrupt(with(1, block | 7), "state 7");
    let (kind, message) = with(3, 0);
    assert_eq!(kind, ProblemKind::Leak, "{message}");
    // Set aside for a block that was discarded: no leak.
    let mut kept = file.clone();
    kept[entry(3)].copy_from_slice(&(block + 2 * MIB as u64 - 3).to_le_bytes());
    assert!(checked(&kept, Format::Vhdx).unwrap().is_clean());
    for (at, part) in [(65536 + 99, "header 1"), (262_144 + 99, "region table 2")] {
        let mut bad = file.clone();
        bad[at] ^= 1;
        corrupt(first(&bad, Format::Vhdx), part);
    }
}

#[test]
fn damage_to_vdi_is_told() {
    let (file, table) = image(Format::Vdi);
    let with = |n: usize, slot: u32| {
        let mut bad = file.clone();
        bad[table + n * 4..table + n * 4 + 4].copy_from_slice(&slot.to_le_bytes());
        let found = checked(&bad, Format::Vdi).unwrap();
        let messages: Vec<_> = found.problems.into_iter().map(|p| p.message).collect();
        (found.corruptions, found.leaks, messages.join("; "))
    };
    let holds = |(corruptions, leaks, message): (u64, u64, String), expected, part: &str| {
        assert_eq!((corruptions, leaks), expected, "{message}");
        assert!(message.contains(part), "{message}");
    };
    holds(with(1, 0), (2, 0), "another block's too");
    holds(with(1, 9), (2, 0), "the file ends");
    holds(with(1, 10), (1, 0), "10 slots");
    holds(with(5, u32::MAX), (1, 1), "slots 0 to 0 hold no block");
    holds(with(6, u32::MAX - 1), (1, 1), "blocks allocated is 2");
}

/// qemu-img checks vdi and vhdx: whatever it finds is found here, and nothing else in vdi.
#[test]
fn qemu_img_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut random = Random(11);
    for (format, len) in [(Format::Vdi, 4), (Format::Vhdx, 8)] {
        let (file, table) = image(format);
        for n in 0..16 {
            let mut bad = file.clone();
            let at = table + random.below(5) as usize * len;
            let value = match (format, n % 4) {
                (Format::Vdi, 0) => u64::from(u32::MAX),
                (Format::Vdi, _) => random.below(12),
                (_, 0) => random.below(4),
                _ => (random.below(12) << 20) | 6,
            };
            bad[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            std::fs::write(&path, &bad).unwrap();
            let args = ["check", "-q", "-f", format.name()];
            let out = Command::new("qemu-img")
                .args(args)
                .arg(&path)
                .output()
                .unwrap();
            let corruptions = checked(&bad, format).unwrap().corruptions;
            let said = format!("{format} {at:#x} {value:#x}: {corruptions}, {out:?}");
            if format == Format::Vdi || !out.status.success() {
                assert_eq!(out.status.success(), corruptions == 0, "{said}");
            }
        }
    }
}

/// A child alone is checked by itself; a granted parent must be the one meant.
#[test]
fn parents_are_held_against_their_children() {
    let mut random = Random(3);
    let guest = random_guest(4 * MIB, &mut random);
    let layer = Layer::random(4 * MIB, 512, MIB, &mut random);
    let shown = layer.over(&guest, MIB);
    let uuid = "31313131-3131-3131-3131-313131313131";
    let who = |format| Names {
        id: [0x32; 16],
        parent: [0x31; 16],
        names: match format {
            Format::Vhd => vec![("W2ru", "base".to_owned())],
            _ => vec![
                ("relative_path", "base".to_owned()),
                ("parent_linkage", format!("{{{uuid}}}")),
            ],
        },
    };
    for format in [Format::Vhd, Format::Vhdx, Format::Vdi] {
        let child = match format {
            Format::Vhd => vhd_child(&layer, MIB, &who(format)),
            Format::Vhdx => vhdx_child(&layer, MIB, 512, &who(format)),
            _ => vdi_child(&layer, &shown, MIB, 4, &who(format)),
        };
        let [right, wrong] = [uuid, "41414141-4141-4141-4141-414141414141"]
            .map(|uuid| base(format, &[("uuid", uuid)], &guest));
        for (parent, expected) in [(None, 0), (Some(right), 0), (Some(wrong), 1)] {
            let files = parent
                .iter()
                .flat_map(|file| ["base", uuid].map(|n| (n, file.as_slice())));
            let options = OpenOptions {
                resolver: Arc::new(Shelf::of(&files.collect::<Vec<_>>())),
                ..options(format)
            };
            let source: Arc<dyn Source> = Arc::new(child.clone());
            let found = check(&source, &options, &Progress::default()).unwrap();
            assert_eq!(
                found.corruptions, expected,
                "{format}: {:?}",
                found.problems
            );
            assert_eq!(found.leaks, 0, "{format}: {:?}", found.problems);
        }
    }
    // A block stored in part whose bitmap is missing.
    let mut child = vhdx_child(&layer, MIB, 512, &who(Format::Vhdx));
    let slot = 3 * MIB + 4096 * 8;
    child[slot..slot + 8].fill(0);
    let (kind, message) = first(&child, Format::Vhdx);
    assert_eq!(kind, ProblemKind::Corruption);
    assert!(message.contains("no sector bitmap"), "{message}");
}
