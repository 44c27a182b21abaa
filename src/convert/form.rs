//! The form images are stored in: what the configuration says of all imports or of one store, or
//! what the caller of an import asks for.

use std::collections::BTreeMap;

use formats::{CreateOptions, Format};
use serde::{Deserialize, Serialize};

use crate::config::{Config, StoreConfig};

/// A disk format to store an image in, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Form {
    /// The format, as `glint convert -O` takes it.
    pub disk_format: String,
    /// Its options, as `glint convert -o` takes them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Whether it is compressed, as by `glint convert -c`.
    #[serde(default)]
    pub compress: bool,
    /// Whether the caller asked for it. Then an ISO is converted too, and options make an image
    /// anew that has the format already.
    #[serde(default)]
    pub is_asked: bool,
}

impl Form {
    /// What three keys of the configuration say, where they say something.
    pub(crate) fn configured(
        disk_format: Option<&String>,
        options: &BTreeMap<String, String>,
        compress: bool,
    ) -> Option<Self> {
        Some(Self {
            disk_format: disk_format?.clone(),
            options: options.clone(),
            compress,
            is_asked: false,
        })
    }

    /// The options as pairs.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let pairs = self.options.iter();
        pairs.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Whether this format can be written at all.
    #[must_use]
    pub fn is_written(format: Format) -> bool {
        CreateOptions::parse(format, &[], false).is_ok()
    }

    /// Whether it can be written, and in which format.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub fn target(&self) -> Result<Format, String> {
        let format: Format = self
            .disk_format
            .parse()
            .map_err(|e: formats::Error| e.to_string())?;
        let options = CreateOptions::parse(format, &self.pairs(), self.compress)
            .map_err(|e| e.to_string())?;
        if options.is_split() {
            return Err("the options ask for several files, and an image is one".into());
        }
        Ok(format)
    }

    /// Whether an image in this format already is made anew.
    pub(super) fn is_made_anew(&self) -> bool {
        self.is_asked && (self.compress || !self.options.is_empty())
    }

    /// The form in which an import into `stores` is stored: the one its caller `asked` for, else
    /// what those stores are configured for, else what all imports are. `None`: as it comes.
    ///
    /// # Errors
    /// A sentence: the stores want different forms, and an image has but one.
    pub fn of(
        config: &Config,
        stores: &[String],
        asked: Option<&Self>,
    ) -> Result<Option<Self>, String> {
        if let Some(asked) = asked {
            return Ok(Some(asked.clone()));
        }
        let of_store = |id: &String| {
            let store = config.stores.iter().find(|s| s.id == *id);
            let own = store.and_then(StoreConfig::form);
            own.or_else(|| config.import.form())
        };
        let mut forms = stores.iter().map(|id| (id, of_store(id)));
        let Some((first, form)) = forms.next() else {
            return Ok(None);
        };
        if let Some((other, _)) = forms.find(|(_, other)| *other != form) {
            return Err(format!(
                "Stores {first} and {other} keep images in different forms, and an image has one: \
                 say \"convert\", or import into one and copy"
            ));
        }
        Ok(form)
    }
}
