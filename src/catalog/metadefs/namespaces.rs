//! Namespaces.

use super::page::Page;
use crate::catalog::conn::{Arg, Row, args, marks};
use crate::catalog::{Direction, Error, Result, Tx, Viewer};
use crate::domain::metadef::Namespace;
use crate::domain::{Timestamp, Visibility};

const TABLE: &str = "metadef_namespaces";
const COLUMNS: &str = "id, name, display_name, description, visibility, protected, owner, \
     created_at, updated_at";

/// The number of a namespace's row: a name may change, this does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceId(pub(super) i64);

/// A namespace and its row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its row.
    pub id: NamespaceId,
    /// What is in it.
    pub namespace: Namespace,
}

/// What namespaces can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamespaceKey {
    /// `namespace`
    Name,
    /// `display_name`
    DisplayName,
    /// `description`
    Description,
    /// `visibility`
    Visibility,
    /// `protected`
    Protected,
    /// `owner`
    Owner,
    /// `created_at`
    CreatedAt,
    /// `updated_at`
    UpdatedAt,
}

/// A page of namespaces.
#[derive(Clone, Debug)]
pub struct NamespaceQuery {
    /// Who looks: what is public, or their own.
    pub viewer: Viewer,
    /// Only of this visibility.
    pub visibility: Option<Visibility>,
    /// Only for one of these resource types; empty: for any, or none.
    pub resource_types: Vec<String>,
    /// The order.
    pub sort: (NamespaceKey, Direction),
    /// The last namespace of the page before.
    pub after: Option<Found>,
    /// Namespaces on the page at most.
    pub limit: u32,
}

/// The namespace of this name.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, name: &str) -> Result<Option<Found>> {
    let sql = format!("SELECT {COLUMNS} FROM metadef_namespaces WHERE name = ?");
    tx.first(sql, args![name])
        .await?
        .map(|r| from_row(&r))
        .transpose()
}

/// A page of namespaces.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, query: &NamespaceQuery) -> Result<Vec<Found>> {
    let page = Page {
        key: query.sort.0.column(),
        direction: query.sort.1,
        after: query
            .after
            .as_ref()
            .map(|last| (query.sort.0.value(&last.namespace), last.id.0)),
    };
    let (condition, mut args) = page.condition();
    let mut conditions = vec![condition];
    if !query.viewer.is_admin {
        conditions.push("(visibility = 'public' OR owner IS NULL OR owner = ?)".into());
        args.extend(args![query.viewer.project.clone()]);
    }
    if let Some(visibility) = query.visibility {
        conditions.push("visibility = ?".into());
        args.extend(args![visibility.name()]);
    }
    if !query.resource_types.is_empty() {
        conditions.push(format!(
            "id IN (SELECT a.namespace_id FROM metadef_associations a \
             JOIN metadef_resource_types t ON t.id = a.resource_type_id WHERE t.name IN ({}))",
            marks(query.resource_types.len())
        ));
        args.extend(query.resource_types.iter().map(|t| Arg::from(t.as_str())));
    }
    args.push(i64::from(query.limit).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM metadef_namespaces WHERE {} {} LIMIT ?",
        conditions.join(" AND "),
        page.order()
    );
    tx.all(sql, args).await?.iter().map(from_row).collect()
}

/// All namespaces by name, for export and unloading.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn all(tx: &mut Tx) -> Result<Vec<Found>> {
    let sql = format!("SELECT {COLUMNS} FROM metadef_namespaces ORDER BY name");
    tx.all(sql, args![]).await?.iter().map(from_row).collect()
}

/// Adds a namespace, empty.
///
/// # Errors
/// `Conflict` when there is one of this name.
pub async fn insert(tx: &mut Tx, namespace: &Namespace) -> Result<NamespaceId> {
    let mut args = facts(namespace);
    args.extend(args![namespace.created_at.0, namespace.updated_at.0]);
    tx.run(
        "INSERT INTO metadef_namespaces (name, display_name, description, visibility, protected, \
         owner, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        args,
    )
    .await?;
    let found = find(tx, &namespace.name).await?;
    found.map(|f| f.id).ok_or_else(|| gone(&namespace.name))
}

/// Writes what may change about a namespace, its name among it.
///
/// # Errors
/// `Conflict` when there is another one of its name.
pub async fn update(tx: &mut Tx, id: NamespaceId, namespace: &Namespace) -> Result<()> {
    let mut args = facts(namespace);
    args.extend(args![namespace.updated_at.0, id.0]);
    let changed = tx
        .run(
            "UPDATE metadef_namespaces SET name = ?, display_name = ?, description = ?, \
             visibility = ?, protected = ?, owner = ?, updated_at = ? WHERE id = ?",
            args,
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(gone(&namespace.name))
    }
}

/// Removes a namespace and all in it.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, id: NamespaceId) -> Result<()> {
    for table in [
        "metadef_associations",
        "metadef_properties",
        "metadef_objects",
        "metadef_tags",
    ] {
        tx.run(
            format!("DELETE FROM {table} WHERE namespace_id = ?"),
            args![id.0],
        )
        .await?;
    }
    tx.run("DELETE FROM metadef_namespaces WHERE id = ?", args![id.0])
        .await?;
    Ok(())
}

fn gone(name: &str) -> Error {
    Error::Conflict(format!("namespace {name}"))
}

impl NamespaceKey {
    const fn column(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::DisplayName => "COALESCE(display_name, '')",
            Self::Description => "COALESCE(description, '')",
            Self::Visibility => "visibility",
            Self::Protected => "protected",
            Self::Owner => "COALESCE(owner, '')",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
        }
    }

    fn value(self, namespace: &Namespace) -> Arg {
        let text = |text: &Option<String>| Arg::from(text.clone().unwrap_or_default());
        match self {
            Self::Name => namespace.name.as_str().into(),
            Self::DisplayName => text(&namespace.display_name),
            Self::Description => text(&namespace.description),
            Self::Visibility => namespace.visibility.name().into(),
            Self::Protected => namespace.protected.into(),
            Self::Owner => text(&namespace.owner),
            Self::CreatedAt => namespace.created_at.0.into(),
            Self::UpdatedAt => namespace.updated_at.0.into(),
        }
    }
}

fn facts(namespace: &Namespace) -> Vec<Arg> {
    args![
        namespace.name.as_str(),
        namespace.display_name.clone(),
        namespace.description.clone(),
        namespace.visibility.name(),
        namespace.protected,
        namespace.owner.clone(),
    ]
}

fn from_row(row: &Row) -> Result<Found> {
    Ok(Found {
        id: NamespaceId(row.int(TABLE, "id")?),
        namespace: Namespace {
            name: row.text(TABLE, "name")?,
            display_name: row.opt_text(TABLE, "display_name")?,
            description: row.opt_text(TABLE, "description")?,
            visibility: row.parse(TABLE, "visibility")?,
            protected: row.int(TABLE, "protected")? != 0,
            owner: row.opt_text(TABLE, "owner")?,
            created_at: Timestamp(row.int(TABLE, "created_at")?),
            updated_at: Timestamp(row.int(TABLE, "updated_at")?),
        },
    })
}
