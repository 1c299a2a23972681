//! Whom the poller asks, and what heartbeats and answers make of a worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_core::sample::{BrokerView, WorkerView};
use poolwright_core::time::Moment;

use crate::signals::celery::{Collector, Method, Told};
use crate::signals::questions::{Free, Question};
use crate::signals::roster::Roster;
use crate::signals::strangers::{NAMES_MAX, STRANGERS_MAX};
use crate::signals::{Heartbeat, NodeAnswer};

/// Nothing is under way.
const FREE: Free = Free {
    together: true,
    apart: true,
};

/// A roster and what it makes of a broker.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) roster: Roster,
    pub(super) view: BrokerView,
}

impl Seen {
    pub(super) fn beat(&mut self, beat: &Heartbeat, second: u64) {
        self.roster.take_beat(&mut self.view, beat, at(second));
    }

    /// The questions that are put now.
    pub(super) fn questions(&mut self, requested: &[&str], now: Moment) -> Vec<Question> {
        let (requested, mut free, mut all) = (names(requested), FREE, Vec::new());
        while let Some(question) = self.roster.question(&mut self.view, &requested, now, free) {
            free.apart &= !question.apart;
            all.push(question);
        }
        all
    }

    pub(super) fn answers(&mut self, question: &Question, answers: Vec<NodeAnswer>, second: u64) {
        self.roster.take_answers(
            &mut self.view,
            question,
            answers,
            (at(second), Timestamp::UNIX_EPOCH),
        );
    }

    pub(super) fn worker(&self, node: &str) -> &WorkerView {
        &self.view.workers[node]
    }
}

fn to(node: &str, put: Moment, apart: bool) -> Question {
    Question {
        nodes: vec![node.to_owned()],
        put,
        apart,
        ..Question::default()
    }
}

/// What is made of a worker's replies to the four methods.
fn parsed(node: &str, replies: [&str; 4]) -> NodeAnswer {
    let asked = Method::inquiry(false);
    let mut collector = Collector::new(&[node.to_owned()], &asked);
    for ((_, ticket), reply) in asked.iter().zip(replies) {
        let body = format!(r#"{{"{node}":{reply}}}"#);
        collector.take_body(ticket, "application/json", "utf-8", body.as_bytes());
    }
    collector.finish().remove(0)
}

pub(super) fn good(node: &str) -> NodeAnswer {
    (node.to_owned(), Ok(Told::default()))
}

pub(super) fn beat(node: &str, active: u64, processed: u64) -> Heartbeat {
    Heartbeat {
        node: node.into(),
        pid: 1,
        active,
        processed,
        interval: Duration::from_secs(2),
        online: false,
        offline: false,
    }
}

pub(super) fn at(seconds: u64) -> Moment {
    Moment(seconds * 1000)
}

/// A worker that beats every two seconds and answers whatever it is asked; returns when it was asked.
fn asked_at(until: u64, active: impl Fn(u64) -> u64, answers: bool) -> Vec<u64> {
    let (mut seen, mut asked) = (Seen::default(), Vec::new());
    for second in 0..until {
        if second % 2 == 0 {
            seen.beat(&beat("celery@a", active(second), second), second);
        }
        for question in seen.questions(&[], at(second)) {
            asked.push(second);
            let answer = if answers {
                vec![good("celery@a")]
            } else {
                Vec::new()
            };
            seen.answers(&question, answer, second);
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
    // One whose tasks are short turns busy ever again.
    let flickers = |second: u64| u64::from(second % 4 == 2);
    assert_eq!(asked_at(70, flickers, true), [0, 2, 34, 66]);
}

/// A question of a moment ago told nothing of the tasks that have begun since.
#[test]
fn a_worker_that_turns_busy_just_after_a_question_is_asked_anew() {
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 0), 0);
    let question = seen.questions(&[], at(1)).remove(0);
    seen.answers(&question, vec![good("celery@a")], 1);
    seen.beat(&beat("celery@a", 1, 1), 2);
    assert_eq!(seen.questions(&[], at(2))[0].nodes, ["celery@a"]);
}

#[test]
fn a_worker_that_has_never_answered_is_asked_again_and_then_unreadable() {
    let asked = asked_at(29, |_| 0, false);
    assert_eq!(asked, [0, 5, 10, 15, 20, 25]);
    let mut seen = Seen::default();
    for second in (0..=20).step_by(2) {
        seen.beat(&beat("celery@a", 0, 0), second);
        for question in seen.questions(&[], at(second)) {
            assert_eq!(question.apart, second > 0, "nobody waits for it a second time");
            seen.answers(&question, Vec::new(), second);
        }
        let unreadable = seen.worker("celery@a").unreadable.is_some();
        assert_eq!(unreadable, second >= 12, "asked at 0, 6 and 12; at {second} s");
    }
    assert_eq!(seen.worker("celery@a").unreadable_since, Some(at(12)));
}

/// A worker that is busy with its broker, or slow for a moment, can be read all the same.
#[test]
fn a_worker_that_has_answered_is_unreadable_from_the_second_failure_on() {
    let mut seen = Seen::default();
    let mut asked = Vec::new();
    let mut run = |seen: &mut Seen, seconds: std::ops::Range<u64>, answer: Option<NodeAnswer>| {
        for second in seconds {
            seen.beat(&beat("celery@a", 0, 0), second);
            for question in seen.questions(&["celery@a"], at(second)) {
                asked.push((second, question.apart));
                seen.answers(&question, answer.clone().into_iter().collect(), second);
            }
        }
        std::mem::take(&mut asked)
    };
    let since = |seen: &Seen| {
        let worker = seen.worker("celery@a");
        assert_eq!(worker.unreadable.is_some(), worker.unreadable_since.is_some());
        worker.unreadable_since
    };
    run(&mut seen, 0..1, Some(good("celery@a")));
    // Silent with the others, it is asked alone at once, and then every three seconds, whoever asks about it.
    assert_eq!(
        run(&mut seen, 1..7, None),
        [(1, false), (2, true), (5, true)].as_slice()
    );
    assert_eq!(since(&seen), Some(at(2)), "since the first of the run");
    run(&mut seen, 8..9, Some(good("celery@a")));
    assert_eq!(since(&seen), None);

    let pickle = || Some(("celery@a".to_owned(), Err("pickle ".repeat(99))));
    assert_eq!(run(&mut seen, 9..10, pickle()).len(), 1);
    assert_eq!(since(&seen), None, "once is not enough");
    assert!(run(&mut seen, 10..12, pickle()).is_empty());
    run(&mut seen, 12..13, pickle());
    assert_eq!(since(&seen), Some(at(9)));
    assert!(
        seen.worker("celery@a")
            .unreadable
            .as_ref()
            .is_some_and(|why| why.len() <= 128)
    );
    run(&mut seen, 15..16, Some(good("celery@a")));
    // A question that could not be put is one that failed.
    for (second, unreadable) in [(20, false), (24, true)] {
        seen.roster.take_failure(
            &mut seen.view,
            &to("celery@a", at(second), false),
            "no",
            at(second),
        );
        assert_eq!(since(&seen).is_some(), unreadable);
    }
    assert_eq!(since(&seen), Some(at(20)));
}

#[test]
fn a_worker_that_hangs_or_is_slow_is_asked_apart_from_the_others() {
    let mut seen = Seen::default();
    let both = ["celery@a", "celery@b"];
    for node in both {
        seen.beat(&beat(node, 0, 0), 0);
    }
    let question = seen.questions(&[], at(0)).remove(0);
    assert!(question.nodes == both && !question.apart);
    assert_eq!(
        question.deadline(),
        Duration::from_millis(500),
        "the longest that one waits for another"
    );
    seen.answers(&question, both.map(good).into(), 0);
    let question = seen.questions(&both, at(1)).remove(0);
    seen.answers(&question, vec![good("celery@a")], 1);
    let questions = seen.questions(&both, at(2));
    let whom = |questions: &[Question]| -> Vec<(String, bool, u64)> {
        let of = |q: &Question| (q.nodes.join(" "), q.apart, q.deadline().as_secs());
        questions.iter().map(of).collect()
    };
    assert_eq!(
        whom(&questions),
        [
            ("celery@a".to_owned(), false, 0),
            ("celery@b".to_owned(), true, 2)
        ]
    );
    // It answers after a second and a half: good, but not fast.
    let slow = Told::of_age(Duration::from_millis(500));
    seen.answers(&questions[1], vec![("celery@b".to_owned(), Ok(slow))], 4);
    assert!(seen.questions(&["celery@b"], at(5))[0].apart);
    seen.answers(&to("celery@b", at(5), true), vec![good("celery@b")], 5);
    assert!(!seen.questions(&["celery@b"], at(6))[0].apart);
    // While an inquiry apart is under way there is no second one.
    let busy = Free { apart: false, ..FREE };
    seen.answers(&to("celery@b", at(6), false), Vec::new(), 6);
    let requested = names(&["celery@b", "celery@mute"]);
    assert_eq!(
        seen.roster.question(&mut seen.view, &requested, at(7), busy),
        None
    );
    assert!(
        seen.roster
            .question(&mut seen.view, &requested, at(7), FREE)
            .is_some()
    );
}

/// The end of an inquiry is seen a little late, so the next may have begun with the same worker.
#[test]
fn a_worker_that_is_silent_in_two_inquiries_at_once_is_asked_apart_once() {
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 0), 0);
    let question = seen.questions(&[], at(0)).remove(0);
    seen.answers(&question, vec![good("celery@a")], 0);
    let ask = |seen: &mut Seen, now| seen.questions(&["celery@a"], Moment(now)).pop();
    let silent = |seen: &mut Seen, question: &Question, now| {
        seen.roster.take_answers(
            &mut seen.view,
            question,
            Vec::new(),
            (Moment(now), Timestamp::UNIX_EPOCH),
        );
    };
    let (first, second) = (ask(&mut seen, 1000).unwrap(), ask(&mut seen, 1500).unwrap());
    assert!(!first.apart && !second.apart);
    silent(&mut seen, &first, 1510);
    assert_eq!(ask(&mut seen, 1510), None, "the second may be answered yet");
    silent(&mut seen, &second, 2005);
    assert!(ask(&mut seen, 2005).unwrap().apart);
}

#[test]
fn a_scale_in_may_ask_anybody_twice_a_second() {
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 0), 0);
    let mut asked = Vec::new();
    for tick in 0..9 {
        let now = Moment(tick * 250);
        for question in seen.questions(&["celery@a"], now) {
            asked.push(now.0);
            seen.answers(&question, vec![good("celery@a")], 0);
        }
    }
    assert_eq!(asked, [0, 500, 1000, 1500, 2000]);
}

#[test]
fn those_that_have_waited_longest_are_asked_first() {
    let mut seen = Seen::default();
    let all: Vec<String> = (0..250).map(|number| format!("celery@{number:03}")).collect();
    for node in &all {
        seen.beat(&beat(node, 0, 0), 0);
    }
    let only = Free { apart: false, ..FREE };
    let mut next = |now: u64| {
        let question = seen
            .roster
            .question(&mut seen.view, &all.iter().cloned().collect(), at(now), only);
        question.map_or(Vec::new(), |question| question.nodes)
    };
    assert_eq!(next(0), all[..200]);
    assert_eq!(next(1), [&all[200..], &all[..150]].concat());
}

/// In Kubernetes the process is number 1 before and after the container has restarted.
#[test]
fn a_restarted_worker_starts_over() {
    let online = Heartbeat {
        online: true,
        ..beat("celery@a", 0, 9)
    };
    let other = Heartbeat {
        pid: 2,
        ..beat("celery@a", 0, 9)
    };
    for restarted in [online, other, beat("celery@a", 0, 8)] {
        let mut seen = Seen::default();
        seen.beat(&beat("celery@a", 1, 9), 0);
        let question = seen.questions(&[], at(0)).remove(0);
        seen.answers(&question, vec![good("celery@a")], 1);
        seen.answers(&to("celery@a", at(2), true), Vec::new(), 2);
        seen.answers(&to("celery@a", at(3), true), Vec::new(), 3);
        assert_eq!(
            seen.worker("celery@a").answer.as_ref().unwrap().value.processed,
            9
        );
        assert!(seen.worker("celery@a").unreadable.is_some());
        let late = to("celery@a", at(4), false);
        seen.beat(&restarted, 5);
        let worker = seen.worker("celery@a");
        assert_eq!((worker.first_seen, worker.last_progress), (at(5), at(5)));
        assert!(worker.answer.is_none() && worker.asked.is_none());
        assert_eq!((&worker.unreadable, worker.unreadable_since), (&None, None));
        // What the old process was asked says nothing of the new one.
        seen.answers(&late, vec![good("celery@a")], 6);
        seen.answers(&late, Vec::new(), 6);
        assert!(seen.worker("celery@a").answer.is_none());
        assert_eq!(seen.questions(&[], at(6))[0].nodes, ["celery@a"]);
        // Another heartbeat of the same process changes nothing.
        seen.beat(&beat("celery@a", 0, 9), 7);
    }
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 9), 0);
    seen.beat(&beat("celery@a", 0, 9), 2);
    assert_eq!(seen.worker("celery@a").first_seen, at(0));
    let offline = Heartbeat {
        offline: true,
        ..beat("celery@a", 0, 0)
    };
    seen.beat(&offline, 6);
    assert!(seen.worker("celery@a").offline);
    seen.roster.forget_gone(&mut seen.view, at(700));
    assert!(seen.view.workers.is_empty());
}

#[test]
fn a_worker_that_cannot_be_read_is_asked_every_half_minute_and_at_once_on_a_new_connection() {
    let (mut seen, mut asked) = (Seen::default(), Vec::new());
    for second in (0..=80).step_by(2) {
        seen.beat(&beat("celery@a", 0, 0), second);
        seen.beat(&beat("celery@b", 0, 0), second);
        if second == 70 {
            seen.roster.ask_again(&mut seen.view);
        }
        for question in seen.questions(&[], at(second)) {
            let (failing, well): (Vec<_>, Vec<_>) =
                question.nodes.iter().partition(|node| *node == "celery@a");
            let answers = well.iter().map(|node| good(node)).collect();
            let of = |nodes: Vec<&String>| Question {
                nodes: nodes.into_iter().cloned().collect(),
                ..question.clone()
            };
            seen.answers(&of(well), answers, second);
            if !failing.is_empty() {
                asked.push(second);
                let why = "no permission ".repeat(99);
                seen.roster
                    .take_failure(&mut seen.view, &of(failing), &why, at(second));
                let unreadable = &seen.worker("celery@a").unreadable;
                assert!(unreadable.as_ref().is_some_and(|why| why.len() <= 128));
            }
        }
        assert!(seen.worker("celery@b").unreadable.is_none());
    }
    // Every six seconds while it is new.
    assert_eq!(asked, [0, 6, 12, 18, 24, 54, 70]);
    seen.answers(&to("celery@a", at(81), false), vec![good("celery@a")], 81);
    assert!(seen.worker("celery@a").unreadable.is_none());
}

pub(super) fn names(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

/// An answer of a worker that consumes the queue `q`.
pub(super) fn on_q(node: &str) -> NodeAnswer {
    (node.to_owned(), Ok(Told::consuming(&["q"])))
}

/// A task that began between the heartbeat and the answer is in what runs by the answer: counted again as one that has been
/// started since, it would be missing from what the worker holds.
#[test]
fn what_an_answer_shows_to_run_was_not_started_after_it() {
    let running = r#"[{"acknowledged":true,"delivery_info":{"exchange":"","routing_key":"q"}}]"#;
    let waiting = r#"[{"acknowledged":false,"delivery_info":{"exchange":"","routing_key":"q"}}]"#;
    for (active, processed) in [(0, 5), (1, 4)] {
        let mut seen = Seen::default();
        seen.beat(&beat("celery@a", active, 4), 0);
        let question = seen.questions(&[], at(1)).remove(0);
        let told = parsed("celery@a", [running, waiting, "[]", "[]"]);
        seen.answers(&question, vec![told], 1);
        let answer = seen.worker("celery@a").answer.as_ref().unwrap();
        assert_eq!(
            (answer.value.processed, answer.value.reserved["q"]),
            (processed, 1)
        );
    }
}

/// An inquiry lasts as long as its slowest worker: what another said is as old as it is.
#[test]
fn an_answer_is_dated_by_when_it_came_and_by_when_it_was_asked_for() {
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 3), 0);
    let question = seen.questions(&[], at(7)).remove(0);
    seen.beat(&beat("celery@a", 0, 4), 9);
    let age = Duration::from_secs(2);
    let told = Told::of_age(age);
    seen.answers(&question, vec![("celery@a".to_owned(), Ok(told))], 10);
    let answer = seen.worker("celery@a").answer.clone().unwrap();
    assert_eq!((answer.at, answer.value.asked_at), (at(8), at(7)));
    assert_eq!(
        answer.value.processed, 3,
        "the heartbeat came after the answer, or may have"
    );
    // What was asked earlier and comes later is no news.
    seen.answers(&to("celery@a", at(6), false), vec![on_q("celery@a")], 11);
    assert_eq!(seen.worker("celery@a").answer, Some(answer));
}

/// A parked worker tells of no queue, and what it holds came from one all the same.
#[test]
fn what_a_parked_worker_holds_counts_for_the_queue_that_it_consumed() {
    let mut seen = Seen::default();
    seen.beat(&beat("celery@a", 0, 0), 0);
    let mut tell = |second: u64, queues: &str, restarted: bool| {
        let online = Heartbeat {
            online: restarted,
            ..beat("celery@a", 0, 0)
        };
        seen.beat(&online, second);
        let held = r#"[{"delivery_info":{"exchange":"tasks","routing_key":"task.high.eu"}}]"#;
        let told = parsed("celery@a", ["[]", held, "[]", queues]);
        seen.answers(&to("celery@a", at(second), false), vec![told], second);
        seen.roster.forget_gone(&mut seen.view, at(second));
        let answer = seen.worker("celery@a").answer.clone().unwrap().value;
        (
            answer.queues.clone(),
            answer.reserved.keys().cloned().collect::<Vec<_>>(),
        )
    };
    let high = r#"{"name":"high","exchange":{"name":"tasks","type":"topic"},"routing_key":"task.high.#"}"#;
    let low = r#"{"name":"low","exchange":{"name":"tasks","type":"topic"},"routing_key":"task.low.#"}"#;
    assert_eq!(
        tell(0, &format!("[{high},{low}]"), false),
        (names(&["high", "low"]), vec!["high".to_owned()])
    );
    // One queue is left first, then the other.
    assert_eq!(
        tell(1, &format!("[{low}]"), false),
        (names(&["low"]), vec!["high".to_owned()])
    );
    assert_eq!(tell(2, "[]", false), (names(&[]), vec!["high".to_owned()]));
    // The next process may have other queues.
    assert_eq!(tell(3, "[]", true), (names(&[]), vec!["task.high.eu".to_owned()]));
}

fn heard(seen: &mut Seen, node: &str) -> bool {
    seen.beat(&beat(node, 0, 0), 1);
    seen.view.workers.contains_key(node)
}

fn know(seen: &mut Seen, own: &[&str]) {
    seen.roster.know(&seen.view, Arc::new(names(own)));
}

#[test]
fn strangers_keep_no_worker_of_ours_from_being_heard() {
    let mut seen = Seen::default();
    know(&mut seen, &["celery@ours"]);
    let strangers = (0..STRANGERS_MAX + 5).filter(|at| heard(&mut seen, &format!("w@{at}")));
    assert_eq!(strangers.count(), STRANGERS_MAX);
    assert!(heard(&mut seen, "celery@ours"));
    assert!(!heard(&mut seen, "w@late"));
    // Those that are silent make room in the end.
    seen.roster.forget_gone(&mut seen.view, at(700));
    know(&mut seen, &["celery@ours"]);
    assert!(heard(&mut seen, "w@late"));
}

#[test]
fn strangers_answers_are_kept_up_to_a_number_of_names_in_all() {
    let mut seen = Seen::default();
    know(&mut seen, &["celery@ours"]);
    let names: Vec<String> = (0..1000).map(|at| format!("q{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let answers = |seen: &mut Seen, node: &str, second| {
        assert!(heard(seen, node));
        let answer = vec![(node.to_owned(), Ok(Told::consuming(&names)))];
        seen.answers(&to(node, at(second), true), answer, second);
        seen.worker(node)
            .answer
            .as_ref()
            .map(|kept| kept.value.queues.len())
    };
    for stranger in 0..30 {
        let kept = answers(&mut seen, &format!("w@{stranger}"), 2);
        assert_eq!(kept, (stranger < NAMES_MAX / 1000).then_some(1000), "{stranger}");
    }
    assert_eq!(answers(&mut seen, "celery@ours", 2), Some(1000));
    assert_eq!(
        answers(&mut seen, "w@0", 3),
        Some(1000),
        "in the place of its last one"
    );
    let why = seen.worker("w@25").unreadable.clone().unwrap();
    assert!(why.contains("not ours"), "{why}");
    know(&mut seen, &["celery@ours", "w@25"]);
    assert_eq!(
        answers(&mut seen, "w@25", 3),
        Some(1000),
        "it is a pod of ours after all"
    );
}
