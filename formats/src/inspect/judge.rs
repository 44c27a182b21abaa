//! From the facts of all formats that matched to one judgement.
//!
//! A file that two programs take for two things is refused (rule `polyglot`), except where both
//! see the same bytes, or the second is known to be put there:
//!
//! | together | is |
//! | --- | --- |
//! | a disc and a partition table | a hybrid disc: iso |
//! | a table at byte 0 of a fixed vhd or uncompressed dmg | the guest's own table |
//! | anything in a raw disk: a file system, an image in a partition | the raw disk's content |
//! | any two formats else, as qcow2 and iso, or a vhd's footer behind a qcow2 | refused |
//! | a format and a mark of another at its beginning or end (see `marks`) | refused |
//! | a program with a zip archive at its end | an archive, which is not read: refused |
//!
//! Bytes behind a format's last structure that look like nothing are that format's to judge
//! (rule `trailing_data`).

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::marks::Mark;
use super::{Facts, Finding, Severity};
use crate::{Format, Limits, content, foreign};

/// What an image is, and whether it is safe.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The format. Images that match no format, or only a partition table, are raw.
    pub format: Format,
    /// Glance's container format: `bare`, or that of an archive.
    pub container_format: &'static str,
    /// The compression wrapped around it all (`gzip`, `xz`, …).
    pub compression: Option<&'static str>,
    /// Bytes the guest sees; for archives the sum over their disks. `None`: cannot be told.
    pub virtual_size: Option<u64>,
    /// Bytes of the file, as stored.
    pub file_size: u64,
    /// Format-specific facts.
    pub details: Map<String, Value>,
    /// The disks of an archive, in the order of its descriptor.
    pub disks: Vec<MemberDisk>,
    /// What is noteworthy or wrong, worst first.
    pub findings: Vec<Finding>,
}

/// One disk of an archive.
#[derive(Clone, Debug, Serialize)]
pub struct MemberDisk {
    /// The member's name in the archive.
    pub name: String,
    /// The descriptor's id of the disk.
    pub id: String,
    /// The disk's own format.
    pub format: Format,
    /// The compression around it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<&'static str>,
    /// Bytes the guest sees.
    pub virtual_size: Option<u64>,
    /// Bytes the guest sees, as the descriptor says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// What it hangs on, as the descriptor says: `scsi (lsilogic) 0:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Bytes of the member.
    pub file_size: u64,
    /// Its format-specific facts.
    pub details: Map<String, Value>,
}

/// The decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// May be used.
    Safe,
    /// Must not be used: at least one finding is [`Severity::Unsafe`].
    Unsafe,
}

impl Verdict {
    /// `safe` or `unsafe`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Unsafe => "unsafe",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Inspection {
    /// The decision, which follows from the findings.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.unsafe_finding() {
            Some(_) => Verdict::Unsafe,
            None => Verdict::Safe,
        }
    }

    /// The first finding that makes the image unsafe.
    #[must_use]
    pub fn unsafe_finding(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|f| f.severity == Severity::Unsafe)
    }

    /// Sorts the findings, worst first, keeping their order otherwise.
    pub fn sort_findings(&mut self) {
        self.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    }
}

/// Judges the `found` facts of a file of `file_size` bytes.
#[must_use]
pub fn judge(found: Vec<Facts>, file_size: u64, limits: &Limits) -> Inspection {
    let (plain, mut found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|f| f.format == Format::Raw);
    let table = take(&mut found, Format::Gpt, |others| {
        // A partition table beside an ISO is a hybrid, beside a fixed VHD it is the guest's.
        others.is_empty()
            || others
                .iter()
                .all(|f| f.format == Format::Iso || f.guest_at_zero)
    });
    let matched: Vec<_> = found.iter().map(|f| f.format.name()).collect();
    let polyglot = (matched.len() > 1).then(|| matched.join(" and "));

    let marks: Vec<_> = plain
        .iter()
        .flat_map(|facts| &facts.marks)
        .copied()
        .collect();
    let mut findings: Vec<_> = marks
        .iter()
        .filter(|mark| polyglot.is_none() && found.iter().any(|facts| mark.misleads(facts)))
        .map(|mark| misleading(*mark))
        .collect();
    let (mut format, mut virtual_size, mut details) = (Format::Raw, None, Map::new());
    for (n, facts) in found.into_iter().enumerate() {
        if n == 0 {
            (format, virtual_size, details) = (facts.format, facts.virtual_size, facts.details);
        }
        findings.extend(facts.findings);
    }
    if let Some(table) = table {
        details.extend(table.details);
        // The guest of a hybrid ISO boots by El Torito: its table is for memory sticks.
        if format != Format::Iso {
            findings.extend(table.findings);
        }
    }
    for mut facts in plain.into_iter().filter(|_| format == Format::Raw) {
        findings.append(&mut facts.findings);
        content::merge(&mut details, facts.details);
    }
    if format == Format::Raw
        && details
            .get("content")
            .is_some_and(|c| c["kind"] == "program")
    {
        let unpacks = marks.iter().find(|mark| matches!(mark, Mark::Zip(_)));
        findings.extend(unpacks.map(|mark| {
            let (place, _) = mark.describe();
            foreign::finding(place, "a program that unpacks the zip archive behind it")
        }));
    }
    if let Some(names) = polyglot {
        findings.push(Finding {
            rule: "polyglot",
            severity: Severity::Unsafe,
            place: "file".into(),
            message: format!(
                "is {names} at once: programs would disagree on what it holds; convert it from \
                 the one that is meant"
            ),
        });
    }
    // A drive hands out the file as it is, whatever a descriptor in it promises.
    if format == Format::Raw || (format == Format::Iso && virtual_size.is_none()) {
        virtual_size = Some(file_size);
    }
    if let Some(bytes) = virtual_size
        && let Err(e) = limits.virtual_size(format, bytes)
    {
        findings.push(Finding {
            rule: "virtual_size",
            severity: Severity::Unsafe,
            place: "header".into(),
            message: e.message().to_owned(),
        });
    }
    let mut inspection = Inspection {
        format,
        container_format: "bare",
        compression: None,
        virtual_size,
        file_size,
        details,
        disks: Vec::new(),
        findings,
    };
    inspection.sort_findings();
    inspection
}

/// A mark that lets other programs see something else in an image.
fn misleading(mark: Mark) -> Finding {
    let (place, what) = mark.describe();
    Finding {
        rule: "polyglot",
        severity: Severity::Unsafe,
        place,
        message: format!(
            "there is {what}, too: programs would disagree on what the file holds; convert it anew"
        ),
    }
}

/// Takes the facts of `format` out of `found` when `fits` the others.
fn take(found: &mut Vec<Facts>, format: Format, fits: impl Fn(&[&Facts]) -> bool) -> Option<Facts> {
    let at = found.iter().position(|f| f.format == format)?;
    let others: Vec<_> = found.iter().filter(|f| f.format != format).collect();
    fits(&others).then(|| found.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(format: Format) -> Facts {
        Facts {
            virtual_size: Some(1 << 20),
            ..Facts::new(format)
        }
    }

    #[test]
    fn nothing_matched_means_raw() {
        let i = judge(vec![], 1234, &Limits::default());
        assert_eq!((i.format, i.virtual_size), (Format::Raw, Some(1234)));
        assert_eq!(i.verdict(), Verdict::Safe);
    }

    #[test]
    fn a_partition_table_is_raw_and_a_hybrid_is_an_iso() {
        let i = judge(vec![facts(Format::Gpt)], 99, &Limits::default());
        assert_eq!((i.format, i.virtual_size), (Format::Raw, Some(99)));
        let i = judge(
            vec![facts(Format::Iso), facts(Format::Gpt)],
            99,
            &Limits::default(),
        );
        assert_eq!((i.format, i.verdict()), (Format::Iso, Verdict::Safe));
    }

    #[test]
    fn two_formats_at_once_are_unsafe() {
        let i = judge(
            vec![facts(Format::Qcow2), facts(Format::Iso)],
            99,
            &Limits::default(),
        );
        assert_eq!(i.unsafe_finding().map(|f| f.rule), Some("polyglot"));
        let i = judge(
            vec![facts(Format::Qcow2), facts(Format::Gpt)],
            99,
            &Limits::default(),
        );
        assert_eq!(i.verdict(), Verdict::Unsafe);
    }

    #[test]
    fn a_size_beyond_the_limit_is_unsafe() {
        let huge = Facts {
            virtual_size: Some(u64::MAX),
            ..Facts::new(Format::Vdi)
        };
        let i = judge(vec![huge], 99, &Limits::default());
        assert_eq!(i.unsafe_finding().map(|f| f.rule), Some("virtual_size"));
    }
}
