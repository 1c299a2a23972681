//! Several WorkerPools that share several Pools, with workers that really hold tasks: what the operator is told follows from
//! that, late and with gaps, and what Kubernetes does follows from what the operator wrote. Checks nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use poolwright_core::charge::Charge;
use poolwright_core::cycle::Memory;
use poolwright_core::snapshot::{BidQueue, Budget, Namespace, PodInput, PoolInput, Rank};

use crate::world::{World, key, pool, revision, running, wall, worker};

/// Time between two looks, and between two heartbeats.
pub const TICK: u64 = 500;
const BEAT: u64 = 2000;

pub const POOLS: usize = 3;
pub const QUEUES: usize = 6;
const TIERS: [u32; 3] = [100, 50, 1];

pub fn queue_name(queue: usize) -> String {
    format!("q{queue}")
}

pub fn pool_name(pool: usize) -> String {
    format!("pool{pool}")
}

/// The Pool that a queue draws on.
pub const fn pool_of(queue: usize) -> usize {
    queue % POOLS
}

/// What is the same all the time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Slots of each Pool.
    pub slots: Vec<Option<u64>>,
    /// Slots that are kept for each queue in its Pool.
    pub guarantees: Vec<u64>,
    /// Tier of each queue, by its place.
    pub tiers: Vec<usize>,
    pub worker_pools: Vec<Kind>,
    /// Tasks acknowledge late.
    pub late: bool,
    /// The broker is Redis.
    pub redis: bool,
}

/// One WorkerPool.
#[derive(Clone, Debug)]
pub struct Kind {
    pub queues: BTreeSet<usize>,
    pub slots: u32,
    /// Slots of a Pool for one task.
    pub cost: u64,
    pub min: u32,
    pub max: u32,
    pub delay: u64,
}

impl Kind {
    fn input(&self, name: &str, tiers: &[usize]) -> PoolInput {
        let mut input = pool(name);
        let queues = || self.queues.iter().map(|queue| queue_name(*queue));
        input.queues = queues().map(|name| name.as_str().into()).collect();
        (input.slots, input.min, input.max) = (self.slots, self.min, self.max);
        input.scale_down_delay = Duration::from_secs(self.delay);
        let slots = u64::from(self.slots) * self.cost;
        let charge = Arc::new(Charge {
            holder: key(name).uid,
            slots: self
                .queues
                .iter()
                .map(|queue| (pool_name(pool_of(*queue)), slots))
                .collect(),
        });
        input.revisions = vec![revision("r1", 0, true)];
        input.revisions[0].charge = Arc::clone(&charge);
        input.bid.charge = charge;
        let bid = |queue: &usize| BidQueue {
            object: queue_name(*queue),
            queue: queue_name(*queue),
            tier: TIERS[tiers[*queue]],
        };
        input.bid.queues = self.queues.iter().map(bid).collect();
        input
    }
}

/// One worker's process.
#[derive(Default)]
struct Process {
    up_at: u64,
    beat_at: u64,
    asked_at: u64,
    /// What it consumes now.
    queues: BTreeSet<String>,
    /// When each task ends, its queue, and the second of the fetch.
    running: Vec<(u64, String, i64)>,
    processed: u64,
    turn: usize,
}

/// A pod that Kubernetes ended because a number fell.
#[derive(Clone, Debug)]
pub struct Ended {
    pub pod: PodInput,
    pub tasks: usize,
}

pub struct Town {
    pub world: World,
    /// How long each waiting task will run, by queue.
    pub waiting: BTreeMap<String, VecDeque<u64>>,
    late: bool,
    processes: BTreeMap<String, Process>,
    /// The controllers act so long after a number was written.
    pub lag: u64,
    follow_at: BTreeMap<String, u64>,
    /// Messages to workers are lost.
    pub deaf: bool,
    next: u64,
}

impl Town {
    pub fn new(plan: &Plan) -> Self {
        let name = |at: usize| format!("w{at}");
        let inputs = plan.worker_pools.iter().enumerate();
        let mut world = World::new(inputs.map(|(at, kind)| kind.input(&name(at), &plan.tiers)));
        world.marks_at_once = false;
        if !plan.redis {
            world = world.rabbitmq(true);
        }
        let budget = |pool: usize| {
            let own = (0..QUEUES).filter(|queue| pool_of(*queue) == pool && plan.guarantees[*queue] > 0);
            Budget {
                slots: plan.slots[pool],
                effective: plan.slots[pool],
                guarantees: own
                    .map(|queue| (queue_name(queue), plan.guarantees[queue]))
                    .collect(),
                ..Budget::default()
            }
        };
        let pools = (0..POOLS).map(|pool| (pool_name(pool), budget(pool))).collect();
        let namespace = Namespace {
            pools,
            ..Namespace::default()
        };
        world.namespaces.insert("shop".to_owned(), namespace);
        Self {
            world,
            waiting: (0..QUEUES)
                .map(|queue| (queue_name(queue), VecDeque::new()))
                .collect(),
            late: plan.late,
            processes: BTreeMap::new(),
            lag: 0,
            follow_at: BTreeMap::new(),
            deaf: false,
            next: 0,
        }
    }

    pub fn budget(&mut self, pool: usize) -> &mut Budget {
        let namespace = self.world.namespaces.get_mut("shop").unwrap();
        namespace.pools.get_mut(&pool_name(pool)).unwrap()
    }

    pub fn publish(&mut self, queue: usize, count: usize, millis: u64) {
        let tasks = self.waiting.get_mut(&queue_name(queue)).unwrap();
        tasks.extend(std::iter::repeat_n(millis, count));
    }

    /// Tasks that run in the pods of one WorkerPool and could run there.
    pub fn load(&self, input: &PoolInput) -> (usize, usize) {
        let own = input.consuming().filter_map(|pod| self.processes.get(&*pod.name));
        let running = own.map(|process| process.running.len()).sum();
        (running, input.consuming().count() * input.slots as usize)
    }

    /// What pods take of each Pool, as the product counts it: of a revision as many as any of its number, its `ReplicaSet`
    /// and its pods has, and those on their way out.
    pub fn charges(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for input in self.world.pools.values() {
            let one = &input.revisions[0];
            let staying = u32::try_from(input.staying().count()).unwrap();
            let count = one.replicas.max(one.made).max(staying);
            let leaving = input.pods.len() as u64 - u64::from(staying);
            for (pool, slots) in &one.charge.slots {
                let taken = (u64::from(count) + leaving) * slots;
                all.entry(pool.clone())
                    .or_default()
                    .insert(input.key.uid.clone(), taken);
            }
        }
        all
    }

    /// Another process takes over: it knows nothing, and what it sees it sees for the first time.
    pub fn restart(&mut self) {
        let now = self.world.now;
        self.world.memory = Memory::default();
        self.world.broker().workers.clear();
        self.world.broker().heartbeats.succeed(now, now);
        for pod in self.world.pools.values_mut().flat_map(|input| &mut input.pods) {
            pod.see_anew(now);
        }
    }

    /// Somebody deletes a pod: it finishes what it holds, and is replaced at once.
    pub fn delete(&mut self, at: usize) {
        let pods = self.world.pools.values_mut().flat_map(|input| &mut input.pods);
        let mut pods: Vec<&mut PodInput> = pods.filter(|pod| !pod.draining).collect();
        let many = pods.len().max(1);
        if let Some(pod) = pods.get_mut(at % many) {
            pod.draining = true;
            let name = pod.name.clone();
            if let Some(view) = self.world.broker().workers.get_mut(name.node()) {
                view.offline = true;
            }
        }
    }

    /// Time passes: workers work, the controllers act, and what brokers and workers say is renewed. What went because
    /// of a number that fell.
    pub fn tick(&mut self) -> Vec<Ended> {
        self.world.now = self.world.now.after(Duration::from_millis(TICK));
        let ended = self.follow();
        self.work();
        self.start();
        self.say();
        ended
    }

    /// What the last cycle decided is written, and workers do as they are told. While the controllers have not acted on a
    /// number, more pods may be decided than there is room for: then a parked pod is there that was thought to go. Every
    /// raise is refused a grant where it has no room, so that number stays. Where nothing is under way the decision alone
    /// must keep to the budget.
    pub fn execute(&mut self) {
        let (now, lag) = (self.world.now, self.lag);
        self.world.mark(now);
        let taken = self.charges();
        let budgets = self.world.namespaces["shop"].pools.clone();
        let refused = |charge: &Charge, more: u32| {
            charge.slots.iter().any(|(pool, slots)| {
                let sum: u64 = taken[pool].values().sum();
                let effective = budgets[pool].effective;
                effective.is_some_and(|most| sum + u64::from(more) * slots > most)
            })
        };
        for input in self.world.pools.values_mut() {
            let decision = &self.world.last.decisions[&input.key];
            let one = &mut input.revisions[0];
            if let Some(target) = decision
                .parking
                .replicas("r1")
                .filter(|target| *target != one.replicas)
                .filter(|target| !(one.behind && refused(&one.charge, target.saturating_sub(one.replicas))))
            {
                one.replicas = target;
                one.behind = true;
                self.follow_at.insert(input.key.name.clone(), now.0 + lag);
            }
        }
        let calls = self.world.last.calls.values().filter(|_| !self.deaf);
        for call in calls {
            for node in &call.nodes {
                let Some(process) = self.processes.get_mut(node.trim_start_matches("celery@")) else {
                    continue;
                };
                if call.consume {
                    process.queues.insert(call.queue.clone());
                } else {
                    process.queues.remove(&call.queue);
                }
            }
        }
    }

    /// The controllers act on the numbers that they have seen: pods without a node first, then by cost, and whatever the
    /// ties, the worst of them.
    fn follow(&mut self) -> Vec<Ended> {
        let (now, stamp) = (self.world.now.0, wall(self.world.now));
        self.follow_at.retain(|_, at| *at > now);
        let mut ended = Vec::new();
        for input in self.world.pools.values_mut() {
            if self.follow_at.contains_key(&input.key.name) {
                continue;
            }
            let one = &mut input.revisions[0];
            (one.made, one.behind) = (one.replicas, false);
            let charge = &one.charge;
            let tasks = |pod: &PodInput| self.processes.get(&*pod.name).map_or(0, |one| one.running.len());
            let mut own: Vec<&mut PodInput> = input.pods.iter_mut().filter(|pod| !pod.draining).collect();
            own.sort_by_key(|pod| (pod.rank, pod.mark.map_or(2, |mark| mark as u8), tasks(pod) == 0));
            let (have, target) = (own.len(), one.replicas as usize);
            for pod in own.into_iter().take(have.saturating_sub(target)) {
                let (pod_before, tasks) = (pod.clone(), tasks(pod));
                ended.push(Ended {
                    pod: pod_before,
                    tasks,
                });
                pod.draining = true;
            }
            for _ in have..target {
                self.next += 1;
                input.pods.push(PodInput {
                    name: format!("{}-{:04}", input.key.name, self.next).as_str().into(),
                    revision: "r1".into(),
                    created: stamp,
                    charge: Arc::clone(charge),
                    ..PodInput::default()
                });
            }
            // One that never ran is gone at once.
            input
                .pods
                .retain(|pod| !pod.draining || pod.running_since.is_some());
        }
        for one in &ended {
            if let Some(view) = self.world.broker().workers.get_mut(one.pod.node()) {
                view.offline = true;
            }
        }
        ended
    }

    fn work(&mut self) {
        let (now, second) = (self.world.now.0, wall(self.world.now).as_second());
        let mut gone = BTreeSet::new();
        for input in self.world.pools.values() {
            for pod in &input.pods {
                let Some(process) = self.processes.get_mut(&*pod.name) else {
                    continue;
                };
                process.running.retain(|(end, ..)| *end > now);
                if pod.draining && process.running.is_empty() {
                    gone.insert(pod.name.to_string());
                }
                if pod.draining || process.up_at > now {
                    continue;
                }
                let mut idle = 0;
                while process.running.len() < input.slots as usize && idle < process.queues.len() {
                    // From its queues by turns.
                    process.turn += 1;
                    let queue = process
                        .queues
                        .iter()
                        .nth(process.turn % process.queues.len())
                        .unwrap();
                    let Some(millis) = self.waiting.get_mut(queue).and_then(VecDeque::pop_front) else {
                        idle += 1;
                        continue;
                    };
                    idle = 0;
                    process.running.push((now + millis, queue.clone(), second));
                    process.processed += 1;
                }
            }
        }
        for input in self.world.pools.values_mut() {
            input.pods.retain(|pod| !gone.contains(&*pod.name));
        }
        self.processes.retain(|name, _| !gone.contains(name));
    }

    /// A container runs at the first look after its pod was made, and its worker consumes a second later. None does while
    /// the controllers are behind: a number that falls for a pod without a node counts on its going first, and one that is
    /// up by the time they act would cost another its place. The product counts that, it cannot prevent it.
    fn start(&mut self) {
        let (now, stamp) = (self.world.now, wall(self.world.now));
        let settled = |input: &&mut PoolInput| !self.follow_at.contains_key(&input.key.name);
        for input in self.world.pools.values_mut().filter(settled) {
            let queues: BTreeSet<String> = input.queues.iter().map(ToString::to_string).collect();
            let coming = input.pods.iter_mut().filter(|pod| pod.running_since.is_none());
            for pod in coming.filter(|pod| pod.created < stamp) {
                (pod.started, pod.running_since) = (Some(stamp), Some(now));
                (pod.ready, pod.rank) = (true, Rank::Ready);
                let process = Process {
                    up_at: now.0 + 1000,
                    queues: queues.clone(),
                    ..Process::default()
                };
                self.processes.insert(pod.name.to_string(), process);
            }
        }
    }

    /// What brokers and workers say.
    fn say(&mut self) {
        let now = self.world.now;
        self.world.beat();
        let mut fetched: BTreeMap<&str, BTreeMap<i64, u64>> = BTreeMap::new();
        for (_, queue, second) in self.processes.values().flat_map(|process| &process.running) {
            *fetched.entry(queue).or_default().entry(*second).or_default() += u64::from(self.late);
        }
        for (queue, waiting) in &self.waiting {
            let held = fetched.get(&**queue).into_iter().flatten();
            let held: Vec<(i64, u64)> = held.map(|(second, count)| (*second, *count)).collect();
            self.world.set_fetched(queue, waiting.len() as u64, &held);
        }
        let asked = self.world.last.decisions.values().flat_map(|one| one.ask.clone());
        let asked: BTreeSet<String> = asked.collect();
        let pods = self.world.pools.values().flat_map(|input| &input.pods);
        let silent: BTreeSet<String> = pods
            .filter(|pod| pod.draining)
            .map(|pod| pod.name.to_string())
            .collect();
        for (name, process) in &mut self.processes {
            if process.up_at > now.0 || silent.contains(name) {
                continue;
            }
            let (active, processed) = (process.running.len() as u64, process.processed);
            let node = format!("celery@{name}");
            if now.0 >= process.beat_at {
                process.beat_at = now.0 + BEAT;
                let views = &mut self.world.broker().workers;
                let view = views
                    .entry(node.clone())
                    .or_insert_with(|| worker(active, processed, now, now));
                if view.processed != processed || active > 0 || view.active > 0 {
                    view.last_progress = now;
                }
                (view.active, view.processed, view.last_seen) = (active, processed, now);
            }
            let due = now.0 >= process.asked_at + 30_000 && active > 0;
            if self.world.broker().workers.contains_key(&node) && (due || asked.contains(&node)) {
                process.asked_at = now.0;
                answer(&mut self.world, name, process, self.late);
            }
        }
    }
}

fn answer(world: &mut World, name: &str, process: &Process, late: bool) {
    world.answered(name, |answer| {
        answer.queues.clone_from(&process.queues);
        let mut by_queue: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, queue, _) in &process.running {
            *by_queue.entry(queue).or_default() += 1;
        }
        for (queue, count) in by_queue {
            let mut one = answer.clone();
            running(
                &mut one,
                if late { 0 } else { count },
                if late { count } else { 0 },
            );
            answer.running.insert(queue.to_owned(), one.running["q"]);
        }
    });
}
