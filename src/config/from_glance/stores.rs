//! Stores, of one backend and of several.

use toml::{Table, Value};

use super::Work;
use crate::config::oslo;

impl Work<'_> {
    pub(super) fn stores(&mut self) {
        let default = self.take("glance_store", "default_backend");
        let backends = self.take("DEFAULT", "enabled_backends");
        let mut stores = Vec::new();
        for backend in oslo::list(&backends.unwrap_or_default()) {
            let (id, kind) = backend.split_once(':').unwrap_or((&backend, "file"));
            // Stores that Glance keeps for itself have no place here.
            if id.starts_with("os_glance_") {
                continue;
            }
            let is_default = default.as_deref() == Some(id);
            match kind.trim() {
                "file" => stores.extend(self.file_store(id, id, is_default)),
                "http" => {
                    stores.push(self.store(id, id, "http", false).into());
                    if is_default {
                        let why = format!("{id} is only read from: make another the default");
                        self.note("glance_store", "default_backend", &why);
                    }
                }
                kind => {
                    let why = format!("store {id} is of type {kind}, which is not carried over");
                    self.note("DEFAULT", "enabled_backends", &why);
                    if is_default {
                        let why = format!("{id} is not carried over: make another the default");
                        self.note("glance_store", "default_backend", &why);
                    }
                }
            }
        }
        if stores.is_empty()
            && self
                .file
                .get("glance_store", "filesystem_store_datadir")
                .is_some()
        {
            stores.extend(self.file_store("glance_store", "file", true));
            let kinds = self.take("glance_store", "stores");
            for kind in oslo::list(&kinds.unwrap_or_default()) {
                match kind.as_str() {
                    "file" | "filesystem" | "glance.store.filesystem.Store" => {}
                    "http" => stores.push(self.store("glance_store", "http", "http", false).into()),
                    other => {
                        self.note(
                            "glance_store",
                            "stores",
                            &format!("{other} is not carried over"),
                        );
                    }
                }
            }
            match self.take("glance_store", "default_store").as_deref() {
                None | Some("file" | "filesystem" | "glance.store.filesystem.Store") => {}
                Some(other) => {
                    let why = format!("{other} is not carried over: file is the default now");
                    self.note("glance_store", "default_store", &why);
                }
            }
        }
        if !stores.is_empty() {
            self.set(&["stores"], stores);
        }
    }

    fn file_store(&mut self, section: &str, id: &str, is_default: bool) -> Option<Value> {
        let Some(path) = self.take(section, "filesystem_store_datadir") else {
            self.note(section, "filesystem_store_datadir", "is not set");
            return None;
        };
        let mut store = self.store(section, id, "file", is_default);
        store.insert("path".into(), path.into());
        Some(store.into())
    }

    /// What every kind of store has.
    fn store(&mut self, section: &str, id: &str, kind: &str, is_default: bool) -> Table {
        let mut store = Table::new();
        store.insert("id".into(), id.into());
        store.insert("type".into(), kind.into());
        if is_default {
            store.insert("default".into(), true.into());
        }
        if let Some(text) = self.take(section, "store_description") {
            store.insert("description".into(), text.into());
        }
        let weight = self.take(section, "weight").map(|w| w.parse::<i64>());
        match weight {
            Some(Ok(weight)) => {
                store.insert("weight".into(), weight.into());
            }
            Some(Err(_)) => self.note(section, "weight", "is no number"),
            None => {}
        }
        store
    }
}
