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
use crate::copy::{CopyOptions, Progress, Summary, Tables, copy};
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

/// An OVA whose disks somebody writes, one after the other, each where [`Assembly::next`] says:
/// arithmetic only. What stands around them follows from their lengths and digests.
pub struct Assembly {
    options: WriteOptions,
    members: Vec<Member>,
    room: usize,
    /// Disks that are there.
    written: usize,
    /// Byte of the next header.
    at: u64,
    manifest: String,
    pieces: Tables,
}

impl Assembly {
    /// An OVA of as many disks as there are `capacities`: bytes the guest sees, `u64::MAX` where
    /// it is not known yet.
    ///
    /// # Errors
    /// `Usage` for no disk, or more than 15.
    pub fn new(capacities: &[u64], options: &WriteOptions) -> Result<Self> {
        if capacities.is_empty() || capacities.len() > MAX_DISKS {
            return Err(Error::usage(format!(
                "an OVA of {} disks, allowed 1 to {MAX_DISKS}",
                capacities.len()
            )));
        }
        let members: Vec<_> = (1..)
            .zip(capacities)
            .map(|(n, capacity)| Member {
                name: format!("{}-disk{n}.vmdk", options.stem()),
                capacity: in_blocks(*capacity),
                len: u64::MAX,
            })
            .collect();
        let room = options.descriptor(&members).len().next_multiple_of(512);
        Ok(Self {
            options: options.clone(),
            members,
            room,
            written: 0,
            at: BLOCK + room as u64,
            manifest: String::new(),
            pieces: Tables::new(),
        })
    }

    /// How its disks are written: as a vmdk that needs no going back.
    #[must_use]
    pub fn disk_options(&self) -> CreateOptions {
        CreateOptions::Vmdk(self.options.vmdk())
    }

    /// Byte of the archive where the next disk begins.
    #[must_use]
    pub const fn next(&self) -> HostOffset {
        HostOffset(self.at + BLOCK)
    }

    /// Notes that the next disk was written there: the bytes its guest sees, those of its file,
    /// and their SHA-256.
    ///
    /// # Errors
    /// `Usage` when all disks are there already.
    pub fn add(&mut self, capacity: u64, len: u64, sha256: &[u8; 32]) -> Result<()> {
        let member = self.members.get_mut(self.written);
        let member = member.ok_or_else(|| Error::usage("the OVA has no room for this disk"))?;
        member.capacity = in_blocks(capacity);
        member.len = len;
        self.manifest += &line(&member.name, sha256);
        let header = header(&member.name, len, &self.options).to_vec();
        self.pieces.push((HostOffset(self.at), header));
        self.at += BLOCK + len.next_multiple_of(BLOCK);
        self.written += 1;
        Ok(())
    }

    /// What stands around the disks, to be written in this order, and the bytes of it all.
    ///
    /// # Errors
    /// `Usage` when a disk is missing.
    pub fn finish(mut self) -> Result<(Tables, Summary)> {
        if self.written < self.members.len() {
            return Err(Error::usage("a disk of the OVA was not written"));
        }
        let options = &self.options;
        let name = format!("{}.ovf", options.stem());
        let mut descriptor = options.descriptor(&self.members).into_bytes();
        descriptor.resize(self.room, b'\n');
        let manifest = line(&name, &Sha256::digest(&descriptor)) + &self.manifest;
        let len = manifest.len() as u64;
        let manifest_name = format!("{}.mf", options.stem());
        // Two blocks of zeros are the end.
        let end = len.next_multiple_of(BLOCK) + 2 * BLOCK;
        let mut last = header(&manifest_name, len, options).to_vec();
        last.extend(manifest.bytes());
        last.resize(last.len() + (end - len) as usize, 0);
        let file_size = self.at + last.len() as u64;
        self.pieces.push((HostOffset(self.at), last));
        self.pieces.push((HostOffset(BLOCK), descriptor));
        let first = header(&name, self.room as u64, options).to_vec();
        self.pieces.push((HostOffset::ZERO, first));
        Ok((self.pieces, Summary { file_size }))
    }
}

/// A disk's bytes in whole blocks, which a vmdk has.
fn in_blocks(capacity: u64) -> u64 {
    capacity.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
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
    if sink.is_sequential() {
        return Err(Error::usage("an OVA cannot be written in one go"));
    }
    let capacities: Vec<_> = disks.iter().map(|disk| disk.virtual_size()).collect();
    let mut assembly = Assembly::new(&capacities, options)?;
    for disk in disks {
        let target = create(&assembly.disk_options(), disk.virtual_size())?;
        let file = StreamSink::new(File {
            sink,
            at: assembly.next(),
            hasher: Sha256::new(),
        });
        let len = copy(*disk, target, &file, copying, progress)?.file_size;
        let digest = file.into_inner().hasher.finalize();
        assembly.add(disk.virtual_size(), len, &digest.into())?;
    }
    let (pieces, summary) = assembly.finish()?;
    sink.set_len(summary.file_size)?;
    for (at, bytes) in pieces {
        sink.write_all_at(&bytes, at)?;
    }
    Ok(summary)
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
