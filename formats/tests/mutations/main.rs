//! Ten thousand damaged inputs of each target: an answer or a named error within two seconds and
//! 256 MiB, never a panic, an abort, or what must not be true (see `support/exercise.rs`).

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use formats::{GuestOffset, OpenOptions, open};
use support::{Random, build, limited, seeds, targets};

const COPIES: u64 = 10_000;

/// A copy with one to eight changes: bits, bytes, fields at their limits, pieces moved or cut.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut file = bytes.to_vec();
    for _ in 0..=random.below(8) {
        if file.is_empty() {
            break;
        }
        let len = file.len() as u64;
        // Structures stand at both ends; the rest is hit less often.
        let at = match random.below(4) {
            0 | 1 => random.below(len.min(700)),
            2 => len - 1 - random.below(len.min(1500)),
            _ => random.below(len),
        } as usize;
        let width = 1 << random.below(4);
        let end = file.len().min(at + width);
        match random.below(8) {
            0 | 1 => file[at] ^= 1 << random.below(8),
            2 => file[at] = random.next() as u8,
            3 => file[at..end].fill(0xff),
            4 => file[at..end].fill(0),
            5 => file[at] = file[at].wrapping_add(1),
            6 => {
                let from = random.below(len) as usize;
                let width = width.min(file.len() - from.max(at));
                file.copy_within(from..from + width, at);
            }
            _ if random.below(8) == 0 => file.truncate(at),
            _ => file[at] = file[at].wrapping_sub(1),
        }
    }
    file
}

fn mutate(target: &str) {
    let (_, run) = targets::ALL
        .into_iter()
        .find(|(name, _)| *name == target)
        .expect("a target");
    limited::run(target, COPIES, || {
        let seeds = seeds::of(target);
        for seed in &seeds {
            run(seed);
        }
        move |n| run(&damaged(&seeds[n as usize % seeds.len()], n))
    });
}

macro_rules! mutations {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            mutate(stringify!($target));
        })*

        #[test]
        fn every_target_is_here() {
            let names = targets::ALL.map(|(name, _)| name);
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

mutations! {
    qcow2 qcow1 qed vhd vhdx vdi vmdk parallels bundle bochs dmg luks iso gpt content archive
    package wrap drivers
}

/// What fell out of the fuzzing is among them.
#[test]
fn fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let manifest = fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let cases: Vec<_> = manifest.lines().skip(1).collect();
    limited::run("fixtures", cases.len() as u64, || {
        let cases = &cases;
        move |n| {
            let mut fields = cases[n as usize].split('\t');
            let (name, format) = (fields.next().unwrap(), fields.next().unwrap());
            let bytes = fs::read(folder.join(name)).unwrap();
            targets::known(format.parse().unwrap(), &bytes);
        }
    });
}

#[test]
fn dmg_of_every_coding_is_read() {
    let chunks = seeds::dmg_chunks();
    let chunks: Vec<_> = chunks
        .iter()
        .map(|(kind, bytes)| (*kind, 1, &bytes[..]))
        .collect();
    let disk = open(Arc::new(build::dmg(&chunks)), &OpenOptions::default()).unwrap();
    let mut bytes = vec![1; 7 * 512];
    disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
    let sectors = bytes.chunks(512).map(|sector| (sector[0], sector[511]));
    let expected = [4, 5, 5, 6, 8, 7, 0].map(|byte| (byte, byte));
    assert_eq!(sectors.collect::<Vec<_>>(), expected);
}
