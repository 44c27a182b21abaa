use super::*;

/// Extents as `(start, length, data, zero, compressed, offset)`.
fn simple(map: &Value) -> Vec<(u64, u64, bool, bool, bool, Option<u64>)> {
    let extents = map.as_array().unwrap().iter().map(|e| {
        let flag = |key: &str| e[key].as_bool().unwrap();
        let number = |key: &str| e[key].as_u64().unwrap();
        let zero = flag("zero");
        // A cluster that the file holds no bytes for: qemu-img says data and zero, and where.
        let data = flag("data") && !zero;
        let offset = e["offset"].as_u64().filter(|_| data);
        let place = (number("start"), number("length"));
        (place.0, place.1, data, zero, flag("compressed"), offset)
    });
    // Neighbours that are the same but for what was left out.
    let mut joined: Vec<(u64, u64, bool, bool, bool, Option<u64>)> = Vec::new();
    for e in extents {
        match joined.last_mut() {
            Some(l) if l.3 && e.3 && l.4 == e.4 => l.1 += e.1,
            _ => joined.push(e),
        }
    }
    joined
}

/// A raw disk of 5 MiB whose data fills clusters: where a file system has holes inside them is
/// its own affair, and may change from one look to the next.
fn whole_clusters(room: &Room, name: &str) {
    let mut bytes = noise(1 << 20);
    bytes.resize(2 << 20, 0);
    bytes.extend_from_slice(&noise(128 << 10));
    fs::write(room.path(name), bytes).unwrap();
    room.cut(name, 5 << 20);
}

#[test]
fn says_what_qemu_img_says() {
    let room = Room::new();
    whole_clusters(&room, "a.raw");
    for (format, options) in [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "-c"),
        ("qcow2", "-o cluster_size=4k,extended_l2=off"),
        ("qcow2", "-o preallocation=metadata"),
        ("vmdk", ""),
        ("vmdk", "-o subformat=streamOptimized"),
        ("vdi", ""),
    ] {
        room.qemu(&format!(
            "convert -f raw -O {format} {options} a.raw a.image"
        ));
        for range in ["", "-s 65536 -l 2M", "--start-offset=2M", "-l 1k"] {
            let ours = room.json(&format!("map {range} --output json a.image"));
            let theirs = room.qemu(&format!("map {range} --output=json a.image"));
            let theirs = serde_json::from_str(&theirs).unwrap();
            assert_eq!(simple(&ours), simple(&theirs), "{format} {options} {range}");
        }
        if !options.contains("-c") && !options.contains("stream") {
            let ours = room.fine("map a.image");
            assert_eq!(ours, room.qemu("map a.image"), "{format} {options}");
        }
    }
}

#[test]
fn a_chain_is_told_image_by_image_as_qemu_img_does() {
    let room = Room::new();
    fs::create_dir(room.path("sub")).unwrap();
    whole_clusters(&room, "sub/base.raw");
    room.qemu("create -q -f qcow2 -b base.raw -F raw sub/middle 6M");
    room.io(
        "sub/middle",
        "qcow2",
        &[
            "write -P 1 512k 64k",
            "write -z 256k 64k",
            "write -P 2 5888k 64k",
        ],
    );
    room.qemu("create -q -f qcow2 -b sub/middle -F qcow2 top 8M");
    room.io("top", "qcow2", &["write -P 3 7M 64k"]);
    let depths = |map: &Value| -> Vec<(u64, u64)> {
        let stored = map
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["zero"] == false);
        let pair = |e: &Value| (e["start"].as_u64().unwrap(), e["depth"].as_u64().unwrap());
        stored.map(pair).collect()
    };
    for name in ["top", "sub/middle"] {
        let args = format!("map --allow-backing . --output json {name}");
        let ours = room.json(&args);
        let theirs = room.qemu(&format!("map --output=json {name}"));
        let theirs = serde_json::from_str(&theirs).unwrap();
        assert_eq!(simple(&ours), simple(&theirs), "{name}");
        assert_eq!(depths(&ours), depths(&theirs), "{name}");
        let ours = room.fine(&format!("map --allow-backing . {name}"));
        assert_eq!(ours, room.qemu(&format!("map {name}")), "{name}");
    }
    let drawn = room.fine("map --allow-backing . --svg - top");
    assert!(drawn.contains("data 2.19 MiB"), "{drawn}");
}

#[test]
fn what_is_compressed_has_no_place_of_its_own() {
    let room = Room::new();
    fs::write(room.path("a.raw"), vec![7; 1 << 20]).unwrap();
    room.qemu("convert -c -f raw -O qcow2 a.raw a.qcow2");
    let table = room.fine("map a.qcow2");
    let row = table.lines().nth(1).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["0", "0x100000", "compressed", "a.qcow2"]
    );
}

#[test]
fn draws_a_picture() {
    let room = Room::new();
    fs::write(room.path("a.raw"), noise(1 << 20)).unwrap();
    room.cut("a.raw", 5 << 20);
    room.qemu("convert -f raw -O qcow2 a.raw a<b.qcow2");
    room.fine("map --svg a.svg a<b.qcow2");
    let drawn = fs::read_to_string(room.path("a.svg")).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    assert!(drawn.contains("a&lt;b.qcow2") && !drawn.contains("a<b"));
    assert!(drawn.contains("data 1.00 MiB"), "{drawn}");
    assert_eq!(drawn.matches("<path ").count(), 1, "data in one piece");
    assert_eq!(room.fine("map --svg - a<b.qcow2"), drawn);
    let (code, _, err) = room.glint("map --svg none/a.svg a.raw");
    assert_eq!(code, 2, "{err}");
}
