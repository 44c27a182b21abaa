//! What all witnesses share: images from qemu-img, and our own reading of them.
#![allow(dead_code, reason = "each witness uses a part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, Error, FileSink, FileSource, Format, GuestOffset, OpenOptions, Parts,
    Result, Sink,
};
use tempfile::TempDir;

/// Bytes compared at a time.
pub const PIECE: usize = 64 << 10;

pub struct Room(TempDir);

impl Room {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn qemu_img(&self, args: &[&str]) {
        self.run("qemu-img", args);
    }

    /// Writes into an image as a guest would.
    pub fn qemu_io(&self, image: &str, commands: &[&str]) {
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        let args: Vec<_> = ["-f", "qcow2", image].into_iter().chain(commands).collect();
        self.run("qemu-io", &args);
    }

    fn run(&self, program: &str, args: &[&str]) {
        let out = Command::new(program)
            .args(args)
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(
            out.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// A raw disk of `size` bytes: noise, text and holes, some at borders of clusters.
    pub fn raw(&self, name: &str, size: u64) {
        use std::os::unix::fs::FileExt;
        let file = File::create(self.path(name)).unwrap();
        file.set_len(size).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut at = 0;
        while at < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let len = (state % 200_000).min(size - at);
            let piece: Vec<u8> = match state >> 62 {
                0 => (0..len)
                    .map(|n| (state >> (n % 57)) as u8 ^ n as u8)
                    .collect(),
                1 => b"the quick brown fox "
                    .iter()
                    .cycle()
                    .take(len as usize)
                    .copied()
                    .collect(),
                _ => Vec::new(),
            };
            file.write_all_at(&piece, at).unwrap();
            // A few large holes make large disks quick.
            at += len + if size > 1 << 30 { size / 50 } else { 0 };
        }
    }

    /// Writes `from` in `format` with our own engine.
    pub fn write(
        &self,
        from: &str,
        to: &str,
        format: Format,
        options: &[(&str, &str)],
        compress: bool,
    ) {
        let create = CreateOptions::parse(format, &pairs(options), compress).unwrap();
        let sink = FileSink::new(File::create(self.path(to)).unwrap());
        self.convert(from, &create, |_| Box::new(sink));
    }

    /// Writes `from` as a vmdk of several files, whose descriptor is `to`.
    pub fn write_split(&self, from: &str, to: &str, options: &[(&str, &str)]) {
        let create = CreateOptions::parse(Format::Vmdk, &pairs(options), false);
        let create = create.unwrap().named(to);
        self.convert(from, &create, |size| {
            let parts = formats::create(&create, size).unwrap().parts();
            let ranges = parts.iter().map(|part| part.range.clone()).collect();
            let folder = self.0.path().to_owned();
            Box::new(Parts::new(ranges, move |n| {
                let file = File::create(folder.join(&parts[n].name))
                    .map_err(|e| Error::io("making a part", e))?;
                Ok(Arc::new(FileSink::new(file)))
            }))
        });
    }

    fn convert(&self, from: &str, create: &CreateOptions, sink: impl FnOnce(u64) -> Box<dyn Sink>) {
        let disk = open(&self.path(from));
        let size = disk.virtual_size();
        let target = formats::create(create, size).unwrap();
        let (options, progress) = (CopyOptions::default(), Progress::default());
        copy(
            disk.as_ref(),
            target,
            sink(size).as_ref(),
            &options,
            &progress,
        )
        .unwrap();
    }

    pub fn copy_of(&self, name: &str) -> PathBuf {
        let copy = self.path(&format!("{name}.copy"));
        fs::copy(self.path(name), &copy).unwrap();
        copy
    }
}

fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
    options.iter().map(pair).collect()
}

/// Opens a disk with our readers.
pub fn open(path: &Path) -> Arc<dyn Disk> {
    open_with(path, &OpenOptions::default())
}

/// The same, of a format that the file itself does not tell for sure.
pub fn open_as(path: &Path, format: Format) -> Arc<dyn Disk> {
    let options = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    open_with(path, &options)
}

/// The same, where the image may name other files in its folder.
pub fn open_beside(path: &Path) -> Arc<dyn Disk> {
    let options = OpenOptions {
        resolver: Arc::new(Folder::of(path)),
        ..OpenOptions::default()
    };
    open_with(path, &options)
}

fn open_with(path: &Path, options: &OpenOptions) -> Arc<dyn Disk> {
    let source = FileSource::new(File::open(path).unwrap()).unwrap();
    formats::open(Arc::new(source), options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Grants the files of one folder, made by the test itself.
#[derive(Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// That of the image at `path`.
    pub fn of(path: &Path) -> Self {
        Self(path.parent().unwrap().to_owned())
    }
}

impl Resolver for Folder {
    fn resolve(&self, _: Format, _: Wanted, name: &str) -> Result<Granted> {
        let file = File::open(self.0.join(name)).map_err(|e| Error::io(name.to_owned(), e))?;
        Ok(Granted {
            source: Arc::new(FileSource::new(file)?),
            resolver: Arc::new(self.clone()),
        })
    }
}

/// Asserts that `read` (position, buffer) gives what our `disk` gives, from `at` on.
pub fn same(disk: &dyn Disk, mut at: u64, mut read: impl FnMut(u64, &mut [u8]), what: &str) {
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let size = disk.virtual_size();
    while at < size {
        let len = (size - at).min(PIECE as u64) as usize;
        disk.read_at(&mut ours[..len], GuestOffset(at)).unwrap();
        read(at, &mut theirs[..len]);
        assert!(
            ours[..len] == theirs[..len],
            "{what}: they differ in {len} bytes from {at}"
        );
        at += len as u64;
    }
}
