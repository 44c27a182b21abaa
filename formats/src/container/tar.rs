//! Tar archives, listed and never unpacked: a member is a range of the file.
//!
//! ```text
//!  [pax or GNU name header │ data]  header 512 │ data, padded to 512 │ … │ two zero blocks │ padding
//! ```
//! POSIX.1-2017 `pax`, ustar and pax formats; GNU tar's long names. Tar programs disagree wherever
//! the format leaves room (two names for a member, two sizes, what follows the end), so whatever
//! could be read in two ways is a [`Problem`], and so is a member that ends past the file.

use crate::bytes::is_zero;
use crate::source::read_up_to;
use crate::{HostOffset, Result, Source};

/// Bytes of a header, and what everything is padded to.
const BLOCK: u64 = 512;
/// Headers listed; an OVA has a handful.
const MAX_HEADERS: usize = 4096;
/// Bytes of one extended header (names, pax records) read.
const MAX_EXTENDED: u64 = 64 << 10;
/// Padding behind the end marker: the largest record size `tar -b` users have.
const MAX_PADDING: u64 = 1 << 20;
/// The largest size that fits ustar's octal field.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, device, sparse file or something else that is not its bytes.
    Other(&'static str),
}

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Where its data begins.
    pub(super) at: HostOffset,
    /// Bytes of data.
    pub(super) len: u64,
}

/// Why an archive was not listed to its end, or cannot be trusted.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) rule: &'static str,
    pub(super) at: HostOffset,
    pub(super) message: String,
}

/// The members of an archive, up to its first problem.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) members: Vec<Member>,
    pub(super) problem: Option<Problem>,
}

/// Whether a file that begins with `head` is a tar archive: its first header has a right
/// checksum, which needs no magic and so covers tar programs of all ages.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.first_chunk()
        .is_some_and(|block: &[u8; BLOCK as usize]| block[0] != 0 && has_right_checksum(block))
}

fn has_right_checksum(block: &[u8; BLOCK as usize]) -> bool {
    let Ok(expected) = tar::Header::from_byte_slice(block).cksum() else {
        return false;
    };
    let bytes = || {
        let (before, rest) = block.split_at(148);
        before.iter().chain(&[b' '; 8]).chain(&rest[8..])
    };
    let unsigned: u32 = bytes().map(|&b| u32::from(b)).sum();
    // Some old programs took characters for signed.
    let signed: i32 = bytes().map(|&b| i32::from(b.cast_signed())).sum();
    unsigned == expected || i32::try_from(expected) == Ok(signed)
}

/// What extended headers say of the member that follows.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
    is_sparse: bool,
}

/// Lists the archive in `source`.
pub(super) fn list(source: &dyn Source) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut at = HostOffset::ZERO;
    let mut extended = Extended::default();
    for _ in 0..MAX_HEADERS {
        match step(source, at, &mut extended, &mut listing.members)? {
            Step::Next(next) => at = next,
            Step::End => return Ok(listing),
            Step::Problem(rule, message) => {
                listing.problem = Some(Problem { rule, at, message });
                return Ok(listing);
            }
        }
    }
    listing.problem = Some(Problem {
        rule: "tar_too_many_members",
        at,
        message: format!("has more than {MAX_HEADERS} headers"),
    });
    Ok(listing)
}

enum Step {
    Next(HostOffset),
    End,
    Problem(&'static str, String),
}

fn problem(rule: &'static str, message: impl Into<String>) -> Step {
    Step::Problem(rule, message.into())
}

/// Takes the header at `at`.
fn step(
    source: &dyn Source,
    at: HostOffset,
    extended: &mut Extended,
    members: &mut Vec<Member>,
) -> Result<Step> {
    let has_extended = extended.name.is_some() || extended.size.is_some() || extended.is_sparse;
    let block = read_up_to(source, at, BLOCK as usize)?;
    let block: &[u8; BLOCK as usize] = match block.first_chunk() {
        // The marker at the end is left out by some programs.
        None if block.is_empty() && !has_extended && !members.is_empty() => return Ok(Step::End),
        None => {
            return Ok(problem(
                "tar_truncated",
                "the archive ends within a header: the file is cut off",
            ));
        }
        Some(block) => block,
    };
    if is_zero(block) {
        if has_extended {
            return Ok(problem(
                "tar_header",
                "an extended header is followed by the end",
            ));
        }
        return check_end(source, at);
    }
    if !has_right_checksum(block) {
        return Ok(problem("tar_header", "the checksum is wrong"));
    }
    let header = tar::Header::from_byte_slice(block);
    let kind = header.entry_type();
    let is_extended = matches!(kind.as_byte(), b'x' | b'g' | b'L' | b'K');
    let pax_size = extended.size.filter(|_| !is_extended);
    let size = match (size_field(header), pax_size) {
        (None, _) => return Ok(problem("tar_header", "the size is no number")),
        (Some(size), None) => size,
        // The pax size is meant for members that do not fit the field.
        (Some(size), Some(pax)) if size == pax || pax > MAX_OCTAL => pax,
        (Some(size), Some(pax)) => {
            return Ok(problem(
                "tar_two_sizes",
                format!("the header says {size} bytes, its pax record {pax}"),
            ));
        }
    };
    let data = HostOffset(at.0.saturating_add(BLOCK));
    let end = data.checked_add(size).filter(|end| end.0 <= source.len());
    let Some(end) = end else {
        if !is_extended {
            // Its name still tells what the archive is.
            members.push(member(header, Kind::Other("cut off"), data, 0, extended));
        }
        return Ok(problem(
            "tar_truncated",
            format!(
                "the member's {size} bytes reach past the end of the file at byte {:#x}",
                source.len()
            ),
        ));
    };
    // The padding of the last member is left out by some programs.
    let next = HostOffset(end.align_up(BLOCK).0.min(source.len()));
    if is_extended {
        let refused = take_extended(source, kind, data, size, extended)?;
        return Ok(refused.unwrap_or(Step::Next(next)));
    }
    let kind = if extended.is_sparse {
        Kind::Other("a sparse file")
    } else {
        kind_of(kind)
    };
    members.push(member(header, kind, data, size, extended));
    Ok(Step::Next(next))
}

/// Makes a member of a header and what was said ahead of it.
fn member(
    header: &tar::Header,
    kind: Kind,
    at: HostOffset,
    len: u64,
    extended: &mut Extended,
) -> Member {
    let name = std::mem::take(extended).name;
    Member {
        name: name.unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned()),
        kind,
        at,
        len,
    }
}

/// The size field; GNU's binary numbers have twelve bytes, of which only eight are believed.
fn size_field(header: &tar::Header) -> Option<u64> {
    let field = header.as_bytes().get(124..136)?;
    if field[0] & 0x80 != 0 && field[..4] != [0x80, 0, 0, 0] {
        return None;
    }
    header.entry_size().ok()
}

fn kind_of(kind: tar::EntryType) -> Kind {
    match kind.as_byte() {
        0 | b'0' | b'7' => Kind::File,
        b'5' => Kind::Folder,
        b'1' => Kind::Other("a hard link"),
        b'2' => Kind::Other("a symbolic link"),
        b'3' | b'4' => Kind::Other("a device"),
        b'6' => Kind::Other("a pipe"),
        b'S' => Kind::Other("a sparse file"),
        _ => Kind::Other("of an unknown type"),
    }
}

/// Takes what an extended header of `kind` says; answers with what is wrong in it.
fn take_extended(
    source: &dyn Source,
    kind: tar::EntryType,
    data: HostOffset,
    size: u64,
    extended: &mut Extended,
) -> Result<Option<Step>> {
    if size > MAX_EXTENDED {
        return Ok(Some(problem(
            "tar_header",
            format!("an extended header has {size} bytes, allowed {MAX_EXTENDED}"),
        )));
    }
    let bytes = read_up_to(source, data, usize::try_from(size).unwrap_or(0))?;
    match kind.as_byte() {
        b'L' => {
            let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
            let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
            if extended.name.replace(name).is_some() {
                return Ok(Some(problem("tar_header", "two names for one member")));
            }
        }
        // Where a link leads: links are refused by their kind.
        b'K' => {}
        kind => return Ok(take_pax(&bytes, kind == b'g', extended)),
    }
    Ok(None)
}

fn take_pax(bytes: &[u8], is_global: bool, extended: &mut Extended) -> Option<Step> {
    for record in tar::PaxExtensions::new(bytes) {
        let Ok(record) = record else {
            return Some(problem("tar_header", "a pax record is malformed"));
        };
        let (key, value) = (record.key_bytes(), record.value_bytes());
        let matters = matches!(key, b"path" | b"size") || key.starts_with(b"GNU.sparse.");
        if matters && is_global {
            return Some(problem(
                "tar_header",
                format!(
                    "a pax record gives all members the same {}",
                    String::from_utf8_lossy(key)
                ),
            ));
        }
        let twice = match key {
            b"path" => extended
                .name
                .replace(String::from_utf8_lossy(value).into_owned())
                .is_some(),
            b"size" => {
                let size = std::str::from_utf8(value).ok();
                match size.and_then(|v| v.parse().ok()) {
                    Some(size) => extended.size.replace(size).is_some(),
                    None => return Some(problem("tar_header", "the pax size is no number")),
                }
            }
            _ if matters => {
                extended.is_sparse = true;
                false
            }
            _ => false,
        };
        if twice {
            return Some(problem(
                "tar_header",
                format!(
                    "two values of {} for one member",
                    String::from_utf8_lossy(key)
                ),
            ));
        }
    }
    None
}

/// Checks that nothing but padding follows the zero block at `at`. Some programs stop there,
/// others look for more members.
fn check_end(source: &dyn Source, at: HostOffset) -> Result<Step> {
    let rest = HostOffset(source.len()).since(at);
    let len = usize::try_from(rest.min(MAX_PADDING)).unwrap_or(0);
    if !is_zero(&read_up_to(source, at, len)?) || rest > MAX_PADDING {
        return Ok(problem(
            "tar_trailing_data",
            format!("the archive ends here, but {rest} bytes follow that are no padding"),
        ));
    }
    Ok(Step::End)
}
