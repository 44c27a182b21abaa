//! Batches: many images asked for at once.

use serde_json::{Value, json};

use crate::house::{ADMIN, House, MEMBER, OTHER, READER, Reply, STRANGER};
use crate::web::tiny;

async fn ask(h: &House, token: &str, method: &str, target: &str, body: &Value) -> Reply {
    let body = (!body.is_null()).then(|| body.to_string().into_bytes());
    let json = [("Accept", "application/json")];
    h.send(token, method, target, &json, body).await
}

/// Submits a batch; answers where it is found.
async fn submit(h: &House, token: &str, body: &Value) -> String {
    let reply = ask(h, token, "POST", "/v2/batches", body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let target = reply.json()["self"].as_str().unwrap().to_owned();
    let location = reply.header("location").unwrap();
    assert!(location.ends_with(&target), "{location}");
    target
}

async fn ended(h: &House, target: &str) -> Value {
    h.until(target, |batch| {
        ["done", "failed", "cancelled"].contains(&batch["status"].as_str().unwrap())
    })
    .await
}

fn each<'a>(batch: &'a Value, field: &'a str) -> Vec<&'a str> {
    let items = batch["items"].as_array().unwrap().iter();
    items
        .map(|item| item[field].as_str().unwrap_or(""))
        .collect()
}

/// An active image of the member's.
async fn image(h: &House, body: &Value) -> String {
    let id = h.create(MEMBER, body).await;
    let put = h.upload(MEMBER, &id, &tiny()).await;
    assert_eq!(put.status, 204, "{}", put.text());
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_becomes_an_image_named_by_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(dir.path()).unwrap();
    let h = House::with(|config| {
        config.batches.source_dirs = vec![path.clone()];
        config.import.workers = Some(2);
    })
    .await;
    std::fs::write(path.join("old.raw"), tiny()).unwrap();
    let own = json!({"name": "mine.raw", "disk_format": "raw", "container_format": "bare",
                     "min_ram": 512});
    let own = image(&h, &own).await;
    let body = json!({
        "name": "{n} {stem}.{format}",
        "convert": {"disk_format": "qcow2", "compress": true},
        "stores": ["store2"],
        "properties": {"os_distro": "debian", "tags": ["batch"], "visibility": "private"},
        "sources": [
            h.web.url("tiny.raw"),
            {"url": h.web.url("moved"), "disk_format": "raw", "name": "as it likes"},
            {"image": own},
            {"file": path.join("old.raw")},
        ],
    });
    let target = submit(&h, ADMIN, &body).await;
    let batch = ended(&h, &target).await;
    assert_eq!(batch["status"], "done", "{batch:#}");
    let none = json!({"waiting": 0, "running": 0, "done": 4, "failed": 0, "cancelled": 0});
    assert_eq!(batch["counts"], none);
    assert_eq!(
        each(&batch, "name"),
        ["1 tiny.qcow2", "as it likes", "3 mine.qcow2", "4 old.qcow2"]
    );
    for (item, source) in batch["items"].as_array().unwrap().iter().zip(0..) {
        let id = item["image_id"].as_str().unwrap();
        let found = h.get(ADMIN, &format!("/v2/images/{id}")).await.json();
        for (field, want) in [
            ("status", "active"),
            ("disk_format", "qcow2"),
            ("stores", "store2"),
            ("os_distro", "debian"),
            ("visibility", "private"),
        ] {
            assert_eq!(found[field], want, "{field} of {found:#}");
        }
        assert_eq!(found["name"], item["name"]);
        assert_eq!(found["virtual_size"], 1 << 20);
        assert_eq!(found["tags"], json!(["batch"]));
        assert_eq!(found["min_ram"], if source == 2 { 512 } else { 0 });
        // Each is an import like any other.
        let tasks = h.get(ADMIN, &format!("/v2/images/{id}/tasks")).await.json();
        assert_eq!(tasks["tasks"][0]["id"], item["task_id"]);
        let raw = format!("/v2/images/{id}/file?disk_format=raw");
        assert!(h.get(ADMIN, &raw).await.body == tiny());
    }

    let list = h.get(MEMBER, "/v2/batches").await.json();
    assert_eq!(list["batches"][0]["id"], batch["id"]);
    assert!(list["batches"][0].get("items").is_none());
    assert_eq!(
        h.get(STRANGER, "/v2/batches").await.json()["batches"],
        json!([])
    );
    let gone = ask(&h, MEMBER, "DELETE", &target, &Value::Null).await;
    assert_eq!(gone.status, 204);
    assert_eq!(h.get(ADMIN, &target).await.status, 404);
    let kept = batch["items"][0]["image_id"].as_str().unwrap();
    assert_eq!(
        h.get(ADMIN, &format!("/v2/images/{kept}")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_leaves_no_image_and_is_begun_again_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(dir.path()).unwrap();
    let h = House::with(|config| config.batches.source_dirs = vec![path.clone()]).await;
    let file = path.join("late.raw");
    std::fs::write(&file, tiny()).unwrap();
    // The only worker is busy while the file goes away.
    let busy = submit(
        &h,
        MEMBER,
        &json!({"sources": [{"url": h.web.url("stuck"),
        "disk_format": "raw"}]}),
    )
    .await;
    h.until(&busy, |b| b["counts"]["running"] == 1).await;
    let body = json!({"name": "{stem} {n}", "sources": [
        h.web.url("tiny.raw"),
        {"file": file},
        {"url": h.web.url("nothing.raw")},
        {"url": h.web.url("tiny.raw"), "disk_format": "qcow2"},
        {"url": h.web.url("tiny.raw"),
         "expected": {"algo": "md5", "value": "00".repeat(16)}},
    ]});
    let target = submit(&h, ADMIN, &body).await;
    assert_eq!(
        ask(&h, MEMBER, "DELETE", &target, &Value::Null)
            .await
            .status,
        409
    );
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        ask(&h, MEMBER, "POST", &format!("{busy}/cancel"), &Value::Null)
            .await
            .status,
        202
    );
    let batch = ended(&h, &target).await;
    assert_eq!(
        each(&batch, "state"),
        ["done", "failed", "failed", "failed", "failed"]
    );
    assert_eq!(batch["status"], "failed");
    let why = each(&batch, "message");
    assert!(why[1].contains("no file in a folder"), "{why:?}");
    assert_eq!(why[2], "the source answered 404");
    assert!(why[3].contains("does not match"), "{why:?}");
    assert!(why[4].contains("expected was"), "{why:?}");
    let images = h.get(ADMIN, "/v2/images").await.json();
    assert_eq!(images["images"].as_array().unwrap().len(), 1, "{images:#}");
    assert_eq!(h.files().len(), 1);

    // Files are for administrators, and whoever retries does so with their own rights; what can be
    // begun is.
    let retry = format!("{target}/retry");
    let again = ask(&h, MEMBER, "POST", &retry, &Value::Null).await;
    assert_eq!(again.status, 202, "{}", again.text());
    let again = ended(&h, &target).await;
    assert_eq!(again["counts"]["failed"], 4);
    assert_eq!(again["items"][1], batch["items"][1]);
    for item in 2..5 {
        assert_ne!(
            again["items"][item]["task_id"],
            batch["items"][item]["task_id"]
        );
    }

    std::fs::write(&file, tiny()).unwrap();
    let again = ask(&h, ADMIN, "POST", &retry, &Value::Null).await;
    assert_eq!(again.status, 202, "{}", again.text());
    let first = each(&batch, "image_id")[0];
    let batch = ended(&h, &target).await;
    assert_eq!(
        each(&batch, "state"),
        ["done", "done", "failed", "failed", "failed"]
    );
    assert_eq!(each(&batch, "name")[1], "late 2");
    assert_eq!(each(&batch, "image_id")[0], first);
    let images = h.get(ADMIN, "/v2/images").await.json();
    assert_eq!(images["images"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_batch_is_worked_on_than_it_says_and_it_can_be_ended() {
    let h = House::with(|config| config.import.workers = Some(4)).await;
    let stuck = json!({"url": h.web.url("stuck"), "disk_format": "raw"});
    let body = json!({"concurrency": 2, "sources": vec![stuck; 6]});
    let target = submit(&h, MEMBER, &body).await;
    h.until(&target, |b| b["counts"]["running"] == 2).await;
    // The other workers are free for others, of the same project too.
    for token in [OTHER, MEMBER] {
        let body = json!({"sources": [h.web.url("tiny.raw")]});
        let other = submit(&h, token, &body).await;
        assert_eq!(ended(&h, &other).await["status"], "done");
    }
    let batch = h.get(MEMBER, &target).await.json();
    assert_eq!(batch["status"], "running");
    assert_eq!(
        (&batch["counts"]["running"], &batch["counts"]["waiting"]),
        (&json!(2), &json!(4))
    );

    let cancel = format!("{target}/cancel");
    for (token, status) in [(STRANGER, 404), (READER, 403), (MEMBER, 202)] {
        assert_eq!(
            ask(&h, token, "POST", &cancel, &Value::Null).await.status,
            status
        );
    }
    let batch = ended(&h, &target).await;
    assert_eq!(batch["status"], "cancelled");
    assert_eq!(each(&batch, "state"), ["cancelled"; 6]);
    assert_eq!(each(&batch, "image_id"), [""; 6]);
    let images = h.get(MEMBER, "/v2/images").await.json();
    assert_eq!(images["images"].as_array().unwrap().len(), 1);
    assert_eq!(
        ask(&h, MEMBER, "POST", &cancel, &Value::Null).await.status,
        409
    );
    let retry = format!("{target}/retry");
    assert_eq!(
        ask(&h, MEMBER, "POST", &retry, &Value::Null).await.status,
        409
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_refused_whole_where_one_source_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(dir.path()).unwrap();
    let h = House::with(|config| {
        config.batches.source_dirs = vec![path.clone()];
        config.batches.items = 2;
    })
    .await;
    let queued = h.create(MEMBER, &json!({})).await;
    let good = h.web.url("tiny.raw");
    let with = |source: Value| json!({"sources": [good, source]});
    for (body, status, says) in [
        (json!([]), 400, "must be a JSON object"),
        (json!({}), 400, "1 to 2 'sources'"),
        (json!({"sources": [good, good, good]}), 400, "has 3"),
        (json!({"sources": [good], "colour": "red"}), 400, "colour"),
        (
            json!({"sources": [good], "concurrency": 0}),
            400,
            "concurrency",
        ),
        (json!({"sources": [good], "name": "{year}"}), 400, "{year}"),
        (
            json!({"sources": [good], "name": "x".repeat(256)}),
            400,
            "Source 1",
        ),
        (json!({"sources": [good], "stores": ["none"]}), 409, "none"),
        (json!({"sources": [good], "stores": ["web"]}), 409, "web"),
        (json!({"sources": [good], "stores": []}), 400, "stores"),
        (
            json!({"sources": [good], "convert": {"disk_format": "floppy"}}),
            400,
            "convert",
        ),
        (
            json!({"sources": [good], "properties": {"name": "x"}}),
            400,
            "'name'",
        ),
        (
            json!({"sources": [good], "properties": {"owner": "x"}}),
            400,
            "'owner'",
        ),
        (
            json!({"sources": [good], "properties": {"os_glance_x": "x"}}),
            403,
            "os_glance_x",
        ),
        (
            json!({"sources": [good], "properties": {"visibility": "public"}}),
            403,
            "publicize",
        ),
        (with(json!(7)), 400, "Source 2"),
        (with(json!({})), 400, "one of"),
        (with(json!([good])), 400, "an object"),
        (with(json!({"url": good, "image": queued})), 400, "one of"),
        (with(json!({"url": good, "size": 1})), 400, "size"),
        (with(json!("http://10.0.0.1/a.raw")), 400, "filtering"),
        (with(json!("file:///etc/passwd")), 400, "filtering"),
        (with(json!(h.web.url("disk.img"))), 400, "disk_format"),
        (
            with(json!({"url": good, "disk_format": "floppy"})),
            400,
            "Source 2",
        ),
        (
            with(json!({"url": good, "expected": {"algo": "md5"}})),
            400,
            "expected",
        ),
        (with(json!({"image": queued})), 400, "not active"),
        (with(json!({"image": "nonesuch"})), 400, "No image found"),
        (
            with(json!({"file": path.join("none.raw")})),
            403,
            "add_batch_files",
        ),
    ] {
        let reply = ask(&h, MEMBER, "POST", "/v2/batches", &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(reply.text().contains(says), "{body}: {}", reply.text());
    }
    for file in [
        json!(path.join("none.raw")),
        json!("/etc/passwd"),
        json!(path.join("../x")),
    ] {
        let reply = ask(
            &h,
            ADMIN,
            "POST",
            "/v2/batches",
            &with(json!({"file": file})),
        )
        .await;
        assert_eq!(reply.status, 400, "{file}: {}", reply.text());
    }
    // Somebody else's image is not there.
    let private = image(
        &h,
        &json!({"disk_format": "raw", "container_format": "bare"}),
    )
    .await;
    let body = json!({"sources": [{"image": private}]});
    let reply = ask(&h, STRANGER, "POST", "/v2/batches", &body).await;
    assert_eq!(reply.status, 400);
    let images = h.get(ADMIN, "/v2/images").await.json();
    assert_eq!(images["images"].as_array().unwrap().len(), 2);
    assert_eq!(
        h.get(ADMIN, "/v2/batches").await.json()["batches"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_images_get_is_bounded_by_their_number() {
    let h = House::build().await;
    let long = "x".repeat(60_000);
    let properties: serde_json::Map<_, _> =
        (0..14).map(|n| (format!("p{n}"), json!(long))).collect();
    let body = json!({"properties": properties, "sources": vec![h.web.url("tiny.raw"); 20]});
    let reply = ask(&h, MEMBER, "POST", "/v2/batches", &body).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("8 MiB"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_bounded_listed_in_pages_and_forgotten_with_their_tasks() {
    let h = House::with(|config| config.batches.open = 2).await;
    let body = json!({"sources": [{"url": h.web.url("stuck"), "disk_format": "raw"}]});
    let mut targets = Vec::new();
    for _ in 0..2 {
        targets.push(submit(&h, MEMBER, &body).await);
    }
    let reply = ask(&h, MEMBER, "POST", "/v2/batches", &body).await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    // That is for each project by itself.
    let others = submit(&h, OTHER, &json!({"sources": [h.web.url("tiny.raw")]})).await;
    let page = h.get(MEMBER, "/v2/batches?limit=1").await.json();
    assert_eq!(page["batches"][0]["self"], targets[1]);
    let page = h.get(MEMBER, page["next"].as_str().unwrap()).await.json();
    assert_eq!(page["batches"][0]["self"], targets[0]);
    let page = h.get(MEMBER, page["next"].as_str().unwrap()).await.json();
    assert_eq!(page["batches"], json!([]));
    assert_eq!(h.get(STRANGER, &targets[0]).await.status, 404);

    let cancel = format!("{}/cancel", targets[0]);
    assert_eq!(
        ask(&h, MEMBER, "POST", &cancel, &Value::Null).await.status,
        202
    );
    ended(&h, &targets[0]).await;
    // What is being stored when the clock jumps by days is given up.
    ended(&h, &others).await;
    let in_days = |days: i64| glint::domain::Timestamp::now().plus_seconds(days * 24 * 3600);
    let task = each(&h.get(MEMBER, &targets[0]).await.json(), "task_id")[0].to_owned();
    let forgotten = |days| glint::jobs::clear_up(&h.svc, in_days(days));
    forgotten(1).await.unwrap();
    assert_eq!(h.get(MEMBER, &targets[0]).await.status, 200);
    forgotten(3).await.unwrap();
    assert_eq!(h.get(MEMBER, &targets[0]).await.status, 404);
    assert_eq!(h.get(ADMIN, &format!("/v2/tasks/{task}")).await.status, 404);
    // What has not ended is not forgotten.
    assert_eq!(h.get(MEMBER, &targets[1]).await.status, 200);
    let cancel = format!("{}/cancel", targets[1]);
    assert_eq!(
        ask(&h, MEMBER, "POST", &cancel, &Value::Null).await.status,
        202
    );
    ended(&h, &targets[1]).await;
}
