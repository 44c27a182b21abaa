//! The stream driver and the source driver reach one judgement, whatever the chunks.

mod support;

use std::sync::Arc;

use formats::inspect::{Inspection, Stream, inspect};
use formats::{HostOffset, Limits, Result, Source, read_up_to};
use rayon::prelude::*;
use support::{Corpus, Random};

/// Images up to this many bytes are fed byte by byte.
const TINY: u64 = 70_000;
/// Larger images are left out.
const MOST: u64 = 6 << 20;

/// Feeds `source` in chunks of the sizes that come out of `chunks`.
fn streamed(
    source: &dyn Source,
    staged: Option<&dyn Source>,
    mut chunks: impl FnMut() -> usize,
) -> Result<Inspection> {
    let mut stream = Stream::default();
    let mut at = HostOffset::ZERO;
    while at.0 < source.len() {
        let chunk = read_up_to(source, at, chunks())?;
        stream.feed(&chunk);
        at.0 += chunk.len() as u64;
    }
    assert_eq!(stream.seen(), source.len());
    stream.finish(staged, &Limits::default())
}

#[test]
fn both_drivers_agree_on_every_image_of_the_corpus() {
    let Some(corpus) = Corpus::open() else {
        return;
    };
    let differences: Vec<_> = corpus
        .entries
        .par_iter()
        .flat_map_iter(|entry| {
            let bytes = corpus.bytes(entry, MOST);
            bytes
                .into_iter()
                .flat_map(|bytes| differences(bytes, &entry.path))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn differences(bytes: Vec<u8>, name: &str) -> Vec<String> {
    let source: Arc<dyn Source> = Arc::new(bytes);
    let limits = Limits::default();
    let expected = format!("{:#?}", inspect(source.as_ref(), &limits).unwrap());
    let mut random = Random(source.len());
    let mut out = Vec::new();
    for how in ["whole", "4109", "random", "1"] {
        if how == "1" && source.len() > TINY {
            continue;
        }
        let mut chunks = || match how {
            "whole" => MOST as usize,
            "4109" => 4109,
            "random" => 1 + random.below(200_000) as usize,
            _ => 1,
        };
        let staged = streamed(source.as_ref(), Some(source.as_ref()), &mut chunks).unwrap();
        if format!("{staged:#?}") != expected {
            out.push(format!(
                "{name}, chunks {how}: {staged:#?}\nby position: {expected}"
            ));
        }
        // Without staging, bytes that are gone may be missed, but never in silence.
        let bare = streamed(source.as_ref(), None, &mut chunks).unwrap();
        let is_told = bare.findings.iter().any(|f| f.rule == "not_streamable");
        if format!("{bare:#?}") != expected && !is_told {
            out.push(format!(
                "{name}, chunks {how}, not staged: {bare:#?}\nnot {expected}"
            ));
        }
    }
    out
}

#[test]
fn both_drivers_agree_on_what_has_magic_and_nothing_else() {
    let magics: [(&[u8], usize); 16] = [
        (b"QFI\xfb\0\0\0\x01", 0),
        (b"QFI\xfb\0\0\0\x03", 0),
        (b"QED\0", 0),
        (b"conectix", 0),
        (b"vhdxfile", 0),
        (b"KDMV\x01\0\0\0", 0),
        (b"# Disk DescriptorFile\n", 0),
        (b"\x7f\x10\xda\xbe", 64),
        (b"WithoutFreeSpace", 0),
        (b"Bochs Virtual HD Image\0", 0),
        (b"LUKS\xba\xbe\0\x01", 0),
        (b"LUKS\xba\xbe\0\x02", 0),
        (b"\x01CD001\x01", 32768),
        (b"\x55\xaa", 510),
        (b"koly\0\0\0\x04\0\0\x02\0", 3584),
        (b"conectix", 3584),
    ];
    let mut random = Random(1);
    for (magic, at) in magics {
        for _ in 0..8 {
            let len = 1 + random.below(at as u64 + 4096) as usize;
            let mut file: Vec<_> = match random.below(2) {
                0 => vec![0; len],
                _ => (0..len).map(|_| random.next() as u8).collect(),
            };
            let end = len.min(at + magic.len());
            if at < end {
                file[at..end].copy_from_slice(&magic[..end - at]);
            }
            let found = differences(file, &format!("{magic:?}, {len} bytes"));
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }
}
