//! The form an image is stored in, by store, by request and on upload; the digest its data must have.

use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::house::{House, MEMBER, Reply};
use crate::replay::{converted, gzip};
use crate::web::tiny;

const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn queued(h: &House, disk: &str) -> String {
    let body = json!({"disk_format": disk, "container_format": "bare"});
    h.create(MEMBER, &body).await
}

async fn put(h: &House, id: &str, what: &str, digest: &str, data: &[u8]) -> Reply {
    let target = format!("/v2/images/{id}/{what}");
    let headers = [OCTETS, ("X-Image-Expected-Digest", digest)];
    h.send(MEMBER, "PUT", &target, &headers, Some(data.to_vec()))
        .await
}

/// Stages data and asks for an import of it, as `body` says beside the method.
async fn import(h: &House, disk: &str, data: &[u8], mut body: Value) -> (String, Reply) {
    let id = queued(h, disk).await;
    assert_eq!(put(h, &id, "stage", "", data).await.status, 204);
    body["method"] = json!({"name": "glance-direct"});
    let target = format!("/v2/images/{id}/import");
    let body = Some(body.to_string().into_bytes());
    let reply = h.send(MEMBER, "POST", &target, &[], body).await;
    (id, reply)
}

/// The same, to its end; answers the image and its task.
async fn imported(h: &House, disk: &str, data: &[u8], body: Value) -> (Value, Value) {
    let (id, reply) = import(h, disk, data, body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let image = h.settled(&id).await;
    let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
    (image, tasks.json()["tasks"][0].clone())
}

async fn stored(h: &House, image: &Value) -> Vec<u8> {
    let id = image["id"].as_str().unwrap();
    let reply = h.get(MEMBER, &format!("/v2/images/{id}/file")).await;
    assert_eq!(reply.status, 200);
    reply.body.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_which_form_an_image_is_stored_in() {
    let h = House::build().await;
    let convert = json!({
        "disk_format": "qcow2", "compress": true,
        "options": {"compression_type": "zstd", "cluster_size": 131_072},
    });
    let body = json!({ "convert": convert });
    let (image, task) = imported(&h, "raw", &tiny(), body.clone()).await;
    assert_eq!(image["disk_format"], "qcow2", "{task:#}");
    assert_eq!(image["virtual_size"], 1 << 20);
    assert_eq!(task["input"]["import_req"]["convert"], convert);
    let data = stored(&h, &image).await;
    assert_eq!(data[..4], *b"QFI\xfb");
    assert_eq!(data[20..24], [0, 0, 0, 17], "cluster_bits");
    assert_eq!(data[104], 1, "zstd");

    // An image of that format is made anew when options are asked for, and else stays as it is.
    let plain = converted(&tiny(), "qcow2", &[]);
    let (image, _) = imported(&h, "qcow2", &plain, body).await;
    assert_eq!(stored(&h, &image).await[104], 1);
    let body = json!({"convert": {"disk_format": "qcow2"}});
    let (image, _) = imported(&h, "qcow2", &plain, body).await;
    assert!(stored(&h, &image).await == plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_cannot_be_is_refused_before_anything_happens() {
    let h = House::build().await;
    let body = json!({"convert": {"disk_format": "qcow2", "options": {"cluster_size": "7"}}});
    let (id, reply) = import(&h, "raw", &tiny(), body).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("convert.options"), "{}", reply.text());
    let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "uploading");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_store_has_its_form() {
    let h = House::with(|config| {
        config.stores[0].output_format = Some("raw".into());
        config.stores[1].output_format = Some("qcow2".into());
        config.stores[1].compress = true;
        let zstd = ("compression_type".into(), "zstd".into());
        config.stores[1].output_options = [zstd].into();
    })
    .await;
    let vmdk = converted(&tiny(), "vmdk", &[]);
    let (image, task) = imported(&h, "vmdk", &vmdk, json!({})).await;
    assert_eq!(image["disk_format"], "raw", "{task:#}");
    assert!(stored(&h, &image).await == tiny());
    let (image, task) = imported(&h, "vmdk", &vmdk, json!({"stores": ["store2"]})).await;
    assert_eq!(image["disk_format"], "qcow2", "{task:#}");
    assert_eq!(stored(&h, &image).await[104], 1);

    let both = json!({"stores": ["store1", "store2"]});
    let (_, reply) = import(&h, "vmdk", &vmdk, both).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().contains("store1 and store2"),
        "{}",
        reply.text()
    );
    let both = json!({"all_stores": true, "convert": {"disk_format": "vhdx"}});
    let (image, task) = imported(&h, "vmdk", &vmdk, both).await;
    assert_eq!(image["disk_format"], "vhdx", "{task:#}");
    assert_eq!(image["stores"], "store1,store2");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_with_another_digest_is_refused_and_leaves_nothing() {
    let h = House::build().await;
    let (good, bad) = (sha256(&tiny()), sha256(b"other"));
    let expected = |value: &str| json!({"expected": {"algo": "sha256", "value": value}});
    let (image, task) = imported(&h, "raw", &tiny(), expected(&bad)).await;
    assert_eq!(image["status"], "queued");
    assert_eq!(task["status"], "failure");
    let says = format!("The sha256 of the data is {good}, expected was {bad}");
    assert_eq!(task["message"], says);

    let id = queued(&h, "raw").await;
    for (what, digest) in [
        ("file", format!("sha256={bad}")),
        ("stage", format!("sha256={bad}")),
        ("file", format!("sha256={bad}; of=content")),
        ("file", "sha256=12".into()),
    ] {
        let reply = put(&h, &id, what, &digest, &tiny()).await;
        assert_eq!(reply.status, 400, "{what} {digest}: {}", reply.text());
        let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
        assert_eq!(image["status"], "queued", "{what} {digest}");
    }
    let web = json!({
        "method": {"name": "web-download", "uri": h.web.url("tiny.raw")},
        "expected": {"algo": "sha256", "value": bad},
    });
    let target = format!("/v2/images/{id}/import");
    let body = Some(web.to_string().into_bytes());
    let reply = h.send(MEMBER, "POST", &target, &[], body).await;
    assert_eq!(reply.status, 202);
    assert_eq!(h.settled(&id).await["status"], "queued");
    assert_eq!(h.files().len(), 0);

    let reply = put(&h, &id, "file", &format!("sha256={good}"), &tiny()).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let (image, task) = imported(&h, "raw", &tiny(), expected(&good)).await;
    assert_eq!(image["status"], "active", "{task:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_may_be_of_what_is_compressed() {
    let gz = gzip(&tiny());
    let (good, bad) = (sha256(&tiny()), sha256(&gz));
    for (decompress, convert) in [(false, false), (true, false), (false, true)] {
        let h = House::with(|config| config.import.decompress = decompress).await;
        for (value, status) in [(&good, "active"), (&bad, "queued")] {
            let mut body = json!({
                "expected": {"algo": "sha256", "value": value, "of": "content"}
            });
            if convert {
                body["convert"] = json!({"disk_format": "qcow2"});
            }
            let (image, task) = imported(&h, "raw", &gz, body).await;
            let when = format!("decompress {decompress}, convert {convert}: {task:#}");
            assert_eq!(image["status"], status, "{when}");
        }
        let id = queued(&h, "raw").await;
        let wrong = put(&h, &id, "file", &format!("sha256={bad}; of=content"), &gz).await;
        assert_eq!(wrong.status, 400, "{}", wrong.text());
        let right = put(&h, &id, "file", &format!("sha256={good}; of=content"), &gz).await;
        assert_eq!(right.status, 204, "{}", right.text());
    }
}

/// Digests are made while what is in it is still written, and holes are not there before their end is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decompressed_may_have_large_holes() {
    let mut content = tiny();
    content.resize(256 << 20, 0);
    content.extend(tiny());
    let gz = gzip(&content);
    let h = House::with(|config| config.import.decompress = true).await;
    for body in [
        json!({}),
        json!({"expected": {"algo": "sha256", "value": sha256(&content), "of": "content"}}),
    ] {
        let (image, task) = imported(&h, "raw", &gz, body).await;
        assert_eq!(image["status"], "active", "{task:#}");
        assert_eq!(image["size"], content.len());
        assert_eq!(image["os_hash_value"], hex(&Sha512::digest(&content)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_by_each_way_in() {
    let bomb = gzip(&vec![0; 8 << 20]);
    for (decompress, body) in [
        (true, json!({})),
        (false, json!({"convert": {"disk_format": "qcow2"}})),
        (
            false,
            json!({"expected": {"algo": "md5", "value": "0".repeat(32), "of": "content"}}),
        ),
    ] {
        let h = House::with(|config| {
            config.import.decompress = decompress;
            config.quota.image_size_cap = 4 << 20;
        })
        .await;
        let (image, task) = imported(&h, "raw", &bomb, body.clone()).await;
        assert_eq!(image["status"], "queued", "{body}");
        assert_eq!(task["status"], "failure", "{body}");
        let message = task["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{body}");
        assert_eq!(h.files().len(), 0, "{body}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_an_import_where_that_is_configured() {
    let h = House::with(|config| {
        config.import.convert_on_upload = true;
        config.import.output_format = Some("raw".into());
        config.import.inject = [("batch".to_owned(), "7".to_owned())].into();
    })
    .await;
    let qcow2 = converted(&tiny(), "qcow2", &[]);
    let id = queued(&h, "qcow2").await;
    let reply = put(&h, &id, "file", "", &qcow2).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    // Whoever is answered finds it active.
    let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "active");
    assert_eq!(image["disk_format"], "raw");
    assert_eq!(image["batch"], "7");
    assert!(stored(&h, &image).await == tiny());
    let target = format!("/v2/images/{id}");
    let gone = h.send(MEMBER, "DELETE", &target, &[], None).await;
    assert_eq!(gone.status, 204);

    // What cannot be converted is told in the answer, and may be tried again.
    let id = queued(&h, "qcow2").await;
    let cut = &qcow2[..qcow2.len() - 70_000];
    let reply = put(&h, &id, "file", "", cut).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("truncated"), "{}", reply.text());
    let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "queued");
    assert_eq!(h.files().len(), 0);
    assert_eq!(put(&h, &id, "file", "", &qcow2).await.status, 204);
}
