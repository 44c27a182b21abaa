//! A real `glint serve` on loopback, to be killed, and a client that can misbehave.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Mutex<Child>,
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
}

impl Server {
    /// Starts on `data`, with `config` as its configuration, and waits until it answers.
    pub(crate) fn start(data: &Path, config: &str) -> Self {
        let file = data.with_extension("toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_glint"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Whole from here on, so that a panic below kills it too.
        let mut server = Self {
            child: Mutex::new(child),
            port: 0,
            data: data.to_owned(),
        };
        let mut said = Vec::new();
        server.port = loop {
            let line = lines.next().map(Result::unwrap);
            let Some(line) = line else {
                panic!("the server did not start: {said:#?}");
            };
            if let Some((_, port)) = line.rsplit_once("http://127.0.0.1:") {
                break port.trim().parse().unwrap();
            }
            said.push(line);
        };
        // Its log must be read, or it would wait for us; on failure it is worth seeing.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| eprintln!("{l}")));
        server
    }

    /// Kill -9, whatever it is at.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child.get_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Files below a folder of the data.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data.join(folder)).unwrap();
        entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Sends the head of a request; the body is the caller's.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &[&str]) -> TcpStream {
        self.try_begin(method, path, headers).unwrap()
    }

    fn try_begin(&self, method: &str, path: &str, headers: &[&str]) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        Ok(stream)
    }

    /// A whole request with a whole answer: its status and its body.
    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.try_ask(method, path, kind, body).expect("an answer")
    }

    /// The same of a server that may be killed meanwhile: `None` where no answer came.
    pub(crate) fn try_ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        let length = format!("Content-Length: {}", body.len());
        let kind = format!("Content-Type: {kind}");
        let mut stream = self.try_begin(method, path, &[&length, &kind]).ok()?;
        // A server that has refused may close before it has read everything.
        let _ = stream.write_all(body);
        try_answer(stream)
    }

    /// A JSON request that must succeed.
    pub(crate) fn json(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let (status, answer) = self.ask(method, path, "application/json", body.as_bytes());
        assert!(
            status < 300,
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    /// Creates an image; answers its path.
    pub(crate) fn create(&self, disk: &str, container: &str) -> String {
        let body = format!(r#"{{"disk_format":"{disk}","container_format":"{container}"}}"#);
        let image = self.json("POST", "/v2/images", &body);
        format!("/v2/images/{}", image["id"].as_str().unwrap())
    }

    /// Uploads; answers the status.
    pub(crate) fn upload(&self, image: &str, what: &str, bytes: &[u8]) -> u16 {
        self.ask(
            "PUT",
            &format!("{image}/{what}"),
            "application/octet-stream",
            bytes,
        )
        .0
    }

    /// Waits until the image's status is `status`; answers the image.
    pub(crate) fn wait_for(&self, image: &str, status: &str) -> serde_json::Value {
        let start = Instant::now();
        loop {
            let found = self.json("GET", image, "");
            if found["status"] == status {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{status} never came: {found:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Reads an answer to its end.
pub(crate) fn answer(stream: TcpStream) -> (u16, Vec<u8>) {
    try_answer(stream).expect("an answer")
}

fn try_answer(mut stream: TcpStream) -> Option<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    // A reset after the answer is the server's way to stop an upload it has refused.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let status = String::from_utf8_lossy(&bytes[9..12])
        .parse()
        .expect("a status");
    Some((status, bytes.split_off(end + 4)))
}
