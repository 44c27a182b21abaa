//! `glint image` against a real `glint serve`: what comes over is what was sent, whatever is killed
//! or cut meanwhile.

mod batches;
mod download;
mod import;
#[path = "../support/noise.rs"]
mod noise;
mod relay;
#[path = "../support/server.rs"]
mod server;
mod upload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use noise::noise;
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
        self.verb("image", port, words)
    }

    /// `glint batch` with these words.
    fn batch(&self, words: &str) -> Output {
        self.verb("batch", self.server.port, words)
            .output()
            .unwrap()
    }

    fn verb(&self, verb: &str, port: u16, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glint"));
        command
            .arg(verb)
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("OS_AUTH_TYPE", "none")
            .env("OS_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .env("XDG_STATE_HOME", self.path("data-state"))
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

    /// What the image holds.
    fn data(&self, id: &str) -> Vec<u8> {
        let (status, body) = self
            .server
            .ask("GET", &format!("/v2/images/{id}/file"), "", b"");
        assert_eq!(status, 200);
        body
    }

    /// Ids of all images.
    fn images(&self) -> Vec<String> {
        let list = self.server.json("GET", "/v2/images", "");
        let list = list["images"].as_array().unwrap();
        list.iter()
            .map(|image| image["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the server has so many bytes of uploads that are not done.
    fn until_received(&self, bytes: u64) {
        until(|| {
            let uploads = fs::read_dir(self.path("data/uploads")).unwrap();
            let sizes = uploads.map(|entry| entry.unwrap().metadata().map_or(0, |m| m.len()));
            sizes.sum::<u64>() >= bytes
        });
    }

    /// Uploads that can be gone on with.
    fn noted(&self) -> usize {
        let Ok(notes) = fs::read_dir(self.path("data-state/glint/uploads")) else {
            return 0;
        };
        // Beside the note of a client that was killed there may be the next one's draft.
        let is_note = |name: &Path| name.extension().is_some_and(|e| e == "json");
        notes
            .filter(|note| is_note(&note.as_ref().unwrap().path()))
            .count()
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

/// Ends a program by a signal; answers its exit code.
fn end(mut program: Child, signal: &str) -> Option<i32> {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), program.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    program.wait().unwrap().code()
}

/// Waits until something is so.
fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never was");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(out: &Output) -> Value {
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}: {err}", out.status);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {err}"))
}

/// A raw disk of some parts: data, 5 MiB of zeros, data.
fn disk() -> Vec<u8> {
    let mut bytes = noise(18 << 20 | 4567);
    bytes[9 << 20..14 << 20].fill(0);
    bytes
}
