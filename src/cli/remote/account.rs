//! Which image service, and as whom: said as to the OpenStack clients, by their variables.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::builder::FalseyValueParser;
use reqwest::header::HeaderValue;

use super::clouds;
use crate::config::{KeystoneConfig, Secret};

/// The service that is meant. Who asks is said by the variables of the OpenStack clients, or by a
/// cloud of their `clouds.yaml`, for a command line is seen by others.
#[derive(clap::Args)]
pub(super) struct Account {
    /// Cloud of clouds.yaml that says what service and who asks
    #[arg(long = "os-cloud", value_name = "NAME", env = "OS_CLOUD")]
    cloud: Option<String>,

    /// URL of the image service, in place of the one that Keystone names
    #[arg(long, value_name = "URL", env = "OS_IMAGE_ENDPOINT")]
    endpoint: Option<String>,

    /// Region of the service, where Keystone names several
    #[arg(long, value_name = "NAME", env = "OS_REGION_NAME")]
    region: Option<String>,

    /// Which of the service's URLs in Keystone: public (unless said), internal or admin
    #[arg(long, value_name = "NAME", env = "OS_INTERFACE")]
    interface: Option<String>,

    /// Certificates (PEM) to trust besides those of the system
    #[arg(long, value_name = "FILE", env = "OS_CACERT")]
    cacert: Option<PathBuf>,

    /// Do not check certificates
    #[arg(long, env = "OS_INSECURE", value_parser = FalseyValueParser::new())]
    insecure: bool,
}

/// An account, found.
pub(super) struct Who {
    /// The service's URL, where it is not for Keystone to say.
    pub(super) endpoint: Option<String>,
    /// Region of the service.
    pub(super) region: Option<String>,
    /// Which of its URLs.
    pub(super) interface: String,
    /// Certificates to trust.
    pub(super) cacert: Option<PathBuf>,
    /// Whether certificates are not checked.
    pub(super) insecure: bool,
    /// As whom.
    pub(super) login: Login,
}

/// What shows who asks.
pub(super) enum Login {
    /// Nothing: a service that asks for nothing.
    Nobody,
    /// A token that somebody has got already.
    Token(HeaderValue),
    /// An account at Keystone.
    Keystone(Box<KeystoneConfig>),
}

impl Account {
    /// What is said on the command line, by a cloud, and by variables. Where a cloud is named, the
    /// account is that cloud's alone: half of another would be none.
    pub(super) fn find(&self) -> anyhow::Result<Who> {
        let cloud = self.cloud.as_deref().filter(|name| !name.is_empty());
        let cloud = cloud.map(|name| clouds::find(name, &env)).transpose()?;
        let said = |name: &str| match &cloud {
            Some(cloud) => cloud.get(name).filter(|v| !v.is_empty()).cloned(),
            None => env(name),
        };
        let given = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
        let interface = given(&self.interface).or_else(|| said("OS_INTERFACE"));
        Ok(Who {
            endpoint: given(&self.endpoint)
                .or_else(|| said("OS_IMAGE_ENDPOINT_OVERRIDE"))
                .or_else(|| said("OS_ENDPOINT")),
            region: given(&self.region).or_else(|| said("OS_REGION_NAME")),
            interface: interface.unwrap_or_else(|| "public".into()),
            cacert: (self.cacert.clone()).or_else(|| said("OS_CACERT").map(PathBuf::from)),
            insecure: self.insecure || cloud.is_some() && said("OS_INSECURE").is_some(),
            login: login(&said)?,
        })
    }
}

type Saying<'a> = &'a dyn Fn(&str) -> Option<String>;

/// As whom, by `OS_AUTH_TYPE` or by what else is said.
fn login(said: Saying<'_>) -> anyhow::Result<Login> {
    let kind = said("OS_AUTH_TYPE");
    let token = said("OS_TOKEN").or_else(|| said("OS_AUTH_TOKEN"));
    match kind.as_deref() {
        Some("none" | "noauth") => Ok(Login::Nobody),
        Some("token" | "admin_token" | "v3token") => {
            by_token(&token.context("OS_AUTH_TYPE asks for OS_TOKEN, which is not set")?)
        }
        Some("password" | "v3password" | "v3applicationcredential") => keystone(said),
        Some(other) => bail!(
            "OS_AUTH_TYPE is {other:?}, allowed none, token, password, v3password, \
             v3applicationcredential"
        ),
        None => match token {
            Some(token) => by_token(&token),
            None if said("OS_AUTH_URL").is_some() => keystone(said),
            None => Ok(Login::Nobody),
        },
    }
}

fn by_token(token: &str) -> anyhow::Result<Login> {
    let mut token = HeaderValue::from_str(token)
        .ok()
        .context("OS_TOKEN is no token")?;
    token.set_sensitive(true);
    Ok(Login::Token(token))
}

fn keystone(said: Saying<'_>) -> anyhow::Result<Login> {
    let config = from(said);
    let mut faults = Vec::new();
    config.validate("OS_*", &mut faults);
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(Login::Keystone(Box::new(config)))
}

/// The account that the variables name; domains that none is said of are the default one, as for the
/// stock clients.
fn from(env: Saying<'_>) -> KeystoneConfig {
    let domain = |id: &str, name: &str| match (env(id), env(name)) {
        (None, None) => {
            let default = env("OS_DEFAULT_DOMAIN").unwrap_or_else(|| "default".into());
            (Some(default), None)
        }
        said => said,
    };
    let (user_domain_id, user_domain_name) = domain("OS_USER_DOMAIN_ID", "OS_USER_DOMAIN_NAME");
    let (project_domain_id, project_domain_name) =
        domain("OS_PROJECT_DOMAIN_ID", "OS_PROJECT_DOMAIN_NAME");
    KeystoneConfig {
        auth_url: env("OS_AUTH_URL"),
        username: env("OS_USERNAME"),
        user_id: env("OS_USER_ID"),
        password: env("OS_PASSWORD").map(Secret::new),
        user_domain_id,
        user_domain_name,
        project_name: env("OS_PROJECT_NAME").or_else(|| env("OS_TENANT_NAME")),
        project_id: env("OS_PROJECT_ID").or_else(|| env("OS_TENANT_ID")),
        project_domain_id,
        project_domain_name,
        system_scope: env("OS_SYSTEM_SCOPE"),
        application_credential_id: env("OS_APPLICATION_CREDENTIAL_ID"),
        application_credential_name: env("OS_APPLICATION_CREDENTIAL_NAME"),
        application_credential_secret: env("OS_APPLICATION_CREDENTIAL_SECRET").map(Secret::new),
        ..KeystoneConfig::default()
    }
}

/// A variable that says something.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(said: &[(&str, &str)]) -> (KeystoneConfig, Vec<String>) {
        let config = from(&|name| {
            let value = said.iter().find(|(key, _)| *key == name);
            value.map(|(_, value)| (*value).to_owned())
        });
        let mut faults = Vec::new();
        config.validate("OS_*", &mut faults);
        (config, faults)
    }

    #[test]
    fn accounts_are_named_as_for_the_stock_clients() {
        let (config, faults) = account(&[
            ("OS_AUTH_URL", "http://k:5000"),
            ("OS_USERNAME", "u"),
            ("OS_PASSWORD", "s"),
            ("OS_USER_DOMAIN_NAME", "D"),
            ("OS_PROJECT_NAME", "p"),
        ]);
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.user_domain_name.as_deref(), Some("D"));
        assert_eq!(config.user_domain_id, None);
        assert_eq!(config.project_domain_id.as_deref(), Some("default"));

        let (_, faults) = account(&[
            ("OS_AUTH_URL", "http://k:5000"),
            ("OS_APPLICATION_CREDENTIAL_ID", "c"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ]);
        assert_eq!(faults, [""; 0]);

        let (_, faults) = account(&[("OS_AUTH_URL", "http://k"), ("OS_USERNAME", "u")]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
