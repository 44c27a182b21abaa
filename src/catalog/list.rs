//! Pages of images: conditions, keyset paging, order.

use super::conn::{Arg, Tx, marks};
use super::images::{COLUMNS, load};
use super::{
    Column, Direction, Filter, ListQuery, MemberFilter, NumberColumn, Op, Result, SortKey,
    TimeColumn, Viewer, VisibilityFilter,
};
use crate::domain::{Image, Visibility};

/// A page of images.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, query: &ListQuery) -> Result<Vec<Image>> {
    let mut sql = Statement::default();
    sql.and("deleted_at IS NULL", vec![]);
    visible(&mut sql, &query.viewer, query.visibility, query.members);
    sql.and("hidden = ?", vec![query.hidden.into()]);
    for filter in &query.filters {
        apply(&mut sql, filter);
    }
    let keys = keys(&query.sort);
    if let Some(marker) = &query.marker {
        after(&mut sql, &keys, marker);
    }
    let order: Vec<_> = keys
        .iter()
        .map(|(k, d)| format!("{} {}", column(*k), word(*d)))
        .collect();
    let text = format!(
        "SELECT {COLUMNS} FROM images WHERE {} ORDER BY {} LIMIT ?",
        sql.conditions.join(" AND "),
        order.join(", ")
    );
    sql.args.push(i64::from(query.limit).into());
    let rows = tx.all(text, sql.args).await?;
    load(tx, rows).await
}

#[derive(Default)]
struct Statement {
    conditions: Vec<String>,
    args: Vec<Arg>,
}

impl Statement {
    fn and(&mut self, condition: impl Into<String>, args: Vec<Arg>) {
        self.conditions.push(condition.into());
        self.args.extend(args);
    }
}

/// What the viewer may see and asked for (`image-api.md` 3.5). An image without an owner is
/// visible to all.
fn visible(sql: &mut Statement, viewer: &Viewer, filter: VisibilityFilter, members: MemberFilter) {
    let project = || Arg::Text(viewer.project.clone());
    let community = Visibility::Community.name();
    match filter {
        VisibilityFilter::Only(v) => sql.and("visibility = ?", vec![v.name().into()]),
        VisibilityFilter::All => {}
        VisibilityFilter::Default => sql.and(
            "(visibility <> ? OR owner = ?)",
            vec![community.into(), project()],
        ),
    }
    if !viewer.is_admin {
        let mut args = vec![
            Visibility::Public.name().into(),
            community.into(),
            project(),
            Visibility::Shared.name().into(),
            project(),
        ];
        let said = match members {
            MemberFilter::All => "",
            MemberFilter::Only(status) => {
                args.push(status.name().into());
                " AND m.status = ?"
            }
        };
        sql.and(
            format!(
                "(visibility IN (?, ?) OR owner IS NULL OR owner = ? OR (visibility = ? AND \
                 EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = images.id \
                 AND m.member = ?{said})))"
            ),
            args,
        );
    }
}

fn apply(sql: &mut Statement, filter: &Filter) {
    match filter {
        Filter::In(column, values) if values.len() == 1 => {
            sql.and(
                format!("{} = ?", text_column(*column)),
                vec![values[0].as_str().into()],
            );
        }
        Filter::In(column, values) => sql.and(
            format!("{} IN ({})", text_column(*column), marks(values.len())),
            values.iter().map(|v| v.as_str().into()).collect(),
        ),
        Filter::Number(column, op, value) => {
            let column = match column {
                NumberColumn::Size => "size",
                NumberColumn::VirtualSize => "virtual_size",
                NumberColumn::MinRam => "min_ram",
                NumberColumn::MinDisk => "min_disk",
            };
            sql.and(
                format!("{column} {} ?", operator(*op)),
                vec![(*value).into()],
            );
        }
        Filter::Time(column, op, at) => {
            let column = match column {
                TimeColumn::CreatedAt => "created_at",
                TimeColumn::UpdatedAt => "updated_at",
            };
            // The API speaks in seconds, rows hold microseconds: compare whole seconds.
            let second = at.0.div_euclid(1_000_000) * 1_000_000;
            let next = second + 1_000_000;
            match op {
                Op::Eq => sql.and(
                    format!("({column} >= ? AND {column} < ?)"),
                    vec![second.into(), next.into()],
                ),
                Op::Neq => sql.and(
                    format!("({column} < ? OR {column} >= ?)"),
                    vec![second.into(), next.into()],
                ),
                Op::Gt => sql.and(format!("{column} >= ?"), vec![next.into()]),
                Op::Gte => sql.and(format!("{column} >= ?"), vec![second.into()]),
                Op::Lt => sql.and(format!("{column} < ?"), vec![second.into()]),
                Op::Lte => sql.and(format!("{column} < ?"), vec![next.into()]),
            }
        }
        Filter::Protected(flag) => sql.and("protected = ?", vec![(*flag).into()]),
        Filter::Tag(tag) => sql.and(
            "id IN (SELECT image_id FROM image_tags WHERE tag = ?)",
            vec![tag.as_str().into()],
        ),
        Filter::Property(name, value) => sql.and(
            "id IN (SELECT image_id FROM image_properties WHERE name = ? AND value = ?)",
            vec![name.as_str().into(), value.as_str().into()],
        ),
        Filter::Nothing => sql.and("1 = 0", vec![]),
    }
}

/// The sort keys with the tie-breakers `created_at` and `id`, which take the last direction.
fn keys(sort: &[(SortKey, Direction)]) -> Vec<(SortKey, Direction)> {
    let mut keys = sort.to_vec();
    let last = keys.last().map_or(Direction::Desc, |(_, d)| *d);
    for key in [SortKey::CreatedAt, SortKey::Id] {
        if !keys.iter().any(|(k, _)| *k == key) {
            keys.push((key, last));
        }
    }
    keys
}

/// Only what comes after `marker` in the order of `keys`. NULL counts as the smallest value.
fn after(sql: &mut Statement, keys: &[(SortKey, Direction)], marker: &Image) {
    let mut any = Vec::new();
    let mut args = Vec::new();
    for (n, (key, direction)) in keys.iter().enumerate() {
        let mut all = Vec::new();
        for (key, _) in &keys[..n] {
            match value(*key, marker) {
                Some(value) => {
                    all.push(format!("{} = ?", column(*key)));
                    args.push(value);
                }
                None => all.push(format!("{} IS NULL", column(*key))),
            }
        }
        let column = column(*key);
        match (direction, value(*key, marker)) {
            (Direction::Asc, None) => all.push(format!("{column} IS NOT NULL")),
            (Direction::Desc, None) => all.push("1 = 0".to_owned()),
            (Direction::Asc, Some(value)) => {
                all.push(format!("{column} > ?"));
                args.push(value);
            }
            (Direction::Desc, Some(value)) => {
                all.push(format!("({column} < ? OR {column} IS NULL)"));
                args.push(value);
            }
        }
        any.push(format!("({})", all.join(" AND ")));
    }
    sql.and(format!("({})", any.join(" OR ")), args);
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

const fn text_column(column: Column) -> &'static str {
    match column {
        Column::Id => "id",
        Column::Name => "name",
        Column::Status => "status",
        Column::Owner => "owner",
        Column::ContainerFormat => "container_format",
        Column::DiskFormat => "disk_format",
        Column::Checksum => "checksum",
        Column::HashAlgo => "hash_algo",
        Column::HashValue => "hash_value",
    }
}

const fn operator(op: Op) -> &'static str {
    match op {
        Op::Eq => "=",
        Op::Neq => "<>",
        Op::Gt => ">",
        Op::Gte => ">=",
        Op::Lt => "<",
        Op::Lte => "<=",
    }
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Asc => "ASC",
        Direction::Desc => "DESC",
    }
}
