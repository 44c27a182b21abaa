//! Faults in the middle of imports: each ends in a state with a reason, and leaves nothing.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::imports::settled;
use crate::server::Server;
use crate::{SmallDisk, assert_queued_and_clean, data, folder};

fn last_task(server: &Server, image: &str) -> Value {
    server.json("GET", &format!("{image}/tasks"), "")["tasks"]
        .as_array()
        .and_then(|tasks| tasks.last().cloned())
        .unwrap()
}

/// Answers every request with `body`; answers the port.
fn web(body: Vec<u8>) -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines();
            let head: Vec<_> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            if head.is_empty() {
                continue;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever has no room for it closes the connection.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    port
}

#[test]
fn a_disk_that_fills_up_while_an_import_comes_in_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped aloud: mounting a small file system needs root");
        return;
    };
    let port = web(data(24 << 20));
    // Straight into the store, and by way of the staging area.
    for (import, reason) in [
        ("", "Store file is full"),
        ("decompress = true\n", "The staging area is full"),
    ] {
        let config = format!(
            "[fetch]\nallowed_networks = [\"127.0.0.0/8\"]\nallowed_ports = [{port}]\n\
             [import]\n{import}"
        );
        let mut server = Server::start(&small.0.join("data"), &config);
        let image = server.create("raw", "bare");
        let body = format!(
            r#"{{"method":{{"name":"web-download","uri":"http://127.0.0.1:{port}/disk"}}}}"#
        );
        server.json("POST", &format!("{image}/import"), &body);
        settled(&server, &image);
        assert_queued_and_clean(&server, &image);
        let task = last_task(&server, &image);
        assert_eq!(task["status"], "failure");
        assert_eq!(task["message"], reason);
        assert!(server.is_up());
    }
}

#[test]
fn a_store_that_is_away_for_a_while_is_waited_for() {
    let (dir, path) = folder();
    let store = dir.path().join("store");
    let away = dir.path().join("away");
    let config = format!(
        "[[stores]]\nid = \"file\"\ntype = \"file\"\npath = \"{}\"\n",
        store.display()
    );
    let server = Server::start(&path, &config);
    let image = server.create("raw", "bare");
    let bytes = data(1 << 20);
    assert_eq!(server.upload(&image, "stage", &bytes), 204);
    std::fs::rename(&store, &away).unwrap();
    let body = r#"{"method":{"name":"glance-direct"}}"#;
    server.json("POST", &format!("{image}/import"), body);
    let start = Instant::now();
    loop {
        let task = last_task(&server, &image);
        let message = task["message"].as_str().unwrap();
        if message.contains("tried again in") {
            assert!(message.starts_with("store file: "), "{message}");
            assert_eq!(task["status"], "processing");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{task:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::rename(&away, &store).unwrap();
    let found = settled(&server, &image);
    assert_eq!(found["status"], "active", "{found:#}");
    let (_, body) = server.ask("GET", &format!("{image}/file"), "", b"");
    assert!(body == bytes);
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 1);
}
