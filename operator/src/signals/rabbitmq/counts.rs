//! Ready messages and consumers by passive declare.
//!
//! The count that a passive declare answers is live, which no HTTP address of RabbitMQ promises. A few channels
//! share the queues, so ten thousand queues need no more channels than eight. A refused declare (the queue is
//! absent, or closed to this user) closes its channel and writes a line to the broker's log, so such a queue is
//! looked at once a second only and its error repeated between. Nothing here guesses: an absent queue is an
//! error of that queue, a lost connection an error of the whole reading.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use poolwright_core::sample::{FaultKind, Ready};
use tokio::time::Instant;

use super::errors;
use crate::signals::SignalError;

/// Channels that work in parallel.
const LANES: usize = 8;
/// A new lane for each so many queues.
const QUEUES_PER_LANE: usize = 16;
/// How long a queue's refusal is repeated without asking again.
const RECHECK: Duration = Duration::from_secs(1);

/// One queue's reading.
pub(super) type Count = Result<Ready, SignalError>;

/// Asks for counts over one connection.
pub(super) struct Counter {
    connection: Arc<Connection>,
    idle: Mutex<Vec<Channel>>,
    refused: Mutex<HashMap<String, (Instant, SignalError)>>,
}

impl Counter {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            idle: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Every named queue's count; an error if the connection failed.
    pub(super) async fn read(&self, names: &[&str]) -> Result<HashMap<String, Count>, SignalError> {
        let mut counts = self.recent_refusals(names);
        let open: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !counts.contains_key(*name))
            .collect();
        let next = AtomicUsize::new(0);
        let lanes = open.len().div_ceil(QUEUES_PER_LANE).min(LANES);
        let read = futures::future::try_join_all((0..lanes).map(|_| self.lane(&open, &next))).await?;
        let now = Instant::now();
        for (name, count) in read.into_iter().flatten() {
            if let Err(error) = &count {
                lock(&self.refused).insert(name.to_owned(), (now, error.clone()));
            }
            counts.insert(name.to_owned(), count);
        }
        Ok(counts)
    }

    /// Refusals young enough to be repeated; the others, and those of other queues, are forgotten.
    fn recent_refusals(&self, names: &[&str]) -> HashMap<String, Count> {
        let mut refused = lock(&self.refused);
        if refused.is_empty() {
            return HashMap::new();
        }
        let mut kept = HashMap::new();
        for name in names {
            if let Some((at, error)) = refused.remove(*name)
                && at.elapsed() < RECHECK
            {
                kept.insert((*name).to_owned(), (at, error));
            }
        }
        *refused = kept;
        refused
            .iter()
            .map(|(name, (_, error))| (name.clone(), Err(error.clone())))
            .collect()
    }

    /// Takes queues off the common list until none is left. The channel goes back only when it is whole, so a
    /// reading that is given up midway leaves no channel with an answer outstanding.
    async fn lane<'n>(
        &self,
        names: &[&'n str],
        next: &AtomicUsize,
    ) -> Result<Vec<(&'n str, Count)>, SignalError> {
        let mut counts = Vec::new();
        let mut channel = None;
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Ok(queue) = ShortString::try_new(*name) else {
                let error = SignalError::new(FaultKind::QueueAbsent, "a queue name has at most 255 bytes");
                counts.push((*name, Err(error)));
                continue;
            };
            let lane = match channel.take() {
                Some(lane) => lane,
                None => self.channel().await?,
            };
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            match lane.queue_declare(queue, passive, FieldTable::default()).await {
                Ok(queue) => {
                    counts.push((*name, ready(&queue)));
                    channel = Some(lane);
                }
                Err(error) => counts.push((*name, Err(refusal(&error)?))),
            }
        }
        lock(&self.idle).extend(channel);
        Ok(counts)
    }

    async fn channel(&self) -> Result<Channel, SignalError> {
        let idle = lock(&self.idle)
            .pop()
            .filter(|channel| channel.status().connected());
        match idle {
            Some(channel) => Ok(channel),
            None => self
                .connection
                .create_channel()
                .await
                .map_err(|e| errors::lost(&e)),
        }
    }
}

fn ready(queue: &lapin::Queue) -> Count {
    Ok(Ready {
        count: errors::believed(u64::from(queue.message_count()))?,
        consumers: Some(u64::from(queue.consumer_count())),
        ..Ready::default()
    })
}

/// The error of one queue, or `Err` if it is not about the queue.
fn refusal(error: &lapin::Error) -> Result<SignalError, SignalError> {
    match errors::code(error) {
        Some(errors::NOT_FOUND) => Ok(SignalError::new(
            FaultKind::QueueAbsent,
            "the queue does not exist on this broker; its first worker or publisher declares it",
        )),
        Some(errors::ACCESS_REFUSED) => Ok(errors::refused(
            "RabbitMQ refuses this user the queue; grant it with rabbitmqctl set_permissions",
        )),
        Some(errors::RESOURCE_LOCKED) => Ok(errors::refused("the queue is exclusive to another connection")),
        _ => Err(errors::lost(error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
