//! The verbs beside `inspect` and `convert`: what they print and leave behind, with qemu-img as
//! the maker of images, the witness and, where scripts are to switch, the model.

mod batch;
mod check;
mod compare;
mod create;
mod info;
mod map;
mod measure;
mod memory;
#[path = "../support/noise.rs"]
mod noise;
mod permit;
mod resize;

use std::fs;
use std::path::{Path, PathBuf};
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

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// Runs glint with words; answers exit code, standard output and standard error.
    fn glint(&self, args: &str) -> (i32, String, String) {
        let args: Vec<_> = args.split_whitespace().collect();
        let out = self.run(GLINT, &args);
        (
            out.status.code().expect("glint ended by itself"),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    }

    /// Runs glint, which has to succeed.
    fn fine(&self, args: &str) -> String {
        let (code, out, err) = self.glint(args);
        assert_eq!(code, 0, "glint {args}: {out}{err}");
        out
    }

    /// What glint prints as JSON.
    fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.fine(args)).unwrap()
    }

    /// Runs qemu-img, which has to succeed.
    fn qemu(&self, args: &str) -> String {
        let args: Vec<_> = args.split_whitespace().collect();
        let out = self.run("qemu-img", &args);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "qemu-img {args:?}: {err}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs qemu-io on an image, which has to succeed.
    fn io(&self, image: &str, format: &str, commands: &[&str]) {
        let mut args = vec!["-f", format];
        for command in commands {
            args.extend(["-c", *command]);
        }
        args.push(image);
        let out = self.run("qemu-io", &args);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success() && !text.contains("failed"),
            "qemu-io {args:?}: {text}"
        );
    }

    /// A raw disk of 5 MiB and a bit: data, zeros and a hole.
    fn raw(&self, name: &str) {
        let mut bytes = noise(1 << 20);
        bytes.resize(2 << 20, 0);
        bytes.extend_from_slice(&noise(70_000));
        fs::write(self.path(name), bytes).unwrap();
        self.cut(name, (5 << 20) + 512);
    }

    /// Sets the length of a file.
    fn cut(&self, name: &str, len: u64) {
        let file = fs::File::options().write(true).open(self.path(name));
        file.unwrap().set_len(len).unwrap();
    }

    /// Changes a byte of a file.
    fn poke(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        bytes[at] ^= 0xff;
        fs::write(self.path(name), bytes).unwrap();
    }
}

#[test]
fn completions_and_manual_know_every_verb() {
    let room = Room::new();
    let script = room.fine("completions bash");
    room.fine("man --out man");
    for verb in [
        "info", "check", "compare", "map", "measure", "create", "resize",
    ] {
        assert!(script.contains(&format!("glint__subcmd__{verb}")) || script.contains(verb));
        let page = fs::read_to_string(room.path(format!("man/glint-{verb}.1"))).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{page}");
    }
}
