//! Reads the loads that Pools and WorkerPools heed.
//!
//! One task, one reading for each source and namespace, however many heed it; a source that nobody heeds any more is
//! forgotten. A reading that fails leaves the last one in place beside the reason; for how long it counts is decided in
//! the core. Each answer is told as it comes, and a namespace has a few readings under way at a time: whoever names
//! servers that never answer keeps nobody else's loads from being read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use kube::Client;
use poolwright_core::constants::LOAD_INTERVAL;
use poolwright_core::sample::FaultKind;
use poolwright_core::shedding::{LoadKey, Loads};
use poolwright_core::time::Moment;
use tokio::time::interval;

use crate::clock::Clock;
use crate::kube::config_map;
use crate::signals::SignalError;
use crate::signals::board::Board;
use crate::signals::load::Prometheus;
use crate::signals::network::Network;

/// So soon a source that is new is read.
const LOOK: Duration = Duration::from_secs(1);
/// Readings of one namespace that may be under way at a time.
const TOGETHER: usize = 8;

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
        let mut rounds = Rounds::default();
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    let is_less = rounds.keep(&(self.wanted)());
                    rounds.begin(&self.read, self.clock.now());
                    if is_less {
                        self.board.publish_loads(rounds.loads.clone());
                    }
                }
                Some((key, answer)) = rounds.under_way.next() => {
                    rounds.take(key, answer, &self.clock);
                    rounds.begin(&self.read, self.clock.now());
                    self.board.publish_loads(rounds.loads.clone());
                }
            }
        }
    }
}

/// What is read, and what is being read.
#[derive(Default)]
struct Rounds {
    loads: Loads,
    /// Every source that is wanted, and when it was last asked.
    asked: BTreeMap<LoadKey, Option<Moment>>,
    under_way: FuturesUnordered<BoxFuture<'static, (LoadKey, Result<f64, SignalError>)>>,
    /// Sources that are being read.
    busy: BTreeSet<LoadKey>,
}

impl Rounds {
    /// Forgets what nobody wants any more; true if something of it had been read.
    fn keep(&mut self, wanted: &BTreeSet<LoadKey>) -> bool {
        let known = self.loads.len();
        self.loads.retain(|key, _| wanted.contains(key));
        self.asked.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.asked.contains_key(key) {
                self.asked.insert(key.clone(), None);
            }
        }
        self.loads.len() < known
    }

    /// Asks what is due, in each namespace first what was asked longest ago.
    fn begin(&mut self, read: &Read, now: Moment) {
        let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
        for key in &self.busy {
            *busy.entry(&key.namespace).or_default() += 1;
        }
        let is_due = |(key, at): &(&LoadKey, &Option<Moment>)| {
            !self.busy.contains(*key) && at.is_none_or(|at| now.since(at) >= LOAD_INTERVAL)
        };
        let mut due: Vec<(&LoadKey, &Option<Moment>)> = self.asked.iter().filter(is_due).collect();
        due.sort_by_key(|(_, at)| **at);
        let mut begins = Vec::new();
        for (key, _) in due {
            let count = busy.entry(&key.namespace).or_default();
            if *count < TOGETHER {
                *count += 1;
                begins.push(key.clone());
            }
        }
        for key in begins {
            self.asked.insert(key.clone(), Some(now));
            self.busy.insert(key.clone());
            let reading = read(key.clone());
            self.under_way.push(async move { (key, reading.await) }.boxed());
        }
    }

    fn take(&mut self, key: LoadKey, answer: Result<f64, SignalError>, clock: &Clock) {
        self.busy.remove(&key);
        if !self.asked.contains_key(&key) {
            return;
        }
        let (now, wall) = (clock.now(), clock.wall());
        let namespace = key.namespace.clone();
        let load = self.loads.entry(key).or_default();
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use poolwright_api::v1alpha1::{ConfigMapKeyRef, LoadSource};
    use tokio::time::sleep;

    use super::*;

    fn key(name: &str) -> LoadKey {
        key_of("n", name)
    }

    fn key_of(namespace: &str, name: &str) -> LoadKey {
        LoadKey {
            namespace: namespace.to_owned(),
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

    /// Reads these, each within its time, for as long as the task runs.
    fn supervise(
        wanted: BTreeSet<LoadKey>,
        time: impl Fn(&LoadKey) -> Duration + Send + Sync + 'static,
        reads: &Arc<Mutex<Vec<LoadKey>>>,
    ) -> (Arc<Board>, tokio::task::JoinHandle<()>) {
        let (board, reads) = (Arc::new(Board::default()), Arc::clone(reads));
        let supervisor = Supervisor {
            wanted: Box::new(move || wanted.clone()),
            read: Arc::new(move |key: LoadKey| {
                let time = time(&key);
                reads.lock().unwrap().push(key);
                async move {
                    sleep(time).await;
                    Ok(50.0)
                }
                .boxed()
            }),
            board: Arc::clone(&board),
            clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        };
        (board, tokio::spawn(supervisor.run()))
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_never_answer_keep_nobody_elses_loads_from_being_read() {
        let slow = (0..300).map(|at| key_of("slow", &at.to_string()));
        let wanted = slow.chain([key("a")]).collect();
        let reads = Arc::default();
        let time = |key: &LoadKey| Duration::from_secs(if key.namespace == "slow" { 2 } else { 0 });
        let (board, running) = supervise(wanted, time, &reads);
        sleep(Duration::from_millis(1500)).await;
        assert!(
            board.loads().contains_key(&key("a")),
            "told before the slow ones end"
        );
        let slow = reads.lock().unwrap().len() - 1;
        assert_eq!(slow, TOGETHER, "and no more of them at a time");
        sleep(Duration::from_secs(60)).await;
        let of_a = reads
            .lock()
            .unwrap()
            .iter()
            .filter(|read| **read == key("a"))
            .count();
        assert!(of_a >= 12, "{of_a}");
        // Each of the slow ones has its turn, too.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(board.loads().len(), 301);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_answer_at_once_are_all_read_in_time() {
        let wanted = (0..200).map(|at| key(&at.to_string())).collect();
        let (board, running) = supervise(wanted, |_| Duration::from_millis(5), &Arc::default());
        sleep(Duration::from_secs(3)).await;
        assert_eq!(board.loads().len(), 200);
        running.abort();
    }
}
