//! Differencing vhd, vhdx and vdi over granted parents. No tool at hand makes them, so they are
//! made here, with content of their own in every layer, and read against a model.

use std::collections::HashMap;
use std::sync::Arc;

use crate::support::Random;
use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Verdict, inspect};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, ExtentKind, Format, GuestOffset, Limits, MemorySink,
    OpenOptions, Result, bytes, create, open,
};

const MIB: usize = 1 << 20;

/// What a layer holds of its own.
#[derive(Default)]
pub(crate) struct Layer {
    pub(crate) size: usize,
    /// Bytes at whole sectors.
    pub(crate) writes: Vec<(usize, Vec<u8>)>,
    /// Blocks known to be zero.
    pub(crate) zeros: Vec<usize>,
}

impl Layer {
    /// Sectors here and there, a run over a block's border, and a zeroed block.
    pub(crate) fn random(size: usize, sector: usize, block: usize, random: &mut Random) -> Self {
        let mut layer = Self {
            size,
            ..Self::default()
        };
        for _ in 0..24 {
            let at = random.below((size / sector) as u64) as usize * sector;
            let len = (1 + random.below(9)) as usize * sector;
            layer.write(at, len.min(size - at), random);
        }
        layer.write(block - 3 * sector, 7 * sector, random);
        layer.write(size - sector, sector, random);
        layer
    }

    pub(crate) fn write(&mut self, at: usize, len: usize, random: &mut Random) {
        let data = (0..len).map(|_| random.next() as u8 | 1).collect();
        self.writes.push((at, data));
    }

    /// What the guest sees over `beneath`.
    pub(crate) fn over(&self, beneath: &[u8], block: usize) -> Vec<u8> {
        let mut guest = beneath.to_vec();
        guest.resize(self.size, 0);
        for n in &self.zeros {
            guest[n * block..((n + 1) * block).min(self.size)].fill(0);
        }
        for (at, data) in &self.writes {
            guest[*at..at + data.len()].copy_from_slice(data);
        }
        guest
    }

    /// The blocks written to, in the order of their first write.
    fn blocks(&self, block: usize) -> Vec<usize> {
        let mut blocks = Vec::new();
        for (at, data) in &self.writes {
            for n in at / block..=(at + data.len() - 1) / block {
                if !blocks.contains(&n) {
                    blocks.push(n);
                }
            }
        }
        blocks
    }

    /// The bytes and sectors of block `n` that are written.
    fn block(&self, n: usize, block: usize, sector: usize) -> (Vec<u8>, Vec<bool>) {
        let (mut data, mut bits) = (vec![0x55; block], vec![false; block / sector]);
        for (at, bytes) in &self.writes {
            for (at, part) in (*at..).step_by(sector).zip(bytes.chunks(sector)) {
                if at / block == n {
                    data[at % block..][..part.len()].copy_from_slice(part);
                    bits[at % block / sector] = true;
                }
            }
        }
        (data, bits)
    }
}

pub(crate) fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Who a child says it lies over.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) id: [u8; 16],
    pub(crate) parent: [u8; 16],
    /// Keys of locators and what they say.
    pub(crate) names: Vec<(&'static str, String)>,
}

pub(crate) fn vhd_child(layer: &Layer, block: usize, who: &Names) -> Vec<u8> {
    fn seal(bytes: &mut [u8], at: usize) {
        let sum = !bytes.iter().fold(0u32, |sum, b| sum + u32::from(*b));
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[8..12].copy_from_slice(&2u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
    footer[16..24].copy_from_slice(&512u64.to_be_bytes());
    footer[28..32].copy_from_slice(b"win ");
    footer[48..56].copy_from_slice(&(layer.size as u64).to_be_bytes());
    footer[60..64].copy_from_slice(&4u32.to_be_bytes());
    footer[68..84].copy_from_slice(&who.id);
    seal(&mut footer, 64);
    let entries = layer.size.div_ceil(block);
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[8..16].fill(0xff);
    header[16..24].copy_from_slice(&1536u64.to_be_bytes());
    header[24..28].copy_from_slice(&0x0001_0000u32.to_be_bytes());
    header[28..32].copy_from_slice(&(entries as u32).to_be_bytes());
    header[32..36].copy_from_slice(&(block as u32).to_be_bytes());
    header[40..56].copy_from_slice(&who.parent);
    // A time that is not the parent's.
    header[56..60].fill(0x77);
    let mut at = 1536 + (entries * 4).next_multiple_of(512);
    let mut file = vec![0xff; at];
    let mut locator = 576;
    for (code, name) in &who.names {
        let data = match *code {
            "W2ru" | "W2ku" => utf16le(name),
            "unicode" => {
                for (at, unit) in (64..).step_by(2).zip(name.encode_utf16()) {
                    header[at..at + 2].copy_from_slice(&unit.to_be_bytes());
                }
                continue;
            }
            _ => name.as_bytes().to_vec(),
        };
        header[locator..locator + 4].copy_from_slice(code.as_bytes());
        header[locator + 4..locator + 8].copy_from_slice(&512u32.to_be_bytes());
        header[locator + 8..locator + 12].copy_from_slice(&(data.len() as u32).to_be_bytes());
        header[locator + 16..locator + 24].copy_from_slice(&(at as u64).to_be_bytes());
        put(&mut file, at, &data);
        locator += 24;
        at += 512;
    }
    seal(&mut header, 36);
    let bitmap_len = (block / 512).div_ceil(8).next_multiple_of(512);
    for n in layer.blocks(block) {
        let sector = (at / 512) as u32;
        put(&mut file, 1536 + n * 4, &sector.to_be_bytes());
        let (data, bits) = layer.block(n, block, 512);
        let mut bitmap = vec![0; bitmap_len];
        for (n, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
            bitmap[n / 8] |= 0x80 >> (n % 8);
        }
        put(&mut file, at, &bitmap);
        put(&mut file, at + bitmap_len, &data);
        at += bitmap_len + block;
    }
    put(&mut file, at, &footer);
    put(&mut file, 0, &footer);
    put(&mut file, 512, &header);
    file
}

pub(crate) fn vhdx_child(layer: &Layer, block: usize, sector: usize, who: &Names) -> Vec<u8> {
    fn seal(bytes: &mut [u8]) {
        let crc = crc32c::crc32c(bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    // As written in text, in the order of the file.
    const BAT: &str = "6677c22d23f600429d64115e9bfd4a08";
    const METADATA: &str = "06a27c8b90479a4bb8fe575f050f886e";
    let guid = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let mut file = vec![0; 4 * MIB];
    put(&mut file, 0, b"vhdxfile");
    for (n, at) in [64 << 10, 128 << 10].into_iter().enumerate() {
        let mut header = vec![0; 4096];
        header[..4].copy_from_slice(b"head");
        header[8] = n as u8 + 1;
        header[16..32].fill(0x11);
        header[32..48].copy_from_slice(&who.id);
        header[66] = 1;
        header[68..72].copy_from_slice(&(MIB as u32).to_le_bytes());
        header[72..80].copy_from_slice(&(MIB as u64).to_le_bytes());
        seal(&mut header);
        put(&mut file, at, &header);
    }
    let mut regions = vec![0; 64 << 10];
    regions[..4].copy_from_slice(b"regi");
    regions[8] = 2;
    for (n, (id, at)) in [(BAT, 3 * MIB), (METADATA, 2 * MIB)]
        .into_iter()
        .enumerate()
    {
        let entry = &mut regions[16 + n * 32..][..32];
        entry[..16].copy_from_slice(&guid(id));
        entry[16..24].copy_from_slice(&(at as u64).to_le_bytes());
        entry[24..28].copy_from_slice(&(MIB as u32).to_le_bytes());
        entry[28] = 1;
    }
    seal(&mut regions);
    put(&mut file, 192 << 10, &regions);
    put(&mut file, 256 << 10, &regions);

    let mut locator = guid("b7ef4ab09ed1814ab78925b8e9445913");
    locator.extend([0, 0]);
    let names = &who.names;
    locator.extend((names.len() as u16).to_le_bytes());
    let mut text_at = locator.len() + 12 * names.len();
    let mut texts = Vec::new();
    for (key, value) in names {
        let (key, value) = (utf16le(key), utf16le(value));
        locator.extend((text_at as u32).to_le_bytes());
        locator.extend(((text_at + key.len()) as u32).to_le_bytes());
        locator.extend((key.len() as u16).to_le_bytes());
        locator.extend((value.len() as u16).to_le_bytes());
        text_at += key.len() + value.len();
        texts.extend([key, value].concat());
    }
    locator.extend(texts);
    let items = [
        (
            "3767a1ca36fa434db3b633f0aa44e76b",
            [(block as u32).to_le_bytes(), 2u32.to_le_bytes()].concat(),
        ),
        (
            "2442a52f1bcd7648b2115dbed83bf4b8",
            (layer.size as u64).to_le_bytes().to_vec(),
        ),
        ("ab12cabee6b2234593efc309e000c746", who.id.to_vec()),
        (
            "1dbf41816fa90947ba47f233a8faab5f",
            (sector as u32).to_le_bytes().to_vec(),
        ),
        (
            "c748a3cd5d4471449cc9e9885251c556",
            4096u32.to_le_bytes().to_vec(),
        ),
        ("2d5fd3a80bb34d45abf7d3d84834ab0c", locator),
    ];
    let (table, mut at) = (2 * MIB, 64 << 10);
    put(&mut file, table, b"metadata");
    file[table + 10] = items.len() as u8;
    for (n, (id, bytes)) in items.iter().enumerate() {
        let entry = [
            guid(id),
            (at as u32).to_le_bytes().to_vec(),
            (bytes.len() as u32).to_le_bytes().to_vec(),
            vec![4, 0, 0, 0],
        ];
        put(&mut file, table + 32 + n * 32, &entry.concat());
        put(&mut file, table + at, bytes);
        at += bytes.len();
    }

    let ratio = (sector << 23) / block;
    let bits_len = block / sector / 8;
    for n in &layer.zeros {
        put(&mut file, 3 * MIB + (n + n / ratio) * 8, &[2]);
    }
    for n in layer.blocks(block) {
        let (data, bits) = layer.block(n, block, sector);
        let at = file.len();
        put(&mut file, at, &data);
        // Every sector written: the bitmap does not count.
        let state = if bits.iter().all(|bit| *bit) { 6 } else { 7 };
        let entry = (at | state) as u64;
        put(
            &mut file,
            3 * MIB + (n + n / ratio) * 8,
            &entry.to_le_bytes(),
        );
        if state == 6 {
            continue;
        }
        let slot = 3 * MIB + (n / ratio * (ratio + 1) + ratio) * 8;
        let found = u64::from_le_bytes(file[slot..slot + 8].try_into().unwrap());
        let bitmap = if found == 0 {
            let at = file.len();
            put(&mut file, at, &vec![0; MIB]);
            put(&mut file, slot, &(at as u64 | 6).to_le_bytes());
            at
        } else {
            (found & !7) as usize
        };
        for (m, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
            file[bitmap + n % ratio * bits_len + m / 8] |= 1 << (m % 8);
        }
    }
    file
}

/// Blocks are stored as a whole: `guest` is what the image shows.
pub(crate) fn vdi_child(
    layer: &Layer,
    guest: &[u8],
    block: usize,
    kind: u32,
    who: &Names,
) -> Vec<u8> {
    let blocks = layer.size.div_ceil(block);
    let data_at = (512 + blocks * 4).next_multiple_of(512);
    let mut file = vec![0; 512];
    let mut field = |at: usize, value: usize| put(&mut file, at, &(value as u32).to_le_bytes());
    field(0x40, 0xbeda_107f);
    field(0x44, 0x0001_0001);
    field(0x48, 400);
    field(0x4c, kind as usize);
    field(0x154, 512);
    field(0x158, data_at);
    field(0x168, 512);
    field(0x170, layer.size);
    field(0x178, block);
    field(0x180, blocks);
    put(&mut file, 0x188, &who.id);
    put(&mut file, 0x198, &[0x22; 16]);
    put(&mut file, 0x1a8, &who.parent);
    put(&mut file, 512, &vec![0xff; data_at - 512]);
    for n in &layer.zeros {
        put(&mut file, 512 + n * 4, &0xffff_fffe_u32.to_le_bytes());
    }
    for (slot, n) in layer.blocks(block).into_iter().enumerate() {
        put(&mut file, 512 + n * 4, &(slot as u32).to_le_bytes());
        let mut data = guest[n * block..((n + 1) * block).min(guest.len())].to_vec();
        data.resize(block, 0);
        put(&mut file, data_at + slot * block, &data);
        file[0x184] += 1;
    }
    file
}

/// Files by the names they may be asked for.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<HashMap<String, Vec<u8>>>);

impl Shelf {
    pub(crate) fn of(files: &[(&str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(name, file)| (name.to_string(), file.to_vec()));
        Self(Arc::new(files.collect()))
    }
}

impl Resolver for Shelf {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        assert_eq!(wanted, Wanted::Parent);
        match self.0.get(name) {
            Some(file) => Ok(Granted {
                source: Arc::new(file.clone()),
                resolver: Arc::new(self.clone()),
            }),
            None => Err(Error::refused(
                by,
                wanted.name(),
                format!("{name:?} is not here"),
            )),
        }
    }
}

fn opened(file: &[u8], format: Format, shelf: &Shelf) -> Result<Arc<dyn Disk>> {
    let options = OpenOptions {
        format: Some(format),
        resolver: Arc::new(shelf.clone()),
        ..OpenOptions::default()
    };
    open(Arc::new(file.to_vec()), &options)
}

/// An image of `guest` by our own writer.
pub(crate) fn base(format: Format, options: &[(&str, &str)], guest: &[u8]) -> Vec<u8> {
    let pairs: Vec<_> = options
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    let options = CreateOptions::parse(format, &pairs, false).unwrap();
    let raw = open(
        Arc::new(guest.to_vec()),
        &OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    let sink = MemorySink::default();
    let target = create(&options, raw.virtual_size()).unwrap();
    copy(
        raw.as_ref(),
        target,
        &sink,
        &CopyOptions::default(),
        &Progress::default(),
    )
    .unwrap();
    sink.into_bytes()
}

/// Every way to read `disk` shows `guest`.
fn shows(disk: &dyn Disk, guest: &[u8], file: &[u8], what: &str) {
    assert_eq!(disk.virtual_size(), guest.len() as u64, "{what}");
    let mut buf = vec![9; 333_333];
    for (n, part) in guest.chunks(333_333).enumerate() {
        let buf = &mut buf[..part.len()];
        disk.read_at(buf, GuestOffset(n as u64 * 333_333)).unwrap();
        assert!(buf == part, "{what}: piece {n}");
    }
    let (mut at, end) = (GuestOffset::ZERO, GuestOffset(guest.len() as u64));
    while at < end {
        let mut some = Vec::new();
        disk.extents(at..end, &mut some).unwrap();
        for extent in some {
            assert_eq!(extent.range.start, at, "{what}");
            at = extent.range.end;
            let part = &guest[extent.range.start.0 as usize..at.0 as usize];
            match extent.kind {
                ExtentKind::Data { host: Some(host) } => {
                    let host = host.0 as usize;
                    assert!(&file[host..host + part.len()] == part, "{what}: {extent:?}");
                }
                kind if kind.is_hole() => assert!(bytes::is_zero(part), "{what}: {extent:?}"),
                _ => {}
            }
        }
    }
}

pub(crate) fn random_guest(size: usize, random: &mut Random) -> Vec<u8> {
    let mut guest = vec![0; size];
    for _ in 0..10 {
        let at = random.below(size as u64) as usize;
        let end = (at + random.below(400_000) as usize).min(size);
        guest[at..end].fill_with(|| random.next() as u8);
    }
    guest
}

/// Makes the file of a layer that shows these bytes.
type Emit<'a> = &'a dyn Fn(&Layer, &[u8], &Names) -> Vec<u8>;

/// A base, and two layers over it of other sizes.
struct Chain<'a> {
    what: String,
    format: Format,
    block: usize,
    base_file: &'a [u8],
    base_guest: &'a [u8],
    layers: [Layer; 2],
    /// What locators say of a file of this name.
    names: &'a dyn Fn(&str) -> Vec<(&'static str, String)>,
    ids: [[u8; 16]; 3],
    emit: Emit<'a>,
}

/// Reads a chain, then opens it in the ways in which that must fail.
fn chain_of_three(chain: Chain<'_>) {
    let Chain {
        what,
        format,
        block,
        base_file,
        base_guest,
        layers,
        names,
        ids,
        emit,
    } = chain;
    let what = what.as_str();
    let [first, second] = layers;
    let who = |n: usize, name: &str| Names {
        id: ids[n],
        parent: ids[n - 1],
        names: names(name),
    };
    let first_guest = first.over(base_guest, block);
    let second_guest = second.over(&first_guest, block);
    let first_file = emit(&first, &first_guest, &who(1, "base"));
    let second_file = emit(&second, &second_guest, &who(2, "first"));
    let shelf = Shelf::of(&[("base", base_file), ("first", &first_file)]);
    let disk = opened(&second_file, format, &shelf).unwrap();
    shows(disk.as_ref(), &second_guest, &second_file, what);
    let again = base(Format::Raw, &[], &{
        let mut guest = vec![0; second_guest.len()];
        disk.read_at(&mut guest, GuestOffset::ZERO).unwrap();
        guest
    });
    assert!(again == second_guest, "{what}");

    let found = inspect(&second_file, &Limits::default()).unwrap();
    assert_eq!(found.verdict(), Verdict::Unsafe, "{what}");
    assert_eq!(found.unsafe_finding().unwrap().rule, "parent", "{what}");
    // Not granted: the one beneath, or the last one.
    for files in [&[][..], &[("first", first_file.as_slice())]] {
        let e = opened(&second_file, format, &Shelf::of(files))
            .err()
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::Refused, "{what}: {e}");
    }
    // Another disk of the same name.
    let mut stranger = who(1, "base");
    stranger.id = [0x99; 16];
    let stranger = emit(&first, &first_guest, &stranger);
    let shelf = Shelf::of(&[("base", base_file), ("first", &stranger)]);
    let e = opened(&second_file, format, &shelf).err().unwrap();
    assert_eq!(
        (e.kind(), e.place()),
        (ErrorKind::Malformed, "parent"),
        "{what}: {e}"
    );
    assert!(e.message().contains("99999999-9999-9999"), "{what}: {e}");
    let wanted = format!("{:02x}{:02x}", ids[1][8], ids[1][9]);
    assert!(e.message().contains(&wanted), "{what}: {e}");
    // A disk over itself.
    let mut itself = who(1, "first");
    itself.parent = itself.id;
    let itself = emit(&first, &first_guest, &itself);
    let e = opened(&itself, format, &Shelf::of(&[("first", &itself)]))
        .err()
        .unwrap();
    assert_eq!(e.kind(), ErrorKind::Refused, "{what}: {e}");
    assert!(e.message().contains("longer than"), "{what}: {e}");
}

const BASE_ID: &str = "00112233-4455-6677-8899-aabbccddeeff";

#[test]
fn vhd_falls_through_sector_by_sector() {
    let id = [
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ];
    for (subformat, block, code) in [
        ("fixed", 2 * MIB, "W2ru"),
        ("dynamic", 2 * MIB, "W2ku"),
        ("dynamic", 512 << 10, "unicode"),
        ("fixed", 4096, "MacX"),
        ("dynamic", MIB, "Wi2k"),
    ] {
        let mut random = Random(block as u64);
        let guest = random_guest(5 * MIB, &mut random);
        let options = [
            ("subformat", subformat),
            ("force_size", "on"),
            ("uuid", BASE_ID),
        ];
        let base_file = base(Format::Vhd, &options, &guest);
        let layers = [7 * MIB, 3 * MIB + 512].map(|n| Layer::random(n, 512, block, &mut random));
        let names = |name: &str| {
            let name = match code {
                "W2ru" => format!(".\\{name}"),
                "MacX" => format!("file://localhost/vms/{name}"),
                _ => format!("C:\\vms\\{name}"),
            };
            vec![("Mac ", "alias".to_owned()), (code, name)]
        };
        let emit = |layer: &Layer, _: &[u8], who: &Names| vhd_child(layer, block, who);
        let ids = [id, [0x31; 16], [0x32; 16]];
        let what = format!("vhd {subformat} {block} {code}");
        chain_of_three(Chain {
            what,
            format: Format::Vhd,
            block,
            base_file: &base_file,
            base_guest: &guest,
            layers,
            names: &names,
            ids,
            emit: &emit,
        });
    }
}

#[test]
fn vhdx_falls_through_sector_by_sector() {
    let id = [
        0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ];
    for (options, block, sector, key) in [
        (vec![("subformat", "fixed")], MIB, 512, "relative_path"),
        (
            vec![("subformat", "dynamic"), ("block_size", "1M")],
            2 * MIB,
            512,
            "absolute_win32_path",
        ),
        (
            vec![("logical_sector_size", "4096")],
            MIB,
            4096,
            "volume_path",
        ),
    ] {
        let mut random = Random(block as u64 + sector as u64);
        let guest = random_guest(6 * MIB, &mut random);
        let mut all = vec![("uuid", BASE_ID)];
        all.extend(options);
        let base_file = base(Format::Vhdx, &all, &guest);
        let layers = [9 * MIB, 3 * MIB + 4096].map(|n| {
            let mut layer = Layer::random(n, sector, block, &mut random);
            // One block is stored whole, one is known to be zero.
            layer
                .writes
                .retain(|(at, data)| (at + data.len()).div_ceil(block) <= 2 || at / block > 3);
            layer.write(0, block, &mut random);
            if n > 4 * block {
                layer.zeros.push(3);
            }
            layer
        });
        let ids = [id, [0x31; 16], [0x32; 16]];
        let text = |id: [u8; 16]| {
            let hex = |part: &[u8]| part.iter().map(|b| format!("{b:02X}")).collect::<String>();
            let rev = |part: &[u8]| hex(&part.iter().rev().copied().collect::<Vec<_>>());
            let (a, b, c) = (rev(&id[..4]), rev(&id[4..6]), rev(&id[6..8]));
            format!("{{{a}-{b}-{c}-{}-{}}}", hex(&id[8..10]), hex(&id[10..]))
        };
        let names = |name: &str| {
            let path = match key {
                "relative_path" => format!(".\\{name}"),
                "volume_path" => format!("\\\\?\\Volume{{26A21BDA}}\\vms\\{name}"),
                _ => format!("C:\\vms\\{name}"),
            };
            vec![(key, path)]
        };
        let emit = |layer: &Layer, _: &[u8], who: &Names| {
            let mut who = who.clone();
            who.names.push(("parent_linkage", text(who.parent)));
            vhdx_child(layer, block, sector, &who)
        };
        let what = format!("vhdx {all:?} {block} {key}");
        chain_of_three(Chain {
            what,
            format: Format::Vhdx,
            block,
            base_file: &base_file,
            base_guest: &guest,
            layers,
            names: &names,
            ids,
            emit: &emit,
        });
    }
}

#[test]
fn vdi_falls_through_block_by_block() {
    let id = [
        0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ];
    let text = |name: &str| match name {
        "base" => BASE_ID.to_owned(),
        _ => "31313131-3131-3131-3131-313131313131".to_owned(),
    };
    for (is_static, block, kind) in [("off", MIB, 4), ("on", 64 << 10, 4), ("off", 4096, 3)] {
        let mut random = Random(block as u64);
        let guest = random_guest(5 * MIB, &mut random);
        let base_file = base(
            Format::Vdi,
            &[("static", is_static), ("uuid", BASE_ID)],
            &guest,
        );
        let layers = [7 * MIB, 3 * MIB + 512].map(|n| {
            let mut layer = Layer::random(n, 512, block, &mut random);
            layer
                .writes
                .retain(|(at, data)| at / block != 2 && (at + data.len() - 1) / block != 2);
            layer.zeros.push(2);
            layer
        });
        let ids = [id, [0x31; 16], [0x32; 16]];
        let emit =
            |layer: &Layer, guest: &[u8], who: &Names| vdi_child(layer, guest, block, kind, who);
        // An image names no file, so the shelf knows them by UUID.
        let [first, second] = layers;
        let first_guest = first.over(&guest, block);
        let second_guest = second.over(&first_guest, block);
        let who = |n: usize| Names {
            id: ids[n],
            parent: ids[n - 1],
            names: Vec::new(),
        };
        let first_file = emit(&first, &first_guest, &who(1));
        let mut second_file = emit(&second, &second_guest, &who(2));
        let braced = format!("{{{}}}.vdi", text("first"));
        let shelf = Shelf::of(&[(&text("base"), &base_file), (&braced, &first_file)]);
        let disk = opened(&second_file, Format::Vdi, &shelf).unwrap();
        shows(disk.as_ref(), &second_guest, &second_file, "vdi");
        let e = opened(&second_file, Format::Vdi, &Shelf::default())
            .err()
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.message().contains(&text("first")), "{e}");
        let shelf = Shelf::of(&[(&text("base"), &base_file), (&text("first"), &base_file)]);
        let e = opened(&second_file, Format::Vdi, &shelf).err().unwrap();
        assert_eq!((e.kind(), e.place()), (ErrorKind::Malformed, "parent"));
        assert!(
            e.message().contains(BASE_ID) && e.message().contains(&text("first")),
            "{e}"
        );
        // The parent as it was, and after it was written to.
        let shelf = Shelf::of(&[(&text("base"), &base_file), (&braced, &first_file)]);
        second_file[0x1b8..0x1c8].fill(0x22);
        assert!(opened(&second_file, Format::Vdi, &shelf).is_ok());
        second_file[0x1b8..0x1c8].fill(0x23);
        let e = opened(&second_file, Format::Vdi, &shelf).err().unwrap();
        assert_eq!((e.kind(), e.place()), (ErrorKind::Malformed, "parent"));
    }
}
