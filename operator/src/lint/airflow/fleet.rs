//! Airflow's limits beside the workers of the manifests.
//!
//! How many tasks the workers can run at a time is bounded by their number and slots, by `maxActiveTasks` of a queue, and
//! by the Pool that its queues draw on: the most that is possible. What a scheduler sends is bounded by `[core] parallelism`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use poolwright_api::text::counted;
use poolwright_core::executor::Executors;

use super::super::workers::Worker;
use super::super::{Finding, Severity, schema};
use super::dags::{Dag, Dags, Task};
use super::{SOUGHT_MAX, Setup, few, first_of};

/// What workers can run.
pub(super) struct Processes {
    /// Most tasks at a time.
    pub(super) most: u64,
    /// Where that comes from.
    pub(super) words: String,
}

/// Most tasks that one WorkerPool runs at a time, without the Pools.
fn of_worker(worker: &Worker<'_>) -> (u64, String) {
    let (name, most) = (&worker.read.name, worker.pool.most_tasks());
    let (max, slots) = (worker.pool.max, worker.concurrency());
    let words = if u64::try_from(max).is_ok_and(|max| max.saturating_mul(slots) == most) {
        format!("{name:?} {max} × {slots} = {most}")
    } else {
        format!("{name:?} {most} by maxActiveTasks")
    };
    (most, words)
}

/// Most tasks that these WorkerPools run at a time.
pub(super) fn processes(workers: &[&Worker<'_>], setup: &Setup<'_>) -> Processes {
    let mut all = Processes {
        most: 0,
        words: String::new(),
    };
    let mut words = Vec::new();
    // Each counts below one limited Pool at most: a second one could only lower the number.
    let mut budgets: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for worker in workers {
        let (most, said) = of_worker(worker);
        words.push(said);
        match worker.queues.iter().find_map(|one| {
            let pool = one.queue.pool_name();
            let tasks = budget(setup, &worker.read.namespace, pool)? / one.queue.slots_per_task();
            Some((pool, tasks))
        }) {
            Some((pool, tasks)) => {
                let (sum, room) = budgets.entry((&worker.read.namespace, pool)).or_insert((0, 0));
                *sum = sum.saturating_add(most);
                *room = tasks.max(*room);
            }
            None => all.most = all.most.saturating_add(most),
        }
    }
    let mut bounds = String::new();
    for ((_, pool), (sum, room)) in budgets {
        all.most = all.most.saturating_add(sum.min(room));
        if room < sum {
            // Writing to a String cannot fail.
            let _ = write!(bounds, "; Pool {pool:?} has slots for {room} of {sum}");
        }
    }
    all.words = few(&words) + &bounds;
    all
}

/// Slots of a Pool of the manifests that has a limit; a closed one is so for a while.
fn budget(setup: &Setup<'_>, namespace: &str, pool: &str) -> Option<u64> {
    let mut named = setup
        .all
        .iter()
        .filter(|read| read.namespace == namespace && read.name == pool);
    let limit = named.find_map(|read| read.pool())?.spec.limit()?;
    Some(limit).filter(|slots| *slots > 0)
}

/// Workers to whom no executor of the list sends a task.
pub fn elsewhere(setup: &Setup<'_>) -> Option<Finding> {
    let config = setup.config.as_ref()?;
    if setup.workers.is_empty() || !Executors::read(&config.executor).are_none_of_celery() {
        return None;
    }
    let names: Vec<String> = setup
        .workers
        .iter()
        .map(|worker| format!("{:?}", worker.read.name))
        .collect();
    let words = format!(
        "is {:?}, which sends no task to a queue of Celery's, and the workers of {} take theirs from there: none ever \
         comes; write CeleryExecutor, alone or with the others in a list",
        config.executor,
        few(&names)
    );
    let (place, path) = (config.executor_place, "[core] executor");
    Some(Finding::new(&config.file, place, Severity::Warning, path, &words))
}

/// A scheduler that runs less than the workers could.
pub fn parallelism(setup: &Setup<'_>) -> Option<Finding> {
    let config = setup.config.as_ref().filter(|config| config.parallelism > 0)?;
    let fleet = processes(&setup.workers, setup);
    let (most, limit) = (fleet.most, config.parallelism);
    if limit >= most {
        return None;
    }
    let words = format!(
        "lets a scheduler run {} at a time, and the workers have {most} slots ({}): with one scheduler {} never \
         busy; raise it to {most}, run {} schedulers, or lower spec.scaling.maxReplicas",
        counted(limit, "task", "tasks"),
        fleet.words,
        counted(most - limit, "of them is", "of them are"),
        most.div_ceil(limit),
    );
    let path = "[core] parallelism";
    Some(Finding::new(
        &config.file,
        config.parallelism_place,
        Severity::Warning,
        path,
        &words,
    ))
}

/// The tasks of each queue that Celery's workers run.
pub(super) fn by_queue(dags: &Dags) -> BTreeMap<&str, Vec<(&Dag, &Task)>> {
    let mut queues: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for dag in &dags.all {
        for task in dag.tasks.iter().filter(|task| task.on_celery) {
            queues.entry(&task.queue).or_default().push((dag, task));
        }
    }
    queues
}

pub(super) fn consumers<'a>(queue: &str, setup: &Setup<'a>) -> Vec<&'a Worker<'a>> {
    let consumes = |worker: &&&Worker<'_>| worker.pool.queue_names().any(|name| name == queue);
    setup.workers.iter().filter(consumes).copied().collect()
}

/// What becomes of a task that no worker takes.
pub(super) fn gives_up(setup: &Setup<'_>) -> String {
    format!(
        "after {} s ([scheduler] task_queued_timeout) the scheduler sends such tasks anew, and in the end it fails them",
        setup.config().queued_seconds
    )
}

/// Queues of tasks that no worker takes.
pub fn unconsumed(dags: &Dags, setup: &Setup<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if setup.workers.is_empty() {
        return findings;
    }
    let known: BTreeSet<&str> = setup
        .workers
        .iter()
        .flat_map(|worker| worker.pool.queue_names())
        .collect();
    for (at, (queue, tasks)) in by_queue(dags).into_iter().enumerate() {
        let Some((_, first)) = tasks.first().filter(|_| !known.contains(queue)) else {
            continue;
        };
        let who = first_of(&first.name, tasks.len(), ("waits", "wait"));
        let names = known.iter().copied();
        let similar = (at < SOUGHT_MAX).then(|| schema::similar(queue, names)).flatten();
        let fix = similar.map_or_else(
            || "add it to spec.queues of one, or correct the queue".to_owned(),
            |name| format!("is {name:?} meant?"),
        );
        let words = format!(
            "no WorkerPool with spec.airflow of these files consumes queue {queue:?}: {who} there; {}; {fix}",
            gives_up(setup)
        );
        findings.push(dags.find(Severity::Warning, (&first.path, first.place), "queue", &words));
    }
    findings
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
