//! Standard input: read in place where it is a file, else kept until it is complete, because
//! disks are read by position.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail};
use formats::copy::Progress;
use formats::{Error, FileSource, Limits};

use super::place::without_path;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Zeros are left out in pieces of this size, the block of common file systems.
const BLOCK: usize = 4096;

/// Standard input as a file; a pipe's bytes go to one in `dir` that nobody else sees.
pub(super) fn stdin(dir: &Path, progress: &Progress) -> anyhow::Result<FileSource> {
    let doing = "reading standard input";
    let input = io::stdin().as_fd().try_clone_to_owned().context(doing)?;
    let mut input = File::from(input);
    let is_file = input.metadata().context(doing)?.is_file();
    // A file somebody has read from already is a stream: only what is left of it is meant.
    if is_file && rustix::fs::tell(&input).context(doing)? == 0 {
        return Ok(FileSource::new(input)?);
    }
    if io::IsTerminal::is_terminal(&io::stdin()) {
        bail!("standard input is a terminal: redirect an image to it");
    }
    let file = tempfile::tempfile_in(dir)
        .map_err(without_path)
        .with_context(|| format!("making a file in {}", dir.display()))?;
    spool(&mut input, &file, Limits::default().max_inflated, progress)?;
    Ok(FileSource::new(file)?)
}

/// Copies `input` to its end, at most `most` bytes. Zeros become holes.
fn spool(input: &mut impl Read, file: &File, most: u64, progress: &Progress) -> anyhow::Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut at = 0_u64;
    loop {
        if progress.is_cancelled() {
            return Err(Error::cancelled().into());
        }
        let len = match input.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).context("reading standard input"),
        };
        if at + len as u64 > most {
            bail!("standard input holds more than {most} bytes");
        }
        for (n, block) in (0..).zip(buf[..len].chunks(BLOCK)) {
            if block.iter().any(|&byte| byte != 0) {
                file.write_all_at(block, at + n * BLOCK as u64)
                    .context("writing what came by standard input")?;
            }
        }
        at += len as u64;
    }
    file.set_len(at)
        .context("writing what came by standard input")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_kept_whole_and_bounded() {
        let mut bytes = vec![0; 3 << 20];
        bytes[(1 << 20) + 5] = 7;
        bytes.push(0);
        let file = tempfile::tempfile().unwrap();
        let progress = Progress::default();
        spool(&mut bytes.as_slice(), &file, 4 << 20, &progress).unwrap();
        let mut found = vec![1; bytes.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == bytes);
        assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
        let error = spool(&mut bytes.as_slice(), &file, 3 << 20, &progress).unwrap_err();
        assert!(error.to_string().contains("more than 3145728"), "{error}");
        progress.cancel();
        assert!(spool(&mut bytes.as_slice(), &file, 4 << 20, &progress).is_err());
    }
}
