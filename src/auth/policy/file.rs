//! `policy.yaml`, or the older `policy.json`: names of rules and what must hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::RuleSet;
use crate::config::Auth;

/// Bytes of a policy file at most.
const MAX_BYTES: u64 = 1 << 20;

/// The rules that hold: the defaults, and above them those of the policy file; `asked` are names of
/// rules that property protections ask. The second part are warnings about what is odd but harmless.
///
/// # Errors
/// Everything that is wrong with the file, one sentence each.
pub fn load(auth: &Auth, asked: &[&str]) -> Result<(Arc<RuleSet>, Vec<String>), Vec<String>> {
    let (rules, warnings) = match &auth.policy_file {
        None => RuleSet::with(&BTreeMap::new(), auth.enforce_scope, asked)?,
        Some(path) => {
            let placed = |fault: String| format!("{}: {fault}", path.display());
            let all = |faults: Vec<String>| faults.into_iter().map(placed).collect::<Vec<_>>();
            let file = read(path).map_err(|e| all(vec![e]))?;
            let (rules, warnings) = RuleSet::with(&file, auth.enforce_scope, asked).map_err(all)?;
            (rules, all(warnings))
        }
    };
    Ok((Arc::new(rules), warnings))
}

fn read(path: &Path) -> Result<BTreeMap<String, Value>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes, allowed {MAX_BYTES}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    if path.extension().is_some_and(|e| e == "json") {
        return serde_json::from_str(&text).map_err(|e| e.to_string());
    }
    // A file of comments alone, as oslo.policy's generator writes it, is no mapping.
    let rules: Option<BTreeMap<String, Value>> =
        serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
    Ok(rules.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<BTreeMap<String, Value>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    fn with(path: std::path::PathBuf) -> Auth {
        Auth {
            policy_file: Some(path),
            ..Auth::default()
        }
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "# Who may look\n\"get_image\": \"role:reader\"\ndelete_image:\n  - role:a\n  - [role:b, role:c]\n";
        let json =
            r#"{"get_image": "role:reader", "delete_image": ["role:a", ["role:b", "role:c"]]}"#;
        let rules = of("policy.yaml", yaml).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules, of("policy.json", json).unwrap());
    }

    #[test]
    fn nothing_said_is_nothing_changed() {
        assert_eq!(of("p.yaml", "").unwrap(), BTreeMap::new());
        assert_eq!(
            of("p.yaml", "# \"get_image\": \"\"\n").unwrap(),
            BTreeMap::new()
        );
    }

    #[test]
    fn faults_name_the_file() {
        for (name, text) in [
            ("p.yaml", "- a list"),
            ("p.yaml", "a: [unclosed"),
            ("p.json", "{"),
            ("p.yaml", "get_image: rule:nowhere"),
            ("p.yaml", "get_image: {a: b}"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let faults = load(&with(path), &[]).unwrap_err();
            assert!(faults[0].contains(name), "{faults:?}");
        }
        assert!(load(&with("/nonexistent/policy.yaml".into()), &[]).is_err());
    }
}
