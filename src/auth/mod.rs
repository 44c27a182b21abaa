//! Who asks, and what they may do.

pub mod context;
pub mod keystone;
pub mod policy;
pub mod protections;
mod tokens;

use std::sync::Arc;

pub use context::{Context, Scope};
pub use tokens::{Digits, Entry, Moment, StaticTokens, TokenFile};

use crate::config::{Auth, AuthMode};
use keystone::Keystone;
use policy::RuleSet;

/// How callers are known.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Nobody is asked: everyone is the administrator of one project.
    Open(Context),
    /// A fixed set of tokens.
    Static(StaticTokens),
    /// Keystone's tokens.
    Keystone(Arc<Keystone>),
}

/// Why a caller is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// They did not say who they are, or it is not true: 401.
    Unknown,
    /// It cannot be found out now: 503.
    Unavailable,
}

/// What a request brings along to say who sends it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Proof<'a> {
    /// `X-Auth-Token`
    pub token: Option<&'a [u8]>,
    /// `X-Service-Token`: of a service that asks for somebody else.
    pub service: Option<&'a [u8]>,
}

impl Identity {
    /// As configured.
    ///
    /// # Errors
    /// When a file that it needs cannot be read.
    pub fn from_config(auth: &Auth) -> Result<Self, String> {
        Ok(match auth.mode {
            AuthMode::None => Self::Open(Context::administrator("admin", &auth.project)),
            AuthMode::Keystone => Self::Keystone(Arc::new(Keystone::new(&auth.keystone)?)),
            AuthMode::Static => Self::Static(TokenFile::load(&auth.tokens_file)?.into()),
        })
    }

    /// The Keystone that knows callers, if one does.
    #[must_use]
    pub fn keystone(&self) -> Option<Arc<Keystone>> {
        match self {
            Self::Keystone(keystone) => Some(keystone.clone()),
            _ => None,
        }
    }

    /// Who sends `proof`, under `rules`.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn of(&self, proof: Proof<'_>, rules: Arc<RuleSet>) -> Result<Context, Refusal> {
        let caller = match self {
            Self::Open(anyone) => anyone.clone(),
            Self::Static(tokens) => {
                let caller = proof.token.and_then(|t| tokens.find(t));
                let mut caller = caller.ok_or(Refusal::Unknown)?;
                if let Some(service) = proof.service {
                    let service = tokens.find(service).ok_or(Refusal::Unknown)?;
                    caller.service_roles = service.roles;
                }
                caller
            }
            Self::Keystone(keystone) => keystone.caller(proof).await?,
        };
        Ok(caller.under(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(token: &[u8]) -> Proof<'_> {
        Proof {
            token: Some(token),
            service: None,
        }
    }

    #[tokio::test]
    async fn only_a_known_token_is_somebody() {
        let mut tokens = StaticTokens::default();
        tokens.add("t1", Context::administrator("root", "p"));
        let identity = Identity::Static(tokens);
        let ask = async |proof| identity.of(proof, RuleSet::stock()).await;
        let root = ask(proof(b"t1")).await.unwrap();
        assert_eq!(root.user.as_deref(), Some("root"));
        assert_eq!(ask(proof(b"t2")).await.unwrap_err(), Refusal::Unknown);
        assert_eq!(ask(Proof::default()).await.unwrap_err(), Refusal::Unknown);
    }

    #[tokio::test]
    async fn a_service_brings_its_roles_along() {
        let mut tokens = StaticTokens::default();
        tokens.add("user", Context::with_roles("u", "p", &["member"]));
        tokens.add("nova", Context::with_roles("nova", "s", &["service"]));
        let identity = Identity::Static(tokens);
        let both = Proof {
            service: Some(b"nova"),
            ..proof(b"user")
        };
        let caller = identity.of(both, RuleSet::stock()).await.unwrap();
        assert_eq!(caller.user.as_deref(), Some("u"));
        assert_eq!(caller.service_roles, ["service"]);
        let forged = Proof {
            service: Some(b"forged"),
            ..proof(b"user")
        };
        assert!(identity.of(forged, RuleSet::stock()).await.is_err());
    }

    #[tokio::test]
    async fn without_authentication_everyone_is_the_administrator() {
        let auth = Auth::default();
        let identity = Identity::from_config(&auth).unwrap();
        let caller = identity.of(Proof::default(), RuleSet::stock()).await;
        let caller = caller.unwrap();
        assert!(caller.is_admin);
        assert_eq!(caller.project.as_deref(), Some(auth.project.as_str()));
    }
}
