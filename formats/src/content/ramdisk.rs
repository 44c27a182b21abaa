//! Ramdisks: cpio archives, one behind another, the later ones compressed as a rule.
//!
//! Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. Processor microcode comes
//! in a plain archive before the compressed one (`arch/x86/microcode.rst`).

use super::packed;

/// What the names in the first archive tell.
const MICROCODE: &[u8] = b"kernel/x86/microcode/";

/// A position in a ramdisk, while its archives are walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Walk {
    /// The archive's format: `newc`, `crc`, `odc` or `bin`.
    pub(super) format: &'static str,
    /// The byte of the next header, or after the last archive that was walked to its end.
    pub(super) at: u64,
    /// Names are those of microcode.
    pub(super) has_microcode: bool,
    /// The compression of what follows.
    pub(super) next: Option<&'static str>,
    pub(super) is_over: bool,
}

/// Entries walked: one with microcode has a handful, others are not worth walking further.
const MAX_ENTRIES: usize = 16;

impl Walk {
    /// The ramdisk that begins with `bytes`.
    pub(super) fn start(bytes: &[u8]) -> Option<Self> {
        let format = match bytes {
            [b'0', b'7', b'0', b'7', b'0', b'1', ..] => "newc",
            [b'0', b'7', b'0', b'7', b'0', b'2', ..] => "crc",
            [b'0', b'7', b'0', b'7', b'0', b'7', ..] => "odc",
            [0xc7, 0x71, ..] => "bin",
            _ => return None,
        };
        Some(Self {
            format,
            at: 0,
            has_microcode: false,
            next: None,
            is_over: false,
        })
    }

    /// Goes on with `bytes`, those of the file from `self.at`; stops where they end, or for good.
    pub(super) fn go_on(&mut self, bytes: &[u8]) {
        let base = self.at;
        for _ in 0..MAX_ENTRIES {
            let Some(rest) = usize::try_from(self.at - base)
                .ok()
                .and_then(|skip| bytes.get(skip..))
            else {
                return;
            };
            let Some(entry) = Entry::parse(rest) else {
                // A header that is cut off is asked for again, once it is no longer.
                self.is_over = !matches!(self.format, "newc" | "crc") || rest.len() >= Entry::MOST;
                return;
            };
            if entry.name == b"TRAILER!!!" {
                self.end(&rest[entry.len.min(rest.len() as u64) as usize..]);
                return;
            }
            self.has_microcode |= entry.name.starts_with(MICROCODE);
            if !entry.name.starts_with(b"kernel")
                && entry.name != b"."
                && entry.name != b"early_cpio"
            {
                // The root file system itself.
                self.is_over = true;
                return;
            }
            self.at += entry.len;
        }
        self.is_over = true;
    }

    /// The archive is over: zeros, and then the next.
    fn end(&mut self, rest: &[u8]) {
        self.is_over = true;
        if let Some(skip) = rest.iter().position(|&b| b != 0) {
            self.next = packed::name(&rest[skip..]);
        }
    }
}

struct Entry<'a> {
    name: &'a [u8],
    /// Bytes of header, name and data with their padding.
    len: u64,
}

impl<'a> Entry<'a> {
    /// Bytes of a header.
    const HEADER: usize = 110;
    /// Bytes of a header and its name.
    const MOST: usize = Self::HEADER + 4096;

    /// An entry of the formats `newc` and `crc`.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"070701") && !bytes.starts_with(b"070702") {
            return None;
        }
        let field = |n: usize| {
            let digits = bytes.get(6 + 8 * n..14 + 8 * n)?;
            u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
        };
        let (data, name_len) = (u64::from(field(6)?), field(11)? as usize);
        let name = bytes.get(Self::HEADER..Self::HEADER.checked_add(name_len)?)?;
        let header = (Self::HEADER + name_len).next_multiple_of(4) as u64;
        Some(Self {
            name: name.strip_suffix(b"\0").unwrap_or(name),
            len: header + data.next_multiple_of(4),
        })
    }
}
