//! `[auth.keystone]`: whom we ask who callers are, and as whom.

use std::path::PathBuf;

use serde::Deserialize;

use super::Secret;
use super::oslo::{self, OsloFile};

/// The identity service and our account there. The names are those of `[keystone_authtoken]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeystoneConfig {
    /// An oslo.config file; what is not set here is taken from its `[keystone_authtoken]`, and for
    /// limits from its `[oslo_limit]`.
    pub from: Option<PathBuf>,
    /// Its URL; `/v3` is added where it is missing.
    pub auth_url: Option<String>,
    /// What callers without a token are told; `auth_url` where absent.
    pub www_authenticate_uri: Option<String>,
    /// Our user, by name and domain or by id.
    pub username: Option<String>,
    /// Our user's id.
    pub user_id: Option<String>,
    /// Our user's password.
    pub password: Option<Secret>,
    /// The domain of our user, by id.
    pub user_domain_id: Option<String>,
    /// The domain of our user, by name.
    pub user_domain_name: Option<String>,
    /// Our project, by name and domain.
    pub project_name: Option<String>,
    /// Our project, by id.
    pub project_id: Option<String>,
    /// The domain of our project, by id.
    pub project_domain_id: Option<String>,
    /// The domain of our project, by name.
    pub project_domain_name: Option<String>,
    /// `all`: act for the whole system instead of a project.
    pub system_scope: Option<String>,
    /// An application credential instead of a password, by id.
    pub application_credential_id: Option<String>,
    /// An application credential, by name and our user.
    pub application_credential_name: Option<String>,
    /// Its secret.
    pub application_credential_secret: Option<Secret>,
    /// Certificates (PEM) to trust besides those of the system.
    pub cafile: Option<PathBuf>,
    /// Whether certificates are not checked at all.
    pub insecure: Option<bool>,
    /// Our region, by which limits are found.
    pub region_name: Option<String>,
    /// Roles of which a service that asks for somebody else must have one, to be believed about a
    /// token that expired under way.
    pub service_token_roles: Option<Vec<String>>,
    /// Seconds an answer about a token is kept: a revoked token is refused after that at the latest.
    pub cache_seconds: Option<u64>,
    /// Answers kept at most.
    pub cache_entries: u64,
    /// Seconds a call may take.
    pub timeout: u64,
}

impl Default for KeystoneConfig {
    fn default() -> Self {
        Self {
            from: None,
            auth_url: None,
            www_authenticate_uri: None,
            username: None,
            user_id: None,
            password: None,
            user_domain_id: None,
            user_domain_name: None,
            project_name: None,
            project_id: None,
            project_domain_id: None,
            project_domain_name: None,
            system_scope: None,
            application_credential_id: None,
            application_credential_name: None,
            application_credential_secret: None,
            cafile: None,
            insecure: None,
            region_name: None,
            service_token_roles: None,
            cache_seconds: None,
            cache_entries: 10_000,
            timeout: 10,
        }
    }
}

impl KeystoneConfig {
    /// Reads that section of the file that `from` names, if it does.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn complete(&mut self, section: &str) -> Result<(), String> {
        if let Some(path) = &self.from {
            let file = OsloFile::load(path)?;
            self.fill(&file, section);
        }
        Ok(())
    }

    /// Takes what is not set from a section of an oslo.config file.
    pub(super) fn fill(&mut self, file: &OsloFile, section: &str) {
        let other = file.get(section, "auth_section");
        let section = other.as_deref().unwrap_or(section);
        let get = |names: &[&str]| names.iter().find_map(|name| file.get(section, name));
        for (field, names) in [
            (&mut self.auth_url, &["auth_url"][..]),
            (
                &mut self.www_authenticate_uri,
                &["www_authenticate_uri", "auth_uri"],
            ),
            (&mut self.username, &["username", "user_name"]),
            (&mut self.user_id, &["user_id"]),
            (
                &mut self.user_domain_id,
                &["user_domain_id", "default_domain_id"],
            ),
            (
                &mut self.user_domain_name,
                &["user_domain_name", "default_domain_name"],
            ),
            (&mut self.project_name, &["project_name", "tenant_name"]),
            (&mut self.project_id, &["project_id", "tenant_id"]),
            (
                &mut self.project_domain_id,
                &["project_domain_id", "default_domain_id"],
            ),
            (
                &mut self.project_domain_name,
                &["project_domain_name", "default_domain_name"],
            ),
            (&mut self.system_scope, &["system_scope"]),
            (
                &mut self.application_credential_id,
                &["application_credential_id"],
            ),
            (
                &mut self.application_credential_name,
                &["application_credential_name"],
            ),
            (&mut self.region_name, &["region_name"]),
        ] {
            if field.is_none() {
                *field = get(names);
            }
        }
        let secret = |name: &str| file.get(section, name).map(Secret::new);
        self.password = self.password.take().or_else(|| secret("password"));
        self.application_credential_secret = self
            .application_credential_secret
            .take()
            .or_else(|| secret("application_credential_secret"));
        self.cafile = self.cafile.take().or(get(&["cafile"]).map(PathBuf::from));
        self.insecure = self
            .insecure
            .or(get(&["insecure"]).as_deref().and_then(oslo::boolean));
        let roles = get(&["service_token_roles"]).map(|roles| oslo::list(&roles));
        self.service_token_roles = self.service_token_roles.take().or(roles);
        // -1 keeps nothing, which would be a call for every request: a second is next to it.
        let seconds = get(&["token_cache_time"]).and_then(|s| s.parse::<i64>().ok());
        let seconds = seconds.map(|s| u64::try_from(s).unwrap_or(1).max(1));
        self.cache_seconds = self.cache_seconds.or(seconds);
    }

    /// The URL with its version.
    #[must_use]
    pub fn url(&self) -> String {
        let url = self.auth_url.as_deref().unwrap_or_default();
        let url = url.trim_end_matches('/');
        let base = url.strip_suffix("/v2.0").unwrap_or(url);
        if base.ends_with("/v3") {
            base.to_owned()
        } else {
            format!("{base}/v3")
        }
    }

    /// Seconds an answer is kept.
    #[must_use]
    pub fn cache_seconds(&self) -> u64 {
        self.cache_seconds.unwrap_or(60)
    }

    pub(crate) fn validate(&self, section: &str, faults: &mut Vec<String>) {
        let mut fault = |what: &str| faults.push(format!("{section}: {what}"));
        match self.auth_url.as_deref() {
            None => fault("auth_url is not set"),
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                fault("auth_url is no http:// or https:// URL");
            }
            Some(_) => {}
        }
        let domain = self.user_domain_id.is_some() || self.user_domain_name.is_some();
        let user = self.user_id.is_some() || (self.username.is_some() && domain);
        if self.application_credential_secret.is_some() {
            let by_name = self.application_credential_name.is_some() && user;
            if self.application_credential_id.is_none() && !by_name {
                fault(
                    "an application credential is named by application_credential_id, or by \
                     application_credential_name and the user",
                );
            }
        } else {
            if !user {
                fault("the user is named by user_id, or by username and user_domain_id or _name");
            }
            if self.password.is_none() {
                fault("neither password nor application_credential_secret is set");
            }
            let domain = self.project_domain_id.is_some() || self.project_domain_name.is_some();
            let project = self.project_id.is_some() || (self.project_name.is_some() && domain);
            if !project && self.system_scope.is_none() {
                fault(
                    "the project is named by project_id, or by project_name and \
                     project_domain_id or _name",
                );
            }
        }
        if self.cache_seconds == Some(0) || self.cache_entries == 0 || self.timeout == 0 {
            fault("cache_seconds, cache_entries and timeout are 1 or more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_section_is_taken_over() {
        let file = OsloFile::parse(
            "[keystone_authtoken]\nauth_url = http://k/identity\nwww_authenticate_uri = http://p\n\
             username = glance\npassword = secret\nuser_domain_name = Default\n\
             project_name = service\nproject_domain_name = Default\ntoken_cache_time = -1\n\
             service_token_roles = service,other\ninsecure = yes\n",
        )
        .unwrap();
        let mut config = KeystoneConfig {
            username: Some("glint".into()),
            ..KeystoneConfig::default()
        };
        config.fill(&file, "keystone_authtoken");
        let mut faults = Vec::new();
        config.validate("auth.keystone", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(config.url(), "http://k/identity/v3");
        assert_eq!(config.username.as_deref(), Some("glint"));
        assert_eq!(config.password.as_ref().unwrap().reveal(), "secret");
        assert_eq!((config.cache_seconds(), config.insecure), (1, Some(true)));
        assert_eq!(config.service_token_roles.unwrap().len(), 2);
    }

    #[test]
    fn urls_get_their_version() {
        for (url, want) in [
            ("http://k:5000", "http://k:5000/v3"),
            ("http://k:5000/v3/", "http://k:5000/v3"),
            ("http://k/identity/v2.0", "http://k/identity/v3"),
        ] {
            let config = KeystoneConfig {
                auth_url: Some(url.into()),
                ..KeystoneConfig::default()
            };
            assert_eq!(config.url(), want);
        }
    }

    #[test]
    fn what_is_missing_is_told_at_once() {
        let mut faults = Vec::new();
        KeystoneConfig::default().validate("auth.keystone", &mut faults);
        assert_eq!(faults.len(), 4, "{faults:?}");
    }
}
