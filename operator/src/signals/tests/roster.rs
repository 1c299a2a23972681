//! Whom the poller asks, and what heartbeats and answers make of a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolwright_core::sample::{Answer, BrokerView};
use poolwright_core::time::Moment;

use crate::signals::Heartbeat;
use crate::signals::roster::{ask_again, forget_gone, take_answers, take_beat, take_failure, to_ask};

pub(super) fn beat(node: &str, active: u64, processed: u64) -> Heartbeat {
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
}

/// A question of a moment ago told nothing of the tasks that have begun since.
#[test]
fn a_worker_that_turns_busy_just_after_a_question_is_asked_anew() {
    let (mut view, mut requested) = (BrokerView::default(), BTreeSet::new());
    take_beat(&mut view, beat("celery@a", 0, 0), at(0));
    let nodes = to_ask(&mut view, &mut requested, at(1));
    let answer = (nodes[0].clone(), Ok(Answer::default()));
    take_answers(&mut view, &nodes, vec![answer], at(1));
    take_beat(&mut view, beat("celery@a", 1, 1), at(2));
    assert_eq!(to_ask(&mut view, &mut requested, at(2)), ["celery@a"]);
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
        forget_gone(&mut view, at(700));
        view.workers
    };
    assert!(gone.is_empty());
}

#[test]
fn a_worker_that_cannot_be_read_is_asked_every_half_minute_and_at_once_on_a_new_connection() {
    let (mut view, mut asked) = (BrokerView::default(), Vec::new());
    for second in (0..=80).step_by(2) {
        take_beat(&mut view, beat("celery@a", 0, 0), at(second));
        take_beat(&mut view, beat("celery@b", 0, 0), at(second));
        if second == 70 {
            ask_again(&mut view);
        }
        let nodes = to_ask(&mut view, &mut BTreeSet::new(), at(second));
        let (failing, well): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node == "celery@a");
        let answers = well.iter().map(|node| (node.clone(), Ok(Answer::default())));
        take_answers(&mut view, &well, answers.collect(), at(second));
        if !failing.is_empty() {
            asked.push(second);
            take_failure(&mut view, &failing, &"no permission ".repeat(99));
            assert!(
                view.workers["celery@a"]
                    .unreadable
                    .as_ref()
                    .is_some_and(|why| why.len() <= 128)
            );
        }
        assert!(view.workers["celery@b"].unreadable.is_none());
    }
    // Every six seconds while it is new.
    assert_eq!(asked, [0, 6, 12, 18, 24, 54, 70]);
    let answer = ("celery@a".to_owned(), Ok(Answer::default()));
    take_answers(&mut view, &["celery@a".into()], vec![answer], at(81));
    assert!(view.workers["celery@a"].unreadable.is_none());
}
