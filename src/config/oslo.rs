//! Files as oslo.config reads them: sections, `name = value`, lines that go on when indented.

use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a file at most.
const MAX_BYTES: u64 = 4 << 20;

/// What a file says. Names of options are in lower case with `_`; of an option that is given
/// several times all values are kept, and the last one counts.
#[derive(Clone, Default, Debug)]
pub struct OsloFile {
    sections: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl OsloFile {
    /// Reads a file.
    ///
    /// # Errors
    /// A sentence, when it cannot be read or a line is none of the three.
    pub fn load(path: &Path) -> Result<Self, String> {
        let fault = |e: String| format!("{}: {e}", path.display());
        let size = std::fs::metadata(path)
            .map_err(|e| fault(e.to_string()))?
            .len();
        if size > MAX_BYTES {
            return Err(fault(format!("{size} bytes, allowed {MAX_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        Self::parse(&text).map_err(fault)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut file = Self::default();
        let mut section = "DEFAULT".to_owned();
        let mut last: Option<String> = None;
        for (n, line) in text.lines().enumerate() {
            let fault = |what| Err(format!("line {}: {what}", n + 1));
            let trimmed = line.trim();
            if trimmed.is_empty() {
                last = None;
            } else if trimmed.starts_with(['#', ';']) {
            } else if line.starts_with([' ', '\t']) {
                let Some(values) = last
                    .as_ref()
                    .and_then(|name| file.sections.get_mut(&section)?.get_mut(name))
                else {
                    return fault("indented, and there is no option that it could go on with");
                };
                if let Some(value) = values.last_mut() {
                    value.push('\n');
                    value.push_str(trimmed);
                }
            } else if let Some(rest) = trimmed.strip_prefix('[') {
                let Some(name) = rest.strip_suffix(']') else {
                    return fault("a section is written [name]");
                };
                name.trim().clone_into(&mut section);
                file.sections.entry(section.clone()).or_default();
                last = None;
            } else {
                let Some(at) = trimmed.find(['=', ':']) else {
                    return fault("an option is written name = value");
                };
                let name = trimmed[..at].trim().to_lowercase().replace('-', "_");
                let value = unquoted(trimmed[at + 1..].trim()).to_owned();
                let options = file.sections.entry(section.clone()).or_default();
                options.entry(name.clone()).or_default().push(value);
                last = Some(name);
            }
        }
        Ok(file)
    }

    /// The value that counts, with `$name` and `${section.name}` put in.
    #[must_use]
    pub fn get(&self, section: &str, name: &str) -> Option<String> {
        let value = self.raw(section, name)?;
        Some(self.filled(section, value, 0, &mut false))
    }

    /// Whether a `$name` stays in the value, because nobody set what it names.
    #[must_use]
    pub fn is_dangling(&self, section: &str, name: &str) -> bool {
        let mut is_dangling = false;
        if let Some(value) = self.raw(section, name) {
            self.filled(section, value, 0, &mut is_dangling);
        }
        is_dangling
    }

    fn raw(&self, section: &str, name: &str) -> Option<&str> {
        let values = self.sections.get(section)?.get(name)?;
        values.last().map(String::as_str)
    }

    /// All sections and options, in order of their names.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        let sections = self.sections.iter();
        sections.flat_map(|(s, options)| options.keys().map(move |o| (s.as_str(), o.as_str())))
    }

    /// All values of an option that is given several times.
    #[must_use]
    pub fn all(&self, section: &str, name: &str) -> &[String] {
        let values = self.sections.get(section).and_then(|s| s.get(name));
        values.map_or(&[], Vec::as_slice)
    }

    fn filled(&self, section: &str, value: &str, depth: usize, is_dangling: &mut bool) -> String {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let (name, left) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}').unwrap_or(("", after)),
                None => {
                    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    after.split_at(end.unwrap_or(after.len()))
                }
            };
            let (of, option) = name.split_once('.').unwrap_or((section, name));
            let found = self.raw(of, option).or_else(|| self.raw("DEFAULT", option));
            match found {
                Some(found) if depth < 8 => {
                    out.push_str(&self.filled(of, found, depth + 1, is_dangling));
                }
                // What nobody set is left as it stands, for people to see.
                _ => {
                    *is_dangling = true;
                    out.push('$');
                    rest = after;
                    continue;
                }
            }
            rest = left;
        }
        out.push_str(rest);
        out
    }
}

/// A value without the quotes around it, if there is a pair.
pub(super) fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    value
}

/// oslo.config's words for yes and no.
#[must_use]
pub fn boolean(value: &str) -> Option<bool> {
    match value.to_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A list: commas between.
#[must_use]
pub fn list(value: &str) -> Vec<String> {
    let inner = value
        .strip_prefix('[')
        .and_then(|v| v.strip_suffix(']'))
        .unwrap_or(value);
    let items = inner.split(',').map(|item| unquoted(item.trim()));
    items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
debug = true
base = /var/lib

[keystone_authtoken]
auth-url: http://k:5000
password = 'p$$w=rd'
memcached_servers = a:1,
    b:2
; another
[glance_store]
dir = first
dir = ${DEFAULT.base}/$name
name = images
";

    #[test]
    fn options_are_found_by_section() {
        let file = OsloFile::parse(TEXT).unwrap();
        let get = |section, name| file.get(section, name);
        assert_eq!(get("DEFAULT", "debug").as_deref(), Some("true"));
        let auth = |name| get("keystone_authtoken", name).unwrap();
        assert_eq!(auth("auth_url"), "http://k:5000");
        assert_eq!(auth("password"), "p$w=rd");
        assert_eq!(auth("memcached_servers"), "a:1,\nb:2");
        assert_eq!(
            get("glance_store", "dir").as_deref(),
            Some("/var/lib/images")
        );
        assert_eq!(file.all("glance_store", "dir").len(), 2);
        assert_eq!(file.options().count(), 7);
        assert!(get("nowhere", "x").is_none());
    }

    #[test]
    fn values_that_name_each_other_end() {
        let file = OsloFile::parse("a = $b\nb = x$a\nc = $unset ${open").unwrap();
        assert!(file.get("DEFAULT", "a").unwrap().len() < 100);
        let unset = file.get("DEFAULT", "c").unwrap();
        assert_eq!(unset, "$unset ${open");
        assert!(file.is_dangling("DEFAULT", "c"));
        let whole = OsloFile::parse("a = $b$$c\nb = x").unwrap();
        assert!(!whole.is_dangling("DEFAULT", "a"));
    }

    #[test]
    fn faults_name_their_line() {
        for text in ["x", "[open\n", "  indented\n"] {
            let fault = OsloFile::parse(text).unwrap_err();
            assert!(fault.starts_with("line 1"), "{fault}");
        }
    }

    #[test]
    fn words_and_lists_are_oslos() {
        assert_eq!(boolean("Yes"), Some(true));
        assert_eq!(boolean("off"), Some(false));
        assert_eq!(boolean("maybe"), None);
        assert_eq!(list("[a, 'b',,c]"), ["a", "b", "c"]);
    }
}
