//! Imports: the service takes what is staged, or what a URL names, and says how far it is by
//! server-sent events. One that sends none is asked for the image's status now and then.

use anyhow::bail;
use indicatif::HumanBytes;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::json;

use super::record;
use super::session::{self, Session};
use super::tries::Tries;
use super::tus::{Fate, fate};
use super::{Error, Meter};
use crate::cli::output::Plain;

/// Bytes of an event at most.
const MAX_EVENT: usize = 256 << 10;

/// What is imported.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'a> {
    /// What was staged.
    Staged,
    /// What this URL names.
    Url(&'a str),
}

/// What an import is to do.
pub(super) struct Import<'a> {
    pub(super) session: &'a Session,
    pub(super) image: &'a str,
    pub(super) from: From<'a>,
    /// The format that it is to be converted into.
    pub(super) convert: Option<&'a str>,
    pub(super) store: Option<&'a str>,
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
}

/// A task, as lists and events show it.
#[derive(Deserialize)]
struct Task {
    id: String,
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    created_at: String,
    os_glint_progress: Option<Progress>,
}

/// How far a task is.
#[derive(Deserialize)]
struct Progress {
    phase: String,
    input: Count,
    output: Count,
}

#[derive(Deserialize)]
struct Count {
    done: u64,
    expected: Option<u64>,
}

impl Import<'_> {
    /// Has the service begin with it.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        let mut body = match self.from {
            From::Staged => json!({"method": {"name": "glance-direct"}}),
            From::Url(url) => json!({"method": {"name": "web-download", "uri": url}}),
        };
        if let Some(format) = self.convert {
            body["convert"] = json!({"disk_format": format});
        }
        if let Some(store) = self.store {
            body["stores"] = json!([store]);
        }
        let body = body.to_string();
        let path = format!("{}/import", record::path(self.image));
        let begun = self.session.ask(Method::POST, &path, |request| {
            request
                .header("content-type", "application/json")
                .body(body.clone())
        });
        session::fine(begun.await?).await.map(drop)
    }

    /// Follows it to its end.
    pub(super) async fn follow(&self, meter: &Meter) -> anyhow::Result<()> {
        let mut tries = Tries::default();
        while let Some(task) = self.task().await? {
            if let Some(done) = ended(&task.status) {
                return told(done, &task);
            }
            let path = format!("/v2/tasks/{}/events", record::segment(&task.id));
            let asked = self.session.ask(Method::GET, &path, |request| {
                request.header(ACCEPT, "text/event-stream")
            });
            let heard = async {
                let answer = session::fine(asked.await?).await?;
                Events::new(answer).last(meter, &mut tries).await
            };
            match heard.await {
                Ok(Some(task)) => {
                    if let Some(done) = ended(&task.status) {
                        return told(done, &task);
                    }
                }
                // The service ends; another, or the same, goes on with it.
                Ok(None) => tries.again(Error::Cut).await?,
                Err(e) if e.is_transient() => tries.again(e).await?,
                // It sends no events, or not to us.
                Err(Error::Status { .. }) => break,
                Err(e) => return Err(e.into()),
            }
        }
        match fate(self.session, self.image).await? {
            Fate::Active => Ok(()),
            Fate::Waits | Fate::Lost => match self.task().await? {
                Some(task) => told(false, &task),
                None => bail!("the image was not imported, and the service does not say why"),
            },
        }
    }

    /// The image's last task; `None` where the service shows none.
    async fn task(&self) -> Result<Option<Task>, Error> {
        let path = format!("{}/tasks", record::path(self.image));
        let found = Tries::until_done(async || {
            self.session
                .json::<Tasks>(Method::GET, &path, |request| request)
                .await
        });
        match found.await {
            Ok(found) => Ok(found
                .tasks
                .into_iter()
                .max_by(|a, b| a.created_at.cmp(&b.created_at))),
            Err(Error::Status { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn told(done: bool, task: &Task) -> anyhow::Result<()> {
    match done {
        true => Ok(()),
        false => Err(Error::NotImported(task.message.clone()).into()),
    }
}

/// Whether a task in this status has ended, and well.
fn ended(status: &str) -> Option<bool> {
    match status {
        "success" => Some(true),
        "failure" => Some(false),
        _ => None,
    }
}

/// Server-sent events: lines, an empty one after each event.
struct Events {
    answer: Response,
    /// What came and is no whole event yet.
    text: Vec<u8>,
}

impl Events {
    fn new(answer: Response) -> Self {
        Self {
            answer,
            text: Vec::new(),
        }
    }

    /// Shows what events say; answers the one that is the last, unless they break off.
    async fn last(&mut self, meter: &Meter, tries: &mut Tries) -> Result<Option<Task>, Error> {
        while let Some(task) = self.next().await? {
            tries.succeeded();
            if ended(&task.status).is_some() {
                return Ok(Some(task));
            }
            if let Some(progress) = &task.os_glint_progress {
                meter.start(progress.input.done, progress.input.expected.unwrap_or(0));
                meter.say(progress.in_words());
            }
        }
        Ok(None)
    }

    async fn next(&mut self) -> Result<Option<Task>, Error> {
        loop {
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<_> = self.text.drain(..end + 2).collect();
                if let Some(task) = parse(&event)? {
                    return Ok(Some(task));
                }
            }
            let Some(piece) = session::chunk(&mut self.answer).await? else {
                return Ok(None);
            };
            if self.text.len() + piece.len() > MAX_EVENT {
                return Err(Error::nonsense("an event is too long"));
            }
            self.text.extend_from_slice(&piece);
        }
    }
}

/// The task that an event tells of; `None` where it only says that somebody is there.
fn parse(event: &[u8]) -> Result<Option<Task>, Error> {
    let mut lines = event.split(|byte| *byte == b'\n');
    let data = lines.find_map(|line| line.strip_prefix(b"data:"));
    let task = data.map(serde_json::from_slice).transpose();
    task.map_err(|e| Error::nonsense(e.to_string()))
}

impl Progress {
    fn in_words(&self) -> String {
        let phase = Plain(&self.phase);
        match self.output.done {
            0 => phase.to_string(),
            done => format!("{phase}, {} written", HumanBytes(done)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_task_or_nothing() {
        let event =
            b"event: progress\ndata: {\"id\":\"t\",\"status\":\"processing\",\"message\":\"\",\
            \"result\":null,\"os_glint_progress\":{\"phase\":\"converting\",\"input\":{\"done\":3,\
            \"expected\":null},\"output\":{\"done\":2048,\"expected\":null},\"percent\":null}}\n\n";
        let task = parse(event).unwrap().unwrap();
        assert_eq!(task.status, "processing");
        let progress = task.os_glint_progress.unwrap();
        assert_eq!(progress.in_words(), "converting, 2.00 KiB written");
        assert!(parse(b": keep-alive\n\n").unwrap().is_none());
        assert!(parse(b"data: {}\n\n").is_err());
        assert_eq!(ended("pending"), None);
    }
}
