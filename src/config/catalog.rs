//! `[catalog]`: which database.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Secret;

/// The environment variable that goes before `url`.
const URL_VARIABLE: &str = "GLINT_CATALOG_URL";

/// `[catalog]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalog {
    /// `sqlite:FILE` (relative to `data_dir`), `postgres://…`, `mysql://…` or `mariadb://…`; `glint.db`
    /// in `data_dir` where absent. `GLINT_CATALOG_URL` in the environment goes before it.
    pub url: Option<Secret>,
    /// Connections to a server at most.
    pub connections: u32,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            url: None,
            connections: 16,
        }
    }
}

/// Where the catalog is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogPlace {
    /// A SQLite file, ours alone.
    Embedded(PathBuf),
    /// A database server, perhaps shared with other processes.
    Server(Secret),
}

impl Catalog {
    /// Takes from the environment what it says.
    pub(super) fn take_environment(&mut self) {
        if let Ok(url) = std::env::var(URL_VARIABLE)
            && !url.is_empty()
        {
            self.url = Some(Secret::new(url));
        }
    }

    /// Where the catalog is, of a service whose data is in `data_dir`. `None` for a URL of no known
    /// kind.
    #[must_use]
    pub fn place(&self, data_dir: &Path) -> Option<CatalogPlace> {
        let Some(url) = &self.url else {
            return Some(CatalogPlace::Embedded(data_dir.join("glint.db")));
        };
        let (scheme, rest) = url.reveal().split_once(':')?;
        match scheme {
            "sqlite" => {
                let file = rest.strip_prefix("//").unwrap_or(rest);
                (!file.is_empty() && !file.starts_with(':') && !file.contains('?'))
                    .then(|| CatalogPlace::Embedded(data_dir.join(file)))
            }
            "postgres" | "postgresql" | "mysql" | "mariadb" => {
                Some(CatalogPlace::Server(url.clone()))
            }
            _ => None,
        }
    }

    pub(super) fn validate(&self, data_dir: &Path, faults: &mut Vec<String>) {
        if self.place(data_dir).is_none() {
            // The URL may hold a password and is not repeated.
            faults.push(
                "catalog.url is neither sqlite:FILE nor postgres://, mysql:// or mariadb://".into(),
            );
        }
        if self.connections == 0 {
            faults.push("catalog.connections is 0, allowed 1 and above".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_catalog_is() {
        let place = |url: &str| {
            let url = Some(Secret::new(url.into()));
            Catalog {
                url,
                ..Catalog::default()
            }
            .place(Path::new("/d"))
        };
        let file = |path: &str| Some(CatalogPlace::Embedded(path.into()));
        assert_eq!(
            Catalog::default().place(Path::new("/d")),
            file("/d/glint.db")
        );
        assert_eq!(place("sqlite:x.db"), file("/d/x.db"));
        assert_eq!(place("sqlite:///y/x.db"), file("/y/x.db"));
        assert_eq!(place("sqlite::memory:"), None);
        assert!(matches!(
            place("postgres://u:p@h/d"),
            Some(CatalogPlace::Server(_))
        ));
        assert_eq!(place("oracle://h"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let catalog: Catalog = toml::from_str("url = 'mysql://u:hunter2@h/d'").unwrap();
        assert!(!format!("{catalog:?}").contains("hunter2"));
    }
}
