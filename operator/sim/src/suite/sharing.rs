//! How queues that share a Pool were served: waits by tier, and how evenly a tier shared what was scarce.
//!
//! It decides nothing. That a higher tier waits less is what tiers are for; inside a tier slots should go by weight, and
//! Jain's index of what each got over its weight says in one number how far they did: `(Σx)² ÷ (n Σx²)`, R. Jain, D. Chiu
//! and W. Hawe, "A Quantitative Measure of Fairness", 1984. Only times count in which slots were scarce: a queue that
//! asks for little gets little.

use std::collections::BTreeMap;

use crate::outcome::{Outcome, quantile};
use crate::scenario::{Millis, Scenario};

/// The wait in milliseconds that 95 of 100 tasks do not exceed, by tier, the highest first. Without the tasks that never
/// began.
pub fn tiers(outcome: &Outcome, scenario: &Scenario) -> Vec<(u32, Millis)> {
    let mut waits: BTreeMap<u32, Vec<Millis>> = BTreeMap::new();
    for (task, wait) in scenario.tasks.iter().zip(&outcome.waits) {
        let tier = scenario.queues[task.queue].tier;
        waits.entry(tier).or_default().extend(*wait);
    }
    let p95 = |(tier, mut waits): (u32, Vec<Millis>)| {
        waits.sort_unstable();
        (tier, quantile(&waits, 0.95))
    };
    waits.into_iter().rev().map(p95).collect()
}

/// The least index over the tiers of each Pool in which at least two queues lacked slots.
#[allow(clippy::cast_precision_loss, reason = "hours in milliseconds, far below 2^52")]
pub fn jain(outcome: &Outcome, scenario: &Scenario) -> Option<f64> {
    let mut groups: BTreeMap<(usize, u32), Vec<f64>> = BTreeMap::new();
    for (queue, scarce) in scenario.queues.iter().zip(&outcome.scarce_millis) {
        if let Some(budget) = queue.budget
            && *scarce > 0
        {
            let share = *scarce as f64 / f64::from(queue.weight.max(1));
            groups.entry((budget, queue.tier)).or_default().push(share);
        }
    }
    let some = groups.values().filter(|group| group.len() > 1);
    some.map(|group| index(group)).min_by(f64::total_cmp)
}

#[allow(clippy::cast_precision_loss, reason = "a number of queues")]
fn index(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Budget, Task};

    /// Four queues of one Pool, two of each tier; the second weighs three times as much as the first.
    fn scenario() -> Scenario {
        let task = |queue| Task {
            arrives: 1000,
            service: 1000,
            queue,
            failures: 0,
        };
        let mut scenario = Scenario::plain("shared", 60_000, (0..4).map(task).collect());
        let first = scenario.queues[0].clone();
        scenario.queues = [(100, 1), (100, 3), (50, 1), (50, 1)]
            .map(|(tier, weight)| crate::scenario::Queue {
                tier,
                weight,
                budget: Some(0),
                ..first.clone()
            })
            .to_vec();
        scenario.budgets = vec![Budget {
            name: "db".to_owned(),
            slots: vec![(0, Some(4))],
            guarantees: Vec::new(),
        }];
        scenario
    }

    #[test]
    fn waits_are_by_tier_and_the_highest_comes_first() {
        let scenario = scenario();
        let mut outcome = Outcome::new(&scenario);
        outcome.waits = vec![Some(1), Some(2), Some(30), None];
        assert_eq!(tiers(&outcome, &scenario), [(100, 2), (50, 30)]);
    }

    #[test]
    fn shares_by_weight_are_even_and_the_worst_tier_counts() {
        let scenario = scenario();
        let mut outcome = Outcome::new(&scenario);
        assert_eq!(jain(&outcome, &scenario), None);
        outcome.scarce_millis = vec![1000, 3000, 0, 0];
        assert_eq!(jain(&outcome, &scenario), Some(1.0));
        // One queue alone shares with nobody.
        outcome.scarce_millis = vec![1000, 3000, 500, 0];
        assert_eq!(jain(&outcome, &scenario), Some(1.0));
        outcome.scarce_millis = vec![1000, 3000, 300, 100];
        let found = jain(&outcome, &scenario).unwrap();
        assert!((found - 0.8).abs() < 1e-12, "{found}");
    }
}
