//! The workers' signs of life, over one pub/sub connection.
//!
//! Decides nothing about workers. It must keep reading even when nobody takes its heartbeats, because what it does
//! not read piles up in memory or makes Redis cut it off: so a task reads, drops what is no heartbeat, and drops
//! heartbeats too while 4,096 are waiting (each worker sends another in two seconds). A ping each second finds a
//! connection that is open and dead; then the stream ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use poolwright_core::constants::COMMAND_DEADLINE;
use redis::Value;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use super::connect::Server;
use super::errors;
use crate::signals::celery::heartbeat_from_envelope;
use crate::signals::dropped::Dropped;
use crate::signals::{Heartbeat, SignalError};

/// Heartbeats that may wait to be taken.
const WAITING: usize = 4096;
/// Time between two pings.
const PING: Duration = Duration::from_secs(1);

/// Counts a connection while it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicU64>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Subscribes to exactly these channels. The connection closes when the stream is dropped. What cannot be believed is
/// `dropped`.
pub(super) async fn subscribe(
    server: &Server,
    channels: &[String],
    count: &Arc<AtomicU64>,
    dropped: Dropped,
) -> Result<BoxStream<'static, Heartbeat>, SignalError> {
    let connecting = async {
        let pubsub = server.subscriber().await?;
        let counted = Counted::new(count);
        let (mut sink, stream) = pubsub.split();
        sink.subscribe(channels)
            .await
            .map_err(|e| errors::of(&e, "subscribe to the workers' events"))?;
        Ok((sink, stream, counted))
    };
    let late = |_| errors::unreachable("Redis did not answer in time (subscribe to the workers' events)");
    let (sink, stream, counted) = tokio::time::timeout(COMMAND_DEADLINE, connecting)
        .await
        .map_err(late)??;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        read(sink, stream, sender, dropped).await;
        drop(counted);
    });
    let next =
        |mut receiver: mpsc::Receiver<Heartbeat>| async move { Some((receiver.recv().await?, receiver)) };
    Ok(futures::stream::unfold(receiver, next).boxed())
}

async fn read(
    mut sink: PubSubSink,
    mut stream: PubSubStream,
    sender: Sender<Heartbeat>,
    mut dropped: Dropped,
) {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            message = stream.next() => {
                let Some(message) = message else { return };
                let read = heartbeat_from_envelope(message.get_payload_bytes());
                let Some(heartbeat) = dropped.sift(read) else { continue };
                if let Err(TrySendError::Closed(_)) = sender.try_send(heartbeat) {
                    return;
                }
            }
            _ = pings.tick() => {
                match tokio::time::timeout(COMMAND_DEADLINE, sink.ping::<Value>()).await {
                    Ok(Ok(_)) => {}
                    // The server answered, if only to refuse.
                    Ok(Err(error)) if error.code().is_some() => {}
                    _ => return,
                }
            }
        }
    }
}
