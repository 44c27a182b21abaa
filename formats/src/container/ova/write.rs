//! Writing an OVA: descriptor, streamOptimized disks, manifest, in one pass over the disks.
//!
//! ```text
//!  header │ descriptor, room for the longest │ header │ disk 1 │ … │ header │ manifest │ end
//!     written last ◄──────────── lengths ────────────────┘ SHA-256 while it is written
//! ```
//! OVF 1.1 (DSP0243 1.1.0), which wants the descriptor first. It names the lengths of files that
//! come after it, so it is given the room its longest form takes, and what is left of that is
//! line ends behind the XML. Disks are hashed in order as they are written, never read back.

use std::io;

use sha2::{Digest, Sha256};

use super::options::WriteOptions;
use crate::copy::{CopyOptions, Progress, Summary, copy};
use crate::{CreateOptions, Disk, Error, HostOffset, Result, Sink, StreamSink, create};

const BLOCK: u64 = 512;
/// Disks of an archive: those that one SCSI controller has room for.
const MAX_DISKS: usize = 15;

/// A disk's member.
pub(super) struct Member {
    pub(super) name: String,
    /// Bytes the guest sees.
    pub(super) capacity: u64,
    /// Bytes of the file.
    pub(super) len: u64,
}

/// Writes an OVA of `disks` to `sink`, which is not sequential. The same disks and options give
/// the same bytes.
///
/// # Errors
/// `Usage` for no disk, more than 15, or one that no vmdk can hold; those of [`copy`].
pub fn write_ova(
    disks: &[&dyn Disk],
    options: &WriteOptions,
    sink: &dyn Sink,
    copying: &CopyOptions,
    progress: &Progress,
) -> Result<Summary> {
    if disks.is_empty() || disks.len() > MAX_DISKS {
        return Err(Error::usage(format!(
            "an OVA of {} disks, allowed 1 to {MAX_DISKS}",
            disks.len()
        )));
    }
    if sink.is_sequential() {
        return Err(Error::usage("an OVA cannot be written in one go"));
    }
    let mut members: Vec<_> = (1..)
        .zip(disks)
        .map(|(n, disk)| Member {
            name: format!("{}-disk{n}.vmdk", options.stem()),
            capacity: disk.virtual_size().next_multiple_of(BLOCK),
            len: u64::MAX,
        })
        .collect();
    let room = options.descriptor(&members).len().next_multiple_of(512);

    let mut at = BLOCK + room as u64;
    let mut manifest = String::new();
    for (member, disk) in members.iter_mut().zip(disks) {
        let target = create(&CreateOptions::Vmdk(options.vmdk()), disk.virtual_size())?;
        let file = StreamSink::new(File {
            sink,
            at: HostOffset(at + BLOCK),
            hasher: Sha256::new(),
        });
        member.len = copy(*disk, target, &file, copying, progress)?.file_size;
        let digest = file.into_inner().hasher.finalize();
        manifest += &line(&member.name, &digest);
        sink.write_all_at(&header(&member.name, member.len, options), HostOffset(at))?;
        at += BLOCK + member.len.next_multiple_of(BLOCK);
    }

    let name = format!("{}.ovf", options.stem());
    let mut descriptor = options.descriptor(&members).into_bytes();
    descriptor.resize(room, b'\n');
    let manifest = line(&name, &Sha256::digest(&descriptor)) + &manifest;
    let len = manifest.len() as u64;
    let manifest_name = format!("{}.mf", options.stem());
    sink.write_all_at(&header(&manifest_name, len, options), HostOffset(at))?;
    sink.write_all_at(manifest.as_bytes(), HostOffset(at + BLOCK))?;
    // Two blocks of zeros are the end.
    let file_size = at + BLOCK + len.next_multiple_of(BLOCK) + 2 * BLOCK;
    sink.set_len(file_size)?;
    sink.write_all_at(&descriptor, HostOffset(BLOCK))?;
    sink.write_all_at(&header(&name, room as u64, options), HostOffset::ZERO)?;
    Ok(Summary { file_size })
}

/// A line of the manifest.
fn line(name: &str, digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("SHA256({name})= {hex}\n")
}

/// The tar header of a member. Names are short and plain; lengths beyond 8 GiB are binary, as
/// GNU tar writes them and everybody reads them.
fn header(name: &str, len: u64, options: &WriteOptions) -> [u8; BLOCK as usize] {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(len);
    header.set_mtime(options.mtime);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

/// A member's bytes on their way, hashed in order.
struct File<'a> {
    sink: &'a dyn Sink,
    at: HostOffset,
    hasher: Sha256,
}

impl io::Write for File<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink
            .write_all_at(bytes, self.at)
            .map_err(io::Error::other)?;
        self.at.0 += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
