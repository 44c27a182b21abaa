//! Bytes in and out of a whole service, without HTTP: what is stored, what is refused, what is
//! left behind.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use glint::auth::Context;
use glint::catalog::{images, tasks};
use glint::config::Config;
use glint::domain::{Image, ImageId, Status, TaskStatus, Timestamp};
use glint::ingest::{self, Body, Error, ImportRequest};
use glint::service::Service;

struct House {
    svc: Arc<Service>,
    dir: tempfile::TempDir,
}

async fn house(change: impl FnOnce(&mut Config)) -> House {
    let dir = tempfile::tempdir().unwrap();
    let svc = start(dir.path(), change).await;
    House { svc, dir }
}

async fn start(dir: &Path, change: impl FnOnce(&mut Config)) -> Arc<Service> {
    let mut config = Config::embedded(dir.to_owned());
    config.import.worker_program = Some(env!("CARGO_BIN_EXE_glint").into());
    change(&mut config);
    Service::build(config).await.unwrap()
}

impl House {
    async fn create(&self, disk: &str, container: &str) -> Image {
        let mut image = Image::new(ImageId::random(), Some("p".into()), Timestamp::now());
        image.disk_format = Some(disk.into());
        image.container_format = Some(container.into());
        let mut tx = self.svc.catalog.write().await.unwrap();
        images::insert(&mut tx, &image).await.unwrap();
        tx.commit().await.unwrap();
        image
    }

    async fn find(&self, id: &ImageId) -> Image {
        let mut tx = self.svc.catalog.read().await.unwrap();
        images::find(&mut tx, id).await.unwrap().unwrap()
    }

    fn files(&self, folder: &str) -> usize {
        std::fs::read_dir(self.dir.path().join(folder))
            .unwrap()
            .count()
    }

    /// Queued, without any trace of data, and nothing on disk.
    async fn assert_untouched(&self, id: &ImageId) {
        let image = self.find(id).await;
        assert_eq!(image.status, Status::Queued);
        assert_eq!(
            (image.size, image.virtual_size, image.hashes),
            (None, None, None)
        );
        assert!(image.locations.is_empty());
        assert_eq!((self.files("images"), self.files("staging")), (0, 0));
    }

    async fn read(&self, id: &ImageId) -> Vec<u8> {
        let image = self.find(id).await;
        let body = ingest::download(&self.svc, &image, 0..image.size.unwrap(), &[])
            .await
            .unwrap();
        body.try_collect::<Vec<_>>().await.unwrap().concat()
    }
}

fn body(bytes: &[u8]) -> Body {
    let pieces: Vec<_> = bytes
        .chunks(10_000)
        .map(|p| Ok(Bytes::copy_from_slice(p)))
        .collect();
    stream::iter(pieces).boxed()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[tokio::test]
async fn an_upload_is_hashed_judged_and_published() {
    let h = house(|_| {}).await;
    let image = h.create("raw", "bare").await;
    let bytes = data(3 << 20);
    ingest::upload(&h.svc, &image.id, body(&bytes), None, "file")
        .await
        .unwrap();
    let found = h.find(&image.id).await;
    assert_eq!(found.status, Status::Active);
    assert_eq!(
        (found.size, found.virtual_size),
        (Some(3 << 20), Some(3 << 20))
    );
    assert_eq!(found.locations.len(), 1);
    let hashes = found.hashes.unwrap();
    assert_eq!(
        (hashes.checksum.unwrap().len(), hashes.value.len()),
        (32, 128)
    );
    assert_eq!(h.read(&image.id).await, bytes);
    assert_eq!(h.files("images"), 1);

    ingest::delete(&h.svc, &image.id).await.unwrap();
    assert_eq!(h.files("images"), 0);
}

#[tokio::test]
async fn an_empty_upload_has_no_virtual_size() {
    let h = house(|_| {}).await;
    let image = h.create("raw", "bare").await;
    ingest::upload(&h.svc, &image.id, body(&[]), None, "file")
        .await
        .unwrap();
    let found = h.find(&image.id).await;
    // 04-upload.http, "empty body".
    assert_eq!((found.size, found.virtual_size), (Some(0), None));
    assert_eq!(
        found.hashes.unwrap().checksum.unwrap(),
        "d41d8cd98f00b204e9800998ecf8427e"
    );
}

#[tokio::test]
async fn a_failed_upload_leaves_nothing_behind() {
    let h = house(|c| c.quota.image_size_cap = 1 << 20).await;
    let image = h.create("raw", "bare").await;
    let upload = async |bytes: Body, announced| {
        let image = h.find(&image.id).await;
        ingest::upload(&h.svc, &image.id, bytes, announced, "file")
            .await
            .unwrap_err()
    };

    assert!(matches!(
        upload(body(&data(10)), Some(11)).await,
        Error::SizeMismatch { .. }
    ));
    h.assert_untouched(&image.id).await;
    assert!(matches!(
        upload(body(&data(10)), Some(9)).await,
        Error::SizeMismatch { .. }
    ));
    h.assert_untouched(&image.id).await;
    assert!(matches!(
        upload(body(&data(2 << 20)), None).await,
        Error::TooLarge { .. }
    ));
    h.assert_untouched(&image.id).await;
    assert!(matches!(
        upload(body(&[]), Some(2 << 20)).await,
        Error::TooLarge { .. }
    ));
    h.assert_untouched(&image.id).await;
    let hung_up = stream::iter([
        Ok(Bytes::from(data(600_000))),
        Err(std::io::Error::other("gone")),
    ]);
    assert!(matches!(
        upload(hung_up.boxed(), None).await,
        Error::Client(_)
    ));
    h.assert_untouched(&image.id).await;
    let mut tx = h.svc.catalog.write().await.unwrap();
    images::change(&mut tx, &image.id, Status::Queued, |i| {
        i.disk_format = Some("qcow2".into());
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let refused = upload(body(&data(1000)), None).await;
    assert_eq!(
        refused.to_string(),
        "Image disk_format qcow2 does not match stream data raw"
    );
    h.assert_untouched(&image.id).await;
}

#[tokio::test]
async fn a_mismatch_ends_an_upload_before_its_last_byte() {
    let h = house(|_| {}).await;
    let image = h.create("qcow2", "bare").await;
    let endless = stream::repeat_with(|| Ok(Bytes::from(data(100_000)))).boxed();
    let refused = ingest::upload(&h.svc, &image.id, endless, None, "file").await;
    let reason = refused.unwrap_err().to_string();
    assert!(reason.contains("does not match stream data"), "{reason}");
    h.assert_untouched(&image.id).await;
}

#[tokio::test]
async fn what_a_client_changes_during_an_upload_stays_changed() {
    let h = house(|_| {}).await;
    let image = h.create("raw", "bare").await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let pieces = stream::unfold(receive, async |mut r| r.recv().await.map(|p| (p, r)));
    let upload = tokio::spawn({
        let (svc, image) = (h.svc.clone(), image.clone());
        async move { ingest::upload(&svc, &image.id, pieces.boxed(), None, "file").await }
    });
    send.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
    // The image is saving once its first piece was asked for.
    send.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
    let mut tx = h.svc.catalog.write().await.unwrap();
    images::change(&mut tx, &image.id, Status::Saving, |i| {
        i.name = Some("renamed".into());
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    drop(send);
    upload.await.unwrap().unwrap();
    let found = h.find(&image.id).await;
    assert_eq!(
        (found.name.as_deref(), found.size),
        (Some("renamed"), Some(6))
    );
}

#[tokio::test]
async fn an_image_deleted_during_its_upload_leaves_nothing() {
    let h = house(|_| {}).await;
    let image = h.create("raw", "bare").await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let pieces = stream::unfold(receive, async |mut r| r.recv().await.map(|p| (p, r)));
    let upload = tokio::spawn({
        let (svc, image) = (h.svc.clone(), image.clone());
        async move { ingest::upload(&svc, &image.id, pieces.boxed(), None, "file").await }
    });
    send.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
    send.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
    ingest::delete(&h.svc, &image.id).await.unwrap();
    drop(send);
    assert!(matches!(upload.await.unwrap(), Err(Error::Gone)));
    assert_eq!(h.files("images"), 0);
}

fn request(stores: &[&str]) -> ImportRequest {
    ImportRequest {
        import_req: serde_json::json!({"method": {"name": "glance-direct"}}),
        from: glint::jobs::Source::Staged,
        inject: false,
        stores: stores.iter().map(|s| (*s).to_owned()).collect(),
        all_stores_must_succeed: true,
        ..ImportRequest::default()
    }
}

fn somebody() -> Context {
    Context {
        user: Some("u".into()),
        project: Some("p".into()),
        request_id: "req-1".into(),
        is_admin: true,
        ..Context::default()
    }
}

/// Waits until the image's only task has ended; answers how, and what it says.
async fn ended(h: &House, id: &ImageId) -> (TaskStatus, String) {
    for _ in 0..600 {
        let mut tx = h.svc.catalog.read().await.unwrap();
        let found = tasks::list_of_image(&mut tx, id, Timestamp(0))
            .await
            .unwrap();
        drop(tx);
        let task = found.last().unwrap();
        if matches!(task.status, TaskStatus::Success | TaskStatus::Failure) {
            return (task.status, task.message.clone());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the task did not end");
}

async fn stage_and_import(
    h: &House,
    image: &Image,
    bytes: &[u8],
    stores: &[&str],
) -> (TaskStatus, String) {
    ingest::stage(&h.svc, &image.id, body(bytes), None)
        .await
        .unwrap();
    let staged = h.find(&image.id).await;
    assert_eq!(
        (staged.status, staged.size),
        (Status::Uploading, Some(bytes.len() as u64))
    );
    ingest::import(&h.svc, &staged.id, request(stores), &somebody())
        .await
        .unwrap();
    ended(h, &image.id).await
}

#[tokio::test]
async fn an_import_into_two_stores() {
    let h = house(|c| {
        let more = c.data_dir.join("more");
        c.stores
            .push(glint::config::StoreConfig::file("more", more));
    })
    .await;
    let _background = h.svc.start_background();
    let image = h.create("raw", "bare").await;
    let bytes = data(100_000);
    let ended = stage_and_import(&h, &image, &bytes, &["file", "more"]).await;
    assert_eq!(ended, (TaskStatus::Success, "Copied 0 MiB".into()));
    let found = h.find(&image.id).await;
    assert_eq!((found.status, found.locations.len()), (Status::Active, 2));
    assert_eq!(found.virtual_size, Some(100_000));
    assert_eq!(h.read(&image.id).await, bytes);
    assert_eq!(
        (h.files("images"), h.files("more"), h.files("staging")),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_refused_import_leaves_nothing_behind() {
    let h = house(|_| {}).await;
    let _background = h.svc.start_background();
    let image = h.create("qcow2", "bare").await;
    let (status, message) = stage_and_import(&h, &image, &data(1000), &["file"]).await;
    assert_eq!(status, TaskStatus::Failure);
    assert!(message.contains("does not match"), "{message}");
    h.assert_untouched(&image.id).await;
    let found = h.find(&image.id).await;
    assert_eq!(found.properties["os_glance_failed_import"], "file");
    assert_eq!(found.properties["os_glance_importing_to_stores"], "");
}

#[tokio::test]
async fn a_restart_picks_up_what_a_crash_left() {
    let h = house(|_| {}).await;
    let saving = h.create("raw", "bare").await;
    let staging = h.create("raw", "bare").await;
    let importing = h.create("raw", "bare").await;
    let bytes = data(5000);
    ingest::stage(&h.svc, &importing.id, body(&bytes), None)
        .await
        .unwrap();
    let staged = h.find(&importing.id).await;
    ingest::import(&h.svc, &staged.id, request(&["file"]), &somebody())
        .await
        .unwrap();

    // Two uploads in the middle, and a process that vanishes: nothing is undone.
    let endless = || {
        let first = stream::iter([Ok(Bytes::from(data(700_000)))]);
        first.chain(stream::pending()).boxed()
    };
    let uploads = [
        tokio::spawn({
            let (svc, image) = (h.svc.clone(), saving.clone());
            async move { ingest::upload(&svc, &image.id, endless(), None, "file").await }
        }),
        tokio::spawn({
            let (svc, image) = (h.svc.clone(), staging.clone());
            async move { ingest::stage(&svc, &image.id, endless(), None).await }
        }),
    ];
    for (id, status) in [
        (&saving.id, Status::Saving),
        (&staging.id, Status::Uploading),
    ] {
        while h.find(id).await.status != status {
            tokio::task::yield_now().await;
        }
    }
    while h.files("images") == 0 || h.files("staging") < 2 {
        tokio::task::yield_now().await;
    }
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", &format!("{}/.", h.dir.path().display())])
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(copied.success());
    uploads.iter().for_each(tokio::task::JoinHandle::abort);

    // The dead process's files, where they were; its lock died with it.
    let here = h.dir.path().to_owned();
    let dead = here.with_extension("dead");
    std::fs::rename(&here, &dead).unwrap();
    std::fs::rename(copy.keep(), &here).unwrap();
    let h = House {
        svc: start(&here, |_| {}).await,
        dir: h.dir,
    };
    for id in [&saving.id, &staging.id] {
        let found = h.find(id).await;
        assert_eq!((found.status, found.size), (Status::Queued, None));
    }
    assert_eq!((h.files("images"), h.files("staging")), (0, 1));
    let _background = h.svc.start_background();
    assert_eq!(ended(&h, &importing.id).await.0, TaskStatus::Success);
    assert_eq!(h.read(&importing.id).await, bytes);
    assert_eq!(h.files("staging"), 0);
    std::fs::remove_dir_all(dead).unwrap();
}
