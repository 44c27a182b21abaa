//! Where our answers are not the reference's, on purpose.

use serde_json::{Value, json};

use crate::replay::THEIR_TINY;
use crate::sample::Answer;

/// A sample answered otherwise on purpose.
pub(crate) struct Ours {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// Turns the reference's answer into ours.
    pub(crate) answer: fn(&mut Answer),
}

/// Why stands beside each.
pub(crate) const OURS: &[Ours] = &[
    // Versions that are about the cache are advertised with one.
    ours("01-versions", "root without a version: 300", versions),
    ours("01-versions", "versions", versions),
    ours("01-versions", "versions with a trailing slash", versions),
    ours("01-versions", "unknown version", versions),
    ours("01-versions", "retired v1", versions),
    // A body of the wrong type is the client's fault, not ours.
    ours("02-create", "a json list", |answer| {
        answer.status = 400;
        answer.body = answer
            .body
            .replace("500 Internal Server Error", "400 Bad Request")
            .replace(
                "The server has either erred or is incapable of performing the requested operation.",
                "Request body must be a JSON object.",
            );
    }),
    // A refused upload leaves no checksum and no location behind.
    ours("04-upload", "the image after it (3)", |answer| {
        edit(answer, |image| {
            for key in ["checksum", "os_hash_algo", "os_hash_value"] {
                image[key] = Value::Null;
            }
            image.as_object_mut().unwrap().shift_remove("stores");
        });
    }),
    // Our file stores keep holes and know no chunk size.
    ours("12-stores", "stores in detail (admin)", |answer| {
        edit(answer, |body| {
            for store in body["stores"].as_array_mut().unwrap() {
                if store["type"] == "file" {
                    let dir = format!("/DATA/{}", store["id"].as_str().unwrap());
                    store["properties"] = json!({"data_dir": dir, "thin_provisioning": true});
                }
            }
        });
    }),
    // There is no cache, and its routes say so to whoever may ask.
    ours("18-cache", "list", no_cache),
    ours("18-cache", "queue", no_cache),
    ours("18-cache", "list after it", no_cache),
    ours("18-cache", "delete one", no_cache),
    ours("18-cache", "clear", no_cache),
    ours("18-cache", "clear the queue only", no_cache),
    // A vhd is converted like any other format.
    ours("20-import-plugins", "vhd", |answer| {
        edit(answer, imported);
    }),
    ours("20-import-plugins", "its tasks (10)", |answer| {
        edit(answer, |body| {
            let task = &mut body["tasks"][0];
            task["status"] = json!("success");
            task["message"] = json!("Copied 1 MiB");
            task["result"] = json!({"image_id": task["image_id"]});
        });
    }),
    // A disk that lacks its second half is none.
    ours("20-import-plugins", "qcow2 cut short", |answer| {
        edit(answer, |image| {
            let map = image.as_object_mut().unwrap();
            for gone in ["injected_by", "injected_two", "stores"] {
                map.shift_remove(gone);
            }
            for unknown in [
                "size",
                "virtual_size",
                "checksum",
                "os_hash_algo",
                "os_hash_value",
            ] {
                map[unknown] = Value::Null;
            }
            map["os_glance_failed_import"] = json!("store1");
            map["disk_format"] = json!("qcow2");
            map["status"] = json!("queued");
        });
    }),
    ours("20-import-plugins", "its tasks (12)", |answer| {
        says(
            answer,
            "Image content is not safe: is in use, but the file ends at 0xa8000: it was cut short \
             (qcow2: cluster, byte 0x140000, rule truncated)",
        );
        edit(answer, |body| {
            body["tasks"][0]["status"] = json!("failure");
            body["tasks"][0]["result"] = Value::Null;
        });
    }),
    // Tasks that failed say why.
    ours("20-import-plugins", "its tasks (3)", |answer| {
        let why = "container_format compressed cannot be converted to raw, which imports ask for";
        says(answer, why);
    }),
    ours("20-import-plugins", "its tasks (5)", |answer| {
        says(
            answer,
            "Image disk_format qcow2 does not match stream data raw",
        );
    }),
    ours("20-import-plugins", "its tasks (6)", |answer| {
        let why =
            "Image disk_format raw does not match stream data qcow2, which would be converted";
        says(answer, why);
    }),
    ours("20-import-plugins", "its tasks (7)", |answer| {
        says(
            answer,
            "Image content is not safe: depends on another file, \"/etc/passwd\": flatten it before \
             uploading (qcow2: header, byte 8, rule backing_file)",
        );
    }),
    ours("11-stage-import", "its tasks", |answer| {
        says(answer, "the source answered 404");
    }),
    // The capture forgot to put stand-ins for two ids here.
    ours("07-list", "id=in:", |answer| {
        answer.body = answer
            .body
            .replace(
                "1a3aa204-53be-4655-8d81-a9feb070b75c",
                "00000000-0000-4000-8000-000000000018",
            )
            .replace(
                "a2e5773a-d8b3-4af6-9a9d-b8c0b5cd0d94",
                "00000000-0000-4000-8000-000000000017",
            );
    }),
];

const fn ours(file: &'static str, title: &'static str, answer: fn(&mut Answer)) -> Ours {
    Ours {
        file,
        title,
        answer,
    }
}

fn edit(answer: &mut Answer, change: impl Fn(&mut Value)) {
    let mut body: Value = serde_json::from_str(&answer.body).unwrap();
    change(&mut body);
    answer.body = body.to_string();
}

/// An image of the capture's `tiny.raw`, imported through all plugins.
fn imported(image: &mut Value) {
    for (key, value) in [
        ("injected_by", json!("lab")),
        ("injected_two", json!("2")),
        ("os_glance_failed_import", json!("")),
        ("disk_format", json!("raw")),
        ("size", json!(1 << 20)),
        ("virtual_size", json!(1 << 20)),
        ("status", json!("active")),
        ("checksum", json!(THEIR_TINY[0])),
        ("os_hash_algo", json!("sha512")),
        ("os_hash_value", json!(THEIR_TINY[1])),
        ("stores", json!("store1")),
    ] {
        image[key] = value;
    }
    // Custom properties stand first.
    let map = image.as_object_mut().unwrap();
    let custom = |key: &str| key.starts_with("os_glance") || key.starts_with("injected");
    let (first, rest): (Vec<_>, Vec<_>) = std::mem::take(map)
        .into_iter()
        .partition(|(key, _)| custom(key));
    map.extend(first.into_iter().chain(rest));
}

/// The page of a reference whose cache is off.
fn no_cache(answer: &mut Answer) {
    answer.status = 404;
    answer.headers = None;
    answer.body = "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  \
                   <h1>404 Not Found</h1>\n  Caching via API is not supported at this site.\
                   <br /><br />\n\n\n\n </body>\n</html>"
        .into();
}

/// What the one task says in the end.
fn says(answer: &mut Answer, message: &str) {
    edit(answer, |body| {
        body["tasks"][0]["message"] = json!(message);
    });
}

fn versions(answer: &mut Answer) {
    edit(answer, |body| {
        let versions = body["versions"].as_array_mut().unwrap();
        versions.retain(|v| {
            let not_here = ["v2.18", "v2.16", "v2.14"];
            !not_here.contains(&v["id"].as_str().unwrap())
        });
        versions[0]["status"] = json!("CURRENT");
    });
}
