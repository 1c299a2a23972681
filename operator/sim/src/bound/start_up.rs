//! How long a start-up takes at least, for all that a bound may claim.
//!
//! It decides what a slot that comes up in a bin has cost before, and when the first can be up. It draws nothing: what
//! it says holds for the distribution that the world draws from, a normal one cut at a tenth of the mean and at five
//! standard deviations.

use super::curves::real;
use crate::scenario::{Millis, Scenario, StartUp};

/// What is taken for a start-up time that varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The shortest that the world can draw: a tenth of the mean.
    Surely,
    /// What a slot that comes up costs at least, in expectation.
    ///
    /// A scaler does not know how long a start-up will take, so all it can do is to give up a pod that has taken τ. Then
    /// each pod that comes up costs `E[min(X, τ)] / P(X ≤ τ)` of start-up, those that were given up included, and by
    /// optional stopping that is the least that any rule comes to, whenever it decides. A normal distribution fails ever
    /// more readily, so that this falls with τ, down to the mean: giving up does not pay. Only the part that the cut heaps
    /// up at the shortest could make it pay, at `low / P(X = low)`, where `P = Φ(−(mean − low) / spread)` is at most half of
    /// `exp(−x²/2)` (Chernoff). Between these two τ it only rises and then falls. The lesser of both is taken, the second
    /// halved because a container that runs shows some time before its worker is up that it soon will be.
    OnAverage,
}

/// Start-ups from one time to the next.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// Pods that were created in it come up between these.
    up: (Millis, Millis),
    /// What each has cost by then, at least.
    least: f64,
}

/// The start-ups of a scenario.
#[derive(Clone, Debug)]
pub struct StartUps {
    phases: Vec<Phase>,
    /// Nobody is up before this.
    pub first: Millis,
}

impl StartUps {
    /// Those of this scenario.
    pub fn of(scenario: &Scenario, rule: Rule) -> Self {
        let mut all = scenario.start_up.clone();
        if all.first().is_none_or(|one| one.from > 0) {
            // As `Scenario::start_up_at` has it.
            all.insert(0, scenario.start_up_at(0));
        }
        let ends = all.iter().skip(1).map(|one| one.from).chain([Millis::MAX]);
        let phases: Vec<Phase> = all
            .iter()
            .zip(ends)
            .map(|(one, end)| Phase {
                up: (
                    one.from.saturating_add(shortest(one)),
                    end.saturating_add(one.mean).saturating_add(5 * one.spread),
                ),
                least: match rule {
                    Rule::Surely => real(shortest(one)),
                    Rule::OnAverage => expected(one),
                },
            })
            .collect();
        let first = phases.iter().map(|phase| phase.up.0).min().unwrap_or(0);
        Self { phases, first }
    }

    /// What a slot has cost at least that comes up between these times.
    pub fn least(&self, from: Millis, to: Millis) -> f64 {
        let can = |phase: &&Phase| phase.up.0 <= to && from <= phase.up.1;
        let least = |phases: &mut dyn Iterator<Item = f64>| phases.reduce(f64::min);
        // If none can, none does, and any number is right.
        least(&mut self.phases.iter().filter(can).map(|phase| phase.least)).unwrap_or(0.0)
    }
}

const fn shortest(one: &StartUp) -> Millis {
    if one.spread == 0 { one.mean } else { one.mean / 10 }
}

/// The expectation of [`Rule::OnAverage`]; what the cut above takes from the mean is less than a ten-millionth of the
/// spread, and whole milliseconds take less than one.
fn expected(one: &StartUp) -> f64 {
    if one.spread == 0 {
        return real(one.mean);
    }
    let (mean, spread) = (real(one.mean), real(one.spread));
    let away = 0.9 * mean / spread;
    let heap = 0.1 * mean * (away * away / 2.0).exp();
    (mean.min(heap) - 1.0 - 1e-7 * spread).max(real(shortest(one)))
}
