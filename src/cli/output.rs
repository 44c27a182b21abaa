//! Words and numbers for people, and the two streams they go to.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::Context;
use clap::ValueEnum;
use formats::inspect::{Finding, Severity};
use indicatif::HumanBytes;
use serde::Serialize;

/// What the data on standard output looks like.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Output {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Writes data to standard output. A reader that has gone away is no error.
pub(super) fn data(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing to standard output"),
    }
}

/// Writes a value as indented JSON to standard output.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    data(&text)
}

/// The same piece by piece, for a value that is too large to be held as text.
pub(super) fn json_in_pieces(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from);
    match written
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush())
    {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing to standard output"),
    }
}

/// Writes a line to standard error, if there is still somebody to read it.
pub(super) fn talk(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Reports an error with all its causes.
pub(super) fn complain(error: &anyhow::Error) {
    let paint = Paint::for_stream(&io::stderr());
    talk(format_args!(
        "{} {}",
        paint.bad("error:"),
        Lines(&story(error))
    ));
}

/// An error and its causes, but for those that the one before them told already.
fn story(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.ends_with(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}

/// [`Plain`], a line each. Lines but the first are indented, so that none passes for a message of
/// its own.
struct Lines<'a>(&'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines();
        write!(f, "{}", Plain(lines.next().unwrap_or_default()))?;
        lines.try_for_each(|line| write!(f, "\n  {}", Plain(line)))
    }
}

/// Text from outside, made harmless to a terminal: control characters are spelt out.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || is_direction(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Whether a character turns the direction of text and so makes a name look like another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A size for people and, in the same breath, exactly.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        format!("{bytes} bytes")
    } else {
        format!("{} ({bytes} bytes)", HumanBytes(bytes))
    }
}

/// Colours, or none where nobody would see them.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn for_stream(stream: &impl IsTerminal) -> Self {
        // https://no-color.org
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self(stream.is_terminal() && !unwanted)
    }

    fn sgr(self, code: &str, text: impl fmt::Display) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    pub(super) fn name(self, text: impl fmt::Display) -> String {
        self.sgr("1", text)
    }

    pub(super) fn good(self, text: impl fmt::Display) -> String {
        self.sgr("32", text)
    }

    pub(super) fn bad(self, text: impl fmt::Display) -> String {
        self.sgr("1;31", text)
    }

    fn severity(self, severity: Severity) -> String {
        match severity {
            Severity::Unsafe => self.bad("unsafe "),
            Severity::Warning => self.sgr("33", "warning"),
            Severity::Note => "note   ".into(),
        }
    }

    /// A finding as an indented line.
    pub(super) fn finding(self, finding: &Finding) -> String {
        format!(
            "  {}  {}: {} [{}]",
            self.severity(finding.severity),
            Plain(&finding.place),
            Plain(&finding.message),
            finding.rule
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let text = Plain("a\x1b[2Jb\n\u{202e}ö").to_string();
        assert_eq!(text, r"a\u{1b}[2Jb\u{a}\u{202e}ö");
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no such file")
            .context("reading: no such file")
            .context("starting");
        assert_eq!(story(&error), "starting: reading: no such file");
    }

    #[test]
    fn several_faults_are_a_line_each() {
        let text = Lines("a.b is 0\nc\x1b is 1").to_string();
        assert_eq!(text, "a.b is 0\n  c\\u{1b} is 1");
    }

    #[test]
    fn sizes_are_told_twice() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(117_440_512), "112.00 MiB (117440512 bytes)");
    }

    #[test]
    fn no_colours_without_a_terminal() {
        assert_eq!(Paint(false).bad("x"), "x");
        assert_eq!(Paint(true).good("x"), "\x1b[32mx\x1b[0m");
    }
}
