//! `glint convert` between pipes, with compressed outputs and archives: real pipes, and other
//! programs to read what comes out.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const GLINT: &str = env!("CARGO_BIN_EXE_glint");

struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a line of shell; `$GLINT` is the program.
    fn shell(&self, line: &str) -> Output {
        Command::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .env("GLINT", GLINT)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn fine(&self, line: &str) -> Vec<u8> {
        let out = self.shell(line);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{line}: {err}");
        out.stdout
    }

    #[track_caller]
    fn fails(&self, code: i32, line: &str) -> String {
        let out = self.shell(line);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{line}: {err}");
        err
    }

    /// A raw disk of 6 MiB and a bit with data, zeros and holes, and the same as qcow2.
    fn images(&self) {
        let mut state = 1_u32;
        let mut noise = vec![0; 1 << 20];
        for byte in &mut noise {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        noise.resize(5 << 20, 0);
        noise.extend_from_within(..70_000);
        noise.resize((6 << 20) + 512, 0);
        fs::write(self.path().join("a.raw"), noise).unwrap();
        self.fine("qemu-img convert -f raw -O qcow2 a.raw a.qcow2");
    }
}

#[test]
fn raw_and_streamed_vmdk_go_through_pipes() {
    let room = Room::new();
    room.images();
    room.fine("$GLINT convert -O raw a.qcow2 - | cmp - a.raw");
    room.fine("$GLINT convert -O raw - - < a.qcow2 | cmp - a.raw");
    room.fine("cat a.qcow2 | $GLINT convert -O raw - - | cmp - a.raw");
    room.fine("cat a.qcow2 | $GLINT convert -f qcow2 -O raw - b.raw && cmp b.raw a.raw");
    room.fine("cat a.qcow2 | $GLINT convert -f raw -O raw - - | cmp - a.qcow2");
    room.fine("$GLINT convert -O vmdk -c a.raw b.vmdk");
    for threads in [1, 3] {
        room.fine(&format!(
            "$GLINT convert -m {threads} -O vmdk -o subformat=streamOptimized a.raw - | cmp - b.vmdk"
        ));
    }
    room.fine("qemu-img compare -q -f vmdk -F raw b.vmdk a.raw");
    let sum = room.fine("$GLINT convert -O raw a.qcow2 - | sha256sum");
    assert_eq!(sum, room.fine("sha256sum < a.raw"));
}

#[test]
fn any_format_goes_to_a_file_that_is_standard_output() {
    let room = Room::new();
    room.images();
    for format in ["raw", "qcow2", "vmdk", "vhdx", "vdi"] {
        room.fine(&format!("$GLINT convert -O {format} a.raw file"));
        room.fine(&format!(
            "$GLINT convert -O {format} a.qcow2 - > out && cmp out file"
        ));
    }
    // What is there already is not written over, and appending is a stream.
    room.fine(
        "(echo first; $GLINT convert -O raw a.qcow2 -) > out && tail -c +7 out | cmp - a.raw",
    );
    room.fine(
        "echo first > out; $GLINT convert -O raw a.qcow2 - >> out && tail -c +7 out | cmp - a.raw",
    );
    room.fails(
        2,
        "echo first > out; $GLINT convert -O qcow2 a.raw - >> out",
    );
    assert_eq!(fs::read(room.path().join("out")).unwrap(), b"first\n");
    room.fails(2, "$GLINT convert -O raw a.raw - 1<> a.raw");
}

#[test]
fn what_cannot_be_streamed_says_what_can() {
    let room = Room::new();
    room.images();
    for args in [
        "-O qcow2", "-O vmdk", "-O vhd", "-O vhdx", "-O vdi", "-O ova",
    ] {
        let err = room.fails(2, &format!("$GLINT convert {args} a.raw - | cat"));
        for word in ["raw", "streamOptimized", "--wrap"] {
            assert!(err.contains(word), "{args}: {err}");
        }
    }
    let err = room.fails(2, "$GLINT convert -O raw --output json a.raw - | cat");
    assert!(err.contains("json"), "{err}");
    let err = room.fails(2, "$GLINT convert -O raw a.raw a.raw b.raw");
    assert!(err.contains("one disk"), "{err}");
}

#[test]
fn an_unsafe_image_from_a_pipe_is_refused_before_a_byte_is_written() {
    let room = Room::new();
    room.fine("qemu-img create -q -f qcow2 -u -F raw -b /etc/passwd evil.qcow2 1M");
    let out = room.shell("cat evil.qcow2 | $GLINT convert -O raw - - | wc -c");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(out.stdout, b"0\n");
    room.fails(1, "cat evil.qcow2 | $GLINT convert -O raw - out.raw");
    assert!(!room.path().join("out.raw").exists());
    room.fails(
        1,
        "head -c 1000 evil.qcow2 | $GLINT convert -O raw - out.raw",
    );
    room.fails(1, "$GLINT convert -f qcow2 -O raw - out.raw < /dev/null");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let room = Room::new();
    room.images();
    // More than any pipe holds.
    room.fine("truncate -s 1G big.raw");
    for args in ["-O raw", "-O raw --wrap zst:1"] {
        let mut child = Command::new(GLINT)
            .args(["convert"])
            .args(args.split(' '))
            .args(["a.raw", "-"])
            .current_dir(room.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut [0; 100]).unwrap();
        drop(pipe);
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{args}");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    }
    let bytes = room.fine("($GLINT convert -O raw big.raw -; echo $? >&2) | head -c 3");
    assert_eq!(bytes, [0; 3]);
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let room = Room::new();
    room.images();
    let err = room.fails(2, "$GLINT convert -O raw a.raw - > /dev/full");
    assert!(err.contains("No space left"), "{err}");
}

#[test]
fn a_signal_ends_a_pipe_in_order() {
    let room = Room::new();
    room.fine("truncate -s 1T big.raw");
    let mut child = Command::new(GLINT)
        .args(["convert", "-O", "raw", "big.raw", "-"])
        .current_dir(room.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 100]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::io::copy(&mut pipe, &mut std::io::sink()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn wrapped_outputs_are_read_by_the_tools_of_their_compression() {
    let room = Room::new();
    room.images();
    for (wrap, tool) in [
        ("gz", "gzip -dc"),
        ("gz:1", "gzip -dc"),
        ("zst", "zstd -dcq"),
        ("zst:9", "zstd -dcq"),
    ] {
        for format in ["raw", "qcow2", "vhdx"] {
            room.fine(&format!("$GLINT convert -O {format} a.raw plain"));
            room.fine(&format!(
                "$GLINT convert -O {format} --wrap {wrap} a.raw packed"
            ));
            room.fine(&format!("{tool} < packed | cmp - plain"));
            room.fine(&format!(
                "$GLINT convert -m 1 -O {format} --wrap {wrap} a.qcow2 - | cmp - packed"
            ));
            // And by ourselves.
            room.fine("$GLINT convert -O raw packed back && cmp back a.raw");
        }
    }
    room.fails(2, "$GLINT convert -O raw --wrap xz a.raw packed.xz");
    room.fails(2, "$GLINT convert -O raw --wrap gz:99 a.raw packed.gz");
    let left: Vec<_> = fs::read_dir(room.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".glint"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn archives_are_written_and_come_back() {
    let room = Room::new();
    room.images();
    room.fine("$GLINT convert -O ova -o vcpus=2,memory=2G a.qcow2 web.ova");
    let names = room.fine("tar tf web.ova");
    assert_eq!(names, b"web.ovf\nweb-disk1.vmdk\nweb.mf\n");
    room.fine("tar xf web.ova && sed -n 's/SHA256(\\(.*\\))= \\(.*\\)/\\2  \\1/p' web.mf | sha256sum -c --quiet --strict");
    room.fine("qemu-img compare -q -f vmdk -F raw web-disk1.vmdk a.raw");
    room.fine("$GLINT convert -O raw web.ova back && cmp back a.raw");
    room.fine("$GLINT convert -O ova -o name=two a.qcow2 web.ova two.ova");
    room.fine("$GLINT convert -O raw --disk 1 two.ova back && cmp back a.raw");
    room.fine("$GLINT convert -O ova -m 1 a.qcow2 - > std.ova && $GLINT inspect std.ova");
    room.fails(2, "$GLINT convert -O ova -o colour=red a.qcow2 x.ova");
    room.fails(2, "$GLINT convert -O ova a.qcow2 missing.raw x.ova");
    assert!(!room.path().join("x.ova").exists());
}

#[test]
fn a_large_pipe_with_zeros_is_kept_sparse() {
    let room = Room::new();
    let mut child = Command::new(GLINT)
        .args(["convert", "-f", "raw", "-O", "qcow2", "-", "out.qcow2"])
        .current_dir(room.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..300 {
        pipe.write_all(&zeros).unwrap();
    }
    pipe.write_all(b"end").unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
    let file = fs::metadata(room.path().join("out.qcow2")).unwrap();
    assert!(file.len() < 1 << 20);
    room.fine(
        "qemu-img convert -O raw out.qcow2 back && tail -c 512 back | head -c 3 | grep -q end",
    );
}
