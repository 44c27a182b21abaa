//! Members of shared images.

use super::conn::{Row, args};
use super::{Error, Result, Tx, outbox};
use crate::domain::{ImageId, Member, MemberStatus, Timestamp};
use crate::notify::payload;

const TABLE: &str = "image_members";
const COLUMNS: &str = "member AS id, status, created_at, updated_at";

/// Shares an image with a project; the member is pending.
///
/// # Errors
/// `Conflict` when it is a member already.
pub async fn insert(tx: &mut Tx, image: &ImageId, project: &str, now: Timestamp) -> Result<Member> {
    tx.run(
        "INSERT INTO image_members (image_id, member, status, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?)",
        args![
            image.as_str(),
            project,
            MemberStatus::Pending.name(),
            now.0,
            now.0
        ],
    )
    .await?;
    let member = Member {
        project: project.to_owned(),
        status: MemberStatus::Pending,
        created_at: now,
        updated_at: now,
    };
    let told = || payload::member(image, &member);
    outbox::note(tx, "image.member.create", told).await?;
    Ok(member)
}

/// A project's membership of an image.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, image: &ImageId, project: &str) -> Result<Option<Member>> {
    let row = tx
        .first(
            format!("SELECT {COLUMNS} FROM image_members WHERE image_id = ? AND member = ?"),
            args![image.as_str(), project],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// All members of an image, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, image: &ImageId) -> Result<Vec<Member>> {
    tx.all(
        format!(
            "SELECT {COLUMNS} FROM image_members WHERE image_id = ? ORDER BY created_at, member"
        ),
        args![image.as_str()],
    )
    .await?
    .iter()
    .map(from_row)
    .collect()
}

/// Notes what a member says.
///
/// # Errors
/// `Conflict` when it is no longer a member.
pub async fn set_status(
    tx: &mut Tx,
    image: &ImageId,
    project: &str,
    status: MemberStatus,
    now: Timestamp,
) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE image_members SET status = ?, updated_at = ? \
             WHERE image_id = ? AND member = ?",
            args![status.name(), now.0, image.as_str(), project],
        )
        .await?;
    if changed != 1 {
        return Err(Error::Conflict(format!("member {project}")));
    }
    if let Some(member) = find(tx, image, project).await? {
        let told = || payload::member(image, &member);
        outbox::note(tx, "image.member.update", told).await?;
    }
    Ok(())
}

/// Ends a membership; answers whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, image: &ImageId, project: &str) -> Result<bool> {
    let Some(member) = find(tx, image, project).await? else {
        return Ok(false);
    };
    let changed = tx
        .run(
            "DELETE FROM image_members WHERE image_id = ? AND member = ?",
            args![image.as_str(), project],
        )
        .await?;
    if changed != 1 {
        return Ok(false);
    }
    let told = || payload::deleted(payload::member(image, &member), Timestamp::now());
    outbox::note(tx, "image.member.delete", told).await?;
    Ok(true)
}

fn from_row(row: &Row) -> Result<Member> {
    Ok(Member {
        project: row.text(TABLE, "id")?,
        status: row.parse(TABLE, "status")?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}
