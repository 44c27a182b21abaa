//! Two servers on one catalog and one store. A seeded storm of requests on a few images, from both
//! sides at once, in which servers may be killed; then everything must fit together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sqlx::Connection as _;

use crate::server::Server;
use crate::support::database;
use crate::{config, db};

const IMAGES: u64 = 6;
const CLIENTS: u64 = 6;
const REQUESTS: u64 = 60;
/// Servers killed in a storm, where they are.
const KILLS: u64 = 4;
/// How long it may take until everything is at rest.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A place for a server, and the one that is there now.
struct Seat {
    data: PathBuf,
    config: String,
    server: Mutex<Arc<Server>>,
}

impl Seat {
    fn new(data: PathBuf, config: &str) -> Self {
        let server = Server::start(&data, config);
        Self {
            data,
            config: config.to_owned(),
            server: Mutex::new(Arc::new(server)),
        }
    }

    fn server(&self) -> Arc<Server> {
        self.server.lock().unwrap().clone()
    }

    /// Puts a new server in the place of a killed one.
    fn start(&self) {
        let server = Server::start(&self.data, &self.config);
        *self.server.lock().unwrap() = Arc::new(server);
    }
}

struct Pair {
    seats: [Seat; 2],
    url: String,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn servers(&self) -> [Arc<Server>; 2] {
        [self.seats[0].server(), self.seats[1].server()]
    }

    /// Kills both servers and starts them again a minute later, when what they held is free. The
    /// minute passes in the catalog.
    fn a_minute_after_a_crash(&self) {
        self.servers().iter().for_each(|server| server.kill());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut catalog = sqlx::AnyConnection::connect(&self.url).await.unwrap();
            for table in ["image_locations", "staged", "jobs"] {
                let sql = format!("UPDATE {table} SET lease_until = 1 WHERE lease_until > 1");
                let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
                sql.execute(&mut catalog).await.unwrap();
            }
            catalog.close().await.unwrap();
        });
        self.seats.iter().for_each(Seat::start);
    }
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
    let seats = ["a", "b"].map(|name| Seat::new(dir.path().join(name), &config));
    let pair = Pair {
        seats,
        url,
        _dir: dir,
    };
    Some((pair, database))
}

#[test]
fn what_is_staged_with_one_may_be_imported_by_asking_the_other() {
    let Some((pair, _database)) = pair("postgres") else {
        return;
    };
    let [a, b] = pair.servers();
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
    storm("postgres", 0);
}

#[test]
fn a_storm_on_mariadb_leaves_no_wreck() {
    storm("mariadb", 0);
}

#[test]
fn a_storm_in_which_servers_are_killed_leaves_no_wreck() {
    storm("postgres", KILLS);
}

fn id(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Images and their properties whose PATCH was acknowledged.
    patched: Mutex<Vec<(String, String)>>,
    /// Images whose DELETE was.
    deleted: Mutex<BTreeSet<String>>,
    /// Properties so far.
    next: AtomicU32,
}

impl Told {
    /// One request by `client`. Who was killed tells nothing, and what was asked of it is done or
    /// not.
    fn ask(&self, server: &Server, client: u64, dice: &mut Dice) {
        let id = id(dice.roll(IMAGES));
        let image = format!("/v2/images/{id}");
        let json = "application/json";
        let data = format!("data of {id}");
        let put = |what: &str| {
            let target = format!("{image}/{what}");
            server.try_ask("PUT", &target, "application/octet-stream", data.as_bytes())
        };
        let answer = match dice.roll(12) {
            0..2 => {
                let body =
                    format!(r#"{{"id":"{id}","disk_format":"raw","container_format":"bare"}}"#);
                server.try_ask("POST", "/v2/images", json, body.as_bytes())
            }
            2..6 => {
                let name = format!("p{}", self.next.fetch_add(1, Ordering::Relaxed));
                let body = format!(r#"[{{"op":"add","path":"/{name}","value":"x"}}]"#);
                let kind = "application/openstack-images-v2.1-json-patch";
                let answer = server.try_ask("PATCH", &image, kind, body.as_bytes());
                if let Some((200, _)) = answer {
                    self.patched.lock().unwrap().push((id, name));
                }
                answer
            }
            6 => server.try_ask("PUT", &format!("{image}/tags/t{client}"), json, b""),
            7 => put("file"),
            8..10 => put("stage"),
            10 => {
                let body = br#"{"method":{"name":"glance-direct"}}"#;
                server.try_ask("POST", &format!("{image}/import"), json, body)
            }
            // Seldom, or there would be nothing left to do.
            _ if dice.roll(3) > 0 => None,
            _ => {
                let answer = server.try_ask("DELETE", &image, json, b"");
                if let Some((204, _)) = answer {
                    assert!(self.deleted.lock().unwrap().insert(id), "deleted twice");
                }
                answer
            }
        };
        if let Some((status, body)) = answer {
            assert!(status < 500, "{status} {}", String::from_utf8_lossy(&body));
        }
    }
}

fn storm(kind: &str, kills: u64) {
    let Some((pair, _database)) = pair(kind) else {
        return;
    };
    let told = Told::default();
    let (asked, done) = mpsc::channel();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (seats, told, asked) = (&pair.seats, &told, asked.clone());
            scope.spawn(move || {
                let mut dice = Dice(client + 1);
                for _ in 0..REQUESTS {
                    let server = seats[dice.roll(2) as usize].server();
                    told.ask(&server, client, &mut dice);
                    // Nobody counts after the last kill.
                    let _ = asked.send(());
                }
            });
        }
        drop(asked);
        let mut dice = Dice(kills);
        for _ in 0..kills {
            let requests = 20 + dice.roll(40) as usize;
            assert_eq!(done.iter().take(requests).count(), requests);
            let seat = &pair.seats[dice.roll(2) as usize];
            seat.server().kill();
            seat.start();
        }
    });
    if kills > 0 {
        pair.a_minute_after_a_crash();
    }
    let active = check(&pair, &told, kills > 0);
    assert!(!told.patched.lock().unwrap().is_empty() && (active > 0 || kills > 0));
}

/// Holds what there is against what clients were told; answers the number of active images.
/// `are_new`: whether the servers have just been started.
fn check(pair: &Pair, told: &Told, are_new: bool) -> usize {
    let [a, b] = pair.servers();
    let (patched, deleted) = (told.patched.lock().unwrap(), told.deleted.lock().unwrap());
    let (mut active, mut staged) = (0, 0);
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
        match found["status"].as_str() {
            Some("active") => {
                active += 1;
                let (status, body) = b.ask("GET", &format!("{path}/file"), "", b"");
                assert_eq!((status, body), (200, format!("data of {id}").into_bytes()));
            }
            Some("uploading") => staged += 1,
            other => assert_eq!(other, Some("queued"), "nothing is under way"),
        }
    }
    // What a dead server left is swept, and no more. What another server staged of a deleted image
    // goes when that one sweeps, which only a new one does at once.
    let start = Instant::now();
    loop {
        let blobs = a.files("../store").len();
        let files = a.files("staging").len() + b.files("staging").len();
        if blobs == active && (files == staged || !are_new) {
            return active;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{blobs} blobs of {active} active images, {files} staged files of {staged} others"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
