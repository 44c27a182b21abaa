//! The bytes of a file, partition or unpacked head that were read: pieces, and gaps between.

use crate::bytes;

/// Pieces by the byte they begin at, counted from where the looked-at thing begins.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(pub(super) &'a [(u64, &'a [u8])]);

macro_rules! fields {
    ($($name:ident, $ty:ty;)*) => {$(
        pub(super) fn $name(self, at: u64) -> Option<$ty> {
            bytes::$name(self.get(at, size_of::<$ty>() as u64)?, 0)
        }
    )*};
}

impl<'a> View<'a> {
    /// The `len` bytes at `at`, where all of them were read.
    pub(super) fn get(self, at: u64, len: u64) -> Option<&'a [u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            let to = from.checked_add(usize::try_from(len).ok()?)?;
            bytes.get(from..to)
        })
    }

    /// All that was read from `at` on in one piece.
    pub(super) fn rest(self, at: u64) -> Option<&'a [u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(from..)
        })
    }

    pub(super) fn has(self, at: u64, magic: &[u8]) -> bool {
        self.get(at, magic.len() as u64) == Some(magic)
    }

    pub(super) fn byte(self, at: u64) -> Option<u8> {
        self.get(at, 1)?.first().copied()
    }

    /// A field of text, up to its first NUL; `None` where it is empty or was not read.
    pub(super) fn text(self, at: u64, len: u64) -> Option<String> {
        text(self.get(at, len)?)
    }

    /// A UUID in the order of its bytes; `None` where it is zero or was not read.
    pub(super) fn uuid(self, at: u64) -> Option<String> {
        let bytes = self.get(at, 16)?;
        if bytes::is_zero(bytes) {
            return None;
        }
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let (a, b, c, d, e) = (
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..],
        );
        Some(format!("{a}-{b}-{c}-{d}-{e}"))
    }

    fields! {
        le16, u16;
        le32, u32;
        le64, u64;
        be16, u16;
        be32, u32;
        be64, u64;
    }
}

/// Text up to its first NUL, without padding and fit for print; `None` where nothing is left.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text = text.trim().replace(char::is_control, "\u{fffd}");
    (!text.is_empty()).then_some(text)
}

/// UTF-16 text up to its first NUL, likewise.
pub(super) fn utf16(bytes: &[u8]) -> Option<String> {
    let units = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|c| u16::from_le_bytes(*c));
    let wide: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text(wide.as_bytes())
}
