//! Endings of the names of files: which are those of images, and what they tell.

/// Endings of images.
pub const IMAGES: &[&str] = &[
    "img", "raw", "qcow2", "qcow", "qed", "vmdk", "vhd", "vpc", "vhdx", "vdi", "hdd", "hds", "dmg",
    "luks", "iso", "ova", "box",
];

/// Endings of compressed files.
pub const COMPRESSED: &[&str] = &["gz", "xz", "zst", "bz2", "zip"];

/// What is in a file with this ending: disk and container format. `img` may be anything.
const TELLING: &[(&str, &str, &str)] = &[
    ("raw", "raw", "bare"),
    ("qcow2", "qcow2", "bare"),
    ("vmdk", "vmdk", "bare"),
    ("vhd", "vhd", "bare"),
    ("vpc", "vhd", "bare"),
    ("vhdx", "vhdx", "bare"),
    ("vdi", "vdi", "bare"),
    ("hdd", "ploop", "bare"),
    ("iso", "iso", "bare"),
    ("ova", "vmdk", "ova"),
];

/// `name` without an ending of these, and the ending. There is always something left.
#[must_use]
pub fn split<'a>(name: &'a [u8], endings: &[&'static str]) -> (&'a [u8], Option<&'static str>) {
    for ending in endings {
        if let Some(at) = name.len().checked_sub(ending.len() + 1)
            && at > 0
            && name[at] == b'.'
            && name[at + 1..].eq_ignore_ascii_case(ending.as_bytes())
        {
            return (&name[..at], Some(ending));
        }
    }
    (name, None)
}

/// `name` without the endings of its compression and its format.
#[must_use]
pub fn stem(name: &str) -> &str {
    let (inner, _) = split(name.as_bytes(), COMPRESSED);
    let (stem, _) = split(inner, IMAGES);
    // What was cut off is ASCII.
    &name[..stem.len()]
}

/// The disk and container format that a name tells of.
#[must_use]
pub fn formats(name: &str) -> Option<(&'static str, &'static str)> {
    let (inner, _) = split(name.as_bytes(), COMPRESSED);
    let (_, ending) = split(inner, IMAGES);
    let told = TELLING.iter().find(|(told, ..)| Some(*told) == ending)?;
    Some((told.1, told.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_stem_and_format() {
        for (name, left, told) in [
            ("disk.qcow2", "disk", Some(("qcow2", "bare"))),
            ("Disk.VMDK.xz", "Disk", Some(("vmdk", "bare"))),
            ("a.b.vhd.gz", "a.b", Some(("vhd", "bare"))),
            ("set.ova", "set", Some(("vmdk", "ova"))),
            ("cloud.img", "cloud", None),
            ("größe", "größe", None),
            (".raw", ".raw", None),
            ("disk.gz", "disk", None),
        ] {
            assert_eq!((stem(name), formats(name)), (left, told), "{name}");
        }
    }
}
