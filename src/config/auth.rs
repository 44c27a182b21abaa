//! `[auth]`

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::KeystoneConfig;

/// Who callers are, and what they may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// How callers are known.
    pub mode: AuthMode,
    /// The project that owns what is created without authentication.
    pub project: String,
    /// Mode `keystone`: whom to ask.
    pub keystone: KeystoneConfig,
    /// Whether callers without a valid token may look at what everybody may; they change nothing.
    pub allow_anonymous_access: bool,
    /// The tokens of mode `static`, as `glint auth token` makes them.
    pub tokens_file: PathBuf,
    /// Rules above the defaults, in oslo.policy's syntax: YAML, or JSON where it is called so.
    pub policy_file: Option<PathBuf>,
    /// Whether tokens that are scoped to a domain or to the system pass no rule.
    pub enforce_scope: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            project: "admin".into(),
            keystone: KeystoneConfig::default(),
            allow_anonymous_access: false,
            tokens_file: PathBuf::new(),
            policy_file: None,
            enforce_scope: true,
        }
    }
}

/// `[auth] mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Everyone who reaches the port is an administrator; loopback only.
    None,
    /// Tokens in a file.
    Static,
    /// Keystone's tokens.
    Keystone,
}

impl Auth {
    pub(super) fn validate(&self, listen: SocketAddr, faults: &mut Vec<String>) {
        match self.mode {
            AuthMode::None if !listen.ip().is_loopback() => faults.push(format!(
                "api.listen is {listen}, but without authentication only loopback addresses are \
                 served"
            )),
            AuthMode::Static if self.tokens_file.as_os_str().is_empty() => {
                faults.push("auth.mode is \"static\", and auth.tokens_file is not set".into());
            }
            AuthMode::Keystone => self.keystone.validate("auth.keystone", faults),
            AuthMode::None | AuthMode::Static => {}
        }
    }

    /// Where callers without a token are told to get one.
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&str> {
        if self.mode != AuthMode::Keystone {
            return None;
        }
        let keystone = &self.keystone;
        let uri = keystone.www_authenticate_uri.as_ref();
        uri.or(keystone.auth_url.as_ref()).map(String::as_str)
    }
}
