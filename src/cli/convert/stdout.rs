//! Standard output as the place of an image: a file is written by position, a pipe in order.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use formats::copy::{Progress, Summary};
use formats::{Error, FileSink, Sink, StreamSink};
use rustix::fs::OFlags;

use super::Args;
use super::place::Written;
use super::write::{What, Work};
use crate::cli::output::Output;
use crate::cli::permit::FileId;

/// Standard output.
pub(super) struct Stdout {
    file: File,
    /// A file, empty and ours: bytes can be placed anywhere in it.
    is_positioned: bool,
    scratch: PathBuf,
    failed: AtomicBool,
}

impl Stdout {
    pub(super) fn new(args: &Args, what: &What) -> anyhow::Result<Self> {
        let doing = "looking at standard output";
        if args.output == Output::Json {
            bail!("standard output takes the image or --output json, not both");
        }
        if io::stdout().is_terminal() {
            bail!("standard output is a terminal: redirect it to a file or a pipe");
        }
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().context(doing)?);
        let meta = file.metadata().context(doing)?;
        let appends = rustix::fs::fcntl_getfl(&file)
            .context(doing)?
            .contains(OFlags::APPEND);
        let is_positioned = meta.is_file()
            && meta.len() == 0
            && !appends
            && rustix::fs::tell(&file).context(doing)? == 0;
        if !is_positioned && !what.streams()? {
            bail!(
                "{} cannot be written to a pipe: raw can, vmdk with -o subformat=streamOptimized, \
                 and any format with --wrap",
                args.output_format
            );
        }
        Ok(Self {
            file,
            is_positioned,
            scratch: env::temp_dir(),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.scratch
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Checks that it is none of `inputs`.
    pub(super) fn check_keeps(&self, inputs: &[FileId]) -> anyhow::Result<()> {
        let output = self.file.metadata().context("reading file attributes")?;
        if output.is_file() && inputs.contains(&(output.dev(), output.ino())) {
            bail!("standard output is the input too");
        }
        Ok(())
    }

    /// Runs `work` into standard output. A reader that has gone away is no error.
    pub(super) fn take(&self, work: &Work<'_>) -> formats::Result<Summary> {
        let handle = self
            .file
            .try_clone()
            .map_err(|e| Error::io("sharing standard output", e))?;
        if self.is_positioned {
            let sink = Written::new(Box::new(FileSink::new(handle)));
            let done = work.run(&sink);
            self.failed.store(sink.has_failed(), Ordering::Relaxed);
            if done.is_err() {
                // What is there is no image: it shall not look like one.
                let _ = self.file.set_len(0);
            }
            return done;
        }
        let pipe = StreamSink::new(Pipe {
            file: handle,
            progress: work.progress,
            fault: Fault::None,
        });
        let done = work.run(&pipe).and_then(|summary| {
            pipe.sync()?;
            Ok(summary)
        });
        match pipe.into_inner().fault {
            Fault::None => done,
            Fault::Closed => Ok(Summary::default()),
            Fault::Other => {
                self.failed.store(true, Ordering::Relaxed);
                done
            }
        }
    }
}

/// What became of the pipe.
enum Fault {
    None,
    /// Nobody reads it any more.
    Closed,
    Other,
}

/// The pipe, which stops where it is cancelled: the zeros of a disk may be many.
struct Pipe<'a> {
    file: File,
    progress: &'a Progress,
    fault: Fault,
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.progress.is_cancelled() {
            return Err(io::Error::other(Error::cancelled()));
        }
        let done = self.file.write(bytes);
        match &done {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.fault = Fault::Closed,
            Err(e) if e.kind() != io::ErrorKind::Interrupted => self.fault = Fault::Other,
            _ => {}
        }
        done
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
