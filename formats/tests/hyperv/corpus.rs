//! Real images of the corpus.

use super::*;
use sha2::{Digest, Sha256};

pub(crate) fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("GLINT_CORPUS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: GLINT_CORPUS does not name the corpus");
    }
    dir
}

/// Unpacks a corpus file into `dir`, leaving holes where it has zeros.
pub(crate) fn unpack(path: &Path, dir: &Path) -> PathBuf {
    let file = File::open(path).unwrap();
    let mut input: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("bz2") => Box::new(bzip2::read::BzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    };
    let out = dir.join(path.file_name().unwrap());
    let mut file = File::create(&out).unwrap();
    let mut buf = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let n = input.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        if !bytes::is_zero(&buf[..n]) {
            put(&mut file, len, &buf[..n]);
        }
        len += n as u64;
    }
    file.set_len(len).unwrap();
    out
}

/// SHA-256 of the whole content, or the sparse one of the corpus for large disks: index and
/// bytes of each 64 KiB block that is not zero.
pub(crate) fn content_hash(disk: &dyn Disk, is_sparse: bool) -> String {
    const STEP: u64 = 1 << 20;
    let mut hash = Sha256::new();
    let mut buf = vec![0; STEP as usize];
    let mut at = 0;
    let mut holes = extents(disk).into_iter().filter(|e| e.kind.is_hole());
    let mut hole = holes.next();
    while at < disk.virtual_size() {
        let buf = &mut buf[..STEP.min(disk.virtual_size() - at) as usize];
        let end = GuestOffset(at + buf.len() as u64);
        while hole.as_ref().is_some_and(|h| h.range.end < end) {
            hole = holes.next();
        }
        let is_hole = hole.as_ref().is_some_and(|h| h.range.start.0 <= at);
        if !(is_sparse && is_hole) {
            disk.read_at(buf, GuestOffset(at)).unwrap();
            if is_sparse {
                for (n, block) in (at / 65536..).zip(buf.chunks(65536)) {
                    if !bytes::is_zero(block) {
                        hash.update(n.to_le_bytes());
                        hash.update(block);
                    }
                }
            } else {
                hash.update(&*buf);
            }
        }
        at = end.0;
    }
    let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if is_sparse {
        format!("sparse64k:{hash}")
    } else {
        hash
    }
}

#[test]
fn reads_the_corpus_rightly() {
    let Some(corpus) = corpus() else { return };
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let mut lines = manifest.lines();
    let names: Vec<_> = lines.next().unwrap().split('\t').collect();
    let mut seen = 0;
    for line in lines {
        let fields: Vec<_> = line.split('\t').collect();
        let field = |name| fields[names.iter().position(|n| *n == name).unwrap()];
        let path = field("path");
        let format = match path.split('/').next() {
            Some("vhd") => Format::Vhd,
            Some("vhdx") => Format::Vhdx,
            Some("vdi") => Format::Vdi,
            _ => continue,
        };
        seen += 1;
        let dir = tempfile::tempdir().unwrap();
        let image = unpack(&corpus.join(path), dir.path());
        let found = inspected(&image);
        assert_eq!(found.format, format, "{path}");
        eprintln!("{path}: {:?}", found.findings);
        if field("expect") == "reject" {
            let rule = found.unsafe_finding().map(|f| f.rule);
            assert_eq!(rule, Some("parent"), "{path}");
            let refused = opened(&image, format).err().expect("differencing");
            assert_eq!(refused.kind(), ErrorKind::Refused, "{path}");
            continue;
        }
        assert_eq!(found.verdict(), Verdict::Safe, "{path}");
        let disk = opened(&image, format).unwrap();
        let size = disk.virtual_size();
        assert_eq!(size.to_string(), field("virtual_size"), "{path}");
        assert_eq!(found.virtual_size, Some(size), "{path}");
        let (sparse, whole) = (field("content_sparse64k"), field("content_sha256"));
        let is_sparse = sparse != "-";
        let expected = if is_sparse { sparse } else { whole };
        assert_eq!(content_hash(disk.as_ref(), is_sparse), expected, "{path}");
        if path.contains("log-replay") {
            assert!(found.findings.iter().any(|f| f.rule == "dirty_log"));
        }
    }
    assert!(seen >= 12, "the corpus has {seen} such files");
}

#[test]
fn refuses_lone_headers_of_the_corpus() {
    let Some(corpus) = corpus() else { return };
    for (name, format) in [
        ("libvhdi-file_footer.1", Format::Vhd),
        ("libvhdi-file_identifier.1", Format::Vhdx),
    ] {
        let path = corpus.join("hostile").join(name);
        let found = inspected(&path);
        assert_eq!((found.format, found.verdict()), (format, Verdict::Unsafe));
        assert!(opened(&path, format).is_err());
    }
}
