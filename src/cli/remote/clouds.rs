//! `clouds.yaml`, as the OpenStack clients read it: accounts by name.
//!
//! The first file there is of `OS_CLIENT_CONFIG_FILE`, `./clouds.yaml`, `~/.config/openstack` and
//! `/etc/openstack`; `secure.yaml` in the same places adds what is secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value};

/// Bytes of such a file at most.
const MAX_BYTES: u64 = 1 << 20;

/// What a cloud says, by the variables that would say the same.
pub(super) type Said = BTreeMap<String, String>;

/// What the files say of the cloud `name`.
pub(super) fn find(name: &str, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Said> {
    let file = |variable: &str, file: &str| {
        let named = env(variable).map(PathBuf::from);
        let mut usual =
            places(env).flat_map(|dir| [dir.join(file), dir.join(file).with_extension("yml")]);
        named.or_else(|| usual.find(|path| path.exists()))
    };
    let path = file("OS_CLIENT_CONFIG_FILE", "clouds.yaml").context(
        "a cloud is named, but there is no clouds.yaml: neither here, nor in ~/.config/openstack, nor in \
         /etc/openstack",
    )?;
    let placed = || path.display().to_string();
    let mut clouds = read(&path).with_context(placed)?;
    let Some(mut cloud) = clouds.remove(name) else {
        let names: Vec<_> = clouds.keys().map(String::as_str).collect();
        bail!(
            "{}: has no cloud {name:?}, it has {}",
            placed(),
            names.join(", ")
        );
    };
    if let Some(path) = file("OS_CLIENT_SECURE_FILE", "secure.yaml") {
        let mut secrets = read(&path).with_context(|| path.display().to_string())?;
        merge(&mut cloud, secrets.remove(name).unwrap_or_default());
    }
    said(&cloud).with_context(|| format!("{}: cloud {name:?}", placed()))
}

fn places(env: &dyn Fn(&str) -> Option<String>) -> impl Iterator<Item = PathBuf> {
    let config = env("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(env("HOME")?).join(".config")));
    let config = config.map(|dir| dir.join("openstack"));
    [Some(PathBuf::new()), config, Some("/etc/openstack".into())]
        .into_iter()
        .flatten()
}

/// The clouds of a file.
fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Map<String, Value>>> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        clouds: BTreeMap<String, Option<Map<String, Value>>>,
    }
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        bail!("{size} bytes, allowed {MAX_BYTES}");
    }
    let file: Option<File> = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let clouds = file.map_or_else(BTreeMap::new, |file| file.clouds);
    Ok(clouds
        .into_iter()
        .map(|(name, cloud)| (name, cloud.unwrap_or_default()))
        .collect())
}

/// Adds `more` to `cloud`, over what is there.
fn merge(cloud: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (cloud.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                cloud.insert(key, value);
            }
        }
    }
}

fn said(cloud: &Map<String, Value>) -> anyhow::Result<Said> {
    let mut said = Said::new();
    for (key, value) in cloud {
        match (key.as_str(), value) {
            ("profile" | "cloud", _) => {
                bail!("has the {key} of a provider, which is not read: name its auth_url")
            }
            ("auth", Value::Object(auth)) => {
                for (key, value) in auth {
                    say(&mut said, &key.to_ascii_uppercase(), value)
                        .with_context(|| format!("auth.{key}"))?;
                }
            }
            ("verify", Value::Bool(false)) => say(&mut said, "INSECURE", &"1".into())?,
            ("verify", Value::Bool(true) | Value::Null) => {}
            ("verify", _) => bail!("verify is neither true nor false"),
            ("endpoint_type", value) => say(&mut said, "INTERFACE", value)?,
            (
                "auth_type" | "region_name" | "interface" | "cacert" | "image_endpoint_override",
                value,
            ) => say(&mut said, &key.to_ascii_uppercase(), value).with_context(|| key.clone())?,
            // What other services need.
            _ => {}
        }
    }
    Ok(said)
}

fn say(said: &mut Said, name: &str, value: &Value) -> anyhow::Result<()> {
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => return Ok(()),
        _ => bail!("is no text"),
    };
    said.insert(format!("OS_{name}"), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_says_what_its_variables_would() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let clouds = file(
            "clouds.yaml",
            "clouds:\n  one:\n    auth:\n      auth_url: http://k:5000/v3\n      username: u\n      \
             project_name: 7\n    region_name: R\n    verify: false\n    volume_api_version: 3\n  \
             vendor:\n    profile: acme\n  empty:\n  odd:\n    auth:\n      username: [a]\n",
        );
        let secure = file(
            "secure.yaml",
            "clouds:\n  one:\n    auth:\n      password: s\n",
        );
        let env = |name: &str| match name {
            "OS_CLIENT_CONFIG_FILE" => Some(clouds.clone()),
            "OS_CLIENT_SECURE_FILE" => Some(secure.clone()),
            _ => None,
        };
        let one = find("one", &env).unwrap();
        let pairs: Vec<_> = one.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let want = [
            ("OS_AUTH_URL", "http://k:5000/v3"),
            ("OS_INSECURE", "1"),
            ("OS_PASSWORD", "s"),
            ("OS_PROJECT_NAME", "7"),
            ("OS_REGION_NAME", "R"),
            ("OS_USERNAME", "u"),
        ];
        assert_eq!(pairs, want);
        for (name, needle) in [
            (
                "two",
                "has no cloud \"two\", it has empty, odd, one, vendor",
            ),
            ("vendor", "the profile of a provider"),
            ("odd", "auth.username"),
        ] {
            let error = format!("{:#}", find(name, &env).unwrap_err());
            assert!(error.contains(needle), "{error}");
        }
    }
}
