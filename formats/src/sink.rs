//! Positioned bytes out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::{Error, HostOffset, Result};

/// Where an image is written, by position. Bytes never written read as zeros.
pub trait Sink: Send + Sync {
    /// Writes all of `bytes` at `at`.
    ///
    /// # Errors
    /// `Io`, a full disk among them.
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()>;

    /// Sets the length in bytes; growing leaves a hole.
    ///
    /// # Errors
    /// `Io`.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Asks for room for the first `len` bytes, where the sink can: later writes there will not
    /// find it full. What was written stays.
    ///
    /// # Errors
    /// `Io`, when there is not as much room.
    fn reserve(&self, len: u64) -> Result<()> {
        let _ = len;
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// `Io`.
    fn sync(&self) -> Result<()>;
}

/// An open file to write to.
#[derive(Debug)]
pub struct FileSink(File);

impl FileSink {
    /// Wraps a file opened for writing.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl Sink for FileSink {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        self.0
            .write_all_at(bytes, at.0)
            .map_err(|e| Error::io(format!("writing {} bytes at {at}", bytes.len()), e))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0
            .set_len(len)
            .map_err(|e| Error::io(format!("setting the length to {len}"), e))
    }

    fn reserve(&self, len: u64) -> Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // Not every file system knows how to.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(Error::io(format!("reserving {len} bytes"), e.into())),
        }
    }

    fn sync(&self) -> Result<()> {
        self.0
            .sync_all()
            .map_err(|e| Error::io("making the file durable", e))
    }
}

/// A sink in memory, for tests and small images.
#[derive(Debug, Default)]
pub struct MemorySink(std::sync::Mutex<Vec<u8>>);

impl MemorySink {
    /// Takes out what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Sink for MemorySink {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let mut all = self.lock();
        let start = usize::try_from(at.0).map_err(|_| Error::usage("offset beyond memory"))?;
        let end = start
            .checked_add(bytes.len())
            .ok_or_else(|| Error::usage("offset beyond memory"))?;
        if all.len() < end {
            all.resize(end, 0);
        }
        all[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| Error::usage("length beyond memory"))?;
        self.lock().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
