//! Images that belong to one appliance: they say so in a property.

use super::conn::args;
use super::images::{load, selected};
use super::{Result, Tx};
use crate::appliance::APPLIANCE;
use crate::domain::{Image, ImageId};

/// The images that say they belong to the appliance whose first image is `first`, itself among
/// them. Whether that image knows of them is the caller's to ask.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn images_of(tx: &mut Tx, first: &ImageId) -> Result<Vec<Image>> {
    let columns = selected(tx);
    let sql = format!(
        "SELECT {columns} FROM images WHERE deleted_at IS NULL AND id IN \
         (SELECT image_id FROM image_properties WHERE name = ? AND value = ?) ORDER BY id"
    );
    let rows = tx.all(sql, args![APPLIANCE, first.as_str()]).await?;
    load(tx, rows).await
}
