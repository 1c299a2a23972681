//! One scaling cycle: a snapshot in, a decision for every WorkerPool out.
//!
//! The result depends on the snapshot and the memory alone, never on the order in which pools, pods or queues
//! are listed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bidder::Bidder;
use crate::books::Books;
use crate::budget::{Allowance, divide};
use crate::consumers::{Call, Calls, wants};
use crate::decision::Decision;
use crate::demand::demand;
use crate::fleet::Fleet;
use crate::ledger::ledger;
use crate::memory::PoolMemory;
use crate::outlook;
use crate::pool_status::{Figures, PoolName, Sums};
use crate::resizing::Resize;
use crate::roster::Roster;
use crate::sample::BrokerView;
use crate::scaling::{Sketch, decide, sketch};
use crate::shedding::{effective, fresh};
use crate::snapshot::{Namespace, PoolInput, PoolKey, Snapshot};
use crate::time::Moment;

/// What is remembered from cycle to cycle: one entry for each WorkerPool and each broker that exist.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pools: BTreeMap<Arc<PoolKey>, PoolMemory>,
    /// By broker id.
    calls: BTreeMap<String, Calls>,
    /// Pools that heed a load, and whether it was high.
    shed: BTreeMap<PoolName, bool>,
}

impl Memory {
    /// By broker id, one message more to its workers, by what was seen in the last cycle. It counts as sent. For whoever runs
    /// a cycle more rarely than messages can be sent.
    pub fn call_again(&mut self, now: Moment) -> BTreeMap<String, Call> {
        let calls = self.calls.iter_mut();
        calls
            .filter_map(|(id, calls)| Some((id.clone(), calls.again(now)?)))
            .collect()
    }
}

/// The outcome of one cycle.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// By WorkerPool.
    pub decisions: BTreeMap<Arc<PoolKey>, Arc<Decision>>,
    /// By broker id and queue name: what TaskQueue status shows.
    pub queues: BTreeMap<String, Books>,
    /// What the status of each Pool says beside its grants.
    pub figures: BTreeMap<PoolName, Figures>,
    /// By broker id, what its workers must be told now.
    pub calls: BTreeMap<String, Call>,
    /// By broker id, workers to ask also for their size.
    pub sizes: BTreeMap<String, Vec<String>>,
    /// What workers must be told of their size, each with the broker's id.
    pub resizes: Vec<(String, Resize)>,
}

/// So many WorkerPools go through one step together before they go through the next: the code of a step stays in the
/// processor's first cache, and what is remembered of them in its second.
const BLOCK: usize = 16;

/// One broker's WorkerPools, in the order of their keys.
struct Table<'a> {
    id: &'a str,
    known: bool,
    view: &'a BrokerView,
    fleets: Vec<Fleet<'a>>,
}

/// Runs one cycle: what each WorkerPool wants, what the Pools allow, what is done.
pub fn cycle(snapshot: &Snapshot, memory: &mut Memory) -> Cycle {
    memory.calls.retain(|id, _| snapshot.brokers.contains_key(id));
    let namespaces = shed(snapshot, &mut memory.shed);
    let no_view = BrokerView::default();
    let (tables, mut memories) = tables(snapshot, &no_view, &mut memory.pools);
    let (sketches, mut books) = sketches(snapshot, &tables, &mut memories);
    let allowances = allow(snapshot, &namespaces, &sketches);
    let mut sketches = sketches.into_iter().zip(memories).zip(allowances);
    let mut sums = Sums::new(snapshot, &namespaces);
    let mut result = Cycle::default();
    let mut decisions = Vec::with_capacity(snapshot.pools.len());
    for (table, books) in tables.iter().zip(&mut books) {
        let view = table.view;
        let (mut untrue, mut sizes) = (Vec::new(), Vec::new());
        let own = sketches.by_ref().take(table.fleets.len());
        for (at, (((fleet, mut sketch), memory), allowance)) in own.enumerate() {
            let mut decision = decide(snapshot, fleet, view, &mut sketch, &allowance, memory);
            let resized = memory.resizing.look(fleet, &snapshot.loads, snapshot.now);
            decision.resized(&resized);
            outlook::look(books, at, fleet, memory, &decision, snapshot.now);
            let wants = wants(fleet, view, &resized, snapshot.now);
            // Whether it has been heeded, only an answer tells.
            decision.ask.extend(wants.iter().map(|(_, _, node)| node.clone()));
            decision.ask.retain(|node| !resized.ask.contains(node));
            decision.ask.sort_unstable();
            decision.ask.dedup();
            sizes.extend(resized.ask);
            result
                .resizes
                .extend(resized.resizes.into_iter().map(|one| (table.id.to_owned(), one)));
            untrue.extend(wants);
            sums.add(fleet.pool, &decision);
            decisions.push((Arc::clone(&fleet.pool.key), Arc::new(decision)));
        }
        if !table.fleets.is_empty() {
            result.sizes.insert(table.id.to_owned(), sizes);
        }
        if table.known {
            let calls = memory.calls.entry(table.id.to_owned()).or_default();
            let call = calls.next(untrue, snapshot.now);
            result.calls.extend(call.map(|call| (table.id.to_owned(), call)));
        }
    }
    result.decisions = decisions.into_iter().collect();
    result.figures = sums.figures();
    for (table, books) in tables.into_iter().zip(books).filter(|(table, _)| table.known) {
        result.queues.insert(table.id.to_owned(), books);
    }
    result
}

/// What each WorkerPool wants, with the ledgers of each broker's queues.
fn sketches<'a>(
    snapshot: &Snapshot,
    tables: &'a [Table],
    mut memories: &mut [&mut PoolMemory],
) -> (Vec<(&'a Fleet<'a>, Sketch<'a>)>, Vec<Books>) {
    let now = snapshot.now;
    let mut sketches = Vec::with_capacity(memories.len());
    let mut demands = Vec::with_capacity(BLOCK);
    let mut books: Vec<Books> = Vec::with_capacity(tables.len());
    for Table { view, fleets, .. } in tables {
        let page = ledger(snapshot, view, fleets);
        let (own, others) = memories.split_at_mut(fleets.len());
        memories = others;
        let mut places = 0..;
        for (fleets, memories) in fleets.chunks(BLOCK).zip(own.chunks_mut(BLOCK)) {
            for (fleet, memory) in fleets.iter().zip(&mut *memories) {
                memory.track(fleet, view, now);
            }
            for ((fleet, memory), at) in fleets.iter().zip(&*memories).zip(places.by_ref()) {
                demands.push(demand(fleet, view, page.of(at), memory, now));
            }
            for ((fleet, memory), demand) in fleets.iter().zip(memories).zip(demands.drain(..)) {
                sketches.push((fleet, sketch(snapshot, fleet, view, demand, memory)));
            }
        }
        books.push(page);
    }
    (sketches, books)
}

/// The WorkerPools of each broker, and what is remembered of each WorkerPool, in the same order.
fn tables<'a, 'm>(
    snapshot: &'a Snapshot,
    no_view: &'a BrokerView,
    memories: &'m mut BTreeMap<Arc<PoolKey>, PoolMemory>,
) -> (Vec<Table<'a>>, Vec<&'m mut PoolMemory>) {
    let mut pools: Vec<&PoolInput> = snapshot.pools.iter().map(AsRef::as_ref).collect();
    remember(memories, &mut pools);
    let mut groups: BTreeMap<&str, (Vec<&PoolInput>, Vec<&mut PoolMemory>)> = snapshot
        .brokers
        .keys()
        .map(|id| (id.as_str(), Default::default()))
        .collect();
    for (pool, memory) in pools.iter().zip(memories.values_mut()) {
        let group = groups.entry(&pool.broker).or_default();
        group.0.push(pool);
        group.1.push(memory);
    }
    let (mut tables, mut memories) = (Vec::with_capacity(groups.len()), Vec::with_capacity(pools.len()));
    for (id, (pools, past)) in groups {
        let known = snapshot.brokers.get(id);
        let view = known.map_or(no_view, AsRef::as_ref);
        let pools = pools.into_iter().zip(&past);
        let mut roster = Roster::new(view);
        let fleets: Vec<Fleet> = pools
            .map(|(pool, memory)| Fleet::join(pool, (view, &mut roster), snapshot, memory))
            .collect();
        tables.push(Table {
            id,
            known: known.is_some(),
            view,
            fleets,
        });
        memories.extend(past);
    }
    (tables, memories)
}

/// Puts these WorkerPools in the order of their keys, and remembers them and no others any more. Both are gone through side
/// by side: ten thousand keys cost far more to look up.
fn remember(memories: &mut BTreeMap<Arc<PoolKey>, PoolMemory>, pools: &mut [&PoolInput]) {
    // Mostly they are the same and in that order already, which costs less to see than to sort.
    let mut keys = memories.keys().zip(pools.iter());
    if memories.len() == pools.len() && keys.all(|(key, pool)| *key == pool.key) {
        return;
    }
    pools.sort_by(|left, right| left.key.cmp(&right.key));
    let mut rest = pools.iter().peekable();
    memories.retain(|key, _| {
        while rest.next_if(|pool| pool.key != *key && pool.key < *key).is_some() {}
        rest.next_if(|pool| pool.key == *key).is_some()
    });
    if memories.len() < pools.len() {
        for pool in pools {
            memories.entry(Arc::clone(&pool.key)).or_default();
        }
    }
}

/// The Pools of every namespace, with what is granted from at the loads that they heed.
fn shed<'a>(
    snapshot: &'a Snapshot,
    memory: &mut BTreeMap<PoolName, bool>,
) -> BTreeMap<&'a str, Cow<'a, Namespace>> {
    let mut was = std::mem::take(memory);
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
            memory.insert(place, left.high);
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
                Bidder {
                    input: fleet.pool,
                    slots: fleet.slots,
                    wanted: sketch.to(),
                    spare: sketch.spare(),
                    extra: sketch.extra(),
                    serving: sketch.serving,
                    lost: &sketch.lost,
                    tasks: &sketch.demand.by_queue,
                    without: sketch
                        .without_since
                        .map_or(Duration::ZERO, |since| snapshot.now.since(since)),
                }
            })
            .collect();
        for (at, allowance) in places.iter().zip(divide(namespace, &bidders)) {
            allowances[*at] = allowance;
        }
    }
    allowances
}
