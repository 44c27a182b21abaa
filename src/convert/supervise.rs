//! Runs a worker process: hands it two open files, reads its progress, believes nothing else.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Once;

use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{Error, Line, Request, Step};
use crate::service::Service;

/// How the standard library begins its last words when memory runs out.
const OUT_OF_MEMORY: &str = "memory allocation of ";

/// That fences are missing is a matter of the machine: it is said once.
static UNFENCED: Once = Once::new();

/// Bytes of one line of a worker's at most.
const MAX_LINE: usize = 64 << 10;

/// Converts `from` into `to` in a worker process; `report` is told now and then how far it is. Answers
/// the virtual size. The output is not durable yet. The worker dies with us, and when dropped.
///
/// # Errors
/// `Image` when the image is at fault, `Ours` when we are.
pub async fn supervise(
    svc: &Service,
    request: &Request,
    from: &Path,
    to: &Path,
    report: impl FnMut(Step),
) -> Result<u64, Error> {
    let source = File::open(from).map_err(|e| ours("opening staged data", &e))?;
    let output = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .map_err(|e| ours("making the output", &e))?;
    let running = start(svc, request, source, output)?;
    running.finish(report).await
}

fn ours(doing: &str, e: &dyn std::fmt::Display) -> Error {
    Error::Ours(format!("{doing}: {e}"))
}

/// A worker process at work. It dies when dropped.
pub struct Running {
    child: Child,
    request: Request,
}

/// Starts a worker that reads `source` and writes `output`, each an open file; or a
/// [piped](Stdio::piped) one, which is then the caller's to [read](Running::take_output).
///
/// # Errors
/// `Ours` when it cannot be started.
pub fn start(
    svc: &Service,
    request: &Request,
    source: File,
    output: impl Into<Stdio>,
) -> Result<Running, Error> {
    let program = match &svc.config.import.worker_program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|e| ours("finding our own program", &e))?,
    };
    let argument = serde_json::to_string(request).map_err(|e| ours("telling the worker", &e))?;
    let child = Command::new(program)
        .arg("convert-worker")
        .arg(argument)
        .env_clear()
        .env("TMPDIR", svc.staging.scratch_dir())
        .stdin(source)
        .stdout(output)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| ours("starting a worker", &e))?;
    Ok(Running {
        child,
        request: request.clone(),
    })
}

impl Running {
    /// What it writes, once, where that goes into a pipe.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end; `heard` is told how far it is. Answers the virtual size. What it wrote is not
    /// durable yet.
    ///
    /// # Errors
    /// `Image` when the image is at fault, `Ours` when we are.
    pub async fn finish(mut self, mut heard: impl FnMut(Step)) -> Result<u64, Error> {
        let mut outcome = None;
        let mut is_out_of_memory = false;
        if let Some(lines) = self.child.stderr.take() {
            let mut lines = FramedRead::new(lines, LinesCodec::new_with_max_length(MAX_LINE));
            while let Some(line) = lines.next().await {
                let line = line.map_err(|e| ours("hearing a worker", &e))?;
                match serde_json::from_str(&line) {
                    Ok(Line::Progress(step)) => heard(step),
                    Ok(Line::Unfenced(missing)) => UNFENCED.call_once(|| {
                        tracing::warn!(
                            missing,
                            "conversions run without a part of their sandbox: {missing}"
                        );
                    }),
                    Ok(line) => outcome = Some(line),
                    Err(_) => {
                        is_out_of_memory |= line.starts_with(OUT_OF_MEMORY);
                        tracing::warn!(line, "a worker said");
                    }
                }
            }
        }
        let waited = self.child.wait().await;
        let status = waited.map_err(|e| ours("waiting for a worker", &e))?;
        match outcome {
            Some(Line::Done { virtual_size }) if status.success() => Ok(virtual_size),
            Some(Line::Image(reason)) => Err(Error::Image(reason)),
            Some(Line::Ours(reason)) => Err(Error::Ours(reason)),
            _ => Err(ended(status, is_out_of_memory, &self.request)),
        }
    }
}

/// Why a worker ended without a word. Limits are as strict the next time, so they are the image's
/// fault; anything else is a bug or the machine, and the image is not tried for ever.
fn ended(status: ExitStatus, is_out_of_memory: bool, request: &Request) -> Error {
    let signal = status.signal().and_then(Signal::from_named_raw);
    Error::Image(match signal {
        Some(Signal::XCPU) => format!(
            "converting it took more than {} seconds of processor time",
            request.cpu_seconds
        ),
        Some(Signal::XFSZ) => "converting it wrote a file larger than allowed".into(),
        Some(Signal::ABORT) if is_out_of_memory => format!(
            "converting it took more than {} bytes of memory",
            request.memory
        ),
        _ => return Error::Ours(format!("the worker ended with {status}")),
    })
}
