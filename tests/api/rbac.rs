//! Who may do what: the table of secure RBAC (`image-states.md` 9), asked cell by cell.
//!
//! What is asked belongs to project A. A cell says `yes`, or the status of the refusal: 404 for who
//! may not even see it, 403 for who may see it and not do this (`image-api.md` 1.5).

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::house::{
    ADMIN, ADMIN_OF_B, House, MEMBER, NOBODY, OTHER, PROJECT_B, PROJECT_C, READER, READER_OF_B,
    READER_OF_C, Reply, SERVICE, STRANGER, WITHOUT_ROLE, WITHOUT_ROLE_IN_B,
};

/// The columns: four people of A, four of B, two of C, which the image is shared with, and another
/// service. `none` is somebody whose role means nothing here.
const PEOPLE: [(&str, &str); 11] = [
    ("admin of A", ADMIN),
    ("member of A", MEMBER),
    ("reader of A", READER),
    ("none of A", WITHOUT_ROLE),
    ("admin of B", ADMIN_OF_B),
    ("member of B", STRANGER),
    ("reader of B", READER_OF_B),
    ("none of B", WITHOUT_ROLE_IN_B),
    ("member of C", OTHER),
    ("reader of C", READER_OF_C),
    ("service", SERVICE),
];

/// Images. `open` is community as well as public.
const IMAGES: &str = "
                          | A: admin member reader none | B: admin member reader none | C: member reader | service

# get_image
show tasks      : private |    yes   yes    yes    404  |    yes   404    404    404  |    404    404    | 404
show tasks      : shared  |    yes   yes    yes    404  |    yes   404    404    404  |    yes    yes    | 404
show tasks      : open    |    yes   yes    yes    404  |    yes   yes    yes    404  |    yes    yes    | yes

# modify_image
rename tag untag stage import web-import
                : private |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | 404
                : shared  |    yes   yes    403    404  |    yes   404    404    404  |    403    403    | 404
                : open    |    yes   yes    403    404  |    yes   403    403    404  |    403    403    | 403

# upload_image, delete_image, deactivate, reactivate
upload begin-upload delete deactivate reactivate
                : private |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | 404
                : shared  |    yes   yes    403    404  |    yes   404    404    404  |    403    403    | 404
                : open    |    yes   yes    403    404  |    yes   403    403    404  |    403    403    | 403

# communitize_image, set_image_location
communitize add-location-by-patch
                : private |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | 404
                : shared  |    yes   yes    403    404  |    yes   404    404    404  |    403    403    | 404
                : public  |    yes   yes    403    404  |    yes   403    403    404  |    403    403    | 403

# publicize_image, copy_image, delete_image_location
publicize copy remove-location delete-from-store
                : private |    yes   403    403    404  |    yes   404    404    404  |    404    404    | 404
                : shared  |    yes   403    403    404  |    yes   404    404    404  |    403    403    | 404
                : community |  yes   403    403    404  |    yes   403    403    404  |    403    403    | 403

# download_image, download_from_store
download download-converted download-from-store
                : private |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | 404
                : shared  |    yes   yes    403    404  |    yes   404    404    404  |    yes    403    | 404
                : open    |    yes   yes    403    404  |    yes   yes    403    404  |    yes    403    | 403

# get_image_location: whether an image that is shown tells where it lies
see-location    : private |    yes   yes    yes    404  |    yes   404    404    404  |    404    404    | 404
see-location    : shared  |    yes   yes    yes    404  |    yes   404    404    404  |    403    403    | 404
see-location    : open    |    yes   yes    yes    404  |    yes   403    403    404  |    403    403    | 403

# add_image_location: services act on images of all projects
add-location    : private |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | yes
add-location    : shared  |    yes   yes    403    404  |    yes   404    404    404  |    403    403    | yes
add-location    : open    |    yes   yes    403    404  |    yes   403    403    404  |    403    403    | yes

# fetch_image_location
list-locations  : private |    yes   403    403    404  |    yes   404    404    404  |    404    404    | yes
list-locations  : shared  |    yes   403    403    404  |    yes   404    404    404  |    403    403    | yes
list-locations  : open    |    yes   403    403    404  |    yes   403    403    404  |    403    403    | yes

# get_members, get_member
list-members show-member
                : shared  |    yes   yes    yes    404  |    yes   404    404    404  |    yes    yes    | 404

# add_member, delete_member
add-member delete-member
                : shared  |    yes   yes    403    404  |    yes   404    404    404  |    403    403    | 404

# modify_member: the member itself
accept          : shared  |    yes   403    403    404  |    yes   404    404    404  |    yes    403    | 404

# Only shared images have members.
list-members add-member accept delete-member
                : private |    403   403    403    404  |    403   404    404    404  |    404    404    | 404
                : open    |    403   403    403    404  |    403   403    403    404  |    403    403    | 403
";

/// What belongs to nobody, and lists, which leave out what is not for the caller.
const SERVICE_WIDE: &str = "
                          | A: admin member reader none | B: admin member reader none | C: member reader | service

# get_images, add_image, publicize_image, communitize_image
list-images     : own     |    yes   yes    yes    403  |    yes   yes    yes    403  |    yes    yes    | yes
create create-community
                : own     |    yes   yes    403    403  |    yes   yes    403    403  |    yes    403    | 403
create-for-b    : own     |    yes   403    403    403  |    yes   yes    403    403  |    403    403    | 403
create-public   : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | 403

# get_batches, add_batch, add_batch_files
list-batches    : own     |    yes   yes    yes    403  |    yes   yes    yes    403  |    yes    yes    | yes
create-batch    : own     |    yes   yes    403    403  |    yes   yes    403    403  |    yes    403    | 403
create-batch-of-files
                : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | 403

# get_batch, modify_batch, delete_batch, of a batch of A
show-batch      : own     |    yes   yes    yes    404  |    yes   404    404    404  |    404    404    | 404
cancel-batch retry-batch delete-batch
                : own     |    yes   yes    403    404  |    yes   404    404    404  |    404    404    | 404

# stores_info_detail, tasks_api_access with get_tasks, get_task, add_task
stores-detail   : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | yes
list-tasks show-task create-task
                : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | 403

# cache_list, cache_image, cache_delete, cache_clean, cache_prune, list_cached_nodes, manage_image_cache
list-cache queue-cache delete-cache clean-cache prune-cache cache-nodes cached-images
                : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | 403

# get_metadef_namespaces, list_metadef_resource_types, add_metadef_namespace
list-namespaces list-resource-types
                : own     |    yes   yes    yes    403  |    yes   yes    yes    403  |    yes    yes    | yes
create-namespace
                : own     |    yes   403    403    403  |    yes   403    403    403  |    403    403    | 403
";

/// Namespaces of metadata definitions and what is in them.
const METADEFS: &str = "
                          | A: admin member reader none | B: admin member reader none | C: member reader | service

# get_metadef_namespace, _objects, _object, _properties, _property, _tags, _tag, _resource_type
show list-objects show-object list-properties show-property list-tags show-tag list-associations
                : private |    yes   yes    yes    404  |    yes   404    404    404  |    404    404    | 404
                : public  |    yes   yes    yes    404  |    yes   yes    yes    404  |    yes    yes    | yes

# metadef_admin: modify_, delete_metadef_namespace; add_, modify_, delete_metadef_object; …_property; …_tag, …_tags;
# add_, remove_metadef_resource_type_association
modify delete
add-object modify-object delete-object delete-objects
add-property modify-property delete-property delete-properties
add-tag add-tags modify-tag delete-tag delete-tags
associate dissociate
                : private |    yes   403    403    404  |    yes   404    404    404  |    404    404    | 404
                : public  |    yes   403    403    404  |    yes   403    403    404  |    403    403    | 403
";

/// One line of cells: what is done, to what, and what each of the people is told.
struct Row<'t> {
    action: &'t str,
    of: &'t str,
    cells: Vec<&'t str>,
}

/// A row without actions is about those of the row above it.
fn rows(table: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut actions = Vec::new();
    let mut is_complete = true;
    for line in table.lines().skip(2).filter(|l| !l.starts_with('#')) {
        let (head, cells) = line.split_once('|').unwrap_or((line, ""));
        let (named, of) = head.split_once(':').unwrap_or((head, ""));
        let named: Vec<_> = named.split_whitespace().collect();
        if !named.is_empty() {
            if is_complete {
                actions.clear();
            }
            actions.extend(named);
            is_complete = false;
        }
        if of.is_empty() {
            continue;
        }
        is_complete = true;
        let of = match of.trim() {
            "open" => vec!["community", "public"],
            one => vec![one],
        };
        let cells: Vec<_> = cells.split_whitespace().filter(|c| *c != "|").collect();
        assert_eq!(cells.len(), PEOPLE.len(), "{line}");
        for (action, of) in actions
            .iter()
            .flat_map(|a| of.iter().map(move |of| (a, of)))
        {
            let cells = cells.clone();
            rows.push(Row { action, of, cells });
        }
    }
    rows
}

/// The answer a cell stands for, to a question that is answered with `success` where it is allowed.
fn expected(cell: &str, success: u16) -> u16 {
    match cell {
        "yes" => success,
        refusal => refusal.parse().unwrap(),
    }
}

/// A question: method, target, headers and body.
struct Question {
    method: &'static str,
    target: String,
    headers: &'static [(&'static str, &'static str)],
    body: Option<Vec<u8>>,
    success: u16,
}

fn ask(method: &'static str, target: impl Into<String>, success: u16) -> Question {
    Question {
        method,
        target: target.into(),
        headers: &[],
        body: None,
        success,
    }
}

impl Question {
    fn json(self, body: &Value) -> Self {
        let body = Some(body.to_string().into_bytes());
        let headers = match self.method {
            "PATCH" => &[(
                "Content-Type",
                "application/openstack-images-v2.1-json-patch",
            )],
            _ => &[("Content-Type", "application/json")],
        };
        Self {
            headers,
            body,
            ..self
        }
    }

    fn octets(self, body: Vec<u8>) -> Self {
        Self {
            headers: &[("Content-Type", "application/octet-stream")],
            body: Some(body),
            ..self
        }
    }

    async fn put_to(&self, h: &House, token: &str) -> Reply {
        let body = self.body.clone();
        h.send(token, self.method, &self.target, self.headers, body)
            .await
    }

    /// Puts it as the administrator, who must succeed.
    async fn done(&self, h: &House) -> Reply {
        let reply = self.put_to(h, ADMIN).await;
        let said = reply.text();
        assert_eq!(
            reply.status, self.success,
            "{} {}: {said}",
            self.method, self.target
        );
        reply
    }
}

async fn house() -> House {
    House::with(|config| {
        config.api.show_multiple_locations = true;
        config.batches.open = 100;
        config.import.methods.push("glance-download".into());
    })
    .await
}

// -- images ----------------------------------------------------------------------------------------

fn change(image: &str, op: &str, path: &str, value: impl Into<Value>) -> Question {
    let change = match op {
        "remove" => json!([{"op": op, "path": path}]),
        _ => json!([{"op": op, "path": path, "value": value.into()}]),
    };
    ask("PATCH", image, 200).json(&change)
}

fn of_image(h: &House, action: &str, id: &str) -> Question {
    let image = format!("/v2/images/{id}");
    let below = |rest: &str| format!("{image}/{rest}");
    let method = |body: Value| ask("POST", below("import"), 202).json(&body);
    let web = |name: &str| json!({"url": h.web.url(name), "metadata": {}});
    match action {
        "show" | "see-location" => ask("GET", image, 200),
        "tasks" => ask("GET", below("tasks"), 200),
        "rename" => change(&image, "replace", "/name", "new"),
        "communitize" => change(&image, "replace", "/visibility", "community"),
        "publicize" => change(&image, "replace", "/visibility", "public"),
        "add-location-by-patch" => change(&image, "add", "/locations/-", web("tiny.raw")),
        "remove-location" => change(&image, "remove", "/locations/0", Value::Null),
        "delete-from-store" => ask("DELETE", format!("/v2/stores/store1/{id}"), 204),
        "tag" => ask("PUT", below("tags/new"), 204),
        "untag" => ask("DELETE", below("tags/old"), 204),
        "begin-upload" => Question {
            headers: &[("Tus-Resumable", "1.0.0"), ("Upload-Length", "17")],
            ..ask("POST", below("upload"), 201)
        },
        "upload" => ask("PUT", below("file"), 204).octets(b"what a disk holds".to_vec()),
        "stage" => ask("PUT", below("stage"), 204).octets(b"what a disk holds".to_vec()),
        "import" => method(json!({"method": {"name": "glance-direct"}})),
        "web-import" => {
            method(json!({"method": {"name": "web-download", "uri": h.web.url("tiny.raw")}}))
        }
        "copy" => method(json!({"method": {"name": "copy-image"}, "stores": ["store2"]})),
        "delete" => ask("DELETE", image, 204),
        "deactivate" => ask("POST", below("actions/deactivate"), 204),
        "reactivate" => ask("POST", below("actions/reactivate"), 204),
        "download" => ask("GET", below("file"), 200),
        "download-converted" => ask("GET", below("file?disk_format=qcow2"), 200),
        "download-from-store" => ask("GET", below("file?prefer=store1"), 200),
        "add-location" => ask("POST", below("locations"), 202).json(&web("tiny.raw")),
        "list-locations" => ask("GET", below("locations"), 200),
        "list-members" => ask("GET", below("members"), 200),
        "show-member" => ask("GET", below(&format!("members/{PROJECT_C}")), 200),
        "add-member" => ask("POST", below("members"), 200).json(&json!({"member": "new"})),
        "delete-member" => ask("DELETE", below(&format!("members/{PROJECT_C}")), 204),
        "accept" => {
            let status = json!({"status": "accepted"});
            ask("PUT", below(&format!("members/{PROJECT_C}")), 200).json(&status)
        }
        other => panic!("{other} is nothing that is done to an image"),
    }
}

/// A new image of project A, shared with C before it becomes what it is, in the state that `action`
/// needs.
async fn image_for(h: &House, action: &str, visibility: &str) -> String {
    let body = json!({"disk_format": "raw", "container_format": "bare", "tags": ["old"]});
    let id = h.create(ADMIN, &body).await;
    let image = format!("/v2/images/{id}");
    let share = ask("POST", format!("{image}/members"), 200);
    share.json(&json!({"member": PROJECT_C})).done(h).await;
    let into = change(&image, "replace", "/visibility", visibility);
    into.done(h).await;
    match action {
        "upload"
        | "begin-upload"
        | "stage"
        | "web-import"
        | "add-location"
        | "add-location-by-patch" => {}
        "import" => drop(of_image(h, "stage", &id).done(h).await),
        "remove-location" | "delete-from-store" => {
            of_image(h, "upload", &id).done(h).await;
            of_image(h, "copy", &id).done(h).await;
            h.settled(&id).await;
        }
        "reactivate" => {
            of_image(h, "upload", &id).done(h).await;
            of_image(h, "deactivate", &id).done(h).await;
        }
        _ => drop(of_image(h, "upload", &id).done(h).await),
    }
    id
}

/// What the caller is told: of `see-location` whether the image says where it lies.
fn told(action: &str, reply: &Reply) -> u16 {
    match reply.status.as_u16() {
        200 if action == "see-location" && reply.json().get("locations").is_none() => 403,
        200 if action == "see-location" && reply.json()["locations"] == json!([]) => 403,
        status => status,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_table_of_images() {
    let h = house().await;
    let mut wrong = Vec::new();
    for Row { action, of, cells } in rows(IMAGES) {
        // Who is refused changes nothing, so the next one is asked of the same image.
        let mut id = image_for(&h, action, of).await;
        for ((who, token), cell) in PEOPLE.iter().zip(cells) {
            let question = of_image(&h, action, &id);
            let wanted = expected(cell, question.success);
            let reply = question.put_to(&h, token).await;
            let got = told(action, &reply);
            if got != wanted {
                wrong.push(format!("{action} of {of}, {who}: {got}, not {wanted}"));
            }
            if reply.status.is_success() && question.method != "GET" {
                id = image_for(&h, action, of).await;
            }
        }
        let nobody = of_image(&h, action, &id).put_to(&h, NOBODY).await;
        assert_eq!(nobody.status, 401, "{action} without a token");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// -- what belongs to nobody ------------------------------------------------------------------------

fn service_wide(h: &House, action: &str, image: &str, task: &str, batch: &str) -> Question {
    let create = |body: Value| ask("POST", "/v2/images", 201).json(&body);
    let create_batch = |source: Value, status| {
        ask("POST", "/v2/batches", status).json(&json!({"sources": [source]}))
    };
    let of_batch = |method, action: &str, status| {
        let target = format!("/v2/batches/{batch}{action}");
        ask(method, target, status)
    };
    match action {
        "list-images" => ask("GET", "/v2/images", 200),
        "create" => create(json!({})),
        "create-for-b" => create(json!({"owner": PROJECT_B})),
        "create-public" => create(json!({"visibility": "public"})),
        "create-community" => create(json!({"visibility": "community"})),
        "stores-detail" => ask("GET", "/v2/info/stores/detail", 200),
        "list-batches" => ask("GET", "/v2/batches", 200),
        "create-batch" => create_batch(json!(h.web.url("tiny.raw")), 202),
        // Who may name files is told that there is no such one.
        "create-batch-of-files" => create_batch(json!({"file": "/nowhere"}), 400),
        "show-batch" => of_batch("GET", "", 200),
        // It has ended, and well, which is told to who may ask.
        "cancel-batch" => of_batch("POST", "/cancel", 409),
        "retry-batch" => of_batch("POST", "/retry", 409),
        "delete-batch" => of_batch("DELETE", "", 204),
        "list-tasks" => ask("GET", "/v2/tasks", 200),
        "show-task" => ask("GET", format!("/v2/tasks/{task}"), 200),
        "create-task" => {
            let input = json!({"import_from": h.web.url("tiny.raw"), "import_from_format": "raw",
                               "image_properties": {}});
            let task = json!({"type": "import", "input": input});
            ask("POST", "/v2/tasks", 201).json(&task)
        }
        // There is no cache here, which is told to who may ask.
        "list-cache" => ask("GET", "/v2/cache", 404),
        "queue-cache" => ask("PUT", format!("/v2/cache/{image}"), 404),
        "delete-cache" => ask("DELETE", format!("/v2/cache/{image}"), 404),
        "clean-cache" => ask("POST", "/v2/cache/clean", 404),
        "prune-cache" => ask("POST", "/v2/cache/prune", 404),
        "cache-nodes" => ask("GET", format!("/v2/cache/nodes/{image}"), 404),
        "cached-images" => ask("GET", "/v2/cached_images", 404),
        "list-namespaces" => ask("GET", "/v2/metadefs/namespaces", 200),
        "list-resource-types" => ask("GET", "/v2/metadefs/resource_types", 200),
        "create-namespace" => {
            let name = uuid::Uuid::new_v4().to_string();
            ask("POST", "/v2/metadefs/namespaces", 201).json(&json!({"namespace": name}))
        }
        other => panic!("{other} is nothing that is asked of the service"),
    }
}

/// A new batch of project A that has ended.
async fn ended_batch(h: &House) -> String {
    let made = service_wide(h, "create-batch", "", "", "").done(h).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/v2/batches/{id}");
    h.until(&target, |batch| batch["status"] == "done").await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_table_of_what_belongs_to_nobody() {
    let h = house().await;
    let image = image_for(&h, "show", "public").await;
    let made = service_wide(&h, "create-task", &image, "", "")
        .done(&h)
        .await;
    let task = made.json()["id"].as_str().unwrap().to_owned();
    let mut wrong = Vec::new();
    let mut batch = ended_batch(&h).await;
    for Row { action, cells, .. } in rows(SERVICE_WIDE) {
        for ((who, token), cell) in PEOPLE.iter().zip(cells) {
            let question = service_wide(&h, action, &image, &task, &batch);
            let wanted = expected(cell, question.success);
            let got = question.put_to(&h, token).await.status;
            if action == "delete-batch" && got.is_success() {
                batch = ended_batch(&h).await;
            }
            if got != wanted {
                wrong.push(format!("{action}, {who}: {got}, not {wanted}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// -- metadata definitions --------------------------------------------------------------------------

fn of_namespace(action: &str, name: &str, visibility: &str) -> Question {
    let at = format!("/v2/metadefs/namespaces/{name}");
    let below = |rest: &str| format!("{at}/{rest}");
    let named = |name: &str| json!({"name": name, "title": "T", "type": "string"});
    match action {
        "show" => ask("GET", at, 200),
        "modify" => {
            let body = json!({"namespace": name, "visibility": visibility, "description": "new"});
            ask("PUT", at, 200).json(&body)
        }
        "delete" => ask("DELETE", at, 204),
        "list-objects" => ask("GET", below("objects"), 200),
        "show-object" => ask("GET", below("objects/old"), 200),
        "add-object" => ask("POST", below("objects"), 201).json(&json!({"name": "new"})),
        "modify-object" => ask("PUT", below("objects/old"), 200).json(&json!({"name": "old"})),
        "delete-object" => ask("DELETE", below("objects/old"), 204),
        "delete-objects" => ask("DELETE", below("objects"), 204),
        "list-properties" => ask("GET", below("properties"), 200),
        "show-property" => ask("GET", below("properties/old"), 200),
        "add-property" => ask("POST", below("properties"), 201).json(&named("new")),
        "modify-property" => ask("PUT", below("properties/old"), 200).json(&named("old")),
        "delete-property" => ask("DELETE", below("properties/old"), 204),
        "delete-properties" => ask("DELETE", below("properties"), 204),
        "list-tags" => ask("GET", below("tags"), 200),
        "show-tag" => ask("GET", below("tags/old"), 200),
        "add-tag" => ask("POST", below("tags/new"), 201),
        "add-tags" => ask("POST", below("tags"), 201).json(&json!({"tags": [{"name": "new"}]})),
        "modify-tag" => ask("PUT", below("tags/old"), 200).json(&json!({"name": "newer"})),
        "delete-tag" => ask("DELETE", below("tags/old"), 204),
        "delete-tags" => ask("DELETE", below("tags"), 204),
        "list-associations" => ask("GET", below("resource_types"), 200),
        "associate" => ask("POST", below("resource_types"), 201).json(&json!({"name": "new"})),
        "dissociate" => ask("DELETE", below("resource_types/old"), 204),
        other => panic!("{other} is nothing that is done to a namespace"),
    }
}

/// A new namespace of project A with one of everything in it.
async fn namespace(h: &House, visibility: &str) -> String {
    let name = uuid::Uuid::new_v4().to_string();
    let body = json!({
        "namespace": name, "visibility": visibility,
        "objects": [{"name": "old"}],
        "properties": {"old": {"title": "T", "type": "string"}},
        "tags": [{"name": "old"}],
        "resource_type_associations": [{"name": "old"}],
    });
    let create = ask("POST", "/v2/metadefs/namespaces", 201);
    create.json(&body).done(h).await;
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_table_of_metadata_definitions() {
    let h = house().await;
    let mut wrong = Vec::new();
    let mut names = HashMap::new();
    for Row { action, of, cells } in rows(METADEFS) {
        for ((who, token), cell) in PEOPLE.iter().zip(cells) {
            let name = match names.remove(of) {
                Some(name) => name,
                None => namespace(&h, of).await,
            };
            let question = of_namespace(action, &name, of);
            let wanted = expected(cell, question.success);
            let got = question.put_to(&h, token).await.status;
            if got != wanted {
                wrong.push(format!("{action} of {of}, {who}: {got}, not {wanted}"));
            }
            if question.method == "GET" || !got.is_success() {
                names.insert(of, name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
