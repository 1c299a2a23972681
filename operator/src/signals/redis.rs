//! Redis, as Celery uses it: waiting and fetched messages, heartbeats, and questions to workers.
//!
//! Decides what is read and at what cost: one connection carries everything but pub/sub, which has a second; a
//! poll reads counts, routes and ETAs, never a task's body. It keeps no policy and no reconnect loop: after an
//! error of the connection the source is dropped and a new one connects (and asks the sentinels again). Every
//! answer has a deadline of two seconds, so a server that stops, or a connection that is open and dead, is an
//! error and not silence.
//!
//! The user needs: `SELECT LLEN HLEN HSTRLEN HGET ZCARD ZRANGE SRANDMEMBER LINDEX EVAL` and `SUBSCRIBE PING` on the
//! event channels; for questions and commands also `SADD SREM DEL EXPIRE RPOP PUBLISH`. Without `EVAL`, entries of up to 64 KiB are
//! fetched whole, and the ETA of waiting messages is not known.

mod ask;
mod connect;
mod errors;
#[cfg(test)]
pub(super) mod fuzzed;
mod heartbeats;
mod keys;
mod poll;
mod scripts;
mod sieve;
mod unacked;
mod values;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use poolwright_core::broker::{BrokerConfig, BrokerKind};
use poolwright_core::sample::FaultKind;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Mutex, Semaphore};

use super::celery::Command;
use super::dropped::Dropped;
use super::network::Network;
use super::{Heartbeat, INQUIRIES_MAX, NodeAnswer, Polled, SignalError, SignalSource, Wanted};
use connect::Server;
use heartbeats::Counted;
use keys::Names;

/// The wall clock, for ETAs that producers wrote.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A connected Redis broker.
pub struct RedisSource {
    address: String,
    names: Names,
    server: Server,
    connection: MultiplexedConnection,
    clock: WallClock,
    memory: Mutex<poll::Memory>,
    /// So many inquiries at a time that the bytes of replies are bounded.
    asking: Semaphore,
    connections: Arc<AtomicU64>,
    _counted: Counted,
}

impl RedisSource {
    /// Connects to an address that `network` permits; `clock` tells the time of day.
    ///
    /// # Errors
    /// Why the broker cannot be reached or used, without a byte of its credentials.
    pub async fn connect(
        config: BrokerConfig,
        clock: WallClock,
        network: &Network,
    ) -> Result<Self, SignalError> {
        if config.kind != BrokerKind::Redis {
            return Err(SignalError::new(
                FaultKind::InvalidAddress,
                "this is no address of Redis",
            ));
        }
        let (server, connection) = connect::connect(&config, network).await?;
        let connections = Arc::new(AtomicU64::new(0));
        let source = Self {
            address: config.address(),
            names: Names::new(&config),
            server,
            connection,
            clock,
            memory: Mutex::default(),
            asking: Semaphore::new(INQUIRIES_MAX),
            _counted: Counted::new(&connections),
            connections,
        };
        let pong = one(&source.connection, &redis::cmd("PING"), "ping the server").await?;
        match errors::whole(std::slice::from_ref(&pong)) {
            Some(error) => Err(error),
            None => Ok(source),
        }
    }
}

impl SignalSource for RedisSource {
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
        async move {
            let mut memory = self.memory.lock().await;
            poll::poll(&self.connection, &self.names, &mut memory, wanted, (self.clock)()).await
        }
        .boxed()
    }

    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
        async move {
            let channels = self.names.event_channels();
            let dropped = Dropped::new(self.address.clone());
            heartbeats::subscribe(&self.server, &channels, &self.connections, dropped).await
        }
        .boxed()
    }

    fn inquire<'a>(
        &'a self,
        nodes: &'a [String],
        sizes: bool,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        async move {
            let _one = self.asking.acquire().await;
            ask::ask(&self.connection, &self.names, (nodes, sizes), deadline).await
        }
        .boxed()
    }

    fn command<'a>(
        &'a self,
        command: &'a Command,
        nodes: &'a [String],
    ) -> BoxFuture<'a, Result<(), SignalError>> {
        ask::command(&self.connection, &self.names, command, nodes).boxed()
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Sends a pipeline without MULTI. An error of one command is a value among the answers.
async fn run(
    connection: &MultiplexedConnection,
    pipeline: &Pipeline,
    what: &str,
) -> Result<Vec<Value>, SignalError> {
    let mut connection = connection.clone();
    let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
    answers.map_err(|error| errors::of(&error, what))
}

/// Sends one command. Its error is a value, unless it concerns the server as a whole.
async fn one(connection: &MultiplexedConnection, command: &Cmd, what: &str) -> Result<Value, SignalError> {
    let mut pipeline = Pipeline::new();
    pipeline.add_command(command.clone());
    let mut answers = run(connection, &pipeline, what).await?;
    match errors::whole(&answers) {
        Some(error) => Err(error),
        None => answers.pop().ok_or_else(|| errors::shape(what)),
    }
}
