//! OVAs we write, opened by other people's tools: Python's tarfile, hashlib and XML, qemu-img.

use std::fs::File;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use formats::container::ova::WriteOptions;
use formats::container::{Context, Ova, describe, write_ova};
use formats::copy::{CopyOptions, Progress};
use formats::inspect::Verdict;
use formats::{
    Disk, ErrorKind, FileSink, FileSource, Format, GuestOffset, HostOffset, Limits, MemorySink,
    Result, Sink, StreamSink, raw,
};

fn disk(len: usize, seed: usize) -> Arc<raw::Reader> {
    let mut bytes = vec![0; len];
    for (n, byte) in (seed..).zip(bytes.iter_mut().skip(5000).take(200_000)) {
        *byte = (n.wrapping_mul(0x9e37_79b1) >> 11) as u8;
    }
    Arc::new(raw::Reader::new(Arc::new(bytes)).unwrap())
}

fn options(pairs: &[(&str, &str)]) -> WriteOptions {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    WriteOptions::parse(&pairs).unwrap()
}

fn threads(n: usize) -> CopyOptions {
    CopyOptions {
        threads: NonZero::new(n).unwrap(),
    }
}

fn written(disks: &[&dyn Disk], options: &WriteOptions, n: usize) -> Vec<u8> {
    let sink = MemorySink::default();
    let summary = write_ova(disks, options, &sink, &threads(n), &Progress::default()).unwrap();
    let bytes = sink.into_bytes();
    assert_eq!(summary.file_size, bytes.len() as u64);
    bytes
}

fn read_all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.virtual_size()).unwrap()];
    disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
    bytes
}

#[test]
fn we_read_what_we_write_and_threads_change_nothing() {
    let (a, b) = (disk(3 << 20, 1), disk((1 << 20) + 512, 9));
    let options = options(&[("name", "two disks"), ("vcpus", "2"), ("memory", "2G")]);
    let bytes = written(&[a.as_ref(), b.as_ref()], &options, 1);
    assert!(bytes == written(&[a.as_ref(), b.as_ref()], &options, 3));
    let source: Arc<dyn formats::Source> = Arc::new(bytes);
    let limits = Limits::default();
    let found = describe(&source, &limits).unwrap();
    assert_eq!(found.findings, [], "{:?}", found.findings);
    assert_eq!(found.details["manifest"], "verified");
    assert_eq!(found.details["name"], "two disks");
    assert_eq!(found.details["vcpus"], 2);
    assert_eq!(found.details["memory"], 2_u64 << 30);
    let names: Vec<_> = found.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["two-disks-disk1.vmdk", "two-disks-disk2.vmdk"]);
    let ova = Ova::open(&source).unwrap();
    for (n, disk) in [a, b].into_iter().enumerate() {
        let back = ova.open_disk(n, &Context::new(&limits)).unwrap();
        assert!(read_all(back.as_ref()) == read_all(disk.as_ref()));
    }
}

const PYTHON: &str = r#"
import hashlib, re, sys, tarfile
import xml.etree.ElementTree as ET
archive, folder = sys.argv[1:]
with tarfile.open(archive) as tar:
    members = tar.getmembers()
    names = [m.name for m in members]
    assert names[0].endswith('.ovf') and names[-1].endswith('.mf'), names
    for m in members:
        assert m.isreg() and m.mtime == 86400 and m.uid == 0 and m.mode == 0o644, m
    data = {m.name: tar.extractfile(m).read() for m in members}
lines = data[names[-1]].decode().splitlines()
digests = dict(re.fullmatch(r'SHA256\((.*)\)= ([0-9a-f]{64})', l).groups() for l in lines)
assert list(digests) == names[:-1], digests
for name, digest in digests.items():
    assert hashlib.sha256(data[name]).hexdigest() == digest, name
ovf = '{http://schemas.dmtf.org/ovf/envelope/1}'
rasd = '{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}'
root = ET.fromstring(data[names[0]])
assert root.tag == ovf + 'Envelope'
order = [child.tag.removeprefix(ovf) for child in root]
assert order == ['References', 'DiskSection', 'NetworkSection', 'VirtualSystem'], order
files = {f.get(ovf + 'id'): f for f in root.iter(ovf + 'File')}
for disk in root.iter(ovf + 'Disk'):
    file = files[disk.get(ovf + 'fileRef')]
    href = file.get(ovf + 'href')
    assert int(file.get(ovf + 'size')) == len(data[href])
    open(folder + '/' + href, 'wb').write(data[href])
items = list(root.iter(ovf + 'Item'))
ids = [i.find(rasd + 'InstanceID').text for i in items]
assert len(set(ids)) == len(ids)
for item in items:
    # The schema wants the elements of an item in the order of the alphabet.
    tags = [e.tag for e in item]
    assert tags == sorted(tags), tags
    parent = item.find(rasd + 'Parent')
    assert parent is None or parent.text in ids
"#;

#[test]
fn python_and_qemu_img_read_what_we_write() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("web.ova");
    let disks = [disk(3 << 20, 1), disk((1 << 20) + 512, 9)];
    let refs: Vec<&dyn Disk> = disks.iter().map(|d| d.as_ref() as _).collect();
    let options = options(&[
        ("name", "web"),
        ("mtime", "86400"),
        ("os", "debian12_64Guest"),
    ]);
    let sink = FileSink::new(File::create(&path).unwrap());
    write_ova(&refs, &options, &sink, &threads(2), &Progress::default()).unwrap();
    let run = |program: &str, args: &[&Path]| {
        let out = Command::new(program).args(args).output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let script = room.path().join("check.py");
    std::fs::write(&script, PYTHON).unwrap();
    run("python3", &[&script, &path, room.path()]);
    for (n, disk) in (1..).zip(&disks) {
        let vmdk = room.path().join(format!("web-disk{n}.vmdk"));
        let flat = room.path().join("flat.raw");
        run(
            "qemu-img",
            &[
                "convert".as_ref(),
                "-O".as_ref(),
                "raw".as_ref(),
                &vmdk,
                &flat,
            ],
        );
        assert!(std::fs::read(&flat).unwrap() == read_all(disk.as_ref()));
    }
    // The system's tar agrees on what is in it.
    let list = Command::new("tar").arg("tf").arg(&path).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&list.stdout),
        "web.ovf\nweb-disk1.vmdk\nweb-disk2.vmdk\nweb.mf\n"
    );
}

#[test]
fn what_cannot_be_an_ova_is_refused() {
    let disk = disk(1 << 20, 1);
    let many: Vec<&dyn Disk> = vec![disk.as_ref(); 16];
    let usage = |disks: &[&dyn Disk], sink: &dyn Sink| {
        let options = WriteOptions::default();
        let done = write_ova(disks, &options, sink, &threads(1), &Progress::default());
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Usage);
    };
    usage(&[], &MemorySink::default());
    usage(&many, &MemorySink::default());
    usage(&many[..1], &StreamSink::new(Vec::new()));
    let empty = raw::Reader::new(Arc::new(Vec::new())).unwrap();
    usage(&[&empty], &MemorySink::default());
}

#[test]
fn fifteen_disks_and_the_longest_name_fit() {
    let disk = disk(1 << 20, 3);
    let many: Vec<&dyn Disk> = vec![disk.as_ref(); 15];
    let name = "&".repeat(80);
    for name in [name.as_str(), &"n".repeat(80)] {
        let bytes = written(&many, &options(&[("name", name)]), 2);
        let found = describe(&(Arc::new(bytes) as _), &Limits::default()).unwrap();
        assert_eq!(found.verdict(), Verdict::Safe, "{:?}", found.findings);
        assert_eq!((found.format, found.disks.len()), (Format::Ova, 15));
    }
}

/// A sink that fails at a byte.
struct Broken(u64);

impl Sink for Broken {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        match at.0 + bytes.len() as u64 > self.0 {
            true => Err(formats::Error::io(
                "writing to the broken disk",
                std::io::Error::other("on fire"),
            )),
            false => Ok(()),
        }
    }
    fn set_len(&self, _: u64) -> Result<()> {
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_failing_sink_is_told_by_its_own_words() {
    let disk = disk(3 << 20, 1);
    let options = WriteOptions::default();
    for at in [0, 70_000, 80_000] {
        let done = write_ova(
            &[disk.as_ref()],
            &options,
            &Broken(at),
            &threads(2),
            &Progress::default(),
        );
        let error = done.unwrap_err();
        assert_eq!(error.to_string(), "writing to the broken disk", "{at}");
    }
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(9 << 30).unwrap();
    let large = raw::Reader::new(Arc::new(FileSource::new(sparse).unwrap())).unwrap();
    let bytes = written(&[&large], &options, 2);
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
}
