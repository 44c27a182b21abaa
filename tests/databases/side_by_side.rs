//! Two servers on one catalog and one store. A seeded storm of requests on a few images, from both
//! sides at once; then everything must fit together.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::Server;
use crate::support::database;
use crate::{config, db};

const IMAGES: u64 = 6;
const CLIENTS: u64 = 6;
const REQUESTS: u64 = 60;

/// The same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Pair {
    servers: [Server; 2],
    _dir: tempfile::TempDir,
}

/// Two servers; `None` where there is no such database.
fn pair(kind: &str) -> Option<(Pair, database::Server)> {
    let database = database::Server::start(kind)?;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = runtime.block_on(database.create());
    let dir = tempfile::tempdir().unwrap();
    let config = config(&url, &dir.path().join("store"));
    let file = dir.path().join("glint.toml");
    std::fs::write(&file, &config).unwrap();
    assert_eq!(db(&file, &["sync"]), Some(0));
    let servers = ["a", "b"].map(|name| Server::start(&dir.path().join(name), &config));
    Some((Pair { servers, _dir: dir }, database))
}

#[test]
fn what_is_staged_with_one_may_be_imported_by_asking_the_other() {
    let Some((pair, _database)) = pair("postgres") else {
        return;
    };
    let [a, b] = &pair.servers;
    let image = a.create("raw", "bare");
    assert_eq!(a.upload(&image, "stage", b"staged here"), 204);
    b.json(
        "POST",
        &format!("{image}/import"),
        r#"{"method":{"name":"glance-direct"}}"#,
    );
    assert_eq!(b.wait_for(&image, "active")["size"], 11);
    let (status, body) = b.ask("GET", &format!("{image}/file"), "", b"");
    assert_eq!((status, body.as_slice()), (200, b"staged here".as_slice()));
    assert_eq!(a.files("staging"), [""; 0]);
}

#[test]
fn a_storm_on_postgres_leaves_no_wreck() {
    storm("postgres");
}

#[test]
fn a_storm_on_mariadb_leaves_no_wreck() {
    storm("mariadb");
}

fn storm(kind: &str) {
    let Some((pair, _database)) = pair(kind) else {
        return;
    };
    let id = |n: u64| format!("00000000-0000-4000-8000-{n:012}");
    let next = AtomicU32::new(0);
    // Properties whose PATCH was acknowledged, and images whose DELETE was.
    let patched = Mutex::new(Vec::new());
    let deleted = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (servers, next, patched, deleted) = (&pair.servers, &next, &patched, &deleted);
            scope.spawn(move || {
                let mut dice = Dice(client + 1);
                for _ in 0..REQUESTS {
                    let server = &servers[dice.roll(2) as usize];
                    let id = id(dice.roll(IMAGES));
                    let image = format!("/v2/images/{id}");
                    let json = "application/json";
                    let status = match dice.roll(12) {
                        0..2 => {
                            let body = format!(
                                r#"{{"id":"{id}","disk_format":"raw","container_format":"bare"}}"#
                            );
                            server.ask("POST", "/v2/images", json, body.as_bytes()).0
                        }
                        2..6 => {
                            let name = format!("p{}", next.fetch_add(1, Ordering::Relaxed));
                            let body = format!(r#"[{{"op":"add","path":"/{name}","value":"x"}}]"#);
                            let kind = "application/openstack-images-v2.1-json-patch";
                            let status = server.ask("PATCH", &image, kind, body.as_bytes()).0;
                            if status == 200 {
                                patched.lock().unwrap().push((id, name));
                            }
                            status
                        }
                        6 => {
                            server
                                .ask("PUT", &format!("{image}/tags/t{client}"), json, b"")
                                .0
                        }
                        7 => server.upload(&image, "file", format!("data of {id}").as_bytes()),
                        8..10 => server.upload(&image, "stage", format!("data of {id}").as_bytes()),
                        10 => {
                            let body = br#"{"method":{"name":"glance-direct"}}"#;
                            server.ask("POST", &format!("{image}/import"), json, body).0
                        }
                        _ => {
                            // Seldom, or there would be nothing left to do.
                            if dice.roll(3) > 0 {
                                continue;
                            }
                            let status = server.ask("DELETE", &image, json, b"").0;
                            if status == 204 {
                                assert!(deleted.lock().unwrap().insert(id), "deleted twice");
                            }
                            status
                        }
                    };
                    assert!(status < 500, "{status}");
                }
            });
        }
    });

    let (patched, deleted) = (patched.into_inner().unwrap(), deleted.into_inner().unwrap());
    let [a, b] = &pair.servers;
    let mut active = 0;
    for id in (0..IMAGES).map(id) {
        let path = format!("/v2/images/{id}");
        let body = format!(r#"{{"id":"{id}"}}"#);
        let (status, _) = a.ask("GET", &path, "", b"");
        if deleted.contains(&id) {
            assert_eq!(status, 404);
            let again = b
                .ask("POST", "/v2/images", "application/json", body.as_bytes())
                .0;
            assert_eq!(again, 409, "an id is never given out again");
            continue;
        }
        if status == 404 {
            continue;
        }
        // Imports that were accepted end.
        let mut found = a.json("GET", &path, "");
        if found["status"] == "importing" {
            found = a.wait_for(&path, "active");
        }
        assert_eq!(found, b.json("GET", &path, ""));
        for (_, name) in patched.iter().filter(|(of, _)| *of == id) {
            assert_eq!(found[name], "x", "an acknowledged change was undone");
        }
        let has_data = found["status"] == "active";
        assert_eq!(found["checksum"].is_string(), has_data, "{found:#}");
        if has_data {
            active += 1;
            let (status, body) = b.ask("GET", &format!("{path}/file"), "", b"");
            assert_eq!((status, body), (200, format!("data of {id}").into_bytes()));
        }
    }
    assert!(!patched.is_empty() && active > 0, "the storm did something");
    assert_eq!(
        a.files("../store").len(),
        active,
        "a blob for each active image, and no other"
    );
}
