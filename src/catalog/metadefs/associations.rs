//! Resource types, and which of them a namespace is for.

use super::NamespaceId;
use crate::catalog::conn::{Row, args};
use crate::catalog::{Error, Result, Tx};
use crate::domain::Timestamp;
use crate::domain::metadef::{Association, ResourceType};

const TABLE: &str = "metadef_associations";
const TYPES: &str = "metadef_resource_types";
const JOINED: &str = "SELECT a.id, t.name AS resource_type, a.prefix, a.properties_target, \
     a.created_at, a.updated_at FROM metadef_associations a \
     JOIN metadef_resource_types t ON t.id = a.resource_type_id WHERE a.namespace_id = ?";

/// Every resource type, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn resource_types(tx: &mut Tx) -> Result<Vec<ResourceType>> {
    let sql = "SELECT id, name, created_at, updated_at FROM metadef_resource_types ORDER BY id";
    let rows = tx.all(sql, args![]).await?;
    rows.iter()
        .map(|row| {
            Ok(ResourceType {
                name: row.text(TYPES, "name")?,
                created_at: Timestamp(row.int(TYPES, "created_at")?),
                updated_at: row.opt_int(TYPES, "updated_at")?.map(Timestamp),
            })
        })
        .collect()
}

/// All of a namespace, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, of: NamespaceId) -> Result<Vec<Association>> {
    let rows = tx
        .all(format!("{JOINED} ORDER BY a.id"), args![of.0])
        .await?;
    rows.iter().map(from_row).collect()
}

/// The one with a resource type.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(
    tx: &mut Tx,
    of: NamespaceId,
    resource_type: &str,
) -> Result<Option<Association>> {
    let sql = format!("{JOINED} AND t.name = ?");
    let row = tx.first(sql, args![of.0, resource_type]).await?;
    row.map(|r| from_row(&r)).transpose()
}

/// Adds one, and the resource type where it is new.
///
/// # Errors
/// `Conflict` when the two are associated already.
pub async fn insert(tx: &mut Tx, of: NamespaceId, association: &Association) -> Result<()> {
    let now = association.created_at;
    let type_id = match type_id(tx, &association.resource_type).await? {
        Some(id) => id,
        None => insert_type(tx, &association.resource_type, now).await?,
    };
    tx.run(
        "INSERT INTO metadef_associations (namespace_id, resource_type_id, prefix, \
         properties_target, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
        args![
            of.0,
            type_id,
            association.prefix.clone(),
            association.properties_target.clone(),
            now.0,
            association.updated_at.0,
        ],
    )
    .await?;
    Ok(())
}

/// Removes the one with a resource type; `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, of: NamespaceId, resource_type: &str) -> Result<bool> {
    let removed = tx
        .run(
            "DELETE FROM metadef_associations WHERE namespace_id = ? AND resource_type_id IN \
             (SELECT id FROM metadef_resource_types WHERE name = ?)",
            args![of.0, resource_type],
        )
        .await?;
    Ok(removed == 1)
}

async fn type_id(tx: &mut Tx, name: &str) -> Result<Option<i64>> {
    let sql = "SELECT id FROM metadef_resource_types WHERE name = ?";
    let row = tx.first(sql, args![name]).await?;
    row.map(|r| r.int(TYPES, "id")).transpose()
}

async fn insert_type(tx: &mut Tx, name: &str, now: Timestamp) -> Result<i64> {
    tx.run(
        "INSERT INTO metadef_resource_types (name, created_at, updated_at) VALUES (?, ?, ?)",
        args![name, now.0, now.0],
    )
    .await?;
    let id = type_id(tx, name).await?;
    id.ok_or_else(|| Error::Conflict(format!("resource type {name}")))
}

fn from_row(row: &Row) -> Result<Association> {
    Ok(Association {
        resource_type: row.text(TABLE, "resource_type")?,
        prefix: row.opt_text(TABLE, "prefix")?,
        properties_target: row.opt_text(TABLE, "properties_target")?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}
