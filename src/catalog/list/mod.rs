//! Pages of images, read off indexes however many images there are.
//!
//! What a viewer may see is a handful of *classes* (`visible`): what is theirs, what is public, and
//! so on. In each of them an index holds the images in the order of every sort key. A page's first
//! `limit` images are among the first `limit` of each class, so the statement is a union of short
//! walks, sorted once more. What comes after a marker is a handful of *ranges* of the same order,
//! each of them a walk again: an OR of the ranges would be read from its beginning.

mod filters;
mod visible;

use super::conn::{Arg, Tx};
use super::images::{COLUMNS, load};
use super::{Direction, ListQuery, Result, SortKey};
use crate::domain::Image;

/// A page of images.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, query: &ListQuery) -> Result<Vec<Image>> {
    let filters = filters::conditions(tx, &query.filters).await?;
    let classes = if filters.are_few || filters.names_owner {
        vec![visible::whole(query)]
    } else {
        visible::classes(query)
    };
    let keys = keys(&query.sort);
    let ranges = match &query.marker {
        Some(marker) => after(&keys, marker),
        None => vec![Condition::default()],
    };
    let order: Vec<_> = keys
        .iter()
        .map(|(key, direction)| tx.order(column(*key), *direction, is_nullable(*key)))
        .collect();
    let order = order.join(", ");
    let hidden = if query.hidden {
        "hidden = 1"
    } else {
        "hidden = 0"
    };
    let base = Condition::new(format!("deleted_at IS NULL AND {hidden}"), vec![]);

    let mut walks = Vec::new();
    let mut args = Vec::new();
    for class in &classes {
        for range in &ranges {
            let walk = base.and(class).and(range).and(&filters.condition);
            walks.push(format!(
                "SELECT {COLUMNS} FROM images WHERE {} ORDER BY {order} LIMIT ?",
                walk.text
            ));
            args.extend(walk.args);
            args.push(i64::from(query.limit).into());
        }
    }
    let sql = match walks.as_slice() {
        [walk] => walk.clone(),
        walks => {
            args.push(i64::from(query.limit).into());
            let walks: Vec<_> = walks
                .iter()
                .enumerate()
                .map(|(n, walk)| format!("SELECT * FROM ({walk}) AS walk{n}"))
                .collect();
            // An image may be in two classes, like one's own that is public: UNION takes it once.
            format!(
                "SELECT * FROM ({}) AS page ORDER BY {order} LIMIT ?",
                walks.join(" UNION ")
            )
        }
    };
    let rows = tx.all(sql, args).await?;
    load(tx, rows).await
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
}

/// The sort keys with the tie-breakers `created_at` and `id`, which take the last direction. What
/// comes behind an id decides nothing and is left out.
fn keys(sort: &[(SortKey, Direction)]) -> Vec<(SortKey, Direction)> {
    let mut keys = sort.to_vec();
    let last = keys.last().map_or(Direction::Desc, |(_, d)| *d);
    for key in [SortKey::CreatedAt, SortKey::Id] {
        if !keys.iter().any(|(k, _)| *k == key) {
            keys.push((key, last));
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
