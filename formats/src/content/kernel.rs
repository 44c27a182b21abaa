//! Kernels and other programs a machine starts from.
//!
//! Linux `Documentation/arch/x86/boot.rst`, `arch/arm64/booting.rst`,
//! `arch/riscv/boot-image-header.rst`, `drivers/firmware/efi/libstub/zboot-header.S`; the ELF and
//! PE specifications; U-Boot `include/image.h`.

use super::view::View;
use super::{Content, packed};

/// The kernel a view begins with.
pub(super) fn recognise(v: View<'_>) -> Option<Content> {
    [x86, arm64, riscv, arm, s390, uimage, elf, efi]
        .iter()
        .find_map(|known| known(v))
}

fn new(kind: &'static str) -> Content {
    Content::new("kernel", kind)
}

/// Adds the release of a Linux banner such as `6.1.0-18-amd64 (debian@…) #1 SMP …`.
fn release(content: Content, banner: Option<String>) -> Content {
    let Some(banner) = banner else {
        return content;
    };
    let version = banner.split_whitespace().next().unwrap_or_default();
    content
        .with("version", version)
        .with("banner", banner.as_str())
}

fn x86(v: View<'_>) -> Option<Content> {
    const LOADED_HIGH: u8 = 1;
    const KERNEL_64: u16 = 1;
    const EFI_32_AND_64: u16 = 0b1100;
    if !v.has(0x202, b"HdrS") || v.le16(510)? != 0xaa55 {
        return None;
    }
    let protocol = v.le16(0x206)?;
    let kind = match v.byte(0x211)? & LOADED_HIGH {
        0 => "zImage",
        _ => "bzImage",
    };
    let xload = if protocol >= 0x20c { v.le16(0x236)? } else { 0 };
    let architecture = match (protocol, xload & KERNEL_64) {
        (0x20c.., 1..) => "x86_64",
        (0x20c.., _) => "i386",
        _ => "x86",
    };
    let banner = match v.le16(0x20e)? {
        0 => None,
        at => banner(v, 0x200 + u64::from(at)),
    };
    let setup = match v.byte(0x1f1)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let payload = if protocol >= 0x208 {
        (setup + 1) * 512 + u64::from(v.le32(0x248)?)
    } else {
        0
    };
    let compression = v
        .rest(payload)
        .filter(|_| payload != 0)
        .and_then(packed::name);
    let content = new(kind)
        .with("architecture", architecture)
        .with(
            "boot_protocol",
            format!("{}.{:02}", protocol >> 8, protocol & 0xff),
        )
        .with("relocatable", protocol >= 0x205 && v.byte(0x234)? != 0)
        .with("efi_stub", v.has(0, b"MZ") || xload & EFI_32_AND_64 != 0)
        .maybe("compression", compression);
    Some(release(content, banner))
}

/// The text at `at`, as far as it was read.
fn banner(v: View<'_>, at: u64) -> Option<String> {
    let rest = v.rest(at)?;
    super::view::text(&rest[..rest.len().min(256)])
}

fn arm64(v: View<'_>) -> Option<Content> {
    v.has(56, b"ARM\x64").then_some(())?;
    let flags = v.le64(24)?;
    let page_size = [None, Some(4096), Some(16384), Some(65536)][(flags >> 1 & 3) as usize];
    Some(
        new("Image")
            .with(
                "architecture",
                if flags & 1 == 0 {
                    "aarch64"
                } else {
                    "aarch64_be"
                },
            )
            .maybe("image_size", Some(v.le64(16)?).filter(|size| *size != 0))
            .maybe("page_size", page_size)
            .with("efi_stub", v.has(0, b"MZ")),
    )
}

fn riscv(v: View<'_>) -> Option<Content> {
    (v.has(48, b"RISCV\0\0\0") && v.has(56, b"RSC\x05")).then_some(())?;
    Some(
        new("Image")
            .with("architecture", "riscv64")
            .maybe("image_size", v.le64(16))
            .with("efi_stub", v.has(0, b"MZ")),
    )
}

fn arm(v: View<'_>) -> Option<Content> {
    let kernel = new("zImage").with("architecture", "arm");
    (v.le32(0x24)? == 0x016f_2818).then_some(kernel)
}

fn s390(v: View<'_>) -> Option<Content> {
    v.has(0x10008, b"S390EP")
        .then(|| new("image").with("architecture", "s390x"))
}

fn uimage(v: View<'_>) -> Option<Content> {
    (v.be32(0)? == 0x2705_1956).then_some(())?;
    let what = match v.byte(30)? {
        2 | 4 => "kernel",
        3 => "ramdisk",
        _ => "firmware",
    };
    let architecture = match v.byte(29)? {
        2 => Some("arm"),
        3 => Some("i386"),
        5 => Some("mips"),
        7 => Some("ppc"),
        22 => Some("aarch64"),
        24 => Some("x86_64"),
        26 => Some("riscv"),
        _ => None,
    };
    let compression = [
        None,
        Some("gzip"),
        Some("bzip2"),
        Some("lzma"),
        Some("lzo"),
        Some("lz4"),
        Some("zstd"),
    ];
    Some(
        Content::new(what, "uImage")
            .maybe("architecture", architecture)
            .maybe(
                "compression",
                compression.get(usize::from(v.byte(31)?)).copied().flatten(),
            )
            .maybe("name", v.text(32, 32)),
    )
}

/// An executable without an interpreter is started by a boot loader, not by a kernel.
fn elf(v: View<'_>) -> Option<Content> {
    const INTERPRETER: u32 = 3;
    const MAX_SEGMENTS: u16 = 64;
    v.has(0, b"\x7fELF").then_some(())?;
    let is_64 = v.byte(4)? == 2;
    let is_little = v.byte(5)? == 1;
    let short = |at| if is_little { v.le16(at) } else { v.be16(at) };
    let word = |at| if is_little { v.le32(at) } else { v.be32(at) };
    let long = |at| if is_little { v.le64(at) } else { v.be64(at) };
    let architecture = match (short(18)?, is_64, is_little) {
        (3, ..) => "i386",
        (62, ..) => "x86_64",
        (40, ..) => "arm",
        (183, ..) => "aarch64",
        (8, false, _) => "mips",
        (8, true, _) => "mips64",
        (20, ..) => "ppc",
        (21, _, true) => "ppc64le",
        (21, ..) => "ppc64",
        (22, ..) => "s390x",
        (243, false, _) => "riscv32",
        (243, true, _) => "riscv64",
        (258, ..) => "loongarch64",
        _ => "unknown",
    };
    let (at, size, count) = if is_64 {
        (long(32)?, short(54)?, short(56)?)
    } else {
        (word(28)?.into(), short(42)?, short(44)?)
    };
    let segments =
        (0..count.min(MAX_SEGMENTS)).map(|n| at.checked_add(u64::from(n) * u64::from(size)));
    let is_program = segments.flatten().any(|at| word(at) == Some(INTERPRETER));
    let kind = match (is_program, short(16)?) {
        (false, 2 | 3) => "kernel",
        _ => "program",
    };
    Some(
        Content::new(kind, "ELF")
            .with("architecture", architecture)
            .with("bits", if is_64 { 64 } else { 32 }),
    )
}

fn efi(v: View<'_>) -> Option<Content> {
    v.has(0, b"MZ").then_some(())?;
    let at = u64::from(v.le32(60)?);
    v.has(at, b"PE\0\0").then_some(())?;
    let architecture = match v.le16(at + 4)? {
        0x14c => "i386",
        0x8664 => "x86_64",
        0x1c0 | 0x1c2 | 0x1c4 => "arm",
        0xaa64 => "aarch64",
        0x5032 => "riscv32",
        0x5064 => "riscv64",
        0x6264 => "loongarch64",
        _ => "unknown",
    };
    // Subsystems 10 to 12: EFI applications and drivers.
    if !matches!(v.le16(at + 24 + 68)?, 10..=12) {
        return Some(Content::new("program", "PE").with("architecture", architecture));
    }
    if v.has(4, b"zimg") {
        return Some(
            new("EFI zboot")
                .with("architecture", architecture)
                .maybe("compression", v.text(24, 16)),
        );
    }
    let sections = at + 24 + u64::from(v.le16(at + 20)?);
    let count = u64::from(v.le16(at + 6)?.min(96));
    let section = |name: &[u8]| {
        let headers = (0..count).map(|n| sections + 40 * n);
        headers.into_iter().find(|at| v.has(*at, name))
    };
    if section(b".linux\0\0").is_none() {
        return Some(new("EFI").with("architecture", architecture));
    }
    // A unified kernel image says in a section which release it has.
    let uname = section(b".uname\0\0").and_then(|header| {
        let (len, at) = (v.le32(header + 16)?, v.le32(header + 20)?);
        v.text(at.into(), len.min(256).into())
    });
    Some(
        new("unified kernel image")
            .with("architecture", architecture)
            .maybe("version", uname),
    )
}
