//! What a caller allows by name, and which findings are then no reason to refuse an image.

use super::{Finding, Inspection, Severity};
use crate::Format;

/// What whoever reads an image allows it. Nothing here turns a judgement off: only findings
/// that say "this takes a permission" and nothing else give way to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowance {
    /// The files it names may be read; which of them, a [`Resolver`](crate::resolve::Resolver)
    /// says.
    pub files: bool,
    /// There is a passphrase for it.
    pub passphrase: bool,
    /// It is wanted for its bytes, as a ramdisk is that a kernel unpacks or a file that somebody else
    /// does, and not as a disk.
    pub payload: bool,
}

impl Allowance {
    /// All that can be allowed to a disk.
    pub(crate) const ALL: Self = Self {
        files: true,
        passphrase: true,
        payload: false,
    };

    /// Whether `finding`, of an image of `format`, is no reason to refuse it any more.
    #[must_use]
    pub fn covers(self, format: Format, finding: &Finding) -> bool {
        match (format, finding.rule) {
            (Format::Qcow1 | Format::Qcow2 | Format::Qed, "backing_file")
            | (Format::Qcow2, "data_file")
            | (Format::Vhd | Format::Vhdx | Format::Vdi | Format::Vmdk, "parent")
            | (Format::Vmdk | Format::Parallels, "extent_file") => self.files,
            (Format::Qcow2, "encrypted") => self.passphrase,
            (Format::Raw, "compressed_content")
            | (Format::Archive | Format::Compressed, "unsupported_format") => self.payload,
            // A rule for uploads: whoever has such an image has to read it to be rid of it.
            (Format::Qed, "banned") => true,
            _ => false,
        }
    }
}

impl Inspection {
    /// The first finding that makes the image unsafe in spite of what is `allowed`.
    #[must_use]
    pub fn refusal(&self, allowed: Allowance) -> Option<&Finding> {
        self.findings.iter().find(|finding| {
            finding.severity == Severity::Unsafe && !allowed.covers(self.format, finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::inspect::{Facts, judge};

    #[test]
    fn a_permission_covers_its_own_rule_alone() {
        let judged = |format, rules: &[&'static str]| {
            let mut facts = Facts::new(format);
            for &rule in rules {
                facts.find(rule, Severity::Unsafe, "header, byte 8", "is so");
            }
            judge(vec![facts], 1 << 20, &Limits::default())
        };
        let files = Allowance {
            files: true,
            ..Allowance::default()
        };
        let rule = |inspection: &Inspection, allowed| inspection.refusal(allowed).map(|f| f.rule);

        let overlay = judged(Format::Qcow2, &["backing_file"]);
        assert_eq!(rule(&overlay, Allowance::default()), Some("backing_file"));
        assert_eq!(rule(&overlay, files), None);
        let damaged = judged(Format::Qcow2, &["backing_file", "l1_table"]);
        assert_eq!(rule(&damaged, Allowance::ALL), Some("l1_table"));
        let sealed = judged(Format::Qcow2, &["encrypted"]);
        assert_eq!(rule(&sealed, files), Some("encrypted"));
        assert_eq!(rule(&sealed, Allowance::ALL), None);
        let packed = judged(Format::Raw, &["compressed_content"]);
        assert_eq!(rule(&packed, Allowance::ALL), Some("compressed_content"));
        let payload = Allowance {
            payload: true,
            ..Allowance::default()
        };
        assert_eq!(rule(&packed, payload), None);
        // Not read with a passphrase either.
        let dmg = judged(Format::Dmg, &["encrypted"]);
        assert_eq!(rule(&dmg, Allowance::ALL), Some("encrypted"));
    }
}
