//! What became of each queue and each Pool, a row for each.

use std::io::{self, Write};

use poolwright_sim::outcome::Outcome;
use poolwright_sim::scenario::Scenario;

use super::waits;

/// What stands where there is nothing to say.
const NOTHING: &str = "-";

#[allow(clippy::cast_precision_loss)] // tasks, slots and their milliseconds: far below 2^52 where they are shown
fn part(of: u128, all: u128) -> f64 {
    of as f64 / all.max(1) as f64
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// Prints the Pools: their slots, the most that was taken of them at a time, and the mean until the last task was over.
pub(super) fn pools(output: &mut impl Write, scenario: &Scenario, outcome: &Outcome) -> io::Result<()> {
    let wide = width("Pool", scenario.budgets.iter().map(|budget| budget.name.as_str()));
    writeln!(
        output,
        "{:wide$}  {:>9}  {:>9}  {:>9}  {:>7}",
        "Pool", "slots", "peak", "mean", "in use"
    )?;
    for (budget, taken) in scenario.budgets.iter().zip(&outcome.taken) {
        let mean = part(taken.slot_millis, outcome.over.into());
        let limit = budget.at(0);
        let slots = limit.map_or_else(|| "unlimited".to_owned(), |slots| slots.to_string());
        let used = limit.filter(|slots| *slots > 0).map_or_else(
            || NOTHING.to_owned(),
            |slots| {
                percent(part(
                    taken.slot_millis,
                    u128::from(slots) * u128::from(outcome.over.max(1)),
                ))
            },
        );
        let (name, peak) = (&budget.name, taken.peak);
        writeln!(
            output,
            "{name:wide$}  {slots:>9}  {peak:>9}  {mean:>9.1}  {used:>7}"
        )?;
    }
    Ok(())
}

/// Prints the queues: their tasks, what these waited, and the queue's part of its Pool's slots while they were scarce.
pub(super) fn queues(output: &mut impl Write, scenario: &Scenario, outcome: &Outcome) -> io::Result<()> {
    let wide = width(
        "TaskQueue",
        scenario.queues.iter().map(|queue| queue.name.as_str()),
    );
    writeln!(
        output,
        "{:wide$}  {:>8}  {:>8}  {:>9}  {:>9}  {:>11}  {:>17}",
        "TaskQueue", "tasks", "not done", "p50", "p95", "over target", "share when scarce"
    )?;
    let mut tasks = vec![Vec::new(); scenario.queues.len()];
    for (at, task) in scenario.tasks.iter().enumerate() {
        tasks[task.queue].push(at);
    }
    let late = outcome.late_shares(scenario);
    for (place, (queue, tasks)) in scenario.queues.iter().zip(tasks).enumerate() {
        let sorted = waits::sorted(scenario, outcome, tasks.iter().copied());
        let undone = tasks.iter().filter(|at| outcome.done[**at].is_none()).count();
        let wait = |part: f64| {
            if sorted.is_empty() {
                NOTHING.to_owned()
            } else {
                format!("{} s", waits::quantile(&sorted, part))
            }
        };
        writeln!(
            output,
            "{:wide$}  {:>8}  {undone:>8}  {:>9}  {:>9}  {:>11}  {:>17}",
            queue.name,
            tasks.len(),
            wait(0.5),
            wait(0.95),
            percent(late[place]),
            share(scenario, outcome, place)
        )?;
    }
    Ok(())
}

/// Its part of the time of all tasks that began while the slots of its Pool were scarce.
fn share(scenario: &Scenario, outcome: &Outcome, place: usize) -> String {
    let budget = scenario.queues[place].budget;
    let sharers = scenario.queues.iter().zip(&outcome.scarce_millis);
    let all: u128 = sharers
        .filter(|(queue, _)| budget.is_some() && queue.budget == budget)
        .map(|(_, millis)| *millis)
        .sum();
    let own = outcome.scarce_millis[place];
    if all == 0 {
        NOTHING.to_owned()
    } else {
        percent(part(own, all))
    }
}

fn width<'a>(head: &str, names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).chain([head.len()]).max().unwrap_or(0)
}
