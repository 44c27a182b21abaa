//! Measuring: how large the file of a conversion will be. The targets place the units as they do
//! for [`copy`](crate::copy::copy), but nothing is written, so the answer is theirs.

use crate::copy::{CopyOptions, Encode, Payload, Progress, Shape, Tables, Target, copy};
use crate::map::{Mapped, Walk};
use crate::{CreateOptions, Disk, Error, ErrorKind, GuestOffset, HostOffset, Result, Sink, create};

/// Sizes of a file to be written, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    /// For what the disk holds now.
    pub required: u64,
    /// For a disk without a single zero that does not compress either; `None` where the format
    /// cannot hold that much.
    pub fully_allocated: Option<u64>,
}

/// What [`measure`] looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// The contents: `required` is the very size that a copy will have, and costs reading (and
    /// compressing) all that is stored.
    Contents,
    /// What is stored and what is not: reads tables only. `required` is then a bound, because
    /// stored zeros count and nothing is taken to compress.
    Allocation,
}

/// The sizes of a copy of `disk` by `options`.
///
/// # Errors
/// As [`copy`](crate::copy::copy) and [`create`].
pub fn measure(
    disk: &dyn Disk,
    options: &CreateOptions,
    depth: Depth,
    threads: &CopyOptions,
    progress: &Progress,
) -> Result<Measure> {
    let size = disk.virtual_size();
    let fully_allocated = full(options, size, progress)?;
    let required = match depth {
        Depth::Contents => {
            let target = create(options, size)?;
            copy(disk, target, &Nowhere, threads, progress)?.file_size
        }
        Depth::Allocation => {
            progress.start(size);
            let mut filler = Filler::new(create(options, size)?, size)?;
            let mut walk = Walk::new(disk, GuestOffset::ZERO..GuestOffset(size));
            while let Some(Mapped { extent, .. }) = walk.next()? {
                if !extent.kind.is_hole() {
                    filler.fill(extent.range.start.0, extent.range.end.0, progress)?;
                }
                progress.reached(extent.range.end.0);
            }
            filler.finish()?
        }
    };
    Ok(Measure {
        required,
        fully_allocated,
    })
}

/// The sizes of a new, empty image of `virtual_size` bytes.
///
/// # Errors
/// As [`create`]; `Cancelled`.
pub fn measure_empty(
    options: &CreateOptions,
    virtual_size: u64,
    progress: &Progress,
) -> Result<Measure> {
    Ok(Measure {
        required: create(options, virtual_size)?.finish(&Nowhere)?.file_size,
        fully_allocated: full(options, virtual_size, progress)?,
    })
}

/// The size with every unit stored, where the format can hold that.
fn full(options: &CreateOptions, size: u64, progress: &Progress) -> Result<Option<u64>> {
    match fill(options, size, progress) {
        Ok(size) => Ok(Some(size)),
        Err(e) if e.kind() == ErrorKind::Limit => Ok(None),
        Err(e) => Err(e),
    }
}

/// The size of an image of `virtual_size` bytes, where it is the same whatever the disk holds:
/// raw, and the formats that give every byte its place ahead. `None` for all others.
///
/// # Errors
/// As [`create`].
pub fn fixed_size(options: &CreateOptions, virtual_size: u64) -> Result<Option<u64>> {
    let progress = Progress::default();
    let empty = create(options, virtual_size)?.finish(&Nowhere)?.file_size;
    let mut ends = Filler::new(create(options, virtual_size)?, virtual_size)?;
    ends.fill(0, virtual_size.min(1), &progress)?;
    ends.fill(virtual_size.saturating_sub(1), virtual_size, &progress)?;
    Ok((ends.finish()? == empty).then_some(empty))
}

fn fill(options: &CreateOptions, size: u64, progress: &Progress) -> Result<u64> {
    if let Some(size) = fixed_size(options, size)? {
        return Ok(size);
    }
    let mut all = Filler::new(create(options, size)?, size)?;
    all.fill(0, size, progress)?;
    all.finish()
}

/// Places units that do not compress.
struct Filler {
    target: Box<dyn Target>,
    unit: u64,
    /// Units that get their place together.
    step: u64,
    size: u64,
    /// The next unit.
    next: u64,
    whole: Option<Payload>,
    /// Of the last unit, where the disk ends within it.
    last: Option<Payload>,
    tables: Tables,
}

impl Filler {
    fn new(target: Box<dyn Target>, size: u64) -> Result<Self> {
        let unit = target.unit();
        let mut encoder = target.encoder()?;
        let len = usize::try_from(unit).map_err(|_| Error::usage("a unit beyond memory"))?;
        let noise = noise(len);
        let whole = payload(encoder.as_mut(), &noise)?;
        // Shorter than a unit, which is in memory.
        let last = match (size % unit) as usize {
            0 => whole,
            len => payload(encoder.as_mut(), &noise[..len])?,
        };
        Ok(Self {
            step: target.block() / unit,
            target,
            unit,
            size,
            next: 0,
            whole,
            last,
            tables: Tables::new(),
        })
    }

    /// Stores the units that bytes `start` to `end` touch. Ascending.
    fn fill(&mut self, start: u64, end: u64, progress: &Progress) -> Result<()> {
        let end = end.min(self.size).div_ceil(self.unit);
        self.next = self.next.max(start / self.unit);
        while self.next < end {
            let is_last = self.next == self.size / self.unit;
            let payload = if is_last { self.last } else { self.whole };
            if let Some(payload) = payload {
                self.target.place(self.next, payload, &mut self.tables)?;
                self.tables.clear();
            }
            // The rest of a block has its place now.
            self.next = (self.next / self.step + 1) * self.step;
            if self.next.is_multiple_of(self.step << 16) && progress.is_cancelled() {
                return Err(Error::cancelled());
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<u64> {
        Ok(self.target.finish(&Nowhere)?.file_size)
    }
}

/// What becomes of a unit that holds `data`; `None` when it is not stored.
fn payload(encoder: &mut dyn Encode, data: &[u8]) -> Result<Option<Payload>> {
    Ok(match encoder.encode(0, data, &mut Vec::new())? {
        Shape::Zero => None,
        Shape::Verbatim => Some(Payload::Verbatim(data.len() as u64)),
        Shape::Packed(len) => Some(Payload::Packed(len as u64)),
    })
}

/// Bytes that no codec makes smaller: xorshift64*, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn write_all_at(&self, _: &[u8], _: HostOffset) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Format, MemorySink, raw};

    fn options(format: Format, text: &str, compress: bool) -> CreateOptions {
        let pairs: Vec<_> = text
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        CreateOptions::parse(format, &pairs, compress).unwrap()
    }

    fn written(disk: &dyn Disk, options: &CreateOptions) -> u64 {
        let sink = MemorySink::default();
        let target = create(options, disk.virtual_size()).unwrap();
        let copied = copy(
            disk,
            target,
            &sink,
            &CopyOptions::default(),
            &Progress::default(),
        )
        .unwrap();
        assert_eq!(copied.file_size, sink.into_bytes().len() as u64);
        copied.file_size
    }

    #[test]
    fn sizes_are_those_of_the_files_that_are_written() {
        let mut bytes = noise(3 << 20);
        bytes[1 << 20..2 << 20].fill(0);
        bytes.resize((5 << 20) + 70_000, 0);
        bytes.extend(noise(5_000));
        let disk = raw::Reader::new(Arc::new(bytes.clone())).unwrap();
        let full = raw::Reader::new(Arc::new(noise(bytes.len()))).unwrap();
        let empty = raw::Reader::new(Arc::new(vec![0; bytes.len()])).unwrap();
        let progress = Progress::default();
        for (format, text, compress) in [
            (Format::Raw, "", false),
            (Format::Qcow2, "", false),
            (Format::Qcow2, "cluster_size=512", false),
            (Format::Qcow2, "cluster_size=2M", false),
            (Format::Qcow2, "", true),
            (Format::Qcow2, "compression_type=zstd", true),
            (Format::Vmdk, "", false),
            (Format::Vmdk, "subformat=streamOptimized", true),
            (Format::Vhd, "", false),
            (Format::Vhd, "subformat=fixed", false),
            (Format::Vhdx, "", false),
            (Format::Vhdx, "subformat=fixed", false),
            (Format::Vdi, "", false),
            (Format::Vdi, "static=on", false),
        ] {
            let options = options(format, text, compress);
            let look = |disk: &raw::Reader, depth| {
                measure(disk, &options, depth, &CopyOptions::default(), &progress).unwrap()
            };
            let seen = look(&disk, Depth::Contents);
            assert_eq!(seen.required, written(&disk, &options), "{options:?}");
            assert_eq!(
                seen.fully_allocated,
                Some(written(&full, &options)),
                "{options:?}"
            );
            let bound = look(&disk, Depth::Allocation);
            assert_eq!(Some(bound.required), seen.fully_allocated, "{options:?}");
            let is_fixed = format == Format::Raw || text.contains("fixed") || text == "static=on";
            assert_eq!(
                fixed_size(&options, bytes.len() as u64).unwrap(),
                seen.fully_allocated.filter(|_| is_fixed),
                "{options:?}"
            );
            let new = measure_empty(&options, bytes.len() as u64, &progress).unwrap();
            assert_eq!(new.required, written(&empty, &options), "{options:?}");
            assert_eq!(new.fully_allocated, seen.fully_allocated);
        }
    }

    #[test]
    fn a_format_need_not_hold_what_it_could_address() {
        let options = options(Format::Vmdk, "", false);
        let seen = measure_empty(&options, 4 << 40, &Progress::default()).unwrap();
        assert_eq!(seen.fully_allocated, None);
        assert!(seen.required < 1 << 30);
    }
}
