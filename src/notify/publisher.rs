//! The publisher: from the outbox to the first broker that takes events.

use std::sync::Arc;
use std::time::Duration;

use super::Events;
use super::session::{Fault, Session};
use crate::catalog::{self, outbox};
use crate::config::{Broker, Notifications};
use crate::domain::Timestamp;
use crate::service::Service;

/// Seconds for which a batch is ours: longer than a session takes to be opened, to send it, or to
/// give up.
const LEASE_SECONDS: i64 = 20;
/// How often the outbox is looked at without being told: another process may have died.
const IDLE: Duration = Duration::from_secs(5);
/// How long to wait after all brokers failed: at first, and at most.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// Sends events for as long as the service runs.
pub async fn publish(svc: Arc<Service>, events: Arc<Events>) {
    let config = &svc.config.notifications;
    let brokers = match config.brokers() {
        Ok(brokers) if !brokers.is_empty() => brokers,
        _ => return,
    };
    let publisher = Publisher {
        id: config.publisher_id.clone().unwrap_or_else(default_id),
        holder: holder(&svc),
        svc: &svc,
        config,
    };
    let mut session = None;
    let mut next = 0;
    let mut failed = 0;
    loop {
        match publisher.round(&mut session, &brokers[next]).await {
            Ok(Sent::All) => {
                failed = 0;
                let _ = tokio::time::timeout(IDLE, events.woken()).await;
            }
            Ok(Sent::Some) => failed = 0,
            Err(Failed::Catalog(e)) => {
                tracing::warn!(error = %e, "events wait: the catalog cannot be reached");
                // A row that cannot be read would else keep all behind it for ever.
                publisher.let_go().await;
                tokio::time::sleep(IDLE).await;
            }
            Err(Failed::Broker(e)) => {
                session = None;
                let broker = &brokers[next];
                tracing::warn!(
                    error = %e, broker = format!("{}:{}", broker.host, broker.port),
                    "events could not be sent: they wait in the outbox"
                );
                next = (next + 1) % brokers.len();
                failed += 1;
                // Every broker is tried once before we rest.
                if failed % brokers.len() == 0 {
                    publisher.rest(failed / brokers.len()).await;
                }
            }
        }
    }
}

/// Our name among the processes of the catalog. Where we are alone it is always the same, so that
/// what we held when we died is ours at once.
fn holder(svc: &Service) -> String {
    if svc.catalog.is_shared() {
        uuid::Uuid::new_v4().to_string()
    } else {
        "the only one".into()
    }
}

/// `image.<host name>`
fn default_id() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.unwrap_or_default();
    let name = Some(name.trim()).filter(|n| !n.is_empty());
    format!("image.{}", name.unwrap_or("localhost"))
}

/// What a round did.
enum Sent {
    /// Nothing is left for us to send.
    All,
    /// There may be more.
    Some,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error(transparent)]
    Broker(#[from] Fault),
}

struct Publisher<'a> {
    /// Who we are to consumers.
    id: String,
    /// Who we are to other processes.
    holder: String,
    svc: &'a Service,
    config: &'a Notifications,
}

impl Publisher<'_> {
    /// Takes a batch, sends it, removes it.
    async fn round(&self, session: &mut Option<Session>, broker: &Broker) -> Result<Sent, Failed> {
        let catalog = &self.svc.catalog;
        let batch = outbox::claim(catalog, &self.holder, LEASE_SECONDS).await?;
        if batch.is_empty() {
            return Ok(Sent::All);
        }
        let open = match session {
            Some(open) => open,
            None => {
                let open = Session::open(broker, self.config).await?;
                tracing::info!(
                    broker = format!("{}:{}", broker.host, broker.port),
                    "events go to a broker"
                );
                session.insert(open)
            }
        };
        open.send(&batch, &self.id, self.config).await?;
        outbox::remove(catalog, &batch).await?;
        Ok(Sent::Some)
    }

    /// Waits for brokers that all failed, `rounds` times by now. Meanwhile another process may try,
    /// and the outbox is kept from growing for ever.
    async fn rest(&self, rounds: usize) {
        self.let_go().await;
        let doublings = u32::try_from(rounds - 1).map_or(10, |n| n.min(10));
        let pause = PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE);
        tokio::time::sleep(pause).await;
    }

    /// Lets others send, and drops what is too old or too much.
    async fn let_go(&self) {
        if let Err(e) = self.try_let_go().await {
            tracing::warn!(error = %e, "the outbox cannot be looked after");
        }
    }

    async fn try_let_go(&self) -> Result<(), catalog::Error> {
        let catalog = &self.svc.catalog;
        outbox::release(catalog, &self.holder).await?;
        let oldest = Timestamp::now().plus_seconds(-i64::from(self.config.keep_hours) * 3600);
        let dropped = outbox::trim(catalog, oldest, self.config.keep_events).await?;
        if dropped > 0 {
            tracing::error!(
                events = dropped,
                "{dropped} events are dropped: no broker took them within \
                 notifications.keep_hours, or more than notifications.keep_events waited"
            );
        }
        Ok(())
    }
}
