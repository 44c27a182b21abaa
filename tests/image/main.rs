//! `glint image` against a real `glint serve`: what comes over is what was sent, whatever is killed
//! or cut meanwhile.

mod download;
mod relay;
#[path = "../support/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use relay::Relay;
use serde_json::Value;
use server::Server;
use tempfile::TempDir;

/// A server, and a folder to work in.
struct Room {
    dir: TempDir,
    server: Server,
}

impl Room {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"), config);
        Self { dir, server }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Kill -9, and a new server on what is left.
    fn restart(&mut self, config: &str) {
        self.server.kill();
        self.server = Server::start(&self.path("data"), config);
    }

    /// `glint image` with these words, of the service at `port`.
    fn command(&self, port: u16, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glint"));
        command
            .arg("image")
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("OS_AUTH_TYPE", "none")
            .env("OS_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(self.server.port, words).output().unwrap()
    }

    /// What it says as JSON, having succeeded.
    fn json(&self, words: &str) -> Value {
        said(&self.run(&format!("{words} --output json")))
    }

    /// An image with these bytes; answers its id.
    fn image(&self, format: &str, bytes: &[u8]) -> String {
        let path = self.server.create(format, "bare");
        assert_eq!(self.server.upload(&path, "file", bytes), 204);
        path.rsplit('/').next().unwrap().to_owned()
    }

    /// The image, as the server shows it.
    fn show(&self, id: &str) -> Value {
        self.server.json("GET", &format!("/v2/images/{id}"), "")
    }

    /// Files beside the server's.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|n| !n.starts_with("data")).collect();
        names.sort();
        names
    }
}

fn said(out: &Output) -> Value {
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}: {err}", out.status);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {err}"))
}

/// Bytes that do not compress, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A raw disk of some parts: data, 8 MiB of zeros, data.
fn disk() -> Vec<u8> {
    let mut bytes = noise(26 << 20 | 4567);
    bytes[9 << 20..17 << 20].fill(0);
    bytes
}
