//! Metadata definitions: what the golden samples do not show.

use serde_json::{Value, json};

use crate::house::{ADMIN, House, MEMBER, NOBODY, READER, Reply, STRANGER};

const ROOT: &str = "/v2/metadefs/namespaces";

async fn send(h: &House, token: &str, method: &str, target: &str, body: Option<Value>) -> Reply {
    let body = body.map(|b| b.to_string().into_bytes());
    h.send(token, method, target, &[], body).await
}

/// Makes a namespace; answers its path.
async fn make(h: &House, name: &str, more: Value) -> String {
    let mut body = json!({"namespace": name});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let reply = send(h, ADMIN, "POST", ROOT, Some(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    format!("{ROOT}/{name}")
}

fn names(reply: &Reply) -> Vec<String> {
    let body = reply.json();
    let items = body["namespaces"].as_array().unwrap().iter();
    items
        .map(|n| n["namespace"].as_str().unwrap().to_owned())
        .collect()
}

/// A whole namespace: one of each kind.
fn whole() -> Value {
    json!({
        "visibility": "public",
        "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}],
        "properties": {"p": {"title": "P", "type": "string"}},
        "objects": [{"name": "o"}],
        "tags": [{"name": "t"}],
    })
}

/// Every route below a namespace: verb, path, body.
fn changes() -> Vec<(&'static str, &'static str, Option<Value>)> {
    vec![
        (
            "PUT",
            "",
            Some(json!({"namespace": "N", "visibility": "public"})),
        ),
        ("POST", "/objects", Some(json!({"name": "o2"}))),
        ("PUT", "/objects/o", Some(json!({"name": "o"}))),
        ("DELETE", "/objects/o", None),
        ("DELETE", "/objects", None),
        (
            "POST",
            "/properties",
            Some(json!({"name": "p2", "title": "P", "type": "string"})),
        ),
        (
            "PUT",
            "/properties/p",
            Some(json!({"name": "p", "title": "P", "type": "string"})),
        ),
        ("DELETE", "/properties/p", None),
        ("DELETE", "/properties", None),
        ("POST", "/tags", Some(json!({"tags": []}))),
        ("POST", "/tags/t2", None),
        ("PUT", "/tags/t2", Some(json!({"name": "t3"}))),
        ("DELETE", "/tags/t3", None),
        ("DELETE", "/tags", None),
        (
            "POST",
            "/resource_types",
            Some(json!({"name": "OS::Lab::Thing"})),
        ),
        ("DELETE", "/resource_types/OS::Nova::Flavor", None),
        ("DELETE", "", None),
    ]
}

const LOOKS: [&str; 8] = [
    "",
    "/objects",
    "/objects/o",
    "/properties",
    "/properties/p",
    "/tags",
    "/tags/t",
    "/resource_types",
];

#[tokio::test]
async fn everyone_looks_at_public_ones_and_only_admins_change() {
    let h = House::build().await;
    let at = make(&h, "N", whole()).await;
    for token in [ADMIN, MEMBER, READER, STRANGER] {
        for look in LOOKS {
            let reply = h.get(token, &format!("{at}{look}")).await;
            assert_eq!(reply.status, 200, "{token} {look}");
        }
    }
    assert_eq!(h.get(NOBODY, &at).await.status, 401);
    for token in [MEMBER, READER, STRANGER] {
        for (method, path, body) in changes() {
            let reply = send(&h, token, method, &format!("{at}{path}"), body).await;
            assert_eq!(reply.status, 403, "{token} {method} {path}");
        }
    }
    for (method, path, body) in changes() {
        let reply = send(&h, ADMIN, method, &format!("{at}{path}"), body).await;
        assert!(
            reply.status.is_success(),
            "{method} {path}: {}",
            reply.text()
        );
    }
    assert_eq!(h.get(ADMIN, &at).await.status, 404);
}

#[tokio::test]
async fn private_ones_of_others_do_not_exist() {
    let h = House::build().await;
    let mut body = whole();
    body["visibility"] = json!("private");
    let at = make(&h, "N", body).await;
    for token in [MEMBER, READER] {
        assert_eq!(h.get(token, &at).await.status, 200, "{token}");
    }
    for look in LOOKS {
        let reply = h.get(STRANGER, &format!("{at}{look}")).await;
        assert_eq!(reply.status, 404, "{look}");
    }
    for (method, path, body) in changes() {
        let reply = send(&h, STRANGER, method, &format!("{at}{path}"), body).await;
        assert_eq!(reply.status, 404, "{method} {path}");
    }
    assert_eq!(names(&h.get(STRANGER, ROOT).await), [""; 0]);
    let marker = format!("{ROOT}?marker=N");
    assert_eq!(h.get(STRANGER, &marker).await.status, 404);
}

#[tokio::test]
async fn what_is_protected_and_all_in_it_is_not_deleted() {
    let h = House::build().await;
    let mut body = whole();
    body["protected"] = json!(true);
    let at = make(&h, "N", body).await;
    for (method, path, body) in changes() {
        if method == "DELETE" {
            let reply = send(&h, ADMIN, method, &format!("{at}{path}"), body).await;
            assert_eq!(reply.status, 403, "{path}");
        }
    }
    let unprotect = json!({"namespace": "N", "protected": false});
    assert_eq!(
        send(&h, ADMIN, "PUT", &at, Some(unprotect)).await.status,
        200
    );
    assert_eq!(send(&h, ADMIN, "DELETE", &at, None).await.status, 204);
}

#[tokio::test]
async fn pages_hold_every_namespace_once_in_order() {
    let h = House::build().await;
    for n in 0..7 {
        let kind = ["public", "private"][n % 2];
        let more = json!({"visibility": kind, "display_name": format!("d{}", n / 3)});
        make(&h, &format!("n{n}"), more).await;
    }
    for (query, want) in [
        ("", vec!["n6", "n5", "n4", "n3", "n2", "n1", "n0"]),
        (
            "sort_key=namespace&sort_dir=asc",
            vec!["n0", "n1", "n2", "n3", "n4", "n5", "n6"],
        ),
        (
            "sort_key=display_name",
            vec!["n6", "n5", "n4", "n3", "n2", "n1", "n0"],
        ),
        ("visibility=private", vec!["n5", "n3", "n1"]),
    ] {
        let mut next = Some(format!("{ROOT}?limit=2&{query}"));
        let mut seen = Vec::new();
        while let Some(target) = next {
            let page = h.get(ADMIN, &target).await;
            assert_eq!(page.status, 200, "{}", page.text());
            assert!(names(&page).len() <= 2);
            seen.extend(names(&page));
            next = page.json()["next"].as_str().map(str::to_owned);
        }
        assert_eq!(seen, want, "{query}");
    }
    for bad in [
        "limit=-1",
        "limit=x",
        "sort_key=id",
        "sort_dir=up",
        "visibility=shared",
    ] {
        let reply = h.get(ADMIN, &format!("{ROOT}?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
    }
    assert_eq!(h.get(ADMIN, &format!("{ROOT}?marker=n9")).await.status, 404);
    assert_eq!(
        names(&h.get(ADMIN, &format!("{ROOT}?limit=0")).await),
        [""; 0]
    );
}

#[tokio::test]
async fn namespaces_are_found_by_resource_type() {
    let h = House::build().await;
    for (name, types) in [
        ("a", vec!["T::1", "T::2"]),
        ("b", vec!["T::2"]),
        ("c", vec![]),
    ] {
        let types: Vec<_> = types.iter().map(|t| json!({"name": t})).collect();
        make(&h, name, json!({"resource_type_associations": types})).await;
    }
    for (filter, want) in [
        ("T::1", vec!["a"]),
        ("T::2", vec!["b", "a"]),
        ("T::1,T::2", vec!["b", "a"]),
        ("T::3", vec![]),
    ] {
        let reply = h
            .get(READER, &format!("{ROOT}?resource_types={filter}"))
            .await;
        assert_eq!(names(&reply), want, "{filter}");
    }
    let types = h.get(READER, "/v2/metadefs/resource_types").await.json();
    let types = types["resource_types"].as_array().unwrap().iter();
    let types: Vec<_> = types.map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(types[6..], ["T::1", "T::2"]);
}

#[tokio::test]
async fn a_prefix_is_put_on_and_taken_off() {
    let h = House::build().await;
    let at = make(&h, "N", whole()).await;
    let get = async |path: &str| h.get(READER, &format!("{at}{path}")).await;
    let shown = get("?resource_type=OS::Nova::Flavor").await.json();
    assert!(shown["properties"]["hw:p"].is_object(), "{shown}");
    assert_eq!(get("?resource_type=OS::Other").await.status, 404);
    let property = get("/properties/hw:p?resource_type=OS::Nova::Flavor").await;
    assert_eq!(property.json()["name"], "p");
    for missing in [
        "/properties/p?resource_type=OS::Nova::Flavor",
        "/properties/hw:p?resource_type=OS::Other",
        "/properties/hw:p",
    ] {
        assert_eq!(get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn tags_are_replaced_or_added_to() {
    let h = House::build().await;
    let at = make(&h, "N", whole()).await;
    let tags = format!("{at}/tags");
    let post = async |names: &[&str], append: &str| {
        let items: Vec<_> = names.iter().map(|n| json!({"name": n})).collect();
        let body = json!({"tags": items}).to_string().into_bytes();
        let headers = [("X-Openstack-Append", append)];
        h.send(ADMIN, "POST", &tags, &headers, Some(body))
            .await
            .status
    };
    let listed = async |query: &str| {
        let body = h.get(READER, &format!("{tags}{query}")).await.json();
        let tags = body["tags"].as_array().unwrap().iter();
        let tags: Vec<_> = tags
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect();
        tags.join(" ")
    };
    assert_eq!(post(&["a", "b"], "").await, 201);
    assert_eq!(listed("").await, "b a");
    assert_eq!(post(&["c", "d"], "True").await, 201);
    assert_eq!(listed("").await, "d c b a");
    assert_eq!(post(&["e", "a"], "true").await, 409);
    assert_eq!(post(&["x", "x"], "").await, 409);
    assert_eq!(listed("?sort_key=name&sort_dir=asc").await, "a b c d");
    assert_eq!(listed("?limit=2&marker=c").await, "b a");
    assert_eq!(listed("?limit=1&marker=c").await, "b");
    assert_eq!(h.get(READER, &format!("{tags}?marker=x")).await.status, 404);
}

#[tokio::test]
async fn renaming_keeps_what_is_inside_and_clashes_are_refused() {
    let h = House::build().await;
    let at = make(&h, "N", whole()).await;
    make(&h, "M", json!({})).await;
    let put = async |to: &str| send(&h, ADMIN, "PUT", &at, Some(json!({"namespace": to}))).await;
    assert_eq!(put("M").await.status, 409);
    let renamed = put("Z").await;
    assert_eq!(renamed.json()["self"], format!("{ROOT}/Z"));
    assert_eq!(renamed.json()["visibility"], "private", "as if made anew");
    assert_eq!(h.get(ADMIN, &at).await.status, 404);
    let at = format!("{ROOT}/Z");
    assert!(h.get(ADMIN, &at).await.json()["properties"]["p"].is_object());
    for (kind, body) in [
        ("objects", json!({"name": "b"})),
        (
            "properties",
            json!({"name": "b", "title": "B", "type": "string"}),
        ),
    ] {
        let target = format!("{at}/{kind}");
        assert_eq!(
            send(&h, ADMIN, "POST", &target, Some(body.clone()))
                .await
                .status,
            201
        );
        let first = if kind == "objects" { "o" } else { "p" };
        let clash = send(&h, ADMIN, "PUT", &format!("{target}/{first}"), Some(body)).await;
        assert_eq!(clash.status, 409, "{kind}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_and_leave_nothing() {
    let h = House::build().await;
    let long = "x".repeat(81);
    for (body, status) in [
        (json!([]), 400),
        (json!({"namespace": ""}), 400),
        (json!({"namespace": long}), 400),
        (json!({"namespace": "n", "visibility": "shared"}), 400),
        (json!({"namespace": "n", "color": "red"}), 400),
        (json!({"namespace": "n", "self": "x"}), 403),
        (
            json!({"namespace": "n", "created_at": "2026-01-01T00:00:00Z"}),
            403,
        ),
        (
            json!({"namespace": "n", "tags": [{"name": "a"}, {"name": "a"}]}),
            409,
        ),
        (
            json!({"namespace": "n", "objects": [{"name": "a"}, {"name": "a"}]}),
            409,
        ),
        (
            json!({"namespace": "n", "properties": {"a": {"title": "A", "type": "colour"}}}),
            400,
        ),
        (
            json!({"namespace": "n", "properties": {
                "a": {"title": "A", "type": "string", "colour": "red"},
            }}),
            400,
        ),
    ] {
        let reply = send(&h, ADMIN, "POST", ROOT, Some(body.clone())).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
    }
    assert_eq!(names(&h.get(ADMIN, ROOT).await), [""; 0]);
}
