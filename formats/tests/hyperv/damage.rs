//! Damaged images: an answer or an error, never a panic, a loop or a contradiction.

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
