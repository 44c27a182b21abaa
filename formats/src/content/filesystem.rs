//! File systems, by their superblocks.
//!
//! Where the superblock lies and which fields it has is as the Linux kernel's headers of each
//! file system say (`fs/*/`, `include/uapi/linux`), NTFS, exFAT and FAT as Microsoft's
//! specifications do, APFS and HFS+ as Apple's. Sizes are in bytes, as the superblock has them.

use super::Content;
use super::view::{View, utf16};

/// The file system a view begins with.
pub(super) fn recognise(v: View<'_>) -> Option<Content> {
    [
        ext, xfs, btrfs, squashfs, erofs, f2fs, jfs, reiserfs, ntfs, exfat, fat, hfs_plus, apfs,
        romfs, cramfs, ufs,
    ]
    .iter()
    .find_map(|known| known(v))
}

fn new(kind: &'static str) -> Content {
    Content::new("filesystem", kind)
}

fn product(count: impl Into<u64>, unit: impl Into<u64>) -> Option<u64> {
    count.into().checked_mul(unit.into())
}

fn ext(v: View<'_>) -> Option<Content> {
    const SB: u64 = 1024;
    const HAS_JOURNAL: u32 = 4;
    const JOURNAL_DEV: u32 = 8;
    const WIDE: u32 = 0x80;
    /// filetype, recover, journal_dev, meta_bg; sparse_super, large_file, btree_dir.
    const EXT3_INCOMPAT: u32 = 0x1e;
    const EXT3_RO_COMPAT: u32 = 7;
    let shift = v.le32(SB + 24)?;
    if v.le16(SB + 56)? != 0xef53 || shift > 6 {
        return None;
    }
    let (compat, incompat) = (v.le32(SB + 0x5c)?, v.le32(SB + 0x60)?);
    let kind = if incompat & JOURNAL_DEV != 0 {
        "jbd"
    } else if incompat & !EXT3_INCOMPAT != 0 || v.le32(SB + 0x64)? & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    let high = if incompat & WIDE == 0 {
        0
    } else {
        v.le32(SB + 0x150)?
    };
    let blocks = u64::from(high) << 32 | u64::from(v.le32(SB + 4)?);
    let block_size = 1024_u64 << shift;
    Some(
        new(kind)
            .maybe("label", v.text(SB + 0x78, 16))
            .maybe("uuid", v.uuid(SB + 0x68))
            .maybe("size", product(blocks, block_size))
            .with("block_size", block_size)
            .with("clean", v.le16(SB + 0x3a)? & 1 != 0),
    )
}

fn xfs(v: View<'_>) -> Option<Content> {
    let (block_size, version) = (v.be32(4)?, v.be16(100)? & 15);
    if !v.has(0, b"XFSB") || !block_size.is_power_of_two() {
        return None;
    }
    Some(
        new("xfs")
            .maybe("label", v.text(108, 12))
            .maybe("uuid", v.uuid(32))
            .maybe("size", product(v.be64(8)?, block_size))
            .with("block_size", block_size)
            .with("version", version),
    )
}

fn btrfs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 64 << 10;
    v.has(SB + 0x40, b"_BHRfS_M").then_some(())?;
    Some(
        new("btrfs")
            .maybe("label", v.text(SB + 0x12b, 256))
            .maybe("uuid", v.uuid(SB + 0x20))
            .maybe("size", v.le64(SB + 0x70))
            .maybe("block_size", v.le32(SB + 0x90))
            .maybe("devices", v.le64(SB + 0x88)),
    )
}

fn squashfs(v: View<'_>) -> Option<Content> {
    let (major, minor) = (v.le16(28)?, v.le16(30)?);
    if !v.has(0, b"hsqs") || major != 4 {
        return None;
    }
    let compression = match v.le16(20)? {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => return None,
    };
    Some(
        new("squashfs")
            .with("version", format!("{major}.{minor}"))
            .with("compression", compression)
            .maybe("size", v.le64(40))
            .maybe("block_size", v.le32(12)),
    )
}

fn erofs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 1024;
    let bits = v.byte(SB + 12)?;
    if v.le32(SB)? != 0xe0f5_e1e2 || !(9..=16).contains(&bits) {
        return None;
    }
    let block_size = 1_u64 << bits;
    Some(
        new("erofs")
            .maybe("label", v.text(SB + 64, 16))
            .maybe("uuid", v.uuid(SB + 48))
            .maybe("size", product(v.le32(SB + 36)?, block_size))
            .with("block_size", block_size),
    )
}

fn f2fs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 1024;
    let bits = v.le32(SB + 16)?;
    if v.le32(SB)? != 0xf2f5_2010 || !(9..=16).contains(&bits) {
        return None;
    }
    let block_size = 1_u64 << bits;
    Some(
        new("f2fs")
            .maybe("label", v.get(SB + 124, 1024).and_then(utf16))
            .maybe("uuid", v.uuid(SB + 108))
            .maybe("size", product(v.le64(SB + 36)?, block_size))
            .with("block_size", block_size),
    )
}

fn jfs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 32 << 10;
    v.has(SB, b"JFS1").then_some(())?;
    Some(
        new("jfs")
            .maybe("label", v.text(SB + 152, 16))
            .maybe("uuid", v.uuid(SB + 136))
            .maybe("size", product(v.le64(SB + 8)?, v.le32(SB + 24)?))
            .maybe("block_size", v.le32(SB + 16)),
    )
}

fn reiserfs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 64 << 10;
    let magics: [&[u8]; 3] = [b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs"];
    if !magics.iter().any(|magic| v.has(SB + 52, magic)) {
        return None;
    }
    let block_size = v.le16(SB + 44)?;
    Some(
        new("reiserfs")
            .maybe("label", v.text(SB + 100, 16))
            .maybe("uuid", v.uuid(SB + 84))
            .maybe("size", product(v.le32(SB)?, block_size))
            .with("block_size", block_size),
    )
}

fn ntfs(v: View<'_>) -> Option<Content> {
    let sector = v.le16(11)?;
    if !v.has(3, b"NTFS    ") || !sector.is_power_of_two() {
        return None;
    }
    // The boot record does not count itself among the sectors.
    let sectors = v.le64(40)?.checked_add(1);
    Some(
        new("ntfs")
            .with("uuid", format!("{:016X}", v.le64(72)?))
            .maybe("size", sectors.and_then(|sectors| product(sectors, sector))),
    )
}

fn exfat(v: View<'_>) -> Option<Content> {
    let sector_bits = v.byte(108)?;
    if !v.has(3, b"EXFAT   ") || !(9..=12).contains(&sector_bits) {
        return None;
    }
    Some(
        new("exfat")
            .with("uuid", serial(v.le32(100)?))
            .maybe("size", product(v.le64(72)?, 1_u64 << sector_bits)),
    )
}

/// A volume's serial number as DOS shows it.
fn serial(number: u32) -> String {
    format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
}

fn fat(v: View<'_>) -> Option<Content> {
    if !crate::gpt::is_fat(v.get(0, 512)?) || v.le16(510)? != 0xaa55 {
        return None;
    }
    let sector = u64::from(v.le16(11)?);
    let sectors = match v.le16(19)? {
        0 => v.le32(32)?,
        small => small.into(),
    };
    let tables = u64::from(v.byte(16)?);
    let (root, in_short) = (u64::from(v.le16(17)?) * 32, v.le16(22)?);
    let is_32 = in_short == 0;
    let table = if is_32 { v.le32(36)? } else { in_short.into() };
    let meta = u64::from(v.le16(14)?) + tables * u64::from(table) + root.div_ceil(sector);
    let clusters = u64::from(sectors).checked_sub(meta)? / u64::from(v.byte(13)?);
    // Microsoft's specification: the number of clusters decides, and nothing else.
    let (version, at) = match clusters {
        _ if is_32 => ("fat32", 64),
        ..4085 => ("fat12", 36),
        _ => ("fat16", 36),
    };
    let has_serial = matches!(v.byte(at + 2)?, 0x28 | 0x29);
    let label = v.text(at + 7, 11).filter(|label| label != "NO NAME");
    Some(
        new("vfat")
            .with("version", version)
            .maybe("label", label.filter(|_| has_serial))
            .maybe("uuid", v.le32(at + 3).filter(|_| has_serial).map(serial))
            .maybe("size", product(sectors, sector)),
    )
}

fn hfs_plus(v: View<'_>) -> Option<Content> {
    const HEADER: u64 = 1024;
    let kind = match v.get(HEADER, 4)? {
        [b'H', b'+', 0, 4] => "hfsplus",
        [b'H', b'X', 0, 5] => "hfsx",
        _ => return None,
    };
    let block_size = v.be32(HEADER + 40)?;
    Some(
        new(kind)
            .maybe("size", product(v.be32(HEADER + 44)?, block_size))
            .with("block_size", block_size),
    )
}

fn apfs(v: View<'_>) -> Option<Content> {
    v.has(32, b"NXSB").then_some(())?;
    let block_size = v.le32(36)?;
    Some(
        new("apfs")
            .maybe("uuid", v.uuid(72))
            .maybe("size", product(v.le64(40)?, block_size))
            .with("block_size", block_size),
    )
}

fn romfs(v: View<'_>) -> Option<Content> {
    v.has(0, b"-rom1fs-").then_some(())?;
    Some(
        new("romfs")
            .maybe("label", v.text(16, 16))
            .with("size", v.be32(8)?),
    )
}

fn cramfs(v: View<'_>) -> Option<Content> {
    v.has(16, b"Compressed ROMFS").then_some(())?;
    (v.le32(0)? == 0x28cd_3d45).then_some(())?;
    Some(
        new("cramfs")
            .maybe("label", v.text(48, 16))
            .with("size", v.le32(4)?),
    )
}

fn ufs(v: View<'_>) -> Option<Content> {
    const SB: u64 = 64 << 10;
    (v.le32(SB + 1372)? == 0x1954_0119).then_some(())?;
    Some(
        new("ufs")
            .maybe("label", v.text(SB + 680, 32))
            .maybe("size", product(v.le64(SB + 1080)?, v.le32(SB + 52)?))
            .maybe("block_size", v.le32(SB + 48)),
    )
}
