//! What is written here comes back, from qemu-img too.

use super::*;

/// Writes random bytes, which must come back both here and from qemu-img.
fn write_witness(driver: &str, format: Format, option: &str, len: u64) {
    let dir = tempfile::tempdir().unwrap();
    let names = ["in.raw", "image", "again", "back.raw"];
    let [raw, image, again, back] = names.map(|name| dir.path().join(name));
    random_raw(&raw, len, len + option.len() as u64);
    let pairs: Vec<(String, String)> = option
        .split(',')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let options = CreateOptions::parse(format, &pairs, false).unwrap();
    written(&raw, &image, &options, 1);
    written(&raw, &again, &options, 7);
    let bytes = std::fs::read(&image).unwrap();
    assert!(
        bytes == std::fs::read(&again).unwrap(),
        "{option}: threads change the output"
    );
    qemu_img(&["convert", "-f", driver, "-O", "raw"], &[&image, &back]);
    qemu_img(&["compare", "-f", "raw", "-F", driver], &[&raw, &image]);
    if format != Format::Vhd {
        // qemu-img checks the other two.
        qemu_img(&["check", "-q", "-f", driver], &[&image]);
    }
    let found = inspected(&image);
    assert_eq!(found.format, format);
    assert!(found.findings.is_empty(), "{option}: {:?}", found.findings);
    let disk = opened(&image, format).unwrap();
    same_as_raw(disk.as_ref(), &image, &back);
    let exact = len.next_multiple_of(512);
    if option.contains("force_size=on") || format != Format::Vhd {
        assert_eq!(disk.virtual_size(), exact, "{option}");
    } else {
        assert!((exact..exact + (1 << 20)).contains(&disk.virtual_size()));
    }
}

#[test]
fn qemu_img_reads_what_is_written() {
    for (driver, format, option) in [
        ("vpc", Format::Vhd, "subformat=dynamic"),
        ("vpc", Format::Vhd, "subformat=dynamic,force_size=on"),
        ("vpc", Format::Vhd, "subformat=fixed"),
        ("vpc", Format::Vhd, "subformat=fixed,force_size=on"),
        ("vhdx", Format::Vhdx, "subformat=dynamic"),
        ("vhdx", Format::Vhdx, "block_size=1M,log_size=3M"),
        ("vhdx", Format::Vhdx, "block_size=32M"),
        ("vhdx", Format::Vhdx, "subformat=fixed,block_size=4M"),
        ("vdi", Format::Vdi, "static=off"),
        ("vdi", Format::Vdi, "static=on"),
    ] {
        write_witness(driver, format, option, 9 << 20);
        write_witness(driver, format, option, (17 << 20) + 5000);
    }
}

#[test]
fn writers_refuse_what_they_cannot_hold() {
    let refused = |format, pairs: &[(&str, &str)], size| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let made = CreateOptions::parse(format, &pairs, false).and_then(|o| create(&o, size));
        made.err().map(|e| e.kind()) == Some(ErrorKind::Usage)
    };
    assert!(refused(Format::Vhd, &[], (2040 << 30) + 512));
    assert!(!refused(Format::Vhd, &[], 2040 << 30));
    assert!(refused(Format::Vhdx, &[], (64 << 40) + 512));
    assert!(!refused(Format::Vhdx, &[], 64 << 40));
    assert!(refused(Format::Vdi, &[], u64::MAX));
    for format in [Format::Vhd, Format::Vhdx, Format::Vdi] {
        assert_eq!(refused(format, &[], 0), format == Format::Vhdx);
        assert!(refused(format, &[("colour", "red")], 1 << 20));
        assert!(refused(format, &[("uuid", "red")], 1 << 20));
        assert!(CreateOptions::parse(format, &[], true).is_err());
    }
    assert!(refused(Format::Vhd, &[("subformat", "fixed")], 0));
    assert!(refused(Format::Vhd, &[("subformat", "thin")], 1 << 20));
    assert!(refused(Format::Vhdx, &[("block_size", "3M")], 1 << 20));
    assert!(refused(Format::Vhdx, &[("log_size", "0")], 1 << 20));
    assert!(refused(Format::Vdi, &[("static", "maybe")], 1 << 20));
}
