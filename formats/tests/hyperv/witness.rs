//! What qemu-img writes is read as qemu-img reads it.

use super::*;

/// Converts random bytes with qemu-img, then reads them back both there and here.
fn witness(driver: &str, format: Format, option: &str, len: u64) {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image, back] = ["in.raw", "image", "back.raw"].map(|name| dir.path().join(name));
    random_raw(&raw, len, len ^ option.len() as u64);
    qemu_img(
        &["convert", "-f", "raw", "-O", driver, "-o", option],
        &[&raw, &image],
    );
    qemu_img(&["convert", "-f", driver, "-O", "raw"], &[&image, &back]);
    let found = inspected(&image);
    assert_eq!(found.format, format, "{option}");
    assert!(found.findings.is_empty(), "{option}: {:?}", found.findings);
    let disk = opened(&image, format).unwrap();
    assert_eq!(found.virtual_size, Some(disk.virtual_size()));
    same_as_raw(disk.as_ref(), &image, &back);
}

/// The options qemu-img has that change the file.
pub(crate) const OPTIONS: &[(&str, Format, &str)] = &[
    ("vpc", Format::Vhd, "subformat=dynamic"),
    ("vpc", Format::Vhd, "subformat=dynamic,force_size=on"),
    ("vpc", Format::Vhd, "subformat=fixed"),
    ("vpc", Format::Vhd, "subformat=fixed,force_size=on"),
    ("vpc", Format::Vhd, "subformat=fixed,preallocation=falloc"),
    ("vhdx", Format::Vhdx, "subformat=dynamic"),
    ("vhdx", Format::Vhdx, "subformat=dynamic,block_size=1M"),
    ("vhdx", Format::Vhdx, "block_size=2M,log_size=4M"),
    ("vhdx", Format::Vhdx, "subformat=dynamic,block_size=256M"),
    ("vhdx", Format::Vhdx, "block_size=4M,block_state_zero=on"),
    ("vhdx", Format::Vhdx, "subformat=fixed"),
    (
        "vhdx",
        Format::Vhdx,
        "subformat=fixed,block_size=1M,block_state_zero=off",
    ),
    ("vdi", Format::Vdi, "static=off"),
    ("vdi", Format::Vdi, "static=on"),
    ("vdi", Format::Vdi, "static=on,preallocation=full"),
];

fn reads_as_qemu_img_does(format: Format) {
    for (driver, _, option) in OPTIONS.iter().filter(|(_, of, _)| *of == format) {
        witness(driver, format, option, 9 << 20);
        witness(driver, format, option, (23 << 20) + 512);
    }
}

#[test]
fn reads_vhd_as_qemu_img_does() {
    reads_as_qemu_img_does(Format::Vhd);
}

#[test]
fn reads_vhdx_as_qemu_img_does() {
    reads_as_qemu_img_does(Format::Vhdx);
}

#[test]
fn reads_vdi_as_qemu_img_does() {
    reads_as_qemu_img_does(Format::Vdi);
}

/// After 4096 blocks of 1 MiB the BAT holds the entry of a sector bitmap.
#[test]
fn steps_over_sector_bitmaps_of_vhdx() {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image] = ["raw", "vhdx"].map(|name| dir.path().join(name));
    let at = (4097u64 << 20) + 5;
    let mut file = File::create(&raw).unwrap();
    file.set_len(9 << 30).unwrap();
    put(&mut file, at, b"behind the bitmap");
    let args = ["convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M"];
    qemu_img(&args, &[&raw, &image]);
    let disk = opened(&image, Format::Vhdx).unwrap();
    let mut buf = [0; 17];
    disk.read_at(&mut buf, GuestOffset(at)).unwrap();
    assert_eq!(&buf, b"behind the bitmap");
    let mut data = extents(disk.as_ref());
    data.retain(|e| !e.kind.is_hole());
    assert!(data.iter().any(|e| e.range.contains(&GuestOffset(at))));
    assert!(data.iter().map(|e| guest_len(&e.range)).sum::<u64>() <= 1 << 20);
}

#[test]
fn an_empty_disk_of_64_tib_is_one_extent() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("empty.vhdx");
    qemu_img(
        &["create", "-q", "-f", "vhdx", "-o", "block_size=1M"],
        &[&image, Path::new("64T")],
    );
    let disk = opened(&image, Format::Vhdx).unwrap();
    let found = extents(disk.as_ref());
    assert_eq!(found.len(), 1);
    assert!(found[0].kind.is_hole());
    let mut buf = [1; 512];
    let last = GuestOffset((64 << 40) - 512);
    disk.read_at(&mut buf, last).unwrap();
    assert!(bytes::is_zero(&buf));
}

/// Whoever made a vhd decides whether its geometry or its size counts; qemu-img goes by the same
/// names.
#[test]
fn sizes_vhd_as_qemu_img_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let creators = [
        "vpc ", "qemu", "qem2", "win ", "d2v ", "tap\0", "CTXS", "wa\0\0", "vbox", "glnt", "vs  ",
    ];
    for creator in creators {
        for (cylinders, heads, sectors) in [(100u16, 4u8, 17u8), (65535, 16, 255), (120, 4, 17)] {
            let mut file = vec![0; (4 << 20) + 512];
            let footer = &mut file[4 << 20..];
            footer[..8].copy_from_slice(b"conectix");
            footer[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
            footer[16..24].fill(0xff);
            footer[28..32].copy_from_slice(creator.as_bytes());
            footer[48..56].copy_from_slice(&(4u64 << 20).to_be_bytes());
            footer[56..58].copy_from_slice(&cylinders.to_be_bytes());
            (footer[58], footer[59], footer[63]) = (heads, sectors, 2);
            let sum = !footer.iter().fold(0u32, |sum, b| sum + u32::from(*b));
            footer[64..68].copy_from_slice(&sum.to_be_bytes());
            std::fs::write(&path, &file).unwrap();
            let args = ["info", "-f", "vpc", "--output=json"];
            let out = Command::new("qemu-img")
                .args(args)
                .arg(&path)
                .output()
                .unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            let size = opened(&path, Format::Vhd).unwrap().virtual_size();
            let line = format!("\"virtual-size\": {size},");
            assert!(
                said.contains(&line),
                "{creator:?} {cylinders}: {size}, {said}"
            );
        }
    }
}
