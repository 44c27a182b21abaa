//! Rules that a well-formed header can still break. The inspector reports every broken one, the
//! reader stops at the first that concerns it: one judgement for both.

use super::layout::{CRYPT_LUKS, Header, MAX_REFCOUNT_TABLE_BYTES, header_byte, incompatible};
use crate::{Error, Format, HostOffset, Result};

/// A broken rule: its stable name, and the sentence.
pub(super) type Broken = (&'static str, Error);

/// Rules on what reading would need to understand.
pub(super) fn features(header: &Header) -> Vec<Broken> {
    let mut broken = Vec::new();
    let unknown = header.incompatible_features & !incompatible::KNOWN;
    if unknown != 0 {
        broken.push((
            "unknown_features",
            Error::unsupported(
                Format::Qcow2,
                header_byte(72),
                format!(
                    "incompatible feature bits {unknown:#x} are not known here: convert it with \
                     the program that made it"
                ),
            ),
        ));
    }
    if header.has(incompatible::CORRUPT) {
        broken.push((
            "corrupt",
            Error::malformed(
                Format::Qcow2,
                header_byte(72),
                "incompatible feature bit 1 (corrupt) is set: its last writer found tables that \
                 contradict each other, repair it first",
            ),
        ));
    }
    broken
}

/// The rule on encryption: what is encrypted is not for everybody, and cannot be judged.
pub(super) fn encryption(header: &Header) -> Option<Broken> {
    let what = match header.crypt_method {
        0 => return None,
        1 => "(AES): this old method of encryption is not read",
        CRYPT_LUKS => "(LUKS): it takes a passphrase to read it",
        _ => "(an unknown method): encrypted images are not read",
    };
    let message = format!("crypt_method is {} {what}", header.crypt_method);
    Some((
        "encrypted",
        Error::refused(Format::Qcow2, header_byte(32), message),
    ))
}

/// The L1 table lies inside a file of `file_len` bytes.
///
/// # Errors
/// `Malformed`.
pub(super) fn l1_table(header: &Header, file_len: u64) -> Result<()> {
    inside("L1 table", header.l1_offset, header.l1_bytes(), file_len)
}

/// The refcount table exists, is of sane size and lies inside a file of `file_len` bytes.
/// Reading does not need it.
///
/// # Errors
/// `Malformed`.
pub(super) fn refcount_table(header: &Header, file_len: u64) -> Result<()> {
    if header.refcount_table_clusters == 0 || header.refcount_table_offset == HostOffset::ZERO {
        return Err(Error::malformed(
            Format::Qcow2,
            header_byte(48),
            format!(
                "the refcount table is at {} and has {} clusters, allowed neither to be 0",
                header.refcount_table_offset, header.refcount_table_clusters
            ),
        ));
    }
    let bytes = header.refcount_table_bytes();
    if bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err(Error::malformed(
            Format::Qcow2,
            header_byte(56),
            format!("the refcount table has {bytes} bytes, allowed {MAX_REFCOUNT_TABLE_BYTES}"),
        ));
    }
    // Only its used entries need to be there: the last cluster of a small file may be cut.
    inside("refcount table", header.refcount_table_offset, 8, file_len)
}

/// The L1 table and the refcount table do not share bytes.
///
/// # Errors
/// `Malformed`.
pub(super) fn apart(header: &Header) -> Result<()> {
    let (l1, refcounts) = (header.l1_offset.0, header.refcount_table_offset.0);
    if l1 < refcounts.saturating_add(header.refcount_table_bytes())
        && refcounts < l1.saturating_add(header.l1_bytes())
    {
        return Err(Error::malformed(
            Format::Qcow2,
            format!("L1 table, byte {}", header.l1_offset),
            format!("overlaps the refcount table at {refcounts:#x}"),
        ));
    }
    Ok(())
}

/// `len` bytes from `at` lie inside a file of `file_len` bytes.
pub(super) fn inside(place: &'static str, at: HostOffset, len: u64, file_len: u64) -> Result<()> {
    match at.checked_add(len) {
        Some(end) if len == 0 || end.0 <= file_len => Ok(()),
        _ => Err(Error::malformed(
            Format::Qcow2,
            format!("{place}, byte {at}"),
            format!("has {len} bytes, the file ends at {file_len:#x}: it was cut short"),
        )),
    }
}
