use super::header::{DynamicHeader, HEADER_LEN, parent_message};
use super::layout::{DiskType, FOOTER_LEN, Footer, Footers, printable, uuid};
use super::reader::{Table, cut_short};
use crate::Format;
use crate::blocks::{check_blocks, find_overlap};
use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span};

/// Recognises vhd: by the footer copy at byte 0, or by the footer at the end.
#[derive(Default)]
pub struct Inspector {
    asked: Vec<Piece>,
    head: Vec<u8>,
    end: Option<End>,
    header: Option<Vec<u8>>,
    table: Option<Vec<u8>>,
}

/// What the regions asked for last are.
#[derive(Clone, Copy)]
enum Piece {
    Head,
    Header,
    Table,
    End,
}

struct End {
    bytes: Vec<u8>,
    file_len: u64,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Vhd
    }

    fn start(&mut self) -> Next {
        self.ask(&[(Piece::Head, Span::head(FOOTER_LEN as u64))])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        for (piece, region) in self.asked.iter().zip(regions) {
            let bytes = region.bytes.to_vec();
            match piece {
                Piece::Head => self.head = bytes,
                Piece::Header => self.header = Some(bytes),
                Piece::Table => self.table = Some(bytes),
                Piece::End => {
                    let file_len = region.file_len.unwrap_or(region.at + bytes.len() as u64);
                    self.end = Some(End { bytes, file_len });
                }
            }
        }
        self.judge()
    }
}

impl Inspector {
    fn ask(&mut self, wanted: &[(Piece, Span)]) -> Next {
        self.asked = wanted.iter().map(|(piece, _)| *piece).collect();
        Next::Want(wanted.iter().map(|(_, span)| *span).collect())
    }

    /// What the pieces at hand tell, or which is wanted next.
    fn judge(&mut self) -> Next {
        const END: (Piece, Span) = (Piece::End, Span::Tail(FOOTER_LEN as u64));
        let mut facts = Facts::new(Format::Vhd);
        let (footer, footer_at) = match &self.end {
            None => match Footer::parse(&self.head) {
                // Enough to go on, and to refuse a differencing disk by its first sectors.
                Ok(footer) if footer.disk_type != DiskType::Fixed => (footer, 0),
                _ => return self.ask(&[END]),
            },
            Some(end) => {
                let last = ("footer", end.file_len.saturating_sub(FOOTER_LEN as u64));
                match Footers::find(&self.head, &end.bytes) {
                    Ok(None) => return Next::NotMine,
                    Err(e) => {
                        facts.find_at("footer", Severity::Unsafe, last, e.message());
                        return Next::Done(facts);
                    }
                    Ok(Some(found)) => {
                        if let Some(doubt) = found.doubt {
                            facts.find_at("footer_copy", Severity::Warning, last, doubt);
                        }
                        let at = match found.at_end {
                            0 => 0,
                            len => end.file_len.saturating_sub(len),
                        };
                        (found.footer, at)
                    }
                }
            }
        };
        let virtual_size = match describe(&footer, footer_at, &mut facts) {
            Ok(size) => size,
            Err(e) => {
                let place = ("footer", footer_at + 48);
                facts.find_at("virtual_size", Severity::Unsafe, place, e.message());
                return Next::Done(facts);
            }
        };
        if footer.disk_type == DiskType::Fixed && self.end.is_some() {
            facts.guest_at_zero = true;
            if footer_at < virtual_size {
                let e = cut_short(virtual_size, footer_at);
                let place = ("footer", footer_at + 48);
                facts.find_at("truncated", Severity::Unsafe, place, e.message());
            }
            return Next::Done(facts);
        }
        let Some(header) = &self.header else {
            let span = Span::At {
                at: footer.data_offset,
                len: HEADER_LEN as u64,
            };
            return self.ask(&[(Piece::Header, span)]);
        };
        let header_place = ("dynamic header", footer.data_offset);
        let header = match DynamicHeader::parse(header) {
            Ok(header) => header,
            Err(e) => {
                facts.find_at(
                    "dynamic_header",
                    Severity::Unsafe,
                    header_place,
                    e.message(),
                );
                return Next::Done(facts);
            }
        };
        facts.detail("block_size", header.block_size);
        facts.detail("max_table_entries", header.max_table_entries);
        if footer.disk_type == DiskType::Differencing {
            facts.detail("parent_unicode_name", header.parent_unicode_name.as_str());
            facts.detail("parent_unique_id", uuid(&header.parent_unique_id));
            let locators = header.parent_locators.iter();
            let codes: Vec<_> = locators.map(|l| printable(&l.platform_code)).collect();
            facts.detail("parent_locators", codes);
            let message = parent_message(&header);
            facts.find_at("parent", Severity::Unsafe, header_place, message);
        }
        let table_len = match header.table_len(virtual_size) {
            Ok(len) => len,
            Err(e) => {
                facts.find_at(
                    "dynamic_header",
                    Severity::Unsafe,
                    header_place,
                    e.message(),
                );
                return Next::Done(facts);
            }
        };
        let table_place = ("block allocation table", header.table_offset);
        let (Some(table), Some(end)) = (&self.table, &self.end) else {
            let span = Span::At {
                at: header.table_offset,
                len: table_len.min(MAX_SPAN),
            };
            let table = (Piece::Table, span);
            return if self.end.is_some() {
                self.ask(&[table])
            } else {
                self.ask(&[table, END])
            };
        };
        let spelling = Table {
            bitmap_size: header.bitmap_size(),
            is_differencing: footer.disk_type == DiskType::Differencing,
        };
        if header
            .table_offset
            .checked_add(table_len)
            .is_none_or(|table_end| table_end > end.file_len)
        {
            facts.find_at(
                "truncated",
                Severity::Unsafe,
                table_place,
                format!(
                    "takes {table_len} bytes from {:#x}, but the file ends at {:#x}",
                    header.table_offset, end.file_len
                ),
            );
        } else if let Err(e) = check_blocks(
            &spelling,
            table,
            u64::from(header.block_size),
            virtual_size,
            end.file_len,
        ) {
            facts.find_at("blocks", Severity::Unsafe, table_place, e.message());
        } else {
            let from = |at: u64, len: u64| at..at.saturating_add(len);
            let structures = [
                ("the footer's copy", from(0, FOOTER_LEN as u64)),
                (
                    "the dynamic header",
                    from(footer.data_offset, HEADER_LEN as u64),
                ),
                (
                    "the block allocation table",
                    from(header.table_offset, table_len),
                ),
            ];
            let (size, lead) = (u64::from(header.block_size), spelling.bitmap_size);
            let shared = find_overlap(&spelling, table, size, virtual_size, lead, &structures);
            if let Some(message) = shared {
                facts.find_at("overlap", Severity::Warning, table_place, message);
            }
        }
        Next::Done(facts)
    }
}

/// Records what the footer at byte `at` says; its virtual size.
fn describe(footer: &Footer, at: u64, facts: &mut Facts) -> crate::Result<u64> {
    facts.detail("disk_type", footer.disk_type.name());
    facts.detail(
        "creator_application",
        printable(&footer.creator_application),
    );
    facts.detail("creator_host_os", printable(&footer.creator_host_os));
    facts.detail("current_size", footer.current_size);
    let (cylinders, heads, sectors) = footer.geometry;
    facts.detail("disk_geometry", format!("{cylinders}/{heads}/{sectors}"));
    let id: String = footer
        .unique_id
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    facts.detail("unique_id", id);
    if footer.saved_state {
        facts.find_at(
            "saved_state",
            Severity::Warning,
            ("footer", at + 84),
            "the machine was suspended, not shut down: file systems may be in use",
        );
    }
    let size = footer.virtual_size()?;
    facts.virtual_size = Some(size);
    if footer.is_sized_by_geometry() && size != footer.current_size {
        facts.find_at(
            "size_mismatch",
            Severity::Warning,
            ("footer", at + 48),
            format!(
                "current size is {}, the geometry makes {size}; its creator goes by the geometry",
                footer.current_size
            ),
        );
    }
    Ok(size)
}
