//! One question to the rules: may this caller do that to this target?

use std::borrow::Cow;

use super::Target;
use super::enforce::RuleSet;
use super::parse::{Check, Piece, Template};
use crate::auth::{Context, Scope};

/// Checks evaluated for one question at most. No cycles are let in, but rules that double each
/// other double the work.
const MAX_CHECKS: u32 = 10_000;

pub(super) struct Question<'a> {
    pub(super) rules: &'a RuleSet,
    pub(super) ctx: &'a Context,
    pub(super) target: &'a dyn Target,
}

impl Question<'_> {
    /// Whether the rule `name` lets the caller; none of that name does not.
    pub(super) fn rule(&self, name: &str, work: &mut u32) -> bool {
        self.rules
            .check(name)
            .is_some_and(|check| self.holds(check, work))
    }

    pub(super) fn holds(&self, check: &Check, work: &mut u32) -> bool {
        *work += 1;
        if *work > MAX_CHECKS {
            return false;
        }
        match check {
            Check::Always => true,
            Check::Never => false,
            // What ran out of work said nothing: its opposite must not hold for that.
            Check::Not(inner) => !self.holds(inner, work) && *work <= MAX_CHECKS,
            Check::And(all) => all.iter().all(|c| self.holds(c, work)),
            Check::Or(any) => any.iter().any(|c| self.holds(c, work)),
            Check::Rule(name) => self.rule(name, work),
            Check::Role(role) => self.filled(role).is_some_and(|role| {
                let role = role.to_lowercase();
                self.ctx.roles.contains(&role)
            }),
            Check::Credential { name, is } => {
                self.filled(is).is_some_and(|is| knows(self.ctx, name, &is))
            }
            Check::Literal { text, is } => self.filled(is).is_some_and(|is| is == *text),
        }
    }

    /// The text with the target's attributes in it; `None` when it lacks one.
    fn filled<'t>(&'t self, template: &'t Template) -> Option<Cow<'t, str>> {
        let value = |piece: &'t Piece| match piece {
            Piece::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Piece::Attribute(name) => self.target.attribute(name),
        };
        match template.0.as_slice() {
            [] => Some("".into()),
            [one] => value(one),
            many => {
                let parts: Option<Vec<_>> = many.iter().map(value).collect();
                Some(parts?.concat().into())
            }
        }
    }
}

/// What policies can ask about a caller, by the names of oslo.policy and of Glance.
pub(super) const CREDENTIALS: [&str; 17] = [
    "user_id",
    "user",
    "project_id",
    "project",
    "tenant",
    "tenant_id",
    "roles",
    "service_roles",
    "is_admin",
    "read_only",
    "system_scope",
    "domain_id",
    "user_domain_id",
    "user_domain",
    "project_domain_id",
    "project_domain",
    "request_id",
];

/// Whether the credential `name` of the caller is `value`, or holds it.
fn knows(ctx: &Context, name: &str, value: &str) -> bool {
    let flag = |flag| value == if flag { "True" } else { "False" };
    let text = |text: &Option<String>| text.as_deref() == Some(value);
    match name {
        "user_id" | "user" => text(&ctx.user),
        "project_id" | "project" | "tenant" | "tenant_id" => text(&ctx.project),
        "roles" => ctx.roles.iter().any(|r| r == value),
        "service_roles" => ctx.service_roles.iter().any(|r| r == value),
        "is_admin" => flag(ctx.is_admin),
        "read_only" => flag(ctx.read_only),
        "system_scope" => ctx.scope == Scope::System && value == "all",
        "domain_id" => matches!(&ctx.scope, Scope::Domain(id) if id == value),
        "user_domain_id" | "user_domain" => text(&ctx.user_domain),
        "project_domain_id" | "project_domain" => text(&ctx.project_domain),
        "request_id" => ctx.request_id == value,
        _ => false,
    }
}
