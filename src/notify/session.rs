//! One connection to a broker, with what oslo.messaging declares there.

use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    PublisherConfirm,
};

use super::{Priority, envelope};
use crate::catalog::outbox::Event;
use crate::config::{Broker, Notifications};

/// How long a broker may take to let us in.
const LET_IN: Duration = Duration::from_secs(5);
/// How long it may take to confirm a batch.
const CONFIRM: Duration = Duration::from_secs(10);
/// On disk where the queue is, too.
const PERSISTENT: u8 = 2;

/// Why events were not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Amqp(#[from] lapin::Error),
    #[error("the broker does not answer")]
    Silent,
    #[error("the broker has not taken an event")]
    NotTaken,
}

/// A connection that confirms what is published in it.
pub(super) struct Session {
    /// Ends with us.
    _connection: Connection,
    channel: Channel,
}

impl Session {
    /// Connects and declares: the exchange, and for each topic and priority the queue that
    /// consumers read.
    pub(super) async fn open(broker: &Broker, config: &Notifications) -> Result<Self, Fault> {
        in_time(LET_IN, async {
            let name = ConnectionProperties::default().with_connection_name("glint".into());
            let connection = Connection::connect_uri(uri(broker), name).await?;
            let channel = connection.create_channel().await?;
            declare(&channel, config).await?;
            let confirm = ConfirmSelectOptions::default();
            channel.confirm_select(confirm).await?;
            Ok(Self {
                _connection: connection,
                channel,
            })
        })
        .await
    }

    /// Sends events, in order, and waits until the broker has all of them.
    pub(super) async fn send(
        &self,
        events: &[Event],
        publisher_id: &str,
        config: &Notifications,
    ) -> Result<(), Fault> {
        in_time(CONFIRM, async {
            let mut confirms = Vec::with_capacity(events.len());
            for event in events {
                let text = envelope::seal(event, publisher_id);
                for topic in &config.topics {
                    confirms.push(self.publish(event, topic, &text, config).await?);
                }
            }
            for confirm in confirms {
                match confirm.await? {
                    Confirmation::Ack(None) => {}
                    // No queue wants it: somebody removed ours. The next session declares it again.
                    Confirmation::Ack(Some(_))
                    | Confirmation::Nack(_)
                    | Confirmation::NotRequested => return Err(Fault::NotTaken),
                }
            }
            Ok(())
        })
        .await
    }

    async fn publish(
        &self,
        event: &Event,
        topic: &str,
        text: &str,
        config: &Notifications,
    ) -> Result<PublisherConfirm, Fault> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_delivery_mode(PERSISTENT)
            .with_priority(0);
        let exchange = config.exchange.as_str().into();
        let queue = queue(topic, event.priority).into();
        let sent =
            self.channel
                .basic_publish(exchange, queue, options, text.as_bytes(), properties);
        Ok(sent.await?)
    }
}

async fn declare(channel: &Channel, config: &Notifications) -> Result<(), lapin::Error> {
    let durable = config.amqp_durable_queues || config.rabbit_quorum_queue;
    let exchange = ExchangeDeclareOptions {
        durable,
        auto_delete: config.amqp_auto_delete,
        ..ExchangeDeclareOptions::default()
    };
    let none = FieldTable::default;
    channel
        .exchange_declare(
            config.exchange.as_str().into(),
            ExchangeKind::Topic,
            exchange,
            none(),
        )
        .await?;
    for topic in &config.topics {
        for priority in [Priority::Info, Priority::Error] {
            let name = queue(topic, priority);
            let options = QueueDeclareOptions {
                durable,
                auto_delete: config.amqp_auto_delete,
                ..QueueDeclareOptions::default()
            };
            let mut arguments = none();
            if config.rabbit_quorum_queue {
                arguments.insert(
                    "x-queue-type".into(),
                    AMQPValue::LongString("quorum".into()),
                );
            }
            channel
                .queue_declare(name.as_str().into(), options, arguments)
                .await?;
            channel
                .queue_bind(
                    name.as_str().into(),
                    config.exchange.as_str().into(),
                    name.as_str().into(),
                    QueueBindOptions::default(),
                    none(),
                )
                .await?;
        }
    }
    Ok(())
}

fn uri(broker: &Broker) -> AMQPUri {
    AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: broker.user.clone(),
                password: broker.password.reveal().to_owned(),
            },
            host: broker.host.clone(),
            port: broker.port,
        },
        vhost: broker.vhost.clone(),
        ..AMQPUri::default()
    }
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(patience, work)
        .await
        .map_err(|_| Fault::Silent)?
}

/// `notifications.info`
fn queue(topic: &str, priority: Priority) -> String {
    format!("{topic}.{}", priority.name().to_ascii_lowercase())
}
