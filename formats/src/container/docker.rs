//! Container images in one archive, by `docker save` or as an OCI layout.
//!
//! ```text
//!  manifest.json   [ { Config, RepoTags, Layers: [ path … ] } … ]         docker save
//!  index.json      { manifests: [ { digest, annotations } … ] }           OCI image layout 1.0
//!   └─ blobs/sha256/…  manifest { config: {…}, layers: [ { digest, size, mediaType } … ] }
//! ```
//! Recognised and listed, never run or unpacked. A layer that is not compressed is looked into
//! for disks, which container disks (KubeVirt) keep in `/disk`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ova::shown;
use super::tar::{self, Kind, Listing, Member};
use super::{blank, push_finding};
use crate::codec::stream::{self, Compression};
use crate::inspect::{Finding, Inspection, Severity};
use crate::source::read_up_to;
use crate::{Format, HostOffset, Result, Slice, Source};

/// The largest JSON read, and all that is read together, in bytes.
const MAX_JSON: u64 = 1 << 20;
const MAX_ALL_JSON: u64 = 8 << 20;
/// Bytes of names and tags told, all together.
const MAX_TOLD: usize = 1 << 20;
/// Images listed, and layers of them all.
const MAX_IMAGES: usize = 64;
const MAX_LAYERS: usize = 512;
/// JSON files read, layers looked into, disks listed.
const MAX_READS: usize = 512;
const MAX_LOOKS: usize = 64;
const MAX_DISKS: usize = 256;
/// Indexes inside one another, as for several architectures.
const MAX_DEPTH: usize = 4;

struct Archive<'a> {
    source: &'a Arc<dyn Source>,
    members: HashMap<&'a str, &'a Member>,
    images: Vec<Value>,
    layers: Vec<String>,
    disks: Vec<Value>,
    faults: Vec<String>,
    reads: usize,
    /// Bytes of JSON that may still be read, and of text that may still be told.
    json: u64,
    told: usize,
    layer_count: usize,
}

/// Judges the container archive in `source`.
pub(super) fn describe(source: &Arc<dyn Source>, listing: Listing) -> Result<Inspection> {
    let mut inspection = blank(Format::Docker, "docker", source.len());
    let plain = |name| str::strip_prefix(name, "./").unwrap_or(name);
    let files = listing.members.iter().filter(|m| m.kind == Kind::File);
    let mut archive = Archive {
        source,
        members: files.map(|m| (plain(m.name.as_str()), m)).collect(),
        images: Vec::new(),
        layers: Vec::new(),
        disks: Vec::new(),
        faults: Vec::new(),
        reads: 0,
        json: MAX_ALL_JSON,
        told: MAX_TOLD,
        layer_count: 0,
    };
    if archive.members.contains_key("manifest.json") {
        archive.take_saved()?;
    } else if archive.members.contains_key("index.json") {
        archive.take_index("index.json", 0)?;
    }
    archive.look_into_layers()?;
    let Archive {
        images,
        disks,
        faults,
        ..
    } = archive;
    let details = &mut inspection.details;
    details.insert("members".into(), listing.members.len().into());
    details.insert("images".into(), images.into());
    if !disks.is_empty() {
        details.insert("disks".into(), disks.into());
    }
    for message in faults {
        let finding = Finding {
            rule: "docker_manifest",
            severity: Severity::Warning,
            place: "archive".into(),
            message,
        };
        push_finding(&mut inspection.findings, finding);
    }
    if let Some(problem) = listing.problem {
        let severity = match problem.rule {
            "tar_too_many_members" => Severity::Warning,
            _ => Severity::Unsafe,
        };
        inspection.findings.push(Finding {
            rule: problem.rule,
            severity,
            place: format!("byte {}", problem.at),
            message: problem.message,
        });
    }
    Ok(inspection)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// Where a blob lies: `sha256:1f…` is `blobs/sha256/1f…`.
fn blob(digest: &Value) -> Option<String> {
    let (algorithm, hex) = text(digest)?.split_once(':')?;
    Some(format!("blobs/{algorithm}/{hex}"))
}

impl Archive<'_> {
    /// The JSON of a member, or a fault.
    fn json(&mut self, name: &str) -> Result<Option<Value>> {
        self.reads += 1;
        if self.reads > MAX_READS {
            // An index that lists itself has no end.
            return Ok(None);
        }
        let Some(member) = self.members.get(name) else {
            self.fault(name, "is not in the archive");
            return Ok(None);
        };
        let len = member.len.min(MAX_JSON);
        let Some(left) = self.json.checked_sub(len) else {
            self.fault(name, "is not read: there is too much JSON before it");
            return Ok(None);
        };
        self.json = left;
        let bytes = read_up_to(self.source.as_ref(), member.at, len as usize)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(e) => {
                self.fault(name, &format!("is no JSON: {e}"));
                Ok(None)
            }
        }
    }

    fn fault(&mut self, name: &str, what: &str) {
        if self.faults.len() < MAX_READS {
            self.faults.push(format!("{} {what}", shown(name)));
        }
    }

    /// Whether so much text may still be told: one long name stands in many images.
    fn tell(&mut self, len: usize) -> bool {
        match self.told.checked_sub(len) {
            Some(left) => {
                self.told = left;
                true
            }
            None => false,
        }
    }

    fn take_saved(&mut self) -> Result<()> {
        let manifest = self.json("manifest.json")?.unwrap_or_default();
        for image in manifest.as_array().into_iter().flatten().take(MAX_IMAGES) {
            let layers = image["Layers"].as_array().into_iter().flatten();
            let layers = layers.filter_map(text).map(ToOwned::to_owned).collect();
            let config = text(&image["Config"]).map(ToOwned::to_owned);
            self.take_image(&image["RepoTags"], config, layers)?;
        }
        Ok(())
    }

    fn take_index(&mut self, name: &str, depth: usize) -> Result<()> {
        let index = self.json(name)?.unwrap_or_default();
        if let Some(manifests) = index["manifests"].as_array().filter(|_| depth < MAX_DEPTH) {
            for manifest in manifests.iter().take(MAX_IMAGES) {
                if let Some(name) = blob(&manifest["digest"])
                    && self.images.len() < MAX_IMAGES
                    && self.reads < MAX_READS
                {
                    self.take_index(&name, depth + 1)?;
                }
            }
        } else if let Some(layers) = index["layers"].as_array() {
            let layers = layers.iter().filter_map(|layer| blob(&layer["digest"]));
            let config = blob(&index["config"]["digest"]);
            self.take_image(&Value::Null, config, layers.collect())?;
        }
        Ok(())
    }

    fn take_image(
        &mut self,
        tags: &Value,
        config: Option<String>,
        layers: Vec<String>,
    ) -> Result<()> {
        let config = match config {
            Some(name) => self.json(&name)?.unwrap_or_default(),
            None => Value::Null,
        };
        let mut listed = Vec::new();
        for name in layers {
            if self.layer_count == MAX_LAYERS || !self.tell(name.len()) {
                self.fault(&name, "is not listed: there are too many layers before it");
                break;
            }
            self.layer_count += 1;
            let Some(member) = self.members.get(name.as_str()) else {
                self.fault(&name, "is a layer, and not in the archive");
                continue;
            };
            let len = usize::try_from(member.len).map_or(stream::HEAD, |n| n.min(stream::HEAD));
            let head = read_up_to(self.source.as_ref(), member.at, len)?;
            let compression = Compression::detect(&head);
            listed.push(json!({ "name": name, "size": member.len, "compression": compression }));
            if compression.is_none()
                && self.layers.len() < MAX_LOOKS
                && !self.layers.contains(&name)
            {
                self.layers.push(name);
            }
        }
        let [tags, architecture, os] = [tags, &config["architecture"], &config["os"]].map(|said| {
            let is_told = self.tell(said.to_string().len());
            is_told.then_some(said)
        });
        self.images.push(json!({
            "tags": tags,
            "architecture": architecture,
            "os": os,
            "layers": listed,
        }));
        Ok(())
    }

    /// Lists the disks in layers.
    fn look_into_layers(&mut self) -> Result<()> {
        for name in &self.layers {
            let Some(member) = self.members.get(name.as_str()) else {
                continue;
            };
            let layer = Slice::new(self.source.clone(), member.at, member.len)?;
            let head = read_up_to(&layer, HostOffset::ZERO, stream::HEAD)?;
            if !tar::is_tar(&head) {
                continue;
            }
            let files = tar::list(&layer)?.members.into_iter();
            for file in files.filter(|f| f.kind == Kind::File && f.len > 0) {
                let path = file.name.trim_start_matches("./").trim_start_matches('/');
                if path.starts_with("disk/")
                    && self.disks.len() < MAX_DISKS
                    && let Some(left) = self.told.checked_sub(name.len() + path.len())
                {
                    self.told = left;
                    self.disks
                        .push(json!({ "layer": name, "file": path, "size": file.len }));
                }
            }
        }
        Ok(())
    }
}
