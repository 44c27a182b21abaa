//! The positioned driver: feeds inspectors by reads from a [`Source`].

use super::{Facts, Inspection, Inspector, MAX_SPAN, MAX_WANTED, Next, Region, Severity, Span};
use super::{inspectors, judge};
use crate::{HostOffset, Limits, Result, Source};

/// Inspects an image by positioned reads: a few MiB at most, whatever its headers promise.
///
/// # Errors
/// `Io` only. What is wrong with the image is a finding, not an error.
pub fn inspect(source: &dyn Source, limits: &Limits) -> Result<Inspection> {
    let mut found = Vec::new();
    // One for all: to get memory from the kernel costs more than to read into it.
    let mut buffer = Vec::new();
    for mut inspector in inspectors() {
        found.extend(drive(inspector.as_mut(), source, &mut buffer)?);
    }
    Ok(judge(found, source.len(), limits))
}

/// Runs one inspector to its end. `buffer` is memory to read into.
fn drive(
    inspector: &mut dyn Inspector,
    source: &dyn Source,
    buffer: &mut Vec<u8>,
) -> Result<Option<Facts>> {
    let file_len = source.len();
    let mut budget = MAX_WANTED;
    let mut next = inspector.start();
    loop {
        let spans = match next {
            Next::Done(facts) => return Ok(Some(facts)),
            Next::NotMine => return Ok(None),
            Next::Want(spans) => spans,
        };
        let mut places = Vec::with_capacity(spans.len());
        let mut end = 0;
        for span in &spans {
            let (at, len) = place(*span, file_len);
            if len > budget {
                return Ok(Some(over_budget(inspector)));
            }
            budget -= len;
            // Within the budget, so it fits.
            let there = len.min(file_len.saturating_sub(at)) as usize;
            places.push((at, end..end + there));
            end += there;
        }
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        // A place past the end holds nothing, and nothing can be read there.
        for (at, place) in places.iter().filter(|(_, place)| !place.is_empty()) {
            source.read_exact_at(&mut buffer[place.clone()], HostOffset(*at))?;
        }
        let regions: Vec<_> = places
            .iter()
            .map(|(at, place)| Region {
                at: *at,
                bytes: &buffer[place.clone()],
                file_len: Some(file_len),
            })
            .collect();
        next = inspector.regions(&regions);
    }
}

/// Where a span lies in a file of `file_len` bytes, clipped to [`MAX_SPAN`].
pub(super) fn place(span: Span, file_len: u64) -> (u64, u64) {
    match span {
        Span::At { at, len } => (at, len.min(MAX_SPAN)),
        Span::Tail(len) => {
            let len = len.min(MAX_SPAN).min(file_len);
            (file_len - len, len)
        }
    }
}

/// The facts of an inspector that asked for more than it may: its format, and a refusal.
pub(super) fn over_budget(inspector: &dyn Inspector) -> Facts {
    let mut facts = Facts::new(inspector.format());
    facts.find(
        "metadata_too_large",
        Severity::Unsafe,
        "header",
        format!("its structures take more than {MAX_WANTED} bytes to read"),
    );
    facts
}
