//! `poolwright simulate`: what a fleet would do, and how far Poolwright and others are from what is possible.
//!
//! Reads files, runs the simulator and prints; decides nothing about scaling. Progress goes to the error output, so that
//! the answer can be kept in a file.

mod answer;
mod arrivals;
mod cheaper;
#[cfg(test)]
pub(crate) mod fuzzed;
mod notes;
mod rows;
#[cfg(test)]
mod tests;
mod waits;
mod world;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use poolwright_sim::report;
use poolwright_sim::suite::{Plan, Results, entrants, table, tune};
use poolwright_sim::workloads::{ALL, Workload};

use self::answer::Answer;
use self::arrivals::Queues;
use self::world::World;
use crate::cli::SimulateArgs;
use crate::input;
use crate::lint::fleet;

/// Threads of a run: more would not help the longest workload.
const THREADS_MAX: usize = 2;
/// Seeds where none are asked for.
const SUITE_SEEDS: u64 = 5;
const TUNE_SEEDS: u64 = 2;
/// Chance of the run of a user's own fleet: one seed, so that two settings meet the same start-up times.
const FLEET_SEED: u64 = 1;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Does what is asked for.
///
/// # Errors
///
/// A file that cannot be read or used, or an output that cannot be written.
pub fn run(
    args: &SimulateArgs,
    output: &mut impl Write,
    progress: &mut (impl Write + Send),
) -> Result<(), Failure> {
    if args.suite {
        suite(args, output, progress)
    } else if args.tune {
        let file = tune(args.seeds.unwrap_or(TUNE_SEEDS), threads(), tell(progress));
        Ok(output.write_all(file.as_bytes())?)
    } else {
        own_fleet(args, output)
    }
}

fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX)
}

/// Says what is done; that nobody reads it is no reason to stop.
fn tell(progress: &mut (impl Write + Send)) -> impl Fn(&str, u64, usize, usize) + Sync {
    let progress = Mutex::new(progress);
    move |workload, seed, done, all| {
        if let Ok(mut progress) = progress.lock() {
            let _ = writeln!(progress, "{done}/{all} {workload}, seed {seed}");
        }
    }
}

fn suite(
    args: &SimulateArgs,
    output: &mut impl Write,
    progress: &mut (impl Write + Send),
) -> Result<(), Failure> {
    let wanted =
        |one: &Workload| args.workloads.is_empty() || args.workloads.iter().any(|name| name == one.name);
    let plan = Plan {
        workloads: ALL.into_iter().filter(wanted).collect(),
        seeds: (1..=args.seeds.unwrap_or(SUITE_SEEDS)).collect(),
        entrants: entrants(),
        threads: threads(),
    };
    // Before the run, which takes minutes.
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
    }
    let results = plan.run(tell(progress));
    if let Some(folder) = &args.report {
        page(&results, &plan, folder)?;
    }
    Ok(output.write_all(table(&results).as_bytes())?)
}

fn page(results: &Results, plan: &Plan, folder: &Path) -> Result<(), Failure> {
    let page = report::page(results, &plan.workloads, plan.threads)?;
    let file = folder.join("index.html");
    std::fs::write(&file, page).map_err(|error| named(&file, &error))?;
    Ok(())
}

fn own_fleet(args: &SimulateArgs, output: &mut impl Write) -> Result<(), Failure> {
    let (world, answer) = as_written(args, output)?;
    let found = cheaper::search(&world, &answer, FLEET_SEED, threads());
    cheaper::print(output, &found, &world.scenario.queues)?;
    Ok(())
}

/// Runs a fleet with the settings that it has, and prints what came of it.
fn as_written(args: &SimulateArgs, output: &mut impl Write) -> Result<(World, Answer), Failure> {
    let fleet = match fleet::read(&args.files)? {
        Ok(fleet) => fleet,
        Err(report) => return Err(report.to_string().trim_end().into()),
    };
    let mut world = world::of(&fleet, args.start_up_millis)?;
    world.scenario.begins = args.begins_at;
    let consumed = world.queue_names();
    let names = fleet.queues.keys().map(String::as_str);
    let idle = names.filter(|name| !consumed.contains(name)).collect();
    let queues = Queues { consumed, idle };
    let tasks = if let Some(file) = &args.arrivals {
        arrivals::csv(&text(file)?, &queues).map_err(|error| format!("{}:{error}", file.display()))?
    } else if let Some(file) = &args.trace {
        let queue = arrivals::one_queue(args.queue.as_deref(), &queues)?;
        arrivals::trace(&text(file)?, queue).map_err(|error| format!("{}:{error}", file.display()))?
    } else {
        arrivals::at_once(args.tasks, args.service_millis, queues.consumed.len())
    };
    let burst = args.arrivals.is_none() && args.trace.is_none();
    world.take(tasks);
    let answer = answer::run(&world, FLEET_SEED);
    answer::print(output, &world, &answer, burst)?;
    Ok((world, answer))
}

/// A file of arrivals, bounded.
fn text(path: &Path) -> Result<String, Failure> {
    let text = input::read_at_most(path, arrivals::FILE_BYTES_MAX);
    Ok(text.map_err(|error| named(path, &error))?)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
