//! Where an image's bytes lie.

use std::str::FromStr;

use serde_json::{Map, Value};

/// A copy of an image's bytes in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Its own id.
    pub id: String,
    /// The store that holds it.
    pub store: String,
    /// The store's URL of it. Never shown unless configured.
    pub url: String,
    /// What a client noted beside it.
    pub metadata: Map<String, Value>,
}

impl Location {
    /// A new location.
    #[must_use]
    pub fn new(store: &str, url: &str, metadata: Map<String, Value>) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            store: store.to_owned(),
            url: url.to_owned(),
            metadata,
        }
    }
}

/// Whether a location's bytes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocationState {
    /// Intent: bytes may be on their way. Swept when its lease dies.
    Pending,
    /// The bytes are the image's.
    Active,
    /// To be removed from the store, then forgotten.
    Doomed,
}

impl LocationState {
    /// The name in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Doomed => "doomed",
        }
    }
}

impl FromStr for LocationState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "pending" => Ok(Self::Pending),
            "active" => Ok(Self::Active),
            "doomed" => Ok(Self::Doomed),
            _ => Err(()),
        }
    }
}
