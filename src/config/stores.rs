//! `[[stores]]`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::convert::Form;

/// A named place for blobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Its id, as clients name it.
    pub id: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: StoreKind,
    /// A sentence for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether uploads go here unless they say otherwise.
    #[serde(default, rename = "default")]
    pub is_default: bool,
    /// Whether nothing may be added.
    #[serde(default)]
    pub read_only: bool,
    /// Which copy is read first: the higher, the sooner.
    #[serde(default)]
    pub weight: i64,
    /// Where a file store keeps its files.
    #[serde(default)]
    pub path: PathBuf,
    /// The disk format in which imports are stored here; absent: what `[import]` says.
    #[serde(default)]
    pub output_format: Option<String>,
    /// Options of that format, as `glint convert -o` takes them.
    #[serde(default)]
    pub output_options: BTreeMap<String, String>,
    /// Whether what is converted is compressed, as by `glint convert -c`.
    #[serde(default)]
    pub compress: bool,
}

/// Kinds of store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A folder of a local or shared file system.
    File,
    /// Web servers, wherever clients say that an image is: never written to.
    Http,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Http => "http",
        })
    }
}

impl StoreConfig {
    /// A file store.
    #[must_use]
    pub fn file(id: &str, path: PathBuf) -> Self {
        Self {
            id: id.into(),
            kind: StoreKind::File,
            description: None,
            is_default: false,
            read_only: false,
            weight: 0,
            path,
            output_format: None,
            output_options: BTreeMap::new(),
            compress: false,
        }
    }

    /// The form in which imports are stored here, where this store has its own.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        Form::configured(
            self.output_format.as_ref(),
            &self.output_options,
            self.compress,
        )
    }

    /// A store of web servers.
    #[must_use]
    pub fn http(id: &str) -> Self {
        Self {
            kind: StoreKind::Http,
            read_only: true,
            ..Self::file(id, PathBuf::new())
        }
    }
}

pub(super) fn validate(stores: &[StoreConfig], faults: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for store in stores {
        if !seen.insert(&store.id) {
            faults.push(format!("stores: the id {:?} is used twice", store.id));
        }
        if store.id.is_empty() || store.id.starts_with("os_glance_") || store.id.contains(',') {
            faults.push(format!(
                "stores: the id {:?} is empty, holds a comma or begins with os_glance_",
                store.id
            ));
        }
        if let Some(Err(e)) = store.form().map(|f| f.target()) {
            faults.push(format!("stores: output_format of {:?}: {e}", store.id));
        }
        match store.kind {
            StoreKind::File if store.path.as_os_str().is_empty() => {
                faults.push(format!("stores: {:?} has no path", store.id));
            }
            StoreKind::Http if !store.path.as_os_str().is_empty() => {
                faults.push(format!(
                    "stores: {:?} has a path, but reads from web servers",
                    store.id
                ));
            }
            StoreKind::File | StoreKind::Http => {}
        }
    }
    match stores.iter().filter(|s| s.is_default).count() {
        1 => {}
        n => faults.push(format!("stores: {n} stores are the default, needed is 1")),
    }
    if stores.iter().any(|s| s.is_default && s.read_only) {
        faults.push("stores: the default store is read_only".into());
    }
}
