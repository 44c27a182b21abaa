//! What a page of 25 images costs with a thousand images and with a million.
//!
//!     cargo bench --bench catalog -- fill URL IMAGES
//!     cargo bench --bench catalog -- measure SMALL_URL LARGE_URL
//!
//! `fill` brings an empty database's schema up to date and makes images, the same ones every time;
//! `measure` lists pages of both, by every sort key and many filters, first pages and pages after a
//! marker in the middle, and prints the median of each in milliseconds with their ratio.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use glint::catalog::{
    Catalog, Column, Direction, Filter, ListQuery, MemberFilter, NumberColumn, Op, SortKey,
    TimeColumn, Viewer, VisibilityFilter, images,
};
use glint::domain::{Image, MemberStatus, Timestamp};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};

/// Owners, however many images there are.
const OWNERS: u64 = 100;
/// Rows an INSERT.
const ROWS: u64 = 250;
/// Times each page is listed.
const TIMES: usize = 3;
/// When the first image was made, in microseconds since 1970.
const EPOCH: i64 = 1_700_000_000_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["fill", url, images] => fill(url, images.parse()?).await,
        ["measure", small, large] => measure(small, large).await,
        // `cargo bench` runs every benchmark: this one needs a database to be named.
        [] => Ok(()),
        _ => bail!("usage: fill URL IMAGES | measure SMALL_URL LARGE_URL"),
    }
}

async fn open(url: &str) -> anyhow::Result<Catalog> {
    Ok(match url.strip_prefix("sqlite:") {
        Some(path) => Catalog::open_sqlite(path.as_ref()).await?,
        None => Catalog::open_server(url, 2).await?,
    })
}

/// The same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick(&mut self, of: &[(&'static str, u64)]) -> &'static str {
        let mut n = self.roll(of.iter().map(|(_, weight)| weight).sum());
        for (word, weight) in of {
            if n < *weight {
                return word;
            }
            n -= weight;
        }
        of[0].0
    }
}

/// Ids in no order of time.
fn id(n: u64) -> String {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}-0000-4000-8000-{n:012x}", mixed >> 32)
}

async fn fill(url: &str, count: u64) -> anyhow::Result<()> {
    let catalog = open(url).await?;
    catalog.sync().await?;
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite://{path}"),
        None => url.to_owned(),
    };
    let mut conn = AnyConnection::connect(&url).await?;
    let mut dice = Dice(1);
    let begun = Instant::now();
    for first in (0..count).step_by(ROWS as usize) {
        let (mut images, mut tags, mut properties, mut members) = (vec![], vec![], vec![], vec![]);
        for n in first..(first + ROWS).min(count) {
            let id = id(n);
            let status = dice.pick(&[
                ("active", 960),
                ("queued", 30),
                ("deactivated", 9),
                ("importing", 1),
            ]);
            let visibility = dice.pick(&[
                ("public", 2),
                ("community", 5),
                ("private", 43),
                ("shared", 50),
            ]);
            let size = match status {
                "queued" => "NULL".to_owned(),
                _ => dice.roll(1 << 31).to_string(),
            };
            let created = EPOCH + (n as i64) * 10_000_000;
            let mut row = format!("('{id}', ");
            if dice.roll(50) == 0 {
                row.push_str("NULL");
            } else {
                let _ = write!(row, "'image-{}'", dice.roll(count / 20 + 1));
            }
            let checksum = format!("{:032x}", n * 7);
            let _ = write!(
                row,
                ", '{status}', '{visibility}', {}, {}, 'owner-{}', '{}', '{}', {}, {}, {size}, {size}, \
                 '{checksum}', 'sha512', '{checksum}', {created}, {}, {})",
                u8::from(dice.roll(50) == 0),
                u8::from(dice.roll(100) == 0),
                dice.roll(OWNERS),
                dice.pick(&[("bare", 97), ("ova", 2), ("docker", 1)]),
                dice.pick(&[
                    ("qcow2", 70),
                    ("raw", 20),
                    ("iso", 5),
                    ("vmdk", 4),
                    ("vhd", 1)
                ]),
                dice.pick(&[("0", 3), ("512", 1), ("2048", 1)]),
                dice.pick(&[("0", 2), ("10", 1), ("20", 1)]),
                created + dice.roll(1 << 30) as i64 * 10_000,
                if dice.roll(20) == 0 {
                    created.to_string()
                } else {
                    "NULL".into()
                },
            );
            images.push(row);
            if dice.roll(10) < 3 {
                tags.push(format!("('{id}', 'linux')"));
            }
            if dice.roll(2) == 0 {
                tags.push(format!("('{id}', 'build-{}')", dice.roll(count / 25 + 1)));
            }
            properties.push(format!("('{id}', 'os_distro', 'distro-{}')", dice.roll(10)));
            if dice.roll(2) == 0 {
                properties.push(format!(
                    "('{id}', 'build', 'b{}')",
                    dice.roll(count / 25 + 1)
                ));
            }
            if visibility == "shared" && dice.roll(100) == 0 {
                members.push(format!(
                    "('{id}', 'owner-{}', 'accepted', {created}, {created})",
                    dice.roll(OWNERS)
                ));
            }
        }
        let mut tx = conn.begin().await?;
        for (into, rows) in [
            (
                "images (id, name, status, visibility, protected, hidden, owner, container_format, \
                 disk_format, min_ram, min_disk, size, virtual_size, checksum, hash_algo, \
                 hash_value, created_at, updated_at, deleted_at)",
                images,
            ),
            ("image_tags (image_id, tag)", tags),
            ("image_properties (image_id, name, value)", properties),
            (
                "image_members (image_id, member, status, created_at, updated_at)",
                members,
            ),
        ] {
            if !rows.is_empty() {
                let sql = format!("INSERT INTO {into} VALUES {}", rows.join(", "));
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
    }
    // What a server does by itself, a while later.
    let analyze = match url.split_once(':') {
        Some(("sqlite", _)) => "ANALYZE",
        Some(("postgres", _)) => "VACUUM ANALYZE",
        _ => "ANALYZE TABLE images, image_tags, image_properties, image_members",
    };
    sqlx::raw_sql(analyze).execute(&mut conn).await?;
    conn.close().await?;
    eprintln!("{count} images in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Filters, and what makes them worth a look.
fn filters(count: u64) -> Vec<(&'static str, Vec<Filter>)> {
    let is = |column, value: &str| vec![Filter::In(column, vec![value.to_owned()])];
    let property = |name: &str, value: &str| vec![Filter::Property(name.into(), value.into())];
    let late = Timestamp(EPOCH + (count as i64) * 9_990_000);
    vec![
        ("no filter", vec![]),
        ("name", is(Column::Name, "image-7")),
        ("owner", is(Column::Owner, "owner-3")),
        ("id", is(Column::Id, &id(17))),
        ("status=active, nearly all", is(Column::Status, "active")),
        (
            "status=importing, 1 in 1000",
            is(Column::Status, "importing"),
        ),
        (
            "disk_format=qcow2, 7 in 10",
            is(Column::DiskFormat, "qcow2"),
        ),
        ("disk_format=vhd, 1 in 100", is(Column::DiskFormat, "vhd")),
        (
            "container_format=ova, 1 in 50",
            is(Column::ContainerFormat, "ova"),
        ),
        ("tag, 3 in 10", vec![Filter::Tag("linux".into())]),
        ("tag, a few", vec![Filter::Tag("build-3".into())]),
        ("tag, none", vec![Filter::Tag("nobody".into())]),
        ("property, 1 in 10", property("os_distro", "distro-3")),
        ("property, a few", property("build", "b3")),
        ("property, none", property("nobody", "x")),
        ("protected, 1 in 50", vec![Filter::Protected(true)]),
        (
            "size_min, 1 in 16",
            vec![Filter::Number(NumberColumn::Size, Op::Gte, 15 << 27)],
        ),
        (
            "size_min, none",
            vec![Filter::Number(NumberColumn::Size, Op::Gte, 1 << 40)],
        ),
        (
            "min_ram=512, 1 in 5",
            vec![Filter::Number(NumberColumn::MinRam, Op::Eq, 512)],
        ),
        (
            "min_ram=5, none",
            vec![Filter::Number(NumberColumn::MinRam, Op::Eq, 5)],
        ),
        (
            "checksum",
            is(Column::Checksum, &format!("{:032x}", 7 * 11)),
        ),
        (
            "created_at, last 1 in 1000",
            vec![Filter::Time(TimeColumn::CreatedAt, Op::Gte, late)],
        ),
    ]
}

const SORTS: [(SortKey, Direction); 8] = [
    (SortKey::CreatedAt, Direction::Desc),
    (SortKey::UpdatedAt, Direction::Desc),
    (SortKey::Name, Direction::Asc),
    (SortKey::Status, Direction::Asc),
    (SortKey::Size, Direction::Desc),
    (SortKey::DiskFormat, Direction::Asc),
    (SortKey::ContainerFormat, Direction::Asc),
    (SortKey::Id, Direction::Asc),
];

/// A viewer, with what they ask to see.
fn viewers() -> [(&'static str, Viewer, VisibilityFilter); 2] {
    let project = || Some("owner-5".to_owned());
    let admin = |is_admin| Viewer {
        project: project(),
        is_admin,
    };
    [
        ("admin", admin(true), VisibilityFilter::Default),
        ("project", admin(false), VisibilityFilter::Default),
    ]
}

async fn measure(small: &str, large: &str) -> anyhow::Result<()> {
    let small = (open(small).await?, count(small).await?);
    let large = (open(large).await?, count(large).await?);
    let mut lines = Vec::new();
    for (viewer, who, visibility) in viewers() {
        for (n, (filter, _)) in filters(1).iter().enumerate() {
            for (sort, direction) in SORTS {
                for deep in [false, true] {
                    let mut medians = [Duration::ZERO; 2];
                    for (at, (catalog, count)) in [&small, &large].into_iter().enumerate() {
                        let marker = match deep {
                            true => middle(catalog, *count).await?,
                            false => None,
                        };
                        let query = ListQuery {
                            viewer: who.clone(),
                            visibility,
                            members: MemberFilter::Only(MemberStatus::Accepted),
                            hidden: false,
                            filters: filters(*count)[n].1.clone(),
                            sort: vec![(sort, direction)],
                            marker,
                            limit: 25,
                        };
                        medians[at] = median(catalog, &query).await?;
                    }
                    let ratio = medians[1].as_secs_f64() / medians[0].as_secs_f64();
                    let page = if deep { "middle" } else { "first" };
                    lines.push((
                        ratio,
                        medians,
                        format!("{viewer} | {filter} | {sort:?} | {page}"),
                    ));
                }
            }
        }
    }
    report(&mut lines, small.1, large.1);
    Ok(())
}

/// How many images there are.
async fn count(url: &str) -> anyhow::Result<u64> {
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite://{path}"),
        None => url.to_owned(),
    };
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(&url).await?;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM images")
        .fetch_one(&mut conn)
        .await?;
    Ok(count.unsigned_abs())
}

fn report(lines: &mut [(f64, [Duration; 2], String)], small: u64, large: u64) {
    lines.sort_by(|a, b| b.0.total_cmp(&a.0));
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let mut out = format!("ratio | {small} ms | {large} ms | viewer | filter | sort | page\n");
    for (ratio, [few, many], what) in lines.iter() {
        let (few, many) = (ms(*few), ms(*many));
        let _ = writeln!(out, "{ratio:.2} | {few:.2} | {many:.2} | {what}");
    }
    let within = lines.iter().filter(|l| l.0 <= 2.0).count();
    let middle = lines[lines.len() / 2].0;
    let _ = writeln!(
        out,
        "{within} of {} pages within 2x, median ratio {middle:.2}",
        lines.len()
    );
    eprint!("{out}");
}

/// An image from the middle, to list what comes after it.
async fn middle(catalog: &Catalog, count: u64) -> anyhow::Result<Option<Image>> {
    let mut tx = catalog.read().await?;
    for n in count / 2.. {
        let found = images::find(&mut tx, &id(n).parse().ok().context("an id")?).await?;
        if found
            .as_ref()
            .is_some_and(|i| i.name.is_some() && i.size.is_some())
        {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn median(catalog: &Catalog, query: &ListQuery) -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for n in 0..=TIMES {
        let begun = Instant::now();
        let mut tx = catalog.read().await?;
        images::list(&mut tx, query).await?;
        drop(tx);
        // The first time is for caches.
        if n > 0 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    Ok(times[TIMES / 2])
}
