//! One error type. Its kind says whose fault it was; format, place and message say what and where.

use std::borrow::Cow;
use std::{fmt, io};

use crate::Format;

/// A failed operation on an image.
///
/// `Display` reads like `qcow2 header: cluster_bits is 31 at byte 20, allowed 9 to 21` and never
/// repeats its source; print the chain at the edge.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    format: Option<Format>,
    place: Cow<'static, str>,
    message: String,
    source: Option<io::Error>,
}

/// Whose fault an [`Error`] is. Match on this, never on the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file contradicts itself or its specification.
    Malformed,
    /// A valid variant that is not read or written here.
    Unsupported,
    /// Understood, but not done by policy: backing files, encryption, names that leave the image.
    Refused,
    /// Larger than a bound set by the caller.
    Limit,
    /// Reading or writing failed beneath us.
    Io,
    /// The caller asked for something that makes no sense.
    Usage,
    /// The caller cancelled.
    Cancelled,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes of a place or a message at most: both may quote the file.
const MAX_TEXT: usize = 1024;

/// Makes a text fit for terminals and logs, whatever it quotes: not too long, no control characters.
pub(crate) fn presentable(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    text
}

macro_rules! constructors {
    ($($name:ident, $kind:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[must_use]
        pub fn $name(
            format: Format,
            place: impl Into<Cow<'static, str>>,
            message: impl Into<String>,
        ) -> Self {
            Self::new(ErrorKind::$kind, Some(format), place.into(), message.into(), None)
        }
    )*};
}

impl Error {
    fn new(
        kind: ErrorKind,
        format: Option<Format>,
        place: Cow<'static, str>,
        message: String,
        source: Option<io::Error>,
    ) -> Self {
        let place = match place {
            Cow::Owned(place) => presentable(place).into(),
            ours => ours,
        };
        Self(Box::new(Inner {
            kind,
            format,
            place,
            message: presentable(message),
            source,
        }))
    }

    constructors! {
        malformed, Malformed, "The file is at fault: `place` names the structure, `message` the field, its value and what is allowed.";
        unsupported, Unsupported, "A valid variant that is not handled; `message` names it.";
        refused, Refused, "Refused by policy; `message` says what and why.";
        limit, Limit, "A size or count above its bound.";
    }

    /// A compressed stream is at fault; what it holds has no format yet to be named.
    #[must_use]
    pub(crate) fn stream(kind: ErrorKind, place: &'static str, message: impl Into<String>) -> Self {
        Self::new(kind, None, Cow::Borrowed(place), message.into(), None)
    }

    /// Reading or writing failed; `doing` says what was being done.
    #[must_use]
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::new(
            ErrorKind::Io,
            None,
            Cow::Borrowed(""),
            doing.into(),
            Some(source),
        )
    }

    /// The caller's request makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Usage,
            None,
            Cow::Borrowed(""),
            message.into(),
            None,
        )
    }

    /// The caller cancelled the operation.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(
            ErrorKind::Cancelled,
            None,
            Cow::Borrowed(""),
            "cancelled".into(),
            None,
        )
    }

    /// Whose fault it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The format whose rules were applied, where there is one.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.0.format
    }

    /// The structure the error was found in; empty where there is none.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// The sentence alone, without format and place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            format,
            place,
            message,
            ..
        } = &*self.0;
        match (format, place.is_empty()) {
            (Some(format), false) => write!(f, "{format} {place}: {message}"),
            (Some(format), true) => write!(f, "{format}: {message}"),
            (None, false) => write!(f, "{place}: {message}"),
            (None, true) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn says_format_place_and_what_is_wrong() {
        let e = Error::malformed(
            Format::Qcow2,
            "header",
            "cluster_bits is 31 at byte 20, allowed 9 to 21",
        );
        assert_eq!(
            e.to_string(),
            "qcow2 header: cluster_bits is 31 at byte 20, allowed 9 to 21"
        );
        assert_eq!(e.kind(), ErrorKind::Malformed);
    }

    #[test]
    fn what_is_quoted_is_cut_and_harmless() {
        let e = Error::malformed(
            Format::Ovf,
            "a\tb".to_owned(),
            "\x1b[2J".to_owned() + &"é".repeat(9999),
        );
        let said = e.to_string();
        assert!(
            said.starts_with("ovf a b:  [2Jé") && said.ends_with("é…"),
            "{said}"
        );
        assert!(said.len() < 1100);
    }

    #[test]
    fn never_prints_its_source() {
        let e = Error::io("reading 512 bytes at 0", io::Error::other("disk on fire"));
        assert_eq!(e.to_string(), "reading 512 bytes at 0");
        assert_eq!(
            e.source().map(ToString::to_string).as_deref(),
            Some("disk on fire")
        );
    }
}
