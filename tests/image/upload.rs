//! Uploads: in parts and in one, through cuts and kills of either side, of what is refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::{Relay, Room, disk, end, said};

/// A room with a raw disk in it.
fn room() -> (Room, Vec<u8>) {
    let room = Room::new("");
    let bytes = disk();
    fs::write(room.path("disk.img"), &bytes).unwrap();
    (room, bytes)
}

fn qemu(room: &Room, args: &str) {
    let made = Command::new("qemu-img")
        .args(args.split_whitespace())
        .current_dir(room.path(""))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_file_becomes_an_image_of_what_is_in_it() {
    let (room, bytes) = room();
    let told = room.json(
        "upload disk.img --part-size 4M --property min_disk=1 --property os_version=12 --store file",
    );
    let id = told["id"].as_str().unwrap();
    let image = room.show(id);
    assert_eq!(image["name"], "disk.img");
    assert_eq!(image["disk_format"], "raw");
    assert_eq!(image["container_format"], "bare");
    assert_eq!(image["min_disk"], 1);
    assert_eq!(image["os_version"], "12");
    assert_eq!(told["status"], "active");
    assert_eq!(told["protocol"], "tus");
    assert_eq!(told["hash_value"], image["os_hash_value"]);
    assert!(room.data(id) == bytes);
    assert_eq!(room.server.files("uploads"), [""; 0]);
    assert_eq!(room.noted(), 0);

    // In one, into an image that waits for it.
    qemu(&room, "convert -O qcow2 disk.img disk.qcow2");
    let waits = room.server.create("qcow2", "bare");
    let waits = waits.rsplit('/').next().unwrap();
    let told = room.json(&format!("upload disk.qcow2 --id {waits}"));
    assert_eq!(told["id"], waits);
    assert_eq!(told["virtual_size"], bytes.len().next_multiple_of(512));
    assert!(room.data(waits) == fs::read(room.path("disk.qcow2")).unwrap());
    let again = room.run(&format!("upload disk.qcow2 --id {waits}"));
    assert_eq!(again.status.code(), Some(2));

    fs::write(room.path("empty"), "").unwrap();
    let told = room.json("upload empty --name nothing");
    assert_eq!(
        (&told["size"], &told["status"]),
        (&0.into(), &"active".into())
    );
}

#[test]
fn an_upload_goes_on_after_cuts_and_kills_of_the_server() {
    for parts in ["--part-size 4M", ""] {
        let (mut room, bytes) = room();
        let relay = Relay::new(room.server.port, 7 << 20);
        let client = room
            .command(
                relay.port,
                &format!("upload disk.img {parts} --output json"),
            )
            .spawn()
            .unwrap();
        relay.wait();
        relay.go_on(room.server.port, 9 << 20);
        relay.wait();
        room.restart("");
        relay.go_on(room.server.port, usize::MAX);
        let told = said(&client.wait_with_output().unwrap());
        let id = told["id"].as_str().unwrap();
        assert!(room.data(id) == bytes);
        assert_eq!(told["hash_value"], room.show(id)["os_hash_value"]);
        assert_eq!(room.server.files("uploads"), [""; 0]);
        assert_eq!(room.images(), [id]);
    }
}

#[test]
fn an_upload_that_was_ended_goes_on_by_resume() {
    for (parts, signal) in [("--part-size 4M", "KILL"), ("", "INT")] {
        let (room, bytes) = room();
        let relay = Relay::new(room.server.port, 14 << 20);
        let client = room
            .command(relay.port, &format!("upload disk.img {parts}"))
            .spawn()
            .unwrap();
        relay.wait();
        room.until_received(12 << 20);
        let code = end(client, signal);
        assert_eq!(code, (signal == "INT").then_some(130));
        assert_eq!(room.noted(), 1);
        // The relay holds back what was sent until it goes on; the server keeps what came.
        relay.go_on(room.server.port, usize::MAX);
        let out = room
            .command(relay.port, "upload disk.img --resume --output json")
            .output();
        let told = said(&out.unwrap());
        assert!(told["resumed_at"].as_u64().unwrap() >= 12 << 20, "{told}");
        let id = told["id"].as_str().unwrap();
        assert!(room.data(id) == bytes);
        assert_eq!(room.images(), [id]);
        assert_eq!(room.noted(), 0);
    }
}

/// An upload that has come half its way, and the relay it goes through.
fn half_done(room: &Room) -> Relay {
    let relay = Relay::new(room.server.port, 14 << 20);
    let client = room
        .command(relay.port, "upload disk.img --part-size 4M")
        .spawn()
        .unwrap();
    relay.wait();
    room.until_received(12 << 20);
    end(client, "KILL");
    relay.go_on(room.server.port, usize::MAX);
    relay
}

fn resume(room: &Room, relay: &Relay) -> (Option<i32>, String) {
    let out = room
        .command(relay.port, "upload disk.img --resume")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code(), err)
}

#[test]
fn a_file_that_changed_is_not_gone_on_with() {
    let (room, bytes) = room();
    let relay = half_done(&room);
    fs::write(room.path("other"), &bytes).unwrap();
    fs::rename(room.path("other"), room.path("disk.img")).unwrap();
    let (code, err) = resume(&room, &relay);
    assert_eq!(code, Some(2));
    assert!(err.contains("is not what it was"), "{err}");
    assert_eq!(room.images().len(), 1);
}

#[test]
fn an_image_that_is_not_the_file_is_found_out_and_removed() {
    let (room, _) = room();
    let relay = half_done(&room);
    for upload in room.server.files("uploads") {
        let path = room.path("data/uploads").join(upload);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"wrong", 0).unwrap();
    }
    let (code, err) = resume(&room, &relay);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("has the sha512"), "{err}");
    assert_eq!(room.images(), [""; 0]);
    assert_eq!(room.noted(), 0);
}

#[test]
fn an_image_of_another_size_is_no_success() {
    let (room, _) = room();
    let relay = half_done(&room);
    let id = &room.images()[0];
    let path = format!("/v2/images/{id}");
    assert_eq!(room.server.upload(&path, "file", b"something else"), 204);
    let (code, err) = resume(&room, &relay);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("stores 14 bytes"), "{err}");
    assert_eq!(room.images(), [id.as_str()]);

    // Unless the service was given what it unpacks.
    let room = Room::new("[import]\nconvert_on_upload = true\ndecompress = true\n");
    fs::write(room.path("disk.img"), crate::noise(1 << 20)).unwrap();
    let packed = Command::new("gzip").arg(room.path("disk.img")).status();
    assert!(packed.unwrap().success());
    let told = room.json("upload disk.img.gz --disk-format raw");
    assert_eq!(told["size"], 1 << 20);
    assert!(told["hash_algo"].is_null());
}

#[test]
fn an_answer_of_500_costs_nothing_that_is_there() {
    let room = Room::new("");
    fs::write(room.path("disk.img"), crate::noise(1 << 20)).unwrap();
    let relay = Relay::new(room.server.port, usize::MAX);
    // Each request has a connection: the image, what it is, an upload, how far that is, its bytes,
    // what the image is now, and once more.
    for (n, status) in [
        (2, "queued"),
        (3, "queued"),
        (4, "queued"),
        (5, "queued"),
        (6, "active"),
        (7, "active"),
    ] {
        relay.fail(n);
        let out = room
            .command(relay.port, "upload disk.img")
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{n}: {err}");
        assert!(
            err.contains("answers 500") && err.contains("--resume"),
            "{n}: {err}"
        );
        let images = room.images();
        assert_eq!((images.len(), room.noted()), (1, 1), "{n}");
        assert_eq!(room.show(&images[0])["status"], status, "{n}");
        let (code, err) = resume(&room, &relay);
        assert_eq!(code, Some(0), "{n}: {err}");
        assert_eq!((room.images(), room.noted()), (images.clone(), 0), "{n}");
        let path = format!("/v2/images/{}", images[0]);
        assert_eq!(room.server.ask("DELETE", &path, "", b"").0, 204);
    }
}

#[test]
fn what_is_refused_leaves_no_image() {
    let (room, _) = room();
    qemu(&room, "convert -O qcow2 disk.img base.qcow2");
    qemu(&room, "create -f qcow2 -b base.qcow2 -F qcow2 unsafe.qcow2");
    // Found out before anything is sent, and by the server.
    for format in ["", "--disk-format qcow2"] {
        let out = room.run(&format!("upload unsafe.qcow2 {format}"));
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{err}");
        assert!(err.contains("backing"), "{err}");
        assert_eq!(room.images(), [""; 0]);
        assert_eq!(room.noted(), 0);
    }
}
