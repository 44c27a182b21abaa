//! An image's status and the one table that says how it may change.

use std::fmt;
use std::str::FromStr;

/// Where an image stands. `killed` of the reference is never entered here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// A record without data.
    Queued,
    /// Data is being written to a store.
    Saving,
    /// Data is being staged, or lies staged.
    Uploading,
    /// An import owns it.
    Importing,
    /// Usable.
    Active,
    /// Kept, and downloadable by administrators only.
    Deactivated,
    /// Gone; the id stays taken.
    Deleted,
    /// Deleted, with data waiting to be removed.
    PendingDelete,
}

/// What happens to an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// `PUT /file` begins.
    UploadStarted,
    /// Its data is complete, judged and durable.
    UploadDone,
    /// It failed, or the one who did it died.
    UploadFailed,
    /// `PUT /stage` begins.
    StageStarted,
    /// It failed, or the one who did it died.
    StageFailed,
    /// An import of staged data was accepted.
    ImportStaged,
    /// An import that fetches its data was accepted.
    ImportFetched,
    /// The import published the image.
    ImportDone,
    /// The import failed with nothing usable.
    ImportFailed,
    /// A location was added to an image without data.
    LocationAdded,
    /// `POST /actions/deactivate`.
    Deactivate,
    /// `POST /actions/reactivate`.
    Reactivate,
    /// `DELETE`.
    Delete,
    /// `DELETE` with `delayed_delete`.
    DeleteLater,
    /// The data of a deleted image is removed at last.
    Scrub,
    /// A deleted image whose data is still there is taken back.
    Restore,
}

/// An event that a status does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Illegal {
    /// The status that stays.
    pub from: Status,
    /// What was asked of it.
    pub event: Event,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Saving,
        Self::Uploading,
        Self::Importing,
        Self::Active,
        Self::Deactivated,
        Self::Deleted,
        Self::PendingDelete,
    ];

    /// The name on the wire and in the catalog.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
            Self::PendingDelete => "pending_delete",
        }
    }

    /// The status after `event`.
    ///
    /// # Errors
    /// [`Illegal`] where the reference refuses it too (`image-states.md` 1.2).
    pub const fn apply(self, event: Event) -> Result<Self, Illegal> {
        use Event as E;
        use Status as S;
        Ok(match (self, event) {
            (S::Queued, E::UploadStarted) => S::Saving,
            (S::Queued, E::StageStarted) => S::Uploading,
            (S::Uploading, E::ImportStaged) | (S::Queued, E::ImportFetched) => S::Importing,
            (S::Queued, E::LocationAdded)
            | (S::Saving, E::UploadDone)
            | (S::Importing, E::ImportDone)
            | (S::Active | S::Deactivated, E::Reactivate)
            | (S::PendingDelete, E::Restore) => S::Active,
            (S::Saving, E::UploadFailed)
            | (S::Uploading, E::StageFailed)
            | (S::Importing, E::ImportFailed) => S::Queued,
            (S::Active | S::Deactivated, E::Deactivate) => S::Deactivated,
            (
                S::Queued | S::Saving | S::Uploading | S::Importing | S::Active | S::Deactivated,
                E::Delete,
            )
            | (
                S::Queued | S::Saving | S::Uploading | S::Importing | S::Deactivated,
                E::DeleteLater,
            )
            | (S::PendingDelete, E::Scrub) => S::Deleted,
            (S::Active, E::DeleteLater) => S::PendingDelete,
            _ => return Err(Illegal { from: self, event }),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or(())
    }
}

impl Event {
    /// The status the event leads to, for messages in the reference's words.
    #[must_use]
    pub const fn leads_to(self) -> Status {
        match self {
            Self::UploadStarted => Status::Saving,
            Self::StageStarted => Status::Uploading,
            Self::ImportStaged | Self::ImportFetched => Status::Importing,
            Self::UploadDone
            | Self::ImportDone
            | Self::LocationAdded
            | Self::Reactivate
            | Self::Restore => Status::Active,
            Self::UploadFailed | Self::StageFailed | Self::ImportFailed => Status::Queued,
            Self::Deactivate => Status::Deactivated,
            Self::Delete | Self::Scrub => Status::Deleted,
            Self::DeleteLater => Status::PendingDelete,
        }
    }
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Image status transition from {} to {} is not allowed",
            self.from,
            self.event.leads_to()
        )
    }
}

impl std::error::Error for Illegal {}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 16] = [
        Event::UploadStarted,
        Event::UploadDone,
        Event::UploadFailed,
        Event::StageStarted,
        Event::StageFailed,
        Event::ImportStaged,
        Event::ImportFetched,
        Event::ImportDone,
        Event::ImportFailed,
        Event::Deactivate,
        Event::Reactivate,
        Event::Delete,
        Event::LocationAdded,
        Event::DeleteLater,
        Event::Scrub,
        Event::Restore,
    ];

    /// The table of `image-states.md` 1.2, cell by cell: one row a status, one column an event,
    /// `-` for refused.
    const TABLE: &[(Status, &str)] = &[
        (
            Status::Queued,
            "saving - - uploading - - importing - - - - deleted active deleted - -",
        ),
        (
            Status::Saving,
            "- active queued - - - - - - - - deleted - deleted - -",
        ),
        (
            Status::Uploading,
            "- - - - queued importing - - - - - deleted - deleted - -",
        ),
        (
            Status::Importing,
            "- - - - - - - active queued - - deleted - deleted - -",
        ),
        (
            Status::Active,
            "- - - - - - - - - deactivated active deleted - pending_delete - -",
        ),
        (
            Status::Deactivated,
            "- - - - - - - - - deactivated active deleted - deleted - -",
        ),
        (Status::Deleted, "- - - - - - - - - - - - - - - -"),
        (
            Status::PendingDelete,
            "- - - - - - - - - - - - - - deleted active",
        ),
    ];

    #[test]
    fn every_cell_of_the_table() {
        assert_eq!(TABLE.len(), Status::ALL.len());
        for (from, row) in TABLE {
            let cells: Vec<_> = row.split(' ').collect();
            assert_eq!(cells.len(), EVENTS.len());
            for (event, want) in EVENTS.into_iter().zip(cells) {
                let got = from.apply(event).map_or("-", Status::name);
                assert_eq!(got, want, "{from} on {event:?}");
            }
        }
    }

    #[test]
    fn says_a_refusal_as_the_reference_does() {
        // 04-upload.http, "again: 409".
        let e = Status::Active.apply(Event::UploadStarted).unwrap_err();
        assert_eq!(
            e.to_string(),
            "Image status transition from active to saving is not allowed"
        );
    }
}
