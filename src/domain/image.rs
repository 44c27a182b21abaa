//! The catalog's entity.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{Hashes, Location, Status, Timestamp};

/// A canonical lower-case UUID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ImageId(String);

impl ImageId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string())
    }

    /// The id that is made of these bytes, which chance has made.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Self(id.hyphenated().to_string())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no canonical UUID (8-4-4-4-12 hexadecimal digits).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAnId;

impl FromStr for ImageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let groups: Vec<_> = text.split('-').collect();
        let fits = groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12])
            && groups
                .iter()
                .all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()));
        if fits {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NotAnId)
        }
    }
}

/// Who may see an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// Everyone, in every list.
    Public,
    /// Its owner.
    Private,
    /// Its owner and the members it is shared with.
    Shared,
    /// Everyone who knows its id.
    Community,
}

impl Visibility {
    /// The name on the wire and in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Community => "community",
        }
    }
}

impl FromStr for Visibility {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "public" => Ok(Self::Public),
            "private" => Ok(Self::Private),
            "shared" => Ok(Self::Shared),
            "community" => Ok(Self::Community),
            _ => Err(()),
        }
    }
}

/// An image: a record, and once it is active the bytes that its locations hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// Its id, for ever.
    pub id: ImageId,
    /// A name for people.
    pub name: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether deleting it is refused.
    pub protected: bool,
    /// Whether default lists leave it out (`os_hidden`).
    pub hidden: bool,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// Glance's container format.
    pub container_format: Option<String>,
    /// Glance's disk format.
    pub disk_format: Option<String>,
    /// Memory a guest needs at least, in MiB.
    pub min_ram: i64,
    /// Disk a guest needs at least, in GiB.
    pub min_disk: i64,
    /// Stored bytes.
    pub size: Option<u64>,
    /// Bytes the guest sees.
    pub virtual_size: Option<u64>,
    /// Digests of the stored bytes.
    pub hashes: Option<Hashes>,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Custom properties, `os_glance_*` among them.
    pub properties: BTreeMap<String, String>,
    /// Active locations, in the order they were made.
    pub locations: Vec<Location>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When anything about it changed last.
    pub updated_at: Timestamp,
}

/// Formats of an image that must be set before it has data, by their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatsUnset(Vec<&'static str>);

impl fmt::Display for FormatsUnset {
    /// In Glance's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = match self.0.as_slice() {
            [_] => "Property",
            _ => "Properties",
        };
        let names = self.0.join(", ");
        write!(f, "{noun} {names} must be set prior to saving data.")
    }
}

impl std::error::Error for FormatsUnset {}

impl Image {
    /// Whether the image says what its data will be.
    ///
    /// # Errors
    /// What it does not say.
    pub fn has_formats(&self) -> Result<(), FormatsUnset> {
        let formats = [
            ("disk_format", &self.disk_format),
            ("container_format", &self.container_format),
        ];
        let unset = formats.into_iter().filter(|(_, set)| set.is_none());
        let unset: Vec<_> = unset.map(|(name, _)| name).collect();
        match unset.is_empty() {
            true => Ok(()),
            false => Err(FormatsUnset(unset)),
        }
    }

    /// A queued image without data.
    #[must_use]
    pub fn new(id: ImageId, owner: Option<String>, now: Timestamp) -> Self {
        Self {
            id,
            name: None,
            status: Status::Queued,
            visibility: Visibility::Shared,
            protected: false,
            hidden: false,
            owner,
            container_format: None,
            disk_format: None,
            min_ram: 0,
            min_disk: 0,
            size: None,
            virtual_size: None,
            hashes: None,
            tags: Vec::new(),
            properties: BTreeMap::new(),
            locations: Vec::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// Clears everything that was derived from data, as on the way back to queued.
    pub fn forget_data(&mut self) {
        self.size = None;
        self.virtual_size = None;
        self.hashes = None;
        self.locations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_canonical() {
        let upper = "AAAAAAAA-0000-4000-8000-000000000001";
        assert_eq!(
            upper.parse::<ImageId>().unwrap().as_str(),
            upper.to_ascii_lowercase()
        );
        for bad in [
            "",
            "abc",
            "aaaaaaaa00004000800000000000000001",
            "{aaaaaaaa-0000-4000-8000-000000000001}",
        ] {
            assert_eq!(bad.parse::<ImageId>(), Err(NotAnId), "{bad}");
        }
    }
}
