//! `[cors]`

use serde::Deserialize;

/// What browsers may do here on behalf of pages from elsewhere. Off until an origin is allowed.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins (`https://horizon.example`), or `*`.
    pub allowed_origins: Vec<String>,
    /// Whether requests may carry cookies and the like.
    pub allow_credentials: bool,
    /// Seconds a browser may remember an answer.
    pub max_age: u64,
    /// Methods allowed.
    pub allow_methods: Vec<String>,
    /// Headers a request may have besides the simple ones.
    pub allow_headers: Vec<String>,
    /// Headers of an answer that a page may read.
    pub expose_headers: Vec<String>,
}

impl Default for Cors {
    fn default() -> Self {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        Self {
            allowed_origins: Vec::new(),
            allow_credentials: true,
            max_age: 3600,
            allow_methods: words("GET PUT POST DELETE PATCH"),
            allow_headers: words(
                "Content-MD5 X-Image-Meta-Checksum X-Storage-Token Accept-Encoding X-Auth-Token \
                 X-Identity-Status X-Roles X-Service-Catalog X-User-Id X-Tenant-Id \
                 X-OpenStack-Request-ID",
            ),
            expose_headers: words(
                "X-Image-Meta-Checksum X-Auth-Token X-Subject-Token X-Service-Token \
                 X-OpenStack-Request-ID",
            ),
        }
    }
}
