//! What images may be, what happens on import, and what is fetched on behalf of clients.

use toml::{Table, Value};

use super::Work;
use crate::config::oslo;

impl Work<'_> {
    pub(super) fn formats(&mut self) {
        for name in ["disk_formats", "container_formats"] {
            self.words("image_format", name, &["formats", name]);
        }
        self.flag(
            "image_format",
            "require_image_format_match",
            &["formats", "require_match"],
        );
    }

    pub(super) fn import(&mut self) {
        self.text("DEFAULT", "hashing_algorithm", &["import", "hash"]);
        self.flag("DEFAULT", "do_secure_hash", &["import", "do_secure_hash"]);
        self.number("task", "task_time_to_live", &["import", "task_hours"]);
        self.words("DEFAULT", "enabled_import_methods", &["import", "methods"]);
        self.number(
            "image_import_opts",
            "max_parallel_stores",
            &["import", "parallel_stores"],
        );
        self.words(
            "glance_download_properties",
            "extra_properties",
            &["import", "glance_properties"],
        );
        let plugins = self.take("image_import_opts", "image_import_plugins");
        for plugin in oslo::list(&plugins.unwrap_or_default()) {
            match plugin.as_str() {
                "image_conversion" => {
                    let format = self.take("image_conversion", "output_format");
                    let format = format.unwrap_or_else(|| "raw".into());
                    self.set(&["import", "output_format"], format);
                }
                "image_decompression" => self.set(&["import", "decompress"], true),
                "inject_image_metadata" => self.inject(),
                "no_op" => {}
                other => self.note(
                    "image_import_opts",
                    "image_import_plugins",
                    &format!("{other} is not carried over"),
                ),
            }
        }
    }

    /// What the plugin of that name sets on every import.
    fn inject(&mut self) {
        const SECTION: &str = "inject_metadata_properties";
        self.words(
            SECTION,
            "ignore_user_roles",
            &["import", "inject_ignore_roles"],
        );
        let mut properties = Table::new();
        let inject = self.take(SECTION, "inject").unwrap_or_default();
        // Names and values have quotes of their own, or the pair has.
        for pair in inject
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let pair = match pair.matches(['"', '\'']).count() {
                2 => oslo::unquoted(pair),
                _ => pair,
            };
            match pair.split_once(':') {
                Some((name, value)) => {
                    let [name, value] = [name, value].map(|t| oslo::unquoted(t.trim()));
                    properties.insert(name.to_owned(), value.into());
                }
                None => self.note(SECTION, "inject", &format!("{pair} is not name:value")),
            }
        }
        if !properties.is_empty() {
            self.set(&["import", "inject"], properties);
        }
    }

    /// What may be fetched: an empty list allows, or denies, nothing by itself.
    pub(super) fn fetch(&mut self) {
        const SECTION: &str = "import_filtering_opts";
        for name in [
            "allowed_schemes",
            "disallowed_schemes",
            "allowed_hosts",
            "disallowed_hosts",
        ] {
            self.words(SECTION, name, &["fetch", name]);
        }
        for name in ["allowed_ports", "disallowed_ports"] {
            let Some(value) = self.take_set(SECTION, name) else {
                continue;
            };
            let ports = oslo::list(&value)
                .iter()
                .map(|port| port.parse::<u16>().map(i64::from).map(Value::from))
                .collect::<Result<Vec<_>, _>>();
            match ports {
                Ok(ports) => self.set(&["fetch", name], ports),
                Err(_) => self.note(SECTION, name, "is no list of ports"),
            }
        }
    }
}
