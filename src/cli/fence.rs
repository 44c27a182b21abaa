//! The sandbox of the command line: what reads an image is confined before it sees a byte.
//!
//! | verb | where | may write |
//! | --- | --- | --- |
//! | `convert` | an inner process ([`apart`]) | a folder of its own; the outer renames what is in it |
//! | the verbs that only read | this process | nothing |
//! | the same, of a compressed file or an archive | an inner process | scratch files in a folder of its own |

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use formats::container::Compression;

use super::apart::{self, Inner};
use super::{Exit, input, output};
use crate::convert::sandbox::{self, Bounds, Grants, Policy};

/// Bytes of memory for one job: many times what any needs.
const MEMORY: u64 = 4 << 30;

#[derive(clap::Args)]
pub(super) struct Fence {
    /// Confine what reads the image, so that a fault in it reaches nothing else: `auto` as far as
    /// this kernel can, `on` wholly or not at all, `off`
    #[arg(
        long,
        value_name = "on|off|auto",
        value_enum,
        hide_possible_values = true,
        default_value = "auto",
        default_missing_value = "on",
        num_args = 0..=1,
        require_equals = true,
        env = "GLINT_SANDBOX"
    )]
    sandbox: Policy,
}

/// Names that what reads an image opens.
#[derive(Default)]
pub(super) struct Named<'a> {
    /// The images, and what else is read of what the command line names.
    pub(super) files: Vec<&'a Path>,
    /// Folders whose files images may name.
    pub(super) folders: &'a [PathBuf],
}

impl Fence {
    pub(super) fn is_off(&self) -> bool {
        self.sandbox == Policy::Off
    }

    /// The same as it is typed, for an inner process.
    pub(super) fn argument(&self) -> OsString {
        let value = self.sandbox.to_possible_value();
        let name = value.as_ref().map_or("auto", PossibleValue::get_name);
        format!("--sandbox={name}").into()
    }

    /// Confines this process to read what is `named`, and to write in `folder`; says what of that
    /// this kernel cannot do.
    pub(super) fn enter(&self, named: &Named<'_>, folder: Option<&Path>) -> anyhow::Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let bounds = Bounds {
            data: Some(MEMORY),
            ..Bounds::default()
        };
        bounds.take()?;
        let grants = Grants {
            files: named.files.clone(),
            folders: named.folders.iter().map(AsRef::as_ref).collect(),
            write: folder,
        };
        let missing = sandbox::confine(self.sandbox, &grants)
            .map_err(|missing| anyhow!("--sandbox=on, but there is {missing}"))?;
        if let Some(missing) = missing {
            output::talk(format_args!("note: the sandbox is incomplete: {missing}"));
        }
        Ok(())
    }

    /// Runs a verb that only reads what is `named`, confined.
    pub(super) fn reading(
        &self,
        named: &Named<'_>,
        verb: impl FnOnce() -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        if let Some(folder) = apart::folder() {
            apart::die_with_outer()?;
            self.enter(named, Some(&folder))?;
            return verb();
        }
        if !self.is_off() && named.files.iter().any(|path| may_need_scratch(path)) {
            return Ok(Inner::new(&apart::temp_dir())?.run(false)?.exit);
        }
        self.enter(named, None)?;
        verb()
    }
}

/// Whether reading the file at `path` may take a file to inflate something into: when it is
/// compressed or an archive. Told from a few of its first bytes; nothing is parsed here.
fn may_need_scratch(path: &Path) -> bool {
    let is_block = |file: &File| {
        file.metadata()
            .is_ok_and(|m| m.file_type().is_block_device())
    };
    let mut head = [0; 512];
    let Ok(source) = input::open(path) else {
        return false;
    };
    let Ok(len) = source.file().read_at(&mut head, 0) else {
        return false;
    };
    let head = &head[..len];
    let is_archive = head.get(148..156).is_some_and(is_octal);
    let is_text = head.trim_ascii_start().starts_with(b"<") || head.starts_with(b"\xef\xbb\xbf");
    !is_block(source.file()) && (Compression::detect(head).is_some() || is_archive || is_text)
}

/// Whether `field` is the checksum in a tar archive's header.
fn is_octal(field: &[u8]) -> bool {
    let digits = field.iter().filter(|b| (b'0'..=b'7').contains(b)).count();
    digits > 0 && field.iter().all(|b| matches!(b, b'0'..=b'7' | b' ' | 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn archives_and_what_is_compressed_may_need_scratch() {
        let tar = {
            let mut header = tar_header("box.ovf");
            header[148..156].copy_from_slice(b"012345\0 ");
            header
        };
        for (bytes, expected) in [
            (&b"QFI\xfb"[..], false),
            (&[0; 512], false),
            (b"", false),
            (&tar, true),
            (b"\x1f\x8b\x08\0\0\0\0\0", true),
            (b"\n<?xml version='1.0'?>", true),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            assert_eq!(may_need_scratch(file.path()), expected, "{bytes:?}");
        }
        assert!(!may_need_scratch(Path::new("/nowhere/at/all")));
    }

    fn tar_header(name: &str) -> [u8; 512] {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header
    }
}
