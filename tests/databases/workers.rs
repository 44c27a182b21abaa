//! Kill -9 of workers that share a PostgreSQL catalog, stores and staging: before each statement that
//! makes a step of an import a fact, and at random moments. Exactly one result is published, and
//! nothing else is left.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha512};
use sqlx::Connection as _;
use tokio::runtime::Runtime;

use crate::server::Server;
use crate::support::database;
use crate::{config, db};

const PATIENCE: Duration = Duration::from_secs(60);

/// A `glint worker`. Killed when dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that does no jobs, and the place of workers that do.
struct Farm {
    server: Option<Server>,
    config: String,
    url: String,
    runtime: Runtime,
    dir: tempfile::TempDir,
    _database: database::Server,
}

impl Farm {
    fn start() -> Option<Self> {
        let database = database::Server::start("postgres")?;
        let runtime = Runtime::new().unwrap();
        let url = runtime.block_on(database.create());
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "{}[import]\nworkers = 0\nlease = 2\nshared_staging = '{}'\n\
             output_format = 'qcow2'\ncompress = true\n[log]\naccess = false\n\
             [batches]\nsource_dirs = ['{}']\n",
            config(&url, &dir.path().join("store")),
            dir.path().join("staging").display(),
            dir.path().join("sources").display()
        );
        std::fs::create_dir(dir.path().join("sources")).unwrap();
        let file = dir.path().join("server.toml");
        std::fs::write(&file, &config).unwrap();
        assert_eq!(db(&file, &["sync"]), Some(0));
        let server = Server::start(&dir.path().join("server"), &config);
        Some(Self {
            server: Some(server),
            config,
            url,
            runtime,
            dir,
            _database: database,
        })
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn worker(&self, name: &str) -> Worker {
        let child = Command::new(env!("CARGO_BIN_EXE_glint"))
            .args(["worker", "--jobs", "1", "--config"])
            .arg(self.dir.path().join("server.toml"))
            .arg("--data")
            .arg(self.dir.path().join(name))
            .stderr(Stdio::null())
            .spawn();
        Worker(child.unwrap())
    }

    fn connect(&self) -> sqlx::AnyConnection {
        sqlx::any::install_default_drivers();
        let connecting = sqlx::AnyConnection::connect(&self.url);
        self.runtime.block_on(connecting).unwrap()
    }

    fn run(&self, conn: &mut sqlx::AnyConnection, sql: &str) {
        let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        self.runtime.block_on(statement.execute(conn)).unwrap();
    }

    fn count(&self, conn: &mut sqlx::AnyConnection, sql: &'static str) -> i64 {
        let query = sqlx::query_scalar(sql).fetch_one(conn);
        self.runtime.block_on(query).unwrap()
    }

    /// Accepts an import of `data`, which is to be converted.
    fn import(&self, data: &[u8]) -> String {
        let image = self.server().create("raw", "bare");
        assert_eq!(self.server().upload(&image, "stage", data), 204);
        let import = r#"{"method":{"name":"glance-direct"}}"#;
        self.server()
            .json("POST", &format!("{image}/import"), import);
        image
    }

    /// Waits until the image is active, and reads it: what is there is what is said to be there.
    fn check(&self, image: &str, when: &str) {
        let found = self.server().wait_for(image, "active");
        assert_eq!(found["disk_format"], "qcow2", "{when}");
        assert_eq!(found["virtual_size"], SIZE, "{when}");
        let (_, body) = self.server().ask("GET", &format!("{image}/file"), "", b"");
        let digest = Sha512::digest(&body);
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found["os_hash_value"], digest, "{when}");
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join(folder)).unwrap();
        entries.map(|e| e.unwrap().path()).collect()
    }

    /// What is left when all leases of the dead are over and somebody starts: a blob for each image.
    fn assert_clean(&mut self, images: usize) {
        let mut conn = self.connect();
        self.run(&mut conn, OVER);
        drop(self.server.take());
        self.server = Some(Server::start(&self.dir.path().join("server"), &self.config));
        assert_eq!(self.files("store").len(), images);
        assert_eq!(self.files("staging"), [""; 0].map(PathBuf::from));
        for sql in [
            "SELECT COUNT(*) FROM jobs",
            "SELECT COUNT(*) FROM staged",
            "SELECT COUNT(*) FROM image_locations WHERE state <> 'active'",
            "SELECT COUNT(*) FROM tasks WHERE status <> 'success'",
        ] {
            assert_eq!(self.count(&mut conn, sql), 0, "{sql}");
        }
    }
}

const SIZE: usize = 2 << 20;

/// Ends every lease.
const OVER: &str = "UPDATE jobs SET lease_until = 1 WHERE lease_until > 1; \
    UPDATE image_locations SET lease_until = 1 WHERE lease_until > 1";

/// Half of it can be compressed.
fn data() -> Vec<u8> {
    (0..SIZE as u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (n / 65536 % 57)) as u8)
        .collect()
}

/// Statements of an import in their order, each as trigger.
const STEPS: [(&str, &str); 8] = [
    (
        "claimed",
        "AFTER UPDATE ON jobs FOR EACH ROW \
         WHEN (OLD.lease_until IS NULL AND NEW.lease_until IS NOT NULL)",
    ),
    (
        "begun",
        "AFTER UPDATE ON tasks FOR EACH ROW \
         WHEN (OLD.status = 'pending' AND NEW.status = 'processing')",
    ),
    ("intended", "AFTER INSERT ON image_locations FOR EACH ROW"),
    (
        "stored",
        "AFTER UPDATE ON image_locations FOR EACH ROW \
         WHEN (OLD.state = 'pending' AND NEW.state = 'active')",
    ),
    (
        "active",
        "AFTER UPDATE ON images FOR EACH ROW \
         WHEN (OLD.status = 'importing' AND NEW.status = 'active')",
    ),
    ("unstaged", "AFTER DELETE ON staged FOR EACH ROW"),
    (
        "ended",
        "AFTER UPDATE ON tasks FOR EACH ROW WHEN (NEW.status = 'success')",
    ),
    ("finished", "AFTER DELETE ON jobs FOR EACH ROW"),
];

/// Stops whoever comes to the step that `gate` names until number 42 is free.
const GATE: &str = "CREATE TABLE gate (step TEXT); \
    CREATE FUNCTION stop_there() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    IF EXISTS (SELECT 1 FROM gate WHERE step = TG_ARGV[0]) THEN \
    PERFORM pg_advisory_xact_lock(42); END IF; RETURN NULL; END $$";

#[test]
fn a_worker_killed_at_any_step_is_replaced() {
    let Some(mut farm) = Farm::start() else {
        return;
    };
    let mut conn = farm.connect();
    farm.run(&mut conn, GATE);
    for (step, when) in STEPS {
        let trigger = format!("CREATE TRIGGER {step} {when} EXECUTE FUNCTION stop_there('{step}')");
        farm.run(&mut conn, &trigger);
    }
    let data = data();
    for (step, _) in STEPS {
        farm.run(&mut conn, &format!("INSERT INTO gate VALUES ('{step}')"));
        farm.run(&mut conn, "SELECT pg_advisory_lock(42)");
        let image = farm.import(&data);
        let workers = ["a", "b"].map(|name| farm.worker(name));
        let start = Instant::now();
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while farm.count(&mut conn, waiting) == 0 {
            assert!(start.elapsed() < PATIENCE, "nobody came to {step}");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(workers);
        farm.run(&mut conn, "DELETE FROM gate");
        farm.run(&mut conn, "SELECT pg_advisory_unlock(42)");
        farm.run(&mut conn, OVER);
        let _workers = ["a", "b"].map(|name| farm.worker(name));
        farm.check(&image, step);
    }
    farm.assert_clean(STEPS.len());
}

#[test]
fn workers_killed_at_random_moments_are_replaced() {
    let Some(mut farm) = Farm::start() else {
        return;
    };
    let kills = std::env::var("GLINT_CRASHES").map_or(24, |n| n.parse().unwrap());
    let data = data();
    let mut state = 1u64;
    let mut roll = |sides: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut workers = NAMES.map(|name| farm.worker(name));
    let mut images = Vec::new();
    for _ in 0..kills {
        images.push(farm.import(&data));
        std::thread::sleep(Duration::from_millis(roll(400)));
        let n = roll(3) as usize;
        // Killed first, and only then replaced.
        drop(std::mem::replace(&mut workers[n], Worker(nobody())));
        workers[n] = farm.worker(NAMES[n]);
    }
    for image in &images {
        farm.check(image, "killed at a random moment");
        let tasks: Value = farm.server().json("GET", &format!("{image}/tasks"), "");
        assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1);
    }
    drop(workers);
    farm.assert_clean(images.len());
}

#[test]
fn a_batch_keeps_to_its_concurrency_while_workers_are_killed() {
    const IMAGES: usize = 8;
    /// Jobs of a batch that somebody has.
    const HELD: &str = "SELECT COUNT(*) FROM jobs WHERE batch IS NOT NULL AND lease_until >= \
        CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
    let Some(mut farm) = Farm::start() else {
        return;
    };
    let data = data();
    let sources: Vec<_> = (0..IMAGES)
        .map(|n| {
            let file = farm.dir.path().join(format!("sources/{n}.raw"));
            std::fs::write(&file, &data).unwrap();
            serde_json::json!({"file": file})
        })
        .collect();
    let body = serde_json::json!({"sources": sources, "concurrency": 2});
    let batch = farm.server().json("POST", "/v2/batches", &body.to_string());
    let target = batch["self"].as_str().unwrap();
    let mut conn = farm.connect();
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut workers = NAMES.map(|name| farm.worker(name));
    let mut most = 0;
    let start = Instant::now();
    let mut killed = 0;
    let ended = loop {
        let held = farm.count(&mut conn, HELD);
        most = most.max(held);
        assert!(held <= 2, "{held} at once");
        // Somebody dies whenever there is much under way.
        if held == 2 && killed < 4 {
            let n = killed % NAMES.len();
            drop(std::mem::replace(&mut workers[n], Worker(nobody())));
            workers[n] = farm.worker(NAMES[n]);
            killed += 1;
        }
        let found = farm.server().json("GET", target, "");
        if !["waiting", "running"].contains(&found["status"].as_str().unwrap()) {
            break found;
        }
        assert!(start.elapsed() < PATIENCE, "{found:#}");
    };
    assert_eq!(ended["counts"]["done"], IMAGES, "{ended:#}");
    assert_eq!((most, killed), (2, 4));
    for item in ended["items"].as_array().unwrap() {
        let image = format!("/v2/images/{}", item["image_id"].as_str().unwrap());
        farm.check(&image, "of a batch");
    }
    drop(workers);
    farm.assert_clean(IMAGES);
}

/// A process that has ended.
fn nobody() -> Child {
    Command::new("true").spawn().unwrap()
}
