//! Work that takes a while: watched, and ended by a signal in an orderly way.

use std::sync::Arc;

use formats::ErrorKind;
use formats::copy::Progress;

use super::progress::{self, Show};
use super::signals;

/// Does `work`, showing its progress; a signal cancels it.
pub(super) fn watched<T>(
    show: Show,
    work: impl FnOnce(&Progress) -> formats::Result<T>,
) -> anyhow::Result<T> {
    let progress = Arc::new(Progress::default());
    let ended = signals::cancel(Arc::clone(&progress))?;
    let done = progress::shown(&progress, show, || work(&progress));
    done.map_err(|e| match (e.kind(), ended.get()) {
        (ErrorKind::Cancelled, Some(ended)) => anyhow::Error::new(*ended),
        _ => anyhow::Error::new(e),
    })
}

/// Progress as asked for: `quiet` counts more than `asked`.
pub(super) fn show(asked: bool, quiet: bool) -> Show {
    if quiet {
        Show::Nothing
    } else {
        Show::on_stderr(asked)
    }
}
