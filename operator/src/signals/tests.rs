//! The poller against a source and Secrets that fail on command, in paused time.

mod commands;
mod questions;
mod roster;
mod unheard;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use poolwright_core::broker::{BrokerConfig, BrokerOptions};
use poolwright_core::constants::poll_interval;
use poolwright_core::sample::{BrokerView, FaultKind, Ready};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::board::Board;
use super::celery::{Bindings, Command, Told};
use super::poller::{Poller, Resolve};
use super::{Heartbeat, NodeAnswer, Polled, PolledQueue, SignalError, SignalSource, Wanted};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// How the broker behaves now.
#[derive(Clone, Copy, Default, PartialEq)]
enum Mood {
    #[default]
    Well,
    /// A poll takes half a second.
    Slow,
    Down,
    Refusing,
    Hung,
    Panicking,
}

/// How the Secret is read now.
#[derive(Clone, Copy, Default, PartialEq)]
enum Secret {
    #[default]
    Well,
    Gone,
    Hung,
    Other,
}

/// What goes on, and what was asked for.
#[derive(Default)]
struct Stage {
    mood: Mood,
    secret: Secret,
    no_answers: bool,
    resolves: u64,
    connects: u64,
    polls: u64,
    asks: u64,
    told: Vec<(Command, Vec<String>)>,
    /// Messages in the queue that nobody named, and a queue that every worker says it consumes.
    stray: u64,
    consumes: Option<&'static str>,
    /// A worker that beats and does not answer.
    hung: Option<&'static str>,
    /// Questions, with the time on the paused clock.
    asked: Vec<(Instant, Vec<String>)>,
}

// Each test runs on a thread of its own, with all that it spawns.
thread_local! {
    static STAGE: RefCell<Stage> = RefCell::default();
}

fn with<T>(of: impl FnOnce(&mut Stage) -> T) -> T {
    STAGE.with_borrow_mut(of)
}

struct Fake;

async fn well() -> Result<(), SignalError> {
    match with(|stage| stage.mood) {
        Mood::Well => Ok(()),
        Mood::Slow => {
            sleep(Duration::from_millis(500)).await;
            Ok(())
        }
        Mood::Down => Err(SignalError::new(FaultKind::Unreachable, "connection refused")),
        Mood::Refusing => Err(SignalError::new(FaultKind::Refused, "wrong password")),
        Mood::Hung => std::future::pending().await,
        Mood::Panicking => panic!("a mistake of ours"),
    }
}

impl SignalSource for Fake {
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
        async move {
            with(|stage| stage.polls += 1);
            well().await?;
            let ready = || Ready {
                count: 3,
                ..Ready::default()
            };
            let one = |name: &String| {
                let (ready, unacked) = (Ok(ready()), None);
                (name.clone(), PolledQueue { ready, unacked })
            };
            Ok(Polled {
                queues: wanted.queues.iter().map(one).collect(),
                stray: with(|stage| stage.stray),
            })
        }
        .boxed()
    }

    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
        let beats = futures::stream::unfold("celery@a", |node| async move {
            sleep(Duration::from_secs(1)).await;
            let next = if node == "celery@a" {
                "celery@b"
            } else {
                "celery@a"
            };
            Some((roster::beat(node, 0, 0), next))
        });
        async { Ok(beats.boxed()) }.boxed()
    }

    fn inquire<'a>(
        &'a self,
        nodes: &'a [String],
        sizes: bool,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        async move {
            with(|stage| stage.asks += 1);
            with(|stage| stage.asked.push((Instant::now(), nodes.to_vec())));
            let hung = with(|stage| stage.hung);
            let silent = |node: &String| hung == Some(node);
            if nodes.iter().any(silent) {
                sleep(deadline).await;
            }
            if with(|stage| stage.no_answers) {
                return Err(SignalError::new(FaultKind::Refused, "no permission to ask"));
            }
            let told = || {
                let mut told = Told::default();
                told.size = sizes.then_some(4);
                if let Some(queue) = with(|stage| stage.consumes) {
                    told.bindings = Bindings::plain(queue);
                }
                told
            };
            let answer = |node: &String| (node.clone(), Ok(told()));
            let heard = nodes.iter().filter(|node| !silent(node));
            Ok(heard.map(answer).collect())
        }
        .boxed()
    }

    fn command<'a>(
        &'a self,
        command: &'a Command,
        nodes: &'a [String],
    ) -> BoxFuture<'a, Result<(), SignalError>> {
        async move {
            with(|stage| stage.told.push((command.clone(), nodes.to_vec())));
            if with(|stage| stage.no_answers) {
                return Err(SignalError::new(FaultKind::Refused, "no permission to tell"));
            }
            Ok(())
        }
        .boxed()
    }

    fn connections(&self) -> u64 {
        2
    }
}

struct Fixed;

impl Resolve for Fixed {
    fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>> {
        async {
            let secret = with(|stage| {
                stage.resolves += 1;
                stage.secret
            });
            let url = match secret {
                Secret::Well => "redis://broker:6379/0",
                Secret::Other => "redis://other:6379/0",
                Secret::Gone => return Err(SignalError::new(FaultKind::SecretMissing, "no such Secret")),
                Secret::Hung => std::future::pending().await,
            };
            let config = BrokerConfig::parse(url, &BrokerOptions::default());
            config.map_err(|error| SignalError::new(FaultKind::InvalidAddress, error.to_string()))
        }
        .boxed()
    }
}

fn connect(_: BrokerConfig, _: Clock) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>> {
    async {
        let mood = with(|stage| {
            stage.connects += 1;
            stage.mood
        });
        if mood != Mood::Hung {
            well().await?;
        }
        let source: Arc<dyn SignalSource> = Arc::new(Fake);
        Ok(source)
    }
    .boxed()
}

/// A poller at work.
struct Run {
    board: Arc<Board>,
    clock: Clock,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Wanted>,
    running: JoinHandle<()>,
}

impl Run {
    fn start() -> Self {
        let (board, metrics) = (Arc::new(Board::default()), Arc::new(Metrics::default()));
        let clock = Clock::new(Timestamp::now);
        let (sender, wanted) = watch::channel(Wanted {
            queues: vec!["q".into()],
            stray: false,
        });
        let poller = Poller {
            id: "b".into(),
            board: Arc::clone(&board),
            resolver: Arc::new(Fixed),
            connect: Arc::new(connect),
            wanted,
            base_interval: Duration::from_millis(200),
            clock,
            metrics: Arc::clone(&metrics),
        };
        Self {
            board,
            clock,
            metrics,
            sender,
            running: tokio::spawn(poller.keep_running()),
        }
    }

    fn view(&self) -> BrokerView {
        let views = self.board.views();
        views.get("b").map(|view| (**view).clone()).unwrap_or_default()
    }

    fn fresh(&self) -> bool {
        let (view, now) = (self.view(), self.clock.now());
        let ready = &view.queues["q"].ready;
        ready.fresh(now, Duration::from_millis(450)).is_some()
    }

    /// Waits, and sees whether the counts stayed fresh the whole time.
    async fn stays_fresh(&self, seconds: u64) -> bool {
        for _ in 0..seconds * 10 {
            sleep(Duration::from_millis(100)).await;
            if !self.fresh() {
                return false;
            }
        }
        true
    }

    /// Requests that ended so, by the metrics.
    fn counted(&self, outcome: &str) -> u64 {
        let start = format!("poolwright_broker_requests_total{{outcome=\"{outcome}\"}} ");
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_poller_lives_through_an_outage_and_a_hang() {
    let run = Run::start();
    sleep(Duration::from_secs(2)).await;
    assert!(run.fresh() && run.view().queues["q"].ready.fault.is_none());
    assert_eq!(with(|stage| stage.connects), 1, "one connection serves all polls");

    with(|stage| stage.mood = Mood::Down);
    sleep(Duration::from_secs(30)).await;
    let outage = run.view();
    let fault = outage.queues["q"].ready.fault.clone().unwrap();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(
        run.clock.now().since(fault.since) > Duration::from_secs(29),
        "an unbroken outage keeps its beginning"
    );
    assert_eq!(
        outage.queues["q"].ready.last.as_ref().unwrap().value.count,
        3,
        "the last good count stays"
    );
    assert!(outage.heartbeats.fault.is_some());
    let tries = with(|stage| stage.connects);
    assert!(
        (20..80).contains(&tries),
        "{tries} tries in 30 s: backed off, but never longer than a second"
    );

    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_millis(1250)).await;
    assert!(
        run.fresh() && run.view().queues["q"].ready.fault.is_none(),
        "fresh within a second and a poll"
    );

    with(|stage| stage.mood = Mood::Hung);
    sleep(Duration::from_secs(5)).await;
    assert!(
        run.view().queues["q"].ready.fault.is_some(),
        "a broker that says nothing is not waited for"
    );
    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(4)).await;
    assert!(run.fresh());

    let board = Arc::clone(&run.board);
    drop(run.sender);
    run.running.await.unwrap();
    assert!(
        board.views().is_empty(),
        "a broker that nobody names is forgotten"
    );
}

/// What a worker fetches while the queues are being read may be in their counts still; the stream is known to stand after it.
#[tokio::test(start_paused = true)]
async fn a_count_is_as_old_as_its_question() {
    with(|stage| stage.mood = Mood::Slow);
    let run = Run::start();
    sleep(Duration::from_secs(3)).await;
    let view = run.view();
    let (counted, stands) = (
        view.queues["q"].ready.last.as_ref().unwrap().at,
        view.heartbeats.last.as_ref().unwrap().at,
    );
    assert_eq!(stands.since(counted), Duration::from_millis(500));
    drop(run.sender);
    run.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_poller_that_panics_is_started_anew() {
    let run = Run::start();
    sleep(Duration::from_secs(2)).await;
    with(|stage| stage.mood = Mood::Panicking);
    sleep(Duration::from_secs(2)).await;
    assert!(!run.fresh() && !run.running.is_finished());
    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(6)).await;
    assert!(run.fresh());
    drop(run.sender);
    run.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_that_fails_ends_nothing_and_is_asked_again() {
    with(|stage| stage.no_answers = true);
    let run = Run::start();
    sleep(Duration::from_millis(900)).await;
    let since = run.view().heartbeats.last.unwrap().value;
    assert!(run.stays_fresh(20).await);
    let view = run.view();
    assert_eq!(
        view.workers["celery@a"].unreadable.as_deref(),
        Some("no permission to ask")
    );
    assert_eq!(
        (view.heartbeats.last.unwrap().value, view.heartbeats.fault),
        (since, None)
    );
    assert_eq!(with(|stage| stage.connects), 1);

    with(|stage| stage.no_answers = false);
    sleep(Duration::from_secs(31)).await;
    let worker = run.view().workers["celery@a"].clone();
    assert!(worker.unreadable.is_none() && worker.answer.is_some());
}

#[tokio::test(start_paused = true)]
async fn answers_of_workers_that_are_not_heard_end_with_the_connection() {
    let run = Run::start();
    let ask = || run.board.ask("b", vec!["celery@mute".into()]);
    sleep(Duration::from_secs(1)).await;
    ask();
    sleep(Duration::from_millis(500)).await;
    let first = run.view().unheard["celery@mute"].clone();
    assert!(first.queues.is_some());
    // Another broker may know nobody of that name; there it is asked at once.
    with(|stage| stage.secret = Secret::Other);
    sleep(Duration::from_secs(80)).await;
    assert_eq!(run.view().address, "redis://other:6379/0");
    assert!(run.view().unheard.is_empty());
    ask();
    sleep(Duration::from_millis(500)).await;
    assert!(run.view().unheard["celery@mute"].asked > first.asked);
    with(|stage| stage.mood = Mood::Down);
    sleep(Duration::from_secs(5)).await;
    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(2)).await;
    assert!(run.fresh() && run.view().unheard.is_empty());
    // And when nobody asks for it any more.
    ask();
    sleep(Duration::from_secs(80)).await;
    assert_eq!(run.view().unheard.len(), 1);
    sleep(Duration::from_secs(11)).await;
    assert!(run.view().unheard.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_request_is_counted_once() {
    let run = Run::start();
    sleep(Duration::from_millis(10_050)).await;
    let made = || with(|stage| stage.connects + stage.polls + stage.asks + stage.told.len() as u64);
    assert!(with(|stage| stage.asks) > 0);
    assert_eq!((run.counted("success"), run.counted("failure")), (made(), 0));

    with(|stage| (stage.mood, stage.no_answers) = (Mood::Down, true));
    let before = made();
    sleep(Duration::from_secs(10)).await;
    let failed = made() - before;
    assert!(failed > 5);
    assert_eq!((run.counted("success"), run.counted("failure")), (before, failed));

    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(5)).await;
    run.board.ask("b", vec!["celery@a".into()]);
    sleep(Duration::from_millis(1050)).await;
    assert_eq!(run.counted("success") + run.counted("failure"), made());
    assert!(run.counted("failure") > failed, "questions that failed count too");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_reason_to_read_the_secret_but_a_refusal_is() {
    with(|stage| stage.mood = Mood::Down);
    let run = Run::start();
    sleep(Duration::from_secs(40)).await;
    assert!(with(|stage| stage.connects) > 30);
    assert_eq!(with(|stage| stage.resolves), 1);
    sleep(Duration::from_secs(560)).await;
    let read = with(|stage| stage.resolves);
    assert!(
        (8..=14).contains(&read),
        "{read} reads in ten minutes: one a minute, give or take"
    );

    with(|stage| stage.mood = Mood::Refusing);
    sleep(Duration::from_secs(2)).await;
    with(|stage| (stage.connects, stage.resolves) = (0, 0));
    sleep(Duration::from_secs(10)).await;
    let (tries, reads) = with(|stage| (stage.connects, stage.resolves));
    // Ever more seldom, for it mends nothing.
    assert!(
        tries > 5 && (2..=4).contains(&reads),
        "{tries} tries, {reads} reads"
    );

    with(|stage| stage.secret = Secret::Gone);
    sleep(Duration::from_secs(12)).await;
    let fault = run.view().heartbeats.fault.unwrap();
    assert_eq!(fault.kind, FaultKind::SecretMissing);
    with(|stage| (stage.mood, stage.secret) = (Mood::Well, Secret::Well));
    sleep(Duration::from_secs(12)).await;
    assert!(
        run.fresh(),
        "a Secret that was missing is looked for again and again"
    );
}

#[tokio::test(start_paused = true)]
async fn the_polls_go_on_while_a_secret_is_read_and_when_it_is_gone() {
    let run = Run::start();
    sleep(Duration::from_secs(1)).await;
    for secret in [Secret::Hung, Secret::Gone] {
        with(|stage| (stage.secret, stage.resolves) = (secret, 0));
        assert!(run.stays_fresh(160).await);
        assert!(with(|stage| stage.resolves) >= 2);
    }
    assert_eq!(with(|stage| stage.connects), 1);

    with(|stage| stage.secret = Secret::Other);
    assert!(run.stays_fresh(80).await);
    assert_eq!(run.view().address, "redis://other:6379/0");
    assert_eq!(with(|stage| stage.connects), 2);

    // Out of reach with a Secret that cannot be read now: the last known address serves.
    with(|stage| (stage.mood, stage.secret) = (Mood::Down, Secret::Hung));
    sleep(Duration::from_secs(100)).await;
    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(4)).await;
    assert!(run.fresh());
}

#[test]
fn many_queues_are_polled_less_often() {
    let base = Duration::from_millis(200);
    assert_eq!(poll_interval(base, 1), base);
    assert_eq!(poll_interval(base, 200), base);
    assert_eq!(poll_interval(base, 1000), Duration::from_secs(1));
    assert_eq!(poll_interval(base, 10_000), Duration::from_secs(2));
}
