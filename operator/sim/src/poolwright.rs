//! Poolwright's own cycle on a simulated world.
//!
//! Fills the same snapshot that the operator fills from its watches and its poller, calls the same
//! [`cycle`], and does with the decision what the executor, the granter and the workers do. It decides nothing.

mod signals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::charge::Charge;
use poolwright_core::constants::{POLL_INTERVAL_MILLISECONDS, poll_interval};
use poolwright_core::consumers::Call;
use poolwright_core::cycle::{Cycle, Memory, cycle};
use poolwright_core::policy::Policy;
use poolwright_core::sample::{BrokerView, Signal};
use poolwright_core::snapshot::{
    Bid, BidQueue, Mark, Namespace, PodInput, PoolInput, PoolKey, Rank, RevisionInput, Snapshot,
};
use poolwright_core::time::Moment;

use crate::scaler::{Scaler, Victims};
use crate::scenario::{Millis, Scenario};
use crate::world::{PodId, World};

const NAMESPACE: &str = "simulated";
const BROKER: &str = "simulated";
const REVISION: &str = "r1";
/// With more fleets than this, all are looked at each five seconds instead of each second: a day of 500 queues would take
/// minutes.
const MANY_FLEETS: usize = 100;
/// Milliseconds between two looks where there are many fleets.
const SLOW_POLL: Millis = 5_000;

/// What a user would write in `spec.scaling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `policy: WaitTarget` instead of `Backlog`.
    pub wait_target: bool,
    /// `scaleDownDelaySeconds`, where it is written.
    pub scale_down_delay: Option<Duration>,
    /// Time between two polls.
    pub poll: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wait_target: true,
            scale_down_delay: None,
            poll: 1000,
        }
    }
}

impl Settings {
    /// The same at the pace at which so many fleets are simulated.
    #[must_use]
    pub fn paced(self, fleets: usize) -> Self {
        let slow = if fleets > MANY_FLEETS { SLOW_POLL } else { 0 };
        Self {
            poll: self.poll.max(slow),
            ..self
        }
    }
}

/// Messages to workers that the operator could send between two looks: one with each of its polls.
fn messages(scenario: &Scenario, settings: &Settings) -> u128 {
    let base = Duration::from_millis(POLL_INTERVAL_MILLISECONDS);
    let polls = poll_interval(base, scenario.queues.len()).as_millis();
    (u128::from(settings.poll) / polls).max(1)
}

/// The operator.
pub struct Poolwright {
    settings: Settings,
    /// Messages to workers by one look.
    messages: u128,
    snapshot: Snapshot,
    memory: Memory,
    /// Places of the pods of each fleet's input, in the order of that input.
    places: Vec<Vec<PodId>>,
    asked: Vec<String>,
    last: Cycle,
}

/// Wall clock at this time.
fn wall(scenario: &Scenario, now: Millis) -> Timestamp {
    let past = SignedDuration::from_millis(i64::try_from(now).unwrap_or(i64::MAX));
    scenario.begins.saturating_add(past).unwrap_or(scenario.begins)
}

fn uid(fleet: &str) -> String {
    format!("uid-{fleet}")
}

/// What a pod of the fleet takes of each Pool of its queues.
fn charge(scenario: &Scenario, fleet: usize) -> Charge {
    let spec = &scenario.fleets[fleet];
    let charge = scenario.charge(fleet).into_iter();
    Charge {
        holder: uid(&spec.name),
        slots: charge
            .map(|(budget, slots)| (scenario.budgets[budget].name.clone(), slots))
            .collect(),
    }
}

fn policy(scenario: &Scenario, fleet: usize, settings: &Settings) -> Policy {
    if !settings.wait_target {
        return Policy::Backlog;
    }
    let queues = scenario.fleets[fleet].queues.iter();
    let target = queues.map(|queue| scenario.queues[*queue].wait_target).min();
    Policy::WaitTarget {
        target: Duration::from_millis(target.unwrap_or(30_000)),
        delay: settings.scale_down_delay,
    }
}

fn input(scenario: &Scenario, fleet: usize, settings: &Settings) -> PoolInput {
    let spec = &scenario.fleets[fleet];
    let charge = Arc::new(charge(scenario, fleet));
    let queues = || spec.queues.iter().map(|queue| &scenario.queues[*queue]);
    let bid = |queue: &crate::scenario::Queue| BidQueue {
        object: queue.name.clone(),
        queue: queue.name.clone(),
        tier: queue.tier,
    };
    PoolInput {
        key: Arc::new(PoolKey {
            namespace: NAMESPACE.to_owned(),
            name: spec.name.clone(),
            uid: uid(&spec.name),
        }),
        broker: BROKER.to_owned(),
        queues: queues().map(|queue| queue.name.as_str().into()).collect(),
        slots: spec.slots,
        dynamic: None,
        prefetch: Some(spec.prefetch),
        solo: false,
        min: spec.bounds.0,
        max: spec.bounds.1,
        schedules: Arc::clone(&spec.schedules),
        desired: None,
        cap: spec.max_active.map(|most| most / spec.slots.max(1)),
        policy: policy(scenario, fleet, settings),
        scale_down_delay: settings.scale_down_delay.unwrap_or(Duration::from_secs(60)),
        fallback: None,
        hold: None,
        pause: spec.pause,
        recommend: false,
        overridden_since: None,
        ack_mode: AckMode::Auto,
        revision: REVISION.into(),
        revisions: vec![RevisionInput {
            slots: None,
            name: REVISION.into(),
            created: scenario.begins,
            proven: Some(scenario.begins),
            charge: Arc::clone(&charge),
            ..RevisionInput::default()
        }],
        pods: Vec::new(),
        bid: Bid {
            charge,
            queues: queues().map(bid).collect(),
        },
        conflict: None,
        terminating: false,
    }
}

impl Poolwright {
    /// An operator that has just started.
    #[must_use]
    pub fn new(scenario: &Scenario, settings: Settings) -> Self {
        Self::with_each(scenario, settings, &[])
    }

    /// An operator that has just started, for fleets that differ in their settings; a fleet without its own has
    /// `settings`, as has the pace.
    #[must_use]
    pub fn with_each(scenario: &Scenario, settings: Settings, each: &[Settings]) -> Self {
        let of = |fleet: usize| each.get(fleet).unwrap_or(&settings);
        let pools = (0..scenario.fleets.len()).map(|fleet| Arc::new(input(scenario, fleet, of(fleet))));
        let weights = scenario
            .queues
            .iter()
            .map(|queue| (queue.name.clone(), u64::from(queue.weight)));
        let mut namespace = Namespace::default();
        Arc::make_mut(&mut namespace.weights).effective = weights.collect();
        let view = BrokerView {
            address: "redis://simulated".to_owned(),
            unacked_known: true,
            zero_is_suspect: true,
            poll_interval: Duration::from_millis(settings.poll),
            ..BrokerView::default()
        };
        Self {
            snapshot: Snapshot {
                brokers: [(BROKER.to_owned(), Arc::new(view))].into(),
                pools: pools.collect(),
                namespaces: [(NAMESPACE.to_owned(), Arc::new(namespace))].into(),
                ..Snapshot::default()
            },
            messages: messages(scenario, &settings),
            settings,
            memory: Memory::default(),
            places: vec![Vec::new(); scenario.fleets.len()],
            asked: Vec::new(),
            last: Cycle::default(),
        }
    }

    /// Decides what `acting` would if nothing were wrong with the signals, and had ever been, about the very pods that
    /// `acting` has made and marked; and does nothing. To be asked before `acting` looks.
    pub fn judge(&mut self, world: &World, acting: &mut Self) {
        acting.wake(world);
        (self.snapshot.now, self.snapshot.wall) = (acting.snapshot.now, acting.snapshot.wall);
        self.snapshot.pools.clone_from(&acting.snapshot.pools);
        self.snapshot.own_nodes = Arc::clone(&acting.snapshot.own_nodes);
        self.places.clone_from(&acting.places);
        self.count(world);
        self.listen(world, None);
        self.last = cycle(&self.snapshot, &mut self.memory);
        let asked = self.last.decisions.values().flat_map(|decision| &decision.ask);
        self.asked = asked.cloned().collect();
    }

    /// Another process in its place, that begins now: what was remembered, read and heard is gone, what the cluster keeps
    /// of pods is as it was.
    pub fn restart(&mut self, now: Millis) {
        let begun = Moment(now + 1000);
        self.memory = Memory::default();
        self.asked.clear();
        self.last = Cycle::default();
        for view in self.snapshot.brokers.values_mut() {
            let view = Arc::make_mut(view);
            view.queues.clear();
            view.workers.clear();
            view.heartbeats = Signal::default();
        }
        let inputs = self.snapshot.pools.iter_mut();
        for pod in inputs.flat_map(|input| &mut Arc::make_mut(input).pods) {
            pod.see_anew(begun);
        }
    }

    /// The last decisions.
    #[must_use]
    pub const fn last(&self) -> &Cycle {
        &self.last
    }

    /// The time, and pods as a watch shows them.
    fn wake(&mut self, world: &World) {
        // A process does not start at its own beginning of time: it took a second to come up.
        self.snapshot.now = Moment(world.now + 1000);
        self.snapshot.wall = wall(&world.scenario, world.now);
        self.watch(world);
    }

    /// Pods as a watch shows them.
    fn watch(&mut self, world: &World) {
        let stamp = wall(&world.scenario, world.now);
        for (fleet, places) in self.places.iter_mut().enumerate() {
            let input = Arc::make_mut(&mut self.snapshot.pools[fleet]);
            let mut at = 0;
            places.retain(|id| {
                let stays = !world.pods[*id].gone;
                if stays {
                    at += 1;
                } else {
                    let pod = input.pods.remove(at);
                    Arc::make_mut(&mut self.snapshot.own_nodes).remove(pod.node());
                }
                stays
            });
            for id in &world.crews[fleet].pods {
                if places.last().is_some_and(|last| last >= id) {
                    continue;
                }
                let pod = PodInput {
                    name: format!("{}-{id}", input.key.name).into(),
                    revision: REVISION.into(),
                    created: wall(&world.scenario, world.pods[*id].created),
                    charge: Arc::clone(&input.bid.charge),
                    ..PodInput::default()
                };
                Arc::make_mut(&mut self.snapshot.own_nodes).insert(pod.node().to_owned());
                input.pods.push(pod);
                places.push(*id);
            }
            for (id, pod) in places.iter().zip(&mut input.pods) {
                let real = &world.pods[*id];
                pod.draining = real.draining;
                if pod.running_since.is_none() && real.runs_at <= world.now {
                    (pod.running_since, pod.started) = (Some(self.snapshot.now), Some(stamp));
                    (pod.ready, pod.ready_since) = (true, Some(self.snapshot.now));
                    pod.rank = Rank::Ready;
                }
            }
            (input.revisions[0].replicas, input.revisions[0].made) =
                (world.crews[fleet].wanted, world.crews[fleet].wanted);
        }
    }

    /// Budgets as the Pools' status shows them.
    fn count(&mut self, world: &World) {
        let Some(namespace) = self.snapshot.namespaces.get_mut(NAMESPACE) else {
            return;
        };
        let pools = &mut Arc::make_mut(namespace).pools;
        for budget in &world.scenario.budgets {
            let slots = budget.at(world.now);
            let known = entry(pools, &budget.name);
            (known.slots, known.effective) = (slots, slots);
            if known.guarantees.len() < budget.guarantees.len() {
                known.guarantees = budget.guarantees.iter().cloned().collect();
            }
        }
        for input in &self.snapshot.pools {
            for (pool, slots) in &input.bid.charge.slots {
                let Some(budget) = pools.get_mut(pool) else {
                    continue;
                };
                *entry(&mut budget.granted, &input.key.uid) = slots * u64::from(input.replicas());
                *entry(&mut budget.used, &input.key.uid) = slots * input.pods.len() as u64;
            }
        }
    }

    /// Carries out what was decided.
    fn act(&mut self, world: &mut World) {
        self.asked.clear();
        for (fleet, input) in self.snapshot.pools.iter_mut().enumerate() {
            let Some(decision) = self.last.decisions.get(&input.key) else {
                continue;
            };
            self.asked.extend(decision.ask.iter().cloned());
            let input = Arc::make_mut(input);
            for (name, mark) in &decision.parking.marks {
                let Some(at) = input.pods.iter().position(|pod| pod.name == *name) else {
                    continue;
                };
                set_mark(&mut input.pods[at], *mark, self.snapshot.now);
                world.pods[self.places[fleet][at]].mark = mark.map(|mark| match mark {
                    Mark::Empty => 0,
                    Mark::Held => 1,
                });
            }
            if let Some(replicas) = decision.parking.replicas(REVISION) {
                world.scale(fleet, replicas);
            }
        }
        for call in self.last.calls.values() {
            tell(world, call);
        }
        for _ in 1..self.messages {
            for call in self.memory.call_again(self.snapshot.now).values() {
                tell(world, call);
            }
        }
    }
}

/// Workers do what they are told.
fn tell(world: &mut World, call: &Call) {
    for node in &call.nodes {
        let Some(id) = place(node).filter(|id| !world.pods[*id].gone) else {
            continue;
        };
        if call.consume {
            world.unpark(id);
        } else {
            world.park(id);
        }
    }
}

/// What stands under this name, made where nothing does. The name is copied only then: it is looked up in every cycle.
fn entry<'a, T: Default>(all: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    if !all.contains_key(name) {
        all.insert(name.to_owned(), T::default());
    }
    all.get_mut(name).expect("it was made where it was missing")
}

/// The pod that a node's name stands for.
fn place(node: &str) -> Option<PodId> {
    node.rsplit_once('-').and_then(|(_, id)| id.parse().ok())
}

/// Gives a pod a mark, or takes it off, as it is seen since then.
fn set_mark(pod: &mut PodInput, mark: Option<Mark>, since: Moment) {
    pod.unmarked = pod.mark.filter(|_| mark.is_none()).map(|_| since);
    pod.returned |= pod.unmarked.is_some();
    pod.mark = mark;
    pod.marked = mark.map(|_| since);
    pod.parked = mark.map(|_| pod.parked.unwrap_or(since));
}

impl Scaler for Poolwright {
    fn period(&self) -> Millis {
        self.settings.poll
    }

    fn look(&mut self, world: &mut World) {
        self.wake(world);
        self.count(world);
        self.listen(world, world.scenario.fault_at(world.now));
        self.last = cycle(&self.snapshot, &mut self.memory);
        self.act(world);
    }

    fn victims(&self) -> Victims {
        Victims::Marked
    }
}
