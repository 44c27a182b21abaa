//! Batches: many images asked for at once. An item stands where its task does.

use std::fmt;

use serde_json::Value;

use super::{ImageId, TaskStatus, Timestamp};

/// A batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// Its id.
    pub id: String,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// The user who asked for it.
    pub user_id: Option<String>,
    /// What was asked, without the sources.
    pub plan: Value,
    /// Items worked on at once, at most.
    pub concurrency: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// One image of a batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// Its place in the batch, from 1.
    pub n: u32,
    /// What was asked.
    pub source: Value,
    /// What the image is called.
    pub name: Option<String>,
    /// The image.
    pub image_id: ImageId,
    /// The task that makes it.
    pub task_id: String,
    /// Whether its end was asked for.
    pub is_cancelled: bool,
    /// Where the task stands; `None` when it is gone.
    pub status: Option<TaskStatus>,
    /// What the task says.
    pub message: String,
    /// How far it is, while it is being worked on.
    pub progress: Option<Value>,
}

impl Item {
    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> ItemState {
        ItemState::of(self.status, self.is_cancelled)
    }
}

/// Where an item stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemState {
    /// Waits for its turn.
    Waiting,
    /// Is being worked on.
    Running,
    /// Its image is active.
    Done,
    /// There is no image, and the task says why.
    Failed,
    /// There is no image, as was asked for.
    Cancelled,
}

impl ItemState {
    /// The state of an item whose task stands there. What was done before its end was asked for is
    /// done.
    #[must_use]
    pub const fn of(status: Option<TaskStatus>, is_cancelled: bool) -> Self {
        match status {
            Some(TaskStatus::Pending) => Self::Waiting,
            Some(TaskStatus::Processing) => Self::Running,
            Some(TaskStatus::Success) => Self::Done,
            Some(TaskStatus::Failure) | None if is_cancelled => Self::Cancelled,
            Some(TaskStatus::Failure) | None => Self::Failed,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many items of a batch stand where.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// That wait.
    pub waiting: u64,
    /// That are being worked on.
    pub running: u64,
    /// That are done.
    pub done: u64,
    /// That failed.
    pub failed: u64,
    /// That were ended on request.
    pub cancelled: u64,
    /// Of those that wait or run: whose end was asked for.
    pub ending: u64,
}

impl Counts {
    /// Counts `many` more that stand there.
    pub const fn add(&mut self, status: Option<TaskStatus>, is_cancelled: bool, many: u64) {
        let state = ItemState::of(status, is_cancelled);
        let count = match state {
            ItemState::Waiting => &mut self.waiting,
            ItemState::Running => &mut self.running,
            ItemState::Done => &mut self.done,
            ItemState::Failed => &mut self.failed,
            ItemState::Cancelled => &mut self.cancelled,
        };
        *count += many;
        if is_cancelled && matches!(state, ItemState::Waiting | ItemState::Running) {
            self.ending += many;
        }
    }

    /// Where the batch as a whole stands.
    #[must_use]
    pub const fn state(&self) -> BatchState {
        if self.ending > 0 {
            BatchState::Cancelling
        } else if self.running > 0 || (self.waiting > 0 && self.done + self.failed > 0) {
            BatchState::Running
        } else if self.waiting > 0 {
            BatchState::Waiting
        } else if self.cancelled > 0 {
            BatchState::Cancelled
        } else if self.failed > 0 {
            BatchState::Failed
        } else {
            BatchState::Done
        }
    }
}

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchState {
    /// None of it has begun.
    Waiting,
    /// Some of it is under way or still to come.
    Running,
    /// Its end was asked for, and some of it has not ended yet.
    Cancelling,
    /// All of it is done.
    Done,
    /// It has ended, and some of it failed.
    Failed,
    /// It was ended on request before all of it was done.
    Cancelled,
}

impl BatchState {
    /// Whether nothing more will come of it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stands_where_its_items_do() {
        use TaskStatus::{Failure, Pending, Processing, Success};
        type Items<'a> = &'a [(Option<TaskStatus>, bool)];
        let cases: [(Items<'_>, BatchState); 9] = [
            (&[(Some(Pending), false)], BatchState::Waiting),
            (
                &[(Some(Pending), false), (Some(Success), false)],
                BatchState::Running,
            ),
            (&[(Some(Processing), false)], BatchState::Running),
            (
                &[(Some(Processing), true), (Some(Failure), true)],
                BatchState::Cancelling,
            ),
            (&[(Some(Success), false)], BatchState::Done),
            // It was done before anybody heard that it should not be.
            (&[(Some(Success), true)], BatchState::Done),
            (
                &[(Some(Success), false), (Some(Failure), false)],
                BatchState::Failed,
            ),
            (
                &[(Some(Failure), true), (Some(Failure), false)],
                BatchState::Cancelled,
            ),
            (&[(None, false)], BatchState::Failed),
        ];
        for (items, want) in cases {
            let mut counts = Counts::default();
            for (status, is_cancelled) in items {
                counts.add(*status, *is_cancelled, 1);
            }
            assert_eq!(counts.state(), want, "{items:?}");
        }
    }
}
