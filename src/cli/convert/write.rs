//! What to write: an image of a format, an archive, either compressed as a whole.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use formats::container::{Wrap, compress, ova, write_ova};
use formats::copy::{CopyOptions, Part, Progress, Summary, copy};
use formats::{CreateOptions, Disk, Error, FileSink, FileSource, Format, Sink, raw};

use super::Args;
use super::place::without_path;
use crate::cli::target;

/// What was asked for.
pub(super) struct What {
    kind: Kind,
    wrap: Option<Wrap>,
}

enum Kind {
    Image(CreateOptions),
    Ova(ova::WriteOptions),
}

impl What {
    pub(super) fn parse(args: &Args) -> anyhow::Result<Self> {
        if args.output_format != Format::Ova && args.from.len() > 1 {
            bail!("{} holds one disk, not several", args.output_format);
        }
        let passphrase = args.written.output_passphrase_file.as_deref();
        let kind = match args.output_format {
            Format::Ova if passphrase.is_some() => bail!("ova is not written encrypted: qcow2 is"),
            Format::Ova => {
                let mut pairs = args.written.options.clone();
                // A machine without a name is called as its file.
                let stem = args.to.file_stem().map(|stem| stem.to_string_lossy());
                let stem = stem.unwrap_or_default();
                let is_name = (1..=80).contains(&stem.len()) && !stem.chars().any(char::is_control);
                if is_name && stem != super::DASH && !pairs.iter().any(|(key, _)| key == "name") {
                    pairs.push(("name".into(), stem.into_owned()));
                }
                Kind::Ova(ova::WriteOptions::parse(&pairs)?)
            }
            format => Kind::Image(target::options(
                format,
                &args.written.options,
                args.written.compress,
                passphrase,
            )?),
        };
        if let (Kind::Image(options), true) = (&kind, args.to.as_os_str() == super::DASH)
            && options.is_split()
        {
            bail!("an image in several files cannot be written to standard output");
        }
        if let (Kind::Image(options), Some(_)) = (&kind, args.written.wrap)
            && options.is_split()
        {
            bail!("--wrap compresses one file: this image is several");
        }
        if let (Kind::Image(CreateOptions::Raw(options)), Some(_)) = (&kind, args.written.wrap)
            && options.preallocation != raw::Preallocation::Off
        {
            bail!("--wrap leaves no room to preallocate");
        }
        Ok(Self {
            kind,
            wrap: args.written.wrap,
        })
    }

    /// Tells what the file will be called.
    pub(super) fn named(&mut self, name: &str) {
        if let Kind::Image(options) = &mut self.kind {
            *options = options.clone().named(name);
        }
    }

    /// Whether it is an image in several files.
    pub(super) fn is_split(&self) -> bool {
        matches!(&self.kind, Kind::Image(options) if options.is_split())
    }

    /// The files of an image of several.
    pub(super) fn parts(&self, virtual_size: u64) -> formats::Result<Vec<Part>> {
        match &self.kind {
            Kind::Image(options) if options.is_split() => {
                Ok(formats::create(options, virtual_size)?.parts())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Whether it can be written to a pipe.
    pub(super) fn streams(&self) -> formats::Result<bool> {
        match &self.kind {
            _ if self.wrap.is_some() => Ok(true),
            // Any size tells.
            Kind::Image(options) => Ok(formats::create(options, 1 << 20)?.preamble().is_some()),
            Kind::Ova(_) => Ok(false),
        }
    }
}

/// A conversion, ready to run.
pub(super) struct Work<'a> {
    pub(super) what: &'a What,
    pub(super) disks: Vec<&'a dyn Disk>,
    /// A folder for what must be written before it is compressed.
    pub(super) scratch: &'a Path,
    pub(super) options: CopyOptions,
    pub(super) progress: &'a Progress,
}

impl Work<'_> {
    pub(super) fn run(&self, sink: &dyn Sink) -> formats::Result<Summary> {
        let disk = self.disks[0];
        let Some(wrap) = self.what.wrap else {
            return self.write(sink);
        };
        if let Kind::Image(CreateOptions::Raw(_)) = &self.what.kind {
            return compress(disk, wrap, sink, &self.options, self.progress);
        }
        // Headers come last, and compressed bytes cannot be changed.
        let scratch = tempfile::tempfile_in(self.scratch)
            .map_err(|e| Error::io("making a scratch file", without_path(e)))?;
        let handle = scratch
            .try_clone()
            .map_err(|e| Error::io("sharing the scratch file", e))?;
        self.write(&FileSink::new(handle))?;
        let written = raw::Reader::new(Arc::new(FileSource::new(scratch)?))?;
        compress(&written, wrap, sink, &self.options, self.progress)
    }

    fn write(&self, sink: &dyn Sink) -> formats::Result<Summary> {
        match &self.what.kind {
            Kind::Image(options) => {
                let disk = self.disks[0];
                let target = formats::create(options, disk.virtual_size())?;
                copy(disk, target, sink, &self.options, self.progress)
            }
            Kind::Ova(options) => {
                write_ova(&self.disks, options, sink, &self.options, self.progress)
            }
        }
    }
}
