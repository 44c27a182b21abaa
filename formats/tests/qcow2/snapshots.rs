//! Internal snapshots and bitmaps.

use super::*;

#[test]
fn the_active_state_of_an_image_with_snapshots_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let guest = guest(MIB, 5);
    std::fs::write(folder.path().join("guest.raw"), &guest).unwrap();
    qemu_img(
        folder.path(),
        &["convert", "-O", "qcow2", "-f", "raw", "guest.raw", "image"],
    );
    qemu_img(folder.path(), &["snapshot", "-c", "first", "image"]);
    run(
        "qemu-io",
        folder.path(),
        &["-f", "qcow2", "-c", "write -P 77 1000 300000", "image"],
    );
    let disk = open_file(&folder.path().join("image"));
    reads_as(
        disk.as_ref(),
        &as_qemu_reads(folder.path(), "image"),
        "with a snapshot",
    );
    let inspection = inspect(&std::fs::read(folder.path().join("image")).unwrap());
    assert_eq!(inspection.verdict(), Verdict::Safe);
    assert_eq!(inspection.details["snapshots"], 1);
    assert_eq!(inspection.findings[0].rule, "internal_snapshots");
}

/// Makes an image whose snapshots and present state all differ, on a backing file with content
/// of its own. Gives what each snapshot holds, as qemu-img reads it.
fn states(at: &Path, options: &str) -> Vec<Vec<u8>> {
    std::fs::write(at.join("base.raw"), guest(2 * MIB, 41)).unwrap();
    let mut create = vec!["create", "-f", "qcow2"];
    if !options.is_empty() {
        create.extend(["-o", options]);
    }
    create.extend(["-b", "base.raw", "-F", "raw", "image"]);
    qemu_img(at, &create);
    let io = |commands: &[&str]| {
        for command in commands {
            run("qemu-io", at, &["-f", "qcow2", "-c", command, "image"]);
        }
    };
    io(&["write -P 1 0 100k", "write -P 2 500k 300k"]);
    qemu_img(at, &["snapshot", "-c", "one", "image"]);
    io(&["write -P 3 50k 10k", "write -P 4 1M 200k"]);
    qemu_img(at, &["snapshot", "-c", "two words", "image"]);
    io(&["write -P 5 550k 1k"]);
    qemu_img(at, &["snapshot", "-c", "1", "image"]);
    io(&["write -P 6 0 300k"]);
    let mut all = Vec::new();
    for id in ["1", "2", "3"] {
        let wanted = format!("snapshot.id={id}");
        qemu_img(
            at,
            &["convert", "-l", &wanted, "-O", "raw", "image", "read.raw"],
        );
        all.push(std::fs::read(at.join("read.raw")).unwrap());
    }
    all
}

#[test]
fn snapshots_are_read_by_name_and_id() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for form in ["", "compat=0.10", "extended_l2=on,cluster_size=16k"] {
        let states = states(at, form);
        assert!(states[0] != states[1] && states[1] != states[2]);
        let open = |snapshot: Option<&str>| {
            let options = OpenOptions {
                snapshot: snapshot.map(str::to_owned),
                ..options(Folder(at.into()))
            };
            formats::open(source(&at.join("image")).unwrap(), &options)
        };
        // An id goes before a name: the third, named "1", is reached by its id only.
        for (wanted, n) in [("one", 0), ("1", 0), ("two words", 1), ("2", 1), ("3", 2)] {
            reads_as(open(Some(wanted)).unwrap().as_ref(), &states[n], wanted);
        }
        let now = as_qemu_reads(at, "image");
        assert!(now != states[2]);
        reads_as(open(None).unwrap().as_ref(), &now, "now");
        let e = open(Some("three")).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage);
        let there = "there are \"one\" (id \"1\"), \"two words\" (id \"2\"), \"1\" (id \"3\")";
        assert!(e.to_string().ends_with(there), "{e}");

        let info = qemu_img(at, &["info", "--output=json", "image"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let mut bytes = std::fs::read(at.join("image")).unwrap();
        // A backing file refuses the image before its tables are looked at: list without one.
        bytes[8..20].fill(0);
        let details = inspect(&bytes).details;
        assert_eq!(details["snapshots"], 3);
        let ours = details["snapshot_list"].as_array().unwrap();
        let theirs = info["snapshots"].as_array().unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            for (key, word) in [
                ("id", "id"),
                ("name", "name"),
                ("vm_state_size", "vm-state-size"),
                ("date_sec", "date-sec"),
                ("date_nsec", "date-nsec"),
            ] {
                assert_eq!(ours[key], theirs[word], "{form}");
            }
            assert_eq!(ours["disk_size"], 2 * MIB);
        }
    }
}

#[test]
fn a_snapshot_keeps_the_size_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let io = |command| {
        run("qemu-io", at, &["-f", "qcow2", "-c", command, "image"]);
    };
    qemu_img(at, &["create", "-f", "qcow2", "image", "1M"]);
    io("write -P 9 0 1M");
    qemu_img(at, &["snapshot", "-c", "small", "image"]);
    qemu_img(at, &["resize", "image", "3M"]);
    io("write -P 8 0 3M");
    let options = OpenOptions {
        snapshot: Some("small".to_owned()),
        ..options(Never)
    };
    let disk = formats::open(source(&at.join("image")).unwrap(), &options).unwrap();
    reads_as(disk.as_ref(), &vec![9; MIB], "small");
    reads_as(
        open_file(&at.join("image")).as_ref(),
        &vec![8; 3 * MIB],
        "now",
    );

    let raw = OpenOptions {
        format: Some(Format::Raw),
        ..options
    };
    let e = formats::open(source(&at.join("image")).unwrap(), &raw)
        .err()
        .unwrap();
    assert_eq!(e.kind(), ErrorKind::Usage);
}

#[test]
fn a_snapshot_table_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    qemu_img(at, &["create", "-f", "qcow2", "image", "1M"]);
    qemu_img(at, &["snapshot", "-c", "one", "image"]);
    let image = std::fs::read(at.join("image")).unwrap();
    let table = u64::from_be_bytes(image[64..72].try_into().unwrap()) as usize;
    for (what, place, bytes) in [
        ("more than there are", 60, &[0, 0, 0xff, 0xff][..]),
        ("past the end", 64, &[0, 0, 0x7f, 0xff, 0, 0, 0, 0]),
        ("between clusters", 70, &[1]),
        ("extra data", table + 36, &[0xff; 4]),
        ("a large L1 table", table + 8, &[0xff; 4]),
        ("a small L1 table", table + 8, &[0; 4]),
        ("an L1 table between clusters", table + 7, &[8]),
        ("an L1 table past the end", table + 2, &[9]),
        ("a huge disk", table + 48, &[0x7f]),
    ] {
        let mut broken = image.clone();
        broken[place..place + bytes.len()].copy_from_slice(bytes);
        inspect(&broken);
        let options = OpenOptions {
            snapshot: Some("one".to_owned()),
            ..options(Never)
        };
        let e = formats::open(Arc::new(broken), &options).err().expect(what);
        let is_ours = matches!(e.kind(), ErrorKind::Malformed | ErrorKind::Limit);
        assert!(is_ours, "{what}: {e}");
    }
}

#[test]
fn bitmaps_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    qemu_img(at, &["create", "-f", "qcow2", "image", "10M"]);
    qemu_img(at, &["bitmap", "--add", "-g", "128k", "image", "first"]);
    qemu_img(
        at,
        &["bitmap", "--add", "--disable", "image", "a second one"],
    );
    let mut image = std::fs::read(at.join("image")).unwrap();
    let expected = serde_json::json!([
        {"name": "first", "granularity": 131_072, "flags": ["auto"]},
        {"name": "a second one", "granularity": 65536, "flags": []},
    ]);
    assert_eq!(inspect(&image).details["bitmaps"], expected);
    // A writer that does not know them clears the bit: what they say is stale then.
    image[95] = 0;
    assert!(!inspect(&image).details.contains_key("bitmaps"));
}
