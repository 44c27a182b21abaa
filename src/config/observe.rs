//! `[log]` and `[metrics]`: what operators see of a running service.

use std::net::SocketAddr;

use serde::Deserialize;

/// `[log]`, to standard error. `level` is read again on SIGHUP.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, in the words of `tracing`: `info`, `warn,glint=debug`. `GLINT_LOG` in the
    /// environment goes before it.
    pub level: String,
    /// Lines for people, or a JSON object a line.
    pub format: LogFormat,
    /// Whether every request is a line.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info,sqlx=warn".into(),
            format: LogFormat::Text,
            access: true,
        }
    }
}

/// `[log] format`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `[metrics]`
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port that answer `GET /metrics`, without asking who asks. Absent: none does.
    pub listen: Option<SocketAddr>,
}

impl Log {
    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&self.level) {
            faults.push(format!("log.level: {e}"));
        }
    }
}
