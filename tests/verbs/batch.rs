//! `glint batch`: many images at once, some of them bad, broken off and gone on with.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{GLINT, Room};

impl Room {
    /// A raw disk of that many MiB that does not compress.
    fn disk(&self, name: &str, mib: usize, mut seed: u64) {
        let mut bytes = vec![0; mib << 20];
        for chunk in bytes.chunks_exact_mut(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(9);
            chunk.copy_from_slice(&(seed ^ seed >> 29).to_le_bytes());
        }
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs a batch; answers the exit code and the report.
    fn batch(&self, args: &str) -> (i32, Value) {
        let (code, out, err) = self.glint(&format!("batch --output json {args}"));
        let report = serde_json::from_str(&out);
        (code, report.unwrap_or_else(|e| panic!("{e}: {out}{err}")))
    }

    /// The files in a folder and below, without the batch's own.
    fn outputs(&self, folder: &str) -> BTreeSet<String> {
        let root = self.path(folder);
        let mut folders = vec![root.clone()];
        let mut found = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_name() == ".glint-batch" {
                    continue;
                }
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let name = path.strip_prefix(&root).unwrap();
                        found.insert(name.to_str().unwrap().to_owned());
                    }
                }
            }
        }
        found
    }
}

/// Output and status of each image.
fn statuses(report: &Value) -> Vec<(&str, &str)> {
    let images = report["images"].as_array().unwrap().iter();
    images
        .map(|image| {
            let text = |name| image[name].as_str().unwrap();
            (text("output"), text("status"))
        })
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_batch_takes_folders_lists_and_patterns_and_survives_bad_images() {
    let room = Room::new();
    room.disk("in/a.img", 2, 1);
    room.disk("in/deep/b.raw", 1, 2);
    room.disk("in/notes.txt", 1, 3);
    room.disk("in/c-flat.vmdk", 1, 4);
    room.disk("more-1.img", 1, 5);
    room.disk("listed", 1, 6);
    fs::write(room.path("list"), "listed\nmissing.img\n").unwrap();
    room.qemu("create -q -f qcow2 -u -F raw -b /etc/passwd in/unsafe.qcow2 1M");
    let mut cut = fs::read(room.path("in/unsafe.qcow2")).unwrap();
    cut.truncate(90);
    fs::write(room.path("in/cut.qcow2"), cut).unwrap();

    let (code, report) = room.batch("--to qcow2 --out out in more-*.img @list");
    assert_eq!(code, 2, "the missing file counts most: {report}");
    assert_eq!(
        statuses(&report),
        [
            ("a.qcow2", "done"),
            ("cut.qcow2", "failed"),
            ("deep/b.qcow2", "done"),
            ("unsafe.qcow2", "failed"),
            ("more-1.qcow2", "done"),
            ("listed.qcow2", "done"),
            ("missing.qcow2", "failed"),
        ]
    );
    let unsafe_one = &report["images"][3];
    assert_eq!(unsafe_one["exit_code"], 1);
    assert_eq!(unsafe_one["findings"][0]["rule"], "backing_file");
    assert_eq!((&report["done"], &report["failed"]), (&4.into(), &3.into()));
    assert_eq!(
        room.outputs("out"),
        names(&["a.qcow2", "deep/b.qcow2", "listed.qcow2", "more-1.qcow2"])
    );
    for (raw, out) in [
        ("in/a.img", "out/a.qcow2"),
        ("in/deep/b.raw", "out/deep/b.qcow2"),
    ] {
        room.qemu(&format!("compare -f raw -F qcow2 {raw} {out}"));
    }

    // The same without the bad ones, as people see it.
    let (code, out, err) = room.glint("batch --to raw --out raws in/a.img listed");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("done       in/a.img → a.raw"), "{out}");
    assert!(out.contains("2 done, "), "{out}");
}

#[test]
fn outputs_of_one_name_are_refused_before_anything_begins() {
    let room = Room::new();
    room.disk("a.img", 1, 1);
    room.disk("a.raw", 1, 2);
    let (code, _, err) = room.glint("batch --to qcow2 --out out a.img a.raw");
    assert_eq!(code, 2);
    assert!(err.contains("would both become a.qcow2"), "{err}");
    assert_eq!(room.outputs("out"), names(&[]));

    let (code, report) = room.batch("--to qcow2 --out out --keep-extension a.img a.raw ./a.img");
    assert_eq!(code, 0, "{report}");
    let both = names(&["a.img.qcow2", "a.raw.qcow2"]);
    assert_eq!(room.outputs("out"), both);

    // What is there already stays, as long as nobody says otherwise; inputs always do.
    let (code, report) = room.batch("--to qcow2 --out out --keep-extension a.img");
    assert_eq!(code, 2, "{report}");
    let (code, _) = room.batch("--to qcow2 --out out --keep-extension --force a.img");
    assert_eq!(code, 0);
    let (code, report) = room.batch("--to raw --out . --force a.img a.raw a.img --keep-extension");
    assert_eq!(code, 0, "{report}");
    let (code, report) = room.batch("--to raw --out . --force a.raw");
    assert_eq!(code, 2, "{report}");
    assert!(
        report["images"][0]["error"]
            .as_str()
            .unwrap()
            .contains("is an input too")
    );

    for bad in [
        "--to vmdk -o subformat=twoGbMaxExtentSparse --out out a.img",
        "--to qcow2 -o nonsense=1 --out out a.img",
        "--to qcow2 --out out nothing-*.img",
    ] {
        let (code, _, err) = room.glint(&format!("batch {bad}"));
        assert_eq!(code, 2, "{bad}: {err}");
    }
}

#[test]
fn resuming_does_again_what_changed_and_nothing_else() {
    let room = Room::new();
    for (n, name) in ["a", "b", "c", "d"].iter().enumerate() {
        room.disk(&format!("in/{name}.img"), 1, n as u64);
    }
    let flags = "--to qcow2 -o compression_type=zstd -c --out out in";
    let (code, _) = room.batch(flags);
    assert_eq!(code, 0);
    let before = fs::metadata(room.path("out/a.qcow2")).unwrap();

    room.disk("in/b.img", 1, 77);
    fs::write(room.path("out/c.qcow2"), "spoilt").unwrap();
    fs::remove_file(room.path("out/d.qcow2")).unwrap();
    // As a crash leaves it: a line that is not whole, a folder of a process that is gone.
    let journal = room.path("out/.glint-batch/journal.jsonl");
    let mut text = fs::OpenOptions::new().append(true).open(journal).unwrap();
    text.write_all(b"{\"key\":\"torn").unwrap();
    fs::create_dir_all(room.path("out/.glint-batch/work/.glint-x.part")).unwrap();

    let (code, report) = room.batch(&format!("--resume {flags}"));
    // The spoilt one is not the file that the journal tells of: it is somebody's.
    assert_eq!(code, 2, "{report}");
    assert_eq!(
        statuses(&report),
        [
            ("a.qcow2", "unchanged"),
            ("b.qcow2", "done"),
            ("c.qcow2", "failed"),
            ("d.qcow2", "done"),
        ]
    );
    assert!(!room.path("out/.glint-batch/work").exists());
    let (code, report) = room.batch(&format!("--resume --force {flags}"));
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        statuses(&report).iter().map(|s| s.1).collect::<Vec<_>>(),
        ["unchanged", "unchanged", "done", "unchanged"]
    );
    let after = fs::metadata(room.path("out/a.qcow2")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    for name in ["a", "b", "c", "d"] {
        room.qemu(&format!(
            "compare -f raw -F qcow2 in/{name}.img out/{name}.qcow2"
        ));
    }

    let (code, _, err) = room.glint("batch --resume --to raw --out out in");
    assert_eq!(code, 2);
    assert!(err.contains("the earlier batch was `-O qcow2"), "{err}");
}

#[test]
fn what_failed_once_is_still_the_batchs_own() {
    let room = Room::new();
    // A folder of outputs may be called anything.
    for (n, name) in ["image", "output"].iter().enumerate() {
        room.disk(&format!("in/{name}/a.img"), 1, n as u64);
    }
    let flags = "--to qcow2 --out out in";
    assert_eq!(room.batch(flags).0, 0);

    let input = room.path("in/image/a.img");
    let sound = fs::read(&input).unwrap();
    room.qemu("create -q -f raw base 1M");
    room.qemu("create -q -f qcow2 -b ../../base -F raw in/image/a.img");
    let (code, report) = room.batch(&format!("--resume {flags}"));
    assert_eq!(code, 1, "{report}");
    fs::write(input, sound).unwrap();
    let (code, report) = room.batch(&format!("--resume {flags}"));
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        statuses(&report),
        [("image/a.qcow2", "done"), ("output/a.qcow2", "unchanged")]
    );
}

/// Starts a batch of disks that take a while, and waits until some of them are done.
fn begun(room: &Room) -> Child {
    for n in 0..8 {
        room.disk(&format!("in/{n}.img"), 24, n);
    }
    let args = "batch -p --to qcow2 -c -o compression_level=9 -m 1 --out out in";
    let mut child = Command::new(GLINT)
        .args(args.split(' '))
        .current_dir(room.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
    // One of the eight, and a part of the next.
    let is_under_way = lines.any(|line| {
        let (percent, _) = line.split_once('%').unwrap();
        percent.parse::<u32>().unwrap() > 13
    });
    if !is_under_way {
        child.wait().unwrap();
        panic!("it ended before it was seen to be under way");
    }
    child
}

/// What is there under a final name is whole, and the rest is done by going on.
fn goes_on(room: &Room) {
    for name in room.outputs("out") {
        let raw = name.replace("qcow2", "img");
        room.qemu(&format!("compare -f raw -F qcow2 in/{raw} out/{name}"));
    }
    let flags = "--to qcow2 -c -o compression_level=9 --out out in";
    let (code, report) = room.batch(&format!("--resume {flags}"));
    assert_eq!(code, 0, "{report}");
    assert!(report["unchanged"].as_u64().unwrap() >= 1, "{report}");
    assert_eq!(room.outputs("out").len(), 8);
    assert!(!room.path("out/.glint-batch/work").exists());
}

#[test]
fn a_signal_ends_a_batch_in_order() {
    let room = Room::new();
    let mut child = begun(&room);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<_> = out.lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(lines.last().unwrap().contains("not done"), "{lines:?}");
    assert!(!room.path("out/.glint-batch/work").exists());
    goes_on(&room);
}

#[test]
fn a_killed_batch_goes_on_where_it_was() {
    let room = Room::new();
    let mut child = begun(&room);
    let (code, _, err) = room.glint("batch --to qcow2 --out out in");
    assert_eq!(code, 2);
    assert!(err.contains("another batch writes into"), "{err}");
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&room);
}
