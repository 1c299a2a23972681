//! One task for each broker: polls, listens to heartbeats, asks workers, and publishes what it learned.
//!
//! Decides when to read and for how long to wait; never what a number means. Every wait has a deadline, every
//! failure becomes a fault beside the last good reading, and a connection that failed once is thrown away.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use poolwright_core::broker::BrokerConfig;
use poolwright_core::constants::{COMMAND_DEADLINE, RECONNECT, poll_interval};
use poolwright_core::sample::{BrokerView, FaultKind};
use poolwright_core::time::Moment;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::address::Address;
pub use super::address::Resolve;
use super::board::{Board, Errand};
use super::commands::Commands;
use super::questions::Inquiries;
use super::roster::{self, Roster};
use super::{Connect, Heartbeat, Polled, SignalError, SignalSource, Wanted};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// A poller that panicked starts anew after this.
const PANICKED_AGAIN: Duration = Duration::from_secs(5);
/// Questions and commands that may wait in a poller's line. It is emptied at once but while a poll is under way.
const LINE: usize = 256;
/// A failure that lasts is logged again after this.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a poller works with.
#[derive(Clone)]
pub struct Poller {
    /// Id of the broker on the board.
    pub id: String,
    /// Where readings go.
    pub board: Arc<Board>,
    /// How to connect.
    pub resolver: Arc<dyn Resolve>,
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

type Telling = BoxFuture<'static, Result<(), SignalError>>;
type Renewing = BoxFuture<'static, Renewal>;

struct Session {
    source: Arc<dyn SignalSource>,
    config: BrokerConfig,
    beats: BoxStream<'static, Heartbeat>,
    since: Moment,
    /// These three beside the polls, because a gap in these is a gap in what decisions go by.
    asking: Inquiries,
    telling: Option<Telling>,
    renewing: Option<Renewing>,
}

/// What the Secrets say now, and a session there if that is another address.
struct Renewal {
    read: Result<BrokerConfig, SignalError>,
    session: Option<Result<Session, SignalError>>,
}

/// What was logged of a failure, and whether its end was.
struct Said {
    words: String,
    at: Moment,
    over: bool,
}

/// What opens sessions, also beside the one that serves.
struct Connector {
    connect: Connect,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Connector {
    /// Connects and subscribes: one request, however it ends.
    async fn open(&self, config: BrokerConfig) -> Result<Session, SignalError> {
        let session = self.session(config).await;
        self.metrics.broker_request(session.is_ok());
        session
    }

    async fn session(&self, config: BrokerConfig) -> Result<Session, SignalError> {
        let source = within("connecting", (self.connect)(config.clone(), self.clock)).await?;
        let beats = within("subscribing to heartbeats", source.heartbeats()).await?;
        Ok(Session {
            source,
            config,
            beats,
            since: self.clock.now(),
            asking: Inquiries::default(),
            telling: None,
            renewing: None,
        })
    }
}

impl Poller {
    /// Runs until the sender of `wanted` is gone, and starts anew should it panic: its broker would look stale for ever,
    /// and the others must not end with it.
    pub async fn keep_running(self) {
        while AssertUnwindSafe(self.clone().run()).catch_unwind().await.is_err() {
            tracing::error!(broker = %self.id, "the poller panicked");
            sleep(PANICKED_AGAIN).await;
        }
    }

    /// Runs until the sender of `wanted` is gone.
    pub async fn run(mut self) {
        let mut view = BrokerView::default();
        let mut roster = Roster::default();
        let (line, mut errands) = mpsc::channel(LINE);
        self.board.register(&self.id, line.clone());
        let mut address = Address::new(Arc::clone(&self.resolver));
        let mut wait = RECONNECT.0;
        let mut said: Option<Said> = None;
        while self.wanted.has_changed().is_ok() {
            let error = match self.open(&mut address, &mut view).await {
                Ok(mut session) => {
                    let began = self.clock.now();
                    let error = self
                        .serve(
                            &mut session,
                            &mut address,
                            (&mut view, &mut roster),
                            &mut errands,
                            &mut said,
                        )
                        .await;
                    if self.clock.now().since(began) > RECONNECT.1 {
                        wait = RECONNECT.0;
                        said = None;
                    }
                    let Some(error) = error else { break };
                    error
                }
                Err(error) => error,
            };
            address.failed(error.kind);
            self.fail(&mut view, &error);
            let at = self.clock.now();
            let is_news = |said: &Said| said.words != error.message || at.since(said.at) >= SAY_AGAIN;
            if said.as_ref().is_none_or(is_news) {
                self.say(&view, &error);
                let (words, over) = (error.message, false);
                said = Some(Said { words, at, over });
            }
            self.metrics
                .broker_connections(self.board.connections(&self.id, 0));
            let jitter = Duration::from_secs_f64(wait.as_secs_f64() * 0.25 * fastrand::f64());
            sleep((wait + jitter).min(RECONNECT.1)).await;
            wait = (wait * 2).min(RECONNECT.1);
        }
        if self.board.forget(&self.id, &line) {
            self.metrics
                .broker_connections(self.board.connections(&self.id, 0));
        }
    }

    async fn open(&self, address: &mut Address, view: &mut BrokerView) -> Result<Session, SignalError> {
        let config = address.get(&self.id).await?;
        // Also where no connection comes about: the failure names it.
        (view.address, view.zero_is_suspect) = (config.address(), config.zero_is_suspect());
        self.connector().open(config).await
    }

    fn connector(&self) -> Connector {
        Connector {
            connect: Arc::clone(&self.connect),
            clock: self.clock,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Polls and listens until something fails (`Some`) or the broker is no longer wanted (`None`).
    async fn serve(
        &mut self,
        session: &mut Session,
        address: &mut Address,
        (view, roster): (&mut BrokerView, &mut Roster),
        errands: &mut mpsc::Receiver<Errand>,
        said: &mut Option<Said>,
    ) -> Option<SignalError> {
        adopt(view, &session.config);
        roster.ask_again(view);
        let mut commands = Commands::default();
        // What was wanted before is not known to be wanted still.
        while errands.try_recv().is_ok() {}
        let mut wanted = self.wanted.borrow_and_update().clone();
        view.poll_interval = poll_interval(self.base_interval, wanted.queues.len());
        let mut ticks = interval(view.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                Some(errand) = errands.recv() => match errand {
                    Errand::Ask(nodes) => self.ask(session, view, roster, (nodes, false)),
                    Errand::Size(nodes) => self.ask(session, view, roster, (nodes, true)),
                    Errand::Tell(command, nodes) => commands.take(&command, nodes, self.clock.now()),
                },
                Some((question, answers)) = session.asking.ended() => {
                    self.metrics.broker_request(answers.is_ok());
                    let (now, wall) = (self.clock.now(), self.clock.wall());
                    match answers {
                        Ok(answers) => roster.take_answers(view, &question, answers, (now, wall)),
                        // The polls go on without answers. If it is the connection that died, they tell.
                        Err(error) => roster.take_failure(view, &question, &error.message, now),
                    }
                    self.publish(view);
                }
                Some(told) = OptionFuture::from(session.telling.as_mut()) => {
                    session.telling = None;
                    self.metrics.broker_request(told.is_ok());
                    if let Err(error) = told {
                        // Workers that cannot be told cannot be asked either, which a condition says.
                        tracing::debug!(broker = %self.id, "a command was not sent: {}", error.message);
                    }
                }
                Some(renewal) = OptionFuture::from(session.renewing.as_mut()) => {
                    session.renewing = None;
                    if let Some(renewed) = self.take_renewal(renewal, address) {
                        *session = renewed;
                        adopt(view, &session.config);
                    }
                }
                beat = session.beats.next() => match beat {
                    Some(beat) => roster.take_beat(view, &beat, self.clock.now()),
                    None => return Some(SignalError::new(FaultKind::Unreachable, "the heartbeat subscription ended")),
                },
                _ = ticks.tick() => {
                    if let Err(error) = self.tick(session, view, &wanted).await {
                        return Some(error);
                    }
                    roster.forget_gone(view, self.clock.now());
                    roster.know(view, self.board.own());
                    self.publish(view);
                    if let Some(said) = said.as_mut().filter(|said| !said.over) {
                        tracing::info!(broker = %self.id, address = %view.address, "the queues can be read again");
                        said.over = true;
                    }
                    if session.telling.is_none() {
                        session.telling = self.tell(session, &mut commands);
                    }
                    self.ask(session, view, roster, (Vec::new(), false));
                }
                () = sleep_until(address.again()), if session.renewing.is_none() => {
                    session.renewing = Some(self.renew(address, &session.config));
                }
            }
        }
    }

    async fn tick(
        &self,
        session: &mut Session,
        view: &mut BrokerView,
        wanted: &Wanted,
    ) -> Result<(), SignalError> {
        // A count is as old as its question: what a worker fetched after that may be in it still.
        let asked = self.clock.now();
        let polled = within("reading the queues", session.source.poll(wanted)).await;
        self.metrics.broker_request(polled.is_ok());
        let open = self.board.connections(&self.id, session.source.connections());
        self.metrics.broker_connections(open);
        self.take_counts(view, polled?, asked);
        view.heartbeats.succeed(session.since, self.clock.now());
        Ok(())
    }

    fn take_counts(&self, view: &mut BrokerView, polled: Polled, now: Moment) {
        let wall = self.clock.wall();
        view.stray = if roster::consumed(view, "celery") {
            0
        } else {
            polled.stray
        };
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

    /// Puts all questions that may be put now.
    fn ask(
        &self,
        session: &mut Session,
        view: &mut BrokerView,
        roster: &Roster,
        (requested, sizes): (Vec<String>, bool),
    ) {
        let now = self.clock.now();
        let requested: BTreeSet<String> = requested.into_iter().collect();
        while let Some(mut question) = roster.question(view, &requested, now, session.asking.free()) {
            question.sizes = sizes;
            session.asking.begin(&session.source, question);
        }
    }

    /// Sends one command, if one waits.
    fn tell(&self, session: &Session, commands: &mut Commands) -> Option<Telling> {
        let (command, nodes) = commands.next(self.clock.now())?;
        let source = Arc::clone(&session.source);
        let told = async move { within("telling the workers", source.command(&command, &nodes)).await };
        Some(told.boxed())
    }

    /// Reads the Secrets again, and connects if they have changed; the old session serves until then.
    fn renew(&self, address: &Address, current: &BrokerConfig) -> Renewing {
        let (connector, read, current) = (self.connector(), address.read(), current.clone());
        async move {
            let read = read.await;
            let changed = read.as_ref().ok().filter(|config| **config != current);
            let session = match changed {
                Some(config) => Some(connector.open(config.clone()).await),
                None => None,
            };
            Renewal { read, session }
        }
        .boxed()
    }

    /// The new session, if there is one. A Secret that is gone or an address that does not work ends nothing.
    fn take_renewal(&self, renewal: Renewal, address: &mut Address) -> Option<Session> {
        let read = address.take(renewal.read).map(|_| ());
        match read.and_then(|()| renewal.session.transpose()) {
            Ok(session) => {
                address.well();
                session
            }
            Err(error) => {
                address.warn(&self.id, &error.message);
                None
            }
        }
    }

    /// A broker that stays away is tried every second and told of every minute.
    fn say(&self, view: &BrokerView, error: &SignalError) {
        let queues = self.wanted.borrow().queues.clone();
        let (first, count) = (queues.first().map_or("", String::as_str), queues.len());
        tracing::warn!(broker = %self.id, address = %view.address, queue = first, queues = count, "{}", error.message);
    }

    fn fail(&self, view: &mut BrokerView, error: &SignalError) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
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
    view.unheard.clear();
}

pub(super) fn late(doing: &str) -> SignalError {
    let message = format!("{doing} took longer than {} s", COMMAND_DEADLINE.as_secs());
    SignalError::new(FaultKind::Unreachable, message)
}

pub(super) async fn within<T>(
    doing: &str,
    work: impl Future<Output = Result<T, SignalError>>,
) -> Result<T, SignalError> {
    timeout(COMMAND_DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(late(doing)))
}
