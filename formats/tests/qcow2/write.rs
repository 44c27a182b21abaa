//! What is written, with every option there is.

use formats::copy::{CopyOptions, Progress, copy};
use formats::{
    CreateOptions, Disk, ErrorKind, Extent, ExtentKind, FileSink, Format, GuestOffset, MemorySink,
    Result,
};

use super::*;

#[test]
fn writes_what_we_and_qemu_img_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let guest = guest(3 * MIB + 512 * 33, 8);
    std::fs::write(at.join("guest.raw"), &guest).unwrap();
    for (pairs, compress) in [
        (&[][..], false),
        (&[], true),
        (&[("compression_type", "zstd")], true),
        (&[("compression_type", "zstd")], false),
        (&[("compression_level", "12")], true),
        (
            &[("compression_type", "zstd"), ("compression_level", "19")],
            true,
        ),
        (&[("cluster_size", "512")], false),
        (&[("cluster_size", "512")], true),
        (&[("cluster_size", "4k")], true),
        (&[("cluster_size", "2M")], false),
        (&[("cluster_size", "2M")], true),
        (
            &[("cluster_size", "2M"), ("compression_type", "zstd")],
            true,
        ),
        (
            &[("cluster_size", "512"), ("compression_type", "zstd")],
            true,
        ),
        (&[("compat", "0.10")], false),
        (&[("compat", "v2"), ("cluster_size", "512")], true),
        (&[("compat", "1.1"), ("lazy_refcounts", "on")], true),
        (&[("extended_l2", "on")], false),
        (&[("extended_l2", "on"), ("cluster_size", "16k")], true),
        (
            &[
                ("extended_l2", "on"),
                ("cluster_size", "2M"),
                ("compression_type", "zstd"),
                ("refcount_bits", "2"),
            ],
            true,
        ),
        (&[("refcount_bits", "1")], true),
        (&[("refcount_bits", "1"), ("cluster_size", "512")], false),
        (&[("refcount_bits", "2"), ("cluster_size", "512")], true),
        (&[("refcount_bits", "4"), ("cluster_size", "512")], true),
        (&[("refcount_bits", "8")], true),
        (&[("refcount_bits", "16")], true),
        (&[("refcount_bits", "32"), ("cluster_size", "512")], true),
        (&[("refcount_bits", "64"), ("cluster_size", "512")], true),
        (&[("preallocation", "off")], true),
        (&[("preallocation", "metadata")], false),
        (
            &[("preallocation", "metadata"), ("extended_l2", "on")],
            false,
        ),
        (
            &[
                ("preallocation", "falloc"),
                ("cluster_size", "512"),
                ("refcount_bits", "64"),
            ],
            false,
        ),
        (
            &[
                ("preallocation", "full"),
                ("cluster_size", "4k"),
                ("compat", "v2"),
            ],
            false,
        ),
    ] {
        let what = format!("{pairs:?} {compress}");
        let bytes = write(&guest, pairs, compress, 1);
        assert!(
            bytes == write(&guest, pairs, compress, 7),
            "{what}: threads show"
        );
        reads_as(open(&bytes).unwrap().as_ref(), &guest, &what);
        std::fs::write(at.join("image"), &bytes).unwrap();
        let check = qemu_img(at, &["check", "-f", "qcow2", "image"]);
        assert!(check.starts_with("No errors were found"), "{what}: {check}");
        qemu_img(
            at,
            &["compare", "-f", "qcow2", "-F", "raw", "image", "guest.raw"],
        );
        let info = qemu_img(at, &["info", "--output=json", "image"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], guest.len(), "{what}");
        is_shown(&info, pairs);
        assert_eq!(inspect(&bytes).findings, [], "{what}");
        assert_eq!(inspect_stream(&bytes, 100_000).findings, [], "{what}");

        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "guest.raw", "theirs"];
        let text: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = text.iter().filter(|o| !o.starts_with("compression_level"));
        let text = text.cloned().collect::<Vec<_>>().join(",");
        if !text.is_empty() {
            args.extend(["-o", &text]);
        }
        if compress {
            args.push("-c");
        }
        qemu_img(at, &args);
        let theirs = std::fs::metadata(at.join("theirs")).unwrap().len();
        // Rounded up to whole clusters, and with its refcount block in the last one.
        let slack = info["cluster-size"].as_u64().unwrap() * 2 + theirs / 50;
        assert!(
            bytes.len() as u64 <= theirs + slack,
            "{what}: {} {theirs}",
            bytes.len()
        );
    }
}

/// `qemu-img info` tells every option of `pairs` that leaves a trace.
#[track_caller]
fn is_shown(info: &serde_json::Value, pairs: &[(&str, &str)]) {
    let data = &info["format-specific"]["data"];
    for (key, value) in pairs {
        match (*key, *value) {
            ("compat", "0.10" | "v2") => assert_eq!(data["compat"], "0.10"),
            ("compat", _) => assert_eq!(data["compat"], "1.1"),
            ("compression_type", kind) => assert_eq!(data["compression-type"], kind),
            ("extended_l2", "on") => assert_eq!(data["extended-l2"], true),
            ("lazy_refcounts", "on") => assert_eq!(data["lazy-refcounts"], true),
            ("refcount_bits", bits) => assert_eq!(data["refcount-bits"].to_string(), bits),
            ("cluster_size", "512") => assert_eq!(info["cluster-size"], 512),
            ("cluster_size" | "preallocation" | "compression_level", _) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn preallocated_clusters_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let guest = guest(2 * MIB + 512, 31);
    for (kind, least) in [
        ("metadata", 0),
        ("falloc", guest.len()),
        ("full", guest.len()),
    ] {
        for cluster_size in ["512", "64k"] {
            let path = folder.path().join("image");
            let pairs = [("preallocation", kind), ("cluster_size", cluster_size)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()));
            let create = CreateOptions::parse(Format::Qcow2, &pairs, false).unwrap();
            let target = formats::create(&create, guest.len() as u64).unwrap();
            let raw = formats::raw::Reader::new(Arc::new(guest.clone())).unwrap();
            let sink = FileSink::new(std::fs::File::create(&path).unwrap());
            let (options, progress) = (CopyOptions::default(), Progress::default());
            copy(&raw, target, &sink, &options, &progress).unwrap();
            let image = source(&path).unwrap();
            assert!(image.allocated() >= least as u64, "{kind}");
            let disk = formats::open(image, &super::options(Never)).unwrap();
            // Where the file has holes the places read as zeros; none falls through.
            for extent in extents(disk.as_ref()).unwrap() {
                assert_ne!(extent.kind, ExtentKind::Unallocated, "{kind}");
            }
            assert!(content(disk.as_ref(), MIB).unwrap() == guest);
            let check = qemu_img(folder.path(), &["check", "--output=json", "image"]);
            let check: serde_json::Value = serde_json::from_str(&check).unwrap();
            assert_eq!(check["allocated-clusters"], check["total-clusters"]);
            assert_eq!(check["fragmented-clusters"], serde_json::Value::Null);
        }
    }
}

#[test]
fn a_disk_that_ends_within_a_sector_is_rounded_up() {
    let folder = tempfile::tempdir().unwrap();
    let guest = guest(200_001, 9);
    for compress in [false, true] {
        let bytes = write(&guest, &[], compress, 2);
        let mut whole = guest.clone();
        whole.resize(guest.len().next_multiple_of(512), 0);
        reads_as(open(&bytes).unwrap().as_ref(), &whole, "rounded");
        std::fs::write(folder.path().join("image"), bytes).unwrap();
        assert!(as_qemu_reads(folder.path(), "image") == whole);
        qemu_img(folder.path(), &["check", "-f", "qcow2", "image"]);
    }
}

#[test]
fn a_disk_without_a_byte_is_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = write(&[], &[], false, 1);
    assert_eq!(open(&bytes).unwrap().virtual_size(), 0);
    assert_eq!(inspect(&bytes).findings, []);
    std::fs::write(folder.path().join("ours"), bytes).unwrap();
    qemu_img(folder.path(), &["check", "-f", "qcow2", "ours"]);
    qemu_img(folder.path(), &["create", "-f", "qcow2", "theirs", "0"]);
    let theirs = std::fs::read(folder.path().join("theirs")).unwrap();
    assert_eq!(open(&theirs).unwrap().virtual_size(), 0);
    assert_eq!(inspect(&theirs).findings, []);
}

/// A disk of nothing but a hole.
struct Hole(u64);

impl Disk for Hole {
    fn virtual_size(&self) -> u64 {
        self.0
    }

    fn unit(&self) -> u64 {
        65536
    }

    fn extents(&self, range: std::ops::Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        out.push(Extent {
            range,
            kind: ExtentKind::Unallocated,
        });
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], at: GuestOffset) -> Result<()> {
        panic!("a hole was read at {at}")
    }
}

#[test]
fn huge_empty_disks_cost_their_l1_table() {
    let folder = tempfile::tempdir().unwrap();
    for (size, cluster_size, most) in [
        (8u64 << 40, "64k", 6 * 65536),
        (64 << 40, "2M", 6 * (2 << 20)),
        (100 << 30, "512", 40 << 20),
        (8 << 40, "2M", 6 * (2 << 20)),
        // As large as can be addressed: more than refcounts could count, were it full.
        (8 << 40, "4k", 42 << 20),
    ] {
        let pairs = [("cluster_size".to_owned(), cluster_size.to_owned())];
        let create = CreateOptions::parse(Format::Qcow2, &pairs, false).unwrap();
        let target = formats::create(&create, size).unwrap();
        let sink = MemorySink::default();
        let disk = Hole(size);
        copy(
            &disk,
            target,
            &sink,
            &CopyOptions::default(),
            &Progress::default(),
        )
        .unwrap();
        let bytes = sink.into_bytes();
        assert!(bytes.len() <= most, "{}", bytes.len());
        let disk = open(&bytes).unwrap();
        let all = extents(disk.as_ref()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].kind, ExtentKind::Unallocated);
        assert_eq!(inspect(&bytes).findings, []);
        std::fs::write(folder.path().join("image"), bytes).unwrap();
        qemu_img(folder.path(), &["check", "-f", "qcow2", "image"]);
    }
    for (size, cluster_size) in [
        (u64::MAX, 65536),
        (u64::MAX - 4096, 2 << 20),
        (1 << 40, 512),
    ] {
        let options = formats::qcow2::WriteOptions {
            cluster_size,
            ..Default::default()
        };
        let e = formats::create(&CreateOptions::Qcow2(options), size)
            .err()
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
    }
}
