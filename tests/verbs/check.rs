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

/// Writes `bytes` at `at` of a file, which is otherwise as it was.
fn put(room: &Room, name: &str, at: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(room.path(name));
    file.unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn tables_of_qed_and_parallels_are_held_against_the_file() {
    let room = Room::new();
    room.raw("a.raw");
    for format in ["qed", "parallels"] {
        room.qemu(&format!("convert -f raw -O {format} a.raw sound"));
        let sound = fs::read(room.path("sound")).unwrap();
        let number = |at: u64| {
            let at = usize::try_from(at).unwrap();
            u64::from_le_bytes(sound[at..at + 8].try_into().unwrap())
        };
        let (ours, code) = seen(&room, format, "sound");
        assert_eq!((code, &ours["corruptions"]), (0, &0.into()), "{ours}");
        assert_eq!(ours["leaks"], 0, "{ours}");

        // The first entry, how long one is, and which is the next of a cluster that is stored.
        let (first, width, second) = match format {
            "qed" => (number(number(40)), 8, 1),
            _ => (64, 4, 2),
        };
        let entry = |n: u64| (number(first + n * width) << (64 - 8 * width)) >> (64 - 8 * width);
        assert!(
            entry(0) != 0 && entry(second) != 0,
            "{format} holds nothing"
        );
        let mut damages = vec![("twice", entry(0)), ("outside", 0x7fff_0000)];
        if format == "qed" {
            damages.push(("on the L1 table", number(40)));
        }
        for (what, value) in damages {
            fs::write(room.path("bad"), &sound).unwrap();
            let bytes = value.to_le_bytes();
            let at = first + second * width;
            put(&room, "bad", at, &bytes[..usize::try_from(width).unwrap()]);
            let (ours, code) = seen(&room, format, "bad");
            assert_eq!(
                (code, &ours["corruptions"]),
                (1, &1.into()),
                "{what}: {ours}"
            );
            let problem = &ours["problems"][0];
            let place = problem["place"].as_str().unwrap();
            assert!(place.ends_with(&format!("byte {at:#x}")), "{what}: {place}");
            // What the entry placed before is lost.
            assert_eq!(ours["leaks"], 1, "{what}: {ours}");
        }
        fs::write(room.path("bad"), [sound.clone(), vec![0; 2 << 20]].concat()).unwrap();
        let (ours, code) = seen(&room, format, "bad");
        assert_eq!(
            (code, &ours["leaked-bytes"]),
            (1, &(2 << 20).into()),
            "{ours}"
        );
    }
}

/// What a check says and its exit code; qemu-img has to count the same corruptions and clusters.
fn seen(room: &Room, format: &str, name: &str) -> (Value, i32) {
    let (code, out, _) = room.glint(&format!("check --output json {name}"));
    let ours: Value = serde_json::from_str(&out).unwrap();
    let args = ["check", "-f", format, "--output=json", name];
    let theirs = room.run("qemu-img", &args);
    if let Ok(theirs) = serde_json::from_slice::<Value>(&theirs.stdout) {
        for key in [
            "format",
            "total-clusters",
            "allocated-clusters",
            "corruptions",
        ] {
            if let Some(value) = theirs.get(key) {
                assert_eq!(&ours[key], value, "{name}: {key}: {ours} {theirs}");
            }
        }
    }
    (ours, code)
}
