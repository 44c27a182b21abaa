//! What decoders read: a source as a stream of bytes, and files of several parts, one after the
//! other.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::bytes::is_zero;
use crate::{HostOffset, Source};

/// Bytes read from the source at a time.
const INPUT: usize = 256 << 10;

/// A source read from its beginning to its end, through a buffer.
pub(super) struct Input {
    source: Arc<dyn Source>,
    buf: Vec<u8>,
    /// The part of `buf` not yet consumed begins here.
    start: usize,
    /// Where in the source `buf` ends.
    at: u64,
    pub(super) consumed: Arc<AtomicU64>,
}

impl Input {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            buf: Vec::new(),
            start: 0,
            at: 0,
            consumed: Arc::default(),
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buf.len() {
            let rest = self.source.len() - self.at;
            let len = usize::try_from(rest).unwrap_or(INPUT).min(INPUT);
            self.buf.resize(len, 0);
            self.start = 0;
            if let Err(e) = self
                .source
                .read_exact_at(&mut self.buf, HostOffset(self.at))
            {
                self.buf.clear();
                return Err(io::Error::other(e));
            }
            self.at += len as u64;
        }
        Ok(&self.buf[self.start..])
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.buf.len().min(self.start + amount);
        self.consumed.fetch_add(amount as u64, Relaxed);
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// A decoder of one part: a gzip member, a bzip2 stream.
pub(super) trait Part: Read + Sized {
    const FIRST_BYTE: u8;
    fn start(input: Input) -> Self;
    fn end(self) -> Input;
}

pub(super) type Gzip = flate2::bufread::GzDecoder<Input>;

impl Part for Gzip {
    const FIRST_BYTE: u8 = 0x1f;
    fn start(input: Input) -> Self {
        Self::new(input)
    }
    fn end(self) -> Input {
        self.into_inner()
    }
}

pub(super) type Bzip2 = bzip2::bufread::BzDecoder<Input>;

impl Part for Bzip2 {
    const FIRST_BYTE: u8 = b'B';
    fn start(input: Input) -> Self {
        Self::new(input)
    }
    fn end(self) -> Input {
        self.into_inner()
    }
}

/// Parts one after the other, then nothing but zeros (tapes and devices pad with them).
pub(super) struct Parts<P> {
    /// `None` once the end was seen.
    part: Option<P>,
    may_pad: bool,
}

impl<P: Part> Parts<P> {
    pub(super) fn new(input: Input, may_pad: bool) -> Self {
        Self {
            part: Some(P::start(input)),
            may_pad,
        }
    }
}

impl<P: Part> Read for Parts<P> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = &mut self.part {
            let n = part.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let mut input = match self.part.take() {
                Some(part) => part.end(),
                None => break,
            };
            match input.fill_buf()? {
                [] => break,
                [first, ..] if *first == P::FIRST_BYTE => self.part = Some(P::start(input)),
                _ if self.may_pad => only_zeros(&mut input)?,
                _ => return Err(something_follows()),
            }
        }
        Ok(0)
    }
}

fn something_follows() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "something else follows its end")
}

pub(super) fn only_zeros(input: &mut Input) -> io::Result<()> {
    loop {
        let rest = input.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if !is_zero(rest) {
            return Err(something_follows());
        }
        let len = rest.len();
        input.consume(len);
    }
}
