//! Downloads: in parts, from half a file, through cuts and kills, of wrong data, converted.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Relay, Room, disk, end, said, until};

/// The name of a part of `disk.img`.
fn part_name(room: &Room, id: &str) -> String {
    let value = room.show(id)["os_hash_value"].as_str().unwrap()[..8].to_owned();
    format!("disk.img.{value}.part")
}

#[test]
fn what_comes_is_what_was_uploaded_with_holes_for_zeros() {
    let room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    let told = room.json(&format!("download {id} -o disk.img"));
    assert!(fs::read(room.path("disk.img")).unwrap() == bytes);
    assert_eq!(told["size"], bytes.len());
    assert_eq!(told["hash_algo"], "sha512");
    assert_eq!(told["hash_value"], room.show(&id)["os_hash_value"]);
    let allocated = fs::metadata(room.path("disk.img")).unwrap().blocks() * 512;
    assert!(allocated < bytes.len() as u64 - (4 << 20), "{allocated}");
    assert_eq!(room.files(), ["disk.img"]);

    // What is there is not written over unless that is asked for.
    let again = room.run(&format!("download {id} -o disk.img"));
    assert_eq!(again.status.code(), Some(2));
    room.json(&format!("download {id} -o disk.img --force -m 1"));
    assert!(fs::read(room.path("disk.img")).unwrap() == bytes);

    let empty = room.image("raw", b"");
    room.json(&format!("download {empty} -o empty"));
    assert_eq!(fs::read(room.path("empty")).unwrap(), b"");
}

#[test]
fn half_a_file_is_gone_on_with_if_it_is_of_the_same_data() {
    let room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    let part = part_name(&room, &id);
    let half = 10 << 20 | 123;
    fs::write(room.path(&part), &bytes[..half]).unwrap();
    // Of an image that was there before.
    fs::write(room.path("disk.img.00000000.part"), "other").unwrap();
    let told = room.json(&format!("download {id} -o disk.img"));
    assert_eq!(told["resumed_at"], half);
    assert!(fs::read(room.path("disk.img")).unwrap() == bytes);
    assert_eq!(room.files(), ["disk.img"]);

    // What is there is not what it should be: found out, and fetched again.
    for there in [half, bytes.len()] {
        fs::remove_file(room.path("disk.img")).unwrap();
        fs::write(room.path(&part), vec![1; there]).unwrap();
        let told = room.json(&format!("download {id} -o disk.img"));
        assert_eq!(told["resumed_at"], 0);
        assert!(fs::read(room.path("disk.img")).unwrap() == bytes);
        assert_eq!(room.files(), ["disk.img"]);
    }
}

#[test]
fn a_download_goes_on_after_cuts_and_kills_of_the_server() {
    let mut room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    let relay = Relay::new(room.server.port, 6 << 20);
    let client = room
        .command(
            relay.port,
            &format!("download {id} -o disk.img --output json"),
        )
        .spawn()
        .unwrap();
    relay.wait();
    relay.go_on(room.server.port, 7 << 20);
    relay.wait();
    room.restart("");
    relay.go_on(room.server.port, usize::MAX);
    said(&client.wait_with_output().unwrap());
    assert!(fs::read(room.path("disk.img")).unwrap() == bytes);
    assert_eq!(room.files(), ["disk.img"]);
}

#[test]
fn a_download_that_was_ended_goes_on_when_asked_for_again() {
    let room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    for signal in ["INT", "KILL"] {
        let relay = Relay::new(room.server.port, 17 << 20);
        let client = room
            .command(relay.port, &format!("download {id} -o disk.img -m 1"))
            .spawn()
            .unwrap();
        relay.wait();
        // Two parts have passed: the first is written in a moment.
        let part = room.path(part_name(&room, &id));
        until(|| fs::metadata(&part).is_ok_and(|meta| meta.len() >= 8 << 20));
        let code = end(client, signal);
        assert_eq!(code, (signal == "INT").then_some(130));
        assert_eq!(room.files(), [part_name(&room, &id)]);
        let told = room.json(&format!("download {id} -o disk.img"));
        assert!(told["resumed_at"].as_u64().unwrap() >= 8 << 20, "{told}");
        assert!(fs::read(room.path("disk.img")).unwrap() == bytes);
        fs::remove_file(room.path("disk.img")).unwrap();
    }
}

#[test]
fn wrong_data_gets_no_name() {
    let room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    let stored = &room.server.files("images")[0];
    let stored = room.path("data/images").join(stored);
    let mut wrong = bytes.clone();
    wrong[16 << 20] ^= 1;
    fs::write(&stored, &wrong).unwrap();
    let out = room.run(&format!("download {id} -o disk.img"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("has the sha512"), "{err}");
    assert_eq!(room.files(), [""; 0]);
}

#[test]
fn a_disk_comes_in_another_format() {
    let room = Room::new("");
    let bytes = disk();
    let id = room.image("raw", &bytes);
    let told = room.json(&format!("download {id} --disk-format qcow2 -o disk.qcow2"));
    assert_eq!(told["disk_format"], "qcow2");
    assert!(told["hash_algo"].is_null());
    let made = Command::new("qemu-img")
        .args([
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            "disk.qcow2",
            "back.raw",
        ])
        .current_dir(room.path(""))
        .status();
    assert!(made.unwrap().success());
    let mut back = fs::read(room.path("back.raw")).unwrap();
    back.truncate(bytes.len());
    assert!(back == bytes);

    let out = room.run(&format!("download {id} --disk-format nonsense -o other"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{err}");
    assert!(err.contains("nonsense"), "{err}");
    assert_eq!(room.files(), ["back.raw", "disk.qcow2"]);
}

#[test]
fn what_cannot_be_downloaded_is_said() {
    let room = Room::new("");
    let out = room.run("download no-such-image");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(err.contains("404 Not Found: No image found"), "{err}");
    let queued = room.server.create("raw", "bare");
    let out = room.run(&format!("download {}", queued.rsplit('/').next().unwrap()));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(err.contains("is queued: it has no data"), "{err}");
    // No URL, or nobody there: said at once.
    let start = Instant::now();
    let mut command = room.command(room.server.port, "download any");
    let out = command
        .env("OS_ENDPOINT", "http://127.0.0.1:99999")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(err.contains("makes no valid request"), "{err}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let out = room.command(port, "download any").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(err.contains("cannot be reached"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(room.files(), [""; 0]);
}

/// What the variables say of another service does not count where a cloud is named.
#[test]
fn a_cloud_of_the_stock_clients_says_which_service() {
    let room = Room::new("");
    let id = room.image("raw", b"content");
    let port = room.server.port;
    let clouds = format!(
        "clouds:\n  here:\n    auth_type: none\n    auth:\n      endpoint: http://127.0.0.1:{port}\n"
    );
    fs::write(room.path("clouds.yaml"), clouds).unwrap();
    let download = |cloud: &str| {
        let mut command = room.command(1, &format!("download {id} --os-cloud {cloud} -o got.img"));
        command
            .env_remove("OS_CLIENT_CONFIG_FILE")
            .output()
            .unwrap()
    };
    let out = download("here");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(fs::read(room.path("got.img")).unwrap(), b"content");
    let out = download("there");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(err.contains("has no cloud \"there\", it has here"), "{err}");
}
