//! Readings of RabbitMQ.
//!
//! Two AMQP connections: one for counts and heartbeats, and one that exists once something was asked or told. The broker
//! stops reading from connections that publish while it is short of memory or disk, which is when the counts
//! matter most, so the one that counts never publishes. A connection that is closed stays closed: the poller
//! makes a new source. Declares no queue that is not its own, publishes to no exchange but Celery's control
//! exchange, and keeps no message.

mod ask;
mod connect;
mod counts;
mod errors;
#[cfg(test)]
pub(super) mod fuzzed;
mod sieve;
mod totals;
mod transport;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lapin::Connection;
use poolwright_core::broker::{BrokerConfig, BrokerKind, Tls};
use poolwright_core::sample::{FaultKind, Unacked};
use tokio::time::Instant;

use self::connect::Purpose;
use self::counts::{Count, Counter};
use self::totals::{Totals, TotalsReader};
use super::celery::Command;
use super::dropped::Dropped;
use super::network::Network;
use super::tls::client_config;
use super::{Heartbeat, NodeAnswer, Polled, PolledQueue, SignalError, SignalSource, Wanted};

/// The queue that Celery uses when nobody names one.
const DEFAULT_QUEUE: &str = "celery";
/// How often an absent or refused default queue is looked for.
const STRAY_RECHECK: Duration = Duration::from_secs(10);

/// The connection that counts, and hears.
const COUNTS: Purpose = Purpose {
    name: "counts",
    bounds: workers::HEARTBEATS,
};
/// The connection that publishes.
const QUESTIONS: Purpose = Purpose {
    name: "questions",
    bounds: ask::REPLIES,
};

/// One RabbitMQ broker's virtual host, connected.
pub struct RabbitSource {
    config: BrokerConfig,
    network: Network,
    tls: Option<Arc<rustls::ClientConfig>>,
    reading: Arc<Connection>,
    asking: Mutex<Option<Arc<Connection>>>,
    /// Held while that connection is opened, so that there is only one.
    opening: tokio::sync::Mutex<()>,
    counter: Counter,
    totals: Option<TotalsReader>,
    stray_missing_since: Mutex<Option<Instant>>,
}

impl RabbitSource {
    /// Connects to the first host that answers, at an address that `network` permits.
    ///
    /// # Errors
    /// `Refused` for a wrong password or virtual host, or an address that is not permitted, `InvalidAddress` for options that cannot be used, else
    /// `Unreachable`.
    pub async fn connect(config: BrokerConfig, network: &Network) -> Result<Self, SignalError> {
        if config.kind != BrokerKind::RabbitMq {
            return Err(SignalError::new(
                FaultKind::InvalidAddress,
                "this is no RabbitMQ address",
            ));
        }
        let tls = config.tls.as_ref().map(client_config).transpose()?.map(Arc::new);
        let totals = if config.management_url.is_some() || config.metrics_url.is_some() {
            let http = match &tls {
                Some(tls) => rustls::ClientConfig::clone(tls),
                None => client_config(&Tls::default())?,
            };
            TotalsReader::new(&config, &http, network)?
        } else {
            None
        };
        let reading = Arc::new(connect::open(&config, network, tls.as_ref(), COUNTS).await?);
        Ok(Self {
            counter: Counter::new(Arc::clone(&reading)),
            config,
            network: network.clone(),
            tls,
            reading,
            asking: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            totals,
            stray_missing_since: Mutex::default(),
        })
    }

    async fn read(&self, wanted: &Wanted) -> Result<Polled, SignalError> {
        let mut names: Vec<&str> = wanted.queues.iter().map(String::as_str).collect();
        let stray = wanted.stray && self.may_look_for_stray() && !names.contains(&DEFAULT_QUEUE);
        if stray {
            names.push(DEFAULT_QUEUE);
        }
        names.sort_unstable();
        names.dedup();
        let totals = async {
            match &self.totals {
                Some(reader) => Some(reader.read().await),
                None => None,
            }
        };
        let (counts, totals) = futures::join!(self.counter.read(&names), totals);
        let mut counts = counts?;
        let stray = if stray {
            self.stray(counts.remove(DEFAULT_QUEUE))
        } else {
            0
        };
        let queues: BTreeMap<String, PolledQueue> = counts
            .into_iter()
            .map(|(name, ready)| {
                let unacked = totals
                    .as_ref()
                    .map(|totals| unacked(&name, &ready, totals.as_deref()));
                (name, PolledQueue { ready, unacked })
            })
            .collect();
        Ok(Polled { queues, stray })
    }

    fn may_look_for_stray(&self) -> bool {
        let since = self
            .stray_missing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|at| at.elapsed() >= STRAY_RECHECK)
    }

    fn stray(&self, count: Option<Count>) -> u64 {
        let mut since = self
            .stray_missing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(ready)) = count else {
            *since = Some(Instant::now());
            return 0;
        };
        *since = None;
        if ready.consumers == Some(0) {
            ready.count
        } else {
            0
        }
    }

    /// The connection that publishes, opened when it is first needed or was lost.
    async fn asking(&self) -> Result<Arc<Connection>, SignalError> {
        let _one = self.opening.lock().await;
        let open = self.asking.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = open.filter(|connection| connection.status().connected()) {
            return Ok(connection);
        }
        let connection =
            Arc::new(connect::open(&self.config, &self.network, self.tls.as_ref(), QUESTIONS).await?);
        *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

fn unacked(name: &str, ready: &Count, totals: Result<&Totals, &SignalError>) -> Result<Unacked, SignalError> {
    let totals = totals.map_err(SignalError::clone)?;
    match (totals.get(name), ready) {
        (Some(Some(count)), _) => Ok(Unacked {
            due: errors::believed(*count)?,
            ..Unacked::default()
        }),
        (None, Err(error)) => Err(error.clone()),
        (Some(None), _) => Err(SignalError::new(
            FaultKind::Implausible,
            "RabbitMQ lists the queue without a count of unacked messages that can be believed",
        )),
        (None, Ok(_)) => Err(SignalError::new(
            FaultKind::Implausible,
            "RabbitMQ's HTTP answer does not list the queue (it lags behind a new one)",
        )),
    }
}

impl SignalSource for RabbitSource {
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
        self.read(wanted).boxed()
    }

    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
        let dropped = Dropped::new(self.config.address());
        workers::heartbeats(&self.reading, &self.config.event_exchange, dropped).boxed()
    }

    fn inquire<'a>(
        &'a self,
        nodes: &'a [String],
        sizes: bool,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        async move {
            if nodes.is_empty() {
                return Ok(Vec::new());
            }
            let connection = self.asking().await?;
            ask::ask(
                &connection,
                &self.config.control_exchange,
                (nodes, sizes),
                deadline,
            )
            .await
        }
        .boxed()
    }

    fn command<'a>(
        &'a self,
        command: &'a Command,
        nodes: &'a [String],
    ) -> BoxFuture<'a, Result<(), SignalError>> {
        async move {
            let body = command.body(nodes).ok_or_else(SignalError::nobody_named)?;
            let connection = self.asking().await?;
            ask::tell(&connection, &self.config.control_exchange, &body).await
        }
        .boxed()
    }

    fn connections(&self) -> u64 {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = asking
            .as_ref()
            .is_some_and(|connection| connection.status().connected());
        u64::from(self.reading.status().connected()) + u64::from(asking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poolwright_core::sample::Ready;

    #[test]
    fn a_count_that_cannot_be_true_is_a_missing_reading() {
        let totals: Totals = [("q", 1 << 20), ("odd", 1 << 40)]
            .map(|(name, count)| (name.to_owned(), Some(count)))
            .into();
        let ready: Count = Ok(Ready {
            count: 1,
            consumers: Some(1),
            ..Ready::default()
        });
        assert_eq!(unacked("q", &ready, Ok(&totals)).expect("true").due, 1 << 20);
        let error = unacked("odd", &ready, Ok(&totals)).expect_err("absurd");
        assert_eq!(error.kind, FaultKind::Implausible, "{error}");
        assert!(errors::believed(u64::from(u32::MAX)).is_err());
    }
}
