//! Which worker should consume which queue, and what it must be told.
//!
//! A level, not an event: what a worker says that it consumes is compared with what its pod's mark asks for, so that a
//! lost message, a restart of the operator or of the worker, and a broker that was away end in the same place. Only
//! pods of ours that are heard, or silent at work, are told anything, and to consume only those that were told to stop
//! before: what else a worker leaves out is somebody's intention. One message a broker and cycle, for all whom it
//! concerns; only who looks more rarely than the operator, as the simulator does, has more of one look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::ledger::ANSWER_AGE;
use crate::member::Member;
use crate::resizing::Resized;
use crate::sample::{Answer, BrokerView, FaultKind, WorkerView};
use crate::time::Moment;

/// The first and the longest time until a worker is told again what it has not done.
const AGAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));
/// A worker that was first heard so short a time ago may not consume yet what it was started with.
const SETTLED: Duration = Duration::from_secs(10);
/// Workers in one message.
const NODES_MAX: usize = 200;

/// One message to some workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Consume the queue, or stop to.
    pub consume: bool,
    /// The queue.
    pub queue: String,
    /// Node names, at most 200.
    pub nodes: Vec<String>,
}

/// What has been said to workers, by queue and node, and what there was to say at the last look.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    said: BTreeMap<Want, (Moment, u32)>,
    /// What workers do otherwise than they should, as of the last look.
    open: BTreeSet<Want>,
}

/// Whether it should stop, which queue, which node. Those that should not stop come first: tasks may wait for them.
pub type Want = (bool, String, String);

/// What the workers of one WorkerPool do otherwise than they should.
#[must_use]
pub fn wants(fleet: &Fleet, view: &BrokerView, resized: &Resized, now: Moment) -> Vec<Want> {
    let pool = fleet.pool;
    if pool.terminating {
        return Vec::new();
    }
    let mut wants = Vec::new();
    for member in fleet.members.iter().filter(|member| !member.pod.draining) {
        let answer = last_word(fleet, member, now);
        if !listens(fleet, member, answer) {
            continue;
        }
        let want = |stop: bool, queue: &str| (stop, queue.to_owned(), member.node().to_owned());
        let names = |queue: &str| answer.is_some_and(|answer| answer.queues.contains(queue));
        // What it said before it was parked or brought back may be from before it stopped or began again.
        let is_old = |at: Option<Moment>| match answer {
            Some(answer) => at.is_some_and(|at| answer.asked_at < at),
            None => true,
        };
        let own = || own_queues(fleet, member).iter();
        let quiet = member.is_parked() || resized.quiet.contains(member.node());
        let told = member.pod.returned || resized.restores;
        if quiet && pool.conflict.is_none() {
            let consumed = answer.into_iter().flat_map(|answer| &answer.queues);
            wants.extend(consumed.map(|queue| want(true, queue)));
            if pool.solo && is_old(member.pod.parked) {
                wants.extend(own().map(|queue| want(true, queue)));
            }
        } else if told && !member.is_parked() && is_settled(member, now) {
            // Told to a worker whose queue is gone from the broker, this could end it.
            let absent = |queue: &str| {
                let fault = view.queues.get(queue).and_then(|view| view.ready.fault.as_ref());
                fault.is_some_and(|fault| fault.kind == FaultKind::QueueAbsent)
            };
            let old = is_old(member.pod.unmarked);
            let missing = own().filter(|queue| (old || !names(queue)) && !absent(queue));
            wants.extend(missing.map(|queue| want(false, queue)));
        }
    }
    wants
}

/// What it last said. The word of a worker without an execution pool, which answers only between two tasks, counts however
/// old it is.
fn last_word<'a>(fleet: &Fleet, member: &Member<'a>, now: Moment) -> Option<&'a Answer> {
    let answer = member.answer()?;
    let counts = fleet.pool.solo || now.since(answer.at) <= ANSWER_AGE;
    counts.then_some(&*answer.value)
}

/// True for a worker that reads what it is told: now, or when its task is over. One without an execution pool may be told
/// something before it has said anything; but what idles and gives no answer reads no command either.
fn listens(fleet: &Fleet, member: &Member, answer: Option<&Answer>) -> bool {
    let readable = |worker: &WorkerView| worker.unreadable.is_none();
    member.engaged
        || member
            .heard()
            .is_some_and(|worker| answer.is_some() || fleet.pool.solo && readable(worker))
}

/// It consumes what it was started with, but for what it was told: it has run for a while, or was brought back since.
fn is_settled(member: &Member, now: Moment) -> bool {
    member.worker.is_none_or(|worker| {
        let back = member.pod.unmarked.is_some_and(|at| at >= worker.first_seen);
        back || now.since(worker.first_seen) >= SETTLED
    })
}

/// The queues that a pod's workers were started with.
fn own_queues<'a>(fleet: &'a Fleet, member: &Member) -> &'a [Arc<str>] {
    let mut revisions = fleet.revisions.iter();
    revisions
        .find(|revision| revision.name == member.pod.revision)
        .and_then(|revision| revision.queues.as_deref())
        .unwrap_or(&fleet.pool.queues)
}

impl Calls {
    /// The one message to be sent now, if there is any: to those that should consume first, then to those that have waited
    /// longest.
    pub fn next(&mut self, wants: Vec<Want>, now: Moment) -> Option<Call> {
        self.open = wants.into_iter().collect();
        self.said.retain(|want, _| self.open.contains(want));
        self.again(now)
    }

    /// One message more by the same look, if it leaves anything to say.
    pub fn again(&mut self, now: Moment) -> Option<Call> {
        let mut due: BTreeMap<(bool, &str), (Moment, Vec<&Want>)> = BTreeMap::new();
        for want in &self.open {
            let said = self.said.get(want);
            let wait = |tries: u32| AGAIN.0.saturating_mul(1 << tries.min(8)).min(AGAIN.1);
            if said.is_some_and(|(at, tries)| now.since(*at) < wait(*tries)) {
                continue;
            }
            let at = said.map_or_else(Moment::default, |(at, _)| *at);
            let group = due.entry((want.0, want.1.as_str())).or_insert((at, Vec::new()));
            group.0 = group.0.min(at);
            group.1.push(want);
        }
        let (key, (_, group)) = due.into_iter().min_by_key(|(key, (at, _))| (key.0, *at, key.1))?;
        let (stop, queue) = (key.0, key.1.to_owned());
        let told: Vec<Want> = group.into_iter().take(NODES_MAX).cloned().collect();
        for want in &told {
            let said = self.said.entry(want.clone()).or_insert((now, 0));
            *said = if said.0 == now { *said } else { (now, said.1 + 1) };
        }
        Some(Call {
            consume: !stop,
            queue,
            nodes: told.into_iter().map(|(_, _, node)| node).collect(),
        })
    }
}
