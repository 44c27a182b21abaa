//! What all witnesses share: images from qemu-img, and our own reading of them.
#![allow(dead_code, reason = "each witness uses a part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::{CreateOptions, Disk, FileSink, FileSource, Format, GuestOffset, OpenOptions};
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
        let out = Command::new("qemu-img")
            .args(args)
            .current_dir(self.0.path())
            .output()
            .expect("qemu-img is installed");
        assert!(
            out.status.success(),
            "qemu-img {args:?}: {}",
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
        let disk = open(&self.path(from));
        let pairs: Vec<_> = options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let create = CreateOptions::parse(format, &pairs, compress).unwrap();
        let target = formats::create(&create, disk.virtual_size()).unwrap();
        let sink = FileSink::new(File::create(self.path(to)).unwrap());
        copy(
            disk.as_ref(),
            target,
            &sink,
            &CopyOptions::default(),
            &Progress::default(),
        )
        .unwrap();
    }

    pub fn copy_of(&self, name: &str) -> PathBuf {
        let copy = self.path(&format!("{name}.copy"));
        fs::copy(self.path(name), &copy).unwrap();
        copy
    }
}

/// Opens a disk with our readers.
pub fn open(path: &Path) -> Arc<dyn Disk> {
    let source = FileSource::new(File::open(path).unwrap()).unwrap();
    formats::open(Arc::new(source), &OpenOptions::default()).unwrap()
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
