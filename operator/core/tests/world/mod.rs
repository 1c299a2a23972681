//! A small world for tests: brokers and pods as plain data, and a fleet of simulated workers that take tasks, send
//! heartbeats, answer when asked, start up and drain. Time is a number; everything is deterministic.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test world that is not as built should stop the test"
)]

pub mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::cycle::{Cycle, Memory, cycle};
use poolwright_core::decision::Decision;
use poolwright_core::policy::Policy;
use poolwright_core::sample::{
    Answer, BrokerView, FaultKind, Fetched, QueueView, Ready, Running, Sample, Unacked, UnheardView,
    WorkerView,
};
use poolwright_core::shedding::Loads;
use poolwright_core::snapshot::{
    Bid, Mark, Namespace, Pause, PodInput, PoolInput, PoolKey, Rank, RevisionInput, Snapshot,
};
use poolwright_core::time::Moment;

/// Wall clock at moment zero.
pub const EPOCH: i64 = 1_800_000_000;

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn wall(now: Moment) -> Timestamp {
    Timestamp::from_millisecond(EPOCH * 1000 + i64::try_from(now.0).unwrap()).unwrap()
}

pub fn key(name: &str) -> PoolKey {
    PoolKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    }
}

/// A WorkerPool `name` on broker `b` with queue `q`: 10 slots a pod, multiplier 1, 0 to 10 pods, revision `r1` proven.
pub fn pool(name: &str) -> PoolInput {
    PoolInput {
        key: Arc::new(key(name)),
        broker: "b".to_owned(),
        queues: vec!["q".into()],
        slots: 10,
        dynamic: None,
        prefetch: Some(1),
        solo: false,
        min: 0,
        max: 10,
        schedules: Arc::default(),
        desired: None,
        cap: None,
        policy: Policy::Backlog,
        scale_down_delay: seconds(60),
        fallback: None,
        hold: None,
        pause: Pause::default(),
        recommend: false,
        overridden_since: None,
        ack_mode: AckMode::Auto,
        revision: "r1".into(),
        revisions: vec![revision("r1", 0, true)],
        pods: Vec::new(),
        bid: Bid::default(),
        conflict: None,
        terminating: false,
    }
}

pub fn revision(name: &str, replicas: u32, proven: bool) -> RevisionInput {
    RevisionInput {
        slots: None,
        name: name.into(),
        replicas,
        created: wall(Moment(0)),
        proven: proven.then(|| wall(Moment(0))),
        failed: false,
        behind: false,
        queues: None,
        refused: None,
        charge: Arc::default(),
        made: replicas,
    }
}

/// A ready pod of `revision` that runs since `since`.
pub fn pod(name: &str, revision: &str, since: Moment) -> PodInput {
    PodInput {
        name: name.into(),
        revision: revision.into(),
        created: wall(since),
        started: Some(wall(since)),
        running_since: Some(since),
        restarted: false,
        ready: true,
        rank: Rank::Ready,
        ready_since: None,
        draining: false,
        due: None,
        mark: None,
        marked: None,
        parked: None,
        returned: false,
        unmarked: None,
        trouble: None,
        charge: Arc::default(),
    }
}

/// Gives a pod a mark, or takes it off, seen since then.
pub fn set_mark(pod: &mut PodInput, mark: Option<Mark>, since: Moment) {
    pod.unmarked = pod.mark.filter(|_| mark.is_none()).map(|_| since);
    pod.returned |= pod.unmarked.is_some();
    pod.mark = mark;
    pod.marked = mark.map(|_| since);
    pod.parked = mark.map(|_| pod.parked.unwrap_or(since));
}

pub fn worker(active: u64, processed: u64, first_seen: Moment, now: Moment) -> WorkerView {
    WorkerView {
        active,
        last_seen: now,
        last_progress: if active > 0 { now } else { first_seen },
        ..WorkerView::new(1, processed, seconds(2), first_seen)
    }
}

/// An answer of a worker that consumes `q` and holds nothing.
pub fn answer() -> Answer {
    Answer {
        queues: ["q".to_owned()].into(),
        pid: 1,
        ..Answer::default()
    }
}

/// Brokers, WorkerPools and what was remembered, on one clock.
pub struct World {
    pub now: Moment,
    pub brokers: BTreeMap<String, BrokerView>,
    pub pools: BTreeMap<String, PoolInput>,
    pub namespaces: BTreeMap<String, Namespace>,
    pub loads: Loads,
    pub unread: std::collections::BTreeSet<String>,
    pub memory: Memory,
    pub last: Cycle,
    /// Marks are seen as soon as they are decided, and as if for long.
    pub marks_at_once: bool,
    /// Node names of workers that were told to stop consuming.
    pub told: BTreeSet<String>,
}

impl World {
    /// Broker `b` with an empty queue `q`, and these WorkerPools. Starts ten minutes after the process did.
    pub fn new(pools: impl IntoIterator<Item = PoolInput>) -> Self {
        let broker = BrokerView {
            address: "redis://b:6379/0".to_owned(),
            unacked_known: true,
            zero_is_suspect: true,
            poll_interval: Duration::from_millis(200),
            queues: [("q".to_owned(), QueueView::default())].into(),
            ..BrokerView::default()
        };
        let mut world = Self {
            now: Moment(600_000),
            brokers: [("b".to_owned(), broker)].into(),
            pools: pools
                .into_iter()
                .map(|pool| (pool.key.name.clone(), pool))
                .collect(),
            loads: Loads::new(),
            unread: std::collections::BTreeSet::new(),
            memory: Memory::default(),
            last: Cycle::default(),
            namespaces: BTreeMap::new(),
            marks_at_once: true,
            told: BTreeSet::new(),
        };
        world.set("q", 0, 0);
        world.beat();
        world
    }

    pub fn rabbitmq(mut self, unacked_known: bool) -> Self {
        let broker = self.broker();
        broker.zero_is_suspect = false;
        broker.unacked_known = unacked_known;
        self
    }

    pub fn broker(&mut self) -> &mut BrokerView {
        self.brokers.get_mut("b").unwrap()
    }

    pub fn pool(&mut self) -> &mut PoolInput {
        self.pools.values_mut().next().unwrap()
    }

    pub fn queue(&mut self, name: &str) -> &mut QueueView {
        self.broker().queues.entry(name.to_owned()).or_default()
    }

    /// A fresh reading of `ready` waiting and `unacked` fetched messages, the latter just now.
    pub fn set(&mut self, queue: &str, ready: u64, unacked: u64) {
        let at = wall(self.now).as_second();
        self.set_fetched(queue, ready, &[(at, unacked)]);
    }

    pub fn set_fetched(&mut self, queue: &str, ready: u64, fetched: &[(i64, u64)]) {
        let now = self.now;
        let redis = self.broker().zero_is_suspect;
        let queue = self.queue(queue);
        queue.ready.succeed(
            Ready {
                count: ready,
                ..Ready::default()
            },
            now,
        );
        let due = fetched.iter().map(|(_, count)| count).sum();
        let list = fetched.iter().filter(|(_, count)| *count > 0 && redis);
        let fetched = list
            .map(|(second, count)| Fetched {
                unix_seconds: *second,
                count: *count,
            })
            .collect();
        queue.unacked.succeed(
            Unacked {
                due,
                fetched,
                ..Unacked::default()
            },
            now,
        );
    }

    /// Heartbeats stand, since moment zero.
    pub fn beat(&mut self) {
        let now = self.now;
        self.broker().heartbeats.succeed(Moment(0), now);
    }

    /// Gives the first WorkerPool a running pod whose worker is heard.
    pub fn add(&mut self, name: &str, active: u64) {
        let now = self.now;
        self.add_silent(name);
        let view = worker(active, active, now, now);
        self.broker().workers.insert(format!("celery@{name}"), view);
    }

    /// The same without a heartbeat.
    pub fn add_silent(&mut self, name: &str) {
        let now = self.now;
        let pool = self.pool();
        let revision = pool.revision.clone();
        pool.pods.push(pod(name, &revision, now));
        pool.revisions
            .iter_mut()
            .find(|one| one.name == revision)
            .unwrap()
            .replicas += 1;
    }

    pub fn worker(&mut self, name: &str) -> &mut WorkerView {
        self.broker().workers.get_mut(&format!("celery@{name}")).unwrap()
    }

    pub fn answered(&mut self, name: &str, change: impl FnOnce(&mut Answer)) {
        let now = self.now;
        let told = self.told.contains(&format!("celery@{name}"));
        let worker = self.worker(name);
        let mut value = answer();
        if told {
            value.queues.clear();
        }
        value.pid = worker.pid;
        value.processed = worker.processed;
        value.asked_at = now;
        change(&mut value);
        worker.asked = Some(now);
        worker.answer = Some(Sample {
            value: Arc::new(value),
            at: now,
        });
    }

    /// A worker that is not heard answers that it consumes these queues.
    pub fn consumes(&mut self, name: &str, queues: &[&str]) {
        let queues = queues.iter().map(|queue| (*queue).to_owned());
        let (asked, value) = (self.now, queues.collect());
        let queues = Some(Sample { value, at: asked });
        let view = UnheardView { asked, queues };
        self.broker().unheard.insert(format!("celery@{name}"), view);
    }

    /// What the broker said is read again, unchanged; heartbeats arrive.
    pub fn renew(&mut self) {
        let now = self.now;
        self.beat();
        for queue in self.broker().queues.values_mut() {
            if let Some(sample) = &mut queue.ready.last {
                sample.at = now;
            }
            if let Some(sample) = &mut queue.unacked.last {
                sample.at = now;
            }
        }
        for worker in self
            .broker()
            .workers
            .values_mut()
            .filter(|worker| !worker.offline)
        {
            worker.last_seen = now;
            if worker.active > 0 {
                worker.last_progress = now;
            }
        }
    }

    /// Whoever was asked and is heard answers that it holds nothing but what it runs.
    pub fn answer_all(&mut self) {
        let asked: Vec<String> = self
            .last
            .decisions
            .values()
            .flat_map(|one| one.ask.clone())
            .collect();
        for node in asked {
            if self.broker().workers.contains_key(&node) {
                self.answered(node.trim_start_matches("celery@"), |_| ());
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let pods = self.pools.values().flat_map(|pool| &pool.pods);
        Snapshot {
            now: self.now,
            wall: wall(self.now),
            brokers: self
                .brokers
                .iter()
                .map(|(id, view)| (id.clone(), Arc::new(view.clone())))
                .collect(),
            pools: self.pools.values().cloned().map(Arc::new).collect(),
            unread: self.unread.clone(),
            namespaces: self
                .namespaces
                .iter()
                .map(|(name, one)| (name.clone(), Arc::new(one.clone())))
                .collect(),
            own_nodes: Arc::new(pods.map(|pod| pod.node().to_owned()).collect()),
            loads: self.loads.clone(),
        }
    }

    pub fn decide(&mut self) -> Decision {
        self.last = cycle(&self.snapshot(), &mut self.memory);
        if self.marks_at_once {
            self.mark(self.now.before(seconds(60)));
        }
        for call in self.last.calls.values() {
            for node in &call.nodes {
                if call.consume {
                    self.told.remove(node);
                } else {
                    self.told.insert(node.clone());
                }
            }
        }
        Decision::clone(self.last.decisions.values().next().unwrap())
    }

    /// Writes the marks, seen since then.
    pub fn mark(&mut self, since: Moment) {
        for pool in self.pools.values_mut() {
            let Some(decision) = self.last.decisions.get(&pool.key) else {
                continue;
            };
            for (name, mark) in &decision.parking.marks {
                if let Some(pod) = pool.pods.iter_mut().find(|pod| pod.name == *name) {
                    set_mark(pod, *mark, since);
                }
            }
        }
    }

    pub fn decision(&self, name: &str) -> &Decision {
        &self.last.decisions[&key(name)]
    }

    /// Lets time pass in steps of 200 ms with everything renewed and everyone answering; the last decision.
    pub fn settle(&mut self, seconds: u64) -> Decision {
        let mut last = self.decide();
        for _ in 0..seconds * 5 {
            self.step();
            last = self.decide();
        }
        last
    }

    /// 200 ms later, all renewed, all answered.
    pub fn step(&mut self) {
        self.now = self.now.after(Duration::from_millis(200));
        self.renew();
        self.answer_all();
    }

    pub fn fail_all(&mut self) {
        let (now, wall) = (self.now, wall(self.now));
        let broker = self.broker();
        broker
            .heartbeats
            .fail(FaultKind::Unreachable, "connection refused", now, wall);
        for queue in broker.queues.values_mut() {
            queue
                .ready
                .fail(FaultKind::Unreachable, "connection refused", now, wall);
            queue
                .unacked
                .fail(FaultKind::Unreachable, "connection refused", now, wall);
        }
    }
}

/// Replicas that stay, parked ones included.
pub fn left(decision: &Decision) -> u32 {
    decision.parking.replicas("r1").expect("a revision r1")
}

/// Three idle pods and an empty queue, seen for 65 s but for what `change` did each time.
pub fn idle(change: impl Fn(&mut World)) -> World {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    for _ in 0..65 * 5 {
        world.step();
        change(&mut world);
        world.decide();
    }
    world
}

/// Marks the running tasks of an answer.
pub fn running(answer: &mut Answer, acknowledged: u64, unacknowledged: u64) {
    answer.running.insert(
        "q".to_owned(),
        Running {
            acknowledged,
            unacknowledged,
            ..Running::default()
        },
    );
}
