//! Our own account at Keystone: a token that is got when it is needed, and got anew before it ends
//! or when Keystone no longer takes it.

use std::error::Error as _;
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use super::token::Answer;
use crate::config::{KeystoneConfig, Secret};
use crate::domain::Timestamp;
use crate::telemetry::trace;

/// Bytes of an answer at most.
const MAX_ANSWER: usize = 4 << 20;
/// Calls under way at most; further ones wait.
const MAX_CALLS: usize = 64;
/// Seconds before its end at which our token is replaced.
const EARLY: i64 = 120;
/// For how long nothing is tried after Keystone refused us or was not there: everybody who comes
/// meanwhile gets the same answer at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Why Keystone did not say what we wanted to know. Never means that a token is bad.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be reached, or broke off.
    #[error("Keystone at {url} cannot be asked")]
    Gone {
        /// Its URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It does not let us in, or does not let us ask.
    #[error("Keystone answers {status} to {what}")]
    Refused {
        /// What it said.
        status: StatusCode,
        /// What we wanted.
        what: &'static str,
    },
    /// What it says makes no sense.
    #[error("Keystone's answer to {0} makes no sense")]
    Nonsense(&'static str),
    /// It failed just now.
    #[error("Keystone failed a moment ago")]
    Paused,
}

/// The connection.
pub struct Session {
    client: Client,
    url: String,
    login: Value,
    calls: Semaphore,
    token: Mutex<Own>,
}

/// Our own token.
#[derive(Default)]
struct Own {
    current: Option<(HeaderValue, Timestamp)>,
    failed: Option<Instant>,
}

impl Session {
    pub(super) fn new(config: &KeystoneConfig) -> Result<Self, String> {
        let timeout = Duration::from_secs(config.timeout);
        let mut client = Client::builder()
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .timeout(timeout)
            // uwsgi, which Keystone mostly runs in, hangs up after an answer without saying so: a call
            // on a connection used before would fail. Calls are few, for answers are kept.
            .pool_max_idle_per_host(0)
            // Keystone is not behind a proxy, and a redirect would carry our password elsewhere.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("glint/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.cafile {
            let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let pem = std::fs::read(path).map_err(|e| fault(&e))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| fault(&e))?;
            if certificates.is_empty() {
                return Err(fault(&"no certificate is in it"));
            }
            client = client.tls_certs_merge(certificates);
        }
        if config.insecure == Some(true) {
            client = client.tls_danger_accept_invalid_certs(true);
        }
        let client = client.build().map_err(|e| format!("setting up TLS: {e}"))?;
        Ok(Self::over(client, config))
    }

    /// The account that `config` names, by a client that is set up already.
    #[must_use]
    pub fn over(client: Client, config: &KeystoneConfig) -> Self {
        Self {
            client,
            url: config.url(),
            login: login(config),
            calls: Semaphore::new(MAX_CALLS),
            token: Mutex::default(),
        }
    }

    /// Asks for `path`, with a further header. Our own token is renewed once if Keystone does not
    /// take it any more.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn get(
        &self,
        path: &str,
        subject: Option<&HeaderValue>,
        what: &'static str,
    ) -> Result<(StatusCode, Vec<u8>), Trouble> {
        let _permit = self.calls.acquire().await.map_err(|_| Trouble::Paused)?;
        let mut own = self.own(None).await?;
        for last in [false, true] {
            let mut request = self
                .client
                .get(format!("{}{path}", self.url))
                .header("x-auth-token", own.clone());
            if let Some(subject) = subject {
                request = request.header("x-subject-token", subject.clone());
            }
            let answer = self.send(request).await?;
            if answer.status() == StatusCode::UNAUTHORIZED && !last {
                own = self.own(Some(&own)).await?;
                continue;
            }
            let status = answer.status();
            return Ok((status, self.body(answer, what).await?));
        }
        Err(Trouble::Nonsense(what))
    }

    /// Our own token; another one than `stale`.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn own(&self, stale: Option<&HeaderValue>) -> Result<HeaderValue, Trouble> {
        let mut own = self.token.lock().await;
        if let Some((token, expires)) = &own.current
            && stale != Some(token)
            && expires.plus_seconds(-EARLY) > Timestamp::now()
        {
            return Ok(token.clone());
        }
        if own.failed.is_some_and(|when| when.elapsed() < PAUSE) {
            return Err(Trouble::Paused);
        }
        match self.log_in().await {
            Ok((token, expires)) => {
                *own = Own {
                    current: Some((token.clone(), expires)),
                    failed: None,
                };
                Ok(token)
            }
            Err(e) => {
                own.failed = Some(Instant::now());
                Err(e)
            }
        }
    }

    async fn log_in(&self) -> Result<(HeaderValue, Timestamp), Trouble> {
        let what = "our login";
        let request = self
            .client
            .post(format!("{}/auth/tokens?nocatalog", self.url))
            .header("content-type", "application/json")
            .body(self.login.to_string());
        let answer = self.send(request).await?;
        let status = answer.status();
        if status != StatusCode::CREATED {
            return Err(Trouble::Refused { status, what });
        }
        let mut token = answer
            .headers()
            .get("x-subject-token")
            .cloned()
            .ok_or(Trouble::Nonsense(what))?;
        token.set_sensitive(true);
        let body = self.body(answer, what).await?;
        let holder = serde_json::from_slice::<Answer>(&body)
            .ok()
            .and_then(Answer::holder)
            .ok_or(Trouble::Nonsense(what))?;
        Ok((token, holder.expires))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let mut request = request.build().map_err(|e| self.gone(e))?;
        let span = trace::call(request.method(), request.url());
        trace::pass_on(&span, &mut request);
        let answer = self.client.execute(request).await;
        trace::called(&span, answer.as_ref().ok().map(Response::status));
        answer.map_err(|e| self.gone(e))
    }

    async fn body(&self, mut answer: Response, what: &'static str) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.gone(e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Trouble::Nonsense(what));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn gone(&self, source: reqwest::Error) -> Trouble {
        let url = self.url.clone();
        Trouble::Gone {
            url,
            source: source.without_url(),
        }
    }
}

impl Trouble {
    /// The whole story, for the log.
    #[must_use]
    pub fn story(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The body of our login.
fn login(config: &KeystoneConfig) -> Value {
    let domain = |id: &Option<String>, name: &Option<String>| match (id, name) {
        (Some(id), _) => json!({"id": id}),
        (None, name) => json!({"name": name}),
    };
    let mut user = match &config.user_id {
        Some(id) => json!({"id": id}),
        None => json!({
            "name": config.username,
            "domain": domain(&config.user_domain_id, &config.user_domain_name),
        }),
    };
    if let Some(secret) = &config.application_credential_secret {
        let mut credential = json!({"secret": secret.reveal()});
        match &config.application_credential_id {
            Some(id) => credential["id"] = json!(id),
            None => {
                credential["name"] = json!(config.application_credential_name);
                credential["user"] = user;
            }
        }
        // Its project comes with it.
        return json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": credential,
        }}});
    }
    user["password"] = json!(config.password.as_ref().map(Secret::reveal));
    let scope = match (&config.system_scope, &config.project_id) {
        (Some(_), _) => json!({"system": {"all": true}}),
        (None, Some(id)) => json!({"project": {"id": id}}),
        (None, None) => json!({"project": {
            "name": config.project_name,
            "domain": domain(&config.project_domain_id, &config.project_domain_name),
        }}),
    };
    json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": scope,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_log_in_by_password_or_application_credential() {
        let some = |text: &str| Some(text.to_owned());
        let password = KeystoneConfig {
            username: some("glint"),
            user_domain_id: some("default"),
            password: Some(Secret::new("s".into())),
            project_name: some("service"),
            project_domain_name: some("Default"),
            ..KeystoneConfig::default()
        };
        let body = login(&password)["auth"].clone();
        let user = json!({"name": "glint", "domain": {"id": "default"}, "password": "s"});
        assert_eq!(body["identity"]["password"]["user"], user);
        let project = json!({"name": "service", "domain": {"name": "Default"}});
        assert_eq!(body["scope"]["project"], project);

        let credential = KeystoneConfig {
            application_credential_id: some("c"),
            application_credential_secret: Some(Secret::new("s".into())),
            ..KeystoneConfig::default()
        };
        let body = login(&credential)["auth"].clone();
        let method = json!({"id": "c", "secret": "s"});
        assert_eq!(body["identity"]["application_credential"], method);
        assert!(body.get("scope").is_none());
    }
}
