//! Options of the writer, in qemu-img's words.

use super::crypt::Encryption;
use super::layout::Compression;
use crate::codec::{deflate, zstd};
use crate::{Error, Result};

/// The version of the format, which qemu calls its compatibility level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    /// Version 2, `compat=0.10`: what programs before 2012 read.
    V2,
    /// Version 3, `compat=1.1`.
    #[default]
    V3,
}

/// What of the file is there before a guest writes to it. The guest's bytes are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Clusters that hold nothing but zeros are not stored.
    #[default]
    Off,
    /// Every cluster has its place and all tables are written, so that a guest's writes change
    /// none of them; places without data are holes of the file.
    Metadata,
    /// The same, and the file system is asked to reserve the room, where it can.
    Falloc,
    /// The same, and zeros are written to all places without data: the room is there, and the
    /// file system has no more to do on a guest's first write. Takes as long as it takes to
    /// write the whole virtual size.
    Full,
}

/// How to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// The format's version.
    pub compat: Version,
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_size: u64,
    /// What compressed clusters are compressed with.
    pub compression_type: Compression,
    /// Whether to compress at all.
    pub compress: bool,
    /// The compression's own scale, 1 the fastest; its default where `None`.
    pub compression_level: Option<u8>,
    /// L2 entries with a state for each 32nd of a cluster; version 3, clusters of 16 KiB or more.
    pub extended_l2: bool,
    /// Bits of a refcount: a power of two, 1 to 64; other than 16 in version 3 only.
    pub refcount_bits: u32,
    /// What is stored although it is zero.
    pub preallocation: Preallocation,
    /// Tells later writers that refcounts may lag behind in an open image; version 3 only.
    pub lazy_refcounts: bool,
    /// What to encrypt with; not with compression or preallocation.
    pub encryption: Option<Encryption>,
}

impl Default for WriteOptions {
    /// Version 3, clusters of 64 KiB, refcounts of 16 bits, not compressed.
    fn default() -> Self {
        Self {
            compat: Version::V3,
            cluster_size: 64 << 10,
            compression_type: Compression::Zlib,
            compress: false,
            compression_level: None,
            extended_l2: false,
            refcount_bits: 16,
            preallocation: Preallocation::Off,
            lazy_refcounts: false,
            encryption: None,
        }
    }
}

const SIZES: std::ops::RangeInclusive<u64> = 512..=2 << 20;
/// Smallest cluster that is divided into subclusters.
const LEAST_EXTENDED: u64 = 16 << 10;

impl WriteOptions {
    /// From `key=value` pairs: `compat` (`0.10`, `v2`, `1.1`, `v3`), `cluster_size` (bytes, or
    /// with `k`, `M`), `compression_type` (`zlib`, `zstd`), `compression_level`, `extended_l2`
    /// (`on`, `off`), `refcount_bits`, `preallocation` (`off`, `metadata`, `falloc`, `full`),
    /// `lazy_refcounts` (`on`, `off`).
    ///
    /// # Errors
    /// `Usage` for an unknown key or a value out of range.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let mut options = Self {
            compress,
            ..Self::default()
        };
        for (key, value) in pairs {
            match key.as_str() {
                "compat" => {
                    options.compat = match value.as_str() {
                        "0.10" | "v2" => Version::V2,
                        "1.1" | "v3" => Version::V3,
                        _ => return Err(bad(key, value, "0.10 (v2) or 1.1 (v3)")),
                    }
                }
                "extended_l2" => options.extended_l2 = switch(key, value)?,
                "lazy_refcounts" => options.lazy_refcounts = switch(key, value)?,
                "refcount_bits" => {
                    options.refcount_bits = value.parse().map_err(|_| bad_bits(value))?;
                }
                "preallocation" => {
                    options.preallocation = match value.as_str() {
                        "off" => Preallocation::Off,
                        "metadata" => Preallocation::Metadata,
                        "falloc" => Preallocation::Falloc,
                        "full" => Preallocation::Full,
                        _ => return Err(bad(key, value, "off, metadata, falloc or full")),
                    }
                }
                "cluster_size" => options.cluster_size = cluster_size(value)?,
                "compression_type" => {
                    options.compression_type = match value.as_str() {
                        "zlib" => Compression::Zlib,
                        "zstd" => Compression::Zstd,
                        _ => return Err(bad(key, value, "zlib or zstd")),
                    }
                }
                "compression_level" => {
                    let level = value.parse().map_err(|_| bad(key, value, "a number"))?;
                    options.compression_level = Some(level);
                }
                _ => {
                    return Err(Error::usage(format!(
                        "qcow2 has no option {key:?}: there are compat, cluster_size, \
                         compression_type, compression_level, extended_l2, refcount_bits, \
                         preallocation and lazy_refcounts"
                    )));
                }
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// `Usage`.
    pub(super) fn check(&self) -> Result<()> {
        if !self.cluster_size.is_power_of_two() || !SIZES.contains(&self.cluster_size) {
            let given = self.cluster_size.to_string();
            return Err(bad("cluster_size", &given, "a power of two from 512 to 2M"));
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return Err(bad_bits(&self.refcount_bits.to_string()));
        }
        if self.extended_l2 && self.cluster_size < LEAST_EXTENDED {
            return Err(Error::usage(format!(
                "qcow2 option extended_l2 wants a cluster_size of 16k or more, not {}",
                self.cluster_size
            )));
        }
        if self.compat == Version::V2 {
            for (is_wanted, what) in [
                (self.extended_l2, "extended_l2=on"),
                (self.lazy_refcounts, "lazy_refcounts=on"),
                (
                    self.refcount_bits != 16,
                    "a value of refcount_bits other than 16",
                ),
                (
                    self.compression_type != Compression::Zlib,
                    "compression_type=zstd",
                ),
            ] {
                if is_wanted {
                    return Err(Error::usage(format!("qcow2 has {what} in compat=1.1 only")));
                }
            }
        }
        if self.compress && self.preallocation != Preallocation::Off {
            return Err(Error::usage(
                "what is compressed has no place of its own to preallocate",
            ));
        }
        if self.encryption.is_some() && self.compress {
            return Err(Error::usage(
                "what is encrypted cannot be compressed in a qcow2 image",
            ));
        }
        if self.encryption.is_some() && self.preallocation != Preallocation::Off {
            return Err(Error::usage(
                "places without data would decrypt to noise: encryption goes without \
                 preallocation",
            ));
        }
        self.check_level()
    }

    fn check_level(&self) -> Result<()> {
        let Some(level) = self.compression_level else {
            return Ok(());
        };
        if !self.compress {
            return Err(Error::usage(
                "compression_level does nothing without compressing",
            ));
        }
        let levels = match self.compression_type {
            Compression::Zlib => deflate::LEVELS,
            Compression::Zstd => zstd::LEVELS,
        };
        if !levels.contains(&level) {
            let allowed = format!("{} to {}", levels.start(), levels.end());
            return Err(bad("compression_level", &level.to_string(), &allowed));
        }
        Ok(())
    }
}

fn cluster_size(value: &str) -> Result<u64> {
    let (digits, shift) = match value.as_bytes().last() {
        Some(b'k' | b'K') => (&value[..value.len() - 1], 10),
        Some(b'm' | b'M') => (&value[..value.len() - 1], 20),
        _ => (value, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| bad("cluster_size", value, "a power of two from 512 to 2M"))
}

fn switch(key: &str, value: &str) -> Result<bool> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(bad(key, value, "on or off")),
    }
}

fn bad_bits(value: &str) -> Error {
    bad("refcount_bits", value, "a power of two from 1 to 64")
}

fn bad(key: &str, value: &str, allowed: &str) -> Error {
    Error::usage(format!(
        "qcow2 option {key} is {value:?}, allowed {allowed}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)], compress: bool) -> Result<WriteOptions> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        WriteOptions::parse(&pairs, compress)
    }

    #[test]
    fn reads_qemu_words() {
        let options = parse(
            &[
                ("cluster_size", "2M"),
                ("compression_type", "zstd"),
                ("compression_level", "19"),
            ],
            true,
        )
        .unwrap();
        assert_eq!(options.cluster_size, 2 << 20);
        assert_eq!(options.compression_type, Compression::Zstd);
        assert_eq!(options.compression_level, Some(19));
        assert_eq!(
            parse(&[("cluster_size", "4k")], false)
                .unwrap()
                .cluster_size,
            4096
        );
        assert_eq!(parse(&[], false).unwrap(), WriteOptions::default());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (pairs, compress) in [
            (&[("lazy_refcount", "on")][..], false),
            (&[("lazy_refcounts", "yes")], false),
            (&[("compat", "1.0")], false),
            (&[("refcount_bits", "128")], false),
            (&[("refcount_bits", "24")], false),
            (&[("refcount_bits", "0")], false),
            (&[("preallocation", "all")], false),
            (&[("preallocation", "full")], true),
            (&[("extended_l2", "on"), ("cluster_size", "8k")], false),
            (&[("extended_l2", "on"), ("compat", "v2")], false),
            (&[("lazy_refcounts", "on"), ("compat", "v2")], false),
            (&[("refcount_bits", "8"), ("compat", "0.10")], false),
            (&[("compression_type", "zstd"), ("compat", "0.10")], true),
            (&[("cluster_size", "256")], false),
            (&[("cluster_size", "3k")], false),
            (&[("cluster_size", "4M")], false),
            (&[("cluster_size", "")], false),
            (&[("cluster_size", "99999999999999999999M")], false),
            (&[("compression_type", "lzma")], true),
            (&[("compression_level", "3")], false),
            (&[("compression_level", "13")], true),
            (&[("compression_level", "0")], true),
        ] {
            let e = parse(pairs, compress).unwrap_err();
            assert_eq!(e.kind(), crate::ErrorKind::Usage, "{e}");
        }
    }
}
