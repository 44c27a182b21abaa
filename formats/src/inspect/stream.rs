//! The stream driver: feeds inspectors while an upload passes by in chunks of any size.
//!
//! Only wanted bytes are kept, plus a short memory of the head and the tail, because headers
//! point backwards and marks stand at the end. A span that has gone by and is not remembered is
//! read from staging at the end, where there is a staging file, else it is reported as lost.

use super::source::{over_budget, place};
use super::{Facts, Inspection, Inspector, MAX_SPAN, MAX_WANTED, Next, Region, Severity, Span};
use super::{inspectors, judge};
use crate::source::read_up_to;
use crate::{Format, HostOffset, Limits, Result, Source};

/// Bytes of the head remembered for spans asked for after they went by.
pub(crate) const HEAD: usize = 512 << 10;
/// Bytes of the tail remembered; larger tails must be read from staging. Also the most that may
/// have gone by after a span when its inspector asks for the next.
pub(super) const TAIL: usize = 64 << 10;

/// Stands for a length that is not known: nothing lies beyond it.
const UNKNOWN_LEN: u64 = 1 << 62;

/// Inspects an image while its bytes pass by.
pub struct Stream {
    runs: Vec<Run>,
    head: Vec<u8>,
    /// The last bytes seen: between `TAIL` and twice `TAIL` of them, once that many were.
    tail: Vec<u8>,
    seen: u64,
}

struct Run {
    inspector: Box<dyn Inspector>,
    state: State,
    budget: u64,
}

enum State {
    Waiting(Vec<Capture>),
    Done(Option<Facts>),
}

/// A wanted span, filled as its bytes pass by.
struct Capture {
    span: Span,
    bytes: Vec<u8>,
    /// Its beginning had gone by unremembered when it was asked for.
    lost: bool,
}

impl Capture {
    /// The end of the span in the file; `None` for tails, which wait for the end.
    fn end(&self) -> Option<u64> {
        match self.span {
            Span::At { at, len } => Some(at.saturating_add(len)),
            Span::Tail(_) => None,
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new(inspectors())
    }
}

impl Stream {
    /// A stream watched by `inspectors`.
    #[must_use]
    pub fn new(inspectors: Vec<Box<dyn Inspector>>) -> Self {
        let mut stream = Self {
            runs: Vec::new(),
            head: Vec::new(),
            tail: Vec::new(),
            seen: 0,
        };
        for mut inspector in inspectors {
            let first = inspector.start();
            let mut run = Run {
                inspector,
                state: State::Done(None),
                budget: MAX_WANTED,
            };
            run.take(first, &stream.head, 0);
            stream.runs.push(run);
        }
        stream
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the next bytes of the image.
    pub fn feed(&mut self, chunk: &[u8]) {
        // In short steps: what a header asks for may stand further on in the same chunk.
        for part in chunk.chunks(TAIL) {
            self.step(part);
        }
    }

    fn step(&mut self, chunk: &[u8]) {
        let start = self.seen;
        self.seen += chunk.len() as u64;
        if self.head.len() < HEAD {
            let take = chunk.len().min(HEAD - self.head.len());
            self.head.extend_from_slice(&chunk[..take]);
        }
        self.remember_tail(chunk);
        for run in &mut self.runs {
            run.feed(chunk, start, &self.head);
        }
    }

    fn remember_tail(&mut self, chunk: &[u8]) {
        if chunk.len() >= TAIL {
            self.tail.clear();
            self.tail.extend_from_slice(&chunk[chunk.len() - TAIL..]);
            return;
        }
        if self.tail.len() + chunk.len() > 2 * TAIL {
            let keep = self.tail.len() - TAIL;
            self.tail.drain(..keep);
        }
        self.tail.extend_from_slice(chunk);
    }

    /// What is certain already: the facts of formats whose inspectors are done, so that an
    /// upload can be refused before its last byte.
    pub fn known(&self) -> impl Iterator<Item = &Facts> {
        self.runs.iter().filter_map(|run| match &run.state {
            State::Done(Some(facts)) => Some(facts),
            _ => None,
        })
    }

    /// Whether it is certain already that the image is not `format`, which must have an inspector.
    #[must_use]
    pub fn is_ruled_out(&self, format: Format) -> bool {
        self.runs
            .iter()
            .any(|run| run.inspector.format() == format && matches!(run.state, State::Done(None)))
    }

    /// Judges by what was seen of a longer file, of `len` bytes where that is known. What would
    /// decide and was not seen makes the image unsafe; a disk that is its own bytes is none the
    /// worse for it, but marks at its end (a footer, a trailer) may yet say that it is another
    /// format.
    ///
    /// # Errors
    /// None today; the signature is that of [`finish`](Self::finish).
    pub fn finish_early(mut self, len: Option<u64>, limits: &Limits) -> Result<Inspection> {
        let mut found = Vec::new();
        let seen = self.seen;
        for run in &mut self.runs {
            let is_sure = run.go_on(&self.head, seen, len.unwrap_or(UNKNOWN_LEN));
            // As if the file ended here: that tells formats, and little else.
            let Some(mut facts) = run.finish(&self.head, &self.tail, seen, None)? else {
                continue;
            };
            if !is_sure {
                facts.findings.clear();
                facts.virtual_size = None;
                if !matches!(facts.format, Format::Raw | Format::Gpt | Format::Iso) {
                    facts.find(
                        "not_judged",
                        Severity::Unsafe,
                        format!("byte {seen}"),
                        "what decides lies behind it, and no more is decompressed to inspect a \
                         file: decompress it first",
                    );
                }
            }
            found.push(facts);
        }
        let is_sized = found.iter().any(|f| f.virtual_size.is_some());
        let mut inspection = judge(found, len.unwrap_or(seen), limits);
        let is_own_bytes = matches!(inspection.format, Format::Raw | Format::Iso);
        if is_own_bytes && !is_sized && len.is_none() {
            inspection.virtual_size = None;
        }
        Ok(inspection)
    }

    /// Ends the stream and judges. `staged` is the image itself, where it can be read back.
    ///
    /// # Errors
    /// `Io` when reading from `staged` fails.
    pub fn finish(mut self, staged: Option<&dyn Source>, limits: &Limits) -> Result<Inspection> {
        let mut found = Vec::new();
        for run in &mut self.runs {
            found.extend(run.finish(&self.head, &self.tail, self.seen, staged)?);
        }
        Ok(judge(found, self.seen, limits))
    }
}

impl Run {
    /// Puts an answer of the inspector into effect, with `seen` bytes gone by.
    fn take(&mut self, next: Next, head: &[u8], seen: u64) {
        self.state = match next {
            Next::Done(facts) => State::Done(Some(facts)),
            Next::NotMine => State::Done(None),
            Next::Want(spans) => {
                let wanted: u64 = spans.iter().map(|span| span_len(*span)).sum();
                if wanted > self.budget {
                    State::Done(Some(over_budget(self.inspector.as_ref())))
                } else {
                    self.budget -= wanted;
                    State::Waiting(spans.iter().map(|s| capture(*s, head, seen)).collect())
                }
            }
        };
    }

    fn feed(&mut self, chunk: &[u8], start: u64, head: &[u8]) {
        let State::Waiting(captures) = &mut self.state else {
            return;
        };
        for capture in captures {
            capture.feed(chunk, start);
        }
        self.advance(head, start + chunk.len() as u64);
    }

    /// Hands over regions for as long as everything wanted has gone by.
    fn advance(&mut self, head: &[u8], seen: u64) {
        while let State::Waiting(captures) = &self.state
            && captures
                .iter()
                .all(|c| !c.lost && c.end().is_some_and(|end| end <= seen))
        {
            let regions: Vec<_> = captures
                .iter()
                .map(|c| {
                    let (at, _) = place(c.span, seen);
                    Region {
                        at,
                        bytes: &c.bytes,
                        file_len: None,
                    }
                })
                .collect();
            let next = self.inspector.regions(&regions);
            self.take(next, head, seen);
        }
    }

    /// Hands over regions for as long as what is wanted has gone by, or is but the length of the
    /// file, `len`; answers whether that was all.
    fn go_on(&mut self, head: &[u8], seen: u64, len: u64) -> bool {
        while let State::Waiting(captures) = &self.state {
            let has_gone_by = |c: &Capture| match c.span {
                Span::Tail(len) => len == 0,
                Span::At { .. } => !c.lost && c.end().is_some_and(|end| end <= seen),
            };
            if !captures.iter().all(has_gone_by) {
                return false;
            }
            let regions: Vec<_> = captures
                .iter()
                .map(|c| Region {
                    at: place(c.span, len).0,
                    bytes: &c.bytes,
                    file_len: Some(len),
                })
                .collect();
            let next = self.inspector.regions(&regions);
            self.take(next, head, seen);
        }
        true
    }

    fn finish(
        &mut self,
        head: &[u8],
        tail: &[u8],
        file_len: u64,
        staged: Option<&dyn Source>,
    ) -> Result<Option<Facts>> {
        loop {
            let captures = match &mut self.state {
                State::Done(facts) => return Ok(facts.take()),
                State::Waiting(captures) => captures,
            };
            let mut regions = Vec::with_capacity(captures.len());
            for capture in captures.iter_mut() {
                let (at, len) = place(capture.span, file_len);
                let tail_at = file_len - tail.len() as u64;
                if matches!(capture.span, Span::Tail(_)) || capture.lost {
                    if at >= tail_at {
                        capture.bytes = slice(tail, at - tail_at, len).to_vec();
                    } else if let Some(staged) = staged {
                        let len = usize::try_from(len).unwrap_or(0);
                        capture.bytes = read_up_to(staged, HostOffset(at), len)?;
                    } else {
                        return Ok(Some(gone_by(self.inspector.as_ref(), at, len)));
                    }
                }
                regions.push(Region {
                    at,
                    bytes: &capture.bytes,
                    file_len: Some(file_len),
                });
            }
            let next = self.inspector.regions(&regions);
            self.take(next, head, file_len);
        }
    }
}

impl Capture {
    fn feed(&mut self, chunk: &[u8], start: u64) {
        let (Span::At { at, .. }, Some(end), false) = (self.span, self.end(), self.lost) else {
            return;
        };
        let from = at + self.bytes.len() as u64;
        let chunk_end = start + chunk.len() as u64;
        if from >= start && from < chunk_end && from < end {
            self.bytes
                .extend_from_slice(slice(chunk, from - start, end.min(chunk_end) - from));
        }
    }
}

/// Starts a capture: what is remembered of it at once, the rest as it passes by.
fn capture(span: Span, head: &[u8], seen: u64) -> Capture {
    let span = match span {
        Span::At { at, len } => Span::At {
            at,
            len: len.min(MAX_SPAN),
        },
        Span::Tail(len) => Span::Tail(len.min(MAX_SPAN)),
    };
    let mut capture = Capture {
        span,
        bytes: Vec::new(),
        lost: false,
    };
    if let Span::At { at, len } = span
        && at < seen
    {
        let gone = seen.min(at.saturating_add(len));
        capture.lost = gone > head.len() as u64;
        if !capture.lost {
            capture.bytes = slice(head, at, gone - at).to_vec();
        }
    }
    capture
}

const fn span_len(span: Span) -> u64 {
    let (Span::At { len, .. } | Span::Tail(len)) = span;
    if len < MAX_SPAN { len } else { MAX_SPAN }
}

/// The part of `bytes` from `at`, clipped to what there is.
fn slice(bytes: &[u8], at: u64, len: u64) -> &[u8] {
    let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let end = usize::try_from(at.saturating_add(len))
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    &bytes[start..end]
}

fn gone_by(inspector: &dyn Inspector, at: u64, len: u64) -> Facts {
    let mut facts = Facts::new(inspector.format());
    facts.find(
        "not_streamable",
        Severity::Unsafe,
        format!("byte {at}"),
        format!("{len} bytes there decide, but had gone by before they were known to matter"),
    );
    facts
}
