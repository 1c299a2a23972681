//! How many workers were asked for, over time, by Poolwright and by the peers that it is best compared with.
//!
//! It runs them once more on one seed, because the results keep no history, and takes the most of each column.

use crate::peers::Settings;
use crate::scenario::Millis;
use crate::suite::{Contender, Measured, Results, compare, geo_mean_ratio};
use crate::workloads::Workload;

/// Columns of a chart: more are not seen.
const COLUMNS: u64 = 600;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who.
    pub name: String,
    /// Hours, and workers of all fleets.
    pub points: Vec<(f64, f64)>,
}

/// The lines of every workload of the results.
pub(super) fn all(results: &Results, workloads: &[Workload], seed: u64, threads: usize) -> Vec<Vec<Line>> {
    crate::suite::parallel(threads, results.workloads.len(), &|at| {
        let measured = &results.workloads[at];
        let workload = workloads.iter().find(|one| one.name == measured.name);
        workload.map_or_else(Vec::new, |workload| lines(results, measured, workload, seed))
    })
}

/// The first entrant, its rival on this workload, and the tuned peer that is nearest to the bound over all, among those
/// that scale.
#[must_use]
pub fn lines(results: &Results, measured: &Measured, workload: &Workload, seed: u64) -> Vec<Line> {
    let near = |at: &usize| geo_mean_ratio(results, *at).map_or(f64::INFINITY, |found| found.ratio);
    let scales = |at: &usize| match &results.entrants[*at].contender {
        Contender::Peer(entry) => {
            results.entrants[*at].tuned && !matches!(entry.settings, Settings::Fixed(_) | Settings::Celery(_))
        }
        Contender::Poolwright(_) => false,
    };
    let tuned = (1..results.entrants.len()).filter(scales);
    let mut who = vec![0];
    who.extend(compare(results, measured, 0).rival.map(|rival| rival.entrant));
    who.extend(tuned.min_by(|a, b| near(a).total_cmp(&near(b))));
    who.dedup();
    let scenario = (workload.make)(seed);
    let line = |at: usize| {
        let entrant = &results.entrants[at];
        let outcome = entrant.contender.paced(&scenario).run(&scenario, seed);
        let mut fleets = vec![0; scenario.fleets.len()];
        let totals = outcome.changes.iter().map(|change| {
            fleets[change.fleet] = change.to;
            (change.at, fleets.iter().sum::<u32>())
        });
        Line {
            name: entrant.name.clone(),
            points: columns(totals, scenario.length),
        }
    };
    who.into_iter().map(line).collect()
}

/// Corners of the steps: for each column the most that was asked for in it.
#[allow(clippy::cast_precision_loss)]
fn columns(changes: impl Iterator<Item = (Millis, u32)>, length: Millis) -> Vec<(f64, f64)> {
    let width = (length / COLUMNS).max(1);
    let mut most = vec![0; usize::try_from(length / width + 1).unwrap_or(0)];
    let (mut from, mut now) = (0, 0);
    for (at, total) in changes.take_while(|(at, _)| *at < length).chain([(length, 0)]) {
        let to = usize::try_from(at / width).unwrap_or(0).min(most.len() - 1);
        for column in &mut most[from..=to] {
            *column = now.max(*column);
        }
        (from, now) = (to, total);
    }
    let edge = |column: usize| (column as u64 * width) as f64 / 3_600_000.0;
    let corners = most.iter().enumerate().flat_map(|(column, pods)| {
        [
            (edge(column), f64::from(*pods)),
            (edge(column + 1), f64::from(*pods)),
        ]
    });
    corners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_shows_the_most_of_its_time() {
        // Columns of 6 s: 5 pods for a moment in the second one, 2 from the third to the end.
        let found = columns([(7_000, 5), (7_100, 1), (12_000, 2)].into_iter(), 3_600_000);
        let pods: Vec<f64> = found.iter().step_by(2).map(|(_, pods)| *pods).collect();
        assert_eq!(pods[..4], [0.0, 5.0, 2.0, 2.0]);
        assert!((pods[599] - 2.0).abs() < 1e-9);
        assert!(found.iter().all(|(hour, _)| *hour < 1.01));
    }
}
