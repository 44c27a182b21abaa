use super::*;

#[test]
fn other_programs_see_an_empty_disk() {
    let room = Room::new();
    for (format, options) in [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "-o cluster_size=2M"),
        ("vmdk", ""),
        ("vpc", "-o force_size=on"),
        ("vhdx", ""),
        ("vdi", ""),
    ] {
        let args = format!("create --force --output json -f {format} {options} a.image 1.5G");
        let made = room.json(&args);
        assert_eq!(made["virtual_size"], 3 << 29, "{format}");
        let seen = room.qemu(&format!("info -f {format} --output=json a.image"));
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["virtual-size"], 3 << 29, "{format}");
        room.qemu("create -q -f raw zero.raw 1536M");
        room.qemu(&format!("compare -q -f {format} -F raw a.image zero.raw"));
    }
}

#[test]
fn room_is_reserved_where_it_is_asked_for() {
    let room = Room::new();
    room.raw("a.raw");
    for format in ["raw", "qcow2"] {
        for how in ["off", "falloc", "full"] {
            let options = format!("-o preallocation={how} --output json");
            let made = room.json(&format!("create --force -f {format} {options} new 8M"));
            let copied = room.json(&format!("convert -O {format} {options} a.raw copy"));
            for seen in [&made, &copied] {
                let size = seen["virtual_size"].as_u64().unwrap();
                let allocated = seen["allocated_size"].as_u64().unwrap();
                assert_eq!(allocated >= size, how != "off", "{format} {how}: {seen}");
            }
            room.fine("compare a.raw copy");
        }
    }
}

#[test]
fn what_is_there_is_left_alone() {
    let room = Room::new();
    fs::write(room.path("a"), "precious").unwrap();
    let (code, out, err) = room.glint("create -f qcow2 a 1G");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("--force"), "{err}");
    assert_eq!(fs::read(room.path("a")).unwrap(), b"precious");
    assert_eq!(room.fine("create -q --force -f qcow2 a 1G"), "");
    assert_eq!(
        room.fine("create b 10M"),
        "b: raw, 10.00 MiB (10485760 bytes)\n"
    );
    for args in [
        "create c",
        "create c -1",
        "create -f qed c 1G",
        "create -o a=b c 1G",
    ] {
        assert_eq!(room.glint(args).0, 2, "{args}");
        assert!(!room.path("c").exists());
    }
}

#[test]
fn an_image_in_several_files_is_made_of_all_of_them() {
    let room = Room::new();
    for (subformat, files) in [
        ("monolithicSparse", &["a.vmdk"][..]),
        ("streamOptimized", &["a.vmdk"]),
        ("monolithicFlat", &["a-flat.vmdk", "a.vmdk"]),
        (
            "twoGbMaxExtentSparse",
            &["a-s001.vmdk", "a-s002.vmdk", "a.vmdk"],
        ),
        (
            "twoGbMaxExtentFlat",
            &["a-f001.vmdk", "a-f002.vmdk", "a.vmdk"],
        ),
    ] {
        let create = format!("create --output json -f vmdk -o subformat={subformat} a.vmdk 3G");
        let made = room.json(&create);
        assert_eq!(made["virtual_size"], 3_u64 << 30, "{subformat}");
        let mut found: Vec<_> = fs::read_dir(room.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, files, "{subformat}");
        let seen: Value = serde_json::from_str(&room.qemu("info --output=json a.vmdk")).unwrap();
        assert_eq!(seen["virtual-size"], 3_u64 << 30, "{subformat}");
        assert_eq!(
            seen["format-specific"]["data"]["create-type"], subformat,
            "{seen}"
        );

        // None of the files is written over unasked, whichever is there.
        fs::remove_file(room.path("a.vmdk")).unwrap();
        if files.len() > 1 {
            let (code, _, err) = room.glint(&create);
            assert_eq!(code, 2, "{subformat}");
            assert!(err.contains(files[0]) && err.contains("--force"), "{err}");
            assert!(!room.path("a.vmdk").exists());
            room.fine(&create.replace("create", "create --force"));
        }
        for file in files {
            let _ = fs::remove_file(room.path(file));
        }
    }
}
