//! The least slot-time for which nobody waits too long, whoever decides.
//!
//! It decides what "×optimum" means: how much of a scenario's cost is forced by the tasks themselves. It may not look at
//! a run, and it may never be too high; where it does not know, it is lower. So it knows every arrival beforehand, lets
//! slots be parts of slots and tasks be interrupted, and reports no solver's word but what a point of the dual proves.
//!
//! # The program
//!
//! It pays for slots while they are up and while they start, and has them work off each task between its arrival and
//! its deadline. Time is cut into bins of length δ that end at `t_1 … t_K`. Queues whose fleets are connected form a
//! *block*, for they share slots. For each block, `n_k` is the mean number of its slots that are up in bin k, draining
//! ones included, `u_k` what came up, and `D_k` what it takes to start one; for each queue, `Y_k` is the work done until
//! `t_k`, and `T` all of it. `U(t)` is the most work that can be done until t, were each task begun as it arrives, and
//! `L(t)` the least, were each begun at its deadline. `S_k` is what fleets and Pools allow:
//!
//! ```text
//! minimise    Σ δ·n_k + Σ D_k·u_k + Σ (T − Y_K)
//! such that   Σ of the block's queues (Y_k − Y_{k−1})  ≤  δ·n_k        work needs slots
//!             n_k − n_{k−1}  ≤  u_k,   0 ≤ u_k                         slots come up
//!             L(t_k)  ≤  Y_k  ≤  U(t_k),   Y_{k−1} ≤ Y_k               deadlines, arrivals
//!             Σ n_k  ≤  S_k                                            fleets and Pools
//! ```
//!
//! # Why it is a lower bound
//!
//! Take any run that does all tasks and in which every wait is at most W. It gives a point of the program that costs no
//! more than the run:
//!
//! * *Work.* Count for a task only its last run, and of that only the task's own `service`: neither killed runs nor a slow
//!   resource behind the tasks make more of it. The run begins between a and a + W, so until t it has done between
//!   `min(s, (t−a−W)⁺)` and `min(s, (t−a)⁺)`; L and U are the sums. `Y_k` is the work done until `t_k` *exactly*, so L and
//!   U are taken at the edges as they are, neither rounded up nor down, and nothing is demanded between two edges. That is
//!   why a coarser bin gives a lower bound too, only a weaker one.
//! * *Slots.* A slot that is up does at most one task at a time, hence `Y_k − Y_{k−1} ≤ δ·n_k` with the mean over the bin.
//! * *Start-up.* A pod costs from its creation, so a slot costs its start-up beside its time up. What the means of two
//!   bins differ by is the mean over s of `n(t_k − s) − n(t_{k−1} − s)`, so all rises of the means together are at most all
//!   rises of n, and each of those is a slot that came up, between `t_{k−2}` and `t_k`. `D_k` is the least start-up of those.
//! * *Failures.* A task that fails runs again, and each of its runs is work that begins no sooner than the ones before
//!   it let it. When it is published again depends on the run, and an [`Outcome`](crate::outcome::Outcome) shows only the
//!   wait of the last publication: these tasks are given no deadline.
//! * *The end.* The horizon ends when the last deadline lets the last task end. What is done after it, by tasks that
//!   fail, costs at least its own time, which is the last term.
//!
//! The bound speaks of runs that keep to the limits: at no time more pods of a fleet than its most, draining ones
//! included, and no Pool above its budget, except that pods stay above a budget that sank as `limits` says. A fleet's
//! least number is not charged. Rounding slots to pods would make the bound sharper, and is not done.

mod blocks;
mod certificate;
mod curves;
mod limits;
mod program;
mod start_up;

use std::fmt;

use crate::scenario::{Millis, Scenario};

/// A solver whose schedule is further than this part from what it proves has not answered.
const GAP: f64 = 0.01;

/// What a lower bound came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The bound, as the dual proves it.
    pub slot_hours: f64,
    /// Part by which the solver's own schedule costs more than the bound; at most 0.01.
    pub gap: f64,
    /// Length of a bin.
    pub bin: Millis,
    /// There were many queues: those of a Pool were taken together, which makes the bound weaker.
    pub aggregate: bool,
}

/// Why there is no bound.
#[derive(Clone, Debug, PartialEq)]
pub enum BoundError {
    /// No schedule inside the limits keeps every wait so short, as far as the solver can tell.
    Unreachable,
    /// The solver gave up; what it said.
    Unsolved(String),
    /// The solver's schedule and the proven bound, in slot-hours, are too far apart.
    Open {
        /// Cost of the schedule.
        schedule: f64,
        /// What is proven.
        proven: f64,
    },
}

impl fmt::Display for BoundError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => write!(to, "no schedule keeps every wait so short"),
            Self::Unsolved(why) => write!(to, "the solver gave up: {why}"),
            Self::Open { schedule, proven } => {
                write!(
                    to,
                    "a schedule costs {schedule} slot-hours, and only {proven} are proven"
                )
            }
        }
    }
}

impl std::error::Error for BoundError {}

/// The least slot-time of any run in which every wait is at most `wait`, or the target of its queue.
///
/// It holds for each single run, however its start-up times fall: where they vary, it takes the shortest that can be. For
/// means over many runs, [`lower_bound_on_average`] is sharper.
///
/// # Errors
///
/// If no schedule keeps such waits, or the solver does not come close enough.
pub fn lower_bound(scenario: &Scenario, wait: Option<Millis>) -> Result<Bound, BoundError> {
    bound(scenario, wait, start_up::Rule::Surely, None)
}

/// The least *expected* slot-time, over start-up times, of any scaler under which every wait is at most `wait`, or the
/// target of its queue.
///
/// The scaler may know all tasks beforehand, but not how long a start-up will take; why the mean may then
/// stand for it is said in `start_up`. A single run with short start-ups can cost less. Where they do not vary, it is
/// [`lower_bound`].
///
/// # Errors
///
/// If no schedule keeps such waits, or the solver does not come close enough.
pub fn lower_bound_on_average(scenario: &Scenario, wait: Option<Millis>) -> Result<Bound, BoundError> {
    bound(scenario, wait, start_up::Rule::OnAverage, None)
}

/// [`lower_bound`] with bins of this length, at least 1.
///
/// # Errors
///
/// As [`lower_bound`].
pub fn lower_bound_in_bins(
    scenario: &Scenario,
    wait: Option<Millis>,
    bin: Millis,
) -> Result<Bound, BoundError> {
    bound(scenario, wait, start_up::Rule::Surely, Some(bin.max(1)))
}

fn bound(
    scenario: &Scenario,
    wait: Option<Millis>,
    rule: start_up::Rule,
    bin: Option<Millis>,
) -> Result<Bound, BoundError> {
    let waits: Vec<Millis> = scenario
        .queues
        .iter()
        .map(|queue| wait.unwrap_or(queue.wait_target))
        .collect();
    let plan = blocks::plan(scenario);
    let grid = curves::Grid::of(scenario, &waits, bin, plan.width);
    let start_up = start_up::StartUps::of(scenario, rule);
    let programs = limits::programs(scenario, &plan, &grid, &waits, &start_up);
    let (mut schedule, mut proven) = (0.0, 0.0);
    for program in programs {
        let point = program::solve(&program)?;
        schedule += certificate::cost(&program, &point);
        proven += certificate::proven(&program, &point);
    }
    let hours = curves::real(grid.bin) / 3_600_000.0;
    let (schedule, proven) = (schedule * hours, proven * hours);
    let gap = (schedule - proven) / schedule.max(f64::MIN_POSITIVE);
    // The schedule may exceed limits by what the solver left, and so cost a little less than is proven.
    if gap.abs() <= GAP {
        Ok(Bound {
            slot_hours: proven,
            gap: gap.max(0.0),
            bin: grid.bin,
            aggregate: plan.aggregate,
        })
    } else {
        Err(BoundError::Open { schedule, proven })
    }
}
