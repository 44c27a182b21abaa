//! What the integration tests share: the corpus of real images and its manifest.
//!
//! The corpus lies where `GLINT_CORPUS` says; without it the tests that need it say so and pass.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod build;
pub(crate) mod exercise;
pub(crate) mod limited;
pub(crate) mod mend;
mod random;
pub(crate) mod seeds;
pub(crate) mod sparse;
pub(crate) mod targets;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::resolve::{Granted, Resolver, Wanted};
use formats::{Error, FileSource, Format, Result, Source};
use sha2::{Digest, Sha256};

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use random::Random;

/// The corpus.
pub(crate) struct Corpus {
    root: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

/// A line of its manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) path: String,
    /// `image`: decompress first; `stored`: the file as it is.
    pub(crate) feed: String,
    pub(crate) format: String,
    pub(crate) expect: String,
    pub(crate) virtual_size: Option<u64>,
    /// SHA-256 of the guest's bytes.
    pub(crate) content: Option<String>,
    /// SHA-256 over index and bytes of each 64 KiB block that is not zero.
    pub(crate) sparse64k: Option<String>,
    /// Other answers that are right: virtual size and content.
    pub(crate) alternatives: Vec<(u64, String)>,
    pub(crate) group: Option<String>,
}

impl Corpus {
    /// The corpus, or `None` (said aloud) where there is none.
    pub(crate) fn open() -> Option<Self> {
        let Some(root) = std::env::var_os("GLINT_CORPUS").map(PathBuf::from) else {
            eprintln!("skipped: GLINT_CORPUS does not say where the corpus of images is");
            return None;
        };
        let text = fs::read_to_string(root.join("MANIFEST.tsv")).expect("the corpus' manifest");
        let mut lines = text.lines();
        let columns: Vec<_> = lines.next().unwrap_or_default().split('\t').collect();
        let entries = lines.map(|line| Entry::parse(&columns, line)).collect();
        Some(Self { root, entries })
    }

    /// The bytes of an entry, decompressed where the manifest says so.
    pub(crate) fn source(&self, entry: &Entry) -> Arc<dyn Source> {
        let path = self.root.join(&entry.path);
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", entry.path));
        if entry.feed != "image" || entry.compression().is_none() {
            return Arc::new(FileSource::new(file).expect("a regular file"));
        }
        Arc::new(FileSource::new(inflate(&path, file)).expect("a regular file"))
    }

    /// The decompressed bytes of an entry, where they are at most `most`.
    pub(crate) fn bytes(&self, entry: &Entry, most: u64) -> Option<Vec<u8>> {
        let source = self.source(entry);
        if source.len() > most {
            return None;
        }
        Some(formats::read_up_to(source.as_ref(), formats::HostOffset::ZERO, usize::MAX).unwrap())
    }
}

impl Entry {
    fn parse(columns: &[&str], line: &str) -> Self {
        let fields: Vec<_> = line.split('\t').collect();
        let field = |name: &str| {
            let n = columns
                .iter()
                .position(|c| *c == name)
                .expect("a known column");
            fields.get(n).copied().filter(|value| *value != "-")
        };
        let text = |name| field(name).unwrap_or_default().to_owned();
        Self {
            path: text("path"),
            feed: text("feed"),
            format: text("format"),
            expect: text("expect"),
            virtual_size: field("virtual_size").map(|size| size.parse().expect("a size")),
            content: field("content_sha256").map(str::to_owned),
            sparse64k: field("content_sparse64k")
                .map(|hash| hash.trim_start_matches("sparse64k:").to_owned()),
            alternatives: field("alternatives")
                .into_iter()
                .flat_map(|all| all.split([';', ' ', ',']))
                .filter_map(|one| one.split_once(':'))
                .map(|(size, hash)| (size.parse().expect("a size"), hash.to_owned()))
                .collect(),
            group: field("group").map(str::to_owned),
        }
    }

    fn compression(&self) -> Option<&str> {
        let (_, suffix) = self.path.rsplit_once('.')?;
        ["zst", "xz", "gz", "bz2"]
            .contains(&suffix)
            .then_some(suffix)
    }

    /// The file's name once decompressed.
    fn name(&self) -> &str {
        let name = self
            .path
            .rsplit_once('/')
            .map_or(self.path.as_str(), |(_, name)| name);
        match self.compression() {
            Some(suffix) => &name[..name.len() - suffix.len() - 1],
            None => name,
        }
    }
}

/// Decompresses into a file of its own, leaving holes for zeros.
fn inflate(path: &Path, file: File) -> File {
    let file = BufReader::new(file);
    let mut reader: Box<dyn Read> = match path.extension().and_then(|s| s.to_str()) {
        Some("zst") => Box::new(zstd::Decoder::new(file).expect("a decoder")),
        Some("xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(bzip2::read::MultiBzDecoder::new(file)),
    };
    let out = tempfile::tempfile().expect("a temporary file");
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let got = fill(reader.as_mut(), &mut chunk);
        if got == 0 {
            break;
        }
        if !formats::bytes::is_zero(&chunk[..got]) {
            out.write_all_at(&chunk[..got], at)
                .expect("room for an image");
        }
        at += got as u64;
    }
    out.set_len(at).expect("room for an image");
    out
}

fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> usize {
    let mut got = 0;
    while got < buf.len() {
        match reader
            .read(&mut buf[got..])
            .expect("a corpus file decompresses")
        {
            0 => break,
            n => got += n,
        }
    }
    got
}

/// Answers an image's requests from the files of its group, by plain name.
pub(crate) struct GroupResolver {
    corpus: Arc<Corpus>,
    group: Option<String>,
}

impl GroupResolver {
    pub(crate) fn new(corpus: Arc<Corpus>, entry: &Entry) -> Self {
        Self {
            corpus,
            group: entry.group.clone(),
        }
    }
}

impl Resolver for GroupResolver {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        let member = self.group.as_ref().and_then(|group| {
            let mut entries = self.corpus.entries.iter();
            entries.find(|e| e.group.as_ref() == Some(group) && e.name() == name)
        });
        match member {
            Some(entry) => Ok(Granted {
                source: self.corpus.source(entry),
                resolver: Arc::new(Self::new(self.corpus.clone(), entry)),
            }),
            None => Err(Error::refused(
                by,
                wanted.name(),
                format!("{name:?} is not in its group"),
            )),
        }
    }
}

/// A digest as hexadecimal text.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("memory takes text");
            text
        })
}
