//! A set of rules, and what it says of a caller and a target.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use serde_json::Value;

use super::Target;
use super::defaults::DEFAULTS;
use super::parse::{self, Check};
use super::question::{CREDENTIALS, Question};
use crate::auth::{Context, Scope};

/// All rules, by name.
#[derive(Debug)]
pub struct RuleSet {
    rules: HashMap<String, Rule>,
    /// Whether callers must have a token for a project (or none at all): what is scoped to a
    /// domain or to the system passes no rule.
    enforce_scope: bool,
}

#[derive(Debug)]
struct Rule {
    check: Check,
    source: String,
    overridden: bool,
}

/// One rule, for people.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Effective<'a> {
    /// Its name.
    pub rule: &'a str,
    /// What must hold.
    pub check: &'a str,
    /// Whether the policy file says so.
    pub overridden: bool,
    /// What holds where the file says nothing; absent for names only the file knows.
    pub default: Option<&'static str>,
}

impl RuleSet {
    /// What the rule `name` asks; `None`: there is none.
    pub(super) fn check(&self, name: &str) -> Option<&Check> {
        Some(&self.rules.get(name)?.check)
    }

    /// The defaults.
    #[must_use]
    pub fn stock() -> Arc<Self> {
        static STOCK: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
            let (rules, _) =
                RuleSet::with(&BTreeMap::new(), true, &[]).expect("the defaults are valid");
            Arc::new(rules)
        });
        STOCK.clone()
    }

    /// The defaults, and above them what a policy file says; `asked` are rules that somebody asks
    /// besides those that have a default. The second part are warnings.
    ///
    /// # Errors
    /// Everything that is wrong: checks that cannot be read, rules that are asked or referred to and
    /// not there, rules that refer to themselves.
    pub fn with(
        file: &BTreeMap<String, Value>,
        enforce_scope: bool,
        asked: &[&str],
    ) -> Result<(Self, Vec<String>), Vec<String>> {
        let mut rules = HashMap::new();
        let mut faults = Vec::new();
        for (name, source) in DEFAULTS {
            match parse::parse(source) {
                Ok(check) => rules.insert(
                    (*name).to_owned(),
                    Rule {
                        check,
                        source: (*source).to_owned(),
                        overridden: false,
                    },
                ),
                Err(e) => {
                    faults.push(format!("{name}: {e}"));
                    None
                }
            };
        }
        for (name, value) in file {
            let source = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match parse::parse_value(value) {
                Ok(check) => {
                    rules.insert(
                        name.clone(),
                        Rule {
                            check,
                            source,
                            overridden: true,
                        },
                    );
                }
                Err(e) => faults.push(format!("{name}: {e}")),
            }
        }
        let set = Self {
            rules,
            enforce_scope,
        };
        set.references(&mut faults);
        let asked: BTreeSet<_> = asked.iter().copied().collect();
        for name in &asked {
            if !set.rules.contains_key(*name) {
                faults.push(format!(
                    "property protections ask for {name:?}: no such rule"
                ));
            }
        }
        if faults.is_empty() {
            let warnings = set.warnings(file, asked);
            Ok((set, warnings))
        } else {
            Err(faults)
        }
    }

    /// Finds references to rules that are not there, and cycles.
    fn references(&self, faults: &mut Vec<String>) {
        let mut names: Vec<_> = self.rules.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut done = BTreeSet::new();
        for name in names {
            let mut path = Vec::new();
            self.follow(name, &mut path, &mut done, faults);
        }
    }

    fn follow<'a>(
        &'a self,
        name: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
        faults: &mut Vec<String>,
    ) {
        if done.contains(name) {
            return;
        }
        if let Some(at) = path.iter().position(|p| *p == name) {
            faults.push(format!(
                "{name}: refers to itself ({} -> {name})",
                path[at..].join(" -> ")
            ));
            return;
        }
        if path.len() >= 64 {
            faults.push(format!("{name}: the chain of references is longer than 64"));
            return;
        }
        let Some(rule) = self.rules.get(name) else {
            return;
        };
        path.push(name);
        let mut referred = Vec::new();
        rule.check.visit(&mut |check| {
            if let Check::Rule(other) = check {
                referred.push(other.as_str());
            }
        });
        for other in referred {
            if self.rules.contains_key(other) {
                self.follow(other, path, done, faults);
            } else {
                faults.push(format!("{name}: there is no rule {other:?}"));
            }
        }
        path.pop();
        done.insert(name);
    }

    /// What is probably not meant as it stands.
    fn warnings<'a>(
        &'a self,
        file: &BTreeMap<String, Value>,
        mut referred: BTreeSet<&'a str>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, rule) in &self.rules {
            rule.check.visit(&mut |check| match check {
                Check::Rule(other) => {
                    referred.insert(other.as_str());
                }
                Check::Credential { name: unknown, .. } if !CREDENTIALS.contains(&&**unknown) => {
                    warnings.push(format!(
                        "{name}: nothing called {unknown:?} is known of callers, so that check \
                         never holds"
                    ));
                }
                _ => {}
            });
        }
        for name in file.keys() {
            let known = DEFAULTS.iter().any(|(rule, _)| rule == name);
            if !known && !referred.contains(name.as_str()) {
                warnings.push(format!("{name}: no such rule is asked: ignored"));
            }
        }
        warnings.sort();
        warnings
    }

    /// Whether the rule lets the caller.
    #[must_use]
    pub fn allows(&self, rule: &str, ctx: &Context, target: &dyn Target) -> bool {
        if self.enforce_scope && ctx.scope != Scope::Project {
            return false;
        }
        let question = Question {
            rules: self,
            ctx,
            target,
        };
        question.rule(rule, &mut 0)
    }

    /// Whether there is such a rule.
    #[must_use]
    pub fn knows(&self, rule: &str) -> bool {
        self.rules.contains_key(rule)
    }

    /// All rules, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Effective<'_>> {
        let mut list: Vec<_> = self
            .rules
            .iter()
            .map(|(name, rule)| Effective {
                rule: name,
                check: &rule.source,
                overridden: rule.overridden,
                default: DEFAULTS.iter().find(|(n, _)| n == name).map(|d| d.1),
            })
            .collect();
        list.sort_by_key(|e| e.rule);
        list
    }
}

impl Check {
    fn visit<'a>(&'a self, seen: &mut impl FnMut(&'a Check)) {
        seen(self);
        match self {
            Self::Not(inner) => inner.visit(seen),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.visit(seen)),
            _ => {}
        }
    }
}

/// The rules that hold now; they can be replaced while requests are answered.
#[derive(Debug)]
pub struct Policies(RwLock<Arc<RuleSet>>);

impl Policies {
    /// Begins with `rules`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self(RwLock::new(rules))
    }

    /// The rules for one request.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Other rules, from the next request on.
    pub fn replace(&self, rules: Arc<RuleSet>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(rules: Value) -> Result<(RuleSet, Vec<String>), Vec<String>> {
        let file = serde_json::from_value(rules).unwrap();
        RuleSet::with(&file, true, &[])
    }

    struct Map<'a>(&'a [(&'a str, &'a str)]);

    impl Target for Map<'_> {
        fn attribute(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
            let found = self.0.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).into())
        }
    }

    #[test]
    fn checks_hold_for_callers_and_targets() {
        let ctx = Context {
            service_roles: vec!["service".into()],
            user_domain: Some("d".into()),
            ..Context::with_roles("u", "p", &["member"])
        };
        let target = Map(&[("owner", "p"), ("visibility", "public"), ("want", "MEMBER")]);
        for (check, holds) in [
            ("", true),
            ("!", false),
            ("not !", true),
            ("role:Member", true),
            ("role:%(want)s", true),
            ("role:admin", false),
            ("project_id:%(owner)s", true),
            ("tenant:%(owner)s and user:u", true),
            ("project_id:%(absent)s", false),
            ("not project_id:%(absent)s", true),
            ("\"public\":%(visibility)s", true),
            ("'private':%(visibility)s", false),
            ("service_roles:service", true),
            ("is_admin:False", true),
            ("is_admin:True", false),
            ("user_domain_id:d", true),
            ("system_scope:all", false),
            ("rule:other or role:nobody", true),
        ] {
            let (rules, _) = set(json!({"asked": check, "other": "role:member"})).unwrap();
            assert_eq!(rules.allows("asked", &ctx, &target), holds, "{check}");
        }
        assert!(!RuleSet::stock().allows("unheard_of", &ctx, &target));
    }

    #[test]
    fn a_caller_without_a_project_owns_nothing() {
        let (rules, _) = set(json!({"asked": "project_id:%(owner)s"})).unwrap();
        let nobody = Context::default();
        assert!(!rules.allows("asked", &nobody, &Map(&[])));
        assert!(!rules.allows("asked", &nobody, &Map(&[("owner", "None")])));
    }

    #[test]
    fn tokens_of_domains_and_the_system_pass_no_rule() {
        let system = Context {
            scope: Scope::System,
            ..Context::with_roles("u", "p", &["admin"])
        };
        assert!(!RuleSet::stock().allows("get_images", &system, &Map(&[])));
        let (lax, _) = RuleSet::with(&BTreeMap::new(), false, &[]).unwrap();
        assert!(lax.allows("get_images", &system, &Map(&[])));
    }

    #[test]
    fn dangling_and_circular_references_are_faults() {
        let faults = set(json!({
            "get_image": "rule:nowhere",
            "a": "role:x or not rule:b",
            "b": "rule:a",
            "modify_image": "role",
        }))
        .unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults.iter().any(|f| f.contains("nowhere")));
        assert!(faults.iter().any(|f| f.contains("a -> b -> a")));
        let own = set(json!({"get_image": "rule:get_image"})).unwrap_err();
        assert_eq!(own.len(), 1, "{own:?}");
    }

    #[test]
    fn names_nobody_asks_for_are_told() {
        let (rules, warnings) = set(json!({
            "get_image": "rule:helper",
            "helper": "role:x",
            "sudo_get_image": "role:x",
            "delete_image": "projectid:%(owner)s",
        }))
        .unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        let list = rules.list();
        let of = |name| list.iter().find(|e| e.rule == name).unwrap();
        assert!(of("get_image").overridden && of("get_image").default.is_some());
        assert_eq!(of("helper").default, None);
        assert!(!of("get_images").overridden);
    }

    #[test]
    fn rules_that_double_each_other_end_and_deny() {
        let mut file = BTreeMap::new();
        for n in 0..40 {
            let next = n + 1;
            let check = format!("rule:r{next} and not (not rule:r{next})");
            file.insert(format!("r{n}"), json!(check));
        }
        file.insert("r40".into(), json!("@"));
        file.insert("get_image".into(), json!("rule:r0"));
        let (rules, _) = RuleSet::with(&file, true, &[]).unwrap();
        assert!(!rules.allows("get_image", &Context::default(), &Map(&[])));
    }

    #[test]
    fn rules_are_replaced_under_way() {
        let policies = Policies::new(RuleSet::stock());
        let before = policies.current();
        let (other, _) = set(json!({"get_images": "!"})).unwrap();
        policies.replace(Arc::new(other));
        let reader = Context::with_roles("u", "p", &["reader"]);
        let target = Map(&[("project_id", "p")]);
        assert!(before.allows("get_images", &reader, &target));
        assert!(!policies.current().allows("get_images", &reader, &target));
    }
}
