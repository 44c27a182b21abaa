//! Parents: what an image asks for when it names the file beneath it.
//!
//! Names were written by other programs, mostly on Windows. The resolver is asked for what may be
//! meant by them here, in this order:
//!
//! | in the image | asked for |
//! | --- | --- |
//! | `.\base.vhdx`, `./base.vhdx` | `base.vhdx` |
//! | `..\templates\base.vhdx` | `../templates/base.vhdx` |
//! | `/vm/base.vhd`, `file:///vm/base.vhd` | `/vm/base.vhd`, `vm/base.vhd`, `base.vhd` |
//! | `C:\vm\base.vhdx`, `\\server\vm\base.vhdx` | its last eight components, its last seven, … `base.vhdx` |
//!
//! A relative name keeps its folders, with `/` between them. Those of an absolute one may be of
//! another machine, of which a part was taken along: so it counts as it is, and what it ends with
//! counts from the folder of the image.

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
    for name in names.into_iter().flat_map(meant) {
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

/// Components of an absolute name that are taken for folders here.
const MAX_FOLDERS: usize = 8;

/// What is asked for where the image says `name`; nothing where no file is left of it.
fn meant(name: &str) -> Vec<String> {
    let name = name.trim_matches('\0');
    let (name, is_url) = match name.strip_prefix("file://") {
        Some(rest) => (rest.strip_prefix("localhost").unwrap_or(rest), true),
        None => (name, false),
    };
    let is_windows = name.starts_with('\\');
    let name = if is_url {
        unescaped(name)
    } else {
        name.replace('\\', "/")
    };
    let drive = name
        .split_once(':')
        .filter(|(drive, _)| drive.len() == 1 && drive.starts_with(|c: char| c.is_alphabetic()));
    let path = drive.map_or(name.as_str(), |(_, rest)| rest);
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let is_folder = path.ends_with('/') || path.ends_with("/.");
    if parts.last().is_none_or(|last| *last == "..") || is_folder {
        return Vec::new();
    }
    if !name.starts_with('/') && drive.is_none() {
        return vec![parts.join("/")];
    }
    // What a name goes back over is not known here.
    let first = parts.iter().rposition(|part| *part == "..");
    let first = first.map_or(0, |up| up + 1);
    let is_here = first == 0 && drive.is_none() && !is_windows;
    let whole = is_here.then(|| format!("/{}", parts.join("/")));
    let start = first.max(parts.len().saturating_sub(MAX_FOLDERS));
    let ends = (start..parts.len()).map(|from| parts[from..].join("/"));
    whole.into_iter().chain(ends).collect()
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
    fn names_become_what_can_be_asked_for() {
        for (name, expected) in [
            (r".\base.vhd", &["base.vhd"][..]),
            (r"..\up\.\base.vhd", &["../up/base.vhd"]),
            ("sub/base.vhd\0\0", &["sub/base.vhd"]),
            (r"C:\vm\base.vhd", &["vm/base.vhd", "base.vhd"]),
            (r"C:\vm\..\base.vhd", &["base.vhd"]),
            ("C:base.vhd", &["base.vhd"]),
            (
                r"\\server\share\base.vhd",
                &["server/share/base.vhd", "share/base.vhd", "base.vhd"],
            ),
            ("/etc/passwd", &["/etc/passwd", "etc/passwd", "passwd"]),
            ("/vm/../etc/passwd", &["etc/passwd", "passwd"]),
            (
                "file://localhost/vm/my%20base.vhd",
                &["/vm/my base.vhd", "vm/my base.vhd", "my base.vhd"],
            ),
            ("file://./base%2.vhd", &["base%2.vhd"]),
            ("file:///vm/%2e%2e", &[]),
            ("", &[]),
            (".", &[]),
            (r"..\..", &[]),
            (r"C:\", &[]),
            (r"C:\vm\", &[]),
        ] {
            assert_eq!(meant(name), expected, "{name:?}");
        }
        let deep = "/a".repeat(1000);
        assert_eq!(meant(&deep).len(), 1 + MAX_FOLDERS);
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
            ("b.vhd", &["a.vhd", "x/a.vhd", "b.vhd"]),
            ("c.vhd", &["a.vhd", "x/a.vhd", "b.vhd"]),
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
