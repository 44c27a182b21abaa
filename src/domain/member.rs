//! Members: projects that a shared image is shared with.

use std::str::FromStr;

use super::Timestamp;

/// What a project says to being a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberStatus {
    /// Nothing yet: it sees the image, its lists do not show it.
    Pending,
    /// Its lists show the image.
    Accepted,
    /// As pending, but on purpose.
    Rejected,
}

impl MemberStatus {
    /// The name on the wire and in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

impl FromStr for MemberStatus {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "pending" => Ok(Self::Pending),
            "accepted" => Ok(Self::Accepted),
            "rejected" => Ok(Self::Rejected),
            _ => Err(()),
        }
    }
}

/// A project that an image is shared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The project.
    pub project: String,
    /// What it says to it.
    pub status: MemberStatus,
    /// When it was added.
    pub created_at: Timestamp,
    /// When its status changed last.
    pub updated_at: Timestamp,
}
