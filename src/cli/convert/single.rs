//! One conversion of many: typed as for the verb itself, read by an inner process that somebody
//! else starts, and given its name here.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};
use clap::{Args as _, FromArgMatches};
use rustix::fs::OFlags;
use tempfile::TempDir;

use super::place::Place;
use super::write::What;
use super::{Args, Done};

/// A conversion into one file.
pub(in crate::cli) struct Single {
    what: What,
    place: Place,
}

impl Single {
    /// What `words` ask for, those that would follow `glint convert`.
    ///
    /// # Errors
    /// What is wrong with the request, or with the folder that the output is to lie in.
    pub(in crate::cli) fn parse(words: &[OsString]) -> anyhow::Result<Self> {
        let (args, what) = asked(words)?;
        let place = Place::new(&args.to, None)?;
        Ok(Self { what, place })
    }

    /// Whether `words` ask for a conversion at all, wherever its output is to lie.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(in crate::cli) fn check(words: &[OsString]) -> anyhow::Result<()> {
        asked(words).map(drop)
    }

    /// Gives what an inner process made in `folder` its name, once it is durable.
    ///
    /// # Errors
    /// When what the process `said` is no account of a conversion, or the file cannot be put in
    /// its place.
    pub(in crate::cli) fn publish(self, folder: TempDir, said: &str) -> anyhow::Result<Done> {
        let done: Done = serde_json::from_str(said).context("hearing the inner process")?;
        let path = folder.path().join(self.place.name());
        // It may be anything that a process led astray can make: no link is followed, no pipe
        // waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .and_then(|file| file.sync_all())
            .context("making the output durable")?;
        let parts = self.what.parts(done.virtual_size)?;
        self.place.take_over(folder, parts)?;
        Ok(done)
    }
}

fn asked(words: &[OsString]) -> anyhow::Result<(Args, What)> {
    let command = Args::augment_args(clap::Command::new("convert")).no_binary_name(true);
    let args = Args::from_arg_matches(&command.try_get_matches_from(words)?)?;
    let what = What::parse(&args)?;
    if what.is_split() {
        bail!("an image in several files is written by `convert`, one at a time");
    }
    Ok((args, what))
}
