//! One scaling cycle: a snapshot in, a decision for every WorkerPool out.
//!
//! The result depends on the snapshot and the memory alone, never on the order in which pools, pods or queues
//! are listed.

use std::collections::{BTreeMap, BTreeSet};

use crate::consumers::{Call, Calls, wants};
use crate::decision::Decision;
use crate::demand::demand;
use crate::fleet::Fleet;
use crate::ledger::{QueueLedger, ledger};
use crate::memory::PoolMemory;
use crate::resizing::Resize;
use crate::sample::BrokerView;
use crate::scaling::decide;
use crate::snapshot::{PoolInput, PoolKey, Snapshot};

/// What is remembered from cycle to cycle: one entry for each WorkerPool and each broker that exist.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pools: BTreeMap<PoolKey, PoolMemory>,
    /// By broker id.
    calls: BTreeMap<String, Calls>,
}

/// The outcome of one cycle.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// By WorkerPool.
    pub decisions: BTreeMap<PoolKey, Decision>,
    /// By broker id and queue name: what TaskQueue status shows.
    pub queues: BTreeMap<String, BTreeMap<String, QueueLedger>>,
    /// By broker id, what its workers must be told now.
    pub calls: BTreeMap<String, Call>,
    /// By broker id, workers to ask also for their size.
    pub sizes: BTreeMap<String, Vec<String>>,
    /// What workers must be told of their size, each with the broker's id.
    pub resizes: Vec<(String, Resize)>,
}

/// Runs one cycle.
pub fn cycle(snapshot: &Snapshot, memory: &mut Memory) -> Cycle {
    let existing: BTreeSet<&PoolKey> = snapshot.pools.iter().map(|pool| &pool.key).collect();
    memory.pools.retain(|key, _| existing.contains(key));
    memory.calls.retain(|id, _| snapshot.brokers.contains_key(id));
    let no_view = BrokerView::default();
    let mut pools: BTreeMap<&str, Vec<&PoolInput>> = snapshot
        .brokers
        .keys()
        .map(|id| (id.as_str(), Vec::new()))
        .collect();
    for pool in &snapshot.pools {
        pools.entry(&pool.broker).or_default().push(pool);
    }
    let mut result = Cycle::default();
    for (id, mut pools) in pools {
        let known = snapshot.brokers.get(id);
        let view = known.map_or(&no_view, AsRef::as_ref);
        pools.sort_by(|left, right| left.key.cmp(&right.key));
        let fleets: Vec<Fleet> = pools
            .iter()
            .map(|pool| Fleet::new(pool, view, snapshot))
            .collect();
        let books = ledger(snapshot, view, &fleets);
        let mut untrue = Vec::new();
        for fleet in &fleets {
            let key = &fleet.pool.key;
            let memory = memory.pools.entry(key.clone()).or_default();
            memory.track(fleet, view, snapshot.now);
            let demand = demand(fleet, view, &books, memory, snapshot.now);
            let mut decision = decide(snapshot, fleet, view, demand, memory);
            decision.facts.foreign = foreign(fleet.pool, &books);
            let resized = memory.resizing.look(fleet, &snapshot.loads, snapshot.now);
            decision.resized(&resized);
            let wants = wants(fleet, view, &resized, snapshot.now);
            // Whether it has been heeded, only an answer tells.
            decision.ask.extend(wants.iter().map(|(_, _, node)| node.clone()));
            decision.ask.retain(|node| !resized.ask.contains(node));
            decision.ask.sort_unstable();
            decision.ask.dedup();
            result.sizes.entry(id.to_owned()).or_default().extend(resized.ask);
            result
                .resizes
                .extend(resized.resizes.into_iter().map(|one| (id.to_owned(), one)));
            untrue.extend(wants);
            result.decisions.insert(key.clone(), decision);
        }
        if known.is_some() {
            result.queues.insert(id.to_owned(), books);
            let calls = memory.calls.entry(id.to_owned()).or_default();
            let call = calls.next(untrue, snapshot.now);
            result.calls.extend(call.map(|call| (id.to_owned(), call)));
        }
    }
    result
}

/// Foreign workers on a WorkerPool's queues: the names that are known, and how many consume the queue that has the most.
fn foreign(pool: &PoolInput, books: &BTreeMap<String, QueueLedger>) -> (Vec<String>, u64) {
    let books = || pool.queues.iter().filter_map(|queue| books.get(queue));
    let names: BTreeSet<&String> = books().flat_map(|book| &book.foreign).collect();
    let count = books().map(|book| book.foreign_consumers).max().unwrap_or(0);
    (names.into_iter().cloned().collect(), count)
}
