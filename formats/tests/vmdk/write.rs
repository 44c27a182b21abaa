//! What we write, in one file and in several, against qemu-img and our own reader.

use formats::{FileSink, Parts, Sink};

use super::*;

fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
    options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Writes `disk` as `folder/name` and the files beside it; answers their names, as announced.
fn write_to(
    folder: &Path,
    name: &str,
    disk: &dyn Disk,
    options: &[(&str, &str)],
    threads: usize,
) -> Vec<String> {
    let options = CreateOptions::parse(Format::Vmdk, &pairs(options), false).unwrap();
    let is_split = options.is_split();
    let target = formats::create(&options.named(name), disk.virtual_size()).unwrap();
    let parts = target.parts();
    assert_eq!(parts.is_empty(), !is_split);
    let open = |name: &str| -> Result<Arc<dyn Sink>> {
        let path = folder.join(name);
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        Ok(Arc::new(FileSink::new(file)))
    };
    let options = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    let progress = Progress::default();
    let names: Vec<_> = parts.iter().map(|part| part.name.clone()).collect();
    let summary = if is_split {
        let ranges = parts.iter().map(|part| part.range.clone()).collect();
        let sink = Parts::new(ranges, |n| open(&names[n]));
        copy(disk, target, &sink, &options, &progress).unwrap()
    } else {
        let sink = open(name).unwrap();
        copy(disk, target, sink.as_ref(), &options, &progress).unwrap()
    };
    let names = if is_split {
        names
    } else {
        vec![name.to_owned()]
    };
    let total: u64 = names
        .iter()
        .map(|name| folder.join(name).metadata().unwrap().len())
        .sum();
    assert_eq!(summary.file_size, total);
    names
}

fn raw(path: &Path) -> Arc<dyn Disk> {
    let file = FileSource::new(std::fs::File::open(path).unwrap()).unwrap();
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    formats::open(Arc::new(file), &options).unwrap()
}

fn open_in(folder: &Path, name: &str) -> Arc<dyn Disk> {
    let file = FileSource::new(std::fs::File::open(folder.join(name)).unwrap()).unwrap();
    formats::open(Arc::new(file), &within(folder)).unwrap()
}

/// qemu-img finds the disk in `name` to be that in `guest.raw`, and nothing wrong with it.
fn witnessed(folder: &Path, name: &str, subformat: &str) {
    let compare = ["compare", "-f", "raw", "-F", "vmdk", "guest.raw", name];
    let out = qemu_img(&compare, folder);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{subformat}: {said}");
    let info = qemu_img(&["info", "--output=json", name], folder);
    assert!(info.status.success() && info.stderr.is_empty());
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["format-specific"]["data"]["create-type"], subformat);
    if subformat != "streamOptimized" {
        let out = qemu_img(&["check", "-f", "vmdk", name], folder);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{subformat}: {said}");
    }
}

const SUBFORMATS: [&str; 5] = [
    "monolithicSparse",
    "streamOptimized",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
];

#[test]
fn every_subformat_and_option_reads_back_the_same() {
    let mut guest = guest((34 << 20) + 512, 31);
    guest[33 << 20..].fill(0);
    for (n, subformat) in SUBFORMATS.into_iter().enumerate() {
        let zeroed = if subformat.ends_with("Flat") {
            "off"
        } else {
            "on"
        };
        let adapter = ["ide", "buslogic", "lsilogic", "legacyESX", "ide"][n];
        let options = [
            ("subformat", subformat),
            ("adapter_type", adapter),
            ("zeroed_grain", zeroed),
            ("hwversion", "13"),
            ("toolsversion", "77"),
            ("compression_level", "1"),
        ];
        let folders = [1, 7].map(|threads| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("guest.raw"), &guest).unwrap();
            let disk = raw(&folder.path().join("guest.raw"));
            let names = write_to(folder.path(), "x.vmdk", disk.as_ref(), &options, threads);
            (folder, names)
        });
        let [(one, names), (seven, more)] = &folders;
        assert_eq!(names, more);
        for name in names {
            let (a, b) = (load(&one.path().join(name)), load(&seven.path().join(name)));
            assert!(a == b, "{subformat}: threads changed {name}");
        }
        let path = one.path();
        let disk = open_in(path, "x.vmdk");
        assert!(
            content(disk.as_ref(), 1 << 20).unwrap() == guest,
            "{subformat}"
        );
        witnessed(path, "x.vmdk", subformat);
        let inspection = inspect(&load(&path.join("x.vmdk")));
        assert_eq!(inspection.details["adapter_type"], adapter);
        assert_eq!(inspection.details["hardware_version"], "13");
        let text = load(&path.join("x.vmdk"));
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("ddb.toolsVersion = \"77\""), "{text}");
    }
}

#[test]
fn descriptors_say_what_those_of_qemu_img_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = std::fs::File::create(path.join("guest.raw")).unwrap();
    file.set_len((5 << 30) + 512).unwrap();
    let said = |path: PathBuf| {
        let bytes = load(&path);
        let start = if bytes.starts_with(b"KDMV") { 512 } else { 0 };
        let end = (start + 20 * 512).min(bytes.len());
        let text = String::from_utf8(bytes[start..end].to_vec()).unwrap();
        let text = text.trim_end_matches('\0').to_owned();
        let keep = |line: &&str| !line.is_empty() && !line.starts_with("CID=");
        let lines: Vec<_> = text.lines().filter(keep).map(str::to_owned).collect();
        lines
    };
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
    ] {
        for more in [
            &[][..],
            &[("adapter_type", "lsilogic"), ("compat6", "on")],
            &[("adapter_type", "legacyESX"), ("hwversion", "11")],
            &[("adapter_type", "buslogic"), ("toolsversion", "4711")],
        ] {
            let options = [&[("subformat", subformat)], more].concat();
            let letters: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let size = ((5u64 << 30) + 512).to_string();
            let args = [
                "create",
                "-f",
                "vmdk",
                "-o",
                &letters.join(","),
                "theirs.vmdk",
                &size,
            ];
            assert!(qemu_img(&args, path).status.success());
            let disk = raw(&path.join("guest.raw"));
            write_to(path, "theirs-.vmdk", disk.as_ref(), &options, 1);
            let ours: Vec<_> = said(path.join("theirs-.vmdk"))
                .iter()
                .map(|line| line.replace("theirs--", "theirs-"))
                .collect();
            assert_eq!(ours, said(path.join("theirs.vmdk")), "{letters:?}");
        }
    }
}

#[test]
fn disks_beyond_two_gib_are_cut_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = std::fs::File::create(path.join("guest.raw")).unwrap();
    file.set_len((2 << 30) + (5 << 20) + 512).unwrap();
    let noise = guest(3 << 20, 8);
    for at in [0, (2u64 << 30) - (1 << 20) - 4096] {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise, at).unwrap();
    }
    let disk = raw(&path.join("guest.raw"));
    for (subformat, names) in [
        (
            "twoGbMaxExtentSparse",
            ["s-s001.vmdk", "s-s002.vmdk", "s.vmdk"],
        ),
        (
            "twoGbMaxExtentFlat",
            ["s-f001.vmdk", "s-f002.vmdk", "s.vmdk"],
        ),
    ] {
        let options = [("subformat", subformat)];
        let written = write_to(path, "s.vmdk", disk.as_ref(), &options, 7);
        assert_eq!(written, names);
        let ours = open_in(path, "s.vmdk");
        assert_eq!(sparse64k(ours.as_ref()), sparse64k(disk.as_ref()));
        witnessed(path, "s.vmdk", subformat);
    }
}

#[test]
fn an_empty_disk_of_eight_tib_is_nothing_to_write_or_read() {
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "twoGbMaxExtentSparse",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let empty = std::fs::File::create(path.join("guest.raw")).unwrap();
        empty.set_len(8 << 40).unwrap();
        let disk = raw(&path.join("guest.raw"));
        let names = write_to(
            path,
            "e.vmdk",
            disk.as_ref(),
            &[("subformat", subformat)],
            2,
        );
        let blocks: u64 = names
            .iter()
            .map(|name| {
                std::os::unix::fs::MetadataExt::blocks(&path.join(name).metadata().unwrap())
            })
            .sum();
        assert!(blocks * 512 < 64 << 20, "{subformat} takes {blocks} blocks");
        let ours = open_in(path, "e.vmdk");
        assert_eq!(ours.virtual_size(), 8 << 40);
        let all = extents(ours.as_ref()).unwrap();
        assert!(all.iter().all(|e| e.kind.is_hole()), "{subformat}");
        write_to(path, "again.vmdk", ours.as_ref(), &[], 2);
        let again = open_in(path, "again.vmdk");
        assert_eq!(again.virtual_size(), 8 << 40);
    }
}
