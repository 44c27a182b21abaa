//! Every fixture is judged as `fixtures/MANIFEST.tsv` says, and however it is cut short or
//! damaged it ends in an answer: no panic, no endless loop, no memory by the header's word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use formats::{GuestOffset, Limits, OpenOptions, Source};
use glint::convert::{Selector, open};
use serde_json::Value;

/// A line of the manifest.
struct Case {
    path: PathBuf,
    format: String,
    verdict: String,
    rule: Option<String>,
}

fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let manifest = fs::read_to_string(dir.join("MANIFEST.tsv")).unwrap();
    manifest
        .lines()
        .skip(1)
        .map(|line| {
            let [path, format, verdict, rule, _why] = line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("five columns: {line}");
            };
            Case {
                path: dir.join(path),
                format: format.into(),
                verdict: verdict.into(),
                rule: (rule != "-").then(|| rule.into()),
            }
        })
        .collect()
}

#[test]
fn each_fixture_is_judged_as_the_manifest_says() {
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        let out = Command::new(env!("CARGO_BIN_EXE_glint"))
            .args(["inspect", "--output", "json"])
            .arg(&case.path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let seen: Value = serde_json::from_slice(&out.stdout).unwrap();
        let rules: Vec<_> = seen["findings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| f["severity"] == "unsafe")
            .filter_map(|f| f["rule"].as_str())
            .collect();
        let code = if case.verdict == "safe" { 0 } else { 1 };
        let as_said = out.status.code() == Some(code)
            && seen["format"] == case.format
            && seen["verdict"] == case.verdict
            && match &case.rule {
                Some(rule) => rules.contains(&rule.as_str()),
                None => rules.is_empty(),
            };
        if !as_said {
            wrong.push(format!("{}: {seen:#}", case.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 40, "the manifest is whole");
}

#[test]
fn the_manifest_and_the_folder_agree() {
    let cases = cases();
    let mut listed: Vec<_> = cases.iter().map(|c| c.path.file_name().unwrap()).collect();
    let dir = cases[0].path.parent().unwrap();
    let mut there: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name())
        .filter(|name| !["README", "MANIFEST.tsv", "make.sh"].contains(&name.to_str().unwrap()))
        .collect();
    listed.sort_unstable();
    there.sort_unstable();
    assert_eq!(listed, there);
}

/// Judges an image and, when it is found safe, reads all of it.
fn swallow(bytes: Vec<u8>) {
    let limits = Limits {
        max_inflated: 64 << 20,
        ..Limits::default()
    };
    let source: Arc<dyn Source> = Arc::new(bytes);
    let Ok(found) = formats::container::describe(&source, &limits) else {
        return;
    };
    // Readers defend themselves: what inspection refuses is opened here all the same.
    let options = OpenOptions {
        limits,
        ..OpenOptions::default()
    };
    let selector = match found.disks.first() {
        Some(disk) => Selector::Named(disk.name.clone()),
        None => Selector::Only,
    };
    let Ok(opened) = open(source, &found, &selector, &options, &tempfile::tempfile) else {
        return;
    };
    let disk = opened.disk;
    let end = GuestOffset(disk.virtual_size());
    let (mut at, mut extents) = (GuestOffset::ZERO, Vec::new());
    // A bound for the test only: a petabyte of scattered extents is walked in parts.
    for _ in 0..64 {
        extents.clear();
        if at >= end || disk.extents(at..end, &mut extents).is_err() {
            break;
        }
        for extent in extents.iter().take(64) {
            let mut buf = vec![0; 4096];
            let len = extent.range.end.since(extent.range.start).min(4096);
            let _ = disk.read_at(
                &mut buf[..usize::try_from(len).unwrap()],
                extent.range.start,
            );
        }
        let next = extents
            .last()
            .expect("extents of a range are gapless")
            .range
            .end;
        assert!(next > at, "extents move on");
        at = next;
    }
}

#[test]
fn cut_short_anywhere_ends_in_an_answer() {
    for case in cases() {
        let bytes = fs::read(&case.path).unwrap();
        let len = bytes.len();
        let near_borders = (0..=len / 512).flat_map(|n| [(n * 512).saturating_sub(1), n * 512]);
        let step = (len / 512 / 16).max(1);
        for cut in near_borders.step_by(step).filter(|cut| *cut < len) {
            swallow(bytes[..cut].to_vec());
        }
    }
}

#[test]
fn damaged_anywhere_ends_in_an_answer() {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for case in cases() {
        let bytes = fs::read(&case.path).unwrap();
        // Faults in tables matter more than in the padding behind them.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(1, |at| at + 1);
        for round in 0..40 {
            let mut bytes = bytes.clone();
            for _ in 0..=round % 4 {
                let at = match round % 3 {
                    0 => random(used.min(128)),
                    _ => random(used),
                };
                match round % 2 {
                    0 => bytes[at] = 0xff,
                    _ => bytes[at] ^= 1 << random(8),
                }
            }
            swallow(bytes);
        }
    }
}
