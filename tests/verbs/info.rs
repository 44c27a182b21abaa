use super::*;

/// Fields where `glint info` knows less or says otherwise, on purpose.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    // What a file name in an image leads to is not looked at: neither its size, nor what is in it.
    ("flat.vmdk", ".children", "extent files are not opened"),
    ("flat.vmdk", ".actual-size", "of the descriptor alone"),
    ("split.vmdk", ".children", "extent files are not opened"),
    ("split.vmdk", ".actual-size", "of the descriptor alone"),
    ("split.vmdk", ".cluster-size", "extent files are not opened"),
    (
        "split.vmdk",
        ".format-specific.data.extents[0].cluster-size",
        "extent files are not opened",
    ),
    // How long a passphrase is stretched is nobody's business but the opener's.
    ("a.luks", ".format-specific.data.slots", "not told"),
    (
        "a.luks",
        ".format-specific.data.master-key-iters",
        "not told",
    ),
    (
        "luks.qcow2",
        ".format-specific.data.encrypt",
        "but its format",
    ),
    // The bit stands among those that nobody needs to know.
    (
        "data.qcow2",
        ".format-specific.data.data-file-raw",
        "not told",
    ),
    // Their lists are longer than what an inspection looks at.
    ("listed.qcow2", ".snapshots", "not told"),
    ("listed.qcow2", ".format-specific.data.bitmaps", "not told"),
];

/// Asserts that two values are equal but for the exceptions of `file`.
fn same(file: &str, place: &str, ours: &Value, theirs: &Value) {
    if EXCEPTIONS.iter().any(|(f, p, _)| (*f, *p) == (file, place)) {
        return;
    }
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let get = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                same(file, &format!("{place}.{key}"), &get(a), &get(b));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                same(file, &format!("{place}[{n}]"), a, b);
            }
        }
        _ => assert_eq!(ours, theirs, "{file}: {place}, ours left"),
    }
}

/// Makes one image of every kind that qemu-img makes.
fn images(room: &Room) -> Vec<String> {
    room.raw("a.raw");
    let secret = "--object secret,id=s,data=x";
    let mut names = vec!["a.raw".to_owned()];
    let mut make = |name: &str, args: &str| {
        room.qemu(args);
        names.push(name.to_owned());
    };
    for (n, options) in [
        "",
        "-o compat=0.10",
        "-c",
        "-c -o compression_type=zstd",
        "-o cluster_size=4k,refcount_bits=1",
        "-o extended_l2=on,lazy_refcounts=on",
        "-o preallocation=metadata",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{n}.qcow2");
        make(
            &name,
            &format!("convert -f raw -O qcow2 {options} a.raw {name}"),
        );
    }
    for (name, format, options) in [
        ("a.vmdk", "vmdk", ""),
        ("stream.vmdk", "vmdk", "-o subformat=streamOptimized"),
        ("flat.vmdk", "vmdk", "-o subformat=monolithicFlat"),
        ("split.vmdk", "vmdk", "-o subformat=twoGbMaxExtentSparse"),
        ("a.vpc", "vpc", ""),
        ("fixed.vpc", "vpc", "-o subformat=fixed,force_size=on"),
        ("a.vhdx", "vhdx", ""),
        ("fixed.vhdx", "vhdx", "-o subformat=fixed"),
        ("a.vdi", "vdi", ""),
        ("static.vdi", "vdi", "-o static=on"),
        ("a.qed", "qed", ""),
        ("a.qcow", "qcow", ""),
        ("a.parallels", "parallels", ""),
    ] {
        make(
            name,
            &format!("convert -f raw -O {format} {options} a.raw {name}"),
        );
    }
    make(
        "back.qcow2",
        "create -q -f qcow2 -b 0.qcow2 -F qcow2 back.qcow2",
    );
    make(
        "delta.vmdk",
        "create -q -f vmdk -b a.vmdk -F vmdk delta.vmdk",
    );
    make("back.qed", "create -q -f qed -b a.raw -F raw back.qed");
    fs::create_dir(room.path("sub")).unwrap();
    make(
        "sub/back.qcow2",
        "create -q -f qcow2 -b ../a.raw -F raw sub/back.qcow2 4M",
    );
    make(
        "data.qcow2",
        "create -q -f qcow2 -o data_file=data.raw,data_file_raw=on data.qcow2 1M",
    );
    make(
        "a.luks",
        &format!("create -q -f luks {secret} -o key-secret=s,iter-time=10 a.luks 1M"),
    );
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    make(
        "luks.qcow2",
        &format!("create -q -f qcow2 {secret} -o {encrypt} luks.qcow2 1M"),
    );
    make("listed.qcow2", "convert -f raw -O qcow2 a.raw listed.qcow2");
    room.qemu("snapshot -c one listed.qcow2");
    room.qemu("bitmap --add listed.qcow2 b");
    names
}

/// What qemu-img has to be told: it takes a fixed vpc, whose only mark is at its end, for raw.
fn said(name: &str) -> &'static str {
    match name {
        "fixed.vpc" => "-f vpc",
        _ => "",
    }
}

#[test]
fn json_is_that_of_qemu_img_field_by_field() {
    let room = Room::new();
    for name in images(&room) {
        let ours = room.json(&format!("info --output json {name}"));
        let said = said(&name);
        let theirs = room.qemu(&format!("info {said} --output=json {name}"));
        let theirs = serde_json::from_str(&theirs);
        same(&name, "", &ours, &theirs.unwrap());
    }
}

#[test]
fn the_text_is_that_of_qemu_img_too() {
    let room = Room::new();
    let names = images(&room);
    for name in names {
        if EXCEPTIONS.iter().any(|(file, ..)| *file == name) {
            continue;
        }
        let ours = room.fine(&format!("info {name}"));
        let theirs = room.qemu(&format!("info {} {name}", said(&name)));
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn a_format_that_is_said_has_to_be_found() {
    let room = Room::new();
    room.raw("a.raw");
    room.qemu("convert -f raw -O qcow2 a.raw a.qcow2");
    let ours = room.json("info -U -f raw --output json a.qcow2");
    let theirs = room.qemu("info -U -f raw --output=json a.qcow2");
    same("", "", &ours, &serde_json::from_str(&theirs).unwrap());
    let (code, out, err) = room.glint("info -f vpc --output json a.qcow2");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("not vhd as it is said to be"), "{err}");
}

#[test]
fn several_files_make_an_array_and_a_chain_of_one_too() {
    let room = Room::new();
    room.raw("a.raw");
    let (code, out, _) = room.glint("info --output json a.raw none a.raw");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, seen.as_array().unwrap().len()), (2, 3));
    assert!(seen[1]["error"].as_str().unwrap().contains("No such file"));
    let seen = room.json("info --backing-chain --output json a.raw");
    assert_eq!(seen[0]["format"], "raw");
    room.qemu("create -q -f qcow2 -b a.raw -F raw b.qcow2");
    let (code, out, err) = room.glint("info --backing-chain b.qcow2");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("--allow-backing"), "{err}");
    assert_eq!(room.glint("info b.qcow2").0, 0);
    let one = room.json("info --allow-backing . --output json b.qcow2");
    assert_eq!(one["format"], "qcow2", "{one}");
}

#[test]
fn a_chain_is_told_as_qemu_img_tells_it() {
    let room = Room::new();
    fs::create_dir(room.path("sub")).unwrap();
    room.raw("sub/a.raw");
    room.qemu("convert -f raw -O qed sub/a.raw a.qed");
    room.qemu("create -q -f qcow2 -b ../a.qed -F qed sub/b.qcow2");
    room.qemu("create -q -f qcow2 -b sub/b.qcow2 -F qcow2 c.qcow2");
    room.qemu("create -q -f qcow2 -b sub/a.raw -F raw d.qcow2 9M");
    room.qemu("convert -f raw -O vmdk sub/a.raw sub/a.vmdk");
    room.qemu("create -q -f vmdk -b sub/a.vmdk -F vmdk e.vmdk");
    for name in ["c.qcow2", "d.qcow2", "e.vmdk", "sub/a.raw"] {
        let args = format!("info --backing-chain --output json --allow-backing . {name}");
        let ours = room.json(&args);
        let theirs = room.qemu(&format!("info --backing-chain --output=json {name}"));
        let theirs: Value = serde_json::from_str(&theirs).unwrap();
        same(name, "", &ours, &theirs);
        let ours = room.fine(&format!("info --backing-chain --allow-backing . {name}"));
        let theirs = room.qemu(&format!("info --backing-chain {name}"));
        assert_eq!(ours, theirs, "{name}");
    }
    let (code, _, err) = room.glint("info --backing-chain --allow-backing sub c.qcow2");
    assert_eq!(code, 2);
    assert!(err.contains("\"../a.qed\""), "{err}");
}
