//! `[derivatives]`

use serde::Deserialize;

use super::StoreConfig;

/// Images in another format than they are stored in, made when they are asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Derivatives {
    /// Conversions at once; whoever asks for one more is told to come back. 0: none are made.
    pub conversions: usize,
    /// The store that keeps what they gave; absent: nothing is kept.
    pub store: Option<String>,
    /// Bytes kept at most: what was not asked for the longest goes first.
    pub limit: u64,
}

impl Default for Derivatives {
    fn default() -> Self {
        Self {
            conversions: 2,
            store: None,
            limit: 100 << 30,
        }
    }
}

impl Derivatives {
    pub(super) fn validate(&self, stores: &[StoreConfig], faults: &mut Vec<String>) {
        let Some(id) = &self.store else { return };
        match stores.iter().find(|store| store.id == *id) {
            None => faults.push(format!("derivatives.store: there is no store {id:?}")),
            Some(store) if store.read_only => {
                faults.push(format!("derivatives.store: {id:?} is read_only"));
            }
            Some(_) => {}
        }
    }
}
