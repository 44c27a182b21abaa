//! Metadata definitions. Rows are ordered by their number, which grows with every insert: what was
//! made in one transaction keeps its order, and pages have a last word where sort keys are equal.

pub mod associations;
pub mod namespaces;
pub mod objects;
mod page;
pub mod properties;
pub mod tags;

use serde_json::{Map, Value};

pub use namespaces::{Found, NamespaceId, NamespaceKey, NamespaceQuery};
pub use tags::{TagKey, TagQuery};

use super::conn::Row;
use super::{Result, Tx};
use crate::domain::metadef::{Contents, Namespace};

/// Everything a namespace holds.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn contents(tx: &mut Tx, id: NamespaceId) -> Result<Contents> {
    Ok(Contents {
        associations: associations::list(tx, id).await?,
        properties: properties::list(tx, id).await?,
        objects: objects::list(tx, id).await?,
        tags: tags::list(tx, id, &TagQuery::default()).await?,
    })
}

/// Adds a namespace and everything in it.
///
/// # Errors
/// `Conflict` when there is a namespace of this name, or two parts of it have one name.
pub async fn insert(tx: &mut Tx, namespace: &Namespace, contents: &Contents) -> Result<()> {
    let id = namespaces::insert(tx, namespace).await?;
    for association in &contents.associations {
        associations::insert(tx, id, association).await?;
    }
    for property in &contents.properties {
        properties::insert(tx, id, property, namespace.created_at).await?;
    }
    for object in &contents.objects {
        objects::insert(tx, id, object).await?;
    }
    for tag in &contents.tags {
        tags::insert(tx, id, tag).await?;
    }
    Ok(())
}

/// A column that holds a JSON object.
fn json_object(row: &Row, table: &'static str, column: &'static str) -> Result<Map<String, Value>> {
    serde_json::from_str(&row.text(table, column)?).map_err(|_| row.corrupt(table, column))
}
