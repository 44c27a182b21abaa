//! `glint` on real database servers: what it does while they are away, and several of it on one.

#[path = "../support/server.rs"]
mod server;
mod side_by_side;
#[path = "../support/mod.rs"]
mod support;
mod workers;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use server::Server;
use support::database;

/// A configuration for a catalog at `url`, with one store in a folder that several may share.
fn config(url: &str, store: &Path) -> String {
    format!(
        "[catalog]\nurl = '{url}'\n[[stores]]\nid = 'file'\ntype = 'file'\npath = '{}'\n",
        store.display()
    )
}

/// Runs `glint db …`; answers its exit code.
fn db(config: &Path, args: &[&str]) -> Option<i32> {
    let output = Command::new(env!("CARGO_BIN_EXE_glint"))
        .arg("db")
        .args(args)
        .arg("--data")
        .arg(config.with_extension("data"))
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    output.status.code()
}

/// The head of the answer to a request without a body.
fn head(server: &Server, method: &str, path: &str) -> String {
    let mut answer = String::new();
    let mut stream = server.begin(method, path, &["Content-Length: 0"]);
    stream.read_to_string(&mut answer).unwrap();
    answer
        .split("\r\n\r\n")
        .next()
        .unwrap()
        .to_ascii_lowercase()
}

#[test]
fn postgres_may_go_and_come_back() {
    goes_and_comes_back("postgres");
}

#[test]
fn mariadb_may_go_and_come_back() {
    goes_and_comes_back("mariadb");
}

fn goes_and_comes_back(kind: &str) {
    let Some(database) = database::Server::start(kind) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = runtime.block_on(database.create());
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let file = dir.path().join("glint.toml");
    std::fs::write(&file, config(&url, &store)).unwrap();

    assert_eq!(db(&file, &["check"]), Some(1), "an empty database");
    assert_eq!(db(&file, &["sync"]), Some(0));
    assert_eq!(db(&file, &["check"]), Some(0));

    let server = Server::start(&dir.path().join("data"), &config(&url, &store));
    let kept = server.create("raw", "bare");
    assert_eq!(server.upload(&kept, "file", b"kept"), 204);
    let broken = server.create("raw", "bare");
    let mut upload = server.begin(
        "PUT",
        &format!("{broken}/file"),
        &[
            "Content-Type: application/octet-stream",
            "Content-Length: 8",
        ],
    );
    upload.write_all(b"half").unwrap();
    server.wait_for(&broken, "saving");

    database.stop();
    upload.write_all(b"half").unwrap();
    let (status, _) = server::answer(upload);
    assert_eq!(status, 503, "an upload whose end could not be noted");
    for (method, path) in [
        ("GET", "/v2/images"),
        ("GET", kept.as_str()),
        ("DELETE", &kept),
    ] {
        let head = head(&server, method, path);
        assert!(head.starts_with("http/1.1 503"), "{method} {path}: {head}");
        assert!(head.contains("retry-after: "), "{method} {path}: {head}");
    }
    assert_eq!(db(&file, &["check"]), Some(2), "a database that is away");

    database.restart();
    // Nobody is restarted: the same process finds its database again.
    let (status, body) = server.ask("GET", &format!("{kept}/file"), "", b"");
    assert_eq!((status, body.as_slice()), (200, b"kept".as_slice()));
    // Its bytes and its status are put right when its lease is over; until then it shows nothing.
    let half = server.json("GET", &broken, "");
    assert_ne!(half["status"], "active");
    assert!(
        half["size"].is_null() && half["checksum"].is_null(),
        "{half:#}"
    );
    let next = server.create("raw", "bare");
    assert_eq!(server.upload(&next, "file", b"next"), 204);
}
