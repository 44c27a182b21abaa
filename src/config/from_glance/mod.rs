//! Our configuration from Glance's: `glint config from-glance`.
//!
//! Every option is either carried over or named, so that an operator knows what is left to decide.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Config;
use super::oslo::{self, OsloFile};

mod account;
mod import;
mod service;
mod stores;

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
    work.cors();
    work.auth();
    work.quota();
    work.formats();
    work.import();
    work.fetch();
    work.delete();
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
        self.take_set(section, name).filter(|v| !v.is_empty())
    }

    /// The same of an option that means something by being empty.
    fn take_set(&mut self, section: &str, name: &str) -> Option<String> {
        let is_new = self.used.insert((section.to_owned(), name.to_owned()));
        if is_new && self.file.is_dangling(section, name) {
            let why = "refers by a $ to an option that the file does not set: write out what it is";
            self.note(section, name, why);
        }
        self.file.get(section, name)
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

    /// A list; an empty one says something too.
    fn words(&mut self, section: &str, name: &str, path: &[&str]) {
        if let Some(value) = self.take_set(section, name) {
            self.set(path, oslo::list(&value));
        }
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
    use crate::config::{ProtectedBy, StoreKind};

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

    fn carried(glance: &str) -> (Config, Vec<String>) {
        let done = translate(&OsloFile::parse(glance).unwrap()).unwrap();
        (toml::from_str(&done.toml).unwrap(), done.notes)
    }

    #[test]
    fn what_may_be_fetched_stays_as_narrow() {
        let (config, notes) = carried(
            "[paste_deploy]\nflavor = keystone\n[import_filtering_opts]\nallowed_schemes = \n\
             disallowed_schemes = [ftp]\nallowed_hosts = images.example\n\
             disallowed_hosts = a,b\nallowed_ports = [443, 8443]\ndisallowed_ports = 22\n",
        );
        assert!(notes.is_empty(), "{notes:?}");
        let fetch = config.fetch;
        assert!(fetch.allowed_schemes.is_empty());
        assert_eq!(fetch.disallowed_schemes, ["ftp"]);
        assert_eq!(fetch.allowed_hosts, ["images.example"]);
        assert_eq!(fetch.disallowed_hosts, ["a", "b"]);
        assert_eq!(fetch.allowed_ports, [443, 8443]);
        assert_eq!(fetch.disallowed_ports, [22]);
    }

    #[test]
    fn what_has_the_same_meaning_here_is_carried_over() {
        let (config, notes) = carried(
            "delayed_delete = yes\nscrub_time = 60\ndo_secure_hash = no\n\
             enabled_backends = fast:file, web:http\n[paste_deploy]\nflavor = keystone\n\
             [glance_store]\ndefault_backend = fast\n[fast]\nfilesystem_store_datadir = /i\n\
             [web]\nstore_description = mirrors\n[cors]\nallowed_origin = https://a,https://b\n\
             allow_credentials = false\nmax_age = 7\nallow_methods = GET\n\
             allow_headers = X-A\nexpose_headers = X-B\n\
             [image_import_opts]\nimage_import_plugins = ['image_decompression', \
             'inject_image_metadata']\nmax_parallel_stores = 3\n\
             [inject_metadata_properties]\nignore_user_roles = admin,operator\n\
             inject = os:linux, 'url':http://x, \"arch\":\"x86\"\n[healthcheck]\n\
             backends = disable_by_file\ndisable_by_file_path = /etc/glance/down\n\
             [glance_download_properties]\nextra_properties = os_, hw_\n",
        );
        assert!(notes.is_empty(), "{notes:?}");
        assert!(config.delete.delayed);
        assert_eq!(config.delete.scrub_after, 60);
        let import = config.import;
        assert!(import.decompress && !import.do_secure_hash);
        assert_eq!(import.output_format, None);
        assert_eq!(import.inject["os"], "linux");
        assert_eq!(import.inject["url"], "http://x");
        assert_eq!(import.inject["arch"], "x86");
        assert_eq!(import.inject_ignore_roles, ["admin", "operator"]);
        assert_eq!(import.parallel_stores, 3);
        assert_eq!(import.glance_properties, ["os_", "hw_"]);
        assert_eq!(config.stores[1].kind, StoreKind::Http);
        assert_eq!(config.stores[1].description.as_deref(), Some("mirrors"));
        let cors = config.cors;
        assert_eq!(cors.allowed_origins, ["https://a", "https://b"]);
        assert_eq!((cors.allow_credentials, cors.max_age), (false, 7));
        assert_eq!(cors.allow_methods, ["GET"]);
        assert_eq!(cors.allow_headers, ["X-A"]);
        assert_eq!(cors.expose_headers, ["X-B"]);
        let file = config.api.healthcheck_disable_file.unwrap();
        assert_eq!(file, std::path::Path::new("/etc/glance/down"));
    }

    #[test]
    fn what_is_lost_in_part_is_named() {
        let (_, notes) = carried(
            "enabled_backends = ceph:rbd\n[paste_deploy]\nflavor = keystone+cachemanagement\n\
             config_file = /etc/glance/paste.ini\n[glance_store]\ndefault_backend = ceph\n\
             stores = file,http,swift\ndefault_store = swift\n\
             filesystem_store_datadir = $state_path/images\n[cors.horizon]\nmax_age = 7\n\
             [image_conversion]\noutput_format = raw\n[inject_metadata_properties]\ninject = a\n",
        );
        for (option, word) in [
            ("[DEFAULT] enabled_backends", "ceph"),
            ("[paste_deploy] flavor", "cachemanagement"),
            ("[paste_deploy] config_file", "not carried"),
            ("[glance_store] default_backend", "ceph"),
            ("[glance_store] stores", "swift"),
            ("[glance_store] default_store", "swift"),
            ("[glance_store] filesystem_store_datadir", "$"),
            ("[cors.horizon] max_age", "not carried"),
            ("[image_conversion] output_format", "not carried"),
            ("[inject_metadata_properties] inject", "not carried"),
        ] {
            let told = |n: &String| n.starts_with(option) && n.contains(word);
            assert!(notes.iter().any(told), "{option}: {notes:?}");
        }
        assert_eq!(notes.len(), 10, "{notes:?}");
    }

    #[test]
    fn an_empty_file_is_a_beginning() {
        let done = translate(&OsloFile::default()).unwrap();
        assert!(toml::from_str::<Config>(&done.toml).is_ok());
    }
}
