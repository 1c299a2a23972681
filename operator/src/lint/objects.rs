//! The objects of the files, and what only several of them together can get wrong.
//!
//! Asks the same functions as the operator does, with the objects of the files as its world, so that `lint` cannot
//! tell another story.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_core::broker::{BrokerConfig, BrokerError, BrokerOptions};
use poolwright_core::broker_key::BrokerKey;

use super::document::Node;
use super::{Finding, Severity, budgets, intents, lanes, names, workers};

/// An object of the files that is valid on its own.
pub enum Object {
    /// A Pool.
    Pool(Box<Pool>),
    /// A TaskQueue.
    TaskQueue(Box<TaskQueue>),
    /// A WorkerPool.
    WorkerPool(Box<WorkerPool>),
}

/// An object and where it was read.
pub struct Read<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// The document.
    pub node: Node,
    /// Its kind.
    pub kind: String,
    /// `metadata.namespace`, or nothing.
    pub namespace: String,
    /// `metadata.name`, or nothing.
    pub name: String,
    /// The object; `None` if it is not valid on its own.
    pub object: Option<Object>,
}

impl Read<'_> {
    pub(super) fn find(&self, severity: Severity, path: &str, message: &str) -> Finding {
        Finding::new(self.file, self.node.locate(path), severity, path, message)
    }

    /// File and line of what `path` names, for a finding about another object.
    pub(super) fn position(&self, path: &str) -> String {
        format!("{}:{}", self.file, self.node.locate(path).line)
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        match &self.object {
            Some(Object::Pool(pool)) => Some(pool),
            _ => None,
        }
    }

    pub(super) fn task_queue(&self) -> Option<&TaskQueue> {
        match &self.object {
            Some(Object::TaskQueue(task_queue)) => Some(task_queue),
            _ => None,
        }
    }

    pub(super) fn worker_pool(&self) -> Option<&WorkerPool> {
        match &self.object {
            Some(Object::WorkerPool(wp)) => Some(wp),
            _ => None,
        }
    }
}

/// Everything found about the objects together.
#[must_use]
pub fn check(all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = repeated(all);
    findings.extend(addresses(all));
    findings.extend(same_queue(all));
    findings.extend(budgets::cycles(all));
    let (workers, found) = workers::check(all);
    findings.extend(found);
    for read in all {
        findings.extend(names::references(read, all));
        findings.extend(budgets::check(read, all, &workers));
        findings.extend(intents::check(read, all));
    }
    for worker in &workers {
        findings.extend(budgets::too_large(worker, all));
        findings.extend(lanes::check(worker, all));
        findings.extend(intents::hold(worker));
    }
    findings
}

/// The later one of a name wins on the server, which is rarely meant.
fn repeated(all: &[Read<'_>]) -> Vec<Finding> {
    let mut first: BTreeMap<(&str, &str, &str), &Read<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for read in all.iter().filter(|read| !read.name.is_empty()) {
        if let Some(other) = first.get(&(&read.kind, &read.namespace, &read.name)) {
            let place = other.position("metadata.name");
            let words = format!("{} {:?} is also at {place}", read.kind, read.name);
            findings.push(read.find(Severity::Warning, "metadata.name", &words));
        } else {
            first.insert((&read.kind, &read.namespace, &read.name), read);
        }
    }
    findings
}

/// Addresses as the operator will read them.
fn addresses(all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for read in all {
        let Some(task_queue) = read.task_queue() else {
            continue;
        };
        let broker = &task_queue.spec.broker;
        let Some(url) = &broker.url else { continue };
        if let Err(error) = BrokerConfig::parse(url, &BrokerOptions::from(broker)) {
            let field = match error {
                BrokerError::Name(field)
                | BrokerError::Empty(field)
                | BrokerError::Http(field)
                | BrokerError::Elsewhere(field)
                | BrokerError::InClear(field) => field,
                _ => "url",
            };
            findings.push(read.find(
                Severity::Error,
                &format!("spec.broker.{field}"),
                &error.to_string(),
            ));
        }
    }
    findings
}

/// One queue of one broker has one TaskQueue.
fn same_queue(all: &[Read<'_>]) -> Vec<Finding> {
    let mut first: BTreeMap<(BrokerKey, &str), &Read<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for read in all {
        let Some(task_queue) = read.task_queue() else {
            continue;
        };
        let queue = task_queue.queue_name();
        let key = (BrokerKey::new(&read.namespace, &task_queue.spec.broker), queue);
        match first.get(&key) {
            Some(other) if other.name != read.name => {
                let words = format!(
                    "TaskQueue {:?} ({}) is the same queue {queue:?} of the same broker: its messages would count \
                     twice; remove one",
                    other.name,
                    other.position("spec")
                );
                findings.push(read.find(Severity::Error, "spec.queue", &words));
            }
            Some(_) => {}
            None => {
                first.insert(key, read);
            }
        }
    }
    findings
}
