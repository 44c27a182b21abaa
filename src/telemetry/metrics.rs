//! Numbers over time, for Prometheus. Labels come from us (routes, stores, stages), never from
//! clients: there is a bounded number of series.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing::Span;

use super::trace;

/// Upper ends of the buckets of requests, in seconds.
const REQUEST_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];
/// Upper ends of the buckets of stages, in seconds.
const STAGE_BUCKETS: [f64; 10] = [
    0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1200.0, 3600.0,
];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All there is to count. Counting is some atomic operations.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Histograms<Answered>,
    open_requests: Gauge,
    in_flight: Family<Way, Gauge>,
    stages: Histograms<InStage>,
    store_bytes: Family<AtStore, Counter>,
    jobs: Family<InState, Gauge>,
    outbox: Gauge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    code: u16,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From a client, or into a store.
    In,
    /// To a client, or out of a store.
    Out,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Way {
    direction: Direction,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct AtStore {
    store: String,
    direction: Direction,
}

/// A stage of an image's way in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Bytes come from a client, are hashed, inspected and written.
    Receive,
    /// What came is judged.
    Judge,
    /// Bytes are made durable and visible in a store.
    Commit,
    /// A worker converts.
    Convert,
    /// An import as a whole, from the moment its job was claimed.
    Import,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct InStage {
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

macro_rules! label {
    ($type:ty { $($variant:ident => $name:literal),* $(,)? }) => {
        impl $type {
            const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        }
    };
}

label!(Direction { In => "in", Out => "out" });
label!(Stage {
    Receive => "receive",
    Judge => "judge",
    Commit => "commit",
    Convert => "convert",
    Import => "import",
});

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("glint");
        let requests: Histograms<Answered> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS));
        let stages: Histograms<InStage> =
            Family::new_with_constructor(|| Histogram::new(STAGE_BUCKETS));
        let all = Self {
            requests,
            stages,
            open_requests: Gauge::default(),
            in_flight: Family::default(),
            store_bytes: Family::default(),
            jobs: Family::default(),
            outbox: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register_with_unit(
            "http_request_duration",
            "Time until the head of an answer",
            Unit::Seconds,
            all.requests.clone(),
        );
        registry.register(
            "http_requests_open",
            "Requests whose answer has not ended",
            all.open_requests.clone(),
        );
        registry.register_with_unit(
            "transfer_in_flight",
            "Bytes moved so far in uploads, stagings and downloads that have not ended",
            Unit::Bytes,
            all.in_flight.clone(),
        );
        registry.register_with_unit(
            "ingest_stage_duration",
            "Time an image spent in a stage of its way in",
            Unit::Seconds,
            all.stages.clone(),
        );
        registry.register_with_unit(
            "store",
            "Bytes written to and read from a store",
            Unit::Bytes,
            all.store_bytes.clone(),
        );
        registry.register(
            "jobs",
            "Jobs that wait for a worker or are worked on",
            all.jobs.clone(),
        );
        registry.register(
            "outbox_events",
            "Events that wait for a broker",
            all.outbox.clone(),
        );
        Self { registry, ..all }
    }
}

impl Metrics {
    /// A request begins; it has ended when what is answered here is dropped.
    #[must_use]
    pub fn request(&self) -> OpenRequest {
        self.open_requests.inc();
        OpenRequest(self.open_requests.clone())
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, code: u16, took: Duration) {
        let labels = Answered {
            method: method.to_owned(),
            route: route.to_owned(),
            code,
        };
        let seconds = took.as_secs_f64();
        self.requests.get_or_create(&labels).observe(seconds);
    }

    /// A transfer begins; it has ended when what is answered here is dropped.
    #[must_use]
    pub fn transfer(&self, direction: Direction) -> Transfer {
        Transfer {
            gauge: self.in_flight.get_or_create_owned(&Way { direction }),
            moved: 0,
        }
    }

    /// A stage begins; it has ended when what is answered here is dropped.
    #[must_use]
    pub fn stage(self: &Arc<Self>, stage: Stage) -> InProgress {
        InProgress {
            metrics: self.clone(),
            stage,
            since: Instant::now(),
            _span: trace::stage(stage.name()),
        }
    }

    /// Bytes went into a store or came out of it.
    pub fn store(&self, store: &str, direction: Direction, bytes: u64) {
        let labels = AtStore {
            store: store.to_owned(),
            direction,
        };
        self.store_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// How many jobs wait, how many are worked on, and how many events wait for a broker.
    pub fn queues(&self, ready: i64, claimed: i64, outbox: i64) {
        self.outbox.set(outbox);
        for (state, jobs) in [("ready", ready), ("claimed", claimed)] {
            self.jobs.get_or_create(&InState { state }).set(jobs);
        }
    }

    /// Everything, in the text format of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        written.expect("a String takes all text");
        text
    }
}

/// A request that has not ended.
#[derive(Debug)]
pub struct OpenRequest(Gauge);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    gauge: Gauge,
    moved: u64,
}

impl Transfer {
    /// More bytes moved.
    pub fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.gauge.inc_by(signed(bytes));
    }

    /// Bytes moved so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.moved
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.gauge.dec_by(signed(self.moved));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A stage under way.
#[derive(Debug)]
pub struct InProgress {
    metrics: Arc<Metrics>,
    stage: Stage,
    since: Instant,
    _span: Span,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let labels = InStage { stage: self.stage };
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.stages.get_or_create(&labels).observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_on_the_page() {
        let metrics = Arc::new(Metrics::default());
        let open = metrics.request();
        let mut transfer = metrics.transfer(Direction::In);
        transfer.moved(7);
        metrics.answered("GET", "/v2/images", 200, Duration::from_millis(3));
        metrics.store("fast", Direction::Out, 5);
        metrics.queues(2, 1, 4);
        drop(metrics.stage(Stage::Judge));
        let text = metrics.text();
        for line in [
            "glint_http_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\",route=\"/v2/images\",code=\"200\"} 1",
            "glint_http_requests_open 1",
            "glint_transfer_in_flight_bytes{direction=\"in\"} 7",
            "glint_ingest_stage_duration_seconds_count{stage=\"judge\"} 1",
            "glint_store_bytes_total{store=\"fast\",direction=\"out\"} 5",
            "glint_jobs{state=\"ready\"} 2",
            "glint_jobs{state=\"claimed\"} 1",
            "glint_outbox_events 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop((open, transfer));
        let text = metrics.text();
        for line in [
            "glint_http_requests_open 0",
            "glint_transfer_in_flight_bytes{direction=\"in\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
