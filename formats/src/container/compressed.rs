//! Compressed files: what they hold is inspected while it is inflated, and never kept.
//!
//! The output is bounded before it begins: by [`Limits::max_inflated`], and by
//! [`Limits::max_ratio`] times the compressed length once that is more than
//! [`Limits::RATIO_FREE`]. Inspection alone is content with less: [`Limits::max_look`], or what
//! is in proportion to the compressed length.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Context, blank, describe_plain, ovf, tar};
use crate::bytes::is_zero;
use crate::codec::stream::{Compression, Reader};
use crate::copy::Progress;
use crate::inspect::{Finding, Inspection, Severity, Stream, inspect};
use crate::{Error, ErrorKind, FileSource, Format, Limits, Result, Source};

/// Bytes inflated at a time.
const CHUNK: usize = 256 << 10;
/// Threads that decompress: each has up to 4 MiB waiting.
const MAX_THREADS: usize = 8;
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

/// Bytes that may come out to be inspected: in proportion to what went in, so that time is, and
/// enough for small files with large holes.
fn max_look(compressed: u64, limits: &Limits) -> u64 {
    const RATIO: u64 = 256;
    compressed
        .saturating_mul(RATIO)
        .max(limits.max_look)
        .min(max_output(compressed, limits))
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
    /// For who reads the beginning.
    fn new(
        source: &Arc<dyn Source>,
        compression: Compression,
        cx: &'a Context<'a>,
    ) -> Result<Self> {
        Self::over(compression.reader(source.clone())?, source, compression, cx)
    }

    /// For who reads all of it.
    fn whole(
        source: &Arc<dyn Source>,
        compression: Compression,
        cx: &'a Context<'a>,
    ) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let reader = compression.reader_by(source.clone(), threads.min(MAX_THREADS))?;
        Self::over(reader, source, compression, cx)
    }

    fn over(
        reader: Reader,
        source: &Arc<dyn Source>,
        compression: Compression,
        cx: &'a Context<'a>,
    ) -> Result<Self> {
        cx.progress.start(source.len());
        Ok(Self {
            reader,
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

/// Inflates `source` and judges what it held; where that fails, the fault is the finding.
pub(super) fn examine(
    source: &Arc<dyn Source>,
    compression: Compression,
    cx: &Context<'_>,
) -> Result<(Inspection, Arc<dyn Source>)> {
    let (mut inspection, held) = match inflate_whole(source, compression, cx) {
        Ok(held) => {
            let mut inspection = describe_plain(&held, cx)?;
            let details = &mut inspection.details;
            details.insert("uncompressed_size".into(), held.len().into());
            (inspection, held)
        }
        Err(found) => {
            let mut inspection = blank(Format::Raw, "bare", 0);
            inspection.findings.push(found?);
            (inspection, source.clone())
        }
    };
    inspection.compression = Some(compression.name());
    inspection.file_size = source.len();
    inspection.sort_findings();
    Ok((inspection, held))
}

/// What `source` holds, or the finding why it does not come out.
fn inflate_whole(
    source: &Arc<dyn Source>,
    compression: Compression,
    cx: &Context<'_>,
) -> Result<Arc<dyn Source>, Result<Finding>> {
    let run = || {
        let mut inflater = Inflater::whole(source, compression, cx)?;
        let mut head = vec![0; CHUNK];
        let len = inflater.next(&mut head)?;
        head.truncate(len);
        if let Some(inner) = Compression::detect(&head) {
            return Ok(Err(nested(compression, inner)));
        }
        let held = inflater.spill(&head, scratch_file(cx)?)?;
        Ok(Ok(held))
    };
    match run() {
        Ok(Ok(held)) => Ok(Arc::new(held)),
        Ok(Err(nested)) => Err(Ok(nested)),
        Err(e) => Err(finding(e)),
    }
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
        inflater.max_output = max_look(source.len(), cx.limits);
        let scratch: Arc<dyn Source> = Arc::new(inflater.spill(head, scratch_file(cx)?)?);
        return describe_plain(&scratch, cx);
    }
    let most = max_look(source.len(), cx.limits);
    let mut stream = Stream::default();
    let broken = loop {
        stream.feed(&buf[..len]);
        if inflater.output > most {
            return look_at_beginning(source, compression, stream, cx);
        }
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

/// Judges by the beginning, which `stream` has seen, what is too long to be seen whole.
fn look_at_beginning(
    source: &Arc<dyn Source>,
    compression: Compression,
    stream: Stream,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let seen = stream.seen();
    let said = compression.declared_len(source)?;
    let mut inspection = stream.finish_early(said, cx.limits)?;
    let most = max_output(source.len(), cx.limits);
    match said {
        Some(said) if said > most => inspection.findings.push(finding(Error::stream(
            ErrorKind::Limit,
            compression.name(),
            format!(
                "says that its {} bytes become {said}, allowed {most}",
                source.len()
            ),
        ))?),
        Some(said) => {
            let details = &mut inspection.details;
            details.insert("uncompressed_size".into(), said.into());
        }
        None => {}
    }
    inspection.findings.push(Finding {
        rule: "seen_partly",
        severity: Severity::Note,
        place: compression.name().to_owned(),
        message: format!("only the first {seen} bytes of what it holds were decompressed"),
    });
    Ok(inspection)
}

fn scratch_file(cx: &Context<'_>) -> Result<File> {
    (cx.scratch)().map_err(|e| Error::io("making a scratch file", e))
}

/// Inflates `source` into a scratch file.
pub(super) fn inflate_to_scratch(
    source: &Arc<dyn Source>,
    compression: Compression,
    cx: &Context<'_>,
) -> Result<Arc<dyn Source>> {
    let file = scratch_file(cx)?;
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
    Inflater::whole(source, compression, cx)?.spill(&[], file)
}

impl Inflater<'_> {
    /// Writes `begun`, which is the output so far, and all that follows to `file`.
    fn spill(&mut self, begun: &[u8], file: File) -> Result<FileSource> {
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        let mut put = |chunk: &[u8], progress: &Progress| {
            write_data(&file, chunk, at).map_err(|e| {
                let len = chunk.len();
                Error::io(
                    format!("writing {len} bytes at {at} of the scratch file"),
                    e,
                )
            })?;
            progress.wrote(chunk.len() as u64);
            at += chunk.len() as u64;
            Ok(at)
        };
        let mut end = put(begun, &self.cx.progress)?;
        loop {
            let len = self.next(&mut buf)?;
            let chunk = &buf[..len];
            if end == 0
                && let Some(inner) = Compression::detect(chunk)
            {
                let message = nested(self.compression, inner).message;
                return Err(Error::stream(
                    ErrorKind::Refused,
                    self.compression.name(),
                    message,
                ));
            }
            if len == 0 {
                break;
            }
            end = put(chunk, &self.cx.progress)?;
        }
        file.set_len(end)
            .map_err(|e| Error::io(format!("setting the length to {end}"), e))?;
        FileSource::new(file)
    }
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
