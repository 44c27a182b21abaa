//! A service on throwaway data, with the sample server's stores and people.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, http};
use glint::api;
use glint::auth::{Context, Identity, StaticTokens};
use glint::config::{Config, Secret, StoreConfig};
use glint::service::Service;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::support::database;
use crate::web::Web;

pub(crate) const PROJECT_A: &str = "aaaaaaaaaaaa4aaa8aaaaaaaaaaaaaaa";
pub(crate) const PROJECT_B: &str = "bbbbbbbbbbbb4bbb8bbbbbbbbbbbbbbb";
pub(crate) const PROJECT_C: &str = "cccccccccccc4ccc8ccccccccccccccc";

/// Tokens of the people; an empty one is not sent.
pub(crate) const MEMBER: &str = "token-of-a-member-of-a";
pub(crate) const READER: &str = "token-of-a-reader-of-a";
pub(crate) const STRANGER: &str = "token-of-a-member-of-b";
pub(crate) const OTHER: &str = "token-of-a-member-of-c";
pub(crate) const SERVICE: &str = "token-of-another-service";
pub(crate) const ADMIN: &str = "token-of-an-administrator";
pub(crate) const WITHOUT_ROLE: &str = "token-of-somebody-without-a-role-in-a";
pub(crate) const ADMIN_OF_B: &str = "token-of-an-administrator-of-b";
pub(crate) const READER_OF_B: &str = "token-of-a-reader-of-b";
pub(crate) const WITHOUT_ROLE_IN_B: &str = "token-of-somebody-without-a-role-in-b";
pub(crate) const READER_OF_C: &str = "token-of-a-reader-of-c";
pub(crate) const NOBODY: &str = "";

pub(crate) struct House {
    pub(crate) svc: Arc<Service>,
    pub(crate) router: Router,
    pub(crate) web: Web,
    _jobs: JoinSet<()>,
    _dir: tempfile::TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl House {
    pub(crate) async fn build() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration that `change` has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        // A test that fails shows what the service had to say.
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
        let _ = log.with_ansi(false).with_test_writer().try_init();
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::embedded(dir.path().to_owned());
        config.stores = [
            ("store1", "first file store"),
            ("store2", "second file store"),
        ]
        .map(|(id, description)| StoreConfig {
            description: Some(description.into()),
            is_default: id == "store1",
            ..StoreConfig::file(id, dir.path().join(id))
        })
        .into();
        config.stores.push(StoreConfig {
            description: Some("read only http store".into()),
            ..StoreConfig::http("web")
        });
        let web = Web::start().await;
        config.fetch.allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.fetch.allowed_ports = vec![web.address.port()];
        // `cargo test` runs us from a binary that converts nothing.
        config.import.worker_program = Some(env!("CARGO_BIN_EXE_glint").into());
        config.formats.disk_formats.push("gpt".into());
        config.import.workers = Some(1);
        if let Some(database) = database::chosen().await {
            config.catalog.url = Some(Secret::new(database.url));
        }
        change(&mut config);
        let mut tokens = StaticTokens::default();
        for (token, who) in [
            (
                MEMBER,
                Context::with_roles("usera", PROJECT_A, &["member", "reader"]),
            ),
            (
                READER,
                Context::with_roles("readera", PROJECT_A, &["reader"]),
            ),
            (
                STRANGER,
                Context::with_roles("userb", PROJECT_B, &["member", "reader"]),
            ),
            (
                OTHER,
                Context::with_roles("userc", PROJECT_C, &["member", "reader"]),
            ),
            (
                SERVICE,
                Context::with_roles("nova", "service", &["service", "reader"]),
            ),
            (ADMIN, Context::administrator("admin", PROJECT_A)),
            (
                WITHOUT_ROLE,
                Context::with_roles("nonea", PROJECT_A, &["other"]),
            ),
            (ADMIN_OF_B, Context::administrator("adminb", PROJECT_B)),
            (
                READER_OF_B,
                Context::with_roles("readerb", PROJECT_B, &["reader"]),
            ),
            (
                WITHOUT_ROLE_IN_B,
                Context::with_roles("noneb", PROJECT_B, &["other"]),
            ),
            (
                READER_OF_C,
                Context::with_roles("readerc", PROJECT_C, &["reader"]),
            ),
        ] {
            tokens.add(token, who);
        }
        let svc = Service::build(config).await.unwrap();
        let router = api::router_for(&svc, Identity::Static(tokens));
        let jobs = svc.start_background();
        Self {
            svc,
            router,
            web,
            _jobs: jobs,
            _dir: dir,
        }
    }

    /// Sends a request as `token`'s owner. A body goes with its length unless it is chunked.
    pub(crate) async fn send(
        &self,
        token: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Reply {
        let chunked = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        let mut request = Request::builder().method(method).uri(target);
        request = request.header("Host", "HOST");
        if !token.is_empty() {
            request = request.header("X-Auth-Token", token);
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(bytes) if chunked => {
                let halves = bytes.len() / 2;
                let parts = [
                    Bytes::copy_from_slice(&bytes[..halves]),
                    Bytes::copy_from_slice(&bytes[halves..]),
                ];
                Body::from_stream(futures_util::stream::iter(
                    parts.map(Ok::<_, std::io::Error>),
                ))
            }
            Some(bytes) => {
                request = request.header("Content-Length", bytes.len());
                Body::from(bytes)
            }
            None => Body::empty(),
        };
        let response = self
            .router
            .clone()
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        let (
            http::response::Parts {
                status, headers, ..
            },
            body,
        ) = response.into_parts();
        Reply {
            status,
            headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, token: &str, target: &str) -> Reply {
        self.send(token, "GET", target, &[], None).await
    }

    /// Creates an image; answers its id.
    pub(crate) async fn create(&self, token: &str, body: &Value) -> String {
        let body = body.to_string().into_bytes();
        let reply = self
            .send(token, "POST", "/v2/images", &[], Some(body))
            .await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn upload(&self, token: &str, id: &str, data: &[u8]) -> Reply {
        let target = format!("/v2/images/{id}/file");
        let octets = [("Content-Type", "application/octet-stream")];
        self.send(token, "PUT", &target, &octets, Some(data.to_vec()))
            .await
    }

    /// Waits until no task works on the image; answers it.
    pub(crate) async fn settled(&self, id: &str) -> Value {
        let target = format!("/v2/images/{id}");
        self.until(&target, |image| {
            image.get("os_glance_import_task").is_none()
        })
        .await
    }

    /// The files in stores and staging, as `folder/name`.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["store1", "store2", "staging"] {
            for entry in std::fs::read_dir(self.svc.config.data_dir.join(folder)).unwrap() {
                let name = entry.unwrap().file_name();
                found.push(format!("{folder}/{}", name.to_string_lossy()));
            }
        }
        found
    }

    /// Waits until there are none: who ends a job does not wait for its worker to tidy up.
    pub(crate) async fn emptied(&self) {
        eventually(|| self.files().is_empty()).await;
    }

    /// Waits until what `target` answers is as wanted.
    pub(crate) async fn until(&self, target: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..4000 {
            let found = self.get(ADMIN, target).await.json();
            if is_so(&found) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{target} never came to be as wanted");
    }
}

/// Waits until it is so: for what goes on behind the answers.
pub(crate) async fn eventually(is_so: impl Fn() -> bool) {
    for _ in 0..4000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it never came to be");
}
