//! Imports from the web, into several stores, between stores; locations of other people's servers.

use serde_json::{Value, json};

use crate::house::{ADMIN, House, MEMBER, READER, Reply, STRANGER, eventually};
use crate::web::tiny;

const V21: (&str, &str) = (
    "Content-Type",
    "application/openstack-images-v2.1-json-patch",
);

async fn queued(h: &House, disk: &str) -> String {
    let body = json!({"disk_format": disk, "container_format": "bare"});
    h.create(MEMBER, &body).await
}

async fn import(h: &House, token: &str, id: &str, body: &Value) -> Reply {
    let target = format!("/v2/images/{id}/import");
    let body = Some(body.to_string().into_bytes());
    h.send(token, "POST", &target, &[], body).await
}

/// Imports from a URL; answers the image when it is over, and its last task.
async fn from_web(h: &House, url: &str, disk: &str) -> (Value, Value) {
    let id = queued(h, disk).await;
    let body = json!({"method": {"name": "web-download", "uri": url}});
    let reply = import(h, MEMBER, &id, &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let image = h.settled(&id).await;
    let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
    (image, tasks.json()["tasks"][0].clone())
}

async fn patch(h: &House, token: &str, id: &str, body: Value) -> Reply {
    let target = format!("/v2/images/{id}");
    let body = Some(body.to_string().into_bytes());
    h.send(token, "PATCH", &target, &[V21], body).await
}

async fn data(h: &House, id: &str) -> Vec<u8> {
    let reply = h.get(MEMBER, &format!("/v2/images/{id}/file")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.body.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_web_is_imported() {
    let h = House::build().await;
    // Redirects are followed, a transfer that breaks off is taken up again.
    for name in ["tiny.raw", "plain.raw", "moved", "broken"] {
        let (image, task) = from_web(&h, &h.web.url(name), "raw").await;
        assert_eq!(image["status"], "active", "{name}: {task}");
        assert_eq!(image["size"], 1 << 20);
        assert_eq!(image["stores"], "store1");
        assert_eq!(task["status"], "success");
        let id = image["id"].as_str().unwrap();
        assert!(data(&h, id).await == tiny(), "{name}");
        let target = format!("/v2/images/{id}");
        let gone = h.send(MEMBER, "DELETE", &target, &[], None).await;
        assert_eq!(gone.status, 204);
    }
    assert_eq!(h.files(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_comes_in_parts_where_they_belong_together() {
    let h = House::with(|config| config.fetch.part_size = 100_000).await;
    let (image, task) = from_web(&h, &h.web.url("parts.raw"), "raw").await;
    assert_eq!(image["status"], "active", "{task}");
    assert!(data(&h, image["id"].as_str().unwrap()).await == tiny());
    let asked = || h.web.ranges.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked(), 10, "all parts but the first");
    // Who does not say that it knows ranges is not asked for any.
    let (image, _) = from_web(&h, &h.web.url("tiny.raw"), "raw").await;
    assert_eq!((&image["status"], asked()), (&json!("active"), 10));

    let (image, task) = from_web(&h, &h.web.url("changing.raw"), "raw").await;
    assert_eq!(image["status"], "queued");
    assert_eq!(task["message"], "The source changed while it was read");
    assert_eq!(h.files().len(), 2, "those of the first two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_as_it_comes_is_not_staged() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    let body = json!({
        "method": {"name": "web-download", "uri": h.web.url("stuck")}, "all_stores": true,
    });
    assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
    let tasks = format!("/v2/images/{id}/tasks");
    let tasks = h
        .until(&tasks, |t| {
            t["tasks"][0]["os_glint_progress"]["input"]["done"] == 1 << 16
        })
        .await;
    // On its way into both stores at once.
    let mut folders: Vec<_> = h
        .files()
        .iter()
        .map(|f| f.split('/').next().unwrap().to_owned())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, ["store1", "store2"]);
    let task = tasks["tasks"][0]["id"].as_str().unwrap();
    let cancel = format!("/v2/tasks/{task}/cancel");
    let reply = h.send(MEMBER, "POST", &cancel, &[], None).await;
    assert_eq!(reply.status, 202);
    assert_eq!(h.settled(&id).await["status"], "queued");
    h.emptied().await;

    let id = queued(&h, "raw").await;
    let body = json!({
        "method": {"name": "web-download", "uri": h.web.url("tiny.raw")}, "all_stores": true,
    });
    assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
    let image = h.settled(&id).await;
    assert_eq!(image["stores"], "store1,store2");
    assert_eq!(image["virtual_size"], 1 << 20);
    assert!(data(&h, &id).await == tiny());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_leaves_a_queued_image_and_a_reason() {
    let h = House::with(|config| config.quota.image_size_cap = 4 << 20).await;
    for (name, disk, why) in [
        ("absent.raw", "raw", "answered 404"),
        ("round", "raw", "redirects too often"),
        ("inside", "raw", "not allowed"),
        ("endless", "raw", "more than the 4194304 bytes allowed"),
        ("tiny.raw", "qcow2", "does not match stream data"),
    ] {
        let (image, task) = from_web(&h, &h.web.url(name), disk).await;
        assert_eq!(image["status"], "queued", "{name}");
        assert_eq!(image["os_glance_failed_import"], "store1");
        assert_eq!(image["os_glance_importing_to_stores"], "");
        assert_eq!(task["status"], "failure", "{name}");
        let message = task["message"].as_str().unwrap();
        assert!(message.contains(why), "{name}: {message}");
        assert_eq!(h.files(), [""; 0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_that_lead_inside_are_refused_before_anything_happens() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    let port = h.web.address.port();
    for uri in [
        "http://10.0.0.1/x".to_owned(),
        "http://169.254.169.254/latest/meta-data".into(),
        "http://[::1]/x".into(),
        format!("http://2130706433:{port}/tiny.raw"),
        format!("http://0x7f.1:{port}/tiny.raw"),
        "http://127.0.0.1:22/".into(),
        "file:///etc/passwd".into(),
        "ftp://127.0.0.1/x".into(),
        format!("http://user:secret@127.0.0.1:{port}/tiny.raw"),
        "x".repeat(5000),
    ] {
        let body = json!({"method": {"name": "web-download", "uri": uri}});
        let reply = import(&h, MEMBER, &id, &body).await;
        assert_eq!(reply.status, 400, "{uri}");
    }
    let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(image["status"], "queued");
    assert!(image.get("os_glance_import_task").is_none());
    let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
    assert_eq!(tasks.json()["tasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_import_goes_into_all_stores() {
    let h = House::with(|config| config.import.parallel_stores = 2).await;
    let id = queued(&h, "raw").await;
    let uri = h.web.url("tiny.raw");
    let body = json!({"method": {"name": "web-download", "uri": uri}, "all_stores": true});
    assert_eq!(import(&h, READER, &id, &body).await.status, 403);
    assert_eq!(import(&h, STRANGER, &id, &body).await.status, 404);
    assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
    let image = h.settled(&id).await;
    // Both at once: either may be first.
    let mut stores: Vec<_> = image["stores"].as_str().unwrap().split(',').collect();
    stores.sort_unstable();
    assert_eq!(stores, ["store1", "store2"]);
    assert_eq!(h.files().len(), 2);
    // Read from the store that is asked for, and from no other.
    for (prefer, status) in [("store2", 200), ("store2,store1", 200), ("nowhere", 400)] {
        let target = format!("/v2/images/{id}/file?prefer={prefer}");
        assert_eq!(h.get(MEMBER, &target).await.status, status, "{prefer}");
    }
    // Gone from one, it still is in the other.
    let copy = format!("/v2/stores/store1/{id}");
    let deleted = h.send(ADMIN, "DELETE", &copy, &[], None).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    assert_eq!(h.files().len(), 1);
    assert!(data(&h, &id).await == tiny());
    assert_eq!(h.send(ADMIN, "DELETE", &copy, &[], None).await.status, 403);
}

/// A store whose folder takes no files: its path is a dangling one.
fn break_store(h: &House, store: &str) {
    let folder = h.svc.config.data_dir.join(store);
    std::fs::remove_dir(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_may_fail_where_not_all_must_succeed() {
    let h = House::build().await;
    break_store(&h, "store1");
    let id = queued(&h, "raw").await;
    let method = json!({"name": "web-download", "uri": h.web.url("tiny.raw")});
    let body = json!({
        "method": method, "all_stores": true, "all_stores_must_succeed": false,
    });
    assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
    let image = h.settled(&id).await;
    assert_eq!(image["status"], "active");
    assert_eq!(image["stores"], "store2");
    assert_eq!(image["os_glance_failed_import"], "store1");
    assert_eq!(image["os_glance_importing_to_stores"], "");
    assert!(data(&h, &id).await == tiny());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_copied_to_another_store() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    let copy = |stores: Value| json!({"method": {"name": "copy-image"}, "stores": stores});
    assert_eq!(
        import(&h, ADMIN, &id, &copy(json!(["store2"])))
            .await
            .status,
        409
    );
    assert_eq!(h.upload(MEMBER, &id, &tiny()).await.status, 204);
    assert_eq!(
        import(&h, MEMBER, &id, &copy(json!(["store2"])))
            .await
            .status,
        403
    );
    assert_eq!(
        import(&h, ADMIN, &id, &copy(json!(["store1"])))
            .await
            .status,
        400
    );
    assert_eq!(
        import(&h, ADMIN, &id, &copy(json!(["web"]))).await.status,
        409
    );
    assert_eq!(
        import(&h, ADMIN, &id, &copy(json!(["store2"])))
            .await
            .status,
        202
    );
    let image = h.settled(&id).await;
    assert_eq!(image["stores"], "store1,store2");
    assert_eq!(image["status"], "active");
    let everywhere = json!({"method": {"name": "copy-image"}, "all_stores": true});
    assert_eq!(import(&h, ADMIN, &id, &everywhere).await.status, 202);
    assert_eq!(h.settled(&id).await["stores"], "store1,store2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_what_it_was_is_none() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    assert_eq!(h.upload(MEMBER, &id, &tiny()).await.status, 204);
    let blob = h.svc.config.data_dir.join(&h.files()[0]);
    let mut other = tiny();
    other[5] ^= 1;
    std::fs::write(blob, other).unwrap();
    let body = json!({"method": {"name": "copy-image"}, "stores": ["store2"]});
    assert_eq!(import(&h, ADMIN, &id, &body).await.status, 202);
    let image = h.settled(&id).await;
    assert_eq!(image["status"], "active");
    assert_eq!(image["stores"], "store1");
    assert_eq!(image["os_glance_failed_import"], "store2");
    assert_eq!(h.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_while_its_task_lives_and_taken_over_when_it_does_not() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    assert_eq!(h.upload(MEMBER, &id, b"data").await.status, 204);
    let image_id = id.parse().unwrap();
    let now = glint::domain::Timestamp::now();
    let old = now.plus_seconds(-61 * 60);
    let task = |at| glint::domain::Task {
        id: "the-other-task".into(),
        kind: "api_image_import".into(),
        status: glint::domain::TaskStatus::Processing,
        owner: None,
        image_id: id.clone(),
        request_id: String::new(),
        user_id: None,
        input: json!({}),
        result: None,
        message: String::new(),
        expires_at: None,
        created_at: at,
        updated_at: at,
        progress: None,
    };
    let body = json!({"method": {"name": "copy-image"}, "stores": ["store2"]});
    for (at, status) in [(now, 409), (old, 202)] {
        let mut tx = h.svc.catalog.write().await.unwrap();
        let active = glint::domain::Status::Active;
        glint::catalog::images::change(&mut tx, &image_id, active, |image| {
            let lock = "the-other-task".to_owned();
            image
                .properties
                .insert("os_glance_import_task".into(), lock);
        })
        .await
        .unwrap();
        if at == now {
            glint::catalog::tasks::insert(&mut tx, &task(at))
                .await
                .unwrap();
        } else {
            let status = glint::domain::TaskStatus::Processing;
            let id = "the-other-task";
            glint::catalog::tasks::progress(&mut tx, id, status, "", at)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(import(&h, ADMIN, &id, &body).await.status, status);
    }
    assert_eq!(h.settled(&id).await["stores"], "store1,store2");
    let other = h.get(ADMIN, "/v2/tasks/the-other-task").await.json();
    assert_eq!(other["status"], "failure");
    assert_eq!(other["message"], "Expired lock preempted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_lies_where_a_client_says() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    let target = format!("/v2/images/{id}/locations");
    let add = async |token: &str, id: &str, body: Value| {
        let target = format!("/v2/images/{id}/locations");
        let body = Some(body.to_string().into_bytes());
        let reply = h.send(token, "POST", &target, &[], body).await;
        reply.status.as_u16()
    };
    let url = h.web.url("tiny.raw");
    assert_eq!(
        add(MEMBER, &id, json!({"url": "file:///etc/passwd"})).await,
        403
    );
    assert_eq!(
        add(ADMIN, &id, json!({"url": "file:///etc/passwd"})).await,
        400
    );
    assert_eq!(
        add(MEMBER, &id, json!({"url": "http://10.0.0.1/x"})).await,
        400
    );
    assert_eq!(add(READER, &id, json!({"url": url})).await, 403);
    assert_eq!(add(STRANGER, &id, json!({"url": url})).await, 404);
    assert_eq!(add(MEMBER, &id, json!({"url": url})).await, 202);
    let image = h
        .until(&format!("/v2/images/{id}"), |i| {
            !i["os_hash_value"].is_null()
        })
        .await;
    assert_eq!(image["status"], "active");
    assert_eq!(image["size"], 1 << 20);
    assert_eq!(image["stores"], "web");
    assert_eq!(add(MEMBER, &id, json!({"url": url})).await, 409);
    assert!(data(&h, &id).await == tiny());
    let range = [("Range", "bytes=7-16")];
    let file = format!("/v2/images/{id}/file");
    let part = h.send(MEMBER, "GET", &file, &range, None).await;
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &tiny()[7..17])
    );
    assert_eq!(h.get(MEMBER, &target).await.status, 403);
    let listed = h.get(ADMIN, &target).await.json();
    assert_eq!(listed, json!([{"url": url, "metadata": {"store": "web"}}]));
    // What lies elsewhere stays there.
    let image = format!("/v2/images/{id}");
    assert_eq!(
        h.send(MEMBER, "DELETE", &image, &[], None).await.status,
        204
    );

    // A digest that is vouched for is verified first.
    let digest = image_digest(&tiny());
    for (value, status, url) in [
        (digest.clone(), "active", &url),
        ("0".repeat(128), "queued", &url),
        (digest, "queued", &h.web.url("absent.raw")),
    ] {
        let id = queued(&h, "raw").await;
        let said = json!({"os_hash_algo": "sha512", "os_hash_value": value});
        let body = json!({"url": url, "validation_data": said});
        assert_eq!(add(MEMBER, &id, body).await, 202);
        let image = h.settled(&id).await;
        assert_eq!(image["status"], status, "{url}");
        // Of what was refused the store is named, and nothing read.
        assert_eq!(image["stores"], "web", "{url}");
        let file = h.get(MEMBER, &format!("/v2/images/{id}/file")).await;
        let wanted = if status == "active" { 200 } else { 204 };
        assert_eq!(file.status, wanted, "{url}");
    }
}

fn image_digest(data: &[u8]) -> String {
    use sha2::{Digest, Sha512};
    let digest = Sha512::digest(data);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn locations_are_patched_where_they_are_shown() {
    let h = House::with(|config| {
        config.api.show_multiple_locations = true;
        config.api.show_image_direct_url = true;
        config.quota.locations = 2;
    })
    .await;
    let id = queued(&h, "raw").await;
    let image = format!("/v2/images/{id}");
    assert_eq!(h.get(MEMBER, &image).await.json()["locations"], json!([]));
    let at = |name: &str| json!({"url": h.web.url(name), "metadata": {"k": "v"}});
    let add = |value: Value| json!([{"op": "add", "path": "/locations/-", "value": value}]);
    let status = async |body: Value| patch(&h, MEMBER, &id, body).await.status.as_u16();

    assert_eq!(status(add(at("absent.raw"))).await, 400);
    assert_eq!(status(add(at("empty"))).await, 400);
    assert_eq!(
        status(add(json!({"url": "file:///etc/passwd", "metadata": {}}))).await,
        400
    );
    assert_eq!(
        status(add(json!({"url": "swift+config://x", "metadata": {}}))).await,
        400
    );
    assert_eq!(
        status(json!([{"op": "replace", "path": "/locations", "value": []}])).await,
        403
    );
    assert_eq!(
        status(json!([{"op": "remove", "path": "/locations/0"}])).await,
        409
    );
    let replaced = json!([{"op": "replace", "path": "/locations", "value": [at("tiny.raw")]}]);
    let reply = patch(&h, MEMBER, &id, replaced.clone()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let shown = reply.json();
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["size"], 1 << 20);
    assert_eq!(shown["direct_url"], h.web.url("tiny.raw"));
    assert_eq!(
        shown["locations"][0]["metadata"],
        json!({"k": "v", "store": "web"})
    );

    let mut noted = at("tiny.raw");
    noted["metadata"] = json!({"k": "w", "store": "web"});
    let noted = json!([{"op": "replace", "path": "/locations", "value": [noted]}]);
    let noted = patch(&h, MEMBER, &id, noted).await.json();
    assert_eq!(
        noted["locations"],
        h.get(MEMBER, &image).await.json()["locations"]
    );
    assert_eq!(noted["locations"][0]["metadata"]["k"], "w");
    assert_eq!(status(replaced).await, 200, "the same again");
    assert_eq!(status(add(at("tiny.raw"))).await, 400, "twice");
    assert_eq!(status(add(at("plain.raw"))).await, 200);
    assert_eq!(status(add(at("moved"))).await, 413);
    let said = json!({"os_hash_algo": "sha512", "os_hash_value": "0".repeat(128)});
    let mut vouched = at("moved");
    vouched["validation_data"] = said;
    assert_eq!(status(add(vouched)).await, 413);
    let first = json!([{"op": "remove", "path": "/locations/0"}]);
    assert_eq!(status(first.clone()).await, 403, "administrators alone");
    let odd = json!([{"op": "remove", "path": "/locations/x"}]);
    assert_eq!(patch(&h, ADMIN, &id, odd).await.status, 400);
    let far = json!([{"op": "remove", "path": "/locations/7"}]);
    assert_eq!(patch(&h, ADMIN, &id, far).await.status, 400);
    let left = patch(&h, ADMIN, &id, first.clone()).await.json();
    assert_eq!(left["locations"][0]["url"], h.web.url("plain.raw"));
    assert_eq!(
        patch(&h, ADMIN, &id, first).await.status,
        403,
        "the last one"
    );
    assert_eq!(status(add(at("tiny.raw"))).await, 200);
    let last = json!([{"op": "remove", "path": "/locations/-"}]);
    let left = patch(&h, ADMIN, &id, last).await.json();
    assert_eq!(left["locations"].as_array().unwrap().len(), 1);
    assert_eq!(left["locations"][0]["url"], h.web.url("plain.raw"));
    assert!(h.get(STRANGER, &image).await.status == 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn locations_count_against_what_a_project_may_hold() {
    let h = House::with(|config| {
        config.api.show_multiple_locations = true;
        config.quota.user_storage = "2MB".into();
    })
    .await;
    let add = async |id: &str, name: &str| {
        let place = json!({"url": h.web.url(name), "metadata": {}});
        let change = json!([{"op": "add", "path": "/locations/-", "value": place}]);
        patch(&h, MEMBER, id, change).await
    };
    let locate = async |id: &str| {
        let body = json!({"url": h.web.url("tiny.raw")}).to_string();
        let target = format!("/v2/images/{id}/locations");
        let body = Some(body.into_bytes());
        let reply = h.send(MEMBER, "POST", &target, &[], body).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        let image = h.settled(id).await;
        let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
        let task = tasks.json()["tasks"][0].clone();
        (image["status"].clone(), task["message"].clone())
    };
    // An image of 1 MiB, and a second copy of it.
    let first = queued(&h, "raw").await;
    assert_eq!(locate(&first).await.0, "active");
    let reply = add(&first, "plain.raw").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = add(&first, "moved").await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    let image = h.get(MEMBER, &format!("/v2/images/{first}")).await.json();
    assert_eq!(image["locations"].as_array().unwrap().len(), 2);

    let second = queued(&h, "raw").await;
    let (status, message) = locate(&second).await;
    assert_eq!(status, "queued");
    assert!(message.as_str().unwrap().contains("quota"), "{message}");
    assert_eq!(add(&second, "tiny.raw").await.status, 413);

    // A copy less is room for another image.
    let fewer = json!([{"op": "remove", "path": "/locations/1"}]);
    assert_eq!(patch(&h, ADMIN, &first, fewer).await.status, 200);
    assert_eq!(locate(&second).await.0, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_count_against_what_a_project_may_hold() {
    let h = House::with(|config| config.quota.user_storage = "2MB".into()).await;
    let fetch = async |stores: Value| {
        let id = queued(&h, "raw").await;
        let method = json!({"name": "web-download", "uri": h.web.url("tiny.raw")});
        let body = json!({"method": method, "stores": stores});
        assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
        let image = h.settled(&id).await;
        let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
        let message = tasks.json()["tasks"][0]["message"].to_string();
        (image["status"].clone(), message)
    };
    // An image of 1 MiB, of which a second one has room, but not in two stores.
    assert_eq!(fetch(json!(["store1"])).await.0, "active");
    let (status, message) = fetch(json!(["store1", "store2"])).await;
    assert_eq!(status, "queued");
    assert!(message.contains("quota"), "{message}");
    assert_eq!(fetch(json!(["store2"])).await.0, "active");
    let (status, message) = fetch(json!(["store1"])).await;
    assert_eq!(status, "queued");
    assert!(message.contains("quota"), "{message}");
    eventually(|| h.files().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_way_to_import_minds_the_rules_too() {
    let h = House::build().await;
    let create = async |token: &str, from: &str| {
        let body = json!({"type": "import", "input": {
            "import_from": from, "import_from_format": "raw",
            "image_properties": {"name": "old", "container_format": "bare"},
        }});
        let body = Some(body.to_string().into_bytes());
        h.send(token, "POST", "/v2/tasks", &[], body).await
    };
    let url = h.web.url("tiny.raw");
    assert_eq!(create(MEMBER, &url).await.status, 403);
    assert_eq!(create(ADMIN, "file:///etc/passwd").await.status, 400);
    let reply = create(ADMIN, &url).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        reply.header("location"),
        Some(&*format!("http://HOST/v2/tasks/{id}"))
    );
    let task = h
        .until(&format!("/v2/tasks/{id}"), |task| {
            !task["expires_at"].is_null()
        })
        .await;
    assert_eq!(task["status"], "success", "{task}");
    let image = task["result"]["image_id"].as_str().unwrap();
    let image = h.get(ADMIN, &format!("/v2/images/{image}")).await.json();
    assert_eq!(
        (&image["name"], &image["status"]),
        (&json!("old"), &json!("active"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_in_pages() {
    let h = House::build().await;
    for _ in 0..5 {
        from_web(&h, &h.web.url("tiny.raw"), "raw").await;
    }
    from_web(&h, &h.web.url("absent.raw"), "raw").await;
    let count = |page: &Value| page["tasks"].as_array().unwrap().len();
    for sort in [
        "",
        "&sort_key=status",
        "&sort_key=expires_at&sort_dir=asc",
        "&sort_key=id",
    ] {
        let mut target = format!("/v2/tasks?limit=2{sort}");
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let page = h.get(ADMIN, &target).await.json();
            for task in page["tasks"].as_array().unwrap() {
                assert!(seen.insert(task["id"].to_string()), "{sort}");
            }
            match page["next"].as_str() {
                Some(next) => target = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen.len(), 6, "{sort}");
    }
    let failed = h
        .get(ADMIN, "/v2/tasks?status=failure&type=api_image_import")
        .await;
    assert_eq!(count(&failed.json()), 1);
    assert_eq!(count(&h.get(ADMIN, "/v2/tasks?limit=0").await.json()), 0);
    for bad in ["marker=none", "limit=x", "sort_dir=up", "type=odd"] {
        assert_eq!(
            h.get(ADMIN, &format!("/v2/tasks?{bad}")).await.status,
            400,
            "{bad}"
        );
    }
}

/// A service on a real port, for others to read from.
async fn remote() -> (House, u16, tokio::task::JoinHandle<()>) {
    let far = House::build().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = far.router.clone();
    let server = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    (far, port, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_service_comes_with_what_describes_it() {
    let (far, port, server) = remote().await;
    let h = House::with(|config| {
        config.import.methods.push("glance-download".into());
        config.fetch.allowed_ports = vec![port];
        let url = format!("http://127.0.0.1:{port}/");
        config.import.glance_regions = [("far".to_owned(), url)].into();
    })
    .await;
    let body = json!({
        "disk_format": "raw", "container_format": "bare", "hw_disk_bus": "scsi", "secret": "s",
    });
    let theirs = far.create(MEMBER, &body).await;
    let queued = far.create(MEMBER, &body).await;
    assert_eq!(far.upload(MEMBER, &theirs, &tiny()).await.status, 204);
    let wish = |region: &str, id: &str| {
        json!({"method": {
            "name": "glance-download", "glance_region": region, "glance_image_id": id,
        }})
    };

    let ours = h.create(MEMBER, &json!({"name": "ours"})).await;
    // A region that nobody knows is a failure of the task, and the image waits on.
    let lost = import(&h, MEMBER, &ours, &wish("near", &theirs)).await;
    assert_eq!(lost.status, 202);
    assert_eq!(h.settled(&ours).await["status"], "queued");
    let tasks = h.get(MEMBER, &format!("/v2/images/{ours}/tasks")).await;
    let task = &tasks.json()["tasks"][0];
    assert_eq!(task["status"], "failure");
    assert_eq!(task["message"], "The region is not known here");
    assert_eq!(
        import(&h, MEMBER, &ours, &wish("far", "x")).await.status,
        400
    );
    assert_eq!(
        import(&h, MEMBER, &ours, &wish("far", &theirs))
            .await
            .status,
        202
    );
    let image = h.settled(&ours).await;
    assert_eq!(image["status"], "active", "{image}");
    for (key, value) in [
        ("name", "ours"),
        ("disk_format", "raw"),
        ("hw_disk_bus", "scsi"),
    ] {
        assert_eq!(image[key], value);
    }
    assert!(image.get("secret").is_none());
    assert!(data(&h, &ours).await == tiny());
    // The caller's token is for the job alone.
    let tasks = h.get(MEMBER, &format!("/v2/images/{ours}/tasks")).await;
    assert!(!tasks.text().contains(MEMBER));

    // What is not there, not ready, or not theirs to read is not imported.
    let absent = "99999999-9999-4999-8999-999999999999";
    for (token, id, why) in [
        (MEMBER, &*queued, "queued and not active"),
        (MEMBER, absent, "answered 404"),
        (STRANGER, &theirs, "answered 404"),
    ] {
        let ours = h.create(token, &json!({})).await;
        assert_eq!(import(&h, token, &ours, &wish("far", id)).await.status, 202);
        assert_eq!(h.settled(&ours).await["status"], "queued");
        let tasks = h.get(ADMIN, &format!("/v2/images/{ours}/tasks")).await;
        assert!(tasks.text().contains(why), "{}", tasks.text());
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_image_stops_its_download_which_leaves_nothing() {
    let h = House::build().await;
    let id = queued(&h, "raw").await;
    let body = json!({"method": {"name": "web-download", "uri": h.web.url("stuck")}});
    assert_eq!(import(&h, MEMBER, &id, &body).await.status, 202);
    let tasks = format!("/v2/images/{id}/tasks");
    let tasks = h
        .until(&tasks, |tasks| tasks["tasks"][0]["status"] == "processing")
        .await;
    let image = format!("/v2/images/{id}");
    assert_eq!(
        h.send(MEMBER, "DELETE", &image, &[], None).await.status,
        204
    );
    let task = format!("/v2/tasks/{}", tasks["tasks"][0]["id"].as_str().unwrap());
    let task = h.until(&task, |task| task["status"] == "failure").await;
    assert_eq!(task["message"], "Image was deleted while it was imported");
    assert_eq!(h.files(), [""; 0]);
}
