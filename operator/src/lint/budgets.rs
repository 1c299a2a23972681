//! Pools, and what draws on them: guarantees, the size of a pod, and the weights of queues.
//!
//! Calculates as the operator does, with the objects of the files as its world. A Pool that is not in the files is one
//! of which nothing is known: nothing is said about its size.

use std::collections::BTreeMap;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{Priority, TaskQueue};
use poolwright_core::validate::ValidPool;
use poolwright_core::weight::weights;

use super::objects::Read;
use super::{Finding, Severity};

const CONCURRENCY: &str = "spec.celery.concurrency";

/// Guarantees for queues that draw on another Pool.
pub fn guarantees(read: &Read<'_>, all: &[Read<'_>]) -> Vec<Finding> {
    let Some(pool) = read.pool() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (at, guarantee) in pool.spec.guarantees.iter().enumerate() {
        let named = |other: &&Read<'_>| other.namespace == read.namespace && other.name == guarantee.queue;
        let queue = all
            .iter()
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

/// A load that takes nothing away.
pub fn shedding(read: &Read<'_>) -> Option<Finding> {
    let spec = &read.pool()?.spec;
    let idle = spec.load_shedding.is_some() && spec.limit().is_none();
    let words = "has no effect: of spec.slots -1, which is no limit, there is nothing to halve; write how many slots \
                 there are, or remove it";
    idle.then(|| read.find(Severity::Warning, "spec.loadShedding", words))
}

/// Pods of which not even one fits in a Pool.
pub fn too_large(
    read: &Read<'_>,
    wp: &ValidPool,
    queues: &BTreeMap<String, TaskQueue>,
    all: &[Read<'_>],
) -> Vec<Finding> {
    let concurrency = u64::try_from(wp.concurrency).unwrap_or(1);
    // By Pool, the queue whose tasks take the most of it.
    let mut largest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let mut findings = Vec::new();
    for queue in wp.queues.iter().filter_map(|queue| queues.get(&queue.object)) {
        let name = queue.metadata.name.as_deref().unwrap_or_default();
        let slots = queue.slots_per_task();
        let most = largest.entry(queue.pool_name()).or_insert((slots, name));
        if slots > most.0 {
            *most = (slots, name);
        }
    }
    for (pool, (slots_per_task, queue)) in largest {
        let named = |other: &&Read<'_>| other.namespace == read.namespace && other.name == pool;
        let found = all
            .iter()
            .filter(named)
            .find_map(|other| Some((other, other.pool()?)));
        // With 0 slots it is closed, which says nothing about the pods.
        let limit =
            found.and_then(|(other, pool)| Some((other, pool.spec.limit().filter(|slots| *slots > 0)?)));
        let Some((other, slots)) = limit else { continue };
        let charge = concurrency.saturating_mul(slots_per_task);
        if charge <= slots {
            continue;
        }
        let fix = match slots / slots_per_task {
            0 => format!("raise spec.slots there, or lower slotsPerTask of TaskQueue {queue:?}"),
            fitting => format!("{fitting} is the most that fits"),
        };
        let words = format!(
            "a pod takes {charge} slots = concurrency {concurrency} × slotsPerTask {slots_per_task}, and Pool {pool:?} \
             ({}) has {slots}: no pod may start (PodLargerThanPool); {fix}",
            other.position("spec.slots"),
        );
        findings.push(read.find(Severity::Error, CONCURRENCY, &words));
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
