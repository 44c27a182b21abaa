//! Encryption: LUKS, whose header lies in clusters that a header extension points to.
//!
//! Uncompressed clusters are encrypted in sectors of 512 bytes, whose initialization vectors
//! count from the start of the file (of the external data file, where there is one): moving a
//! cluster means encrypting it again. Tables and compressed clusters are in the clear. The
//! payload offset of the LUKS header means nothing here.

use std::fmt;
use std::sync::Arc;

use super::extensions::{Extensions, extension};
use super::layout::{CRYPT_LUKS, Header};
use super::rules;
use crate::copy::Shape;
use crate::luks::{self, IV_UNIT, NewHeader, SectorCipher, Sectors};
use crate::{Error, Format, HostOffset, OpenOptions, Passphrase, Result, Sink, Slice, Source};

/// What uncompressed clusters are decrypted with; `None` where they are in the clear.
///
/// # Errors
/// `Refused` without a passphrase, or with one that opens no key slot; `Malformed`,
/// `Unsupported` and `Limit` by the rules of [`luks`].
pub(super) fn open(
    source: &Arc<dyn Source>,
    header: &Header,
    extensions: &Extensions,
    options: &OpenOptions,
) -> Result<Option<Sectors>> {
    let Some((_, refusal)) = rules::encryption(header) else {
        return Ok(None);
    };
    let (CRYPT_LUKS, Some(passphrase)) = (header.crypt_method, &options.passphrase) else {
        return Err(refusal);
    };
    let malformed = |message| Error::malformed(Format::Qcow2, "header extension", message);
    let (at, len) = extensions
        .encryption_header
        .ok_or_else(|| malformed("the one that points to the LUKS header is missing".into()))?;
    let luks = Slice::new(Arc::clone(source), at, len).map_err(|_| {
        malformed(format!(
            "the LUKS header has {len} bytes at {at}, the file ends at {:#x}",
            source.len()
        ))
    })?;
    let cipher = luks::unlock(&luks, passphrase)?;
    Ok(Some(Sectors::plain(cipher, 0)))
}

/// How a new image is encrypted: LUKS version 1, AES-256 in XTS, one key slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Encryption {
    /// What will open it.
    pub passphrase: Passphrase,
    /// What its key and salts are made from: 32 bytes of the system's own chance, new for every
    /// image and kept nowhere, because they open it, too.
    pub seed: [u8; 32],
    /// Rounds of PBKDF2 with SHA-256 for the key slot: what guessing a passphrase costs.
    pub iterations: u32,
}

impl Encryption {
    /// A good half second of work for whoever opens the image.
    pub const ITERATIONS: u32 = 1_000_000;
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// The LUKS header of an image being written.
pub(super) struct Luks {
    header: Vec<u8>,
    len: u64,
    cipher: Arc<SectorCipher>,
}

impl Luks {
    /// # Errors
    /// `Usage` for an `iterations` that would not be opened again.
    pub(super) fn new(encryption: &Encryption) -> Result<Self> {
        let Encryption {
            passphrase,
            seed,
            iterations,
        } = encryption;
        let NewHeader { bytes, len, cipher } = luks::create(passphrase, seed, *iterations)
            .map_err(|e| Error::usage(format!("encryption of a qcow2 image: {}", e.message())))?;
        Ok(Self {
            header: bytes,
            len,
            cipher: Arc::new(cipher),
        })
    }

    /// Bytes it takes in the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Seals clusters; for one thread.
    pub(super) fn sealer(&self) -> Sealer {
        Sealer(Arc::clone(&self.cipher))
    }

    /// Writes it at `at`, and says so in the image's own header, which ends with the end marker
    /// of its extensions.
    pub(super) fn finish(
        &self,
        sink: &dyn Sink,
        at: HostOffset,
        header: &mut Vec<u8>,
    ) -> Result<()> {
        let end = header.len() - 8;
        header[32..36].copy_from_slice(&CRYPT_LUKS.to_be_bytes());
        let mut pointer = Vec::with_capacity(24);
        pointer.extend(extension::ENCRYPTION.to_be_bytes());
        pointer.extend(16u32.to_be_bytes());
        pointer.extend(at.0.to_be_bytes());
        pointer.extend(self.len.to_be_bytes());
        header.splice(end..end, pointer);
        sink.write_all_at(&self.header, at)
    }
}

/// Encrypts clusters for their place in the file.
pub(super) struct Sealer(Arc<SectorCipher>);

impl Sealer {
    /// Encrypts whole sectors that will lie at `at`.
    pub(super) fn seal(&self, at: HostOffset, sectors: &mut [u8]) {
        let number = at.0 / IV_UNIT;
        self.0.encrypt(sectors, IV_UNIT as usize, number);
    }

    /// What becomes of a cluster: it stays as it is, unless the disk ends within one of its
    /// sectors, which is made whole then, for it is encrypted as a whole.
    pub(super) fn complete(data: &[u8], packed: &mut Vec<u8>) -> Shape {
        let len = data.len().next_multiple_of(IV_UNIT as usize);
        if len == data.len() {
            return Shape::Verbatim;
        }
        let end = packed.len() + len;
        packed.extend_from_slice(data);
        packed.resize(end, 0);
        Shape::Packed(len)
    }
}
