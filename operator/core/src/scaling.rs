//! How many pods a WorkerPool should have.
//!
//! Decides `to` and writes down why. Growth needs one fresh reading; scale-in needs all of them, without a gap,
//! for the whole window, and only takes pods that are seen to be empty. Missing is not zero. This module knows
//! no broker, no Kubernetes and no clock.

use std::time::Duration;

use poolwright_api::Reason;

use crate::decision::{Decision, Facts, Limit};
use crate::demand::{Demand, MILLI, PodState};
use crate::ledger::is_heard;
use crate::memory::PoolMemory;
use crate::rollout;
use crate::sample::{BrokerView, WorkerView};
use crate::snapshot::{PodInput, PoolInput, Snapshot};
use crate::text::bounded;
use crate::time::Moment;

/// A zero counts only after so many fresh readings of it in a row.
pub const ZEROS: u32 = 3;
/// An answer that clears a pod for scale-in may be so old.
pub const CLEARANCE_AGE: Duration = Duration::from_secs(10);
/// A worker that was asked and has not answered for so long cannot be read.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(4);

/// The number on its way to a decision: each limit that changes it is written down.
struct Draft {
    to: u32,
    reason: Reason,
    limits: Vec<Limit>,
    clauses: Vec<String>,
}

impl Draft {
    fn limit(&mut self, name: &'static str, to: u32, clause: String) {
        if to != self.to {
            self.limits.push(Limit {
                name,
                from: self.to,
                to,
            });
            self.clauses.push(clause);
            self.to = to;
        }
    }
}

/// Decides for one WorkerPool.
#[must_use]
pub fn decide(
    snapshot: &Snapshot,
    pool: &PoolInput,
    view: &BrokerView,
    demand: Demand,
    memory: &mut PoolMemory,
) -> Decision {
    let now = snapshot.now;
    memory.observe(pool, view, &demand, now);
    let from = rollout::serving_replicas(pool);
    let wanted = need(demand.grow_milli, pool.slots).max(u32::from(demand.orphaned > 0));
    let mut draft = Draft {
        to: wanted,
        reason: Reason::AsDesired,
        limits: Vec::new(),
        clauses: Vec::new(),
    };
    let mut ask = Vec::new();
    if let Some(conflict) = &pool.conflict {
        draft.reason = Reason::Conflict;
        draft.limit("conflict", from, format!("held: {conflict}"));
    } else if pool.terminating {
        draft.limit("terminating", from, "held: it is being deleted".to_owned());
    } else if let Some(hold) = &pool.hold {
        draft.reason = Reason::ManualHold;
        draft.limit(
            "spec.replicas",
            hold.replicas,
            format!("held at {} by spec.replicas", hold.replicas),
        );
    } else {
        grow(&demand, memory, from, &mut draft);
        bound(pool, &mut draft);
        if draft.to < from {
            ask = shrink(pool, view, &demand, memory, now, from, &mut draft);
        }
        fall_back(pool, memory, now, from, &mut draft);
        if draft.reason == Reason::AsDesired && draft.to != from {
            draft.reason = if draft.to > from {
                Reason::ScaledUp
            } else {
                Reason::ScaledDown
            };
        }
    }
    if draft.to > from {
        memory.grew(now, demand.processed);
    }
    let allocation = rollout::allocate(pool, draft.to, &demand.pods, snapshot.wall);
    let victims = victims(pool, &demand, &allocation);
    let text = words(&draft, wanted, pool, &demand);
    let facts = facts(pool, view, &demand, now);
    Decision {
        from,
        to: draft.to,
        reason: draft.reason,
        text,
        limits: draft.limits,
        inputs: demand.inputs,
        allocation,
        victims,
        ask,
        facts,
    }
}

/// `ceil(tasks ÷ slots)`.
#[must_use]
pub fn need(milli: u64, slots: u32) -> u32 {
    u32::try_from(milli.div_ceil(u64::from(slots.max(1)) * MILLI)).unwrap_or(u32::MAX)
}

/// Holds growth where more pods could not help or nothing is known.
fn grow(demand: &Demand, memory: &PoolMemory, from: u32, draft: &mut Draft) {
    if !demand.any {
        draft.reason = Reason::HeldStale;
        draft.limit(
            "signals",
            from,
            format!("held: no fresh data of {}", sources(demand)),
        );
        return;
    }
    let most = from.max(1);
    if draft.to > most && memory.barren {
        draft.reason = Reason::NoProgress;
        draft.limit(
            "progress",
            most,
            "growth stopped: the pods that came up have started no task".to_owned(),
        );
    }
    let running = demand.count(|state| !matches!(state, PodState::Draining | PodState::Pending));
    let unseen = demand.count(|state| state == PodState::Unseen);
    if draft.to > most && running > 0 && unseen == running {
        draft.reason = Reason::WrongBroker;
        let clause =
            format!("growth stopped: {unseen} pods run and none is heard on the broker of its queues");
        draft.limit("heartbeats", most, clause);
    }
}

fn bound(pool: &PoolInput, draft: &mut Draft) {
    if draft.to < pool.min {
        draft.limit(
            "minReplicas",
            pool.min,
            format!("raised to minReplicas {}", pool.min),
        );
    }
    if draft.to > pool.max {
        draft.reason = Reason::AtMaximum;
        draft.limit(
            "maxReplicas",
            pool.max,
            format!("capped at maxReplicas {}", pool.max),
        );
    }
}

/// Lets pods go only as far as the data allows. Returns the workers that must be asked first.
fn shrink(
    pool: &PoolInput,
    view: &BrokerView,
    demand: &Demand,
    memory: &mut PoolMemory,
    now: Moment,
    from: u32,
    draft: &mut Draft,
) -> Vec<String> {
    let held = |draft: &mut Draft, reason: Reason, name: &'static str, clause: String| {
        draft.reason = reason;
        draft.limit(name, from, clause);
        Vec::new()
    };
    if !demand.complete {
        return held(
            draft,
            Reason::HeldStale,
            "signals",
            format!("held: no fresh data of {}", sources(demand)),
        );
    }
    if memory.suspect_until.is_some_and(|until| now < until) {
        let clause = "held: the queues fell to zero and no worker says that it did the work".to_owned();
        return held(draft, Reason::HeldSuspect, "suspectZero", clause);
    }
    let delay = pool.scale_down_delay;
    let covered = memory.window.covered(now);
    let Some(floor) = memory.window.settled(now, delay) else {
        let clause = format!(
            "scale-in waits: {} of {} s of data without a gap",
            covered.as_secs(),
            delay.as_secs()
        );
        draft.limit("scaleDownDelaySeconds", from, clause);
        return Vec::new();
    };
    let floor = if floor == 0 && memory.window.zeros() < ZEROS {
        1
    } else {
        floor
    };
    if floor > draft.to {
        let clause = format!("{floor} were needed within the last {} s", delay.as_secs());
        draft.limit(
            "scaleDownDelaySeconds",
            floor.min(from).min(pool.max.max(draft.to)),
            clause,
        );
    }
    keep_busy(pool, view, demand, now, from, draft)
}

/// A busy pod is no victim, nor one of which that is not known.
fn keep_busy(
    pool: &PoolInput,
    view: &BrokerView,
    demand: &Demand,
    now: Moment,
    from: u32,
    draft: &mut Draft,
) -> Vec<String> {
    let existing = demand.count(|state| state != PodState::Draining);
    let pending = demand.count(|state| state == PodState::Pending);
    let mut free = from.saturating_sub(existing) + pending;
    let mut ask = Vec::new();
    for pod in pool.consuming() {
        let Some(worker) = view
            .workers
            .get(&pod.node())
            .filter(|worker| is_idle(worker, pod, now))
        else {
            continue;
        };
        match clearance(worker, pool, now) {
            Clearance::Empty => free += 1,
            Clearance::Ask => ask.push(pod.node()),
            Clearance::Holds => {}
        }
    }
    let least = from.saturating_sub(free);
    if least <= draft.to {
        return Vec::new();
    }
    let unheard = demand.count(|state| matches!(state, PodState::Silent | PodState::Unseen));
    let (name, clause) = if unheard > 0 && from - free <= unheard {
        draft.reason = Reason::HeldUnseen;
        (
            "workersUnseen",
            format!("{unheard} pods are not heard and count as full"),
        )
    } else if ask.is_empty() {
        ("workersBusy", format!("{least} pods are not empty"))
    } else {
        (
            "workersAsked",
            format!("{} idle workers are asked before pods go", ask.len()),
        )
    };
    draft.limit(name, least, clause);
    ask
}

fn is_idle(worker: &WorkerView, pod: &PodInput, now: Moment) -> bool {
    is_heard(worker, now) && worker.active == 0 && pod.running_since.is_some()
}

enum Clearance {
    /// It said that it holds nothing, and has started nothing since.
    Empty,
    /// It must be asked.
    Ask,
    /// It holds tasks.
    Holds,
}

fn clearance(worker: &WorkerView, pool: &PoolInput, now: Moment) -> Clearance {
    if worker.unreadable.is_some() {
        // Remote control is off or cannot be read: a whole window without a task, and the grace as second line.
        let idle = now.since(worker.last_progress) >= pool.scale_down_delay.max(Duration::from_secs(10));
        return if idle { Clearance::Empty } else { Clearance::Holds };
    }
    let current = |answer: &&crate::sample::Sample<crate::sample::Answer>| {
        now.since(answer.at) <= CLEARANCE_AGE
            && answer.value.pid == worker.pid
            && answer.value.processed == worker.processed
    };
    match worker.answer.as_ref().filter(current) {
        None => Clearance::Ask,
        Some(answer) => {
            let held: u64 = answer.value.reserved.values().sum::<u64>()
                + answer
                    .value
                    .running
                    .values()
                    .map(|one| one.acknowledged + one.unacknowledged)
                    .sum::<u64>();
            if held == 0 {
                Clearance::Empty
            } else {
                Clearance::Holds
            }
        }
    }
}

fn fall_back(pool: &PoolInput, memory: &PoolMemory, now: Moment, from: u32, draft: &mut Draft) {
    let (Some(fallback), Some(since)) = (pool.fallback, memory.stale_since) else {
        return;
    };
    let stale = now.since(since);
    let to = from.max(fallback.replicas).min(pool.max.max(from));
    if stale >= fallback.after && draft.to < to {
        draft.reason = Reason::Fallback;
        let clause = format!(
            "fallback: no fresh data for {} s, so at least {} pods",
            stale.as_secs(),
            fallback.replicas
        );
        draft.limit("fallback", to, clause);
    }
}

fn sources(demand: &Demand) -> String {
    let names: Vec<&str> = demand.missing.iter().map(|(name, _)| name.as_str()).collect();
    match names.len() {
        0 => "the broker".to_owned(),
        1..=3 => names.join(", "),
        more => format!("{} and {} more", names[..2].join(", "), more - 2),
    }
}

/// Pods of shrinking revisions in the order in which they should go: not started, then empty longest, then
/// least busy.
fn victims(pool: &PoolInput, demand: &Demand, allocation: &rollout::Allocation) -> Vec<String> {
    let state = |name: &str| {
        demand
            .pods
            .iter()
            .find(|(pod, _)| pod == name)
            .map_or(PodState::Pending, |(_, state)| *state)
    };
    let mut chosen = Vec::new();
    for revision in &pool.revisions {
        let Some(target) = allocation.target(&revision.name) else {
            continue;
        };
        let go = revision.replicas.saturating_sub(target) as usize;
        let mut pods: Vec<&PodInput> = pool
            .consuming()
            .filter(|pod| pod.revision == revision.name)
            .collect();
        let missing = (revision.replicas as usize).saturating_sub(pods.len());
        pods.sort_by_key(|pod| {
            let order = match state(&pod.name) {
                PodState::Pending => (0, 0),
                PodState::Idle(since) => (1, since.0),
                PodState::Starting => (2, 0),
                PodState::Busy(tasks) => (3, tasks),
                _ => (4, 0),
            };
            (order, pod.name.clone())
        });
        chosen.extend(
            pods.into_iter()
                .take(go.saturating_sub(missing))
                .map(|pod| pod.name.clone()),
        );
    }
    chosen
}

fn words(draft: &Draft, wanted: u32, pool: &PoolInput, demand: &Demand) -> String {
    let formula = format!(
        "ceil(({} ready + {} reserved + {} busy) / {} slots)",
        demand.ready, demand.reserved, demand.busy, pool.slots
    );
    let orphaned = match demand.orphaned {
        0 => String::new(),
        count => format!(", at least 1 for {count} orphaned"),
    };
    let mut text = if draft.limits.is_empty() {
        format!("{} = {formula}{orphaned}", draft.to)
    } else {
        format!("{}; wanted {wanted} = {formula}{orphaned}", draft.to)
    };
    for clause in &draft.clauses {
        text.push_str("; ");
        text.push_str(clause);
    }
    bounded(&text, 512)
}

fn facts(pool: &PoolInput, view: &BrokerView, demand: &Demand, now: Moment) -> Facts {
    let running = pool.consuming().filter(|pod| pod.running_since.is_some()).count() as u64;
    let unseen = demand
        .pods
        .iter()
        .filter(|(_, state)| matches!(state, PodState::Unseen | PodState::Silent));
    let unreadable: Vec<&String> = pool
        .consuming()
        .filter_map(|pod| view.workers.get(&pod.node()))
        .filter(|worker| is_heard(worker, now))
        .filter_map(|worker| worker.unreadable.as_ref())
        .collect();
    Facts {
        busy: demand.busy,
        queued: demand.ready + demand.reserved,
        slots: running * u64::from(pool.slots),
        missing: demand.missing.clone(),
        unseen: unseen.map(|(name, _)| name.clone()).collect(),
        pods: demand.pods.clone(),
        foreign: (Vec::new(), 0),
        orphaned: demand.orphaned,
        unreadable: unreadable
            .first()
            .map(|first| (unreadable.len(), (*first).clone())),
    }
}
