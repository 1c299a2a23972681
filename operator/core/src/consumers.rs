//! Which worker should consume which queue, and what it must be told.
//!
//! A level, not an event: what a worker says that it consumes is compared with what its pod's mark asks for, so that a lost
//! message, a restart of the operator or of the worker, and a broker that was away end in the same place. Only pods of ours
//! that are heard are told anything, and to consume only those that were told to stop before: what else a worker leaves
//! out is somebody's intention. One message a broker and cycle, for all whom it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::ledger::ANSWER_AGE;
use crate::member::Member;
use crate::resizing::Resized;
use crate::sample::{BrokerView, FaultKind, WorkerView};
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

/// What has been said to workers, by queue and node.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    said: BTreeMap<Want, (Moment, u32)>,
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
        let Some((worker, answer)) = member.heard().zip(member.answer()) else {
            continue;
        };
        if now.since(answer.at) > ANSWER_AGE {
            continue;
        }
        let consumed = &answer.value.queues;
        let quiet = member.is_parked() || resized.quiet.contains(member.node());
        let told = member.pod.returned || resized.restores;
        if quiet && pool.conflict.is_none() {
            let all = consumed.iter();
            wants.extend(all.map(|queue| (true, queue.clone(), member.node().to_owned())));
        } else if told && !member.is_parked() && is_settled(member, worker, now) {
            // Told to a worker whose queue is gone from the broker, this could end it.
            let absent = |queue: &str| {
                let fault = view.queues.get(queue).and_then(|view| view.ready.fault.as_ref());
                fault.is_some_and(|fault| fault.kind == FaultKind::QueueAbsent)
            };
            // What it said before it was brought back may be from before it stopped.
            let old = member.pod.unmarked.is_some_and(|at| answer.value.asked_at < at);
            let missing = own_queues(fleet, member)
                .iter()
                .filter(|queue| old || !consumed.contains(&***queue));
            let missing = missing.filter(|queue| !absent(queue));
            wants.extend(missing.map(|queue| (false, queue.to_string(), member.node().to_owned())));
        }
    }
    wants
}

/// It consumes what it was started with, but for what it was told: it has run for a while, or was brought back since.
fn is_settled(member: &Member, worker: &WorkerView, now: Moment) -> bool {
    let back = member.pod.unmarked.is_some_and(|at| at >= worker.first_seen);
    back || now.since(worker.first_seen) >= SETTLED
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
        let wants: BTreeSet<Want> = wants.into_iter().collect();
        self.said.retain(|want, _| wants.contains(want));
        let mut due: BTreeMap<(bool, &str), (Moment, Vec<&Want>)> = BTreeMap::new();
        for want in &wants {
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
