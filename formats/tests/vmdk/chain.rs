//! Delta links and disks in several files, as qemu-img makes and reads them.

use super::*;

/// Bytes of the disks here: more than one grain table, the last grain cut short.
const SIZE: usize = (33 << 20) + 512;

/// Writes `fill` over each of `ranges`, in the image by qemu-io and in `guest`.
fn change(path: &Path, name: &str, guest: &mut [u8], ranges: &[(usize, usize, u8)]) {
    let mut io = Command::new("qemu-io");
    io.current_dir(path).args(["-f", "vmdk"]);
    for &(at, len, fill) in ranges {
        io.args(["-c", &format!("write -P {fill} {at} {len}")]);
        guest[at..at + len].fill(fill);
    }
    let out = io.arg(name).output().expect("qemu-io is needed");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && !said.contains("rror"), "{said}");
}

fn delta(path: &Path, name: &str, base: &str) {
    let out = qemu_img(
        &["create", "-f", "vmdk", "-b", base, "-F", "vmdk", name],
        path,
    );
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
}

fn open_in(path: &Path, name: &str) -> Result<Arc<dyn Disk>> {
    formats::open(Arc::new(load(&path.join(name))), &within(path))
}

/// A base of `subformat` and two links on top, each with data of its own; what the guest sees in
/// the end.
fn chain(path: &Path, subformat: &str) -> Vec<u8> {
    let mut guest = guest(SIZE, 11);
    std::fs::write(path.join("guest.raw"), &guest).unwrap();
    let option = format!("subformat={subformat}");
    let args = [
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        &option,
        "guest.raw",
        "base.vmdk",
    ];
    qemu_convert(&args, path);
    delta(path, "one.vmdk", "base.vmdk");
    let first = [
        (0, 512, 0xa1),
        (3 << 20, 70_000, 0xa2),
        (SIZE - 512, 512, 0xa3),
    ];
    change(path, "one.vmdk", &mut guest, &first);
    delta(path, "two.vmdk", "one.vmdk");
    let second = [
        (1 << 20, 4096, 0xb1),
        (3 << 20, 512, 0xb2),
        (32 << 20, 65_536, 0xb3),
    ];
    change(path, "two.vmdk", &mut guest, &second);
    guest
}

#[test]
fn delta_links_fall_through_to_parents_of_every_kind() {
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let guest = chain(path, subformat);
        let disk = open_in(path, "two.vmdk").unwrap();
        for step in [1 << 20, 70_001] {
            assert!(
                content(disk.as_ref(), step).unwrap() == guest,
                "{subformat}"
            );
        }
        for extent in extents(disk.as_ref()).unwrap() {
            if extent.kind.is_hole() {
                let (from, to) = (extent.range.start.0 as usize, extent.range.end.0 as usize);
                assert!(
                    guest[from..to].iter().all(|&b| b == 0),
                    "{subformat}: {extent:?}"
                );
            }
        }
        qemu_convert(&["-f", "vmdk", "-O", "raw", "two.vmdk", "back.raw"], path);
        assert!(load(&path.join("back.raw")) == guest, "{subformat}");

        // Alone it is refused, by opening and by inspection.
        let bytes = load(&path.join("two.vmdk"));
        assert_eq!(refused_by(&inspect(&bytes)), Some("parent"));
        let error = open(&bytes).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("one.vmdk"), "{error}");
    }
}

#[test]
fn a_parent_must_be_the_one_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    chain(path, "monolithicSparse");
    let good = load(&path.join("one.vmdk"));
    let text = String::from_utf8(good[512..512 * 21].to_vec()).unwrap();
    let cid = text.lines().find_map(|l| l.strip_prefix("CID=")).unwrap();
    let damaged = text.replacen(&format!("CID={cid}"), "CID=12345678", 1);
    let mut changed = good.clone();
    changed[512..1024].copy_from_slice(&damaged.as_bytes()[..512]);
    std::fs::write(path.join("one.vmdk"), &changed).unwrap();
    let error = open_in(path, "two.vmdk").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    let said = error.to_string();
    let cid = format!("{:0>8}", cid.trim());
    assert!(said.contains("12345678") && said.contains(&cid), "{said}");

    // A parent of another kind, one that is its own, and one that is not there.
    std::fs::write(path.join("one.vmdk"), b"not a disk at all").unwrap();
    let error = open_in(path, "two.vmdk").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    std::fs::write(path.join("one.vmdk"), load(&path.join("two.vmdk"))).unwrap();
    let error = open_in(path, "two.vmdk").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("longer than"), "{error}");
    std::fs::remove_file(path.join("one.vmdk")).unwrap();
    let error = open_in(path, "two.vmdk").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn zeroed_grains_hide_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut guest = guest(2 << 20, 4);
    std::fs::write(path.join("guest.raw"), &guest).unwrap();
    qemu_convert(&["-f", "raw", "-O", "vmdk", "guest.raw", "base.vmdk"], path);
    let args = ["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk"];
    let out = qemu_img(
        &[&args[..], &["-o", "zeroed_grain=on", "top.vmdk"]].concat(),
        path,
    );
    assert!(out.status.success());
    let io = [
        "-f",
        "vmdk",
        "-c",
        "write -z 64k 256k",
        "-c",
        "write -P 7 0 512",
        "top.vmdk",
    ];
    let out = Command::new("qemu-io")
        .current_dir(path)
        .args(io)
        .output()
        .unwrap();
    assert!(out.status.success());
    guest[64 << 10..320 << 10].fill(0);
    guest[..512].fill(7);
    let disk = open_in(path, "top.vmdk").unwrap();
    assert!(content(disk.as_ref(), 1 << 20).unwrap() == guest);
    let all = extents(disk.as_ref()).unwrap();
    assert!(
        all.iter()
            .any(|e| e.kind == ExtentKind::Zero && e.range.start.0 == 64 << 10)
    );
}

#[test]
fn a_sparse_file_may_name_more_extents_than_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let first = guest(1 << 20, 21);
    let second = guest(512 << 10, 22);
    let mut image = write(&first, &[], 1);
    let old = String::from_utf8(image[512..512 * 21].to_vec()).unwrap();
    let old = old.trim_end_matches('\0');
    let new = old.replace(
        "RW 2048 SPARSE \"disk.vmdk\"",
        "RW 2048 SPARSE \"disk.vmdk\"\nRW 1024 FLAT \"more.vmdk\" 0\nRW 8 ZERO",
    );
    assert_ne!(old, new);
    image[512..512 + new.len()].copy_from_slice(new.as_bytes());
    std::fs::write(path.join("disk.vmdk"), &image).unwrap();
    std::fs::write(path.join("more.vmdk"), &second).unwrap();
    let disk = open_in(path, "disk.vmdk").unwrap();
    let wanted = [&first[..], &second, &[0; 4096]].concat();
    assert!(content(disk.as_ref(), 1 << 20).unwrap() == wanted);
    assert_eq!(refused_by(&inspect(&image)), Some("extent_count"));
    assert_eq!(open(&image).err().unwrap().kind(), ErrorKind::Refused);
}
