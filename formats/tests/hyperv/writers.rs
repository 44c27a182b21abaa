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
    let found = formats::check::check(
        &source(&image),
        &super::options(format),
        &Progress::default(),
    );
    assert!(found.unwrap().is_clean(), "{option}");
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
        ("vhdx", Format::Vhdx, "block_size=1M,block_state_zero=on"),
        ("vhdx", Format::Vhdx, "subformat=fixed,block_state_zero=on"),
        ("vhdx", Format::Vhdx, "physical_sector_size=512"),
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
    assert!(refused(
        Format::Vhdx,
        &[("logical_sector_size", "1024")],
        1 << 20
    ));
    let sectors = [
        ("logical_sector_size", "4096"),
        ("physical_sector_size", "512"),
    ];
    assert!(refused(Format::Vhdx, &sectors, 1 << 20));
    let azure = |more| refused(Format::Vhd, &[("profile", "azure"), more], 1 << 20);
    assert!(azure(("subformat", "dynamic")) && azure(("force_size", "off")));
    assert!(!azure(("subformat", "fixed")) && !azure(("force_size", "on")));
    assert!(refused(Format::Vhd, &[("profile", "gcp")], 1 << 20));
    assert!(refused(Format::Vdi, &[("static", "maybe")], 1 << 20));
}

/// qemu-img does not open disks of 4096-byte sectors.
#[test]
fn sectors_of_4096_bytes_come_back() {
    let mut random = Random(1);
    let guest = differencing::random_guest((9 << 20) + 5000, &mut random);
    for more in [
        ("subformat", "dynamic"),
        ("subformat", "fixed"),
        ("block_size", "1M"),
    ] {
        let file = differencing::base(
            Format::Vhdx,
            &[("logical_sector_size", "4096"), more],
            &guest,
        );
        let disk = open(Arc::new(file.clone()), &options(Format::Vhdx)).unwrap();
        assert_eq!(disk.virtual_size(), (9 << 20) + 8192);
        let mut found = vec![1; guest.len()];
        disk.read_at(&mut found, GuestOffset::ZERO).unwrap();
        assert!(found == guest, "{more:?}");
        let judged = inspect(&file, &Limits::default()).unwrap();
        assert_eq!(judged.verdict(), Verdict::Safe);
        assert_eq!(judged.details["logical_sector_size"], 4096);
        assert!(check::checked(&file, Format::Vhdx).unwrap().is_clean());
    }
}

/// Azure takes fixed disks whose size is whole MiB, and goes by the size field.
#[test]
fn azure_gets_whole_mib() {
    for (len, expected) in [(1, 1), (1 << 20, 1), ((5 << 20) + 1, 6)] {
        let file = differencing::base(Format::Vhd, &[("profile", "azure")], &vec![3; len]);
        assert_eq!(file.len(), (expected << 20) + 512);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, &file).unwrap();
        let out = Command::new("qemu-img")
            .args(["info", "-f", "vpc", "--output=json"])
            .arg(&image)
            .output()
            .unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        assert!(
            said.contains(&format!("\"virtual-size\": {},", expected << 20)),
            "{said}"
        );
        let disk = opened(&image, Format::Vhd).unwrap();
        assert_eq!(disk.virtual_size(), (expected as u64) << 20);
    }
}

/// An empty disk is written as holes, but for what its table must say.
#[test]
fn empty_disks_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let [raw, image] = ["raw", "image"].map(|name| dir.path().join(name));
    for (format, size, pair, most) in [
        (Format::Vhd, 2040u64 << 30, "force_size=on", 5 << 20),
        (Format::Vhdx, 8 << 40, "block_size=1M", 1 << 20),
        (Format::Vhdx, 8 << 40, "subformat=dynamic", 1 << 20),
        (Format::Vdi, 8 << 40, "static=off", 33 << 20),
    ] {
        File::create(&raw).unwrap().set_len(size).unwrap();
        let (key, value) = pair.split_once('=').unwrap();
        let pairs = [(key.to_owned(), value.to_owned())];
        written(
            &raw,
            &image,
            &CreateOptions::parse(format, &pairs, false).unwrap(),
            2,
        );
        let taken = std::fs::metadata(&image).unwrap().blocks() * 512;
        assert!(taken <= most, "{format} {pair}: {taken}");
        let disk = opened(&image, format).unwrap();
        assert_eq!(disk.virtual_size(), size);
        let found = extents(disk.as_ref());
        assert_eq!(found.len(), 1, "{format} {pair}");
        let found = formats::check::check(&source(&image), &options(format), &Progress::default());
        assert!(found.unwrap().is_clean(), "{format} {pair}");
    }
}
