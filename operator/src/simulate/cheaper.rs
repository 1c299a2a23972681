//! Settings that would cost less and still keep the target.
//!
//! A short search, not an optimum: first the policy and `scaleDownDelaySeconds`, then, from the best of those, the slots of
//! a pod and `minReplicas`, the same for every WorkerPool. Only what leaves at most 5 % of the tasks over their target, and
//! none undone or killed, is told. Whether a pod can bear more slots is for its owner to say.

use std::io::{self, Write};
use std::time::Duration;

use poolwright_sim::suite::parallel;

use super::answer::{Answer, run};
use super::world::World;

/// Part of the tasks that may be over their target.
const LATE_MAX: f64 = 0.05;
/// What saves less than this part is not worth a line.
const SAVING_MIN: f64 = 0.01;
/// Settings that are told.
const TOLD_MAX: usize = 5;
/// `scaleDownDelaySeconds` that are tried; nothing is what the policy has where none is written.
const DELAYS: [Option<u64>; 5] = [None, Some(10), Some(30), Some(60), Some(300)];

/// Settings, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The settings, as a user would write them.
    pub(super) words: String,
    /// Part of the cost that they save.
    pub(super) saving: f64,
    answer: Answer,
}

struct Variant {
    words: Vec<String>,
    world: World,
}

/// The best settings, the cheapest first.
pub(super) fn search(world: &World, now: &Answer, seed: u64, threads: usize) -> Vec<Found> {
    let mut found = tried(policies(world), now, seed, threads);
    sort(&mut found);
    let base = found.first().map_or_else(
        || Variant {
            words: Vec::new(),
            world: world.clone(),
        },
        |(_, variant)| Variant {
            words: variant.words.clone(),
            world: variant.world.clone(),
        },
    );
    found.extend(tried(shapes(&base), now, seed, threads));
    sort(&mut found);
    found.into_iter().map(|(found, _)| found).take(TOLD_MAX).collect()
}

fn sort(found: &mut [(Found, Variant)]) {
    found.sort_by(|a, b| b.0.saving.total_cmp(&a.0.saving));
}

/// Runs them, and keeps those that are cheaper and keep the target.
fn tried(variants: Vec<Variant>, now: &Answer, seed: u64, threads: usize) -> Vec<(Found, Variant)> {
    let answers = parallel(threads, variants.len(), &|at| run(&variants[at].world, seed));
    let good = |(answer, variant): (Answer, Variant)| {
        let saving = 1.0 - answer.slot_hours / now.slot_hours.max(f64::MIN_POSITIVE);
        let keeps = answer.late <= LATE_MAX && answer.undone == 0 && answer.killed == 0;
        let words = variant.words.join(", ");
        (keeps && saving >= SAVING_MIN).then_some((
            Found {
                words,
                saving,
                answer,
            },
            variant,
        ))
    };
    answers.into_iter().zip(variants).filter_map(good).collect()
}

/// Both policies with every delay.
fn policies(world: &World) -> Vec<Variant> {
    let mut all = Vec::new();
    for (wait_target, name) in [(true, "WaitTarget"), (false, "Backlog")] {
        for delay in DELAYS {
            let mut world = world.clone();
            for settings in &mut world.settings {
                settings.wait_target = wait_target;
                settings.scale_down_delay = delay.map(Duration::from_secs);
            }
            let mut words = vec![format!("policy: {name}")];
            words.extend(delay.map(|delay| format!("scaleDownDelaySeconds: {delay}")));
            all.push(Variant { words, world });
        }
    }
    all
}

/// Pods of half and of twice the slots, with as many slots in all, and no least number of pods.
fn shapes(base: &Variant) -> Vec<Variant> {
    let has_least = base.world.scenario.fleets.iter().any(|fleet| fleet.bounds.0 > 0);
    let mut all = Vec::new();
    for (times, by, name) in [
        (1, 1, ""),
        (1, 2, "half the concurrency, maxReplicas for as many slots"),
        (2, 1, "twice the concurrency, maxReplicas for as many slots"),
    ] {
        for no_least in [false, true] {
            if (no_least && !has_least) || (times == by && !no_least) {
                continue;
            }
            let mut world = base.world.clone();
            for fleet in &mut world.scenario.fleets {
                let slots = (fleet.slots * times / by).max(1);
                let pods = |pods: u32| (pods * fleet.slots).div_ceil(slots);
                let least = if no_least { 0 } else { pods(fleet.bounds.0) };
                (fleet.bounds, fleet.slots) = ((least, pods(fleet.bounds.1)), slots);
            }
            let mut words = base.words.clone();
            words.extend(Some(name.to_owned()).filter(|name| !name.is_empty()));
            words.extend(no_least.then(|| "minReplicas: 0".to_owned()));
            all.push(Variant { words, world });
        }
    }
    all
}

/// Prints them.
pub(super) fn print(output: &mut impl Write, found: &[Found]) -> io::Result<()> {
    if found.is_empty() {
        return writeln!(
            output,
            "cheaper settings with at most 5 % over the target: none found"
        );
    }
    writeln!(
        output,
        "cheaper settings with at most 5 % over the target, for every WorkerPool:"
    )?;
    for one in found {
        let (answer, less) = (&one.answer, 100.0 * one.saving);
        writeln!(
            output,
            "  {less:.0} % less: {:.2} slot-hours, p95 {} s, {:.1} % over: {}",
            answer.slot_hours,
            answer.waits[1],
            100.0 * answer.late,
            one.words
        )?;
    }
    Ok(())
}
