//! What one WorkerPool has to do: its part of each queue, and what its pods are doing.
//!
//! Two sums come out. `grow` is what justifies more pods and counts only what is certain; `hold` is what keeps
//! pods and counts whatever may be true. They differ while it is unknown when tasks acknowledge, where a worker
//! is silent, and for tasks too short to be sure that they still run. This module reads; it does not decide.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use poolwright_api::v1alpha1::AckMode;

use crate::answers::answers;
use crate::books::Book;
use crate::fleet::Fleet;
use crate::held::{held_by_consuming, held_by_parked};
use crate::later::Later;
use crate::ledger::{QueueLedger, claim, fleet_capacity, heartbeats_since, sum, weight};
use crate::member::Member;
pub use crate::member::PodState;
use crate::memory::PoolMemory;
use crate::pod_name::PodName;
use crate::policy::{ESTIMATES, Policy};
use crate::sample::{BrokerView, Fault};
use crate::time::Moment;

/// Shares of a queue are counted in thousandths of a task, so that sums over many queues do not round up each.
pub const MILLI: u64 = 1000;

/// The heartbeat stream as a source.
const HEARTBEATS: &str = "heartbeats";
/// An answer that the broker contradicts is asked for anew after so long.
const DISPUTED_AGE: Duration = Duration::from_secs(2);

/// One number that went into a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it is: `ready`, `reserved`, `busy`, `orphaned`, …; what is no count of tasks names its unit.
    pub name: &'static str,
    /// The queue, for numbers of one queue.
    pub queue: Option<Arc<str>>,
    /// The number.
    pub value: u64,
    /// Who said it: `broker`, `heartbeats`, `answers`, `estimate` or `spec`.
    pub source: &'static str,
    /// How old it was.
    pub age: Duration,
}

/// Tasks that justify growth, as the formula shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Waiting, due, its share.
    pub ready: u64,
    /// Fetched and not started on consuming pods.
    pub reserved: u64,
    /// Executing on consuming pods, as far as it is certain that they still do.
    pub busy: u64,
}

impl Counted {
    /// All of them.
    #[must_use]
    pub fn tasks(self) -> u64 {
        sum([self.ready, self.reserved, self.busy])
    }
}

/// A WorkerPool's share of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The queue's name on the broker.
    pub name: Arc<str>,
    /// Its tasks, running ones included, as far as they can be told from those of other queues.
    pub tasks: u64,
    /// What waits in it and is due, in thousandths.
    pub waits: u64,
}

/// A WorkerPool's demand.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// Tasks that justify growth.
    pub counted: Counted,
    /// Of these, what the broker alone shows: heartbeats are up to two seconds old.
    pub certain: u64,
    /// Tasks that may exist and so keep pods.
    pub hold: u64,
    /// Waiting and due, its share.
    pub ready: u64,
    /// Waiting and due, what others share in included.
    pub ready_of_all: u64,
    /// Fetched and not started on consuming pods.
    pub reserved: u64,
    /// Executing on consuming pods.
    pub busy: u64,
    /// Executing on parked pods.
    pub parked_busy: u64,
    /// What parked pods hold, running tasks included.
    pub parked_holds: u64,
    /// Waiting messages that are taken for not yet due.
    pub doubtful: u64,
    /// Held by no living worker, and ours to rescue.
    pub orphaned: u64,
    /// Held by workers with an ETA in the future.
    pub held_later: u64,
    /// When what waits falls due, its share, in thousandths: on queues that no worker takes from.
    pub coming: Later,
    /// The same on queues that one takes from.
    pub attended: Later,
    /// The same of what workers hold: each must run what it holds itself.
    pub held_coming: Later,
    /// All that a broker shows of these queues, due or not: to see a sudden zero.
    pub visible: u64,
    /// Pods and what they do, in name order.
    pub pods: Vec<(PodName, PodState)>,
    /// Pods on their way out that may hold something: all but those that were proven empty before.
    pub draining: usize,
    /// Every source is fresh.
    pub complete: bool,
    /// At least one queue's count is fresh.
    pub any: bool,
    /// On every queue the broker counts as many consumers as our pods that run.
    pub all_consume: bool,
    /// How many workers are not heard and have said themselves that they consume one of these queues.
    pub seen_consuming: usize,
    /// Its share of each queue, in the order of the names.
    pub by_queue: Vec<Share>,
    /// Foreign workers on its queues: the names that are known, and how many consume the queue that has the most.
    pub foreign: (BTreeSet<String>, u64),
    /// Sources that are not fresh: which, and why.
    pub missing: Vec<(String, Option<Fault>)>,
    /// Oldest reading of a queue that was used.
    pub read_at: Moment,
    /// Oldest heartbeat that was used, or `read_at` if that is older.
    pub seen_at: Moment,
    /// The numbers, for people.
    pub inputs: Vec<Input>,
    /// Early share of running tasks that the answers showed, in thousandths; `None` when no running task was seen.
    pub early_seen: Option<u64>,
    /// Idle workers that have not said, since they last worked, whether they hold what the broker shows as held.
    pub unasked: Vec<String>,
}

impl Demand {
    /// Takes in what counts although it is not due: the broker alone shows it.
    pub(crate) fn count_soon(&mut self, tasks: u64, now: Moment) {
        self.certain = self.certain.saturating_add(tasks);
        self.inputs.push(Input {
            name: "dueSoon",
            queue: None,
            value: tasks,
            source: "broker",
            age: now.since(self.read_at),
        });
    }

    /// How many pods are in such a state.
    #[must_use]
    pub fn count(&self, which: impl Fn(PodState) -> bool) -> u32 {
        u32::try_from(self.pods.iter().filter(|(_, state)| which(*state)).count()).unwrap_or(u32::MAX)
    }

    /// Slots that execute a task, those of parked pods included, if heartbeats are fresh.
    #[must_use]
    pub fn known_busy(&self) -> Option<u64> {
        let stale = self.missing.iter().any(|(source, _)| source == HEARTBEATS);
        (!stale).then(|| self.busy.saturating_add(self.parked_busy))
    }

    /// Ready and reserved, if every queue's counts are fresh.
    #[must_use]
    pub fn known_queued(&self) -> Option<u64> {
        let fresh = self.missing.iter().all(|(source, _)| source == HEARTBEATS);
        fresh.then(|| self.ready.saturating_add(self.reserved))
    }

    /// True if nothing at all is left to do or to hold, as the zero rule wants it.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.hold == 0
            && self.orphaned == 0
            && self.held_later == 0
            && self.parked_holds == 0
            && self.draining == 0
    }
}

/// `value × part ÷ whole` in thousandths, rounded up; a whole of zero gives everything.
fn share(value: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 || part >= whole {
        return value.saturating_mul(MILLI);
    }
    let milli = u128::from(value) * u128::from(MILLI) * u128::from(part);
    u64::try_from(milli.div_ceil(u128::from(whole))).unwrap_or(u64::MAX)
}

/// What a WorkerPool takes for its part of what waits in a queue.
fn its_share(fleet: &Fleet, book: &QueueLedger, count: u64) -> u64 {
    let (claim, others) = (claim(fleet), book.weight.saturating_sub(weight(fleet)));
    share(count, claim, others.saturating_add(claim))
}

/// Computes the demand of one WorkerPool from the ledgers of its queues, in the order of their names and each once.
#[must_use]
pub fn demand<'a>(
    fleet: &Fleet,
    view: &BrokerView,
    books: impl Iterator<Item = &'a Book>,
    memory: &PoolMemory,
    now: Moment,
) -> Demand {
    let pool = fleet.pool;
    let estimates = if pool.policy == Policy::Backlog {
        0
    } else {
        ESTIMATES
    };
    let mut demand = Demand {
        read_at: now,
        // Two of each queue, and two of all.
        inputs: Vec::with_capacity(2 * pool.queues.len() + 2 + estimates),
        by_queue: Vec::with_capacity(pool.queues.len()),
        complete: true,
        all_consume: true,
        pods: fleet
            .members
            .iter()
            .map(|member| (member.pod.name.clone(), member.state))
            .collect(),
        ..Demand::default()
    };
    let able = fleet_capacity(fleet, |_| true);
    let (mut ready, mut held, mut alone) = (0u64, 0u64, true);
    for (name, book) in books {
        take_queue(&mut demand, name, book, now);
        if book.rescuer.as_ref() == Some(&pool.key) {
            demand.orphaned = demand.orphaned.saturating_add(book.orphaned);
        }
        alone &= book.claimants <= 1;
        let (waits, holds) = (
            its_share(fleet, book, book.ready.unwrap_or(0)),
            share(book.held, able, book.able),
        );
        take_later(&mut demand, fleet, book, able);
        ready = ready.saturating_add(waits);
        demand.ready_of_all = demand.ready_of_all.saturating_add(book.ready.unwrap_or(0));
        held = held.saturating_add(holds);
        demand.by_queue.push(Share {
            name: Arc::clone(name),
            tasks: waits.saturating_add(holds).div_ceil(MILLI),
            waits,
        });
    }
    let draining = fleet
        .members
        .iter()
        .filter(|member| member.state == PodState::Draining);
    demand.draining = draining.filter(|member| !memory.went_empty(member)).count();
    demand.seen_consuming = fleet
        .members
        .iter()
        .filter(|member| member.seen_consuming())
        .count();
    check_heartbeats(&mut demand, fleet, view, now);
    let said = answers(fleet, demand.read_at, now);
    for queue in &mut demand.by_queue {
        let early = said.early.get(&*queue.name).copied().unwrap_or(0);
        queue.tasks = queue.tasks.saturating_add(early);
    }
    demand.held_later = demand.held_later.max(said.later);
    if !view.zero_is_suspect {
        // This broker cannot tell when what is held falls due.
        demand.held_coming = said.coming;
    }
    let running = said.acknowledged.saturating_add(said.unacknowledged);
    demand.early_seen = (running > 0).then(|| share(said.acknowledged, 1, running));
    if view.zero_is_suspect && alone {
        demand.orphaned = demand
            .orphaned
            .saturating_add(held.saturating_sub(able.saturating_mul(MILLI)) / MILLI);
    }
    let held = if view.unacked_known {
        held_by_consuming(fleet, held, able, view.zero_is_suspect, now)
    } else {
        (
            said.apart.saturating_mul(MILLI),
            said.reserved.saturating_mul(MILLI),
        )
    };
    let early = if view.unacked_known {
        early(pool.ack_mode, demand.early_seen, memory)
    } else {
        // What runs is in no number of the broker.
        (MILLI, MILLI)
    };
    add_up(&mut demand, fleet, memory, (ready, held), early, now);
    tell_reserved(&mut demand, fleet, view.unacked_known, now);
    let disputed = view.unacked_known && held.0 < held.1;
    demand.unasked = unasked(&demand, fleet, disputed, now);
    demand
}

/// Least and greatest share of running tasks that may have acknowledged already.
fn early(mode: AckMode, seen: Option<u64>, memory: &PoolMemory) -> (u64, u64) {
    match mode {
        AckMode::Early => (MILLI, MILLI),
        AckMode::Late => (0, 0),
        AckMode::Auto => memory.acks.with(seen).unwrap_or((0, MILLI)),
    }
}

fn take_queue(demand: &mut Demand, name: &Arc<str>, book: &QueueLedger, now: Moment) {
    demand.held_later = demand.held_later.saturating_add(book.held_not_due);
    demand.all_consume &= book.all_consume;
    demand.foreign.0.extend(book.foreign.iter().cloned());
    demand.foreign.1 = demand.foreign.1.max(book.foreign_consumers);
    demand.visible = sum([
        demand.visible,
        book.ready.unwrap_or(0),
        book.not_due,
        book.unacked,
        book.held_not_due,
    ]);
    if book.ready.is_none() || !book.unacked_fresh {
        demand.complete = false;
        demand
            .missing
            .push((format!("queue {name:?}"), book.fault.clone()));
    }
    let Some(ready) = book.ready else { return };
    demand.any = true;
    demand.read_at = demand.read_at.min(book.read_at);
    let mut input = |label, value| {
        demand.inputs.push(Input {
            name: label,
            queue: Some(Arc::clone(name)),
            value,
            source: "broker",
            age: now.since(book.read_at),
        });
    };
    input("ready", ready);
    for (label, value) in [
        ("unacked", book.unacked),
        ("orphaned", book.orphaned),
        ("notDue", book.not_due),
    ] {
        if value > 0 {
            input(label, value);
        }
    }
}

/// Its share of what is not due, by the time at which it falls due.
fn take_later(demand: &mut Demand, fleet: &Fleet, book: &QueueLedger, able: u64) {
    let waits = if book.attended {
        &mut demand.attended
    } else {
        &mut demand.coming
    };
    waits.add(&book.later, |count| its_share(fleet, book, count));
    demand
        .held_coming
        .add(&book.held_later, |count| share(count, able, book.able));
}

fn check_heartbeats(demand: &mut Demand, fleet: &Fleet, view: &BrokerView, now: Moment) {
    if heartbeats_since(view, now).is_none() {
        demand.complete = false;
        demand
            .missing
            .push((HEARTBEATS.to_owned(), view.heartbeats.fault.clone()));
    }
    let heard = || fleet.consuming().filter_map(Member::heard);
    demand.busy = sum(fleet.consuming().map(Member::active));
    demand.seen_at = heard()
        .map(|worker| worker.last_seen)
        .fold(demand.read_at, Moment::min);
    let parked = || fleet.members.iter().filter(|member| member.is_parked());
    demand.parked_busy = sum(parked().map(Member::active));
    demand.parked_holds = sum(parked().map(held_by_parked));
    let workers = fleet.consuming().filter_map(|member| member.worker);
    if let Some(seen) = workers.map(|worker| worker.last_seen).max() {
        demand.inputs.push(Input {
            name: "busy",
            queue: None,
            value: demand.busy,
            source: "heartbeats",
            age: now.since(seen),
        });
    }
}

fn add_up(
    demand: &mut Demand,
    fleet: &Fleet,
    memory: &PoolMemory,
    (ready, (held, at_most)): (u64, (u64, u64)),
    early: (u64, u64),
    now: Moment,
) {
    let whole = |milli: u64| milli.div_ceil(MILLI);
    let part = |tasks: u64, share: u64| tasks.saturating_mul(share.min(MILLI));
    let busy = demand.busy;
    demand.ready = whole(ready);
    demand.doubtful = memory.doubtful(demand.ready, now);
    let ready = ready.saturating_sub(demand.doubtful.saturating_mul(MILLI));
    // For growth: what acknowledges late is in `held` already, and tasks that may have ended are left out.
    let lasting = memory.lasting(fleet).min(busy);
    let by_early = part(lasting, early.0);
    let by_late = held.max(part(lasting, MILLI - early.0));
    let late_busy = by_late.min(part(busy, MILLI - early.0));
    demand.reserved = whole(by_late - late_busy);
    demand.counted = Counted {
        ready: whole(ready),
        reserved: demand.reserved,
        busy: whole(by_early.saturating_add(late_busy)),
    };
    demand.certain = whole(ready.saturating_add(held));
    // For scale-in: a task that may be in both is counted twice, a task that is in one is never missed.
    let by_early = part(busy, early.1);
    let by_late = at_most.max(part(busy, MILLI - early.1));
    let unheard = fleet
        .consuming()
        // One that is silent at work is among the busy ones.
        .filter(|member| matches!(member.state, PodState::Silent | PodState::Unseen) && !member.engaged);
    let unheard = sum(unheard.map(|member| u64::from(member.made_with)));
    let ready = demand.ready.saturating_mul(MILLI);
    demand.hold = sum([whole(sum([ready, by_early, by_late])), unheard]);
}

/// What was fetched is one number for all queues: a broker counts it by queue, and a share of it is this WorkerPool's.
fn tell_reserved(demand: &mut Demand, fleet: &Fleet, counted: bool, now: Moment) {
    if demand.reserved == 0 {
        return;
    }
    let answers = fleet.consuming().filter_map(Member::answer);
    let oldest = answers.map(|answer| answer.at).min().unwrap_or(now);
    let (source, at) = if counted {
        ("broker", demand.read_at)
    } else {
        ("answers", oldest)
    };
    demand.inputs.push(Input {
        name: "reserved",
        queue: None,
        value: demand.reserved,
        source,
        age: now.since(at),
    });
}

/// Whom to ask what it holds: whoever idles and has not said so since it last worked may hold what the broker shows
/// as held, or it is a dead worker's. While the workers' word stands against the broker's, all of them.
fn unasked(demand: &Demand, fleet: &Fleet, disputed: bool, now: Moment) -> Vec<String> {
    if demand.reserved == 0 && !disputed {
        return Vec::new();
    }
    let silent = |member: &&Member| {
        member.heard().is_some_and(|worker| {
            let since = if disputed {
                now.before(DISPUTED_AGE)
            } else {
                worker.last_progress
            };
            (disputed || worker.active == 0)
                && worker.unreadable.is_none()
                && member.answer().is_none_or(|answer| answer.at < since)
        })
    };
    fleet
        .consuming()
        .filter(silent)
        .map(|member| member.node().to_owned())
        .collect()
}
