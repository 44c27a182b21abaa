//! `[log]`, `[metrics]` and `[tracing]`: what operators see of a running service.

use std::net::SocketAddr;

use reqwest::Url;
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
    /// The same of `glint worker`, which has the configuration of its service and may run beside it.
    pub worker_listen: Option<SocketAddr>,
}

/// `[tracing]`: traces for a collector of OpenTelemetry. The standard `OTEL_*` variables of the
/// environment go before it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// Where the collector takes OTLP over HTTP, without the path `/v1/traces`. Absent, and not in the
    /// environment either: no traces.
    pub endpoint: Option<String>,
    /// Who we say we are.
    pub service_name: String,
    /// Of the requests that come without a trace, the share that is traced: 0 to 1. Where there is
    /// one, its caller has decided.
    pub sample_ratio: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            service_name: "glint".into(),
            sample_ratio: 1.0,
        }
    }
}

impl Tracing {
    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        self.validate_for(cfg!(feature = "otel"), faults);
    }

    /// The same, for a build that has traces or has none.
    fn validate_for(&self, has_traces: bool, faults: &mut Vec<String>) {
        if self.endpoint.is_some() && !has_traces {
            faults.push(
                "tracing.endpoint: this glint was built without traces (cargo build --features otel)"
                    .into(),
            );
        }
        let is_url = |text: &String| {
            Url::parse(text).is_ok_and(|url| {
                ["http", "https"].contains(&url.scheme())
                    && url.query().is_none()
                    && url.fragment().is_none()
            })
        };
        if let Some(endpoint) = self.endpoint.as_ref().filter(|e| !is_url(e)) {
            faults.push(format!(
                "tracing.endpoint is {endpoint:?}, allowed http://HOST:PORT and https://HOST:PORT"
            ));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            faults.push(format!(
                "tracing.sample_ratio is {}, allowed 0 to 1",
                self.sample_ratio
            ));
        }
    }
}

impl Log {
    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&self.level) {
            faults.push(format!("log.level: {e}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(endpoint: Option<&str>, has_traces: bool) -> Vec<String> {
        let tracing = Tracing {
            endpoint: endpoint.map(str::to_owned),
            ..Tracing::default()
        };
        let mut faults = Vec::new();
        tracing.validate_for(has_traces, &mut faults);
        faults
    }

    #[test]
    fn a_build_without_traces_refuses_to_be_asked_for_them() {
        let endpoint = Some("http://127.0.0.1:4318");
        assert_eq!(faults(endpoint, true), [""; 0]);
        assert_eq!(faults(None, false), [""; 0]);
        let told = faults(endpoint, false);
        assert!(told[0].contains("built without traces"), "{told:?}");
    }

    #[test]
    fn a_collector_is_an_http_url() {
        for endpoint in ["127.0.0.1:4318", "udp://x", "http://x?key=1", ""] {
            assert_eq!(faults(Some(endpoint), true).len(), 1, "{endpoint}");
        }
    }
}
