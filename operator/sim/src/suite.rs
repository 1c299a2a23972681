//! Who is compared on what, and how a run is scored.
//!
//! Every contender meets the very same tasks: a scenario is made from its seed before anybody runs on it. This module
//! runs and scores; what is printed or drawn of it is decided elsewhere.
//!
//! * `series` runs workloads × seeds × entrants, and knows the lower bound of each.
//! * `stats` and `compare` say what that comes to, with intervals over seeds.
//! * `sharing` says how queues that share a Pool were served.
//! * `tune` searches the settings of the peers, on seeds that are never scored; `tuned` holds what it found.
//! * `table` prints.

mod compare;
mod series;
mod sharing;
mod stats;
mod table;
mod tune;
pub mod tuned;

pub use compare::{
    Comparison, Overall, PRICES, Rival, compare, geo_mean_objective, geo_mean_ratio, geo_mean_saving,
    mean_p95,
};
pub use series::{Cell, Entrant, Measured, Plan, Results, entrants, parallel};
pub use stats::{Interval, interval};
pub use table::{details, table};
pub use tune::{objective, tune};

/// Scoring takes the seeds 1, 2, 3 …; tuning begins here, so that no peer is scored on what it was tuned on.
pub const FIRST_TUNING_SEED: u64 = 1001;

/// Most seeds that can be scored, so that the two never meet.
pub const SEEDS_MAX: u64 = FIRST_TUNING_SEED - 1;

use crate::outcome::{Outcome, quantile};
use crate::peers;
use crate::poolwright::{Poolwright, Settings};
use crate::scenario::{Millis, Scenario};
use crate::world::run;

/// Somebody who scales.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// Poolwright's cycle.
    Poolwright(Settings),
    /// A peer's rule.
    Peer(peers::Entry),
}

impl Contender {
    /// A short name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Poolwright(settings) if settings.wait_target => "poolwright".to_owned(),
            Self::Poolwright(_) => "poolwright-backlog".to_owned(),
            Self::Peer(entry) => entry.name(),
        }
    }

    /// Runs on a scenario; chance of the world is the seed's.
    #[must_use]
    pub fn run(&self, scenario: &Scenario, seed: u64) -> Outcome {
        match self {
            Self::Poolwright(settings) => run(scenario, &mut Poolwright::new(scenario, *settings), seed),
            Self::Peer(entry) => {
                let (scenario, mut scaler) = entry.on(scenario);
                run(&scenario, scaler.as_mut(), seed)
            }
        }
    }
}

/// What one run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Waits in milliseconds: median, and those that 95 and 99 of 100 tasks do not exceed, and the longest.
    pub waits: [Millis; 4],
    /// Part of the tasks that waited longer than their queue's target, or never started.
    pub late: f64,
    /// Slot-hours that were paid for.
    pub slot_hours: f64,
    /// Seconds that all tasks waited together; what never began has waited until the end.
    pub wait_seconds: f64,
    /// Hours that killed tasks had worked.
    pub wasted_hours: f64,
    /// The wait in milliseconds that 95 of 100 tasks do not exceed, by tier, the highest first.
    pub tiers: Vec<(u32, Millis)>,
    /// The least of Jain's indices over tiers of a Pool: 1 if scarce slots were shared by weight, 1 ÷ queues if one had
    /// all. `None` where no two queues of a tier ever lacked slots.
    pub jain: Option<f64>,
    /// Pods that were made.
    pub created: u64,
    /// Writes of a number an hour.
    pub writes: f64,
    /// Mean seconds from the first task for a fleet without pods until some were asked for; `None` where there was none.
    pub reply: Option<f64>,
    /// Changes of direction an hour.
    pub reversals: f64,
    /// Tasks that were killed.
    pub killed: u64,
    /// Pods that were told to go while they executed something.
    pub drained_busy: u64,
    /// Tasks that were not done at the end.
    pub undone: usize,
    /// Slots of pods that were made beyond a budget.
    pub overshoot: u64,
    /// Seconds for which slots were above a budget that had sunk, for longer than leaving it takes.
    pub overstay: f64,
    /// Pods that were taken away while the signals were lost or falsely zero.
    pub blind: u64,
}

impl Score {
    /// What it came to in slot-seconds, if a second that a task waits costs as much as `price` of them.
    #[must_use]
    pub fn objective(&self, price: f64) -> f64 {
        3600.0f64.mul_add(self.slot_hours, price * self.wait_seconds)
    }

    /// Scores a run.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub fn of(outcome: &Outcome, scenario: &Scenario) -> Self {
        let waits = outcome.sorted_waits();
        let hours = outcome.ended.max(1) as f64 / 3_600_000.0;
        Self {
            waits: [0.5, 0.95, 0.99, 1.0].map(|part| quantile(&waits, part)),
            late: outcome.late_share(scenario),
            slot_hours: outcome.slot_hours(),
            wait_seconds: outcome.waited_millis(scenario) as f64 / 1000.0,
            wasted_hours: outcome.wasted_millis as f64 / 3_600_000.0,
            tiers: sharing::tiers(outcome, scenario),
            jain: sharing::jain(outcome, scenario),
            created: outcome.created,
            writes: outcome.changes.len() as f64 / hours,
            reply: stats::mean(
                &outcome
                    .replies(scenario)
                    .iter()
                    .map(|reply| *reply as f64 / 1000.0)
                    .collect::<Vec<f64>>(),
            ),
            reversals: outcome.reversals.iter().sum::<u64>() as f64 / hours,
            killed: outcome.killed,
            drained_busy: outcome.drained_busy,
            undone: outcome.undone,
            overshoot: outcome.overshoot.iter().sum(),
            overstay: outcome.taken.iter().map(|one| one.overstay_millis).sum::<u128>() as f64 / 1000.0,
            blind: outcome.blind,
        }
    }
}
