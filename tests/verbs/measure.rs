use super::*;

#[test]
fn the_size_is_that_of_the_file_that_convert_makes() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -f raw -O vdi a.raw a.vdi");
    for options in [
        "-O raw",
        "-O qcow2",
        "-O qcow2 -o cluster_size=4k",
        "-O qcow2 -c",
        "-O vmdk",
        "-O vmdk -c -o subformat=streamOptimized",
        "-O vhd",
        "-O vhd -o subformat=fixed",
        "-O vhdx",
        "-O vdi",
        "-O vdi -o static=on",
    ] {
        let seen = room.json(&format!("measure {options} --output json a.vdi"));
        let bound = room.json(&format!("measure --quick {options} --output json a.vdi"));
        room.fine(&format!("convert {options} a.vdi out"));
        let size = fs::metadata(room.path("out")).unwrap().len();
        assert_eq!(seen["required"], size, "{options}");
        assert!(bound["required"].as_u64() >= Some(size), "{options}");
        assert!(seen["fully-allocated"].as_u64() >= Some(size), "{options}");
        fs::remove_file(room.path("out")).unwrap();
    }
    let text = room.fine("measure -O raw a.vdi");
    assert_eq!(
        text,
        "required size: 5243392\nfully allocated size: 5243392\n"
    );
}

#[test]
fn a_new_image_is_measured_by_its_size() {
    let room = Room::new();
    for options in ["-O raw", "-O qcow2", "-O vmdk", "-O vhdx", "-O vdi"] {
        let seen = room.json(&format!("measure {options} --output json --size 1G"));
        let create = options.replace("-O", "-f");
        room.fine(&format!("create --force {create} out 1G"));
        let size = fs::metadata(room.path("out")).unwrap().len();
        assert_eq!(seen["required"], size, "{options}");
    }
    for args in ["-O qcow2", "-O qed --size 1G", "--size 1G out", "--size x"] {
        assert_eq!(room.glint(&format!("measure {args}")).0, 2, "{args}");
    }
}
