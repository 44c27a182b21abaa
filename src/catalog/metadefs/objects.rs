//! Objects of a namespace.

use serde_json::{Map, Value};

use super::{NamespaceId, json_object};
use crate::catalog::conn::{Arg, Row, args};
use crate::catalog::{Result, Tx};
use crate::domain::Timestamp;
use crate::domain::metadef::{Object, Property};

const TABLE: &str = "metadef_objects";
const COLUMNS: &str = "id, name, description, required, properties, created_at, updated_at";

/// All of a namespace, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, of: NamespaceId) -> Result<Vec<Object>> {
    let sql = format!("SELECT {COLUMNS} FROM metadef_objects WHERE namespace_id = ? ORDER BY id");
    let rows = tx.all(sql, args![of.0]).await?;
    rows.iter().map(from_row).collect()
}

/// One by name.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<Option<Object>> {
    let sql = format!("SELECT {COLUMNS} FROM metadef_objects WHERE namespace_id = ? AND name = ?");
    let row = tx.first(sql, args![of.0, name]).await?;
    row.map(|r| from_row(&r)).transpose()
}

/// Adds one.
///
/// # Errors
/// `Conflict` when there is one of this name.
pub async fn insert(tx: &mut Tx, of: NamespaceId, object: &Object) -> Result<()> {
    let mut args = facts(object);
    args.extend(args![object.created_at.0, object.updated_at.0, of.0]);
    tx.run(
        "INSERT INTO metadef_objects (name, description, required, properties, created_at, \
         updated_at, namespace_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        args,
    )
    .await?;
    Ok(())
}

/// Replaces the one called `name`, perhaps by one of another name; `false` when there is none.
///
/// # Errors
/// `Conflict` when there is another one of the new name.
pub async fn update(tx: &mut Tx, of: NamespaceId, name: &str, object: &Object) -> Result<bool> {
    let mut args = facts(object);
    args.extend(args![object.updated_at.0, of.0, name]);
    let changed = tx
        .run(
            "UPDATE metadef_objects SET name = ?, description = ?, required = ?, properties = ?, \
             updated_at = ? WHERE namespace_id = ? AND name = ?",
            args,
        )
        .await?;
    Ok(changed == 1)
}

/// Removes one; `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, of: NamespaceId, name: &str) -> Result<bool> {
    let sql = "DELETE FROM metadef_objects WHERE namespace_id = ? AND name = ?";
    Ok(tx.run(sql, args![of.0, name]).await? == 1)
}

/// Removes all of a namespace.
///
/// # Errors
/// When the database fails.
pub async fn delete_all(tx: &mut Tx, of: NamespaceId) -> Result<()> {
    let sql = "DELETE FROM metadef_objects WHERE namespace_id = ?";
    tx.run(sql, args![of.0]).await?;
    Ok(())
}

fn facts(object: &Object) -> Vec<Arg> {
    let required: Value = object.required.iter().map(String::as_str).collect();
    let properties: Map<String, Value> = object
        .properties
        .iter()
        .map(|p| (p.name.clone(), Value::Object(p.definition.clone())))
        .collect();
    args![
        object.name.as_str(),
        object.description.clone(),
        required.to_string(),
        Value::Object(properties).to_string(),
    ]
}

fn from_row(row: &Row) -> Result<Object> {
    let property = |(name, definition)| match definition {
        Value::Object(definition) => Ok(Property { name, definition }),
        _ => Err(row.corrupt(TABLE, "properties")),
    };
    Ok(Object {
        name: row.text(TABLE, "name")?,
        description: row.opt_text(TABLE, "description")?,
        required: serde_json::from_str(&row.text(TABLE, "required")?)
            .map_err(|_| row.corrupt(TABLE, "required"))?,
        properties: json_object(row, TABLE, "properties")?
            .into_iter()
            .map(property)
            .collect::<Result<_>>()?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}
