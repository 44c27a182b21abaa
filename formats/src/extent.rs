//! Extents: what a range of the virtual disk is made of.

use std::ops::Range;

use crate::{GuestOffset, HostOffset, Result, Source, guest_len};

/// A guest range of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The guest bytes described.
    pub range: Range<GuestOffset>,
    /// What they are.
    pub kind: ExtentKind,
}

/// What the bytes of an [`Extent`] are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    /// Stored as they are; `host` says where in the image's own source, when they lie there in
    /// one piece.
    Data {
        /// Start of the bytes in the image's source.
        host: Option<HostOffset>,
    },
    /// Stored compressed or otherwise encoded.
    Encoded,
    /// Known to be zero; hides a parent.
    Zero,
    /// Not stored here: falls through to a parent, zero where there is none.
    Unallocated,
}

impl ExtentKind {
    /// Whether a reader without a parent sees zeros here.
    #[must_use]
    pub const fn is_hole(self) -> bool {
        matches!(self, Self::Zero | Self::Unallocated)
    }
}

/// Upper bound on the extents one [`Disk::extents`](crate::Disk::extents) call appends.
pub const MAX_EXTENTS: usize = 4096;

/// Appends `extent`, merging it with the last one where both continue each other. Empty ranges
/// are dropped.
pub fn push_extent(out: &mut Vec<Extent>, extent: Extent) {
    if extent.range.is_empty() {
        return;
    }
    if let Some(last) = out.last_mut()
        && last.range.end == extent.range.start
        && continues(last, &extent)
    {
        last.range.end = extent.range.end;
        return;
    }
    out.push(extent);
}

/// Whether one more step, of two extents at most, fits a call that began with `base` extents.
pub(crate) fn has_room(out: &[Extent], base: usize) -> bool {
    out.len() - base + 2 <= MAX_EXTENTS
}

/// Appends what the bytes of `range`, stored in `source` from `host`, are: data, and zeros where
/// the file itself has holes. `is_own`: the source is the image's own, so that data can be
/// pointed to. Answers how far it came before the call, which began with `base` extents, was full.
///
/// # Errors
/// `Io` when the source cannot tell its holes.
pub(crate) fn push_stored(
    source: &dyn Source,
    range: Range<GuestOffset>,
    host: HostOffset,
    is_own: bool,
    base: usize,
    out: &mut Vec<Extent>,
) -> Result<GuestOffset> {
    let mut at = range.start;
    while at < range.end && has_room(out, base) {
        let here = HostOffset(host.0 + at.since(range.start));
        // Never more than the run, so the sums below stay inside it.
        let rest = range.end.since(at);
        let data = source.next_data(here)?;
        let hole = data
            .as_ref()
            .map_or(rest, |d| d.start.since(here).min(rest));
        let end = data.map_or(rest, |d| d.end.since(here).clamp(hole, rest));
        let (hole_end, data_end) = (GuestOffset(at.0 + hole), GuestOffset(at.0 + end));
        push_extent(
            out,
            Extent {
                range: at..hole_end,
                kind: ExtentKind::Zero,
            },
        );
        let start = HostOffset(here.0 + hole);
        push_extent(
            out,
            Extent {
                range: hole_end..data_end,
                kind: ExtentKind::Data {
                    host: is_own.then_some(start),
                },
            },
        );
        if data_end == at {
            // A source that names an empty range would keep us here.
            break;
        }
        at = data_end;
    }
    Ok(at)
}

pub(crate) fn continues(last: &Extent, next: &Extent) -> bool {
    match (last.kind, next.kind) {
        (ExtentKind::Data { host: Some(a) }, ExtentKind::Data { host: Some(b) }) => {
            a.checked_add(guest_len(&last.range)) == Some(b)
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, end: u64, kind: ExtentKind) -> Extent {
        Extent {
            range: GuestOffset(start)..GuestOffset(end),
            kind,
        }
    }

    #[test]
    fn merges_only_what_continues() {
        let mut out = Vec::new();
        push_extent(
            &mut out,
            extent(
                0,
                10,
                ExtentKind::Data {
                    host: Some(HostOffset(100)),
                },
            ),
        );
        push_extent(
            &mut out,
            extent(
                10,
                20,
                ExtentKind::Data {
                    host: Some(HostOffset(110)),
                },
            ),
        );
        push_extent(
            &mut out,
            extent(
                20,
                30,
                ExtentKind::Data {
                    host: Some(HostOffset(200)),
                },
            ),
        );
        push_extent(&mut out, extent(30, 30, ExtentKind::Zero));
        push_extent(&mut out, extent(30, 40, ExtentKind::Zero));
        push_extent(&mut out, extent(40, 50, ExtentKind::Zero));
        assert_eq!(
            out,
            [
                extent(
                    0,
                    20,
                    ExtentKind::Data {
                        host: Some(HostOffset(100))
                    }
                ),
                extent(
                    20,
                    30,
                    ExtentKind::Data {
                        host: Some(HostOffset(200))
                    }
                ),
                extent(30, 50, ExtentKind::Zero),
            ]
        );
    }
}
