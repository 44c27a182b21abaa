use super::layout::{HEADER_LEN, Header, has_signature, uuid};
use super::reader::Map;
use crate::Format;
use crate::blocks::{check_blocks, find_overlap};
use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span};

/// Recognises vdi, by the signature at byte 64.
#[derive(Default)]
pub struct Inspector {
    /// Set once the header was found fit: what is wanted then are the map and the length.
    header: Option<Header>,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Vdi
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEADER_LEN as u64)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let mut facts = Facts::new(Format::Vdi);
        if let (Some(header), [map, end]) = (&self.header, regions) {
            describe(header, &mut facts);
            let file_len = end.file_len.unwrap_or(end.at);
            check_map(header, map.bytes, file_len, &mut facts);
            return Next::Done(facts);
        }
        let head = regions.first().map_or(&[][..], |region| region.bytes);
        if !has_signature(head) {
            return Next::NotMine;
        }
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(e) => {
                facts.find_at("header", Severity::Unsafe, ("header", 0), e.message());
                return Next::Done(facts);
            }
        };
        let map = Span::At {
            at: u64::from(header.offset_blocks),
            len: header.map_len().min(MAX_SPAN),
        };
        self.header = Some(header);
        Next::Want(vec![map, Span::Tail(0)])
    }
}

fn describe(header: &Header, facts: &mut Facts) {
    facts.virtual_size = Some(header.disk_size);
    facts.detail("image_type", header.image_type.name());
    facts.detail("block_size", header.block_size);
    facts.detail("blocks_in_image", header.blocks_in_image);
    facts.detail("blocks_allocated", header.blocks_allocated);
    facts.detail("uuid_image", uuid(&header.uuid_image));
    if !header.comment.is_empty() {
        facts.detail("comment", header.comment.as_str());
    }
    if let Some(message) = header.parent() {
        facts.detail("uuid_parent", uuid(header.uuid_of_parent()));
        facts.find_at("parent", Severity::Unsafe, ("header", 424), message);
    }
}

fn check_map(header: &Header, map: &[u8], file_len: u64, facts: &mut Facts) {
    let place = ("block map", u64::from(header.offset_blocks));
    if header.map_end() > file_len {
        facts.find_at(
            "truncated",
            Severity::Unsafe,
            place,
            format!(
                "ends at {:#x}, but the file ends at {file_len:#x}",
                header.map_end()
            ),
        );
        return;
    }
    let block_size = u64::from(header.block_size);
    let size = header.disk_size;
    if let Err(e) = check_blocks(&Map::new(header), map, block_size, size, file_len) {
        facts.find_at("blocks", Severity::Unsafe, place, e.message());
    } else if let Some(message) = find_overlap(&Map::new(header), map, block_size, size, 0, &[]) {
        facts.find_at("overlap", Severity::Warning, place, message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use crate::inspect::inspect;
    use crate::{Format, Limits};

    fn rule(file: &[u8]) -> Option<&'static str> {
        let found = inspect(&file.to_vec(), &Limits::default()).unwrap();
        assert_eq!(found.format, Format::Vdi);
        found.unsafe_finding().map(|f| f.rule)
    }

    #[test]
    fn judges_header_map_and_blocks() {
        let mut file = header(2);
        file.resize(1024, 0xff);
        assert_eq!(rule(&file), None);
        assert_eq!(rule(&file[..515]), Some("truncated"));
        assert_eq!(rule(&file[..300]), Some("header"));
        let mut shared = file.clone();
        shared.resize(1024 + (1 << 20), 0);
        shared[512..516].fill(0);
        assert_eq!(rule(&shared), None);
        shared[516..520].fill(0);
        assert_eq!(rule(&shared), Some("blocks"));
        // With room for both in the file it is odd, and reads as well as any.
        shared.resize(1024 + (2 << 20), 0);
        let found = inspect(&shared, &Limits::default()).unwrap();
        let rules: Vec<_> = found.findings.iter().map(|f| f.rule).collect();
        assert_eq!((rule(&shared), rules), (None, vec!["overlap"]));
        for at in [0x1a8, 0x1b8] {
            let mut linked = file.clone();
            linked[at] = 1;
            assert_eq!(rule(&linked), Some("parent"));
        }
        let mut skewed = file.clone();
        skewed[0x154] = 0x40;
        assert_eq!(rule(&skewed), Some("header"));
        file[512..516].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(rule(&file), Some("blocks"));
        file[0x4c] = 4;
        assert_eq!(rule(&file), Some("parent"));
    }
}
