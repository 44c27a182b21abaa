//! Chains: an image whose unallocated parts fall through to another beneath it.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::check_range;
use crate::inspect::{self, Allowance};
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, MAX_EXTENTS, OpenOptions, Result, Source,
    guest_len, push_extent,
};

/// Images a chain may have; also what ends a loop.
pub(crate) const MAX_CHAIN: u32 = 16;

/// The options to open the image beneath with, one step further down, as `format`. It is judged
/// as the one on top was; the names in it are requests to `granted.resolver`.
///
/// # Errors
/// `Refused` when the chain is longer than [`MAX_CHAIN`], and when that image is unsafe;
/// `Malformed` when it is of another format.
pub(crate) fn beneath(
    by: Format,
    format: Format,
    granted: &crate::resolve::Granted,
    options: &OpenOptions,
) -> Result<OpenOptions> {
    let depth = options.depth + 1;
    if depth >= MAX_CHAIN {
        return Err(Error::refused(
            by,
            "chain",
            format!("is longer than {MAX_CHAIN} images"),
        ));
    }
    judge_beneath(by, format, granted.source.as_ref(), options)?;
    Ok(OpenOptions {
        format: Some(format),
        limits: options.limits.clone(),
        resolver: Arc::clone(&granted.resolver),
        passphrase: options.passphrase.clone(),
        snapshot: None,
        depth,
    })
}

/// Judges the image beneath. A raw one is bytes that a guest may have written: it is taken as it
/// is, and never asked what it looks like.
fn judge_beneath(
    by: Format,
    format: Format,
    source: &dyn Source,
    options: &OpenOptions,
) -> Result<()> {
    if format == Format::Raw {
        return Ok(());
    }
    let found = inspect::inspect(source, &options.limits)?;
    if found.format != format {
        let found = found.format;
        let message = format!("the image beneath is {found}, not {format} as it is said to be");
        return Err(Error::malformed(by, "chain", message));
    }
    // Whether it may read other files is its resolver's to say, and readers ask for passphrases.
    match found.refusal(Allowance::ALL) {
        None => Ok(()),
        Some(finding) => Err(Error::refused(
            format,
            finding.place.clone(),
            format!("the image beneath is unsafe: {}", finding.message),
        )),
    }
}

/// A disk on top of another. Where `top` says `Unallocated` the guest sees `bottom`, and zeros
/// past its end: the two need not have the same size.
pub(crate) struct Overlay {
    top: Arc<dyn Disk>,
    bottom: Arc<dyn Disk>,
}

impl Overlay {
    pub(crate) fn new(top: Arc<dyn Disk>, bottom: Arc<dyn Disk>) -> Self {
        Self { top, bottom }
    }

    /// Fills `buf` from beneath, with zeros past the end.
    fn read_bottom(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        let there = GuestOffset(self.bottom.virtual_size()).since(at);
        let there = usize::try_from(there).map_or(buf.len(), |n| n.min(buf.len()));
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        self.bottom.read_at(inside, at)
    }

    /// Appends what lies beneath in `range`, or a beginning of it.
    fn bottom_extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        let end = GuestOffset(self.bottom.virtual_size()).clamp(range.start, range.end);
        if range.start >= end {
            let kind = ExtentKind::Unallocated;
            push_extent(out, Extent { range, kind });
            return Ok(());
        }
        let mut beneath = Vec::new();
        self.bottom.extents(range.start..end, &mut beneath)?;
        for mut extent in beneath {
            if let ExtentKind::Data { .. } = extent.kind {
                // The bytes lie in another file than ours.
                extent.kind = ExtentKind::Data { host: None };
            }
            push_extent(out, extent);
        }
        Ok(())
    }
}

impl Disk for Overlay {
    fn virtual_size(&self) -> u64 {
        self.top.virtual_size()
    }

    fn unit(&self) -> u64 {
        self.top.unit()
    }

    fn stack(&self) -> Option<[&dyn Disk; 2]> {
        Some([self.top.as_ref(), self.bottom.as_ref()])
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.virtual_size())?;
        let most = out.len() + MAX_EXTENTS;
        let mut above = Vec::new();
        self.top.extents(range, &mut above)?;
        for extent in above {
            if extent.kind != ExtentKind::Unallocated {
                push_extent(out, extent);
            } else {
                let mut at = extent.range.start;
                while at < extent.range.end && out.len() < most {
                    self.bottom_extents(at..extent.range.end, out)?;
                    at = out.last().map_or(extent.range.end, |e| e.range.end);
                }
            }
            if out.len() >= most {
                out.truncate(most);
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size())?;
        let end = GuestOffset(at.0 + buf.len() as u64);
        let (mut at, mut rest) = (at, buf);
        let mut above = Vec::new();
        while at < end {
            above.clear();
            self.top.extents(at..end, &mut above)?;
            // Neighbours that the top holds are one read of it.
            let mut runs: Vec<(bool, GuestOffset)> = Vec::new();
            for extent in &above {
                let falls = extent.kind == ExtentKind::Unallocated;
                match runs.last_mut() {
                    Some((last, stop)) if *last == falls => *stop = extent.range.end,
                    _ => runs.push((falls, extent.range.end)),
                }
            }
            for (falls, stop) in runs {
                let (part, behind) = rest.split_at_mut(stop.since(at) as usize);
                if falls {
                    self.read_bottom(part, at)?;
                } else {
                    self.top.read_at(part, at)?;
                }
                (at, rest) = (stop, behind);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostOffset, raw};

    /// Tens of bytes: every second one falls through, the others are filled with `0xaa`.
    struct Stripes(u64);

    impl Disk for Stripes {
        fn virtual_size(&self) -> u64 {
            self.0
        }

        fn unit(&self) -> u64 {
            10
        }

        fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
            let mut at = range.start.0;
            while at < range.end.0 && out.len() < MAX_EXTENTS {
                let end = (at - at % 10 + 10).min(range.end.0);
                let kind = match at / 10 % 2 {
                    0 => ExtentKind::Data {
                        host: Some(HostOffset(at)),
                    },
                    _ => ExtentKind::Unallocated,
                };
                let range = GuestOffset(at)..GuestOffset(end);
                out.push(Extent { range, kind });
                at = end;
            }
            Ok(())
        }

        fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
            for (n, byte) in (at.0..).zip(buf) {
                *byte = if n / 10 % 2 == 0 { 0xaa } else { 0 };
            }
            Ok(())
        }
    }

    #[test]
    fn holes_fall_through_and_past_the_end_are_zero() {
        let bottom: Vec<u8> = (0..35).collect();
        let bottom = raw::Reader::new(Arc::new(bottom)).unwrap();
        let disk = Overlay::new(Arc::new(Stripes(60)), Arc::new(bottom));
        let mut buf = vec![9; 60];
        disk.read_at(&mut buf, GuestOffset(0)).unwrap();
        for (n, byte) in buf.into_iter().enumerate() {
            let expected = match (n / 10 % 2, n) {
                (0, _) => 0xaa,
                (_, 0..35) => n as u8,
                _ => 0,
            };
            assert_eq!(byte, expected, "byte {n}");
        }
        let mut out = Vec::new();
        disk.extents(GuestOffset(5)..GuestOffset(60), &mut out)
            .unwrap();
        let ends: Vec<_> = out.iter().map(|e| e.range.end.0).collect();
        assert_eq!(ends, [10, 20, 30, 35, 40, 50, 60]);
        assert_eq!(out[1].kind, ExtentKind::Data { host: None });
        assert_eq!(out[4].kind, ExtentKind::Unallocated);
    }

    #[test]
    fn a_call_stays_bounded() {
        let size = 30 * MAX_EXTENTS as u64;
        let bottom = raw::Reader::new(Arc::new(vec![1; size as usize])).unwrap();
        let disk = Overlay::new(Arc::new(Stripes(size)), Arc::new(bottom));
        let mut out = Vec::new();
        disk.extents(GuestOffset(0)..GuestOffset(size), &mut out)
            .unwrap();
        assert!((1..=MAX_EXTENTS).contains(&out.len()));
        let mut at = GuestOffset(0);
        for extent in &out {
            assert_eq!(extent.range.start, at);
            at = extent.range.end;
        }
    }
}
