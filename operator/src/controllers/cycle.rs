//! The scaling cycle's driver: when anything changed, decide anew for all, and wake the pools that are concerned.
//!
//! One task; no I/O. Relies on the world and the board; guarantees that each decision is kept with the very
//! state that it was made from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use poolwright_api::DEFAULT_POOL;
use poolwright_core::books::Books;
use poolwright_core::cycle::{Cycle, Memory, cycle};
use poolwright_core::decision::Decision;
use poolwright_core::pool_status::{Figures, PoolName};
use poolwright_core::sample::{BrokerView, QueueView};
use poolwright_core::snapshot::{Namespace, PoolInput, PoolKey, Snapshot};
use poolwright_core::time::Moment;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::wake::Wake;
use super::world::{PoolState, World};
use crate::clock::Clock;
use crate::kube::index::Group;
use crate::metrics::Metrics;
use crate::signals::board::Board;
use crate::signals::celery::Command;

/// With nothing new, decisions are made this often: windows end and data grows old by themselves.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Changes that come together are decided together.
const COALESCE: Duration = Duration::from_millis(5);

/// A decision and what it was made from.
#[derive(Clone)]
pub struct Decided {
    /// The WorkerPool at that moment.
    pub state: Arc<PoolState>,
    /// The decision; absent with an invalid spec.
    pub decision: Option<Arc<Decision>>,
}

/// The outcome of the newest cycle.
#[derive(Default)]
pub struct Latest {
    pools: Mutex<BTreeMap<Group, Decided>>,
    queues: Mutex<Arc<BTreeMap<String, Books>>>,
    budgets: Mutex<Arc<BTreeMap<PoolName, Figures>>>,
}

impl Latest {
    /// The newest decision for one WorkerPool.
    pub fn of(&self, group: &Group) -> Option<Decided> {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(group)
            .cloned()
    }

    /// What the newest cycle says of every Pool.
    pub fn budgets(&self) -> Arc<BTreeMap<PoolName, Figures>> {
        Arc::clone(&self.budgets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the newest cycle saw of every queue, by broker id and name.
    pub fn queues(&self) -> Arc<BTreeMap<String, Books>> {
        Arc::clone(&self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Drives cycles.
pub struct Driver {
    /// The cluster.
    pub world: Arc<World>,
    /// The brokers.
    pub board: Arc<Board>,
    /// Where decisions go.
    pub latest: Arc<Latest>,
    /// Whom to wake.
    pub wake: Arc<Wake>,
    /// Slots of pods that were lost with their node stay taken.
    pub hold_lost_slots: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Told of every cycle: its silence means that nothing is decided any more.
    pub pulse: watch::Sender<Option<Instant>>,
    /// Clocks.
    pub clock: Clock,
}

impl Driver {
    /// Runs for ever.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            if timeout(IDLE_TICK, self.board.changed.notified()).await.is_ok() {
                sleep(COALESCE).await;
            }
            self.once(&mut memory, self.clock.now());
            self.pulse.send_replace(Some(Instant::now()));
        }
    }

    /// A WorkerPool is first decided on when its queues have been looked at: in the moment after a start everything
    /// looks stale, and saying so for the whole fleet would only be noise.
    /// So it would be while the Pool that every namespace gets is not made yet, unless it cannot be made.
    fn is_known(
        &self,
        input: &PoolInput,
        brokers: &BTreeMap<String, Arc<BrokerView>>,
        namespaces: &BTreeMap<String, Arc<Namespace>>,
        now: Moment,
    ) -> bool {
        let group = (input.key.namespace.clone(), input.key.name.clone());
        let has_default = || {
            let namespace = namespaces.get(&input.key.namespace);
            namespace.is_some_and(|namespace| namespace.pools.contains_key(DEFAULT_POOL))
        };
        let refused = || self.world.no_default(&input.key.namespace, now).is_some();
        let needs_default = input.bid.charge.slots.contains_key(DEFAULT_POOL);
        self.latest.of(&group).is_some_and(|last| last.decision.is_some())
            || was_read(input, brokers) && (!needs_default || has_default() || refused())
    }

    fn once(&self, memory: &mut Memory, now: Moment) {
        let changed = self.world.rebuild(now);
        let states = self.world.states();
        let mut result = cycle(&self.snapshot(now), memory);
        if !self.hold_lost_slots {
            self.world.set_lost(&lost(&result.decisions));
        }
        let figures = Arc::new(std::mem::take(&mut result.figures));
        *self.latest.budgets.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        let queues = Arc::new(std::mem::take(&mut result.queues));
        *self.latest.queues.lock().unwrap_or_else(PoisonError::into_inner) = queues;
        let decided = self.decided(&states, &mut result.decisions);
        self.send(result, &decided);
        let mut pools = self.latest.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let woken: Vec<Group> = decided
            .iter()
            .filter(|(group, new)| concerns(group, new, pools.get(*group), &changed))
            .map(|(group, _)| group.clone())
            // What is gone leaves metrics behind.
            .chain(
                changed
                    .iter()
                    .filter(|group| !decided.contains_key(*group))
                    .cloned(),
            )
            .collect();
        for group in &woken {
            if let Some(decision) = decided.get(group).and_then(|new| new.decision.as_ref()) {
                tracing::debug!(namespace = group.0, worker_pool = group.1, "{}", decision.text());
            }
        }
        *pools = decided;
        drop(pools);
        if !woken.is_empty() {
            self.wake.put(woken);
        }
    }

    fn snapshot(&self, now: Moment) -> Snapshot {
        let brokers = self.board.views();
        let namespaces = self.world.namespaces();
        // Of what was left behind it is known what it was, whether its queues are still read or not.
        let known =
            |input: &Arc<PoolInput>| input.terminating || self.is_known(input, &brokers, &namespaces, now);
        let (pools, unread): (Vec<_>, Vec<_>) = self.world.inputs().into_iter().partition(known);
        let unread = unread.iter().map(|input| input.key.namespace.clone()).collect();
        let pods = self.world.pods.all(None);
        let own: BTreeSet<String> = pods.iter().map(|pod| format!("celery@{}", pod.name)).collect();
        let own = Arc::new(own);
        self.board.publish_own(Arc::clone(&own));
        Snapshot {
            now,
            wall: self.clock.wall(),
            pools,
            unread,
            brokers,
            namespaces,
            own_nodes: own,
            loads: self.board.loads(),
        }
    }

    /// What was decided of each WorkerPool; of one whose spec is not valid, nothing.
    fn decided(
        &self,
        states: &[Arc<PoolState>],
        decisions: &mut BTreeMap<Arc<PoolKey>, Arc<Decision>>,
    ) -> BTreeMap<Group, Decided> {
        let mut decided = BTreeMap::new();
        for state in states {
            let input = state.input.as_ref();
            let decision = input.and_then(|input| decisions.remove(&input.key));
            let group = group(state);
            if let Some(decision) = decision.as_ref().filter(|one| one.facts.misplaced > 0) {
                self.count_misplaced(&group, decision.facts.misplaced);
            }
            let state = Arc::clone(state);
            decided.insert(group, Decided { state, decision });
        }
        decided
    }

    /// Sends what workers must be asked and told to their brokers.
    fn send(&self, result: Cycle, decided: &BTreeMap<Group, Decided>) {
        let mut asks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in decided.values() {
            if let (Some(input), Some(decision)) = (&one.state.input, &one.decision) {
                let nodes = decision.ask.iter().cloned();
                asks.entry(&input.broker).or_default().extend(nodes);
            }
        }
        for (broker, nodes) in result.sizes.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
            self.board.size(&broker, nodes);
        }
        for (broker, one) in result.resizes {
            let by = one.by;
            let command = if one.grow {
                Command::PoolGrow { by }
            } else {
                Command::PoolShrink { by }
            };
            self.board.command(&broker, command, one.nodes);
        }
        for (broker, nodes) in asks.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
            self.board.ask(broker, nodes);
        }
        for (broker, call) in result.calls {
            let queue = call.queue;
            let command = if call.consume {
                Command::AddConsumer { queue }
            } else {
                Command::CancelConsumer { queue }
            };
            self.board.command(&broker, command, call.nodes);
        }
    }

    /// Here and not where decisions are carried out: of those that follow each other fast, only the last gets there.
    fn count_misplaced(&self, (namespace, worker_pool): &Group, pods: u64) {
        self.metrics.misplaced(namespace, worker_pool, pods);
        tracing::warn!(
            namespace,
            worker_pool,
            pods,
            "Kubernetes ended pods in the place of parked ones"
        );
    }
}

/// Pods that were lost with their node, by WorkerPool.
fn lost(decisions: &BTreeMap<Arc<PoolKey>, Arc<Decision>>) -> BTreeMap<Group, Vec<String>> {
    let lost = decisions
        .iter()
        .filter(|(_, decision)| !decision.facts.lost.is_empty());
    lost.map(|(key, decision)| {
        let group = (key.namespace.clone(), key.name.clone());
        (group, decision.facts.lost.clone())
    })
    .collect()
}

/// True once every queue of the WorkerPool has been read, or could not be.
fn was_read(input: &PoolInput, brokers: &BTreeMap<String, Arc<BrokerView>>) -> bool {
    let tried = |queue: &QueueView| queue.ready.last.is_some() || queue.ready.fault.is_some();
    brokers.get(&input.broker).is_some_and(|view| {
        input
            .queues
            .iter()
            .all(|name| view.queues.get(&**name).is_some_and(tried))
    })
}

fn group(state: &PoolState) -> Group {
    (
        state.wp.metadata.namespace.clone().unwrap_or_default(),
        state.wp.metadata.name.clone().unwrap_or_default(),
    )
}

/// True if the controller has something to do or to say.
fn concerns(group: &Group, new: &Decided, old: Option<&Decided>, changed: &BTreeSet<Group>) -> bool {
    let Some(old) = old else { return true };
    if changed.contains(group) {
        return true;
    }
    match (&new.decision, &old.decision) {
        (Some(new), Some(old)) => {
            new.to != old.to
                || new.reason != old.reason
                || new.limits != old.limits
                || new.budget != old.budget
                || new.allocation != old.allocation
                || new.parking.marks != old.parking.marks
                || new.parking.replicas != old.parking.replicas
                || new.facts.missing != old.facts.missing
                || (new.facts.busy, new.facts.queued, new.facts.slots)
                    != (old.facts.busy, old.facts.queued, old.facts.slots)
                || new.facts.foreign != old.facts.foreign
                || new.facts.load_unknown != old.facts.load_unknown
                || (&new.facts.unseen, new.facts.elsewhere) != (&old.facts.unseen, old.facts.elsewhere)
                || new.facts.lost != old.facts.lost
                || new.facts.unreadable != old.facts.unreadable
                || !new.facts.heard().eq(old.facts.heard())
        }
        (None, None) => false,
        _ => true,
    }
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;
