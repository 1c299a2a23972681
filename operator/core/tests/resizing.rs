//! The slots of workers while a load is high: how they are told, and what must not happen whatever is lost or late.
#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::collections::VecDeque;

use poolwright_api::v1alpha1::{ConfigMapKeyRef, LoadSource};
use poolwright_core::decision::Decision;
use poolwright_core::resizing::Resize;
use poolwright_core::sample::{Answer, FaultKind, Running, Sample};
use poolwright_core::shedding::{LoadKey, half};
use poolwright_core::snapshot::{Dynamic, Mark};
use poolwright_core::time::Moment;
use proptest::prelude::{ProptestConfig, any, proptest};
use world::{World, pool, revision, seconds, set_mark, wall};

const SLOTS: u32 = 4;

fn key() -> LoadKey {
    LoadKey {
        namespace: "shop".to_owned(),
        source: LoadSource {
            prometheus: None,
            config_map_key_ref: Some(ConfigMapKeyRef {
                name: "load".to_owned(),
                key: "percent".to_owned(),
            }),
        },
    }
}

/// Two workers of four slots that heed a load, running since a minute.
fn new(processes: bool) -> World {
    let mut pool = pool("w");
    (pool.slots, pool.min) = (SLOTS, 2);
    pool.dynamic = Some(Dynamic {
        high_percent: 80,
        load: key(),
        processes,
    });
    let mut world = World::new([pool]);
    world.set("q", 0, 0);
    world.add("a", 0);
    world.add("b", 0);
    world.now = world.now.after(seconds(60));
    world.renew();
    world
}

trait Loaded {
    fn load(&mut self, percent: f64);
    fn sized(&mut self, name: &str, size: u64);
    fn look(&mut self) -> Decision;
    fn resizes(&self) -> Vec<(bool, u64, usize)>;
}

impl Loaded for World {
    fn load(&mut self, percent: f64) {
        let now = self.now;
        self.loads.entry(key()).or_default().succeed(percent, now);
    }

    /// A worker answers, with its size.
    fn sized(&mut self, name: &str, size: u64) {
        self.answered(name, |_| ());
        let at = self.now;
        self.worker(name).size = Some(Sample { value: size, at });
    }

    /// A look 200 ms later.
    fn look(&mut self) -> Decision {
        self.now = self.now.after(std::time::Duration::from_millis(200));
        self.renew();
        self.decide()
    }

    /// What is told: whether to grow, by how much, how many workers.
    fn resizes(&self) -> Vec<(bool, u64, usize)> {
        let told = |(_, one): &(String, Resize)| (one.grow, one.by, one.nodes.len());
        self.last.resizes.iter().map(told).collect()
    }
}

#[test]
fn green_threads_are_halved_in_one_message_once_their_size_is_known_and_given_back() {
    let mut world = new(false);
    world.load(91.0);
    world.look();
    assert_eq!(world.resizes(), []);
    assert_eq!(world.last.sizes["b"], ["celery@a", "celery@b"]);
    world.sized("a", 4);
    world.sized("b", 4);
    let decision = world.look();
    assert_eq!(world.resizes(), [(false, 2, 2)]);
    assert!(
        decision
            .text()
            .ends_with("; workers run 2 of 4 slots: load 91 % is above 80 %"),
        "{}",
        decision.text()
    );
    // Not told again before an answer shows it.
    for _ in 0..40 {
        world.look();
        assert_eq!(world.resizes(), []);
    }
    world.load(91.0);
    world.sized("a", 2);
    world.sized("b", 2);
    let decision = world.look();
    assert_eq!((world.resizes(), decision.facts.slots), (vec![], 4));
    assert!(
        world.last.sizes["b"].is_empty(),
        "as it should be: nobody is asked"
    );
    world.load(80.0);
    world.sized("a", 2);
    world.sized("b", 2);
    let decision = world.look();
    assert_eq!(world.resizes(), [(true, 2, 2)]);
    assert!(
        !decision.text().contains("load") && decision.limits.len() == 1,
        "{}",
        decision.text()
    );
}

/// Only workers of the newest revision are told, and only of what they are told is anything said to be taken.
#[test]
fn workers_of_an_older_revision_are_not_said_to_have_less() {
    let mut world = new(false);
    world.load(91.0);
    let input = world.pool();
    input.revision = "r2".into();
    input.revisions.push(revision("r2", 0, false));
    world.sized("a", 4);
    world.sized("b", 4);
    let decision = world.look();
    assert_eq!((world.resizes(), decision.limits.len()), (vec![], 1));
    let words = "load 91 % is above 80 %: 2 workers keep all, being of an older revision, out of reach, or \
                 holding tasks that are not due";
    assert!(decision.text().ends_with(words), "{}", decision.text());
    // One of the newest has come up, and is told.
    world.add("c", 0);
    world.sized("c", 4);
    let decision = world.look();
    assert_eq!(world.resizes(), [(false, 2, 1)]);
    assert_eq!(
        decision.limits.last().map(|limit| limit.name),
        Some("dynamicConcurrency")
    );
    let words =
        "workers run 2 of 4 slots: load 91 % is above 80 %; 2 workers keep all, being of an older revision";
    assert!(decision.text().contains(words), "{}", decision.text());
}

#[test]
fn a_missing_reading_changes_nothing_and_is_said() {
    let mut world = new(false);
    let (now, time) = (world.now, wall(world.now));
    world
        .loads
        .entry(key())
        .or_default()
        .fail(FaultKind::Implausible, "no such key", now, time);
    world.sized("a", 2);
    world.sized("b", 4);
    let decision = world.look();
    assert_eq!(world.resizes(), [], "nothing is known of the load yet");
    assert_eq!(decision.facts.load_unknown.as_deref(), Some("no such key"));
    world.load(99.0);
    world.look();
    assert_eq!(world.resizes(), [(false, 2, 1)]);
    world.sized("b", 2);
    for _ in 0..200 {
        let decision = world.look();
        assert_eq!(world.resizes(), []);
        assert_eq!(decision.limits.len(), 2, "{}", decision.text());
    }
}

#[test]
fn a_command_that_has_no_effect_is_repeated_after_a_while() {
    let mut world = new(false);
    world.load(99.0);
    world.sized("a", 2);
    world.sized("b", 4);
    world.look();
    assert_eq!(world.resizes(), [(false, 2, 1)]);
    let told = world.now;
    loop {
        world.load(99.0);
        world.sized("b", 4);
        world.look();
        if !world.resizes().is_empty() {
            break;
        }
    }
    let after = world.now.since(told).as_secs();
    assert!((14..16).contains(&after), "{after} s");
}

#[test]
fn parked_draining_older_and_unreadable_workers_are_left_alone() {
    let cases: [fn(&mut World); 4] = [
        |world| {
            let now = world.now;
            set_mark(&mut world.pool().pods[0], Some(Mark::Empty), now);
        },
        |world| world.pool().pods[0].draining = true,
        |world| world.pool().pods[0].revision = "r0".into(),
        |world| world.worker("a").unreadable = Some("pickle".to_owned()),
    ];
    for (index, change) in cases.into_iter().enumerate() {
        let mut world = new(false);
        world.load(99.0);
        world.sized("a", 4);
        world.sized("b", 4);
        change(&mut world);
        world.look();
        assert_eq!(world.resizes(), [(false, 2, 1)], "case {index}");
        assert_eq!(world.last.resizes[0].1.nodes, ["celery@b"], "case {index}");
    }
}

#[test]
fn what_was_taken_is_given_back_when_nothing_heeds_the_load_any_more() {
    let mut world = new(false);
    world.load(99.0);
    world.sized("a", 2);
    world.sized("b", 2);
    world.look();
    world.pool().dynamic = None;
    world.sized("a", 2);
    world.look();
    assert_eq!(world.resizes(), [(true, 2, 2)]);
    world.sized("a", 4);
    world.sized("b", 4);
    world.look();
    world.sized("a", 2);
    world.look();
    assert_eq!(world.resizes(), [], "somebody else does it now");
}

/// Also while a newer one proves itself, or has been given up.
#[test]
fn workers_of_an_older_revision_get_back_what_was_taken() {
    let mut world = new(false);
    world.load(99.0);
    world.sized("a", 2);
    world.sized("b", 2);
    world.look();
    let pool = world.pool();
    (pool.revision, pool.slots) = ("r2".into(), 8);
    pool.revisions[0].slots = Some(4);
    let older = pool.revisions[0].name.clone();
    pool.pods.iter_mut().for_each(|pod| pod.revision = older.clone());
    world.sized("a", 2);
    world.sized("b", 2);
    world.look();
    assert_eq!(world.resizes(), [], "the load is high");
    world.load(10.0);
    world.sized("a", 2);
    world.sized("b", 2);
    world.look();
    assert_eq!(world.resizes(), [(true, 2, 2)]);
}

#[test]
fn a_worker_with_half_its_slots_keeps_what_it_has_fetched() {
    let mut world = new(false);
    world.pool().prefetch = Some(2);
    world.load(99.0);
    world.worker("a").active = 2;
    world.sized("a", 2);
    world.sized("b", 2);
    world.answered("a", |answer| {
        let running = Running {
            acknowledged: 0,
            unacknowledged: 2,
            ..Running::default()
        };
        answer.running.insert("q".to_owned(), running);
        answer.reserved.insert("q".to_owned(), 2);
    });
    world.set("q", 0, 4);
    let decision = world.look();
    let reserved = decision.inputs.iter().find(|input| input.name == "reserved");
    assert_eq!(reserved.map(|input| input.value), Some(2), "{}", decision.text());
}

/// What one worker of processes says two seconds after it has said that it consumes nothing, while the other has half
/// already.
fn told_after(change: impl FnOnce(&mut World)) -> Vec<(bool, u64, usize)> {
    let mut world = new(true);
    world.load(99.0);
    world.sized("a", 4);
    world.sized("b", 2);
    world.look();
    assert_eq!(world.resizes(), [], "it consumes");
    let call = &world.last.calls["b"];
    assert_eq!(
        (call.consume, &call.nodes[..]),
        (false, &["celery@a".to_owned()][..])
    );
    let deaf = |world: &mut World| {
        world.sized("a", 4);
        world.answered("a", |answer| answer.queues.clear());
    };
    deaf(&mut world);
    world.look();
    assert_eq!(world.resizes(), [], "a message may be on its way to it");
    world.now = world.now.after(seconds(2));
    deaf(&mut world);
    change(&mut world);
    world.look();
    world.resizes()
}

#[test]
fn a_worker_of_processes_is_told_when_nothing_can_begin_and_enough_are_free() {
    let says = |change: fn(&mut Answer)| {
        told_after(|world| {
            world.answered("a", |answer| {
                answer.queues.clear();
                change(answer);
            });
        })
    };
    let half = [(false, 2, 1)];
    assert_eq!(told_after(|_| ()), half);
    assert_eq!(says(|answer| runs(answer, 2)), half);
    assert_eq!(says(|answer| runs(answer, 3)), [], "three of four are busy");
    assert_eq!(told_after(|world| world.worker("a").active = 3), []);
    assert_eq!(says(|answer| answer.reserved.extend([("q".to_owned(), 1)])), []);
    assert_eq!(says(|answer| answer.scheduled.extend([("q".to_owned(), 1)])), []);
    assert_eq!(says(|answer| answer.queues.extend(["q".to_owned()])), []);
}

/// It cannot have fewer processes before these have run, and until then it would do nothing at all.
#[test]
fn a_worker_of_processes_that_holds_tasks_for_later_goes_on_with_all_its_slots() {
    let mut world = new(true);
    world.load(99.0);
    for name in ["a", "b"] {
        world.sized(name, 4);
        world.answered(name, |answer| {
            answer.scheduled.insert("q".to_owned(), 1);
        });
    }
    let decision = world.look();
    assert!(!world.last.calls.contains_key("b"), "{:?}", world.last.calls);
    let words =
        "2 workers keep all, being of an older revision, out of reach, or holding tasks that are not due";
    assert!(decision.text().contains(words), "{}", decision.text());
    // They have run.
    for name in ["a", "b"] {
        world.answered(name, |answer| answer.scheduled.clear());
    }
    world.look();
    assert!(!world.last.calls["b"].consume);
}

/// So many tasks.
fn runs(answer: &mut Answer, count: u64) {
    let running = Running {
        acknowledged: count - 1,
        unacknowledged: 1,
        ..Running::default()
    };
    answer.running.insert("q".to_owned(), running);
}

/// A worker as Celery's: what it is told and asked it does in turn.
#[derive(Default)]
struct Worker {
    size: u64,
    /// Processes are made up for a while after they are asked for.
    shown: u64,
    shown_at: Moment,
    running: u64,
    reserved: u64,
    deaf: bool,
    inbox: VecDeque<(Moment, Message)>,
}

#[derive(Clone, Copy)]
enum Message {
    Cancel,
    Add,
    Grow(u64),
    Shrink(u64),
    Ask(Moment),
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Sim {
    world: World,
    workers: [Worker; 2],
    processes: bool,
    random: Random,
    /// Messages are lost, answers are late, workers hang.
    faults: bool,
}

const NAMES: [&str; 2] = ["a", "b"];

impl Sim {
    fn new(processes: bool, seed: u64) -> Self {
        let worker = || Worker {
            size: u64::from(SLOTS),
            shown: u64::from(SLOTS),
            ..Worker::default()
        };
        Self {
            world: new(processes),
            workers: [worker(), worker()],
            processes,
            random: Random(seed),
            faults: true,
        }
    }

    fn run(&mut self, steps: u64, load: f64) {
        for _ in 0..steps {
            self.world.load(load);
            self.work();
            self.world.look();
            self.send();
            for index in 0..2 {
                self.receive(index);
            }
        }
    }

    fn work(&mut self) {
        for (worker, name) in self.workers.iter_mut().zip(NAMES) {
            if !worker.deaf && self.random.below(2) == 0 && worker.reserved < 4 {
                worker.reserved += 1;
            }
            if worker.running > 0 && self.random.below(3) == 0 {
                worker.running -= 1;
            }
            let begin = worker.reserved.min(worker.shown.saturating_sub(worker.running));
            (worker.reserved, worker.running) = (worker.reserved - begin, worker.running + begin);
            if worker.shown_at <= self.world.now {
                worker.shown = worker.size;
            }
            self.world.worker(name).active = worker.running;
        }
    }

    fn post(&mut self, node: &str, message: Message) {
        let index = NAMES.iter().position(|name| node.ends_with(name)).unwrap();
        if self.faults && self.random.below(4) == 0 {
            return;
        }
        // A message before it may still be under way: they arrive in turn.
        let late = if self.faults && self.random.below(10) == 0 {
            30_000
        } else {
            400
        };
        let at = Moment(self.world.now.0 + self.random.below(late));
        let inbox = &mut self.workers[index].inbox;
        let at = inbox.back().map_or(at, |(last, _)| at.max(*last));
        if inbox.len() < 1000 {
            inbox.push_back((at, message));
        }
    }

    fn send(&mut self) {
        let now = self.world.now;
        let last = std::mem::take(&mut self.world.last);
        for call in last.calls.values() {
            for node in &call.nodes {
                self.post(
                    node,
                    if call.consume {
                        Message::Add
                    } else {
                        Message::Cancel
                    },
                );
            }
        }
        for (_, one) in &last.resizes {
            for node in &one.nodes {
                let message = if one.grow {
                    Message::Grow(one.by)
                } else {
                    Message::Shrink(one.by)
                };
                self.post(node, message);
            }
        }
        if now.0.is_multiple_of(600) {
            for name in NAMES {
                self.post(name, Message::Ask(now));
            }
        }
    }

    fn receive(&mut self, index: usize) {
        let now = self.world.now;
        while self.workers[index]
            .inbox
            .front()
            .is_some_and(|(at, _)| *at <= now)
        {
            let (_, message) = self.workers[index].inbox.pop_front().unwrap();
            let worker = &mut self.workers[index];
            match message {
                Message::Cancel => worker.deaf = true,
                Message::Add => worker.deaf = false,
                Message::Grow(by) => {
                    worker.size += by;
                    worker.shown_at = now.after(seconds(if self.processes { 5 } else { 0 }));
                }
                Message::Shrink(by) => {
                    if self.processes {
                        assert!(worker.deaf && worker.reserved == 0, "a task could begin");
                        assert!(worker.running + by <= worker.shown, "a task would be killed");
                    }
                    worker.size -= by;
                    worker.shown_at = now;
                }
                Message::Ask(put) => self.answer(index, put),
            }
            let size = self.workers[index].size;
            assert!(size >= half(SLOTS.into()) && size <= SLOTS.into(), "{size} slots");
        }
    }

    fn answer(&mut self, index: usize, put: Moment) {
        let worker = &self.workers[index];
        let (running, reserved, deaf, shown) = (worker.running, worker.reserved, worker.deaf, worker.shown);
        self.world.answered(NAMES[index], |answer| {
            answer.asked_at = put;
            answer.queues.clear();
            if !deaf {
                answer.queues.insert("q".to_owned());
            }
            let of = |count: u64| (count > 0).then(|| "q".to_owned());
            let unacknowledged = running;
            answer.running.extend(of(running).map(|queue| {
                let acknowledged = 0;
                (
                    queue,
                    Running {
                        acknowledged,
                        unacknowledged,
                        ..Running::default()
                    },
                )
            }));
            answer
                .reserved
                .extend(of(reserved).map(|queue| (queue, reserved)));
        });
        self.world.worker(NAMES[index]).size = Some(Sample {
            value: shown,
            at: put,
        });
    }

    fn expect(&self, size: u64) {
        for worker in &self.workers {
            assert_eq!((worker.size, worker.deaf), (size, false));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_is_lost_or_late_no_task_is_killed_and_all_ends_as_it_should(
        seed in any::<u64>(), processes in any::<bool>(), phases in proptest::collection::vec(any::<bool>(), 1..6)
    ) {
        let mut sim = Sim::new(processes, seed);
        for high in phases {
            sim.run(150, if high { 95.0 } else { 40.0 });
        }
        sim.faults = false;
        sim.run(600, 95.0);
        sim.expect(half(SLOTS.into()));
        sim.run(600, 40.0);
        sim.expect(SLOTS.into());
    }
}
