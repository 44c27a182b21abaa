//! Forgetting deleted images, all but their ids: an id that was ever in use is never given out
//! again, or whoever still trusts it would run somebody else's image (OSSN-0075).

use super::conn::{args, marks};
use super::{Result, Tx};
use crate::domain::Timestamp;

/// The status of a row of which only the id is left.
const PURGED: &str = "purged";

/// Tables of what belongs to an image and goes with it.
const CHILDREN: [&str; 3] = ["image_tags", "image_properties", "image_members"];

/// Blanks at most `limit` images that were deleted before `before`; answers how many. An image whose
/// bytes still wait to be removed is left for later: its locations name them.
///
/// # Errors
/// When the database fails.
pub async fn deleted_images(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<u64> {
    let sql = format!(
        "SELECT id FROM images WHERE deleted_at < ? AND status <> ? AND NOT EXISTS \
         (SELECT 1 FROM image_locations WHERE image_id = images.id) \
         ORDER BY deleted_at, id LIMIT ?{}",
        tx.for_update()
    );
    let rows = tx
        .all(sql, args![before.0, PURGED, i64::from(limit)])
        .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(row.text("images", "id")?.into());
    }
    let within = marks(ids.len());
    for table in CHILDREN {
        let sql = format!("DELETE FROM {table} WHERE image_id IN ({within})");
        tx.run(sql, ids.clone()).await?;
    }
    let mut all = args![PURGED];
    all.append(&mut ids);
    tx.run(
        format!(
            "UPDATE images SET status = ?, name = NULL, owner = NULL, container_format = NULL, \
             disk_format = NULL, size = NULL, virtual_size = NULL, checksum = NULL, \
             hash_algo = NULL, hash_value = NULL WHERE id IN ({within})"
        ),
        all,
    )
    .await
}
