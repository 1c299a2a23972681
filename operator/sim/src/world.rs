//! What happens when tasks meet workers: queues, fetching, execution, start-up, draining, and a cluster that follows numbers.
//!
//! Mechanism only. A scaler asks for numbers and parks workers; what follows from that is decided here, as brokers,
//! Celery and a `ReplicaSet` decide it, and measured in the [`Outcome`]. Nothing in here knows why.

mod cluster;
mod slots;
mod work;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use self::slots::Slots;
use crate::outcome::Outcome;
use crate::scaler::{Scaler, Victims};
use crate::scenario::{FaultKind, Millis, Scenario};

/// A run ends so long after the last arrival, whatever is left to do: what was not done counts as not done.
const PATIENCE: Millis = 6 * 3_600_000;

/// Place of a pod in [`World::pods`].
pub type PodId = usize;

/// What is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A pod's worker begins to consume.
    Up(PodId),
    /// A run ends: the pod and the number of the run.
    End(PodId, u64),
    /// A draining pod is killed.
    Grace(PodId),
    /// A task that failed is published again.
    Again(usize),
    /// The scaler looks.
    Look,
}

/// A task in a slot.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Number of the run; a task that was killed runs again under another.
    pub number: u64,
    /// Place of the task in the scenario.
    pub task: usize,
    /// When it began.
    pub since: Millis,
    /// Its time limit ends it.
    pub cut: bool,
}

/// One pod with its worker.
#[allow(clippy::struct_excessive_bools)] // They are the pod's own, and none follows from another.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Place of its fleet.
    pub fleet: usize,
    /// When it was created; it costs from now on.
    pub created: Millis,
    /// When its container runs.
    pub runs_at: Millis,
    /// When its worker begins to consume.
    pub up_at: Millis,
    /// It was told to go.
    pub draining: bool,
    /// It takes no new tasks.
    pub parked: bool,
    /// The scaler would have it go first, the least first.
    pub mark: Option<u8>,
    /// What it executes.
    pub running: Vec<Run>,
    /// Fetched and not started: task, and when it was fetched.
    pub reserved: VecDeque<(usize, Millis)>,
    /// Tasks that it has started.
    pub started: u64,
    /// Since when it has held nothing.
    pub empty_since: Millis,
    /// It is gone.
    pub gone: bool,
    /// It stands in line for the next message.
    in_line: bool,
    /// The queue to look at first.
    turn: usize,
}

/// Workers of one kind, as they are.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    /// Pods that are asked for, parked ones included.
    pub wanted: u32,
    /// Pods that are not gone, in order of creation.
    pub pods: Vec<PodId>,
    /// Tasks that they execute: a sum that is carried, for everybody who looks asks for it.
    pub running: u64,
    /// Workers with room, in the order in which they began to wait.
    line: VecDeque<PodId>,
}

/// What a broker shows of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSeen {
    /// Messages that wait.
    pub ready: u64,
    /// Messages that workers hold.
    pub unacked: u64,
    /// Time since the oldest waiting message was published.
    pub age: Millis,
    /// Messages published until now.
    pub published: u64,
}

impl QueueSeen {
    /// As an empty replica shows it. A counter that fell and came back would look like as many new messages to whoever
    /// reckons with rates, and no such system reads one that does.
    fn emptied(self) -> Self {
        Self {
            published: self.published,
            ..Self::default()
        }
    }
}

/// A world between two looks.
#[derive(Debug)]
pub struct World {
    /// What it is given.
    pub scenario: Scenario,
    /// The time.
    pub now: Millis,
    /// Every pod that ever was.
    pub pods: Vec<Pod>,
    /// By fleet.
    pub crews: Vec<Crew>,
    /// What happened.
    pub outcome: Outcome,
    queues: Vec<VecDeque<usize>>,
    /// By queue: the fleets that consume it, in their order.
    consumers: Vec<Vec<usize>>,
    /// By task: when it was last published, and how often it will still fail.
    published: Vec<(Millis, u8)>,
    counts: Vec<u64>,
    /// By queue, messages fetched and not acknowledged.
    unacked: Vec<u64>,
    busy: u32,
    events: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    sequence: u64,
    arrived: usize,
    left: usize,
    past: VecDeque<(Millis, Vec<QueueSeen>)>,
    chance: ChaCha8Rng,
    victims: Victims,
    slots: Slots,
}

/// Runs a scenario under a scaler.
pub fn run(scenario: &Scenario, scaler: &mut dyn Scaler, seed: u64) -> Outcome {
    let mut world = World::new(scenario.clone(), seed);
    world.victims = scaler.victims();
    world.push(0, Event::Look);
    while let Some((at, event)) = world.next() {
        world.now = at;
        match event {
            Some(Event::Look) => {
                world.remember();
                scaler.look(&mut world);
                world.push(at + scaler.period(), Event::Look);
            }
            Some(event) => world.happen(event),
            None => world.arrive(),
        }
    }
    world.finish()
}

fn consumers(scenario: &Scenario) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); scenario.queues.len()];
    for (place, fleet) in scenario.fleets.iter().enumerate() {
        for queue in &fleet.queues {
            if all[*queue].last() != Some(&place) {
                all[*queue].push(place);
            }
        }
    }
    all
}

impl World {
    /// The beginning.
    #[must_use]
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let tasks = scenario.tasks.len();
        Self {
            now: 0,
            pods: Vec::new(),
            crews: vec![Crew::default(); scenario.fleets.len()],
            outcome: Outcome::new(&scenario),
            queues: vec![VecDeque::new(); scenario.queues.len()],
            consumers: consumers(&scenario),
            published: scenario
                .tasks
                .iter()
                .map(|task| (task.arrives, task.failures))
                .collect(),
            counts: vec![0; scenario.queues.len()],
            unacked: vec![0; scenario.queues.len()],
            busy: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            arrived: 0,
            left: tasks,
            past: VecDeque::new(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            victims: Victims::Any,
            slots: Slots::new(&scenario),
            scenario,
        }
    }

    fn push(&mut self, at: Millis, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// What comes next: an event, or the next arrival. Arrivals go before what happens at the same time.
    fn next(&mut self) -> Option<(Millis, Option<Event>)> {
        if self.left == 0 && self.now >= self.scenario.length {
            return None;
        }
        let arrival = self.scenario.tasks.get(self.arrived).map(|task| task.arrives);
        let event = self.events.peek().map(|Reverse((at, _, _))| *at)?;
        if let Some(at) = arrival.filter(|at| *at <= event) {
            return Some((at, None));
        }
        if event > self.scenario.length + PATIENCE {
            return None;
        }
        self.events.pop().map(|Reverse((at, _, event))| (at, Some(event)))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(pod) => self.come_up(pod),
            Event::End(pod, run) => self.end(pod, run),
            Event::Grace(pod) => self.kill(pod),
            Event::Again(task) => self.publish(task),
            Event::Look => {}
        }
    }

    /// What the broker shows of each queue, as far as it can be read; faults of the scenario apply.
    #[must_use]
    pub fn seen(&self) -> Option<Vec<QueueSeen>> {
        self.seen_with(self.scenario.fault_at(self.now))
    }

    /// The same with this fault, or with none.
    #[must_use]
    pub fn seen_with(&self, fault: Option<FaultKind>) -> Option<Vec<QueueSeen>> {
        match fault {
            Some(FaultKind::Silence | FaultKind::Uncounted) => None,
            Some(FaultKind::FalseZero) => Some(self.look().into_iter().map(QueueSeen::emptied).collect()),
            Some(FaultKind::Delay(by)) => {
                let then = self.now.saturating_sub(by);
                let mut past = self.past.iter().rev();
                let seen = past.find(|(at, _)| *at <= then).or_else(|| self.past.front());
                seen.map(|(_, seen)| seen.clone())
            }
            Some(FaultKind::Unheard) | None => Some(self.look()),
        }
    }

    fn look(&self) -> Vec<QueueSeen> {
        let queue = |(at, waiting): (usize, &VecDeque<usize>)| QueueSeen {
            ready: waiting.len() as u64,
            unacked: self.unacked[at],
            age: waiting
                .front()
                .map_or(0, |task| self.now - self.published[*task].0),
            published: self.counts[at],
        };
        self.queues.iter().enumerate().map(queue).collect()
    }

    /// Keeps what was seen, where a fault may ask for it.
    fn remember(&mut self) {
        let longest = self.scenario.faults.iter().filter_map(|fault| match fault.kind {
            FaultKind::Delay(by) => Some(by),
            FaultKind::Silence | FaultKind::Uncounted | FaultKind::Unheard | FaultKind::FalseZero => None,
        });
        let Some(longest) = longest.max() else { return };
        let seen = self.look();
        self.past.push_back((self.now, seen));
        let now = self.now;
        while self.past.get(1).is_some_and(|(at, _)| at + longest <= now) {
            self.past.pop_front();
        }
    }

    /// Pods of a fleet that are neither gone nor draining.
    pub fn staying(&self, fleet: usize) -> impl Iterator<Item = (PodId, &Pod)> {
        let pods = self.crews[fleet].pods.iter().map(|id| (*id, &self.pods[*id]));
        pods.filter(|(_, pod)| !pod.draining)
    }

    /// Tasks that run.
    #[must_use]
    pub const fn busy(&self) -> u32 {
        self.busy
    }

    fn finish(mut self) -> Outcome {
        let ids: Vec<PodId> = self.crews.iter().flat_map(|crew| crew.pods.clone()).collect();
        for id in ids {
            let pod = &self.pods[id];
            let slots = self.scenario.fleets[pod.fleet].slots;
            self.outcome.paid(slots, self.now.saturating_sub(pod.created));
        }
        if self.left > 0 {
            self.sum_up();
        }
        self.outcome.close(self.now, self.left);
        self.outcome
    }
}
