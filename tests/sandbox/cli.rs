//! The command line inside the sandbox, on whole kernels and lacking ones.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::lacking::{Fence, program};

const GLINT: &str = env!("CARGO_BIN_EXE_glint");

struct Room(TempDir);

impl Room {
    /// A folder with a raw disk that does not compress, and scratch space of its own.
    fn new() -> Self {
        let room = Self(TempDir::new().unwrap());
        let mut state = 1_u64;
        let mut disk = vec![0; 3 << 20];
        for chunk in disk[1 << 20..].chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(9);
            chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        fs::write(room.path().join("a.raw"), disk).unwrap();
        room
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn run(&self, command: &mut Command) -> (Option<i32>, String) {
        let out = command
            .current_dir(self.path())
            .env("TMPDIR", self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (out.status.code(), text(&out))
    }

    fn glint(&self, args: &[&str]) {
        let (code, text) = self.run(Command::new(GLINT).args(args));
        assert_eq!(code, Some(0), "{args:?}: {text}");
        assert!(
            !text.contains("error:") && !text.contains("note:"),
            "{args:?}: {text}"
        );
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            fs::remove_file(self.path().join(name)).unwrap();
        }
    }
}

fn text(out: &Output) -> String {
    [&out.stdout, &out.stderr]
        .map(|text| String::from_utf8_lossy(text))
        .concat()
}

#[test]
fn every_way_to_convert_works_behind_both_fences() {
    let room = Room::new();
    let on = "--sandbox=on";
    for output in [
        &["-O", "raw"][..],
        &["-O", "qcow2"],
        &["-O", "qcow2", "-c", "-m", "7"],
        &["-O", "qcow2", "-o", "preallocation=falloc"],
        &["-O", "vhd"],
        &["-O", "vhdx"],
        &["-O", "vdi"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        &["-O", "vmdk", "-o", "subformat=monolithicSparse"],
        &["-O", "raw", "--wrap", "gz"],
        &["-O", "vdi", "--wrap", "zst"],
        &["-O", "ova"],
    ] {
        room.glint(&[&["convert", on], output, &["a.raw", "b"]].concat());
        room.glint(&["convert", on, "-O", "raw", "b", "c.raw"]);
        room.glint(&["compare", on, "a.raw", "c.raw"]);
        for verb in ["inspect", "info", "check", "map", "measure"] {
            let is_wrapped = output.contains(&"--wrap") || output.contains(&"ova");
            if verb == "check" && (is_wrapped || output == ["-O", "raw"]) {
                continue;
            }
            room.glint(&[verb, on, "b"]);
        }
        assert_eq!(room.names(), ["a.raw", "b", "c.raw"], "{output:?}");
        room.remove(&["b", "c.raw"]);
    }
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
    ] {
        let option = format!("subformat={subformat}");
        room.glint(&[
            "convert", on, "-O", "vmdk", "-o", &option, "a.raw", "b.vmdk",
        ]);
        let names = room.names();
        assert_eq!(names.len(), 3, "{names:?}");
        room.remove(&[&names[1], &names[2]]);
    }
}

#[test]
fn the_inner_process_is_confined_before_it_reads() {
    let room = Room::new();
    let mut outer = Command::new(GLINT)
        .args(["convert", "-O", "qcow2", "-", "b.qcow2"])
        .current_dir(room.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = outer.stdin.take().unwrap();
    // More than a pipe holds: when it is written, the other end has been read from.
    input.write_all(&vec![7; 4 << 20]).unwrap();
    let outer_id = outer.id();
    let children = format!("/proc/{outer_id}/task/{outer_id}/children");
    let inner = fs::read_to_string(children).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", inner.trim())).unwrap();
    for fact in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(
            status.lines().any(|line| line == fact),
            "{fact} in {status}"
        );
    }
    drop(input);
    assert!(outer.wait().unwrap().success());
    assert_eq!(room.names(), ["a.raw", "b.qcow2"]);
}

#[test]
fn a_kernel_without_a_fence_is_said_aloud() {
    let room = Room::new();
    for (fence, name) in [
        (Fence::Landlock, "no Landlock"),
        (Fence::Seccomp, "no seccomp"),
    ] {
        for args in [
            &["convert", "-O", "qcow2", "a.raw", "b"][..],
            &["inspect", "a.raw"],
        ] {
            let (code, text) = room.run(&mut program(GLINT, args, &[fence]));
            assert_eq!(code, Some(0), "{text}");
            let notes = text.matches("note: the sandbox is incomplete").count();
            assert!(notes == 1 && text.contains(name), "{text}");

            let off = [args, &["--sandbox=off"]].concat();
            let (code, text) = room.run(&mut program(GLINT, &off, &[fence]));
            assert_eq!(code, Some(0), "{text}");
            assert!(!text.contains("sandbox"), "{text}");
        }
        room.remove(&["b"]);
        let args = ["convert", "--sandbox", "-O", "qcow2", "a.raw", "b"];
        let (code, text) = room.run(&mut program(GLINT, &args, &[fence]));
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains("--sandbox=on, but there is") && text.contains(name),
            "{text}"
        );
        assert_eq!(room.names(), ["a.raw"]);
    }
}

#[test]
fn the_service_s_worker_says_it_too() {
    let room = Room::new();
    let request = glint::convert::Request {
        unpack: false,
        input: None,
        disk: None,
        output: "qcow2".into(),
        options: Vec::new(),
        compress: false,
        in_order: None,
        is_judged: false,
        virtual_size: None,
        sandbox: glint::convert::sandbox::Policy::Auto,
        memory: 1 << 30,
        cpu_seconds: 60,
        max_virtual_size: 1 << 30,
        max_inflated: 1 << 30,
        max_output: 1 << 30,
    };
    for (fence, policy, expected) in [
        (&[][..], "on", Some(0)),
        (&[Fence::Landlock], "auto", Some(0)),
        (&[Fence::Landlock], "on", Some(2)),
        (&[Fence::Seccomp], "on", Some(2)),
    ] {
        let request = serde_json::to_string(&request)
            .unwrap()
            .replace("auto", policy);
        let output = fs::File::create(room.path().join("b")).unwrap();
        let out = program(GLINT, &["convert-worker", &request], fence)
            .current_dir(room.path())
            .env("TMPDIR", room.path())
            .stdin(fs::File::open(room.path().join("a.raw")).unwrap())
            .stderr(Stdio::piped())
            .stdout(output)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), expected, "{fence:?}, {policy}: {said}");
        let is_told = said.contains("no Landlock") || said.contains("no seccomp");
        assert_eq!(is_told, !fence.is_empty(), "{said}");
    }
}

#[test]
fn a_conversion_beyond_its_limits_ends_clearly_and_leaves_nothing() {
    let room = Room::new();
    let disk = fs::read(room.path().join("a.raw")).unwrap();
    fs::write(room.path().join("a.raw"), disk.repeat(30)).unwrap();
    // Of the shell: blocks of a file, KiB of memory, seconds of processor time.
    for (limit, words) in [
        ("-f 2000", "wrote a larger file than it is allowed"),
        ("-d 16000", "memory"),
        ("-S -t 1", "took more processor time than it is allowed"),
    ] {
        let line = format!(
            "ulimit {limit}; exec {GLINT} convert -c -m 4 -O qcow2 \
             -o compression_type=zstd,compression_level=19 a.raw b.qcow2"
        );
        let (code, text) = room.run(Command::new("sh").args(["-c", &line]));
        assert_eq!(code, Some(2), "{limit}: {text}");
        assert!(text.contains(words), "{limit}: {text}");
        assert_eq!(room.names(), ["a.raw"], "{limit}");
    }
}

#[test]
fn the_inner_process_dies_with_the_outer() {
    let room = Room::new();
    let mut outer = Command::new(GLINT)
        .args(["convert", "-O", "qcow2", "-", "b.qcow2"])
        .current_dir(room.path())
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut input = outer.stdin.take().unwrap();
    input.write_all(&vec![7; 1 << 20]).unwrap();
    outer.kill().unwrap();
    outer.wait().unwrap();
    // Nobody reads any more, so that writing on ends.
    let ended = (0..100).find_map(|_| input.write_all(&vec![7; 1 << 20]).err());
    assert_eq!(
        ended.map(|e| e.kind()),
        Some(std::io::ErrorKind::BrokenPipe)
    );
}
