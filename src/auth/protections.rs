//! Property protections: which roles may see and change which custom properties, from a file as
//! operators of the reference keep it. Sections are regular expressions; the first one that is found
//! in a property's name decides, and where none is, nobody may anything.
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

use std::path::Path;

use regex_lite::Regex;

use super::Context;

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
}

impl Protections {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it, one sentence a line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
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
                (Some(act), Some(section)) => match parse_who(value) {
                    Some(who) => section.who[act] = who,
                    None => fault("@ and ! stand alone"),
                },
            }
        }
        if faults.is_empty() {
            Ok(Self(Some(sections)))
        } else {
            Err(faults.join("\n"))
        }
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
            Some(Who::Roles(roles)) => roles.iter().any(|r| ctx.roles.contains(r)),
            Some(Who::Nobody) | None => false,
        }
    }
}

fn parse_who(value: &str) -> Option<Who> {
    let words: Vec<_> = value
        .split(',')
        .map(|w| w.trim().to_ascii_lowercase())
        .filter(|w| !w.is_empty())
        .collect();
    match words.as_slice() {
        [] => Some(Who::Nobody),
        [all] if all == "@" => Some(Who::Everyone),
        [none] if none == "!" => Some(Who::Nobody),
        roles if roles.iter().any(|r| r == "@" || r == "!") => None,
        roles => Some(Who::Roles(roles.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_decides() {
        let text =
            "# ours\n[^x_]\ncreate = admin\nread = Admin, member\nupdate = !\n\n[^y_]\nread: @\n";
        let rules = Protections::parse(text).unwrap();
        let admin = Context::administrator("root", "p");
        let member = Context::with_roles("u", "p", &["member"]);
        let reader = Context::with_roles("r", "p", &["reader"]);
        for (who, act, name, allowed) in [
            (&admin, Act::Create, "x_a", true),
            (&member, Act::Create, "x_a", false),
            (&member, Act::Read, "x_a", true),
            (&reader, Act::Read, "x_a", false),
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
    }

    #[test]
    fn all_faults_are_told() {
        let fault = Protections::parse("read = @\n[a(]\n[b]\nwrite = @\nread = @, admin\nodd\n");
        assert_eq!(fault.unwrap_err().lines().count(), 5);
    }
}
