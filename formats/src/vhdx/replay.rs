//! The writes of a log, made in memory: every read after that of the headers goes through them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::{Error, HostOffset, Result, Source};

/// The writes of a log.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// By first byte; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
    /// Bytes the file must have at least.
    file_len: u64,
}

#[derive(Debug)]
struct Piece {
    end: u64,
    /// `None`: zeros.
    data: Option<Box<[u8]>>,
}

/// A write of the log: whole sectors at a sector.
pub(super) struct Write {
    pub(super) range: Range<u64>,
    /// `None`: zeros.
    pub(super) data: Option<Box<[u8]>>,
}

impl Replay {
    /// Puts a write over those before it.
    pub(super) fn write(&mut self, Write { range, data }: Write) {
        if range.is_empty() {
            return;
        }
        // Data pieces have one sector and writes begin at sectors: only zeros are ever cut.
        let before = self.pieces.range_mut(..range.start).next_back();
        if let Some((_, piece)) = before
            && piece.end > range.start
        {
            let end = std::mem::replace(&mut piece.end, range.start);
            self.zeros(range.end..end);
        }
        while let Some((&start, _)) = self.pieces.range(range.clone()).next() {
            if let Some(old) = self.pieces.remove(&start) {
                self.zeros(range.end..old.end);
            }
        }
        let end = range.end;
        self.pieces.insert(range.start, Piece { end, data });
    }

    fn zeros(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            let (end, data) = (range.end, None);
            self.pieces.insert(range.start, Piece { end, data });
        }
    }

    /// Makes the writes in `bytes`, which stand at byte `at` of the file.
    pub(super) fn apply(&self, at: u64, bytes: &mut [u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        let first = self
            .pieces
            .range(..=at)
            .next_back()
            .map_or(at, |(start, _)| *start);
        for (&start, piece) in self.pieces.range(first..end) {
            let (from, to) = (start.max(at), piece.end.min(end));
            if from >= to {
                continue;
            }
            // Both lie in `bytes`, whose length is a usize.
            let part = &mut bytes[(from - at) as usize..(to - at) as usize];
            match &piece.data {
                None => part.fill(0),
                Some(data) => {
                    let skip = (from - start) as usize;
                    part.copy_from_slice(&data[skip..skip + part.len()]);
                }
            }
        }
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn grow(&mut self, len: u64) {
        self.file_len = self.file_len.max(len);
    }

    /// Bytes of a file of `len` bytes once its log is played back.
    pub(super) fn file_len(&self, len: u64) -> u64 {
        len.max(self.file_len)
    }

    /// The first write that ends after `from`, from there on.
    pub(super) fn next_write(&self, from: u64) -> Option<Range<u64>> {
        let first = self
            .pieces
            .range(..=from)
            .next_back()
            .filter(|(_, piece)| piece.end > from);
        first
            .or_else(|| self.pieces.range(from..).next())
            .map(|(start, piece)| (*start).max(from)..piece.end)
    }
}

/// A file with the writes of its log made.
pub(super) struct Replayed {
    inner: Arc<dyn Source>,
    replay: Replay,
}

impl Replayed {
    pub(super) fn new(inner: Arc<dyn Source>, replay: Replay) -> Self {
        Self { inner, replay }
    }
}

impl Source for Replayed {
    fn len(&self) -> u64 {
        self.replay.file_len(self.inner.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        if at
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end.0 > self.len())
        {
            return Err(Error::io(
                format!("reading {} bytes at {at}", buf.len()),
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let held = HostOffset(self.inner.len()).since(at);
        let held = usize::try_from(held).unwrap_or(usize::MAX).min(buf.len());
        let (inside, beyond) = buf.split_at_mut(held);
        if !inside.is_empty() {
            self.inner.read_exact_at(inside, at)?;
        }
        beyond.fill(0);
        self.replay.apply(at.0, buf);
        Ok(())
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        let file = if from.0 < self.inner.len() {
            self.inner.next_data(from)?
        } else {
            None
        };
        let log = self
            .replay
            .next_write(from.0)
            .map(|range| HostOffset(range.start)..HostOffset(range.end.min(self.len())))
            .filter(|range| !range.is_empty());
        Ok(match (file, log) {
            (Some(file), Some(log)) if log.start < file.start => Some(log),
            (Some(file), _) => Some(file),
            (None, log) => log,
        })
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_seems_to_have_been_written() {
        let mut replay = Replay::default();
        replay.write(Write {
            range: 4096..8192,
            data: Some(vec![7; 4096].into()),
        });
        replay.grow(3 << 20);
        let file = Replayed::new(Arc::new(vec![1u8; 8192]), replay);
        assert_eq!(file.len(), 3 << 20);
        let mut buf = [9; 4098];
        file.read_exact_at(&mut buf, HostOffset(4095)).unwrap();
        assert_eq!((buf[0], buf[1], buf[4096], buf[4097]), (1, 7, 7, 0));
        assert!(file.read_exact_at(&mut buf, HostOffset(3 << 20)).is_err());
    }
}
