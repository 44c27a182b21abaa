//! Kill -9 in the middle of a download and between the stores of an import.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::{data, folder};

/// A web server that holds its first answer back in the middle, and gives the second whole.
struct Web {
    port: u16,
    /// Told when half of the first answer is out.
    half: Receiver<()>,
    /// Lets the first answer end.
    _hold: Sender<()>,
}

impl Web {
    fn start(body: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sent, half) = channel();
        let (hold, held) = channel::<()>();
        std::thread::spawn(move || {
            let mut held = Some(held);
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if !take_request(&stream) {
                    continue;
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).unwrap();
                match held.take() {
                    Some(held) => {
                        let half = &body[..body.len() / 2];
                        stream.write_all(half).unwrap();
                        sent.send(()).unwrap();
                        // Until the test is over.
                        std::thread::spawn(move || {
                            let _ = held.recv();
                            drop(stream);
                        });
                    }
                    None => stream.write_all(&body).unwrap(),
                }
            }
        });
        Self {
            port,
            half,
            _hold: hold,
        }
    }
}

/// Reads a request's head; false where none came.
fn take_request(stream: &TcpStream) -> bool {
    let mut lines = BufReader::new(stream).lines();
    let mut any = false;
    for line in lines.by_ref() {
        match line {
            Ok(line) if line.is_empty() => return true,
            Ok(_) => any = true,
            Err(_) => return false,
        }
    }
    any
}

/// Waits until no import of the image is under way any more.
pub(crate) fn settled(server: &Server, image: &str) -> serde_json::Value {
    let start = Instant::now();
    loop {
        let found = server.json("GET", image, "");
        if found.get("os_glance_import_task").is_none() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{found:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_download_killed_in_the_middle_is_begun_again() {
    let (_dir, path) = folder();
    let body = data(6_000_000);
    let web = Web::start(body.clone());
    let port = web.port;
    let config =
        format!("[fetch]\nallowed_networks = [\"127.0.0.0/8\"]\nallowed_ports = [{port}]\n");
    let server = Server::start(&path, &config);
    let image = server.create("raw", "bare");
    let import =
        format!(r#"{{"method":{{"name":"web-download","uri":"http://127.0.0.1:{port}/disk"}}}}"#);
    server.json("POST", &format!("{image}/import"), &import);
    web.half.recv_timeout(Duration::from_secs(60)).unwrap();
    server.wait_for(&image, "importing");
    server.kill();

    let server = Server::start(&path, &config);
    let found = settled(&server, &image);
    assert_eq!(found["status"], "active", "{found:#}");
    let (status, got) = server.ask("GET", &format!("{image}/file"), "", b"");
    assert!(status == 200 && got == body);
    assert_eq!(server.files("staging"), [""; 0]);
    assert_eq!(server.files("images").len(), 1);
}

#[test]
fn an_import_into_several_stores_killed_at_any_moment_is_in_all_of_them_once() {
    let (dir, path) = folder();
    let config = format!(
        "[[stores]]\nid = \"a\"\ntype = \"file\"\npath = \"{0}/a\"\n\
         [[stores]]\nid = \"b\"\ntype = \"file\"\npath = \"{0}/b\"\n\
         [[stores]]\nid = \"c\"\ntype = \"file\"\npath = \"{0}/c\"\n\
         [import]\nparallel_stores = 2\n",
        dir.path().display()
    );
    let bytes = data(9_000_000);
    for must_succeed in [true, false] {
        for kill_after in [0, 4, 8, 16, 32, 64] {
            let server = Server::start(&path, &config);
            let image = server.create("raw", "bare");
            assert_eq!(server.upload(&image, "stage", &bytes), 204);
            let import = format!(
                r#"{{"method":{{"name":"glance-direct"}},"all_stores":true,
                    "all_stores_must_succeed":{must_succeed}}}"#
            );
            server.json("POST", &format!("{image}/import"), &import);
            std::thread::sleep(Duration::from_millis(kill_after));
            server.kill();

            let server = Server::start(&path, &config);
            let found = settled(&server, &image);
            let when = format!("killed after {kill_after} ms, all: {must_succeed}: {found:#}");
            assert_eq!(found["status"], "active", "{when}");
            let mut stores: Vec<_> = found["stores"].as_str().unwrap().split(',').collect();
            stores.sort_unstable();
            assert_eq!(stores, ["a", "b", "c"], "{when}");
            assert_eq!(found["os_glance_failed_import"], "", "{when}");
            for store in ["a", "b", "c"] {
                let names = std::fs::read_dir(dir.path().join(store)).unwrap();
                let names: Vec<_> = names.map(|e| e.unwrap().path()).collect();
                assert_eq!(names.len(), 1, "{store} {when}: {names:?}");
                assert!(std::fs::read(&names[0]).unwrap() == bytes, "{store} {when}");
            }
            server.json("DELETE", &image, "");
            for store in ["a", "b", "c"] {
                let left = std::fs::read_dir(dir.path().join(store)).unwrap().count();
                assert_eq!(left, 0, "{store} {when}");
            }
        }
    }
}

/// An archive of two disks, made by ourselves.
fn archive(folder: &std::path::Path) -> Vec<u8> {
    for name in ["a.raw", "b.raw"] {
        std::fs::write(folder.join(name), data(3_000_000)).unwrap();
    }
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_glint"))
        .args([
            "convert", "-f", "raw", "-O", "ova", "a.raw", "b.raw", "set.ova",
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    std::fs::read(folder.join("set.ova")).unwrap()
}

#[test]
fn a_set_killed_at_any_moment_is_whole_once() {
    let (dir, path) = folder();
    let bytes = archive(dir.path());
    for kill_after in [0, 30, 60, 90, 120, 200, 400] {
        let server = Server::start(&path, "");
        let image = server.create("vmdk", "ova");
        assert_eq!(server.upload(&image, "stage", &bytes), 204);
        let import = r#"{"method":{"name":"glance-direct"},"appliance":true,
            "convert":{"disk_format":"raw"}}"#;
        server.json("POST", &format!("{image}/import"), import);
        std::thread::sleep(Duration::from_millis(kill_after));
        server.kill();

        let server = Server::start(&path, "");
        let start = Instant::now();
        // At no moment are some of them active and some not.
        let set = loop {
            let all = server.json("GET", "/v2/images", "")["images"].clone();
            let status: Vec<_> = all
                .as_array()
                .unwrap()
                .iter()
                .map(|i| &i["status"])
                .collect();
            let active = status.iter().filter(|s| **s == "active").count();
            assert!(
                active == 0 || (active == 2 && status.len() == 2),
                "{kill_after} ms: {all:#}"
            );
            if active > 0 {
                break all;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{kill_after} ms: {all:#}"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        // What was staged goes last.
        let start = Instant::now();
        while server.files("staging") != [""; 0] {
            assert!(start.elapsed() < Duration::from_secs(60), "{kill_after} ms");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(server.files("images").len(), 2, "{kill_after} ms: {set:#}");
        for image in set.as_array().unwrap() {
            let target = format!("/v2/images/{}", image["id"].as_str().unwrap());
            let (status, got) = server.ask("GET", &format!("{target}/file"), "", b"");
            assert!(
                status == 200 && got.starts_with(&data(3_000_000)),
                "{kill_after} ms"
            );
            server.json("DELETE", &target, "");
        }
        assert_eq!(server.files("images"), [""; 0], "{kill_after} ms");
        server.kill();
    }
}
