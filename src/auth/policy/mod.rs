//! Who may do what: the rules of Glance's secure RBAC as defaults ([`defaults`]), an operator's
//! `policy.yaml` above them.
//!
//! Handlers call a rule by its name, `policy::modify_image(&ctx, &image)?`. The rules that hold for
//! a request travel in its [`Context`](super::Context): it sees one set of them from beginning to
//! end, also when they are read again meanwhile.
//!
//! What a caller may not *see* is no matter of these rules: [`visible`] says it, and the answer is
//! 404 before any rule is asked.

mod defaults;
mod enforce;
mod file;
mod parse;
mod question;
mod rules;
mod targets;

pub use enforce::{Effective, Policies, RuleSet};
pub use file::load;
pub use rules::*;
pub use targets::{Membership, Owned};

/// A rule that said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// Its name.
    pub rule: &'static str,
    /// Whether the caller may not know either that the object exists: 404 instead of 403.
    pub hidden: bool,
}

/// What a rule said.
pub type Verdict = Result<(), Denied>;

/// What a rule is asked about: `%(name)s` in a check is one of its attributes.
pub trait Target {
    /// An attribute as a policy compares it: `None` where there is none or it has no value.
    fn attribute(&self, name: &str) -> Option<std::borrow::Cow<'_, str>>;
}
