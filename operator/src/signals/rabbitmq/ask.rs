//! Asking workers what they hold.
//!
//! Sends Celery's own requests to its control exchange and gathers the answers until all have come or the time
//! is over. Only the four read-only requests are sent, and only the named nodes answer. The number and the bytes
//! of answers are bounded; what an answer means is decided where Celery's wire format is known. A request
//! expires at the broker with the deadline, not by a worker's clock, which may be wrong.

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use tokio::time::Instant;

use super::errors;
use super::workers::{self, Exchange, OwnQueue};
use crate::signals::celery::{Collector, Method, Request, reply_exchange, unique};
use crate::signals::{NodeAnswer, SignalError};

/// Replies read for each one that is expected, before the rest is left: others may answer under our key.
const REPLIES_PER_EXPECTED: usize = 2;

/// Asks `nodes` all four questions and waits until `end` at most.
pub(super) async fn ask(
    connection: &Connection,
    control_exchange: &str,
    nodes: &[String],
    end: Instant,
) -> Result<Vec<NodeAnswer>, SignalError> {
    let asked = tokio::time::timeout_at(end, prepare(connection, control_exchange, nodes, end)).await;
    let inquiry = match asked {
        Ok(inquiry) => inquiry?,
        Err(_) if connection.status().blocked() => {
            return Err(errors::unreachable(
                "RabbitMQ is short of memory or disk and takes no messages",
            ));
        }
        Err(_) => return Err(errors::unreachable("RabbitMQ did not answer in time")),
    };
    match inquiry {
        Some(inquiry) => inquiry.gather(nodes.len(), end).await,
        None => Ok(Vec::new()),
    }
}

/// Questions under way.
struct Inquiry {
    // The reply queue is gone with its channel.
    _channel: Channel,
    consumer: lapin::Consumer,
    collector: Collector,
}

/// Opens the reply queue and publishes the questions; `None` if no worker has declared the control exchange.
async fn prepare(
    connection: &Connection,
    control_exchange: &str,
    nodes: &[String],
    end: Instant,
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
        exchange: &replies,
        key: &oid,
    };
    let (channel, consumer) = own.consume(connection).await?;
    let tickets: [String; 4] = std::array::from_fn(|_| unique());
    let collector = Collector::new(nodes, &tickets);
    let properties = properties(end)?;
    for (method, ticket) in Method::ALL.into_iter().zip(&tickets) {
        let body = Request {
            method,
            nodes,
            ticket,
            control_exchange,
            oid: &oid,
        }
        .body();
        let options = BasicPublishOptions::default();
        let exchange = workers::short(pidbox.name)?;
        channel
            .basic_publish(
                exchange,
                ShortString::default(),
                options,
                &body,
                properties.clone(),
            )
            .await
            .map_err(|error| workers::failed(&error))?;
    }
    Ok(Some(Inquiry {
        _channel: channel,
        consumer,
        collector,
    }))
}

fn properties(end: Instant) -> Result<BasicProperties, SignalError> {
    let left = end.saturating_duration_since(Instant::now()).as_millis().max(1);
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
    async fn gather(mut self, nodes: usize, end: Instant) -> Result<Vec<NodeAnswer>, SignalError> {
        let most = nodes
            .saturating_mul(Method::ALL.len())
            .saturating_mul(REPLIES_PER_EXPECTED);
        for _ in 0..most {
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
