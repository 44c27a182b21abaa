//! qcow2-rs 0.1.6 and our reader on the same images.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Room, open, same};
use formats::Format;
use futures_executor::block_on;
use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::error::Qcow2Result;
use qcow2_rs::ops::Qcow2IoOps;
use qcow2_rs::utils::qcow2_alloc_dev;

/// Reads that fill or fail, except past the end, where the witness reads headers in 4 KiB; its
/// own I/O goes on after short reads.
struct Io(File);

impl Qcow2IoOps for Io {
    async fn read_to(&self, offset: u64, buf: &mut [u8]) -> Qcow2Result<usize> {
        buf.fill(0);
        let rest = self.0.metadata()?.len().saturating_sub(offset);
        let len = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.0.read_exact_at(&mut buf[..len], offset)?;
        Ok(buf.len())
    }

    async fn write_from(&self, _: u64, _: &[u8]) -> Qcow2Result<()> {
        Err("a witness does not write".into())
    }

    async fn fallocate(&self, _: u64, _: usize, _: u32) -> Qcow2Result<()> {
        Err("a witness does not write".into())
    }

    async fn fsync(&self, _: u64, _: usize, _: u32) -> Qcow2Result<()> {
        Ok(())
    }
}

fn witness(path: &Path) -> Qcow2Dev<Io> {
    let params = Qcow2DevParams::new(9, None, None, true, false);
    let io = Io(File::open(path).unwrap());
    let (dev, backing) = block_on(qcow2_alloc_dev(path, io, &params)).unwrap();
    assert_eq!(backing, None);
    block_on(dev.qcow2_prep_io()).unwrap();
    dev
}

fn agree(room: &Room, image: &str, what: &str) {
    let disk = open(&room.path(image));
    let dev = witness(&room.path(image));
    assert_eq!(dev.info.virtual_size(), disk.virtual_size(), "{what}");
    let read = |at, buf: &mut [u8]| {
        assert_eq!(block_on(dev.read_at(buf, at)).unwrap(), buf.len(), "{what}");
    };
    same(disk.as_ref(), 0, read, what);
}

#[test]
fn agrees_on_what_qemu_img_wrote() {
    let room = Room::new();
    room.raw("a.raw", 24 << 20);
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
    ] {
        for compress in [false, true] {
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            args.extend(compress.then_some("-c"));
            args.extend(["a.raw", "a.qcow2"]);
            room.qemu_img(&args);
            agree(
                &room,
                "a.qcow2",
                &format!("{options}, compressed: {compress}"),
            );
        }
    }
}

#[test]
fn agrees_on_what_we_wrote() {
    let room = Room::new();
    room.raw("a.raw", (24 << 20) + 512);
    for cluster_size in ["4096", "65536", "2097152"] {
        for compress in [false, true] {
            let options = [("cluster_size", cluster_size)];
            room.write("a.raw", "a.qcow2", Format::Qcow2, &options, compress);
            agree(
                &room,
                "a.qcow2",
                &format!("{cluster_size}, compressed: {compress}"),
            );
        }
    }
}

/// qcow2-rs 0.1.6 does not look at the encryption method and hands out what lies in the file.
#[test]
fn is_wrong_on_encrypted_images_where_we_refuse() {
    let room = Room::new();
    room.raw("a.raw", 4 << 20);
    room.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let path = room.path("a.qcow2");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&1_u32.to_be_bytes(), 32).unwrap();
    let mut buf = vec![0; 4096];
    assert_eq!(block_on(witness(&path).read_at(&mut buf, 0)).unwrap(), 4096);

    let source = formats::FileSource::new(File::open(&path).unwrap()).unwrap();
    let ours = formats::open(
        std::sync::Arc::new(source),
        &formats::OpenOptions::default(),
    );
    let error = ours.err().expect("refused");
    assert_eq!(error.kind(), formats::ErrorKind::Refused, "{error}");
}
