//! `glint auth` and `glint policy`: tokens for those without Keystone, and the access rules.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{GLINT, Room};

/// Makes a token; answers it and the entry for the file.
fn token(room: &Room, args: &[&str]) -> (String, String) {
    let (code, entry, told) = room.glint(&[&["auth", "token"], args].concat());
    assert_eq!(code, 0, "{told}");
    let token = told.trim().rsplit(' ').next().unwrap().to_owned();
    (token, entry)
}

/// A service that is ended with the test.
struct Serving(Child, String);

impl Serving {
    fn start(room: &Room) -> Self {
        let mut child = Command::new(GLINT)
            .args(["serve", "--data", "data", "--config", "glint.toml"])
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(room.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("http://")?;
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
            Some(rest[..end.unwrap_or(rest.len())].to_owned())
        });
        // Whatever else it says must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, address.expect("it says where it listens"))
    }

    /// Creates an image; answers the status.
    fn create(&self, token: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        write!(
            stream,
            "POST /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tokens_are_made_for_the_file_and_open_the_service() {
    let room = Room::new();
    let (member, first) = token(&room, &["--user", "alice", "--project", "research"]);
    let reader = ["--user", "bob", "--project", "research", "--role", "reader"];
    let (reader, second) = token(&room, &[&reader[..], &["--days", "1"]].concat());
    assert_ne!(member, reader);
    for (token, entry) in [(&member, &first), (&reader, &second)] {
        assert!(token.len() >= 40, "{token} can be guessed");
        assert!(!entry.contains(token.as_str()), "the file keeps no token");
    }
    assert!(first.contains("roles = [\"member\"]") && !first.contains("expires"));
    assert!(second.contains("roles = [\"reader\"]") && second.contains("expires = "));

    room.write("tokens.toml", format!("{first}\n{second}").as_bytes());
    let file = room.path().join("tokens.toml");
    let config = format!(
        "[auth]\nmode = \"static\"\ntokens_file = '{}'\n",
        file.display()
    );
    room.write("glint.toml", config.as_bytes());
    let service = Serving::start(&room);
    assert_eq!(service.create(&member), "201");
    assert_eq!(service.create(&reader), "403");
    assert_eq!(service.create("made-up"), "401");
}

#[test]
fn who_the_token_is_for_has_to_be_said() {
    let room = Room::new();
    for args in [
        &["--user", "alice"][..],
        &["--project", "research"],
        &["--user", "a", "--project", "b", "--days", "0"],
        &["--user", "a", "--project", "b", "--days", "soon"],
    ] {
        let (code, out, err) = room.glint(&[&["auth", "token"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
}

/// The rules that hold, by name.
fn rules(room: &Room, args: &[&str]) -> BTreeMap<String, Value> {
    let (code, out, err) = room.glint(&[&["policy", "list", "--json"], args].concat());
    assert_eq!(code, 0, "{err}");
    let list: Vec<Value> = serde_json::from_str(&out).unwrap();
    let named = |rule: Value| (rule["rule"].as_str().unwrap().to_owned(), rule);
    list.into_iter().map(named).collect()
}

#[test]
fn the_rules_that_hold_are_listed_and_those_of_the_file_marked() {
    let room = Room::new();
    let stock = rules(&room, &[]);
    assert_eq!(stock["publicize_image"]["check"], "rule:context_is_admin");
    assert!(stock.values().all(|rule| rule["overridden"] == false));

    room.write(
        "policy.yaml",
        b"# Auditors see everything.\n\"get_image\": \"role:auditor\"\n",
    );
    let changed = rules(&room, &["--policy", "policy.yaml"]);
    assert_eq!(changed.len(), stock.len());
    let rule = &changed["get_image"];
    assert_eq!(rule["overridden"], true);
    assert_eq!(rule["check"], "role:auditor");
    assert_eq!(rule["default"], stock["get_image"]["check"]);
    assert_eq!(changed["get_images"], stock["get_images"]);

    // The configuration names the file too, and people read a line a rule.
    let file = room.path().join("policy.yaml");
    let config = format!("[auth]\npolicy_file = '{}'\n", file.display());
    room.write("glint.toml", config.as_bytes());
    let (code, text, err) = room.glint(&["policy", "list", "--config", "glint.toml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(text.lines().count(), stock.len());
    let marked: Vec<_> = text.lines().filter(|l| l.starts_with('*')).collect();
    assert_eq!(marked.len(), 1, "{text}");
    assert!(marked[0].contains("get_image ") && marked[0].contains("role:auditor"));
}

#[test]
fn a_rule_is_tried_on_somebody() {
    let room = Room::new();
    room.write("policy.yaml", b"\"delete_image\": \"role:janitor\"\n");
    let own = ["--project", "p", "--target", "owner=p"];
    let other = ["--project", "p", "--target", "owner=q"];
    let public = [&other[..], &["--target", "visibility=public"]].concat();
    let file = ["--policy", "policy.yaml"];
    for (rule, roles, more, code) in [
        ("get_image", "reader", &own[..], 0),
        ("get_image", "reader", &other, 1),
        ("get_image", "reader", &public, 0),
        ("get_image", "member", &own, 1),
        ("get_image", "Member,READER", &own, 0),
        ("download_image", "reader", &own, 1),
        ("delete_image", "member", &own, 0),
        ("delete_image", "member", &[&own[..], &file].concat(), 1),
        ("delete_image", "janitor", &[&other[..], &file].concat(), 0),
        ("publicize_image", "admin", &[], 0),
        ("publicize_image", "admin", &["--system"], 1),
    ] {
        let args = ["policy", "check", "--rule", rule, "--roles", roles];
        let (got, out, err) = room.glint(&[&args, more].concat());
        assert_eq!(got, code, "{rule} {roles} {more:?}: {err}");
        assert_eq!(out, if code == 0 { "allowed\n" } else { "denied\n" });
        let (got, out, _) = room.glint(&[&args, more, &["--json"]].concat());
        assert_eq!(got, code);
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["rule"], rule);
        assert_eq!(answer["allowed"], code == 0);
    }
}

#[test]
fn what_is_no_rule_is_wrong_usage() {
    let room = Room::new();
    room.write("broken.yaml", b"\"get_image\": \"rule:nowhere\"\n");
    for (args, reason) in [
        (&["check", "--rule", "frobnicate"][..], "frobnicate"),
        (
            &["check", "--rule", "get_image", "--target", "owner"],
            "NAME=VALUE",
        ),
        (&["list", "--policy", "broken.yaml"], "broken.yaml"),
        (&["list", "--policy", "absent.yaml"], "absent.yaml"),
        (&["check"], "--rule"),
    ] {
        let (code, out, err) = room.glint(&[&["policy"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains(reason), "{args:?}: {err}");
    }
}

#[test]
fn looking_for_a_catalog_makes_none() {
    let room = Room::new();
    for verb in ["check", "version"] {
        let (code, out, err) = room.glint(&["db", verb, "--data", "data"]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("data/glint.db yet: glint db sync"), "{err}");
        assert!(!room.path().join("data").exists());
    }
    let (code, _, err) = room.glint(&["db", "sync", "--data", "data"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = room.glint(&["db", "check", "--data", "data"]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn what_is_no_database_of_glances_is_said_to_be_none() {
    let room = Room::new();
    let (code, _, err) = room.glint(&["db", "sync", "--data", "ours"]);
    assert_eq!(code, 0, "{err}");
    let import = |url| room.glint(&["db", "import-glance", url, "--data", "new"]);
    let (code, _, err) = import("sqlite:ours/glint.db");
    assert_eq!(code, 2);
    assert!(err.contains("this is no database of Glance's"), "{err}");
    let (code, _, err) = import("sqlite:absent.db");
    assert_eq!(code, 2);
    assert_eq!(err.matches("code: 14").count(), 1, "{err}");
    assert!(!room.path().join("new").exists());
}
