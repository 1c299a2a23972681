//! What the results come to: how far from the bound, and against the best peer that waits no longer.
//!
//! A cost is a sum over seeds, and so is the bound that it is divided by: the bound speaks of means. A run that leaves a
//! task undone did less than the bound is for, and a scenario without a bound has nothing to divide by; of a workload
//! with either there is no ratio, rather than a flattering one.

use super::stats::{Interval, geo_mean, interval, mean};
use super::{Measured, Results, Score};

/// A peer to be measured by.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// Place among the entrants.
    pub entrant: usize,
    /// Its mean p95 wait, in seconds.
    pub p95: f64,
    /// Its mean slot-hours.
    pub slot_hours: f64,
    /// Part of its slot-hours that the first entrant saves; negative where it costs more.
    pub saving: f64,
    /// The interval of that.
    pub interval: Option<Interval>,
}

/// One entrant on one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Cost over the bound.
    pub ratio: Option<f64>,
    /// The interval of that.
    pub interval: Option<Interval>,
    /// Means over seeds: median, p95, p99 and longest wait, in seconds.
    pub waits: [f64; 4],
    /// Mean part of tasks over their target.
    pub late: f64,
    /// Mean slot-hours.
    pub slot_hours: f64,
    /// Mean slot-seconds, where a second of waiting costs a tenth of a slot-second, one, and ten.
    pub objectives: [f64; 3],
    /// Hours that killed tasks had worked, over all seeds.
    pub wasted_hours: f64,
    /// By tier, the highest first: mean p95 wait in seconds.
    pub tiers: Vec<(u32, f64)>,
    /// Mean of the least of Jain's indices, over the seeds that have one.
    pub jain: Option<f64>,
    /// Cost over the bound of any scaler whose longest wait is this entrant's p99; only for the first entrant.
    pub own_ratio: Option<f64>,
    /// Mean changes of direction an hour.
    pub reversals: f64,
    /// Mean writes of a number an hour.
    pub writes: f64,
    /// Mean of the mean seconds from the first task for a fleet without pods until some were asked for, over the seeds in
    /// which there was one.
    pub reply: Option<f64>,
    /// Mean pods made.
    pub created: f64,
    /// Over all seeds, as all that follows: tasks killed.
    pub killed: u64,
    /// Tasks left undone.
    pub undone: usize,
    /// Slots beyond a budget.
    pub overshoot: u64,
    /// Slot-seconds above a budget that had sunk, for longer than leaving it takes.
    pub overstay: f64,
    /// Pods taken away while the signals were lost or falsely zero.
    pub blind: u64,
    /// Pods told to go while they executed something.
    pub drained_busy: u64,
    /// The cheapest tuned peer that finishes everything inside the budgets and waits no longer at p95.
    pub rival: Option<Rival>,
}

/// One entrant on all workloads that have a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overall {
    /// The geometric mean of its cost over the bound.
    pub ratio: f64,
    /// The interval of that.
    pub interval: Option<Interval>,
    /// How many workloads those are.
    pub workloads: usize,
}

/// What a second of waiting costs in [`Comparison::objectives`], in slot-seconds.
pub const PRICES: [f64; 3] = [0.1, 1.0, 10.0];

/// All seeds, each once.
fn once(results: &Results) -> Vec<usize> {
    (0..results.seeds.len()).collect()
}

fn picked(workload: &Measured, entrant: usize, picks: &[usize], of: impl Fn(&Score) -> f64) -> Vec<f64> {
    let scores = picks.iter().map(|at| &workload.cells[*at].scores[entrant]);
    scores.map(of).collect()
}

fn average(workload: &Measured, entrant: usize, picks: &[usize], of: impl Fn(&Score) -> f64) -> f64 {
    mean(&picked(workload, entrant, picks, of)).unwrap_or(0.0)
}

fn cost(workload: &Measured, entrant: usize, picks: &[usize]) -> f64 {
    picked(workload, entrant, picks, |score| score.slot_hours)
        .iter()
        .sum()
}

/// True if it left nothing undone, whatever the seed.
fn finishes(workload: &Measured, entrant: usize) -> bool {
    workload.cells.iter().all(|cell| cell.scores[entrant].undone == 0)
}

/// True if it also made no pod beyond a budget, and left one that sank in the time that leaving takes.
fn allowed(workload: &Measured, entrant: usize) -> bool {
    let mut scores = workload.cells.iter().map(|cell| &cell.scores[entrant]);
    scores.all(|score| score.overshoot == 0 && score.overstay <= 0.0) && finishes(workload, entrant)
}

fn ratio(workload: &Measured, entrant: usize, picks: &[usize]) -> Option<f64> {
    let bounds = picks.iter().map(|at| workload.cells[*at].bound);
    let bound: f64 = bounds.sum::<Option<f64>>()?;
    let ratio = cost(workload, entrant, picks) / bound;
    (bound > 0.0 && ratio > 0.0 && finishes(workload, entrant)).then_some(ratio)
}

/// Cost over the bounds at the first entrant's own p99 waits.
fn own_ratio(workload: &Measured, entrant: usize) -> Option<f64> {
    let bounds = workload.cells.iter().map(|cell| cell.own_bound);
    let bound = bounds.sum::<Option<f64>>().filter(|bound| *bound > 0.0)?;
    let all: Vec<usize> = (0..workload.cells.len()).collect();
    (entrant == 0 && finishes(workload, entrant)).then(|| cost(workload, entrant, &all) / bound)
}

#[allow(clippy::cast_precision_loss)]
fn tiers(workload: &Measured, entrant: usize) -> Vec<(u32, f64)> {
    let first = workload.cells.first().map(|cell| &cell.scores[entrant].tiers);
    let tiers = first.into_iter().flatten().map(|(tier, _)| *tier);
    let of = |tier: u32| {
        let scores = workload.cells.iter().flat_map(|cell| &cell.scores[entrant].tiers);
        let waits: Vec<f64> = scores
            .filter(|(other, _)| *other == tier)
            .map(|(_, wait)| *wait as f64 / 1000.0)
            .collect();
        (tier, mean(&waits).unwrap_or(0.0))
    };
    tiers.map(of).collect()
}

#[allow(clippy::cast_precision_loss)]
fn seconds(score: &Score, at: usize) -> f64 {
    score.waits[at] as f64 / 1000.0
}

fn p95(workload: &Measured, entrant: usize, picks: &[usize]) -> f64 {
    average(workload, entrant, picks, |score| seconds(score, 1))
}

/// The cheapest tuned peer among those that finish, keep to the budgets, and whose mean p95 wait is no longer than the
/// entrant's.
fn rival(results: &Results, workload: &Measured, entrant: usize) -> Option<Rival> {
    let all = once(results);
    let limit = p95(workload, entrant, &all);
    let fits = |at: &usize| {
        let other = &results.entrants[*at];
        *at != entrant && other.tuned && allowed(workload, *at) && p95(workload, *at, &all) <= limit
    };
    let cheaper = |a: &usize, b: &usize| cost(workload, *a, &all).total_cmp(&cost(workload, *b, &all));
    let best = (0..results.entrants.len()).filter(fits).min_by(cheaper)?;
    let saving = |picks: &[usize]| Some(1.0 - cost(workload, entrant, picks) / cost(workload, best, picks));
    Some(Rival {
        entrant: best,
        p95: p95(workload, best, &all),
        slot_hours: average(workload, best, &all, |score| score.slot_hours),
        saving: saving(&all)?,
        interval: interval(all.len(), saving),
    })
}

/// One entrant on one workload.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn compare(results: &Results, workload: &Measured, entrant: usize) -> Comparison {
    let all = once(results);
    let scores = || workload.cells.iter().map(|cell| &cell.scores[entrant]);
    Comparison {
        ratio: ratio(workload, entrant, &all),
        interval: interval(all.len(), |picks| ratio(workload, entrant, picks)),
        waits: [0, 1, 2, 3].map(|at| average(workload, entrant, &all, |score| seconds(score, at))),
        late: average(workload, entrant, &all, |score| score.late),
        slot_hours: average(workload, entrant, &all, |score| score.slot_hours),
        objectives: PRICES.map(|price| average(workload, entrant, &all, |score| score.objective(price))),
        wasted_hours: scores().map(|score| score.wasted_hours).sum(),
        tiers: tiers(workload, entrant),
        jain: mean(&scores().filter_map(|score| score.jain).collect::<Vec<f64>>()),
        reply: mean(&scores().filter_map(|score| score.reply).collect::<Vec<f64>>()),
        own_ratio: own_ratio(workload, entrant),
        reversals: average(workload, entrant, &all, |score| score.reversals),
        writes: average(workload, entrant, &all, |score| score.writes),
        created: average(workload, entrant, &all, |score| score.created as f64),
        killed: scores().map(|score| score.killed).sum(),
        undone: scores().map(|score| score.undone).sum(),
        overshoot: scores().map(|score| score.overshoot).sum(),
        overstay: scores().map(|score| score.overstay).sum(),
        blind: scores().map(|score| score.blind).sum(),
        drained_busy: scores().map(|score| score.drained_busy).sum(),
        rival: rival(results, workload, entrant),
    }
}

fn ratios(results: &Results, entrant: usize, picks: &[usize]) -> Vec<f64> {
    let of = |workload: &Measured| ratio(workload, entrant, picks);
    results.workloads.iter().filter_map(of).collect()
}

/// The geometric mean over workloads of an entrant's cost over the bound.
#[must_use]
pub fn geo_mean_ratio(results: &Results, entrant: usize) -> Option<Overall> {
    let all = once(results);
    let found = ratios(results, entrant, &all);
    Some(Overall {
        ratio: geo_mean(&found)?,
        interval: interval(all.len(), |picks| geo_mean(&ratios(results, entrant, picks))),
        workloads: found.len(),
    })
}

/// The geometric mean over workloads of what the first entrant saves against each one's rival; `rows` are its comparisons,
/// and the rivals are those of all seeds. `ratio` is the part that is saved. `None` where no workload has a rival.
#[must_use]
pub fn geo_mean_saving(results: &Results, rows: &[Comparison]) -> Option<Overall> {
    let all = once(results);
    let rivals = results.workloads.iter().zip(rows);
    let rivals: Vec<(&Measured, usize)> = rivals
        .filter_map(|(workload, row)| Some((workload, row.rival.as_ref()?.entrant)))
        .collect();
    let saving = |picks: &[usize]| {
        let kept =
            |(workload, best): &(&Measured, usize)| cost(workload, 0, picks) / cost(workload, *best, picks);
        Some(1.0 - geo_mean(&rivals.iter().map(kept).collect::<Vec<f64>>())?)
    };
    Some(Overall {
        ratio: saving(&all)?,
        interval: interval(all.len(), saving),
        workloads: rivals.len(),
    })
}

/// The geometric mean over workloads of an entrant's slot-seconds, waiting at the price of one included, over those of the
/// first entrant.
#[must_use]
pub fn geo_mean_objective(results: &Results, entrant: usize) -> Option<f64> {
    let all = once(results);
    let of = |workload: &Measured, entrant| average(workload, entrant, &all, |score| score.objective(1.0));
    let each = results
        .workloads
        .iter()
        .map(|workload| of(workload, entrant) / of(workload, 0));
    geo_mean(&each.collect::<Vec<f64>>())
}

/// The mean over workloads of an entrant's mean p95 wait, in seconds.
#[must_use]
pub fn mean_p95(results: &Results, entrant: usize) -> f64 {
    let all = once(results);
    let each = results
        .workloads
        .iter()
        .map(|workload| p95(workload, entrant, &all));
    mean(&each.collect::<Vec<f64>>()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Cell, entrants};

    /// Two seeds of one workload, with a bound of 10 slot-hours: by entrant, its slot-hours and its p95 wait in seconds.
    fn results(of: &[(f64, u64, bool)]) -> Results {
        let some = entrants().into_iter().take(of.len());
        let entrants = some.zip(of).map(|(mut one, (.., tuned))| {
            one.tuned = *tuned;
            one
        });
        let score = |(slot_hours, wait, _): &(f64, u64, bool)| Score {
            slot_hours: *slot_hours,
            waits: [0, wait * 1000, 0, 0],
            ..Score::default()
        };
        let cell = Cell {
            bound: Some(10.0),
            own_bound: Some(8.0),
            aggregate: false,
            curve: Vec::new(),
            scores: of.iter().map(score).collect(),
        };
        Results {
            entrants: entrants.collect(),
            seeds: vec![1, 2],
            workloads: vec![Measured {
                name: "one",
                cells: vec![cell.clone(), cell],
            }],
        }
    }

    #[test]
    fn the_rival_is_the_cheapest_tuned_one_that_waits_no_longer() {
        let found = results(&[
            (20.0, 30, false),
            (12.0, 31, true),
            (11.0, 30, false),
            (40.0, 30, true),
            (50.0, 1, true),
        ]);
        let rival = compare(&found, &found.workloads[0], 0).rival.unwrap();
        assert_eq!((rival.entrant, rival.slot_hours), (3, 40.0));
        assert!((rival.saving - 0.5).abs() < 1e-12);
        assert_eq!(rival.interval, Some((0.5, 0.5)));
    }

    #[test]
    fn one_that_leaves_tasks_undone_has_no_ratio_and_is_no_rival() {
        let mut found = results(&[(20.0, 30, false), (15.0, 30, true)]);
        found.workloads[0].cells[1].scores[1].undone = 1;
        let [ours, theirs] = [0, 1].map(|at| compare(&found, &found.workloads[0], at));
        assert_eq!((ours.ratio, theirs.ratio, ours.rival), (Some(2.0), None, None));
        assert_eq!(geo_mean_ratio(&found, 1), None);
    }

    #[test]
    fn one_that_exceeds_a_budget_is_no_rival() {
        let mut found = results(&[(20.0, 30, false), (15.0, 30, true), (25.0, 30, true)]);
        found.workloads[0].cells[0].scores[1].overshoot = 4;
        let rival = compare(&found, &found.workloads[0], 0).rival.unwrap();
        assert_eq!(rival.entrant, 2);
        found.workloads[0].cells[1].scores[2].overstay = 0.001;
        assert_eq!(compare(&found, &found.workloads[0], 0).rival, None);
    }

    #[test]
    fn without_a_bound_for_each_seed_there_is_no_ratio() {
        let mut found = results(&[(20.0, 30, false)]);
        found.workloads[0].cells[0].bound = None;
        assert_eq!(compare(&found, &found.workloads[0], 0).ratio, None);
    }

    #[test]
    fn waiting_has_a_price_and_the_bound_at_ones_own_wait_is_for_the_first() {
        let mut found = results(&[(20.0, 30, false), (10.0, 30, true)]);
        for cell in &mut found.workloads[0].cells {
            cell.scores[1].wait_seconds = 36_000.0;
        }
        let row = compare(&found, &found.workloads[0], 1);
        for (found, expected) in row.objectives.iter().zip([39_600.0, 72_000.0, 396_000.0]) {
            assert!((found - expected).abs() < 1e-6, "{:?}", row.objectives);
        }
        assert_eq!(geo_mean_objective(&found, 1), Some(1.0));
        assert_eq!(
            (compare(&found, &found.workloads[0], 0).own_ratio, row.own_ratio),
            (Some(2.5), None)
        );
    }

    #[test]
    fn the_geometric_mean_is_over_workloads_and_that_of_waits_is_not_geometric() {
        let mut found = results(&[(20.0, 10, false)]);
        let mut other = found.workloads[0].clone();
        for cell in &mut other.cells {
            cell.scores[0].slot_hours = 80.0;
            cell.scores[0].waits[1] = 40_000;
        }
        found.workloads.push(other);
        let overall = geo_mean_ratio(&found, 0).unwrap();
        assert!((overall.ratio - 4.0).abs() < 1e-9, "{overall:?}");
        assert_eq!((overall.workloads, mean_p95(&found, 0)), (2, 25.0));
    }

    /// By hand: 60 of 120 slot-hours and 45 of 50 are a half and nine tenths, of which the geometric mean is √0.45 = 0.6708;
    /// so 32.92 % are saved. What has no rival counts for nothing.
    #[test]
    fn the_saving_is_the_geometric_mean_over_workloads_that_have_a_rival() {
        let one = |of: [[f64; 2]; 2], waits: [u64; 2]| {
            let mut found = results(&[(0.0, waits[0], false), (0.0, waits[1], true)]);
            for (cell, hours) in found.workloads[0].cells.iter_mut().zip(of) {
                (cell.scores[0].slot_hours, cell.scores[1].slot_hours) = (hours[0], hours[1]);
            }
            found
        };
        // By seed, ours and theirs.
        let mut found = one([[10.0, 40.0], [50.0, 80.0]], [30, 30]);
        found
            .workloads
            .extend(one([[20.0, 25.0], [25.0, 25.0]], [30, 1]).workloads);
        found
            .workloads
            .extend(one([[1.0, 1000.0], [1.0, 1000.0]], [30, 31]).workloads);
        let rows = |found: &Results| -> Vec<Comparison> {
            let workloads = found.workloads.iter();
            workloads.map(|workload| compare(found, workload, 0)).collect()
        };
        let saved = geo_mean_saving(&found, &rows(&found)).unwrap();
        assert!((saved.ratio - 0.329_18).abs() < 1e-5, "{saved:?}");
        assert_eq!(saved.workloads, 2);
        // The ends are what either seed alone would say: 1 − √(5/8 × 1) and 1 − √(1/4 × 4/5).
        let (low, high) = saved.interval.unwrap();
        assert!(
            (low - 0.209_43).abs() < 1e-5 && (high - 0.552_79).abs() < 1e-5,
            "{saved:?}"
        );
        found.workloads.clear();
        assert_eq!(geo_mean_saving(&found, &[]), None);
        let alone = one([[1.0, 1000.0], [1.0, 1000.0]], [30, 31]);
        assert_eq!(geo_mean_saving(&alone, &rows(&alone)), None);
    }
}
