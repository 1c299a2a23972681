//! The lower bound against cases worked by hand, and against schedules in the world.

use poolwright_sim::bound::{BoundError, lower_bound, lower_bound_in_bins, lower_bound_on_average};
use poolwright_sim::outcome::Outcome;
use poolwright_sim::scaler::{Scaler, Victims};
use poolwright_sim::scenario::{Budget, Fleet, Millis, Queue, Scenario, StartUp, Task};
use poolwright_sim::world::{World, run};
use proptest::prelude::*;

const SECOND: Millis = 1000;

fn task(arrives: Millis, service: Millis) -> Task {
    Task {
        arrives: arrives * SECOND,
        service: service * SECOND,
        queue: 0,
        failures: 0,
    }
}

/// Start-ups of exactly 30 s.
fn scenario(tasks: Vec<Task>) -> Scenario {
    let length = tasks.iter().map(|task| task.arrives + 1).max().unwrap_or(1);
    let mut scenario = Scenario::plain("bound", length, tasks);
    scenario.start_up[0].spread = 0;
    scenario
}

/// Slot-seconds, in bins of 10 s.
fn seconds(scenario: &Scenario, wait: Millis) -> f64 {
    let bound = lower_bound_in_bins(scenario, Some(wait * SECOND), 10 * SECOND).expect("reachable");
    assert!(bound.gap <= 1e-4, "{bound:?}");
    bound.slot_hours * 3600.0
}

fn assert_near(found: f64, expected: f64) {
    let off = (found - expected) / expected;
    assert!(
        (-1e-4..=1e-9).contains(&off),
        "{found} is not {expected}, or above it"
    );
}

/// One task of 60 s: at once it takes a slot and its start-up. If it may wait 30 s, two thirds of a slot do its work in
/// the 90 s until it has to be done, for the program knows no whole slots.
#[test]
fn one_task() {
    let one = scenario(vec![task(100, 60)]);
    assert_near(seconds(&one, 0), 90.0);
    assert_near(seconds(&one, 30), 60.0 + 30.0 * 60.0 / 90.0);
}

/// Seven tasks at once take seven slots if none may wait.
#[test]
fn simultaneous_tasks_take_a_slot_each() {
    let seven = scenario(vec![task(100, 60); 7]);
    assert_near(seconds(&seven, 0), 7.0 * 90.0);
}

/// Nothing is up before the first start-up has ended, and nobody can do a task that must have begun before.
#[test]
fn nobody_begins_before_a_slot_is_up() {
    let early = scenario(vec![task(0, 60)]);
    let bound = |wait: Millis| lower_bound_in_bins(&early, Some(wait * SECOND), 10 * SECOND);
    assert_eq!(bound(0), Err(BoundError::Unreachable));
    assert_eq!(bound(20), Err(BoundError::Unreachable));
    assert_near(bound(30).unwrap().slot_hours * 3600.0, 90.0);
}

/// A hundred tasks of a minute that may wait an hour: the fewest slots that do it in the time there is.
#[test]
fn patience_spreads_work_over_few_slots() {
    let many = scenario(vec![task(100, 60); 100]);
    assert_near(seconds(&many, 3600), 6000.0 + 30.0 * 6000.0 / 3660.0);
}

/// Two bursts of ten slots: while the gap between them costs less than a start-up, slots are kept.
#[test]
fn slots_are_kept_for_a_burst_that_comes_soon() {
    let bursts = |gap: Millis| {
        let mut tasks = vec![task(100, 60); 10];
        tasks.extend(vec![task(160 + gap, 60); 10]);
        seconds(&scenario(tasks), 0)
    };
    assert_near(bursts(0), 10.0 * (30.0 + 120.0));
    assert_near(bursts(20), 10.0 * (30.0 + 60.0 + 20.0 + 60.0));
    assert_near(bursts(40), 10.0 * (30.0 + 60.0) * 2.0);
    assert_near(bursts(4000), 10.0 * (30.0 + 60.0) * 2.0);
}

/// Four slots do eight tasks in turn and not at once.
#[test]
fn most_slots_bind() {
    let mut eight = scenario(vec![task(100, 60); 8]);
    eight.fleets[0].bounds = (0, 1);
    let bound = |wait: Millis| lower_bound_in_bins(&eight, Some(wait * SECOND), 10 * SECOND);
    assert_eq!(bound(0), Err(BoundError::Unreachable));
    assert_eq!(bound(20), Err(BoundError::Unreachable));
    // Four at once from the arrival on, for 120 s, is the only way.
    assert_near(seconds(&eight, 60), 4.0 * (30.0 + 120.0));
}

/// A queue with a fleet of its own, in a Pool.
fn beside(scenario: &mut Scenario, budget: Option<usize>) -> usize {
    let place = scenario.queues.len();
    scenario.queues.push(Queue {
        name: format!("q{place}"),
        budget,
        ..scenario.queues[0].clone()
    });
    scenario.fleets.push(Fleet {
        name: format!("w{place}"),
        queues: vec![place],
        ..scenario.fleets[0].clone()
    });
    place
}

/// Two queues of a Pool cannot both have four of its six slots, until its budget has grown.
#[test]
fn a_budget_binds_while_it_is_small() {
    let both = |from: Millis, slots: Vec<(Millis, Option<u64>)>| {
        let mut both = scenario(vec![task(from, 60); 4]);
        both.budgets.push(Budget {
            name: "p".to_owned(),
            slots,
            guarantees: Vec::new(),
        });
        both.queues[0].budget = Some(0);
        let queue = beside(&mut both, Some(0));
        both.tasks.extend(vec![
            Task {
                queue,
                ..task(from, 60)
            };
            4
        ]);
        lower_bound_in_bins(&both, Some(0), 10 * SECOND).map(|bound| bound.slot_hours * 3600.0)
    };
    assert_eq!(both(400, vec![(0, Some(6))]), Err(BoundError::Unreachable));
    assert_near(both(400, vec![(0, Some(8))]).unwrap(), 8.0 * 90.0);
    assert_near(
        both(400, vec![(0, Some(6)), (300 * SECOND, None)]).unwrap(),
        8.0 * 90.0,
    );
    // One that sank long ago binds, and one that sinks just then leaves time to end what runs.
    let sinking = |at: Millis| both(400, vec![(0, None), (at * SECOND, Some(6))]);
    assert_eq!(sinking(100), Err(BoundError::Unreachable));
    assert_near(sinking(380).unwrap(), 8.0 * 90.0);
}

/// Slots that one queue leaves serve another without a start-up, if one fleet consumes both.
#[test]
fn queues_of_one_fleet_share_slots() {
    let two = |shared: bool| {
        let mut two = scenario(vec![task(100, 60); 4]);
        let queue = beside(&mut two, None);
        if shared {
            two.fleets.truncate(1);
            two.fleets[0].queues.push(queue);
        }
        two.tasks.extend(vec![
            Task {
                queue,
                ..task(160, 60)
            };
            4
        ]);
        seconds(&two, 0)
    };
    assert_near(two(true), 4.0 * (30.0 + 120.0));
    assert_near(two(false), 8.0 * 90.0);
}

/// The tenth queue makes Pools of what was queues; less is then demanded.
#[test]
fn many_queues_are_taken_together_and_bound_less() {
    let ten = |count: usize| {
        let mut ten = scenario(vec![task(100, 60); 4]);
        for place in 1..count {
            let queue = beside(&mut ten, None);
            ten.tasks.push(Task {
                queue,
                ..task(100 + 60 * place as u64, 60)
            });
        }
        lower_bound_in_bins(&ten, Some(0), 10 * SECOND).unwrap()
    };
    let (apart, together) = (ten(8), ten(9));
    assert!(!apart.aggregate && together.aggregate);
    assert_near(apart.slot_hours * 3600.0, 11.0 * 90.0);
    // All others run where the first four ran.
    assert_near(together.slot_hours * 3600.0, 4.0 * 90.0 + 8.0 * 60.0);
}

/// Runs of a task that fails are work, with no deadline.
#[test]
fn failures_add_their_work() {
    let mut failing = scenario(vec![task(100, 60), task(100, 60)]);
    failing.tasks[1].failures = 2;
    let found = seconds(&failing, 0);
    assert!(
        (90.0 + 3.0 * 60.0..90.0 + 3.0 * 60.0 + 90.0).contains(&(found + 1e-3)),
        "{found}"
    );
}

#[test]
fn no_tasks_cost_nothing() {
    assert!(lower_bound(&scenario(vec![]), None).unwrap().slot_hours.abs() < 1e-12);
}

/// Where start-ups vary, a single run is only sure to pay the shortest, and the mean run more.
#[test]
fn start_ups_that_vary_are_cheaper_for_one_run_than_on_average() {
    let mut one = scenario(vec![task(100, 60)]);
    let hours = |scenario: &Scenario| {
        let sure = lower_bound(scenario, Some(0)).unwrap().slot_hours * 3600.0;
        (
            sure,
            lower_bound_on_average(scenario, Some(0)).unwrap().slot_hours * 3600.0,
        )
    };
    let (sure, mean) = hours(&one);
    assert_near(sure, 90.0);
    assert_near(mean, 90.0);
    one.start_up[0].spread = 6 * SECOND;
    let (sure, mean) = hours(&one);
    assert_near(sure, 63.0);
    assert_near(mean, 90.0 - 0.001);
    // A spread so wide that giving up slow pods would pay.
    one.start_up[0].spread = 30 * SECOND;
    let (_, mean) = hours(&one);
    assert!(63.0 < mean && mean < 75.0, "{mean}");
}

/// Slow start-ups cost only where slots can have come up slowly.
#[test]
fn start_ups_cost_what_they_cost_then() {
    let mut slow = scenario(vec![task(100, 60), task(5000, 60)]);
    slow.start_up.push(StartUp {
        from: 1000 * SECOND,
        mean: 180 * SECOND,
        spread: 0,
    });
    assert_near(seconds(&slow, 0), 90.0 + 240.0);
}

/// Runs so many pods from some times on.
struct Schedule {
    steps: Vec<(Millis, u32)>,
    fleets: usize,
}

impl Scaler for Schedule {
    fn period(&self) -> Millis {
        SECOND
    }

    fn look(&mut self, world: &mut World) {
        let past = self.steps.iter().rev().find(|(at, _)| *at <= world.now);
        let pods = past.map_or(0, |(_, pods)| *pods);
        for fleet in 0..self.fleets {
            world.scale(fleet, pods);
        }
    }
}

/// As many pods as tasks that are there or come soon need, told beforehand.
struct Seer {
    ahead: Millis,
    per_pod: u64,
}

impl Scaler for Seer {
    fn period(&self) -> Millis {
        SECOND
    }

    fn look(&mut self, world: &mut World) {
        let now = world.now;
        let seen = world.seen().unwrap_or_default();
        for fleet in 0..world.scenario.fleets.len() {
            let mine = &world.scenario.fleets[fleet];
            let held = mine
                .queues
                .iter()
                .map(|queue| seen[*queue].ready + seen[*queue].unacked);
            let comes = |task: &&Task| {
                mine.queues.contains(&task.queue) && now < task.arrives && task.arrives <= now + self.ahead
            };
            let need = held.sum::<u64>() + world.scenario.tasks.iter().filter(comes).count() as u64;
            let pods = u32::try_from(need.div_ceil(self.per_pod)).expect("few tasks");
            world.scale(fleet, pods.min(mine.bounds.1));
        }
    }
}

/// The best that can be had if nobody waits: each pod that somebody needs within a start-up is there or on its way.
struct Best {
    start_up: Millis,
}

impl Scaler for Best {
    fn period(&self) -> Millis {
        10 * SECOND
    }

    fn look(&mut self, world: &mut World) {
        let busy_at = |at: Millis| {
            let runs = |task: &&Task| task.arrives <= at && at < task.arrives + task.service;
            world.scenario.tasks.iter().filter(runs).count()
        };
        let soon = (0..=self.start_up / self.period()).map(|step| busy_at(world.now + step * self.period()));
        let pods = u32::try_from(soon.max().unwrap_or(0)).expect("few tasks");
        for pod in &mut world.pods {
            pod.mark = pod.running.is_empty().then_some(0);
        }
        world.scale(0, pods);
    }

    fn victims(&self) -> Victims {
        Victims::Marked
    }
}

/// What the bound speaks of: all done, inside the limits.
fn keeps_limits(scenario: &Scenario, outcome: &Outcome) -> bool {
    let inside = |(fleet, peak): (&Fleet, &usize)| *peak <= fleet.bounds.1 as usize;
    let fleets = scenario.fleets.iter().zip(&outcome.peak).all(inside);
    outcome.undone == 0 && fleets && outcome.overshoot.iter().all(|over| *over == 0)
}

/// Some small scenario: one fleet or two, shared or not, tasks that fail, start-ups that vary.
fn small() -> impl Strategy<Value = Scenario> {
    let tasks = prop::collection::vec((0..900_000_u64, 100..120_000_u64, 0..2_usize, 0..20_u8), 1..40);
    let world = (0..60_000_u64, 0..3_u64, 1..5_u32, any::<(bool, bool, bool)>());
    (tasks, world).prop_map(|(tasks, (mean, spread, slots, (shared, pooled, slow)))| {
        let as_task = |(arrives, service, queue, failures): (u64, u64, usize, u8)| Task {
            arrives,
            service,
            queue,
            failures: failures.saturating_sub(17),
        };
        let mut tasks: Vec<Task> = tasks.into_iter().map(as_task).collect();
        tasks.sort_by_key(|task| task.arrives);
        let mut some = Scenario::plain("small", 900_000, tasks);
        some.fleets[0].slots = slots;
        beside(&mut some, None);
        if shared {
            some.fleets.truncate(1);
            some.fleets[0].queues.push(1);
        }
        if pooled {
            some.budgets.push(Budget {
                name: "p".to_owned(),
                slots: vec![(0, Some(60)), (300_000, Some(30)), (600_000, None)],
                guarantees: Vec::new(),
            });
            some.queues[0].budget = Some(0);
        }
        some.downstream = slow.then_some(poolwright_sim::scenario::Downstream { bears: 6 });
        some.start_up[0] = StartUp {
            from: 0,
            mean,
            spread: mean * spread / 5,
        };
        some
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// No schedule that keeps its waits costs less than the bound for the longest of them.
    #[test]
    fn no_schedule_is_cheaper(
        scenario in small(),
        seed in any::<u64>(),
        pods in 1..8_u32,
        on in 0..300_000_u64,
        ahead in 0..90_000_u64,
    ) {
        let fleets = scenario.fleets.len();
        let fixed = Schedule { steps: vec![(0, pods)], fleets };
        let steps = vec![(0, pods), (on + 100_000, 0), (on + 400_000, 2 * pods)];
        let on_off = Schedule { steps, fleets };
        let per_pod = u64::from(scenario.fleets[0].slots);
        let seer = Seer { ahead, per_pod };
        let scalers: [Box<dyn Scaler>; 3] = [Box::new(fixed), Box::new(on_off), Box::new(seer)];
        for mut scaler in scalers {
            let outcome = run(&scenario, scaler.as_mut(), seed);
            if !keeps_limits(&scenario, &outcome) {
                continue;
            }
            let wait = outcome.waits.iter().flatten().max().copied().unwrap_or(0);
            let bound = lower_bound(&scenario, Some(wait));
            // A schedule that was run is reachable.
            let bound = bound.map_err(|error| TestCaseError::fail(format!("{error}, wait {wait}")))?;
            let cost = outcome.slot_hours();
            prop_assert!(bound.slot_hours <= cost, "{bound:?} above {cost}, wait {wait}");
            let coarse = lower_bound_in_bins(&scenario, Some(wait), 47 * SECOND);
            let coarse = coarse.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(coarse.slot_hours <= cost, "{coarse:?} above {cost}, wait {wait}");
        }
    }

    /// The best schedule without waits costs what the bound says, neither more nor less: workers have one slot, and all
    /// happens at the edges of bins, so that nothing is lost to parts of slots.
    #[test]
    fn the_best_schedule_costs_the_bound(
        tasks in prop::collection::vec((10..60_u64, 1..9_u64), 1..30),
        start_up in 1..7_u64,
        seed in any::<u64>(),
    ) {
        let mut tasks: Vec<Task> = tasks.into_iter().map(|(at, long)| task(10 * at, 10 * long)).collect();
        tasks.sort_by_key(|task| task.arrives);
        let mut exact = scenario(tasks);
        exact.fleets[0].slots = 1;
        exact.start_up[0].mean = start_up * 10 * SECOND;
        let outcome = run(&exact, &mut Best { start_up: exact.start_up[0].mean }, seed);
        prop_assert!(outcome.undone == 0 && outcome.waits.iter().all(|wait| *wait == Some(0)));
        assert_near(seconds(&exact, 0), outcome.slot_hours() * 3600.0);
    }

    /// Patience never costs more, and no bound is below the work.
    #[test]
    fn patience_is_never_dearer(scenario in small(), wait in 0..60_000_u64, more in 0..120_000_u64) {
        let bound = |wait| lower_bound_in_bins(&scenario, Some(wait), 5 * SECOND);
        let Ok(sooner) = bound(wait) else { return Ok(()) };
        let later = bound(wait + more).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(later.slot_hours <= sooner.slot_hours * (1.0 + sooner.gap + 1e-6), "{later:?} {sooner:?}");
        let work: u128 = scenario.tasks.iter().map(|task| u128::from(task.service) * u128::from(task.failures + 1)).sum();
        let mut floor = Outcome::default();
        floor.slot_millis = work;
        let floor = floor.slot_hours();
        prop_assert!(later.slot_hours >= floor * (1.0 - later.gap - 1e-6), "{later:?} {floor}");
    }
}

/// The world draws start-ups from a seed: over a hundred runs of a burst, the mean cost is not below the bound on average.
#[test]
fn the_mean_of_many_runs_is_above_the_bound_on_average() {
    let mut burst = scenario(vec![task(100, 60); 40]);
    burst.start_up[0].spread = 6 * SECOND;
    burst.fleets[0].slots = 1;
    let costs: Vec<(f64, Millis)> = (0..100)
        .map(|seed| {
            let steps = vec![(0, 0), (70 * SECOND, 40), (161 * SECOND, 0)];
            let outcome = run(&burst, &mut Schedule { steps, fleets: 1 }, seed);
            assert_eq!(outcome.undone, 0);
            (
                outcome.slot_hours(),
                *outcome.waits.iter().flatten().max().unwrap(),
            )
        })
        .collect();
    let wait = costs.iter().map(|(_, wait)| *wait).max().unwrap();
    let mean = costs.iter().map(|(cost, _)| cost).sum::<f64>() / 100.0;
    let bound = lower_bound_on_average(&burst, Some(wait)).unwrap();
    assert!(bound.slot_hours <= mean, "{bound:?} {mean}");
}

/// Tasks of a few seconds in bursts and a steady part, as the suite has them.
fn hours(length: Millis, queues: usize) -> Scenario {
    let mut state = 7_u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut tasks = Vec::new();
    let mut at = 0;
    while at < length {
        at += next(600);
        let gap = if (at / 600_000) % 3 == 0 { 1 } else { 8 };
        at += next(200 * gap);
        tasks.push(Task {
            arrives: at,
            service: 500 + next(100) * next(100) * next(20),
            queue: usize::try_from(next(queues as u64)).expect("few queues"),
            failures: u8::from(next(50) == 0),
        });
    }
    let mut some = Scenario::plain("hours", length, tasks);
    for _ in 1..queues {
        beside(&mut some, None);
    }
    some
}

/// Prints how long the solver takes; only an absurd time fails, for nothing else about it is certain.
#[test]
fn four_hours_take_about_a_second() {
    const HOUR: Millis = 3_600_000;
    let pooled = |mut some: Scenario, pools: usize| {
        for (at, queue) in some.queues.iter_mut().enumerate() {
            queue.budget = Some(at % pools);
        }
        let budget = |at| Budget {
            name: format!("p{at}"),
            slots: vec![(0, Some(160)), (HOUR, Some(120))],
            guarantees: Vec::new(),
        };
        some.budgets = (0..pools).map(budget).collect();
        some
    };
    let cases = [
        ("4 h, one queue", hours(4 * HOUR, 1)),
        ("4 h, 4 queues in a Pool", pooled(hours(4 * HOUR, 4), 1)),
        ("4 h, 8 queues in a Pool", pooled(hours(4 * HOUR, 8), 1)),
        ("24 h, one queue", hours(24 * HOUR, 1)),
        ("24 h, 500 queues in 20 Pools", pooled(hours(24 * HOUR, 500), 20)),
    ];
    for (name, some) in cases {
        for wait in [5, 30, 120] {
            let before = std::time::Instant::now();
            let bound = lower_bound_on_average(&some, Some(wait * SECOND));
            let took = before.elapsed();
            println!(
                "{name}: {} tasks, wait {wait} s: {bound:?} in {took:?}",
                some.tasks.len()
            );
            assert!(bound.is_ok());
            assert!(took.as_secs() < 60);
        }
    }
}
