//! Compressed files: what they hold is inspected while it is inflated, and never kept.
//!
//! The output is bounded before it begins: by [`Limits::max_inflated`], and by
//! [`Limits::max_ratio`] times the compressed length once that is more than
//! [`Limits::RATIO_FREE`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Context, blank, describe_plain, ovf, tar};
use crate::bytes::is_zero;
use crate::codec::stream::{Compression, Reader};
use crate::inspect::{Finding, Inspection, Severity, Stream, inspect};
use crate::{Error, ErrorKind, FileSource, Format, Limits, Result, Source};

/// Bytes inflated at a time.
const CHUNK: usize = 256 << 10;
/// Zeros are left out of files in pieces of this size, the block of common file systems.
const BLOCK: usize = 4096;

/// What may be inside a compressed file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inside {
    /// An image, an archive or a descriptor.
    Any,
    /// An image: it is a member of an archive already.
    Image,
}

/// Bytes that may come out of `compressed` bytes.
#[must_use]
pub fn max_output(compressed: u64, limits: &Limits) -> u64 {
    compressed
        .saturating_mul(limits.max_ratio)
        .max(Limits::RATIO_FREE)
        .min(limits.max_inflated)
}

/// A reader that counts, reports and stops where it must.
struct Inflater<'a> {
    reader: Reader,
    compression: Compression,
    output: u64,
    max_output: u64,
    cx: &'a Context<'a>,
}

impl<'a> Inflater<'a> {
    fn new(
        source: &Arc<dyn Source>,
        compression: Compression,
        cx: &'a Context<'a>,
    ) -> Result<Self> {
        cx.progress.start(source.len());
        Ok(Self {
            reader: compression.reader(source.clone())?,
            compression,
            output: 0,
            max_output: max_output(source.len(), cx.limits),
            cx,
        })
    }

    /// Fills `buf` with what comes next, short only at the end.
    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.cx.progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let n = self.reader.read(buf)?;
        self.cx.progress.reached(self.reader.consumed());
        self.output += n as u64;
        if self.output > self.max_output {
            return Err(Error::stream(
                ErrorKind::Limit,
                self.compression.name(),
                format!(
                    "holds more than {} bytes, the most allowed for what {} bytes became",
                    self.max_output,
                    self.reader.consumed()
                ),
            ));
        }
        Ok(n)
    }
}

/// Judges what `source` holds once its compression is undone.
pub(super) fn describe(
    source: &Arc<dyn Source>,
    compression: Compression,
    inside: Inside,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let mut inspection = match look_inside(source, compression, inside, cx) {
        Ok(inspection) => inspection,
        Err(e) => {
            let mut inspection = blank(Format::Raw, "bare", 0);
            inspection.findings.push(finding(e)?);
            inspection
        }
    };
    inspection.compression = Some(compression.name());
    inspection.file_size = source.len();
    inspection.sort_findings();
    Ok(inspection)
}

/// The stream's fault as a finding; other errors stay errors.
fn finding(e: Error) -> Result<Finding> {
    let rule = match e.kind() {
        ErrorKind::Limit => "compression_bomb",
        ErrorKind::Refused => "zip_members",
        ErrorKind::Malformed | ErrorKind::Unsupported => "compressed_stream",
        ErrorKind::Io | ErrorKind::Usage | ErrorKind::Cancelled => return Err(e),
    };
    Ok(Finding {
        rule,
        severity: Severity::Unsafe,
        place: e.place().to_owned(),
        message: e.message().to_owned(),
    })
}

fn nested(outer: Compression, inner: Compression) -> Finding {
    Finding {
        rule: "nested_compression",
        severity: Severity::Unsafe,
        place: outer.name().to_owned(),
        message: format!(
            "holds another compressed file ({}): compress once",
            inner.name()
        ),
    }
}

fn look_inside(
    source: &Arc<dyn Source>,
    compression: Compression,
    inside: Inside,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let mut inflater = Inflater::new(source, compression, cx)?;
    let mut buf = vec![0; CHUNK];
    let mut len = inflater.next(&mut buf)?;
    let head = &buf[..len];
    if let Some(inner) = Compression::detect(head) {
        let mut inspection = blank(Format::Raw, "bare", 0);
        inspection.findings.push(nested(compression, inner));
        return Ok(inspection);
    }
    if inside == Inside::Any && (tar::is_tar(head) || ovf::is_ovf(head)) {
        // Archives are read by position.
        return describe_plain(&inflate_to_scratch(source, compression, cx)?, cx);
    }
    let mut stream = Stream::default();
    let broken = loop {
        stream.feed(&buf[..len]);
        len = match inflater.next(&mut buf) {
            Ok(0) => break None,
            Ok(len) => len,
            Err(e) => break Some(finding(e)?),
        };
    };
    let uncompressed_size = inflater.output;
    let mut inspection = stream.finish(None, cx.limits)?;
    if let Some(broken) = broken {
        if inspection.format == Format::Raw {
            inspection.virtual_size = None;
        }
        inspection.findings.insert(0, broken);
    } else if inspection
        .findings
        .iter()
        .any(|f| f.rule == "not_streamable")
    {
        let scratch = inflate_to_scratch(source, compression, cx)?;
        inspection = inspect(scratch.as_ref(), cx.limits)?;
    }
    inspection
        .details
        .insert("uncompressed_size".into(), uncompressed_size.into());
    Ok(inspection)
}

/// Inflates `source` into a scratch file.
pub(super) fn inflate_to_scratch(
    source: &Arc<dyn Source>,
    compression: Compression,
    cx: &Context<'_>,
) -> Result<Arc<dyn Source>> {
    let file = (cx.scratch)().map_err(|e| Error::io("making a scratch file", e))?;
    Ok(Arc::new(inflate_into(source, compression, file, cx)?))
}

/// Inflates `source` into `file`, which is empty, readable and writable. Zeros become holes.
///
/// # Errors
/// `Limit` when too much comes out, `Malformed` for a damaged stream, `Refused` for compression
/// inside compression or a zip archive of several files, `Io`, `Cancelled`.
pub fn inflate_into(
    source: &Arc<dyn Source>,
    compression: Compression,
    file: File,
    cx: &Context<'_>,
) -> Result<FileSource> {
    let mut inflater = Inflater::new(source, compression, cx)?;
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let len = inflater.next(&mut buf)?;
        let chunk = &buf[..len];
        if at == 0
            && let Some(inner) = Compression::detect(chunk)
        {
            let message = nested(compression, inner).message;
            return Err(Error::stream(
                ErrorKind::Refused,
                compression.name(),
                message,
            ));
        }
        if len == 0 {
            break;
        }
        write_data(&file, chunk, at).map_err(|e| {
            Error::io(
                format!("writing {len} bytes at {at} of the scratch file"),
                e,
            )
        })?;
        cx.progress.wrote(len as u64);
        at += len as u64;
    }
    file.set_len(at)
        .map_err(|e| Error::io(format!("setting the length to {at}"), e))?;
    FileSource::new(file)
}

/// Writes the blocks of `chunk` that hold more than zeros, neighbours together.
fn write_data(file: &File, chunk: &[u8], at: u64) -> std::io::Result<()> {
    let mut run = 0..0;
    for block in chunk.chunks(BLOCK) {
        let end = run.end + block.len();
        if is_zero(block) {
            file.write_all_at(&chunk[run.clone()], at + run.start as u64)?;
            run = end..end;
        } else {
            run.end = end;
        }
    }
    file.write_all_at(&chunk[run.clone()], at + run.start as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostOffset;

    #[test]
    fn the_ratio_counts_only_for_large_outputs() {
        let limits = Limits::default();
        assert_eq!(max_output(1, &limits), Limits::RATIO_FREE);
        assert_eq!(max_output(16 << 20, &limits), (16 << 20) * 2000);
        assert_eq!(max_output(u64::MAX, &limits), limits.max_inflated);
    }

    #[test]
    fn zeros_become_holes() {
        let mut image = vec![0; 3 << 20];
        for at in [0, 4095, 4096, 1_000_000, (3 << 20) - 1] {
            image[at] = 7;
        }
        let file: Arc<dyn Source> = Arc::new(zstd::encode_all(image.as_slice(), 1).unwrap());
        let limits = Limits::default();
        let cx = Context::new(&limits);
        let scratch = tempfile::tempfile().unwrap();
        let inflated = inflate_into(&file, Compression::Zstd, scratch, &cx).unwrap();
        let mut found = vec![1; image.len()];
        inflated
            .read_exact_at(&mut found, HostOffset::ZERO)
            .unwrap();
        assert!(found == image);
        assert!(inflated.allocated() < 1 << 20, "{}", inflated.allocated());
        assert_eq!(cx.progress.done(), file.len());
    }
}
