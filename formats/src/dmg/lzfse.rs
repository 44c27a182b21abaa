//! LZFSE: Lempel-Ziv with finite state entropy coding.
//!
//! ```text
//!  bvx-  length, bytes as they are
//!  bvxn  lengths, LZVN
//!  bvx2  lengths, counts and states (32 bytes) · packed frequencies · literals · L, M, D triples
//!  bvx$  the end
//! ```
//! Described by Apple's reference implementation and its header comments. Both entropy streams
//! are read from their last bit to their first. A triple means: L literals, then M bytes from D
//! back; a D of 0 repeats the one before. `bvx1`, the same with its tables unpacked, is not
//! read.

use super::adc::copy_back;
use super::lzvn;
use crate::bytes::{le32, le64};

const L_SYMBOLS: usize = 20;
const M_SYMBOLS: usize = 20;
const D_SYMBOLS: usize = 64;
const LITERAL_SYMBOLS: usize = 256;
const L_STATES: usize = 64;
const M_STATES: usize = 64;
const D_STATES: usize = 256;
const LITERAL_STATES: usize = 1024;
/// Bytes of a `bvx2` header before its frequencies.
const HEADER: usize = 32;
const MAX_MATCHES: usize = 10_000;
const MAX_LITERALS: usize = 4 * MAX_MATCHES;

/// Unpacks exactly `len` bytes; `None` where `input` is damaged or holds another number.
pub(super) fn decode(input: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    loop {
        let block_len = le32(rest, 4).map(|len| len as usize);
        let end =
            |out: &Vec<u8>| Some(out.len().checked_add(block_len?)?).filter(|end| *end <= len);
        match rest.get(..4)? {
            b"bvx$" => return (out.len() == len).then_some(out),
            b"bvx-" => {
                let size = end(&out)? - out.len();
                out.extend_from_slice(rest.get(8..8 + size)?);
                rest = rest.get(8 + size..)?;
            }
            b"bvxn" => {
                let end = end(&out)?;
                let (payload, after) = rest.get(12..)?.split_at_checked(le32(rest, 8)? as usize)?;
                lzvn::decode(payload, &mut out, end)?;
                rest = (out.len() == end).then_some(after)?;
            }
            b"bvx2" => {
                let end = end(&out)?;
                rest = block(rest, &mut out, end)?;
                if out.len() != end {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

/// Unpacks the `bvx2` block `input` begins with, up to `end` bytes of `out`; what follows it.
fn block<'a>(input: &'a [u8], out: &mut Vec<u8>, end: usize) -> Option<&'a [u8]> {
    let fields = [le64(input, 8)?, le64(input, 16)?, le64(input, 24)?];
    let field = |n: usize, at: u32, bits: u32| (fields[n] >> at & ((1 << bits) - 1)) as usize;
    let (literal_count, literal_len, match_count) =
        (field(0, 0, 20), field(0, 20, 20), field(0, 40, 20));
    let triples_len = field(1, 40, 20);
    if literal_count > MAX_LITERALS || literal_count % 4 != 0 || match_count > MAX_MATCHES {
        return None;
    }
    let header_len = field(2, 0, 32);
    let frequencies = read_frequencies(input.get(HEADER..header_len)?)?;
    let (literals, after) = input.get(header_len..)?.split_at_checked(literal_len)?;
    let (triples, after) = after.split_at_checked(triples_len)?;

    let (l, others) = frequencies.split_at(L_SYMBOLS);
    let (m, others) = others.split_at(M_SYMBOLS);
    let (d, literal) = others.split_at(D_SYMBOLS);

    let table = Table::new(literal, LITERAL_STATES, |_| 0)?;
    let mut states = [0, 10, 20, 30].map(|at| field(1, at, 10));
    let mut bits = Bits::new(literals, field(0, 60, 3))?;
    let mut decoded = Vec::with_capacity(literal_count);
    for _ in 0..literal_count / 4 {
        for state in &mut states {
            decoded.push(table.next(state, &mut bits)? as u8);
        }
    }

    let (l, m) = (
        Table::new(l, L_STATES, |symbol| {
            [2, 3, 5, 8]
                .get(symbol.wrapping_sub(16))
                .copied()
                .unwrap_or(0)
        })?,
        Table::new(m, M_STATES, |symbol| {
            [3, 5, 8, 11]
                .get(symbol.wrapping_sub(16))
                .copied()
                .unwrap_or(0)
        })?,
    );
    let d = Table::new(d, D_STATES, |symbol| symbol as u32 / 4)?;
    let (mut l_state, mut m_state, mut d_state) =
        (field(2, 32, 10), field(2, 42, 10), field(2, 52, 10));
    let mut bits = Bits::new(triples, field(1, 60, 3))?;
    let mut literals = decoded.as_slice();
    let mut distance = 0;
    for _ in 0..match_count {
        let literal_run = l.next(&mut l_state, &mut bits)?;
        let matched = m.next(&mut m_state, &mut bits)?;
        match d.next(&mut d_state, &mut bits)? {
            0 => {}
            new => distance = new,
        }
        if out.len() + literal_run + matched > end {
            return None;
        }
        let (run, rest) = literals.split_at_checked(literal_run)?;
        out.extend_from_slice(run);
        literals = rest;
        if matched > 0 {
            copy_back(out, distance, matched)?;
        }
    }
    Some(after)
}

/// The frequencies of all symbols, in a prefix code, lowest bits first.
fn read_frequencies(input: &[u8]) -> Option<Vec<u16>> {
    const COUNT: usize = L_SYMBOLS + M_SYMBOLS + D_SYMBOLS + LITERAL_SYMBOLS;
    let mut frequencies = Vec::with_capacity(COUNT);
    let (mut rest, mut bits, mut count) = (input.iter(), 0_u64, 0);
    for _ in 0..COUNT {
        while count < 16
            && let Some(&byte) = rest.next()
        {
            bits |= u64::from(byte) << count;
            count += 8;
        }
        let (value, len) = match bits & 31 {
            n if n & 3 == 0 => (0, 2),
            n if n & 3 == 2 => (1, 2),
            n if n & 7 == 1 => (2, 3),
            n if n & 7 == 5 => (3, 3),
            n if n & 7 == 3 => (4 + (bits >> 3 & 3), 5),
            n if n & 15 == 7 => (8 + (bits >> 4 & 15), 8),
            _ => (24 + (bits >> 4 & 0x3ff), 14),
        };
        if len > count {
            return None;
        }
        bits >>= len;
        count -= len;
        frequencies.push(value as u16);
    }
    Some(frequencies)
}

/// A decoder table: for each state what it means and where it leads.
struct Table(Vec<Entry>);

#[derive(Clone, Copy, Default)]
struct Entry {
    /// Bits that choose the next state, above `next`.
    state_bits: u32,
    next: usize,
    /// Bits that choose the value, above `base`.
    value_bits: u32,
    base: usize,
}

impl Table {
    /// A table of `states` states; symbols stand for ranges of values, `extra` bits wide and one
    /// after the other. Without extra bits a symbol is its own value.
    fn new(frequencies: &[u16], states: usize, extra: impl Fn(usize) -> u32) -> Option<Self> {
        let mut entries = Vec::with_capacity(states);
        let mut base = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            let f = usize::from(frequency);
            if entries.len() + f > states {
                return None;
            }
            let value_bits = extra(symbol);
            if f > 0 {
                // So many bits that states ≤ f << k < 2 × states.
                let k = f.leading_zeros() - states.leading_zeros();
                let wide = ((2 * states) >> k) - f;
                entries.extend((0..f).map(|n| {
                    let (state_bits, next) = if n < wide {
                        (k, ((f + n) << k) - states)
                    } else {
                        (k - 1, (n - wide) << (k - 1))
                    };
                    Entry {
                        state_bits,
                        next,
                        value_bits,
                        base,
                    }
                }));
            }
            base += 1 << value_bits;
        }
        entries.resize(states, Entry::default());
        Some(Self(entries))
    }

    /// The value of `state`, which moves on.
    fn next(&self, state: &mut usize, bits: &mut Bits<'_>) -> Option<usize> {
        let entry = self.0.get(*state)?;
        let pulled = bits.pull(entry.state_bits + entry.value_bits)?;
        *state = entry.next + (pulled >> entry.value_bits);
        Some(entry.base + (pulled & ((1 << entry.value_bits) - 1)))
    }
}

/// Bits read from the last to the first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits not read yet.
    left: usize,
}

impl<'a> Bits<'a> {
    /// The bits of `bytes`; of the last byte only `used - 7` more than eight: a header's field.
    fn new(bytes: &'a [u8], used: usize) -> Option<Self> {
        let left = (bytes.len() * 8 + used).checked_sub(7)?;
        Some(Self { bytes, left })
    }

    /// The next `count` bits, at most 32.
    fn pull(&mut self, count: u32) -> Option<usize> {
        self.left = self.left.checked_sub(count as usize)?;
        let start = self.left / 8;
        let mut window = [0; 8];
        let bytes = &self.bytes[start..self.bytes.len().min(start + 8)];
        window[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(window) >> (self.left % 8) & ((1 << count) - 1);
        Some(bits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_small_blocks() {
        let mut input = b"bvx-\x03\0\0\0abc".to_vec();
        input.extend_from_slice(b"bvxn\x02\0\0\0\x04\0\0\0\xe2xy\x06");
        input.extend_from_slice(b"bvx$");
        assert_eq!(decode(&input, 5).as_deref(), Some(&b"abcxy"[..]));
        assert_eq!(decode(&input, 4), None);
        assert_eq!(decode(&input, 6), None);
        for len in 0..input.len() {
            assert_eq!(decode(&input[..len], 5), None, "{len}");
        }
    }

    #[test]
    fn values_follow_each_other() {
        let table = Table::new(&[1; 64], 64, |symbol| symbol as u32 / 4).unwrap();
        let bases: Vec<_> = table.0.iter().map(|e| e.base).collect();
        assert_eq!(
            bases[..14],
            [0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 36]
        );
    }

    #[test]
    fn bits_come_backwards() {
        let mut bits = Bits::new(&[0b1010_0001, 0b0000_0110], 2).unwrap();
        assert_eq!(
            [3, 5, 3].map(|n| bits.pull(n)),
            [Some(6), Some(20), Some(1)]
        );
        assert_eq!(bits.pull(1), None);
    }
}
