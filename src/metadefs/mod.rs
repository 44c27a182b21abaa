//! Files of metadata definitions, one namespace each: the stock catalogue that comes with us, and
//! loading, unloading and exporting (`glint db load-metadefs` and its kin). The JSON is that of
//! `POST /v2/metadefs/namespaces`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::metadefs as json;
use crate::catalog::Catalog;
use crate::catalog::metadefs as rows;
use crate::domain::Timestamp;
use crate::domain::metadef::{Contents, Namespace};

macro_rules! stock {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("stock/", $name, ".json")))),*]
    };
}

/// The stock catalogue: names of files and what is in them.
const STOCK: [(&str, &str); 31] = stock![
    "cinder-image-volume-cache",
    "cinder-volumetype",
    "compute-aggr-disk-filter",
    "compute-aggr-iops-filter",
    "compute-aggr-num-instances",
    "compute-cpu-pinning",
    "compute-guest-memory-backing",
    "compute-guest-shutdown",
    "compute-host-capabilities",
    "compute-hypervisor",
    "compute-instance-data",
    "compute-libvirt-image",
    "compute-libvirt",
    "compute-numa",
    "compute-quota",
    "compute-randomgen-image",
    "compute-randomgen",
    "compute-secure-boot",
    "compute-tpm",
    "compute-traits",
    "compute-trust",
    "compute-vcputopology",
    "compute-vmware-flavor",
    "compute-vmware",
    "compute-watchdog",
    "glance-common-image-properties",
    "glance-image-signature",
    "operating-system",
    "software-databases",
    "software-runtimes",
    "software-webservers",
];

/// Characters that stay as they are in the name of an exported file.
const IN_FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b':').remove(b'-').remove(b'_');

/// A namespace and what is in it.
pub type Whole = (Namespace, Contents);

/// What loading did, in namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// New ones.
    pub added: usize,
    /// Ones that were there and are as the file has them now.
    pub replaced: usize,
    /// Ones that were there and stayed.
    pub kept: usize,
}

/// The stock catalogue.
///
/// # Errors
/// Never for the files that come with us: a test reads them all.
pub fn stock(now: Timestamp) -> anyhow::Result<Vec<Whole>> {
    STOCK
        .iter()
        .map(|(name, text)| parse(name, text, now))
        .collect()
}

/// Every `*.json` in a folder, in the order of their names.
///
/// # Errors
/// When the folder cannot be read, or a file is no namespace.
pub fn read(dir: &Path, now: Timestamp) -> anyhow::Result<Vec<Whole>> {
    let place = || format!("reading {}", dir.display());
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<Result<_, _>>()
        })
        .with_context(place)?;
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    if files.is_empty() {
        bail!("{} holds no .json file", dir.display());
    }
    files
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
            parse(&name, &text, now)
        })
        .collect()
}

fn parse(name: &str, text: &str, now: Timestamp) -> anyhow::Result<Whole> {
    json::from_file(text, now).map_err(|fault| anyhow!("{name}: {fault}"))
}

/// Puts namespaces into the catalog, all of them or none. One that is there stays as it is, unless
/// it shall be replaced.
///
/// # Errors
/// When the catalog fails.
pub async fn load(
    catalog: &Catalog,
    namespaces: &[Whole],
    replace: bool,
) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut tx = catalog.write().await?;
    for (namespace, contents) in namespaces {
        match rows::namespaces::find(&mut tx, &namespace.name).await? {
            Some(_) if !replace => {
                loaded.kept += 1;
                continue;
            }
            Some(found) => {
                rows::namespaces::delete(&mut tx, found.id).await?;
                loaded.replaced += 1;
            }
            None => loaded.added += 1,
        }
        rows::insert(&mut tx, namespace, contents)
            .await
            .with_context(|| format!("adding {}", namespace.name))?;
    }
    tx.commit().await?;
    Ok(loaded)
}

/// Removes namespaces, protected or not: these, or all where none is named. Answers how many.
///
/// # Errors
/// When one is not there; nothing is removed then.
pub async fn unload(catalog: &Catalog, names: &[String]) -> anyhow::Result<usize> {
    let mut tx = catalog.write().await?;
    let chosen = choose(rows::namespaces::all(&mut tx).await?, names)?;
    for found in &chosen {
        rows::namespaces::delete(&mut tx, found.id).await?;
    }
    tx.commit().await?;
    Ok(chosen.len())
}

/// Writes namespaces to files in `dir`: these, or all where none is named. Answers how many.
///
/// # Errors
/// When one is not there, or a file cannot be written.
pub async fn export(catalog: &Catalog, names: &[String], dir: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut tx = catalog.read().await?;
    let chosen = choose(rows::namespaces::all(&mut tx).await?, names)?;
    for found in &chosen {
        let contents = rows::contents(&mut tx, found.id).await?;
        let name = utf8_percent_encode(&found.namespace.name, IN_FILE_NAME);
        let path = dir.join(format!("{name}.json"));
        std::fs::write(&path, json::to_file(&found.namespace, &contents))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(chosen.len())
}

fn choose(mut there: Vec<rows::Found>, names: &[String]) -> anyhow::Result<Vec<rows::Found>> {
    if names.is_empty() {
        return Ok(there);
    }
    let mut wanted: BTreeSet<_> = names.iter().map(String::as_str).collect();
    there.retain(|found| wanted.remove(found.namespace.name.as_str()));
    match wanted.first() {
        Some(missing) => bail!("there is no namespace {missing}"),
        None => Ok(there),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_catalogue_is_whole() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metadefs/stock");
        let files = std::fs::read_dir(dir).unwrap();
        let there: BTreeSet<_> = files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        let named: BTreeSet<_> = STOCK.iter().map(|(n, _)| format!("{n}.json")).collect();
        assert_eq!(there, named);

        let all = stock(Timestamp(0)).unwrap();
        let names: BTreeSet<_> = all.iter().map(|(n, _)| n.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "every file is another namespace");
        for (namespace, contents) in &all {
            assert!(!contents.associations.is_empty(), "{}", namespace.name);
            assert!(
                !contents.properties.is_empty() || !contents.objects.is_empty(),
                "{}",
                namespace.name
            );
        }
    }

    #[test]
    fn defaults_of_stock_properties_fit_them() {
        for (namespace, contents) in stock(Timestamp(0)).unwrap() {
            let of_objects = contents.objects.iter().flat_map(|o| &o.properties);
            for property in contents.properties.iter().chain(of_objects) {
                let place = format!("{} {}", namespace.name, property.name);
                let kind = property.definition["type"].as_str().unwrap();
                if let Some(default) = property.definition.get("default") {
                    assert_eq!(default.is_boolean(), kind == "boolean", "{place}");
                    if let Some(allowed) = property.definition.get("enum") {
                        assert!(allowed.as_array().unwrap().contains(default), "{place}");
                    }
                }
                let items = property.definition.get("items");
                assert_eq!(items.is_some(), kind == "array", "{place}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_exported_loads_again() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_sqlite(&dir.path().join("db")).await.unwrap();
        catalog.sync().await.unwrap();
        let all = stock(Timestamp(0)).unwrap();
        let loaded = load(&catalog, &all, false).await.unwrap();
        assert_eq!(loaded.added, all.len());
        assert_eq!(load(&catalog, &all, false).await.unwrap().kept, all.len());

        let files = dir.path().join("files");
        assert_eq!(export(&catalog, &[], &files).await.unwrap(), all.len());
        let mut again = read(&files, Timestamp(0)).unwrap();
        let mut want = all.clone();
        for list in [&mut again, &mut want] {
            list.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        }
        assert_eq!(again, want);

        let name = want[0].0.name.clone();
        let some = [name.clone(), "none".into()];
        assert!(unload(&catalog, &some).await.is_err());
        assert_eq!(unload(&catalog, &[name]).await.unwrap(), 1);
        let loaded = load(&catalog, &want, true).await.unwrap();
        assert_eq!((loaded.added, loaded.replaced), (1, all.len() - 1));
        assert_eq!(unload(&catalog, &[]).await.unwrap(), all.len());
    }
}
