use super::*;

#[test]
fn agrees_with_qemu_img_over_all_formats() {
    let room = Room::new();
    room.raw("a.raw");
    room.raw("b.raw");
    room.poke("b.raw", (2 << 20) + 69_999);
    for (format, options) in [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "-c"),
        ("qcow2", "-o extended_l2=on"),
        ("vmdk", ""),
        ("vmdk", "-o subformat=streamOptimized"),
        ("vpc", "-o force_size=on"),
        ("vhdx", ""),
        ("vdi", ""),
    ] {
        room.qemu(&format!(
            "convert -f raw -O {format} {options} a.raw a.image"
        ));
        for other in ["a.raw", "b.raw"] {
            for (left, right) in [("a.image", other), (other, "a.image")] {
                let (code, out, _) = room.glint(&format!("compare {left} {right}"));
                let witness = room.run("qemu-img", &["compare", left, right]);
                assert_eq!(Some(code), witness.status.code(), "{format} {options}");
                let expected = match other {
                    "a.raw" => "Images are identical.\n",
                    _ => "Content mismatch at offset 2167151!\n",
                };
                assert_eq!(out, expected, "{format} {options}");
            }
        }
    }
}

#[test]
fn a_longer_disk_is_the_same_only_where_it_is_zero() {
    let room = Room::new();
    room.raw("a.raw");
    room.raw("b.raw");
    room.cut("b.raw", 9 << 20);
    let (code, out, err) = room.glint("compare a.raw b.raw");
    assert_eq!((code, out.as_str()), (0, "Images are identical.\n"));
    assert_eq!(err, "Warning: Image size mismatch!\n");
    let (code, _, err) = room.glint("compare --output json a.raw b.raw");
    assert_eq!((code, err.as_str()), (0, "Warning: Image size mismatch!\n"));
    assert_eq!(
        room.glint("compare -q a.raw b.raw"),
        (0, "".into(), "".into())
    );
    let (code, out, _) = room.glint("compare -s a.raw b.raw");
    assert_eq!(
        (code, out.as_str()),
        (1, "Strict mode: Image size mismatch!\n")
    );
    room.poke("b.raw", (8 << 20) + 5);
    let (code, out, _) = room.glint("compare --output json b.raw a.raw");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &seen["identical"]), (1, &false.into()));
    assert_eq!(seen["first_difference"], (8 << 20) + 5);
    assert_eq!(seen["files"][0]["virtual_size"], 9 << 20);
    assert_eq!(seen["files"][1]["format"], "raw");
}

#[test]
fn strictness_asks_what_is_stored() {
    let room = Room::new();
    fs::write(room.path("a.raw"), vec![0; 1 << 20]).unwrap();
    fs::write(room.path("b.raw"), []).unwrap();
    room.cut("b.raw", 1 << 20);
    assert_eq!(room.glint("compare a.raw b.raw").0, 0);
    let (code, out, _) = room.glint("compare -s a.raw b.raw");
    assert_eq!(code, 1);
    assert_eq!(out, "Strict mode: Offset 0 block status mismatch!\n");
}

#[test]
fn an_image_that_cannot_be_used_is_named() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("create -q -f qcow2 -b a.raw -F raw b.qcow2");
    let (code, out, err) = room.glint("compare a.raw b.qcow2");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("[backing_file]"), "{err}");
    assert!(err.contains("error: b.qcow2: "), "{err}");
    let (code, _, err) = room.glint("compare a.raw none");
    assert_eq!(code, 2);
    assert!(err.starts_with("error: opening none"), "{err}");
    let (code, _, err) = room.glint("compare -f qcow2 a.raw a.raw");
    assert_eq!(code, 1);
    assert!(err.contains("not qcow2 as -f says"), "{err}");
}
