//! Errors towards clients, and the page they are shown on; which failure is which is in [`causes`].
//!
//! Clients of the reference scrape its pages, so ours are the same to the byte: HTML unless the
//! `Accept` header prefers JSON, plain text when it wants neither.

use axum::body::Body;
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use super::json;

mod causes;

/// An answer that says what went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    status: StatusCode,
    says: Says,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug)]
enum Says {
    /// An explanation, and below it a detail.
    Plain { explanation: String, detail: String },
    /// A sentence alone.
    Bare(&'static str),
    /// 415 names the media type of the request.
    MediaType {
        sent: Option<String>,
        detail: String,
    },
    /// 405 and 501 name the method.
    Method {
        method: Method,
        trouble: &'static str,
    },
}

impl Failure {
    /// A failure explained by a sentence.
    pub(super) fn new(status: StatusCode, explanation: impl Into<String>) -> Self {
        Self {
            status,
            says: Says::Plain {
                explanation: explanation.into(),
                detail: String::new(),
            },
            headers: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// A failure with the status' own explanation and a sentence below it.
    pub(super) fn detail(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            says: Says::Plain {
                explanation: explanation(status).into(),
                detail: detail.into(),
            },
            headers: Vec::new(),
        }
    }

    /// 400 with a sentence.
    pub(super) fn bad(explanation: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, explanation)
    }

    /// The status alone, in its own words.
    pub(super) fn of(status: StatusCode) -> Self {
        Self::new(status, explanation(status))
    }

    /// 400 for what is no UTF-8.
    pub(super) fn undecodable() -> Self {
        Self::bad(
            "Error decoding your request. Either the URL or the request body contained \
             characters that could not be decoded by Glance",
        )
    }

    /// 415: the request's media type is not taken here.
    pub(super) fn media_type(sent: Option<&str>, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            says: Says::MediaType {
                sent: sent.map(str::to_owned),
                detail: detail.into(),
            },
            headers: Vec::new(),
        }
    }

    /// 405: `allow` lists what the path takes.
    pub(super) fn method(method: Method, allow: &str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            says: Says::Method {
                method,
                trouble: "is not allowed for this resource",
            },
            headers: Vec::new(),
        }
        .with(ALLOW, allow)
    }

    /// 405 with a sentence of its own.
    pub(super) fn never(allow: &str, sentence: &'static str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            says: Says::Bare(sentence),
            headers: Vec::new(),
        }
        .with(ALLOW, allow)
    }

    /// 501: no such method.
    pub(super) fn not_implemented(method: Method) -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            says: Says::Method {
                method,
                trouble: "is not implemented for this server",
            },
            headers: Vec::new(),
        }
    }

    /// With one more header.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.push((name, value));
        }
        self
    }

    /// The page, as the request's `Accept` wants it.
    pub(super) fn page(&self, method: &Method, accept: &HeaderMap) -> Response {
        let (kind, text) = match preferred(accept) {
            _ if method == Method::HEAD => ("text/html; charset=UTF-8", String::new()),
            Kind::Html => ("text/html; charset=UTF-8", self.html()),
            Kind::Json => ("application/json", self.json()),
            Kind::Text => ("text/plain; charset=UTF-8", self.text()),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        if let Some(phrase) = phrase(self.status) {
            response
                .extensions_mut()
                .insert(ReasonPhrase::from_static(phrase.as_bytes()));
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.extend(self.headers.iter().cloned());
        response
    }

    fn html(&self) -> String {
        let status = self.status_line();
        let body = self.body(escape);
        format!(
            "<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n  \
             {body}\n </body>\n</html>"
        )
    }

    fn json(&self) -> String {
        json::to_string(&json!({
            "message": self.body(str::to_owned),
            "code": self.status_line(),
            "title": title(self.status),
        }))
    }

    fn text(&self) -> String {
        let body = self.body(str::to_owned).replace("<br />", "");
        format!("{}\n\n{}\n", self.status_line(), body.trim_end())
    }

    fn body(&self, escaped: fn(&str) -> String) -> String {
        match &self.says {
            Says::Plain {
                explanation,
                detail,
            } => format!(
                "{}<br /><br />\n{}\n\n",
                escaped(explanation),
                escaped(detail)
            ),
            Says::Bare(sentence) => escaped(sentence),
            // The reference forgets to fill in a type that was not sent (04-upload.http, "no
            // content type").
            Says::MediaType { sent, detail } => format!(
                "The request media type {} is not supported by this server.\n<br /><br />\n{}",
                escaped(sent.as_deref().unwrap_or("${CONTENT_TYPE}")),
                escaped(detail)
            ),
            Says::Method { method, trouble } => format!(
                "The method {} {trouble}. <br /><br />\n",
                escaped(method.as_str())
            ),
        }
    }

    fn status_line(&self) -> String {
        format!("{} {}", self.status.as_u16(), title(self.status))
    }
}

/// Travels as an extension and becomes a page once the request's `Accept` is at hand
/// (`middleware::pages`).
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The reference's reason phrases where they are older than ours.
fn phrase(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Some("Request Entity Too Large"),
        StatusCode::RANGE_NOT_SATISFIABLE => Some("Request Range Not Satisfiable"),
        _ => None,
    }
}

fn title(status: StatusCode) -> &'static str {
    phrase(status)
        .or(status.canonical_reason())
        .unwrap_or("Unknown")
}

const fn explanation(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "This server could not verify that you are authorized to access the document you \
             requested. Either you supplied the wrong credentials (e.g., bad password), or your \
             browser does not understand how to supply the credentials required."
        }
        StatusCode::FORBIDDEN => "Access was denied to this resource.",
        StatusCode::NOT_FOUND => "The resource could not be found.",
        StatusCode::CONFLICT => "There was a conflict when trying to complete your request.",
        StatusCode::GONE => {
            "This resource is no longer available.  No forwarding address is given."
        }
        StatusCode::PAYLOAD_TOO_LARGE => "The body of your request was too large for this server.",
        StatusCode::RANGE_NOT_SATISFIABLE => "The Range requested is not available.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The server is currently unavailable. Please try again at a later time."
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            "The server has either erred or is incapable of performing the requested operation."
        }
        _ => {
            "The server could not comply with the request since it is either malformed or \
             otherwise incorrect."
        }
    }
}

/// A page's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Html,
    Json,
    Text,
}

/// What `Accept` likes best: HTML wins a tie, neither gets plain text.
fn preferred(headers: &HeaderMap) -> Kind {
    let accept: Vec<_> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter(|v| !v.trim().is_empty())
        .collect();
    if accept.is_empty() {
        return Kind::Html;
    }
    let html = quality(&accept, "text", "html");
    let json = quality(&accept, "application", "json");
    if html == 0 && json == 0 {
        Kind::Text
    } else if json > html {
        Kind::Json
    } else {
        Kind::Html
    }
}

/// How much a media type is wanted, in thousandths: the most specific range counts.
fn quality(accept: &[&str], kind: &str, subkind: &str) -> u32 {
    let mut best = (0, 0);
    for range in accept {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let q = parts
            .find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
            .map_or(Some(1.0), |q| q.parse::<f32>().ok())
            .filter(|q| (0.0..=1.0).contains(q));
        let specific = match media.split_once('/') {
            Some((k, s)) if k == kind && s == subkind => 3,
            Some((k, "*")) if k == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000"
        )]
        if let Some(q) = q
            && specific > best.0
        {
            best = (specific, (q * 1000.0) as u32);
        }
    }
    best.1
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Kind {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        preferred(&headers)
    }

    #[test]
    fn pages_are_as_wanted() {
        assert_eq!(preferred(&HeaderMap::new()), Kind::Html);
        for (text, want) in [
            ("*/*", Kind::Html),
            ("application/json", Kind::Json),
            ("application/json;q=0.5, text/html;q=0.4", Kind::Json),
            ("application/json, text/*", Kind::Html),
            ("text/html;q=0, */*", Kind::Json),
            ("application/octet-stream", Kind::Text),
            ("", Kind::Html),
        ] {
            assert_eq!(accept(text), want, "{text}");
        }
    }

    #[test]
    fn what_clients_sent_is_escaped() {
        let page = Failure::bad("<script>'\"&").html();
        assert!(page.contains("&lt;script&gt;&#x27;&quot;&amp;<br />"));
    }

    #[test]
    fn text_has_no_markup() {
        let failure = Failure::detail(StatusCode::CONFLICT, "Property a does not exist.");
        assert_eq!(
            failure.text(),
            "409 Conflict\n\nThere was a conflict when trying to complete your request.\n\
             Property a does not exist.\n"
        );
    }
}
