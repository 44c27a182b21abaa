//! Offsets that cannot be mistaken for one another.
//!
//! A guest offset counts bytes of the virtual disk, a host offset counts bytes of the file
//! beneath it. Both are plain `u64` inside; the types exist so that one is never used as the
//! other.

use std::fmt;
use std::ops::Range;

macro_rules! offset {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The first byte.
            pub const ZERO: Self = Self(0);

            /// This offset moved forward by `bytes`, or `None` past the end of `u64`.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Bytes from `start` to here; zero when `start` lies behind.
            #[must_use]
            pub const fn since(self, start: Self) -> u64 {
                self.0.saturating_sub(start.0)
            }

            /// The largest multiple of `unit` bytes not above this offset.
            #[must_use]
            pub const fn align_down(self, unit: u64) -> Self {
                Self(self.0 - self.0 % unit)
            }

            /// The smallest multiple of `unit` bytes not below this offset (saturating).
            #[must_use]
            pub const fn align_up(self, unit: u64) -> Self {
                match self.0 % unit {
                    0 => self,
                    rest => Self(self.0.saturating_add(unit - rest)),
                }
            }
        }

        impl fmt::Display for $name {
            /// Decimal inside the first page, hexadecimal above.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0 < 4096 { write!(f, "{}", self.0) } else { write!(f, "{:#x}", self.0) }
            }
        }
    };
}

offset! {
    /// A byte offset in the virtual disk, as the guest counts.
    GuestOffset
}
offset! {
    /// A byte offset in the file that holds the image.
    HostOffset
}

/// Bytes of a guest range.
#[must_use]
pub const fn guest_len(range: &Range<GuestOffset>) -> u64 {
    range.end.since(range.start)
}

/// Index of a target's allocation unit (cluster, grain, block) in guest order.
pub type UnitIndex = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_both_ways() {
        assert_eq!(GuestOffset(4097).align_down(4096), GuestOffset(4096));
        assert_eq!(GuestOffset(4097).align_up(4096), GuestOffset(8192));
        assert_eq!(HostOffset(8192).align_up(4096), HostOffset(8192));
        assert_eq!(HostOffset(u64::MAX).align_up(4096), HostOffset(u64::MAX));
    }

    #[test]
    fn shows_large_offsets_in_hexadecimal() {
        assert_eq!(HostOffset(20).to_string(), "20");
        assert_eq!(HostOffset(65536).to_string(), "0x10000");
    }
}
