//! Uploads in several requests, through kills of the server and clients that hang up.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{Server, answer};
use crate::{data, folder};

const TUS: &str = "Tus-Resumable: 1.0.0";
const OCTETS: &str = "Content-Type: application/offset+octet-stream";

/// Begins a request; answers what came back, head and all.
fn ask(server: &Server, method: &str, path: &str, headers: &[&str]) -> String {
    let mut headers = headers.to_vec();
    headers.extend([TUS, "Content-Length: 0"]);
    let mut said = String::new();
    let _ = server
        .begin(method, path, &headers)
        .read_to_string(&mut said);
    said
}

fn header<'a>(said: &'a str, name: &str) -> &'a str {
    let found = said.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_else(|| panic!("no {name}: {said}"))
}

fn begin(server: &Server, image: &str, len: usize) -> String {
    let length = format!("Upload-Length: {len}");
    let said = ask(server, "POST", &format!("{image}/upload"), &[&length]);
    let url = header(&said, "location");
    url[url.find("/v2/").unwrap()..].to_owned()
}

fn offset(server: &Server, upload: &str) -> usize {
    let said = ask(server, "HEAD", upload, &[]);
    header(&said, "upload-offset").parse().unwrap()
}

/// Sends what is missing from `at` on, or `some` of it and no more for now.
fn send(server: &Server, upload: &str, at: usize, bytes: &[u8], some: usize) -> TcpStream {
    let length = format!("Content-Length: {}", bytes.len() - at);
    let at_header = format!("Upload-Offset: {at}");
    let headers = [TUS, OCTETS, length.as_str(), at_header.as_str()];
    let mut stream = server.begin("PATCH", upload, &headers);
    stream.write_all(&bytes[at..at + some]).unwrap();
    stream
}

#[test]
fn an_upload_goes_on_after_hang_ups_and_kills() {
    let (_dir, path) = folder();
    let mut server = Server::start(&path, "");
    let image = server.create("raw", "bare");
    let bytes = data(9_000_000);
    let upload = begin(&server, &image, bytes.len());
    let mut told = 0;
    for some in [1_500_000, 2_000_000, 700_000] {
        // The client hangs up in the middle: what came of its request counts.
        drop(send(&server, &upload, told, &bytes, some));
        let now = offset(&server, &upload);
        assert!(now >= told && now <= told + some, "{now} after {told}");
        told = now;
        // It is killed in the middle of another: what was told still counts.
        let hanging = send(&server, &upload, told, &bytes, some);
        server.kill();
        drop(hanging);
        server = Server::start(&path, "");
        let now = offset(&server, &upload);
        assert!(now >= told, "{now} after {told}");
        told = now;
    }
    let (status, body) = answer(send(&server, &upload, told, &bytes, bytes.len() - told));
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    assert_eq!(server.wait_for(&image, "active")["size"], bytes.len());
    let (status, body) = server.ask("GET", &format!("{image}/file"), "", b"");
    assert!(status == 200 && body == bytes);
    assert_eq!(server.files("uploads"), [""; 0]);
}

#[test]
fn a_kill_while_an_upload_is_published_is_made_good() {
    let (_dir, path) = folder();
    let bytes = data(30_000_000);
    for round in 0..4 {
        let server = Server::start(&path, "");
        let image = server.create("raw", "bare");
        let upload = begin(&server, &image, bytes.len());
        let stream = send(&server, &upload, 0, &bytes, bytes.len());
        // At another point each time: from the last bytes to the end.
        let mut polls = 0;
        while server.json("GET", &image, "")["status"] == "queued" && polls < 2000 {
            polls += 1;
        }
        for _ in 0..round * 3 {
            server.json("GET", &image, "");
        }
        server.kill();
        drop(stream);
        let server = Server::start(&path, "");
        let told = offset(&server, &upload);
        if told < bytes.len() {
            answer(send(&server, &upload, told, &bytes, bytes.len() - told));
        }
        server.wait_for(&image, "active");
        let (status, body) = server.ask("GET", &format!("{image}/file"), "", b"");
        assert!(status == 200 && body == bytes);
        assert_eq!(server.files("uploads"), [""; 0]);
        assert_eq!(server.files("images").len(), round + 1);
        server.kill();
    }
}
