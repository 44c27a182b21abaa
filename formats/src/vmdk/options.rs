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
        /// The disk as it is in one extent file, beside its descriptor.
        MonolithicFlat = "monolithicFlat",
        /// Grains, in extent files of 2 GiB of disk each.
        TwoGbMaxExtentSparse = "twoGbMaxExtentSparse",
        /// The disk as it is, in extent files of 2 GiB each.
        TwoGbMaxExtentFlat = "twoGbMaxExtentFlat",
    }
}

impl Subformat {
    /// Whether the disk is in files of its own beside the descriptor.
    #[must_use]
    pub const fn is_split(self) -> bool {
        !matches!(self, Self::MonolithicSparse | Self::StreamOptimized)
    }

    const fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::TwoGbMaxExtentFlat)
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
    /// `ddb.toolsVersion`: of VMware's tools in the guest; the default says that the guest
    /// looks after them itself.
    pub tools_version: u32,
    /// Whether table entries may say that a grain is zero. No grain is written so: there is no
    /// parent to hide. For programs that go on writing the image.
    pub zeroed_grain: bool,
    /// What the file will be called; the extent files of a disk in several are named after it.
    pub file_name: String,
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
            tools_version: i32::MAX as u32,
            zeroed_grain: false,
            file_name: "disk.vmdk".into(),
            cid: 0x676c_696e,
            compression_level: 6,
        }
    }
}

impl WriteOptions {
    /// From `key=value` pairs: `subformat`, `adapter_type`, `hwversion`, `compat6`,
    /// `toolsversion` and `zeroed_grain` as in qemu-img, `compression_level`, and `cid` in
    /// hexadecimal. `compress` asks for streamOptimized.
    ///
    /// # Errors
    /// `Usage` for unknown keys, bad values, and what contradicts each other.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let mut options = Self::default();
        let (mut subformat, mut hardware_version, mut compat6) = (None, None, false);
        for (key, value) in pairs {
            let bad = |allowed: &str| {
                Error::usage(format!("vmdk option {key} is {value:?}, allowed {allowed}"))
            };
            match key.as_str() {
                "subformat" => subformat = Some(Subformat::parse(key, value)?),
                "adapter_type" => options.adapter_type = AdapterType::parse(key, value)?,
                "hwversion" => {
                    hardware_version = Some(value.parse().map_err(|_| bad("a number"))?);
                }
                "compat6" => compat6 = switch(value).ok_or_else(|| bad("on and off"))?,
                "toolsversion" => {
                    options.tools_version = value.parse().map_err(|_| bad("a number"))?;
                }
                "zeroed_grain" => {
                    options.zeroed_grain = switch(value).ok_or_else(|| bad("on and off"))?;
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
            (Some(subformat), true) if subformat != Subformat::StreamOptimized => {
                return Err(Error::usage(format!("{subformat} cannot be compressed")));
            }
            (Some(subformat), _) => subformat,
            (None, true) => Subformat::StreamOptimized,
            (None, false) => Subformat::default(),
        };
        if options.zeroed_grain && options.subformat.is_flat() {
            return Err(Error::usage(format!(
                "{} has no grains for zeroed_grain",
                options.subformat
            )));
        }
        options.hardware_version = match (hardware_version, compat6) {
            (Some(_), true) => {
                return Err(Error::usage("compat6 is hwversion 6: give one of them"));
            }
            (None, true) => 6,
            (Some(version), false) => version,
            (None, false) => options.hardware_version,
        };
        Ok(options)
    }

    /// The descriptor of a disk of `sectors`, whose extents are `lines`.
    pub(super) fn descriptor(&self, sectors: u64, lines: &str) -> String {
        let heads = match self.adapter_type {
            AdapterType::Ide => 16,
            _ => 255,
        };
        let cylinders = sectors / (heads * 63);
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\n\
             createType=\"{}\"\n\n\
             # Extent description\n{lines}\n\
             # The Disk Data Base\n#DDB\n\n\
             ddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"63\"\n\
             ddb.adapterType = \"{}\"\n\
             ddb.toolsVersion = \"{}\"\n",
            self.cid, self.subformat, self.hardware_version, self.adapter_type, self.tools_version
        )
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
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
            ("subformat", "vmfs"),
            ("compat6", "yes"),
            ("toolsversion", "new"),
            ("zeroed_grain", "1"),
            ("cid", "ffffffff"),
            ("compression_level", "0"),
            ("size", "1"),
        ] {
            let error = parse(&[bad], false).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
        }
        for (bad, compress) in [
            (&[("subformat", "monolithicSparse")][..], true),
            (&[("subformat", "twoGbMaxExtentSparse")], true),
            (
                &[("subformat", "monolithicFlat"), ("zeroed_grain", "on")],
                false,
            ),
            (&[("compat6", "on"), ("hwversion", "6")], false),
        ] {
            assert!(parse(bad, compress).is_err(), "{bad:?}");
        }
        let old = parse(&[("compat6", "on"), ("toolsversion", "9")], false).unwrap();
        assert_eq!((old.hardware_version, old.tools_version), (6, 9));
    }

    #[test]
    fn the_descriptor_is_one_we_accept_and_fits_its_sectors() {
        for subformat in [Subformat::MonolithicSparse, Subformat::StreamOptimized] {
            let options = WriteOptions {
                subformat,
                hardware_version: u32::MAX,
                tools_version: u32::MAX,
                adapter_type: AdapterType::LegacyEsx,
                ..WriteOptions::default()
            };
            let line = format!(
                "RDONLY {} SPARSE \"generated-stream.vmdk\"\n",
                u64::MAX / SECTOR
            );
            let text = options.descriptor(u64::MAX / SECTOR, &line);
            assert!((text.len() as u64) < DESCRIPTOR_SECTORS * SECTOR);
            let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
            assert_eq!(descriptor.create_type.name, subformat.name());
            assert_eq!(descriptor.parent(), None);
        }
    }
}
