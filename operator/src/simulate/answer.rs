//! What a fleet did: run, measured and printed.
//!
//! It measures and decides nothing; waits are from a task's publication to its start.

use std::io::{self, Write};

use poolwright_api::text::counted;
use poolwright_sim::outcome::{Outcome, quantile};
use poolwright_sim::poolwright::Poolwright;
use poolwright_sim::world;

use super::world::World;

/// The measures of one run.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Seconds that half, 95 and 99 of 100 tasks waited at most.
    pub(super) waits: [f64; 3],
    /// Part of the tasks that waited longer than their target.
    pub(super) late: f64,
    pub(super) slot_hours: f64,
    /// Most workers at a time, by fleet.
    pub(super) peak: Vec<usize>,
    pub(super) undone: usize,
    pub(super) killed: u64,
    /// How often the slots were filled, if every task took the same time.
    pub(super) waves: Option<u64>,
}

/// Runs it.
pub(super) fn run(world: &World, seed: u64) -> Answer {
    let first = world.settings.first().copied().unwrap_or_default();
    let mut operator = Poolwright::with_each(&world.scenario, first, &world.settings);
    let outcome = world::run(&world.scenario, &mut operator, seed);
    let waits = outcome.sorted_waits();
    #[allow(clippy::cast_precision_loss)]
    let seconds = |part| quantile(&waits, part) as f64 / 1000.0;
    Answer {
        waits: [0.5, 0.95, 0.99].map(seconds),
        late: outcome.late_share(&world.scenario),
        slot_hours: outcome.slot_hours(),
        peak: outcome.peak.clone(),
        undone: outcome.undone,
        killed: outcome.killed,
        waves: waves(world, &outcome),
    }
}

/// For tasks that take the same time: the time from the first start to the last, in that time, and one more.
fn waves(world: &World, outcome: &Outcome) -> Option<u64> {
    let service = world.scenario.tasks.first()?.service;
    if world.scenario.tasks.iter().any(|task| task.service != service) {
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
    let [p50, p95, p99] = answer.waits;
    writeln!(
        output,
        "{}, {}, {}",
        counted(scenario.fleets.len(), "WorkerPool", "WorkerPools"),
        counted(scenario.queues.len(), "TaskQueue", "TaskQueues"),
        counted(scenario.tasks.len(), "task", "tasks")
    )?;
    writeln!(output, "wait p50           {p50:.1} s")?;
    writeln!(output, "wait p95           {p95:.1} s")?;
    writeln!(output, "wait p99           {p99:.1} s")?;
    writeln!(output, "share over target  {:.1} %", 100.0 * answer.late)?;
    writeln!(output, "slot-hours         {:.2}", answer.slot_hours)?;
    if let Some(waves) = answer.waves.filter(|_| burst) {
        writeln!(output, "waves              {waves}")?;
    }
    if answer.undone + usize::try_from(answer.killed).unwrap_or(usize::MAX) > 0 {
        writeln!(
            output,
            "not done           {}",
            counted(answer.undone, "task", "tasks")
        )?;
        writeln!(output, "killed             {}", answer.killed)?;
    }
    writeln!(output, "peak replicas")?;
    for (fleet, peak) in scenario.fleets.iter().zip(&answer.peak) {
        let slots = counted(fleet.slots as usize, "slot", "slots");
        writeln!(
            output,
            "  {:16} {peak} of at most {}, {slots} each",
            fleet.name, fleet.bounds.1
        )?;
    }
    for note in &world.notes {
        writeln!(output, "note: {note}")?;
    }
    Ok(())
}
