//! Faults: kill -9 at any moment, clients that hang up or lie, a full disk. What was acknowledged
//! is there, what failed has left nothing, and the server goes on.

mod batches;
mod faults;
mod imports;
#[path = "../support/server.rs"]
mod server;
mod uploads;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use server::{Server, answer};

const OCTETS: &str = "Content-Type: application/octet-stream";

fn data(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A data folder that does not exist yet.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    (dir, data)
}

fn assert_queued_and_clean(server: &Server, image: &str) {
    let found = server.wait_for(image, "queued");
    for field in ["size", "virtual_size", "checksum", "os_hash_value"] {
        assert!(found[field].is_null(), "{field} of {found:#}");
    }
    assert_eq!(server.files("images"), [""; 0]);
    assert_eq!(server.files("staging"), [""; 0]);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let (_dir, path) = folder();
    let server = Server::start(&path, "");
    let image = server.create("raw", "bare");
    let bytes = data(3_000_000);
    assert_eq!(server.upload(&image, "file", &bytes), 204);
    server.kill();
    let server = Server::start(&path, "");
    assert_eq!(server.wait_for(&image, "active")["size"], 3_000_000);
    let (status, body) = server.ask("GET", &format!("{image}/file"), "", b"");
    assert!(status == 200 && body == bytes);
}

#[test]
fn a_kill_in_the_middle_of_an_upload_leaves_nothing() {
    let (_dir, path) = folder();
    for (what, during) in [("file", "saving"), ("stage", "uploading")] {
        let server = Server::start(&path, "");
        let image = server.create("raw", "bare");
        let path_of = format!("{image}/{what}");
        let mut upload = server.begin("PUT", &path_of, &[OCTETS, "Content-Length: 90000000"]);
        upload.write_all(&data(2_000_000)).unwrap();
        server.wait_for(&image, during);
        server.kill();
        let server = Server::start(&path, "");
        assert_queued_and_clean(&server, &image);
        // And it can be uploaded again.
        assert_eq!(server.upload(&image, "file", b"whole"), 204);
        server.json("DELETE", &image, "");
    }
}

#[test]
fn an_import_killed_at_any_moment_is_done_once() {
    let (dir, path) = folder();
    let config = "[import]\noutput_format = \"raw\"\n";
    let raw = dir.path().join("disk.raw");
    let mut content = data(24 << 20);
    content[5 << 20..9 << 20].fill(0);
    std::fs::write(&raw, &content).unwrap();
    let qcow2 = dir.path().join("disk.qcow2");
    let made = Command::new("qemu-img")
        .args(["convert", "-c", "-O", "qcow2"])
        .args([&raw, &qcow2])
        .status()
        .unwrap();
    assert!(made.success());
    let staged = std::fs::read(&qcow2).unwrap();
    for kill_after in [0, 15, 30, 60, 90, 130, 180, 250] {
        let server = Server::start(&path, config);
        let image = server.create("qcow2", "bare");
        assert_eq!(server.upload(&image, "stage", &staged), 204);
        let import = r#"{"method":{"name":"glance-direct"}}"#;
        server.json("POST", &format!("{image}/import"), import);
        std::thread::sleep(Duration::from_millis(kill_after));
        server.kill();
        let server = Server::start(&path, config);
        let found = server.wait_for(&image, "active");
        assert_eq!(found["disk_format"], "raw", "killed after {kill_after} ms");
        let (_, body) = server.ask("GET", &format!("{image}/file"), "", b"");
        assert!(body == content, "killed after {kill_after} ms");
        // The job removes its staging after it has published: give it a moment, never more.
        for _ in 0..200 {
            if server.files("staging").is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(
            server.files("staging"),
            [""; 0],
            "killed after {kill_after} ms"
        );
        assert_eq!(
            server.files("images").len(),
            1,
            "killed after {kill_after} ms"
        );
        server.json("DELETE", &image, "");
        assert_eq!(server.files("images"), [""; 0]);
    }
}

#[test]
fn a_client_that_hangs_up_or_lies_leaves_nothing() {
    let (_dir, path) = folder();
    let mut server = Server::start(&path, "");
    let image = server.create("raw", "bare");
    let file = format!("{image}/file");

    let mut upload = server.begin("PUT", &file, &[OCTETS, "Content-Length: 90000000"]);
    upload.write_all(&data(1_000_000)).unwrap();
    server.wait_for(&image, "saving");
    drop(upload);
    assert_queued_and_clean(&server, &image);

    let mut upload = server.begin("PUT", &file, &[OCTETS, "Transfer-Encoding: chunked"]);
    upload
        .write_all(b"5\r\nhello\r\nffffff\r\nnot that much")
        .unwrap();
    server.wait_for(&image, "saving");
    drop(upload);
    assert_queued_and_clean(&server, &image);

    let size = "x-openstack-image-size: 5";
    let mut upload = server.begin("PUT", &file, &[OCTETS, "Content-Length: 7", size]);
    upload.write_all(b"seven 7").unwrap();
    assert_eq!(answer(upload).0, 400);
    assert_queued_and_clean(&server, &image);

    assert!(server.is_up());
    assert_eq!(server.upload(&image, "file", b"honest"), 204);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped aloud: mounting a small file system needs root");
        return;
    };
    let mut server = Server::start(&small.0.join("data"), "");
    let image = server.create("raw", "bare");
    for what in ["file", "stage"] {
        let status = server.upload(&image, what, &data(24 << 20));
        assert_eq!(status, 413, "{what}");
        assert_queued_and_clean(&server, &image);
        assert!(server.is_up());
    }
    assert_eq!(server.upload(&image, "file", b"small"), 204);
}

/// A file system of 16 MiB in memory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|s| s.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
