//! Images in another form than they are stored in: what comes is held against the source by
//! qemu-img, archives by sha256sum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::body::Body;
use axum::http::Request;
use glint::catalog::derivatives;
use glint::config::Config;
use glint::domain::{ImageId, Location, Timestamp};
use glint::jobs;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::house::{ADMIN, House, MEMBER, READER, Reply, STRANGER, eventually};
use crate::web::tiny;

/// Bytes of the disk; whole MiB, so that no format rounds them up.
const SIZE: u64 = 8 << 20;

fn tool(program: &str, args: &[&str], folder: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

/// A folder with a disk, `source.raw`, and the same as `source.qcow2`.
fn disk() -> (tempfile::TempDir, PathBuf) {
    let room = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for (n, byte) in bytes[1 << 20..(3 << 20) + 777].iter_mut().enumerate() {
        *byte = (n.wrapping_mul(0x9e37_79b1) >> 13) as u8;
    }
    bytes[(6 << 20) + 5..][..100].fill(7);
    fs::write(room.path().join("source.raw"), bytes).unwrap();
    let args = ["convert", "-f", "raw", "-O", "qcow2"];
    let files = ["source.raw", "source.qcow2"];
    tool("qemu-img", &[&args[..], &files].concat(), room.path());
    let path = room.path().to_owned();
    (room, path)
}

async fn active(h: &House, format: &str, data: &[u8]) -> String {
    let body = json!({"name": "web 1", "disk_format": format, "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let reply = h.upload(MEMBER, &id, data).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    id
}

async fn file(h: &House, id: &str, query: &str, range: &str) -> Reply {
    let target = format!("/v2/images/{id}/file?{query}");
    h.send(MEMBER, "GET", &target, &[("Range", range)], None)
        .await
}

/// Asserts that `bytes` are the disk in this format.
fn assert_same(folder: &Path, format: &str, bytes: &[u8]) {
    fs::write(folder.join("out"), bytes).unwrap();
    let compare = ["compare", "-f", "raw", "-F", format, "source.raw", "out"];
    tool("qemu-img", &compare, folder);
}

fn stored(h: &House, store: &str) -> Vec<PathBuf> {
    let folder = h.svc.config.data_dir.join(store);
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Files of conversions that nobody waits for any more.
fn left(h: &House) -> usize {
    ["staging", "scratch", "derived"]
        .map(|name| stored(h, name).len())
        .iter()
        .sum()
}

fn keeping(limit: u64) -> impl FnOnce(&mut Config) {
    move |config| {
        config.derivatives.store = Some("store2".into());
        config.derivatives.limit = limit;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_the_same_disk() {
    let h = House::build().await;
    let (_room, folder) = disk();
    let id = active(&h, "qcow2", &fs::read(folder.join("source.qcow2")).unwrap()).await;
    for (query, name, is_streamed, length) in [
        ("disk_format=raw", "raw", true, Some(SIZE)),
        (
            "disk_format=vmdk&subformat=streamOptimized&compression_level=1",
            "vmdk",
            true,
            None,
        ),
        (
            "disk_format=vhd&subformat=fixed&force_size=on",
            "vpc",
            true,
            Some(SIZE + 512),
        ),
        ("disk_format=vmdk", "vmdk", false, None),
        ("disk_format=vhd&force_size=on", "vpc", false, None),
        ("disk_format=vhdx", "vhdx", false, None),
        ("disk_format=vdi&static=on", "vdi", false, None),
        (
            "disk_format=qcow2&compress=true&compression_type=zstd",
            "qcow2",
            false,
            None,
        ),
    ] {
        let reply = file(&h, &id, query, "").await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("application/octet-stream")
        );
        assert_same(&folder, name, &reply.body);
        let told = reply.header("content-length").map(|n| n.parse().unwrap());
        match length {
            Some(length) => assert_eq!(told, Some(length), "{query}"),
            None if is_streamed => assert_eq!(told, None, "{query}"),
            None => assert_eq!(told, Some(reply.body.len() as u64), "{query}"),
        }
        let target = format!("/v2/images/{id}/file?{query}");
        let head = h.send(MEMBER, "HEAD", &target, &[], None).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{query}");
        let told = head.header("content-length").map(|n| n.parse().unwrap());
        assert_eq!(told, length, "{query}");
    }
    // Who asks for nothing, or for what is there, gets what is stored.
    let bytes = fs::read(folder.join("source.qcow2")).unwrap();
    for query in [
        "",
        "disk_format=qcow2",
        "disk_format=qcow2&container_format=bare",
    ] {
        let reply = file(&h, &id, query, "").await;
        assert!(reply.body == bytes, "{query}");
        assert!(reply.header("content-md5").is_some(), "{query}");
    }
    let target = format!("/v2/images/{id}/file");
    let head = h.send(MEMBER, "HEAD", &target, &[], None).await;
    assert_eq!(head.status, 405);
    assert_eq!(left(&h), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_parts_of_the_whole() {
    let (_room, folder) = disk();
    let data = fs::read(folder.join("source.qcow2")).unwrap();
    for keep in [false, true] {
        let h = House::with(|config| {
            if keep {
                keeping(1 << 30)(config);
            }
        })
        .await;
        let id = active(&h, "qcow2", &data).await;
        for query in [
            "disk_format=raw",
            "disk_format=vhd&subformat=fixed",
            "disk_format=vhdx",
        ] {
            let whole = file(&h, &id, query, "").await.body;
            let len = whole.len();
            for (range, want) in [
                ("bytes=0-9".to_owned(), 0..10),
                ("bytes=1048570-1048580".into(), 1_048_570..1_048_581),
                ("bytes=3000001-".into(), 3_000_001..len),
                ("bytes=-513".into(), len - 513..len),
            ] {
                let reply = file(&h, &id, query, &range).await;
                assert_eq!(reply.status, 206, "{query} {range}: {}", reply.text());
                assert!(reply.body == whole[want.clone()], "{query} {range}");
                let part = format!("bytes {}-{}/{len}", want.start, want.end - 1);
                assert_eq!(reply.header("content-range"), Some(&*part));
            }
            let beyond = format!("bytes={len}-");
            assert_eq!(file(&h, &id, query, &beyond).await.status, 416, "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name() {
    let h = House::build().await;
    let id = active(&h, "raw", &tiny()).await;
    for (query, word) in [
        ("disk_format=floppy", "disk_format"),
        ("disk_format=iso", "disk_format"),
        ("disk_format=", "disk_format"),
        ("container_format=bare&compress=true", "disk_format"),
        ("container_format=docker", "container_format"),
        ("disk_format=raw&container_format=ova", "disk_format"),
        ("container_format=ova&vcpus=0", "vcpus"),
        ("container_format=ova&compress=true", "compress"),
        ("disk_format=vmdk&subformat=x", "subformat"),
        (
            "disk_format=vmdk&subformat=twoGbMaxExtentSparse",
            "subformat",
        ),
        ("disk_format=qcow2&colour=red", "colour"),
        ("disk_format=qcow2&compress=yes", "compress"),
        ("disk_format=qcow2&disk_format=raw", "disk_format"),
        ("disk_format=qcow2&compat=1.1&compat=1.1", "compat"),
    ] {
        let reply = file(&h, &id, query, "").await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(word), "{query}: {}", reply.text());
    }
    let target = format!("/v2/images/{id}/file?disk_format=qcow2");
    assert_eq!(h.get(STRANGER, &target).await.status, 404);
    assert_eq!(
        h.get(READER, &target).await.status,
        h.get(READER, &target[..target.find('?').unwrap()])
            .await
            .status
    );
    // No disk; and none of that name.
    let body = json!({"disk_format": "aki", "container_format": "aki"});
    let kernel = h.create(MEMBER, &body).await;
    assert_eq!(h.upload(MEMBER, &kernel, &tiny()).await.status, 204);
    assert_eq!(file(&h, &kernel, "disk_format=raw", "").await.status, 409);
    let empty = h
        .create(
            MEMBER,
            &json!({"disk_format": "raw", "container_format": "bare"}),
        )
        .await;
    assert_eq!(file(&h, &empty, "disk_format=qcow2", "").await.status, 204);

    let h = House::with(|config| config.derivatives.conversions = 0).await;
    let id = active(&h, "raw", &tiny()).await;
    assert_eq!(file(&h, &id, "disk_format=qcow2", "").await.status, 403);
    assert_eq!(file(&h, &id, "disk_format=raw", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_read_by_other_programs() {
    let h = House::build().await;
    let (_room, folder) = disk();
    let id = active(&h, "qcow2", &fs::read(folder.join("source.qcow2")).unwrap()).await;
    let reply = file(&h, &id, "container_format=ova&vcpus=2&memory=2G", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    fs::write(folder.join("web.ova"), &reply.body).unwrap();
    tool("tar", &["-xf", "web.ova"], &folder);
    let manifest = fs::read_to_string(folder.join("web-1.mf")).unwrap();
    assert_eq!(manifest.lines().count(), 2);
    let lines = manifest
        .replace("SHA256(", "SHA256 (")
        .replace(")= ", ") = ");
    fs::write(folder.join("sums"), lines).unwrap();
    tool("sha256sum", &["--check", "--strict", "sums"], &folder);
    let disk = fs::read(folder.join("web-1-disk1.vmdk")).unwrap();
    assert_same(&folder, "vmdk", &disk);
    // And by us, on the way back in: the machine it says, and its disk again.
    let body = json!({"disk_format": "vmdk", "container_format": "ova"});
    let again = h.create(MEMBER, &body).await;
    let stored = h.upload(MEMBER, &again, &reply.body).await;
    assert_eq!(stored.status, 204, "{}", stored.text());
    let back = file(&h, &again, "disk_format=raw&disk=0", "").await;
    assert!(back.body == fs::read(folder.join("source.raw")).unwrap());
    assert_eq!(
        file(&h, &again, "disk_format=raw&disk=7", "").await.status,
        409
    );
    let same = file(&h, &again, "container_format=ova", "").await;
    assert!(same.body == reply.body);
    let ovf = fs::read_to_string(folder.join("web-1.ovf")).unwrap();
    assert!(
        ovf.contains("<Name>web 1</Name>") && ovf.contains("2048 MiB"),
        "{ovf}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_made_once_and_forgotten_with_its_image() {
    let h = House::with(keeping(1 << 30)).await;
    let (_room, folder) = disk();
    let id = active(&h, "qcow2", &fs::read(folder.join("source.qcow2")).unwrap()).await;
    let query = "disk_format=vmdk&subformat=streamOptimized";
    let asked = std::array::from_fn::<_, 5, _>(|_| file(&h, &id, query, ""));
    for reply in futures_util::future::join_all(asked).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_same(&folder, "vmdk", &reply.body);
    }
    // It is kept behind the answers' backs; five conversions would be too many at once.
    eventually(|| !stored(&h, "store2").is_empty() && left(&h) == 0).await;
    let kept = stored(&h, "store2");
    assert_eq!(kept.len(), 1, "{kept:?}");
    // From now on its length is known, and a location of the image it is not.
    let target = format!("/v2/images/{id}/file?{query}");
    let reply = h.send(MEMBER, "HEAD", &target, &[], None).await;
    let len = fs::metadata(&kept[0]).unwrap().len().to_string();
    assert_eq!(reply.header("content-length"), Some(&*len));
    let part = file(&h, &id, query, "bytes=0-3").await;
    assert_eq!((part.status.as_u16(), &*part.body), (206, &b"KDMV"[..]));
    let image = h.get(ADMIN, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["stores"], "store1");
    let target = format!("/v2/images/{id}");
    assert_eq!(
        h.send(MEMBER, "DELETE", &target, &[], None).await.status,
        204
    );
    assert_eq!(stored(&h, "store2"), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_for_the_longest_makes_room() {
    let h = House::with(keeping(20 << 20)).await;
    let id = active(&h, "raw", &vec![1; 1 << 20]).await;
    let image: ImageId = id.parse().unwrap();
    let row = |name: &'static str| {
        let url = h.svc.stores.get("store2").unwrap().blobs.url(name);
        Location {
            id: name.into(),
            ..Location::new("store2", &url, serde_json::Map::new())
        }
    };
    let now = Timestamp::now();
    let mut tx = h.svc.catalog.write().await.unwrap();
    for (name, used) in [("a", -10), ("b", -30), ("c", -20)] {
        let until = now.plus_seconds(60);
        derivatives::insert_pending(&mut tx, &image, name, &row(name), 9 << 20, until)
            .await
            .unwrap();
        derivatives::activate(&mut tx, name).await.unwrap();
        derivatives::touch(&mut tx, name, now.plus_seconds(used))
            .await
            .unwrap();
        fs::write(h.svc.config.data_dir.join("store2").join(name), name).unwrap();
    }
    // Somebody died while it was written.
    derivatives::insert_pending(&mut tx, &image, "d", &row("d"), 1, now.plus_seconds(-1))
        .await
        .unwrap();
    fs::write(h.svc.config.data_dir.join("store2/d.part"), "d").unwrap();
    derivatives::evict(&mut tx, 20 << 20).await.unwrap();
    tx.commit().await.unwrap();
    jobs::clear_up(&h.svc, now).await.unwrap();
    let mut names: Vec<_> = stored(&h, "store2")
        .iter()
        .map(|p| p.file_name().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    let mut tx = h.svc.catalog.read().await.unwrap();
    for (name, is_kept) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        let found = derivatives::find(&mut tx, &image, name).await.unwrap();
        assert_eq!(found.is_some(), is_kept, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_makes_way() {
    let h = House::with(|config| config.derivatives.conversions = 1).await;
    let mut bytes = vec![3; 16 << 20];
    bytes[5] = 4;
    let id = active(&h, "raw", &bytes).await;
    let target = format!("/v2/images/{id}/file?disk_format=vhd&subformat=fixed");
    let request = Request::builder()
        .uri(&target)
        .header("X-Auth-Token", MEMBER);
    let request = request.body(Body::empty()).unwrap();
    let mut slow = h.router.clone().oneshot(request).await.unwrap();
    assert_eq!(slow.status(), 200);
    let first = slow.body_mut().frame().await.unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(&[3, 3, 3, 3, 3, 4]));
    // More than the pipe holds is left, so its worker is still there.
    let busy = file(&h, &id, "disk_format=qcow2", "").await;
    assert_eq!(busy.status, 503);
    assert!(busy.header("retry-after").is_some());
    drop(slow);
    let reply = file(&h, &id, "disk_format=qcow2", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_other_peoples_servers_is_fetched_first() {
    let h = House::build().await;
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let target = format!("/v2/images/{id}/locations");
    let body = json!({"url": h.web.url("tiny.raw")}).to_string();
    let reply = h
        .send(MEMBER, "POST", &target, &[], Some(body.into_bytes()))
        .await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    h.until(&format!("/v2/images/{id}"), |image| {
        image["status"] == "active" && image["size"].is_u64()
    })
    .await;
    let reply = file(&h, &id, "disk_format=qcow2", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let room = tempfile::tempdir().unwrap();
    fs::write(room.path().join("source.raw"), tiny()).unwrap();
    assert_same(room.path(), "qcow2", &reply.body);
    assert_eq!(left(&h), 0);
}
