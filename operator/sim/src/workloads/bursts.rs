//! Workloads whose arrivals are not calm: bursts, phases, lattices, and the shape of two public traces.
//!
//! The two traces are requests to language models, from Azure's public dataset (CC-BY): no row of them is in here, only
//! figures that were fitted to them.

use rand_distr::{Distribution, LogNormal, StandardUniform};

use super::arrivals::{Gaps, Phase, Wave, level, phases, poisson, renewal};
use super::sizes::{exponential, log_normal, tasks};
use super::{HOUR, LENGTH, chance, plain};
use crate::scenario::Scenario;

/// 2 000 tasks within a second at 15 minutes past and 15 to, eight times, of exponential size, mean 2.5 s: 16 000 tasks,
/// 11.1 slot-hours of work. Between them nothing happens, for longer than most cool-downs last.
#[must_use]
pub fn spikes(seed: u64) -> Scenario {
    let mut chance = chance(seed, 3);
    let mut arrivals = Vec::new();
    for spike in 0..8 {
        let at = 900.0 + 1_800.0 * f64::from(spike);
        arrivals.extend((0..2_000).map(|place| at + f64::from(place) / 2_000.0));
    }
    let tasks = tasks(&arrivals, &exponential(2.5), 0, &mut chance);
    plain("spikes", LENGTH, tasks)
}

/// A Poisson process of two phases: 13.6 tasks/s for 120 s in the mean and 0.4 tasks/s for 480 s, of exponential size,
/// mean 5 s. 68 and 2 busy slots, 15.2 in the mean, 43 776 tasks, 61 slot-hours; these differ by a fifth between seeds,
/// as there are but 24 rushes.
#[must_use]
pub fn mmpp(seed: u64) -> Scenario {
    let mut chance = chance(seed, 6);
    let rush = Phase {
        stay: 120.0,
        rate: 13.6,
    };
    let calm = Phase {
        stay: 480.0,
        rate: 0.4,
    };
    let pieces = phases(LENGTH, [calm, rush], &mut chance);
    let arrivals = poisson(&pieces, &mut chance);
    let tasks = tasks(&arrivals, &exponential(5.0), 0, &mut chance);
    plain("mmpp", LENGTH, tasks)
}

/// The gaps that were fitted to the trace of code requests.
const CODE: Gaps = Gaps {
    shape: 0.42,
    mean: 2.921_267_011_725_896,
};

/// 2.57 requests/s, Weibull gaps of shape 0.42, as fitted to a public trace of code requests; sizes log-normal in
/// tokens (2.79, 0.85) at 0.14 s a token: mean 3.3 s, 8.4 busy slots, 37 000 tasks, 33.7 slot-hours.
///
/// A renewal process of that shape alone is far too calm (C² 8.4 where the trace has 173; index of dispersion about 8 in
/// every longer window). So its clock runs in phases only, for 12.2 s in the mean, and rests for 43 s, with the rate of
/// the running phases 4.5 times the mean: the two lengths were solved from the published indices of dispersion, which
/// are 13, 72 and 164 in windows of 1, 10 and 60 s. This gives 15, 73 and 152, and a C² of 178. The price of a
/// token is chosen for the slot-hours.
#[must_use]
pub fn azure_code(seed: u64) -> Scenario {
    let mut chance = chance(seed, 7);
    let (on, off) = (12.2, 43.0);
    let runs = Phase {
        stay: on,
        rate: 2.57 * (on + off) / on,
    };
    let rests = Phase { stay: off, rate: 0.0 };
    let pieces = phases(LENGTH, [rests, runs], &mut chance);
    let arrivals = renewal(&pieces, &CODE.weibull(), &mut chance);
    let tasks = tasks(&arrivals, &tokens(2.79, 0.85, 0.14), 0, &mut chance);
    plain("azure-code", LENGTH, tasks)
}

/// The gaps that were fitted to the trace of conversations.
const CONV: Gaps = Gaps {
    shape: 0.92,
    mean: 1.039_935_846_557_947_6,
};

/// 5.53 requests/s for two hours, Weibull gaps of shape 0.92, as fitted to a public trace of conversations; sizes
/// log-normal in tokens (5.02, 0.86) at 0.1 s a token: mean 21.9 s, 121 busy slots, 39 800 tasks, 242 slot-hours.
///
/// The rate follows a sine of one hour, 1.31 times and 0.69 times the mean, because the published indices of dispersion
/// (1.4, 3.9 and 16 in windows of 1, 10 and 60 s) grow with the window as a slow change of the rate makes them: this
/// gives 1.4, 3.8 and 17. Two hours, so that the slot-hours are those of the reference with 0.1 s a token.
#[must_use]
pub fn azure_conv(seed: u64) -> Scenario {
    let mut chance = chance(seed, 8);
    let length = 2.0 * HOUR;
    let wave = Wave {
        length,
        mean: 5.53,
        ratio: 1.9,
        period: HOUR,
        trough: 0.25,
    };
    let arrivals = renewal(&wave.pieces(), &CONV.weibull(), &mut chance);
    let tasks = tasks(&arrivals, &tokens(5.02, 0.86, 0.1), 0, &mut chance);
    plain("azure-conv", length, tasks)
}

/// Log-normal numbers of tokens, of this mean and deviation of their logarithm, at so many seconds each.
fn tokens(log_mean: f64, log_spread: f64, each: f64) -> LogNormal<f64> {
    LogNormal::new(log_mean + each.ln(), log_spread).expect("a positive deviation")
}

/// Three jobs at 5, 20, 35 and 50 minutes past, each up to a second late, of log-normal size, mean 12 s, coefficient of
/// variation 0.5: 48 tasks, 0.16 slot-hours. Starting a worker costs more than the work.
#[must_use]
pub fn cron(seed: u64) -> Scenario {
    let mut chance = chance(seed, 9);
    let mut arrivals = Vec::new();
    for tick in 0..16 {
        for _job in 0..3 {
            let late: f64 = StandardUniform.sample(&mut chance);
            arrivals.push(300.0 + 900.0 * f64::from(tick) + late);
        }
    }
    arrivals.sort_by(f64::total_cmp);
    let tasks = tasks(&arrivals, &log_normal(12.0, 0.5), 0, &mut chance);
    plain("cron", LENGTH, tasks)
}

/// Idle times after which some scaler of the field lets go: its poll or start-up, a stable window, an idle timer, the
/// hold of a shrinking number, and an idle machine.
const TIMERS: [f64; 5] = [30.0, 60.0, 120.0, 300.0, 600.0];

/// What a burst of [`adversarial`] needs until its last task ends, a cold start included.
const BURST: f64 = 50.0;

/// 40 tasks at once of exponential size, mean 5 s; the next 40 come when each of five timers (30, 60, 120, 300 and
/// 600 s) has just run out, and so on: 54 bursts, 2 160 tasks, 3.0 slot-hours. A timer counts from when the burst is done,
/// which is taken to be 50 s after it came; the next comes 0 to 5 s after the timer.
#[must_use]
pub fn adversarial(seed: u64) -> Scenario {
    let mut chance = chance(seed, 10);
    let mut arrivals = Vec::new();
    let mut at = BURST;
    for timer in TIMERS.into_iter().cycle() {
        if at >= LENGTH {
            break;
        }
        arrivals.extend([at; 40]);
        let late: f64 = StandardUniform.sample(&mut chance);
        at += BURST + timer + 5.0 * late;
    }
    let tasks = tasks(&arrivals, &exponential(5.0), 0, &mut chance);
    plain("adversarial", LENGTH, tasks)
}

/// Poisson, 10 tasks/s of exponential size, mean 5 s, for 400 s, and none for 400 s: 50 busy slots and none, 72 000
/// tasks, 100 slot-hours. The calm is longer than a hold of 300 s, so who holds pays for it and must begin anew.
#[must_use]
pub fn square(seed: u64) -> Scenario {
    let mut chance = chance(seed, 11);
    let pieces: Vec<_> = (0..18)
        .map(|wave| 800.0 * f64::from(wave))
        .map(|from| level(from, from + 400.0, 10.0))
        .collect();
    let arrivals = poisson(&pieces, &mut chance);
    let tasks = tasks(&arrivals, &exponential(5.0), 0, &mut chance);
    plain("square", LENGTH, tasks)
}
