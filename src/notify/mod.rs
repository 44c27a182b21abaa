//! Events for other services (metering, search indexers): what happened to an image, a task, a
//! metadata definition.
//!
//! An event is a row of the catalog's outbox, written in the transaction of the fact it tells of
//! (`catalog::outbox`): none is told that did not happen, none is lost while the broker is away.
//! [`publish`] sends rows and removes each once the broker has confirmed it. A crash between the
//! two sends it again: consumers see it at least once, with the same `message_id`.

mod envelope;
pub mod payload;
mod publisher;
mod session;

use std::sync::Arc;

use tokio::sync::Notify;

pub use publisher::publish;

use crate::config::Notifications;

/// Which events are noted, and how the publisher hears of new ones.
#[derive(Debug)]
pub struct Events {
    disabled: Vec<String>,
    wake: Notify,
}

/// How much an event matters; the queue it goes to ends in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Something happened.
    Info,
    /// Something failed.
    Error,
}

impl Events {
    /// As configured; `None` where there is no broker.
    #[must_use]
    pub fn from_config(config: &Notifications) -> Option<Arc<Self>> {
        config.transport_url.as_ref()?;
        Some(Arc::new(Self {
            disabled: config.disabled_notifications.clone(),
            wake: Notify::new(),
        }))
    }

    /// Whether events of this type are noted: neither it nor what it begins with is disabled.
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        !self.disabled.iter().any(|disabled| {
            event_type
                .strip_prefix(disabled.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Tells the publisher that there is something to send.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`wake`](Self::wake).
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Priority {
    /// Its name, in capitals as the envelope has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Error => "ERROR",
        }
    }
}

impl std::str::FromStr for Priority {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "INFO" => Ok(Self::Info),
            "ERROR" => Ok(Self::Error),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_types_and_beginnings_are_disabled() {
        let events = Events {
            disabled: vec!["image.send".into(), "task".into(), "image.member".into()],
            wake: Notify::new(),
        };
        for (event, want) in [
            ("image.create", true),
            ("image.send", false),
            ("image.sender", true),
            ("task.run", false),
            ("tasks", true),
            ("image.member.update", false),
        ] {
            assert_eq!(events.wants(event), want, "{event}");
        }
    }

    #[test]
    fn without_a_broker_nothing_is_noted() {
        assert!(Events::from_config(&Notifications::default()).is_none());
    }
}
