//! What a job's row holds: the job, and the trace it follows from.

use serde::{Deserialize, Serialize};

use crate::telemetry::trace;

#[derive(Serialize)]
struct Written<'a, T> {
    #[serde(flatten)]
    job: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

#[derive(Deserialize)]
struct Origin {
    traceparent: Option<String>,
}

/// A job as JSON, with the trace we are in.
pub(crate) fn write(job: &impl Serialize) -> String {
    let written = serde_json::to_string(&Written {
        job,
        traceparent: trace::origin(),
    });
    written.expect("a job is a struct of text, numbers and lists")
}

/// The trace that a payload was written in.
pub(super) fn origin(payload: &str) -> Option<String> {
    serde_json::from_str::<Origin>(payload).ok()?.traceparent
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_without_a_trace_is_its_own_json() {
        let job = json!({"image_id": "1", "from": "staged"});
        assert_eq!(write(&job), job.to_string());
        assert_eq!(origin(&job.to_string()), None);
    }

    #[test]
    fn a_trace_lies_beside_the_job() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let payload = json!({"image_id": "1", "traceparent": parent}).to_string();
        assert_eq!(origin(&payload).as_deref(), Some(parent));
    }
}
