//! What is known, and the second look at it: a magic of a few bytes may begin a raw disk, too.

use super::Known;
use crate::Format;
use crate::bytes::{be16, be32, be64, le32, le64};

pub(super) const KNOWN: &[Known] = &[
    Known {
        format: Format::SparseImage,
        name: "an Apple sparse image",
        magic: b"sprs\0\0\0\x03",
        check: |_| true,
        virtual_size: |head| Some(u64::from(be32(head, 16)?) * 512),
    },
    Known {
        format: Format::Cloop,
        name: "a compressed loop device (cloop 2.0)",
        magic: b"#!/bin/sh\n#V2.0 Format\n",
        check: |_| true,
        virtual_size: |head| Some(u64::from(be32(head, 128)?) * u64::from(be32(head, 132)?)),
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness image (EWF, E01)",
        magic: b"EVF\x09\x0d\x0a\xff\x00",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness logical image (EWF, L01)",
        magic: b"LVF\x09\x0d\x0a\xff\x00",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness image, version 2 (Ex01)",
        magic: b"EVF2\x0d\x0a\x81\x00",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::AndroidSparse,
        name: "an Android sparse image",
        magic: b"\x3a\xff\x26\xed\x01\0",
        check: |_| true,
        virtual_size: |head| Some(u64::from(le32(head, 12)?) * u64::from(le32(head, 16)?)),
    },
    Known {
        format: Format::Wim,
        name: "a Windows imaging archive (WIM)",
        magic: b"MSWIM\0\0\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Aff,
        name: "an Advanced Forensic Format image (AFF)",
        magic: b"AFF10\r\n\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Chd,
        name: "a CHD image (MAME)",
        magic: b"MComprHD",
        check: |head| chd_version(head).is_some(),
        virtual_size: chd_size,
    },
    Known {
        format: Format::Ciso,
        name: "a compressed ISO (CISO)",
        magic: b"CISO",
        check: is_ciso,
        virtual_size: ciso_size,
    },
    Known {
        format: Format::Ciso,
        name: "a compressed ISO (ZISO)",
        magic: b"ZISO",
        check: is_ciso,
        virtual_size: ciso_size,
    },
    Known {
        format: Format::Partclone,
        name: "a partclone image",
        magic: b"partclone-image",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Vma,
        name: "a Proxmox backup (VMA)",
        magic: b"VMA\0\0\0\0\x01",
        check: |head| be32(head, 56).is_some_and(|len| len >= 12_288 && len % 512 == 0),
        virtual_size: |_| None,
    },
    Known {
        format: Format::Mds,
        name: "the descriptor of a disc (MDS)",
        magic: b"MEDIA DESCRIPTOR",
        check: |head| matches!(head.get(16), Some(1 | 2)),
        virtual_size: |_| None,
    },
    Known {
        format: Format::RawCd,
        name: "raw CD sectors, with their synchronisation",
        magic: CD_SYNC,
        check: is_raw_cd,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a 7z archive",
        magic: b"7z\xbc\xaf\x27\x1c\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a RAR archive",
        magic: b"Rar!\x1a\x07\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a RAR archive, version 5",
        magic: b"Rar!\x1a\x07\x01\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a cabinet (CAB)",
        magic: b"MSCF\0\0\0\0",
        check: |head| head.get(24..26) == Some(&[3, 1]),
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a xar archive",
        magic: b"xar!",
        check: |head| matches!((be16(head, 4), be16(head, 6)), (Some(28..=128), Some(1))),
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "an ar archive, such as a Debian package",
        magic: b"!<arch>\n",
        check: |head| head.len() == 8 || head.get(66..68) == Some(b"`\n"),
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "an RPM package",
        magic: b"\xed\xab\xee\xdb",
        check: |head| {
            matches!(
                (head.get(4), be16(head, 6), be16(head, 78)),
                (Some(3 | 4), Some(0 | 1), Some(5))
            )
        },
        virtual_size: |_| None,
    },
    Known {
        format: Format::Archive,
        name: "a zip archive without a file",
        magic: b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Compressed,
        name: "a file of compress (.Z)",
        magic: b"\x1f\x9d",
        check: is_compress,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Compressed,
        name: "a qpress archive",
        magic: b"qpress10",
        check: |_| true,
        virtual_size: |_| None,
    },
    Known {
        format: Format::Compressed,
        name: "a pbzx stream",
        magic: b"pbzx\0\0\0\0",
        check: |head| be32(head, 8).is_some_and(u32::is_power_of_two),
        virtual_size: |_| None,
    },
];

/// What every sector of a compact disc begins with.
const CD_SYNC: &[u8] = b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0";

/// Sectors follow each other by 2352 bytes, or by 2448 with their subchannels.
fn is_raw_cd(head: &[u8]) -> bool {
    let follows = |at: usize| head.get(at..at + CD_SYNC.len()) == Some(CD_SYNC);
    matches!(head.get(15), Some(0..=2)) && (head.len() == 2352 || follows(2352) || follows(2448))
}

/// The version of a CHD header whose length is that of its version.
fn chd_version(head: &[u8]) -> Option<u32> {
    let version = be32(head, 12)?;
    let len = match version {
        1 => 76,
        2 => 80,
        3 => 120,
        4 => 108,
        5 => 124,
        _ => return None,
    };
    (be32(head, 8)? == len).then_some(version)
}

fn chd_size(head: &[u8]) -> Option<u64> {
    match chd_version(head)? {
        3 | 4 => be64(head, 28),
        5 => be64(head, 32),
        _ => None,
    }
}

/// Of a PSP, with the size of the disc and of a block; of a GameCube, with that of a block and
/// then a byte for each.
fn is_ciso(head: &[u8]) -> bool {
    let fields = || {
        let is_psp = ciso_size(head).is_some();
        let block = le32(head, 4)?;
        let is_gamecube = block.is_power_of_two()
            && block >= 32 << 10
            && head.get(8)? == &1
            && head.get(8..256)?.iter().all(|used| *used <= 1);
        Some(is_psp || is_gamecube)
    };
    fields().unwrap_or(false)
}

fn ciso_size(head: &[u8]) -> Option<u64> {
    let (header, size, block) = (le32(head, 4)?, le64(head, 8)?, le32(head, 16)?);
    let is_psp = matches!(header, 0 | 24)
        && size != 0
        && (512..=1 << 20).contains(&block)
        && block.is_power_of_two()
        && *head.get(20)? <= 2;
    is_psp.then_some(size)
}

/// Codes of 9 to 16 bits, of which the first stands for itself: below 256.
fn is_compress(head: &[u8]) -> bool {
    let is_boot_sector = head.get(510..512) == Some(b"\x55\xaa");
    matches!(head.get(2), Some(flags) if flags & 0x60 == 0 && (9..=16).contains(&(flags & 0x1f)))
        && head.get(4).is_some_and(|second| second & 1 == 0)
        && !is_boot_sector
}
