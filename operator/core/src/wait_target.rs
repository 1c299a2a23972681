//! How many workers keep the wait of tasks below a target, with the fewest slots.
//!
//! Two needs are weighed, and the larger one wins. *Steady*: slots for the load that comes, so that few wait longer than
//! half of the target. *Backlog*: slots so that what waits now has begun in time; where a new worker could not
//! be up in time any more, it is not chased but done soon after workers could be up. No more slots than there are, or will
//! be, tasks. A *floor* keeps workers warm where the past hour says that waiting for their start would cost more than
//! keeping them. Pure arithmetic on estimates; bounds, confirmation and scale-in are the business of `scaling`.
//!
//! Sources: the staffing rule is Halfin and Whitt's square-root rule with its delay probability; keeping what was
//! needed within one start-up time, as a floor is priced, is the deterministic ski rental, two-competitive.

use std::time::Duration;

use crate::estimate::whole;

/// Part of the target that the steady need and the backlog are planned for: the rest is for what was not foreseen.
pub(crate) const PLANNED: f64 = 0.5;
/// Share of tasks that may wait longer than that under steady load.
const LATE_SHARE: f64 = 0.05;
/// A backlog that cannot be served in time any more is served within the start-up time and so many targets.
const TOO_LATE: f64 = 1.0;
/// Below this load and with nothing to do, no slot is kept.
const NO_LOAD: f64 = 0.5;
/// With nothing to do, a rate is believed at which at most so many tasks would have come since the last one: of a Poisson
/// stream, that none comes then has a chance of a twentieth.
const MISSED: f64 = 3.0;
/// What a slot-second of waiting costs, in slot-seconds of a warm worker.
const WAITING_COSTS: f64 = 4.0;
/// More slots are never asked for: beyond it, a slot more or less is less than a number can tell.
const SLOTS_MAX: f64 = 1e9;
/// Floors that are compared.
const FLOORS: usize = 24;
/// Half minutes of the past without which no floor is thought of: ten minutes.
const PAST_LEAST: usize = 20;
/// A worker is taken to need so long to come up until one was seen to (seconds).
pub const PRIOR_START_UP: f64 = 30.0;

/// What the policy looks at. Times are seconds, sizes slots or tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Tasks that wait, fetched ones that have not started included.
    pub waiting: f64,
    /// For how long the oldest has waited.
    pub age: f64,
    /// Tasks that run.
    pub busy: f64,
    /// Tasks a second that come.
    pub rate: f64,
    /// For how long none has come.
    pub quiet: f64,
    /// Mean time that a task runs, of all that run.
    pub service: f64,
    /// The same of those that come.
    pub coming_service: f64,
    /// The same of those that wait.
    pub waiting_service: f64,
    /// Time from a worker's creation until it takes tasks.
    pub start_up: f64,
    /// Slots of one worker.
    pub slots: f64,
    /// Workers that take tasks.
    pub up: f64,
    /// Workers that will.
    pub starting: f64,
    /// For how long these have been starting, on average.
    pub starting_for: f64,
    /// The target.
    pub target: f64,
}

/// Which need won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Nothing to do, and nothing expected.
    Nothing,
    /// The load that comes.
    Steady,
    /// What waits.
    Backlog,
    /// One worker, because there is something to do.
    One,
    /// Workers that are kept warm.
    Floor,
}

/// What it asks for, and by which numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Workers.
    pub pods: u32,
    /// The same without those that are kept warm.
    pub needed: u32,
    /// Which need won.
    pub term: Term,
    /// Slots for the load that comes, and no more than there will be tasks.
    pub steady: f64,
    /// The same, however many tasks there will be.
    pub unbounded: f64,
    /// Slots for what waits, and no more than there are tasks.
    pub backlog: f64,
    /// The same, however many tasks there are.
    pub uncut: f64,
    /// Workers that are kept warm.
    pub floor: u32,
}

/// The number of workers that the policy asks for.
#[must_use]
pub fn desired(sight: &Sight, floor: u32) -> Wish {
    let unbounded = steady(sight);
    let steady = unbounded.min(most(sight).ceil());
    let uncut = backlog(sight, steady);
    let backlog = uncut.min(sight.busy + sight.waiting);
    let slots = steady.max(backlog);
    let mut pods = whole(slots / sight.slots.max(1.0));
    let mut term = match pods {
        0 => Term::Nothing,
        _ if backlog > steady => Term::Backlog,
        _ => Term::Steady,
    };
    if pods == 0 && sight.waiting + sight.busy > 0.0 {
        (pods, term) = (1, Term::One);
    }
    let needed = pods;
    if floor > pods {
        (pods, term) = (floor, Term::Floor);
    }
    Wish {
        pods,
        needed,
        term,
        steady,
        unbounded,
        backlog,
        uncut,
        floor,
    }
}

/// Most slots that could have a task by the time a new worker is up: what runs, what waits, and what comes meanwhile, with
/// two standard deviations of a Poisson stream.
fn most(sight: &Sight) -> f64 {
    let coming = sight.rate * sight.start_up;
    sight.busy + sight.waiting + coming + 2.0 * coming.sqrt()
}

/// Slots for the load that comes, of which `LATE_SHARE` at most wait longer than the planned part of the target.
fn steady(sight: &Sight) -> f64 {
    let load = sight.rate * sight.coming_service;
    let believed = load.min(MISSED / sight.quiet.max(1e-3) * sight.coming_service);
    if believed < NO_LOAD && sight.waiting + sight.busy == 0.0 {
        return 0.0;
    }
    staff(load, sight.coming_service, PLANNED * sight.target)
}

/// Least number of slots above `load` with which the share of tasks that wait longer than `wait` is at most
/// [`LATE_SHARE`]: `P(wait) × exp(-(n − load) × wait ÷ service)`.
fn staff(load: f64, service: f64, wait: f64) -> f64 {
    if load <= 0.0 {
        return 0.0;
    }
    let load = load.min(SLOTS_MAX);
    let late = |slots: f64| {
        let spare = slots - load;
        delay_probability(spare / load.sqrt()) * (-spare * wait / service.max(1e-3)).exp()
    };
    let (mut low, mut high) = (load.floor(), load.floor() + 1.0);
    while late(high) > LATE_SHARE {
        let step = (high - low) * 2.0;
        (low, high) = (high, high + step);
    }
    while high - low > 1.0 {
        let middle = f64::midpoint(low, high).floor();
        if middle > load && late(middle) <= LATE_SHARE {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// Halfin and Whitt's probability of waiting with `beta` standard deviations of spare slots: `1 ÷ (1 + βΦ(β) ÷ φ(β))`.
fn delay_probability(beta: f64) -> f64 {
    // Beyond this, the density is no number that could be divided by.
    if beta > 8.0 {
        return 0.0;
    }
    let cumulative = 0.5 * libm::erfc(-beta / std::f64::consts::SQRT_2);
    let density = (-beta * beta / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    1.0 / (1.0 + beta * cumulative / density)
}

/// Slots with which what waits has begun in time, however many tasks there are.
fn backlog(sight: &Sight, steady: f64) -> f64 {
    if sight.waiting <= 0.0 {
        return 0.0;
    }
    let service = sight.service.max(1e-3);
    let waiting_service = sight.waiting_service.max(1e-3);
    let slack = PLANNED * sight.target - sight.age;
    // Where a new worker would be late for that, so long after it could be up: the less, the better the target can be kept.
    let horizon = if slack > sight.start_up {
        slack
    } else if sight.target - sight.age > sight.start_up {
        sight.start_up + PLANNED * sight.target
    } else {
        sight.start_up + TOO_LATE * sight.target
    };
    let (up, starting) = (sight.up * sight.slots, sight.starting * sight.slots);
    // Slots that running tasks free by then.
    let freed = if service < horizon {
        sight.busy * horizon / service
    } else {
        sight.busy * (1.0 - (-horizon / service).exp())
    };
    // Tasks that one slot of a new worker begins by then, and one of a worker that has begun to start.
    let begun_after = |start_up: f64| 1.0 + (horizon - start_up.max(0.0)).max(0.0) / waiting_service;
    let each = begun_after(sight.start_up);
    let each_starting = begun_after(sight.start_up - sight.starting_for);
    // Those that are idle begin at once; then those that start; then ever more.
    let at_once = 1.0 + horizon / waiting_service;
    let unserved = (sight.waiting - freed).max(0.0);
    let idle = (up - sight.busy).max(0.0).min(unserved / at_once);
    let unserved = unserved - idle * at_once;
    let coming = starting.min(unserved / each_starting);
    let left = (unserved - coming * each_starting).max(0.0) / each;
    if left > 1e-9 {
        // More may run than there is room for: in workers that do more at a time than they were made for.
        let have = up.max(sight.busy) + starting;
        let spread = steady + sight.waiting / each;
        (have + left).max(spread)
    } else {
        sight.busy + idle + coming
    }
}

/// Workers to keep warm: the number with which the last hour would have cost least, warm workers and waiting together.
/// `occupancy` are tasks in service, one number each `every`, oldest first.
#[must_use]
pub fn floor(
    occupancy: impl ExactSizeIterator<Item = u32>,
    every: Duration,
    start_up: f64,
    slots: u32,
) -> u32 {
    if occupancy.len() < PAST_LEAST {
        return 0;
    }
    let needed: Vec<u32> = occupancy.map(|tasks| tasks.div_ceil(slots.max(1))).collect();
    let lag = (whole(start_up / every.as_secs_f64()) as usize).clamp(1, needed.len());
    // What would have been up: the most that was needed within one start-up time.
    let held: Vec<u32> = (0..needed.len())
        .map(|at| {
            needed[at.saturating_sub(lag)..=at]
                .iter()
                .copied()
                .max()
                .unwrap_or(0)
        })
        .collect();
    let cost = |floor: u32| -> f64 {
        let each = |at: usize| {
            let before = at.checked_sub(lag).map_or(0, |at| held[at]);
            let missing = needed[at].saturating_sub(floor.max(before));
            f64::from(floor.max(held[at])) + WAITING_COSTS * f64::from(missing)
        };
        (0..needed.len()).map(each).sum()
    };
    let mut sorted = needed.clone();
    sorted.sort_unstable();
    let quantile = |part: usize| sorted[part * (sorted.len() - 1) / FLOORS];
    let (mut best, mut last) = ((cost(0), 0), 0);
    for candidate in (0..=FLOORS).map(quantile) {
        if candidate == last {
            continue;
        }
        last = candidate;
        let cost = cost(candidate);
        if cost < best.0 {
            best = (cost, candidate);
        }
    }
    best.1
}

#[cfg(test)]
#[path = "wait_target_tests.rs"]
mod tests;
