//! What outputs are called, and which files of a folder are images.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use formats::container::Wrap;

use crate::domain::endings::{COMPRESSED, IMAGES, split};

/// How outputs are called.
pub(super) struct Rule {
    /// Ending of every output, without the first dot.
    pub(super) extension: String,
    /// Whether the input's ending stays in front of it.
    pub(super) keeps_extension: bool,
}

impl Rule {
    /// The output of the input at `path`, which is relative: the same folders and name, with the
    /// endings of its format and compression replaced.
    pub(super) fn output(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let stem = match self.keeps_extension {
            true => name,
            false => {
                let (inner, _) = split(name, COMPRESSED);
                split(inner, IMAGES).0
            }
        };
        let mut output = stem.to_vec();
        output.push(b'.');
        output.extend_from_slice(self.extension.as_bytes());
        path.with_file_name(OsStr::from_bytes(&output))
    }
}

/// Whether a file in a folder is taken for an image: by the ending of its name, unless that says
/// that it is a part of another. Files named one by one are not asked.
pub(super) fn is_image(name: &OsStr) -> bool {
    let (inner, _) = split(name.as_bytes(), COMPRESSED);
    let (stem, ending) = split(inner, IMAGES);
    let is_part = ending.is_some_and(|e| e.eq_ignore_ascii_case("vmdk")) && is_extent(stem);
    ending.is_some() && !is_part && !name.as_bytes().starts_with(b".")
}

/// Whether `stem` is that of an extent file of a vmdk: `disk-flat`, `disk-s001`.
fn is_extent(stem: &[u8]) -> bool {
    let Some(dash) = stem.iter().rposition(|b| *b == b'-') else {
        return false;
    };
    match &stem[dash + 1..] {
        b"flat" | b"delta" | b"rdm" | b"rdmp" => true,
        [b's' | b'f', digits @ ..] => digits.len() == 3 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The ending of a file compressed as a whole.
pub(super) const fn of_wrap(wrap: Wrap) -> &'static str {
    match wrap {
        Wrap::Gzip(_) => "gz",
        Wrap::Zstd(_) => "zst",
    }
}

/// A wrap as it is typed.
pub(super) fn typed(wrap: Wrap) -> String {
    let (Wrap::Gzip(level) | Wrap::Zstd(level)) = wrap;
    format!("{}:{level}", of_wrap(wrap))
}

/// A path that starts anew: for lists, whose lines are bytes.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_of_images_are_replaced_and_no_others() {
        let rule = |keeps_extension| Rule {
            extension: "qcow2".into(),
            keeps_extension,
        };
        for (input, output) in [
            ("a.vmdk", "a.qcow2"),
            ("deep/er/A.IMG", "deep/er/A.qcow2"),
            ("a.raw.xz", "a.qcow2"),
            ("a.gz", "a.qcow2"),
            ("ubuntu-24.04", "ubuntu-24.04.qcow2"),
            (".img", ".img.qcow2"),
            ("a.img.vmdk", "a.img.qcow2"),
        ] {
            assert_eq!(rule(false).output(Path::new(input)), Path::new(output));
        }
        assert_eq!(
            rule(true).output(Path::new("x/a.raw.xz")),
            Path::new("x/a.raw.xz.qcow2")
        );
    }

    #[test]
    fn images_in_folders_are_told_by_their_names() {
        for (name, expected) in [
            ("a.qcow2", true),
            ("a.img.zst", true),
            ("box.ova", true),
            ("disk-store.vmdk", true),
            ("disk-s001.vmdk", false),
            ("disk-flat.vmdk", false),
            ("notes.txt", false),
            ("backup.gz", false),
            (".hidden.img", false),
            ("vmdk", false),
        ] {
            assert_eq!(is_image(OsStr::new(name)), expected, "{name}");
        }
    }
}
