//! One scaling cycle: a snapshot in, a decision for every WorkerPool out.
//!
//! The result depends on the snapshot and the memory alone, never on the order in which pools, pods or queues
//! are listed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bidder::Bidder;
use crate::budget::{Allowance, divide};
use crate::consumers::{Call, Calls, wants};
use crate::decision::Decision;
use crate::demand::demand;
use crate::fleet::Fleet;
use crate::ledger::{QueueLedger, ledger};
use crate::memory::PoolMemory;
use crate::pool_status::{Figures, PoolName, figures};
use crate::resizing::Resize;
use crate::sample::BrokerView;
use crate::scaling::{Sketch, decide, sketch};
use crate::shedding::{effective, fresh};
use crate::snapshot::{Namespace, PoolInput, PoolKey, Snapshot};

/// What is remembered from cycle to cycle: one entry for each WorkerPool and each broker that exist.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pools: BTreeMap<PoolKey, PoolMemory>,
    /// By broker id.
    calls: BTreeMap<String, Calls>,
    /// Pools that heed a load, and whether it was high.
    shed: BTreeMap<PoolName, bool>,
}

/// The outcome of one cycle.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// By WorkerPool.
    pub decisions: BTreeMap<PoolKey, Decision>,
    /// By broker id and queue name: what TaskQueue status shows.
    pub queues: BTreeMap<String, BTreeMap<String, QueueLedger>>,
    /// What the status of each Pool says beside its grants.
    pub figures: BTreeMap<PoolName, Figures>,
    /// By broker id, what its workers must be told now.
    pub calls: BTreeMap<String, Call>,
    /// By broker id, workers to ask also for their size.
    pub sizes: BTreeMap<String, Vec<String>>,
    /// What workers must be told of their size, each with the broker's id.
    pub resizes: Vec<(String, Resize)>,
}

/// One broker's WorkerPools, in the order of their keys.
struct Table<'a> {
    id: &'a str,
    known: bool,
    view: &'a BrokerView,
    fleets: Vec<Fleet<'a>>,
    books: BTreeMap<String, QueueLedger>,
}

/// Runs one cycle: what each WorkerPool wants, what the Pools allow, what is done.
pub fn cycle(snapshot: &Snapshot, memory: &mut Memory) -> Cycle {
    let existing: BTreeSet<&PoolKey> = snapshot.pools.iter().map(|pool| &pool.key).collect();
    memory.pools.retain(|key, _| existing.contains(key));
    memory.calls.retain(|id, _| snapshot.brokers.contains_key(id));
    let no_view = BrokerView::default();
    let tables = tables(snapshot, &no_view);
    let mut sketches = Vec::with_capacity(snapshot.pools.len());
    for table in &tables {
        for fleet in &table.fleets {
            let memory = memory.pools.entry(fleet.pool.key.clone()).or_default();
            memory.track(fleet, table.view, snapshot.now);
            let demand = demand(fleet, table.view, &table.books, memory, snapshot.now);
            sketches.push((fleet, sketch(snapshot, fleet, table.view, demand, memory)));
        }
    }
    let namespaces = shed(snapshot, memory);
    let mut allowances = allow(snapshot, &namespaces, &sketches, memory).into_iter();
    let mut sketches = sketches.into_iter();
    let mut result = Cycle::default();
    for table in &tables {
        let view = table.view;
        let mut untrue = Vec::new();
        for (fleet, sketch) in sketches.by_ref().take(table.fleets.len()) {
            let key = &fleet.pool.key;
            let memory = memory.pools.entry(key.clone()).or_default();
            let allowance = allowances.next().unwrap_or_else(|| Allowance::free(sketch.to()));
            let mut decision = decide(snapshot, fleet, view, sketch, &allowance, memory);
            decision.facts.foreign = foreign(fleet.pool, &table.books);
            let resized = memory.resizing.look(fleet, &snapshot.loads, snapshot.now);
            decision.resized(&resized);
            let wants = wants(fleet, view, &resized, snapshot.now);
            // Whether it has been heeded, only an answer tells.
            decision.ask.extend(wants.iter().map(|(_, _, node)| node.clone()));
            decision.ask.retain(|node| !resized.ask.contains(node));
            decision.ask.sort_unstable();
            decision.ask.dedup();
            result
                .sizes
                .entry(table.id.to_owned())
                .or_default()
                .extend(resized.ask);
            result
                .resizes
                .extend(resized.resizes.into_iter().map(|one| (table.id.to_owned(), one)));
            untrue.extend(wants);
            result.decisions.insert(key.clone(), decision);
        }
        if table.known {
            let calls = memory.calls.entry(table.id.to_owned()).or_default();
            let call = calls.next(untrue, snapshot.now);
            result.calls.extend(call.map(|call| (table.id.to_owned(), call)));
        }
    }
    result.figures = figures(snapshot, &namespaces, &result.decisions);
    for table in tables.into_iter().filter(|table| table.known) {
        result.queues.insert(table.id.to_owned(), table.books);
    }
    result
}

fn tables<'a>(snapshot: &'a Snapshot, no_view: &'a BrokerView) -> Vec<Table<'a>> {
    let mut pools: BTreeMap<&str, Vec<&PoolInput>> = snapshot
        .brokers
        .keys()
        .map(|id| (id.as_str(), Vec::new()))
        .collect();
    for pool in &snapshot.pools {
        pools.entry(&pool.broker).or_default().push(pool);
    }
    let table = |(id, mut pools): (&'a str, Vec<&'a PoolInput>)| {
        let known = snapshot.brokers.get(id);
        let view = known.map_or(no_view, AsRef::as_ref);
        pools.sort_by(|left, right| left.key.cmp(&right.key));
        let fleet = |pool| Fleet::new(pool, view, snapshot);
        let fleets: Vec<Fleet> = pools.into_iter().map(fleet).collect();
        Table {
            id,
            known: known.is_some(),
            view,
            books: ledger(snapshot, view, &fleets),
            fleets,
        }
    };
    pools.into_iter().map(table).collect()
}

/// The Pools of every namespace, with what is granted from at the loads that they heed.
fn shed<'a>(snapshot: &'a Snapshot, memory: &mut Memory) -> BTreeMap<&'a str, Cow<'a, Namespace>> {
    let mut was = std::mem::take(&mut memory.shed);
    let mut all = BTreeMap::new();
    for (name, namespace) in &snapshot.namespaces {
        let mut namespace = Cow::Borrowed(namespace.as_ref());
        let heeding = snapshot.namespaces[name].pools.iter();
        for (pool, budget) in heeding {
            let Some(shedding) = &budget.shedding else {
                continue;
            };
            let place = (name.clone(), pool.clone());
            let load = fresh(snapshot.loads.get(&shedding.load), snapshot.now);
            let was_high = was.remove(&place).unwrap_or(shedding.was);
            let left = effective(budget.slots, shedding.high_percent, load, was_high);
            memory.shed.insert(place, left.high);
            if left.slots != budget.effective
                && let Some(budget) = namespace.to_mut().pools.get_mut(pool)
            {
                budget.effective = left.slots;
            }
        }
        all.insert(name.as_str(), namespace);
    }
    all
}

/// What the Pools of each namespace allow its WorkerPools, in the order of the sketches.
fn allow(
    snapshot: &Snapshot,
    namespaces: &BTreeMap<&str, Cow<Namespace>>,
    sketches: &[(&Fleet, Sketch)],
    memory: &Memory,
) -> Vec<Allowance> {
    let none = Namespace::default();
    let mut allowances: Vec<Allowance> = sketches
        .iter()
        .map(|(_, sketch)| Allowance::free(sketch.to()))
        .collect();
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (fleet, _)) in sketches.iter().enumerate() {
        places.entry(&fleet.pool.key.namespace).or_default().push(at);
    }
    for (name, places) in places {
        let namespace = namespaces.get(name).map_or(&none, AsRef::as_ref);
        let bidders: Vec<Bidder> = places
            .iter()
            .map(|at| {
                let (fleet, sketch) = &sketches[*at];
                let without = memory
                    .pools
                    .get(&fleet.pool.key)
                    .and_then(|past| past.without_since);
                Bidder {
                    input: fleet.pool,
                    wanted: sketch.to(),
                    extra: sketch.extra(),
                    serving: fleet
                        .revisions
                        .iter()
                        .fold(0, |sum, one| sum.saturating_add(one.replicas)),
                    lost: &sketch.lost,
                    tasks: &sketch.demand.by_queue,
                    without: without.map_or(Duration::ZERO, |since| snapshot.now.since(since)),
                }
            })
            .collect();
        for (at, allowance) in places.iter().zip(divide(namespace, &bidders)) {
            allowances[*at] = allowance;
        }
    }
    allowances
}

/// Foreign workers on a WorkerPool's queues: the names that are known, and how many consume the queue that has the most.
fn foreign(pool: &PoolInput, books: &BTreeMap<String, QueueLedger>) -> (Vec<String>, u64) {
    let books = || pool.queues.iter().filter_map(|queue| books.get(queue));
    let names: BTreeSet<&String> = books().flat_map(|book| &book.foreign).collect();
    let count = books().map(|book| book.foreign_consumers).max().unwrap_or(0);
    (names.into_iter().cloned().collect(), count)
}
