//! A zip archive used as a wrapper around one file.
//!
//! ```text
//!  local header │ name, extra │ data … │ central directory │ zip64 end, locator │ end │ comment
//!  └──── offset ◄──────────────────────┘◄── offset, size ─────────────────────────┘
//! ```
//! APPNOTE 6.3.10, sections 4.3 and 4.5.3. Read from the end, strictly: folders may stand beside
//! the one file, nothing may stand before the archive or behind it. Programs that stream zip
//! archives believe the local header, others the central directory: both must agree, and every
//! byte before the directory must belong to one of its entries.

use std::io::{self, Read};
use std::sync::Arc;

use super::parts::Input;
use super::stream::{bzip2, zstd};
use crate::bytes::{le16, le32, le64};
use crate::source::read_up_to;
use crate::{Error, ErrorKind, HostOffset, Result, Slice, Source};

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR64_LEN: usize = 20;

/// The largest central directory read: one file and a few hundred folders.
const MAX_DIRECTORY: u64 = 64 << 10;
/// General purpose flag: sizes and checksum follow the data.
const SIZES_FOLLOW: u16 = 1 << 3;
/// General purpose flags that mean encryption of some kind.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

fn malformed(message: impl Into<String>) -> Error {
    Error::stream(ErrorKind::Malformed, "zip directory", message)
}

/// The one file of an archive.
#[derive(Clone, Debug)]
pub(super) struct File {
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    header_at: u64,
    data_at: u64,
}

/// Finds the one file of the archive in `source`.
pub(super) fn find(source: &Arc<dyn Source>) -> Result<File> {
    let directory = Directory::find(source.as_ref())?;
    let len = usize::try_from(directory.len).map_err(|_| malformed("is beyond memory"))?;
    let bytes = read_up_to(source.as_ref(), HostOffset(directory.at), len)?;
    let (mut files, mut entries) = (Vec::new(), Vec::new());
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (name, file, len) = parse_entry(rest).ok_or_else(|| malformed("has a bad entry"))?;
        rest = rest.get(len..).unwrap_or(&[]);
        let is_folder = name.ends_with(b"/") && file.size == 0;
        if !is_folder && !is_litter(name) {
            files.push(entries.len());
        }
        entries.push(file);
    }
    let &[one] = files.as_slice() else {
        return Err(Error::stream(
            ErrorKind::Refused,
            "zip archive",
            format!("holds {} files, where one image is expected", files.len()),
        ));
    };
    for entry in &mut entries {
        entry.check_local_header(source.as_ref(), directory.at)?;
    }
    let file = entries[one].clone();
    check_gapless(entries, directory.at)?;
    Ok(file)
}

/// What macOS adds to an archive: attributes of files, and how a folder was looked at.
fn is_litter(name: &[u8]) -> bool {
    name.starts_with(b"__MACOSX/") || name == b".DS_Store" || name.ends_with(b"/.DS_Store")
}

/// Bytes that may stand behind an entry: a data descriptor of zip64 with its signature.
const MAX_DESCRIPTOR: u64 = 24;

/// Checks that the entries lie one after the other from the first byte on: what none of them
/// holds another program might take for the file.
fn check_gapless(mut entries: Vec<File>, directory_at: u64) -> Result<()> {
    entries.sort_by_key(|entry| entry.header_at);
    let starts = entries.iter().map(|entry| entry.header_at);
    let ends = entries.iter().map(|entry| entry.data_at + entry.compressed);
    let mut room = 0;
    for (end, start) in std::iter::once(0)
        .chain(ends)
        .zip(starts.chain([directory_at]))
    {
        if !(end..=end + room).contains(&start) {
            return Err(malformed(format!(
                "has no entry for the bytes from {end:#x} to {start:#x}, or two"
            )));
        }
        room = MAX_DESCRIPTOR;
    }
    Ok(())
}

/// Where the central directory lies.
struct Directory {
    at: u64,
    len: u64,
}

impl Directory {
    fn find(source: &dyn Source) -> Result<Self> {
        let tail_at = source
            .len()
            .saturating_sub((END_LEN + LOCATOR64_LEN) as u64 + u64::from(u16::MAX));
        let tail = read_up_to(source, HostOffset(tail_at), usize::MAX)?;
        // The end record is the one whose comment ends with the file.
        let end = (0..=tail.len().saturating_sub(END_LEN))
            .rev()
            .find(|&at| {
                le32(&tail, at) == Some(END)
                    && le16(&tail, at + 20)
                        .is_some_and(|comment| at + END_LEN + usize::from(comment) == tail.len())
            })
            .ok_or_else(|| malformed("has no end record: the archive is cut off or is none"))?;
        let field = || Some((le32(&tail, end + 12)?, le32(&tail, end + 16)?));
        let (len, at) = field().ok_or_else(|| malformed("has a short end record"))?;
        let mut ends_at = tail_at + end as u64;
        let mut directory = Self {
            at: u64::from(at),
            len: u64::from(len),
        };
        let locator = end.checked_sub(LOCATOR64_LEN);
        if let Some(locator) = locator.filter(|&at| le32(&tail, at) == Some(LOCATOR64)) {
            ends_at = le64(&tail, locator + 8).unwrap_or(u64::MAX);
            directory = Self::parse64(source, ends_at, tail_at + locator as u64)?;
        }
        if directory.at.checked_add(directory.len) != Some(ends_at) {
            return Err(malformed(format!(
                "of {} bytes at byte {:#x} does not end where its end record begins, at byte {ends_at:#x}",
                directory.len, directory.at
            )));
        }
        if directory.len > MAX_DIRECTORY {
            return Err(Error::stream(
                ErrorKind::Refused,
                "zip directory",
                format!(
                    "is {} bytes, allowed {MAX_DIRECTORY} for an archive of one image",
                    directory.len
                ),
            ));
        }
        Ok(directory)
    }

    /// Reads the zip64 end record at `at`, which must end at `locator`.
    fn parse64(source: &dyn Source, at: u64, locator: u64) -> Result<Self> {
        let bytes = match at.checked_add(END64_LEN as u64) {
            Some(end) if end <= locator => read_up_to(source, HostOffset(at), END64_LEN)?,
            _ => return Err(malformed("has a zip64 end record out of place")),
        };
        if le32(&bytes, 0) != Some(END64) {
            return Err(malformed(
                "has no zip64 end record where its locator points",
            ));
        }
        let field = || Some((le64(&bytes, 40)?, le64(&bytes, 48)?));
        let (len, at) = field().ok_or_else(|| malformed("has a short zip64 end record"))?;
        Ok(Self { at, len })
    }
}

/// Parses the central directory entry at the front of `bytes`: its name, file, and length.
fn parse_entry(bytes: &[u8]) -> Option<(&[u8], File, usize)> {
    if le32(bytes, 0)? != CENTRAL {
        return None;
    }
    let name_len = usize::from(le16(bytes, 28)?);
    let extra_len = usize::from(le16(bytes, 30)?);
    let comment_len = usize::from(le16(bytes, 32)?);
    let name = bytes.get(CENTRAL_LEN..)?.get(..name_len)?;
    let extra = bytes.get(CENTRAL_LEN + name_len..)?.get(..extra_len)?;
    let len = CENTRAL_LEN + name_len + extra_len + comment_len;
    bytes.get(..len)?;
    let mut file = File {
        method: if le16(bytes, 8)? & ENCRYPTED == 0 {
            le16(bytes, 10)?
        } else {
            File::ENCRYPTED
        },
        crc: le32(bytes, 16)?,
        compressed: u64::from(le32(bytes, 20)?),
        size: u64::from(le32(bytes, 24)?),
        header_at: u64::from(le32(bytes, 42)?),
        data_at: 0,
    };
    file.take_zip64(extra)?;
    Some((name, file, len))
}

impl File {
    /// Stands for the method of an encrypted file.
    const ENCRYPTED: u16 = u16::MAX;

    /// Replaces the fields that did not fit into 32 bits by those of the zip64 extra field.
    fn take_zip64(&mut self, mut extra: &[u8]) -> Option<()> {
        let too_large = u64::from(u32::MAX);
        let wide = [&mut self.size, &mut self.compressed, &mut self.header_at];
        let mut wide = wide.into_iter().filter(|v| **v == too_large).peekable();
        while wide.peek().is_some() && !extra.is_empty() {
            let (id, len) = (le16(extra, 0)?, usize::from(le16(extra, 2)?));
            let field = extra.get(4..4 + len)?;
            if id == 1 {
                for (n, value) in wide.by_ref().enumerate() {
                    *value = le64(field, n * 8)?;
                }
            }
            extra = extra.get(4 + len..)?;
        }
        Some(())
    }

    /// Finds the data behind the local header, which must tell the same story.
    fn check_local_header(&mut self, source: &dyn Source, directory_at: u64) -> Result<()> {
        let place = "zip local header";
        let bad = |message: String| Error::stream(ErrorKind::Malformed, place, message);
        let header = if self.header_at < directory_at {
            read_up_to(source, HostOffset(self.header_at), LOCAL_LEN)?
        } else {
            Vec::new()
        };
        let fields = || {
            (le32(&header, 0)? == LOCAL).then_some(())?;
            let lens = [le16(&header, 26)?, le16(&header, 28)?].map(usize::from);
            let local = Self {
                method: le16(&header, 8)?,
                compressed: u64::from(le32(&header, 18)?),
                size: u64::from(le32(&header, 22)?),
                header_at: 0,
                ..*self
            };
            Some((local, lens, le16(&header, 6)? & SIZES_FOLLOW == 0))
        };
        let (mut local, [name_len, extra_len], has_sizes) =
            fields().ok_or_else(|| bad(format!("is missing at byte {:#x}", self.header_at)))?;
        if self.method == Self::ENCRYPTED {
            return Err(Error::stream(
                ErrorKind::Refused,
                place,
                "the file is encrypted",
            ));
        }
        if local.method != self.method {
            return Err(bad(format!(
                "says method {}, the directory {}",
                local.method, self.method
            )));
        }
        let extra_at = self.header_at + (LOCAL_LEN + name_len) as u64;
        if has_sizes {
            let extra = read_up_to(source, HostOffset(extra_at), extra_len)?;
            local
                .take_zip64(&extra)
                .ok_or_else(|| bad("has a bad zip64 field".into()))?;
            if (local.compressed, local.size) != (self.compressed, self.size) {
                return Err(bad(format!(
                    "says {} bytes that become {}, the directory {} that become {}",
                    local.compressed, local.size, self.compressed, self.size
                )));
            }
        }
        self.data_at = extra_at + extra_len as u64;
        match self.data_at.checked_add(self.compressed) {
            Some(end) if end <= directory_at => Ok(()),
            _ => Err(bad(format!(
                "its {} bytes from byte {:#x} reach into the directory at byte {directory_at:#x}",
                self.compressed, self.data_at
            ))),
        }
    }

    /// Bytes of the file, as the directory says.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The compressed bytes.
    pub(super) fn body(&self, source: Arc<dyn Source>) -> Result<Slice> {
        Slice::new(source, HostOffset(self.data_at), self.compressed)
    }

    /// What `body` holds, checked against the directory's size and CRC-32 at its end.
    pub(super) fn inflate(&self, body: Input) -> Result<Box<dyn Read + Send>> {
        let inner: Box<dyn Read + Send> = match self.method {
            0 => Box::new(body),
            8 => Box::new(flate2::bufread::DeflateDecoder::new(body)),
            12 => bzip2(body),
            93 => zstd(body)?,
            method => {
                let name = match method {
                    9 => " (deflate64)",
                    14 => " (LZMA)",
                    95 => " (xz)",
                    98 => " (PPMd)",
                    _ => "",
                };
                return Err(Error::stream(
                    ErrorKind::Unsupported,
                    "zip local header",
                    format!(
                        "method is {method}{name}, known are 0 (stored), 8 (deflate), 12 (bzip2) and 93 (zstd)"
                    ),
                ));
            }
        };
        Ok(Box::new(Checked {
            inner,
            crc: crc32fast::Hasher::new(),
            left: self.size,
            expected: self.crc,
        }))
    }
}

/// Compares size and checksum when the end is reached.
struct Checked {
    inner: Box<dyn Read + Send>,
    crc: crc32fast::Hasher,
    left: u64,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bad = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let n = self.inner.read(buf)?;
        if n == 0 && !buf.is_empty() {
            if self.left > 0 {
                return Err(bad("it is shorter than the directory says"));
            }
            if self.crc.clone().finalize() != self.expected {
                return Err(bad("its CRC-32 is not that of the directory"));
            }
        }
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| bad("it is longer than the directory says"))?;
        self.crc.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use ::zip::CompressionMethod;
    use ::zip::write::SimpleFileOptions;

    use super::super::stream::Compression;
    use super::*;

    /// An archive by the zip crate; names that end with a slash are folders.
    fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in files {
            if name.ends_with('/') {
                writer.add_directory(*name, options).unwrap();
            } else {
                writer.start_file(*name, options).unwrap();
                writer.write_all(bytes).unwrap();
            }
        }
        writer.finish().unwrap().into_inner()
    }

    fn inflate(file: Vec<u8>) -> Result<Vec<u8>> {
        let mut reader = Compression::Zip.reader(Arc::new(file))?;
        let mut all = vec![0; 1 << 20];
        let n = reader.read(&mut all)?;
        assert_eq!(reader.read(&mut [0])?, 0);
        all.truncate(n);
        Ok(all)
    }

    const ONE: &[(&str, &[u8])] = &[("images/", b""), ("images/disk.img", &[7; 5000])];

    #[test]
    fn reads_the_one_file() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            assert_eq!(inflate(archive(ONE, method)).unwrap(), [7; 5000]);
        }
    }

    #[test]
    fn reads_zip64() {
        let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().large_file(true);
        writer.start_file("disk.img", options).unwrap();
        writer.write_all(b"large in name only").unwrap();
        let file = writer.finish().unwrap().into_inner();
        assert_eq!(inflate(file).unwrap(), b"large in name only");
    }

    #[test]
    fn refuses_several_files_and_none() {
        let two = archive(&[("a", b"1"), ("b", b"2")], CompressionMethod::Stored);
        assert_eq!(inflate(two).unwrap_err().kind(), ErrorKind::Refused);
        let none = archive(&[("a/", b"")], CompressionMethod::Stored);
        assert_eq!(inflate(none).unwrap_err().kind(), ErrorKind::Refused);
    }

    #[test]
    fn refuses_archives_cut_off_or_continued() {
        let file = archive(ONE, CompressionMethod::Deflated);
        for keep in 0..file.len() {
            assert!(inflate(file[..keep].to_vec()).is_err(), "{keep}");
        }
        assert!(inflate([file.as_slice(), b"more"].concat()).is_err());
        assert!(inflate([b"before", file.as_slice()].concat()).is_err());
    }

    /// A program that streams the archive would unpack what stands first.
    #[test]
    fn refuses_a_file_that_the_directory_does_not_know() {
        let [hidden, known] = [&[("a", &b"hidden"[..])][..], ONE]
            .map(|files| archive(files, CompressionMethod::Stored));
        let directory_at = |file: &[u8]| le32(file, file.len() - 6).unwrap() as usize;
        let before = &hidden[..directory_at(&hidden)];
        let mut file = [before, &known].concat();
        let at = before.len() + directory_at(&known);
        let end = file.len() - END_LEN;
        // The folder's entry and the file's.
        for field in [end + 16, at + 42, at + CENTRAL_LEN + 7 + 42] {
            let moved = le32(&file, field).unwrap() + before.len() as u32;
            file[field..field + 4].copy_from_slice(&moved.to_le_bytes());
        }
        let e = inflate(file).unwrap_err();
        assert!(e.message().contains("no entry for the bytes"), "{e}");
    }

    #[test]
    fn refuses_sizes_that_differ_between_headers() {
        for field in [18, 22] {
            let mut file = archive(&ONE[1..], CompressionMethod::Stored);
            file[field] ^= 1;
            let e = inflate(file).unwrap_err();
            assert!(e.message().contains("the directory"), "{e}");
        }
    }

    /// Also where they stand in the field for large files, which a program that streams believes.
    #[test]
    fn refuses_large_sizes_that_differ_between_headers() {
        let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(true);
        writer.start_file("a", options).unwrap();
        writer.write_all(&[7; 100]).unwrap();
        let file = writer.finish().unwrap().into_inner();
        assert_eq!(inflate(file.clone()).unwrap(), [7; 100]);
        // Behind the name and the head of the field: both sizes.
        for field in [LOCAL_LEN + 1 + 4, LOCAL_LEN + 1 + 4 + 8] {
            let mut file = file.clone();
            assert_eq!(le64(&file, field), Some(100));
            file[field] = 4;
            let e = inflate(file).unwrap_err();
            assert!(e.message().contains("the directory"), "{e}");
        }
    }

    #[test]
    fn never_gives_other_bytes_for_a_flipped_bit() {
        let file = archive(ONE, CompressionMethod::Deflated);
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            if let Ok(bytes) = inflate(file) {
                assert_eq!(bytes, [7; 5000], "{bit}");
            }
        }
    }
}
