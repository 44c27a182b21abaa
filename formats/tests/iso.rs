//! Discs: names, boot facts, UDF, and what does not fit the file.

mod support;

use formats::inspect::{Inspection, Stream, Verdict, inspect};
use formats::{Format, Limits};
use serde_json::{Value, json};
use support::Corpus;

const SECTOR: usize = 2048;

/// Judges a file both ways, which must agree, and nothing may have gone by unseen.
fn judged(file: &[u8]) -> Inspection {
    let limits = Limits::default();
    let found = inspect(&file.to_vec(), &limits).unwrap();
    for size in [file.len().max(1), 4109] {
        let mut stream = Stream::default();
        file.chunks(size).for_each(|chunk| stream.feed(chunk));
        let streamed = stream.finish(None, &limits).unwrap();
        assert_eq!(
            format!("{streamed:?}"),
            format!("{found:?}"),
            "chunks of {size}"
        );
    }
    assert_eq!(found.format, Format::Iso);
    found
}

fn rules(found: &Inspection) -> Vec<&str> {
    found.findings.iter().map(|f| f.rule).collect()
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disc of `sectors` with its boot catalogue in sector 20 and its root directory in 19.
fn disc(sectors: usize) -> Vec<u8> {
    let mut file = vec![0; sectors * SECTOR];
    let primary = 16 * SECTOR;
    put(&mut file, primary, b"\x01CD001\x01");
    put(&mut file, primary + 40, &[b' '; 32]);
    put(&mut file, primary + 40, b"DISC");
    put(&mut file, primary + 318, &[b' '; 512]);
    put(&mut file, primary + 318, b"SOMEBODY");
    put(&mut file, primary + 813, b"2026112314163100\0");
    put(&mut file, primary + 80, &(sectors as u32).to_le_bytes());
    put(&mut file, primary + 84, &(sectors as u32).to_be_bytes());
    put(&mut file, primary + 128, &[0, 8, 8, 0]);
    put(&mut file, primary + 156, &[34, 0, 19, 0, 0, 0]);
    put(
        &mut file,
        primary + SECTOR,
        b"\0CD001\x01EL TORITO SPECIFICATION",
    );
    file[primary + SECTOR + 71] = 20;
    put(&mut file, primary + 2 * SECTOR, b"\xffCD001\x01");

    let root = 19 * SECTOR;
    put(&mut file, root, &[34 + 7 + 5 + 36, 0, 19]);
    file[root + 32] = 1;
    put(
        &mut file,
        root + 34,
        b"SP\x07\x01\xbe\xef\0RR\x05\x01\x81PX\x24\x01",
    );

    let catalog = 20 * SECTOR;
    file[catalog] = 1;
    put(&mut file, catalog + 28, b"\xaa\x55\x55\xaa");
    put(&mut file, catalog + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0, 22]);
    put(&mut file, catalog + 64, &[0x91, 0xef, 1, 0]);
    put(&mut file, catalog + 96, &[0x88, 0, 0, 0, 0, 0, 8, 0, 23]);
    file
}

#[test]
fn a_disc_tells_its_names_and_what_boots_from_it() {
    let file = disc(30);
    let found = judged(&file);
    assert_eq!((rules(&found), found.verdict()), (vec![], Verdict::Safe));
    let expected = json!({
        "volume_id": "DISC", "publisher": "SOMEBODY", "created": "2026-11-23 14:16:31",
        "volume_size": 30 * 2048, "logical_block_size": 2048, "el_torito": true,
        "rock_ridge": true,
        "boot": [
            {"platform": "bios", "bootable": true, "medium": "no emulation",
             "start": 22 * 2048, "size": 2048},
            {"platform": "efi", "bootable": true, "medium": "no emulation",
             "start": 23 * 2048, "size": 4096},
        ],
    });
    assert_eq!(Value::Object(found.details), expected);
}

#[test]
fn a_damaged_catalogue_is_a_warning() {
    let catalog = 20 * SECTOR;
    for (at, byte, rule) in [
        (catalog, 2, "boot_catalog"),
        (catalog + 5, 1, "boot_catalog"),
        (catalog + 31, 0, "boot_catalog"),
        (catalog + 40, 30, "truncated"),
        (catalog + 104, 200, "truncated"),
        (17 * SECTOR + 71, 31, "truncated"),
    ] {
        let mut file = disc(30);
        file[at] = byte;
        let found = judged(&file);
        assert_eq!(
            (rules(&found), found.verdict()),
            (vec![rule], Verdict::Safe),
            "{at}"
        );
    }
    let mut plain = disc(30);
    plain[19 * SECTOR + 38] = 0;
    assert!(!judged(&plain).details.contains_key("rock_ridge"));
    // Entries without end, and a header whose section never comes.
    let mut full = disc(30);
    for row in full[catalog + 64..catalog + SECTOR].chunks_mut(32) {
        row[..4].copy_from_slice(&[0x90, 0, 0xff, 0xff]);
    }
    assert_eq!(
        judged(&full).details["boot"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_volume_is_held_against_its_file() {
    let cut = judged(&disc(30)[..25 * SECTOR]);
    assert_eq!(
        (rules(&cut), cut.verdict()),
        (vec!["truncated"], Verdict::Safe)
    );
    let padded = [disc(30), vec![0; 150 * SECTOR]].concat();
    assert_eq!(rules(&judged(&padded)), [""; 0]);
    let more = [disc(30), vec![7; SECTOR]].concat();
    assert_eq!(rules(&judged(&more)), ["trailing_data"]);
    let mut hybrid = more;
    put(
        &mut hybrid,
        446,
        &[0x80, 0, 2, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 100],
    );
    put(&mut hybrid, 510, b"\x55\xaa");
    let found = judged(&hybrid);
    assert_eq!(found.details["hybrid"], json!(["mbr"]));
    assert_eq!(rules(&found), [""; 0]);
    put(&mut hybrid, 512, b"EFI PART");
    put(&mut hybrid, 2048, b"PM\0\0");
    put(&mut hybrid, 0, b"ER\x08\0");
    assert_eq!(
        judged(&hybrid).details["hybrid"],
        json!(["mbr", "gpt", "apm"])
    );
}

/// A UDF descriptor of one block with an intact tag.
fn tagged(id: u16, block: u32, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 0, &id.to_le_bytes());
    put(&mut bytes, 12, &block.to_le_bytes());
    bytes[4] = bytes[..16]
        .iter()
        .fold(0, |sum: u8, b| sum.wrapping_add(*b));
    for (at, field) in fields {
        put(&mut bytes, *at, field);
    }
    bytes
}

/// A UDF disc with blocks of this size, an anchor in `block`, its sequence from `first` on.
fn udf(block_size: usize, block: u32, first: u32) -> Vec<u8> {
    let mut file = vec![0; 3 << 20];
    for (n, id) in ["BEA01", "NSR03", "TEA01"].iter().enumerate() {
        put(&mut file, (16 + n) * SECTOR + 1, id.as_bytes());
    }
    let at = |block: u32| block as usize * block_size;
    let len = 16 * block_size as u32;
    let anchor = tagged(
        2,
        block,
        &[(16, &len.to_le_bytes()), (20, &first.to_le_bytes())],
    );
    put(&mut file, at(block), &anchor);
    let name: &[u8] = b"\x08My disc";
    let volume = tagged(
        6,
        first + 1,
        &[
            (84, name),
            (211, &[name.len() as u8]),
            (212, &(block_size as u32).to_le_bytes()),
            (240, &[0x60, 0x02]),
        ],
    );
    put(&mut file, at(first), &tagged(1, first, &[]));
    put(&mut file, at(first + 1), &volume);
    put(&mut file, at(first + 2), &tagged(8, first + 2, &[]));
    file
}

#[test]
fn udf_is_followed_from_any_anchor() {
    for (block_size, block, first) in [
        (2048, 256, 32),
        (2048, 256, 96),
        (2048, 256, 1000),
        (2048, 512, 64),
        (512, 256, 128),
        (512, 256, 1000),
        (4096, 256, 64),
    ] {
        let found = judged(&udf(block_size, block, first));
        assert_eq!(rules(&found), [""; 0], "{block_size} {block} {first}");
        assert_eq!(
            Value::Object(found.details),
            json!({
                "udf": "NSR03", "udf_volume_id": "My disc", "udf_revision": "2.60",
                "udf_block_size": block_size,
            }),
            "{block_size} {block} {first}"
        );
    }
    let mut last = udf(2048, 256, 32);
    put(&mut last, 256 * 2048, &[0; 512]);
    assert_eq!(rules(&judged(&last)), ["udf_anchor"]);
    let end = last.len() - 2048;
    let anchor = tagged(2, (end / 2048) as u32, &[(16, &[0, 128]), (20, &[32])]);
    put(&mut last, end, &anchor);
    assert_eq!(rules(&judged(&last)), [""; 0]);
    let mut broken = udf(2048, 256, 32);
    broken[33 * 2048 + 4] ^= 1;
    let found = judged(&broken);
    assert_eq!(
        (rules(&found), found.verdict()),
        (vec!["udf_sequence"], Verdict::Safe)
    );
}

#[test]
fn the_discs_of_the_corpus_are_described() {
    let Some(corpus) = Corpus::open() else {
        return;
    };
    for (name, facts) in [
        // A GRUB rescue "floppy" has a sound volume, catalogue and all, and a table before it.
        (
            "raw/grub-rescue-floppy.img",
            json!({
                "volume_id": "ISOIMAGE", "created": "2026-05-03 22:12:15", "rock_ridge": true,
                "volume_size": 1_296_384, "hybrid": ["mbr"],
            }),
        ),
        (
            "iso/ipxe.iso",
            json!({
                "publisher": "HTTP://IPXE.ORG/", "rock_ridge": true, "hybrid": ["mbr"],
                "joliet_volume_id": "ISOIMAGE", "boot": [
                    {"platform": "bios", "bootable": true, "medium": "no emulation",
                     "start": 954_368, "size": 2048},
                    {"platform": "efi", "bootable": true, "medium": "no emulation",
                     "start": 69_632, "size": 884_736},
                ],
            }),
        ),
        (
            "iso/ul-udf-multi-0-320-640-mkudffs",
            json!({"udf": "NSR03", "udf_volume_id": "first session", "udf_revision": "2.01"}),
        ),
        (
            "iso/ul-udf.img",
            json!({"volume_id": "test-udf", "udf_volume_id": "test-udf", "udf_revision": "1.02"}),
        ),
        (
            "iso/la-iso_rockridge.iso",
            json!({"system_id": "FreeBSD", "rock_ridge": true}),
        ),
    ] {
        let entry = corpus.entries.iter().find(|e| e.path.starts_with(name));
        let source = corpus.source(entry.unwrap_or_else(|| panic!("{name} is in the corpus")));
        let found = inspect(source.as_ref(), &Limits::default()).unwrap();
        assert_eq!(
            (found.format, rules(&found)),
            (Format::Iso, vec![]),
            "{name}"
        );
        for (key, value) in facts.as_object().unwrap() {
            assert_eq!(&found.details[key], value, "{name}, {key}");
        }
    }
}
