//! The eighteen workloads of the suite: what arrives when, how long it takes, and what goes wrong meanwhile.
//!
//! They decide load and misfortune only; no number in here is fitted to a scaler, and none may depend on what a scaler
//! does, because two scalers are compared on the very same tasks. Chance comes from the seed and the workload alone:
//! the seed is the key of the generator and the workload its stream, so that no two workloads share their chance and a
//! new one changes none of the others.
//!
//! Times are seconds in here, as the sources of the figures have them, and become milliseconds where a task is made.

mod arrivals;
mod bursts;
mod level;
mod pools;
mod sizes;
#[cfg(test)]
mod tests;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::scenario::{Millis, Scenario, Task};

pub use bursts::{adversarial, azure_code, azure_conv, cron, mmpp, spikes, square};
pub use level::{diurnal, downstream, long, outage, pareto, poison, slow_start, steady, step};
pub use pools::{pool_shrink, tenants};

/// One workload of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name, the scenario's too.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Makes the scenario of a seed.
    pub make: fn(seed: u64) -> Scenario,
}

/// Every workload, in the order of the suite.
pub const ALL: [Workload; 18] = [
    entry("steady", "20 busy slots, nothing changes", steady),
    entry(
        "diurnal",
        "a day in four hours, the peak 4.3 times the trough",
        diurnal,
    ),
    entry("spikes", "2 000 tasks within a second, every 30 minutes", spikes),
    entry("long", "few tasks of ten minutes, and much longer ones", long),
    entry(
        "pareto",
        "tasks from a third of a second to an hour, heavy-tailed",
        pareto,
    ),
    entry(
        "mmpp",
        "two minutes of rush, eight of calm, at random lengths",
        mmpp,
    ),
    entry(
        "azure-code",
        "arrivals as bursty as a public trace of code requests",
        azure_code,
    ),
    entry(
        "azure-conv",
        "arrivals and sizes of a public trace of conversations",
        azure_conv,
    ),
    entry("cron", "three small jobs every 15 minutes", cron),
    entry(
        "adversarial",
        "small bursts, each just after a timer has let go",
        adversarial,
    ),
    entry("square", "50 busy slots for 400 s, none for 400 s", square),
    entry(
        "tenants",
        "24 hours of 500 queues in 20 Pools, in tiers, of Zipf rates",
        tenants,
    ),
    entry(
        "pool-shrink",
        "four queues whose Pool loses half of its slots",
        pool_shrink,
    ),
    entry("step", "tasks take ten times as long from the middle on", step),
    entry(
        "outage",
        "the load triples where signals are silent, and where they lag; later they are falsely zero for a minute",
        outage,
    ),
    entry(
        "slow-start",
        "10 and 50 busy slots; workers take 180 s to start from the middle on",
        slow_start,
    ),
    entry(
        "downstream",
        "a database that bears less than the peak asks for",
        downstream,
    ),
    entry("poison", "three tasks of a hundred fail ten times", poison),
];

const fn entry(name: &'static str, about: &'static str, make: fn(u64) -> Scenario) -> Workload {
    Workload { name, about, make }
}

/// Most workloads last four hours: long against every hold and cool-down of the field, short enough to run by the
/// hundred.
const LENGTH: f64 = 4.0 * HOUR;

const HOUR: f64 = 3_600.0;

/// The generator of one workload, by its place in the suite, counted from 1.
fn chance(seed: u64, workload: u64) -> ChaCha8Rng {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(workload);
    chance
}

/// Seconds as milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below a day, and not negative
fn millis(seconds: f64) -> Millis {
    (seconds * 1_000.0).round() as Millis
}

/// A scenario of one queue that lasts so many seconds.
fn plain(name: &str, length: f64, tasks: Vec<Task>) -> Scenario {
    Scenario::plain(name, millis(length), tasks)
}
