//! The picture: the guest's disk above, the file below, and what lies where between them.

use std::fmt::Write;

use formats::map::{Picture, Shares};
use indicatif::HumanBytes;

use crate::cli::output::Plain;

/// Columns of either axis.
pub(super) const COLUMNS: u16 = 440;
/// Ribbons drawn at most; those with the most bytes are.
const RIBBONS: usize = 400;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 40.0;
const SPAN: f64 = WIDTH - 2.0 * LEFT;
const HEIGHT: f64 = 428.0;
const GUEST_TOP: f64 = 120.0;
const BAR: f64 = 56.0;
/// Height of the strip under the guest's bar that shows its places' colours.
const STRIP: f64 = 5.0;
const FILE_TOP: f64 = 276.0;

/// Name, colour, and how much of it there is.
type Kind = (&'static str, &'static str, fn(&Shares) -> u64);

/// Kinds of bytes, from the bottom of a column up.
const KINDS: [Kind; 4] = [
    ("data", "#3b6fb5", |s| s.data),
    ("compressed", "#d9822b", |s| s.encoded),
    ("zero", "#b9cfe3", |s| s.zero),
    ("not stored", "#eef1f4", |s| s.unallocated),
];
const OTHER: &str = "#dfe3e8";

/// Draws `picture` of the image called `name`.
pub(super) fn render(picture: &Picture, name: &str, format: &str) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = head(&mut out, picture, name, format)
        .and_then(|()| ribbons(&mut out, picture))
        .and_then(|()| guest(&mut out, picture))
        .and_then(|()| file(&mut out, picture))
        .and_then(|()| legend(&mut out, picture));
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, picture: &Picture, name: &str, format: &str) -> std::fmt::Result {
    let title = escape(name);
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" fill="#4a5560">
<title>Map of {title}</title>
<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>
<text x="{LEFT}" y="44" font-size="20" font-weight="600" fill="#1d2733">{title}</text>
<text x="{LEFT}" y="66" font-size="13">{format} · {} virtual · {} in the file · {} extents</text>"##,
        HumanBytes(picture.virtual_size),
        HumanBytes(picture.file_size),
        picture.extents,
    )?;
    axis(
        out,
        GUEST_TOP - 8.0,
        "disk as the guest sees it",
        picture.virtual_size,
    )?;
    let label = "file, in the colours of the places on the disk that it holds";
    axis(out, FILE_TOP + BAR + 18.0, label, picture.file_size)
}

/// Words at the left, the size at the right, of a bar.
fn axis(out: &mut String, y: f64, label: &str, size: u64) -> std::fmt::Result {
    writeln!(
        out,
        r#"<text x="{LEFT}" y="{y}">{label}</text><text x="{}" y="{y}" text-anchor="end">{}</text>"#,
        LEFT + SPAN,
        HumanBytes(size)
    )
}

fn x(column: usize, columns: usize) -> f64 {
    LEFT + SPAN * column as f64 / columns as f64
}

/// A frame with round corners around a bar, and what lies in it cut to it.
fn bar(out: &mut String, id: &str, top: f64, fill: &str, inside: &str) -> std::fmt::Result {
    writeln!(
        out,
        r##"<clipPath id="{id}"><rect x="{LEFT}" y="{top}" width="{SPAN}" height="{BAR}" rx="5"/></clipPath>
<g clip-path="url(#{id})" shape-rendering="crispEdges"><rect x="{LEFT}" y="{top}" width="{SPAN}" height="{BAR}" fill="{fill}"/>
{inside}</g>
<rect x="{LEFT}" y="{top}" width="{SPAN}" height="{BAR}" rx="5" fill="none" stroke="#c3cad2"/>"##
    )
}

/// Columns stacked from their shares; neighbours that look the same are one rectangle.
fn guest(out: &mut String, picture: &Picture) -> std::fmt::Result {
    let columns = picture.guest.len();
    // Heights in whole pixels: nobody sees less, and more neighbours are the same.
    let heights: Vec<[u32; 4]> = picture.guest.iter().map(stack).collect();
    let mut inside = String::new();
    for (kind, (_, colour, _)) in KINDS.iter().enumerate().take(3) {
        let mut from = 0;
        while from < columns {
            let bottom: u32 = heights[from][..kind].iter().sum();
            let height = heights[from][kind];
            let same = |column: &[u32; 4]| {
                column[kind] == height && column[..kind].iter().sum::<u32>() == bottom
            };
            let run = heights[from..].iter().take_while(|c| same(c)).count();
            if height > 0 {
                let (left, right) = (x(from, columns), x(from + run, columns));
                let top = GUEST_TOP + BAR - f64::from(bottom + height);
                writeln!(
                    inside,
                    r#"<rect x="{left:.2}" y="{top}" width="{:.2}" height="{height}" fill="{colour}"/>"#,
                    right - left
                )?;
            }
            from += run;
        }
    }
    bar(out, "guest", GUEST_TOP, KINDS[3].1, &inside)?;
    let stops: String = (0..=4)
        .map(|n| {
            let offset = n as f64 / 4.0;
            let colour = hue(offset * columns as f64, columns);
            format!(r#"<stop offset="{offset}" stop-color="{colour}"/>"#)
        })
        .collect();
    writeln!(
        out,
        r#"<linearGradient id="places">{stops}</linearGradient><rect x="{LEFT}" y="{}" width="{SPAN}" height="{STRIP}" rx="2" fill="url(#places)"/>"#,
        GUEST_TOP + BAR + 3.0
    )
}

/// The heights of a column's kinds: what is there at all is seen.
fn stack(shares: &Shares) -> [u32; 4] {
    let bytes = KINDS.map(|(_, _, share)| share(shares));
    let total: u64 = bytes.iter().sum();
    let mut left = BAR as u32;
    let mut heights = [0; 4];
    for (height, bytes) in heights.iter_mut().zip(bytes).filter(|(_, b)| *b > 0) {
        let exact = BAR * bytes as f64 / total as f64;
        *height = (exact.round() as u32).clamp(1, left.max(1)).min(left);
        left -= *height;
    }
    heights
}

/// The colour of a place on the disk: from blue at its start over green to violet at its end.
fn hue(column: f64, columns: usize) -> String {
    let at = column / columns.max(1) as f64;
    format!("hsl({:.0} 48% {:.0}%)", 212.0 + 118.0 * at, 50.0 + 6.0 * at)
}

/// Columns coloured by the place on the disk that most of their bytes have.
fn file(out: &mut String, picture: &Picture) -> std::fmt::Result {
    let columns = picture.file.len();
    // Of each column: bytes, and the sum of the guest columns they come from.
    let mut places = vec![(0.0, 0.0); columns];
    for ((guest, there), bytes) in &picture.links {
        let (sum, weighted) = &mut places[usize::from(*there)];
        *sum += *bytes as f64;
        *weighted += *bytes as f64 * f64::from(*guest);
    }
    let per_column = picture.file_size as f64 / columns as f64;
    let look: Vec<Option<(u32, String)>> = places
        .iter()
        .map(|(sum, weighted)| {
            (*sum > 0.0).then(|| {
                let height = (BAR * sum / per_column.max(1.0)).round().clamp(1.0, BAR);
                // As much as fits, in steps that make neighbours the same.
                let place = (weighted / sum / 4.0).round() * 4.0;
                (height as u32, hue(place, columns))
            })
        })
        .collect();
    let mut inside = String::new();
    let mut from = 0;
    for run in look.chunk_by(|a, b| a == b) {
        if let Some((height, colour)) = &run[0] {
            let (left, right) = (x(from, columns), x(from + run.len(), columns));
            writeln!(
                inside,
                r#"<rect x="{left:.2}" y="{FILE_TOP}" width="{:.2}" height="{height}" fill="{colour}"/>"#,
                right - left
            )?;
        }
        from += run.len();
    }
    bar(out, "file", FILE_TOP, OTHER, &inside)
}

/// Where a part of the disk lies in the file, in columns; ends are exclusive.
#[derive(Clone, Copy)]
struct Ribbon {
    guest: (u16, u16),
    file: (u16, u16),
    bytes: u64,
}

/// Joins links that run side by side.
fn joined(picture: &Picture) -> Vec<Ribbon> {
    let mut done: Vec<Ribbon> = Vec::new();
    // Those that a link of this guest column, or the next, may continue.
    let mut open: Vec<Ribbon> = Vec::new();
    for (&(guest, file), &bytes) in &picture.links {
        let (near, far): (Vec<_>, Vec<_>) = open.into_iter().partition(|r| r.guest.1 >= guest);
        done.extend(far);
        open = near;
        let next = open
            .iter_mut()
            .find(|r| file + 1 >= r.file.1 && file <= r.file.1);
        match next {
            Some(ribbon) => {
                ribbon.guest.1 = guest + 1;
                ribbon.file.1 = file + 1;
                ribbon.bytes += bytes;
            }
            None => open.push(Ribbon {
                guest: (guest, guest + 1),
                file: (file, file + 1),
                bytes,
            }),
        }
    }
    done.extend(open);
    done.sort_by_key(|r| std::cmp::Reverse(r.bytes));
    done.truncate(RIBBONS);
    // The small ones on top.
    done
}

fn ribbons(out: &mut String, picture: &Picture) -> std::fmt::Result {
    let columns = picture.guest.len();
    let ribbons = joined(picture);
    // Many of them must not become a blot.
    let opacity = (2.2 / (ribbons.len() as f64).sqrt()).clamp(0.16, 0.34);
    writeln!(out, r#"<g fill-opacity="{opacity:.2}">"#)?;
    let (top, bottom) = (GUEST_TOP + BAR + 3.0 + STRIP, FILE_TOP);
    let middle = f64::midpoint(top, bottom);
    for Ribbon { guest, file, .. } in ribbons {
        let at = |column: u16| x(column.into(), columns);
        let colour = hue(f64::midpoint(guest.0.into(), guest.1.into()), columns);
        let (a, b, c, d) = (at(guest.0), at(guest.1), at(file.1), at(file.0));
        writeln!(
            out,
            r#"<path d="M{a:.1} {top}H{b:.1}C{b:.1} {middle} {c:.1} {middle} {c:.1} {bottom}H{d:.1}C{d:.1} {middle} {a:.1} {middle} {a:.1} {top}" fill="{colour}"/>"#
        )?;
    }
    writeln!(out, "</g>")
}

fn legend(out: &mut String, picture: &Picture) -> std::fmt::Result {
    let y = HEIGHT - 34.0;
    let mut left = LEFT;
    let mut entry = |out: &mut String, colour: &str, words: &str| {
        let written = writeln!(
            out,
            r##"<rect x="{left}" y="{}" width="12" height="12" rx="2" fill="{colour}" stroke="#c3cad2" stroke-width="0.5"/><text x="{}" y="{y}">{words}</text>"##,
            y - 10.5,
            left + 18.0
        );
        left += 18.0 + 6.9 * words.chars().count() as f64 + 18.0;
        written
    };
    for (name, colour, share) in KINDS {
        let bytes = share(&picture.total);
        if bytes > 0 {
            entry(out, colour, &format!("{name} {}", HumanBytes(bytes)))?;
        }
    }
    let pointed: u64 = picture.file.iter().sum();
    let rest = picture.file_size.saturating_sub(pointed);
    let what = match picture.total.encoded {
        0 => "rest of the file",
        _ => "rest of the file, compressed too",
    };
    entry(
        out,
        OTHER,
        &format!("in the file: {what} {}", HumanBytes(rest)),
    )
}

/// Text from outside, harmless in XML.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in Plain(text).to_string().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Not allowed in XML, however written.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use formats::{Extent, ExtentKind, GuestOffset, HostOffset};

    use super::*;

    /// A disk of `n` extents, none beside its neighbour in the file.
    fn scattered(n: u64) -> Picture {
        let mut picture = Picture::new(COLUMNS, n << 16, n << 16);
        for at in 0..n {
            let host = Some(HostOffset((at * 7919 % n) << 16));
            let kind = match at % 4 {
                0 | 1 => ExtentKind::Data { host },
                2 => ExtentKind::Encoded,
                _ => ExtentKind::Zero,
            };
            picture.add(&Extent {
                range: GuestOffset(at << 16)..GuestOffset((at + 1) << 16),
                kind,
            });
        }
        picture
    }

    #[test]
    fn a_picture_stays_small_however_fragmented_the_disk() {
        let few = render(&scattered(100), "a", "qcow2").len();
        let many = render(&scattered(100_000), "a", "qcow2").len();
        assert!(few < 300_000 && many < 300_000, "{few} {many}");
    }

    #[test]
    fn neighbours_become_one_ribbon() {
        let mut picture = Picture::new(COLUMNS, 1 << 30, 1 << 30);
        let host = Some(HostOffset(1 << 20));
        picture.add(&Extent {
            range: GuestOffset(0)..GuestOffset(1 << 29),
            kind: ExtentKind::Data { host },
        });
        let ribbons = joined(&picture);
        assert_eq!(ribbons.len(), 1);
        assert_eq!(ribbons[0].guest, (0, COLUMNS / 2));
        assert_eq!(ribbons[0].bytes, 1 << 29);
    }

    #[test]
    fn every_kind_that_is_there_is_seen() {
        let shares = Shares {
            data: 1,
            encoded: 1 << 40,
            zero: 1,
            unallocated: 0,
        };
        let heights = stack(&shares);
        assert!(heights[0] > 0 && heights[1] > 40 && heights[3] == 0);
        assert!(heights.iter().sum::<u32>() <= BAR as u32);
        assert_eq!(stack(&Shares::default()), [0; 4]);
    }

    #[test]
    fn names_cannot_write_markup() {
        let picture = Picture::new(COLUMNS, 0, 0);
        let text = render(&picture, "<script>&\u{1b}", "raw");
        assert!(text.contains("&lt;script&gt;&amp;\\u{1b}"), "{text}");
    }
}
