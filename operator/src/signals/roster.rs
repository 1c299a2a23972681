//! The workers of one broker: what their heartbeats and answers add up to, and whom to ask next.
//!
//! Keeps the list bounded and the questions few. A worker is asked when it is first heard and when it first
//! turns busy, then at most every 30 s, and when a scale-in wants to know. One that cannot be read is asked every
//! 30 s, busy or not: nobody else would find out that it can be read again. One that is not heard is asked only on
//! request, every 30 s too, and never together with others: if it is not there, their answers would wait for it.

use std::collections::BTreeSet;
use std::time::Duration;

use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::ledger::{ANSWER_AGE, is_heard};
use poolwright_core::sample::{BrokerView, Sample, UnheardView, WorkerView};
use poolwright_core::text::bounded;
use poolwright_core::time::Moment;

use super::{Heartbeat, NodeAnswer};

/// Time between two questions to a worker without a special reason.
const ASK_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two questions to a worker that a scale-in asks about.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Time between two questions to a worker that gave no answer it should have given.
const ASK_SILENT: Duration = Duration::from_secs(5);
/// Time between two questions to workers that are not heard, so that they keep the others' waiting for a fifth of the
/// time at most.
const ASK_UNHEARD: Duration = Duration::from_secs(10);
/// A worker that was first heard so short a time ago may not listen yet: celery beats before it takes questions.
const SETTLED: Duration = Duration::from_secs(10);
/// Workers in one question.
const ASKED_MAX: usize = 200;
/// Workers that are remembered: far above any fleet on one broker, and a bound on what strangers can fill.
const WORKERS_MAX: usize = 20_000;
/// A silent worker is forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Takes in one sign of life.
pub fn take_beat(view: &mut BrokerView, beat: Heartbeat, now: Moment) {
    if !view.workers.contains_key(&beat.node) && view.workers.len() >= WORKERS_MAX {
        return;
    }
    view.unheard.remove(&beat.node);
    let worker = view.workers.entry(beat.node).or_insert_with(|| WorkerView {
        pid: beat.pid,
        active: 0,
        processed: beat.processed,
        interval: beat.interval,
        first_seen: now,
        last_seen: now,
        last_progress: now,
        offline: false,
        answer: None,
        asked: None,
        unreadable: None,
    });
    if beat.offline {
        worker.offline = true;
        worker.last_seen = now;
        return;
    }
    if worker.pid != beat.pid {
        worker.first_seen = now;
        worker.answer = None;
        worker.asked = None;
        worker.unreadable = None;
    }
    if worker.pid != beat.pid || worker.processed != beat.processed || beat.active > 0 || worker.active > 0 {
        worker.last_progress = now;
    }
    // Asked anew when it turns busy: the first answer tells when its tasks acknowledge.
    if worker.active == 0
        && beat.active > 0
        && worker
            .answer
            .as_ref()
            .is_none_or(|answer| answer.value.running.is_empty())
    {
        worker.asked = None;
    }
    worker.pid = beat.pid;
    worker.active = beat.active;
    worker.processed = beat.processed;
    worker.interval = beat.interval;
    worker.last_seen = now;
    worker.offline = false;
}

/// Takes in the answers to one question; who did not answer cannot be read.
pub fn take_answers(view: &mut BrokerView, asked: &[String], answers: Vec<NodeAnswer>, now: Moment) {
    let mut silent: BTreeSet<&String> = asked.iter().collect();
    for (node, answer) in answers {
        silent.remove(&node);
        if let Some(unheard) = view.unheard.get_mut(&node) {
            let at = unheard.asked;
            unheard.queues = answer.ok().map(|(answer, _)| Sample {
                value: answer.queues,
                at,
            });
            continue;
        }
        let Some(worker) = view.workers.get_mut(&node) else {
            continue;
        };
        match answer {
            Ok((mut answer, age)) => {
                answer.pid = worker.pid;
                answer.processed = worker.processed;
                worker.answer = Some(Sample {
                    value: answer,
                    at: now.before(age),
                });
                worker.unreadable = None;
            }
            Err(why) => worker.unreadable = Some(bounded(&why, 128)),
        }
    }
    for node in silent {
        let settled =
            |worker: &&mut WorkerView| is_heard(worker, now) && now.since(worker.first_seen) >= SETTLED;
        if let Some(worker) = view.workers.get_mut(node).filter(settled) {
            worker.unreadable = Some(format!(
                "no answer to remote control within {} s",
                COMMAND_DEADLINE.as_secs()
            ));
        }
    }
}

/// Takes in that a question could not be put: for now, remote control of those that were asked cannot be used.
pub fn take_failure(view: &mut BrokerView, asked: &[String], why: &str) {
    for node in asked {
        if let Some(worker) = view.workers.get_mut(node) {
            worker.unreadable = Some(bounded(why, 128));
        }
    }
}

/// Has those that cannot be read asked at once: on a new connection they may answer.
pub fn ask_again(view: &mut BrokerView) {
    for worker in view.workers.values_mut().filter(|w| w.unreadable.is_some()) {
        worker.asked = None;
    }
}

/// Whom to ask now: the requested ones that were not asked just now, and those whose turn it is.
pub fn to_ask(view: &mut BrokerView, requested: &mut BTreeSet<String>, now: Moment) -> Vec<String> {
    let mut nodes = unheard(view, requested, now);
    if !nodes.is_empty() {
        return nodes;
    }
    for (node, worker) in &mut view.workers {
        if nodes.len() >= ASKED_MAX {
            break;
        }
        let wanted = requested.remove(node);
        if !is_heard(worker, now) {
            continue;
        }
        let unanswered = worker.answer.is_none() && now.since(worker.first_seen) < SETTLED * 3;
        let wait = match (wanted, unanswered) {
            (true, _) => ASK_AGAIN,
            (_, true) => ASK_SILENT,
            _ => ASK_INTERVAL,
        };
        let due = worker.asked.is_none_or(|asked| now.since(asked) >= wait);
        let holds = worker
            .answer
            .as_ref()
            .is_some_and(|answer| !answer.value.reserved.is_empty() || !answer.value.scheduled.is_empty());
        let in_doubt = unanswered || worker.unreadable.is_some();
        if due && (wanted || in_doubt || worker.asked.is_none() || worker.active > 0 || holds) {
            worker.asked = Some(now);
            nodes.push(node.clone());
        }
    }
    if nodes.len() < ASKED_MAX {
        requested.clear();
    }
    nodes
}

/// Whom to ask of the requested ones that are not heard: those that have waited longest.
fn unheard(view: &mut BrokerView, requested: &mut BTreeSet<String>, now: Moment) -> Vec<String> {
    let latest = view.unheard.values().map(|unheard| unheard.asked).max();
    if latest.is_some_and(|asked| now.since(asked) < ASK_UNHEARD) {
        return Vec::new();
    }
    let heard = |node: &String| view.workers.get(node).is_some_and(|worker| is_heard(worker, now));
    let mut due: Vec<(Option<Moment>, String)> = requested
        .iter()
        .filter(|node| !heard(node))
        .map(|node| (view.unheard.get(node).map(|unheard| unheard.asked), node.clone()))
        .filter(|(asked, _)| asked.is_none_or(|asked| now.since(asked) >= ASK_INTERVAL))
        .collect();
    due.sort_unstable();
    due.truncate(ASKED_MAX);
    for (_, node) in &due {
        requested.remove(node);
        let new = || UnheardView {
            asked: now,
            queues: None,
        };
        view.unheard.entry(node.clone()).or_insert_with(new).asked = now;
    }
    due.into_iter().map(|(_, node)| node).collect()
}

/// True if a worker, heard or not, has said that it consumes this queue.
#[must_use]
pub fn consumed(view: &BrokerView, queue: &str) -> bool {
    let heard = view.workers.values().filter_map(|worker| worker.answer.as_ref());
    let mut queues = heard.map(|answer| &answer.value.queues).chain(
        view.unheard
            .values()
            .filter_map(|unheard| Some(&unheard.queues.as_ref()?.value)),
    );
    queues.any(|queues| queues.contains(queue))
}

/// Forgets workers that have long been silent, and those that are not heard and were not asked for again.
pub fn forget_gone(view: &mut BrokerView, now: Moment) {
    view.unheard
        .retain(|_, unheard| now.since(unheard.asked) <= ANSWER_AGE);
    view.workers
        .retain(|_, worker| now.since(worker.last_seen) < FORGET_AFTER);
}
