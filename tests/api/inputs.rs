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

#[tokio::test]
async fn a_number_without_a_fraction_is_whole_however_it_is_written() {
    let h = House::build().await;
    for (text, status, want) in [
        ("1.0", 201, json!(1)),
        ("1e3", 201, json!(1000)),
        ("2147483647.0", 201, json!(i32::MAX)),
        ("1.5", 400, Value::Null),
        ("-1.0", 400, Value::Null),
        ("1e10", 400, Value::Null),
    ] {
        let body = format!("{{\"min_ram\": {text}}}").into_bytes();
        let reply = h.send(MEMBER, "POST", "/v2/images", &[], Some(body)).await;
        assert_eq!(reply.status, status, "{text}");
        if status == 201 {
            assert_eq!(reply.json()["min_ram"], want, "{text}");
        }
    }
}

#[tokio::test]
async fn formats_are_named_that_are_missing_before_data_and_may_be_when_it_is_staged() {
    let h = House::with(|config| config.api.show_multiple_locations = true).await;
    let both = "Properties disk_format, container_format must be set prior to saving data.";
    let one = "Property container_format must be set prior to saving data.";
    for (body, says) in [
        (json!({}), both),
        (json!({"disk_format": "raw"}), one),
        (
            json!({"container_format": "bare"}),
            "Property disk_format must be set prior to saving data.",
        ),
    ] {
        let id = h.create(MEMBER, &body).await;
        let reply = h.upload(MEMBER, &id, b"data").await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains(says), "{}", reply.text());
        let place = json!({"url": h.web.url("tiny.raw"), "metadata": {}});
        let add = json!([{"op": "add", "path": "/locations/-", "value": place}]);
        let add = Some(add.to_string().into_bytes());
        let image = format!("/v2/images/{id}");
        let reply = h.send(MEMBER, "PATCH", &image, &[V21], add).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains(says), "{}", reply.text());

        let octets = [("Content-Type", "application/octet-stream")];
        let stage = format!("{image}/stage");
        let data = Some(b"data".to_vec());
        let staged = h.send(MEMBER, "PUT", &stage, &octets, data).await;
        assert_eq!(staged.status, 204);
        let import = json!({"method": {"name": "glance-direct"}});
        let import = Some(import.to_string().into_bytes());
        let reply = h
            .send(MEMBER, "POST", &format!("{image}/import"), &[], import)
            .await;
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert!(reply.text().contains("needs to be set before import"));
    }
}

#[tokio::test]
async fn metadata_definitions_have_names_of_the_basic_plane_and_lists_of_sound_parameters() {
    let h = House::build().await;
    let namespaces = "/v2/metadefs/namespaces";
    let astral = "\u{1f600}";
    let body = json!({"namespace": astral});
    assert_eq!(status(&h, "POST", namespaces, Some(body)).await, 400);
    let body = json!({"namespace": "n", "objects": [{"name": astral}]});
    assert_eq!(status(&h, "POST", namespaces, Some(body)).await, 400);
    let body = json!({"namespace": "n", "objects": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(status(&h, "POST", namespaces, Some(body)).await, 201);
    let tag = format!("{namespaces}/n/tags/%F0%9F%98%80");
    assert_eq!(status(&h, "POST", &tag, None).await, 400);
    let objects = format!("{namespaces}/n/objects");
    for bad in ["limit=x", "limit=-1", "sort_dir=up"] {
        let target = format!("{objects}?{bad}");
        assert_eq!(status(&h, "GET", &target, None).await, 400, "{bad}");
    }
    let all = h
        .get(ADMIN, &format!("{objects}?limit=1&sort_dir=asc"))
        .await;
    assert_eq!(all.json()["objects"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn versions_are_listed_below_their_path_too() {
    let h = House::build().await;
    for (target, status) in [("/versions/x", 200), ("/versionsx", 300)] {
        let reply = h.get(MEMBER, target).await;
        assert_eq!(reply.status, status, "{target}");
        assert!(reply.json()["versions"].is_array());
    }
}
