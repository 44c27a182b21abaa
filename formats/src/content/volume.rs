//! What holds file systems rather than being one: physical volumes, RAID members, encrypted
//! volumes, swap, images inside.

use super::Content;
use super::view::View;

/// The volume a view begins with.
pub(super) fn recognise(v: View<'_>) -> Option<Content> {
    [luks, bitlocker, lvm2, raid, swap, zfs, image]
        .iter()
        .find_map(|known| known(v))
}

/// The second header of LUKS2 tells a volume whose first was overwritten; it lies where the
/// first ends.
fn luks(v: View<'_>) -> Option<Content> {
    const SECOND: [u64; 3] = [16 << 10, 32 << 10, 64 << 10];
    let (at, version) = if v.has(0, b"LUKS\xba\xbe") {
        (0, v.be16(6)?)
    } else {
        let at = SECOND
            .into_iter()
            .find(|at| v.has(*at, b"SKUL\xba\xbe\0\x02"))?;
        (at, 2)
    };
    let label = if version == 2 {
        v.text(at + 24, 48)
    } else {
        None
    };
    Some(
        Content::new("encrypted", "luks")
            .with("version", version)
            .maybe("label", label)
            .maybe("uuid", v.text(at + 168, 40)),
    )
}

fn bitlocker(v: View<'_>) -> Option<Content> {
    v.has(3, b"-FVE-FS-")
        .then(|| Content::new("encrypted", "bitlocker"))
}

/// lvm2 `lib/format_text/layout.h`: the label lies in one of the first four sectors.
fn lvm2(v: View<'_>) -> Option<Content> {
    let at = (0..4).map(|n| n * 512).find(|at| {
        v.has(*at, b"LABELONE") && v.has(at + 24, b"LVM2 001") && v.le64(at + 8) == Some(at / 512)
    })?;
    let header = at + u64::from(v.le32(at + 20)?);
    let id = v
        .text(header, 32)
        .filter(|id| id.is_ascii() && id.len() == 32)?;
    let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32];
    let uuid: Vec<_> = groups.into_iter().map(|group| &id[group]).collect();
    Some(
        Content::new("volume", "lvm2")
            .with("uuid", uuid.join("-"))
            .maybe("size", v.le64(header + 32)),
    )
}

/// Linux `include/uapi/linux/raid/md_p.h`, versions 1.1 and 1.2; the others stand at the end.
fn raid(v: View<'_>) -> Option<Content> {
    let (at, minor) = [(0, 1), (4096, 2)]
        .into_iter()
        .find(|(at, _)| v.le32(*at) == Some(0xa92b_4efc) && v.le32(at + 4) == Some(1))?;
    let level = v.le32(at + 72)?.cast_signed();
    Some(
        Content::new("volume", "md_raid")
            .with("version", format!("1.{minor}"))
            .maybe("label", v.text(at + 32, 32))
            .maybe("uuid", v.uuid(at + 16))
            .with("level", level)
            .maybe("devices", v.le32(at + 92))
            .maybe("size", v.le64(at + 80)?.checked_mul(512)),
    )
}

/// Linux `include/linux/swap.h`: the magic ends the first page.
fn swap(v: View<'_>) -> Option<Content> {
    let magics: [(&[u8], &str); 3] = [
        (b"SWAPSPACE2", "swap"),
        (b"S1SUSPEND\0", "swsuspend"),
        (b"S2SUSPEND\0", "swsuspend"),
    ];
    let (page, kind) = [4096_u64, 8192, 16384, 65536]
        .into_iter()
        .find_map(|page| {
            let found = magics.iter().find(|(magic, _)| v.has(page - 10, magic))?;
            Some((page, found.1))
        })?;
    let pages = match (v.le32(1024)?, v.be32(1024)?) {
        (1, _) => v.le32(1028)?,
        (_, 1) => v.be32(1028)?,
        _ => return None,
    };
    Some(
        Content::new("swap", kind)
            .maybe("label", v.text(1052, 16))
            .maybe("uuid", v.uuid(1036))
            .maybe("size", (u64::from(pages) + 1).checked_mul(page)),
    )
}

/// OpenZFS `include/sys/vdev_impl.h`: an XDR name-value list 16 KiB into the label.
fn zfs(v: View<'_>) -> Option<Content> {
    const LIST: u64 = 16 << 10;
    let pool = b"\0\0\0\x04name\0\0\0\x09\0\0\0\x01";
    v.has(LIST, &[1]).then_some(())?;
    let list = v.get(LIST, 1024)?;
    list.windows(11)
        .any(|w| w == b"\0\0\0\x07version")
        .then_some(())?;
    let at = list.windows(pool.len()).position(|w| w == pool)? + pool.len();
    let len = crate::bytes::be32(list, at)?;
    let name = super::view::text(list.get(at + 4..at + 4 + usize::try_from(len).ok()?.min(256))?);
    Some(Content::new("volume", "zfs_member").maybe("label", name))
}

/// Images inside another: a partition may hold one, and a guest will not mind.
fn image(v: View<'_>) -> Option<Content> {
    let known: [(&[u8], &str); 5] = [
        (b"QFI\xfb", "qcow2"),
        (b"KDMV", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vhd"),
        (b"QED\0", "qed"),
    ];
    let (_, kind) = known.iter().find(|(magic, _)| v.has(0, magic))?;
    Some(Content::new("image", kind))
}
