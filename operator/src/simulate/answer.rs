//! What a fleet did: run, measured and printed.
//!
//! It measures and decides nothing; waits are from a task's publication to its start.

use std::io::{self, Write};

use poolwright_api::text::counted;
use poolwright_sim::outcome::Outcome;
use poolwright_sim::poolwright::Poolwright;
use poolwright_sim::scenario::Millis;
use poolwright_sim::world;

use super::rows;
use super::waits::{self, Wait};
use super::world::World;

/// The measures of one run.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// What half, 95 and 99 of 100 tasks waited at most.
    pub(super) waits: [Wait; 3],
    /// Part of the tasks that waited longer than their target.
    pub(super) late: f64,
    /// The same by queue.
    pub(super) late_by_queue: Vec<f64>,
    pub(super) slot_hours: f64,
    pub(super) killed: u64,
    /// Tasks that were left at the end.
    pub(super) undone: usize,
    /// How often the slots were filled, if every task took the same time.
    waves: Option<u64>,
    /// All else.
    outcome: Outcome,
}

/// Runs it.
pub(super) fn run(world: &World, seed: u64) -> Answer {
    let first = world.settings.first().copied().unwrap_or_default();
    let mut operator = Poolwright::with_each(&world.scenario, first, &world.settings);
    let outcome = world::run(&world.scenario, &mut operator, seed);
    let sorted = waits::sorted(&world.scenario, &outcome, 0..world.scenario.tasks.len());
    Answer {
        waits: [0.5, 0.95, 0.99].map(|part| waits::quantile(&sorted, part)),
        late: outcome.late_share(&world.scenario),
        late_by_queue: outcome.late_shares(&world.scenario),
        slot_hours: outcome.slot_hours(),
        killed: outcome.killed,
        undone: outcome.undone,
        waves: waves(world, &outcome),
        outcome,
    }
}

/// For tasks that take the same time: the time from the first start to the last, in that time, and one more.
fn waves(world: &World, outcome: &Outcome) -> Option<u64> {
    let service = world.scenario.tasks.first()?.service;
    if outcome.over_limit > 0 || world.scenario.tasks.iter().any(|task| task.service != service) {
        return None;
    }
    let starts = world.scenario.tasks.iter().zip(&outcome.waits);
    let starts = || {
        starts
            .clone()
            .filter_map(|(task, wait)| Some(task.arrives + (*wait)?))
    };
    Some((starts().max()? - starts().min()?) / service.max(1) + 1)
}

/// Prints it; waves are told where all tasks came at once.
pub(super) fn print(output: &mut impl Write, world: &World, answer: &Answer, burst: bool) -> io::Result<()> {
    let scenario = &world.scenario;
    let outcome = &answer.outcome;
    writeln!(
        output,
        "{}, {}, {}",
        counted(scenario.fleets.len(), "WorkerPool", "WorkerPools"),
        counted(scenario.queues.len(), "TaskQueue", "TaskQueues"),
        counted(scenario.tasks.len(), "task", "tasks")
    )?;
    unfinished(output, outcome, scenario.tasks.len())?;
    let [p50, p95, p99] = answer.waits;
    writeln!(output, "wait p50           {p50} s")?;
    writeln!(output, "wait p95           {p95} s")?;
    writeln!(output, "wait p99           {p99} s")?;
    writeln!(output, "share over target  {:.1} %", 100.0 * answer.late)?;
    writeln!(output, "slot-hours         {:.2}", answer.slot_hours)?;
    if let Some(waves) = answer.waves.filter(|_| burst) {
        writeln!(output, "waves              {waves}")?;
    }
    if answer.killed > 0 {
        writeln!(output, "killed             {}", answer.killed)?;
    }
    writeln!(output, "peak replicas")?;
    for (fleet, peak) in scenario.fleets.iter().zip(&outcome.peak) {
        let slots = counted(fleet.slots as usize, "slot", "slots");
        writeln!(
            output,
            "  {:16} {peak} of at most {}, {slots} each",
            fleet.name, fleet.bounds.1
        )?;
    }
    rows::pools(output, scenario, outcome)?;
    if scenario.queues.len() > 1 {
        rows::queues(output, scenario, outcome)?;
    }
    for note in &world.notes {
        writeln!(output, "note: {note}")?;
    }
    Ok(())
}

/// What was not done, and why, where there is such a thing.
fn unfinished(output: &mut impl Write, outcome: &Outcome, all: usize) -> io::Result<()> {
    let cut = usize::try_from(outcome.over_limit).unwrap_or(usize::MAX);
    if outcome.undone + cut > 0 {
        let undone = outcome.undone + cut;
        writeln!(
            output,
            "not done           {undone} of {}",
            counted(all, "task", "tasks")
        )?;
    }
    if cut > 0 {
        let tasks = counted(cut, "task", "tasks");
        writeln!(output, "over time limit    {tasks}")?;
    }
    if outcome.undone > 0 {
        writeln!(
            output,
            "ended at {} after the start; {} left",
            clock(outcome.ended),
            counted(outcome.undone, "task", "tasks")
        )?;
    }
    Ok(())
}

/// Hours and minutes.
fn clock(time: Millis) -> String {
    let minutes = time / 60_000;
    format!("{}:{:02}", minutes / 60, minutes % 60)
}
