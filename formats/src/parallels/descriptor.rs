//! `DiskDescriptor.xml`: which files a bundle's disk is made of.

use std::ops::Range;

use super::layout::SECTOR;
use crate::xml::{self, Element};
use crate::{Error, Format, Result};

/// Bytes of a descriptor: one of a thousand images takes a fifth of it.
pub(super) const MAX_LEN: u64 = 1 << 20;
/// Storages, snapshots, and images of one storage.
const MAX_PARTS: usize = 1024;
/// The snapshot that is the present state where the descriptor does not name another.
const TOP: &str = "5fbaabe3-6958-40ff-92a7-860e329aab41";
/// The parent of the first snapshot, and the engine of what is not encrypted.
const NONE: &str = "00000000-0000-0000-0000-000000000000";
/// Bytes of a file's name.
const MAX_NAME: usize = 255;

/// Whether a file that begins with `head` is a descriptor.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let tag = b"<Parallels_disk_image";
    head.trim_ascii_start().starts_with(b"<") && head.windows(tag.len()).any(|w| w == tag)
}

/// A descriptor; its storages cover the disk without a gap.
#[derive(Debug)]
pub(super) struct Descriptor {
    /// Virtual size in bytes.
    pub(super) size: u64,
    pub(super) storages: Vec<Storage>,
    pub(super) shots: Vec<Shot>,
    top: Option<String>,
    pub(super) is_encrypted: bool,
}

/// A part of the disk and its images, one a snapshot.
#[derive(Debug)]
pub(super) struct Storage {
    /// Guest bytes.
    pub(super) range: Range<u64>,
    /// Bytes of a block of its expanding images.
    pub(super) block_size: u64,
    pub(super) images: Vec<Image>,
}

/// A file with the contents of a storage, or with what changed since the snapshot before.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) guid: String,
    /// `Plain`, where the file is the contents; else it is an expanding disk.
    pub(super) is_plain: bool,
    pub(super) file: String,
}

/// A snapshot; GUIDs in small letters without braces.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) guid: String,
    pub(super) parent: String,
}

fn malformed(message: impl Into<String>) -> Error {
    Error::malformed(Format::Parallels, "descriptor", message)
}

/// Refuses more of one kind than [`MAX_PARTS`].
fn bounded<T>(parts: Vec<T>, what: &str) -> Result<Vec<T>> {
    if parts.len() > MAX_PARTS {
        let message = format!("has {} {what}, allowed {MAX_PARTS}", parts.len());
        return Err(Error::limit(Format::Parallels, "descriptor", message));
    }
    Ok(parts)
}

fn child<'a>(element: &'a Element, name: &str) -> Result<&'a Element> {
    let mut found = element.children.iter().filter(|e| e.name == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(malformed(format!("{} has no {name}", element.name))),
        (Some(_), Some(_)) => Err(malformed(format!("{} has two {name}", element.name))),
    }
}

fn number(element: &Element, name: &str) -> Result<u64> {
    let text = &child(element, name)?.text;
    text.parse()
        .map_err(|_| malformed(format!("{name} is {text:?}, which is no number")))
}

/// A number of sectors, in bytes.
fn sectors(element: &Element, name: &str) -> Result<u64> {
    let count = number(element, name)?;
    count.checked_mul(SECTOR).ok_or_else(|| {
        malformed(format!(
            "{name} is {count} sectors, more than 64 bits of bytes"
        ))
    })
}

/// A GUID as it is compared: programs disagree on braces and capitals.
fn plain_guid(text: &str) -> String {
    text.trim_matches(['{', '}']).to_ascii_lowercase()
}

fn guid(element: &Element, name: &str) -> Result<String> {
    Ok(plain_guid(&child(element, name)?.text))
}

impl Descriptor {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let root = xml::parse(bytes, Format::Parallels)?;
        if root.name != "Parallels_disk_image" {
            return Err(malformed(format!("is a {:?}", root.name)));
        }
        let parameters = child(&root, "Disk_Parameters")?;
        let padding = parameters.text_of("Padding").unwrap_or("0");
        if padding != "0" {
            let message = format!("Padding is {padding:?}, allowed 0");
            return Err(Error::unsupported(Format::Parallels, "descriptor", message));
        }
        let engine = parameters
            .all("Encryption")
            .find_map(|encryption| encryption.text_of("Engine"));
        let storages = child(&root, "StorageData")?
            .all("Storage")
            .map(Storage::parse)
            .collect::<Result<Vec<_>>>()?;
        let snapshots = root.all("Snapshots").next();
        let shots = snapshots.iter().flat_map(|s| s.all("Shot")).map(|shot| {
            Ok(Shot {
                guid: guid(shot, "GUID")?,
                parent: guid(shot, "ParentGUID")?,
            })
        });
        let mut descriptor = Self {
            size: sectors(parameters, "Disk_size")?,
            storages: bounded(storages, "storages")?,
            shots: bounded(shots.collect::<Result<_>>()?, "snapshots")?,
            top: snapshots.and_then(|s| s.text_of("TopGUID")).map(plain_guid),
            is_encrypted: engine.is_some_and(|engine| plain_guid(engine) != NONE),
        };
        descriptor.storages.sort_by_key(|s| s.range.start);
        descriptor.check_storages().map(|()| descriptor)
    }

    /// The storages cover the disk, each byte once.
    fn check_storages(&self) -> Result<()> {
        let mut at = 0;
        for storage in &self.storages {
            let Range { start, end } = storage.range;
            if start != at || end <= start {
                return Err(malformed(format!(
                    "a storage takes the sectors from {} to {}, where {} was due",
                    start / SECTOR,
                    end / SECTOR,
                    at / SECTOR
                )));
            }
            at = end;
        }
        if at != self.size {
            return Err(malformed(format!(
                "its storages end at sector {}, Disk_size is {}",
                at / SECTOR,
                self.size / SECTOR
            )));
        }
        Ok(())
    }

    /// The GUIDs of the images that make up a state, the topmost first: the present one, or
    /// that of the snapshot with the GUID `wanted`.
    ///
    /// # Errors
    /// `Usage` when there is no such snapshot; `Malformed` when the snapshots are no tree;
    /// `Refused` when they are more than `most`.
    pub(super) fn chain(&self, wanted: Option<&str>, most: usize) -> Result<Vec<String>> {
        let first = match wanted.map(plain_guid) {
            Some(guid) if self.shots.iter().any(|shot| shot.guid == guid) => guid,
            Some(guid) => {
                let message = format!("the disk has no snapshot {guid:?}");
                return Err(Error::usage(message));
            }
            None => self.present()?,
        };
        let mut chain = vec![first];
        while let Some(guid) = chain.last() {
            let mut shots = self.shots.iter().filter(|shot| shot.guid == *guid);
            let parent = match (shots.next(), shots.next()) {
                (Some(shot), None) if shot.parent == NONE => break,
                (Some(shot), None) => shot.parent.clone(),
                // Without snapshots there is one image, and it has no parent.
                (None, _) if self.shots.is_empty() => break,
                (None, _) => return Err(malformed(format!("there is no snapshot {guid:?}"))),
                (Some(_), Some(_)) => {
                    return Err(malformed(format!("there are two snapshots {guid:?}")));
                }
            };
            if chain.contains(&parent) {
                let message = format!("the snapshot {parent:?} is its own ancestor");
                return Err(malformed(message));
            }
            if chain.len() == most {
                let message = format!("more than {most} snapshots lie upon each other");
                return Err(Error::refused(Format::Parallels, "descriptor", message));
            }
            chain.push(parent);
        }
        Ok(chain)
    }

    /// The GUID of the present state.
    fn present(&self) -> Result<String> {
        if let Some(top) = &self.top {
            return Ok(top.clone());
        }
        if self.shots.iter().any(|shot| shot.guid == TOP) {
            return Ok(TOP.to_owned());
        }
        let mut images = self.storages.iter().flat_map(|s| &s.images);
        let first = images.next().map(|image| image.guid.clone());
        match first {
            Some(guid) if images.all(|image| image.guid == guid) => Ok(guid),
            _ => Err(malformed(
                "does not say which of its snapshots is the present state",
            )),
        }
    }
}

impl Storage {
    fn parse(element: &Element) -> Result<Self> {
        let images = element.all("Image").map(Image::parse);
        Ok(Self {
            range: sectors(element, "Start")?..sectors(element, "End")?,
            block_size: sectors(element, "Blocksize")?,
            images: bounded(images.collect::<Result<_>>()?, "images in a storage")?,
        })
    }

    /// The image of a snapshot.
    pub(super) fn image(&self, guid: &str) -> Result<&Image> {
        let mut images = self.images.iter().filter(|image| image.guid == guid);
        let what = match (images.next(), images.next()) {
            (Some(image), None) => return Ok(image),
            (None, _) => "no image",
            (Some(_), Some(_)) => "two images",
        };
        Err(malformed(format!(
            "the storage at sector {} has {what} of the snapshot {guid:?}",
            self.range.start / SECTOR
        )))
    }
}

impl Image {
    fn parse(element: &Element) -> Result<Self> {
        let is_plain = match child(element, "Type")?.text.as_str() {
            "Plain" => true,
            "Compressed" => false,
            kind => {
                let message =
                    format!("an image is of type {kind:?}, known are Plain and Compressed");
                return Err(Error::unsupported(Format::Parallels, "descriptor", message));
            }
        };
        Ok(Self {
            guid: guid(element, "GUID")?,
            is_plain,
            file: child(element, "File")?.text.clone(),
        })
    }

    /// Whether the file's name is that of one beside the descriptor.
    pub(super) fn is_beside(&self) -> bool {
        let name = self.file.as_str();
        !matches!(name, "" | "." | "..")
            && name.len() <= MAX_NAME
            && !name.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
    }
}
