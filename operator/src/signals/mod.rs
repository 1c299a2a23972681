//! Readings of brokers and workers: one source per file behind [`SignalSource`], driven by one poller.
//!
//! A source connects, reads and parses; it keeps no policy. Deadlines, back-off, freshness and what a missing
//! number means belong to the poller and to the core.

mod address;
pub mod airflow;
pub mod board;
pub mod celery;
mod commands;
mod dropped;
#[cfg(test)]
pub(crate) mod fuzzed;
pub mod gated;
pub mod guard;
pub mod load;
pub mod network;
pub mod poller;
mod questions;
pub mod rabbitmq;
pub mod redis;
pub mod roster;
mod strangers;
#[cfg(test)]
mod tests;
mod tls;
mod web;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use celery::{Command, Told};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use poolwright_core::broker::{BrokerConfig, BrokerKind};
use poolwright_core::sample::{FaultKind, Ready, Unacked};

use self::network::Network;
use self::rabbitmq::RabbitSource;
use self::redis::RedisSource;
use crate::clock::Clock;

/// Most messages of a queue that are believed; more is a missing reading, not a demand.
const MAX_COUNT: u64 = 1_000_000_000;

/// A failed reading: its class, and words that hold no secret and no byte of a reply.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SignalError {
    /// The class, which decides the condition's reason.
    pub kind: FaultKind,
    /// What was wrong and what to do.
    pub message: String,
}

impl SignalError {
    /// An error of `kind` with these words.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A command that would go to everybody, or to more than one message may name.
    fn nobody_named() -> Self {
        let message = format!("a command names 1 to {} workers", celery::COMMANDED_MAX);
        Self::new(FaultKind::Implausible, message)
    }
}

/// What one poll should read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Queue names on the broker, without key prefix.
    pub queues: Vec<String>,
    /// Also look into the unnamed default queue `celery` (set when no TaskQueue names it).
    pub stray: bool,
}

/// What one poll read. Every wanted queue has an entry.
#[derive(Debug, Default)]
pub struct Polled {
    /// By queue name.
    pub queues: BTreeMap<String, PolledQueue>,
    /// Messages in `celery` that nobody consumes (0 if it was not asked for or does not exist).
    pub stray: u64,
}

/// One queue's share of a poll.
#[derive(Debug)]
pub struct PolledQueue {
    /// Waiting messages.
    pub ready: Result<Ready, SignalError>,
    /// Fetched messages; `None` where the broker does not tell.
    pub unacked: Option<Result<Unacked, SignalError>>,
}

/// A worker's sign of life, already checked for plausibility.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// Node name, `celery@pod`.
    pub node: String,
    /// Process id of the worker.
    pub pid: i64,
    /// Executing tasks.
    pub active: u64,
    /// Tasks started since the worker began.
    pub processed: u64,
    /// Time to the next heartbeat.
    pub interval: Duration,
    /// True for `worker-online`: a process that has begun, or one that has lost its connection and is back.
    pub online: bool,
    /// True for `worker-offline`.
    pub offline: bool,
}

/// What one worker told, or why it cannot be used.
pub type NodeAnswer = (String, Result<Told, String>);

/// Inquiries to the workers of one broker that may be under way at a time: each may read some megabytes.
const INQUIRIES_MAX: usize = 4;

/// An ETA as Celery writes it (ISO 8601; without an offset it is UTC), in Unix milliseconds. Beyond the last moment that can
/// be told, which Python's last second is, it is that moment: a task that is never due is not due.
fn eta_milliseconds(text: &str) -> Option<i64> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let naive = || {
        let civil: jiff::civil::DateTime = text.trim_end_matches('Z').parse().ok()?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC);
        let never = || (civil.year() == 9999).then_some(jiff::Timestamp::MAX);
        zoned.map(|zoned| zoned.timestamp()).ok().or_else(never)
    };
    zoned.or_else(naive).map(jiff::Timestamp::as_millisecond)
}

/// One broker's readings.
pub trait SignalSource: Send + Sync {
    /// Reads every wanted queue at bounded cost. `Err` means that nothing could be read at all.
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>>;

    /// Subscribes to the workers' heartbeats. The stream ends when the connection does; malformed messages are
    /// dropped, and at most once a minute it is logged which and why, never what they hold (it may be anything).
    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>>;

    /// Asks these workers for `active`, `reserved`, `scheduled` and `active_queues` (read-only), with `sizes` for the
    /// size of their execution pools too, and returns when all have answered or `deadline` has passed. Workers that did
    /// not answer are missing from the result.
    fn inquire<'a>(
        &'a self,
        nodes: &'a [String],
        sizes: bool,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>>;

    /// The same without sizes.
    fn ask<'a>(
        &'a self,
        nodes: &'a [String],
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        self.inquire(nodes, false, deadline)
    }

    /// Tells these workers to change what they consume, or how many slots they have, in one message for all of them (at most
    /// [`celery::COMMANDED_MAX`]). Nothing comes back: whether a worker did it is seen when it is asked.
    fn command<'a>(
        &'a self,
        command: &'a Command,
        nodes: &'a [String],
    ) -> BoxFuture<'a, Result<(), SignalError>>;

    /// Open connections to the broker now.
    fn connections(&self) -> u64;
}

/// What connects to the broker that a configuration describes, and by which clock. It is handed in from outside, so
/// that the whole operator can run without a broker.
pub type Connect = Arc<
    dyn Fn(BrokerConfig, Clock) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>>
        + Send
        + Sync,
>;

/// Connects to a real broker.
#[must_use]
pub fn connect(
    config: BrokerConfig,
    clock: Clock,
    network: Network,
) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>> {
    async move {
        let source: Arc<dyn SignalSource> = match config.kind {
            BrokerKind::Redis => {
                Arc::new(RedisSource::connect(config, Arc::new(move || clock.wall()), &network).await?)
            }
            BrokerKind::RabbitMq => Arc::new(RabbitSource::connect(config, &network).await?),
        };
        Ok(source)
    }
    .boxed()
}
