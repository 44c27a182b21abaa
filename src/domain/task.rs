//! Tasks: what clients are told of work done for them in the background.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Timestamp;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskStatus {
    /// Waits for a worker.
    Pending,
    /// Is being worked on.
    Processing,
    /// Done.
    Success,
    /// Ended without a result; the message says why.
    Failure,
}

impl TaskStatus {
    /// Whether nothing more will come of it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Success | Self::Failure)
    }

    /// The name on the wire and in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TaskStatus {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "pending" => Ok(Self::Pending),
            "processing" => Ok(Self::Processing),
            "success" => Ok(Self::Success),
            "failure" => Ok(Self::Failure),
            _ => Err(()),
        }
    }
}

/// A task.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// `api_image_import`.
    pub kind: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// The project that asked.
    pub owner: Option<String>,
    /// The image it works on.
    pub image_id: String,
    /// The request that asked.
    pub request_id: String,
    /// The user who asked.
    pub user_id: Option<String>,
    /// What was asked.
    pub input: Value,
    /// What came of it.
    pub result: Option<Value>,
    /// Progress, then the outcome, for a person.
    pub message: String,
    /// When it is forgotten; set when it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// How far it is, while it is being worked on.
    pub progress: Option<Value>,
}
