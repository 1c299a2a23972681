//! Asking workers what they hold, and telling them what to consume.
//!
//! Sends Celery's own requests to its control exchange and gathers the answers until all have come or the time
//! is over. Only the named nodes answer, or heed a command. The number and the bytes of answers are bounded; what an
//! answer means is decided where Celery's wire format is known. A request expires at the broker with the deadline;
//! one that has gone out to a worker that is stopped waits there for as long as it is.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use poolwright_core::constants::COMMAND_DEADLINE;
use tokio::time::Instant;

use super::errors;
use super::sieve::Bounds;
use super::workers::{self, Exchange, OwnQueue};
use crate::signals::celery::{Collector, MAX_REPLY_BYTES, Method, Request, reply_exchange, unique};
use crate::signals::{NodeAnswer, SignalError};

/// What may come over the connection that asks. One byte more than is read tells that there were more.
pub(super) const REPLIES: Bounds = Bounds {
    body: MAX_REPLY_BYTES as u64 + 1,
    credit: 16,
};
/// Replies read for each one that is expected, before the rest is left: others may answer under our key.
const REPLIES_PER_EXPECTED: usize = 2;

/// Asks `nodes` all questions, and once that is done waits for `deadline` at most.
pub(super) async fn ask(
    connection: &Connection,
    control_exchange: &str,
    (nodes, sizes): (&[String], bool),
    deadline: Duration,
) -> Result<Vec<NodeAnswer>, SignalError> {
    let asking = prepare(connection, control_exchange, (nodes, sizes), deadline);
    let asked = tokio::time::timeout(COMMAND_DEADLINE, asking).await;
    let inquiry = match asked {
        Ok(inquiry) => inquiry?,
        Err(_) => return Err(in_time(connection)),
    };
    match inquiry {
        Some(inquiry) => inquiry.gather(Instant::now() + deadline).await,
        None => Ok(Vec::new()),
    }
}

/// Sends one command to whom its body names, and waits until the broker has taken it. That no worker has declared the
/// control exchange is no failure: it is seen when they are asked.
pub(super) async fn tell(
    connection: &Connection,
    control_exchange: &str,
    body: &[u8],
) -> Result<(), SignalError> {
    let publishing = async {
        let channel = workers::channel(connection).await?;
        let (exchange, properties) = (
            format!("{control_exchange}.pidbox"),
            properties(COMMAND_DEADLINE)?,
        );
        let exchange = workers::short(&exchange)?;
        // Confirmed, because the broker refuses a publication only after it was sent, by closing the channel.
        let published = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (key, options) = (ShortString::default(), BasicPublishOptions::default());
            channel
                .basic_publish(exchange, key, options, body, properties)
                .await?
                .await
        };
        match published.await {
            Err(error) if errors::code(&error) == Some(errors::NOT_FOUND) => Ok(()),
            other => other.map(|_| ()).map_err(|error| workers::failed(&error)),
        }
    };
    match tokio::time::timeout(COMMAND_DEADLINE, publishing).await {
        Ok(published) => published,
        Err(_) => Err(in_time(connection)),
    }
}

/// Why nothing has come back in time.
fn in_time(connection: &Connection) -> SignalError {
    if connection.status().blocked() {
        errors::unreachable("RabbitMQ is short of memory or disk and takes no messages")
    } else {
        errors::unreachable("RabbitMQ did not answer in time")
    }
}

/// Questions under way.
struct Inquiry {
    // The reply queue is gone with its channel.
    _channel: Channel,
    consumer: lapin::Consumer,
    collector: Collector,
    /// How many are expected.
    replies: usize,
}

/// Opens the reply queue and publishes the questions; `None` if no worker has declared the control exchange.
async fn prepare(
    connection: &Connection,
    control_exchange: &str,
    (nodes, sizes): (&[String], bool),
    deadline: Duration,
) -> Result<Option<Inquiry>, SignalError> {
    let pidbox = format!("{control_exchange}.pidbox");
    let pidbox = Exchange {
        name: &pidbox,
        kind: ExchangeKind::Fanout,
        durable: false,
    };
    if !workers::exists(connection, &pidbox).await? {
        return Ok(None);
    }
    let replies = reply_exchange(control_exchange);
    workers::ensure(
        connection,
        &Exchange {
            name: &replies,
            kind: ExchangeKind::Direct,
            durable: false,
        },
    )
    .await?;
    let oid = unique();
    let queue = format!("{oid}.{replies}");
    let own = OwnQueue {
        name: &queue,
        ttl: None,
        credit: REPLIES.credit,
        exchange: &replies,
        key: &oid,
    };
    let (channel, mut consumer) = own.consume(connection).await?;
    let asked = Method::inquiry(sizes);
    let collector = Collector::new(nodes, &asked);
    let properties = properties(deadline)?;
    for (method, ticket) in &asked {
        let body = Request {
            method: *method,
            nodes,
            ticket,
            control_exchange,
            oid: &oid,
        }
        .body();
        let options = BasicPublishOptions::default();
        let exchange = workers::short(pidbox.name)?;
        let published = channel
            .basic_publish(
                exchange,
                ShortString::default(),
                options,
                &body,
                properties.clone(),
            )
            .await;
        if let Err(error) = published {
            // One before it may have been refused, which closes the channel: the consumer is told why.
            let why = workers::next(&mut consumer).await;
            return Err(why.err().unwrap_or_else(|| workers::failed(&error)));
        }
    }
    Ok(Some(Inquiry {
        _channel: channel,
        consumer,
        collector,
        replies: nodes.len().saturating_mul(asked.len()),
    }))
}

/// Of a request that the broker drops unless it goes out to the worker in this time.
fn properties(deadline: Duration) -> Result<BasicProperties, SignalError> {
    let left = deadline.as_millis().max(1);
    let mut headers = FieldTable::default();
    headers.insert(workers::short("clock")?, AMQPValue::LongLongInt(1));
    headers.insert(workers::short("expires")?, AMQPValue::LongLongInt(0));
    Ok(BasicProperties::default()
        .with_content_type(workers::short("application/json")?)
        .with_content_encoding(workers::short("utf-8")?)
        .with_delivery_mode(1)
        .with_priority(0)
        .with_expiration(workers::short(&left.to_string())?)
        .with_headers(headers))
}

impl Inquiry {
    async fn gather(mut self, end: Instant) -> Result<Vec<NodeAnswer>, SignalError> {
        for _ in 0..self.replies.saturating_mul(REPLIES_PER_EXPECTED) {
            if self.collector.complete() || self.collector.room() == 0 {
                break;
            }
            match tokio::time::timeout_at(end, workers::next(&mut self.consumer)).await {
                Ok(Ok(delivery)) => self.take(&delivery),
                // The broker refuses a publication only after it was sent, by closing the channel.
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(self.collector.finish())
    }

    fn take(&mut self, delivery: &Delivery) {
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        let ticket = headers.and_then(|headers| headers.get("ticket"));
        let Some(AMQPValue::LongString(ticket)) = ticket else {
            return;
        };
        let Ok(ticket) = std::str::from_utf8(ticket.as_bytes()) else {
            return;
        };
        let content_type = properties
            .content_type()
            .as_ref()
            .map_or("", |text| text.as_str());
        let encoding = properties
            .content_encoding()
            .as_ref()
            .map_or("", |text| text.as_str());
        self.collector
            .take_body(ticket, content_type, encoding, &delivery.data);
    }
}
