//! The header of version 1: 592 bytes, big-endian.

use std::ops::Range;

use super::{payload_size, text};
use crate::bytes::be32;
use crate::inspect::Facts;
use crate::{Error, Format, Result};

/// Bytes of the header.
pub(super) const LEN: u64 = 592;
const SLOTS: usize = 208;
const SLOT_LEN: usize = 48;
const SLOT_COUNT: usize = 8;
const ENABLED: u32 = 0x00ac_71f3;
const DISABLED: u32 = 0x0000_dead;
const SECTOR: u64 = 512;

pub(super) fn describe(header: &[u8], file_len: Option<u64>) -> Result<Facts> {
    if (header.len() as u64) < LEN {
        return Err(malformed(format!(
            "the file ends at byte {} within it",
            header.len()
        )));
    }
    let mut facts = Facts::new(Format::Luks);
    facts.detail("version", 1);
    facts.detail("cipher", text(header.get(8..40)));
    facts.detail("cipher_mode", text(header.get(40..72)));
    facts.detail("hash", text(header.get(72..104)));
    facts.detail("uuid", text(header.get(168..208)));
    let field = |at| be32(header, at).ok_or_else(|| malformed("the file ends within it"));
    let payload = u64::from(field(104)?) * SECTOR;
    let key_bytes = field(108)?;

    let mut material: Vec<(usize, Range<u64>)> = Vec::new();
    let mut active = 0;
    for n in 0..SLOT_COUNT {
        let at = SLOTS + n * SLOT_LEN;
        match field(at)? {
            ENABLED => active += 1,
            DISABLED => {}
            state => {
                return Err(malformed(format!(
                    "key slot {n} is in state {state:#x} at byte {at}, allowed {ENABLED:#x} and \
                     {DISABLED:#x}"
                )));
            }
        }
        let start = u64::from(field(at + 40)?) * SECTOR;
        let len = u64::from(key_bytes) * u64::from(field(at + 44)?);
        let range = start..start.saturating_add(len);
        // A payload at 0 lies in another device: the header is detached.
        if range.start < LEN || (payload != 0 && range.end > payload) {
            return Err(malformed(format!(
                "key slot {n} has its material at bytes {range:?}, allowed {LEN} to {payload}"
            )));
        }
        let clash = material
            .iter()
            .find(|(_, other)| range.start < other.end && other.start < range.end);
        if let Some((other, _)) = clash {
            return Err(malformed(format!(
                "the material of key slots {other} and {n} overlaps"
            )));
        }
        material.push((n, range));
    }
    facts.detail("active_key_slots", active);
    facts.virtual_size = payload_size(&mut facts, payload, file_len);
    Ok(facts)
}

fn malformed(message: impl Into<String>) -> Error {
    Error::malformed(Format::Luks, "header", message)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A volume of 16 sectors behind its header.
    pub(in crate::luks) fn volume() -> Vec<u8> {
        let mut file = vec![0; 592];
        file[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        file[8..11].copy_from_slice(b"aes");
        file[40..51].copy_from_slice(b"xts-plain64");
        file[72..78].copy_from_slice(b"sha256");
        file[104..108].copy_from_slice(&4096u32.to_be_bytes());
        file[108..112].copy_from_slice(&32u32.to_be_bytes());
        for n in 0..8u32 {
            let slot = &mut file[208 + 48 * n as usize..][..48];
            let state = if n == 0 { ENABLED } else { DISABLED };
            slot[..4].copy_from_slice(&state.to_be_bytes());
            slot[40..44].copy_from_slice(&(8 + n * 256).to_be_bytes());
            slot[44..48].copy_from_slice(&4000u32.to_be_bytes());
        }
        file.resize(4096 * 512 + 8192, 0);
        file
    }
}
