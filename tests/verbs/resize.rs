use super::*;

#[test]
fn disks_grow_and_shrink_as_asked() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -f raw -O qcow2 a.raw a.qcow2");
    for (args, size) in [
        ("10M", 10 << 20),
        ("+6M", 16 << 20),
        ("--shrink -8M", 8 << 20),
        ("--shrink 3M", 3 << 20),
        ("3M", 3 << 20),
    ] {
        let seen = room.json(&format!("resize --output json a.qcow2 {args}"));
        assert_eq!(seen["virtual_size"], size, "{args}");
        assert_eq!(
            room.fine(&format!("resize a.raw {args}")),
            "Image resized.\n"
        );
        assert_eq!(fs::metadata(room.path("a.raw")).unwrap().len(), size);
        room.qemu("check -q a.qcow2");
        room.qemu("compare -q -f qcow2 -F raw a.qcow2 a.raw");
    }
}

#[test]
fn nothing_is_lost_without_asking() {
    let room = Room::new();
    room.raw("a.raw");
    for (format, name) in [("qcow2", "a.qcow2"), ("vdi", "a.vdi")] {
        room.qemu(&format!("convert -f raw -O {format} a.raw {name}"));
    }
    for (args, code) in [
        ("a.qcow2 1M", 2),
        ("a.raw -1M", 2),
        ("--shrink a.raw -1G", 2),
        ("a.raw x", 2),
        ("none 1M", 2),
        // The bytes of an image are not the guest's.
        ("-f raw a.qcow2 1G", 1),
        ("-f qcow2 a.raw 1G", 1),
        ("a.vdi 1G", 1),
    ] {
        let before = ["a.raw", "a.qcow2", "a.vdi"].map(|f| fs::read(room.path(f)).unwrap());
        let (seen, out, err) = room.glint(&format!("resize {args}"));
        assert_eq!((seen, out.as_str()), (code, ""), "{args}: {err}");
        let after = ["a.raw", "a.qcow2", "a.vdi"].map(|f| fs::read(room.path(f)).unwrap());
        assert!(before == after, "{args}");
    }
}

#[test]
fn an_image_in_use_is_left_alone() {
    let room = Room::new();
    room.qemu("create -q -f qcow2 a.qcow2 1M");
    let mut holder = Command::new("qemu-io")
        .args(["-f", "qcow2", "a.qcow2"])
        .current_dir(room.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It asks for commands once the image is open.
    let mut prompt = [0; 8];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    let (code, _, err) = room.glint("resize a.qcow2 2M");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(code, 2);
    assert!(err.contains("another program has it open"), "{err}");
    room.fine("resize a.qcow2 2M");
}
