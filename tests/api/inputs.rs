//! Texts, numbers and names that clients send, and which of them are none.

use serde_json::{Value, json};

use crate::house::{ADMIN, House, MEMBER};

const V21: (&str, &str) = (
    "Content-Type",
    "application/openstack-images-v2.1-json-patch",
);

/// Status of a request by an administrator.
async fn status(h: &House, method: &str, target: &str, body: Option<Value>) -> u16 {
    let headers: &[_] = if method == "PATCH" { &[V21] } else { &[] };
    let body = body.map(|body| body.to_string().into_bytes());
    let reply = h.send(ADMIN, method, target, headers, body).await;
    reply.status.as_u16()
}

#[tokio::test]
async fn nul_is_no_text_in_any_database() {
    let h = House::build().await;
    let id = h.create(MEMBER, &json!({"visibility": "shared"})).await;
    for query in [
        "images?name=%00",
        "images?name=in:a,%00",
        "images?tag=a%00",
        "images?owner=%00",
        "images?id=%00",
        "images?checksum=%00",
        "images?k=%00",
        "images?k%00=v",
        "images?marker=%00",
        "tasks?marker=%00",
        "tasks?type=%00",
        "images/%00",
        "images/%00/file",
        "tasks/%00",
        "metadefs/namespaces?marker=%00",
        "metadefs/namespaces?resource_types=%00",
        "metadefs/namespaces/%00",
        "metadefs/namespaces/a%00/objects",
        "metadefs/namespaces/a/tags/%00",
        "batches/%00",
    ] {
        assert_eq!(
            status(&h, "GET", &format!("/v2/{query}"), None).await,
            400,
            "{query}"
        );
    }
    let image = format!("/v2/images/{id}");
    assert_eq!(
        status(&h, "PUT", &format!("{image}/tags/%00"), None).await,
        400
    );
    let member = format!("{image}/members/a%00");
    assert_eq!(status(&h, "GET", &member, None).await, 400);
    for (target, body) in [
        ("images", json!({"name": "a\0b"})),
        ("images", json!({"tags": ["a\0"]})),
        ("images", json!({"a\0": "v"})),
        ("images", json!({"k": "\0"})),
        ("images", json!({"id": "\0"})),
        ("metadefs/namespaces", json!({"namespace": "a\0"})),
        (&format!("images/{id}/members"), json!({"member": "a\0"})),
    ] {
        let made = status(&h, "POST", &format!("/v2/{target}"), Some(body.clone())).await;
        assert_eq!(made, 400, "{target} {body}");
    }
    for change in [
        json!([{"op": "replace", "path": "/name", "value": "\0"}]),
        json!([{"op": "add", "path": "/k", "value": "\0"}]),
        json!([{"op": "add", "path": "/k\0", "value": "v"}]),
        json!([{"op": "replace", "path": "/tags", "value": ["\0"]}]),
    ] {
        let patched = status(&h, "PATCH", &image, Some(change.clone())).await;
        assert_eq!(patched, 400, "{change}");
    }
}
