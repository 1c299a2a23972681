//! The best settings of each peer.
//!
//! It decides by one number, `J = slot-seconds + v · wait-seconds` with v = 1: a second that a task waits costs as much as
//! a second of a slot. Workloads differ by a thousand in what they cost, so the settings with the least *geometric mean*
//! of J over workloads and seeds win, and among equals the first of the grid. A peer gets one setting for all workloads,
//! as Poolwright does, and one for each grace. Seeds are those from [`FIRST_TUNING_SEED`](super::FIRST_TUNING_SEED) on.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::series::parallel;
use super::{Contender, FIRST_TUNING_SEED};
use crate::outcome::Outcome;
use crate::peers::{self, Entry};
use crate::scenario::Scenario;
use crate::workloads::{ALL, Workload};

/// What a wait-second costs, in slot-seconds.
const WAIT_PRICE: f64 = 1.0;

/// J of a run. What never began has waited until the end.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn objective(outcome: &Outcome, scenario: &Scenario) -> f64 {
    let waited = outcome.waited_millis(scenario) as f64;
    (outcome.slot_millis as f64 + WAIT_PRICE * waited) / 1000.0
}

/// Searches every grid on so many seeds, and writes the file that [`tuned`](super::tuned) reads. `done` is told after each
/// scenario: the workload, the seed, how many are done, of how many.
#[must_use]
pub fn tune(seeds: u64, threads: usize, done: impl Fn(&str, u64, usize, usize) + Sync) -> String {
    // All but the day of 500 queues, which costs more than the others together.
    let workloads: Vec<Workload> = ALL.into_iter().filter(|one| one.name != "tenants").collect();
    let seeds: Vec<u64> = (FIRST_TUNING_SEED..FIRST_TUNING_SEED + seeds.max(1)).collect();
    let grids: Vec<Vec<Entry>> = peers::all()
        .iter()
        .map(Entry::tunings)
        .filter(|grid| grid.len() > 1)
        .collect();
    let jobs = workloads.len() * seeds.len();
    let finished = AtomicUsize::new(0);
    let logs = parallel(threads, jobs, &|job| {
        let (workload, seed) = (&workloads[job / seeds.len()], seeds[job % seeds.len()]);
        let scenario = (workload.make)(seed);
        let found: Vec<Vec<f64>> = grids.iter().map(|grid| logs_of(grid, &scenario, seed)).collect();
        done(
            workload.name,
            seed,
            finished.fetch_add(1, Ordering::Relaxed) + 1,
            jobs,
        );
        found
    });
    file(&workloads, &seeds, &grids, &logs)
}

/// ln J of each setting.
fn logs_of(grid: &[Entry], scenario: &Scenario, seed: u64) -> Vec<f64> {
    let log = |entry: &Entry| {
        let outcome = Contender::Peer(entry.clone()).run(scenario, seed);
        objective(&outcome, scenario).max(f64::MIN_POSITIVE).ln()
    };
    grid.iter().map(log).collect()
}

#[allow(clippy::cast_precision_loss)]
fn file(workloads: &[Workload], seeds: &[u64], grids: &[Vec<Entry>], logs: &[Vec<Vec<f64>>]) -> String {
    let names: Vec<&str> = workloads.iter().map(|one| one.name).collect();
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "# The best settings of each peer, made by `poolwright simulate --tune`.\n\
         # Of each grid those with the least geometric mean of J = slot-seconds + 1 x wait-seconds.\n\
         # workloads: {}\n# seeds: {}\n# name | J | settings\n",
        names.join(" "),
        seeds.join(" ")
    );
    for (at, grid) in grids.iter().enumerate() {
        let sum = |place: usize| logs.iter().map(|job| job[at][place]).sum::<f64>();
        let sums = (0..grid.len()).map(|place| (place, sum(place)));
        let Some((place, sum)) = sums.min_by(|a, b| a.1.total_cmp(&b.1)) else {
            continue;
        };
        let entry = &grid[place];
        let mean = (sum / logs.len().max(1) as f64).exp();
        let _ = writeln!(text, "{} | {mean:.0} | {:?}", entry.name(), entry.settings);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Task;

    #[test]
    fn the_objective_adds_slots_and_waits_and_counts_what_never_began() {
        let task = Task {
            arrives: 10_000,
            service: 1000,
            queue: 0,
            failures: 0,
        };
        let scenario = Scenario::plain("two", 60_000, vec![task, task]);
        let mut outcome = Outcome::new(&scenario);
        outcome.started(0, 2500);
        outcome.paid(1, 7000);
        outcome.close(30_000, 1);
        assert!((objective(&outcome, &scenario) - (7.0 + 2.5 + 20.0)).abs() < 1e-9);
    }

    #[test]
    fn the_setting_with_the_least_geometric_mean_is_written() {
        let grid = peers::all()[0].tunings();
        let mut logs = vec![vec![vec![2.0; grid.len()]]; 2];
        // Far better on the small one, a little worse on the large one.
        (logs[0][0][3], logs[1][0][3]) = (1.0, 2.1);
        let text = file(&ALL[..2], &[1001], std::slice::from_ref(&grid), &logs);
        let line = text.lines().last().unwrap();
        assert!(line.ends_with(&format!("{:?}", grid[3].settings)), "{line}");
        assert!(text.contains("# seeds: 1001"), "{text}");
    }
}
