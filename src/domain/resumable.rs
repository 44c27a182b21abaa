//! Uploads that go on where they were broken off.

use super::{Expected, ImageId, Timestamp};

/// An upload of an image's data in several requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resumable {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The image whose data it is.
    pub image: ImageId,
    /// The image's owner, whose quota it counts against.
    pub owner: Option<String>,
    /// The process that has the bytes; `None` where there is one only.
    pub host: Option<String>,
    /// The store that the data goes to.
    pub store: String,
    /// What it is of.
    pub part: Part,
    /// Bytes it will have.
    pub size: u64,
    /// Bytes that are durable.
    pub received: u64,
    /// Whether the image has the data.
    pub done: bool,
    /// What the client says of it, as it came.
    pub metadata: String,
    /// The digest it must have.
    pub expected: Option<Expected>,
    /// The uploads that a joined one is put together from, in this order.
    pub parts: Vec<String>,
    /// When it is forgotten, unless somebody goes on.
    pub expires_at: Timestamp,
}

impl Resumable {
    /// Whether all bytes are here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.received == self.size
    }
}

/// What an upload is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of an image's data.
    Whole,
    /// A part of it, to be put together with others.
    Part,
    /// All of it, put together from parts.
    Joined,
}

impl Part {
    /// The name in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
            Self::Joined => "joined",
        }
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Whole, Self::Part, Self::Joined]
            .into_iter()
            .find(|part| part.name() == name)
            .ok_or_else(|| format!("{name:?} is no part of an upload"))
    }
}
