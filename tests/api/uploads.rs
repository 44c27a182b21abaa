//! Uploads that go on where they were broken off, by tus 1.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glint::domain::Timestamp;
use glint::jobs;
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::house::{ADMIN, House, MEMBER, READER, Reply, STRANGER};

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const OCTETS: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// An image that waits for data, and the path of its uploads.
async fn queued(house: &House) -> (String, String) {
    let raw = json!({"disk_format": "raw", "container_format": "bare"});
    let id = house.create(MEMBER, &raw).await;
    let path = format!("/v2/images/{id}/upload");
    (id, path)
}

impl House {
    async fn tus(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let headers: Vec<_> = headers.iter().copied().chain([TUS]).collect();
        self.send(MEMBER, method, path, &headers, None).await
    }

    /// Creates an upload of so many bytes; answers its path.
    async fn begin(&self, path: &str, len: usize, more: &[(&str, &str)]) -> String {
        let len = len.to_string();
        let mut headers = vec![("Upload-Length", len.as_str())];
        headers.extend(more);
        let reply = self.tus("POST", path, &headers).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let url = reply.header("location").unwrap();
        url.strip_prefix("http://HOST").unwrap().to_owned()
    }

    async fn patch(&self, path: &str, at: usize, bytes: &[u8], more: &[(&str, &str)]) -> Reply {
        let at = at.to_string();
        let mut headers = vec![("Upload-Offset", at.as_str()), OCTETS, TUS];
        headers.extend(more);
        let body = Some(bytes.to_vec());
        self.send(MEMBER, "PATCH", path, &headers, body).await
    }

    async fn offset(&self, path: &str) -> usize {
        let reply = self.tus("HEAD", path, &[]).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.header("upload-offset").unwrap().parse().unwrap()
    }

    fn upload_files(&self) -> usize {
        let folder = self.svc.config.data_dir.join("uploads");
        std::fs::read_dir(folder).unwrap().count()
    }

    async fn holds(&self, id: &str, bytes: &[u8]) {
        let image = self.get(MEMBER, &format!("/v2/images/{id}")).await.json();
        assert_eq!(image["status"], "active", "{image}");
        assert_eq!(image["size"], bytes.len());
        let file = self.get(MEMBER, &format!("/v2/images/{id}/file")).await;
        assert!(file.body == bytes);
        assert_eq!(self.upload_files(), 0);
    }
}

#[tokio::test]
async fn data_comes_in_several_requests() {
    let house = House::build().await;
    let (id, path) = queued(&house).await;
    let bytes = data(3_000_000);
    let told = house.send(MEMBER, "OPTIONS", &path, &[], None).await;
    assert_eq!(told.status, 200);
    assert!(
        told.header("tus-extension")
            .unwrap()
            .contains("concatenation")
    );

    let metadata = ("Upload-Metadata", "filename ZGlzaw==,empty");
    let upload = house.begin(&path, bytes.len(), &[metadata]).await;
    assert_eq!(house.offset(&upload).await, 0);
    let image = house.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "queued");

    let reply = house.patch(&upload, 0, &bytes[..1_000_000], &[]).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(reply.header("upload-offset"), Some("1000000"));
    assert!(reply.header("upload-expires").unwrap().ends_with("GMT"));
    let head = house.tus("HEAD", &upload, &[]).await;
    assert_eq!(head.header("upload-metadata"), Some(metadata.1));
    assert_eq!(head.header("upload-length"), Some("3000000"));

    for (at, status) in [(0, 409), (1_000_001, 409)] {
        let reply = house.patch(&upload, at, b"x", &[]).await;
        assert_eq!(reply.status, status);
    }
    // More than it was to have, told by the length of the request and by its bytes alone.
    for chunked in [("x-nothing", ""), ("Transfer-Encoding", "chunked")] {
        let reply = house.patch(&upload, 1_000_000, &bytes, &[chunked]).await;
        assert_eq!(reply.status, 413);
        assert_eq!(reply.header("tus-resumable"), Some("1.0.0"));
    }
    assert_eq!(house.offset(&upload).await, 1_000_000);
    let reply = house
        .patch(&upload, 1_000_000, &bytes[1_000_000..], &[])
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    house.holds(&id, &bytes).await;
    // A client that missed the answer is told the same.
    assert_eq!(house.offset(&upload).await, bytes.len());
    assert_eq!(
        house.patch(&upload, bytes.len(), b"", &[]).await.status,
        204
    );
}

#[tokio::test]
async fn the_first_bytes_may_come_with_the_creation() {
    let house = House::build().await;
    let (id, path) = queued(&house).await;
    let bytes = data(70_000);
    let send = async |len: &str, body: &[u8]| {
        let headers = [TUS, OCTETS, ("Upload-Length", len)];
        house
            .send(MEMBER, "POST", &path, &headers, Some(body.to_vec()))
            .await
    };
    let reply = send("70000", &bytes[..30_000]).await;
    assert_eq!(
        reply.header("upload-offset"),
        Some("30000"),
        "{}",
        reply.text()
    );
    assert_eq!(send("70000", &bytes).await.status, 201);
    house.holds_beside(&id, &bytes).await;
    // What was refused while it was created cannot be found again, and is not kept.
    let files = house.upload_files();
    assert_eq!(send("3", &bytes).await.status, 409);
    assert_eq!(house.upload_files(), files);
}

impl House {
    /// The same where another upload is still under way.
    async fn holds_beside(&self, id: &str, bytes: &[u8]) {
        let file = self.get(MEMBER, &format!("/v2/images/{id}/file")).await;
        assert!(file.body == bytes);
    }
}

#[tokio::test]
async fn a_request_with_another_checksum_is_forgotten() {
    let house = House::build().await;
    let (id, path) = queued(&house).await;
    let bytes = data(50_000);
    let upload = house.begin(&path, bytes.len(), &[]).await;
    let sum = |bytes: &[u8]| format!("sha1 {}", STANDARD.encode(Sha1::digest(bytes)));
    let (right, wrong) = (sum(&bytes), sum(b"else"));
    let reply = house
        .patch(&upload, 0, &bytes, &[("Upload-Checksum", &wrong)])
        .await;
    assert_eq!(reply.status.as_u16(), 460);
    assert_eq!(house.offset(&upload).await, 0);
    let reply = house
        .patch(&upload, 0, &bytes, &[("Upload-Checksum", "crc32 AAAA")])
        .await;
    assert_eq!(reply.status, 400);
    let reply = house
        .patch(&upload, 0, &bytes, &[("Upload-Checksum", &right)])
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    house.holds(&id, &bytes).await;
}

#[tokio::test]
async fn parts_are_put_together() {
    let house = House::build().await;
    let (id, path) = queued(&house).await;
    let bytes = data(400_000);
    let partial = [("Upload-Concat", "partial")];
    let (first, second) = bytes.split_at(150_000);
    let a = house.begin(&path, first.len(), &partial).await;
    let b = house.begin(&path, second.len(), &partial).await;
    assert_eq!(house.patch(&b, 0, second, &[]).await.status, 204);
    let concat = format!("final;{a} http://HOST{b}");
    let reply = house
        .tus("POST", &path, &[("Upload-Concat", &concat)])
        .await;
    assert_eq!(reply.status, 400, "the first part is not there yet");
    assert_eq!(house.patch(&a, 0, first, &[]).await.status, 204);
    let head = house.tus("HEAD", &a, &[]).await;
    assert_eq!(head.header("upload-concat"), Some("partial"));
    let twice = format!("final;{a} {a}");
    let reply = house.tus("POST", &path, &[("Upload-Concat", &twice)]).await;
    assert_eq!(reply.status, 400);

    let reply = house
        .tus("POST", &path, &[("Upload-Concat", &concat)])
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let joined = reply.header("location").unwrap().replace("http://HOST", "");
    house.holds(&id, &bytes).await;
    let head = house.tus("HEAD", &joined, &[]).await;
    assert_eq!(
        head.header("upload-concat"),
        Some(format!("final;{a} {b}").as_str())
    );
    assert_eq!(
        house.patch(&joined, bytes.len(), b"", &[]).await.status,
        403
    );
    assert_eq!(house.tus("HEAD", &a, &[]).await.status, 404);
}

#[tokio::test]
async fn what_is_refused_or_given_up_leaves_nothing() {
    let house = House::build().await;
    let (id, path) = queued(&house).await;
    // A qcow2 that would read the machine's files, said to be raw.
    let mut evil = vec![0; 66_000];
    evil[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let upload = house.begin(&path, evil.len(), &[]).await;
    assert_eq!(house.patch(&upload, 0, &evil[..100], &[]).await.status, 204);
    let reply = house.patch(&upload, 100, &evil[100..], &[]).await;
    assert_eq!(reply.status, 415, "{}", reply.text());
    assert_eq!(house.tus("HEAD", &upload, &[]).await.status, 404);
    let image = house.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "queued");

    let upload = house.begin(&path, 10, &[]).await;
    assert_eq!(house.patch(&upload, 0, b"12345", &[]).await.status, 204);
    assert_eq!(house.tus("DELETE", &upload, &[]).await.status, 204);
    assert_eq!(house.tus("HEAD", &upload, &[]).await.status, 404);
    assert_eq!(house.upload_files(), 0);

    // Not another digest than the one announced.
    let digest = (
        "X-Image-Expected-Digest",
        &*format!("md5={}", "0".repeat(32)),
    );
    let upload = house.begin(&path, 5, &[digest]).await;
    assert_eq!(house.patch(&upload, 0, b"12345", &[]).await.status, 400);
    assert_eq!(house.upload_files(), 0);

    // Nobody goes on for a day; an image is deleted.
    let upload = house.begin(&path, 10, &[]).await;
    assert_eq!(house.patch(&upload, 0, b"12345", &[]).await.status, 204);
    let (other, others) = queued(&house).await;
    let second = house.begin(&others, 10, &[]).await;
    assert_eq!(house.patch(&second, 0, b"12345", &[]).await.status, 204);
    let reply = house
        .send(MEMBER, "DELETE", &format!("/v2/images/{other}"), &[], None)
        .await;
    assert_eq!(reply.status, 204);
    jobs::clear_up(&house.svc, Timestamp::now()).await.unwrap();
    assert_eq!((house.upload_files(), house.offset(&upload).await), (1, 5));
    let tomorrow = Timestamp::now().plus_seconds(25 * 3600);
    jobs::clear_up(&house.svc, tomorrow).await.unwrap();
    assert_eq!(house.tus("HEAD", &upload, &[]).await.status, 404);
    assert_eq!(house.upload_files(), 0);
}

#[tokio::test]
async fn only_who_may_upload_does_and_within_bounds() {
    let house = House::with(|config| {
        config.quota.user_storage = "1000".into();
        config.quota.image_size_cap = 5000;
    })
    .await;
    let (_, path) = queued(&house).await;
    let upload = house.begin(&path, 600, &[]).await;
    for (token, status) in [(READER, 403), (STRANGER, 404), (ADMIN, 200)] {
        let reply = house.send(token, "HEAD", &upload, &[TUS], None).await;
        assert_eq!(reply.status, status, "{token}");
    }
    let unspoken = house.send(MEMBER, "HEAD", &upload, &[], None).await;
    assert_eq!(unspoken.status, 412);
    assert_eq!(unspoken.header("tus-version"), Some("1.0.0"));
    // All uploads under way count, whatever of them has come yet.
    for (length, status) in [("401", 413), ("5001", 413), ("400", 201), ("1", 413)] {
        let reply = house.tus("POST", &path, &[("Upload-Length", length)]).await;
        assert_eq!(reply.status, status, "{length}: {}", reply.text());
    }
    assert_eq!(house.tus("DELETE", &upload, &[]).await.status, 204);
    house.begin(&path, 600, &[]).await;
    let reply = house
        .tus("POST", &path, &[("Upload-Defer-Length", "1")])
        .await;
    assert_eq!(reply.status, 400);
    let octets = ("Content-Type", "application/octet-stream");
    let reply = house
        .tus("PATCH", &upload, &[octets, ("Upload-Offset", "0")])
        .await;
    assert_eq!(reply.status, 415);
    let nowhere = format!("{path}/../{}", "0".repeat(32));
    assert_eq!(house.tus("HEAD", &nowhere, &[]).await.status, 404);

    // An image that has data takes no more, and one without formats not yet.
    let (id, path) = queued(&house).await;
    assert_eq!(
        house
            .tus("POST", &path, &[("Upload-Length", "0")])
            .await
            .status,
        201
    );
    house.holds(&id, b"").await;
    let reply = house.tus("POST", &path, &[("Upload-Length", "0")]).await;
    assert_eq!(reply.status, 409);
    let bare = house.create(MEMBER, &json!({})).await;
    let path = format!("/v2/images/{bare}/upload");
    let reply = house.tus("POST", &path, &[("Upload-Length", "0")]).await;
    assert_eq!(reply.status, 400);
}
