//! Each task counts once: what the messages of each queue are, and whose.
//!
//! A broker's numbers mix work that waits, work that our pods hold, work that others hold and work that nobody
//! holds any more. The ledger takes them apart, queue by queue, before any WorkerPool is looked at. It decides
//! nothing about replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sample::{BrokerView, Fault, QueueView, Unacked, WorkerView};
use crate::snapshot::{PodInput, PoolInput, Snapshot};
use crate::time::Moment;

/// A reading of a broker is fresh for three polls, but for no less than this.
pub const FRESH_AT_LEAST: Duration = Duration::from_secs(3);
/// A heartbeat is fresh for so many of its own intervals.
pub const FRESH_HEARTBEATS: u32 = 5;
/// Clocks of nodes and workers may differ by so much before a fetch is dated before a container's start.
const CLOCK_TOLERANCE_SECONDS: i64 = 2;
/// An answer is used for counts this long.
pub const ANSWER_AGE: Duration = Duration::from_secs(90);

/// How old a reading of this broker may be.
#[must_use]
pub fn max_age(view: &BrokerView) -> Duration {
    (view.poll_interval * 3).max(FRESH_AT_LEAST)
}

/// True while the worker's heartbeats arrive.
#[must_use]
pub fn is_heard(worker: &WorkerView, now: Moment) -> bool {
    !worker.offline && now.since(worker.last_seen) <= worker.interval * FRESH_HEARTBEATS
}

/// One queue, taken apart.
#[derive(Clone, Debug, Default)]
pub struct QueueLedger {
    /// Waiting messages that are due; `None` while the count is not fresh.
    pub ready: Option<u64>,
    /// Waiting messages with an ETA in the future.
    pub not_due: u64,
    /// Fetched, due, held by our pods (running ones that acknowledge late included).
    pub held: u64,
    /// Fetched with an ETA in the future.
    pub held_not_due: u64,
    /// Fetched by workers that no longer exist.
    pub orphaned: u64,
    /// All due unacked messages, as the broker says.
    pub unacked: u64,
    /// False where the broker's unacked count is missing or stale although the broker has one.
    pub unacked_fresh: bool,
    /// Workers on this queue that are not ours, by node name.
    pub foreign: BTreeSet<String>,
    /// How many consumers are not ours: the named ones, or more where the broker counts more.
    pub foreign_consumers: u64,
    /// Consumers: the broker's count, or the workers whose answer names this queue.
    pub consumers: u64,
    /// Capacity of all that consume it, for sharing its backlog: Σ over our pools of `max × slots`, and the
    /// slots of foreign workers that were seen busy (at least one each).
    pub weight: u64,
    /// When the count was read.
    pub read_at: Moment,
    /// Why the count or the unacked count is not fresh.
    pub fault: Option<Fault>,
}

/// Takes apart every queue of one broker that a WorkerPool consumes.
#[must_use]
pub fn ledger(snapshot: &Snapshot, broker: &str, view: &BrokerView) -> BTreeMap<String, QueueLedger> {
    let mut claimants: BTreeMap<&str, Vec<&PoolInput>> = BTreeMap::new();
    for pool in snapshot.pools.iter().filter(|pool| pool.broker == broker) {
        for queue in &pool.queues {
            claimants.entry(queue).or_default().push(pool);
        }
    }
    let empty = QueueView::default();
    let mut books: BTreeMap<String, QueueLedger> = BTreeMap::new();
    for queue in view
        .queues
        .keys()
        .map(String::as_str)
        .chain(claimants.keys().copied())
    {
        if !books.contains_key(queue) {
            let pools = claimants.get(queue).map_or(&[][..], Vec::as_slice);
            let book = one(
                snapshot,
                view,
                queue,
                view.queues.get(queue).unwrap_or(&empty),
                pools,
            );
            books.insert(queue.to_owned(), book);
        }
    }
    books
}

fn one(
    snapshot: &Snapshot,
    view: &BrokerView,
    name: &str,
    queue: &QueueView,
    pools: &[&PoolInput],
) -> QueueLedger {
    let age = max_age(view);
    let ready = queue.ready.fresh(snapshot.now, age);
    let unacked = queue.unacked.fresh(snapshot.now, age);
    let foreign = foreign_workers(snapshot, view, name);
    let foreign_held: u64 = foreign.values().map(|worker| held_by(worker, name)).sum();
    let foreign_slots: u64 = foreign.values().map(|worker| worker.active.max(1)).sum();
    let (held, orphaned) = unacked.map_or((0, 0), |unacked| attribute(unacked, foreign_held, pools, view));
    let consumers = ready.and_then(|ready| ready.consumers);
    let ours = pools
        .iter()
        .flat_map(|pool| &pool.pods)
        .filter(|pod| pod.running_since.is_some())
        .count() as u64;
    let named = foreign.len() as u64;
    let unnamed = consumers.unwrap_or(0).saturating_sub(ours).saturating_sub(named);
    let consuming = view
        .workers
        .values()
        .filter(|worker| consumes(worker, name, snapshot.now))
        .count() as u64;
    QueueLedger {
        ready: ready.map(|ready| ready.count.saturating_sub(ready.not_due)),
        not_due: ready.map_or(0, |ready| ready.not_due),
        held,
        held_not_due: unacked.map_or(0, |unacked| unacked.not_due),
        orphaned,
        unacked: unacked.map_or(0, |unacked| unacked.due),
        unacked_fresh: !view.unacked_known || unacked.is_some(),
        foreign_consumers: named + unnamed,
        foreign: foreign.into_keys().map(str::to_owned).collect(),
        consumers: consumers.unwrap_or(consuming),
        weight: pools.iter().map(|pool| weight(pool)).sum::<u64>() + foreign_slots + unnamed,
        read_at: queue
            .ready
            .last
            .as_ref()
            .map_or(Moment::default(), |sample| sample.at),
        fault: queue.ready.fault.clone().or_else(|| queue.unacked.fault.clone()),
    }
}

/// A pool's part in sharing a backlog: the slots it may have at most. Static, so that shares do not chase the
/// replicas that they cause.
#[must_use]
pub fn weight(pool: &PoolInput) -> u64 {
    u64::from(pool.max.max(1)) * u64::from(pool.slots)
}

fn consumes(worker: &WorkerView, queue: &str, now: Moment) -> bool {
    is_heard(worker, now)
        && worker
            .answer
            .as_ref()
            .is_some_and(|answer| answer.value.queues.contains(queue))
}

fn foreign_workers<'a>(
    snapshot: &Snapshot,
    view: &'a BrokerView,
    queue: &str,
) -> BTreeMap<&'a str, &'a WorkerView> {
    let is_foreign = |node: &str| !snapshot.own_nodes.contains(node);
    view.workers
        .iter()
        .filter(|(node, worker)| is_foreign(node) && consumes(worker, queue, snapshot.now))
        .map(|(node, worker)| (node.as_str(), worker))
        .collect()
}

/// What a worker says that it holds unacknowledged of one queue.
fn held_by(worker: &WorkerView, queue: &str) -> u64 {
    let Some(answer) = &worker.answer else { return 0 };
    let running = answer
        .value
        .running
        .get(queue)
        .map_or(0, |running| running.unacknowledged);
    running + answer.value.reserved.get(queue).copied().unwrap_or(0)
}

/// What one pod can hold of the broker's unacked messages: its prefetch, or more if its worker says so.
#[must_use]
pub fn capacity(pool: &PoolInput, pod: &PodInput, view: &BrokerView) -> u64 {
    if pod.running_since.is_none() && !pod.draining {
        return 0;
    }
    let said = view
        .workers
        .get(&pod.node())
        .and_then(|worker| worker.answer.as_ref())
        .map_or(0, |answer| {
            let running: u64 = answer
                .value
                .running
                .values()
                .map(|running| running.unacknowledged)
                .sum();
            running + answer.value.reserved.values().sum::<u64>()
        });
    pool.pod_capacity().max(said)
}

/// Splits a queue's due unacked messages into those that our pods can hold and those that nobody holds.
///
/// A pod can hold at most its capacity, and nothing that was fetched before its present container started.
/// Pods nest by start time (an older pod can hold all that a younger one can), so taking the oldest message
/// first finds the largest match.
fn attribute(unacked: &Unacked, foreign_held: u64, pools: &[&PoolInput], view: &BrokerView) -> (u64, u64) {
    let mut holders: Vec<(i64, u64)> = pools
        .iter()
        .flat_map(|pool| pool.pods.iter().map(move |pod| (pool, pod)))
        .map(|(pool, pod)| {
            let start = pod
                .started
                .map_or(i64::MIN, |at| at.as_second() - CLOCK_TOLERANCE_SECONDS);
            (start, capacity(pool, pod, view))
        })
        .collect();
    holders.push((i64::MIN, foreign_held));
    let able = |second: i64| {
        holders
            .iter()
            .filter(|(start, _)| *start <= second)
            .fold(0u64, |sum, (_, cap)| sum.saturating_add(*cap))
    };
    let mut taken = 0u64;
    if unacked.fetched.is_empty() {
        // RabbitMQ returns a dead worker's messages at once: what is too much is held by workers not known here.
        taken = unacked.due.min(able(i64::MAX));
        return (taken.saturating_sub(foreign_held), 0);
    }
    for fetched in &unacked.fetched {
        taken += fetched
            .count
            .min(able(fetched.unix_seconds).saturating_sub(taken));
    }
    let orphaned = unacked.due.saturating_sub(taken);
    (taken.saturating_sub(foreign_held), orphaned)
}
