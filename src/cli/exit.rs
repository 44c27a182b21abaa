//! Exit codes, all of them.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use formats::ErrorKind;

use super::convert::Refusal;
use super::remote;
use super::signals::Ended;

/// A failure that an inner process has told of already.
#[derive(Debug, thiserror::Error)]
#[error("ended with {0:?}")]
pub(super) struct Told(pub(super) Exit);

/// How the program ends. Ordered: of several inputs the worst counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exit {
    /// Nothing to complain about.
    Fine = 0,
    /// The image is at fault: unreadable, refused, unsafe. Or a schema: older than this program.
    Image = 1,
    /// The request or this program is: usage, a file that is not there, a full disk.
    Ours = 2,
    /// Ended by SIGHUP. These as shells count: 128 and the signal's number.
    HungUp = 129,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// Whose fault `error` was.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<Refusal>() || error.downcast_ref().is_some_and(remote::Error::is_of_image) {
            return Self::Image;
        }
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return ended.exit;
        }
        match error.downcast_ref::<formats::Error>() {
            Some(error) => Self::of_kind(error),
            None => Self::Ours,
        }
    }

    /// The end that `code` stands for.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        [
            Self::Fine,
            Self::Image,
            Self::Ours,
            Self::HungUp,
            Self::Interrupted,
            Self::Terminated,
        ]
        .into_iter()
        .find(|exit| i32::from(*exit as u8) == code)
    }

    fn of_kind(error: &formats::Error) -> Self {
        match error.kind() {
            ErrorKind::Malformed
            | ErrorKind::Unsupported
            | ErrorKind::Refused
            | ErrorKind::Limit => Self::Image,
            ErrorKind::Cancelled => Self::Interrupted,
            // A read past the end means that the image is shorter than it says.
            ErrorKind::Io if is_eof(error) => Self::Image,
            _ => Self::Ours,
        }
    }
}

fn is_eof(error: &formats::Error) -> bool {
    error
        .source()
        .and_then(|e| e.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use formats::{Error, Format};

    use super::*;

    fn exit(error: Error) -> Exit {
        Exit::of(&Err::<(), _>(error).context("disk.img").unwrap_err())
    }

    #[test]
    fn the_code_says_whose_fault_it_was() {
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(exit(Error::malformed(Format::Vdi, "", "")), Exit::Image);
        assert_eq!(exit(Error::refused(Format::Luks, "", "")), Exit::Image);
        assert_eq!(exit(Error::io("reading", cut)), Exit::Image);
        assert_eq!(exit(Error::io("writing", full)), Exit::Ours);
        assert_eq!(exit(Error::usage("what?")), Exit::Ours);
        assert_eq!(exit(Error::cancelled()), Exit::Interrupted);
        assert_eq!(Exit::of(&anyhow::anyhow!("else")), Exit::Ours);
        assert_eq!(Exit::from_code(1), Some(Exit::Image));
        assert_eq!(Exit::from_code(101), None);
        let hup = rustix::process::Signal::HUP.as_raw();
        assert_eq!(i32::from(Exit::HungUp as u8), 128 + hup);
        let term = rustix::process::Signal::TERM.as_raw();
        assert_eq!(i32::from(Exit::Terminated as u8), 128 + term);
    }
}
