//! Means and their intervals.
//!
//! Seeds are drawn again, with replacement, and the whole statistic is computed of each draw: everybody's results of a
//! seed go together, so that luck that all share cancels out (a paired bootstrap). Its chance is fixed: the same results
//! give the same interval.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws; the ends of an interval are then known to about a hundredth of its width.
const DRAWS: usize = 2000;

/// Parts of the draws that lie below and above a 95 % interval.
const TAIL: f64 = 0.025;

/// The ends of a 95 % confidence interval.
pub type Interval = (f64, f64);

/// The interval of a statistic of seeds, given their places. `None` with fewer than two seeds, or where the statistic
/// does not exist.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
pub fn interval(seeds: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
    if seeds < 2 {
        return None;
    }
    let mut chance = ChaCha8Rng::seed_from_u64(95);
    let mut found = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let pick = |_| (chance.next_u64() % seeds as u64) as usize;
        let picks: Vec<usize> = (0..seeds).map(pick).collect();
        found.push(statistic(&picks)?);
    }
    found.sort_by(f64::total_cmp);
    let at = |part: f64| found[((DRAWS - 1) as f64 * part).round() as usize];
    Some((at(TAIL), at(1.0 - TAIL)))
}

/// The geometric mean of positive numbers; `None` of none.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub(super) fn geo_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}

/// The mean; `None` of none.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_wide_as_the_spread_of_the_mean() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let of = |picks: &[usize]| mean(&picks.iter().map(|at| values[*at]).collect::<Vec<_>>());
        let (low, high) = interval(values.len(), of).unwrap();
        // 49.5 ± 1.96 × 28.9 / √100
        assert!((low - 43.8).abs() < 0.6, "{low}");
        assert!((high - 55.2).abs() < 0.6, "{high}");
        assert_eq!(interval(values.len(), of), Some((low, high)));
    }

    #[test]
    fn one_seed_has_no_interval_and_pairs_cancel_out() {
        assert_eq!(interval(1, |_| Some(1.0)), None);
        assert_eq!(interval(3, |_| None), None);
        let (ours, theirs) = ([1.0, 50.0, 7.0], [2.0, 100.0, 14.0]);
        let ratio = |picks: &[usize]| {
            let sum = |all: &[f64; 3]| picks.iter().map(|at| all[*at]).sum::<f64>();
            Some(sum(&ours) / sum(&theirs))
        };
        assert_eq!(interval(3, ratio), Some((0.5, 0.5)));
    }

    #[test]
    fn means_of_nothing_are_nothing() {
        assert_eq!((mean(&[]), geo_mean(&[])), (None, None));
        assert!((geo_mean(&[1.0, 4.0]).unwrap() - 2.0).abs() < 1e-12);
    }
}
