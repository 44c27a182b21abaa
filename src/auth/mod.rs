//! Who asks, and what they may do.

pub mod context;
pub mod policy;

use std::collections::HashMap;

use sha2::{Digest, Sha256};

pub use context::{Context, Role};

use crate::config::{Auth, AuthMode};

/// How callers are known.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Nobody is asked: everyone is the administrator of one project.
    Open(Context),
    /// A fixed set of tokens.
    Static(StaticTokens),
}

/// The caller is unknown: 401.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

impl Identity {
    /// As configured.
    #[must_use]
    pub fn from_config(auth: &Auth) -> Self {
        match auth.mode {
            AuthMode::None => Self::Open(Context::administrator("admin", &auth.project)),
        }
    }

    /// Who sends `token`.
    ///
    /// # Errors
    /// [`Unknown`] when nobody does.
    pub fn of(&self, token: Option<&[u8]>) -> Result<Context, Unknown> {
        match self {
            Self::Open(anyone) => Ok(anyone.clone()),
            Self::Static(tokens) => token.and_then(|t| tokens.find(t)).ok_or(Unknown),
        }
    }
}

/// Callers by token. Only digests of the tokens are kept, so neither a dump nor the time a lookup
/// takes tells one.
#[derive(Clone, Default, Debug)]
pub struct StaticTokens(HashMap<[u8; 32], Context>);

impl StaticTokens {
    /// Makes `token` the token of `caller`.
    pub fn add(&mut self, token: &str, caller: Context) {
        self.0.insert(Sha256::digest(token).into(), caller);
    }

    fn find(&self, token: &[u8]) -> Option<Context> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0.get(&digest).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_token_is_somebody() {
        let mut tokens = StaticTokens::default();
        tokens.add("t1", Context::administrator("root", "p"));
        let identity = Identity::Static(tokens);
        assert_eq!(
            identity.of(Some(b"t1")).unwrap().user.as_deref(),
            Some("root")
        );
        assert_eq!(identity.of(Some(b"t2")).unwrap_err(), Unknown);
        assert_eq!(identity.of(None).unwrap_err(), Unknown);
    }

    #[test]
    fn without_authentication_everyone_is_the_administrator() {
        let caller = Identity::from_config(&Auth::default()).of(None).unwrap();
        assert!(caller.is_admin && caller.has(Role::Member));
        assert_eq!(
            caller.project.as_deref(),
            Some(Auth::default().project.as_str())
        );
    }
}
