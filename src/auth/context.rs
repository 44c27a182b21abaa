//! The caller of one request.

/// A role that the policies know. `admin` implies `member`, `member` implies `reader`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// May look.
    Reader,
    /// May make and change what is their project's.
    Member,
    /// May do everything.
    Admin,
}

/// Who asks, for whom, and in which request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The user's id.
    pub user: Option<String>,
    /// The project they act for.
    pub project: Option<String>,
    /// Their roles in it, in lower case.
    pub roles: Vec<String>,
    /// Whether they are an administrator.
    pub is_admin: bool,
    /// Whether they may change nothing at all.
    pub read_only: bool,
    /// The request's id, `req-…`.
    pub request_id: String,
}

impl Context {
    /// An administrator.
    #[must_use]
    pub fn administrator(user: &str, project: &str) -> Self {
        Self {
            is_admin: true,
            ..Self::with_roles(user, project, &["admin", "member", "reader"])
        }
    }

    /// Somebody with just these roles.
    #[must_use]
    pub fn with_roles(user: &str, project: &str, roles: &[&str]) -> Self {
        Self {
            user: Some(user.to_owned()),
            project: Some(project.to_owned()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Whether the caller has the role, or one that implies it.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        let highest = self.roles.iter().filter_map(|r| match r.as_str() {
            "reader" => Some(Role::Reader),
            "member" => Some(Role::Member),
            "admin" => Some(Role::Admin),
            _ => None,
        });
        self.is_admin || highest.max() >= Some(role)
    }

    /// Whether the caller acts for the project that owns something.
    #[must_use]
    pub fn owns(&self, owner: Option<&str>) -> bool {
        owner.is_some() && self.project.as_deref() == owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_imply_lesser_ones() {
        let member = Context::with_roles("u", "p", &["member"]);
        assert!(member.has(Role::Reader) && member.has(Role::Member));
        assert!(!member.has(Role::Admin));
        assert!(!Context::default().has(Role::Reader));
    }

    #[test]
    fn nobody_owns_what_has_no_owner() {
        let nobody = Context::default();
        assert!(!nobody.owns(None) && !nobody.owns(Some("p")));
    }
}
