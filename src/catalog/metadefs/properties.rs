//! Properties of a namespace.

use super::{NamespaceId, json_object};
use crate::catalog::conn::{Row, args};
use crate::catalog::{Result, Tx};
use crate::domain::Timestamp;
use crate::domain::metadef::Property;

const TABLE: &str = "metadef_properties";

/// All of a namespace, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, of: NamespaceId) -> Result<Vec<Property>> {
    let sql =
        "SELECT id, name, definition FROM metadef_properties WHERE namespace_id = ? ORDER BY id";
    let rows = tx.all(sql, args![of.0]).await?;
    rows.iter().map(from_row).collect()
}

/// One by name.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<Option<Property>> {
    let row = tx
        .first(
            "SELECT id, name, definition FROM metadef_properties \
             WHERE namespace_id = ? AND name = ?",
            args![of.0, name],
        )
        .await?;
    row.map(|r| from_row(&r)).transpose()
}

/// Adds one.
///
/// # Errors
/// `Conflict` when there is one of this name.
pub async fn insert(
    tx: &mut Tx,
    of: NamespaceId,
    property: &Property,
    now: Timestamp,
) -> Result<()> {
    tx.run(
        "INSERT INTO metadef_properties (namespace_id, name, definition, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?)",
        args![of.0, property.name.as_str(), text(property), now.0, now.0],
    )
    .await?;
    Ok(())
}

/// Replaces the one called `name`, perhaps by one of another name; `false` when there is none.
///
/// # Errors
/// `Conflict` when there is another one of the new name.
pub async fn update(
    tx: &mut Tx,
    of: NamespaceId,
    name: &str,
    property: &Property,
    now: Timestamp,
) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE metadef_properties SET name = ?, definition = ?, updated_at = ? \
             WHERE namespace_id = ? AND name = ?",
            args![property.name.as_str(), text(property), now.0, of.0, name],
        )
        .await?;
    Ok(changed == 1)
}

/// Removes one; `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<bool> {
    let sql = "DELETE FROM metadef_properties WHERE namespace_id = ? AND name = ?";
    Ok(tx.run(sql, args![of.0, name]).await? == 1)
}

/// Removes all of a namespace.
///
/// # Errors
/// When the database fails.
pub async fn delete_all(tx: &mut Tx, of: NamespaceId) -> Result<()> {
    let sql = "DELETE FROM metadef_properties WHERE namespace_id = ?";
    tx.run(sql, args![of.0]).await?;
    Ok(())
}

fn text(property: &Property) -> String {
    serde_json::Value::Object(property.definition.clone()).to_string()
}

fn from_row(row: &Row) -> Result<Property> {
    Ok(Property {
        name: row.text(TABLE, "name")?,
        definition: json_object(row, TABLE, "definition")?,
    })
}
