//! Workers that are asked although they are not heard.

use std::collections::BTreeSet;

use super::roster::{Seen, at, beat, good, names, on_q};
use crate::signals::roster::consumed;

#[test]
fn a_worker_that_is_not_heard_is_asked_on_request_every_half_minute() {
    let (mut seen, mut asked) = (Seen::default(), Vec::new());
    for second in 0..100 {
        seen.beat(&beat("celery@heard", 0, 0), second);
        for question in seen.questions(&["celery@a", "celery@heard"], at(second)) {
            if question.nodes.iter().any(|node| node == "celery@a") {
                asked.push(second);
                assert_eq!(question.nodes, ["celery@a"], "nobody waits for it");
                assert!(question.apart);
                seen.answers(&question, Vec::new(), second + 2);
            } else {
                seen.answers(&question, vec![good("celery@heard")], second);
            }
        }
        seen.roster.forget_gone(&mut seen.view, at(second));
    }
    assert_eq!(asked, [0, 30, 60, 90]);
    assert!(seen.view.unheard["celery@a"].queues.is_none() && seen.view.workers.len() == 1);
    // Nobody asks for it any more.
    seen.roster.forget_gone(&mut seen.view, at(180));
    assert_eq!(seen.view.unheard.len(), 1);
    seen.roster.forget_gone(&mut seen.view, at(181));
    assert!(seen.view.unheard.is_empty());
    assert!(seen.questions(&[], at(200)).is_empty());
}

#[test]
fn workers_that_are_not_heard_leave_time_for_the_others() {
    let mut seen = Seen::default();
    let mut all: Vec<String> = (0..500).map(|number| format!("celery@{number:03}")).collect();
    let mut asked = BTreeSet::new();
    let mut ask = |all: &[String], second| {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut questions = seen.questions(&all, at(second));
        assert!(questions.len() <= 1);
        questions.pop().unwrap_or_default().nodes
    };
    for (second, count) in [(0, 200), (5, 0), (10, 200), (20, 100), (30, 200)] {
        let nodes = ask(&all, second);
        assert_eq!(nodes.len(), count, "at {second} s");
        asked.extend(nodes);
    }
    assert_eq!(asked.len(), 500, "those that have waited longest come first");
    // A new one comes before those that have been asked.
    all.insert(0, "celery@new".into());
    assert!(ask(&all, 40).contains(&"celery@new".to_owned()));
}

#[test]
fn what_a_worker_that_is_not_heard_says_is_dated_by_the_question_and_ends_with_its_first_heartbeat() {
    let mut seen = Seen::default();
    let ask = |seen: &mut Seen, second| {
        let question = seen.questions(&["celery@a"], at(second)).remove(0);
        assert_eq!(question.nodes, ["celery@a"]);
        question
    };
    let first = ask(&mut seen, 0);
    seen.answers(&first, vec![on_q("celery@a"), on_q("celery@stranger")], 2);
    assert_eq!(seen.view.unheard.len(), 1, "whoever was not asked says nothing");
    let said = seen.view.unheard["celery@a"].queues.clone().unwrap();
    assert_eq!((said.at, said.value), (at(0), names(&["q"])));
    assert!(consumed(&seen.view, "q") && !consumed(&seen.view, "celery"));
    // No answer leaves the one before, which grows old; one that cannot be read tells that it is not known.
    let second = ask(&mut seen, 30);
    seen.answers(&second, Vec::new(), 32);
    seen.roster
        .take_failure(&mut seen.view, &second, "no permission", at(32));
    assert_eq!(seen.view.unheard["celery@a"].queues.as_ref().unwrap().at, at(0));
    let third = ask(&mut seen, 60);
    seen.answers(&third, vec![("celery@a".into(), Err("pickle".into()))], 62);
    assert!(seen.view.unheard["celery@a"].queues.is_none() && !consumed(&seen.view, "q"));
    // Heard while the question is under way: whether this process answered is not known, so it is asked anew.
    let fourth = ask(&mut seen, 90);
    seen.beat(&beat("celery@a", 0, 0), 91);
    seen.answers(&fourth, vec![on_q("celery@a")], 92);
    assert!(seen.view.unheard.is_empty() && seen.worker("celery@a").answer.is_none());
    let fifth = ask(&mut seen, 92);
    seen.answers(&fifth, vec![on_q("celery@a")], 92);
    // Silent again: what is asked then is no word of the process that was heard.
    let sixth = ask(&mut seen, 200);
    seen.answers(&sixth, vec![on_q("celery@a")], 201);
    assert_eq!(seen.worker("celery@a").answer.as_ref().unwrap().at, at(92));
    assert_eq!(seen.view.unheard["celery@a"].queues.as_ref().unwrap().at, at(200));
}
