//! seSparse, by a small emitter of its published layout, with qemu-img as the witness.

use super::*;

const GRAIN: usize = 4096;
const TABLE_ENTRIES: usize = 4096;
const TABLE: usize = TABLE_ENTRIES * 8;

/// Where the regions of [`emit`] lie, in sectors.
const DIRECTORY: usize = 8;
const TABLES: usize = 16;

/// What a grain of the emitted disk is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Absent,
    Unmapped,
    Zero,
    Data,
}

fn kind(chance: &mut Chance) -> Kind {
    match chance.below(8) {
        0 => Kind::Unmapped,
        1 => Kind::Zero,
        2..=5 => Kind::Data,
        _ => Kind::Absent,
    }
}

/// An extent of `tables` grain tables, the first of them missing where there are more, tables and grains stored in
/// reverse; and what a guest reads in it.
pub(super) fn emit(tables: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut chance = Chance(seed);
    let grains_at = (TABLES * 512 + tables * TABLE) / 512;
    let mut guest = vec![0; tables * TABLE_ENTRIES * GRAIN];
    let mut image = vec![0; grains_at * 512];
    let put = |image: &mut Vec<u8>, at: usize, value: u64| {
        image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    for (at, value) in [
        (0, 0xcafe_babe),
        (8, 0x0002_0000_0001),
        (16, (guest.len() / 512) as u64),
        (24, 8),
        (32, 64),
        (80, 1),
        (88, 1),
        (96, 2),
        (104, 1),
        (112, 3),
        (120, 1),
        (128, DIRECTORY as u64),
        (136, 8),
        (144, TABLES as u64),
        (152, (tables * TABLE / 512) as u64),
        (192, grains_at as u64),
        (200, (guest.len() / 512) as u64),
        (512, 0xcafe_cafe),
    ] {
        put(&mut image, at, value);
    }
    for n in usize::from(tables > 1)..tables {
        let number = tables - 1 - n;
        put(&mut image, DIRECTORY * 512 + n * 8, 1 << 60 | number as u64);
        for entry in 0..TABLE_ENTRIES {
            // A beginning, an end, and little in between.
            let kind = match entry {
                0..64 | 4000.. => kind(&mut chance),
                _ => Kind::Absent,
            };
            let value = match kind {
                Kind::Absent => 0,
                Kind::Unmapped => 1 << 60,
                Kind::Zero => 2 << 60,
                Kind::Data => {
                    let grain = (image.len() / 512 - grains_at) as u64 / 8;
                    let at = (n * TABLE_ENTRIES + entry) * GRAIN;
                    for byte in &mut guest[at..at + GRAIN] {
                        *byte = chance.next() as u8;
                    }
                    image.extend_from_slice(&guest[at..at + GRAIN]);
                    3 << 60 | (grain & 0xfff) << 48 | grain >> 12
                }
            };
            put(&mut image, TABLES * 512 + number * TABLE + entry * 8, value);
        }
    }
    (image, guest)
}

fn descriptor(sectors: usize, parent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\n{parent}\ncreateType=\"seSparse\"\n\
         # An empty line here would make qemu-img read the next one twice.\n\
         RW {sectors} SESPARSE \"disk-sesparse.vmdk\"\n"
    )
}

#[test]
fn reads_what_the_layout_says_and_qemu_img_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (image, guest) = emit(3, 5);
    std::fs::write(path.join("disk-sesparse.vmdk"), &image).unwrap();
    let text = descriptor(guest.len() / 512, "parentCID=ffffffff");
    std::fs::write(path.join("disk.vmdk"), &text).unwrap();
    let source = Arc::new(text.as_bytes().to_vec());
    let disk = formats::open(source, &within(path)).unwrap();
    assert_eq!(disk.unit(), GRAIN as u64);
    for step in [1 << 20, 5000] {
        assert!(content(disk.as_ref(), step).unwrap() == guest);
    }
    for extent in extents(disk.as_ref()).unwrap() {
        let part = &guest[extent.range.start.0 as usize..extent.range.end.0 as usize];
        assert_eq!(
            extent.kind.is_hole(),
            part.iter().all(|&b| b == 0),
            "{extent:?}"
        );
    }
    qemu_convert(&["-f", "vmdk", "-O", "raw", "disk.vmdk", "back.raw"], path);
    assert!(load(&path.join("back.raw")) == guest);

    let inspection = inspect(text.as_bytes());
    assert_eq!(refused_by(&inspection), Some("extent_file"));
    assert_eq!(inspection.virtual_size, Some(guest.len() as u64));
    assert_eq!(refused_by(&inspect(&image)), Some("create_type"));
    assert_eq!(open(&image).err().unwrap().kind(), ErrorKind::Refused);
}

#[test]
fn absent_grains_fall_through_and_zero_grains_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (image, mut wanted) = emit(2, 9);
    let base = vec![0xee; wanted.len()];
    std::fs::write(path.join("base-flat.vmdk"), &base).unwrap();
    let sectors = base.len() / 512;
    let parent = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n\
         createType=\"vmfs\"\nRW {sectors} VMFS \"base-flat.vmdk\"\n"
    );
    std::fs::write(path.join("base.vmdk"), parent).unwrap();
    std::fs::write(path.join("disk-sesparse.vmdk"), &image).unwrap();
    let text = descriptor(
        sectors,
        "parentCID=1234abcd\nparentFileNameHint=\"base.vmdk\"",
    );
    std::fs::write(path.join("disk.vmdk"), &text).unwrap();
    for grain in 0..wanted.len() / GRAIN {
        let at = TABLES * 512 + (grain % TABLE_ENTRIES) * 8;
        let entry = u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        // The first table is missing, the second is stored first.
        if grain < TABLE_ENTRIES || entry == 0 {
            wanted[grain * GRAIN..][..GRAIN].fill(0xee);
        }
    }
    let disk = formats::open(Arc::new(text.into_bytes()), &within(path)).unwrap();
    assert!(content(disk.as_ref(), 1 << 20).unwrap() == wanted);
    qemu_convert(&["-f", "vmdk", "-O", "raw", "disk.vmdk", "back.raw"], path);
    assert!(load(&path.join("back.raw")) == wanted);
}

#[test]
fn what_is_unclean_or_strange_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (image, guest) = emit(2, 1);
    let text = descriptor(guest.len() / 512, "parentCID=ffffffff");
    let table = TABLES * 512;
    for (at, value, kind, says) in [
        (536, 1, ErrorKind::Refused, "replayJournal"),
        (8, 3, ErrorKind::Unsupported, "version"),
        (24, 128, ErrorKind::Unsupported, "grainSize"),
        (16, 8, ErrorKind::Malformed, "the descriptor wants"),
        (
            DIRECTORY * 512 + 8,
            2 << 60,
            ErrorKind::Malformed,
            "grain directory",
        ),
        (
            DIRECTORY * 512 + 8,
            (1 << 60) + 99,
            ErrorKind::Malformed,
            "past the end",
        ),
        (
            table,
            5 << 60,
            ErrorKind::Malformed,
            "a type that is not known",
        ),
        (table, 7, ErrorKind::Malformed, "a type that is not known"),
        (table, (3 << 60) + 77, ErrorKind::Malformed, "past the end"),
    ] {
        let mut bad = image.clone();
        bad[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        std::fs::write(path.join("disk-sesparse.vmdk"), &bad).unwrap();
        let source = Arc::new(text.as_bytes().to_vec());
        let error = formats::open(source, &within(path))
            .and_then(|disk| extents(disk.as_ref()))
            .unwrap_err();
        assert_eq!(error.kind(), kind, "byte {at}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}
