//! What a permission opens, and what it leaves shut.

use std::os::unix::fs::symlink;

use super::*;

impl Room {
    /// Asserts that a conversion with `permit` gives what qemu-img reads, and none without.
    fn opens(&self, permit: &str, image: &str, theirs: &str) {
        let (code, out, err) = self.glint(&format!("convert -O raw {image} ours"));
        assert_eq!((code, out.as_str()), (1, ""), "{image}: {err}");
        assert!(!self.path("ours").exists());
        self.fine(&format!("convert {permit} -O raw {image} ours"));
        self.qemu(&format!("convert -O raw {theirs} theirs"));
        let (ours, theirs) = (fs::read(self.path("ours")), fs::read(self.path("theirs")));
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert!(
            theirs.iter().any(|&byte| byte != 0),
            "{image} holds nothing"
        );
        assert!(ours == theirs, "{image} differs from what qemu-img reads");
        fs::remove_file(self.path("ours")).unwrap();
    }

    /// A chain of three in `folder`: `top` on `middle` on `base.raw`, which ends first.
    fn chain(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
        self.raw(&format!("{folder}/base.raw"));
        let at = |name: &str| format!("{folder}/{name}");
        self.qemu(&format!(
            "create -q -f qcow2 -b base.raw -F raw {} 7M",
            at("middle")
        ));
        self.io(
            &at("middle"),
            "qcow2",
            &["write -P 1 60k 100k", "write -z 1M 64k", "write -P 2 6M 9k"],
        );
        self.qemu(&format!(
            "create -q -f qcow2 -b middle -F qcow2 {} 8M",
            at("top")
        ));
        self.io(
            &at("top"),
            "qcow2",
            &["write -P 3 100k 10k", "write -P 4 7M 9k"],
        );
    }
}

#[test]
fn a_chain_is_opened_inside_the_folder_that_is_granted() {
    let room = Room::new();
    room.chain("in");
    room.opens("--allow-backing in", "in/top", "in/top");
    room.opens("--allow-backing .", "in/top", "in/top");
    // The names in the images are other ones now, and the links lead out.
    fs::create_dir(room.path("out")).unwrap();
    fs::rename(room.path("in/base.raw"), room.path("out/base.raw")).unwrap();
    let (code, _, err) = room.glint("convert --allow-backing in -O raw in/top ours");
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("\"base.raw\" is not read: No such file"),
        "{err}"
    );
    symlink("../out/base.raw", room.path("in/base.raw")).unwrap();
    let (code, _, err) = room.glint("convert --allow-backing in -O raw in/top ours");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("leads out of the folder"), "{err}");
    room.opens("--allow-backing .", "in/top", "in/top");
    let (code, _, err) = room.glint("convert --allow-backing out -O raw in/top ours");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("no --allow-backing folder holds it"), "{err}");
    // Several folders are several.
    fs::remove_file(room.path("in/base.raw")).unwrap();
    room.qemu("rebase -u -f qcow2 -b ../out/base.raw -F raw in/middle");
    room.opens("--allow-backing in --allow-backing out", "in/top", "in/top");
    // Only regular files are.
    fs::remove_file(room.path("out/base.raw")).unwrap();
    assert!(room.run("mkfifo", &["out/base.raw"]).status.success());
    let (code, _, err) = room.glint("convert --allow-backing . -O raw in/top ours");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("not a regular file"), "{err}");
    let (code, _, err) = room.glint("convert --allow-backing none -O raw in/top ours");
    assert_eq!(code, 2);
    assert!(err.contains("--allow-backing none"), "{err}");
    assert!(!room.path("ours").exists());
}

#[test]
fn all_else_that_is_wrong_with_an_image_still_is() {
    let room = Room::new();
    room.chain(".");
    let whole = |name: &str| fs::read(room.path(name)).unwrap();
    let (top, middle) = (whole("top"), whole("middle"));
    let refused = |rule: &str| {
        let (code, _, err) = room.glint("convert --allow-backing . -O raw top ours");
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(rule), "{rule}: {err}");
        assert!(!room.path("ours").exists());
    };
    // Bit 1 of the incompatible features: corrupt.
    let mut damaged = top.clone();
    damaged[79] |= 2;
    fs::write(room.path("top"), &damaged).unwrap();
    refused("[corrupt]");
    // The L1 table where the refcounts are.
    let mut damaged = top.clone();
    damaged.copy_within(48..56, 40);
    fs::write(room.path("top"), &damaged).unwrap();
    refused("[overlap]");
    // And the same beneath.
    fs::write(room.path("top"), &top).unwrap();
    let mut damaged = middle.clone();
    damaged[79] |= 2;
    fs::write(room.path("middle"), &damaged).unwrap();
    refused("the image beneath is unsafe");
    fs::copy(room.path("base.raw"), room.path("middle")).unwrap();
    refused("the image beneath is raw, not qcow2");
    // A passphrase is no permission for files, nor the other way round.
    fs::write(room.path("middle"), &middle).unwrap();
    fs::write(room.path("pass"), "x").unwrap();
    let (code, _, err) = room.glint("convert --passphrase-file pass -O raw top ours");
    assert_eq!(code, 1);
    assert!(err.contains("[backing_file]"), "{err}");
}

#[test]
fn a_raw_image_beneath_is_never_asked_what_it_is() {
    let room = Room::new();
    room.raw("secret.raw");
    // The guest of a raw disk has written an image that names a file to its beginning.
    room.qemu("create -q -u -f qcow2 -b secret.raw -F raw base.raw 1M");
    room.qemu("create -q -f qcow2 -b base.raw -F raw top 1M");
    room.io("top", "qcow2", &["write -P 1 512k 4k"]);
    room.opens("--allow-backing .", "top", "top");
}

#[test]
fn what_an_image_stands_on_is_not_overwritten() {
    let room = Room::new();
    room.chain(".");
    let before = fs::read(room.path("base.raw")).unwrap();
    let (code, _, err) = room.glint("convert --allow-backing . -O raw top base.raw");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("base.raw is the input too"), "{err}");
    assert!(fs::read(room.path("base.raw")).unwrap() == before);
}

#[test]
fn other_files_of_an_image_are_opened_too() {
    let room = Room::new();
    room.raw("a.raw");
    for options in ["data_file=data", "data_file=data,data_file_raw=on"] {
        room.qemu(&format!("convert -O qcow2 -o {options} a.raw a.qcow2"));
        room.opens("--allow-backing .", "a.qcow2", "a.qcow2");
    }
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
    ] {
        room.qemu(&format!(
            "convert -O vmdk -o subformat={subformat} a.raw a.vmdk"
        ));
        room.opens("--allow-backing .", "a.vmdk", "a.vmdk");
    }
    room.qemu("convert -O vmdk a.raw base.vmdk");
    room.qemu("create -q -f vmdk -b base.vmdk -F vmdk delta.vmdk");
    room.io("delta.vmdk", "vmdk", &["write -P 5 1M 70k"]);
    room.opens("--allow-backing .", "delta.vmdk", "delta.vmdk");
    room.qemu("create -q -f qed -b a.raw -F raw a.qed");
    room.io("a.qed", "qed", &["write -P 6 2M 70k"]);
    room.opens("--allow-backing .", "a.qed", "a.qed");
    room.qemu("create -q -f qcow -b a.raw -F raw a.qcow");
    room.io("a.qcow", "qcow", &["write -P 7 2M 70k"]);
    room.opens("--allow-backing .", "a.qcow", "a.qcow");
    // Its header does not say that what is beneath is an image.
    room.qemu("convert -O qcow a.raw base.qcow");
    room.qemu("create -q -f qcow -b base.qcow -F qcow b.qcow");
    let (code, _, err) = room.glint("convert --allow-backing . -O raw b.qcow ours");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("looks like qcow"), "{err}");
}

#[test]
fn a_name_may_say_that_it_is_a_file_and_no_other_protocol() {
    let room = Room::new();
    room.raw("base.raw");
    for format in ["qcow2", "qed"] {
        room.qemu(&format!(
            "create -q -f {format} -b file:base.raw -F raw top 8M"
        ));
        room.io("top", format, &["write -P 3 100k 10k"]);
        room.opens("--allow-backing .", "top", "top");
        let chain = room.json("info --backing-chain --output json --allow-backing . top");
        assert_eq!(chain[1]["format"], "raw", "{chain}");
    }
    for (name, protocol) in [
        ("json:{\"driver\":\"raw\"}", "json:"),
        ("nbd:localhost:10809", "nbd:"),
    ] {
        room.qemu(&format!("create -q -u -f qcow2 -b {name} -F raw top 8M"));
        for verb in ["convert -O raw top ours", "info --backing-chain top"] {
            let (verb, rest) = verb.split_once(' ').unwrap();
            let (code, _, err) = room.glint(&format!("{verb} --allow-backing . {rest}"));
            assert_ne!(code, 0, "{err}");
            let why = format!("names a protocol ({protocol}), and only plain paths are read");
            assert!(err.contains(&why), "{err}");
        }
    }
}

#[test]
fn the_parent_of_a_vdi_is_found_by_its_uuid() {
    let room = Room::new();
    room.raw("a.raw");
    let size = fs::metadata(room.path("a.raw")).unwrap().len();
    for (name, id) in [("other.vdi", 1), ("vm.vdi", 2)] {
        let uuid = format!("uuid=0000000{id}-0000-4000-8000-000000000000");
        room.fine(&format!("convert -q -O vdi -o {uuid} a.raw {name}"));
    }
    // As VirtualBox makes a snapshot: nothing stored yet, linked by the parent's UUID.
    room.fine(&format!("create -q -f vdi new.vdi {size}"));
    let mut child = fs::read(room.path("new.vdi")).unwrap();
    let parent = fs::read(room.path("vm.vdi")).unwrap();
    child[0x4c] = 4;
    child[0x1a8..0x1b8].copy_from_slice(&parent[0x188..0x198]);
    fs::create_dir(room.path("Snapshots")).unwrap();
    fs::write(room.path("Snapshots/child.vdi"), &child).unwrap();
    let convert = "convert -O raw Snapshots/child.vdi ours";
    assert_eq!(room.glint(convert).0, 1);
    assert_eq!(
        room.glint(&format!("{convert} --allow-backing Snapshots"))
            .0,
        1
    );
    room.fine(&format!("{convert} --allow-backing ."));
    room.fine("compare a.raw ours");
    let seen = room.fine("map --allow-backing . Snapshots/child.vdi");
    assert!(seen.contains("vm.vdi"), "{seen}");
}

#[test]
fn a_passphrase_opens_what_is_encrypted() {
    let room = Room::new();
    room.raw("a.raw");
    fs::write(room.path("pass"), "open sesame").unwrap();
    fs::write(room.path("line"), "open sesame\n").unwrap();
    let secret = "--object secret,id=s,file=pass";
    room.qemu(&format!(
        "convert {secret} -O luks -o key-secret=s,iter-time=10 a.raw a.luks"
    ));
    let opts = "driver=luks,key-secret=s,file.filename=a.luks";
    room.opens(
        "--passphrase-file pass",
        "a.luks",
        &format!("{secret} --image-opts {opts}"),
    );
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    room.qemu(&format!(
        "convert {secret} -O qcow2 -o {encrypt} a.raw a.qcow2"
    ));
    let opts = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=a.qcow2";
    room.opens(
        "--passphrase-file pass",
        "a.qcow2",
        &format!("{secret} --image-opts {opts}"),
    );
    let (code, _, err) = room.glint("convert --passphrase-file line -O raw a.luks ours");
    assert_eq!(code, 1);
    assert!(err.contains("line end"), "{err}");
    let (code, _, err) = room.glint("convert --passphrase-file none -O raw a.luks ours");
    assert_eq!(code, 2);
    assert!(err.contains("reading the passphrase in none"), "{err}");

    // And the other way round.
    let ours = "-o encrypt.format=luks --output-passphrase-file pass";
    room.fine(&format!("convert -O qcow2 {ours} a.raw a.qcow2"));
    room.qemu(&format!(
        "convert {secret} --image-opts {opts} -O raw theirs"
    ));
    assert_eq!(room.glint("compare a.raw theirs").0, 0);
    room.fine("compare --passphrase-file pass a.raw a.qcow2");
    assert_ne!(
        fs::read(room.path("a.qcow2")).unwrap(),
        {
            room.fine(&format!("convert -O qcow2 {ours} a.raw a.qcow2"));
            fs::read(room.path("a.qcow2")).unwrap()
        },
        "keys are drawn anew"
    );
    let measured = room.json("measure --output json -O qcow2 -o encrypt.format=luks a.raw");
    let len = fs::metadata(room.path("a.qcow2")).unwrap().len();
    assert_eq!(measured["required"], len);
    let made = room.json(&format!(
        "create --output json -f qcow2 {ours} new.qcow2 3M"
    ));
    assert_eq!(made["virtual_size"], 3 << 20);
    fs::write(room.path("zero.raw"), []).unwrap();
    room.cut("zero.raw", 3 << 20);
    room.fine("compare --passphrase-file pass zero.raw new.qcow2");
    for wrong in [
        "convert -O qcow2 -o encrypt.format=luks a.raw ours",
        "convert -O qcow2 --output-passphrase-file pass a.raw ours",
        "convert -O vdi -o encrypt.format=luks --output-passphrase-file pass a.raw ours",
        "convert -O ova --output-passphrase-file pass a.raw ours",
    ] {
        assert_eq!(room.glint(wrong).0, 2, "{wrong}");
        assert!(!room.path("ours").exists());
    }
}

#[test]
fn a_snapshot_is_read_by_its_name() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -O qcow2 a.raw a.qcow2");
    room.qemu("snapshot -c before a.qcow2");
    room.io("a.qcow2", "qcow2", &["write -P 9 512k 1M"]);
    for name in ["before", "1", "snapshot.name=before", "snapshot.id=1"] {
        room.fine(&format!("convert -l {name} -O raw a.qcow2 ours"));
        room.fine("compare a.raw ours");
        room.fine(&format!("compare --snapshot {name} a.qcow2 a.raw"));
    }
    assert_eq!(room.glint("compare a.raw a.qcow2").0, 1);
    let size = |args: &str| {
        let seen = room.json(&format!("measure --output json -O qcow2 {args} a.qcow2"));
        seen["required"].as_u64().unwrap()
    };
    assert!(size("") > size("-l before"));
    let map = |args: &str| room.json(&format!("map --output json {args} a.qcow2"));
    assert_ne!(map(""), map("--snapshot before"));
    let (code, _, err) = room.glint("convert -l after -O raw a.qcow2 ours");
    assert_eq!(code, 2);
    assert!(err.contains("\"after\""), "{err}");
}

#[test]
fn every_verb_takes_the_permission() {
    let room = Room::new();
    room.chain(".");
    room.qemu("convert -O raw top flat.raw");
    let allow = "--allow-backing .";
    room.fine(&format!("compare {allow} top flat.raw"));
    room.fine(&format!("check {allow} top"));
    let measure = |args: &str| room.json(&format!("measure --output json -O raw {args}"));
    assert_eq!(measure(&format!("{allow} top")), measure("flat.raw"));

    let seen = room.json(&format!("inspect {allow} --output json top"));
    assert_eq!(seen["verdict"], "safe");
    assert_eq!(seen["findings"][0]["rule"], "backing_file");
    assert_eq!(seen["findings"][0]["severity"], "note");
    let (code, out, _) = room.glint("inspect --output json top");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &seen["verdict"]), (1, &"unsafe".into()));
    fs::remove_file(room.path("base.raw")).unwrap();
    let (code, out, _) = room.glint(&format!("inspect {allow} --output json top"));
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &seen["verdict"]), (1, &"unsafe".into()));
    assert_eq!(seen["findings"][0]["rule"], "open");
}
