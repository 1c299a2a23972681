//! How long tasks take a slot, drawn in seconds and cut to whole milliseconds, of which a task takes at least one; and
//! which of them fail.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Bernoulli, Distribution, Exp, LogNormal, StandardUniform};

use super::millis;
use crate::scenario::Task;

/// Exponential of this mean.
pub(super) fn exponential(mean: f64) -> Exp<f64> {
    Exp::new(1.0 / mean).expect("a positive mean")
}

/// Log-normal of this mean and coefficient of variation.
pub(super) fn log_normal(mean: f64, variation: f64) -> LogNormal<f64> {
    LogNormal::from_mean_cv(mean, variation).expect("a positive mean and a variation")
}

/// Pareto cut at both ends, by the inverse of its distribution.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundedPareto {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) shape: f64,
}

impl Distribution<f64> for BoundedPareto {
    fn sample<R: rand_chacha::rand_core::Rng + ?Sized>(&self, chance: &mut R) -> f64 {
        let part: f64 = StandardUniform.sample(chance);
        let cut = 1.0 - (self.low / self.high).powf(self.shape);
        self.low * (1.0 - part * cut).powf(-1.0 / self.shape)
    }
}

/// Tasks of one queue that arrive at these times.
pub(super) fn tasks(
    arrivals: &[f64],
    sizes: &impl Distribution<f64>,
    queue: usize,
    chance: &mut ChaCha8Rng,
) -> Vec<Task> {
    let task = |at: &f64| Task {
        arrives: millis(*at),
        service: millis(sizes.sample(chance)).max(1),
        queue,
        failures: 0,
    };
    arrivals.iter().map(task).collect()
}

/// This share of the tasks fails so often.
pub(super) fn poisoned(tasks: &mut [Task], share: f64, failures: u8, chance: &mut ChaCha8Rng) {
    let fails = Bernoulli::new(share).expect("a share");
    for task in tasks {
        if fails.sample(chance) {
            task.failures = failures;
        }
    }
}
