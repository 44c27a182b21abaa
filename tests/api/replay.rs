//! Replays the golden samples, in order, on one service: ids, times and request ids are stand-ins
//! in them, everything else must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use md5::Md5;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::house::{ADMIN, House, MEMBER, NOBODY, READER, Reply, SERVICE, STRANGER};
use crate::ours::OURS;
use crate::sample::{self, Sample};
use crate::web::tiny;

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
    let (mut same, mut ours) = (0, 0);
    let samples = sample::all();
    let mut file = String::new();
    for mut sample in samples.clone() {
        if file != sample.file {
            file.clone_from(&sample.file);
            replay.prepare(&file).await;
        }
        let place = format!("{}: {}", sample.file, sample.title);
        let is = |f: &str, t: &str| sample.file == f && sample.title == t;
        let on_purpose = OURS.iter().find(|o| is(o.file, o.title));
        if let Some(ours) = on_purpose {
            (ours.answer)(&mut sample.answer);
        }
        match replay.play(&sample).await {
            Ok(()) if on_purpose.is_some() => ours += 1,
            Ok(()) => same += 1,
            Err(fault) => faults.push(format!("## {place}\n{fault}")),
        }
    }
    let there: BTreeSet<_> = samples.iter().map(|s| (&*s.file, &*s.title)).collect();
    for (file, title) in OURS.iter().map(|o| (o.file, o.title)) {
        if !there.contains(&(file, title)) {
            faults.push(format!("## {file}: {title}\nis listed, but no such sample"));
        }
    }
    eprintln!("golden samples: {same} the same, {ours} ours on purpose");
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n\n")
    );
}

/// The digests of the capture's `tiny.raw`, whose content nobody noted.
pub(crate) const THEIR_TINY: [&str; 2] = [
    "ef8fa52670f92bb71e13f5aa97170368",
    "ec6f7254eac66e6a1907fdce0b58c7be564917b028a29ca491e8b8d10520f18c5e7f572593df4b600cc45f697900170a\
     1b828242b991562eb91c8a45949ae2c4",
];

/// An answer with the digests of our `tiny.raw` in the place of theirs.
fn as_ours(text: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let tiny = tiny();
    let ours = [hex(&Md5::digest(&tiny)), hex(&Sha512::digest(&tiny))];
    let swap = |text: String, (theirs, ours): (&str, String)| text.replace(theirs, &ours);
    THEIR_TINY.into_iter().zip(ours).fold(text.to_owned(), swap)
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
            "09-members" => {
                let private = json!({"visibility": "private"});
                self.make(19, "private", private).await;
            }
            "11-stage-import" => {
                for (n, name) in [(20, "imp"), (22, "web"), (23, "web404")] {
                    self.make(n, name, json!({"disk_format": "raw"})).await;
                }
            }
            "13-locations" => {
                self.make(26, "loc", json!({"disk_format": "raw"})).await;
            }
            "20-import-plugins" => self.prepare_plugins().await,
            "15-delete" => {
                self.make(27, "del", json!({"disk_format": "raw"})).await;
            }
            _ => {}
        }
    }

    /// A service of its own, whose imports go through all plugins, and the images it imported.
    async fn prepare_plugins(&mut self) {
        self.house = House::with(|config| {
            config.import.output_format = Some("raw".into());
            config.import.decompress = true;
            config.import.inject = [("injected_by", "lab"), ("injected_two", "2")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        })
        .await;
        self.ids.clear();
        let tiny = tiny();
        let qcow2 = converted(&tiny, "qcow2", &[]);
        let vhd = converted(&tiny, "vpc", &["-o", "force_size=on"]);
        let backed = include_bytes!("../../fixtures/backing.qcow2").to_vec();
        let cut = qcow2[..qcow2.len() / 2].to_vec();
        for (n, disk, container, data) in [
            (1, "qcow2", "bare", qcow2.clone()),
            (3, "qcow2", "bare", gzip(&qcow2)),
            (5, "qcow2", "compressed", gzip(&qcow2)),
            (7, "raw", "bare", tiny.clone()),
            (9, "qcow2", "bare", tiny.clone()),
            (11, "raw", "bare", qcow2),
            (13, "qcow2", "bare", backed),
            (15, "vmdk", "bare", converted(&tiny, "vmdk", &[])),
            (17, "vhdx", "bare", converted(&tiny, "vhdx", &[])),
            (19, "vhd", "bare", vhd),
            (21, "vdi", "bare", converted(&tiny, "vdi", &[])),
            (23, "qcow2", "bare", cut),
        ] {
            let formats = json!({"disk_format": disk, "container_format": container});
            let id = self.make(n, &format!("p-{disk}"), formats).await;
            let image = format!("/v2/images/{id}");
            let octets = [("Content-Type", "application/octet-stream")];
            let target = format!("{image}/stage");
            let staged = self.house.send(MEMBER, "PUT", &target, &octets, Some(data));
            assert_eq!(staged.await.status, 204);
            let body = br#"{"method":{"name":"glance-direct"}}"#.to_vec();
            let target = format!("{image}/import");
            let import = self.house.send(MEMBER, "POST", &target, &[], Some(body));
            assert_eq!(import.await.status, 202);
            self.house.settled(&id).await;
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
        let text = text
            .replace("http://WEB/", &self.house.web.url(""))
            .replace("http://HOST/", "http://127.0.0.1:1/");
        self.ids.iter().fold(text, swap)
    }

    fn to_stand_in(&self, text: &str) -> String {
        let swap = |text: String, (a, b): (&String, &String)| text.replace(b, a);
        let data = self.house.svc.config.data_dir.display().to_string();
        let text = text
            .replace(&data, "/DATA")
            .replace(&self.house.web.url(""), "http://WEB/")
            .replace("http://127.0.0.1:1/", "http://HOST/");
        self.ids.iter().fold(text, swap)
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
            if target.ends_with("/locations") {
                let target = format!("/v2/images/{id}");
                let has_digest = |image: &Value| !image["os_hash_value"].is_null();
                self.house.until(&target, has_digest).await;
            }
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
        let path = match (&*sample.method, sample.target.contains("/tasks")) {
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
        let theirs = as_ours(&sample.answer.body);
        let theirs = theirs.as_str();
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
        if !theirs.starts_with(['{', '[']) {
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
        "09-members" => {
            let by_member = ["accepts", "bad status", "no status", "not a member"];
            let theirs = title.starts_with("member") || by_member.contains(&title);
            return if theirs { STRANGER } else { MEMBER };
        }
        "18-cache" if title != "member" => return ADMIN,
        "13-locations" if title == "get, admin" => return ADMIN,
        "13-locations" if title == "get, service" => return SERVICE,
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
        // Blobs of ours are named for their location too.
        ("url", Value::String(url)) if url.starts_with("file://") => {
            let end = url.rfind('.').unwrap_or(url.len());
            url[..end].into()
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
    converted(&[0x5a; 1 << 20], "qcow2", &[])
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, data).unwrap();
    let done = Command::new("gzip").arg(&file).status().unwrap();
    assert!(done.success());
    std::fs::read(dir.path().join("file.gz")).unwrap()
}

/// A raw disk in another format.
pub(crate) fn converted(data: &[u8], format: &str, options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let out = dir.path().join("out");
    std::fs::write(&raw, data).unwrap();
    let done = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", format])
        .args(options)
        .args([&raw, &out])
        .status()
        .expect("qemu-img is installed: apt-get install qemu-utils");
    assert!(done.success());
    std::fs::read(out).unwrap()
}
