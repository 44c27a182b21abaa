//! The program as people and scripts meet it: arguments in, files, text and exit codes out.
//! qemu-img makes images and judges what comes out.

mod access;
#[path = "../support/noise.rs"]
mod noise;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use noise::noise;
use serde_json::Value;
use tempfile::TempDir;

const GLINT: &str = env!("CARGO_BIN_EXE_glint");

/// A folder to work in; commands run inside it.
struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// Runs glint; answers exit code, standard output and standard error.
    fn glint(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.run(GLINT, args);
        (
            out.status.code().expect("glint ended by itself"),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    }

    /// Runs a witness or a maker of images, which has to succeed.
    fn tool(&self, program: &str, args: &[&str]) {
        let out = self.run(program, args);
        assert!(
            out.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    fn inspect(&self, file: &str) -> (i32, Value) {
        let (code, out, _) = self.glint(&["inspect", "--output", "json", file]);
        (code, serde_json::from_str(&out).unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A raw disk of 3 MiB and a bit with data, zeros and a hole.
    fn raw(&self, name: &str) {
        let mut bytes = noise(1 << 20);
        bytes.resize(2 << 20, 0);
        bytes.extend_from_slice(&noise(70_000));
        self.write(name, &bytes);
        let file = fs::File::options()
            .write(true)
            .open(self.path().join(name))
            .unwrap();
        file.set_len((3 << 20) + 512).unwrap();
    }

    fn qcow2(&self, name: &str) {
        self.raw("source.raw");
        self.tool(
            "qemu-img",
            &["convert", "-f", "raw", "-O", "qcow2", "source.raw", name],
        );
    }

    /// A qcow2 image that names a backing file.
    fn overlay(&self, name: &str, backing: &str) {
        self.tool(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", backing, name, "1M",
            ],
        );
    }

    /// An OVA of streamOptimized disks, 1 MiB each, filled differently.
    fn ova(&self, name: &str, disks: &[&str]) {
        let mut members = vec!["-cf", name, "--format=ustar", "box.ovf"];
        let (mut files, mut drives) = (String::new(), String::new());
        for (n, disk) in disks.iter().enumerate() {
            let fill = u8::try_from(n + 1).unwrap();
            self.write("disk.raw", &vec![fill; 1 << 20]);
            self.tool(
                "qemu-img",
                &[
                    "convert",
                    "-f",
                    "raw",
                    "-O",
                    "vmdk",
                    "-o",
                    "subformat=streamOptimized",
                    "disk.raw",
                    disk,
                ],
            );
            let size = self.read(disk).len();
            files += &format!(r#"<File ovf:id="f{n}" ovf:href="{disk}" ovf:size="{size}"/>"#);
            drives += &format!(
                r#"<Disk ovf:diskId="d{n}" ovf:fileRef="f{n}" ovf:capacity="1048576"
                 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>"#
            );
            members.push(disk);
        }
        let ovf = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References>{files}</References>
<DiskSection><Info>disks</Info>{drives}</DiskSection>
<VirtualSystem ovf:id="box"><Info>a box</Info></VirtualSystem>
</Envelope>"#
        );
        self.write("box.ovf", ovf.as_bytes());
        self.tool("tar", &members);
    }

    /// Asserts that both files hold the same disk, in qemu-img's eyes.
    fn same_disk(&self, (a_format, a): (&str, &str), (b_format, b): (&str, &str)) {
        self.tool(
            "qemu-img",
            &["compare", "-q", "-f", a_format, "-F", b_format, a, b],
        );
    }
}

mod inspect {
    use super::*;

    #[test]
    fn tells_format_sizes_and_verdict_of_a_raw_file() {
        let room = Room::new();
        room.raw("a.img");
        let (code, seen) = room.inspect("a.img");
        assert_eq!(code, 0);
        assert_eq!(seen["filename"], "a.img");
        assert_eq!(seen["format"], "raw");
        assert_eq!(seen["container_format"], "bare");
        assert_eq!(seen["virtual_size"], (3 << 20) + 512);
        assert_eq!(seen["file_size"], (3 << 20) + 512);
        assert!(seen["allocated_size"].as_u64().unwrap() < (3 << 20) + 512);
        assert!(seen["details"].is_object());
        assert_eq!(seen["findings"], Value::Array(vec![]));
        assert_eq!(seen["verdict"], "safe");
        assert_eq!(seen.get("compression"), None);
        assert_eq!(seen.get("disks"), None);
    }

    #[test]
    fn tells_what_qemu_img_made() {
        let room = Room::new();
        for format in ["qcow2", "vmdk", "vpc", "vhdx", "vdi"] {
            room.tool("qemu-img", &["create", "-q", "-f", format, "a.img", "8M"]);
            let (code, seen) = room.inspect("a.img");
            assert_eq!(code, 0, "{format}: {seen}");
            let ours = if format == "vpc" { "vhd" } else { format };
            assert_eq!(seen["format"], ours);
            assert!(seen["virtual_size"].as_u64().unwrap() >= 8 << 20);
        }
    }

    #[test]
    fn several_files_make_an_array_and_the_worst_code() {
        let room = Room::new();
        room.raw("a.img");
        room.overlay("b.img", "/etc/passwd");
        let (code, out, err) = room.glint(&["inspect", "--output", "json", "a.img", "b.img"]);
        let seen: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, err.as_str()), (1, ""));
        assert_eq!(seen[0]["verdict"], "safe");
        assert_eq!(seen[1]["verdict"], "unsafe");

        let (code, out, err) =
            room.glint(&["inspect", "--output", "json", "b.img", "none.img", "a.img"]);
        let seen: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 2);
        assert_eq!(seen[1]["filename"], "none.img");
        assert!(seen[1]["error"].as_str().unwrap().contains("No such file"));
        assert!(err.starts_with("error: opening none.img: No such file"));
        assert_eq!(seen.as_array().unwrap().len(), 3);
    }

    #[test]
    fn an_image_that_names_another_file_is_unsafe() {
        let room = Room::new();
        room.overlay("a.qcow2", "/etc/passwd");
        let (code, seen) = room.inspect("a.qcow2");
        assert_eq!((code, &seen["verdict"]), (1, &"unsafe".into()));
        let finding = &seen["findings"][0];
        assert_eq!(finding["rule"], "backing_file");
        assert_eq!(finding["severity"], "unsafe");
        assert!(finding["place"].is_string() && finding["message"].is_string());

        let (code, out, _) = room.glint(&["inspect", "a.qcow2"]);
        assert_eq!(code, 1);
        assert!(out.starts_with("a.qcow2: qcow2, unsafe\n"), "{out}");
        assert!(out.contains("[backing_file]"), "{out}");
    }

    #[test]
    fn names_in_an_image_cannot_speak_to_the_terminal() {
        let room = Room::new();
        room.overlay("a.qcow2", "/tmp/\x1b[2Jgone");
        let (_, out, err) = room.glint(&["inspect", "a.qcow2"]);
        assert!(!out.contains('\x1b') && !err.contains('\x1b'), "{out:?}");
    }

    #[test]
    fn a_compressed_file_is_described_by_what_it_holds() {
        let room = Room::new();
        room.qcow2("a.qcow2");
        for (tool, extension, name) in [
            ("gzip", "gz", "gzip"),
            ("xz", "xz", "xz"),
            ("bzip2", "bz2", "bzip2"),
        ] {
            room.tool(tool, &["-k", "a.qcow2"]);
            let (code, seen) = room.inspect(&format!("a.qcow2.{extension}"));
            assert_eq!(code, 0, "{seen}");
            assert_eq!(seen["compression"], name);
            assert_eq!(seen["format"], "qcow2");
            assert_eq!(seen["virtual_size"], (3 << 20) + 512);
        }
    }

    #[test]
    fn an_ova_is_described_by_its_disks() {
        let room = Room::new();
        room.ova("box.ova", &["one.vmdk", "two.vmdk"]);
        let (code, seen) = room.inspect("box.ova");
        assert_eq!(code, 0, "{seen}");
        assert_eq!(seen["format"], "ova");
        assert_eq!(seen["container_format"], "ova");
        assert_eq!(seen["virtual_size"], 2 << 20);
        assert_eq!(seen["disks"][1]["name"], "two.vmdk");
        assert_eq!(seen["disks"][1]["virtual_size"], 1 << 20);
    }

    #[test]
    fn what_is_no_file_is_our_failure_not_the_images() {
        let room = Room::new();
        let (code, out, err) = room.glint(&["inspect", "."]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert_eq!(err, "error: .: not a regular file\n");

        room.tool("mkfifo", &["pipe"]);
        for args in [
            &["inspect", "pipe"][..],
            &["convert", "-O", "raw", "pipe", "b"],
        ] {
            let (code, _, err) = room.glint(args);
            assert_eq!(
                (code, err.as_str()),
                (2, "error: pipe: not a regular file\n")
            );
        }
    }
}

mod convert {
    use super::*;

    #[test]
    fn raw_to_qcow2_and_back_is_the_same_disk_whatever_the_threads() {
        let room = Room::new();
        room.raw("a.raw");
        let kinds: [(&str, &[&str]); 3] = [
            ("plain", &[]),
            ("zlib", &["-c"]),
            (
                "zstd",
                &["-c", "-o", "compression_type=zstd,cluster_size=32k"],
            ),
        ];
        for (kind, options) in kinds {
            let (one, many, back) = (
                format!("{kind}.1"),
                format!("{kind}.7"),
                format!("{kind}.raw"),
            );
            for (threads, name) in [("1", &one), ("7", &many)] {
                let args = [&["convert", "-O", "qcow2", "-m", threads][..], options].concat();
                let (code, out, err) = room.glint(&[&args[..], &["a.raw", name]].concat());
                assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""), "{kind}");
            }
            assert!(room.read(&one) == room.read(&many), "{kind}");
            room.tool("qemu-img", &["check", "-q", "-f", "qcow2", &one]);
            room.same_disk(("raw", "a.raw"), ("qcow2", &one));
            assert_eq!(room.glint(&["convert", "-O", "raw", &one, &back]).0, 0);
            assert!(room.read("a.raw") == room.read(&back), "{kind}");
        }
    }

    #[test]
    fn what_qemu_img_wrote_is_read() {
        let room = Room::new();
        room.raw("a.raw");
        let makers: [(&str, &[&str]); 5] = [
            ("qcow2", &["-c"]),
            ("qcow2", &["-o", "compat=0.10,cluster_size=512"]),
            ("qcow2", &["-o", "extended_l2=on"]),
            ("vmdk", &["-o", "subformat=monolithicSparse"]),
            ("vmdk", &["-o", "subformat=streamOptimized"]),
        ];
        for (format, options) in makers {
            let args = [&["convert", "-f", "raw", "-O", format][..], options].concat();
            room.tool("qemu-img", &[&args[..], &["a.raw", "a.img"]].concat());
            let (code, _, err) = room.glint(&["convert", "-O", "raw", "a.img", "b.raw"]);
            assert_eq!(code, 0, "{format} {options:?}: {err}");
            room.same_disk((format, "a.img"), ("raw", "b.raw"));
        }
    }

    #[test]
    fn an_image_in_several_files_appears_as_a_whole() {
        let room = Room::new();
        room.raw("a.raw");
        for (subformat, files) in [
            ("monolithicFlat", ["b-flat.vmdk", "b.vmdk"]),
            ("twoGbMaxExtentFlat", ["b-f001.vmdk", "b.vmdk"]),
            ("twoGbMaxExtentSparse", ["b-s001.vmdk", "b.vmdk"]),
        ] {
            let option = format!("subformat={subformat}");
            let args = ["convert", "-O", "vmdk", "-o", &option, "a.raw", "b.vmdk"];
            let (code, _, err) = room.glint(&args);
            assert_eq!(code, 0, "{subformat}: {err}");
            room.same_disk(("raw", "a.raw"), ("vmdk", "b.vmdk"));
            assert_eq!(room.names(), ["a.raw", files[0], files[1]]);

            // A folder in the way of an extent: nothing changes.
            fs::remove_file(room.path().join(files[0])).unwrap();
            fs::create_dir(room.path().join(files[0])).unwrap();
            let before = room.read("b.vmdk");
            let (code, _, err) = room.glint(&args);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains(files[0]), "{err}");
            assert!(room.read("b.vmdk") == before);
            assert_eq!(room.names(), ["a.raw", files[0], files[1]]);
            fs::remove_dir(room.path().join(files[0])).unwrap();

            // The input in that place.
            let args = ["convert", "-O", "vmdk", "-o", &option, files[0], "b.vmdk"];
            fs::copy(room.path().join("a.raw"), room.path().join(files[0])).unwrap();
            let (code, _, err) = room.glint(&args);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains("is the input too"), "{err}");
            fs::remove_file(room.path().join(files[0])).unwrap();
            fs::remove_file(room.path().join("b.vmdk")).unwrap();
        }
        let args = [
            "convert",
            "-O",
            "vmdk",
            "-o",
            "subformat=monolithicFlat",
            "a.raw",
            "c:b",
        ];
        let (code, _, err) = room.glint(&args);
        assert_eq!(code, 2);
        assert!(err.contains("cannot be called"), "{err}");
        assert_eq!(room.names(), ["a.raw"]);
    }

    #[test]
    fn sums_up_in_json() {
        let room = Room::new();
        room.raw("a.raw");
        let (code, out, _) = room.glint(&[
            "convert", "-O", "qcow2", "--output", "json", "a.raw", "b.qcow2",
        ]);
        let done: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 0);
        assert_eq!(done["filename"], "b.qcow2");
        assert_eq!(done["format"], "qcow2");
        assert_eq!(done["source_format"], "raw");
        assert_eq!(done["virtual_size"], (3 << 20) + 512);
        assert_eq!(done["file_size"], room.read("b.qcow2").len());
        assert!(done["seconds"].is_f64());
    }

    #[test]
    fn progress_goes_to_standard_error_and_only_when_asked() {
        let room = Room::new();
        room.raw("a.raw");
        let (code, out, err) = room.glint(&["convert", "-p", "-O", "raw", "a.raw", "b.raw"]);
        assert_eq!((code, out.as_str()), (0, ""));
        assert!(err.contains("100%, 3.00 MiB of 3.00 MiB"), "{err}");
    }

    #[test]
    fn an_unsafe_image_is_refused_and_nothing_written() {
        let room = Room::new();
        room.overlay("a.qcow2", "/etc/passwd");
        room.write("old.raw", b"precious");
        for out in ["new.raw", "old.raw"] {
            let (code, _, err) = room.glint(&["convert", "-O", "raw", "a.qcow2", out]);
            assert_eq!(code, 1);
            assert!(
                err.contains("refused") && err.contains("[backing_file]"),
                "{err}"
            );
        }
        assert_eq!(room.read("old.raw"), b"precious");
        assert_eq!(room.names(), ["a.qcow2", "old.raw"]);

        let (code, out, _) = room.glint(&[
            "convert", "-O", "raw", "--output", "json", "a.qcow2", "new.raw",
        ]);
        let failure: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 1);
        assert_eq!(failure["findings"][0]["rule"], "backing_file");
    }

    #[test]
    fn an_image_that_breaks_off_leaves_nothing_and_replaces_nothing() {
        let room = Room::new();
        room.raw("a.raw");
        room.tool(
            "qemu-img",
            &[
                "convert", "-c", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2",
            ],
        );
        let whole = room.read("a.qcow2");
        room.write("old.raw", b"precious");
        for share in [10, 50, 90] {
            room.write("cut.qcow2", &whole[..whole.len() * share / 100]);
            let (code, _, err) = room.glint(&["convert", "-O", "raw", "cut.qcow2", "old.raw"]);
            assert_eq!(code, 1, "{share}%: {err}");
        }
        assert_eq!(room.read("old.raw"), b"precious");
        assert_eq!(room.names(), ["a.qcow2", "a.raw", "cut.qcow2", "old.raw"]);
    }

    #[test]
    fn the_format_said_has_to_be_the_format_found() {
        let room = Room::new();
        room.qcow2("a.qcow2");
        let (code, _, err) = room.glint(&["convert", "-f", "vdi", "-O", "raw", "a.qcow2", "b"]);
        assert_eq!(code, 1);
        assert!(err.contains("a.qcow2: is qcow2, not vdi"), "{err}");
        let (code, _, err) =
            room.glint(&["convert", "-f", "qcow2", "-O", "raw", "source.raw", "b"]);
        assert_eq!(code, 1);
        assert!(err.contains("is raw, not qcow2"), "{err}");
        assert_eq!(room.names(), ["a.qcow2", "source.raw"]);

        let args = ["convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "b.raw"];
        assert_eq!(room.glint(&args).0, 0);
    }

    #[test]
    fn raw_by_request_copies_the_bytes_as_they_are() {
        let room = Room::new();
        room.overlay("a.qcow2", "/etc/passwd");
        let (code, _, err) = room.glint(&["convert", "-f", "raw", "-O", "raw", "a.qcow2", "b"]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("because of -f raw"), "{err}");
        assert_eq!(room.read("a.qcow2"), room.read("b"));
    }

    #[test]
    fn a_compressed_image_is_inflated_on_the_way() {
        let room = Room::new();
        room.qcow2("a.qcow2");
        room.tool("gzip", &["-k", "a.qcow2"]);
        room.tool("gzip", &["-k", "source.raw"]);
        for name in ["a.qcow2.gz", "source.raw.gz"] {
            let (code, _, err) = room.glint(&["convert", "-O", "raw", name, "b.raw"]);
            assert_eq!(code, 0, "{name}: {err}");
            assert!(room.read("b.raw") == room.read("source.raw"), "{name}");
        }
        assert_eq!(room.names().len(), 5);
    }

    #[test]
    fn the_only_disk_of_an_ova_is_taken() {
        let room = Room::new();
        room.ova("box.ova", &["one.vmdk"]);
        let (code, _, err) = room.glint(&["convert", "-O", "raw", "box.ova", "b.raw"]);
        assert_eq!(code, 0, "{err}");
        assert!(room.read("b.raw") == vec![1; 1 << 20]);
    }

    #[test]
    fn of_several_disks_one_has_to_be_chosen() {
        let room = Room::new();
        room.ova("box.ova", &["one.vmdk", "two.vmdk"]);
        let (code, _, err) = room.glint(&["convert", "-O", "raw", "box.ova", "b.raw"]);
        assert_eq!(code, 1);
        assert!(
            err.contains("one.vmdk") && err.contains("two.vmdk"),
            "{err}"
        );
        assert!(!room.path().join("b.raw").exists());

        for disk in ["1", "two.vmdk"] {
            let args = ["convert", "--disk", disk, "-O", "raw", "box.ova", "b.raw"];
            let (code, _, err) = room.glint(&args);
            assert_eq!(code, 0, "{err}");
            assert!(room.read("b.raw") == vec![2; 1 << 20], "{disk}");
        }
        let args = ["convert", "--disk", "9", "-O", "raw", "box.ova", "c.raw"];
        assert_eq!(room.glint(&args).0, 2);
        room.raw("a.raw");
        let args = ["convert", "--disk", "0", "-O", "raw", "a.raw", "c.raw"];
        assert_eq!(room.glint(&args).0, 2);
        assert!(!room.path().join("c.raw").exists());
    }

    #[test]
    fn input_and_output_cannot_be_one_file() {
        let room = Room::new();
        room.raw("a.raw");
        let before = room.read("a.raw");
        symlink("a.raw", room.path().join("link")).unwrap();
        fs::hard_link(room.path().join("a.raw"), room.path().join("twin")).unwrap();
        for out in ["a.raw", "./a.raw", "link", "twin"] {
            let (code, _, err) = room.glint(&["convert", "-O", "raw", "a.raw", out]);
            assert_eq!(code, 2, "{out}");
            assert!(err.contains("is the input too"), "{err}");
        }
        assert!(room.read("a.raw") == before);
    }

    #[test]
    fn the_output_has_the_mode_of_any_new_file_or_of_the_one_it_replaces() {
        let room = Room::new();
        room.raw("a.raw");
        room.write("plain", b"");
        room.write("private", b"");
        let mode = |name: &str| {
            let meta = fs::metadata(room.path().join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(room.path().join("private"), private).unwrap();
        symlink("private", room.path().join("link")).unwrap();
        for out in ["new", "link"] {
            assert_eq!(room.glint(&["convert", "-O", "raw", "a.raw", out]).0, 0);
        }
        assert_eq!(mode("new"), mode("plain"));
        assert_eq!(mode("private"), 0o600);
        assert!(room.read("private") == room.read("a.raw"));
        assert!(
            fs::symlink_metadata(room.path().join("link"))
                .unwrap()
                .is_symlink()
        );
    }

    /// Starts a long conversion under `wrapper` and sends it `signals` once it writes; answers
    /// the exit code, having checked that nothing stays behind. On a busy machine one may be done
    /// before it hears of them: then another is started.
    fn signalled(wrapper: &[&str], signals: &[rustix::process::Signal]) -> Option<i32> {
        let mut attempts = (0..20).map(|_| signalled_once(wrapper, signals));
        attempts.find(|code| *code != Some(0)).flatten()
    }

    fn signalled_once(wrapper: &[&str], signals: &[rustix::process::Signal]) -> Option<i32> {
        let room = Room::new();
        room.write("a.raw", &noise(64 << 20));
        room.write("old.qcow2", b"precious");
        let before = room.names();
        // The slowest there is: it must not be done before a busy machine tells it of the signal.
        let slow = ["-o", "subformat=streamOptimized,compression_level=12"];
        let convert = ["convert", "-m", "1", "-O", "vmdk"];
        let files = ["a.raw", "old.qcow2"];
        let words = [wrapper, &[GLINT], &convert, &slow, &files].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(room.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its file appears once it is ready for signals.
        while room.names() == before {
            assert!(child.try_wait().unwrap().is_none(), "ended by itself");
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&child);
        for signal in signals {
            rustix::process::kill_process(pid, *signal).unwrap();
        }
        let code = child.wait().unwrap().code();
        if code == Some(0) {
            return code;
        }
        let mut err = String::new();
        child.stderr.unwrap().read_to_string(&mut err).unwrap();
        assert!(err.contains("ended by SIG"), "{code:?} {err}");
        assert_eq!(room.names(), before);
        assert_eq!(room.read("old.qcow2"), b"precious");
        code
    }

    #[test]
    fn a_conversion_ended_by_a_signal_leaves_nothing() {
        use rustix::process::Signal;

        // Not ignored, even where the tests run under nohup themselves.
        let heard = ["env", "--default-signal=HUP"];
        assert_eq!(signalled(&heard, &[Signal::HUP]), Some(129));
        assert_eq!(signalled(&[], &[Signal::INT]), Some(130));
        assert_eq!(signalled(&[], &[Signal::TERM]), Some(143));
        // Asked to survive the terminal, it does.
        let both = [Signal::HUP, Signal::TERM];
        assert_eq!(signalled(&["nohup"], &both), Some(143));
    }

    #[test]
    fn an_error_names_the_file_at_fault() {
        let room = Room::new();
        room.raw("a.raw");
        let script = r#"ulimit -f 1; trap '' XFSZ; exec "$0" convert -O raw a.raw b.raw"#;
        let out = room.run("sh", &["-c", script, GLINT]);
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{err}");
        assert!(err.starts_with("error: b.raw: "), "{err}");

        let (_, _, err) = room.glint(&["convert", "-O", "raw", "a.raw", "missing/b.raw"]);
        assert!(err.starts_with("error: opening missing: No such"), "{err}");
        let (_, _, err) = room.glint(&["convert", "-O", "raw", "a.raw", "a.raw/b.raw"]);
        assert_eq!(err, "error: a.raw is not a directory\n");
        assert_eq!(room.names(), ["a.raw"]);
    }

    #[test]
    fn what_holds_no_disk_is_told_so() {
        let room = Room::new();
        room.ova("none.ova", &[]);
        room.raw("a.raw");
        room.tool("tar", &["-cf", "plain.tar", "--format=ustar", "a.raw"]);
        for (name, message) in [
            ("none.ova", "it holds no disk"),
            ("plain.tar", "is an archive without a disk image"),
            ("box.ovf", "it holds no disk"),
        ] {
            let (code, _, err) = room.glint(&["convert", "-O", "raw", name, "b.raw"]);
            assert_eq!(code, 1, "{name}: {err}");
            assert!(err.contains(message), "{name}: {err}");
        }
    }

    #[test]
    fn what_is_refused_inside_compression_is_named_by_it() {
        let room = Room::new();
        room.overlay("a.qcow2", "/etc/passwd");
        room.tool("gzip", &["a.qcow2"]);
        let (code, _, err) = room.glint(&["convert", "-O", "raw", "a.qcow2.gz", "b.raw"]);
        assert_eq!(code, 1);
        assert!(err.contains("this gzip-compressed file is unsafe"), "{err}");
    }

    #[test]
    fn a_disk_of_no_bytes_goes_only_where_it_can_be_opened_again() {
        let room = Room::new();
        room.write("a.raw", b"");
        for options in [
            &["-O", "vmdk"][..],
            &["-O", "vmdk", "-o", "subformat=streamOptimized"],
            &["-O", "vhdx"],
            &["-O", "vhd", "-o", "subformat=fixed"],
        ] {
            let args = [&["convert"][..], options, &["a.raw", "b"]].concat();
            let (code, _, err) = room.glint(&args);
            assert_eq!(code, 2, "{options:?}");
            assert!(err.contains("cannot hold a disk of 0 bytes"), "{err}");
        }
        assert_eq!(room.names(), ["a.raw"]);
        assert_eq!(room.glint(&["convert", "-O", "qcow2", "a.raw", "b"]).0, 0);
        room.same_disk(("raw", "a.raw"), ("qcow2", "b"));
    }

    #[test]
    fn the_output_has_to_be_a_file() {
        let room = Room::new();
        room.raw("a.raw");
        for out in [".", "/dev/null", "missing/b.raw", ""] {
            let (code, _, err) = room.glint(&["convert", "-O", "raw", "a.raw", out]);
            assert_eq!(code, 2, "{out}: {err}");
        }
        assert_eq!(room.names(), ["a.raw"]);
    }
}

#[test]
fn wrong_usage_is_code_two_and_touches_nothing() {
    let room = Room::new();
    room.raw("a.raw");
    let cases: [&[&str]; 13] = [
        &[],
        &["frobnicate"],
        &["inspect"],
        &["inspect", "--frobnicate", "a.raw"],
        &["convert", "a.raw", "b"],
        &["convert", "-O", "floppy", "a.raw", "b"],
        &["convert", "-O", "iso", "a.raw", "b"],
        &["convert", "-O", "raw", "-c", "a.raw", "b"],
        &["convert", "-O", "raw", "-o", "size", "a.raw", "b"],
        &["convert", "-O", "qcow2", "-o", "frobnicate=1", "a.raw", "b"],
        &[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "cluster_size=64k,cluster_size=64k",
            "a.raw",
            "b",
        ],
        &["convert", "-O", "raw", "-m", "0", "a.raw", "b"],
        &["convert", "-O", "raw", "-m", "65", "a.raw", "b"],
    ];
    for args in cases {
        let (code, out, err) = room.glint(args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert_eq!(out, "", "{args:?}");
        assert_ne!(err, "", "{args:?}");
    }
    assert_eq!(room.names(), ["a.raw"]);
}

#[test]
fn help_and_version_are_fine() {
    let room = Room::new();
    for args in [&["--help"][..], &["--version"], &["convert", "--help"]] {
        let (code, out, err) = room.glint(args);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_ne!(out, "");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let room = Room::new();
    room.raw("a.raw");
    for args in [
        &["inspect", "a.raw"][..],
        &["inspect", "--output", "json", "a.raw"],
        &["man"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = Command::new(GLINT)
            .args(args)
            .current_dir(room.path())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap();
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{args:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let room = Room::new();
    room.raw("a.raw");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let out = Command::new(GLINT)
        .args(["inspect", "a.raw"])
        .current_dir(room.path())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("standard output"));
}

#[test]
fn completions_and_manual_come_from_the_program() {
    let room = Room::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = room.glint(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("inspect"), "{shell}");
    }
    let (code, out, _) = room.glint(&["man"]);
    assert_eq!(code, 0);
    assert!(out.contains(".TH glint 1"));
    assert_eq!(room.glint(&["man", "--out", "pages"]).0, 0);
    let page = fs::read_to_string(room.path().join("pages/glint-convert.1")).unwrap();
    assert!(page.contains("unsafe image is refused"));
    assert!(!room.path().join("pages/glint-convert-worker.1").exists());
}

#[test]
fn standard_error_may_be_closed_too() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(GLINT)
        .args(["inspect", "none.img"])
        .stderr(writer)
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
