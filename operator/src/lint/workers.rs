//! WorkerPools with the TaskQueues that they consume, validated and advised on as by the operator.
//!
//! A TaskQueue that is not in the files may well be in the cluster: the rest is checked with a stand-in on the broker of
//! its siblings. Nothing is said of what a stand-in would take of a Pool.

use std::collections::BTreeMap;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{Broker, SecretKeyRef, TaskQueue, TaskQueueSpec, WorkerPool};
use poolwright_core::advice::{Neighbour, advise};
use poolwright_core::validate::{ValidPool, consumes_alone, validate};

use super::objects::Read;
use super::{Finding, Severity, hints};

/// A WorkerPool that can run.
pub struct Worker<'a> {
    /// Where it was read.
    pub read: &'a Read<'a>,
    /// Its numbers, with every default.
    pub pool: ValidPool,
    /// Those of its queues that are in the files, in the order of `spec.queues`.
    pub queues: Vec<Consumed<'a>>,
}

/// A TaskQueue of the files that a WorkerPool consumes.
pub struct Consumed<'a> {
    /// Where it was read.
    pub read: &'a Read<'a>,
    /// The TaskQueue.
    pub queue: &'a TaskQueue,
}

impl<'a> Worker<'a> {
    /// Its queues that draw on a Pool.
    pub fn drawing<'b>(&'b self, pool: &'b str) -> impl Iterator<Item = &'b Consumed<'a>> {
        self.queues
            .iter()
            .filter(move |consumed| consumed.queue.pool_name() == pool)
    }

    /// Tasks of one pod, at least 1.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        u64::try_from(self.pool.concurrency).unwrap_or(1).max(1)
    }

    /// Slots that one pod takes of a Pool; `None` if no known queue of it draws on that.
    #[must_use]
    pub fn charge(&self, pool: &str) -> Option<u64> {
        let most = self
            .drawing(pool)
            .map(|consumed| consumed.queue.slots_per_task())
            .max()?;
        Some(self.concurrency().saturating_mul(most))
    }
}

/// The WorkerPools that can run, and what was found about each.
#[must_use]
pub fn check<'a>(all: &'a [Read<'a>]) -> (Vec<Worker<'a>>, Vec<Finding>) {
    let (mut workers, mut findings) = (Vec::new(), Vec::new());
    for read in all {
        if let Some(wp) = read.worker_pool() {
            let (pool, found) = worker_pool(read, wp, all);
            findings.extend(found);
            let queues = || {
                let names = wp.spec.queues.iter();
                names.filter_map(|name| consumed(read, &name.name, all)).collect()
            };
            workers.extend(pool.map(|pool| Worker {
                read,
                pool,
                queues: queues(),
            }));
        }
    }
    (workers, findings)
}

/// The TaskQueue of this name; of several the last, as in the cluster.
fn consumed<'a>(read: &Read<'_>, name: &str, all: &'a [Read<'a>]) -> Option<Consumed<'a>> {
    let mut named = all
        .iter()
        .rev()
        .filter(|other| other.namespace == read.namespace && other.name == name);
    named.find_map(|read| {
        Some(Consumed {
            read,
            queue: read.task_queue()?,
        })
    })
}

fn worker_pool(read: &Read<'_>, wp: &WorkerPool, all: &[Read<'_>]) -> (Option<ValidPool>, Vec<Finding>) {
    let near = || all.iter().filter(|other| other.namespace == read.namespace);
    let mut queues: BTreeMap<String, TaskQueue> = near()
        .filter_map(|other| Some((other.name.clone(), other.task_queue()?.clone())))
        .collect();
    let others: Vec<Neighbour> = near()
        .filter(|other| other.name != read.name)
        .filter_map(Read::worker_pool)
        .map(neighbour)
        .collect();
    let known_broker = wp
        .spec
        .queues
        .iter()
        .find_map(|reference| queues.get(&reference.name))
        .map(|known| known.spec.broker.clone());
    for reference in &wp.spec.queues {
        queues
            .entry(reference.name.clone())
            .or_insert_with(|| stand_in(&reference.name, known_broker.clone()));
    }
    let valid = validate(wp, &queues).and_then(|pool| {
        consumes_alone(&pool, &queues, &others)?;
        Ok(pool)
    });
    match valid {
        Err(invalid) => {
            let hint = hints::schedule(&read.node, &invalid.field).unwrap_or_default();
            let words = format!("{}{hint}", invalid.message);
            (None, vec![read.find(Severity::Error, &invalid.field, &words)])
        }
        Ok(pool) => {
            let mut advice = advise(&pool, wp, &queues, &others);
            // Without a broker in the files nothing is known of its limits.
            advice.retain(|one| one.reason != Some(Reason::RedeliveryRisk) || known_broker.is_some());
            let finding = |one: poolwright_core::advice::Advice| {
                let reason = one.reason.map(|reason| format!(" ({reason})"));
                let words = format!("{}{}", one.text, reason.unwrap_or_default());
                read.find(Severity::Warning, &one.field, &words)
            };
            let findings = advice.into_iter().map(finding).collect();
            (Some(pool), findings)
        }
    }
}

fn neighbour(wp: &WorkerPool) -> Neighbour {
    Neighbour {
        name: wp.metadata.name.clone().unwrap_or_default(),
        class: wp.spec.class,
        queues: wp.spec.queues.iter().map(|queue| queue.name.clone()).collect(),
    }
}

/// A TaskQueue that is not in the files, on `broker` or on one of which nothing is known.
fn stand_in(name: &str, broker: Option<Broker>) -> TaskQueue {
    let unknown = || Broker {
        url_secret_ref: Some(SecretKeyRef {
            name: "unknown".to_owned(),
            key: "url".to_owned(),
        }),
        ..Broker::default()
    };
    TaskQueue::new(
        name,
        TaskQueueSpec {
            broker: broker.unwrap_or_else(unknown),
            ..TaskQueueSpec::default()
        },
    )
}
