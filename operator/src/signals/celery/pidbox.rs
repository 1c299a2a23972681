//! Remote-control requests: the read-only questions, and the commands that change a worker.
//!
//! Decides how they are written. Both kinds are closed enums and apart from one another: no question can make a
//! worker change anything, and no more can be changed than which queues it consumes and how many slots it has. A
//! command always names its workers, because one that names nobody is heeded by every worker of the broker, also by those that are not ours.
//!
//! Nothing here ends a request: kombu looks at the header `expires` of replies only, so a worker that was stopped or
//! busy heeds whatever waits for it, however old. What a worker does is seen by asking it, not by what it was sent.

use base64::Engine as _;
use serde::Serialize;

use super::unique;

/// A read-only question to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Executing tasks, asked with `safe` so that arguments come as short texts at most.
    Active,
    /// Fetched tasks that have not started and have no ETA.
    Reserved,
    /// Fetched tasks whose ETA has not come.
    Scheduled,
    /// The queues it consumes.
    ActiveQueues,
    /// What it is made of; only the size of its execution pool is read.
    Stats,
}

impl Method {
    /// The four that make an answer.
    pub const ALL: [Self; 4] = [Self::Active, Self::Reserved, Self::Scheduled, Self::ActiveQueues];

    /// What is asked in one inquiry, each under a ticket of its own. A worker answers in this order, so the size has
    /// come when the answer is whole, and nobody waits for one that does not come.
    #[must_use]
    pub fn inquiry(sizes: bool) -> Vec<(Self, String)> {
        let first = sizes.then_some(Self::Stats);
        let all = first.into_iter().chain(Self::ALL);
        all.map(|method| (method, unique())).collect()
    }

    /// Celery's name of the method.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reserved => "reserved",
            Self::Scheduled => "scheduled",
            Self::ActiveQueues => "active_queues",
            Self::Stats => "stats",
        }
    }
}

/// One question to some nodes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is asked.
    pub method: Method,
    /// Who is asked; every other worker ignores it.
    pub nodes: &'a [String],
    /// Comes back in the headers of each reply.
    pub ticket: &'a str,
    /// Celery's control exchange (`celery`).
    pub control_exchange: &'a str,
    /// Routing key of the replies.
    pub oid: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    method: &'static str,
    arguments: Arguments,
    destination: &'a [String],
    pattern: Option<()>,
    matcher: Option<()>,
    ticket: &'a str,
    reply_to: ReplyTo<'a>,
}

#[derive(Serialize)]
struct Arguments {
    #[serde(skip_serializing_if = "Option::is_none")]
    safe: Option<bool>,
}

#[derive(Serialize)]
struct ReplyTo<'a> {
    exchange: String,
    routing_key: &'a str,
}

impl Request<'_> {
    /// The JSON body, as it is on AMQP and inside Redis's base64.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let body = Body {
            method: self.method.name(),
            arguments: Arguments {
                safe: (self.method == Method::Active).then_some(true),
            },
            destination: self.nodes,
            pattern: None,
            matcher: None,
            ticket: self.ticket,
            reply_to: ReplyTo {
                exchange: reply_exchange(self.control_exchange),
                routing_key: self.oid,
            },
        };
        // Strings, a bool and nulls cannot fail to serialize; an empty body would be ignored by workers.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Most workers that one command may name.
pub const COMMANDED_MAX: usize = 200;

/// Changes which queues workers consume, or how many slots they have. What they hold already they finish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Stop consuming a queue.
    CancelConsumer {
        /// Its name on the broker.
        queue: String,
    },
    /// Consume a queue again, as the worker itself declares it; one that it does not know it declares with defaults.
    AddConsumer {
        /// Its name on the broker.
        queue: String,
    },
    /// Have so many slots more.
    PoolGrow {
        /// How many.
        by: u64,
    },
    /// Have so many slots less. Of a worker with processes, those that execute no task end.
    PoolShrink {
        /// How many.
        by: u64,
    },
}

#[derive(Serialize)]
struct CommandBody<'a> {
    method: &'static str,
    arguments: CommandArguments<'a>,
    destination: &'a [String],
    pattern: Option<()>,
    matcher: Option<()>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CommandArguments<'a> {
    Cancel {
        queue: &'a str,
    },
    Add {
        queue: &'a str,
        exchange: Option<()>,
        exchange_type: &'static str,
        routing_key: Option<()>,
    },
    Resize {
        n: u64,
    },
}

impl Command {
    /// The queue that it is about; `None` for one about slots.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        match self {
            Self::CancelConsumer { queue } | Self::AddConsumer { queue } => Some(queue),
            Self::PoolGrow { .. } | Self::PoolShrink { .. } => None,
        }
    }

    /// Celery's name of the method.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CancelConsumer { .. } => "cancel_consumer",
            Self::AddConsumer { .. } => "add_consumer",
            Self::PoolGrow { .. } => "pool_grow",
            Self::PoolShrink { .. } => "pool_shrink",
        }
    }

    /// The JSON body. Without `reply_to` a worker answers nothing. `None` unless 1 to [`COMMANDED_MAX`] workers are
    /// named.
    #[must_use]
    pub fn body(&self, nodes: &[String]) -> Option<Vec<u8>> {
        if nodes.is_empty() || nodes.len() > COMMANDED_MAX {
            return None;
        }
        let arguments = match self {
            Self::CancelConsumer { queue } => CommandArguments::Cancel { queue },
            Self::AddConsumer { queue } => CommandArguments::Add {
                queue,
                exchange: None,
                exchange_type: "direct",
                routing_key: None,
            },
            Self::PoolGrow { by } | Self::PoolShrink { by } => CommandArguments::Resize { n: *by },
        };
        serde_json::to_vec(&CommandBody {
            method: self.name(),
            arguments,
            destination: nodes,
            pattern: None,
            matcher: None,
        })
        .ok()
    }
}

/// The exchange through which replies come back.
pub(crate) fn reply_exchange(control_exchange: &str) -> String {
    format!("reply.{control_exchange}.pidbox")
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    body: String,
    #[serde(rename = "content-encoding")]
    content_encoding: &'static str,
    #[serde(rename = "content-type")]
    content_type: &'static str,
    headers: HeadersOut,
    properties: PropertiesOut<'a>,
}

#[derive(Serialize)]
struct HeadersOut {
    clock: u64,
    expires: u8,
}

#[derive(Serialize)]
struct PropertiesOut<'a> {
    delivery_mode: u8,
    delivery_info: DeliveryInfoOut<'a>,
    priority: u8,
    body_encoding: &'static str,
    delivery_tag: &'a str,
}

#[derive(Serialize)]
struct DeliveryInfoOut<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

/// Wraps a body for kombu's Redis transport. `expires` is 0, as Celery writes it where there is no limit: workers
/// do not look at it.
#[must_use]
pub fn envelope(body: &[u8], exchange: &str, delivery_tag: &str) -> Vec<u8> {
    let envelope = EnvelopeOut {
        body: base64::engine::general_purpose::STANDARD.encode(body),
        content_encoding: "utf-8",
        content_type: "application/json",
        headers: HeadersOut { clock: 1, expires: 0 },
        properties: PropertiesOut {
            delivery_mode: 1,
            delivery_info: DeliveryInfoOut {
                exchange,
                routing_key: "",
            },
            priority: 0,
            body_encoding: "base64",
            delivery_tag,
        },
    };
    serde_json::to_vec(&envelope).unwrap_or_default()
}
