//! Progress of a copy, on standard error.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use formats::copy::Progress;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

/// How to show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Show {
    /// Not at all.
    Nothing,
    /// A bar that redraws itself.
    Bar,
    /// A line now and then, for logs.
    Lines,
}

impl Show {
    /// A terminal always gets a bar; anything else gets lines, but only when `asked`.
    pub(super) fn on_stderr(asked: bool) -> Self {
        match (io::stderr().is_terminal(), asked) {
            (true, _) => Self::Bar,
            (false, true) => Self::Lines,
            (false, false) => Self::Nothing,
        }
    }
}

/// Does `work`, showing `progress` meanwhile.
pub(super) fn shown<T>(progress: &Progress, show: Show, work: impl FnOnce() -> T) -> T {
    shown_by(&|| (progress.done(), progress.total()), show, work)
}

/// Answers how many bytes are done, and how many there are in all.
pub(super) type Measure<'a> = dyn Fn() -> (u64, u64) + Sync + 'a;

/// Answers what is being done; nothing where it is always the same.
pub(super) type Doing<'a> = dyn Fn() -> String + Sync + 'a;

/// Does `work`, showing what `measure` says meanwhile.
pub(super) fn shown_by<T>(measure: &Measure<'_>, show: Show, work: impl FnOnce() -> T) -> T {
    told_by(measure, &String::new, show, work)
}

/// Does `work`, showing what `measure` and `doing` say meanwhile.
pub(super) fn told_by<T>(
    measure: &Measure<'_>,
    doing: &Doing<'_>,
    show: Show,
    work: impl FnOnce() -> T,
) -> T {
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        match show {
            Show::Nothing => {}
            Show::Bar => _ = scope.spawn(|| bar(measure, doing, done)),
            Show::Lines => _ = scope.spawn(|| lines(measure, doing, done)),
        }
        // Dropped with the closure, also when `work` panics: the other side then ends.
        let _working = working;
        work()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "a receiver is not Sync")]
fn bar(measure: &Measure<'_>, doing: &Doing<'_>, working: Receiver<()>) {
    let style = "{percent:>3}% [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}  {msg}";
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    while working.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
        let (done, total) = measure();
        // Where the whole is not known, it is what there is so far.
        bar.set_length(if total == 0 { done } else { total });
        bar.set_position(done);
        bar.set_message(doing());
    }
    bar.finish_and_clear();
}

#[expect(clippy::needless_pass_by_value, reason = "a receiver is not Sync")]
fn lines(measure: &Measure<'_>, doing: &Doing<'_>, working: Receiver<()>) {
    let start = Instant::now();
    loop {
        let ended = working.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout);
        let (done, total) = measure();
        let line = line(done, total, start.elapsed());
        match doing() {
            doing if doing.is_empty() => output::talk(line),
            doing => output::talk(format_args!("{line}, {doing}")),
        }
        if ended {
            return;
        }
    }
}

/// Progress in words.
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = rate(done, elapsed);
    if total == 0 && done > 0 {
        return format!("{}, {}/s", HumanBytes(done), HumanBytes(rate));
    }
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let left = Duration::from_secs((total - done.min(total)) / rate.max(1));
    let text = format!(
        "{percent}%, {} of {}, {}/s",
        HumanBytes(done),
        HumanBytes(total),
        HumanBytes(rate)
    );
    if done < total {
        format!("{text}, ETA {}", HumanDuration(left))
    } else {
        text
    }
}

/// The percentage that a [`line`] of another process tells.
pub(super) fn percent(line: &str) -> Option<u64> {
    let (percent, _) = line.split_once("%, ")?;
    percent.parse().ok().filter(|percent| *percent <= 100)
}

/// Bytes a second.
pub(super) fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_share_rate_and_time_left() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(1 << 20, 4 << 20, second),
            "25%, 1.00 MiB of 4.00 MiB, 1.00 MiB/s, ETA 3 seconds"
        );
        assert_eq!(percent(&line(1 << 20, 4 << 20, second)), Some(25));
        assert_eq!(percent("note: 25 of 100 are missing"), None);
        assert_eq!(line(0, 0, Duration::ZERO), "0%, 0 B of 0 B, 0 B/s");
        assert_eq!(line(1 << 20, 0, second), "1.00 MiB, 1.00 MiB/s");
    }
}
