//! An archive with several disks imported as a set, listed, and sent as an archive again.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use formats::container::ova::WriteOptions;
use formats::container::{Context, Ova, write_ova};
use formats::copy::{CopyOptions, Progress};
use formats::{Disk, GuestOffset, Limits, MemorySink, Source, raw};
use serde_json::{Value, json};

use crate::house::{House, MEMBER, Reply, STRANGER};

const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

fn disk(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[70_000..400_000].fill(seed);
    bytes[len - 1] = seed;
    bytes
}

/// An archive of raw disks with these bytes.
fn archive(disks: &[Vec<u8>]) -> Vec<u8> {
    let words = [
        ("name", "shop"),
        ("os", "debian12_64Guest"),
        ("vcpus", "2"),
        ("memory", "2G"),
    ];
    let words = words.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let options = WriteOptions::parse(&words).unwrap();
    let disks: Vec<_> = disks
        .iter()
        .map(|bytes| raw::Reader::new(Arc::new(bytes.clone())).unwrap())
        .collect();
    let disks: Vec<&dyn Disk> = disks.iter().map(|disk| disk as &dyn Disk).collect();
    let sink = MemorySink::default();
    let (copying, progress) = (CopyOptions::default(), Progress::default());
    write_ova(&disks, &options, &sink, &copying, &progress).unwrap();
    sink.into_bytes()
}

/// Stages an archive and imports it, as `body` says beside the method.
async fn import(h: &House, data: &[u8], name: Option<&str>, mut body: Value) -> (String, Reply) {
    let said = json!({"name": name, "disk_format": "vmdk", "container_format": "ova", "tags": ["t"], "hw_vif_model": "virtio"});
    let id = h.create(MEMBER, &said).await;
    let target = format!("/v2/images/{id}/stage");
    let staged = h
        .send(MEMBER, "PUT", &target, &[OCTETS], Some(data.to_vec()))
        .await;
    assert_eq!(staged.status, 204, "{}", staged.text());
    body["method"] = json!({"name": "glance-direct"});
    let target = format!("/v2/images/{id}/import");
    let body = Some(body.to_string().into_bytes());
    let reply = h.send(MEMBER, "POST", &target, &[], body).await;
    (id, reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_disk_becomes_an_image_and_all_of_them_an_archive_again() {
    let h = House::build().await;
    let disks = [disk(3 << 20, 1), disk(9 << 20, 2)];
    let data = archive(&disks);
    for (convert, format) in [
        (Value::Null, "vmdk"),
        (json!({"disk_format": "qcow2"}), "qcow2"),
    ] {
        let body = json!({"appliance": true, "convert": convert});
        let (id, reply) = import(&h, &data, None, body).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        h.settled(&id).await;
        let task = h
            .get(MEMBER, &format!("/v2/images/{id}/tasks"))
            .await
            .json()["tasks"][0]
            .clone();
        assert_eq!(task["status"], "success", "{task:#}");
        let target = format!("/v2/appliances/{id}");
        assert_eq!(h.get(STRANGER, &target).await.status, 404);
        let appliance = h.get(MEMBER, &target).await.json();
        let images = appliance["images"].as_array().unwrap();
        assert_eq!(images.len(), 2, "{appliance:#}");
        assert_eq!(images[0]["id"], id);
        let room = tempfile::tempdir().unwrap();
        for (n, (image, disk)) in images.iter().zip(&disks).enumerate() {
            assert_eq!(image["status"], "active");
            assert_eq!(image["name"], ["shop", "shop-disk2"][n]);
            assert_eq!(image["min_disk"], 1);
            assert_eq!(image["min_ram"], [2048, 0][n]);
            assert_eq!(image["virtual_size"], disk.len());
            for (name, want) in [
                ("disk_format", format),
                ("container_format", "bare"),
                ("os_glint_appliance", &*id),
                ("os_glint_boot_order", ["0", "1"][n]),
                ("os_glint_disk_index", ["0", "1"][n]),
                ("hw_disk_bus", "scsi"),
                ("hw_scsi_model", "lsilogic"),
                ("hw_cpu_sockets", "2"),
                ("os_type", "linux"),
                ("vmware_ostype", "debian12_64Guest"),
                // What was said of the image goes before what the archive says.
                ("hw_vif_model", "virtio"),
                ("os_glance_importing_to_stores", ""),
            ] {
                assert_eq!(image[name], want, "{name} of {image:#}");
            }
            assert_eq!(image["tags"], json!(["t"]));
            let file = format!("/v2/images/{}/file", image["id"].as_str().unwrap());
            fs::write(room.path().join("out"), h.get(MEMBER, &file).await.body).unwrap();
            fs::write(room.path().join("raw"), disk).unwrap();
            let args = ["compare", "-f", "raw", "-F", format, "raw", "out"];
            let compared = Command::new("qemu-img")
                .args(args)
                .current_dir(room.path())
                .output();
            let compared = compared.unwrap();
            assert!(
                compared.status.success(),
                "{}",
                String::from_utf8_lossy(&compared.stdout)
            );
        }
        let again = h.get(MEMBER, &format!("{target}/file")).await;
        assert_eq!(again.status, 200, "{}", again.text());
        let source: Arc<dyn Source> = Arc::new(again.body.to_vec());
        let limits = Limits::default();
        let found = formats::container::describe(&source, &limits).unwrap();
        assert_eq!(
            found.details["manifest"], "verified",
            "{:?}",
            found.findings
        );
        assert_eq!(
            (&found.details["name"], &found.details["vcpus"]),
            (&json!("shop"), &json!(2))
        );
        let ova = Ova::open(&source).unwrap();
        for (n, disk) in disks.iter().enumerate() {
            let back = ova.open_disk(n, &Context::new(&limits)).unwrap();
            let mut bytes = vec![0; disk.len()];
            back.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
            assert!(bytes == *disk, "disk {n}");
        }
        for image in images {
            let target = format!("/v2/images/{}", image["id"].as_str().unwrap());
            assert_eq!(
                h.send(MEMBER, "DELETE", &target, &[], None).await.status,
                204
            );
        }
        assert_eq!(h.files(), [""; 0]);
        assert_eq!(h.get(MEMBER, &target).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_whole_or_not_at_all() {
    let h = House::with(|config| config.quota.image_size_cap = 8 << 20).await;
    let data = archive(&[disk(3 << 20, 1), disk(9 << 20, 2)]);
    let body = json!({"appliance": true, "convert": {"disk_format": "raw"}});
    let (id, reply) = import(&h, &data, Some("mine"), body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let image = h.settled(&id).await;
    assert_eq!(
        (&image["status"], &image["name"]),
        (&json!("queued"), &json!("mine"))
    );
    assert!(
        image["size"].is_null() && image.get("os_glint_appliance").is_none(),
        "{image:#}"
    );
    let task = h
        .get(MEMBER, &format!("/v2/images/{id}/tasks"))
        .await
        .json()["tasks"][0]
        .clone();
    assert_eq!(task["status"], "failure");
    assert!(
        task["message"].as_str().unwrap().contains("9437184 bytes"),
        "{task:#}"
    );
    let all = h.get(MEMBER, "/v2/images").await.json();
    assert_eq!(all["images"].as_array().unwrap().len(), 1, "{all:#}");
    assert_eq!(h.files(), [""; 0]);
    assert_eq!(
        h.get(MEMBER, &format!("/v2/appliances/{id}")).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_gets_an_archive() {
    let h = House::build().await;
    let data = archive(&[disk(1 << 20, 1), disk(2 << 20, 2)]);
    let (id, reply) = import(&h, &data, None, json!({})).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let image = h.settled(&id).await;
    assert_eq!(
        (&image["status"], &image["container_format"]),
        (&json!("active"), &json!("ova"))
    );
    assert_eq!(
        h.get(MEMBER, &format!("/v2/appliances/{id}")).await.status,
        404
    );
    // Either disk can be had all the same.
    let file = format!("/v2/images/{id}/file?disk_format=raw&disk=shop-disk2.vmdk");
    assert!(h.get(MEMBER, &file).await.body == disk(2 << 20, 2));
    for (body, word) in [
        (json!({"appliance": "yes"}), "appliance"),
        (
            json!({"appliance": true, "method": {"name": "copy-image"}}),
            "appliance",
        ),
    ] {
        let target = format!("/v2/images/{id}/import");
        let mut said = json!({"method": {"name": "glance-direct"}});
        said.as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        let reply = h
            .send(
                MEMBER,
                "POST",
                &target,
                &[],
                Some(said.to_string().into_bytes()),
            )
            .await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains(word), "{}", reply.text());
    }
}
