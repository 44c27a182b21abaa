//! Tags, properties and active locations of images. What their rows say comes as JSON, a list of lists:
//! one shape for three tables.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use super::conn::{Row, marks};
use super::locations::metadata;
use super::{Error, Result, Tx};
use crate::domain::{Image, Location};

const TAGS: &str = "image_tags";
const PROPERTIES: &str = "image_properties";
const LOCATIONS: &str = "image_locations";

/// The tables, what is read of them, and of which of their rows.
const PARTS: [(&str, &str, &str); 3] = [
    (TAGS, "tag", ""),
    (PROPERTIES, "name, value", ""),
    (
        LOCATIONS,
        "created_at, id, store, url, metadata",
        " AND state = 'active'",
    ),
];

/// A row of `image_locations`.
type LocationRow = (i64, String, String, String, Option<String>);

/// What to select of images besides their columns, for [`add`].
pub(super) fn selected(tx: &Tx) -> String {
    if !tx.aggregates_json() {
        return String::new();
    }
    let selects = PARTS.map(|(table, columns, which)| {
        let all = tx.json(columns);
        format!(", (SELECT {all} FROM {table} WHERE image_id = images.id{which}) AS {table}")
    });
    selects.concat()
}

/// Gives `images`, which come from `rows`, their parts.
pub(super) async fn add(tx: &mut Tx, rows: &[Row], images: &mut [Image]) -> Result<()> {
    let mut locations: Vec<Vec<LocationRow>> = vec![Vec::new(); images.len()];
    let mut put = |n: usize, table: &'static str, text: &str| -> Result<()> {
        let image: &mut Image = &mut images[n];
        match table {
            TAGS => {
                let tags: Vec<(String,)> = parsed(table, text, image)?;
                image.tags.extend(tags.into_iter().map(|(tag,)| tag));
            }
            PROPERTIES => {
                let properties: Vec<(String, String)> = parsed(table, text, image)?;
                image.properties.extend(properties);
            }
            _ => locations[n].extend(parsed::<LocationRow>(table, text, image)?),
        }
        Ok(())
    };
    if tx.aggregates_json() {
        for (n, row) in rows.iter().enumerate() {
            for (table, ..) in PARTS {
                put(n, table, &row.text("images", table)?)?;
            }
        }
    } else {
        for (n, table, text) in fetch(tx, rows).await? {
            put(n, table, &text)?;
        }
    }
    for (image, mut locations) in images.iter_mut().zip(locations) {
        image.tags.sort_unstable();
        // The oldest first.
        locations.sort_unstable();
        for (_, id, store, url, text) in locations {
            let metadata = metadata(text).map_err(|()| corrupt(LOCATIONS, image))?;
            image.locations.push(Location {
                id,
                store,
                url,
                metadata,
            });
        }
    }
    Ok(())
}

/// The parts by a statement of their own, a row each: which of `rows` it belongs to, the table, and
/// a list of one.
async fn fetch(tx: &mut Tx, rows: &[Row]) -> Result<Vec<(usize, &'static str, String)>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut at = HashMap::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        at.insert(row.text("images", "id")?, n);
    }
    let within = marks(at.len());
    let selects = PARTS.map(|(table, columns, which)| {
        let part = tx.json(columns);
        format!(
            "SELECT image_id, '{table}' AS kind, {part} AS part FROM {table} \
             WHERE image_id IN ({within}){which}"
        )
    });
    let ids: Vec<_> = at.keys().map(|id| id.as_str().into()).collect();
    let ids = vec![ids; PARTS.len()].concat();
    let found = tx.all(selects.join(" UNION ALL "), ids).await?;
    let parts = found.iter().map(|row| {
        let kind = row.text("images", "kind")?;
        let table = PARTS.iter().find(|(table, ..)| *table == kind);
        let n = at.get(&row.text("images", "image_id")?);
        let (Some((table, ..)), Some(n)) = (table, n) else {
            return Err(row.corrupt("images", "kind"));
        };
        Ok((*n, *table, row.text("images", "part")?))
    });
    parts.collect()
}

fn parsed<T: DeserializeOwned>(table: &'static str, text: &str, image: &Image) -> Result<Vec<T>> {
    serde_json::from_str(text).map_err(|_| corrupt(table, image))
}

fn corrupt(table: &'static str, image: &Image) -> Error {
    Error::Corrupt {
        table,
        column: "image_id",
        id: image.id.to_string(),
    }
}
