//! Independent parts of one compressed file, undone by several threads.
//!
//! ```text
//!  splitter, under a lock ──► ranges ──► N threads, a decoder each ──► a short queue a part ──┐
//!     one part a turn                                                reader, in the file's order ◄┘
//! ```
//! | | parts | found by |
//! | --- | --- | --- |
//! | zstd | frames | headers of blocks |
//! | gzip | members | their length in the extra field: "BC" of bgzip, "IG" of mgzip |
//!
//! A thread that is ahead waits for its queue to be read, so memory does not depend on what comes
//! out. What the parts are is only a guess: each is decoded by the one-threaded decoder and must
//! end where its range does, so the bytes are those that decoder gives for the whole file, or an
//! error.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::frames::Walker;
use super::parts::{Input, only_zeros};
use super::stream::{Compression, decoder};
use crate::bytes::{le16, le32};
use crate::source::read_up_to;
use crate::{HostOffset, Result, Slice, Source};

/// Bytes decoded at a time.
const CHUNK: usize = 256 << 10;
/// Chunks in the queue of a part.
const QUEUE: usize = 16;
/// Memory for the window of a part that is decoded beside any others: of those that take more
/// there is one at a time.
const NARROW: u64 = 8 << 20;
/// The longest gzip header looked at.
const GZIP_HEAD: usize = 64;

type Piece = io::Result<Vec<u8>>;

/// Parts in the order of the file, each with its queue and where it ends.
type Parts = Receiver<(u64, Receiver<Piece>)>;

/// Where the part that begins at `at` ends, and whether it takes much memory; `None` where that is
/// not told.
fn part_at(compression: Compression, source: &dyn Source, at: u64) -> Result<Option<(u64, bool)>> {
    match compression {
        Compression::Zstd => {
            let frame = Walker::new(source, usize::MAX).frame(at)?;
            Ok(frame.map(|frame| (frame.end, frame.window > NARROW)))
        }
        Compression::Gzip => {
            let head = read_up_to(source, HostOffset(at), GZIP_HEAD)?;
            let end = member_len(&head).and_then(|len| at.checked_add(len));
            let end = end.filter(|&end| end <= source.len());
            Ok(end.map(|end| (end, false)))
        }
        _ => Ok(None),
    }
}

/// The length of a gzip member as its header says.
fn member_len(head: &[u8]) -> Option<u64> {
    const EXTRA: u8 = 4;
    if !head.starts_with(&[0x1f, 0x8b, 8]) || head.get(3)? & EXTRA == 0 {
        return None;
    }
    let mut extra = head.get(12..)?.get(..usize::from(le16(head, 10)?))?;
    loop {
        let len = usize::from(le16(extra, 2)?);
        let field = extra.get(4..4 + len)?;
        match (&extra[..2], len) {
            (b"IG", 4) => return le32(field, 0).map(u64::from).filter(|&len| len > 0),
            // bgzip counts from zero.
            (b"BC", 2) => return le16(field, 0).map(|len| u64::from(len) + 1),
            _ => extra = &extra[4 + len..],
        }
    }
}

/// A reader of `source` by `threads` threads; `None` where it is one part, or not told apart.
pub(super) fn reader(
    compression: Compression,
    source: &Arc<dyn Source>,
    threads: usize,
    consumed: &Arc<AtomicU64>,
) -> Result<Option<Box<dyn Read + Send>>> {
    let first = part_at(compression, source.as_ref(), 0)?;
    if threads < 2 || first.is_none_or(|(end, _)| end >= source.len()) {
        return Ok(None);
    }
    let (parts, ordered) = sync_channel(threads);
    let split = Arc::new(Mutex::new(Splitter {
        compression,
        source: source.clone(),
        at: 0,
        parts: Some(parts),
        wide: Arc::default(),
    }));
    for _ in 0..threads {
        let split = split.clone();
        std::thread::spawn(move || while work(&split) {});
    }
    Ok(Some(Box::new(Ordered {
        parts: ordered,
        part: None,
        chunk: Vec::new(),
        taken: 0,
        consumed: consumed.clone(),
    })))
}

/// Gives out parts in order.
struct Splitter {
    compression: Compression,
    source: Arc<dyn Source>,
    at: u64,
    /// `None` once all is given out.
    parts: Option<SyncSender<(u64, Receiver<Piece>)>>,
    /// Held while a part is decoded that takes much memory.
    wide: Arc<Mutex<()>>,
}

/// A part to decode.
struct Given {
    range: Range<u64>,
    is_wide: bool,
    queue: SyncSender<Piece>,
}

impl Splitter {
    /// The next part, whose queue the reader already has; `None` at the end, and when the reader
    /// is gone.
    fn next(&mut self) -> Option<Given> {
        let parts = self.parts.as_ref()?;
        let (at, len) = (self.at, self.source.len());
        let found = part_at(self.compression, self.source.as_ref(), at);
        let (queue, pieces) = sync_channel(QUEUE);
        // What is not told apart is one part, to the end: garbage and padding among it.
        let (end, is_wide) = match &found {
            Ok(Some(part)) => *part,
            Ok(None) | Err(_) => (len, true),
        };
        if at >= len || parts.send((end, pieces)).is_err() {
            self.parts = None;
            return None;
        }
        self.at = end;
        if let Err(e) = found {
            let _ = queue.send(Err(io::Error::other(e)));
            self.parts = None;
            return None;
        }
        Some(Given {
            range: at..end,
            is_wide,
            queue,
        })
    }
}

/// Decodes one part; false when there is none.
fn work(split: &Mutex<Splitter>) -> bool {
    let mut splitter = split.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Given {
        range,
        is_wide,
        queue,
    }) = splitter.next()
    else {
        return false;
    };
    let (compression, source) = (splitter.compression, splitter.source.clone());
    let wide = splitter.wide.clone();
    // Before another part is given out: whoever is read first is to have it first.
    let _wide = is_wide.then(|| wide.lock().unwrap_or_else(PoisonError::into_inner));
    drop(splitter);
    let is_last = range.end == source.len();
    let decode = || -> io::Result<()> {
        let len = range.end - range.start;
        let slice = Slice::new(source, HostOffset(range.start), len).map_err(io::Error::other)?;
        let mut input = Input::new(Arc::new(slice));
        let is_gzip = compression == Compression::Gzip;
        if is_gzip && range.start > 0 && input.fill_buf()?.first() == Some(&0) {
            // The padding behind the last part.
            only_zeros(&mut input)?;
            let _ = queue.send(Ok(Vec::new()));
            return Ok(());
        }
        let decoder = decoder(compression, input, is_last);
        let mut decoder = decoder.map_err(io::Error::other)?;
        loop {
            let mut chunk = vec![0; CHUNK];
            let n = decoder.read(&mut chunk)?;
            chunk.truncate(n);
            // An empty chunk is the end; where nobody listens, the reader is gone.
            if queue.send(Ok(chunk)).is_err() || n == 0 {
                return Ok(());
            }
        }
    };
    if let Err(e) = decode() {
        let _ = queue.send(Err(e));
    }
    true
}

/// What all parts hold, in order.
struct Ordered {
    parts: Parts,
    part: Option<(u64, Receiver<Piece>)>,
    chunk: Vec<u8>,
    /// Bytes of the chunk already given out.
    taken: usize,
    consumed: Arc<AtomicU64>,
}

impl Read for Ordered {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            let (end, pieces) = match &self.part {
                Some(part) => part,
                None => match self.parts.recv() {
                    Ok(part) => self.part.insert(part),
                    Err(_) => return Ok(0),
                },
            };
            let piece = pieces.recv();
            self.chunk = piece.map_err(|_| io::Error::other("a thread has ended"))??;
            self.taken = 0;
            if self.chunk.is_empty() {
                self.consumed.store(*end, Relaxed);
                self.part = None;
            }
        }
        let n = buf.len().min(self.chunk.len() - self.taken);
        buf[..n].copy_from_slice(&self.chunk[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zstd(parts: &[&[u8]]) -> Vec<u8> {
        let frame = |part: &&[u8]| zstd::bulk::compress(part, 1).unwrap();
        parts.iter().flat_map(frame).collect()
    }

    /// Members with their length in the field `id`.
    fn gzip(parts: &[&[u8]], id: [u8; 2]) -> Vec<u8> {
        let mut all = Vec::new();
        for part in parts {
            let mut body = Vec::new();
            crate::codec::deflate::Deflater::new(1)
                .raw(part, part.len() + 100, &mut body)
                .unwrap();
            let is_short = id == *b"BC";
            let field = if is_short { 2 } else { 4 };
            let len = 12 + 4 + field + body.len() + 8;
            all.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
            all.extend([4 + field as u8, 0, id[0], id[1], field as u8, 0]);
            match is_short {
                true => all.extend(u16::try_from(len - 1).unwrap().to_le_bytes()),
                false => all.extend(u32::try_from(len).unwrap().to_le_bytes()),
            }
            all.extend(body);
            all.extend(crc32fast::hash(part).to_le_bytes());
            all.extend((part.len() as u32).to_le_bytes());
        }
        all
    }

    fn run(file: &[u8], threads: usize) -> Result<Vec<u8>> {
        let source: Arc<dyn Source> = Arc::new(file.to_vec());
        let compression = Compression::detect(file).expect("compressed");
        let mut reader = compression.reader_by(source, threads)?;
        let (mut all, mut buf) = (Vec::new(), vec![0; 100_000]);
        loop {
            match reader.read(&mut buf)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    fn files() -> Vec<Vec<u8>> {
        let noise: Vec<u8> = (0..60_000_u32)
            .map(|n| (n.wrapping_mul(0x9e37_79b1) >> 13) as u8)
            .collect();
        let zeros = vec![0; 6 << 20];
        let long: [&[u8]; 5] = [&noise, &zeros, b"", &noise[..7], &zeros];
        let short: [&[u8]; 3] = [&noise, b"x", &noise[..1000]];
        vec![
            zstd(&long),
            [
                &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
                &*zstd(&short),
            ]
            .concat(),
            gzip(&long, *b"IG"),
            gzip(&short, *b"BC"),
            [gzip(&short, *b"IG"), vec![0; 700]].concat(),
        ]
    }

    #[test]
    fn threads_give_the_bytes_of_one() {
        for file in files() {
            let source: Arc<dyn Source> = Arc::new(file.clone());
            let compression = Compression::detect(&file).unwrap();
            let counter = Arc::default();
            assert!(reader(compression, &source, 3, &counter).unwrap().is_some());
            let one = run(&file, 1).unwrap();
            for threads in [2, 3, 7] {
                assert!(run(&file, threads).unwrap() == one);
            }
        }
    }

    #[test]
    fn damage_is_an_error_wherever_it_lies_and_never_other_bytes() {
        let mut state = 5_u64;
        let mut below = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % bound
        };
        for file in files() {
            for _ in 0..60 {
                let mut bad = file.clone();
                let at = below(bad.len());
                bad[at] ^= 1 << below(8);
                if below(3) == 0 {
                    bad.truncate(below(bad.len()).max(20));
                }
                let Some(_) = Compression::detect(&bad) else {
                    continue;
                };
                let (one, many) = (run(&bad, 1), run(&bad, 3));
                match (one, many) {
                    (Ok(one), Ok(many)) => assert!(one == many),
                    // A length that lies is an error to those who use it.
                    (_, Err(_)) => {}
                    (Err(e), Ok(_)) => panic!("only one thread says: {e}"),
                }
            }
        }
    }

    #[test]
    fn padding_between_parts_is_an_error_as_it_is_for_one_thread() {
        let part = gzip(&[b"part"], *b"IG");
        let mut padded = part.clone();
        padded.extend([0; 8]);
        let len = u32::try_from(padded.len()).unwrap();
        padded[16..20].copy_from_slice(&len.to_le_bytes());
        let file = [padded, part].concat();
        assert!(run(&file, 1).is_err());
        assert!(run(&file, 3).is_err());
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_threads() {
        let file: Arc<dyn Source> = Arc::new(files().swap_remove(0));
        for _ in 0..50 {
            let mut reader = Compression::Zstd.reader_by(file.clone(), 4).unwrap();
            reader.read(&mut [0; 10]).unwrap();
        }
        // Each thread holds the file for as long as it lives.
        for _ in 0..1000 {
            if Arc::strong_count(&file) == 1 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} still hold the file", Arc::strong_count(&file));
    }
}
