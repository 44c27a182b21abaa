//! The descriptor: the text that names a disk's type, parent and extents.
//!
//! Its values here, its grammar in `parse`.

use super::parse;

/// Extent lines read; 4096 of 2 GiB make 8 TiB.
pub(super) const MAX_EXTENT_LINES: usize = 4096;
/// Faults listed of one descriptor; the rest adds nothing.
pub(super) const MAX_FAULTS: usize = 16;
/// Longest text shown of what a descriptor says.
const SHOWN: usize = 64;
/// Bytes read of a descriptor in a file of its own.
pub(super) const MAX_SPLIT_DESCRIPTOR: usize = super::layout::MAX_DESCRIPTOR as usize;
/// Longest name of a parent, in bytes.
pub(super) const MAX_HINT: usize = 4096;
/// `parentCID` of a disk without a parent.
pub(super) const CID_NOPARENT: u32 = u32::MAX;

/// What is wrong with a descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Stable name, as in findings.
    pub(super) rule: &'static str,
    pub(super) message: String,
}

/// A parsed descriptor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Descriptor {
    pub(super) create_type: CreateType,
    pub(super) cid: Option<u32>,
    pub(super) parent_cid: Option<u32>,
    pub(super) parent_file_name_hint: Option<String>,
    pub(super) change_track_path: Option<String>,
    pub(super) adapter_type: Option<String>,
    pub(super) hardware_version: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
}

/// One extent line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExtentLine {
    /// Line number in the text, from 1.
    pub(super) line: usize,
    pub(super) access: &'static str,
    pub(super) sectors: u64,
    pub(super) kind: ExtentType,
    /// Extent file; absent for `ZERO`.
    pub(super) name: Option<String>,
    /// Where in the extent file the extent begins (flat ones).
    pub(super) offset_sectors: u64,
}

/// Whether a type needs other files, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// All in one file.
    SelfContained,
    /// The descriptor names extent files.
    ExtentFiles,
    /// The extents are devices of the host.
    Device,
    /// No type this crate has heard of.
    Unknown,
}

macro_rules! create_types {
    ($($class:ident: $($name:literal)*;)*) => {
        /// Canonical spelling and class of the known types.
        const CREATE_TYPES: &[(&str, Class)] = &[$($(($name, Class::$class),)*)*];
    };
}

create_types! {
    SelfContained: "monolithicSparse" "streamOptimized";
    ExtentFiles: "monolithicFlat" "twoGbMaxExtentSparse" "twoGbMaxExtentFlat" "vmfs" "vmfsThin"
        "vmfsEagerZeroedThick" "vmfsPreallocated" "vmfsSparse" "seSparse" "custom";
    Device: "fullDevice" "partitionedDevice" "vmfsRaw" "vmfsRDM" "vmfsRDMP" "vmfsRawDeviceMap"
        "vmfsPassthroughRawDeviceMap";
}

/// The value of `createType`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CreateType {
    /// Canonical spelling where the type is known, else as written. Empty: the key is missing.
    pub(super) name: String,
    pub(super) class: Class,
}

impl Default for CreateType {
    fn default() -> Self {
        Self {
            name: String::new(),
            class: Class::Unknown,
        }
    }
}

impl CreateType {
    pub(super) fn parse(value: &str) -> Self {
        CREATE_TYPES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(value))
            .map_or_else(
                || Self {
                    name: shown(value),
                    class: Class::Unknown,
                },
                |(name, class)| Self {
                    name: (*name).to_owned(),
                    class: *class,
                },
            )
    }
}

macro_rules! extent_types {
    ($($variant:ident = $name:literal,)*) => {
        /// The type of an extent.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum ExtentType { $($variant,)* }

        impl ExtentType {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

extent_types! {
    Flat = "FLAT",
    Sparse = "SPARSE",
    Zero = "ZERO",
    Vmfs = "VMFS",
    VmfsSparse = "VMFSSPARSE",
    VmfsRdm = "VMFSRDM",
    VmfsRaw = "VMFSRAW",
    SeSparse = "SESPARSE",
}

/// The text up to its first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Text without the byte order mark that editors put before it.
pub(super) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Whether `head`, the first bytes of a file, look like a descriptor or like text that may turn
/// out to be one.
pub(super) fn may_be_descriptor(head: &[u8]) -> bool {
    let text = without_bom(text(head));
    !text.is_empty() && text.iter().all(|&b| is_text(b))
}

/// Whether text that [`may_be_descriptor`] is one.
pub(super) fn is_descriptor(bytes: &[u8]) -> bool {
    let text = without_bom(text(bytes)).to_ascii_lowercase();
    let first = text.trim_ascii_start();
    let comment = first.strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
    comment.is_some_and(|c| c.starts_with(b"disk descriptorfile"))
        || count(&text, b"createtype=") > 0
}

pub(super) fn is_text(b: u8) -> bool {
    matches!(b, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

impl Descriptor {
    /// Parses a descriptor whose every line is in order.
    #[cfg(test)]
    pub(super) fn parse(bytes: &[u8]) -> crate::Result<Self> {
        let (descriptor, faults) = Self::read(bytes);
        match faults.into_iter().next() {
            None => Ok(descriptor),
            Some(fault) => Err(crate::Error::usage(fault.message)),
        }
    }

    /// Reads what can be read, and lists what is wrong.
    pub(super) fn read(bytes: &[u8]) -> (Self, Vec<Fault>) {
        parse::read(text(bytes))
    }

    /// What the disk falls through to, where it is not complete in itself.
    pub(super) fn parent(&self) -> Option<String> {
        if let Some(cid) = self.parent_cid.filter(|&cid| cid != CID_NOPARENT) {
            return Some(format!(
                "parentCID is {cid:08x}: a delta link, whose holes fall through to a parent"
            ));
        }
        let hint = self.parent_file_name_hint.as_ref()?;
        Some(format!("parentFileNameHint names {:?}", shown(hint)))
    }

    /// Sum of the extents in sectors, unless it overflows.
    pub(super) fn sectors(&self) -> Option<u64> {
        self.extents
            .iter()
            .try_fold(0u64, |sum, extent| sum.checked_add(extent.sectors))
    }
}

/// Why `name` may not be asked for as an extent file; `None` for a plain file name.
pub(super) fn confined(name: &str) -> Option<&'static str> {
    const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"];
    let lower = name.to_ascii_lowercase();
    let stem = lower.split('.').next().unwrap_or("").trim_end();
    let port = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    if name.trim().is_empty() {
        Some("it is empty")
    } else if name.len() > 255 {
        Some("it is longer than 255 bytes")
    } else if name.contains('/') {
        Some("it holds a /")
    } else if name.contains('\\') {
        Some("it holds a backslash")
    } else if name.contains("..") || name == "." {
        Some("it holds ..")
    } else if name.contains(':') {
        Some("it holds a colon, as drives and protocols do")
    } else if name.contains(|c: char| c.is_control() || c == '"') {
        Some("it holds a control character or a quote")
    } else if DEVICES.contains(&stem)
        || port.is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
        || lower.starts_with("physicaldrive")
    {
        Some("it is the name of a device")
    } else {
        None
    }
}

/// Text from the image, fit to be shown.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

pub(super) fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|w| *w == word).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\nversion=1\nCID=0faec72e\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\r\n\n# Extent description\n\
        RW 1048576 SPARSE \"File system.vmdk\"\n\nddb.adapterType = \"ide\"\n\
        ddb.virtualHWVersion = \"21\"\n";

    fn faults(text: &str) -> Vec<&'static str> {
        let (_, faults) = Descriptor::read(text.as_bytes());
        faults.into_iter().map(|f| f.rule).collect()
    }

    #[test]
    fn reads_what_vmware_writes() {
        let d = Descriptor::parse(format!("{GOOD}\0\0junk").as_bytes()).unwrap();
        assert_eq!(d.create_type.name, "monolithicSparse");
        assert_eq!(d.create_type.class, Class::SelfContained);
        assert_eq!((d.cid, d.parent()), (Some(0x0fae_c72e), None));
        assert_eq!(d.adapter_type.as_deref(), Some("ide"));
        assert_eq!(d.hardware_version.as_deref(), Some("21"));
        assert_eq!(
            d.extents,
            [ExtentLine {
                line: 8,
                access: "RW",
                sectors: 1_048_576,
                kind: ExtentType::Sparse,
                name: Some("File system.vmdk".into()),
                offset_sectors: 0,
            }]
        );
    }

    #[test]
    fn spaces_around_the_sign_and_a_byte_order_mark_are_no_fault() {
        let spaced = format!("\u{feff}{}", GOOD.replace('=', " = "));
        assert_eq!(faults(&spaced), [""; 0]);
        let d = Descriptor::parse(spaced.as_bytes()).unwrap();
        assert_eq!(d.create_type.name, "monolithicSparse");
        assert_eq!((d.cid, d.parent()), (Some(0x0fae_c72e), None));
        let delta = spaced.replace("ffffffff", "deadbeef");
        assert!(Descriptor::read(delta.as_bytes()).0.parent().is_some());
        let twice = format!("{spaced}createType=\"vmfs\"\n");
        assert_eq!(faults(&twice), ["create_type"]);
    }

    #[test]
    fn knows_types_in_any_case_and_names_the_others() {
        let t = CreateType::parse("TWOGBMAXEXTENTFLAT");
        assert_eq!(
            (t.name.as_str(), t.class),
            ("twoGbMaxExtentFlat", Class::ExtentFiles)
        );
        assert_eq!(CreateType::parse("vmfsRDM").class, Class::Device);
        assert_eq!(CreateType::parse("elsewhere").class, Class::Unknown);
    }

    #[test]
    fn whatever_two_programs_could_read_differently_is_a_fault() {
        assert_eq!(faults(GOOD), [""; 0]);
        let twice = format!("{GOOD}createType=\"vmfs\"\n");
        assert_eq!(faults(&twice), ["create_type"]);
        let comment = format!("{GOOD}# createType=\"vmfs\"\n");
        assert_eq!(faults(&comment), ["create_type"]);
        let parent = format!("{GOOD}parentCID=12345678\n");
        assert_eq!(faults(&parent), ["parent_link"]);
        assert_eq!(faults(&GOOD.replace("SPARSE", "NONSENSE"))[0], "descriptor");
        assert_eq!(faults(&format!("{GOOD}hello there\n")), ["descriptor"]);
        assert_eq!(faults(&format!("{GOOD}ke y=1\n")), ["descriptor"]);
        assert_eq!(
            faults(&GOOD.replace("version=1", "version=é"))[0],
            "descriptor"
        );
        assert_eq!(
            faults(&GOOD.replace("RW 1048576", "RW -1"))[0],
            "descriptor"
        );
        assert_eq!(faults("version=1\n"), ["create_type", "extent_count"]);
    }

    #[test]
    fn a_parent_is_told_by_id_and_by_name() {
        let delta = GOOD.replace("ffffffff", "deadbeef");
        let d = Descriptor::parse(delta.as_bytes()).unwrap();
        assert!(d.parent().unwrap().contains("deadbeef"));
        let hint = format!("{GOOD}parentFileNameHint=\"../base.vmdk\"\n");
        let d = Descriptor::parse(hint.as_bytes()).unwrap();
        assert!(d.parent().unwrap().contains("../base.vmdk"));
    }

    #[test]
    fn names_stay_in_the_folder() {
        for good in ["disk-flat.vmdk", "a b.vmdk", "com10.vmdk", "console.vmdk"] {
            assert_eq!(confined(good), None, "{good}");
        }
        for bad in [
            "",
            " ",
            ".",
            "..",
            "../x",
            "a/b",
            "/dev/sda",
            "a\\b",
            "\\\\.\\PhysicalDrive0",
            "nbd:localhost:1",
            "c:x",
            "NUL",
            "nul.vmdk",
            "COM1",
            "lpt9.txt",
            "PhysicalDrive0",
            "a\nb",
        ] {
            assert!(confined(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn tells_descriptors_from_other_text() {
        assert!(is_descriptor(b"# Disk DescriptorFile\nversion=1\n"));
        assert!(is_descriptor(b"#disk descriptorfile"));
        assert!(is_descriptor(b"version=1\nCREATEtype=\"vmfs\""));
        assert!(!is_descriptor(b"#!/bin/sh\necho hello\n"));
        assert!(is_descriptor(b"\xef\xbb\xbf# Disk DescriptorFile\n"));
        assert!(may_be_descriptor(b"\xef\xbb\xbf# Disk"));
        assert!(!may_be_descriptor(b"\xef\xbb\xbf"));
        assert!(may_be_descriptor(b"hello\n\0\0"));
        assert!(!may_be_descriptor(b"\0"));
        assert!(!may_be_descriptor(b"KDMV\x01"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (d, f) = Descriptor::read(&bytes);
            prop_assert!(d.extents.len() <= MAX_EXTENT_LINES && f.len() <= MAX_FAULTS);
            prop_assert_eq!(Descriptor::parse(&bytes).is_ok(), f.is_empty());
        }

        #[test]
        fn no_change_of_a_good_one_makes_it_stumble(
            at in 0..GOOD.len(), len in 0..40usize, new in "[ -~\n\"=#]{0,20}",
        ) {
            let end = (at + len).min(GOOD.len());
            let text = format!("{}{new}{}", &GOOD[..at], &GOOD[end..]);
            let _ = Descriptor::read(text.as_bytes());
        }

        #[test]
        fn extent_lines_survive(
            sectors: u64, offset: u64, name in "[a-z][a-z ]{0,20}[.]vmdk", kind in 0..8usize,
        ) {
            let kind = ExtentType::ALL[kind];
            let line = format!("rdonly {sectors}  {} \"{name}\" {offset}", kind.name());
            let text = GOOD.replace("RW 1048576 SPARSE \"File system.vmdk\"", &line);
            let d = Descriptor::parse(text.as_bytes()).unwrap();
            let e = &d.extents[0];
            prop_assert_eq!((e.sectors, e.offset_sectors, e.kind), (sectors, offset, kind));
            prop_assert_eq!(e.name.as_deref(), Some(name.as_str()));
        }
    }
}
