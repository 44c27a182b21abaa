//! Images, with their tags and properties. Locations are [written](super::locations) by a module of
//! their own.

use std::collections::{BTreeMap, HashSet};

use super::conn::{Arg, Row, args, marks, size_arg};
use super::parts;
use super::{Error, Result, Tx, outbox};
use crate::domain::{Hashes, Image, ImageId, Status, Timestamp};
use crate::notify::payload;

pub use super::list::list;

const TABLE: &str = "images";

/// Every column of an image that is not deleted.
const COLUMNS: &str = "id, name, status, visibility, protected, hidden, owner, \
     container_format, disk_format, min_ram, min_disk, size, virtual_size, checksum, hash_algo, \
     hash_value, created_at, updated_at";

/// The image with this id, unless it is deleted. A transaction that writes locks its row first
/// of all rows of the image, so that two which change the same image wait for each other and
/// neither undoes what the other did.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, id: &ImageId) -> Result<Option<Image>> {
    let (columns, lock) = (selected(tx), tx.for_update());
    let sql = format!("SELECT {columns} FROM images WHERE id = ? AND deleted_at IS NULL{lock}");
    let rows = tx.all(sql, args![id.as_str()]).await?;
    Ok(load(tx, rows).await?.pop())
}

/// Adds an image that has no data yet.
///
/// # Errors
/// `Conflict` when the id was ever in use.
pub async fn insert(tx: &mut Tx, image: &Image) -> Result<()> {
    let sql = format!("INSERT INTO images ({COLUMNS}) VALUES ({})", marks(18));
    let mut args = args![image.id.as_str()];
    args.extend(facts(image));
    args.extend(args![image.created_at.0, image.updated_at.0]);
    tx.run(sql, args)
        .await
        .map_err(|e| name_conflict(e, &image.id))?;
    insert_parts(tx, image).await?;
    outbox::note(tx, "image.create", || payload::image(image)).await
}

/// Writes the whole image, provided its status still is `expected` (compare and set).
///
/// # Errors
/// `Conflict` when it is not, or the image is gone.
pub async fn update(tx: &mut Tx, image: &Image, expected: Status) -> Result<()> {
    let mut args = facts(image);
    args.extend(args![
        image.updated_at.0,
        image.id.as_str(),
        expected.name()
    ]);
    let changed = tx
        .run(
            "UPDATE images SET name = ?, status = ?, visibility = ?, protected = ?, hidden = ?, \
             owner = ?, container_format = ?, disk_format = ?, min_ram = ?, min_disk = ?, \
             size = ?, virtual_size = ?, checksum = ?, hash_algo = ?, hash_value = ?, \
             updated_at = ? WHERE id = ? AND status = ? AND deleted_at IS NULL",
            args,
        )
        .await?;
    if changed != 1 {
        return Err(Error::Conflict(format!("image {}", image.id)));
    }
    for table in ["image_tags", "image_properties"] {
        tx.run(
            format!("DELETE FROM {table} WHERE image_id = ?"),
            args![image.id.as_str()],
        )
        .await?;
    }
    insert_parts(tx, image).await?;
    note_update(tx, image, expected).await
}

/// Tells others of a change, and of data that came with it.
async fn note_update(tx: &mut Tx, image: &Image, before: Status) -> Result<()> {
    outbox::note(tx, "image.update", || payload::image(image)).await?;
    if image.status != Status::Active {
        return Ok(());
    }
    if matches!(before, Status::Saving | Status::Importing) {
        let backend = image.locations.first().map(|l| l.store.as_str());
        let payload = || payload::image_data(image, backend);
        outbox::note(tx, "image.upload", payload).await?;
    }
    if !matches!(before, Status::Active | Status::Deactivated) {
        outbox::note(tx, "image.activate", || payload::image(image)).await?;
    }
    Ok(())
}

/// What may change about an image, in the order of [`COLUMNS`].
fn facts(image: &Image) -> Vec<Arg> {
    let hash = |field: fn(&Hashes) -> &String| image.hashes.as_ref().map(field).cloned();
    let checksum = image.hashes.as_ref().and_then(|h| h.checksum.clone());
    vec![
        image.name.clone().into(),
        image.status.name().into(),
        image.visibility.name().into(),
        image.protected.into(),
        image.hidden.into(),
        image.owner.clone().into(),
        image.container_format.clone().into(),
        image.disk_format.clone().into(),
        image.min_ram.into(),
        image.min_disk.into(),
        size_arg(image.size),
        size_arg(image.virtual_size),
        checksum.into(),
        hash(|h| &h.algo).into(),
        hash(|h| &h.value).into(),
    ]
}

/// Reads the image, lets `change` alter it, and writes it back, provided its status still is
/// `expected`: what others changed meanwhile stays changed.
///
/// # Errors
/// `Conflict` when the status is another, or the image is gone.
pub async fn change(
    tx: &mut Tx,
    id: &ImageId,
    expected: Status,
    change: impl FnOnce(&mut Image),
) -> Result<Image> {
    let found = find(tx, id).await?.filter(|image| image.status == expected);
    let mut image = found.ok_or_else(|| Error::Conflict(format!("image {id}")))?;
    change(&mut image);
    image.updated_at = Timestamp::now();
    update(tx, &image, expected).await?;
    Ok(image)
}

/// Marks an image deleted, or its deletion pending, provided its status still is what it was. Its
/// row stays, so that the id is never given out again; so does everything about it while the
/// deletion is pending.
///
/// # Errors
/// `Conflict` when the status is another, or the image is gone.
pub async fn delete(tx: &mut Tx, image: &Image, to: Status, now: Timestamp) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE images SET status = ?, updated_at = ?, deleted_at = ? \
             WHERE id = ? AND status = ? AND deleted_at IS NULL",
            args![
                to.name(),
                now.0,
                now.0,
                image.id.as_str(),
                image.status.name()
            ],
        )
        .await?;
    if changed != 1 {
        return Err(Error::Conflict(format!("image {}", image.id)));
    }
    let payload = || payload::deleted_image(image, to, now);
    outbox::note(tx, "image.delete", payload).await?;
    if to == Status::PendingDelete {
        return Ok(());
    }
    forget_parts(tx, &image.id).await
}

async fn forget_parts(tx: &mut Tx, id: &ImageId) -> Result<()> {
    for table in ["image_tags", "image_properties", "image_members"] {
        tx.run(
            format!("DELETE FROM {table} WHERE image_id = ?"),
            args![id.as_str()],
        )
        .await?;
    }
    Ok(())
}

/// Images deleted before `before` whose data still is there, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn to_scrub(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<Vec<ImageId>> {
    tx.all(
        "SELECT id FROM images WHERE status = ? AND deleted_at <= ? LIMIT ?",
        args![Status::PendingDelete.name(), before.0, i64::from(limit)],
    )
    .await?
    .iter()
    .map(|row| row.parse(TABLE, "id"))
    .collect()
}

/// Ends the pending deletion of an image: nothing of it is left but its id. Its locations are the
/// caller's to doom. Answers whether it was pending.
///
/// # Errors
/// When the database fails.
pub async fn scrub(tx: &mut Tx, id: &ImageId) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE images SET status = ? WHERE id = ? AND status = ?",
            args![
                Status::Deleted.name(),
                id.as_str(),
                Status::PendingDelete.name()
            ],
        )
        .await?;
    if changed == 1 {
        forget_parts(tx, id).await?;
    }
    Ok(changed == 1)
}

/// Takes a pending deletion back: the image is active again. Answers whether it was pending.
///
/// # Errors
/// When the database fails.
pub async fn restore(tx: &mut Tx, id: &ImageId, now: Timestamp) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE images SET status = ?, deleted_at = NULL, updated_at = ? \
             WHERE id = ? AND status = ?",
            args![
                Status::Active.name(),
                now.0,
                id.as_str(),
                Status::PendingDelete.name()
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Those of `ids` that are or were in use.
///
/// # Errors
/// When the database fails.
pub async fn taken(tx: &mut Tx, ids: &[ImageId]) -> Result<HashSet<ImageId>> {
    let sql = format!("SELECT id FROM images WHERE id IN ({})", marks(ids.len()));
    let args = ids.iter().map(|id| id.as_str().into()).collect();
    let rows = tx.all(sql, args).await?;
    rows.iter().map(|row| row.parse(TABLE, "id")).collect()
}

/// Ids of images with `status`, for sweeping.
///
/// # Errors
/// When the database fails.
pub async fn ids_with_status(tx: &mut Tx, status: Status) -> Result<Vec<ImageId>> {
    tx.all(
        "SELECT id FROM images WHERE status = ? AND deleted_at IS NULL",
        args![status.name()],
    )
    .await?
    .iter()
    .map(|row| row.parse(TABLE, "id"))
    .collect()
}

async fn insert_parts(tx: &mut Tx, image: &Image) -> Result<()> {
    let id = image.id.as_str();
    for tag in &image.tags {
        tx.run(
            "INSERT INTO image_tags (image_id, tag) VALUES (?, ?)",
            args![id, tag.as_str()],
        )
        .await?;
    }
    for (name, value) in &image.properties {
        tx.run(
            "INSERT INTO image_properties (image_id, name, value) VALUES (?, ?, ?)",
            args![id, name.as_str(), value.as_str()],
        )
        .await?;
    }
    Ok(())
}

/// What to select `FROM images` for [`load`].
pub(super) fn selected(tx: &Tx) -> String {
    let columns = COLUMNS.replace(", ", ", images.");
    format!("images.{columns}{}", parts::selected(tx))
}

/// Turns rows into images, with the parts of all of them.
pub(super) async fn load(tx: &mut Tx, rows: Vec<Row>) -> Result<Vec<Image>> {
    let mut images = rows.iter().map(from_row).collect::<Result<Vec<_>>>()?;
    parts::add(tx, &rows, &mut images).await?;
    Ok(images)
}

fn from_row(row: &Row) -> Result<Image> {
    let hashes = match (
        row.opt_text(TABLE, "checksum")?,
        row.opt_text(TABLE, "hash_algo")?,
        row.opt_text(TABLE, "hash_value")?,
    ) {
        (checksum, Some(algo), Some(value)) => Some(Hashes {
            checksum,
            algo,
            value,
        }),
        (None, None, None) => None,
        _ => return Err(row.corrupt(TABLE, "checksum")),
    };
    Ok(Image {
        id: row
            .parse(TABLE, "id")
            .map_err(|_| row.corrupt(TABLE, "id"))?,
        name: row.opt_text(TABLE, "name")?,
        status: row.parse(TABLE, "status")?,
        visibility: row.parse(TABLE, "visibility")?,
        protected: row.int(TABLE, "protected")? != 0,
        hidden: row.int(TABLE, "hidden")? != 0,
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
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}

fn name_conflict(error: Error, id: &ImageId) -> Error {
    match error {
        Error::Conflict(_) => Error::Conflict(format!("image {id}")),
        other => other,
    }
}
