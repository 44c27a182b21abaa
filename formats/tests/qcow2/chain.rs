//! Images that stand on others: granted or refused.

use super::*;

#[test]
fn a_chain_is_read_where_it_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let guest = guest(MIB, 6);
    std::fs::write(at.join("base.raw"), &guest).unwrap();
    // Larger than what is beneath, then smaller.
    qemu_img(
        at,
        &[
            "create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "middle", "3M",
        ],
    );
    run(
        "qemu-io",
        at,
        &["-f", "qcow2", "-c", "write -P 1 1020k 10k", "middle"],
    );
    run(
        "qemu-io",
        at,
        &["-f", "qcow2", "-c", "write -z 64k 64k", "middle"],
    );
    qemu_img(
        at,
        &[
            "create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top", "2M",
        ],
    );
    run(
        "qemu-io",
        at,
        &["-f", "qcow2", "-c", "write -P 2 1500k 10k", "top"],
    );

    let granted = formats::open(
        source(&at.join("top")).unwrap(),
        &options(Folder(at.into())),
    );
    let disk = granted.unwrap();
    reads_as(disk.as_ref(), &as_qemu_reads(at, "top"), "a chain of three");
    for extent in extents(disk.as_ref()).unwrap() {
        // What lies in another file has no place in ours.
        let is_ours = extent.range.start.0 >= 1472 << 10 && extent.range.end.0 <= 1536 << 10;
        assert!(is_ours || !matches!(extent.kind, ExtentKind::Data { host: Some(_) }));
    }

    let alone = OpenOptions::default();
    let refused = formats::open(source(&at.join("top")).unwrap(), &alone)
        .err()
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains("\"middle\""), "{refused}");
    let inspection = inspect(&std::fs::read(at.join("top")).unwrap());
    assert_eq!(refused_by(&inspection), Some("backing_file"));
    assert_eq!(inspection.details["backing_file"], "middle");
    assert_eq!(inspection.details["backing_file_format"], "qcow2");
}

#[test]
fn a_chain_that_loops_or_guesses_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    qemu_img(
        at,
        &[
            "create", "-u", "-f", "qcow2", "-b", "loop", "-F", "qcow2", "new", "1M",
        ],
    );
    std::fs::rename(at.join("new"), at.join("loop")).unwrap();
    qemu_img(
        at,
        &[
            "create", "-u", "-f", "qcow2", "-b", "x", "-F", "bochs", "other", "1M",
        ],
    );
    qemu_img(
        at,
        &[
            "create", "-u", "-f", "qcow2", "-b", "x", "-F", "raw", "guess", "1M",
        ],
    );
    std::fs::write(at.join("x"), vec![1; 4096]).unwrap();
    let mut bytes = std::fs::read(at.join("guess")).unwrap();
    let format = bytes
        .windows(4)
        .position(|w| w == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    bytes[format..format + 4].copy_from_slice(b"none");
    std::fs::write(at.join("guess"), bytes).unwrap();
    for (name, word) in [
        ("loop", "longer than"),
        ("other", "\"bochs\""),
        ("guess", "not guessed"),
    ] {
        let e = formats::open(source(&at.join(name)).unwrap(), &options(Folder(at.into())));
        let e = e.err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        assert!(e.to_string().contains(word), "{e}");
    }
}

#[test]
fn an_external_data_file_is_read_where_it_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let guest = guest(MIB, 7);
    std::fs::write(at.join("guest.raw"), &guest).unwrap();
    for raw in ["off", "on"] {
        let options_text = format!("data_file=data,data_file_raw={raw}");
        qemu_img(
            at,
            &[
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                "-o",
                &options_text,
                "guest.raw",
                "image",
            ],
        );
        let disk = formats::open(
            source(&at.join("image")).unwrap(),
            &options(Folder(at.into())),
        );
        reads_as(disk.unwrap().as_ref(), &guest, raw);
        let bytes = std::fs::read(at.join("image")).unwrap();
        let inspection = inspect(&bytes);
        assert_eq!(refused_by(&inspection), Some("data_file"));
        assert_eq!(inspection.details["data_file"], "data");
        let alone = formats::open(Arc::new(bytes), &OpenOptions::default());
        assert_eq!(alone.err().map(|e| e.kind()), Some(ErrorKind::Refused));
    }
}

#[test]
fn every_layer_of_a_chain_is_of_any_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let guest = guest(MIB, 21);
    std::fs::write(at.join("guest.raw"), &guest).unwrap();
    for (format, options) in [
        ("raw", ""),
        ("qcow2", "compression_type=zstd"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vdi", ""),
        ("vpc", "force_size=on"),
        ("vhdx", ""),
        ("parallels", ""),
        ("qcow", ""),
    ] {
        let what = format!("{format} {options}");
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend(["guest.raw", "base"]);
        qemu_img(at, &args);
        let backed = [
            "create", "-f", "qcow2", "-b", "base", "-F", format, "middle", "1500k",
        ];
        qemu_img(at, &backed);
        let middle = ["-f", "qcow2", "-c", "write -P 33 1000k 90k", "middle"];
        run("qemu-io", at, &middle);
        let on_top = [
            "create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top", "2M",
        ];
        qemu_img(at, &on_top);
        let top = [
            "-f",
            "qcow2",
            "-c",
            "write -P 44 1030k 3k",
            "-c",
            "write -P 45 1800k 9k",
            "top",
        ];
        run("qemu-io", at, &top);
        let expected = as_qemu_reads(at, "top");
        assert!(expected[..1000 << 10] == guest[..1000 << 10], "{what}");
        for (byte, at) in [(33, 1010 << 10), (44, 1031 << 10), (45, 1801 << 10)] {
            assert_eq!(expected[at], byte, "{what}");
        }
        let options = super::options(Folder(at.into()));
        let disk = formats::open(source(&at.join("top")).unwrap(), &options);
        let disk = disk.unwrap_or_else(|e| panic!("{what}: {e}"));
        reads_as(disk.as_ref(), &expected, &what);
    }
}
