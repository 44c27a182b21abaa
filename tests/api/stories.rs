//! What the golden samples do not show.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use glint::config::ProtectedBy;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::house::{ADMIN, House, MEMBER, READER, STRANGER};

const V21: (&str, &str) = (
    "Content-Type",
    "application/openstack-images-v2.1-json-patch",
);

async fn house() -> House {
    House::build().await
}

async fn patch(h: &House, token: &str, id: &str, body: Value) -> u16 {
    let target = format!("/v2/images/{id}");
    let body = body.to_string().into_bytes();
    let reply = h.send(token, "PATCH", &target, &[V21], Some(body)).await;
    reply.status.as_u16()
}

#[tokio::test]
async fn errors_come_as_the_client_accepts_them() {
    let h = house().await;
    for (accept, kind, start) in [
        (
            "text/plain",
            "text/plain; charset=UTF-8",
            "404 Not Found\n\n",
        ),
        ("application/json", "application/json", "{\"message\": "),
        ("text/html", "text/html; charset=UTF-8", "<html>"),
    ] {
        let headers = [("Accept", accept)];
        let reply = h
            .send(MEMBER, "GET", "/v2/images/none", &headers, None)
            .await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.header("content-type"), Some(kind));
        assert!(reply.text().starts_with(start), "{}", reply.text());
    }
}

#[tokio::test]
async fn odd_requests_are_refused_by_the_right_status() {
    let h = house().await;
    let id = h.create(MEMBER, &json!({})).await;
    let image = format!("/v2/images/{id}");
    let body = || Some(b"x".to_vec());
    let long = "x".repeat(65);
    for (method, target, headers, body, status) in [
        ("BREW", image.as_str(), vec![], None, 501),
        ("GET", &image, vec![], body(), 400),
        ("DELETE", &image, vec![], body(), 400),
        ("PUT", &format!("{image}/tags/t"), vec![], body(), 400),
        (
            "POST",
            &format!("{image}/actions/deactivate"),
            vec![("Transfer-Encoding", "chunked")],
            body(),
            400,
        ),
        ("GET", "/v2/images", vec![], body(), 200),
        ("GET", "/v2/images/%ff", vec![], None, 400),
        (
            "GET",
            "/v2/images",
            vec![("X-Openstack-Request-Id", long.as_str())],
            None,
            431,
        ),
        ("GET", "/v2", vec![], None, 404),
        ("GET", "/v2.9/images", vec![], None, 200),
        ("GET", "/v2.99/images", vec![], None, 300),
        ("OPTIONS", "/v2/images", vec![], None, 200),
        (
            "PUT",
            &format!("{image}/file"),
            vec![
                ("Content-Type", "application/octet-stream"),
                ("X-Openstack-Image-Size", "many"),
            ],
            body(),
            400,
        ),
    ] {
        let reply = h.send(MEMBER, method, target, &headers, body).await;
        assert_eq!(reply.status, status, "{method} {target} {headers:?}");
    }
}

#[tokio::test]
async fn json_bodies_are_bounded() {
    let h = house().await;
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(500), "]".repeat(500));
    let large = json!({"name": "n".repeat(2 << 20)}).to_string();
    let key = json!({"k".repeat(256): "v"}).to_string();
    let value = json!({"k": "v".repeat(65_536)}).to_string();
    for (body, status) in [(deep, 400), (large, 413), (key, 400), (value, 400)] {
        let reply = h
            .send(MEMBER, "POST", "/v2/images", &[], Some(body.into_bytes()))
            .await;
        assert_eq!(reply.status, status, "{}", &reply.text()[..200]);
    }
    let none = h.get(MEMBER, "/v2/images").await.json();
    assert_eq!(none["images"], json!([]));
}

#[tokio::test]
async fn a_patch_is_all_or_nothing() {
    let h = house().await;
    let id = h.create(MEMBER, &json!({"name": "before", "k": "v"})).await;
    let status = patch(
        &h,
        MEMBER,
        &id,
        json!([
            {"op": "replace", "path": "/name", "value": "after"},
            {"op": "remove", "path": "/k"},
            {"op": "remove", "path": "/k"},
        ]),
    )
    .await;
    assert_eq!(status, 409);
    let image = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(
        (&image["name"], &image["k"]),
        (&json!("before"), &json!("v"))
    );
}

#[tokio::test]
async fn names_outside_the_basic_plane_are_refused_everywhere() {
    let h = house().await;
    let id = h.create(MEMBER, &json!({})).await;
    for change in [
        json!([{"op": "replace", "path": "/name", "value": "\u{1f600}"}]),
        json!([{"op": "add", "path": "/k", "value": "\u{1f600}"}]),
        json!([{"op": "add", "path": "/\u{1f600}", "value": "v"}]),
        json!([{"op": "replace", "path": "/tags", "value": ["\u{1f600}"]}]),
    ] {
        assert_eq!(
            patch(&h, MEMBER, &id, change.clone()).await,
            400,
            "{change}"
        );
    }
    let tag = format!("/v2/images/{id}/tags/%F0%9F%98%80");
    assert_eq!(h.send(MEMBER, "PUT", &tag, &[], None).await.status, 400);
}

#[tokio::test]
async fn readers_look_and_do_not_touch() {
    let h = house().await;
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let image = format!("/v2/images/{id}");
    assert_eq!(h.get(READER, &image).await.status, 200);
    assert_eq!(h.upload(READER, &id, b"data").await.status, 403);
    assert_eq!(h.upload(MEMBER, &id, b"data").await.status, 204);
    assert_eq!(h.get(READER, &format!("{image}/file")).await.status, 403);
    let deleted = h.send(READER, "DELETE", &image, &[], None).await;
    assert_eq!(deleted.status, 403);
    let changed = patch(&h, READER, &id, json!([])).await;
    assert_eq!(changed, 403);
}

#[tokio::test]
async fn a_private_image_is_no_marker_for_strangers() {
    let h = house().await;
    let id = h.create(MEMBER, &json!({"visibility": "private"})).await;
    let target = format!("/v2/images?marker={id}");
    assert_eq!(h.get(MEMBER, &target).await.status, 200);
    let reply = h.get(STRANGER, &target).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("No image found with ID"));
}

#[tokio::test]
async fn pages_are_walked_by_their_next_links() {
    let h = house().await;
    for n in 0..7 {
        let body = json!({"name": format!("n{n}"), "tags": ["a", "b"]});
        h.create(MEMBER, &body).await;
        let body = json!({"name": "other", "tags": ["b"]});
        h.create(MEMBER, &body).await;
    }
    let mut target = "/v2/images?tag=a&tag=b&sort=name:asc&limit=3".to_owned();
    let mut names = Vec::new();
    loop {
        let page = h.get(MEMBER, &target).await.json();
        for image in page["images"].as_array().unwrap() {
            names.push(image["name"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => target = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
}

#[tokio::test]
async fn queries_of_any_size_are_answered() {
    let h = house().await;
    let many = |part: &str, n: usize| vec![part; n].join("&");
    for (query, status) in [
        (many("tag=t", 150), 200),
        (many("tag=t", 5000), 400),
        (format!("name=in:{}", vec!["a"; 1500].join(",")), 200),
        (format!("name=in:{}", vec!["a"; 5000].join(",")), 400),
    ] {
        let reply = h.get(MEMBER, &format!("/v2/images?{query}")).await;
        assert_eq!(reply.status, status, "{}", &query[..20]);
    }
}

#[tokio::test]
async fn what_is_downloaded_is_what_was_uploaded() {
    let h = house().await;
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let data: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let reply = h.upload(MEMBER, &id, &data).await;
    assert_eq!(reply.status, 204, "{}", reply.text());

    let file = format!("/v2/images/{id}/file");
    let whole = h.get(MEMBER, &file).await;
    assert_eq!(whole.header("content-length"), Some("300000"));
    assert!(whole.body == data);
    for (range, want) in [
        ("bytes=0-0", 0..1),
        ("bytes=65535-131073", 65_535..131_074),
        ("bytes=299999-400000", 299_999..300_000),
        ("bytes=-7", 299_993..300_000),
    ] {
        let headers = [("Range", range)];
        let part = h.send(MEMBER, "GET", &file, &headers, None).await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == data[want], "{range}");
    }
}

#[tokio::test]
async fn a_task_names_the_request_that_made_it() {
    let h = house().await;
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    let image = format!("/v2/images/{id}");
    let octets = [("Content-Type", "application/octet-stream")];
    let staged = h
        .send(
            MEMBER,
            "PUT",
            &format!("{image}/stage"),
            &octets,
            Some(b"x".to_vec()),
        )
        .await;
    assert_eq!(staged.status, 204, "{}", staged.text());
    let body = br#"{"method": {"name": "glance-direct"}, "all_stores": true}"#;
    let import = format!("{image}/import");
    let reply = h
        .send(MEMBER, "POST", &import, &[], Some(body.to_vec()))
        .await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    h.settled(&id).await;
    let tasks = h.get(MEMBER, &format!("{image}/tasks")).await.json();
    let task = &tasks["tasks"][0];
    assert_eq!(
        task["request_id"].as_str(),
        reply.header("x-openstack-request-id")
    );
    assert_eq!(task["input"]["import_req"]["all_stores"], true);
    let image = h.get(ADMIN, &image).await.json();
    assert_eq!(
        image["stores"], "store1,store2",
        "read-only stores are left out"
    );
}

/// The router on a real port, until told to stop.
async fn listen(h: &House, head_timeout: Duration) -> (SocketAddr, watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, mut stopped) = watch::channel(false);
    let stopped = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let router = h.router.clone();
    tokio::spawn(glint::api::serve(listener, router, head_timeout, stopped));
    (address, stop)
}

/// A head that trickles in holds a connection for a while, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off() {
    let h = house().await;
    let (address, stop) = listen(&h, Duration::from_secs(1)).await;
    let client = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        socket
            .write_all(b"GET /v2/images HTTP/1.1\r\nHost: ")
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = client.await.unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
    stop.send_replace(true);
}

/// A client that sends everything before it looks at the answer, as most do.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let h = house().await;
    let id = h.create(MEMBER, &json!({})).await;
    let (address, stop) = listen(&h, Duration::from_secs(75)).await;

    let client = tokio::task::spawn_blocking(move || {
        let mut answers = Vec::new();
        let size: usize = 32 << 20;
        // Refused at once by its media type, and by the image's missing formats.
        for kind in ["text/plain", "application/octet-stream"] {
            let mut socket = TcpStream::connect(address).unwrap();
            let patience = Some(Duration::from_secs(30));
            socket.set_read_timeout(patience).unwrap();
            socket.set_write_timeout(patience).unwrap();
            let head = format!(
                "PUT /v2/images/{id}/file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 X-Auth-Token: {MEMBER}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).unwrap();
            socket.write_all(&vec![0; size]).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answers.push(answer);
        }
        answers
    });
    let answers = client.await.unwrap();
    assert!(answers[0].starts_with("HTTP/1.1 415 "), "{}", answers[0]);
    assert!(answers[0].contains("Invalid content type text/plain"));
    assert!(answers[1].starts_with("HTTP/1.1 400 "), "{}", answers[1]);
    stop.send_replace(true);
}

/// Reason phrases are the reference's on a real connection too.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_a_body_and_old_reason_phrases() {
    let h = house().await;
    let body = json!({"disk_format": "raw", "container_format": "bare"});
    let id = h.create(MEMBER, &body).await;
    h.upload(MEMBER, &id, b"12345").await;
    let (address, stop) = listen(&h, Duration::from_secs(75)).await;
    let ask = move |line: &str, more: &str| {
        let mut socket = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Auth-Token: {MEMBER}\r\n{more}\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let answers = tokio::task::spawn_blocking(move || {
        let file = format!("/v2/images/{id}/file");
        [
            ask(&format!("GET {file}"), "Range: bytes=9-\r\n"),
            ask("HEAD /", ""),
            ask(&format!("HEAD {file}"), ""),
        ]
    });
    let [range, root, head] = answers.await.unwrap();
    assert!(
        range.starts_with("HTTP/1.1 416 Request Range Not Satisfiable\r\n"),
        "{range}"
    );
    assert!(root.starts_with("HTTP/1.1 300 "), "{root}");
    assert!(root.ends_with("\r\n\r\n"), "{root}");
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(
        head.to_lowercase().contains("allow: get, put\r\n"),
        "{head}"
    );
    stop.send_replace(true);
}

#[tokio::test]
async fn a_deleted_image_waits_for_the_scrubber_where_deletion_is_delayed() {
    use glint::catalog::images;
    use glint::domain::Timestamp;
    let h = House::with(|config| {
        config.delete.delayed = true;
        config.delete.scrub_after = 3600;
    })
    .await;
    let body = json!({"disk_format": "raw", "container_format": "bare", "tags": ["t"]});
    let id = h.create(MEMBER, &body).await;
    let empty = h.create(MEMBER, &json!({})).await;
    assert_eq!(h.upload(MEMBER, &id, b"data").await.status, 204);
    let blobs = || {
        std::fs::read_dir(h.svc.config.data_dir.join("store1"))
            .unwrap()
            .count()
    };
    for id in [&id, &empty] {
        let image = format!("/v2/images/{id}");
        assert_eq!(
            h.send(MEMBER, "DELETE", &image, &[], None).await.status,
            204
        );
        assert_eq!(h.get(ADMIN, &image).await.status, 404);
        let again = json!({"id": id}).to_string().into_bytes();
        let again = h.send(ADMIN, "POST", "/v2/images", &[], Some(again)).await;
        assert_eq!(again.status, 409);
    }
    assert_eq!(blobs(), 1, "its data is still there");

    // It can be taken back, with everything about it.
    let (taken_back, gone) = (id.parse().unwrap(), empty.parse().unwrap());
    let now = Timestamp::now();
    let mut tx = h.svc.catalog.write().await.unwrap();
    assert!(images::restore(&mut tx, &taken_back, now).await.unwrap());
    assert!(!images::restore(&mut tx, &gone, now).await.unwrap());
    tx.commit().await.unwrap();
    let image = format!("/v2/images/{id}");
    let shown = h.get(MEMBER, &image).await.json();
    assert_eq!(
        (&shown["status"], &shown["tags"]),
        (&json!("active"), &json!(["t"]))
    );
    let file = h.get(MEMBER, &format!("{image}/file")).await;
    assert_eq!(&file.body[..], b"data");

    // Or its time comes.
    assert_eq!(
        h.send(MEMBER, "DELETE", &image, &[], None).await.status,
        204
    );
    glint::jobs::clear_up(&h.svc, now.plus_seconds(3000))
        .await
        .unwrap();
    assert_eq!(blobs(), 1);
    glint::jobs::clear_up(&h.svc, now.plus_seconds(4000))
        .await
        .unwrap();
    assert_eq!(blobs(), 0);
    let mut tx = h.svc.catalog.write().await.unwrap();
    assert!(!images::restore(&mut tx, &taken_back, now).await.unwrap());
}

#[tokio::test]
async fn pages_of_allowed_origins_may_upload() {
    let origin = "https://horizon.example";
    let h = House::with(|config| config.cors.allowed_origins = vec![origin.into()]).await;
    let ask = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "PUT"),
        (
            "Access-Control-Request-Headers",
            "content-type, x-auth-token",
        ),
    ];
    let target = "/v2/images/none/file";
    let reply = h.send("", "OPTIONS", target, &ask, None).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    assert_eq!(reply.header("access-control-allow-methods"), Some("PUT"));
    let stranger = [("Origin", "https://evil.example"), ask[1]];
    let reply = h.send("", "OPTIONS", target, &stranger, None).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    // An error is no secret of ours either.
    let reply = h.send(MEMBER, "GET", target, &ask[..1], None).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
}

#[tokio::test]
async fn a_file_takes_the_service_out_of_service() {
    let flag = tempfile::NamedTempFile::new().unwrap();
    let path = flag.path().to_owned();
    let h = House::with(|config| config.api.healthcheck_disable_file = Some(path)).await;
    let reply = h.get("", "/healthcheck").await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (503, "DISABLED BY FILE")
    );
    drop(flag);
    let json = [("Accept", "application/json")];
    let reply = h.send("", "GET", "/healthcheck", &json, None).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["reasons"], json!(["OK"]));
}

#[tokio::test]
async fn the_openapi_document_names_every_route() {
    let h = house().await;
    let reply = h.get("", "/openapi.json").await;
    assert_eq!(reply.status, 200);
    let document = reply.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 50, "{}", paths.len());
    let mut ids = std::collections::BTreeSet::new();
    for (path, operations) in paths {
        // What it says is taken is taken: nothing is answered 405 but what never is.
        for (verb, operation) in operations.as_object().unwrap() {
            let target = path.replace(['{', '}'], "");
            let verb = verb.to_ascii_uppercase();
            let reply = h.send(ADMIN, &verb, &target, &[], None).await;
            let never = operation["responses"].as_object().unwrap().len() == 1;
            assert_eq!(reply.status == 405, never, "{verb} {path}");
            assert_ne!(reply.status, 500, "{verb} {path}");
            assert!(
                ids.insert(operation["operationId"].to_string()),
                "{verb} {path}"
            );
        }
    }
}

#[tokio::test]
async fn protected_properties_are_for_whom_a_policy_lets() {
    let dir = tempfile::tempdir().unwrap();
    let [rules, policies] = ["protections.conf", "policy.yaml"].map(|name| dir.path().join(name));
    let sections = "[^x_]\ncreate = billing\nread = @\nupdate = billing\ndelete = !\n\
                    [.*]\ncreate = @\nread = @\nupdate = @\ndelete = @\n";
    std::fs::write(&rules, sections).unwrap();
    std::fs::write(&policies, "billing: role:admin\n").unwrap();
    let h = House::with(|config| {
        config.api.property_protection_file = Some(rules);
        config.api.property_protection_rule_format = ProtectedBy::Policies;
        config.auth.policy_file = Some(policies);
    })
    .await;
    let refused = json!({"x_bill": "1"}).to_string().into_bytes();
    let reply = h
        .send(MEMBER, "POST", "/v2/images", &[], Some(refused))
        .await;
    assert_eq!(reply.status, 403);
    let id = h.create(ADMIN, &json!({"x_bill": "1"})).await;
    for (who, op, status) in [
        (MEMBER, "replace", 403),
        (ADMIN, "replace", 200),
        (ADMIN, "remove", 403),
    ] {
        let change = json!([{"op": op, "path": "/x_bill", "value": "2"}]);
        assert_eq!(patch(&h, who, &id, change).await, status, "{op}");
    }
    let seen = h.get(MEMBER, &format!("/v2/images/{id}")).await.json();
    assert_eq!(seen["x_bill"], "2");
}

#[tokio::test]
async fn protected_properties_are_for_some_roles() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules = "[^x_]\ncreate = admin\nread = admin\nupdate = admin\ndelete = admin\n\
                 [^y_]\ncreate = @\nread = @\nupdate = !\ndelete = !\n[.*]\n\
                 create = @\nread = @\nupdate = @\ndelete = @\n";
    std::fs::write(file.path(), rules).unwrap();
    let path = file.path().to_owned();
    let h = House::with(|config| config.api.property_protection_file = Some(path)).await;
    let refused = json!({"x_bill": "1"}).to_string().into_bytes();
    let reply = h
        .send(MEMBER, "POST", "/v2/images", &[], Some(refused))
        .await;
    assert_eq!(reply.status, 403);
    let body = json!({"x_bill": "1", "y_once": "1", "z": "1"});
    let id = h.create(ADMIN, &body).await;
    let target = format!("/v2/images/{id}");
    let seen = h.get(MEMBER, &target).await.json();
    assert!(seen.get("x_bill").is_none() && seen["y_once"] == "1");
    assert_eq!(h.get(ADMIN, &target).await.json()["x_bill"], "1");
    for (who, query, found) in [
        (MEMBER, "x_bill=1", 0),
        (MEMBER, "y_once=1", 1),
        (ADMIN, "x_bill=1", 1),
    ] {
        let list = h.get(who, &format!("/v2/images?{query}")).await.json();
        assert_eq!(list["images"].as_array().unwrap().len(), found, "{query}");
    }
    for (op, path, status) in [
        ("replace", "/x_bill", 409),
        ("add", "/x_bill", 403),
        ("remove", "/x_bill", 409),
        ("add", "/x_more", 403),
        ("replace", "/y_once", 403),
        ("remove", "/y_once", 403),
        ("add", "/y_more", 200),
        ("replace", "/z", 200),
        ("remove", "/z", 200),
        ("replace", "/name", 200),
    ] {
        let change = json!([{"op": op, "path": path, "value": "2"}]);
        assert_eq!(patch(&h, MEMBER, &id, change).await, status, "{op} {path}");
    }
    assert_eq!(h.get(ADMIN, &target).await.json()["x_bill"], "1");
}
