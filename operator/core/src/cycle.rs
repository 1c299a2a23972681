//! One scaling cycle: a snapshot in, a decision for every WorkerPool out.
//!
//! The result depends on the snapshot and the memory alone, never on the order in which pools, pods or queues
//! are listed.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::Decision;
use crate::demand::demand;
use crate::ledger::{QueueLedger, ledger};
use crate::memory::PoolMemory;
use crate::sample::BrokerView;
use crate::scaling::decide;
use crate::snapshot::{PoolKey, Snapshot};

/// What is remembered from cycle to cycle: one entry for each WorkerPool that exists.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pools: BTreeMap<PoolKey, PoolMemory>,
}

/// The outcome of one cycle.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// By WorkerPool.
    pub decisions: BTreeMap<PoolKey, Decision>,
    /// By broker id and queue name: what TaskQueue status shows.
    pub queues: BTreeMap<String, BTreeMap<String, QueueLedger>>,
}

/// Runs one cycle.
pub fn cycle(snapshot: &Snapshot, memory: &mut Memory) -> Cycle {
    let existing: BTreeSet<&PoolKey> = snapshot.pools.iter().map(|pool| &pool.key).collect();
    memory.pools.retain(|key, _| existing.contains(key));
    let queues: BTreeMap<String, _> = snapshot
        .brokers
        .iter()
        .map(|(id, view)| (id.clone(), ledger(snapshot, id, view)))
        .collect();
    let (no_view, no_books) = (BrokerView::default(), BTreeMap::new());
    let mut decisions = BTreeMap::new();
    for pool in &snapshot.pools {
        let view = snapshot.brokers.get(&pool.broker).map_or(&no_view, AsRef::as_ref);
        let books = queues.get(&pool.broker).unwrap_or(&no_books);
        let memory = memory.pools.entry(pool.key.clone()).or_default();
        let demand = demand(snapshot, pool, view, books, memory.early);
        let mut decision = decide(snapshot, pool, view, demand, memory);
        for book in pool.queues.iter().filter_map(|queue| books.get(queue)) {
            let foreign = &mut decision.facts.foreign;
            foreign.0.extend(book.foreign.iter().cloned());
            foreign.1 = foreign.1.max(book.foreign_consumers);
        }
        decision.facts.foreign.0.sort();
        decision.facts.foreign.0.dedup();
        decisions.insert(pool.key.clone(), decision);
    }
    Cycle { decisions, queues }
}
