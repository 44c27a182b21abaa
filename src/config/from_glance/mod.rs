//! Our configuration from Glance's: `glint config from-glance`.
//!
//! Every option is either carried over or named, so that an operator knows what is left to decide.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::oslo::{self, OsloFile};
use super::{Config, KeystoneConfig};

/// What became of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Our configuration, with the notes as comments.
    pub toml: String,
    /// What could not be carried over, and why where that is not plain; one sentence each.
    pub notes: Vec<String>,
}

/// Reads Glance's configuration and writes ours.
///
/// # Errors
/// A sentence, when the result would be no configuration of ours.
pub fn translate(file: &OsloFile) -> Result<Translation, String> {
    let mut work = Work {
        file,
        used: BTreeSet::new(),
        out: Table::new(),
        notes: Vec::new(),
    };
    work.api();
    work.auth();
    work.quota();
    work.formats();
    work.import();
    work.stores();
    work.notifications();
    work.rest();
    let Work { out, notes, .. } = work;
    let body = toml::to_string_pretty(&out).map_err(|e| e.to_string())?;
    toml::from_str::<Config>(&body).map_err(|e| e.to_string())?;
    let mut toml = String::new();
    for note in &notes {
        for line in note.lines() {
            toml.push_str(&format!("# {line}\n"));
        }
    }
    if !notes.is_empty() {
        toml.push('\n');
    }
    Ok(Translation {
        toml: toml + &body,
        notes,
    })
}

/// Options that only say how Glance runs as a program: nothing is lost without them.
const OF_THE_PROGRAM: [&str; 8] = [
    "workers",
    "backlog",
    "debug",
    "log_file",
    "log_dir",
    "use_syslog",
    "use_stderr",
    "lock_path",
];

struct Work<'a> {
    file: &'a OsloFile,
    used: BTreeSet<(String, String)>,
    out: Table,
    notes: Vec<String>,
}

impl Work<'_> {
    /// An option's value; it counts as carried over then.
    fn take(&mut self, section: &str, name: &str) -> Option<String> {
        self.used.insert((section.to_owned(), name.to_owned()));
        self.file.get(section, name).filter(|v| !v.is_empty())
    }

    fn note(&mut self, section: &str, name: &str, why: &str) {
        self.notes.push(format!("[{section}] {name}: {why}"));
    }

    fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((name, sections)) = path.split_last() else {
            return;
        };
        let mut table = &mut self.out;
        for section in sections {
            let entry = table
                .entry((*section).to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else { return };
            table = inner;
        }
        table.insert((*name).to_owned(), value.into());
    }

    fn text(&mut self, section: &str, name: &str, path: &[&str]) {
        if let Some(value) = self.take(section, name) {
            self.set(path, value);
        }
    }

    fn number(&mut self, section: &str, name: &str, path: &[&str]) {
        if let Some(value) = self.take(section, name) {
            match value.parse::<i64>() {
                Ok(n) => self.set(path, n),
                Err(_) => self.note(section, name, "is no number"),
            }
        }
    }

    fn flag(&mut self, section: &str, name: &str, path: &[&str]) {
        if let Some(value) = self.take(section, name) {
            match oslo::boolean(&value) {
                Some(flag) => self.set(path, flag),
                None => self.note(section, name, "is neither yes nor no"),
            }
        }
    }

    fn words(&mut self, section: &str, name: &str, path: &[&str]) {
        if let Some(value) = self.take(section, name) {
            self.set(path, oslo::list(&value));
        }
    }

    fn api(&mut self) {
        let host = self.take("DEFAULT", "bind_host");
        let port = self.take("DEFAULT", "bind_port");
        let host = host.unwrap_or_else(|| "0.0.0.0".into());
        let port = port.unwrap_or_else(|| "9292".into());
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        match format!("{host}:{port}").parse::<std::net::SocketAddr>() {
            Ok(listen) => self.set(&["api", "listen"], listen.to_string()),
            Err(_) => self.note("DEFAULT", "bind_host", "is no address"),
        }
        self.text("DEFAULT", "public_endpoint", &["api", "public_endpoint"]);
        for name in ["show_image_direct_url", "show_multiple_locations"] {
            self.flag("DEFAULT", name, &["api", name]);
        }
        self.number("DEFAULT", "limit_param_default", &["api", "limit_default"]);
        self.number("DEFAULT", "api_limit_max", &["api", "limit_max"]);
    }

    fn auth(&mut self) {
        let flavor = self.take("paste_deploy", "flavor").unwrap_or_default();
        self.take("paste_deploy", "config_file");
        self.flag(
            "DEFAULT",
            "allow_anonymous_access",
            &["auth", "allow_anonymous_access"],
        );
        self.flag("oslo_policy", "enforce_scope", &["auth", "enforce_scope"]);
        self.text("oslo_policy", "policy_file", &["auth", "policy_file"]);
        self.text(
            "DEFAULT",
            "property_protection_file",
            &["api", "property_protection_file"],
        );
        let format = "property_protection_rule_format";
        match self.take("DEFAULT", format).map(|by| by.to_lowercase()) {
            Some(by) if by == "roles" || by == "policies" => self.set(&["api", format], by),
            Some(_) => self.note("DEFAULT", format, "is neither roles nor policies"),
            None => {}
        }
        if flavor.contains("keystone") {
            self.set(&["auth", "mode"], "keystone");
            self.account("keystone_authtoken", &["auth", "keystone"]);
        } else {
            self.note(
                "paste_deploy",
                "flavor",
                "does not ask Keystone; without authentication only loopback addresses are served",
            );
        }
    }

    /// An account at Keystone.
    fn account(&mut self, section: &str, path: &[&str]) {
        let mut account = KeystoneConfig::default();
        account.fill(self.file, section);
        for name in [
            "auth_url",
            "auth_type",
            "auth_section",
            "auth_uri",
            "www_authenticate_uri",
            "username",
            "user_name",
            "user_id",
            "user_domain_id",
            "user_domain_name",
            "default_domain_id",
            "default_domain_name",
            "password",
            "project_name",
            "project_id",
            "tenant_name",
            "tenant_id",
            "project_domain_id",
            "project_domain_name",
            "system_scope",
            "application_credential_id",
            "application_credential_name",
            "application_credential_secret",
            "cafile",
            "insecure",
            "region_name",
            "service_token_roles",
            "token_cache_time",
        ] {
            self.take(section, name);
        }
        let text = |text: Option<String>| text.map(Value::from);
        let secret = |secret: Option<super::Secret>| secret.map(|s| s.reveal().into());
        for (name, value) in [
            ("auth_url", text(account.auth_url)),
            ("www_authenticate_uri", text(account.www_authenticate_uri)),
            ("username", text(account.username)),
            ("user_id", text(account.user_id)),
            ("password", secret(account.password)),
            ("user_domain_id", text(account.user_domain_id)),
            ("user_domain_name", text(account.user_domain_name)),
            ("project_name", text(account.project_name)),
            ("project_id", text(account.project_id)),
            ("project_domain_id", text(account.project_domain_id)),
            ("project_domain_name", text(account.project_domain_name)),
            ("system_scope", text(account.system_scope)),
            (
                "application_credential_id",
                text(account.application_credential_id),
            ),
            (
                "application_credential_name",
                text(account.application_credential_name),
            ),
            (
                "application_credential_secret",
                secret(account.application_credential_secret),
            ),
            ("region_name", text(account.region_name)),
            (
                "cafile",
                account.cafile.map(|p| p.display().to_string().into()),
            ),
            ("insecure", account.insecure.map(Value::from)),
            (
                "service_token_roles",
                account.service_token_roles.map(Value::from),
            ),
            (
                "cache_seconds",
                account
                    .cache_seconds
                    .and_then(|n| i64::try_from(n).ok())
                    .map(Value::from),
            ),
        ] {
            if let Some(value) = value {
                self.set(&[path, &[name]].concat(), value);
            }
        }
    }

    fn quota(&mut self) {
        for (theirs, ours) in [
            ("image_property_quota", "properties"),
            ("image_tag_quota", "tags"),
            ("image_member_quota", "members"),
            ("image_location_quota", "locations"),
            ("image_size_cap", "image_size_cap"),
        ] {
            self.number("DEFAULT", theirs, &["quota", ours]);
        }
        self.text("DEFAULT", "user_storage_quota", &["quota", "user_storage"]);
        self.flag(
            "DEFAULT",
            "use_keystone_limits",
            &["quota", "use_keystone_limits"],
        );
        self.text("oslo_limit", "endpoint_id", &["quota", "endpoint_id"]);
        if self.file.get("oslo_limit", "auth_url").is_some() {
            self.account("oslo_limit", &["quota", "keystone"]);
        }
    }

    fn formats(&mut self) {
        for name in ["disk_formats", "container_formats"] {
            self.words("image_format", name, &["formats", name]);
        }
        self.flag(
            "image_format",
            "require_image_format_match",
            &["formats", "require_match"],
        );
    }

    fn import(&mut self) {
        self.text("DEFAULT", "hashing_algorithm", &["import", "hash"]);
        self.number("task", "task_time_to_live", &["import", "task_hours"]);
        self.words("DEFAULT", "enabled_import_methods", &["import", "methods"]);
        let plugins = self.take("image_import_opts", "image_import_plugins");
        let format = self.take("image_conversion", "output_format");
        for plugin in oslo::list(&plugins.unwrap_or_default()) {
            match plugin.as_str() {
                "image_conversion" => {
                    let format = format.clone().unwrap_or_else(|| "raw".into());
                    self.set(&["import", "output_format"], format);
                }
                // What is compressed is inflated wherever it is converted.
                "no_op" | "image_decompression" => {}
                other => self.note(
                    "image_import_opts",
                    "image_import_plugins",
                    &format!("{other} is not carried over"),
                ),
            }
        }
    }

    fn notifications(&mut self) {
        const OURS: &str = "notifications";
        let section = "oslo_messaging_notifications";
        let driver = self.take(section, "driver").unwrap_or_default();
        let own = self.take(section, "transport_url");
        let url = self.take("DEFAULT", "transport_url");
        for driver in oslo::list(&driver) {
            match driver.as_str() {
                "messagingv2" => {
                    if let Some(url) = own.clone().or_else(|| url.clone()) {
                        self.set(&[OURS, "transport_url"], url);
                    }
                }
                "noop" => {}
                other => self.note(section, "driver", &format!("{other} is not carried over")),
            }
        }
        self.words(section, "topics", &[OURS, "topics"]);
        self.text("DEFAULT", "control_exchange", &[OURS, "exchange"]);
        self.text("DEFAULT", "default_publisher_id", &[OURS, "publisher_id"]);
        let disabled = "disabled_notifications";
        self.words("DEFAULT", disabled, &[OURS, disabled]);
        for name in [
            "amqp_durable_queues",
            "amqp_auto_delete",
            "rabbit_quorum_queue",
        ] {
            self.flag("oslo_messaging_rabbit", name, &[OURS, name]);
        }
    }

    fn stores(&mut self) {
        let default = self.take("glance_store", "default_backend");
        let backends = self.take("DEFAULT", "enabled_backends");
        let mut stores = Vec::new();
        for backend in oslo::list(&backends.unwrap_or_default()) {
            let (id, kind) = backend.split_once(':').unwrap_or((&backend, "file"));
            // Stores that Glance keeps for itself have no place here.
            if id.starts_with("os_glance_") {
                continue;
            }
            if kind.trim() != "file" {
                let why = format!("store {id} is of type {kind}, which is not carried over");
                self.note("DEFAULT", "enabled_backends", &why);
                continue;
            }
            let is_default = default.as_deref() == Some(id);
            if let Some(store) = self.file_store(id, id, is_default) {
                stores.push(store);
            }
        }
        if stores.is_empty()
            && self
                .file
                .get("glance_store", "filesystem_store_datadir")
                .is_some()
        {
            stores.extend(self.file_store("glance_store", "file", true));
            self.take("glance_store", "default_store");
            self.take("glance_store", "stores");
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
        let mut store = Table::new();
        store.insert("id".into(), id.into());
        store.insert("type".into(), "file".into());
        store.insert("path".into(), path.into());
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
        Some(store.into())
    }

    /// Names what nobody took.
    fn rest(&mut self) {
        let file = self.file;
        for (section, name) in file.options() {
            let key = (section.to_owned(), name.to_owned());
            if self.used.contains(&key) || OF_THE_PROGRAM.contains(&name) {
                continue;
            }
            if (section, name) == ("database", "connection") {
                self.note(
                    section,
                    name,
                    "the catalog is a database of its own: set catalog.url to one, and `glint db \
                     import-glance` fills it from this one",
                );
            } else {
                self.note(section, name, "is not carried over");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProtectedBy;

    const GLANCE: &str = "\
[DEFAULT]
bind_host = 0.0.0.0
enabled_backends = fast:file, ceph:rbd
image_tag_quota = 7
user_storage_quota = 5GB
show_something = true
workers = 4
property_protection_file = /etc/glance/protections.conf
property_protection_rule_format = Policies
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = /srv/images
weight = 10
[database]
connection = mysql+pymysql://glance:db-secret@db/glance
[keystone_authtoken]
auth_url = http://k:5000
username = glance
password = secret
user_domain_name = Default
project_name = service
project_domain_name = Default
memcached_servers = m:11211
[paste_deploy]
flavor = keystone
[image_import_opts]
image_import_plugins = [image_decompression, image_conversion, mine]
[image_conversion]
output_format = qcow2
[image_format]
disk_formats = raw,qcow2
[oslo_messaging_notifications]
driver = messagingv2
transport_url = rabbit://u:p@a:5672,u:p@b:5672/v
topics = notifications, extra
retry = 3
[oslo_messaging_rabbit]
amqp_durable_queues = true
";

    #[test]
    fn options_are_carried_over_or_named() {
        let done = translate(&OsloFile::parse(GLANCE).unwrap()).unwrap();
        let config: Config = toml::from_str(&done.toml).unwrap();
        config.validate().unwrap();
        assert_eq!(config.api.listen.to_string(), "0.0.0.0:9292");
        assert_eq!(config.auth.keystone.url(), "http://k:5000/v3");
        let by = config.api.property_protection_rule_format;
        assert_eq!(by, ProtectedBy::Policies);
        assert_eq!(config.quota.tags, 7);
        assert_eq!(config.quota.user_storage(), Some(5 << 30));
        assert_eq!(config.import.output_format.as_deref(), Some("qcow2"));
        assert_eq!(config.formats.disk_formats, ["raw", "qcow2"]);
        assert_eq!(config.stores.len(), 1);
        assert!(config.stores[0].is_default && config.stores[0].weight == 10);
        for named in [
            "show_something",
            "memcached_servers",
            "ceph",
            "connection",
            "mine",
            "retry",
        ] {
            assert!(done.notes.iter().any(|n| n.contains(named)), "{named}");
            assert!(done.toml.contains(named), "{named}");
        }
        assert_eq!(done.notes.len(), 6, "{:?}", done.notes);
        let told = &config.notifications;
        assert_eq!(told.brokers().unwrap().len(), 2);
        assert_eq!(told.topics, ["notifications", "extra"]);
        assert!(told.amqp_durable_queues);
        assert!(!done.toml.contains("db-secret"));
    }

    #[test]
    fn an_empty_file_is_a_beginning() {
        let done = translate(&OsloFile::default()).unwrap();
        assert!(toml::from_str::<Config>(&done.toml).is_ok());
    }
}
