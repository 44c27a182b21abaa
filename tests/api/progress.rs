//! A job followed from outside, and ended from there.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::house::{ADMIN, House, MEMBER, OTHER, READER, Reply, STRANGER};

/// Begins an import of what is at `url`; answers the image and the task.
async fn begin(h: &House, url: &str) -> (String, String) {
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let body = json!({"method": {"name": "web-download", "uri": url}});
    let target = format!("/v2/images/{id}/import");
    let body = Some(body.to_string().into_bytes());
    let reply = h.send(MEMBER, "POST", &target, &[], body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let tasks = h.get(MEMBER, &format!("/v2/images/{id}/tasks")).await;
    let task = tasks.json()["tasks"][0]["id"].as_str().unwrap().to_owned();
    (id, task)
}

async fn cancel(h: &House, token: &str, task: &str) -> Reply {
    let target = format!("/v2/tasks/{task}/cancel");
    h.send(token, "POST", &target, &[], None).await
}

/// Names and data of server-sent events.
fn events(text: &str) -> Vec<(String, Value)> {
    let of = |event: &str, field: &str| {
        let mut lines = event.lines();
        lines.find_map(|l| l.strip_prefix(field).map(str::to_owned))
    };
    let events = text.split("\n\n").filter(|e| e.contains("event: "));
    events
        .map(|e| {
            let data = of(e, "data: ").unwrap();
            (
                of(e, "event: ").unwrap(),
                serde_json::from_str(&data).unwrap(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_by_events_and_ended_on_request() {
    let h = Arc::new(House::build().await);
    let (id, task) = begin(&h, &h.web.url("stuck")).await;
    let events_at = format!("/v2/tasks/{task}/events");
    let following = {
        let (h, at) = (h.clone(), events_at.clone());
        tokio::spawn(async move { h.get(READER, &at).await })
    };
    let target = format!("/v2/tasks/{task}");
    let found = h
        .until(&target, |task| {
            task["os_glint_progress"]["input"]["done"] == 1 << 16
        })
        .await;
    assert_eq!(found["status"], "processing");
    assert_eq!(found["message"], "Copied 0 MiB");
    let progress = &found["os_glint_progress"];
    assert_eq!(progress["phase"], "fetching");
    assert_eq!(
        progress["percent"],
        Value::Null,
        "the source did not say how much"
    );

    // Strangers know of neither; who may only look may not end it.
    for (token, status) in [(STRANGER, 404), (OTHER, 404), (READER, 403)] {
        assert_eq!(cancel(&h, token, &task).await.status, status);
    }
    assert_eq!(h.get(STRANGER, &events_at).await.status, 404);
    assert_eq!(cancel(&h, MEMBER, &task).await.status, 202);

    let reply = tokio::time::timeout(Duration::from_secs(60), following);
    let reply = reply.await.unwrap().unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = events(reply.text());
    let (name, first) = &events[0];
    assert_eq!((name.as_str(), &first["id"]), ("progress", &json!(task)));
    assert!(
        events
            .iter()
            .any(|(_, e)| e["os_glint_progress"]["phase"] == "fetching"),
        "{events:?}"
    );
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "failure");
    assert_eq!(last["message"], "Cancelled on request");
    assert_eq!(last["os_glint_progress"], Value::Null);

    let image = h.settled(&id).await;
    assert_eq!(image["status"], "queued");
    let staging = h.svc.config.data_dir.join("staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    assert_eq!(cancel(&h, ADMIN, &task).await.status, 409);
    assert_eq!(cancel(&h, ADMIN, "nonesuch").await.status, 404);
    // Whoever comes late hears how it ended.
    let reply = h.get(MEMBER, &events_at).await;
    assert_eq!(self::events(reply.text()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_at_once_when_its_image_is_deleted() {
    let h = House::build().await;
    let (id, task) = begin(&h, &h.web.url("stuck")).await;
    let target = format!("/v2/tasks/{task}");
    h.until(&target, |task| task["status"] == "processing")
        .await;
    let image = format!("/v2/images/{id}");
    let gone = h.send(MEMBER, "DELETE", &image, &[], None).await;
    assert_eq!(gone.status, 204);
    let ended = h.until(&target, |task| task["status"] == "failure").await;
    assert_eq!(ended["message"], "Image was deleted while it was imported");
    assert!(ended.get("os_glint_progress").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_ended_without_having_begun() {
    let h = House::build().await;
    // The only worker is busy with the first.
    let (_, first) = begin(&h, &h.web.url("stuck")).await;
    let target = format!("/v2/tasks/{first}");
    h.until(&target, |task| task["status"] == "processing")
        .await;
    let (id, second) = begin(&h, &h.web.url("tiny.raw")).await;
    assert_eq!(cancel(&h, MEMBER, &second).await.status, 202);
    assert_eq!(cancel(&h, MEMBER, &first).await.status, 202);
    let image = h.settled(&id).await;
    assert_eq!(image["status"], "queued");
    let task = h.get(ADMIN, &format!("/v2/tasks/{second}")).await.json();
    assert_eq!(task["message"], "Cancelled on request");
}
