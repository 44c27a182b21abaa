//! What becomes what on import (`format-safety.md` 4.3).

use formats::Format;
use formats::inspect::Inspection;

use super::{Form, Request};
use crate::config::Config;
use crate::domain::Image;
use crate::ingest::verdict;

/// What to do with staged bytes.
#[derive(Debug)]
pub enum Plan {
    /// Publish them as they are.
    Keep {
        /// The virtual size to record.
        virtual_size: Option<u64>,
    },
    /// Convert them first.
    Convert {
        /// What the worker is told.
        request: Request,
        /// What comes out.
        target: Format,
    },
}

/// Judges the claims of `image` against what was found, and decides: what is stored in no `form`
/// of its own stays as it came.
///
/// # Errors
/// A sentence for the client: why the import is refused.
pub fn decide(
    image: &Image,
    found: &Inspection,
    form: Option<&Form>,
    config: &Config,
) -> Result<Plan, String> {
    let disk = image.disk_format.as_deref().unwrap_or_default();
    let container = image.container_format.as_deref().unwrap_or_default();
    let Some(form) = form else {
        // Stored as it came: a wrapper around a bare image is its content.
        let mut as_stored = found.clone();
        if container == "bare" && found.compression.is_some() {
            as_stored.format = Format::Raw;
            as_stored.virtual_size = Some(found.file_size);
        }
        let virtual_size = verdict::judge(&as_stored, disk, container, &config.formats)?;
        return Ok(Plan::Keep { virtual_size });
    };

    let target = form.target()?;
    let virtual_size = verdict::judge(found, disk, container, &config.formats)?;
    let member = match container {
        "bare" => None,
        "ova" => Some(one_disk(found)?),
        other => {
            return Err(format!(
                "container_format {other} cannot be converted to {target}, which imports ask for"
            ));
        }
    };
    if member.is_none() {
        if disk == "raw" && found.format != Format::Raw {
            return Err(format!(
                "Image disk_format raw does not match stream data {}, which would be converted",
                found.format
            ));
        }
        // An ISO is a medium, not a disk: it passes unchanged, as in the reference.
        let is_medium = found.format == Format::Iso && !form.is_asked;
        let is_there = found.format == target && !form.is_made_anew();
        if found.compression.is_none() && (is_there || is_medium) {
            return Ok(Plan::Keep { virtual_size });
        }
    }
    let cap = config.quota.image_size_cap;
    if let (Format::Raw, Some(size)) = (target, found.virtual_size)
        && size > cap
    {
        return Err(format!(
            "As raw the image would have {size} bytes, more than the {cap} allowed"
        ));
    }
    let request = Request {
        unpack: false,
        input: member.is_none().then_some(found.format.name().to_owned()),
        disk: member,
        output: target.name().to_owned(),
        options: form.pairs(),
        compress: form.compress,
        in_order: None,
        is_judged: false,
        virtual_size: None,
        sandbox: config.import.sandbox,
        memory: config.import.worker_memory,
        cpu_seconds: config.import.worker_cpu_seconds,
        max_virtual_size: config.formats.max_virtual_size,
        max_inflated: cap,
        max_output: cap,
    };
    Ok(Plan::Convert { request, target })
}

/// What a worker is told that only takes a wrapper off.
#[must_use]
pub fn unpack(config: &Config) -> Request {
    let cap = config.quota.image_size_cap;
    Request {
        unpack: true,
        input: None,
        disk: None,
        output: Format::Raw.name().to_owned(),
        options: Vec::new(),
        compress: false,
        in_order: None,
        is_judged: false,
        virtual_size: None,
        sandbox: config.import.sandbox,
        memory: config.import.worker_memory,
        cpu_seconds: config.import.worker_cpu_seconds,
        max_virtual_size: config.formats.max_virtual_size,
        max_inflated: cap,
        max_output: cap,
    }
}

/// The name of the only disk of an archive.
fn one_disk(found: &Inspection) -> Result<String, String> {
    match found.disks.as_slice() {
        [disk] => Ok(disk.name.clone()),
        [] => Err("The OVA holds no disk to convert".into()),
        disks => {
            let names: Vec<_> = disks.iter().map(|d| d.name.as_str()).collect();
            Err(format!(
                "The OVA holds {} disks ({}); only one can become an image here",
                disks.len(),
                names.join(", ")
            ))
        }
    }
}
