//! Names inside images are requests, never acts: whoever opens the image decides.

use std::sync::Arc;

use crate::{Error, Format, Result, Source};

/// What an image asks for by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A backing file (qcow2, qed): what its holes fall through to.
    Backing,
    /// The parent of a differencing image (vhd, vhdx, vdi, vmdk delta link).
    Parent,
    /// An external data file (qcow2).
    DataFile,
    /// An extent file of a descriptor (vmdk, parallels).
    Extent,
}

impl Wanted {
    /// The field's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::Parent => "parent",
            Self::DataFile => "external data file",
            Self::Extent => "extent file",
        }
    }
}

/// A file an image may read.
pub struct Granted {
    /// Its bytes.
    pub source: Arc<dyn Source>,
    /// Who answers for the names in it: they may be relative to where it lies.
    pub resolver: Arc<dyn Resolver>,
}

impl Granted {
    /// A file that may name no others.
    #[must_use]
    pub fn alone(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            resolver: Arc::new(Alone),
        }
    }
}

/// Answers requests of images for other files.
pub trait Resolver: Send + Sync {
    /// The file behind `name`, which comes from the image and is not to be trusted.
    ///
    /// # Errors
    /// `Refused` when policy says no, `Io` when it cannot be opened.
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted>;
}

/// The image stands alone: every request is refused by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Resolver for Alone {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        Err(Error::refused(
            by,
            wanted.name(),
            format!("{name:?} is another file, and none may be opened for this image"),
        ))
    }
}
