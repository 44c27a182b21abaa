//! Damaged images: an answer or an error, never a panic, a loop or a contradiction.

use super::differencing::{Layer, Names, Shelf, base, vdi_child, vhd_child, vhdx_child};
use super::*;

/// Does everything one can do with a file that may be damaged. Errors are fine; panics, loops
/// and answers that contradict each other are not.
fn torture(file: Vec<u8>, format: Format) {
    let limits = Limits::default();
    let found = inspect(&file, &limits).unwrap();
    let mut stream = Stream::default();
    file.chunks(100_000).for_each(|chunk| stream.feed(chunk));
    let streamed = stream.finish(Some(&file), &limits).unwrap();
    assert_eq!(streamed.findings, found.findings);
    let Ok(disk) = open(Arc::new(file), &options(format)) else {
        if found.format == format {
            assert_eq!(found.verdict(), Verdict::Unsafe);
        }
        return;
    };
    let end = GuestOffset(disk.virtual_size());
    let mut some = Vec::new();
    if disk.extents(GuestOffset::ZERO..end, &mut some).is_ok() && end.0 > 0 {
        assert_eq!(some[0].range.start, GuestOffset::ZERO);
        assert!(some.len() <= formats::MAX_EXTENTS);
    }
    let mut buf = vec![0; 4096.min(end.0 as usize)];
    for extent in some.iter().take(64) {
        let at = extent.range.start.0.min(end.0 - buf.len() as u64);
        disk.read_at(&mut buf, GuestOffset(at)).unwrap();
    }
}

/// A small image of each kind.
fn small_images() -> Vec<(Vec<u8>, Format)> {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image] = ["raw", "image"].map(|name| dir.path().join(name));
    let mut file = File::create(&raw).unwrap();
    file.set_len(3 << 20).unwrap();
    put(&mut file, 0, b"some data");
    let kinds = [
        ("vpc", Format::Vhd, "subformat=dynamic"),
        ("vpc", Format::Vhd, "subformat=fixed"),
        ("vhdx", Format::Vhdx, "block_size=1M"),
        ("vdi", Format::Vdi, "static=off"),
    ];
    let convert = |(driver, format, option)| {
        let args = ["convert", "-f", "raw", "-O", driver, "-o", option];
        qemu_img(&args, &[&raw, &image]);
        (std::fs::read(&image).unwrap(), format)
    };
    kinds.map(convert).into()
}

#[test]
fn blocks_of_a_vhd_on_each_other_or_on_a_table_are_told() {
    let (mut image, _) = small_images().swap_remove(0);
    // Room for all that its table will name.
    image.splice(image.len() - 512..image.len() - 512, vec![0; 8 << 20]);
    let table = u64::from_be_bytes(image[528..536].try_into().unwrap()) as usize;
    let first = image[table..table + 4].to_vec();
    assert_eq!(rules(&image), [""; 0]);
    let mut shared = image.clone();
    shared[table + 4..table + 8].copy_from_slice(&first);
    assert_eq!(rules(&shared), ["overlap"]);
    for sector in [1, table as u32 / 512] {
        let mut placed = image.clone();
        placed[table..table + 4].copy_from_slice(&sector.to_be_bytes());
        assert_eq!(rules(&placed), ["overlap"], "sector {sector}");
    }
}

/// What is found in a file that is safe all the same.
fn rules(file: &[u8]) -> Vec<&'static str> {
    let found = inspect(&file.to_vec(), &Limits::default()).unwrap();
    assert_eq!(
        (found.format, found.verdict()),
        (Format::Vhd, Verdict::Safe)
    );
    found.findings.iter().map(|f| f.rule).collect()
}

#[test]
fn survives_truncation() {
    for (image, format) in small_images() {
        let mut random = Random(1);
        let mut lengths: Vec<usize> = (0..30)
            .map(|_| random.below(image.len() as u64) as usize)
            .collect();
        lengths.extend([0, 1, 64, 68, 511, 512, 513, 1023, 1024, 1536, 2048, 65536]);
        lengths.extend((0..6).map(|n| image.len() - 1 - n * 100));
        for len in lengths {
            torture(image[..len.min(image.len())].to_vec(), format);
        }
    }
}

#[test]
fn survives_flipped_bits() {
    for (image, format) in small_images() {
        // Where the structures are: flips elsewhere change what the guest reads, at most.
        let spots: Vec<usize> = image
            .chunks(512)
            .enumerate()
            .filter(|(_, sector)| !bytes::is_zero(sector))
            .map(|(n, _)| n * 512)
            .collect();
        let mut random = Random(2);
        for _ in 0..100 {
            let mut bad = image.clone();
            for _ in 0..=random.below(3) {
                let spot = spots[random.below(spots.len() as u64) as usize];
                let at = (spot + random.below(512) as usize).min(bad.len() - 1);
                bad[at] ^= 1 << random.below(8);
            }
            torture(bad, format);
        }
    }
}

/// Damage that no checksum catches, for the checksums are made right again.
#[test]
fn survives_fields_at_their_extremes() {
    for (image, format) in small_images() {
        let end = image.len() - 512;
        let fields: Vec<usize> = match format {
            Format::Vhd if image.starts_with(b"conectix") => {
                let mut fields = vec![16, 20, 48, 52, 56, 60, 1536, 1540];
                fields.extend([16, 20, 24, 28, 32].map(|at| 512 + at));
                fields
            }
            Format::Vhd => [48, 52, 56, 60].map(|at| end + at).into(),
            Format::Vhdx => {
                let mut fields = [48, 64, 68, 72, 76].map(|at| 65536 + at).to_vec();
                fields.extend([8, 32, 36, 40, 64, 68, 72].map(|at| 196_608 + at));
                let metadata = image.windows(8).position(|w| w == b"metadata").unwrap();
                fields.extend([10, 48, 52, 80, 84].map(|at| metadata + at));
                fields.extend((0..48).step_by(4).map(|at| metadata + 65536 + at));
                fields
            }
            _ => (0x40..0x88)
                .chain(0x154..0x188)
                .step_by(4)
                .chain([0x1b8, 512, 516])
                .collect(),
        };
        for at in fields {
            for value in [0, 1, 6, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX] {
                for value in [value.to_le_bytes(), value.to_be_bytes()] {
                    let mut bad = image.clone();
                    bad[at..at + 4].copy_from_slice(&value);
                    reseal(&mut bad, format);
                    torture(bad, format);
                }
            }
        }
    }
}

/// Makes copies and checksums right again.
fn reseal(image: &mut [u8], format: Format) {
    fn sum(bytes: &mut [u8], at: usize) {
        bytes[at..at + 4].fill(0);
        let sum = !bytes.iter().fold(0, |sum, b| sum + u32::from(*b));
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    let end = image.len() - 512;
    match format {
        Format::Vhd if image.starts_with(b"conectix") => {
            sum(&mut image[..512], 64);
            sum(&mut image[512..1536], 36);
            image.copy_within(..512, end);
        }
        Format::Vhd => sum(&mut image[end..], 64),
        Format::Vhdx => {
            image.copy_within(65536..65536 + 4096, 131_072);
            image.copy_within(196_608..262_144, 262_144);
            for (at, len) in [65536, 131_072, 196_608, 262_144]
                .into_iter()
                .zip([4096, 4096, 65536, 65536])
            {
                image[at + 4..at + 8].fill(0);
                let crc = crc32c::crc32c(&image[at..at + len]).to_le_bytes();
                image[at + 4..at + 8].copy_from_slice(&crc);
            }
        }
        _ => {}
    }
}

/// A file with some of its bytes changed: no copy for each of ten thousand.
#[derive(Clone)]
struct Patched {
    base: Arc<Vec<u8>>,
    len: usize,
    patches: Vec<(usize, Vec<u8>)>,
}

impl Patched {
    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        self.fill(&mut buf, at);
        buf
    }

    fn fill(&self, buf: &mut [u8], at: usize) {
        buf.copy_from_slice(&self.base[at..at + buf.len()]);
        for (start, bytes) in &self.patches {
            let (from, to) = ((*start).max(at), (start + bytes.len()).min(at + buf.len()));
            if from < to {
                buf[from - at..to - at].copy_from_slice(&bytes[from - start..to - start]);
            }
        }
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.base.len().saturating_sub(at));
        self.patches.push((at, bytes[..len].to_vec()));
    }

    /// Makes the checksums of `format` right.
    fn reseal(&mut self, format: Format) {
        let end = self.base.len() - 512;
        let structures: &[(usize, usize, usize)] = match format {
            Format::Vhd => &[(0, 512, 64), (512, 1024, 36), (end, 512, 64)],
            Format::Vhdx => &[
                (64 << 10, 4096, 4),
                (128 << 10, 4096, 4),
                (192 << 10, 65536, 4),
                (256 << 10, 65536, 4),
            ],
            _ => &[],
        };
        for &(at, len, sum_at) in structures {
            let mut bytes = self.bytes(at, len);
            bytes[sum_at..sum_at + 4].fill(0);
            let sum = match format {
                Format::Vhdx => crc32c::crc32c(&bytes).to_le_bytes(),
                _ => (!bytes.iter().fold(0u32, |sum, b| sum + u32::from(*b))).to_be_bytes(),
            };
            self.patch(at + sum_at, &sum);
        }
    }
}

impl Source for Patched {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: formats::HostOffset) -> formats::Result<()> {
        let end = at.0.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            let e = std::io::ErrorKind::UnexpectedEof.into();
            return Err(formats::Error::io(format!("reading at {at}"), e));
        }
        self.fill(buf, at.0 as usize);
        Ok(())
    }
}

/// Everything one can do, and no error that blames the system for what the file did.
fn exercise(file: &Patched, format: Format, shelf: &Shelf) -> formats::Result<()> {
    let source: Arc<dyn Source> = Arc::new(file.clone());
    let found = inspect(source.as_ref(), &Limits::default())?;
    let options = OpenOptions {
        resolver: Arc::new(shelf.clone()),
        ..options(format)
    };
    let checked = formats::check::check(&source, &options, &Progress::default());
    if let Ok(checked) = &checked {
        let problems = &checked.problems;
        assert!(problems.len() as u64 <= checked.corruptions + checked.leaks);
    }
    let disk = match open(source, &options) {
        Ok(disk) => disk,
        Err(e) => {
            assert!(
                found.format != format || found.verdict() == Verdict::Unsafe,
                "{e}"
            );
            return Err(e);
        }
    };
    let (mut at, end) = (GuestOffset::ZERO, GuestOffset(disk.virtual_size()));
    let mut buf = vec![0; 70_000];
    for _ in 0..8 {
        let mut some = Vec::new();
        disk.extents(at..end, &mut some)?;
        let Some(last) = some.last() else { break };
        assert!(some.len() <= formats::MAX_EXTENTS);
        assert!(some[0].range.start == at && last.range.end <= end);
        for extent in some.iter().take(8) {
            let len = guest_len(&extent.range).min(70_000);
            let buf = &mut buf[..len as usize];
            disk.read_at(buf, extent.range.start)?;
            assert!(!extent.kind.is_hole() || bytes::is_zero(buf), "{extent:?}");
        }
        at = last.range.end;
    }
    checked.map(drop)
}

const MUTATIONS: u64 = 2_000;

/// Seeded damage to what counts in images of all kinds, checksums made right again in half of them.
/// (Damage anywhere is what `mutations` does.)
fn survives_mutations(format: Format, images: Vec<Vec<u8>>, shelf: &Shelf) {
    use rayon::prelude::*;
    let images: Vec<_> = images.into_iter().map(Arc::new).collect();
    (0..MUTATIONS).into_par_iter().for_each(|n| {
        let mut random = Random(n);
        let base = images[n as usize % images.len()].clone();
        let mut file = Patched {
            len: base.len(),
            base,
            patches: Vec::new(),
        };
        let spots = spots(format, &file.base);
        for _ in 0..=random.below(3) {
            let (start, len) = spots[random.below(spots.len() as u64) as usize];
            let at = start + random.below(len as u64) as usize;
            match random.below(4) {
                0 => file.patch(at, &[random.next() as u8]),
                1 => file.patch(at & !3, &[0xff; 8][..4 << random.below(2)]),
                2 => {
                    let bit = 1u32 << random.below(32);
                    let field = u32::from_le_bytes(file.bytes(at & !3, 4).try_into().unwrap());
                    file.patch(at & !3, &(field ^ bit).to_le_bytes());
                }
                _ => {
                    let value = random.next() >> random.below(64);
                    file.patch(at & !7, &value.to_le_bytes());
                }
            }
        }
        if random.below(2) == 0 {
            file.reseal(format);
        }
        if random.below(16) == 0 {
            file.len = random.below(file.base.len() as u64) as usize;
        }
        if let Err(e) = exercise(&file, format, shelf) {
            assert_ne!(e.kind(), ErrorKind::Io, "mutation {n}: {e}");
            assert!(!e.message().is_empty());
        }
    });
}

/// Where the structures are, smaller ones as often as larger ones.
fn spots(format: Format, file: &[u8]) -> Vec<(usize, usize)> {
    const MIB: usize = 1 << 20;
    match format {
        Format::Vhd => vec![
            (0, 88),
            (512, 64),
            (1088, 200),
            (1536, 40),
            (file.len() - 512, 88),
        ],
        Format::Vhdx => vec![
            (64 << 10, 80),
            (128 << 10, 80),
            (192 << 10, 80),
            (256 << 10, 80),
            (MIB, 256),
            (2 * MIB, 224),
            (2 * MIB + 65536, 400),
            (3 * MIB, 64),
            (3 * MIB + 4096 * 8, 8),
        ],
        _ => vec![(0x40, 20), (0x154, 120), (512, 40)],
    }
}

#[test]
fn survives_aimed_mutations_of_vhd() {
    let who = child_of("W2ru");
    let guest = small_guest();
    let fixed = base(
        Format::Vhd,
        &[("subformat", "fixed"), ("uuid", UUID)],
        &guest[..9 * 512],
    );
    let images = vec![
        base(Format::Vhd, &[("force_size", "on")], &guest),
        vhd_child(&small_layer(), 4096, &who),
        fixed.clone(),
    ];
    let shelf = Shelf::of(&[("base", &fixed)]);
    survives_mutations(Format::Vhd, images, &shelf);
}

#[test]
fn survives_aimed_mutations_of_vhdx() {
    let mut who = child_of("relative_path");
    who.names.push(("parent_linkage", format!("{{{UUID}}}")));
    let parent = base(
        Format::Vhdx,
        &[("uuid", UUID), ("block_size", "1M")],
        &small_guest(),
    );
    let images = vec![
        parent.clone(),
        vhdx_child(&small_layer(), 1 << 20, 512, &who),
        dirty(parent.clone()),
    ];
    let shelf = Shelf::of(&[("base", &parent)]);
    survives_mutations(Format::Vhdx, images, &shelf);
}

#[test]
fn survives_aimed_mutations_of_vdi() {
    let guest = small_guest();
    let parent = base(Format::Vdi, &[("uuid", UUID)], &guest);
    let images = vec![
        parent.clone(),
        base(Format::Vdi, &[("static", "on")], &guest),
        vdi_child(&small_layer(), &guest, 4096, 4, &child_of("unused")),
    ];
    let shelf = Shelf::of(&[(UUID, &parent)]);
    survives_mutations(Format::Vdi, images, &shelf);
}

const UUID: &str = "31313131-3131-3131-3131-313131313131";

fn child_of(key: &'static str) -> Names {
    Names {
        id: [0x32; 16],
        parent: [0x31; 16],
        names: vec![(key, "base".to_owned())],
    }
}

fn small_guest() -> Vec<u8> {
    let mut guest = vec![0; 3 << 20];
    guest[5000..9000].fill(3);
    guest[(2 << 20) + 4096..(2 << 20) + 9000].fill(4);
    guest
}

fn small_layer() -> Layer {
    let mut layer = Layer {
        size: 64 << 10,
        ..Layer::default()
    };
    layer.write(1024, 1024, &mut Random(1));
    layer.write(9 * 512, 4096, &mut Random(2));
    layer
}

/// The image with its BAT in the log, where nobody has played it back yet.
fn dirty(mut file: Vec<u8>) -> Vec<u8> {
    const SECTOR: usize = 4096;
    let bat = 3usize << 20;
    let number = 0x1_0000_0007u64;
    let mut entry = vec![0; 2 * SECTOR];
    let old = file[bat..bat + SECTOR].to_vec();
    file[bat..bat + SECTOR].fill(0xee);
    entry[..4].copy_from_slice(b"loge");
    entry[8..12].copy_from_slice(&(2 * SECTOR as u32).to_le_bytes());
    entry[16..24].copy_from_slice(&number.to_le_bytes());
    entry[24] = 1;
    entry[32..48].fill(9);
    entry[48..56].copy_from_slice(&(file.len() as u64).to_le_bytes());
    entry[56..64].copy_from_slice(&(file.len() as u64).to_le_bytes());
    entry[64..68].copy_from_slice(b"desc");
    entry[68..72].copy_from_slice(&old[SECTOR - 4..]);
    entry[72..80].copy_from_slice(&old[..8]);
    entry[80..88].copy_from_slice(&(bat as u64).to_le_bytes());
    entry[88..96].copy_from_slice(&number.to_le_bytes());
    entry[SECTOR..].copy_from_slice(&old);
    entry[SECTOR..SECTOR + 4].copy_from_slice(b"data");
    entry[SECTOR + 4..SECTOR + 8].copy_from_slice(&((number >> 32) as u32).to_le_bytes());
    entry[2 * SECTOR - 4..].copy_from_slice(&(number as u32).to_le_bytes());
    let crc = crc32c::crc32c(&entry).to_le_bytes();
    entry[4..8].copy_from_slice(&crc);
    file[1 << 20..][..entry.len()].copy_from_slice(&entry);
    for at in [64 << 10, 128 << 10] {
        let header = &mut file[at..at + 4096];
        header[48..64].fill(9);
        header[4..8].fill(0);
        let crc = crc32c::crc32c(header).to_le_bytes();
        header[4..8].copy_from_slice(&crc);
    }
    file
}

#[test]
fn a_bat_in_the_log_is_read_from_there() {
    let guest = small_guest();
    let clean = base(Format::Vhdx, &[("block_size", "1M")], &guest);
    let dirty = dirty(clean.clone());
    let disk = open(Arc::new(dirty.clone()), &options(Format::Vhdx)).unwrap();
    let mut buf = vec![1; guest.len()];
    disk.read_at(&mut buf, GuestOffset::ZERO).unwrap();
    assert!(buf == guest);
    let found = inspect(&dirty, &Limits::default()).unwrap();
    assert_eq!(found.verdict(), Verdict::Safe);
    assert_eq!(found.findings[0].rule, "dirty_log");
    let found = check::checked(&dirty, Format::Vhdx).unwrap();
    assert_eq!(
        (found.corruptions, found.problems[0].place.as_str()),
        (1, "log")
    );
}
