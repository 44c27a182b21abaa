//! One disk of an archive whose other disks become images too.

use formats::Format;
use formats::inspect::MemberDisk;

use super::{Form, Request, unpack};
use crate::config::Config;

/// What a worker is told that takes `disk` out of an archive, which was judged, and brings it
/// into `form`, where one is wanted; and what comes out.
///
/// # Errors
/// A sentence for the client: why not.
pub fn part(
    disk: &MemberDisk,
    form: Option<&Form>,
    config: &Config,
) -> Result<(Request, Format), String> {
    let taken_out = Request {
        disk: Some(disk.id.clone()),
        is_judged: true,
        ..unpack(config)
    };
    let form = form.filter(|form| {
        let target = form.disk_format.parse::<Format>();
        target.is_ok_and(|target| target != disk.format) || form.is_made_anew()
    });
    let Some(form) = form else {
        let name = disk.format.name();
        if !config.formats.disk_formats.iter().any(|f| f == name) {
            return Err(format!(
                "The disk {} is {name}, which images are not kept in here: say \"convert\"",
                disk.name
            ));
        }
        return Ok((taken_out, disk.format));
    };
    let target = form.target()?;
    let cap = config.quota.image_size_cap;
    if let (Format::Raw, Some(size)) = (target, disk.virtual_size)
        && size > cap
    {
        return Err(format!(
            "As raw the disk {} would have {size} bytes, more than the {cap} allowed",
            disk.name
        ));
    }
    let request = Request {
        unpack: false,
        output: target.name().to_owned(),
        options: form.pairs(),
        compress: form.compress,
        virtual_size: disk.virtual_size,
        ..taken_out
    };
    Ok((request, target))
}
