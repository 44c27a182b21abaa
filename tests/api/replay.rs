//! Replays the golden samples, in order, on one service: ids, times and request ids are stand-ins
//! in them, everything else must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::house::{ADMIN, House, MEMBER, NOBODY, READER, Reply, STRANGER};
use crate::ours::{NOT_YET, OURS};
use crate::sample::{self, Sample};

/// Headers that are compared; what else a server sends is its own matter.
const HEADERS: [&str; 9] = [
    "content-type",
    "allow",
    "accept-patch",
    "location",
    "content-range",
    "content-md5",
    "openstack-image-import-methods",
    "openstack-image-store-ids",
    "www-authenticate",
];

#[tokio::test(flavor = "multi_thread")]
async fn golden_samples_are_answered_as_the_reference_answers() {
    let mut replay = Replay {
        house: House::build().await,
        ids: BTreeMap::new(),
    };
    let mut faults = Vec::new();
    let (mut same, mut ours, mut not_yet) = (0, 0, 0);
    let samples = sample::all();
    let mut file = String::new();
    for mut sample in samples.clone() {
        if file != sample.file {
            file.clone_from(&sample.file);
            replay.prepare(&file).await;
        }
        only_our_methods(&mut sample);
        let place = format!("{}: {}", sample.file, sample.title);
        let is = |f: &str, t: &str| sample.file == f && sample.title == t;
        let on_purpose = OURS.iter().find(|o| is(o.file, o.title));
        if let Some(ours) = on_purpose {
            (ours.answer)(&mut sample.answer);
        }
        let waits = NOT_YET.iter().find(|(f, t, _)| is(f, t));
        match (replay.play(&sample).await, waits) {
            (Ok(()), None) if on_purpose.is_some() => ours += 1,
            (Ok(()), None) => same += 1,
            (Err(_), Some(_)) => not_yet += 1,
            (Ok(()), Some(_)) => faults.push(format!("## {place}\nis right: take it off NOT_YET")),
            (Err(fault), None) => faults.push(format!("## {place}\n{fault}")),
        }
    }
    let there: BTreeSet<_> = samples.iter().map(|s| (&*s.file, &*s.title)).collect();
    let named = OURS.iter().map(|o| (o.file, o.title));
    for (file, title) in named.chain(NOT_YET.iter().map(|(f, t, _)| (*f, *t))) {
        if !there.contains(&(file, title)) {
            faults.push(format!("## {file}: {title}\nis listed, but no such sample"));
        }
    }
    eprintln!("golden samples: {same} the same, {ours} ours on purpose, {not_yet} not yet");
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n\n")
    );
}

/// The sample server imports in ways that are not offered here yet.
fn only_our_methods(sample: &mut Sample) {
    let list = "glance-direct,web-download,copy-image";
    for (_, value) in sample.answer.headers.iter_mut().flatten() {
        if value == list {
            *value = "glance-direct".into();
        }
    }
    sample.answer.body = sample.answer.body.replace(
        r#"["glance-direct", "web-download", "copy-image"]"#,
        r#"["glance-direct"]"#,
    );
}

struct Replay {
    house: House,
    /// Stand-ins of the samples, and the ids they stand for here.
    ids: BTreeMap<String, String>,
}

impl Replay {
    /// Makes what a file's samples presuppose without showing it.
    async fn prepare(&mut self, file: &str) {
        match file {
            "04-upload" => {
                for (n, name, disk) in [
                    (9, "beta", "raw"),
                    (10, "liar", "qcow2"),
                    (11, "truth", "qcow2"),
                    (12, "empty", "raw"),
                    (13, "sized", "raw"),
                ] {
                    self.make(n, name, json!({"disk_format": disk})).await;
                }
            }
            "07-list" => {
                for n in 1..=5 {
                    let more = json!({
                        "disk_format": "raw", "lst": "yes", "tags": ["tl", format!("t{n}")],
                    });
                    let id = self.make(19 - n, &format!("list-{n}"), more).await;
                    let data = "ddd".repeat(n);
                    let reply = self.house.upload(MEMBER, &id, data.as_bytes()).await;
                    assert_eq!(reply.status, 204, "{}", reply.text());
                }
            }
            "11-stage-import" => {
                for (n, name) in [(20, "imp"), (22, "web"), (23, "web404")] {
                    self.make(n, name, json!({"disk_format": "raw"})).await;
                }
            }
            "15-delete" => {
                self.make(27, "del", json!({"disk_format": "raw"})).await;
            }
            _ => {}
        }
    }

    async fn make(&mut self, n: usize, name: &str, more: Value) -> String {
        let mut body = json!({"name": name, "container_format": "bare"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let id = self.house.create(MEMBER, &body).await;
        let stand_in = format!("00000000-0000-4000-8000-{n:012}");
        self.ids.insert(stand_in, id.clone());
        id
    }

    fn to_real(&self, text: &str) -> String {
        let swap = |text: String, (a, b): (&String, &String)| text.replace(a, b);
        self.ids.iter().fold(text.to_owned(), swap)
    }

    fn to_stand_in(&self, text: &str) -> String {
        let swap = |text: String, (a, b): (&String, &String)| text.replace(b, a);
        let data = self.house.svc.config.data_dir.display().to_string();
        self.ids.iter().fold(text.replace(&data, "/DATA"), swap)
    }

    async fn play(&mut self, sample: &Sample) -> Result<(), String> {
        let target = self.to_real(&sample.target);
        let headers: Vec<_> = sample
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let body = sample.body.as_deref().map(|body| match body {
            "@image.qcow2" => qcow2(),
            text => self.to_real(text).into_bytes(),
        });
        let token = who(sample);
        let reply = self
            .house
            .send(token, &sample.method, &target, &headers, body)
            .await;
        self.learn(sample, &reply);
        if sample.method == "POST" && reply.status == 202 {
            let id = target.split('/').nth(3).unwrap();
            self.house.settled(id).await;
        }
        if reply.status != sample.answer.status {
            return Err(format!(
                "status {} instead of {}\n{}",
                reply.status,
                sample.answer.status,
                reply.text()
            ));
        }
        self.same_headers(sample, &reply)?;
        self.same_body(sample, &reply, &target).await
    }

    /// Remembers which of our ids a stand-in is, where something was made.
    fn learn(&mut self, sample: &Sample, reply: &Reply) {
        let id = |body: &str, path: &str| -> Option<String> {
            let body: Value = serde_json::from_str(body).ok()?;
            Some(body.pointer(path)?.as_str()?.to_owned())
        };
        let path = match (&*sample.method, sample.target.ends_with("/tasks")) {
            ("POST", _) => "/id",
            (_, true) => "/tasks/0/id",
            _ => return,
        };
        if let (Some(theirs), Some(ours)) = (
            id(&sample.answer.body, path),
            id(&String::from_utf8_lossy(&reply.body), path),
        ) && theirs != ours
        {
            self.ids.insert(theirs, ours);
        }
    }

    fn same_headers(&self, sample: &Sample, reply: &Reply) -> Result<(), String> {
        if sample.answer.headers.is_none() {
            return Ok(());
        }
        for name in HEADERS {
            let ours = reply.header(name).map(|v| self.to_stand_in(v));
            let theirs = sample.answer.header(name);
            if ours.as_deref() != theirs {
                return Err(format!("{name}: {ours:?} instead of {theirs:?}"));
            }
        }
        let name = "x-openstack-request-id";
        let (ours, theirs) = (reply.header(name), sample.answer.header(name));
        let given = sample
            .headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name));
        let is_id = |id: &str| id.starts_with("req-") && id.len() == 40;
        match (ours, theirs) {
            (None, None) => Ok(()),
            (Some(ours), Some(theirs)) if given && ours == theirs => Ok(()),
            (Some(ours), Some(_)) if !given && is_id(ours) => Ok(()),
            _ => Err(format!("{name}: {ours:?} instead of {theirs:?}")),
        }
    }

    async fn same_body(&self, sample: &Sample, reply: &Reply, target: &str) -> Result<(), String> {
        let theirs = sample.answer.body.as_str();
        if sample.method == "HEAD" {
            return Ok(());
        }
        if let Some(length) = theirs.strip_suffix(" bytes of data)") {
            let ours = format!("({}", reply.body.len());
            return equal(&ours, length);
        }
        let ours = self.to_stand_in(reply.text());
        if [202, 204].contains(&reply.status.as_u16()) && theirs.starts_with('{') {
            return self.image_is(target, theirs).await;
        }
        if theirs.starts_with(r#"{"names""#) {
            return equal(&summary(&ours), theirs);
        }
        if !theirs.starts_with('{') {
            return equal(&ours, theirs);
        }
        let value: Value = serde_json::from_str(&ours).map_err(|e| e.to_string())?;
        equal(&ours, &spaced(&value))?;
        let theirs = serde_json::from_str(theirs).unwrap();
        equal(&spaced(&normal(value)), &spaced(&normal(theirs)))
    }

    /// The capture noted some properties of the image after the request.
    async fn image_is(&self, target: &str, noted: &str) -> Result<(), String> {
        let id = target.split('/').nth(3).unwrap();
        let image = self.house.get(ADMIN, &format!("/v2/images/{id}")).await;
        let image = image.json();
        let noted: Map<String, Value> = serde_json::from_str(noted).unwrap();
        for (key, value) in noted {
            if image[&key] != value {
                return Err(format!("{key} is {} instead of {value}", image[&key]));
            }
        }
        Ok(())
    }
}

/// Who sends a sample: a member of project A unless its title says otherwise.
fn who(sample: &Sample) -> &'static str {
    let title = sample.title.as_str();
    let bare = [
        "a version without a path",
        "a version with a slash",
        "minor version prefix",
    ];
    match sample.file.as_str() {
        "01-versions" if bare.contains(&title) || title == "no token" => return NOBODY,
        "17-metadefs" if !title.starts_with("member may not") => return ADMIN,
        "11-stage-import" if title.starts_with("task") && !title.contains("member") => {
            return if title == "tasks of the image" {
                MEMBER
            } else {
                ADMIN
            };
        }
        _ => {}
    }
    let is = |words: &[&str]| words.iter().any(|w| title.contains(w));
    if is(&["(admin)", "by an admin", "admin creates"]) || title == "admin" {
        ADMIN
    } else if is(&["reader may not"]) {
        READER
    } else if is(&[
        "omeone else",
        "another project sees",
        "another project, community",
    ]) {
        STRANGER
    } else {
        MEMBER
    }
}

fn equal(ours: &str, theirs: &str) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!("ours:\n{ours}\ntheirs:\n{theirs}"))
}

/// A list as some captures kept it.
fn summary(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    let names = body["images"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|i| i["name"].clone()).collect();
    json!({"names": names, "first": body["first"], "next": body["next"]}).to_string()
}

/// Takes out what may differ: times, request ids, the order of tags and of custom properties
/// (which stand before `name`).
fn normal(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(map) => {
            let mut custom = BTreeMap::new();
            let mut rest = Map::new();
            let is_image = map.contains_key("os_hash_algo");
            for (key, value) in map {
                if is_image && !rest.contains_key("name") && key != "name" {
                    custom.insert(key, value);
                } else {
                    let value = normal_field(&key, value);
                    rest.insert(key, value);
                }
            }
            Value::Object(custom.into_iter().chain(rest).collect())
        }
        other => other,
    }
}

fn normal_field(key: &str, value: Value) -> Value {
    match (key, value) {
        ("tags", Value::Array(mut tags)) => {
            tags.sort_by_key(ToString::to_string);
            Value::Array(tags)
        }
        ("created_at" | "updated_at" | "expires_at", Value::String(time)) => {
            let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
            time.chars().map(digits).collect::<String>().into()
        }
        ("request_id", Value::String(id)) if id.starts_with("req-") => "req-REQUEST-ID".into(),
        (_, value) => normal(value),
    }
}

/// JSON as Python's `json.dumps` writes it.
fn spaced(value: &Value) -> String {
    struct Python;
    impl serde_json::ser::Formatter for Python {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            w: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            w.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            w: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            w.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(
            &mut self,
            w: &mut W,
        ) -> std::io::Result<()> {
            w.write_all(b": ")
        }
    }
    let mut out = Vec::new();
    let mut ser = serde_json::Serializer::with_formatter(&mut out, Python);
    value.serialize(&mut ser).unwrap();
    String::from_utf8(out).unwrap()
}

/// 1 MiB of data in a qcow2, as the sample server was given.
fn qcow2() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let out = dir.path().join("qcow2");
    std::fs::write(&raw, vec![0x5a_u8; 1 << 20]).unwrap();
    let done = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &out])
        .status()
        .expect("qemu-img is installed: apt-get install qemu-utils");
    assert!(done.success());
    std::fs::read(out).unwrap()
}
