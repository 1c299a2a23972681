//! Queues into which Airflow's pools let more tasks than the workers of the manifests can run.
//!
//! The most that is possible at a time, of what is written: how often a task is mapped is not.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Finding, Severity};
use super::dags::{Dag, Dags, Task};
use super::fleet::{Processes, by_queue, consumers, gives_up, processes};
use super::pools::Known;
use super::together::{LIMIT_MAX, together};
use super::{Setup, few};

/// Tasks of one pool in one queue.
struct Feed<'a> {
    pool: &'a str,
    known: &'a Known,
    /// Slots that the least of them takes.
    slots_per_task: u64,
    /// Most that are in the queue or run.
    most: u64,
    /// Whether that is less than the pool would let in.
    by_dags: bool,
}

/// What a queue gets at once.
struct Inflow {
    most: u64,
    /// Of all pools but the first.
    without_first: u64,
    /// What each pool lets in, in sum: a DAG with tasks in several pools has its limit once.
    sum: u64,
}

/// One finding for each of those queues.
pub fn overfed(dags: &Dags, setup: &Setup<'_>) -> Vec<Finding> {
    let queues = by_queue(dags);
    let finding = |(queue, tasks): (&&str, &Vec<_>)| {
        let workers = consumers(queue, setup);
        let fleet = processes(&workers, setup);
        // A single scheduler sends no more than that.
        let limit = setup
            .config
            .as_ref()
            .map(|config| config.parallelism)
            .filter(|limit| *limit > 0);
        if workers.is_empty() || limit.is_some_and(|limit| limit <= fleet.most) {
            return None;
        }
        let mut feeds = feeds(dags, tasks, setup);
        feeds.sort_by(|one, other| other.most.cmp(&one.most).then(one.pool.cmp(other.pool)));
        if feeds.iter().map(|feed| feed.most).sum::<u64>() <= fleet.most {
            return None;
        }
        let inflow = inflow(dags, tasks, &feeds);
        let is_more = inflow.most > fleet.most;
        is_more
            .then(|| told(queue, &feeds, &inflow, &fleet, setup))
            .flatten()
    };
    queues.iter().filter_map(finding).collect()
}

fn inflow(dags: &Dags, tasks: &[(&Dag, &Task)], feeds: &[Feed<'_>]) -> Inflow {
    let numbers: BTreeMap<&str, usize> = feeds.iter().map(|feed| feed.pool).zip(0..).collect();
    let mut of_dags: BTreeMap<&str, (u64, BTreeSet<usize>)> = BTreeMap::new();
    for (dag, task) in tasks {
        if let Some(number) = numbers.get(task.pool.as_str()) {
            let new = || (dags.most_at_once(dag), BTreeSet::new());
            let (_, pools) = of_dags.entry(&dag.path).or_insert_with(new);
            pools.insert(*number);
        }
    }
    let of_dags: Vec<_> = of_dags.into_values().collect();
    let mut pools: Vec<u64> = feeds.iter().map(|feed| feed.most).collect();
    let (most, sum) = (together(&of_dags, &pools), pools.iter().sum());
    if let Some(first) = pools.first_mut() {
        *first = 0;
    }
    Inflow {
        most,
        without_first: together(&of_dags, &pools),
        sum,
    }
}

fn feeds<'a>(dags: &Dags, tasks: &[(&Dag, &'a Task)], setup: &'a Setup<'_>) -> Vec<Feed<'a>> {
    // Of each pool by DAG the slots of its least task, and the DAG's limit.
    let mut of_pools: BTreeMap<&str, BTreeMap<&str, (u64, u64)>> = BTreeMap::new();
    for (dag, task) in tasks {
        let of_pool = of_pools.entry(&task.pool).or_default();
        let new = (task.slots, dags.most_at_once(dag));
        let (least, _) = of_pool.entry(&dag.path).or_insert(new);
        *least = task.slots.min(*least);
    }
    let feed = |(pool, of_dags): (&'a str, BTreeMap<&str, (u64, u64)>)| {
        // Of a pool that is closed, or that nobody has shown, nothing is known.
        let known = setup
            .pools
            .by_name
            .get(pool)
            .filter(|known| known.slots != Some(0))?;
        let mut of_dags: Vec<(u64, u64)> = of_dags.into_values().collect();
        of_dags.sort_unstable();
        let slots_per_task = of_dags.first()?.0;
        // Most of them fit while the least ones run.
        let (mut most, mut by_dags) = (0_u64, true);
        let mut room = known.slots.unwrap_or(u64::MAX);
        for (slots, limit) in of_dags {
            let fit = limit.min(room / slots);
            by_dags &= fit == limit;
            room -= fit * slots;
            most = most.saturating_add(fit);
        }
        Some(Feed {
            pool,
            known,
            most: most.min(LIMIT_MAX),
            slots_per_task,
            by_dags,
        })
    };
    of_pools.into_iter().filter_map(feed).collect()
}

/// A number, in words where there is none.
fn number(most: u64) -> String {
    if most >= LIMIT_MAX {
        "any number".to_owned()
    } else {
        most.to_string()
    }
}

fn told(
    queue: &str,
    feeds: &[Feed<'_>],
    inflow: &Inflow,
    fleet: &Processes,
    setup: &Setup<'_>,
) -> Option<Finding> {
    let largest = feeds.first()?;
    let (pools, mut lets) = if feeds.len() == 1 {
        ("pool", "lets".to_owned())
    } else {
        ("pools", "let".to_owned())
    };
    if inflow.most < inflow.sum.min(LIMIT_MAX) {
        lets += ", by the limits of the DAGs together,";
    }
    let words: Vec<String> = feeds
        .iter()
        .map(|feed| {
            let by = if feed.by_dags && feed.most < LIMIT_MAX {
                " by the limits of its DAGs"
            } else {
                ""
            };
            format!("{:?} {}{by}", feed.pool, number(feed.most))
        })
        .collect();
    let room = fleet.most.checked_sub(inflow.without_first);
    let fix = match room.filter(|tasks| *tasks > 0) {
        Some(tasks) => {
            let slots = tasks.saturating_mul(largest.slots_per_task);
            format!("lower slots of pool {:?} to {slots}", largest.pool)
        }
        None => format!(
            "lower the slots of these pools together, so that they let in {} tasks",
            fleet.most
        ),
    };
    let text = format!(
        "{pools} {} {lets} {}{} tasks into queue {queue:?} at once, and its workers run at most {} ({}): the others hold their \
         slots while they wait for a worker, and {}; {fix}, which keeps them waiting in Airflow, or raise spec.scaling.maxReplicas",
        few(&words),
        number(inflow.most),
        if inflow.most < LIMIT_MAX { "" } else { " of" },
        fleet.most,
        fleet.words,
        gives_up(setup),
    );
    Some(largest.known.find(Severity::Warning, &text))
}

#[cfg(test)]
#[path = "overfed_tests.rs"]
mod tests;
