//! Tags of a namespace.

use super::NamespaceId;
use super::page::Page;
use crate::catalog::conn::{Arg, Row, args};
use crate::catalog::{Direction, Result, Tx};
use crate::domain::Timestamp;
use crate::domain::metadef::Tag;

const TABLE: &str = "metadef_tags";

/// What tags can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagKey {
    /// `name`
    Name,
    /// `created_at`
    CreatedAt,
    /// `updated_at`
    UpdatedAt,
}

/// A page of tags; by default all of them, newest first.
#[derive(Clone, Debug)]
pub struct TagQuery {
    /// The order.
    pub sort: (TagKey, Direction),
    /// The last tag of the page before; from the start where there is no such tag.
    pub after: Option<String>,
    /// Tags on the page at most.
    pub limit: u32,
}

impl Default for TagQuery {
    fn default() -> Self {
        Self {
            sort: (TagKey::CreatedAt, Direction::Desc),
            after: None,
            limit: u32::MAX,
        }
    }
}

/// A page of a namespace's tags.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, of: NamespaceId, query: &TagQuery) -> Result<Vec<Tag>> {
    let (key, direction) = query.sort;
    let last = match &query.after {
        Some(name) => row(tx, of, name).await?,
        None => None,
    };
    let after = match last {
        Some(row) => Some((key.value(&from_row(&row)?), row.int(TABLE, "id")?)),
        None => None,
    };
    let page = Page {
        key: key.column(),
        direction,
        after,
    };
    let (condition, more) = page.condition();
    let mut args = args![of.0];
    args.extend(more);
    args.push(i64::from(query.limit).into());
    let sql = format!(
        "SELECT id, name, created_at, updated_at FROM metadef_tags WHERE namespace_id = ? \
         AND {condition} {} LIMIT ?",
        page.order()
    );
    tx.all(sql, args).await?.iter().map(from_row).collect()
}

/// One by name.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<Option<Tag>> {
    let row = row(tx, of, name).await?;
    row.map(|r| from_row(&r)).transpose()
}

/// Adds one.
///
/// # Errors
/// `Conflict` when there is one of this name.
pub async fn insert(tx: &mut Tx, of: NamespaceId, tag: &Tag) -> Result<()> {
    tx.run(
        "INSERT INTO metadef_tags (namespace_id, name, created_at, updated_at) \
         VALUES (?, ?, ?, ?)",
        args![of.0, tag.name.as_str(), tag.created_at.0, tag.updated_at.0],
    )
    .await?;
    Ok(())
}

/// Renames the one called `name`; `false` when there is none.
///
/// # Errors
/// `Conflict` when there is another one of the new name.
pub async fn update(tx: &mut Tx, of: NamespaceId, name: &str, tag: &Tag) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE metadef_tags SET name = ?, updated_at = ? WHERE namespace_id = ? AND name = ?",
            args![tag.name.as_str(), tag.updated_at.0, of.0, name],
        )
        .await?;
    Ok(changed == 1)
}

/// Removes one; `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<bool> {
    let sql = "DELETE FROM metadef_tags WHERE namespace_id = ? AND name = ?";
    Ok(tx.run(sql, args![of.0, name]).await? == 1)
}

/// Removes all of a namespace.
///
/// # Errors
/// When the database fails.
pub async fn delete_all(tx: &mut Tx, of: NamespaceId) -> Result<()> {
    let sql = "DELETE FROM metadef_tags WHERE namespace_id = ?";
    tx.run(sql, args![of.0]).await?;
    Ok(())
}

impl TagKey {
    const fn column(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
        }
    }

    fn value(self, tag: &Tag) -> Arg {
        match self {
            Self::Name => tag.name.as_str().into(),
            Self::CreatedAt => tag.created_at.0.into(),
            Self::UpdatedAt => tag.updated_at.0.into(),
        }
    }
}

async fn row(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<Option<Row>> {
    let sql = "SELECT id, name, created_at, updated_at FROM metadef_tags \
               WHERE namespace_id = ? AND name = ?";
    tx.first(sql, args![of.0, name]).await
}

fn from_row(row: &Row) -> Result<Tag> {
    Ok(Tag {
        name: row.text(TABLE, "name")?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}
