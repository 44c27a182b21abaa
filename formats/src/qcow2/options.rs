//! Options of the writer, in qemu-img's words.

use super::layout::Compression;
use crate::codec::{deflate, zstd};
use crate::{Error, Result};

/// How to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_size: u64,
    /// What compressed clusters are compressed with.
    pub compression_type: Compression,
    /// Whether to compress at all.
    pub compress: bool,
    /// The compression's own scale, 1 the fastest; its default where `None`.
    pub compression_level: Option<u8>,
}

impl Default for WriteOptions {
    /// Clusters of 64 KiB, not compressed.
    fn default() -> Self {
        Self {
            cluster_size: 64 << 10,
            compression_type: Compression::Zlib,
            compress: false,
            compression_level: None,
        }
    }
}

const SIZES: std::ops::RangeInclusive<u64> = 512..=2 << 20;

impl WriteOptions {
    /// From `key=value` pairs: `cluster_size` (bytes, or with `k`, `M`), `compression_type`
    /// (`zlib`, `zstd`), `compression_level`.
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
                        "qcow2 has no option {key:?}: there are cluster_size, compression_type \
                         and compression_level"
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
            (&[("lazy_refcounts", "on")][..], false),
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
