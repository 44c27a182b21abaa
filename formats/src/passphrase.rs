//! What opens an encrypted image.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// A passphrase: any bytes. Shown nowhere, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Arc<[u8]>);

impl Passphrase {
    /// Bytes of a passphrase at most, as cryptsetup has it.
    pub const MAX: usize = 8 << 20;

    /// A passphrase of these bytes, all of them: a line end at the end of a file is part of it.
    ///
    /// # Errors
    /// `Usage` when there is none, or more than [`MAX`](Self::MAX) bytes.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        match bytes.len() {
            0 => Err(Error::usage("the passphrase is empty")),
            1..=Self::MAX => Ok(Self(bytes.into())),
            _ => Err(Error::usage(format!(
                "the passphrase is longer than {} bytes",
                Self::MAX
            ))),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}
