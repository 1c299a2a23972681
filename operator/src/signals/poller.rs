//! One task for each broker: polls, listens to heartbeats, asks workers, and publishes what it learned.
//!
//! Decides when to read and for how long to wait; never what a number means. Every wait has a deadline, every
//! failure becomes a fault beside the last good reading, and a connection that failed once is thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::BoxStream;
use poolwright_core::broker::BrokerConfig;
use poolwright_core::sample::{BrokerView, FaultKind};
use poolwright_core::time::Moment;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::board::Board;
use super::roster::{self, ASK_DEADLINE};
use super::{Heartbeat, NodeAnswer, Polled, SignalError, SignalSource, Wanted};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Deadline of every exchange with a broker.
const DEADLINE: Duration = Duration::from_secs(2);
/// First and longest wait before connecting again. Short, so that counts are fresh again within a second and a
/// poll of the broker's return.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A Secret is read again this often, give or take a quarter.
const SECRET_INTERVAL: Duration = Duration::from_secs(60);
/// The longest poll interval.
const INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Queues that are polled at the base interval; each further one adds a millisecond.
const QUEUES_AT_BASE: usize = 200;

/// Finds out how to connect: reads the Secrets that a broker's address needs.
pub trait Resolve: Send + Sync {
    /// The configuration as it is now.
    fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>>;
}

/// Connects to the broker that a configuration describes.
pub type Connect = fn(BrokerConfig) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>>;

/// What a poller works with.
pub struct Poller {
    /// Id of the broker on the board.
    pub id: String,
    /// Where readings go.
    pub board: Arc<Board>,
    /// How to connect.
    pub resolver: Box<dyn Resolve>,
    /// What connects.
    pub connect: Connect,
    /// What to read.
    pub wanted: watch::Receiver<Wanted>,
    /// Time between polls with few queues.
    pub base_interval: Duration,
    /// Clocks.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Time between two polls of a broker with `queues` queues.
#[must_use]
pub fn poll_interval(base: Duration, queues: usize) -> Duration {
    let more = u64::try_from(queues.saturating_sub(QUEUES_AT_BASE)).unwrap_or(u64::MAX);
    (base + Duration::from_millis(more)).min(INTERVAL_MAX.max(base))
}

type Asking = BoxFuture<'static, (Vec<String>, Result<Vec<NodeAnswer>, SignalError>)>;

struct Session {
    source: Arc<dyn SignalSource>,
    config: BrokerConfig,
    beats: BoxStream<'static, Heartbeat>,
    since: Moment,
    asking: Option<Asking>,
}

impl Poller {
    /// Runs until the sender of `wanted` is gone.
    pub async fn run(mut self) {
        let mut view = BrokerView::default();
        let (line, mut asks) = mpsc::channel(16);
        self.board.register(&self.id, line);
        let mut wait = BACK_OFF.0;
        while self.wanted.has_changed().is_ok() {
            match self.open(&mut view).await {
                Ok(mut session) => {
                    let began = self.clock.now();
                    let error = self.serve(&mut session, &mut view, &mut asks).await;
                    if self.clock.now().since(began) > BACK_OFF.1 {
                        wait = BACK_OFF.0;
                    }
                    let Some(error) = error else { break };
                    self.fail(&mut view, &error);
                }
                Err(error) => self.fail(&mut view, &error),
            }
            self.metrics
                .broker_connections(self.board.connections(&self.id, 0));
            let jitter = Duration::from_secs_f64(wait.as_secs_f64() * 0.25 * fastrand::f64());
            sleep((wait + jitter).min(BACK_OFF.1)).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
        self.board.forget(&self.id);
    }

    async fn open(&self, view: &mut BrokerView) -> Result<Session, SignalError> {
        let config = within("reading the broker's Secret", self.resolver.resolve()).await?;
        // Also where no connection comes about: the failure names it.
        view.address = config.address();
        self.connect(config).await
    }

    async fn connect(&self, config: BrokerConfig) -> Result<Session, SignalError> {
        let source = within("connecting", (self.connect)(config.clone())).await?;
        let beats = within("subscribing to heartbeats", source.heartbeats()).await?;
        Ok(Session {
            source,
            config,
            beats,
            since: self.clock.now(),
            asking: None,
        })
    }

    /// Polls and listens until something fails (`Some`) or the broker is no longer wanted (`None`).
    async fn serve(
        &mut self,
        session: &mut Session,
        view: &mut BrokerView,
        asks: &mut mpsc::Receiver<Vec<String>>,
    ) -> Option<SignalError> {
        adopt(view, &session.config);
        let mut wanted = self.wanted.borrow_and_update().clone();
        view.poll_interval = poll_interval(self.base_interval, wanted.queues.len());
        let mut ticks = interval(view.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut secrets = Box::pin(sleep(secret_wait()));
        let mut requested = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    wanted = self.wanted.borrow_and_update().clone();
                    view.queues.retain(|name, _| wanted.queues.contains(name));
                    view.poll_interval = poll_interval(self.base_interval, wanted.queues.len());
                    ticks = interval(view.poll_interval);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                Some(nodes) = asks.recv() => requested.extend(nodes),
                Some((nodes, answers)) = OptionFuture::from(session.asking.as_mut()) => {
                    session.asking = None;
                    match answers {
                        Ok(answers) => roster::take_answers(view, &nodes, answers, self.clock.now()),
                        Err(error) => return Some(error),
                    }
                    self.publish(view);
                }
                beat = session.beats.next() => match beat {
                    Some(beat) => roster::take_beat(view, beat, self.clock.now()),
                    None => return Some(SignalError::new(FaultKind::Unreachable, "the heartbeat subscription ended")),
                },
                _ = ticks.tick() => {
                    if let Err(error) = self.tick(&session.source, session.since, view, &wanted).await {
                        return Some(error);
                    }
                    if session.asking.is_none() {
                        session.asking = self.next_question(session, view, &mut requested);
                    }
                }
                () = &mut secrets => {
                    secrets = Box::pin(sleep(secret_wait()));
                    if let Some(renewed) = self.renewed(&session.config).await {
                        *session = renewed;
                        adopt(view, &session.config);
                    }
                }
            }
        }
    }

    async fn tick(
        &self,
        source: &Arc<dyn SignalSource>,
        since: Moment,
        view: &mut BrokerView,
        wanted: &Wanted,
    ) -> Result<(), SignalError> {
        let polled = within("reading the queues", source.poll(wanted)).await;
        let outcome = if polled.is_ok() { "success" } else { "failure" };
        self.metrics.broker_request(outcome, 1);
        let open = self.board.connections(&self.id, source.connections());
        self.metrics.broker_connections(open);
        let now = self.clock.now();
        self.take_counts(view, polled?, now);
        view.heartbeats.succeed(since, now);
        roster::forget_gone(view, now);
        self.publish(view);
        Ok(())
    }

    fn take_counts(&self, view: &mut BrokerView, polled: Polled, now: Moment) {
        let wall = self.clock.wall();
        let consumed = view.workers.values().any(|worker| {
            worker
                .answer
                .as_ref()
                .is_some_and(|answer| answer.value.queues.contains("celery"))
        });
        view.stray = if consumed { 0 } else { polled.stray };
        for (name, counts) in polled.queues {
            let queue = view.queues.entry(name).or_default();
            match counts.ready {
                Ok(ready) => queue.ready.succeed(ready, now),
                Err(error) => queue.ready.fail(error.kind, &error.message, now, wall),
            }
            match counts.unacked {
                Some(Ok(unacked)) => queue.unacked.succeed(unacked, now),
                Some(Err(error)) => queue.unacked.fail(error.kind, &error.message, now, wall),
                None => {}
            }
        }
    }

    fn next_question(
        &self,
        session: &Session,
        view: &mut BrokerView,
        requested: &mut BTreeSet<String>,
    ) -> Option<Asking> {
        let nodes = roster::to_ask(view, requested, self.clock.now());
        if nodes.is_empty() {
            return None;
        }
        let source = Arc::clone(&session.source);
        Some(Box::pin(async move {
            let answers = match timeout(ASK_DEADLINE + DEADLINE, source.ask(&nodes, ASK_DEADLINE)).await {
                Ok(answers) => answers,
                Err(_) => Err(late("asking the workers")),
            };
            (nodes, answers)
        }))
    }

    /// A new session if the Secrets have changed and the new address works; the old one serves until then.
    async fn renewed(&self, current: &BrokerConfig) -> Option<Session> {
        let config = within("reading the broker's Secret", self.resolver.resolve())
            .await
            .ok()?;
        if config == *current {
            return None;
        }
        self.connect(config).await.ok()
    }

    fn fail(&self, view: &mut BrokerView, error: &SignalError) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        tracing::warn!(broker = %self.id, address = %view.address, "{}", error.message);
        self.metrics.broker_request("failure", 1);
        view.heartbeats.fail(error.kind, &error.message, now, wall);
        for name in &self.wanted.borrow().queues {
            let queue = view.queues.entry(name.clone()).or_default();
            queue.ready.fail(error.kind, &error.message, now, wall);
            if view.unacked_known {
                queue.unacked.fail(error.kind, &error.message, now, wall);
            }
        }
        self.publish(view);
    }

    fn publish(&self, view: &BrokerView) {
        self.board.publish(&self.id, view.clone());
    }
}

/// Notes what is known of a broker before anything is read from it. A Secret may name another broker than before.
fn adopt(view: &mut BrokerView, config: &BrokerConfig) {
    view.address = config.address();
    view.zero_is_suspect = config.zero_is_suspect();
    view.unacked_known = config.unacked_known();
}

fn secret_wait() -> Duration {
    SECRET_INTERVAL.mul_f64(0.75 + 0.5 * fastrand::f64())
}

fn late(doing: &str) -> SignalError {
    let message = format!("{doing} took longer than {} s", DEADLINE.as_secs());
    SignalError::new(FaultKind::Unreachable, message)
}

async fn within<T>(
    doing: &str,
    work: impl Future<Output = Result<T, SignalError>>,
) -> Result<T, SignalError> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late(doing)))
}
