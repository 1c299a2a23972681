//! A scaler that scales at random and measures from the outside.
//!
//! What the world measures is checked by what a scaler can see, and not by a sum inside the world that would be kept at
//! the same places as the figures it is to check. That is exact although a scaler looks only now and then, because of a
//! lattice: everything happens at a multiple of [`STEP`] and nothing takes less, so that whatever happens at the time of
//! a look was due before the look itself was and happens before it. Hence what a look leaves behind lasts a whole step,
//! and the sum over looks is an integral, in whole milliseconds.

use std::collections::BTreeSet;

use poolwright_sim::outcome::Outcome;
use poolwright_sim::scaler::Scaler;
use poolwright_sim::scenario::{Fleet, Millis, Queue, Scenario, StartUp, Task};
use poolwright_sim::world::{PodId, World, run};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Time between two looks.
pub const STEP: Millis = 10;

/// It acts once in so many looks, and checks everything as often.
const ACTS: Millis = 100;

/// It acts at random until this time, and then lets everything end.
const SETTLES: Millis = 200_000;

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub late: bool,
    pub prefetch: u32,
    pub slots: u32,
    /// Grace is shorter than most tasks, or longer than all.
    pub kills: bool,
    /// Some tasks fail before they succeed.
    pub fails: bool,
}

/// What was seen of a run: three integrals over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integrals {
    /// Tasks that were published and not started.
    pub waiting: u128,
    /// Tasks that ran.
    pub busy: u128,
    /// Slots of pods, from creation until they were gone.
    pub slots: u128,
}

impl Integrals {
    fn add(&mut self, state: Self, long: Millis) {
        self.waiting += state.waiting * u128::from(long);
        self.busy += state.busy * u128::from(long);
        self.slots += state.slots * u128::from(long);
    }
}

struct Watch {
    chance: ChaCha8Rng,
    kept: Integrals,
    /// What was left after the last look.
    after: Integrals,
    last: Millis,
    settled: bool,
    fails: bool,
}

/// Runs a setting; what the world measured, and what was seen.
pub fn watch(setting: Setting) -> (Scenario, Outcome, Integrals) {
    let scenario = scenario(setting);
    let mut watch = Watch {
        chance: ChaCha8Rng::seed_from_u64(!setting.seed),
        kept: Integrals::default(),
        after: Integrals::default(),
        last: 0,
        settled: false,
        fails: setting.fails,
    };
    let outcome = run(&scenario, &mut watch, setting.seed);
    let rest = outcome.ended - watch.last;
    assert!(rest == 0 || rest == STEP, "everything is on the lattice");
    let mut seen = watch.kept;
    seen.add(watch.after, rest);
    (scenario, outcome, seen)
}

impl Scaler for Watch {
    fn period(&self) -> Millis {
        STEP
    }

    fn look(&mut self, world: &mut World) {
        self.kept.add(self.after, world.now - self.last);
        self.last = world.now;
        if (world.now / STEP).is_multiple_of(ACTS) {
            check(world, self.fails);
            self.act(world);
            check(world, self.fails);
        }
        self.after = state(world);
    }
}

impl Watch {
    fn below(&mut self, bound: u32) -> u32 {
        self.chance.next_u32() % bound
    }

    /// Scales, parks and unparks at random; at last all are unparked and two of each kind stay.
    fn act(&mut self, world: &mut World) {
        if world.now >= SETTLES {
            if !self.settled {
                for id in everyone(world) {
                    world.unpark(id);
                }
                (0..world.crews.len()).for_each(|fleet| world.scale(fleet, 2));
            }
            self.settled = true;
            return;
        }
        for fleet in 0..world.crews.len() {
            if self.below(8) == 0 {
                let wanted = self.below(6);
                world.scale(fleet, wanted);
            }
        }
        for id in everyone(world) {
            match self.below(16) {
                0 => world.park(id),
                1 | 2 => world.unpark(id),
                _ => {}
            }
        }
    }
}

fn everyone(world: &World) -> Vec<PodId> {
    world.crews.iter().flat_map(|crew| crew.pods.clone()).collect()
}

fn state(world: &World) -> Integrals {
    let mut state = Integrals {
        waiting: world
            .seen()
            .unwrap()
            .iter()
            .map(|queue| u128::from(queue.ready))
            .sum(),
        ..Integrals::default()
    };
    for crew in &world.crews {
        for pod in crew.pods.iter().map(|id| &world.pods[*id]) {
            state.waiting += pod.reserved.len() as u128;
            state.busy += pod.running.len() as u128;
            state.slots += u128::from(world.scenario.fleets[pod.fleet].slots);
        }
    }
    state
}

/// No task is in two places or lost, nobody holds more than it may, and the broker's numbers are those of the workers.
fn check(world: &World, fails: bool) {
    let mut held = BTreeSet::new();
    let mut unacked = vec![0; world.scenario.queues.len()];
    let (mut count, mut busy) = (0, 0);
    for id in everyone(world) {
        let pod = &world.pods[id];
        let fleet = &world.scenario.fleets[pod.fleet];
        let reserved = pod.reserved.iter().map(|(task, _)| *task);
        let running = pod.running.iter().map(|run| run.task);
        assert!(!pod.gone && pod.running.len() <= fleet.slots as usize);
        let acknowledges = if fleet.late { pod.running.len() } else { 0 };
        assert!(pod.reserved.len() + acknowledges <= (fleet.slots * fleet.prefetch) as usize);
        assert!(!pod.draining || pod.reserved.is_empty());
        count += pod.reserved.len() + pod.running.len();
        busy += pod.running.len();
        for task in reserved.clone().chain(running.clone().filter(|_| fleet.late)) {
            unacked[world.scenario.tasks[task].queue] += 1;
        }
        held.extend(reserved.chain(running));
    }
    assert_eq!(held.len(), count, "a task is held twice");
    assert!(held.iter().all(|task| world.outcome.done[*task].is_none()));
    assert_eq!(world.busy() as usize, busy);
    let seen = world.seen().unwrap();
    assert!(seen.iter().map(|queue| queue.unacked).eq(unacked));
    let done = world.outcome.done.iter().flatten().count() as u64;
    let known = seen.iter().map(|queue| queue.ready).sum::<u64>() + count as u64 + done;
    let published: u64 = seen.iter().map(|queue| queue.published).sum();
    assert!(if fails {
        known <= published
    } else {
        known == published
    });
}

/// Two queues and two kinds of workers, one of which consumes both.
fn scenario(setting: Setting) -> Scenario {
    let mut chance = ChaCha8Rng::seed_from_u64(setting.seed);
    let mut below = |bound: u32| u64::from(chance.next_u32() % bound);
    let mut tasks: Vec<Task> = (0..300)
        .map(|_| Task {
            arrives: below(15_000) * STEP,
            service: (1 + below(1_000)) * STEP,
            queue: usize::from(below(2) == 0),
            failures: u8::from(setting.fails && below(8) == 0) * 2,
        })
        .collect();
    tasks.sort_by_key(|task| task.arrives);
    let mut scenario = Scenario::plain("lattice", 150_000, tasks);
    scenario.queues.push(Queue {
        name: "other".to_owned(),
        ..scenario.queues[0].clone()
    });
    let both = Fleet {
        queues: vec![0, 1],
        slots: setting.slots,
        prefetch: setting.prefetch,
        late: setting.late,
        grace: if setting.kills { 1_000 } else { 1_000_000 },
        ..scenario.fleets[0].clone()
    };
    let second = Fleet {
        queues: vec![1],
        ..both.clone()
    };
    scenario.fleets = vec![both, second];
    scenario.start_up = vec![StartUp {
        from: 0,
        mean: 2_000,
        spread: 0,
    }];
    scenario
}
