//! Stores.

use serde::Serialize;

use crate::config::{StoreConfig, StoreKind};

/// A store as everybody sees it. Flags are the word `true`, or absent.
#[derive(Serialize)]
pub(in crate::api) struct StoreView<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<&'static str>,
    #[serde(rename = "read-only", skip_serializing_if = "Option::is_none")]
    read_only: Option<&'static str>,
}

impl<'a> From<&'a StoreConfig> for StoreView<'a> {
    fn from(store: &'a StoreConfig) -> Self {
        Self {
            id: &store.id,
            description: store.description.as_deref(),
            default: store.is_default.then_some("true"),
            read_only: store.read_only.then_some("true"),
        }
    }
}

/// A store as its operator sees it.
#[derive(Serialize)]
pub(in crate::api) struct DetailedStore<'a> {
    #[serde(flatten)]
    store: StoreView<'a>,
    r#type: String,
    properties: Properties,
    weight: i64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Properties {
    File {
        data_dir: String,
        thin_provisioning: bool,
    },
    Http {},
}

impl<'a> From<&'a StoreConfig> for DetailedStore<'a> {
    fn from(store: &'a StoreConfig) -> Self {
        Self {
            store: store.into(),
            r#type: store.kind.to_string(),
            properties: match store.kind {
                StoreKind::File => Properties::File {
                    data_dir: store.path.display().to_string(),
                    // Runs of zeros always become holes.
                    thin_provisioning: true,
                },
                StoreKind::Http => Properties::Http {},
            },
            weight: store.weight,
        }
    }
}

/// All of them.
#[derive(Serialize)]
pub(in crate::api) struct StoreList<T> {
    pub(in crate::api) stores: Vec<T>,
}
