//! Tables named again and again, which would make a disk full of data of a few kilobytes: they
//! are refused by what cannot fit the file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use formats::{ErrorKind, Format, GuestOffset, OpenOptions, Result, open};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    fs::read(folder.join(name)).unwrap()
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn read(file: Vec<u8>, format: Format) -> Result<Vec<u8>> {
    let options = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    let disk = open(Arc::new(file), &options)?;
    let mut bytes = vec![0; disk.virtual_size() as usize];
    disk.read_at(&mut bytes, GuestOffset::ZERO)?;
    Ok(bytes)
}

fn refused(file: Vec<u8>, format: Format) {
    let e = read(file, format).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
    assert!(e.message().contains("must be the same"), "{e}");
}

/// The clean fixture with so many L1 entries behind its end, all of the one L2 table, and so many
/// entries of that, all of the one cluster.
fn qcow2(l1: usize, l2: usize) -> Vec<u8> {
    let mut file = fixture("clean.qcow2");
    let l1_at = file.len();
    put(&mut file, 24, &(l1 as u64 * (64 * 512)).to_be_bytes());
    put(&mut file, 36, &(l1 as u32).to_be_bytes());
    put(&mut file, 40, &(l1_at as u64).to_be_bytes());
    for n in 0..l1 {
        put(&mut file, l1_at + n * 8, &(4 * 512_u64).to_be_bytes());
    }
    for n in 0..l2 {
        put(&mut file, 4 * 512 + n * 8, &(5 * 512_u64).to_be_bytes());
    }
    file
}

#[test]
fn qcow2_tables_and_clusters() {
    assert_eq!(read(qcow2(2, 3), Format::Qcow2).unwrap()[1024], 0x55);
    refused(qcow2(1000, 3), Format::Qcow2);
    refused(qcow2(2, 64), Format::Qcow2);
}

#[test]
fn vmdk_tables() {
    // Grain tables are of 2 KiB and stand for 32 MiB; all are the one that is there.
    for (tables, is_fine) in [(12_u64, true), (33, false)] {
        let mut file = fixture("clean.vmdk");
        put(&mut file, 12, &(tables * 65_536).to_le_bytes());
        for directory in [21, 26] {
            let table = directory as u32 + 1;
            for n in 0..tables as usize {
                put(&mut file, directory * 512 + n * 4, &table.to_le_bytes());
            }
        }
        let text = String::from_utf8_lossy(&file[512..21 * 512]).into_owned();
        let old = "RW 128 SPARSE";
        let at = 512 + text.find(old).unwrap();
        let new = format!("RW {} SPARSE", tables * 65_536);
        let rest = file[at + old.len()..20 * 512].to_vec();
        put(&mut file, at, new.as_bytes());
        put(&mut file, at + new.len(), &rest);
        file.truncate(65_536);
        let options = OpenOptions {
            format: Some(Format::Vmdk),
            ..OpenOptions::default()
        };
        match open(Arc::new(file), &options) {
            Ok(_) => assert!(is_fine),
            Err(e) => {
                assert!(!is_fine, "{e}");
                assert!(e.message().contains("must be the same"), "{e}");
            }
        }
    }
}
