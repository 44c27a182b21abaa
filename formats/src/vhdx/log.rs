//! The log: which of its entries count, and what they write. \[MS-VHDX\] 2.3.
//!
//! ```text
//!  log     a ring of 4 KiB sectors; entries follow each other and may wrap around its end
//!  entry   [ header 64 | descriptors, 32 each … ][ data sector ] [ data sector ] …
//!  desc    4 KiB to write at an offset: first 8 and last 4 bytes here, the rest in a data sector
//!  zero    a range to write zeros to
//! ```
//! Entries count up by one. The active sequence is the run of valid entries whose last names a
//! tail inside the run, the one with the highest number where there are several. Its entries
//! from that tail on are the writes to make.

use super::layout::{Guid, check_sealed, malformed};
use super::replay::{Replay, Write};
use crate::Result;
use crate::bytes::{le32, le64};

/// Bytes of a log sector.
const SECTOR: usize = 4 << 10;
const ENTRY_HEADER: usize = 64;
const DESCRIPTOR: usize = 32;
/// How many times over the bytes of the log may be checksummed. Entries of an honest log do not
/// overlap; remains of old ones do, a little.
const PASSES: usize = 8;
const PLACE: &str = "log";

/// A valid entry, without its writes: they are made when it is played back.
struct Entry {
    sequence_number: u64,
    len: usize,
    tail: usize,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

/// Plays back `log`, the whole log region of a file whose header names `guid`. `file_len` is the
/// length of that file, where it is known already.
///
/// # Errors
/// `Malformed` when there is no active sequence, or the file has lost bytes that were durable
/// when the log was written.
pub(super) fn replay(log: &[u8], guid: Guid, file_len: Option<u64>) -> Result<Replay> {
    let entries = scan(log, guid)?;
    let active = active_sequence(&entries, log.len())
        .ok_or_else(|| malformed(PLACE, "is not empty, but holds no valid sequence"))?;
    let mut replay = Replay::default();
    for at in active {
        let Some(Some(entry)) = entries.get(at / SECTOR) else {
            continue;
        };
        if let Some(len) = file_len
            && entry.flushed_file_offset > len
        {
            return Err(malformed(
                PLACE,
                format!(
                    "flushed file offset is {:#x} in entry {}, but the file ends at {len:#x}",
                    entry.flushed_file_offset, entry.sequence_number
                ),
            ));
        }
        replay.grow(entry.last_file_offset);
        let bytes = unrolled(log, at, entry.len);
        for write in writes(&bytes).into_iter().flatten().flatten() {
            replay.write(write);
        }
    }
    Ok(replay)
}

/// The valid entry at each sector of the log, if there is one.
fn scan(log: &[u8], guid: Guid) -> Result<Vec<Option<Entry>>> {
    let mut budget = log.len().saturating_mul(PASSES);
    (0..log.len() / SECTOR)
        .map(|n| Entry::parse(log, n * SECTOR, guid, &mut budget))
        .collect()
}

/// The positions of the entries to play back, in order.
fn active_sequence(entries: &[Option<Entry>], log_len: usize) -> Option<Vec<usize>> {
    let mut best: Option<(u64, Vec<usize>)> = None;
    let mut start = 0;
    while start < log_len {
        let mut run = Vec::new();
        let (mut at, mut length) = (start, 0);
        let mut last: Option<&Entry> = None;
        while let Some(Some(entry)) = entries.get(at / SECTOR)
            && last.is_none_or(|last| {
                last.sequence_number.checked_add(1) == Some(entry.sequence_number)
            })
            && length + entry.len <= log_len
        {
            run.push(at);
            length += entry.len;
            at = (at + entry.len) % log_len;
            last = Some(entry);
        }
        // A later start in this run would end with the same entry and hold less, so none of
        // them can be better: go on behind it.
        start += length.max(SECTOR);
        let Some(head) = last else {
            continue;
        };
        if let Some(tail) = run.iter().position(|at| *at == head.tail)
            && best
                .as_ref()
                .is_none_or(|(number, _)| head.sequence_number > *number)
        {
            run.drain(..tail);
            best = Some((head.sequence_number, run));
        }
    }
    best.map(|(_, run)| run)
}

impl Entry {
    /// The entry at byte `at` of the log; `None` when there is no valid one.
    ///
    /// # Errors
    /// `Malformed` when the budget of bytes to checksum is spent.
    fn parse(log: &[u8], at: usize, guid: Guid, budget: &mut usize) -> Result<Option<Self>> {
        let header = log.get(at..at + ENTRY_HEADER).unwrap_or_default();
        let Some(len) = Self::len(header, log.len(), guid) else {
            return Ok(None);
        };
        *budget = budget
            .checked_sub(len)
            .ok_or_else(|| malformed(PLACE, "its entries overlap each other many times over"))?;
        let bytes = unrolled(log, at, len);
        if check_sealed(&bytes, b"loge", PLACE).is_err() {
            return Ok(None);
        }
        Ok(Self::fields(&bytes, log.len()))
    }

    /// Bytes of the entry that `header` begins, where that can be one of this log at all.
    fn len(header: &[u8], log_len: usize, guid: Guid) -> Option<usize> {
        let len = le32(header, 8)? as usize;
        (header.starts_with(b"loge")
            && Guid::at(header, 32)? == guid
            && le64(header, 16)? > 0
            && len >= SECTOR
            && len.is_multiple_of(SECTOR)
            && len <= log_len)
            .then_some(len)
    }

    fn fields(bytes: &[u8], log_len: usize) -> Option<Self> {
        let tail = le32(bytes, 12)? as usize;
        let sequence_number = le64(bytes, 16)?;
        if tail >= log_len || !tail.is_multiple_of(SECTOR) {
            return None;
        }
        if writes(bytes)?.any(|write| write.is_none()) {
            return None;
        }
        Some(Self {
            sequence_number,
            len: bytes.len(),
            tail,
            flushed_file_offset: le64(bytes, 48)?,
            last_file_offset: le64(bytes, 56)?,
        })
    }
}

/// The `len` bytes from `at` of the ring.
fn unrolled(log: &[u8], at: usize, len: usize) -> Vec<u8> {
    let straight = len.min(log.len() - at);
    [&log[at..at + straight], &log[..len - straight]].concat()
}

/// The writes of an entry, `None` in place of one that makes no sense.
fn writes(entry: &[u8]) -> Option<impl Iterator<Item = Option<Write>>> {
    let sequence_number = le64(entry, 16)?;
    let count = le32(entry, 24)? as usize;
    let end = count.checked_mul(DESCRIPTOR)?.checked_add(ENTRY_HEADER)?;
    let descriptors = entry.get(ENTRY_HEADER..end)?;
    let mut sectors = entry
        .get(end.next_multiple_of(SECTOR)..)?
        .chunks_exact(SECTOR);
    Some(
        descriptors
            .chunks_exact(DESCRIPTOR)
            .map(move |descriptor| write(descriptor, sequence_number, &mut sectors)),
    )
}

/// The write a descriptor stands for; data takes the next of `sectors`.
fn write<'a>(
    descriptor: &[u8],
    sequence_number: u64,
    sectors: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<Write> {
    let start = le64(descriptor, 16)?;
    if le64(descriptor, 24)? != sequence_number || !start.is_multiple_of(SECTOR as u64) {
        return None;
    }
    let (len, data) = match descriptor.first_chunk::<4>()? {
        b"zero" => {
            let len = le64(descriptor, 8)?;
            (len, None)
        }
        b"desc" => {
            let sector = sectors.next()?;
            let high = u64::from(le32(sector, 4)?);
            let low = u64::from(le32(sector, SECTOR - 4)?);
            if !sector.starts_with(b"data") || (high << 32 | low) != sequence_number {
                return None;
            }
            let mut data = sector.to_vec();
            data[..8].copy_from_slice(descriptor.get(8..16)?);
            data[SECTOR - 4..].copy_from_slice(descriptor.get(4..8)?);
            (SECTOR as u64, Some(data.into_boxed_slice()))
        }
        _ => return None,
    };
    if !len.is_multiple_of(SECTOR as u64) {
        return None;
    }
    Some(Write {
        range: start..start.checked_add(len)?,
        data,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::layout::checksum;
    use super::*;

    const GUID: Guid = Guid::new(1, 2, 3, 4);

    /// What an entry writes: an offset, and a byte to fill a sector with or zeros to make.
    #[derive(Clone, Copy)]
    enum Put {
        Fill(u64, u8),
        Zeros(u64, u64),
    }

    fn entry(number: u64, tail: usize, puts: &[Put]) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        let mut data = Vec::new();
        for (n, put) in puts.iter().enumerate() {
            let d = &mut bytes[ENTRY_HEADER + n * DESCRIPTOR..][..DESCRIPTOR];
            let at = match put {
                Put::Fill(at, byte) => {
                    d[..4].copy_from_slice(b"desc");
                    d[4..16].fill(*byte);
                    let mut sector = vec![*byte; SECTOR];
                    sector[..4].copy_from_slice(b"data");
                    sector[4..8].copy_from_slice(&((number >> 32) as u32).to_le_bytes());
                    sector[SECTOR - 4..].copy_from_slice(&(number as u32).to_le_bytes());
                    data.extend(sector);
                    at
                }
                Put::Zeros(at, len) => {
                    d[..4].copy_from_slice(b"zero");
                    d[8..16].copy_from_slice(&len.to_le_bytes());
                    at
                }
            };
            d[16..24].copy_from_slice(&at.to_le_bytes());
            d[24..].copy_from_slice(&number.to_le_bytes());
        }
        bytes.extend(data);
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(b"loge");
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..16].copy_from_slice(&(tail as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        bytes[24..28].copy_from_slice(&(puts.len() as u32).to_le_bytes());
        bytes[32..48].copy_from_slice(&GUID.0);
        bytes[48..56].copy_from_slice(&(1u64 << 20).to_le_bytes());
        bytes[56..64].copy_from_slice(&(3u64 << 20).to_le_bytes());
        let crc = checksum(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// A ring of 16 sectors with entries written from `at`.
    fn ring(at: usize, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut log = vec![0; 16 * SECTOR];
        for (n, byte) in entries.concat().into_iter().enumerate() {
            let len = log.len();
            log[(at + n) % len] = byte;
        }
        log
    }

    fn byte(replay: &Replay, at: u64) -> u8 {
        let mut buf = [0xee; 3];
        replay.apply(at, &mut buf);
        assert!(buf.iter().all(|b| *b == buf[0]));
        buf[0]
    }

    #[test]
    fn later_entries_win_and_zeros_are_cut() {
        const S: u64 = SECTOR as u64;
        let entries = [
            entry(
                7,
                0,
                &[Put::Fill(0, 1), Put::Fill(S, 2), Put::Fill(2 * S, 3)],
            ),
            entry(8, 0, &[Put::Zeros(0, 8 * S), Put::Fill(4 * S, 5)]),
            entry(9, 0, &[Put::Fill(S, 6), Put::Zeros(3 * S, S)]),
        ];
        let played = replay(&ring(0, &entries), GUID, Some(1 << 20)).unwrap();
        let found: Vec<_> = (0..9).map(|n| byte(&played, n * S + 5)).collect();
        assert_eq!(found, [0, 6, 0, 0, 5, 0, 0, 0, 0xee]);
        assert_eq!(played.file_len(0), 3 << 20);
        assert_eq!(played.next_write(8 * S), None);
        assert_eq!(played.next_write(S + 1), Some(S + 1..2 * S));
    }

    #[test]
    fn plays_from_the_tail_on_across_the_end_of_the_ring() {
        let at = 14 * SECTOR;
        let entries = [
            entry(3, at, &[Put::Fill(0, 1)]),
            entry(4, 0, &[Put::Fill(4096, 2)]),
            entry(5, 0, &[Put::Fill(8192, 3)]),
        ];
        // The head's tail is the second entry: the first was made durable before.
        let played = replay(&ring(at, &entries), GUID, None).unwrap();
        let found = [0, 4096, 8192].map(|at| byte(&played, at));
        assert_eq!(found, [0xee, 2, 3]);
        let wrapped = [entry(3, at, &[Put::Fill(0, 1), Put::Fill(4096, 9)])];
        let played = replay(&ring(at, &wrapped), GUID, None).unwrap();
        assert_eq!(byte(&played, 4096), 9);
    }

    #[test]
    fn the_sequence_with_the_highest_number_counts() {
        let old = entry(20, 0, &[Put::Fill(0, 1)]);
        let new = entry(30, 4 * SECTOR, &[Put::Fill(0, 2)]);
        let mut log = ring(0, std::slice::from_ref(&old));
        log[4 * SECTOR..6 * SECTOR].copy_from_slice(&new);
        assert_eq!(byte(&replay(&log, GUID, None).unwrap(), 0), 2);
        // A torn entry was never made.
        log[5 * SECTOR + 100] ^= 1;
        assert_eq!(byte(&replay(&log, GUID, None).unwrap(), 0), 1);
        log[SECTOR + 100] ^= 1;
        assert!(replay(&log, GUID, None).is_err());
    }

    #[test]
    fn refuses_a_lost_tail_another_log_and_a_truncated_file() {
        let lost = ring(0, &[entry(3, 8 * SECTOR, &[])]);
        assert!(replay(&lost, GUID, None).is_err());
        let good = ring(0, &[entry(3, 0, &[])]);
        assert!(replay(&good, GUID, None).is_ok());
        assert!(replay(&good, Guid::new(9, 9, 9, 9), None).is_err());
        assert!(replay(&good, GUID, Some(1000)).is_err());
        assert!(replay(&[], GUID, None).is_err());
    }
}
