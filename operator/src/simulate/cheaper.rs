//! Settings that would cost less and still keep the target.
//!
//! A short search, not an optimum: first the policy and `scaleDownDelaySeconds`, then, from the best of those, the slots of
//! a pod and `minReplicas`, the same for every WorkerPool. A line names all that differs from the manifests, so that they cost
//! what it says when it is written into them. Only what leaves at most 5 % of the tasks over their target, of all
//! and of each queue, and none undone or killed, is told: in the share of all a queue of few tasks could starve unseen. A
//! queue that is later already as things are may stay so, or one that starts from zero once a day would forbid every
//! saving elsewhere. Whether a pod can bear more slots is for its owner to say.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use poolwright_sim::scenario::Queue;
use poolwright_sim::suite::parallel;

use super::answer::{Answer, run};
use super::world::World;

/// Part of the tasks, of all and of each queue, that may be over their target.
const LATE_MAX: f64 = 0.05;
/// What saves less than this part is not worth a line.
const SAVING_MIN: f64 = 0.01;
/// Settings that are told.
const TOLD_MAX: usize = 5;
/// `scaleDownDelaySeconds` that are tried; nothing is what the policy has where none is written.
const DELAYS: [Option<u64>; 5] = [None, Some(10), Some(30), Some(60), Some(300)];
/// Most slots of a pod, and most pods, that a manifest may ask for.
const NUMBER_MAX: u32 = 10_000;
/// What is said where WorkerPools differ in their numbers.
const HALF: &str =
    "half the concurrency (rounded down to at least 1) and maxReplicas for as many slots (rounded up)";
const TWICE: &str = "twice the concurrency and half maxReplicas (rounded up)";

/// Settings, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The settings, as a user would write them.
    pub(super) words: String,
    /// Part of the cost that they save.
    pub(super) saving: f64,
    answer: Answer,
}

#[derive(Clone, Debug)]
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
        |(_, variant)| variant.clone(),
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
        let keeps = keeps(&answer, now);
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

/// True if it keeps the target: for all tasks, and for each queue that does not miss it as things are; and nothing is left or
/// killed.
fn keeps(answer: &Answer, now: &Answer) -> bool {
    let queues = answer.late_by_queue.iter().zip(&now.late_by_queue);
    let all_keep = queues.into_iter().all(|(late, now)| *late <= now.max(LATE_MAX));
    answer.late <= LATE_MAX && all_keep && answer.undone == 0 && answer.killed == 0
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
            let delay = delay.map_or_else(
                || "no scaleDownDelaySeconds".to_owned(),
                |delay| format!("scaleDownDelaySeconds: {delay}"),
            );
            let words = vec![format!("policy: {name}"), delay];
            all.push(Variant { words, world });
        }
    }
    all
}

/// Pods of half and of twice the slots, with as many slots in all, and no least number of pods. What a line does not name stays
/// as it is written: least numbers go on counting pods, whatever their size.
fn shapes(base: &Variant) -> Vec<Variant> {
    let mut fleets = base.world.scenario.fleets.iter().zip(&base.world.held);
    let has_least = fleets.any(|(fleet, held)| fleet.bounds.0 > 0 && !held);
    let mut all = Vec::new();
    for (times, by) in [(1, 1), (1, 2), (2, 1)] {
        for no_least in [false, true] {
            if no_least && !has_least {
                continue;
            }
            let mut variant = base.clone();
            if no_least {
                variant.drop_least();
            }
            let differs = if times == by {
                no_least
            } else {
                variant.resize(times, by)
            };
            all.extend(differs.then_some(variant));
        }
    }
    all
}

impl Variant {
    /// No least number of pods. Where their number is held by hand, that changes nothing.
    fn drop_least(&mut self) {
        let fleets = self.world.scenario.fleets.iter_mut().zip(&self.world.held);
        for (fleet, _) in fleets.filter(|(_, held)| !**held) {
            fleet.bounds.0 = 0;
        }
        self.words.push("minReplicas: 0".to_owned());
    }

    /// So many times the slots of a pod, and no fewer slots in all. False where nothing differs, or a manifest would be refused.
    fn resize(&mut self, times: u32, by: u32) -> bool {
        let World { scenario, fixed, .. } = &mut self.world;
        let mut numbers = BTreeSet::new();
        let mut differs = false;
        let fleets = scenario.fleets.iter_mut().zip(fixed.iter());
        for (fleet, _) in fleets.filter(|(_, fixed)| fixed.is_none()) {
            let slots = (fleet.slots * times / by).max(1);
            let most = (fleet.bounds.1 * fleet.slots).div_ceil(slots);
            differs |= slots != fleet.slots;
            (fleet.slots, fleet.bounds.1) = (slots, most);
            numbers.insert((slots, most));
        }
        let mut words = match (numbers.len(), numbers.first()) {
            (1, Some((slots, most))) => format!("concurrency: {slots} and maxReplicas: {most}"),
            _ if times < by => HALF.to_owned(),
            _ => TWICE.to_owned(),
        };
        let but: BTreeSet<&str> = fixed.iter().copied().flatten().collect();
        if !but.is_empty() {
            let but: Vec<&str> = but.into_iter().collect();
            words = format!("{words} (not with {})", but.join(" or "));
        }
        self.words.push(words);
        differs && (0..self.world.scenario.fleets.len()).all(|place| is_taken(&self.world, place))
    }
}

/// Whether a manifest with the numbers of this fleet would be taken, and a pod of it have room.
fn is_taken(world: &World, place: usize) -> bool {
    if world.fixed[place].is_some() {
        return true;
    }
    let scenario = &world.scenario;
    let fleet = &scenario.fleets[place];
    let (least, most) = fleet.bounds;
    let has_room = |(budget, slots): (usize, u64)| {
        // With 0 slots it is closed, which says nothing about the pods.
        let limit = scenario.budgets[budget].at(0).filter(|limit| *limit > 0);
        limit.is_none_or(|limit| slots <= limit)
    };
    (least.max(world.floors[place])..=NUMBER_MAX).contains(&most)
        && fleet.slots <= fleet.max_active.unwrap_or(NUMBER_MAX).min(NUMBER_MAX)
        && scenario.charge(place).into_iter().all(has_room)
}

/// The queue with the largest part of late tasks, where there are several queues and any of them is late.
fn worst(answer: &Answer, queues: &[Queue]) -> String {
    let late = queues.iter().zip(&answer.late_by_queue);
    let worst = late.max_by(|one, other| one.1.total_cmp(other.1));
    let worst = worst.filter(|(_, late)| queues.len() > 1 && **late > 0.0);
    worst.map_or_else(String::new, |(queue, late)| {
        format!(" ({:.1} % of {})", 100.0 * late, queue.name)
    })
}

/// Prints them; the queues are those of the world that was searched.
pub(super) fn print(output: &mut impl Write, found: &[Found], queues: &[Queue]) -> io::Result<()> {
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
            "  {less:.0} % less: {:.2} slot-hours, p95 {} s, {:.1} % over{}: {}",
            answer.slot_hours,
            answer.waits[1],
            100.0 * answer.late,
            worst(answer, queues),
            one.words
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "cheaper_tests.rs"]
mod tests;
