//! Parents: what an image asks for when it names the file beneath it.
//!
//! Names were written by Windows programs. The resolver is asked for what is left of them:
//!
//! | in the image | asked for |
//! | --- | --- |
//! | `.\base.vhdx`, `./base.vhdx` | `base.vhdx` |
//! | `..\templates\base.vhdx` | `../templates/base.vhdx` |
//! | `C:\vm\base.vhdx`, `\\server\share\base.vhdx`, `\\?\Volume{…}\vm\base.vhdx` | `base.vhdx` |
//! | `file:///vm/my%20base.vhd` | `my base.vhd` |
//!
//! A relative name keeps its folders, with `/` between them; of an absolute one only the last
//! component is left, for its folders are those of another machine.

use crate::resolve::{Granted, Wanted};
use crate::{Error, Format, OpenOptions, Result};

/// Asks for the parent under each of `names`, relative ones first as the caller orders them.
///
/// # Errors
/// That of the first name asked for when none is granted; `Malformed` when there is no name.
pub(crate) fn request<'a>(
    by: Format,
    names: impl IntoIterator<Item = &'a str>,
    options: &OpenOptions,
) -> Result<Granted> {
    let mut asked: Vec<String> = Vec::new();
    let mut failed = None;
    for name in names.into_iter().filter_map(reduced) {
        if asked.contains(&name) {
            continue;
        }
        match options.resolver.resolve(by, Wanted::Parent, &name) {
            Ok(granted) => return Ok(granted),
            Err(e) => failed = failed.or(Some(e)),
        }
        asked.push(name);
    }
    Err(failed.unwrap_or_else(|| Error::malformed(by, "parent", "is needed, but not named")))
}

/// What is asked for where the image says `name`; `None` when nothing is left of it.
fn reduced(name: &str) -> Option<String> {
    let name = name.trim_matches('\0');
    let (name, is_url) = match name.strip_prefix("file://") {
        Some(rest) => (rest.strip_prefix("localhost").unwrap_or(rest), true),
        None => (name, false),
    };
    let name = if is_url {
        unescaped(name)
    } else {
        name.replace('\\', "/")
    };
    let drive = name
        .split_once(':')
        .filter(|(drive, _)| drive.len() == 1 && drive.starts_with(|c: char| c.is_alphabetic()));
    let mut parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    if name.starts_with('/') || drive.is_some() {
        let rest = drive.map_or(name.as_str(), |(_, rest)| rest);
        let last = rest.rsplit('/').next()?;
        return (!matches!(last, "" | "." | "..")).then(|| last.to_owned());
    }
    let last = parts.clone().next_back()?;
    (last != "..").then(|| {
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + "/" + part)
    })
}

/// A name from a URL: `%20` stands for a space.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::resolve::Resolver;

    #[test]
    fn names_are_reduced_to_what_can_be_asked_for() {
        for (name, expected) in [
            (r".\base.vhd", Some("base.vhd")),
            (r"..\up\.\base.vhd", Some("../up/base.vhd")),
            ("sub/base.vhd\0\0", Some("sub/base.vhd")),
            (r"C:\vm\base.vhd", Some("base.vhd")),
            ("C:base.vhd", Some("base.vhd")),
            (r"\\server\share\base.vhd", Some("base.vhd")),
            (r"\\?\Volume{26A2}\vm\base.vhd", Some("base.vhd")),
            ("/etc/passwd", Some("passwd")),
            ("file://localhost/vm/my%20base.vhd", Some("my base.vhd")),
            ("file://./base%2.vhd", Some("base%2.vhd")),
            ("file:///vm/%2e%2e", None),
            ("", None),
            (".", None),
            (r"..\..", None),
            (r"C:\", None),
        ] {
            assert_eq!(reduced(name).as_deref(), expected, "{name:?}");
        }
    }

    /// Grants one name, remembers all.
    struct Only(&'static str, Mutex<Vec<String>>);

    impl Resolver for Only {
        fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
            self.1.lock().unwrap().push(name.to_owned());
            if name == self.0 {
                return Ok(Granted::alone(Arc::new(vec![])));
            }
            Err(Error::refused(by, wanted.name(), format!("{name:?}")))
        }
    }

    #[test]
    fn each_name_is_asked_for_once_and_the_first_refusal_is_told() {
        let names = [r".\a.vhd", r"C:\x\a.vhd", r"D:\b.vhd"];
        for (only, asked) in [
            ("a.vhd", &["a.vhd"][..]),
            ("b.vhd", &["a.vhd", "b.vhd"]),
            ("c.vhd", &["a.vhd", "b.vhd"]),
        ] {
            let resolver = Arc::new(Only(only, Mutex::default()));
            let options = OpenOptions {
                resolver: resolver.clone(),
                ..OpenOptions::default()
            };
            let found = request(Format::Vhd, names, &options);
            assert_eq!(*resolver.1.lock().unwrap(), asked);
            assert_eq!(found.is_ok(), only != "c.vhd");
            if let Err(e) = found {
                assert_eq!(e.message(), "\"a.vhd\"");
            }
        }
    }
}
