//! Options of the writer, and the descriptor that follows from them.

use std::fmt;

use crate::codec::deflate;
use crate::{Error, Result};

/// Room for the descriptor; what every writer uses.
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The specification's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            fn parse(key: &str, value: &str) -> Result<Self> {
                const ALL: &[$name] = &[$($name::$variant,)*];
                ALL.iter().copied().find(|v| v.name() == value).ok_or_else(|| {
                    let names: Vec<_> = ALL.iter().map(|v| v.name()).collect();
                    Error::usage(format!(
                        "vmdk option {key} is {value:?}, allowed {}", names.join(", ")
                    ))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

names! {
    /// What is written.
    Subformat {
        /// Grains as they are, for running machines.
        #[default]
        MonolithicSparse = "monolithicSparse",
        /// Compressed grains in one pass, for transport.
        StreamOptimized = "streamOptimized",
    }
}

names! {
    /// The controller the disk is meant for.
    AdapterType {
        /// IDE.
        #[default]
        Ide = "ide",
        /// BusLogic SCSI.
        BusLogic = "buslogic",
        /// LSI Logic SCSI.
        LsiLogic = "lsilogic",
        /// The SCSI of ESX 2.
        LegacyEsx = "legacyESX",
    }
}

/// How to write a vmdk. The same options and the same disk give the same bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// What is written.
    pub subformat: Subformat,
    /// `ddb.adapterType`.
    pub adapter_type: AdapterType,
    /// `ddb.virtualHWVersion`.
    pub hardware_version: u32,
    /// Content id. Tells delta links whether their parent has changed; means nothing without.
    pub cid: u32,
    /// zlib level of streamOptimized grains, 1 (fastest) to 12 (densest).
    pub compression_level: u8,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            subformat: Subformat::default(),
            adapter_type: AdapterType::default(),
            hardware_version: 4,
            cid: 0x676c_696e,
            compression_level: 6,
        }
    }
}

impl WriteOptions {
    /// From `key=value` pairs: `subformat`, `adapter_type` and `hwversion` as in qemu-img,
    /// `compression_level`, and `cid` in hexadecimal. `compress` asks for streamOptimized.
    ///
    /// # Errors
    /// `Usage` for unknown keys, bad values, or `compress` with another subformat.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let mut options = Self::default();
        let mut subformat = None;
        for (key, value) in pairs {
            let bad = |allowed: &str| {
                Error::usage(format!("vmdk option {key} is {value:?}, allowed {allowed}"))
            };
            match key.as_str() {
                "subformat" => subformat = Some(Subformat::parse(key, value)?),
                "adapter_type" => options.adapter_type = AdapterType::parse(key, value)?,
                "hwversion" => {
                    options.hardware_version = value.parse().map_err(|_| bad("a number"))?;
                }
                "cid" => {
                    options.cid = u32::from_str_radix(value, 16)
                        .ok()
                        .filter(|&cid| cid != u32::MAX)
                        .ok_or_else(|| bad("0 to fffffffe, hexadecimal"))?;
                }
                "compression_level" => {
                    options.compression_level = value
                        .parse()
                        .ok()
                        .filter(|level| deflate::LEVELS.contains(level))
                        .ok_or_else(|| bad("1 to 12"))?;
                }
                _ => return Err(Error::usage(format!("vmdk has no option {key:?}"))),
            }
        }
        options.subformat = match (subformat, compress) {
            (Some(Subformat::MonolithicSparse), true) => {
                return Err(Error::usage("monolithicSparse cannot be compressed"));
            }
            (Some(subformat), _) => subformat,
            (None, true) => Subformat::StreamOptimized,
            (None, false) => Subformat::default(),
        };
        Ok(options)
    }

    /// The descriptor of a disk of `sectors`.
    pub(super) fn descriptor(&self, sectors: u64) -> String {
        let (access, file) = match self.subformat {
            Subformat::MonolithicSparse => ("RW", "disk.vmdk"),
            Subformat::StreamOptimized => ("RDONLY", "generated-stream.vmdk"),
        };
        let heads = match self.adapter_type {
            AdapterType::Ide => 16,
            _ => 255,
        };
        let cylinders = sectors / (heads * 63);
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\n\
             createType=\"{}\"\n\n\
             # Extent description\n{access} {sectors} SPARSE \"{file}\"\n\n\
             # The Disk Data Base\n#DDB\n\n\
             ddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"63\"\n\
             ddb.adapterType = \"{}\"\n",
            self.cid, self.subformat, self.hardware_version, self.adapter_type
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::SECTOR;
    use super::*;
    use crate::vmdk::descriptor::Descriptor;

    fn parse(pairs: &[(&str, &str)], compress: bool) -> Result<WriteOptions> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        WriteOptions::parse(&pairs, compress)
    }

    #[test]
    fn options_are_read_in_the_words_of_qemu_img() {
        let options = parse(
            &[
                ("adapter_type", "lsilogic"),
                ("subformat", "streamOptimized"),
                ("cid", "00c0ffee"),
                ("compression_level", "1"),
                ("hwversion", "13"),
            ],
            false,
        )
        .unwrap();
        assert_eq!(options.adapter_type, AdapterType::LsiLogic);
        assert_eq!(options.subformat, Subformat::StreamOptimized);
        assert_eq!((options.cid, options.compression_level), (0xc0_ffee, 1));
        assert_eq!(options.hardware_version, 13);
        let compressed = parse(&[], true).unwrap();
        assert_eq!(compressed.subformat, Subformat::StreamOptimized);
        for bad in [
            ("adapter_type", "floppy"),
            ("subformat", "monolithicFlat"),
            ("cid", "ffffffff"),
            ("compression_level", "0"),
            ("size", "1"),
        ] {
            let error = parse(&[bad], false).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
        }
        assert!(parse(&[("subformat", "monolithicSparse")], true).is_err());
    }

    #[test]
    fn the_descriptor_is_one_we_accept_and_fits_its_sectors() {
        for subformat in [Subformat::MonolithicSparse, Subformat::StreamOptimized] {
            let options = WriteOptions {
                subformat,
                ..WriteOptions::default()
            };
            let text = options.descriptor(u64::MAX / SECTOR);
            assert!((text.len() as u64) < DESCRIPTOR_SECTORS * SECTOR);
            let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
            assert_eq!(descriptor.create_type.name, subformat.name());
            assert_eq!(descriptor.parent(), None);
        }
    }
}
