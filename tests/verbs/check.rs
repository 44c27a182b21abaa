use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn a_raw_file_has_nothing_to_check_and_that_is_not_its_fault() {
    let room = Room::new();
    room.raw("a.raw");
    let (code, out, err) = room.glint("check --output json a.raw");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &seen["check-errors"]), (2, &1.into()));
    assert!(err.starts_with("error: a.raw: "), "{err}");
}

#[test]
fn a_sound_image_is_counted_as_qemu_img_counts() {
    let room = Room::new();
    room.raw("a.raw");
    for options in ["", "-c", "-o cluster_size=4k"] {
        room.qemu(&format!("convert -f raw -O qcow2 {options} a.raw a.qcow2"));
        let ours = room.json("check --output json a.qcow2");
        let theirs = room.qemu("check --output=json a.qcow2");
        let theirs: Value = serde_json::from_str(&theirs).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(&ours[key], value, "{options}: {key}");
        }
        assert_eq!(ours["corruptions"], 0);
        let text = room.fine("check a.qcow2");
        assert_eq!(text, room.qemu("check a.qcow2"), "{options}");
        assert_eq!(room.fine("check -q a.qcow2"), "");
    }
}

/// Counts one user too many for the cluster at the end of the file.
fn leak(room: &Room, name: &str) {
    let path = room.path(name);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let len = file.metadata().unwrap().len().next_multiple_of(65536);
    file.set_len(len + 65536).unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let block = number(number(48));
    file.write_all_at(&[0, 1], block + len / 65536 * 2).unwrap();
}

#[test]
fn lost_space_is_told_and_given_back() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -f raw -O qcow2 a.raw a.qcow2");
    leak(&room, "a.qcow2");
    let (code, out, _) = room.glint("check --output json a.qcow2");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &seen["leaks"]), (1, &1.into()), "{seen}");
    assert_eq!(seen["problems"][0]["kind"], "leak");

    let before = fs::read(room.path("a.qcow2")).unwrap();
    let seen = room.json("check -r leaks --output-file b.qcow2 --output json a.qcow2");
    assert_eq!(
        (&seen["leaks-fixed"], &seen["leaks"]),
        (&1.into(), &0.into())
    );
    assert_eq!(fs::read(room.path("a.qcow2")).unwrap(), before);
    room.qemu("check -q b.qcow2");
    room.qemu("compare -q -f raw -F qcow2 a.raw b.qcow2");
    // A file that is there is left alone.
    assert_eq!(
        room.glint("check -r all --output-file b.qcow2 a.qcow2").0,
        2
    );

    let text = room.fine("check --repair all a.qcow2");
    assert!(text.starts_with("Repaired: 0 errors, 1 leaks."), "{text}");
    room.qemu("check -q a.qcow2");
    room.qemu("compare -q -f raw -F qcow2 a.raw a.qcow2");
}

#[test]
fn damage_is_code_one_and_several_files_make_an_array() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -f raw -O qcow2 a.raw a.qcow2");
    room.qemu("convert -f raw -O vdi a.raw a.vdi");
    let (code, out, _) = room.glint("check --output json a.qcow2 a.vdi none");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, seen.as_array().unwrap().len()), (2, 3));
    assert_eq!(seen[1]["corruptions"], 0);
    assert!(seen[2]["error"].as_str().unwrap().contains("No such file"));
    let (code, _, err) = room.glint("check -r all a.vdi");
    assert_eq!(code, 2);
    assert!(err.contains("is not repaired"), "{err}");
}
