//! What workers send: heartbeats and answers, over queues of our own.
//!
//! Exchanges are first looked for and only declared when they are absent, exactly as Celery declares them, so it
//! does not matter whether the operator or a worker comes first, and a worker never meets a declaration that
//! differs from its own. Our queues are exclusive, delete themselves, and carry the names that Celery's own clients use, so a
//! permission written for Celery covers them. Messages are taken with a bounded credit and acknowledged one by
//! one: when we fall behind they wait and expire at the broker, not in our memory.

use futures::StreamExt;
use futures::stream::BoxStream;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer, ExchangeKind};
use poolwright_core::sample::FaultKind;

use super::errors;
use super::sieve::Bounds;
use crate::signals::dropped::Dropped;
use crate::signals::{Heartbeat, SignalError, celery};

/// What may come over the connection that reads heartbeats: one has some hundred bytes.
pub(super) const HEARTBEATS: Bounds = Bounds {
    body: 64 << 10,
    credit: 256,
};
/// Heartbeats older than this are of no use (milliseconds).
const HEARTBEAT_TTL: i32 = 5_000;
/// The broker deletes a queue that nobody has used for so long (milliseconds).
const EXPIRES: i32 = 60_000;
/// Most messages that wait in one of our queues; the oldest go first.
const MAX_WAITING: i32 = 50_000;
/// Most bytes that wait in one of our queues.
const MAX_WAITING_BYTES: i32 = 64 << 20;

/// An exchange as Celery declares it.
pub(super) struct Exchange<'a> {
    pub(super) name: &'a str,
    pub(super) kind: ExchangeKind,
    pub(super) durable: bool,
}

/// The stream of heartbeats; it ends when the channel or the connection does. What cannot be believed is `dropped`.
pub(super) async fn heartbeats(
    connection: &Connection,
    event_exchange: &str,
    dropped: Dropped,
) -> Result<BoxStream<'static, Heartbeat>, SignalError> {
    let exchange = Exchange {
        name: event_exchange,
        kind: ExchangeKind::Topic,
        durable: true,
    };
    ensure(connection, &exchange).await?;
    let queue = format!("{event_exchange}.{}", celery::unique());
    let own = OwnQueue {
        name: &queue,
        ttl: Some(HEARTBEAT_TTL),
        credit: HEARTBEATS.credit,
        exchange: event_exchange,
        key: "worker.#",
    };
    let (channel, consumer) = own.consume(connection).await?;
    let held = (channel, consumer, dropped);
    let stream = futures::stream::unfold(held, |(channel, mut consumer, mut dropped)| async move {
        loop {
            let delivery = next(&mut consumer).await.ok()?;
            if let Some(heartbeat) = dropped.sift(celery::heartbeat_from_body(&delivery.data)) {
                return Some((heartbeat, (channel, consumer, dropped)));
            }
        }
    });
    Ok(stream.boxed())
}

/// The next message, acknowledged; an error when there will be no more.
pub(super) async fn next(consumer: &mut Consumer) -> Result<Delivery, SignalError> {
    let delivery = consumer.next().await;
    let delivery =
        delivery.ok_or_else(|| errors::unreachable("RabbitMQ ended the reading of a queue of ours"))?;
    let delivery = delivery.map_err(|error| failed(&error))?;
    let acknowledged = delivery.ack(BasicAckOptions::default()).await;
    acknowledged.map_err(|error| failed(&error))?;
    Ok(delivery)
}

/// True if the exchange exists.
pub(super) async fn exists(connection: &Connection, exchange: &Exchange<'_>) -> Result<bool, SignalError> {
    let channel = channel(connection).await?;
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel
        .exchange_declare(
            short(exchange.name)?,
            exchange.kind.clone(),
            passive,
            FieldTable::default(),
        )
        .await;
    match declared {
        Ok(()) => Ok(true),
        Err(error) if errors::code(&error) == Some(errors::NOT_FOUND) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// Declares the exchange as Celery does, unless it exists.
pub(super) async fn ensure(connection: &Connection, exchange: &Exchange<'_>) -> Result<(), SignalError> {
    if exists(connection, exchange).await? {
        return Ok(());
    }
    let channel = channel(connection).await?;
    let options = ExchangeDeclareOptions {
        durable: exchange.durable,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel
        .exchange_declare(
            short(exchange.name)?,
            exchange.kind.clone(),
            options,
            FieldTable::default(),
        )
        .await;
    match declared {
        // Somebody declared it in another way since we looked: that one serves as well.
        Err(error) if errors::code(&error) == Some(errors::PRECONDITION_FAILED) => Ok(()),
        other => other.map_err(|error| failed(&error)),
    }
}

/// A queue of ours, bound to one exchange.
pub(super) struct OwnQueue<'a> {
    pub(super) name: &'a str,
    pub(super) ttl: Option<i32>,
    /// Messages that may be under way to us at a time.
    pub(super) credit: u16,
    pub(super) exchange: &'a str,
    pub(super) key: &'a str,
}

impl OwnQueue<'_> {
    /// Declares, binds and consumes it on a channel of its own; it is gone with that channel.
    pub(super) async fn consume(&self, connection: &Connection) -> Result<(Channel, Consumer), SignalError> {
        let channel = channel(connection).await?;
        let consumer = self.consume_on(&channel).await?;
        Ok((channel, consumer))
    }

    async fn consume_on(&self, channel: &Channel) -> Result<Consumer, SignalError> {
        let mut arguments = FieldTable::default();
        let limits = [
            ("x-message-ttl", self.ttl),
            ("x-expires", Some(EXPIRES)),
            ("x-max-length", Some(MAX_WAITING)),
            ("x-max-length-bytes", Some(MAX_WAITING_BYTES)),
        ];
        for (name, value) in limits {
            if let Some(value) = value {
                arguments.insert(short(name)?, AMQPValue::LongInt(value));
            }
        }
        let name = short(self.name)?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let steps = async {
            channel.basic_qos(self.credit, BasicQosOptions::default()).await?;
            channel.queue_declare(name.clone(), exclusive, arguments).await?;
            let (exchange, key) = (
                ShortString::try_new(self.exchange),
                ShortString::try_new(self.key),
            );
            if let (Ok(exchange), Ok(key)) = (exchange, key) {
                channel
                    .queue_bind(
                        name.clone(),
                        exchange,
                        key,
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await?;
            }
            let options = BasicConsumeOptions {
                exclusive: true,
                ..BasicConsumeOptions::default()
            };
            channel
                .basic_consume(name, ShortString::default(), options, FieldTable::default())
                .await
        };
        steps.await.map_err(|error| failed(&error))
    }
}

pub(super) fn short(text: &str) -> Result<ShortString, SignalError> {
    ShortString::try_new(text).map_err(|_| {
        SignalError::new(
            FaultKind::InvalidAddress,
            "an exchange or queue name has at most 255 bytes",
        )
    })
}

pub(super) async fn channel(connection: &Connection) -> Result<Channel, SignalError> {
    connection
        .create_channel()
        .await
        .map_err(|error| errors::lost(&error))
}

pub(super) fn failed(error: &lapin::Error) -> SignalError {
    match errors::code(error) {
        Some(errors::ACCESS_REFUSED) => errors::refused(
            "RabbitMQ refuses this user Celery's exchange of events or of remote control, or a queue of its own to read from it; grant it with rabbitmqctl set_permissions",
        ),
        Some(errors::NOT_FOUND) => errors::unreachable("an exchange of Celery's went away"),
        _ if errors::closes_channel_only(error) => errors::unreachable(
            "RabbitMQ closed the channel; another program declared the queue or exchange otherwise",
        ),
        _ => errors::lost(error),
    }
}
