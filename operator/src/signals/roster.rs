//! The workers of one broker: what their heartbeats and answers add up to, and whom to ask next.
//!
//! Keeps the list bounded and the questions few. A worker is asked when it is first heard and when it first
//! turns busy, then at most every 30 s, and when a scale-in wants to know. One that cannot be read is asked every
//! 30 s, busy or not: nobody else would find out that it can be read again. One that is not heard is asked only on
//! request, every 30 s too. Whoever is slow, silent or not heard is never asked together with those that answer at
//! once: they would wait for it.
//!
//! One question that a worker leaves unanswered says little of it: it is asked once more before it counts as
//! unreadable, unless it has never answered. What was said of a process is not believed of the next, nor what came
//! in answer to a question from before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::ledger::{ANSWER_AGE, is_heard};
use poolwright_core::sample::{Answer, BrokerView, Sample, UnheardView, WorkerView};
use poolwright_core::text::bounded;
use poolwright_core::time::Moment;

use super::celery::{Bindings, Told};
use super::questions::{Free, Question, TOGETHER};
use super::strangers::Strangers;
use super::{Heartbeat, NodeAnswer};

/// Time between two questions to a worker without a special reason.
const ASK_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two questions to a worker that a scale-in asks about.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Time between two questions to a worker that left one unanswered, whoever asks about it.
const ASK_FAILED: Duration = Duration::from_secs(3);
/// Time between two questions to a worker that gave no answer it should have given.
const ASK_SILENT: Duration = Duration::from_secs(5);
/// Time between two questions to workers that are not heard: others that are asked apart wait for their end.
const ASK_UNHEARD: Duration = Duration::from_secs(10);
/// A worker that was first heard so short a time ago may not listen yet: celery beats before it takes questions.
const SETTLED: Duration = Duration::from_secs(10);
/// Workers in one question.
const ASKED_MAX: usize = 200;
/// Bindings that are kept in all. Further workers' are not: what these hold while they are parked may then be counted
/// under its routing key.
const BINDINGS_MAX: usize = 20_000;
/// Why a stranger's answer is not kept.
const STRANGE: &str = "not kept: workers that are not ours tell of too many queues on this broker";
/// A silent worker is forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What is kept of workers' processes beside what decisions see; of those that have never run a task there is nothing.
#[derive(Debug, Default)]
pub struct Roster {
    notes: BTreeMap<String, Note>,
    /// Bindings in all notes, or more.
    bindings: usize,
    strangers: Strangers,
}

#[derive(Debug, Default)]
struct Note {
    /// When the first of the questions in a row failed that have had no good answer.
    failed: Option<Moment>,
    /// It did not answer as fast as the others: it is asked apart.
    slow: bool,
    /// When it was last asked out of turn because it turned busy.
    turned: Option<Moment>,
    /// Of the queues that it consumes or has consumed, where they matter. A parked worker tells of none any more, and
    /// still holds their messages.
    bindings: Bindings,
}

impl Note {
    fn fail(&mut self, worker: &mut WorkerView, why: &str, now: Moment) {
        let again = self.failed.is_some();
        let since = *self.failed.get_or_insert(now);
        if again || worker.answer.is_none() {
            worker.unreadable = Some(bounded(why, 128));
            worker.unreadable_since = Some(since);
        }
    }
}

impl Roster {
    /// Takes in which workers are pods of ours, of any WorkerPool.
    pub fn know(&mut self, view: &BrokerView, own: Arc<BTreeSet<String>>) {
        self.strangers.count(own, view);
    }

    /// Takes in one sign of life.
    pub fn take_beat(&mut self, view: &mut BrokerView, beat: &Heartbeat, now: Moment) {
        if !view.workers.contains_key(&beat.node) && !self.strangers.admit(&beat.node) {
            return;
        }
        view.unheard.remove(&beat.node);
        let begin = || WorkerView::new(beat.pid, beat.processed, beat.interval, now);
        let worker = view.workers.entry(beat.node.clone()).or_insert_with(begin);
        if beat.offline {
            worker.offline = true;
            worker.last_seen = now;
            return;
        }
        // In Kubernetes the pid is mostly 1, before and after the container has restarted.
        if worker.pid != beat.pid || beat.processed < worker.processed || beat.online {
            *worker = begin();
            self.notes.remove(&beat.node);
        }
        if worker.processed != beat.processed || beat.active > 0 || worker.active > 0 {
            worker.last_progress = now;
        }
        // Asked anew when it turns busy: the first answer tells when its tasks acknowledge. Not each time: one whose tasks
        // are short turns busy at every other heartbeat.
        let said = worker.answer.as_ref().map_or(0, |answer| runs(&answer.value));
        if worker.active == 0 && beat.active > 0 && said == 0 {
            let note = self.notes.entry(beat.node.clone()).or_default();
            let lately = note.turned.is_some_and(|at| now.since(at) < ASK_INTERVAL);
            if !lately && note.failed.is_none() {
                (worker.asked, note.turned) = (None, Some(now));
            }
        }
        worker.active = beat.active;
        worker.processed = beat.processed;
        worker.interval = beat.interval;
        worker.last_seen = now;
        worker.offline = false;
    }

    /// Takes in the answers to one question, and who gave none. The two clocks tell the same moment.
    pub fn take_answers(
        &mut self,
        view: &mut BrokerView,
        question: &Question,
        answers: Vec<NodeAnswer>,
        (now, wall): (Moment, Timestamp),
    ) {
        let mut silent: BTreeSet<&String> = question.nodes.iter().collect();
        for (node, answer) in answers {
            silent.remove(&node);
            if let Some(unheard) = view.unheard.get_mut(&node) {
                unheard.queues = answer.ok().map(|told| Sample {
                    value: told.bindings.queues(),
                    at: question.put,
                });
            } else if let Some(worker) = concerned(view, &node, question) {
                match answer {
                    Ok(told) => self.take_answer(worker, &node, question, &told, (now, wall)),
                    Err(why) => self.note(&node).fail(worker, &why, now),
                }
            }
        }
        for node in silent {
            if let Some(worker) = concerned(view, node, question).filter(|worker| is_heard(worker, now)) {
                self.take_silence(worker, node, question, now);
            }
        }
    }

    fn take_answer(
        &mut self,
        worker: &mut WorkerView,
        node: &str,
        question: &Question,
        told: &Told,
        (now, wall): (Moment, Timestamp),
    ) {
        let mut kept = self.notes.remove(node).unwrap_or_default();
        let at = now.before(told.age);
        let mut value = told.answer(&kept.bindings, wall.saturating_sub(told.age).unwrap_or(wall));
        value.pid = worker.pid;
        let (processed, active) = question.processed.get(node).copied().unwrap_or_default();
        // What runs beyond those of the heartbeat was started after it, and is in no number of reserved ones.
        value.processed = processed.saturating_add(runs(&value).saturating_sub(active));
        value.asked_at = question.put;
        if !self.strangers.keep(node, worker, &value) {
            kept.fail(worker, STRANGE, now);
            self.notes.insert(node.to_owned(), kept);
            return;
        }
        worker.answer = Some(Sample {
            value: Arc::new(value),
            at,
        });
        if let Some(value) = told.size {
            let at = question.put;
            worker.size = Some(Sample { value, at });
        }
        (worker.unreadable, worker.unreadable_since) = (None, None);
        kept.failed = None;
        kept.slow = at.since(question.put) > TOGETHER;
        if told.bindings.matter() && self.bindings + told.bindings.len() <= BINDINGS_MAX {
            let before = kept.bindings.len();
            kept.bindings = told.bindings.clone().with(&kept.bindings);
            self.bindings += kept.bindings.len().saturating_sub(before);
        }
        if kept.slow || kept.turned.is_some() || !kept.bindings.is_empty() {
            self.notes.insert(node.to_owned(), kept);
        }
    }

    fn take_silence(&mut self, worker: &mut WorkerView, node: &str, question: &Question, now: Moment) {
        let kept = self.note(node);
        kept.slow = true;
        if worker.answer.is_some() && !question.apart {
            // The others were not to wait any longer. Asked apart, it gets all the time that there is.
            worker.asked = worker.asked.filter(|asked| *asked != question.put);
        } else if worker.answer.is_some() || now.since(worker.first_seen) >= SETTLED {
            let seconds = COMMAND_DEADLINE.as_secs();
            kept.fail(
                worker,
                &format!("no answer to remote control within {seconds} s"),
                now,
            );
        }
    }

    /// Takes in that a question could not be put: for now, remote control of those that were asked cannot be used.
    pub fn take_failure(&mut self, view: &mut BrokerView, question: &Question, why: &str, now: Moment) {
        for node in &question.nodes {
            if let Some(worker) = concerned(view, node, question) {
                self.note(node).fail(worker, why, now);
            }
        }
    }

    /// Has those that gave no answer asked at once: on a new connection they may.
    pub fn ask_again(&self, view: &mut BrokerView) {
        let doubtful = |(node, worker): &(&String, &mut WorkerView)| {
            worker.unreadable.is_some() || self.failed(node.as_str())
        };
        for (_, worker) in view.workers.iter_mut().filter(doubtful) {
            worker.asked = None;
        }
    }

    /// The next question that may be put now, to requested workers that were not asked just now and to those whose
    /// turn it is; `None` once there is nobody left. What cannot be put now is requested again by the next cycle.
    pub fn question(
        &self,
        view: &mut BrokerView,
        requested: &BTreeSet<String>,
        now: Moment,
        free: Free,
    ) -> Option<Question> {
        let due = |view: &BrokerView, slow| self.due(view, requested, now, slow);
        let (mut nodes, mut apart) = (Vec::new(), false);
        if free.together {
            nodes = due(view, false);
        }
        if nodes.is_empty() && free.apart {
            (nodes, apart) = (unheard(view, requested, now), true);
            if nodes.is_empty() {
                nodes = due(view, true);
            }
        }
        let mut processed = BTreeMap::new();
        for node in &nodes {
            if let Some(worker) = view.workers.get_mut(node).filter(|worker| is_heard(worker, now)) {
                worker.asked = Some(now);
                processed.insert(node.clone(), (worker.processed, worker.active));
            }
        }
        let put = now;
        (!nodes.is_empty()).then_some(Question {
            nodes,
            put,
            apart,
            processed,
            ..Question::default()
        })
    }

    /// Those whose turn it is and that are slow, or are not; first those that have waited longest.
    fn due(&self, view: &BrokerView, requested: &BTreeSet<String>, now: Moment, slow: bool) -> Vec<String> {
        let mut due: Vec<(Option<Moment>, &String)> = view
            .workers
            .iter()
            .filter(|(node, _)| self.slow(node) == slow)
            .filter(|(node, worker)| self.is_due(node, worker, requested.contains(*node), now))
            .map(|(node, worker)| (worker.asked, node))
            .collect();
        due.sort_unstable();
        due.truncate(ASKED_MAX);
        due.into_iter().map(|(_, node)| node.clone()).collect()
    }

    fn is_due(&self, node: &str, worker: &WorkerView, wanted: bool, now: Moment) -> bool {
        if !is_heard(worker, now) {
            return false;
        }
        let failed = self.failed(node);
        let doubtful = failed || (worker.answer.is_none() && self.slow(node));
        let unanswered = worker.answer.is_none() && now.since(worker.first_seen) < SETTLED * 3;
        let wait = if wanted && !doubtful {
            ASK_AGAIN
        } else if wanted || (failed && worker.unreadable.is_none()) {
            ASK_FAILED
        } else if unanswered {
            ASK_SILENT
        } else {
            ASK_INTERVAL
        };
        let holds = worker
            .answer
            .as_ref()
            .is_some_and(|answer| !answer.value.reserved.is_empty() || !answer.value.scheduled.is_empty());
        let reason = wanted || unanswered || failed || worker.active > 0 || holds;
        worker
            .asked
            .is_none_or(|asked| reason && now.since(asked) >= wait)
    }

    fn note(&mut self, node: &str) -> &mut Note {
        self.notes.entry(node.to_owned()).or_default()
    }

    fn failed(&self, node: &str) -> bool {
        self.notes.get(node).is_some_and(|note| note.failed.is_some())
    }

    fn slow(&self, node: &str) -> bool {
        self.notes.get(node).is_some_and(|note| note.slow)
    }

    /// Forgets workers that have long been silent, and those that are not heard and were not asked for again.
    pub fn forget_gone(&mut self, view: &mut BrokerView, now: Moment) {
        view.unheard
            .retain(|_, unheard| now.since(unheard.asked) <= ANSWER_AGE);
        view.workers
            .retain(|_, worker| now.since(worker.last_seen) < FORGET_AFTER);
        self.notes.retain(|node, _| view.workers.contains_key(node));
        self.bindings = self.notes.values().map(|note| note.bindings.len()).sum();
    }
}

/// How many tasks run by this answer.
fn runs(answer: &Answer) -> u64 {
    let running = answer.running.values();
    let counts = running.map(|one| one.acknowledged.saturating_add(one.unacknowledged));
    counts.fold(0, u64::saturating_add)
}

/// The worker that a question tells of, unless its process is a newer one, or has answered a newer question.
fn concerned<'a>(view: &'a mut BrokerView, node: &str, question: &Question) -> Option<&'a mut WorkerView> {
    view.workers.get_mut(node).filter(|worker| {
        let answered = worker.answer.as_ref().map(|answer| answer.value.asked_at);
        worker.first_seen <= question.put && answered.is_none_or(|asked| asked <= question.put)
    })
}

/// Whom to ask of the requested ones that are not heard: those that have waited longest.
fn unheard(view: &mut BrokerView, requested: &BTreeSet<String>, now: Moment) -> Vec<String> {
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
