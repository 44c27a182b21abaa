//! Pages of images, read off indexes however many images there are.
//!
//! What a viewer may see is a handful of *classes* (`visible`): what is theirs, what is public, and
//! so on. In each of them an index holds the images in the order of every sort key, with all behind it
//! that is short and filtered by. A page's first `limit` images are among the first `limit` of each
//! class, so the statement is a union of short walks over indexes alone, sorted once more; only then
//! are rows looked at. What comes after a marker is a handful of *ranges* of the same order, each of
//! them a walk again: an OR of the ranges would be read from its beginning.
//!
//! Where a filter leaves few images (`filters`), these are fetched and sorted instead.
//!
//! Which index it is to be is said by name: SQLite does not know how often a value occurs, and MariaDB
//! does not always ask.

mod filters;
mod visible;

use super::conn::{Arg, Tx};
use super::images::{load, selected};
use super::{Direction, ListQuery, Result, SortKey};
use crate::domain::Image;

/// A page of images.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, query: &ListQuery) -> Result<Vec<Image>> {
    let hidden = i32::from(query.hidden);
    let base = Condition::new(format!("deleted_at IS NULL AND hidden = {hidden}"), vec![]);
    // The values of the first column are few: an index that begins with it serves all of them.
    let anywhere = "visibility IN ('public', 'private', 'shared', 'community')";
    let anywhere = base.and(&Condition::new(anywhere, vec![]));
    let filters = filters::conditions(tx, &query.filters, &anywhere).await?;
    let classes = visible::classes(tx, query).await?;
    let keys = keys(&query.sort);
    let ranges = match &query.marker {
        Some(marker) => after(&keys, marker),
        None => vec![Condition::default()],
    };

    let walks = if let Some(few) = &filters.few {
        let all = visible::whole(&classes).and(&any(&ranges));
        vec![few.start.walk(anywhere.and(&all))]
    } else if filters.one_owner {
        let all = base.and(&visible::whole(&classes));
        let start = Family::Owned.index(keys[0].0);
        ranges.iter().map(|r| start.walk(all.and(r))).collect()
    } else {
        let walks = classes.iter().flat_map(|class| {
            let all = base.and(&class.condition);
            match class.family {
                Some(family) => {
                    let start = family.index(keys[0].0);
                    ranges.iter().map(|r| start.walk(all.and(r))).collect()
                }
                None => vec![Start::Key.walk(all.and(&any(&ranges)))],
            }
        });
        walks.collect()
    };
    if walks.is_empty() {
        return Ok(Vec::new());
    }
    let (page, args) = union(tx, walks, &filters.condition, &keys, query.limit);
    // CROSS: begin with the page, in SQLite's words.
    let columns = selected(tx);
    let sql = format!(
        "SELECT {columns} FROM ({page}) AS page CROSS JOIN {} \
         WHERE images.id = page.id ORDER BY {}",
        tx.by_key("images"),
        order(tx, &keys, "page.")
    );
    let rows = tx.all(sql, args).await?;
    load(tx, rows).await
}

/// The keys of the first `limit` images of all walks.
fn union(
    tx: &Tx,
    walks: Vec<Walk>,
    filters: &Condition,
    keys: &[(SortKey, Direction)],
    limit: u32,
) -> (String, Vec<Arg>) {
    let names: Vec<_> = keys.iter().map(|(key, _)| column(*key)).collect();
    let names = names.join(", ");
    let ends = format!("ORDER BY {} LIMIT {limit}", order(tx, keys, ""));
    let mut args = Vec::new();
    let mut parts = Vec::new();
    for Walk { start, of } in walks {
        let Condition { text, args: values } = of.and(filters);
        let from = match start {
            Start::Index(index) => tx.by_index("images", index),
            Start::Key => tx.by_key("images"),
        };
        parts.push(format!("SELECT {names} FROM {from} WHERE {text} {ends}"));
        args.extend(values);
    }
    if parts.len() == 1 {
        return (parts.remove(0), args);
    }
    let parts = parts.iter().enumerate();
    let parts = parts.map(|(n, walk)| format!("SELECT * FROM ({walk}) AS walk{n}"));
    let parts = parts.collect::<Vec<_>>().join(" UNION ");
    // An image may be in two classes, like one's own that is public: UNION takes it once.
    (format!("SELECT * FROM ({parts}) AS walks {ends}"), args)
}

/// What `ORDER BY` says of columns, whose names come after `of`.
fn order(tx: &Tx, keys: &[(SortKey, Direction)], of: &str) -> String {
    let terms = keys.iter().map(|(key, direction)| {
        let column = format!("{of}{}", column(*key));
        tx.order(&column, *direction, is_nullable(*key))
    });
    terms.collect::<Vec<_>>().join(", ")
}

/// Images in order, from one index.
struct Walk {
    start: Start,
    of: Condition,
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// At an index.
    Index(&'static str),
    /// At rows whose ids are known.
    Key,
}

impl Start {
    fn walk(self, of: Condition) -> Walk {
        Walk { start: self, of }
    }
}

/// Indexes that begin alike, one for each sort key.
#[derive(Clone, Copy, Debug)]
enum Family {
    /// Those of one visibility.
    Visible,
    /// Those of one owner.
    Owned,
}

impl Family {
    const fn index(self, key: SortKey) -> Start {
        Start::Index(match (self, key) {
            (Self::Visible, SortKey::Name) => "images_visible_name",
            (Self::Visible, SortKey::Status) => "images_visible_status",
            (Self::Visible, SortKey::ContainerFormat) => "images_visible_container_format",
            (Self::Visible, SortKey::DiskFormat) => "images_visible_disk_format",
            (Self::Visible, SortKey::Size) => "images_visible_size",
            (Self::Visible, SortKey::Id) => "images_visible_id",
            (Self::Visible, SortKey::CreatedAt) => "images_visible_created_at",
            (Self::Visible, SortKey::UpdatedAt) => "images_visible_updated_at",
            (Self::Owned, SortKey::Name) => "images_owned_name",
            (Self::Owned, SortKey::Status) => "images_owned_status",
            (Self::Owned, SortKey::ContainerFormat) => "images_owned_container_format",
            (Self::Owned, SortKey::DiskFormat) => "images_owned_disk_format",
            (Self::Owned, SortKey::Size) => "images_owned_size",
            (Self::Owned, SortKey::Id) => "images_owned_id",
            (Self::Owned, SortKey::CreatedAt) => "images_owned_created_at",
            (Self::Owned, SortKey::UpdatedAt) => "images_owned_updated_at",
        })
    }
}

/// Images that are fetched and sorted rather than walked past.
struct Few {
    count: i64,
    start: Start,
}

impl Few {
    const MAX: i64 = 1000;

    /// How many rows are so, or one more than are few.
    async fn count(tx: &mut Tx, table: &str, has: &Condition) -> Result<i64> {
        let sql = format!(
            "SELECT COUNT(*) AS n FROM (SELECT 1 FROM {table} WHERE {} LIMIT {}) AS found",
            has.text,
            Self::MAX + 1
        );
        let row = tx.first(sql, has.args.clone()).await?;
        row.map_or(Ok(0), |row| row.int("images", "n"))
    }
}

/// A condition with the values of its marks. Empty: all rows.
#[derive(Clone, Default, Debug)]
struct Condition {
    text: String,
    args: Vec<Arg>,
}

impl Condition {
    fn new(text: impl Into<String>, args: Vec<Arg>) -> Self {
        Self {
            text: text.into(),
            args,
        }
    }

    /// Both.
    fn and(&self, other: &Self) -> Self {
        let text = match (self.text.as_str(), other.text.as_str()) {
            (text, "") | ("", text) => text.to_owned(),
            (one, two) => format!("{one} AND {two}"),
        };
        let args = self.args.iter().chain(&other.args).cloned().collect();
        Self { text, args }
    }

    /// Images that have such a row in a table of parts, as they are met on a walk.
    fn met(&self, table: &str) -> Self {
        // A value, and not EXISTS: no planner turns it into a join that begins with the parts. And
        // not `= 1`, of which PostgreSQL believes that hardly any row is so, and sorts them all.
        let text = &self.text;
        let text =
            format!("(SELECT 1 FROM {table} WHERE image_id = images.id AND {text}) IS NOT NULL");
        Self::new(text, self.args.clone())
    }
}

/// One of the ranges; no range at all is nothing.
fn any(ranges: &[Condition]) -> Condition {
    match ranges {
        [] => Condition::new("1 = 0", vec![]),
        [one] => one.clone(),
        many => {
            let text: Vec<_> = many.iter().map(|c| format!("({})", c.text)).collect();
            let args = many.iter().flat_map(|c| c.args.iter().cloned()).collect();
            Condition::new(format!("({})", text.join(" OR ")), args)
        }
    }
}

/// The sort keys with the tie-breakers `created_at` and `id`, which take the last direction. What
/// decides nothing is left out: a key that was there before, and what comes behind an id.
fn keys(sort: &[(SortKey, Direction)]) -> Vec<(SortKey, Direction)> {
    let last = sort.last().map_or(Direction::Desc, |(_, d)| *d);
    let ties = [(SortKey::CreatedAt, last), (SortKey::Id, last)];
    let mut keys: Vec<(SortKey, Direction)> = Vec::new();
    for (key, direction) in sort.iter().copied().chain(ties) {
        if !keys.iter().any(|(k, _)| *k == key) {
            keys.push((key, direction));
        }
    }
    if let Some(id) = keys.iter().position(|(key, _)| *key == SortKey::Id) {
        keys.truncate(id + 1);
    }
    keys
}

/// What comes after `marker` in the order of `keys`, as ranges without overlap. NULL counts as the
/// smallest value.
fn after(keys: &[(SortKey, Direction)], marker: &Image) -> Vec<Condition> {
    let mut ranges = Vec::new();
    let mut same = Condition::default();
    for (key, direction) in keys {
        let name = column(*key);
        let value = value(*key, marker);
        let mut push = |text: String, args| ranges.push(same.and(&Condition::new(text, args)));
        match (direction, &value) {
            (Direction::Asc, None) => push(format!("{name} IS NOT NULL"), vec![]),
            (Direction::Desc, None) => {}
            (Direction::Asc, Some(value)) => push(format!("{name} > ?"), vec![value.clone()]),
            (Direction::Desc, Some(value)) => {
                push(format!("{name} < ?"), vec![value.clone()]);
                if is_nullable(*key) {
                    push(format!("{name} IS NULL"), vec![]);
                }
            }
        }
        same = same.and(&match value {
            Some(value) => Condition::new(format!("{name} = ?"), vec![value]),
            None => Condition::new(format!("{name} IS NULL"), vec![]),
        });
    }
    ranges
}

/// The marker's value of a key; `None` is NULL.
fn value(key: SortKey, image: &Image) -> Option<Arg> {
    match key {
        SortKey::Name => image.name.clone().map(Arg::from),
        SortKey::Status => Some(image.status.name().into()),
        SortKey::ContainerFormat => image.container_format.clone().map(Arg::from),
        SortKey::DiskFormat => image.disk_format.clone().map(Arg::from),
        SortKey::Size => image
            .size
            .map(|n| i64::try_from(n).unwrap_or(i64::MAX).into()),
        SortKey::Id => Some(image.id.as_str().into()),
        SortKey::CreatedAt => Some(image.created_at.0.into()),
        SortKey::UpdatedAt => Some(image.updated_at.0.into()),
    }
}

const fn column(key: SortKey) -> &'static str {
    match key {
        SortKey::Name => "name",
        SortKey::Status => "status",
        SortKey::ContainerFormat => "container_format",
        SortKey::DiskFormat => "disk_format",
        SortKey::Size => "size",
        SortKey::Id => "id",
        SortKey::CreatedAt => "created_at",
        SortKey::UpdatedAt => "updated_at",
    }
}

const fn is_nullable(key: SortKey) -> bool {
    matches!(
        key,
        SortKey::Name | SortKey::ContainerFormat | SortKey::DiskFormat | SortKey::Size
    )
}
