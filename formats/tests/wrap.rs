//! Compression put around images, and images written to pipes: read back by other programs.

use std::io::{Read, Write};
use std::num::NonZero;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;

use formats::container::{Compression, Wrap, compress};
use formats::copy::{CopyOptions, Progress, copy};
use formats::{
    CreateOptions, Disk, ErrorKind, Extent, ExtentKind, Format, GuestOffset, MemorySink, Result,
    Sink, StreamSink, create, push_extent, raw,
};

/// A disk of zeros with stretches of other bytes.
struct Sparse {
    size: u64,
    stretches: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    fn new(size: u64, stretches: &[(u64, usize)]) -> Self {
        let bytes = |len: usize| {
            let byte = |n: usize| (n.wrapping_mul(0x9e37_79b1) >> 13) as u8;
            (0..len).map(byte).collect()
        };
        let stretches = stretches.iter().map(|&(at, len)| (at, bytes(len)));
        Self {
            size,
            stretches: stretches.collect(),
        }
    }
}

impl Disk for Sparse {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        512
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        let mut at = range.start;
        let mut push = |end: u64, kind| {
            let end = GuestOffset(end).clamp(at, range.end);
            push_extent(
                out,
                Extent {
                    range: at..end,
                    kind,
                },
            );
            at = end;
        };
        for (start, bytes) in &self.stretches {
            push(*start, ExtentKind::Unallocated);
            push(start + bytes.len() as u64, ExtentKind::Data { host: None });
        }
        push(self.size, ExtentKind::Zero);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        buf.fill(0);
        let end = at.0 + buf.len() as u64;
        for (start, bytes) in &self.stretches {
            let from = at.0.max(*start);
            let to = end.min(start + bytes.len() as u64);
            if from < to {
                buf[(from - at.0) as usize..(to - at.0) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

fn threads(n: usize) -> CopyOptions {
    CopyOptions {
        threads: NonZero::new(n).unwrap(),
    }
}

fn wrapped(disk: &dyn Disk, wrap: Wrap, n: usize) -> Vec<u8> {
    let sink = MemorySink::default();
    let summary = compress(disk, wrap, &sink, &threads(n), &Progress::default()).unwrap();
    let bytes = sink.into_bytes();
    assert_eq!(summary.file_size, bytes.len() as u64);
    bytes
}

/// What a program makes of `input` on its standard input.
fn through(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input).unwrap());
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{program}");
        out.stdout
    })
}

fn inflated(file: Vec<u8>) -> Vec<u8> {
    let compression = Compression::detect(&file).unwrap();
    let mut reader = compression.reader(Arc::new(file)).unwrap();
    let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut buf).unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

fn bytes(disk: &dyn Disk) -> Vec<u8> {
    let mut all = vec![0; disk.virtual_size() as usize];
    disk.read_at(&mut all, GuestOffset::ZERO).unwrap();
    all
}

#[test]
fn what_is_wrapped_comes_back_from_every_program() {
    const MIB: u64 = 1 << 20;
    let disks = [
        Sparse::new(0, &[]),
        Sparse::new(512, &[(0, 100)]),
        Sparse::new(9 * MIB + 512, &[(0, 70_000), (5 * MIB - 1, 2_000_000)]),
        Sparse::new(36 * MIB, &[(33 * MIB + 4096, 5)]),
        Sparse::new(20 * MIB, &[(20 * MIB - 1, 1)]),
    ];
    for disk in &disks {
        let content = bytes(disk);
        for wrap in [Wrap::Gzip(1), Wrap::Gzip(6), Wrap::Zstd(3)] {
            let file = wrapped(disk, wrap, 1);
            assert!(file == wrapped(disk, wrap, 3), "{wrap}");
            let streamed = StreamSink::new(Vec::new());
            compress(disk, wrap, &streamed, &threads(3), &Progress::default()).unwrap();
            assert!(streamed.into_inner() == file, "{wrap}");
            assert!(inflated(file.clone()) == content, "{wrap}");
            let back = match wrap {
                Wrap::Gzip(_) => through("gzip", &["-dc"], &file),
                Wrap::Zstd(_) => through("zstd", &["-dc"], &file),
            };
            assert!(back == content, "{wrap}");
            if let Wrap::Gzip(_) = wrap {
                let script = "import gzip,sys;sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
                assert!(through("python3", &["-c", script], &file) == content);
                let mut all = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(file.as_slice());
                decoder.read_to_end(&mut all).unwrap();
                assert!(all == content);
            }
        }
    }
}

#[test]
fn the_same_content_gives_the_same_bytes_wherever_its_holes_are() {
    let mut content = vec![0; 9 << 20];
    content[5 << 20..][..4096].fill(7);
    let sparse = Sparse {
        size: content.len() as u64,
        stretches: vec![(5 << 20, vec![7; 4096])],
    };
    let plain = raw::Reader::new(Arc::new(content)).unwrap();
    for wrap in [Wrap::Gzip(6), Wrap::Zstd(3)] {
        assert!(wrapped(&sparse, wrap, 2) == wrapped(&plain, wrap, 2));
    }
}

/// Counts and keeps nothing.
#[derive(Default)]
struct Counted(std::sync::atomic::AtomicU64);

impl Sink for Counted {
    fn write_all_at(&self, bytes: &[u8], _: formats::HostOffset) -> Result<()> {
        let len = bytes.len() as u64;
        self.0.fetch_add(len, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<()> {
        assert_eq!(self.0.load(std::sync::atomic::Ordering::SeqCst), len);
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_large_hole_costs_little() {
    let disk = Sparse::new(16 << 30, &[((9 << 30) + 5, 3)]);
    for (wrap, most) in [(Wrap::Gzip(6), 17 << 20), (Wrap::Zstd(3), 1 << 20)] {
        let sink = Counted::default();
        let summary = compress(&disk, wrap, &sink, &threads(2), &Progress::default()).unwrap();
        assert!(summary.file_size < most, "{wrap}: {}", summary.file_size);
    }
}

#[test]
fn formats_that_stream_give_a_pipe_the_bytes_of_a_file() {
    let disk = Sparse::new(
        (70 << 20) + 512,
        &[(3 << 20, 3_000_000), (65 << 20, 70_000)],
    );
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let vmdk = pair("subformat", "streamOptimized");
    let vhd = pair("subformat", "fixed");
    for (format, options) in [
        (Format::Raw, vec![]),
        (Format::Vmdk, vmdk),
        (Format::Vhd, vhd),
    ] {
        let options = CreateOptions::parse(format, &options, false).unwrap();
        let target = || create(&options, disk.virtual_size()).unwrap();
        let file = MemorySink::default();
        copy(&disk, target(), &file, &threads(3), &Progress::default()).unwrap();
        let file = file.into_bytes();
        for n in [1, 3] {
            let pipe = StreamSink::new(Vec::new());
            copy(&disk, target(), &pipe, &threads(n), &Progress::default()).unwrap();
            assert!(pipe.into_inner() == file, "{format}, {n} threads");
        }
    }
}

#[test]
fn formats_that_do_not_stream_say_so() {
    let disk = Sparse::new(1 << 20, &[(0, 5000)]);
    for format in [
        Format::Qcow2,
        Format::Vhdx,
        Format::Vdi,
        Format::Vhd,
        Format::Vmdk,
    ] {
        let options = CreateOptions::parse(format, &[], false).unwrap();
        let target = create(&options, 1 << 20).unwrap();
        assert!(target.preamble().is_none(), "{format}");
        let pipe = StreamSink::new(Vec::new());
        let error = copy(&disk, target, &pipe, &threads(1), &Progress::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(pipe.into_inner().is_empty());
    }
}
