//! Property protections: who may see and change which custom properties, from a file as operators of
//! the reference keep it. Sections are regular expressions; the first one that is found anywhere in a
//! property's name decides, and where none is, nobody may anything.
//!
//! ```ini
//! [^x_billing]
//! create = admin
//! read = admin, member
//! update = !
//! delete = !
//! [.*]
//! create = @
//! read = @
//! update = @
//! delete = @
//! ```
//!
//! Words other than `@` (everyone) and `!` (nobody) are roles, or, by the configuration, the name of
//! one rule of the policies.

use regex_lite::Regex;

use super::Context;
use super::policy::Owned;
use crate::config::{Api, ProtectedBy};

/// What is done to a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Set one that was not there.
    Create,
    /// See it.
    Read,
    /// Set it again.
    Update,
    /// Take it away.
    Delete,
}

const ACTS: [(&str, Act); 4] = [
    ("create", Act::Create),
    ("read", Act::Read),
    ("update", Act::Update),
    ("delete", Act::Delete),
];

/// The sections of a file; `None` where there is none, and everybody may everything.
#[derive(Debug, Default)]
pub struct Protections(Option<Vec<Section>>);

#[derive(Debug)]
struct Section {
    names: Regex,
    /// In the order of [`ACTS`].
    who: [Who; 4],
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    Everyone,
    Nobody,
    Roles(Vec<String>),
    /// Whom the rule of this name lets.
    Policy(String),
}

impl Protections {
    /// Reads the file that is configured, if one is.
    ///
    /// # Errors
    /// All that is wrong with it, one sentence each.
    pub fn load(api: &Api) -> Result<Self, Vec<String>> {
        let Some(path) = &api.property_protection_file else {
            return Ok(Self::default());
        };
        let parsed = match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, api.property_protection_rule_format),
            Err(e) => Err(vec![e.to_string()]),
        };
        let placed = |fault| format!("{}: {fault}", path.display());
        parsed.map_err(|faults| faults.into_iter().map(placed).collect())
    }

    fn parse(text: &str, by: ProtectedBy) -> Result<Self, Vec<String>> {
        let mut sections: Vec<Section> = Vec::new();
        let mut faults = Vec::new();
        for (n, line) in text.lines().map(str::trim).enumerate() {
            let mut fault = |what: &str| faults.push(format!("line {}: {what}", n + 1));
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(names) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                match Regex::new(names) {
                    Ok(names) => sections.push(Section {
                        names,
                        who: [const { Who::Nobody }; 4],
                    }),
                    Err(e) => fault(&e.to_string()),
                }
                continue;
            }
            let Some((key, value)) = line.split_once(['=', ':']) else {
                fault("neither a section nor a rule");
                continue;
            };
            let act = ACTS.iter().position(|(name, _)| *name == key.trim());
            match (act, sections.last_mut()) {
                (None, _) => fault("create, read, update or delete is expected"),
                (_, None) => fault("a rule before the first section"),
                (Some(act), Some(section)) => match parse_who(value, by) {
                    Ok(who) => section.who[act] = who,
                    Err(what) => fault(what),
                },
            }
        }
        if faults.is_empty() {
            Ok(Self(Some(sections)))
        } else {
            Err(faults)
        }
    }

    /// The rules of the policies that are asked.
    #[must_use]
    pub fn rules(&self) -> Vec<&str> {
        let everyone = self.0.iter().flatten().flat_map(|section| &section.who);
        let rules = everyone.filter_map(|who| match who {
            Who::Policy(rule) => Some(rule.as_str()),
            _ => None,
        });
        rules.collect()
    }

    /// Whether the caller may do it to the property.
    #[must_use]
    pub fn allows(&self, act: Act, name: &str, ctx: &Context) -> bool {
        let Some(sections) = &self.0 else {
            return true;
        };
        // What the service notes of itself is for everyone to see.
        if name.starts_with("os_glance") {
            return act == Act::Read;
        }
        let Some(section) = sections.iter().find(|s| s.names.is_match(name)) else {
            return false;
        };
        let at = ACTS.iter().position(|(_, a)| *a == act);
        match at.map(|at| &section.who[at]) {
            Some(Who::Everyone) => true,
            Some(Who::Roles(roles)) => {
                let mut held = ctx.roles.iter().chain(&ctx.service_roles);
                held.any(|role| roles.contains(role))
            }
            // The rule is about the caller alone: no image is shown to it.
            Some(Who::Policy(rule)) => ctx.rules.allows(rule, ctx, &Owned::default()),
            Some(Who::Nobody) | None => false,
        }
    }
}

fn parse_who(value: &str, by: ProtectedBy) -> Result<Who, &'static str> {
    let words: Vec<_> = value
        .split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect();
    match (words.as_slice(), by) {
        ([] | ["!"], _) => Ok(Who::Nobody),
        (["@"], _) => Ok(Who::Everyone),
        (words, _) if words.contains(&"@") || words.contains(&"!") => Err("@ and ! stand alone"),
        ([rule], ProtectedBy::Policies) => Ok(Who::Policy((*rule).to_owned())),
        (_, ProtectedBy::Policies) => Err("one rule is expected; policies can be combined"),
        (roles, ProtectedBy::Roles) => Ok(Who::Roles(
            roles.iter().map(|role| role.to_lowercase()).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::auth::policy::RuleSet;

    #[test]
    fn the_first_section_decides() {
        let text =
            "# ours\n[^x_]\ncreate = admin\nread = Admin, member\nupdate = !\n\n[^y_]\nread: @\n";
        let rules = Protections::parse(text, ProtectedBy::Roles).unwrap();
        let admin = Context::administrator("root", "p");
        let member = Context::with_roles("u", "p", &["member"]);
        let reader = Context::with_roles("r", "p", &["reader"]);
        let served = Context {
            service_roles: vec!["member".into()],
            ..reader.clone()
        };
        for (who, act, name, allowed) in [
            (&admin, Act::Create, "x_a", true),
            (&member, Act::Create, "x_a", false),
            (&member, Act::Read, "x_a", true),
            (&reader, Act::Read, "x_a", false),
            (&served, Act::Read, "x_a", true),
            (&admin, Act::Update, "x_a", false),
            (&admin, Act::Delete, "x_a", false),
            (&reader, Act::Read, "y_a", true),
            (&admin, Act::Read, "z", false),
            (&reader, Act::Read, "os_glance_failed_import", true),
            (&admin, Act::Update, "os_glance_failed_import", false),
        ] {
            assert_eq!(rules.allows(act, name, who), allowed, "{act:?} {name}");
        }
        assert!(Protections::default().allows(Act::Delete, "z", &reader));
        assert!(rules.rules().is_empty());
    }

    /// As the reference does, which searches a name for the pattern.
    #[test]
    fn patterns_are_found_anywhere_unless_they_say_where() {
        let text = "[bill]\nread = @\n[^x_]\nread = @\n[y$]\nread = @\n";
        let rules = Protections::parse(text, ProtectedBy::Roles).unwrap();
        let reader = Context::with_roles("r", "p", &["reader"]);
        for (name, allowed) in [
            ("my_billing", true),
            ("x_a", true),
            ("a_x_a", false),
            ("a_y", true),
            ("y_a", false),
        ] {
            assert_eq!(rules.allows(Act::Read, name, &reader), allowed, "{name}");
        }
    }

    #[test]
    fn rules_of_the_policies_decide() {
        let text = "[^x_]\ncreate = billing\nread = @\nupdate = Billing\ndelete = !\n";
        let by = Protections::parse(text, ProtectedBy::Policies).unwrap();
        assert_eq!(by.rules(), ["billing", "Billing"]);
        let file = BTreeMap::from([
            ("billing".to_owned(), json!("role:clerk or user_id:boss")),
            ("Billing".to_owned(), json!("project_id:%(owner)s")),
        ]);
        let (rules, warnings) = RuleSet::with(&file, true, &by.rules()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let rules = Arc::new(rules);
        let caller = |user, role| Context::with_roles(user, "p", &[role]).under(rules.clone());
        for (who, act, allowed) in [
            (caller("u", "clerk"), Act::Create, true),
            (caller("boss", "reader"), Act::Create, true),
            (caller("u", "reader"), Act::Create, false),
            (caller("u", "reader"), Act::Read, true),
            (caller("root", "admin"), Act::Delete, false),
            // There is no image that the rule could know the owner of.
            (caller("boss", "admin"), Act::Update, false),
        ] {
            assert_eq!(by.allows(act, "x_a", &who), allowed, "{act:?} {who:?}");
        }
        let faults = RuleSet::with(&BTreeMap::new(), true, &by.rules()).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn all_faults_are_told() {
        let text = "read = @\n[a(]\n[b]\nwrite = @\nread = @, admin\nodd\n";
        let faults = Protections::parse(text, ProtectedBy::Roles).unwrap_err();
        assert_eq!(faults.len(), 5);
        let text = "[b]\nread = one, two\n";
        assert!(Protections::parse(text, ProtectedBy::Policies).is_err());
        assert!(Protections::parse(text, ProtectedBy::Roles).is_ok());
    }
}
