//! Locations.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::domain::Location;

/// A location, its store told among its metadata.
#[derive(Serialize)]
pub(in crate::api) struct LocationView<'a> {
    url: &'a str,
    metadata: Metadata<'a>,
}

struct Metadata<'a> {
    noted: &'a Map<String, Value>,
    store: &'a str,
}

impl<'a> From<&'a Location> for LocationView<'a> {
    fn from(location: &'a Location) -> Self {
        Self {
            url: &location.url,
            metadata: Metadata {
                noted: &location.metadata,
                store: &location.store,
            },
        }
    }
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.noted.iter().filter(|(name, _)| *name != "store") {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("store", self.store)?;
        map.end()
    }
}
