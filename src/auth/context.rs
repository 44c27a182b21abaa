//! The caller of one request.

use std::sync::Arc;

use super::policy::{self, RuleSet};

/// What a caller's roles are for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    /// A project, or nothing at all.
    #[default]
    Project,
    /// The whole installation.
    System,
    /// The domain with this id.
    Domain(String),
}

/// Who asks, for whom, and in which request.
#[derive(Clone, Debug)]
pub struct Context {
    /// The user's id.
    pub user: Option<String>,
    /// The domain they are of.
    pub user_domain: Option<String>,
    /// The project they act for.
    pub project: Option<String>,
    /// The domain it is of.
    pub project_domain: Option<String>,
    /// What their roles are for.
    pub scope: Scope,
    /// Their roles in it, in lower case.
    pub roles: Vec<String>,
    /// The roles of the service that asks on their behalf, in lower case.
    pub service_roles: Vec<String>,
    /// Whether they are an administrator: the rule `context_is_admin`.
    pub is_admin: bool,
    /// Whether they may change nothing at all.
    pub read_only: bool,
    /// The request's id, `req-…`.
    pub request_id: String,
    /// The rules that hold for this request.
    pub rules: Arc<RuleSet>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            user: None,
            user_domain: None,
            project: None,
            project_domain: None,
            scope: Scope::default(),
            roles: Vec::new(),
            service_roles: Vec::new(),
            is_admin: false,
            read_only: false,
            request_id: String::new(),
            rules: RuleSet::stock(),
        }
    }
}

impl Context {
    /// An administrator, by the default rules.
    #[must_use]
    pub fn administrator(user: &str, project: &str) -> Self {
        Self::with_roles(user, project, &["admin"])
    }

    /// Nobody in particular: sees what everybody sees, changes nothing.
    #[must_use]
    pub fn anonymous(rules: Arc<RuleSet>) -> Self {
        Self {
            read_only: true,
            rules,
            ..Self::default()
        }
    }

    /// Somebody with these roles and those that they imply, by the default rules.
    #[must_use]
    pub fn with_roles(user: &str, project: &str, roles: &[&str]) -> Self {
        let mut roles: Vec<_> = roles.iter().map(|r| r.to_lowercase()).collect();
        imply(&mut roles);
        Self {
            user: Some(user.to_owned()),
            project: Some(project.to_owned()),
            roles,
            ..Self::default()
        }
        .under(RuleSet::stock())
    }

    /// The same caller under other rules, which also say who is an administrator.
    #[must_use]
    pub fn under(mut self, rules: Arc<RuleSet>) -> Self {
        self.is_admin = rules.allows("context_is_admin", &self, &policy::Owned::default());
        self.rules = rules;
        self
    }

    /// Whether the caller acts for the project that owns something.
    #[must_use]
    pub fn owns(&self, owner: Option<&str>) -> bool {
        owner.is_some() && self.project.as_deref() == owner
    }
}

/// Adds the roles that others bring along, where no Keystone does: `admin` is `member` too, and
/// `member` is `reader`.
fn imply(roles: &mut Vec<String>) {
    for (role, implied) in [("admin", "member"), ("member", "reader")] {
        let has = |name| roles.iter().any(|r| r == name);
        if has(role) && !has(implied) {
            roles.push(implied.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_imply_lesser_ones() {
        let of = |role| Context::with_roles("u", "p", &[role]);
        assert_eq!(of("Admin").roles, ["admin", "member", "reader"]);
        assert_eq!(of("member").roles, ["member", "reader"]);
        assert_eq!(of("reader").roles, ["reader"]);
        assert!(of("admin").is_admin && !of("member").is_admin);
    }

    #[test]
    fn nobody_owns_what_has_no_owner() {
        let nobody = Context::default();
        assert!(!nobody.owns(None) && !nobody.owns(Some("p")));
    }
}
