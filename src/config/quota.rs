//! `[quota]`

use serde::Deserialize;

use super::KeystoneConfig;

/// Bounds for clients; negative means unlimited.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Custom properties of an image, `os_glance_*` not counted.
    pub properties: i64,
    /// Tags of an image.
    pub tags: i64,
    /// Projects an image is shared with.
    pub members: i64,
    /// Locations of an image.
    pub locations: i64,
    /// Bytes of one image.
    pub image_size_cap: u64,
    /// What all images of a project may hold together, every copy counted: a number with B, KB, MB,
    /// GB or TB behind it (powers of 1024); `0`: anything.
    pub user_storage: String,
    /// Whether the limits that Keystone keeps hold: `image_size_total`, `image_stage_total`,
    /// `image_count_total`, `image_count_uploading`. `user_storage` counts for nothing then.
    pub use_keystone_limits: bool,
    /// Our endpoint in Keystone's catalog, by which our limits are found; by the service type `image`
    /// and `auth.keystone.region_name` where absent.
    pub endpoint_id: Option<String>,
    /// The account that reads limits, where it is not that of `[auth.keystone]`.
    pub keystone: Option<KeystoneConfig>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            properties: 128,
            tags: 128,
            members: 128,
            locations: 10,
            image_size_cap: 1 << 40,
            user_storage: "0".into(),
            use_keystone_limits: false,
            endpoint_id: None,
            keystone: None,
        }
    }
}

impl Quota {
    /// Bytes a project may hold; `None`: any number.
    #[must_use]
    pub fn user_storage(&self) -> Option<u64> {
        parse_size(&self.user_storage).filter(|n| *n > 0)
    }

    pub(super) fn validate(&self, keystone: bool, faults: &mut Vec<String>) {
        if parse_size(&self.user_storage).is_none() {
            faults.push(format!(
                "quota.user_storage is {:?}: written as a number with B, KB, MB, GB or TB behind it",
                self.user_storage
            ));
        }
        if let Some(account) = &self.keystone {
            account.validate("quota.keystone", faults);
        } else if self.use_keystone_limits && !keystone {
            faults.push(
                "quota.use_keystone_limits needs auth.mode \"keystone\" or [quota.keystone]".into(),
            );
        }
    }
}

/// Bytes, from a number and a unit of 1024 to some power.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_has_units() {
        for (text, want) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("17B", Some(17)),
            ("2 KB", Some(2048)),
            ("1TB", Some(1 << 40)),
            ("1 GiB", None),
            ("GB", None),
            ("-1", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
        assert_eq!(Quota::default().user_storage(), None);
    }
}
