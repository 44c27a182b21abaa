//! Imports: what the service is asked to fetch or to convert, followed to its end.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use serde_json::Value;

use crate::{Relay, Room, disk, end, said, until};

#[test]
fn a_staged_file_is_converted() {
    let room = Room::new("");
    let bytes = disk();
    fs::write(room.path("disk.img"), &bytes).unwrap();
    let told = room.json("upload disk.img --convert qcow2");
    assert_eq!(told["status"], "active");
    assert_eq!(told["disk_format"], "qcow2");
    assert_eq!(told["protocol"], "glance-direct");
    assert!(told["hash_algo"].is_null());
    let id = told["id"].as_str().unwrap();
    assert_eq!(&room.data(id)[..4], b"QFI\xfb");
    assert_eq!(room.noted(), 0);

    let told = room.json("upload disk.img --import");
    assert_eq!(
        told["hash_value"],
        room.show(told["id"].as_str().unwrap())["os_hash_value"]
    );
}

#[test]
fn an_import_waits_for_the_whole_of_what_is_staged() {
    let room = Room::new("");
    let bytes = disk();
    fs::write(room.path("disk.img"), &bytes).unwrap();
    let relay = Relay::new(room.server.port, 7 << 20);
    let client = room.command(relay.port, "upload disk.img --import").spawn();
    relay.wait();
    let id = &room.images()[0];
    let is = |status: &str| room.show(id)["status"] == status;
    until(|| is("uploading"));
    end(client.unwrap(), "KILL");
    relay.go_on(room.server.port, usize::MAX);
    until(|| is("queued"));

    // Somebody else is staging.
    let path = format!("/v2/images/{id}/stage");
    let headers = [
        "Content-Type: application/octet-stream",
        "Content-Length: 9",
    ];
    let other = room.server.begin("PUT", &path, &headers);
    until(|| is("uploading"));
    let mut resume = room.command(
        relay.port,
        "upload disk.img --import --resume --output json",
    );
    let out = resume.output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{err}");
    assert!(err.contains("is being staged by another"), "{err}");
    assert!(is("uploading"));

    drop(other);
    until(|| is("queued"));
    let told = said(&resume.output().unwrap());
    assert_eq!(told["id"], id.as_str());
    assert!(room.data(id) == bytes);
}

/// A room whose server may fetch from `port`.
fn fetching(port: u16) -> Room {
    Room::new(&format!(
        "[fetch]\nallowed_networks = [\"127.0.0.0/8\"]\nallowed_ports = [{port}]\n"
    ))
}

#[test]
fn a_fetch_shows_how_far_it_is() {
    let origin = Room::new("");
    let bytes = disk();
    let id = origin.image("raw", &bytes);
    let relay = Relay::new(origin.server.port, 10 << 20);
    let room = fetching(relay.port);
    let url = format!("http://127.0.0.1:{}/v2/images/{id}/file", relay.port);
    let words = format!("upload --from-url {url} --disk-format raw -p --output json");
    let mut client = room.command(room.server.port, &words).spawn().unwrap();
    let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("fetching")));
    let line = line.expect("the phase is told");
    assert!(line.contains("MiB of 18.00 MiB"), "{line}");
    relay.open();
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let mut said = String::new();
    client
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(client.wait().unwrap().success(), "{rest:?}");
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["status"], "active");
    assert_eq!(told["protocol"], "web-download");
    let id = told["id"].as_str().unwrap();
    assert_eq!(room.show(id)["name"], "file");
    assert!(room.data(id) == bytes);
}

#[test]
fn an_import_that_fails_leaves_no_image() {
    let origin = Room::new("");
    let room = fetching(origin.server.port);
    let url = format!("http://127.0.0.1:{}/nothing", origin.server.port);
    let out = room.run(&format!("upload --from-url {url} --disk-format raw"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(
        err.contains("was not imported: the source answered"),
        "{err}"
    );
    assert_eq!(room.images(), [""; 0]);
}
