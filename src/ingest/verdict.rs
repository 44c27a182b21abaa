//! What an image claims to be against what it is (`format-safety.md` 4.1, and 5 where stricter).

use formats::Format;
use formats::inspect::{Allowance, Finding, Inspection, Severity, Stream};

use crate::config::Formats;

/// Disk formats that need no format of their own: their data may be plain bytes. A ploop disk is
/// either that or a Parallels one.
const OPAQUE: &[&str] = &["ami", "ari", "aki", "ploop"];

/// What a claim makes no reason to refuse: a kernel or ramdisk is unpacked by what starts it, and what is
/// said to be compressed by whoever downloads it.
fn allowance(disk_format: &str, container_format: &str) -> Allowance {
    Allowance {
        payload: matches!(disk_format, "aki" | "ari") || container_format == "compressed",
        ..Allowance::default()
    }
}

/// Judges data against the claims of its image; answers the virtual size to record.
///
/// # Errors
/// A sentence for the client: why the data is refused.
pub fn judge(
    inspection: &Inspection,
    disk_format: &str,
    container_format: &str,
    rules: &Formats,
) -> Result<Option<u64>, String> {
    // What is unsafe is refused whatever it claims to be.
    if let Some(finding) = inspection.refusal(allowance(disk_format, container_format)) {
        return Err(unsafe_content(inspection.format, finding));
    }
    match container_format {
        "bare" => bare(inspection, disk_format, rules),
        "ova" if inspection.format == Format::Ova => Ok(inspection.virtual_size),
        "ova" if rules.require_match => Err(format!(
            "Image container_format ova does not match stream data {}",
            inspection.format
        )),
        // Other containers are stored as they are; what is in them was judged above.
        _ => Ok(None),
    }
}

fn bare(
    inspection: &Inspection,
    disk_format: &str,
    rules: &Formats,
) -> Result<Option<u64>, String> {
    let found = inspection.format;
    let virtual_size = match inspection.virtual_size {
        Some(0) => None,
        size => size,
    };
    if OPAQUE.contains(&disk_format) && found == Format::Raw {
        return Ok(None);
    }
    // A partition table is the content of a raw disk, not a format of its own.
    let is_partitioned = inspection.details.contains_key("partition_table");
    // A ploop image is a Parallels one, bit for bit.
    let is_ploop = disk_format == "ploop" && found == Format::Parallels;
    if disk_format == found.name() || is_ploop || (disk_format == "gpt" && is_partitioned) {
        return Ok(virtual_size);
    }
    if disk_format == "raw" {
        // The guest of a raw disk sees the file itself, whatever lies in it.
        return Ok(Some(inspection.file_size));
    }
    if rules.require_match {
        return Err(format!(
            "Image disk_format {disk_format} does not match stream data {found}"
        ));
    }
    Ok(virtual_size)
}

/// What speaks against the claim that raw data is a kernel, a ramdisk or a machine: worth a line
/// in the log, and no reason to refuse what a hypervisor may know how to start.
#[must_use]
pub fn doubt(inspection: &Inspection, disk_format: &str) -> Option<String> {
    let content = inspection.details.get("content")?;
    let (kind, of_type) = (content["kind"].as_str()?, content["type"].as_str()?);
    let expected = match disk_format {
        "aki" => "kernel",
        "ari" => "ramdisk",
        "ami" => "filesystem",
        _ => return None,
    };
    let is_known = matches!(
        kind,
        "kernel" | "ramdisk" | "filesystem" | "swap" | "program"
    );
    (is_known && kind != expected).then(|| {
        format!(
            "Image disk_format {disk_format} means a {expected}, the data is a {kind} ({of_type})"
        )
    })
}

/// Looks at what is known in the middle of an upload: a reason to end it at once.
#[must_use]
pub fn early(
    stream: &Stream,
    disk_format: &str,
    container_format: &str,
    rules: &Formats,
) -> Option<String> {
    let found = stream.known().flat_map(|facts| {
        let format = facts.format;
        facts.findings.iter().map(move |finding| (format, finding))
    });
    let allowed = allowance(disk_format, container_format);
    let is_final = |(format, finding): &(Format, &Finding)| {
        // What a partition table or plain content is worth depends on what else is found.
        finding.severity == Severity::Unsafe
            && !matches!(format, Format::Gpt | Format::Raw)
            && !allowed.covers(*format, finding)
    };
    if let Some((format, finding)) = found.into_iter().find(is_final) {
        return Some(unsafe_content(format, finding));
    }
    if OPAQUE.contains(&disk_format) {
        return None;
    }
    let claimed: Format = disk_format.parse().ok()?;
    (container_format == "bare" && rules.require_match && stream.is_ruled_out(claimed)).then(|| {
        format!(
            "Image disk_format {disk_format} does not match stream data, which begins otherwise"
        )
    })
}

fn unsafe_content(format: Format, finding: &Finding) -> String {
    format!(
        "Image content is not safe: {} ({format}: {}, rule {})",
        finding.message, finding.place, finding.rule
    )
}

#[cfg(test)]
mod tests {
    use formats::Limits;
    use formats::inspect::{Facts, judge as inspect};

    use super::*;

    fn found(format: Format) -> Inspection {
        let facts = match format {
            Format::Raw => vec![],
            _ => vec![Facts {
                virtual_size: Some(1 << 30),
                ..Facts::new(format)
            }],
        };
        inspect(facts, 1000, &Limits::default())
    }

    fn bare(format: Format, claim: &str) -> Result<Option<u64>, String> {
        judge(&found(format), claim, "bare", &Formats::default())
    }

    #[test]
    fn the_table_of_claims() {
        assert_eq!(bare(Format::Qcow2, "qcow2"), Ok(Some(1 << 30)));
        assert_eq!(bare(Format::Raw, "raw"), Ok(Some(1000)));
        assert_eq!(bare(Format::Gpt, "raw"), Ok(Some(1000)));
        assert_eq!(bare(Format::Raw, "ami"), Ok(None));
        assert_eq!(bare(Format::Raw, "ploop"), Ok(None));
        assert_eq!(bare(Format::Parallels, "ploop"), Ok(Some(1 << 30)));
        assert!(bare(Format::Qcow2, "ploop").is_err());
        assert_eq!(bare(Format::Qcow2, "raw"), Ok(Some(1000)));
        // 04-upload.http, "raw data declared qcow2".
        assert_eq!(
            bare(Format::Raw, "qcow2"),
            Err("Image disk_format qcow2 does not match stream data raw".into())
        );
        assert!(bare(Format::Vmdk, "qcow2").is_err());
        assert!(bare(Format::Qcow2, "ami").is_err());
    }

    #[test]
    fn unsafe_data_is_refused_even_as_raw() {
        let mut facts = Facts::new(Format::Qcow2);
        facts.find(
            "backing_file",
            Severity::Unsafe,
            "header, byte 8",
            "names /etc/passwd",
        );
        let inspection = inspect(vec![facts], 1000, &Limits::default());
        for (disk, container) in [("raw", "bare"), ("qcow2", "bare"), ("raw", "docker")] {
            let reason = judge(&inspection, disk, container, &Formats::default()).unwrap_err();
            assert!(
                reason.contains("/etc/passwd") && reason.contains("backing_file"),
                "{reason}"
            );
        }
    }

    #[test]
    fn claims_about_raw_data_are_only_doubted() {
        let bzimage = serde_json::json!({"kind": "kernel", "type": "bzImage"});
        let packed = serde_json::json!({"kind": "compressed", "type": "lz4"});
        for (claim, content, is_doubted) in [
            ("aki", &bzimage, false),
            ("ari", &bzimage, true),
            ("ami", &bzimage, true),
            ("raw", &bzimage, false),
            ("ari", &packed, false),
        ] {
            let mut inspection = found(Format::Raw);
            inspection.details.insert("content".into(), content.clone());
            assert_eq!(doubt(&inspection, claim).is_some(), is_doubted, "{claim}");
            assert!(judge(&inspection, claim, "bare", &Formats::default()).is_ok());
        }
        assert_eq!(doubt(&found(Format::Raw), "aki"), None);
    }

    #[test]
    fn only_a_payload_may_be_compressed_by_what_is_not_read() {
        let mut facts = Facts::new(Format::Raw);
        facts.find("compressed_content", Severity::Unsafe, "byte 0", "is lz4");
        let packed = inspect(vec![facts], 1000, &Limits::default());
        let mut facts = Facts::new(Format::Archive);
        facts.find("unsupported_format", Severity::Unsafe, "byte 0", "is 7z");
        let archive = inspect(vec![facts], 1000, &Limits::default());
        for (claim, container, is_fine) in [
            ("ari", "bare", true),
            ("aki", "bare", true),
            ("ami", "bare", false),
            ("raw", "bare", false),
            ("raw", "compressed", true),
        ] {
            let judged = judge(&packed, claim, container, &Formats::default());
            assert_eq!(judged.is_ok(), is_fine, "{claim}: {judged:?}");
            let judged = judge(&archive, claim, container, &Formats::default());
            assert_eq!(
                judged.is_ok(),
                container == "compressed",
                "{claim}: {judged:?}"
            );
        }
    }

    #[test]
    fn a_mismatch_may_be_allowed() {
        let rules = Formats {
            require_match: false,
            ..Formats::default()
        };
        assert_eq!(
            judge(&found(Format::Vmdk), "qcow2", "bare", &rules),
            Ok(Some(1 << 30))
        );
    }
}
