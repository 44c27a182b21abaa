//! One request at a time works on an upload. The newest goes first: a client that comes again has
//! given up the request before, of which we may not have heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};

/// How long a request waits for the one before.
const PATIENCE: Duration = Duration::from_secs(20);

/// The turns at all uploads.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Slot>>>);

struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many have asked for a turn.
    asked: watch::Sender<u64>,
}

/// A request's turn at an upload, until dropped.
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
    asked: watch::Receiver<u64>,
    /// Which of those who asked we are.
    number: u64,
    _slot: Arc<Slot>,
}

impl Turns {
    pub(super) async fn take(&self, id: &str) -> Option<Turn> {
        let slot = self.slot(id);
        let mut number = 0;
        slot.asked.send_modify(|n| {
            *n += 1;
            number = *n;
        });
        let guard = tokio::time::timeout(PATIENCE, slot.turn.clone().lock_owned());
        Some(Turn {
            _guard: guard.await.ok()?,
            asked: slot.asked.subscribe(),
            number,
            _slot: slot,
        })
    }

    fn slot(&self, id: &str) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        if let Some(slot) = slots.get(id).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot {
            turn: Arc::default(),
            asked: watch::Sender::new(0),
        });
        slots.insert(id.to_owned(), Arc::downgrade(&slot));
        slot
    }
}

impl Turn {
    /// Returns when somebody else wants the turn.
    pub(super) async fn wanted(&mut self) {
        // Also by one who asked while we waited ourselves. The sender lives as long as we do.
        let number = self.number;
        let _ = self.asked.wait_for(|n| *n > number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_makes_the_other_stop() {
        let turns = Turns::default();
        let mut first = turns.take("a").await.unwrap();
        let other = turns.take("b").await;
        assert!(other.is_some());
        let (second, ()) = tokio::join!(turns.take("a"), async {
            first.wanted().await;
            drop(first);
        });
        assert!(second.is_some());
        drop((second, other));
        // Who asked while the one before was waited for is heard, too.
        let first = turns.take("a").await.unwrap();
        let (third, _) = tokio::join!(
            async {
                let mut second = turns.take("a").await.unwrap();
                second.wanted().await;
                drop(second);
                true
            },
            async {
                let third = turns.take("a");
                tokio::pin!(third);
                assert!(futures_util::poll!(&mut third).is_pending());
                drop(first);
                third.await.unwrap()
            }
        );
        assert!(third);
        turns.take("c").await.unwrap();
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
