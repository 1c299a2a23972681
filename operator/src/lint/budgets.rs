//! Pools, and what draws on them: guarantees, the size of a pod, minimums, loads, and the weights of queues.
//!
//! Calculates as the operator does, with the objects of the files as its world. A Pool that is not in the files is one
//! of which nothing is known: nothing is said about its size.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use poolwright_api::Reason;
use poolwright_api::text::counted;
use poolwright_api::v1alpha1::{Guarantee, Pool, Priority};
use poolwright_core::weight::weights;

use super::objects::Read;
use super::workers::Worker;
use super::{Finding, Severity};

/// Most WorkerPools that one finding names.
const NAMES_MAX: usize = 4;

/// What is wrong with one Pool.
#[must_use]
pub fn check(read: &Read<'_>, all: &[Read<'_>], workers: &[Worker<'_>]) -> Vec<Finding> {
    let Some(pool) = read.pool() else {
        return Vec::new();
    };
    // The later one of a name wins: there is one of it in the cluster, and it takes its slots once.
    let own = workers
        .iter()
        .filter(|worker| worker.read.namespace == read.namespace);
    let last: BTreeMap<&str, &Worker<'_>> = own.map(|worker| (worker.read.name.as_str(), worker)).collect();
    let near: Vec<&Worker<'_>> = last.into_values().collect();
    let mut findings = strangers(read, pool, all);
    findings.extend(broken_pods(read, pool, &near));
    findings.extend(shedding(read, pool, &near));
    findings.extend(minimums(read, pool, &near));
    findings
}

/// Guarantees for queues that draw on another Pool.
fn strangers(read: &Read<'_>, pool: &Pool, all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, guarantee) in pool.spec.guarantees.iter().enumerate() {
        let named = |other: &&Read<'_>| other.namespace == read.namespace && other.name == guarantee.queue;
        let queue = all
            .iter()
            .rev()
            .filter(named)
            .find_map(|other| Some((other, other.task_queue()?)));
        if let Some((other, queue)) = queue.filter(|(_, queue)| queue.pool_name() != read.name) {
            let words = format!(
                "TaskQueue {:?} draws on Pool {:?} ({}): these slots would be kept free for nobody; write its \
                 guarantee there, or {:?} in its spec.pool.name",
                other.name,
                queue.pool_name(),
                other.position("spec.pool.name"),
                read.name,
            );
            let path = format!("spec.guarantees[{at}].queue");
            findings.push(read.find(Severity::Warning, &path, &words));
        }
    }
    findings
}

/// Guarantees that hold no whole number of pods.
fn broken_pods(read: &Read<'_>, pool: &Pool, near: &[&Worker<'_>]) -> Vec<Finding> {
    let spec = &pool.spec;
    let Some(limit) = spec.limit() else {
        let words = "has no effect: with spec.slots -1, which is no limit, everybody finds room; write how many slots \
                     there are, or remove it";
        let finding = || read.find(Severity::Warning, "spec.guarantees", words);
        return Vec::from_iter((!spec.guarantees.is_empty()).then(finding));
    };
    let slots = |guarantee: &Guarantee| u64::from(guarantee.slots.unsigned_abs());
    let promised: u64 = spec.guarantees.iter().map(slots).sum();
    let mut findings = Vec::new();
    for (at, guarantee) in spec.guarantees.iter().enumerate() {
        let consumes = |worker: &&&Worker<'_>| {
            worker
                .drawing(&read.name)
                .any(|one| one.read.name == guarantee.queue)
        };
        let pods = near.iter().filter(consumes);
        let mut pods: Vec<_> = pods
            .filter_map(|worker| Some((worker.charge(&read.name)?, &worker.read.name)))
            .collect();
        pods.sort_unstable();
        let (Some((unit, name)), Some((most, _))) = (pods.first(), pods.last()) else {
            continue;
        };
        let (guaranteed, unit) = (slots(guarantee), *unit);
        let (whole, rest) = (guaranteed / unit, guaranteed % unit);
        // Pods of several sizes may fill it together, and one that is larger than the Pool is told anyway.
        let has_room = |slots: u64| limit == 0 || slots <= limit;
        if rest == 0 || whole > 0 && unit != *most || !has_room(unit) {
            continue;
        }
        let holds = match whole {
            0 => format!("holds no pod of WorkerPool {name:?}, which takes {unit}"),
            _ => format!(
                "holds {} of WorkerPool {name:?}, each of which takes {unit}, and {rest} more that are of no use",
                counted(whole, "pod", "pods")
            ),
        };
        let less = whole.max(1) * unit;
        let more = promised.saturating_sub(guaranteed).saturating_add(less + unit);
        let or_more = if has_room(more) {
            format!(" or {}", less + unit)
        } else {
            String::new()
        };
        let words = format!(
            "a guarantee of {} for TaskQueue {:?} {holds}: write {less}{or_more}",
            counted(guaranteed, "slot", "slots"),
            guarantee.queue
        );
        let path = format!("spec.guarantees[{at}].slots");
        findings.push(read.find(Severity::Warning, &path, &words));
    }
    findings
}

/// A load that takes nothing away, or all of it.
fn shedding(read: &Read<'_>, pool: &Pool, near: &[&Worker<'_>]) -> Vec<Finding> {
    if pool.spec.load_shedding.is_none() {
        return Vec::new();
    }
    let warn = |words: &str| read.find(Severity::Warning, "spec.loadShedding", words);
    let Some(slots) = pool.spec.limit() else {
        return vec![warn(
            "has no effect: of spec.slots -1, which is no limit, there is nothing to halve; write how many slots there \
             are, or remove it",
        )];
    };
    let half = (slots / 2).max(1);
    let shut_out = |worker: &&&Worker<'_>| {
        let charge = worker.charge(&read.name);
        charge.is_some_and(|charge| charge > half && charge <= slots)
    };
    let finding = |worker: &&Worker<'_>| {
        let charge = worker.charge(&read.name).unwrap_or_default();
        let words = format!(
            "while the load is high there are {half} of {slots} slots, and a pod of WorkerPool {:?} ({}) takes {charge}: \
             none of its pods starts then; lower its concurrency, or raise spec.slots to {}",
            worker.read.name,
            worker.read.position("metadata.name"),
            charge.saturating_mul(2),
        );
        warn(&words)
    };
    near.iter().filter(shut_out).map(finding).collect()
}

/// Minimums that take more than there is.
fn minimums(read: &Read<'_>, pool: &Pool, near: &[&Worker<'_>]) -> Option<Finding> {
    // With 0 slots it is closed, for a while and in spite of all that.
    let slots = pool.spec.limit().filter(|slots| *slots > 0)?;
    let mut taken: Vec<(u64, &str)> = near
        .iter()
        .filter_map(|worker| {
            let pods = u64::try_from(worker.pool.min).ok().filter(|pods| *pods > 0)?;
            let slots = worker.charge(&read.name)?.saturating_mul(pods);
            Some((slots, worker.read.name.as_str()))
        })
        .collect();
    let sum = taken
        .iter()
        .fold(0_u64, |sum, (slots, _)| sum.saturating_add(*slots));
    taken.sort_unstable_by_key(|(slots, name)| (Reverse(*slots), *name));
    let more = taken.len().saturating_sub(NAMES_MAX);
    let mut names: Vec<String> = taken
        .iter()
        .take(NAMES_MAX)
        .map(|(slots, name)| format!("{name} {slots}"))
        .collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let words = format!(
        "is {slots}, and minReplicas of its WorkerPools take {sum} ({}): they hold slots when they are idle, too, and \
         some never get theirs; lower minReplicas, or raise spec.slots",
        names.join(", ")
    );
    (sum > slots).then(|| read.find(Severity::Warning, "spec.slots", &words))
}

/// Pods of which not even one fits in a Pool.
#[must_use]
pub fn too_large(worker: &Worker<'_>, all: &[Read<'_>]) -> Vec<Finding> {
    let concurrency = worker.concurrency();
    let pools: BTreeSet<&str> = worker.queues.iter().map(|one| one.queue.pool_name()).collect();
    let mut findings = Vec::new();
    for pool in pools {
        let named = |other: &&Read<'_>| other.namespace == worker.read.namespace && other.name == pool;
        let found = all
            .iter()
            .rev()
            .filter(named)
            .find_map(|other| Some((other, other.pool()?)));
        // With 0 slots it is closed, which says nothing about the pods.
        let limit =
            found.and_then(|(other, pool)| Some((other, pool.spec.limit().filter(|slots| *slots > 0)?)));
        let Some((other, slots)) = limit else { continue };
        let charge = worker.charge(pool).unwrap_or_default();
        if charge <= slots {
            continue;
        }
        let slots_per_task = charge / concurrency;
        let most = worker
            .drawing(pool)
            .find(|one| one.queue.slots_per_task() == slots_per_task);
        let queue = most.map_or("", |one| one.read.name.as_str());
        let fix = match slots / slots_per_task {
            0 => format!("raise spec.slots there, or lower slotsPerTask of TaskQueue {queue:?}"),
            fitting => format!("{fitting} is the most that fits"),
        };
        let words = format!(
            "a pod takes {charge} slots = concurrency {concurrency} × slotsPerTask {slots_per_task}, and Pool {pool:?} \
             ({}) has {slots}: no pod may start (PodLargerThanPool); {fix}",
            other.position("spec.slots"),
        );
        let field = worker.pool.program.field("concurrency");
        findings.push(worker.read.find(Severity::Error, &field, &words));
    }
    findings
}

/// Queues that come after each other in a circle.
pub fn cycles(all: &[Read<'_>]) -> Vec<Finding> {
    let mut namespaces: BTreeMap<&str, BTreeMap<&str, (&Read<'_>, &Priority)>> = BTreeMap::new();
    for read in all {
        if let Some(queue) = read.task_queue() {
            let queues = namespaces.entry(&read.namespace).or_default();
            queues.insert(&read.name, (read, &queue.spec.priority));
        }
    }
    let mut findings = Vec::new();
    for queues in namespaces.values() {
        let priorities = queues
            .iter()
            .map(|(name, (_, priority))| (*name, *priority))
            .collect();
        for cycle in weights(&priorities).cycles {
            let first = cycle.path.first().and_then(|name| queues.get(name.as_str()));
            let words = format!(
                "{cycle} is a circle, in which no queue comes before another: each weighs what is written in it; \
                 remove one of the links ({})",
                Reason::WeightCycle
            );
            findings.extend(
                first.map(|(read, _)| read.find(Severity::Warning, "spec.priority.downstream", &words)),
            );
        }
    }
    findings
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
