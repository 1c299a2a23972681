//! Reads the loads that Pools and WorkerPools heed.
//!
//! One task, one reading for each source and namespace, however many heed it; a source that nobody heeds any more is
//! forgotten. A reading that fails leaves the last one in place beside the reason; for how long it counts is decided in
//! the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use kube::Client;
use poolwright_core::constants::LOAD_INTERVAL;
use poolwright_core::sample::FaultKind;
use poolwright_core::shedding::{LoadKey, Loads};
use poolwright_core::time::Moment;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::kube::config_map;
use crate::signals::SignalError;
use crate::signals::board::Board;
use crate::signals::load::Prometheus;
use crate::signals::network::Network;

/// So soon a source that is new is read.
const LOOK: Duration = Duration::from_secs(1);
/// Readings that may be under way at a time.
const TOGETHER: usize = 32;

/// What reads one load. It is handed in, so that no test needs a cluster or a Prometheus.
pub type Read = Arc<dyn Fn(LoadKey) -> BoxFuture<'static, Result<f64, SignalError>> + Send + Sync>;

/// Reads from Prometheus servers and `ConfigMap`s.
///
/// # Errors
/// TLS cannot be set up.
pub fn reader(client: Client, network: Network) -> Result<Read, SignalError> {
    let prometheus = Prometheus::new(network)?;
    Ok(Arc::new(move |key: LoadKey| {
        let (client, prometheus) = (client.clone(), prometheus.clone());
        async move {
            match (&key.source.prometheus, &key.source.config_map_key_ref) {
                (Some(query), None) => prometheus.read(query).await,
                (None, Some(reference)) => config_map::load(&client, &key.namespace, reference)
                    .await
                    .map_err(|(kind, words)| SignalError::new(kind, words)),
                _ => Err(SignalError::new(
                    FaultKind::InvalidAddress,
                    "source must have exactly one of prometheus and configMapKeyRef",
                )),
            }
        }
        .boxed()
    }))
}

/// Reads what is wanted, for ever.
pub struct Supervisor {
    /// The sources that somebody heeds now.
    pub wanted: Box<dyn Fn() -> BTreeSet<LoadKey> + Send + Sync>,
    /// What reads one.
    pub read: Read,
    /// Where readings go.
    pub board: Arc<Board>,
    /// Clocks.
    pub clock: Clock,
}

impl Supervisor {
    /// Runs for ever.
    pub async fn run(self) {
        let mut loads = Loads::new();
        let mut asked: BTreeMap<LoadKey, Moment> = BTreeMap::new();
        loop {
            let wanted = (self.wanted)();
            let known = loads.len();
            loads.retain(|key, _| wanted.contains(key));
            asked.retain(|key, _| wanted.contains(key));
            let now = self.clock.now();
            let is_due = |key: &LoadKey| asked.get(key).is_none_or(|at| now.since(*at) >= LOAD_INTERVAL);
            let due: Vec<LoadKey> = wanted.into_iter().filter(is_due).collect();
            asked.extend(due.iter().map(|key| (key.clone(), now)));
            if !due.is_empty() || loads.len() < known {
                self.read(due, &mut loads).await;
                self.board.publish_loads(loads.clone());
            }
            sleep(LOOK).await;
        }
    }

    async fn read(&self, due: Vec<LoadKey>, loads: &mut Loads) {
        let read = |key: LoadKey| {
            let reading = (self.read)(key.clone());
            async move { (key, reading.await) }
        };
        let mut answers = stream::iter(due).map(read).buffer_unordered(TOGETHER);
        while let Some((key, answer)) = answers.next().await {
            let (now, wall) = (self.clock.now(), self.clock.wall());
            let namespace = key.namespace.clone();
            let load = loads.entry(key).or_default();
            match answer {
                Ok(percent) => load.succeed(percent, now),
                Err(error) => {
                    let known = load.fault.as_ref().map(|fault| fault.message.as_str());
                    if known != Some(error.message.as_str()) {
                        tracing::warn!(namespace, "a load cannot be read: {}", error.message);
                    }
                    load.fail(error.kind, &error.message, now, wall);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use poolwright_api::v1alpha1::{ConfigMapKeyRef, LoadSource};

    use super::*;

    fn key(name: &str) -> LoadKey {
        LoadKey {
            namespace: "n".to_owned(),
            source: LoadSource {
                prometheus: None,
                config_map_key_ref: Some(ConfigMapKeyRef {
                    name: name.to_owned(),
                    key: "percent".to_owned(),
                }),
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_source_is_read_every_five_seconds_and_forgotten_with_its_last_user() {
        let wanted = Arc::new(Mutex::new(BTreeSet::from([key("a"), key("b")])));
        let (users, reads) = (Arc::clone(&wanted), Arc::new(Mutex::new(Vec::new())));
        let (into, board) = (Arc::clone(&reads), Arc::new(Board::default()));
        let supervisor = Supervisor {
            wanted: Box::new(move || users.lock().unwrap().clone()),
            read: Arc::new(move |key: LoadKey| {
                let mut reads = into.lock().unwrap();
                reads.push(key.clone());
                // Good once, then gone.
                let first = reads.iter().filter(|one| **one == key).count() == 1;
                let gone = || SignalError::new(FaultKind::Unreachable, "gone");
                async move { first.then_some(91.0).ok_or_else(gone) }.boxed()
            }),
            board: Arc::clone(&board),
            clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        };
        let running = tokio::spawn(supervisor.run());
        sleep(Duration::from_millis(4500)).await;
        assert_eq!(reads.lock().unwrap().len(), 2);
        assert!(board.loads().values().all(|load| load.fault.is_none()));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(reads.lock().unwrap().len(), 4);
        let load = board.loads().remove(&key("a")).unwrap();
        assert_eq!(load.last.map(|sample| sample.value), Some(91.0));
        assert_eq!(load.fault.unwrap().message, "gone");
        wanted.lock().unwrap().remove(&key("a"));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(board.loads().into_keys().collect::<Vec<_>>(), [key("b")]);
        wanted.lock().unwrap().clear();
        sleep(Duration::from_secs(20)).await;
        assert!(board.loads().is_empty());
        assert_eq!(reads.lock().unwrap().len(), 4);
        running.abort();
    }
}
