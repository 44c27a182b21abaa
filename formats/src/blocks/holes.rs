//! A source that remembers where it holds data.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{HostOffset, Result, Source};

/// Answers [`next_data`](Source::next_data) from what was answered last, where it can. A kernel
/// may walk all pages of a file up to the next hole: asked for each block that is a square.
pub(super) struct Remembering {
    inner: Arc<dyn Source>,
    last: Mutex<Option<Answer>>,
}

/// What was asked, and the answer.
struct Answer {
    from: HostOffset,
    data: Option<Range<HostOffset>>,
}

impl Remembering {
    pub(super) fn new(inner: Arc<dyn Source>) -> Self {
        Self {
            inner,
            last: Mutex::new(None),
        }
    }
}

impl Answer {
    /// The answer to another question; `None` where this one does not tell.
    fn at(&self, from: HostOffset) -> Option<Option<Range<HostOffset>>> {
        match &self.data {
            None => (from >= self.from).then_some(None),
            Some(data) => {
                (from >= self.from && from < data.end).then(|| Some(data.start.max(from)..data.end))
            }
        }
    }
}

impl Source for Remembering {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        self.inner.read_exact_at(buf, at)
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last().as_ref().and_then(|answer| answer.at(from)) {
            return Ok(known);
        }
        let data = self.inner.next_data(from)?;
        *last() = Some(Answer {
            from,
            data: data.clone(),
        });
        Ok(data)
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    /// Data from 100 to 200 and from 300 to 400 of 500 bytes; counts questions.
    struct Counting(AtomicU32);

    impl Source for Counting {
        fn len(&self) -> u64 {
            500
        }

        fn read_exact_at(&self, _: &mut [u8], _: HostOffset) -> Result<()> {
            Ok(())
        }

        fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
            self.0.fetch_add(1, Relaxed);
            let ranges = [(100, 200), (300, 400)];
            let mut after = ranges.into_iter().filter(|(_, end)| *end > from.0);
            Ok(after
                .next()
                .map(|(start, end)| HostOffset(start.max(from.0))..HostOffset(end)))
        }
    }

    #[test]
    fn asks_once_for_what_one_answer_tells() {
        let inner = Arc::new(Counting(AtomicU32::new(0)));
        let source = Remembering::new(inner.clone());
        for (from, expected, questions) in [
            (50, Some((100, 200)), 1),
            (60, Some((100, 200)), 1),
            (150, Some((150, 200)), 1),
            (199, Some((199, 200)), 1),
            (200, Some((300, 400)), 2),
            (399, Some((399, 400)), 2),
            (0, Some((100, 200)), 3),
            (450, None, 4),
            (499, None, 4),
            (400, None, 5),
            (310, Some((310, 400)), 6),
        ] {
            let data = source.next_data(HostOffset(from)).unwrap();
            assert_eq!(data.map(|d| (d.start.0, d.end.0)), expected, "{from}");
            assert_eq!(inner.0.load(Relaxed), questions, "{from}");
        }
    }
}
