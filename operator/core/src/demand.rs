//! What one WorkerPool has to do: its part of each queue, and what its pods are doing.
//!
//! Two sums come out. `grow` is what justifies more pods and counts only what is certain; `hold` is what keeps
//! pods and counts whatever may be true. They differ while it is unknown when tasks acknowledge, and where a
//! worker is silent. This module reads; it does not decide.

use std::collections::BTreeMap;
use std::time::Duration;

use poolwright_api::v1alpha1::AckMode;

use crate::ledger::{ANSWER_AGE, QueueLedger, capacity, is_heard, max_age, weight};
use crate::sample::{BrokerView, Fault, WorkerView};
use crate::snapshot::{PodInput, PoolInput, Snapshot};
use crate::time::Moment;

/// No heartbeat so long after the container started: the pod's slots are unseen.
pub const UNSEEN_AFTER: Duration = Duration::from_secs(60);
/// Shares of a queue are counted in thousandths of a task, so that sums over many queues do not round up each.
pub const MILLI: u64 = 1000;

/// What a pod's worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Its container does not run yet.
    Pending,
    /// Runs, not heard yet, and not for long.
    Starting,
    /// Heard, and executing this many tasks.
    Busy(u64),
    /// Heard, and executing nothing since.
    Idle(Moment),
    /// Heard once, now silent.
    Silent,
    /// Never heard although it has run for [`UNSEEN_AFTER`].
    Unseen,
    /// Being deleted.
    Draining,
}

/// One number that went into a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it is: `ready`, `reserved`, `busy`, `orphaned`, …
    pub name: &'static str,
    /// The queue, for numbers of one queue.
    pub queue: Option<String>,
    /// The number.
    pub value: u64,
    /// Who said it: `broker`, `heartbeats`, `answers`, `pods`.
    pub source: &'static str,
    /// How old it was.
    pub age: Duration,
}

/// A WorkerPool's demand.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// Tasks that justify growth, in thousandths.
    pub grow_milli: u64,
    /// Tasks that may exist and so keep pods, in thousandths.
    pub hold_milli: u64,
    /// Waiting and due, its share, rounded up.
    pub ready: u64,
    /// Fetched and not started on consuming pods, rounded up.
    pub reserved: u64,
    /// Executing on consuming pods.
    pub busy: u64,
    /// Held by no living worker.
    pub orphaned: u64,
    /// Held by workers with an ETA in the future.
    pub held_later: u64,
    /// All that a broker shows of these queues, due or not: to see a sudden zero.
    pub visible: u64,
    /// Tasks started by its workers since each began.
    pub processed: u64,
    /// Pods and what they do, in name order.
    pub pods: Vec<(String, PodState)>,
    /// Every source is fresh.
    pub complete: bool,
    /// At least one queue's count is fresh.
    pub any: bool,
    /// Sources that are not fresh: which, and why.
    pub missing: Vec<(String, Option<Fault>)>,
    /// Oldest reading that was used.
    pub read_at: Moment,
    /// The numbers, for people.
    pub inputs: Vec<Input>,
    /// Early share of running tasks that the answers showed, in thousandths; `None` when no running task was seen.
    pub early_seen: Option<u64>,
}

impl Demand {
    /// Consuming pods that are in this state.
    #[must_use]
    pub fn count(&self, which: impl Fn(PodState) -> bool) -> u32 {
        u32::try_from(self.pods.iter().filter(|(_, state)| which(*state)).count()).unwrap_or(u32::MAX)
    }

    /// True if nothing at all is left to do or to hold, as the zero rule wants it.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.hold_milli == 0
            && self.orphaned == 0
            && self.held_later == 0
            && self.count(|state| state == PodState::Draining) == 0
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

/// The state of one pod.
#[must_use]
pub fn pod_state(pod: &PodInput, view: &BrokerView, now: Moment) -> PodState {
    if pod.draining {
        return PodState::Draining;
    }
    let Some(since) = pod.running_since else {
        return PodState::Pending;
    };
    match view.workers.get(&pod.node()) {
        Some(worker) if is_heard(worker, now) && worker.active > 0 => PodState::Busy(worker.active),
        Some(worker) if is_heard(worker, now) => PodState::Idle(worker.last_progress),
        Some(worker) if worker.last_seen >= since => PodState::Silent,
        _ if now.since(since) >= UNSEEN_AFTER => PodState::Unseen,
        _ => PodState::Starting,
    }
}

/// Answers of a pool's consuming workers, added up.
#[derive(Default)]
struct Answers {
    reserved: u64,
    later: u64,
    acknowledged: u64,
    unacknowledged: u64,
}

fn answers<'a>(workers: impl Iterator<Item = &'a WorkerView>, now: Moment) -> Answers {
    let mut sum = Answers::default();
    for worker in workers {
        let Some(answer) = worker
            .answer
            .as_ref()
            .filter(|answer| now.since(answer.at) <= ANSWER_AGE)
        else {
            continue;
        };
        if answer.value.pid != worker.pid {
            continue;
        }
        // What it started since is no longer reserved.
        let started = worker.processed.saturating_sub(answer.value.processed);
        sum.reserved += answer
            .value
            .reserved
            .values()
            .sum::<u64>()
            .saturating_sub(started);
        sum.later += answer.value.scheduled.values().sum::<u64>();
        sum.acknowledged += answer
            .value
            .running
            .values()
            .map(|running| running.acknowledged)
            .sum::<u64>();
        sum.unacknowledged += answer
            .value
            .running
            .values()
            .map(|running| running.unacknowledged)
            .sum::<u64>();
    }
    sum
}

/// Computes the demand of one WorkerPool. `early` is the share (in thousandths) of its running tasks that are
/// known to acknowledge before they run, `None` while that is unknown.
#[must_use]
pub fn demand(
    snapshot: &Snapshot,
    pool: &PoolInput,
    view: &BrokerView,
    books: &BTreeMap<String, QueueLedger>,
    early: Option<u64>,
) -> Demand {
    let now = snapshot.now;
    let mut demand = Demand {
        read_at: now,
        complete: true,
        ..Demand::default()
    };
    demand.pods = pool
        .pods
        .iter()
        .map(|pod| (pod.name.clone(), pod_state(pod, view, now)))
        .collect();
    demand.pods.sort_by(|left, right| left.0.cmp(&right.0));
    let mut ready_milli = 0u64;
    let mut held_milli = 0u64;
    for name in &pool.queues {
        let Some(book) = books.get(name) else { continue };
        let part = weight(pool);
        take_queue(&mut demand, name, book, now);
        ready_milli += share(book.ready.unwrap_or(0), part, book.weight);
        held_milli += share(book.held, part, book.weight);
    }
    let known = pool.consuming().filter_map(|pod| view.workers.get(&pod.node()));
    let heard: Vec<&WorkerView> = known.filter(|worker| is_heard(worker, now)).collect();
    demand.processed = heard.iter().map(|worker| worker.processed).sum();
    demand.busy = heard.iter().map(|worker| worker.active).sum();
    check_heartbeats(&mut demand, pool, view, now);
    let said = answers(heard.iter().copied(), now);
    demand.held_later = demand.held_later.max(said.later);
    let running = said.acknowledged + said.unacknowledged;
    demand.early_seen = (running > 0).then(|| said.acknowledged * MILLI / running);
    let early = match pool.ack_mode {
        AckMode::Early => Some(MILLI),
        AckMode::Late => Some(0),
        AckMode::Auto => demand.early_seen.or(early),
    };
    let consuming = held_by_consuming(&mut demand, pool, view, held_milli, &said, early.unwrap_or(0));
    add_up(&mut demand, pool, ready_milli, consuming, early);
    demand
}

fn take_queue(demand: &mut Demand, name: &str, book: &QueueLedger, now: Moment) {
    demand.orphaned += book.orphaned;
    demand.held_later += book.held_not_due;
    demand.visible += book.ready.unwrap_or(0) + book.not_due + book.unacked + book.held_not_due;
    if book.ready.is_none() || !book.unacked_fresh {
        demand.complete = false;
        demand
            .missing
            .push((format!("queue {name:?}"), book.fault.clone()));
    }
    if let Some(ready) = book.ready {
        demand.any = true;
        demand.read_at = demand.read_at.min(book.read_at);
        let age = now.since(book.read_at);
        let queue = || Some(name.to_owned());
        demand.inputs.push(Input {
            name: "ready",
            queue: queue(),
            value: ready,
            source: "broker",
            age,
        });
        for (label, value) in [
            ("unacked", book.unacked),
            ("orphaned", book.orphaned),
            ("notDue", book.not_due),
        ] {
            if value > 0 {
                demand.inputs.push(Input {
                    name: label,
                    queue: queue(),
                    value,
                    source: "broker",
                    age,
                });
            }
        }
    }
}

fn check_heartbeats(demand: &mut Demand, pool: &PoolInput, view: &BrokerView, now: Moment) {
    let stream = view.heartbeats.fresh(now, max_age(view));
    if stream.is_none() {
        demand.complete = false;
        demand
            .missing
            .push(("heartbeats".to_owned(), view.heartbeats.fault.clone()));
    }
    let newest = pool
        .consuming()
        .filter_map(|pod| view.workers.get(&pod.node()))
        .map(|worker| worker.last_seen)
        .max();
    if let Some(seen) = newest {
        let age = now.since(seen);
        demand.inputs.push(Input {
            name: "busy",
            queue: None,
            value: demand.busy,
            source: "heartbeats",
            age,
        });
    }
}

/// Fetched messages on consuming pods, in thousandths: all that our pods can hold, less what the draining ones
/// may hold (a draining worker is silent and counts as full), but no less than the consuming ones say.
fn held_by_consuming(
    demand: &mut Demand,
    pool: &PoolInput,
    view: &BrokerView,
    held_milli: u64,
    said: &Answers,
    early: u64,
) -> u64 {
    let late_busy = demand.busy * (MILLI - early.min(MILLI));
    let said_milli = said.reserved * MILLI + late_busy;
    if !view.unacked_known {
        return said_milli;
    }
    let sum = |draining: bool| {
        let pods = pool.pods.iter().filter(|pod| pod.draining == draining);
        pods.fold(0u64, |sum, pod| sum.saturating_add(capacity(pool, pod, view)))
    };
    let (draining, consuming) = (sum(true), sum(false));
    let able = draining.saturating_add(consuming).saturating_mul(MILLI);
    if view.zero_is_suspect && held_milli > able {
        demand.orphaned += (held_milli - able) / MILLI;
    }
    let held = held_milli.min(able);
    held.saturating_sub(draining.saturating_mul(MILLI))
        .max(held.min(said_milli))
}

fn add_up(demand: &mut Demand, pool: &PoolInput, ready_milli: u64, consuming: u64, early: Option<u64>) {
    let busy_milli = demand.busy * MILLI;
    let sum = |early: u64| {
        let early_busy = demand.busy * early;
        ready_milli + consuming.max(busy_milli - early_busy) + early_busy
    };
    demand.grow_milli = sum(early.unwrap_or(0));
    // Σ rather than max while it is unknown: a task in both is counted twice, a task in one is never missed.
    demand.hold_milli = early.map_or(ready_milli + consuming + busy_milli, sum);
    let unheard = demand.count(|state| matches!(state, PodState::Silent | PodState::Unseen));
    demand.hold_milli += u64::from(unheard) * u64::from(pool.slots) * MILLI;
    demand.ready = ready_milli.div_ceil(MILLI);
    demand.reserved = (demand.grow_milli - ready_milli)
        .saturating_sub(busy_milli)
        .div_ceil(MILLI);
}
