//! The poller against a source that fails on command, in paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use poolwright_core::broker::{BrokerConfig, BrokerOptions};
use poolwright_core::sample::{Answer, BrokerView, FaultKind, Ready};
use poolwright_core::time::Moment;
use tokio::sync::watch;
use tokio::time::sleep;

use super::board::Board;
use super::poller::{Poller, Resolve, poll_interval};
use super::roster::{take_answers, take_beat, to_ask};
use super::{Heartbeat, NodeAnswer, Polled, PolledQueue, SignalError, SignalSource, Wanted};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// How the broker behaves now.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Down,
    Hung,
}

static MOOD: Mutex<Mood> = Mutex::new(Mood::Well);
static CONNECTS: AtomicUsize = AtomicUsize::new(0);

struct Fake;

fn mood() -> Mood {
    *MOOD.lock().unwrap()
}

fn down() -> SignalError {
    SignalError::new(FaultKind::Unreachable, "connection refused")
}

impl SignalSource for Fake {
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
        async move {
            match mood() {
                Mood::Hung => std::future::pending().await,
                Mood::Down => Err(down()),
                Mood::Well => {
                    let ready = || {
                        Ok(Ready {
                            count: 3,
                            ..Ready::default()
                        })
                    };
                    let one = |name: &String| {
                        (
                            name.clone(),
                            PolledQueue {
                                ready: ready(),
                                unacked: None,
                            },
                        )
                    };
                    Ok(Polled {
                        queues: wanted.queues.iter().map(one).collect(),
                        stray: 0,
                    })
                }
            }
        }
        .boxed()
    }

    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
        async { Ok(futures::stream::pending().boxed()) }.boxed()
    }

    fn ask<'a>(
        &'a self,
        _: &'a [String],
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn connections(&self) -> u64 {
        2
    }
}

struct Fixed;

impl Resolve for Fixed {
    fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>> {
        async {
            let config = BrokerConfig::parse("redis://broker:6379/0", &BrokerOptions::default());
            config.map_err(|error| SignalError::new(FaultKind::InvalidAddress, error.to_string()))
        }
        .boxed()
    }
}

fn connect(_: BrokerConfig) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>> {
    async {
        CONNECTS.fetch_add(1, Ordering::SeqCst);
        if mood() == Mood::Down {
            return Err(down());
        }
        let source: Arc<dyn SignalSource> = Arc::new(Fake);
        Ok(source)
    }
    .boxed()
}

/// One test, because the broker's mood is shared: a start, an outage, a hang, an end.
#[tokio::test(start_paused = true)]
async fn a_poller_lives_through_an_outage_and_a_hang() {
    let board = Arc::new(Board::default());
    let clock = Clock::new(Timestamp::now);
    let (sender, wanted) = watch::channel(Wanted {
        queues: vec!["q".into()],
        stray: false,
    });
    let poller = Poller {
        id: "b".into(),
        board: Arc::clone(&board),
        resolver: Box::new(Fixed),
        connect,
        wanted,
        base_interval: Duration::from_millis(200),
        clock,
        metrics: Arc::new(Metrics::new()),
    };
    let running = tokio::spawn(poller.run());
    let view = || {
        board
            .views()
            .get("b")
            .map(|view| (**view).clone())
            .unwrap_or_default()
    };
    let fresh = |view: &BrokerView| {
        view.queues["q"]
            .ready
            .fresh(clock.now(), Duration::from_millis(450))
            .is_some()
    };
    sleep(Duration::from_secs(2)).await;
    assert!(fresh(&view()) && view().queues["q"].ready.fault.is_none());
    assert_eq!(
        CONNECTS.load(Ordering::SeqCst),
        1,
        "one connection serves all polls"
    );

    *MOOD.lock().unwrap() = Mood::Down;
    sleep(Duration::from_secs(30)).await;
    let outage = view();
    let fault = outage.queues["q"].ready.fault.clone().unwrap();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(
        clock.now().since(fault.since) > Duration::from_secs(29),
        "an unbroken outage keeps its beginning"
    );
    assert_eq!(
        outage.queues["q"].ready.last.as_ref().unwrap().value.count,
        3,
        "the last good count stays"
    );
    assert!(outage.heartbeats.fault.is_some());
    let tries = CONNECTS.load(Ordering::SeqCst);
    assert!(
        (20..80).contains(&tries),
        "{tries} tries in 30 s: backed off, but never longer than a second"
    );

    *MOOD.lock().unwrap() = Mood::Well;
    sleep(Duration::from_millis(1250)).await;
    assert!(
        fresh(&view()) && view().queues["q"].ready.fault.is_none(),
        "fresh within a second and a poll"
    );

    *MOOD.lock().unwrap() = Mood::Hung;
    sleep(Duration::from_secs(5)).await;
    assert!(
        view().queues["q"].ready.fault.is_some(),
        "a broker that says nothing is not waited for"
    );
    *MOOD.lock().unwrap() = Mood::Well;
    sleep(Duration::from_secs(4)).await;
    assert!(fresh(&view()));

    drop(sender);
    running.await.unwrap();
    assert!(
        board.views().is_empty(),
        "a broker that nobody names is forgotten"
    );
}

#[test]
fn many_queues_are_polled_less_often() {
    let base = Duration::from_millis(200);
    assert_eq!(poll_interval(base, 1), base);
    assert_eq!(poll_interval(base, 200), base);
    assert_eq!(poll_interval(base, 1000), Duration::from_secs(1));
    assert_eq!(poll_interval(base, 10_000), Duration::from_secs(2));
}

fn beat(node: &str, active: u64, processed: u64) -> Heartbeat {
    Heartbeat {
        node: node.into(),
        pid: 1,
        active,
        processed,
        interval: Duration::from_secs(2),
        offline: false,
    }
}

fn at(seconds: u64) -> Moment {
    Moment(seconds * 1000)
}

/// A worker that beats every two seconds and answers whatever it is asked; returns when it was asked.
fn asked_at(until: u64, active: impl Fn(u64) -> u64, answers: bool) -> Vec<u64> {
    let (mut view, mut requested, mut asked) = (BrokerView::default(), BTreeSet::new(), Vec::new());
    for second in 0..until {
        if second % 2 == 0 {
            take_beat(&mut view, beat("celery@a", active(second), second), at(second));
        }
        let nodes = to_ask(&mut view, &mut requested, at(second));
        if !nodes.is_empty() {
            asked.push(second);
            let answer = (nodes[0].clone(), Ok(Answer::default()));
            take_answers(
                &mut view,
                &nodes,
                if answers { vec![answer] } else { Vec::new() },
                at(second),
            );
        }
    }
    asked
}

#[test]
fn an_idle_worker_is_asked_once_and_a_busy_one_every_half_minute() {
    assert_eq!(asked_at(120, |_| 0, true), [0]);
    assert_eq!(asked_at(100, |_| 1, true), [0, 30, 60, 90]);
    // When it first turns busy it is asked at once: its answer tells when its tasks acknowledge.
    assert_eq!(asked_at(50, |second| u64::from(second >= 10), true), [0, 10, 40]);
    // Also where it was asked a moment before.
    assert_eq!(asked_at(30, |second| u64::from(second >= 1), true), [0, 2]);
}

#[test]
fn a_worker_that_does_not_answer_is_asked_again_and_then_unreadable() {
    let asked = asked_at(29, |_| 0, false);
    assert_eq!(asked, [0, 5, 10, 15, 20, 25]);
    let (mut view, mut requested) = (BrokerView::default(), BTreeSet::new());
    for second in (0..=20).step_by(2) {
        take_beat(&mut view, beat("celery@a", 0, 0), at(second));
        let nodes = to_ask(&mut view, &mut requested, at(second));
        take_answers(&mut view, &nodes, Vec::new(), at(second));
        let unreadable = view.workers["celery@a"].unreadable.is_some();
        assert_eq!(unreadable, second >= 12, "asked at 0, 6 and 12; at {second} s");
    }
}

#[test]
fn a_scale_in_may_ask_anybody_but_not_all_the_time() {
    let mut view = BrokerView::default();
    take_beat(&mut view, beat("celery@a", 0, 0), at(0));
    let mut asked = Vec::new();
    for second in 0..9 {
        take_beat(&mut view, beat("celery@a", 0, 0), at(second));
        let mut requested = BTreeSet::from(["celery@a".to_owned()]);
        for node in to_ask(&mut view, &mut requested, at(second)) {
            asked.push(second);
            take_answers(
                &mut view,
                std::slice::from_ref(&node),
                vec![(node.clone(), Ok(Answer::default()))],
                at(second),
            );
        }
        assert!(requested.is_empty(), "requests do not pile up");
    }
    assert_eq!(asked, [0, 2, 4, 6, 8]);
}

#[test]
fn a_restarted_worker_starts_over() {
    let mut view = BrokerView::default();
    take_beat(&mut view, beat("celery@a", 1, 9), at(0));
    take_answers(
        &mut view,
        &["celery@a".into()],
        vec![("celery@a".into(), Ok(Answer::default()))],
        at(1),
    );
    assert_eq!(
        view.workers["celery@a"].answer.as_ref().unwrap().value.processed,
        9
    );
    take_beat(
        &mut view,
        Heartbeat {
            pid: 2,
            ..beat("celery@a", 0, 0)
        },
        at(5),
    );
    let worker = &view.workers["celery@a"];
    assert_eq!(
        (worker.first_seen, worker.last_progress, worker.answer.is_none()),
        (at(5), at(5), true)
    );
    take_beat(
        &mut view,
        Heartbeat {
            offline: true,
            pid: 2,
            ..beat("celery@a", 0, 0)
        },
        at(6),
    );
    assert!(view.workers["celery@a"].offline);
    let gone: BTreeMap<_, _> = {
        super::roster::forget_gone(&mut view, at(700));
        view.workers
    };
    assert!(gone.is_empty());
}
