//! A simulated cluster with simulated prefork workers on one queue: they take tasks, send a heartbeat every two
//! seconds, answer when asked, need time to start, and finish what they run when they are told to go. Solo ones do
//! nothing else while they execute their task.

mod cluster;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use poolwright_core::cycle::Memory;
use poolwright_core::decision::Decision;
use poolwright_core::later::Later;
use poolwright_core::sample::{Answer, Fetched, Ready, Running, Sample, Unacked, WorkerView};
use poolwright_core::snapshot::RevisionInput;
use poolwright_core::time::Moment;

use super::{World, key, wall};

const TICK: u64 = 50;
const POLL: u64 = 200;
const BEAT: u64 = 2000;

/// A task: how long it runs, and when it is due.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub millis: u64,
    pub due: u64,
}

/// One worker's process.
#[derive(Clone, Debug, Default)]
struct Process {
    pid: i64,
    up_at: u64,
    /// By end, with the second of the fetch.
    running: Vec<(u64, i64)>,
    reserved: VecDeque<(Task, i64)>,
    later: Vec<(Task, i64)>,
    processed: u64,
    mute: bool,
    /// Was told to stop consuming.
    parked: bool,
    /// What it was told while it was at work and will read after that.
    unread: Option<bool>,
    beat_at: u64,
    gone_at: Option<u64>,
}

/// When these fall due, on the wall clock.
fn later_of<'a>(tasks: impl Iterator<Item = &'a Task>) -> Later {
    let due = |task: &Task| (wall(Moment(task.due)).as_millisecond(), 1);
    Later::new(tasks.map(due))
}

/// The simulation.
pub struct Sim {
    pub world: World,
    pub queue: VecDeque<Task>,
    /// Fetched by processes that were killed.
    pub lost: Vec<i64>,
    /// Acknowledge late.
    pub late: bool,
    pub start_up: u64,
    /// Revisions whose workers never send a heartbeat nor take a task.
    pub broken: BTreeSet<String>,
    /// Pods that fit into the cluster.
    pub nodes: usize,
    /// The controllers act on a number so long after it was written (milliseconds).
    pub lag: u64,
    pub broker_up: bool,
    pub finished: u64,
    /// Every number of consuming pods that was asked for, in order.
    pub replicas: Vec<u32>,
    /// Pods drained while they held a task.
    pub wronged: u32,
    /// Most pods that took work at a time.
    pub most: u32,
    processes: BTreeMap<String, Process>,
    follow_at: BTreeMap<String, u64>,
    next: u64,
    asked: Vec<String>,
}

impl Sim {
    pub fn new(pool: poolwright_core::snapshot::PoolInput) -> Self {
        let mut world = World::new([pool]);
        world.marks_at_once = false;
        let revisions = std::mem::take(&mut world.pool().revisions);
        let mut sim = Self {
            world,
            queue: VecDeque::new(),
            lost: Vec::new(),
            late: false,
            start_up: 1500,
            broken: BTreeSet::new(),
            nodes: usize::MAX,
            lag: 0,
            broker_up: true,
            finished: 0,
            replicas: Vec::new(),
            wronged: 0,
            most: 0,
            processes: BTreeMap::new(),
            follow_at: BTreeMap::new(),
            next: 0,
            asked: Vec::new(),
        };
        for one in revisions {
            let name = one.name.clone();
            let replicas = one.replicas;
            sim.world
                .pool()
                .revisions
                .push(RevisionInput { replicas: 0, ..one });
            sim.scale(&name, replicas);
        }
        sim
    }

    pub fn publish(&mut self, count: usize, millis: u64) {
        self.queue
            .extend(std::iter::repeat_n(Task { millis, due: 0 }, count));
    }

    pub fn publish_later(&mut self, count: usize, after: u64) {
        let due = self.world.now.0 + after;
        self.queue
            .extend(std::iter::repeat_n(Task { millis: 100, due }, count));
    }

    pub fn total(&mut self) -> u32 {
        self.world.pool().replicas()
    }

    pub fn consuming(&mut self) -> u32 {
        u32::try_from(self.world.pool().consuming().count()).unwrap()
    }

    pub fn busy(&self) -> usize {
        self.processes.values().map(|process| process.running.len()).sum()
    }

    /// Runs for so long, with `each` called before every poll.
    pub fn run_with(&mut self, millis: u64, mut each: impl FnMut(&mut Self)) {
        let end = self.world.now.0 + millis;
        while self.world.now.0 < end {
            self.world.now = Moment(self.world.now.0 + TICK);
            self.follow();
            self.work();
            if self.world.now.0.is_multiple_of(POLL) {
                each(self);
                self.poll();
                let decision = self.world.decide();
                self.asked.clone_from(&decision.ask);
                self.obey();
                self.execute(&decision);
            }
        }
    }

    pub fn run(&mut self, millis: u64) {
        self.run_with(millis, |_| ());
    }

    /// Another operator takes over: it knows what the status says, and what it sees it sees for the first time.
    pub fn succeed(&mut self) {
        let (now, to) = (self.world.now, self.decision().to);
        self.world.memory = Memory::default();
        self.world.broker().workers.clear();
        self.asked.clear();
        let pool = self.world.pool();
        pool.desired = Some(to);
        for pod in &mut pool.pods {
            pod.see_anew(now);
        }
    }

    /// SIGKILL: the container starts anew in place.
    pub fn kill_one(&mut self) {
        let now = self.world.now.0;
        let (name, process) = self
            .processes
            .iter_mut()
            .find(|(_, process)| process.up_at <= now)
            .unwrap();
        let held = process
            .reserved
            .iter()
            .map(|(_, at)| *at)
            .chain(process.running.iter().map(|(_, at)| *at));
        self.lost.extend(held);
        *process = Process {
            pid: process.pid + 1,
            up_at: now + self.start_up,
            ..Process::default()
        };
        let name = name.clone();
        let (at, wall) = (self.world.now, wall(self.world.now));
        let pod = self
            .world
            .pool()
            .pods
            .iter_mut()
            .find(|pod| pod.name == name)
            .unwrap();
        pod.started = Some(wall);
        pod.running_since = Some(at);
    }

    /// No worker knows any more what the broker knew.
    pub fn flush(&mut self) {
        self.queue.clear();
        for process in self.processes.values_mut() {
            let reserved = process.reserved.iter_mut().map(|(_, at)| at);
            let running = process.running.iter_mut().map(|(_, at)| at);
            reserved.chain(running).for_each(|at| *at = i64::MIN);
        }
    }

    fn work(&mut self) {
        let now = self.world.now.0;
        let second = wall(self.world.now).as_second();
        let solo = self.world.pool().solo;
        let (slots, prefetch) = (
            self.world.pool().slots as usize,
            self.world.pool().prefetch.unwrap_or(1000) as usize,
        );
        let pods: BTreeMap<String, (bool, bool)> = self
            .world
            .pool()
            .pods
            .iter()
            .map(|pod| (pod.name.to_string(), (pod.draining, pod.running_since.is_some())))
            .collect();
        for (name, (draining, runs)) in &pods {
            let Some(process) = self.processes.get_mut(name) else {
                continue;
            };
            let before = process.running.len();
            process.running.retain(|(end, _)| *end > now);
            self.finished += (before - process.running.len()) as u64;
            if !runs || process.up_at > now || process.mute || !self.broker_up {
                continue;
            }
            if *draining {
                continue;
            }
            if solo && process.running.is_empty() {
                process.parked = process.unread.take().unwrap_or(process.parked);
                // Between two tasks there is time for a heartbeat.
                if before > 0 {
                    process.beat_at = now;
                    continue;
                }
            }
            let due: Vec<_> = process
                .later
                .iter()
                .filter(|(task, _)| task.due <= now)
                .copied()
                .collect();
            process.later.retain(|(task, _)| task.due > now);
            process.reserved.extend(due);
            // Whoever is free takes the first message; an early one, that is.
            let unacked = |process: &Process| process.reserved.len() + process.running.len();
            // The prefetch rises with each message that is not due, but not all at once.
            let mut risen = 0;
            while !process.parked && unacked(process) < slots * prefetch && risen < 10 {
                let Some(task) = self.queue.pop_front() else { break };
                if task.due > now {
                    process.later.push((task, second));
                    risen += 1;
                } else {
                    process.reserved.push_back((task, second));
                }
            }
            while process.running.len() < slots {
                let Some((task, fetched)) = process.reserved.pop_front() else {
                    break;
                };
                process.running.push((now + task.millis, fetched));
                process.processed += 1;
            }
        }
        self.leave(now);
        self.start(now);
        self.beat(now);
    }

    fn beat(&mut self, now: u64) {
        if !self.broker_up {
            return;
        }
        let draining: BTreeSet<String> = self
            .world
            .pool()
            .pods
            .iter()
            .filter(|pod| pod.draining)
            .map(|pod| pod.name.to_string())
            .collect();
        let (at, solo) = (self.world.now, self.world.pool().solo);
        for (name, process) in &mut self.processes {
            if solo && !process.running.is_empty() {
                continue;
            }
            if process.mute || process.up_at > now || now < process.beat_at || draining.contains(name) {
                continue;
            }
            process.beat_at = now + BEAT;
            let active = process.running.len() as u64;
            let beat = Duration::from_millis(BEAT);
            let fresh = WorkerView {
                active,
                ..WorkerView::new(process.pid, process.processed, beat, at)
            };
            let broker = self.world.brokers.get_mut("b").unwrap();
            let view = broker
                .workers
                .entry(format!("celery@{name}"))
                .or_insert_with(|| fresh.clone());
            if view.pid != process.pid {
                *view = fresh;
                continue;
            }
            if view.processed != process.processed || active > 0 || view.active > 0 {
                view.last_progress = at;
            }
            view.active = active;
            view.processed = process.processed;
            view.last_seen = at;
        }
    }

    fn poll(&mut self) {
        if !self.broker_up {
            self.world.fail_all();
            return;
        }
        let now = self.world.now.0;
        self.world.beat();
        let redis = self.world.broker().zero_is_suspect;
        let waits = self.queue.iter().filter(|task| task.due > now).count() as u64;
        let mut fetched: BTreeMap<i64, u64> = BTreeMap::new();
        let (mut later, mut due) = (0, 0);
        let mut note = |at: i64| {
            if at > i64::MIN {
                *fetched.entry(at).or_default() += 1;
                due += 1;
            }
        };
        self.lost.iter().for_each(|at| note(*at));
        for process in self.processes.values() {
            process.reserved.iter().for_each(|(_, at)| note(*at));
            if self.late {
                process.running.iter().for_each(|(_, at)| note(*at));
            }
            later += process.later.len() as u64;
        }
        let ready = Ready {
            count: self.queue.len() as u64,
            not_due: if redis { waits } else { 0 },
            later: later_of(self.queue.iter().filter(|task| redis && task.due > now)),
            consumers: None,
        };
        let list = fetched.into_iter().filter(|_| redis);
        let holding = self.processes.values().flat_map(|process| &process.later);
        let holding = holding.map(|(task, _)| task);
        let unacked = Unacked {
            due: if redis { due } else { due + later },
            not_due: if redis { later } else { 0 },
            later: later_of(holding.filter(|_| redis)),
            fetched: list
                .map(|(unix_seconds, count)| Fetched { unix_seconds, count })
                .collect(),
        };
        let at = self.world.now;
        let known = self.world.broker().unacked_known;
        let queue = self.world.queue("q");
        queue.ready.succeed(ready, at);
        if known {
            queue.unacked.succeed(unacked, at);
        }
        self.answers();
    }

    /// Those that the last decision asked, and every 30 s those that work or hold something.
    fn answers(&mut self) {
        let at = self.world.now;
        let asked: BTreeSet<String> = self.asked.drain(..).collect();
        let (late, solo) = (self.late, self.world.pool().solo);
        for (name, process) in &self.processes {
            let node = format!("celery@{name}");
            let Some(view) = self.world.brokers.get_mut("b").unwrap().workers.get_mut(&node) else {
                continue;
            };
            if view.pid != process.pid || process.gone_at.is_some() {
                continue;
            }
            if solo && !process.running.is_empty() {
                continue;
            }
            let long = view
                .asked
                .is_none_or(|asked| at.since(asked) >= Duration::from_secs(30));
            if !asked.contains(&node)
                && !(long && (view.asked.is_none() || view.active > 0 || !process.later.is_empty()))
            {
                continue;
            }
            let count = process.running.len() as u64;
            let running = if late {
                Running {
                    acknowledged: 0,
                    unacknowledged: count,
                    ..Running::default()
                }
            } else {
                Running {
                    acknowledged: count,
                    unacknowledged: 0,
                    ..Running::default()
                }
            };
            let one = |count: usize| {
                (count > 0)
                    .then(|| ("q".to_owned(), count as u64))
                    .into_iter()
                    .collect()
            };
            let value = Answer {
                running: (count > 0)
                    .then(|| ("q".to_owned(), running))
                    .into_iter()
                    .collect(),
                reserved: one(process.reserved.len()),
                scheduled: one(process.later.len()),
                later: later_of(process.later.iter().map(|(task, _)| task)),
                queues: (!process.parked).then(|| "q".to_owned()).into_iter().collect(),
                processed: view.processed,
                pid: view.pid,
                asked_at: at,
            };
            view.asked = Some(at);
            view.answer = Some(Sample {
                value: Arc::new(value),
                at,
            });
        }
    }

    /// Workers do as they are told, those that execute their task by themselves after it.
    fn obey(&mut self) {
        let solo = self.world.pool().solo;
        let calls: Vec<_> = self.world.last.calls.values().cloned().collect();
        for call in calls {
            for node in &call.nodes {
                let name = node.trim_start_matches("celery@");
                if let Some(process) = self.processes.get_mut(name) {
                    if solo && !process.running.is_empty() {
                        process.unread = Some(!call.consume);
                    } else {
                        process.parked = !call.consume;
                    }
                }
            }
        }
    }

    pub fn decision(&self) -> &Decision {
        &self.world.last.decisions[&key("p")]
    }
}
