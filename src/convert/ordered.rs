//! Writing an image in order: into a pipe, behind what a file holds already, or with somebody who
//! reads along.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use formats::bytes::is_zero;
use formats::copy::{CopyOptions, Progress, copy};
use formats::{
    CreateOptions, Disk, Error, Extent, FileSink, GuestOffset, HostOffset, Result, Sink,
    StreamSink, check_range, create,
};

/// Writes `disk` as `options` say to `output`, but for the first `skip` bytes. What is skipped of
/// a raw image is not read either.
///
/// # Errors
/// Those of [`copy`]; `Usage` for a format that needs going back.
pub(super) fn write(
    disk: &dyn Disk,
    options: &CreateOptions,
    output: File,
    skip: u64,
    progress: &Progress,
) -> Result<()> {
    let threads = CopyOptions::default();
    let meta = output
        .metadata()
        .map_err(|e| Error::io("looking at the output", e))?;
    let send = |disk: &dyn Disk, skip| {
        let target = create(options, disk.virtual_size())?;
        let sink = StreamSink::new(Rest {
            output,
            has_holes: meta.is_file(),
            skip,
        });
        copy(disk, target, &sink, &threads, progress)?;
        sink.sync()
    };
    if !matches!(options, CreateOptions::Raw(_)) || skip == 0 {
        return send(disk, skip);
    }
    let window = Window::new(disk, skip)?;
    send(&window, 0)
}

/// Leaves out the first bytes, and in a file runs of zeros.
struct Rest {
    output: File,
    has_holes: bool,
    skip: u64,
}

impl Write for Rest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip > 0 && !bytes.is_empty() {
            let left_out = usize::try_from(self.skip).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.skip -= left_out as u64;
            return Ok(left_out);
        }
        if self.has_holes && is_zero(bytes) {
            let len = i64::try_from(bytes.len()).map_err(io::Error::other)?;
            self.output.seek(SeekFrom::Current(len))?;
            return Ok(bytes.len());
        }
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_holes {
            let end = self.output.stream_position()?;
            self.output.set_len(end)?;
        }
        self.output.flush()
    }
}

/// A file that is written from its beginning on: as far as it is long, it stays.
pub(super) struct Ascending(FileSink);

impl Ascending {
    pub(super) fn new(file: File) -> Self {
        Self(FileSink::new(file))
    }
}

impl Sink for Ascending {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn is_sequential(&self) -> bool {
        true
    }
}

/// A disk from some byte on.
struct Window<'a> {
    disk: &'a dyn Disk,
    start: u64,
}

impl<'a> Window<'a> {
    fn new(disk: &'a dyn Disk, start: u64) -> Result<Self> {
        check_range(GuestOffset(start), 0, disk.virtual_size())?;
        Ok(Self { disk, start })
    }
}

impl Disk for Window<'_> {
    fn virtual_size(&self) -> u64 {
        self.disk.virtual_size() - self.start
    }

    fn unit(&self) -> u64 {
        self.disk.unit()
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(
            range.start,
            range.end.since(range.start),
            self.virtual_size(),
        )?;
        let first = out.len();
        let start = GuestOffset(range.start.0 + self.start);
        let end = GuestOffset(range.end.0 + self.start);
        self.disk.extents(start..end, out)?;
        for extent in &mut out[first..] {
            extent.range.start.0 -= self.start;
            extent.range.end.0 -= self.start;
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size())?;
        self.disk.read_at(buf, GuestOffset(at.0 + self.start))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use formats::{Format, raw};

    use super::*;

    #[test]
    fn what_is_skipped_is_the_beginning_and_nothing_else() {
        let mut bytes: Vec<u8> = (0u32..200_000).flat_map(u32::to_le_bytes).collect();
        bytes[100_000..400_000].fill(0);
        let disk = raw::Reader::new(Arc::new(bytes)).unwrap();
        for (format, key) in [(Format::Raw, None), (Format::Vhd, Some("fixed"))] {
            let pairs = key.map(|value| ("subformat".to_owned(), value.to_owned()));
            let options = CreateOptions::parse(format, pairs.as_slice(), false).unwrap();
            let written = |skip| {
                let mut file = tempfile::tempfile().unwrap();
                let output = file.try_clone().unwrap();
                write(&disk, &options, output, skip, &Progress::default()).unwrap();
                let mut bytes = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            };
            let whole = written(0);
            for skip in [1, 511, 4096, 99_999, 300_001, 799_999, 800_000] {
                assert!(written(skip as u64) == whole[skip..], "{format}, {skip}");
            }
        }
    }
}
