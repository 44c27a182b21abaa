//! What the codecs of whole units have in common.

use std::fmt;

/// Why a unit could not be decompressed. The caller knows the format and the place, and says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Not a valid stream, or one that ends early.
    Corrupt,
    /// It would give more bytes than a unit holds.
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "is not a valid compressed stream",
            Self::TooLong => "inflates to more bytes than a unit holds",
        })
    }
}

impl std::error::Error for Fault {}
