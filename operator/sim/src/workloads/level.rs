//! Workloads whose arrivals are calm, or step between calm levels: what is hard about them is the size of the tasks, or
//! what goes wrong.

use super::arrivals::{Wave, level, poisson};
use super::sizes::{BoundedPareto, exponential, log_normal, poisoned, tasks};
use super::{LENGTH, chance, millis, plain};
use crate::scenario::{Downstream, Fault, FaultKind, Scenario, StartUp};

/// Tasks a second of most workloads in here; with [`SIZE`], 20 busy slots.
const RATE: f64 = 2.0;

/// Mean seconds that a task takes in most workloads in here.
const SIZE: f64 = 10.0;

/// A day's peak is so many times its trough, as published of a large function platform.
const DAY: f64 = 4.3;

/// Poisson, 2 tasks/s of exponential size, mean 10 s: 20 busy slots, 28 800 tasks, 80 slot-hours of work.
///
/// What is the price of standing still? Anything above a few slots of reserve is waste.
#[must_use]
pub fn steady(seed: u64) -> Scenario {
    let mut chance = chance(seed, 1);
    let arrivals = poisson(&[level(0.0, LENGTH, RATE)], &mut chance);
    let tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    plain("steady", LENGTH, tasks)
}

/// As [`steady`] in the mean, with a sine of one period of four hours that begins at the trough: from 0.75 to 3.25
/// tasks/s, a ratio of 4.3.
#[must_use]
pub fn diurnal(seed: u64) -> Scenario {
    let mut chance = chance(seed, 2);
    let wave = Wave {
        length: LENGTH,
        mean: RATE,
        ratio: DAY,
        period: LENGTH,
        trough: 0.0,
    };
    let arrivals = poisson(&wave.pieces(), &mut chance);
    let tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    plain("diurnal", LENGTH, tasks)
}

/// Poisson, 0.05 tasks/s of log-normal size, mean 600 s, coefficient of variation 1.2: 30 busy slots, 720 tasks, 120
/// slot-hours. A worker that is stopped while busy loses more than any reserve costs.
#[must_use]
pub fn long(seed: u64) -> Scenario {
    let mut chance = chance(seed, 4);
    let arrivals = poisson(&[level(0.0, LENGTH, 0.05)], &mut chance);
    let tasks = tasks(&arrivals, &log_normal(600.0, 1.2), 0, &mut chance);
    plain("long", LENGTH, tasks)
}

/// Poisson, 2 tasks/s of Pareto size between 0.3 and 3 600 s of shape 0.69, the published shape of a large cluster's
/// job sizes: mean 11.6 s, coefficient of variation 8.7, 23 busy slots, 28 800 tasks, 93 slot-hours. The longest
/// hundredth of the tasks is 63 % of the work, so an estimate of the mean size is never good.
#[must_use]
pub fn pareto(seed: u64) -> Scenario {
    let mut chance = chance(seed, 5);
    let sizes = BoundedPareto {
        low: 0.3,
        high: 3_600.0,
        shape: 0.69,
    };
    let arrivals = poisson(&[level(0.0, LENGTH, RATE)], &mut chance);
    let tasks = tasks(&arrivals, &sizes, 0, &mut chance);
    plain("pareto", LENGTH, tasks)
}

/// Poisson, 1.25 tasks/s of exponential size: mean 2 s until the middle and 20 s for what arrives later, hence 2.5 and
/// then 25 busy slots, 18 000 tasks, 55 slot-hours. Arrivals tell nothing of the step; only slots and the queue do.
#[must_use]
pub fn step(seed: u64) -> Scenario {
    let mut chance = chance(seed, 14);
    let arrivals = poisson(&[level(0.0, LENGTH, 1.25)], &mut chance);
    let middle = arrivals.partition_point(|at| *at < LENGTH / 2.0);
    let mut all = tasks(&arrivals[..middle], &exponential(2.0), 0, &mut chance);
    all.extend(tasks(&arrivals[middle..], &exponential(20.0), 0, &mut chance));
    plain("step", LENGTH, all)
}

/// As [`steady`], with 6 tasks/s for 20 minutes from 1 h 21 min and from 2 h 41 min. A minute before the first rise the
/// signals fall silent for five minutes, and a minute before the second they begin to lag by 60 s for five minutes: 26.7
/// busy slots, 38 400 tasks, 107 slot-hours. Who holds what it has is late; who takes silence for zero is lost.
///
/// In the second rise, ten minutes after the lag is over, the broker says for a minute that nothing waits and nothing is
/// held, while 60 slots are busy and stay so for five minutes more: who believes it takes away what is at work, and
/// waits for the start of it all anew. What workers say of themselves goes on, for Poolwright as for those peers whose
/// own system asks them.
#[must_use]
pub fn outage(seed: u64) -> Scenario {
    let mut chance = chance(seed, 15);
    let fault = |at: f64, long: f64, kind| Fault {
        from: millis(at),
        to: millis(at + long),
        kind,
    };
    let (silent, lags) = (4_800.0, 9_600.0);
    let mut pieces = Vec::new();
    let mut from = 0.0;
    for at in [silent, lags] {
        let (rise, fall) = (at + 60.0, at + 1_260.0);
        pieces.extend([level(from, rise, RATE), level(rise, fall, 3.0 * RATE)]);
        from = fall;
    }
    pieces.push(level(from, LENGTH, RATE));
    let arrivals = poisson(&pieces, &mut chance);
    let tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    let mut scenario = plain("outage", LENGTH, tasks);
    scenario.faults = vec![
        fault(silent, 300.0, FaultKind::Silence),
        fault(lags, 300.0, FaultKind::Delay(millis(60.0))),
        fault(10_500.0, 60.0, FaultKind::FalseZero),
    ];
    scenario
}

/// Poisson, 1 and 5 tasks/s in turn for 15 minutes each, of exponential size, mean 10 s: 10 and 50 busy slots, 43 200
/// tasks, 120 slot-hours. Workers take 30 s to start (deviation 6 s), and 180 s (36 s) from the middle on, as where an
/// image has to be pulled anew: four rises before it, and four after it that tell who has learnt from the first of them
/// and who asks again and again for what is on its way.
#[must_use]
pub fn slow_start(seed: u64) -> Scenario {
    let mut chance = chance(seed, 16);
    let pieces: Vec<_> = (0..16)
        .map(|turn| (900.0 * f64::from(turn), if turn % 2 == 0 { 1.0 } else { 5.0 }))
        .map(|(from, rate)| level(from, from + 900.0, rate))
        .collect();
    let arrivals = poisson(&pieces, &mut chance);
    let tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    let mut scenario = plain("slow-start", LENGTH, tasks);
    scenario.start_up.push(StartUp {
        from: millis(LENGTH / 2.0),
        mean: millis(180.0),
        spread: millis(36.0),
    });
    scenario
}

/// As [`diurnal`] with 2.4 tasks/s in the mean, hence 24 busy slots and 39 at the peak, on a database that bears 32: at
/// the peak more workers only make each task slower, and a backlog of 2 100 tasks is left for the evening.
/// 34 560 tasks, 96 slot-hours where nothing is crowded.
#[must_use]
pub fn downstream(seed: u64) -> Scenario {
    let mut chance = chance(seed, 17);
    let wave = Wave {
        length: LENGTH,
        mean: 2.4,
        ratio: DAY,
        period: LENGTH,
        trough: 0.0,
    };
    let arrivals = poisson(&wave.pieces(), &mut chance);
    let tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    let mut scenario = plain("downstream", LENGTH, tasks);
    scenario.downstream = Some(Downstream { bears: 32 });
    scenario
}

/// As [`steady`], where three tasks of a hundred fail ten times, each time at their end, and are published again 10 s
/// later: 26 busy slots, 104 slot-hours, of 28 800 tasks that run 37 440 times.
#[must_use]
pub fn poison(seed: u64) -> Scenario {
    let mut chance = chance(seed, 18);
    let arrivals = poisson(&[level(0.0, LENGTH, RATE)], &mut chance);
    let mut tasks = tasks(&arrivals, &exponential(SIZE), 0, &mut chance);
    poisoned(&mut tasks, 0.03, 10, &mut chance);
    plain("poison", LENGTH, tasks)
}
