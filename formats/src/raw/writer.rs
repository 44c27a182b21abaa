use std::ops::Range;

use crate::bytes::is_zero;
use crate::copy::{Encode, Payload, Shape, Summary, Tables, Target};
use crate::sink::write_zeros;
use crate::{Error, HostOffset, Result, Sink, UnitIndex};

/// Bytes per unit: zeros are left out in pieces of this size, the block of common file systems.
const UNIT: u64 = 4096;

/// Room for what a guest may write later. Its bytes are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Zeros are holes of the file.
    #[default]
    Off,
    /// The file system is asked to reserve the room, where it can.
    Falloc,
    /// Zeros are written. Takes as long as it takes to write the whole virtual size.
    Full,
}

/// How to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// What is stored although it is zero.
    pub preallocation: Preallocation,
}

impl WriteOptions {
    /// From `preallocation=off|falloc|full`.
    ///
    /// # Errors
    /// `Usage` for other keys and values, and for compression, which raw does not have.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in pairs {
            options.preallocation = match (key.as_str(), value.as_str()) {
                ("preallocation", "off") => Preallocation::Off,
                ("preallocation", "falloc") => Preallocation::Falloc,
                ("preallocation", "full") => Preallocation::Full,
                ("preallocation", _) => {
                    return Err(Error::usage(format!(
                        "raw option preallocation is {value:?}, allowed off, falloc or full"
                    )));
                }
                _ => return Err(Error::usage(format!("raw has no option {key:?}"))),
            };
        }
        if compress {
            return Err(Error::usage("raw cannot be compressed"));
        }
        Ok(options)
    }
}

/// Writes a raw image.
pub struct Writer {
    options: WriteOptions,
    virtual_size: u64,
    /// Where something was written, as far as anybody needs to know.
    placed: Vec<Range<HostOffset>>,
}

impl Writer {
    /// A raw image of `virtual_size` bytes.
    #[must_use]
    pub fn new(options: WriteOptions, virtual_size: u64) -> Self {
        Self {
            options,
            virtual_size,
            placed: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.options.preallocation == Preallocation::Full
    }
}

struct Encoder {
    keeps_zeros: bool,
}

impl Encode for Encoder {
    fn encode(&mut self, _: UnitIndex, data: &[u8], _: &mut Vec<u8>) -> Result<Shape> {
        Ok(if !self.keeps_zeros && is_zero(data) {
            Shape::Zero
        } else {
            Shape::Verbatim
        })
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        UNIT
    }

    fn preamble(&self) -> Option<Vec<u8>> {
        // A pipe has no room to reserve.
        (self.options.preallocation == Preallocation::Off).then(Vec::new)
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Encoder {
            keeps_zeros: self.is_full(),
        }))
    }

    fn place(&mut self, n: UnitIndex, payload: Payload, _: &mut Tables) -> Result<HostOffset> {
        let at = HostOffset(n * UNIT);
        if self.is_full() {
            let (Payload::Verbatim(len) | Payload::Packed(len)) = payload;
            let end = HostOffset(at.0 + len);
            match self.placed.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => self.placed.push(at..end),
            }
        }
        Ok(at)
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        sink.set_len(self.virtual_size)?;
        match self.options.preallocation {
            Preallocation::Off => {}
            Preallocation::Falloc => sink.reserve(self.virtual_size)?,
            Preallocation::Full => {
                let end = HostOffset(self.virtual_size);
                let mut from = HostOffset::ZERO;
                for run in self.placed.iter().cloned().chain([end..end]) {
                    write_zeros(sink, from..run.start)?;
                    from = run.end;
                }
            }
        }
        Ok(Summary {
            file_size: self.virtual_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::FileSink;
    use crate::copy::{CopyOptions, Progress, copy};
    use crate::raw::Reader;

    #[test]
    fn room_is_there_before_it_is_used() {
        const SIZE: u64 = (3 << 20) + 512;
        let mut bytes = vec![0; SIZE as usize];
        bytes[1 << 20..(1 << 20) + 5000].fill(7);
        let disk = Reader::new(std::sync::Arc::new(bytes.clone())).unwrap();
        for (word, least) in [("off", 0), ("falloc", SIZE), ("full", SIZE)] {
            let pairs = [("preallocation".to_owned(), word.to_owned())];
            let options = WriteOptions::parse(&pairs, false).unwrap();
            let target = Box::new(Writer::new(options, SIZE));
            assert_eq!(target.preamble().is_some(), word == "off");
            let file = tempfile::NamedTempFile::new().unwrap();
            let sink = FileSink::new(file.reopen().unwrap());
            let (how, progress) = (CopyOptions::default(), Progress::default());
            copy(&disk, target, &sink, &how, &progress).unwrap();
            assert!(std::fs::read(file.path()).unwrap() == bytes, "{word}");
            let allocated = file.as_file().metadata().unwrap().blocks() * 512;
            assert!(allocated >= least, "{word}: {allocated}");
            assert!(word != "off" || allocated < SIZE, "{allocated}");
        }
    }

    #[test]
    fn other_options_are_refused() {
        let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())];
        for pairs in [pair("preallocation", "metadata"), pair("size", "1")] {
            let error = WriteOptions::parse(&pairs, false).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
        }
        assert!(WriteOptions::parse(&[], true).is_err());
    }
}
