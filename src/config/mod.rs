//! Configuration: a TOML file, then the environment, then flags. Validated whole at start, all faults
//! reported at once.

mod auth;
mod batches;
mod catalog;
mod cors;
mod derivatives;
mod fetch;
pub mod from_glance;
mod keystone;
mod notifications;
mod observe;
pub mod oslo;
mod quota;
mod secret;
mod stores;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use auth::{Auth, AuthMode};
pub use batches::Batches;
pub use catalog::{Catalog, CatalogPlace};
pub use cors::Cors;
pub use derivatives::Derivatives;
pub use fetch::Fetch;
pub use keystone::KeystoneConfig;
pub use notifications::{Broker, Notifications};
pub use observe::{Log, LogFormat, Metrics, Tracing};
pub use quota::Quota;
pub use secret::Secret;
pub use stores::{StoreConfig, StoreKind};

use crate::convert::Form;
use crate::convert::sandbox::Policy;
use crate::domain::HashAlgo;

/// Everything the service can be told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the catalog, the staging area and the default store lie.
    pub data_dir: PathBuf,
    /// The HTTP side.
    pub api: Api,
    /// Pages of other origins.
    pub cors: Cors,
    /// Which database.
    pub catalog: Catalog,
    /// Who may do what.
    pub auth: Auth,
    /// Bounds for clients.
    pub quota: Quota,
    /// What images may claim to be.
    pub formats: Formats,
    /// What happens on import.
    pub import: Import,
    /// Images in another format than they are stored in.
    pub derivatives: Derivatives,
    /// Many images asked for at once.
    pub batches: Batches,
    /// What becomes of deleted images.
    pub delete: Delete,
    /// What is read over HTTP for clients.
    pub fetch: Fetch,
    /// What other services are told.
    pub notifications: Notifications,
    /// What is logged.
    pub log: Log,
    /// What is counted.
    pub metrics: Metrics,
    /// What is traced.
    pub tracing: Tracing,
    /// Where image data is kept. The first one without `read_only` is the default unless one
    /// says `default = true`.
    pub stores: Vec<StoreConfig>,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The URL clients reach us by, where it is not the one they asked for.
    pub public_endpoint: Option<String>,
    /// Whether images show the URL of their data, to who may see locations.
    pub show_image_direct_url: bool,
    /// Whether images show all locations, and patches may change them.
    pub show_multiple_locations: bool,
    /// Who may see and change which custom properties: `auth::protections` has the form.
    pub property_protection_file: Option<PathBuf>,
    /// What the words in that file name.
    pub property_protection_rule_format: ProtectedBy,
    /// While this file exists, `/healthcheck` says that we are out of service.
    pub healthcheck_disable_file: Option<PathBuf>,
    /// Images a page holds when the client does not say.
    pub limit_default: u32,
    /// Images a page holds at most; 10,000 and below.
    pub limit_max: u32,
    /// Bytes of a JSON body at most.
    pub max_json: usize,
    /// Seconds a client may take to send the head of a request, and a connection be idle.
    pub head_timeout: u64,
}

/// `[api] property_protection_rule_format`
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtectedBy {
    /// Roles of callers.
    #[default]
    Roles,
    /// Rules of the policies.
    Policies,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9292)),
            public_endpoint: None,
            property_protection_file: None,
            property_protection_rule_format: ProtectedBy::default(),
            healthcheck_disable_file: None,
            show_image_direct_url: false,
            show_multiple_locations: false,
            limit_default: 25,
            limit_max: 1000,
            max_json: 1 << 20,
            head_timeout: 75,
        }
    }
}

/// `[formats]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Formats {
    /// The disk formats images may claim.
    pub disk_formats: Vec<String>,
    /// The container formats images may claim.
    pub container_formats: Vec<String>,
    /// Whether data must match the claimed disk format. What is unsafe is refused all the same.
    pub require_match: bool,
    /// Bytes of the largest virtual disk accepted.
    pub max_virtual_size: u64,
}

impl Default for Formats {
    fn default() -> Self {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        Self {
            disk_formats: words("ami ari aki vhd vhdx vmdk raw qcow2 vdi iso ploop"),
            container_formats: words("ami ari aki bare ovf ova docker compressed"),
            require_match: true,
            max_virtual_size: formats::Limits::default().max_virtual_size,
        }
    }
}

/// `[delete]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delete {
    /// Whether the data of deleted images is kept for a while, and they can be taken back.
    pub delayed: bool,
    /// Seconds for which it is.
    pub scrub_after: i64,
}

/// Every import method there is.
const METHODS: [&str; 4] = [
    "glance-direct",
    "web-download",
    "copy-image",
    "glance-download",
];

/// `[import]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Import {
    /// The import methods offered.
    pub methods: Vec<String>,
    /// The disk format imports are converted to, unless a store or a caller says otherwise; absent:
    /// stored as they come.
    pub output_format: Option<String>,
    /// Options of that format, as `glint convert -o` takes them.
    pub output_options: std::collections::BTreeMap<String, String>,
    /// Whether the output is compressed, as by `glint convert -c`.
    pub compress: bool,
    /// Whether compressed data is stored decompressed, unless `container_format` is `compressed`.
    /// A conversion decompresses anyway.
    pub decompress: bool,
    /// Whether `PUT /file` is an import too: staged, then decompressed, converted and injected as
    /// imports are, and answered when the image is active.
    pub convert_on_upload: bool,
    /// Properties that every import sets.
    pub inject: std::collections::BTreeMap<String, String>,
    /// Callers with one of these roles import without them.
    pub inject_ignore_roles: Vec<String>,
    /// Stores written at once by one import.
    pub parallel_stores: usize,
    /// The image services that glance-download reads from, by region: their URLs.
    pub glance_regions: std::collections::BTreeMap<String, String>,
    /// Properties that glance-download takes over: those that begin so.
    pub glance_properties: Vec<String>,
    /// Jobs worked on at once in this process: one a core where it is not said, none where it is 0
    /// and `glint worker` elsewhere does them.
    pub workers: Option<usize>,
    /// Seconds for which a process has what it works on; when it died, others go on after this. What
    /// lives renews it long before.
    pub lease: u32,
    /// A folder for what waits for an import that all processes sharing the catalog see, so that each
    /// can do every import; absent: `staging` in the data folder, and who staged it imports it.
    pub shared_staging: Option<PathBuf>,
    /// Whether conversions confine themselves: `auto` as far as the kernel can, `on` wholly or
    /// not at all, `off`.
    pub sandbox: Policy,
    /// Bytes of address space a conversion may use.
    pub worker_memory: u64,
    /// Seconds of processor time a conversion may use, all its threads together.
    pub worker_cpu_seconds: u64,
    /// The program that converts; ourselves where absent.
    pub worker_program: Option<PathBuf>,
    /// Hash computed beside MD5: sha1, sha256, sha384 or sha512.
    pub hash: String,
    /// Whether the digests of added locations are computed, or compared where they are given.
    pub do_secure_hash: bool,
    /// Hours an ended task is remembered.
    pub task_hours: i64,
    /// Hours a resumable upload is kept that nobody goes on with.
    pub upload_hours: i64,
}

impl Default for Import {
    fn default() -> Self {
        Self {
            methods: ["glance-direct", "web-download", "copy-image"]
                .map(str::to_owned)
                .into(),
            output_format: None,
            output_options: std::collections::BTreeMap::new(),
            compress: false,
            decompress: false,
            convert_on_upload: false,
            inject: std::collections::BTreeMap::new(),
            inject_ignore_roles: vec!["admin".into()],
            parallel_stores: 1,
            glance_regions: std::collections::BTreeMap::new(),
            glance_properties: ["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"]
                .map(str::to_owned)
                .into(),
            workers: None,
            lease: 60,
            shared_staging: None,
            sandbox: Policy::default(),
            worker_memory: 2 << 30,
            worker_cpu_seconds: 24 * 3600,
            worker_program: None,
            hash: HashAlgo::default().name().into(),
            do_secure_hash: true,
            task_hours: 48,
            upload_hours: 24,
        }
    }
}

impl Import {
    /// The configured hash.
    #[must_use]
    pub fn hash_algo(&self) -> HashAlgo {
        self.hash.parse().unwrap_or_default()
    }

    /// The form in which imports are stored, where neither store nor caller has another.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        Form::configured(
            self.output_format.as_ref(),
            &self.output_options,
            self.compress,
        )
    }
}

/// Everything that is wrong with a configuration, one sentence a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Config {
    /// The embedded default: SQLite and a file store below `data_dir`, loopback only.
    #[must_use]
    pub fn embedded(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            ..Self::default()
        }
        .with_default_store()
    }

    /// Reads a configuration file. `data_dir` applies unless the file names its own.
    ///
    /// # Errors
    /// When it cannot be read or is not valid TOML.
    pub fn load(path: &Path, data_dir: PathBuf) -> Result<Self, Faults> {
        let fault = |e: String| Faults(vec![format!("{}: {e}", path.display())]);
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|e| fault(e.to_string()))?;
        if config.data_dir.as_os_str().is_empty() {
            config.data_dir = data_dir;
        }
        if config.auth.mode == AuthMode::Keystone {
            config
                .auth
                .keystone
                .complete("keystone_authtoken")
                .map_err(fault)?;
        }
        if let Some(account) = &mut config.quota.keystone {
            account.complete("oslo_limit").map_err(fault)?;
        }
        Ok(config.with_default_store())
    }

    /// Takes what the environment says instead.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        self.catalog.take_environment();
        self
    }

    fn with_default_store(mut self) -> Self {
        if self.stores.is_empty() {
            self.stores
                .push(StoreConfig::file("file", self.data_dir.join("images")));
        }
        for store in &mut self.stores {
            store.read_only |= store.kind == StoreKind::Http;
        }
        if !self.stores.iter().any(|s| s.is_default)
            && let Some(first) = self.stores.iter_mut().find(|s| !s.read_only)
        {
            first.is_default = true;
        }
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn validate(&self) -> Result<(), Faults> {
        let mut faults = Vec::new();
        self.auth.validate(self.api.listen, &mut faults);
        let keystone = self.auth.mode == AuthMode::Keystone;
        self.quota.validate(keystone, &mut faults);
        if self.import.hash.parse::<HashAlgo>().is_err() {
            faults.push(format!(
                "import.hash is {:?}, allowed sha1, sha256, sha384, sha512",
                self.import.hash
            ));
        }
        if let Some(Err(e)) = self.import.form().map(|f| f.target()) {
            faults.push(format!("import.output_format: {e}"));
        }
        // A lease further ahead than the catalog believes counts as a clock gone wrong.
        if !(2..=1800).contains(&self.import.lease) {
            faults.push(format!(
                "import.lease is {}, allowed 2 to 1800",
                self.import.lease
            ));
        }
        for method in &self.import.methods {
            if !METHODS.contains(&method.as_str()) {
                faults.push(format!(
                    "import.methods: {method:?} is none of {}",
                    METHODS.join(", ")
                ));
            }
        }
        if !(1..=10_000).contains(&self.api.limit_max) {
            let n = self.api.limit_max;
            faults.push(format!("api.limit_max is {n}, allowed 1 to 10000"));
        }
        self.catalog.validate(&self.data_dir, &mut faults);
        self.notifications.validate(&mut faults);
        self.log.validate(&mut faults);
        self.tracing.validate(&mut faults);
        stores::validate(&self.stores, &mut faults);
        self.derivatives.validate(&self.stores, &mut faults);
        self.batches.validate(&mut faults);
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Faults(faults))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_default_is_valid() {
        let config = Config::embedded("/tmp/x".into());
        config.validate().unwrap();
        assert_eq!(config.stores.len(), 1);
        assert!(config.stores[0].is_default);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let mut config = Config::embedded("/tmp/x".into());
        config.api.listen = "0.0.0.0:9292".parse().unwrap();
        config.import.hash = "crc32".into();
        config.import.output_format = Some("floppy".into());
        config.batches.concurrency = 0;
        config.batches.source_dirs.push("images".into());
        config.stores.push(config.stores[0].clone());
        let faults = config.validate().unwrap_err().0;
        assert!(faults.len() >= 6, "{faults:?}");
    }
}
