//! A Glance database's metadata definitions.

use serde_json::Value;

use super::time;
use crate::catalog::conn::{Row, args};
use crate::catalog::{Result, Tx};
use crate::domain::Visibility;
use crate::domain::metadef::{Association, Contents, Namespace, Object, Property, Tag};

const TIMES: &str =
    "CAST(created_at AS CHAR) AS created_at, CAST(updated_at AS CHAR) AS updated_at";

/// Every namespace with what is in it.
///
/// # Errors
/// `Sql` when this is no Glance database, `Corrupt` for a row that cannot be.
pub async fn all(tx: &mut Tx) -> Result<Vec<(Namespace, Contents)>> {
    let sql = format!(
        "SELECT CAST(id AS SIGNED) AS id, namespace, display_name, description, visibility, \
         CAST(protected AS SIGNED) AS protected, owner, {TIMES} \
         FROM metadef_namespaces ORDER BY id"
    );
    let mut all = Vec::new();
    for row in tx.all(sql, vec![]).await? {
        const TABLE: &str = "metadef_namespaces";
        let (created_at, updated_at) = times(&row, TABLE)?;
        let namespace = Namespace {
            name: row.text(TABLE, "namespace")?,
            display_name: row.opt_text(TABLE, "display_name")?,
            description: row.opt_text(TABLE, "description")?,
            // As Glance shows one that was loaded without.
            visibility: match row.opt_text(TABLE, "visibility")? {
                None => Visibility::Private,
                Some(_) => row.parse(TABLE, "visibility")?,
            },
            protected: row.opt_int(TABLE, "protected")? == Some(1),
            owner: row.opt_text(TABLE, "owner")?,
            created_at,
            updated_at,
        };
        all.push((namespace, contents(tx, row.int(TABLE, "id")?).await?));
    }
    Ok(all)
}

async fn contents(tx: &mut Tx, namespace: i64) -> Result<Contents> {
    let of = |columns: &str, table: &str| {
        format!("SELECT {columns}, {TIMES} FROM {table} WHERE namespace_id = ? ORDER BY name")
    };
    let mut contents = Contents {
        associations: Vec::new(),
        properties: Vec::new(),
        objects: Vec::new(),
        tags: Vec::new(),
    };
    let sql = of("name, json_schema", "metadef_properties");
    for row in tx.all(sql, args![namespace]).await? {
        let name = row.text("metadef_properties", "name")?;
        let schema = json(&row, "metadef_properties")?;
        contents
            .properties
            .push(property(&row, "metadef_properties", name, schema)?);
    }
    let sql = of(
        "name, description, required, json_schema",
        "metadef_objects",
    );
    for row in tx.all(sql, args![namespace]).await? {
        const TABLE: &str = "metadef_objects";
        let (created_at, updated_at) = times(&row, TABLE)?;
        let Value::Object(schemas) = json(&row, TABLE)? else {
            return Err(row.corrupt(TABLE, "json_schema"));
        };
        let properties = schemas
            .into_iter()
            .map(|(name, schema)| property(&row, TABLE, name, schema));
        let required = row.opt_text(TABLE, "required")?.unwrap_or_default();
        contents.objects.push(Object {
            name: row.text(TABLE, "name")?,
            description: row.opt_text(TABLE, "description")?,
            required: required
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            properties: properties.collect::<Result<_>>()?,
            created_at,
            updated_at,
        });
    }
    for row in tx.all(of("name", "metadef_tags"), args![namespace]).await? {
        let (created_at, updated_at) = times(&row, "metadef_tags")?;
        contents.tags.push(Tag {
            name: row.text("metadef_tags", "name")?,
            created_at,
            updated_at,
        });
    }
    let sql = "SELECT t.name, a.prefix, a.properties_target, \
               CAST(a.created_at AS CHAR) AS created_at, CAST(a.updated_at AS CHAR) AS updated_at \
               FROM metadef_namespace_resource_types a \
               JOIN metadef_resource_types t ON t.id = a.resource_type_id \
               WHERE a.namespace_id = ? ORDER BY t.name";
    for row in tx.all(sql, args![namespace]).await? {
        const TABLE: &str = "metadef_namespace_resource_types";
        let (created_at, updated_at) = times(&row, TABLE)?;
        contents.associations.push(Association {
            resource_type: row.text(TABLE, "name")?,
            prefix: row.opt_text(TABLE, "prefix")?,
            properties_target: row.opt_text(TABLE, "properties_target")?,
            created_at,
            updated_at,
        });
    }
    Ok(contents)
}

fn property(row: &Row, table: &'static str, name: String, schema: Value) -> Result<Property> {
    let Value::Object(keywords) = schema else {
        return Err(row.corrupt(table, "json_schema"));
    };
    Property::new(name, keywords).map_err(|_| row.corrupt(table, "json_schema"))
}

fn json(row: &Row, table: &'static str) -> Result<Value> {
    serde_json::from_str(&row.text(table, "json_schema")?)
        .map_err(|_| row.corrupt(table, "json_schema"))
}

fn times(
    row: &Row,
    table: &'static str,
) -> Result<(crate::domain::Timestamp, crate::domain::Timestamp)> {
    let created_at =
        time(row, table, "created_at")?.ok_or_else(|| row.corrupt(table, "created_at"))?;
    Ok((
        created_at,
        time(row, table, "updated_at")?.unwrap_or(created_at),
    ))
}
