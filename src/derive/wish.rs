//! What is asked for, and what follows from that alone.

use formats::container::ova;
use formats::measure::fixed_size;
use formats::{CreateOptions, Format};
use sha2::{Digest, Sha256};

use super::Error;
use crate::config::Config;
use crate::convert::Request;
use crate::domain::Image;

/// Virtual size at which a format tells whether it can be written in order: any does.
const ANY_SIZE: u64 = 1 << 20;
/// Memory of a machine whose image does not say how much it needs, in MiB.
const MEMORY: i64 = 1024;

/// A form to bring an image into.
#[derive(Clone, Debug)]
pub struct Wish {
    target: Target,
    /// Which disk of an archive.
    disk: Option<String>,
    /// The same as text, to tell wishes apart.
    text: String,
}

#[derive(Clone, Debug)]
enum Target {
    Image {
        options: CreateOptions,
        /// The options as they were given.
        pairs: Vec<(String, String)>,
        compress: bool,
    },
    Ova(ova::WriteOptions),
}

impl Wish {
    /// Whether a query asks for any form at all.
    #[must_use]
    pub fn is_any(query: &[(String, String)]) -> bool {
        let asks = |name: &str| matches!(name, "disk_format" | "container_format");
        query.iter().any(|(name, _)| asks(name))
    }

    /// Reads the fields of a query; `None` when nothing is asked for, or what the image is
    /// already: its bytes are wanted as they are stored.
    ///
    /// # Errors
    /// `Wish`, naming the field.
    pub fn parse(query: &[(String, String)], image: &Image) -> Result<Option<Self>, Error> {
        if !Self::is_any(query) {
            return Ok(None);
        }
        let mut disk_format = None;
        let mut container = None;
        let (mut disk, mut compress) = (None, None);
        let mut pairs = Vec::new();
        for (name, value) in query {
            let field = match name.as_str() {
                "disk_format" => &mut disk_format,
                "container_format" => &mut container,
                "disk" => &mut disk,
                "compress" => &mut compress,
                "prefer" => continue,
                _ => {
                    pairs.push((name.clone(), value.clone()));
                    continue;
                }
            };
            if field.replace(value.as_str()).is_some() {
                return Err(Error::Wish(format!("{name} is given twice")));
            }
        }
        let compress = match compress {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let sentence = format!("compress is {other:?}, allowed true or false");
                return Err(Error::Wish(sentence));
            }
        };
        let container = container.unwrap_or("bare");
        let is_plain = pairs.is_empty() && !compress && disk.is_none();
        let same = |claim: &Option<String>, word: &str| claim.as_deref() == Some(word);
        if is_plain
            && same(&image.container_format, container)
            && disk_format.is_none_or(|format| same(&image.disk_format, format))
        {
            return Ok(None);
        }
        pairs.sort();
        let mut text = format!("{container} {disk_format:?} {disk:?} {compress} {pairs:?}");
        let target = match container {
            "bare" => image_target(disk_format, pairs, compress)?,
            "ova" => {
                let (options, said) = ova_target(disk_format, pairs, compress, image)?;
                text += &said;
                Target::Ova(options)
            }
            other => {
                let sentence = format!("container_format is {other:?}, allowed bare or ova");
                return Err(Error::Wish(sentence));
            }
        };
        let disk = disk.map(str::to_owned);
        Ok(Some(Self { target, disk, text }))
    }

    /// Whether an archive is asked for.
    #[must_use]
    pub fn is_archive(&self) -> bool {
        self.ova().is_some()
    }

    /// What an archive is written like, where one is asked for.
    pub(super) fn ova(&self) -> Option<&ova::WriteOptions> {
        match &self.target {
            Target::Ova(options) => Some(options),
            Target::Image { .. } => None,
        }
    }

    /// Whether it can be written in order.
    pub(super) fn streams(&self) -> bool {
        match &self.target {
            Target::Image { options, .. } => {
                formats::create(options, ANY_SIZE).is_ok_and(|target| target.preamble().is_some())
            }
            Target::Ova(_) => false,
        }
    }

    /// Bytes of an image of `virtual_size` bytes in this form, where that alone tells.
    pub(super) fn fixed_size(&self, virtual_size: Option<u64>) -> Option<u64> {
        match &self.target {
            Target::Image { options, .. } if self.streams() => {
                fixed_size(options, virtual_size?).ok()?
            }
            _ => None,
        }
    }

    /// A name for what becomes of these images: that of the bytes, and what they are to be.
    /// `None` when it is not known which bytes they are.
    pub(super) fn key(&self, images: &[Image]) -> Option<String> {
        let mut hash = Sha256::new();
        hash.update(&self.text);
        for image in images {
            hash.update(image.id.as_str());
            hash.update(&image.hashes.as_ref()?.value);
        }
        Some(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// What a worker is told that brings `image` into this form, or into `options` where it
    /// becomes a part of an archive.
    ///
    /// # Errors
    /// `Unfit` when the image cannot be read as a disk.
    pub(super) fn request(&self, image: &Image, config: &Config) -> Result<Request, Error> {
        let (output, options, compress) = match &self.target {
            Target::Image {
                options,
                pairs,
                compress,
            } => (options.format(), pairs.clone(), *compress),
            Target::Ova(options) => (Format::Vmdk, disk_pairs(options), false),
        };
        let input = input(image)?;
        let is_part = self.ova().is_some();
        let cap = config.quota.image_size_cap;
        Ok(Request {
            unpack: false,
            // What the guest of a bare image sees is known; an archive's disks are many.
            virtual_size: image.virtual_size.filter(|_| input.is_some()),
            input,
            disk: self.disk.clone(),
            is_judged: false,
            output: output.name().into(),
            options,
            compress,
            in_order: (is_part || self.streams()).then_some(0),
            sandbox: config.import.sandbox,
            memory: config.import.worker_memory,
            cpu_seconds: config.import.worker_cpu_seconds,
            max_virtual_size: config.formats.max_virtual_size,
            max_inflated: cap,
            max_output: cap,
        })
    }
}

fn image_target(
    format: Option<&str>,
    pairs: Vec<(String, String)>,
    compress: bool,
) -> Result<Target, Error> {
    let name = format.unwrap_or_default();
    let known = name.parse::<Format>();
    let format = known.map_err(|e| Error::Wish(format!("disk_format: {e}")))?;
    let parsed = CreateOptions::parse(format, &pairs, compress);
    let options = parsed.map_err(|e| Error::Wish(format!("disk_format {format}: {e}")))?;
    if options.is_split() {
        return Err(Error::Wish(
            "subformat asks for several files, and one is sent".into(),
        ));
    }
    Ok(Target::Image {
        options,
        pairs,
        compress,
    })
}

/// The options of an archive, with what the image says where the query does not; and that as
/// text, for it can change.
fn ova_target(
    format: Option<&str>,
    mut pairs: Vec<(String, String)>,
    compress: bool,
    image: &Image,
) -> Result<(ova::WriteOptions, String), Error> {
    if let Some(other) = format.filter(|format| *format != "vmdk") {
        return Err(Error::Wish(format!(
            "disk_format is {other:?}: an ova holds vmdk"
        )));
    }
    if compress {
        return Err(Error::Wish("compress: the disks of an ova are".into()));
    }
    let mut default = |key: &str, value: Option<String>| {
        if let Some(value) = value
            && !pairs.iter().any(|(given, _)| given == key)
            // What an image says is taken as far as an archive can say it.
            && ova::WriteOptions::parse(&[(key.to_owned(), value.clone())]).is_ok()
        {
            pairs.push((key.to_owned(), value));
        }
    };
    let property = |name: &str| image.properties.get(name);
    let count = |name: &str| property(name).and_then(|n| n.parse::<u64>().ok());
    let vcpus = ["hw_cpu_sockets", "hw_cpu_cores", "hw_cpu_threads"]
        .into_iter()
        .filter_map(count)
        .reduce(u64::saturating_mul);
    let memory = match image.min_ram {
        0 => MEMORY,
        told => told,
    };
    default("name", image.name.clone());
    default("memory", Some(memory.to_string()));
    default("vcpus", vcpus.map(|n| n.to_string()));
    default("os", property("vmware_ostype").cloned());
    let text = format!(" {pairs:?}");
    let options = ova::WriteOptions::parse(&pairs)
        .map_err(|e| Error::Wish(format!("container_format ova: {e}")))?;
    Ok((options, text))
}

/// The options of an archive's disks, as a worker takes them.
fn disk_pairs(options: &ova::WriteOptions) -> Vec<(String, String)> {
    let pair = |key: &str, value: String| (key.to_owned(), value);
    vec![
        pair("subformat", "streamOptimized".into()),
        pair("adapter_type", "lsilogic".into()),
        pair("hwversion", options.hardware_version.to_string()),
        pair("compression_level", options.compression_level.to_string()),
    ]
}

/// The format an image is read as: the one it was judged to be, never what its bytes say now.
/// `None` for an archive of disks.
fn input(image: &Image) -> Result<Option<String>, Error> {
    let container = image.container_format.as_deref().unwrap_or_default();
    let claim = image.disk_format.as_deref().unwrap_or_default();
    match container {
        "ova" => return Ok(None),
        "bare" | "compressed" | "ami" => {}
        other => {
            let sentence = format!("container_format {other} cannot be converted");
            return Err(Error::Unfit(sentence));
        }
    }
    let format = match claim {
        // A file system, and a table of partitions: a disk's bytes.
        "ami" | "gpt" => Format::Raw,
        "aki" | "ari" => return Err(Error::Unfit(format!("{claim} is no disk"))),
        other => other
            .parse()
            .map_err(|_| Error::Unfit(format!("disk_format {other} cannot be converted")))?,
    };
    Ok(Some(format.name().to_owned()))
}
