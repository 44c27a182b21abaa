//! Empty databases to test on: SQLite files, and servers that `database.sh` starts, one of a kind
//! for a whole test binary.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use sqlx::Connection as _;

/// A kind of database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Mariadb,
}

/// An empty database.
pub(crate) struct Database {
    /// As in `[catalog] url`.
    pub(crate) url: String,
    _dir: Option<tempfile::TempDir>,
}

impl Database {
    /// A new one. `None`, said aloud, where its server is not installed; with
    /// `GLINT_DATABASES=required` that is a failure.
    pub(crate) async fn new(kind: Kind) -> Option<Self> {
        let server = match kind {
            Kind::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                return Some(Self {
                    url: format!("sqlite:{}/glint.db", dir.path().display()),
                    _dir: Some(dir),
                });
            }
            Kind::Postgres => &POSTGRES,
            Kind::Mariadb => &MARIADB,
        };
        let server = server.as_ref()?;
        Some(Self {
            url: server.create().await,
            _dir: None,
        })
    }
}

/// An empty database of the kind `GLINT_TEST_DATABASE` names, with the schema in it; `None` where it
/// names none: the embedded one is meant.
pub(crate) async fn chosen() -> Option<Database> {
    let kind = match std::env::var("GLINT_TEST_DATABASE").as_deref() {
        Ok("postgres") => Kind::Postgres,
        Ok("mariadb") => Kind::Mariadb,
        Ok(other) => panic!("GLINT_TEST_DATABASE is {other:?}: postgres or mariadb"),
        Err(_) => return None,
    };
    let database = Database::new(kind).await?;
    let catalog = glint::catalog::Catalog::open_server(&database.url, 1)
        .await
        .unwrap();
    catalog.sync().await.unwrap();
    catalog.close().await;
    Some(database)
}

static POSTGRES: LazyLock<Option<Server>> = LazyLock::new(|| Server::start("postgres"));
static MARIADB: LazyLock<Option<Server>> = LazyLock::new(|| Server::start("mariadb"));
static NAMES: AtomicU32 = AtomicU32::new(0);

/// A server. It ends when this process does: its script then reads the end of its input.
pub(crate) struct Server {
    url: String,
    script: Mutex<Script>,
}

struct Script {
    /// Dropped with the process or the server, which ends the script.
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    /// Starts `postgres` or `mariadb`; `None` where it is not installed.
    pub(crate) fn start(kind: &str) -> Option<Self> {
        let mut child = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/database.sh"
        ))
        .arg(kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(url) = output.next() else {
            let code = child.wait().unwrap().code();
            assert_eq!(code, Some(3), "the {kind} server did not start");
            assert!(
                std::env::var("GLINT_DATABASES").as_deref() != Ok("required"),
                "{kind} is not installed"
            );
            eprintln!("{kind} is not installed: its tests are SKIPPED");
            return None;
        };
        Some(Self {
            url: url.unwrap(),
            script: Mutex::new(Script {
                input,
                output,
                _child: child,
            }),
        })
    }

    /// A new database's URL.
    pub(crate) async fn create(&self) -> String {
        sqlx::any::install_default_drivers();
        let name = format!("t{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let mut admin = sqlx::AnyConnection::connect(&self.url_of("postgres", ""))
            .await
            .unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        self.url_of(&name, &name)
    }

    fn url_of(&self, postgres: &str, mysql: &str) -> String {
        match self.url.split_once("/?") {
            Some((start, socket)) => format!("{start}/{mysql}?{socket}"),
            None => format!("{}{postgres}", self.url),
        }
    }

    /// Ends the server as a crash would.
    pub(crate) fn stop(&self) {
        self.ask("stop", "stopped");
    }

    /// Starts it again.
    pub(crate) fn restart(&self) {
        self.ask("start", "ready");
    }

    fn ask(&self, command: &str, answer: &str) {
        let mut script = self.script.lock().unwrap();
        writeln!(script.input, "{command}").unwrap();
        assert_eq!(script.output.next().unwrap().unwrap(), answer);
    }
}

/// Makes a test of each function, on each database: `sqlite::name`, `postgres::name`,
/// `mariadb::name`. The functions take what `$scratch(Kind)` makes; nothing is tested where that is
/// `None`.
macro_rules! on_every_database {
    ($scratch:path: $($name:ident),* $(,)?) => {
        crate::support::database::on_every_database!(@ sqlite Sqlite $scratch: $($name)*);
        crate::support::database::on_every_database!(@ postgres Postgres $scratch: $($name)*);
        crate::support::database::on_every_database!(@ mariadb Mariadb $scratch: $($name)*);
    };
    (@ $module:ident $kind:ident $scratch:path: $($name:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    let kind = crate::support::database::Kind::$kind;
                    if let Some(scratch) = $scratch(kind).await {
                        super::$name(scratch).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_database;
