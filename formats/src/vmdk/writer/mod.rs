//! Writes vmdk: one file with grains (`sparse`), one for transport (`stream`), and descriptors
//! with extent files of their own, with grains (`sparse`) or without (`flat`).
//!
//! Grains come in guest order. A stream takes them as they come, each grain table behind its
//! grains, directory and footer at the end: nothing is written before what precedes it, so the
//! layout is that of a stream written by VMware. Elsewhere the places of all tables follow from
//! the virtual size.
//!
//! A disk in several files is written into one linear space, where each extent file has a range
//! and the descriptor the last one; see [`Part`].

mod flat;
mod sparse;
mod stream;

use super::descriptor::{MAX_EXTENT_LINES, confined, is_text};
use super::layout::SECTOR;
use super::options::{Subformat, WriteOptions};
use crate::bytes::is_zero;
use crate::copy::{Encode, Part, Shape, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes of a grain: what every writer uses.
const GRAIN: u64 = 64 << 10;
const GRAIN_SECTORS: u64 = GRAIN / SECTOR;
/// `numGTEsPerGT`.
const TABLE_ENTRIES: u64 = 512;
/// Guest sectors of an extent of the `twoGbMaxExtent` types.
const SPLIT_SECTORS: u64 = (2 << 30) / SECTOR;
/// Largest disk written; VMware's own bound is 62 TiB.
const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Starts a new vmdk of `virtual_size` bytes, rounded up to whole sectors.
///
/// # Errors
/// `Usage` beyond 64 TiB (8 TiB in extents of 2 GiB), for 0 bytes, which other programs do not
/// open, and for a disk in several files whose name cannot stand in a descriptor.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    if virtual_size == 0 {
        return Err(Error::usage("a vmdk cannot hold a disk of 0 bytes"));
    }
    if virtual_size > MAX_VIRTUAL_SIZE {
        return Err(Error::usage(format!(
            "a vmdk of {virtual_size} bytes is larger than {MAX_VIRTUAL_SIZE}"
        )));
    }
    let sectors = virtual_size.div_ceil(SECTOR);
    Ok(match options.subformat {
        Subformat::MonolithicSparse => Box::new(sparse::Writer::single(options, sectors)),
        Subformat::StreamOptimized => Box::new(stream::Writer::new(options, sectors)),
        Subformat::TwoGbMaxExtentSparse => {
            let split = Split::new(options, sectors, SPLIT_SECTORS)?;
            Box::new(sparse::Writer::split(options, split))
        }
        Subformat::MonolithicFlat => {
            let split = Split::new(options, sectors, sectors)?;
            Box::new(flat::Writer::new(options, split))
        }
        Subformat::TwoGbMaxExtentFlat => {
            let split = Split::new(options, sectors, SPLIT_SECTORS)?;
            Box::new(flat::Writer::new(options, split))
        }
    })
}

/// How a disk is cut into extent files, and what they are called.
struct Split {
    /// Guest sectors of the disk.
    sectors: u64,
    /// Guest sectors of every extent but the last.
    extent_sectors: u64,
    /// Name of the descriptor.
    name: String,
    subformat: Subformat,
}

impl Split {
    fn new(options: &WriteOptions, sectors: u64, extent_sectors: u64) -> Result<Self> {
        let split = Self {
            sectors,
            extent_sectors,
            name: options.file_name.clone(),
            subformat: options.subformat,
        };
        if split.count() > MAX_EXTENT_LINES as u64 {
            return Err(Error::usage(format!(
                "a {} vmdk of {} bytes needs {} extent files, allowed {MAX_EXTENT_LINES}",
                options.subformat,
                sectors * SECTOR,
                split.count()
            )));
        }
        let why = if split.name.bytes().all(is_text) {
            confined(&split.file(split.count() - 1))
        } else {
            Some("it is not ASCII")
        };
        match why {
            None => Ok(split),
            Some(why) => Err(Error::usage(format!(
                "a {} vmdk names its extent files after itself, and cannot be called {:?}: {why}",
                options.subformat, split.name
            ))),
        }
    }

    /// Extent files.
    fn count(&self) -> u64 {
        self.sectors.div_ceil(self.extent_sectors)
    }

    /// Guest sectors of extent `n`.
    fn sectors_of(&self, n: u64) -> u64 {
        (self.sectors - n * self.extent_sectors).min(self.extent_sectors)
    }

    /// Name of extent file `n`, as qemu-img and VMware derive it.
    fn file(&self, n: u64) -> String {
        let (stem, suffix) = match self.name.rfind('.') {
            Some(dot) => self.name.split_at(dot),
            None => (self.name.as_str(), ""),
        };
        match self.subformat {
            Subformat::TwoGbMaxExtentSparse => format!("{stem}-s{:03}{suffix}", n + 1),
            Subformat::TwoGbMaxExtentFlat => format!("{stem}-f{:03}{suffix}", n + 1),
            _ => format!("{stem}-flat{suffix}"),
        }
    }

    /// The files in a linear space where every extent has `window` bytes: extents first.
    fn parts(&self, window: u64) -> Vec<Part> {
        let part = |name, n: u64| Part {
            name,
            range: HostOffset(n * window)..HostOffset((n + 1) * window),
        };
        let extents = (0..self.count()).map(|n| part(self.file(n), n));
        extents
            .chain([part(self.name.clone(), self.count())])
            .collect()
    }

    /// Writes the descriptor, whose presence makes the files a disk; answers its bytes.
    fn write_descriptor(
        &self,
        options: &WriteOptions,
        window: u64,
        sink: &dyn Sink,
    ) -> Result<u64> {
        let (kind, end) = match self.subformat {
            Subformat::TwoGbMaxExtentSparse => ("SPARSE", ""),
            _ => ("FLAT", " 0"),
        };
        let lines: String = (0..self.count())
            .map(|n| {
                format!(
                    "RW {} {kind} \"{}\"{end}\n",
                    self.sectors_of(n),
                    self.file(n)
                )
            })
            .collect();
        let text = options.descriptor(self.sectors, &lines);
        let at = self.count() * window;
        let len = text.len() as u64;
        sink.write_all_at(text.as_bytes(), HostOffset(at))?;
        sink.set_len(at + len)?;
        Ok(len)
    }
}

/// Units as they are.
struct Plain;

impl Encode for Plain {
    fn encode(&mut self, _: UnitIndex, data: &[u8], _: &mut Vec<u8>) -> Result<Shape> {
        Ok(if is_zero(data) {
            Shape::Zero
        } else {
            Shape::Verbatim
        })
    }
}

fn words(entries: &[u32]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

fn sector_number(sector: u64) -> Result<u32> {
    u32::try_from(sector).map_err(|_| {
        Error::limit(
            Format::Vmdk,
            "file",
            "grows beyond 2 TiB, the most that 32 bits of sectors address",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(subformat: Subformat, name: &str) -> WriteOptions {
        WriteOptions {
            subformat,
            file_name: name.into(),
            ..WriteOptions::default()
        }
    }

    #[test]
    fn files_are_called_as_qemu_img_calls_them() {
        let names = |subformat, name: &str, size| {
            let target = create(&options(subformat, name), size).unwrap();
            let parts = target.parts();
            assert!(parts.is_sorted_by(|a, b| a.range.end <= b.range.start));
            parts.into_iter().map(|p| p.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Subformat::MonolithicFlat, "a b.c.vmdk", 1),
            ["a b.c-flat.vmdk", "a b.c.vmdk"]
        );
        assert_eq!(
            names(Subformat::TwoGbMaxExtentSparse, "x.vmdk", (2 << 30) + 1),
            ["x-s001.vmdk", "x-s002.vmdk", "x.vmdk"]
        );
        assert_eq!(
            names(Subformat::TwoGbMaxExtentFlat, "disk", 2 << 30),
            ["disk-f001", "disk"]
        );
        let last = names(Subformat::TwoGbMaxExtentFlat, "x.vmdk", 8 << 40);
        assert_eq!(last[4095], "x-f4096.vmdk");
        assert!(names(Subformat::MonolithicSparse, "x.vmdk", 1).is_empty());
        assert!(names(Subformat::StreamOptimized, "x.vmdk", 1).is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        for (subformat, name, size) in [
            (Subformat::MonolithicSparse, "x.vmdk", (64 << 40) + 1),
            (Subformat::TwoGbMaxExtentSparse, "x.vmdk", (8 << 40) + 1),
            (Subformat::MonolithicFlat, "büro.vmdk", 512),
            (Subformat::MonolithicFlat, "a\"b.vmdk", 512),
            (Subformat::TwoGbMaxExtentFlat, "c:x.vmdk", 512),
        ] {
            let error = create(&options(subformat, name), size).err().unwrap();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{name}: {error}");
        }
        // Nothing but the name of the file itself: it stands nowhere.
        assert!(create(&options(Subformat::MonolithicSparse, "büro.vmdk"), 512).is_ok());
    }
}
