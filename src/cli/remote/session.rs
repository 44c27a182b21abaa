//! Requests to an image service: with a token that is renewed when the service no longer takes it,
//! and answers that are bounded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::account::{Account, Login, Who};
use crate::auth::keystone::{self, Trouble};

/// How long a service may say nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer that is no image's data, at most.
const MAX_ANSWER: usize = 4 << 20;
/// Bytes shown of what a service says of a failure.
const MAX_SENTENCE: usize = 1000;

/// Why a service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    /// It was not there when it was asked first: more likely nobody is.
    #[error("the image service cannot be reached")]
    Absent(#[source] reqwest::Error),
    #[error("the image service cannot be reached, or broke off")]
    Gone(#[source] reqwest::Error),
    /// It was never sent: a URL or header is none.
    #[error("the service's URL, or what is asked of it, makes no valid request")]
    Unsendable(#[source] reqwest::Error),
    #[error("the image service says nothing")]
    Silent,
    /// Fewer bytes came than were told.
    #[error("the image service broke off")]
    Cut,
    #[error("the image service answers {status}{}{sentence}", if sentence.is_empty() { "" } else { ": " })]
    Status {
        status: StatusCode,
        sentence: String,
    },
    #[error("the image service's answer makes no sense: {0}")]
    Nonsense(String),
    #[error("{}", .0.story())]
    Keystone(#[from] Trouble),
    /// In the service's words.
    #[error("the image was not imported: {0}")]
    NotImported(String),
    /// What came later belongs to something else than what came before.
    #[error("the data changed while it was read")]
    Changed,
    #[error("the image's data has the {algo} {found}, not {wanted}")]
    Digest {
        algo: &'static str,
        found: String,
        wanted: String,
    },
    #[error("the service stores {found} bytes as image {image}, not the {wanted} that were sent")]
    Size {
        image: String,
        found: u64,
        wanted: u64,
    },
}

impl Error {
    pub(super) fn nonsense(what: impl Into<String>) -> Self {
        Self::Nonsense(what.into())
    }

    /// Whether the same may go well later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Gone(_) | Self::Silent | Self::Cut => true,
            // 421: another process of the service has what was sent, and may be met next time. 423:
            // an upload that another request has not let go of yet. Not 500: the same would fail the
            // same way.
            Self::Status { status, .. } => {
                [408, 421, 423, 425, 429, 502, 503, 504].contains(&status.as_u16())
            }
            Self::Keystone(trouble) => match trouble {
                Trouble::Gone { .. } | Trouble::Paused => true,
                Trouble::Refused { status, .. } => status.is_server_error(),
                Trouble::Nonsense(_) => false,
            },
            Self::Absent(_)
            | Self::Unsendable(_)
            | Self::Nonsense(_)
            | Self::NotImported(_)
            | Self::Changed
            | Self::Digest { .. }
            | Self::Size { .. } => false,
        }
    }

    /// Whether the data is refused, or how it was to be taken: going on with it later is no use. Of
    /// all else that a service or a proxy before it may say, nothing is lost by another try.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Status { status, .. } => [400, 413, 415, 422, 460].contains(&status.as_u16()),
            _ => self.is_verdict(),
        }
    }

    /// Whether the data was taken, looked at, and found wrong.
    pub(super) fn is_verdict(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::NotImported(_))
    }

    /// Whether the service has heard the request, and will not do it.
    pub(super) fn is_refusal(&self) -> bool {
        let is_refused = matches!(self, Self::Status { status, .. } if status.is_client_error());
        is_refused && !self.is_transient()
    }

    /// Whether the request and what is there do not go together: an upload's offset is another, an
    /// image is not in the state for it.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::CONFLICT)
    }

    /// Whether the image is at fault, and not the request or a service.
    pub(in crate::cli) fn is_of_image(&self) -> bool {
        match self {
            Self::Size { .. } => true,
            Self::Status { status, .. } => *status == StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => self.is_verdict(),
        }
    }
}

/// Errors tell their cause, and never the URL they came from: it may hold what is secret.
impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        match error.is_builder() {
            true => Self::Unsendable(error),
            false => Self::Gone(error),
        }
    }
}

enum Proof {
    Nobody,
    Token(HeaderValue),
    Account(Box<keystone::Session>),
}

/// A service, and what shows it who asks.
pub(super) struct Session {
    client: Client,
    /// Its URL, without version or slash at the end.
    base: String,
    proof: Proof,
    has_answered: AtomicBool,
}

impl Session {
    /// The service and the account that are meant. Keystone is asked where the service is not named.
    /// Of the connections that are free, `idle` are kept: none where a request could not be sent once
    /// more, for uwsgi closes them without saying so.
    pub(super) async fn open(account: &Account, idle: usize) -> anyhow::Result<Self> {
        let who = account.find()?;
        let client = client(&who, idle)?;
        let endpoint = who.endpoint.clone();
        let (proof, endpoint) = match &who.login {
            Login::Nobody => (Proof::Nobody, endpoint),
            Login::Token(token) => (Proof::Token(token.clone()), endpoint),
            Login::Keystone(config) => {
                let session = keystone::Session::over(client.clone(), config);
                let endpoint = match endpoint {
                    Some(endpoint) => endpoint,
                    None => find(&session, &who).await?,
                };
                (Proof::Account(Box::new(session)), Some(endpoint))
            }
        };
        let endpoint = endpoint.context(
            "no image service is named: set OS_CLOUD, or OS_AUTH_URL and an account, or --endpoint URL",
        )?;
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            bail!("the image service's URL {endpoint:?} is no http:// or https:// URL");
        }
        let base = base(&endpoint).to_owned();
        Ok(Self {
            client,
            base,
            proof,
            has_answered: AtomicBool::new(false),
        })
    }

    /// The service's URL, without its version.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request; `fill` adds what it has beside the token, once more where the token had to be
    /// renewed.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut token = self.token(None).await?;
        let mut is_renewed = false;
        loop {
            let mut request = self
                .client
                .request(method.clone(), format!("{}{path}", self.base))
                .header(ACCEPT, "application/json, */*;q=0.5");
            if let Some(token) = &token {
                request = request.header("x-auth-token", token.clone());
            }
            let response = fill(request)
                .send()
                .await
                .map_err(|e| match Error::from(e) {
                    Error::Gone(e)
                        if e.is_connect() && !self.has_answered.load(Ordering::Relaxed) =>
                    {
                        Error::Absent(e)
                    }
                    other => other,
                })?;
            self.has_answered.store(true, Ordering::Relaxed);
            let is_refused = response.status() == StatusCode::UNAUTHORIZED;
            if !is_refused || is_renewed || !matches!(self.proof, Proof::Account(_)) {
                return Ok(response);
            }
            token = self.token(token.as_ref()).await?;
            is_renewed = true;
        }
    }

    /// The same, of a service that has to answer soon.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let answer = tokio::time::timeout(PATIENCE, self.send(method, path, fill));
        answer.await.unwrap_or(Err(Error::Silent))
    }

    /// What a service says as JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, Error> {
        let answer = fine(self.ask(method, path, fill).await?).await?;
        let body = body(answer, MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|e| Error::nonsense(e.to_string()))
    }

    async fn token(&self, stale: Option<&HeaderValue>) -> Result<Option<HeaderValue>, Error> {
        match &self.proof {
            Proof::Nobody => Ok(None),
            Proof::Token(token) => Ok(Some(token.clone())),
            Proof::Account(session) => {
                let token = tokio::time::timeout(PATIENCE, session.own(stale)).await;
                Ok(Some(token.map_err(|_| Error::Silent)??))
            }
        }
    }
}

/// A client of all services here. Redirects are not followed: they would carry tokens elsewhere.
fn client(who: &Who, idle: usize) -> anyhow::Result<Client> {
    let mut client = Client::builder()
        .pool_max_idle_per_host(idle)
        .connect_timeout(Duration::from_secs(10))
        .redirect(Policy::none())
        .user_agent(concat!("glint/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &who.cacert {
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| path.display().to_string())?;
        client = client.tls_certs_merge(certificates);
    }
    if who.insecure {
        client = client.tls_danger_accept_invalid_certs(true);
    }
    client.build().context("setting up TLS")
}

/// The URL of a service without its version.
fn base(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v2").unwrap_or(url).trim_end_matches('/')
}

/// Keystone's catalogue.
#[derive(Deserialize)]
struct Catalog {
    catalog: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    region: Option<String>,
    url: String,
}

impl Catalog {
    /// The URL of the image service.
    fn find(self, region: Option<&str>, interface: &str) -> Option<String> {
        let is_ours = |entry: &Entry| entry.kind == "image";
        let mut endpoints = self.catalog.into_iter().filter(is_ours);
        let fits = |e: &Endpoint| {
            // The clients take publicURL, too.
            interface.trim_end_matches("URL") == e.interface
                && region.is_none_or(|region| e.region.as_deref() == Some(region))
        };
        endpoints.find_map(|entry| Some(entry.endpoints.into_iter().find(fits)?.url))
    }
}

async fn find(session: &keystone::Session, who: &Who) -> anyhow::Result<String> {
    let what = "a question for its catalogue";
    let asked = session.get("/auth/catalog", None, what);
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    let (status, body) = asked.map_err(|_| Error::Silent)?.map_err(Error::from)?;
    if status != StatusCode::OK {
        return Err(Error::from(Trouble::Refused { status, what }).into());
    }
    let catalog: Catalog = serde_json::from_slice(&body)
        .ok()
        .ok_or(Error::Keystone(Trouble::Nonsense(what)))?;
    let region = who.region.as_deref();
    let found = catalog.find(region, &who.interface);
    found.with_context(|| {
        let region = region.map_or(String::new(), |region| format!(" in region {region}"));
        format!(
            "Keystone's catalogue has no image service{region} with the interface {}",
            who.interface
        )
    })
}

/// An answer that is none of failure; another becomes an error that has what the service says.
pub(super) async fn fine(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = body(response, MAX_ANSWER).await.unwrap_or_default();
    let sentence = sentence(status, &String::from_utf8_lossy(&body));
    Err(Error::Status { status, sentence })
}

/// What a failure's page says, without what the status says already.
fn sentence(status: StatusCode, body: &str) -> String {
    #[derive(Deserialize)]
    struct Page {
        message: String,
    }
    let text = serde_json::from_str::<Page>(body).map_or(body.to_owned(), |page| page.message);
    let text = without_tags(&text);
    let words: Vec<_> = text.split_whitespace().collect();
    let text = words.join(" ");
    let mut text = text.trim_start_matches(&status.to_string()).trim();
    if let Some((end, _)) = text.char_indices().nth(MAX_SENTENCE) {
        text = &text[..end];
    }
    text.to_owned()
}

fn without_tags(html: &str) -> String {
    let mut text = String::new();
    let mut is_tag = false;
    for c in html.chars() {
        match c {
            '<' => is_tag = true,
            '>' if is_tag => {
                is_tag = false;
                text.push(' ');
            }
            c if !is_tag => text.push(c),
            _ => {}
        }
    }
    text
}

/// The body of an answer that is no image's data.
async fn body(mut answer: Response, max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut answer).await? {
        if body.len() + chunk.len() > max {
            return Err(Error::nonsense(format!("it is longer than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The next bytes of an answer, which have to come soon.
pub(super) async fn chunk(answer: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
    let chunk = tokio::time::timeout(PATIENCE, answer.chunk()).await;
    Ok(chunk.map_err(|_| Error::Silent)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_urls_are_ours_to_add() {
        for (url, want) in [
            ("http://h:9292", "http://h:9292"),
            ("http://h:9292/v2/", "http://h:9292"),
            ("http://h/image/", "http://h/image"),
        ] {
            assert_eq!(base(url), want);
        }
    }

    #[test]
    fn the_service_is_found_by_region_and_interface() {
        let catalog = || -> Catalog {
            serde_json::from_str(
                r#"{"catalog": [{"type": "identity", "endpoints": []}, {"type": "image",
                "endpoints": [{"interface": "admin", "region": "A", "url": "a"},
                {"interface": "public", "region": "A", "url": "b"},
                {"interface": "public", "region": "B", "url": "c"}]}]}"#,
            )
            .unwrap()
        };
        let find = |region, interface| catalog().find(region, interface);
        assert_eq!(find(None, "public").as_deref(), Some("b"));
        assert_eq!(find(Some("B"), "publicURL").as_deref(), Some("c"));
        assert_eq!(find(Some("A"), "admin").as_deref(), Some("a"));
        assert_eq!(find(Some("C"), "public"), None);
    }

    #[test]
    fn only_refused_data_is_given_up() {
        let of = |status| Error::Status {
            status: StatusCode::from_u16(status).unwrap(),
            sentence: String::new(),
        };
        for status in [400, 413, 415, 422, 460] {
            assert!(of(status).is_final() && !of(status).is_transient());
        }
        for status in [401, 403, 404, 409, 410, 500, 501] {
            assert!(!of(status).is_final() && !of(status).is_transient());
        }
        for status in [421, 423, 429, 502, 503, 504] {
            assert!(!of(status).is_final() && of(status).is_transient());
            assert!(!of(status).is_refusal());
        }
        assert!(of(404).is_refusal() && !of(500).is_refusal());
        assert!(Error::NotImported(String::new()).is_final());
    }

    #[test]
    fn failures_say_what_the_service_says() {
        let status = StatusCode::NOT_FOUND;
        let html = "<html><title>404 Not Found</title>No image\n <b>found</b></html>";
        assert_eq!(sentence(status, html), "No image found");
        let json = r#"{"message": "No image found<br /><br />", "code": "404 Not Found"}"#;
        assert_eq!(sentence(status, json), "No image found");
        let long = "x".repeat(5000);
        assert_eq!(sentence(status, &long).len(), MAX_SENTENCE);
    }
}
