//! Who is asked who callers are: `[paste_deploy]`, policies, and accounts at Keystone.

use toml::Value;

use super::Work;
use crate::config::{KeystoneConfig, Secret};

impl Work<'_> {
    pub(super) fn auth(&mut self) {
        let flavor = self.take("paste_deploy", "flavor").unwrap_or_default();
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
        let mut is_keystone = false;
        for part in flavor.split('+').filter(|part| !part.is_empty()) {
            match part.trim() {
                "keystone" => is_keystone = true,
                other => self.note(
                    "paste_deploy",
                    "flavor",
                    &format!("{other} is not carried over"),
                ),
            }
        }
        if is_keystone {
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
    pub(super) fn account(&mut self, section: &str, path: &[&str]) {
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
        let secret = |secret: Option<Secret>| secret.map(|s| s.reveal().into());
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
}
