//! Runs a worker process: hands it two open files, reads its progress, believes nothing else.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use futures_util::StreamExt;
use tokio::process::Command;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{Error, Line, Request};
use crate::service::Service;

/// Bytes of one line of a worker's at most.
const MAX_LINE: usize = 64 << 10;

/// Converts `from` into `to` in a worker process; `report` is told the percentage now and then.
/// Answers the virtual size. The output is durable. The worker dies with us, and when dropped.
///
/// # Errors
/// `Image` when the image is at fault, `Ours` when we are.
pub async fn supervise(
    svc: &Service,
    request: &Request,
    from: &Path,
    to: &Path,
    report: impl Fn(u64),
) -> Result<u64, Error> {
    let ours = |doing: &str, e: &dyn std::fmt::Display| Error::Ours(format!("{doing}: {e}"));
    let program = match &svc.config.import.worker_program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|e| ours("finding our own program", &e))?,
    };
    let source = File::open(from).map_err(|e| ours("opening staged data", &e))?;
    let output = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .map_err(|e| ours("making the output", &e))?;
    let request = serde_json::to_string(request).map_err(|e| ours("telling the worker", &e))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut child = Command::new(program)
        .arg("convert-worker")
        .arg(request)
        .env_clear()
        .env("TMPDIR", folder)
        .stdin(source)
        .stdout(output)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| ours("starting a worker", &e))?;

    let mut outcome = None;
    let mut last = 0;
    if let Some(lines) = child.stderr.take() {
        let mut lines = FramedRead::new(lines, LinesCodec::new_with_max_length(MAX_LINE));
        while let Some(line) = lines.next().await {
            let line = line.map_err(|e| ours("hearing a worker", &e))?;
            match serde_json::from_str(&line) {
                Ok(Line::Progress { done, total }) => {
                    let percent = done.saturating_mul(100) / total.max(1);
                    if percent >= last + 5 {
                        last = percent;
                        report(percent);
                    }
                }
                Ok(line) => outcome = Some(line),
                Err(_) => tracing::warn!(line, "a worker said"),
            }
        }
    }
    let status = child
        .wait()
        .await
        .map_err(|e| ours("waiting for a worker", &e))?;
    match outcome {
        Some(Line::Done { virtual_size }) if status.success() => Ok(virtual_size),
        Some(Line::Image(reason)) => Err(Error::Image(reason)),
        Some(Line::Ours(reason)) => Err(Error::Ours(reason)),
        // Memory or time ran out, or a bug: the image that did it is not tried for ever.
        _ => Err(Error::Ours(format!("the worker ended with {status}"))),
    }
}
