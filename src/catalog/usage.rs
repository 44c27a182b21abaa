//! What a project holds.

use super::conn::args;
use super::{Error, Result, Tx};

/// The property that names the stores an image is still being copied to.
const IMPORTING: &str = "os_glance_importing_to_stores";

/// What counts against a project's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes of its images, every location counted.
    pub stored: u64,
    /// Bytes that wait for an import, or are being copied.
    pub staged: u64,
    /// Its images.
    pub images: u64,
    /// Those that are being uploaded, imported or copied.
    pub uploading: u64,
}

/// What `project` holds now.
///
/// # Errors
/// When the database fails.
pub async fn of(tx: &mut Tx, project: &str) -> Result<Usage> {
    let stored = "SELECT TRIM(CAST(COALESCE(SUM(i.size), 0) AS CHAR(40))) AS n FROM images i \
         JOIN image_locations l ON l.image_id = i.id AND l.state = 'active' \
         WHERE i.owner = ? AND i.deleted_at IS NULL AND i.status <> 'killed'";
    let staged = "SELECT TRIM(CAST(COALESCE(SUM(s.size), 0) AS CHAR(40))) AS n FROM images i \
         JOIN staged s ON s.image_id = i.id WHERE i.owner = ? AND i.deleted_at IS NULL";
    let copying = format!(
        "SELECT TRIM(CAST(COALESCE(SUM(i.size), 0) AS CHAR(40))) AS n FROM images i \
         JOIN image_properties p ON p.image_id = i.id AND p.name = '{IMPORTING}' AND p.value <> '' \
         WHERE i.owner = ? AND i.deleted_at IS NULL AND i.status = 'active'"
    );
    let images = "SELECT TRIM(CAST(COUNT(*) AS CHAR(40))) AS n FROM images i \
         WHERE i.owner = ? AND i.deleted_at IS NULL";
    let uploading = format!(
        "SELECT TRIM(CAST(COUNT(*) AS CHAR(40))) AS n FROM images i \
         WHERE i.owner = ? AND i.deleted_at IS NULL AND \
         (i.status IN ('saving', 'uploading', 'importing') OR EXISTS (SELECT 1 \
          FROM image_properties p WHERE p.image_id = i.id AND p.name = '{IMPORTING}' \
          AND p.value <> ''))"
    );
    Ok(Usage {
        stored: number(tx, stored, project).await?,
        staged: number(tx, staged, project).await? + number(tx, &copying, project).await?,
        images: number(tx, images, project).await?,
        uploading: number(tx, &uploading, project).await?,
    })
}

/// A sum, which is another type of number in each database: it comes as text, which the trimming
/// makes of PostgreSQL's padded characters.
async fn number(tx: &mut Tx, sql: &str, project: &str) -> Result<u64> {
    let rows = tx.all(sql, args![project]).await?;
    let text = rows
        .first()
        .map(|row| row.text("images", "n"))
        .transpose()?;
    text.unwrap_or_else(|| "0".into())
        .parse()
        .map_err(|_| Error::Corrupt {
            table: "images",
            column: "size",
            id: format!("of project {project}"),
        })
}
