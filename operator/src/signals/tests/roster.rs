//! Whom the poller asks, and what heartbeats and answers make of a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolwright_core::sample::{Answer, BrokerView};
use poolwright_core::time::Moment;

use crate::signals::roster::{
    ask_again, consumed, forget_gone, take_answers, take_beat, take_failure, to_ask,
};
use crate::signals::{Heartbeat, NodeAnswer};

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
            let answer = (nodes[0].clone(), Ok((Answer::default(), Duration::ZERO)));
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
    let answer = (nodes[0].clone(), Ok((Answer::default(), Duration::ZERO)));
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
                vec![(node.clone(), Ok((Answer::default(), Duration::ZERO)))],
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
        vec![("celery@a".into(), Ok((Answer::default(), Duration::ZERO)))],
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
        let answers = well
            .iter()
            .map(|node| (node.clone(), Ok((Answer::default(), Duration::ZERO))));
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
    let answer = ("celery@a".to_owned(), Ok((Answer::default(), Duration::ZERO)));
    take_answers(&mut view, &["celery@a".into()], vec![answer], at(81));
    assert!(view.workers["celery@a"].unreadable.is_none());
}

fn names(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

/// An answer of a worker that consumes the queue `q`.
fn on_q(node: &str) -> NodeAnswer {
    let queues = names(&["q"]);
    let answer = Answer {
        queues,
        ..Answer::default()
    };
    (node.to_owned(), Ok((answer, Duration::ZERO)))
}

/// An inquiry lasts as long as its slowest worker: what another said is as old as it is.
#[test]
fn an_answer_is_dated_by_when_it_came() {
    let mut view = BrokerView::default();
    take_beat(&mut view, beat("celery@a", 0, 0), at(0));
    let node = ["celery@a".to_owned()];
    let answer = Ok((Answer::default(), Duration::from_secs(2)));
    take_answers(&mut view, &node, vec![(node[0].clone(), answer)], at(10));
    assert_eq!(view.workers["celery@a"].answer.as_ref().unwrap().at, at(8));
}

#[test]
fn a_worker_that_is_not_heard_is_asked_on_request_every_half_minute() {
    let (mut view, mut asked) = (BrokerView::default(), Vec::new());
    for second in 0..100 {
        take_beat(&mut view, beat("celery@heard", 0, 0), at(second));
        let mut requested = names(&["celery@a", "celery@heard"]);
        for _ in 0..2 {
            let nodes = to_ask(&mut view, &mut requested, at(second));
            if nodes.iter().any(|node| node == "celery@a") {
                asked.push(second);
                assert_eq!(nodes, ["celery@a"], "nobody waits for it");
                take_answers(&mut view, &nodes, Vec::new(), at(second + 2));
            }
        }
        assert!(requested.is_empty(), "requests do not pile up");
        forget_gone(&mut view, at(second));
    }
    assert_eq!(asked, [0, 30, 60, 90]);
    assert!(view.unheard["celery@a"].queues.is_none() && view.workers.len() == 1);
    // Nobody asks for it any more.
    forget_gone(&mut view, at(180));
    assert_eq!(view.unheard.len(), 1);
    forget_gone(&mut view, at(181));
    assert!(view.unheard.is_empty());
    assert!(to_ask(&mut view, &mut BTreeSet::new(), at(200)).is_empty());
}

#[test]
fn workers_that_are_not_heard_leave_time_for_the_others() {
    let mut view = BrokerView::default();
    let mut all: BTreeSet<String> = (0..500).map(|number| format!("celery@{number:03}")).collect();
    let mut asked = BTreeSet::new();
    for (second, count) in [(0, 200), (5, 0), (10, 200), (20, 100), (30, 200)] {
        let nodes = to_ask(&mut view, &mut all.clone(), at(second));
        assert_eq!(nodes.len(), count, "at {second} s");
        asked.extend(nodes);
    }
    assert_eq!(asked.len(), 500, "those that have waited longest come first");
    // A new one comes before those that have been asked.
    all.insert("celery@new".into());
    assert!(to_ask(&mut view, &mut all, at(40)).contains(&"celery@new".to_owned()));
}

#[test]
fn what_a_worker_that_is_not_heard_says_is_dated_by_the_question_and_ends_with_its_first_heartbeat() {
    let mut view = BrokerView::default();
    let node = ["celery@a".to_owned()];
    let ask = |view: &mut BrokerView, second| {
        assert_eq!(to_ask(view, &mut names(&["celery@a"]), at(second)), node);
    };
    ask(&mut view, 0);
    take_answers(
        &mut view,
        &node,
        vec![on_q("celery@a"), on_q("celery@stranger")],
        at(2),
    );
    assert_eq!(view.unheard.len(), 1, "whoever was not asked says nothing");
    let said = view.unheard["celery@a"].queues.clone().unwrap();
    assert_eq!((said.at, said.value), (at(0), names(&["q"])));
    assert!(consumed(&view, "q") && !consumed(&view, "celery"));
    // No answer leaves the one before, which grows old; one that cannot be read tells that it is not known.
    ask(&mut view, 30);
    take_answers(&mut view, &node, Vec::new(), at(32));
    take_failure(&mut view, &node, "no permission");
    assert_eq!(view.unheard["celery@a"].queues.as_ref().unwrap().at, at(0));
    ask(&mut view, 60);
    take_answers(
        &mut view,
        &node,
        vec![("celery@a".into(), Err("pickle".into()))],
        at(62),
    );
    assert!(view.unheard["celery@a"].queues.is_none() && !consumed(&view, "q"));
    ask(&mut view, 90);
    take_beat(&mut view, beat("celery@a", 0, 0), at(91));
    take_answers(&mut view, &node, vec![on_q("celery@a")], at(92));
    assert!(view.unheard.is_empty() && view.workers["celery@a"].answer.is_some());
    // Silent again: what is asked then is no word of the process that was heard.
    ask(&mut view, 200);
    take_answers(&mut view, &node, vec![on_q("celery@a")], at(201));
    assert_eq!(view.workers["celery@a"].answer.as_ref().unwrap().at, at(92));
    assert_eq!(view.unheard["celery@a"].queues.as_ref().unwrap().at, at(200));
}
