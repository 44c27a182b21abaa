//! The tables of another service: a Glance database, read to move from it. Its rows are suspected
//! like ours, its times and flags are cast to what all databases share.

pub mod metadefs;

use std::collections::{BTreeMap, HashMap};

use super::conn::{Arg, Row, args, marks};
use super::{Catalog, Error, Result, Tx};
use crate::domain::{Hashes, Image, ImageId, MemberStatus, Status, Timestamp, Visibility};

const TABLE: &str = "images";

/// One of its images.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// The image as we keep it, without locations. Queued unless its data is there.
    pub image: Image,
    /// The status it had, in Glance's words.
    pub status: String,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// URLs of its data, in Glance's order.
    pub urls: Vec<String>,
    /// Projects it is shared with.
    pub members: Vec<(String, MemberStatus)>,
}

/// A Glance database.
pub struct Glance(Catalog);

impl Glance {
    /// Opens it, for reading alone: `sqlite:…`, `mysql://…` or `mysql+pymysql://…` as in Glance's
    /// own configuration.
    ///
    /// # Errors
    /// When it cannot be opened; `NotGlance` when it is none.
    pub async fn open(url: &str) -> Result<Self> {
        let glance = Self(Catalog::open_foreign(url).await?);
        let mut tx = glance.read().await?;
        match images(&mut tx, "", 1).await {
            Err(Error::Sql(e)) => Err(Error::NotGlance(e)),
            Err(Error::Corrupt { .. }) | Ok(_) => Ok(glance),
            Err(e) => Err(e),
        }
    }

    /// A view of one moment, for all that follows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read(&self) -> Result<Tx> {
        self.0.read().await
    }
}

/// At most `limit` images, deleted ones among them, with ids after `after`.
///
/// # Errors
/// `Sql` when this is no Glance database, `Corrupt` for a row that cannot be.
pub async fn images(tx: &mut Tx, after: &str, limit: u32) -> Result<Vec<Found>> {
    let rows = tx
        .all(
            "SELECT id, name, size, status, CAST(created_at AS CHAR) AS created_at, \
             CAST(updated_at AS CHAR) AS updated_at, CAST(deleted_at AS CHAR) AS deleted_at, \
             CAST(deleted AS SIGNED) AS deleted, disk_format, container_format, checksum, owner, \
             CAST(min_disk AS SIGNED) AS min_disk, CAST(min_ram AS SIGNED) AS min_ram, \
             CAST(protected AS SIGNED) AS protected, virtual_size, visibility, \
             CAST(os_hidden AS SIGNED) AS os_hidden, os_hash_algo, os_hash_value \
             FROM images WHERE id > ? ORDER BY id LIMIT ?",
            args![after, i64::from(limit)],
        )
        .await?;
    let mut found = rows.iter().map(from_row).collect::<Result<Vec<_>>>()?;
    let at: HashMap<String, usize> = found
        .iter()
        .enumerate()
        .filter(|(_, f)| f.deleted_at.is_none())
        .map(|(n, f)| (f.image.id.to_string(), n))
        .collect();
    if !at.is_empty() {
        parts(tx, &mut found, &at).await?;
    }
    Ok(found)
}

async fn parts(tx: &mut Tx, found: &mut [Found], at: &HashMap<String, usize>) -> Result<()> {
    let ids: Vec<Arg> = at.keys().map(|id| id.as_str().into()).collect();
    let within = marks(ids.len());
    let of = |columns: &str, table: &str| {
        format!(
            "SELECT image_id, {columns} FROM {table} WHERE deleted = 0 AND image_id IN ({within}) \
             ORDER BY id"
        )
    };
    for row in tx
        .all(of("name, value", "image_properties"), ids.clone())
        .await?
    {
        let n = at[&row.text("image_properties", "image_id")?];
        let value = row
            .opt_text("image_properties", "value")?
            .unwrap_or_default();
        let properties = &mut found[n].image.properties;
        properties.insert(row.text("image_properties", "name")?, value);
    }
    for row in tx.all(of("value", "image_tags"), ids.clone()).await? {
        let n = at[&row.text("image_tags", "image_id")?];
        found[n].image.tags.push(row.text("image_tags", "value")?);
    }
    let locations =
        of("value", "image_locations").replace("deleted = 0", "deleted = 0 AND status = 'active'");
    for row in tx.all(locations, ids).await? {
        let n = at[&row.text("image_locations", "image_id")?];
        found[n].urls.push(row.text("image_locations", "value")?);
    }
    for f in found {
        f.image.tags.sort();
        f.image.tags.dedup();
    }
    Ok(())
}

fn from_row(row: &Row) -> Result<Found> {
    let id: ImageId = row.parse(TABLE, "id")?;
    let created_at =
        time(row, TABLE, "created_at")?.ok_or_else(|| row.corrupt(TABLE, "created_at"))?;
    let updated_at = time(row, TABLE, "updated_at")?.unwrap_or(created_at);
    let status = row.text(TABLE, "status")?;
    let is_deleted =
        row.int(TABLE, "deleted")? != 0 || matches!(status.as_str(), "deleted" | "pending_delete");
    let deleted_at = is_deleted.then_some(time(row, TABLE, "deleted_at")?.unwrap_or(updated_at));
    let checksum = row.opt_text(TABLE, "checksum")?;
    let multihash = row
        .opt_text(TABLE, "os_hash_algo")?
        .zip(row.opt_text(TABLE, "os_hash_value")?);
    let hashes = match (checksum, multihash) {
        // Glance before multihash kept MD5 alone.
        (Some(md5), None) => Some(Hashes {
            checksum: Some(md5.clone()),
            algo: "md5".into(),
            value: md5,
        }),
        (checksum, multihash) => multihash.map(|(algo, value)| Hashes {
            checksum,
            algo,
            value,
        }),
    };
    Ok(Found {
        image: Image {
            id,
            name: row.opt_text(TABLE, "name")?,
            status: Status::Queued,
            visibility: row.parse::<Visibility>(TABLE, "visibility")?,
            protected: row.int(TABLE, "protected")? != 0,
            hidden: row.int(TABLE, "os_hidden")? != 0,
            owner: row.opt_text(TABLE, "owner")?,
            container_format: row.opt_text(TABLE, "container_format")?,
            disk_format: row.opt_text(TABLE, "disk_format")?,
            min_ram: row.int(TABLE, "min_ram")?,
            min_disk: row.int(TABLE, "min_disk")?,
            size: row.opt_size(TABLE, "size")?,
            virtual_size: row.opt_size(TABLE, "virtual_size")?,
            hashes,
            tags: Vec::new(),
            properties: BTreeMap::new(),
            locations: Vec::new(),
            created_at,
            updated_at,
        },
        status,
        deleted_at,
        urls: Vec::new(),
        members: Vec::new(),
    })
}

/// A time as both databases write it when asked for text: `2026-01-01 00:00:00`, perhaps with a
/// fraction, in UTC.
fn time(row: &Row, table: &'static str, column: &'static str) -> Result<Option<Timestamp>> {
    row.opt_text(table, column)?
        .map(|text| {
            let iso = text.replacen(' ', "T", 1);
            Timestamp::parse(&iso).ok_or_else(|| row.corrupt(table, column))
        })
        .transpose()
}
