//! The closed set of formats, and opening and creating by it. Exhaustive matches, no registry:
//! the compiler leads whoever adds a format to every place that must know.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::copy::Target;
use crate::resolve::{Alone, Resolver};
use crate::{Disk, Error, Limits, Passphrase, Result, Source, inspect};
use crate::{bochs, dmg, luks, parallels, qcow1, qcow2, qed, raw, vdi, vhd, vhdx, vmdk};

macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A format this crate knows by name. Being named says nothing of being readable: see
        /// the table in the crate's documentation.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Format { $($(#[$doc])* $variant,)* }

        impl Format {
            /// Every format, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used on the wire and the command line (Glance's, where it has one).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

formats! {
    /// Bytes as the guest sees them.
    Raw = "raw",
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2 = "qcow2",
    /// QEMU copy-on-write, version 1.
    Qcow1 = "qcow",
    /// QEMU enhanced disk.
    Qed = "qed",
    /// Virtual PC and Hyper-V, first generation (`vpc` to qemu-img).
    Vhd = "vhd",
    /// Hyper-V, second generation.
    Vhdx = "vhdx",
    /// VMware.
    Vmdk = "vmdk",
    /// VirtualBox.
    Vdi = "vdi",
    /// Parallels expanding disk, and the images of ploop, which are the same.
    Parallels = "parallels",
    /// Apple disk image (UDIF).
    Dmg = "dmg",
    /// Apple sparse disk image.
    SparseImage = "sparseimage",
    /// Bochs growing disk.
    Bochs = "bochs",
    /// Compressed loop device.
    Cloop = "cloop",
    /// Expert Witness: forensic images in segments.
    Ewf = "ewf",
    /// Android sparse image: chunks, as fastboot takes them.
    AndroidSparse = "android-sparse",
    /// Windows imaging: an archive of files, not a disk.
    Wim = "wim",
    /// Advanced Forensic Format.
    Aff = "aff",
    /// Compressed hunks of data, as MAME takes them.
    Chd = "chd",
    /// Compressed ISO (CISO, ZISO).
    Ciso = "ciso",
    /// Partclone: the used blocks of a file system.
    Partclone = "partclone",
    /// Proxmox backup of a machine.
    Vma = "vma",
    /// Alcohol 120%: the descriptor of a disc.
    Mds = "mds",
    /// Nero disc image.
    Nrg = "nrg",
    /// Raw sectors of a compact disc: with their synchronisation and checksums.
    RawCd = "cd-sectors",
    /// An archive of files by a format that is not read.
    Archive = "archive",
    /// A file compressed by a format that is not read.
    Compressed = "compressed",
    /// ISO 9660 and UDF.
    Iso = "iso",
    /// Partition tables. An image holding one is reported as raw.
    Gpt = "gpt",
    /// Linux unified key setup.
    Luks = "luks",
    /// A tar archive with an OVF descriptor.
    Ova = "ova",
    /// An OVF descriptor alone.
    Ovf = "ovf",
    /// A vagrant box: a tar archive of a machine's disks.
    Vagrant = "box",
    /// A container image archive.
    Docker = "docker",
    /// A tar archive with neither.
    Tar = "tar",
}

impl Format {
    /// Other names in use for the same format.
    const ALIASES: &'static [(&'static str, Self)] =
        &[("vpc", Self::Vhd), ("ploop", Self::Parallels)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .map(|f| (f.name(), *f))
            .chain(Self::ALIASES.iter().copied())
            .find_map(|(known, format)| (known == name).then_some(format))
            .ok_or_else(|| Error::usage(format!("{name:?} is no format known here")))
    }
}

impl serde::Serialize for Format {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How to open an image.
#[derive(Clone)]
pub struct OpenOptions {
    /// The format to open as; found by inspection where `None`.
    pub format: Option<Format>,
    /// Bounds on memory and sizes.
    pub limits: Limits,
    /// Who answers when the image names other files.
    pub resolver: Arc<dyn Resolver>,
    /// What opens encrypted images.
    pub passphrase: Option<Passphrase>,
    /// The internal snapshot to read instead of the present state, by name or id.
    pub snapshot: Option<String>,
    /// Images above this one in its chain.
    pub depth: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            limits: Limits::default(),
            resolver: Arc::new(Alone),
            passphrase: None,
            snapshot: None,
            depth: 0,
        }
    }
}

/// Opens the virtual disk in `source`.
///
/// # Errors
/// `Malformed`, `Unsupported` or `Refused` by the format's rules; `Usage` for containers, whose
/// members are opened one by one (see [`container`](crate::container)).
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let format = match options.format {
        Some(format) => format,
        None => inspect::inspect(source.as_ref(), &options.limits)?.format,
    };
    if let Some(name) = &options.snapshot
        && !matches!(format, Format::Qcow2 | Format::Parallels)
    {
        return Err(Error::usage(format!(
            "there is no snapshot {name:?}: {format} has none inside it"
        )));
    }
    match format {
        Format::Raw | Format::Iso | Format::Gpt => Ok(Arc::new(raw::Reader::new(source)?)),
        Format::Qcow2 => qcow2::open(source, options),
        Format::Vmdk => vmdk::open(source, options),
        Format::Vhd => vhd::open(source, options),
        Format::Vhdx => vhdx::open(source, options),
        Format::Vdi => vdi::open(source, options),
        Format::Ova | Format::Ovf | Format::Vagrant | Format::Docker | Format::Tar => Err(
            Error::usage(format!("{format} is a container: open one of its members")),
        ),
        Format::Luks => luks::open(source, options),
        Format::Qcow1 => qcow1::open(source, options),
        Format::Parallels => parallels::open(source, options),
        Format::Bochs => bochs::open(source, options),
        Format::Dmg => dmg::open(source, options),
        Format::Qed => qed::open(source, options),
        Format::SparseImage
        | Format::Cloop
        | Format::Ewf
        | Format::AndroidSparse
        | Format::Wim
        | Format::Aff
        | Format::Chd
        | Format::Ciso
        | Format::Partclone
        | Format::Vma
        | Format::Mds
        | Format::Nrg
        | Format::RawCd
        | Format::Archive
        | Format::Compressed => Err(Error::unsupported(format, "", "is recognised but not read")),
    }
}

/// What to write: one variant a writable format, each with its options.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CreateOptions {
    /// raw, sparse or with room reserved.
    Raw(raw::WriteOptions),
    /// qcow2, version 2 or 3.
    Qcow2(qcow2::WriteOptions),
    /// vmdk, in one file or several.
    Vmdk(vmdk::WriteOptions),
    /// vhd: fixed or dynamic.
    Vhd(vhd::WriteOptions),
    /// vhdx: fixed or dynamic.
    Vhdx(vhdx::WriteOptions),
    /// vdi: static or dynamic.
    Vdi(vdi::WriteOptions),
}

impl CreateOptions {
    /// Options for `format` from `key=value` pairs, in qemu-img's words where it has them;
    /// `compress` is its `-c`.
    ///
    /// # Errors
    /// `Usage` for a format that is not written, an unknown key, one given twice or a bad value.
    pub fn parse(format: Format, pairs: &[(String, String)], compress: bool) -> Result<Self> {
        for (n, (key, _)) in pairs.iter().enumerate() {
            if pairs[..n].iter().any(|(earlier, _)| earlier == key) {
                return Err(Error::usage(format!("option {key:?} is given twice")));
            }
        }
        match format {
            Format::Raw => raw::WriteOptions::parse(pairs, compress).map(Self::Raw),
            Format::Qcow2 => qcow2::WriteOptions::parse(pairs, compress).map(Self::Qcow2),
            Format::Vmdk => vmdk::WriteOptions::parse(pairs, compress).map(Self::Vmdk),
            Format::Vhd => vhd::WriteOptions::parse(pairs, compress).map(Self::Vhd),
            Format::Vhdx => vhdx::WriteOptions::parse(pairs, compress).map(Self::Vhdx),
            Format::Vdi => vdi::WriteOptions::parse(pairs, compress).map(Self::Vdi),
            _ => Err(Error::usage(format!("{format} is not written"))),
        }
    }

    /// Tells what the file will be called: an image in several files names them after itself.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        if let Self::Vmdk(options) = &mut self {
            name.clone_into(&mut options.file_name);
        }
        self
    }

    /// Whether the image will be several files; see [`Target::parts`].
    #[must_use]
    pub const fn is_split(&self) -> bool {
        matches!(self, Self::Vmdk(options) if options.subformat.is_split())
    }

    /// The format written.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self {
            Self::Raw(_) => Format::Raw,
            Self::Qcow2(_) => Format::Qcow2,
            Self::Vmdk(_) => Format::Vmdk,
            Self::Vhd(_) => Format::Vhd,
            Self::Vhdx(_) => Format::Vhdx,
            Self::Vdi(_) => Format::Vdi,
        }
    }
}

/// Starts a new image of `virtual_size` bytes; [`copy`](crate::copy::copy) fills it.
///
/// # Errors
/// `Usage` when the format cannot hold that size or the options contradict each other.
pub fn create(options: &CreateOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    match options {
        CreateOptions::Raw(options) => Ok(Box::new(raw::Writer::new(*options, virtual_size))),
        CreateOptions::Qcow2(options) => qcow2::create(options, virtual_size),
        CreateOptions::Vmdk(options) => vmdk::create(options, virtual_size),
        CreateOptions::Vhd(options) => vhd::create(options, virtual_size),
        CreateOptions::Vhdx(options) => vhdx::create(options, virtual_size),
        CreateOptions::Vdi(options) => vdi::create(options, virtual_size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().unwrap(), *format);
        }
        assert_eq!("vpc".parse::<Format>().unwrap(), Format::Vhd);
        assert_eq!("ploop".parse::<Format>().unwrap(), Format::Parallels);
        assert!("qcow3".parse::<Format>().is_err());
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let pairs = [
            pair("subformat", "fixed"),
            pair("block_size", "2M"),
            pair("subformat", "fixed"),
        ];
        let error = CreateOptions::parse(Format::Vhdx, &pairs, false).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        assert_eq!(error.to_string(), "option \"subformat\" is given twice");
    }
}
