//! Callers known by Keystone's v3 tokens.
//!
//! ```text
//!  token ─► plausible? ─► cache, by SHA-256 ─► one call a token, however many ask ─► Keystone
//!             no: 401       valid, refused        GET /v3/auth/tokens
//! ```
//! - A valid token's answer is kept for `cache_seconds`, and never counts past the token's own end. A
//!   token that is revoked is refused after `cache_seconds` at the latest.
//! - A refused token is known for a few seconds, so that a client with an old one costs nothing.
//! - When Keystone cannot be asked the answer is 503; nothing is kept then, and nobody let in.
//! - Tokens of application credentials with access rules are refused: Keystone hands them only to
//!   services that say they enforce such rules, and we do not say so.

mod session;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use session::{Session, Trouble};

use super::{Context, Proof, Refusal};
use crate::config::KeystoneConfig;
use crate::domain::Timestamp;
use token::{Answer, Holder, plausible};

/// For how long a refused token is known, at most.
const REFUSED: Duration = Duration::from_secs(10);

/// A Keystone, and what it said of late.
pub struct Keystone {
    session: Session,
    answers: Cache<Key, Option<Arc<Holder>>>,
    service_roles: Vec<String>,
}

/// Digest of a token, and whether its end does not matter.
type Key = ([u8; 32], bool);

impl Keystone {
    /// As configured; nothing is asked yet.
    ///
    /// # Errors
    /// When the file of certificates cannot be read.
    pub fn new(config: &KeystoneConfig) -> Result<Self, String> {
        let kept = Kept {
            valid: Duration::from_secs(config.cache_seconds()),
        };
        let roles = config.service_token_roles.as_deref();
        Ok(Self {
            session: Session::new(config)?,
            answers: Cache::builder()
                .max_capacity(config.cache_entries)
                .expire_after(kept)
                .build(),
            service_roles: roles.map_or_else(
                || vec!["service".to_owned()],
                |roles| roles.iter().map(|r| r.to_lowercase()).collect(),
            ),
        })
    }

    /// Who sends `proof`.
    ///
    /// # Errors
    /// `Unknown` when the token, or the token of the service that asks for somebody, is not valid;
    /// `Unavailable` when Keystone does not say.
    pub async fn caller(&self, proof: Proof<'_>) -> Result<Context, Refusal> {
        let token = proof.token.ok_or(Refusal::Unknown)?;
        let service = match proof.service {
            Some(service) => Some(self.holder(service, false).await?),
            None => None,
        };
        // A long job of a service may outlive the token of the one it works for.
        let trusted = service.as_ref().is_some_and(|service| {
            let mut roles = service.caller.roles.iter();
            roles.any(|role| self.service_roles.contains(role))
        });
        let holder = match self.holder(token, false).await {
            Err(Refusal::Unknown) if trusted => self.holder(token, true).await?,
            known => known?,
        };
        let mut caller = holder.caller.clone();
        if let Some(service) = service {
            caller.service_roles.clone_from(&service.caller.roles);
        }
        Ok(caller)
    }

    async fn holder(&self, token: &[u8], expired_too: bool) -> Result<Arc<Holder>, Refusal> {
        let token = plausible(token).ok_or(Refusal::Unknown)?;
        let key = (Sha256::digest(token).into(), expired_too);
        let asked = self.answers.try_get_with(key, self.ask(token, expired_too));
        let answer = asked.await.map_err(|trouble: Arc<Trouble>| {
            match &*trouble {
                // Logged by the one that found out.
                Trouble::Paused => tracing::debug!("{trouble}"),
                _ => tracing::error!("no token can be checked: {}", trouble.story()),
            }
            Refusal::Unavailable
        })?;
        answer
            .filter(|holder| expired_too || holder.expires > Timestamp::now())
            .ok_or(Refusal::Unknown)
    }

    /// Asks for something else that Keystone keeps, as ourselves.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
    ) -> Result<T, Trouble> {
        match self.session.get(path, None, what).await? {
            (StatusCode::OK, body) => {
                serde_json::from_slice(&body).map_err(|_| Trouble::Nonsense(what))
            }
            (status, _) => Err(Trouble::Refused { status, what }),
        }
    }

    async fn ask(&self, token: &str, expired_too: bool) -> Result<Option<Arc<Holder>>, Trouble> {
        let what = "the check of a token";
        let mut subject = HeaderValue::from_str(token).map_err(|_| Trouble::Nonsense(what))?;
        subject.set_sensitive(true);
        let path = if expired_too {
            "/auth/tokens?nocatalog&allow_expired=1"
        } else {
            "/auth/tokens?nocatalog"
        };
        let (status, body) = self.session.get(path, Some(&subject), what).await?;
        match status {
            StatusCode::OK => {
                let answer: Answer =
                    serde_json::from_slice(&body).map_err(|_| Trouble::Nonsense(what))?;
                let holder = answer.holder().ok_or(Trouble::Nonsense(what))?;
                Ok(Some(Arc::new(holder)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(Trouble::Refused { status, what }),
        }
    }
}

/// How long answers are kept.
struct Kept {
    valid: Duration,
}

impl Expiry<Key, Option<Arc<Holder>>> for Kept {
    fn expire_after_create(
        &self,
        _: &Key,
        answer: &Option<Arc<Holder>>,
        _: Instant,
    ) -> Option<Duration> {
        Some(match answer {
            Some(_) => self.valid,
            None => self.valid.min(REFUSED),
        })
    }
}

/// Blank: there are tokens inside.
impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keystone")
    }
}
