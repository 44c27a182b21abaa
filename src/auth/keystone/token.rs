//! What Keystone says of a token.

use serde::Deserialize;

use crate::auth::{Context, Scope};
use crate::domain::Timestamp;

/// The answer's body.
#[derive(Deserialize)]
pub(super) struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    expires_at: String,
    user: Party,
    project: Option<Party>,
    domain: Option<Named>,
    system: Option<System>,
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Party {
    id: String,
    domain: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct System {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

/// A valid token's holder.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// Who it is; without rules.
    pub(super) caller: Context,
    /// When the token ends.
    pub(super) expires: Timestamp,
}

impl Answer {
    /// The holder; `None` when the answer makes no sense, which is trusted as little as a refusal.
    pub(super) fn holder(self) -> Option<Holder> {
        let token = self.token;
        let expires = Timestamp::parse(&token.expires_at)?;
        let scope = match (&token.project, token.domain, token.system) {
            (None, Some(domain), _) => Scope::Domain(domain.id),
            (None, None, Some(System { all: true })) => Scope::System,
            // Or not scoped at all: somebody without a project and without roles.
            _ => Scope::Project,
        };
        let domain = |party: &Party| party.domain.as_ref().map(|d| d.id.clone());
        Some(Holder {
            expires,
            caller: Context {
                user_domain: domain(&token.user),
                user: Some(token.user.id),
                project_domain: token.project.as_ref().and_then(domain),
                project: token.project.map(|p| p.id),
                scope,
                roles: token.roles.iter().map(|r| r.name.to_lowercase()).collect(),
                ..Context::default()
            },
        })
    }
}

/// Bytes of the longest token that is looked at. Fernet tokens have some 200, signed ones some 800.
const MAX_TOKEN: usize = 4096;

/// The token as text, if it can be one at all: everything else is refused unseen.
pub(super) fn plausible(token: &[u8]) -> Option<&str> {
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN;
    let text = fits.then(|| std::str::from_utf8(token).ok()).flatten()?;
    text.bytes().all(|b| b.is_ascii_graphic()).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn holder(more: &Value) -> Option<Holder> {
        let mut token = json!({
            "expires_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "u", "name": "U", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": "1", "name": "Member"}],
            "methods": ["password"],
        });
        for (name, value) in more.as_object().unwrap() {
            token[name] = value.clone();
        }
        serde_json::from_value::<Answer>(json!({"token": token}))
            .ok()?
            .holder()
    }

    #[test]
    fn a_token_has_a_scope() {
        let project = json!({"project": {"id": "p", "domain": {"id": "d"}}});
        let found = holder(&project).unwrap();
        assert_eq!(found.expires, Timestamp(1_767_225_600_000_000));
        assert_eq!(found.caller.project.as_deref(), Some("p"));
        assert_eq!(found.caller.project_domain.as_deref(), Some("d"));
        assert_eq!(found.caller.roles, ["member"]);
        for (more, scope) in [
            (project, Scope::Project),
            (json!({"system": {"all": true}}), Scope::System),
            (json!({"domain": {"id": "d"}}), Scope::Domain("d".into())),
            (json!({}), Scope::Project),
        ] {
            assert_eq!(holder(&more).unwrap().caller.scope, scope, "{more}");
        }
    }

    #[test]
    fn nonsense_is_nobody() {
        for more in [
            json!({"expires_at": "soon"}),
            json!({"expires_at": null}),
            json!({"user": "u"}),
            json!({"roles": [1]}),
        ] {
            assert!(holder(&more).is_none(), "{more}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_unseen() {
        assert_eq!(plausible(b"gAAAA-b_c="), Some("gAAAA-b_c="));
        for bad in [&b""[..], b"a b", b"a\x00", b"\xff", &[b'a'; MAX_TOKEN + 1]] {
            assert_eq!(plausible(bad), None);
        }
    }
}
