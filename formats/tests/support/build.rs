//! Files around contents: what takes too much luck to come by through changes of bytes.

use super::mend;

/// An archive of files.
pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    for (name, bytes) in members {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        header[156..].copy_from_slice(&[0; 356]);
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        file.extend_from_slice(&header);
        file.extend_from_slice(bytes);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file.resize(file.len() + 1024, 0);
    mend::tar(&mut file);
    file
}

/// A gzip file that stores its content as it is.
pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let blocks = content.len().div_ceil(0xffff).max(1);
    for n in 0..blocks {
        let block = content.chunks(0xffff).nth(n).unwrap_or_default();
        let len = block.len() as u16;
        file.push(u8::from(n + 1 == blocks));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&(!len).to_le_bytes());
        file.extend_from_slice(block);
    }
    file.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
    file.extend_from_slice(&(content.len() as u32).to_le_bytes());
    file
}

/// A chunk of an Apple image: its coding, the sectors it makes, its bytes.
pub(crate) type Chunk<'a> = (u32, u64, &'a [u8]);

/// An Apple image of these chunks, one after the other.
pub(crate) fn dmg(chunks: &[Chunk<'_>]) -> Vec<u8> {
    let (mut data, mut table, mut sectors) = (Vec::new(), vec![0; 204], 0);
    table[..8].copy_from_slice(b"mish\0\0\0\x01");
    table[200..].copy_from_slice(&(chunks.len() as u32).to_be_bytes());
    for (kind, count, bytes) in chunks {
        table.extend_from_slice(&kind.to_be_bytes());
        table.extend_from_slice(&[0; 4]);
        for field in [sectors, *count, data.len() as u64, bytes.len() as u64] {
            table.extend_from_slice(&field.to_be_bytes());
        }
        data.extend_from_slice(bytes);
        sectors += count;
    }
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    table.resize(table.len().next_multiple_of(3), 0);
    let text: String = table
        .chunks(3)
        .flat_map(|b| {
            let bits = usize::from(b[0]) << 16 | usize::from(b[1]) << 8 | usize::from(b[2]);
            [18, 12, 6, 0].map(|shift| char::from(digits[bits >> shift & 63]))
        })
        .collect();
    let xml = format!(
        "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Data</key>\
         <data>{text}</data></dict></array></dict></dict></plist>"
    );
    let mut trailer = [0; 512];
    trailer[..12].copy_from_slice(b"koly\0\0\0\x04\0\0\x02\0");
    for (at, value) in [
        (32, data.len() as u64),
        (216, data.len() as u64),
        (224, xml.len() as u64),
        (492, sectors),
    ] {
        trailer[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    [data, xml.into_bytes(), trailer.to_vec()].concat()
}
