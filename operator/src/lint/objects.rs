//! What only several objects together can get wrong, and the known mistakes of one.
//!
//! Asks the same functions as the operator does, with the objects of the files as its world, so that `lint` cannot
//! tell another story. A TaskQueue that is not in the files may well be in the cluster: that is a note, and the rest
//! is checked with a stand-in on the broker of its siblings.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{Broker, Pool, SecretKeyRef, TaskQueue, TaskQueueSpec, WorkerPool};
use poolwright_api::{DEFAULT_POOL, Reason};
use poolwright_core::advice::{Neighbour, advise};
use poolwright_core::broker::{BrokerConfig, BrokerError, BrokerOptions};
use poolwright_core::broker_key::BrokerKey;
use poolwright_core::validate::{consumes_alone, validate};

use super::document::{Node, Value};
use super::{Finding, Severity, budgets, schema};

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
    for read in all {
        findings.extend(references(read, all));
        findings.extend(budgets::guarantees(read, all));
        findings.extend(budgets::shedding(read));
        if let Some(wp) = read.worker_pool() {
            findings.extend(worker_pool(read, wp, all));
        }
    }
    findings
}

/// Names of objects that the files do not have. A TaskQueue's name that cannot be one is looked at too: names on the
/// broker, which are what a WorkerPool's column QUEUES shows, often hold an underscore.
fn references(read: &Read<'_>, all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, kind, name) in named(read) {
        let known: Vec<&Read<'_>> = all
            .iter()
            .filter(|other| other.kind == kind && other.namespace == read.namespace)
            .collect();
        // The operator makes that one.
        if known.iter().any(|other| other.name == name) || kind == "Pool" && name == DEFAULT_POOL {
            continue;
        }
        let on_broker = known.iter().find(|queue| {
            let task_queue = queue.task_queue();
            task_queue.is_some_and(|task_queue| task_queue.queue_name() == name)
        });
        let similar = schema::similar(name, known.iter().map(|other| other.name.as_str()));
        let (severity, words) = match (on_broker, similar) {
            (Some(queue), _) => (
                Severity::Warning,
                format!(
                    "{name:?} is a queue's name on the broker: write the name of its TaskQueue, {:?} ({})",
                    queue.name,
                    queue.position("metadata.name")
                ),
            ),
            (None, Some(similar)) => (
                Severity::Warning,
                format!("{kind} {name:?} is not in these files; is {similar:?} meant?"),
            ),
            (None, None) if read.object.is_some() => (
                Severity::Note,
                format!("{kind} {name:?} is not in these files: it must exist in the namespace"),
            ),
            (None, None) => continue,
        };
        findings.push(read.find(severity, &path, &words));
    }
    findings
}

/// What a document names: the field, the kind and the name.
fn named<'a>(read: &'a Read<'_>) -> Vec<(String, &'static str, &'a str)> {
    let Some(spec) = read.node.get("spec") else {
        return Vec::new();
    };
    let members = |list: &str, field: &str| -> Vec<(String, &'static str, &'a str)> {
        let members = items(spec.get(list)).iter().enumerate();
        let name = |(at, member): (usize, &'a Node)| {
            let name = member.get(field)?.text()?;
            Some((format!("spec.{list}[{at}].{field}"), "TaskQueue", name))
        };
        members.filter_map(name).collect()
    };
    match read.kind.as_str() {
        "WorkerPool" => members("queues", "name"),
        "Pool" => members("guarantees", "queue"),
        _ => {
            let pool = spec.get("pool").and_then(|pool| pool.get("name")?.text());
            let after = spec
                .get("priority")
                .and_then(|priority| priority.get("downstream"));
            let pool = pool.map(|name| ("spec.pool.name".to_owned(), "Pool", name));
            let after = items(after).iter().enumerate().filter_map(|(at, next)| {
                let path = format!("spec.priority.downstream[{at}]");
                Some((path, "TaskQueue", next.text()?))
            });
            pool.into_iter().chain(after).collect()
        }
    }
}

/// The entries of a list; none of anything else.
fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
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
                BrokerError::Name(field) | BrokerError::Empty(field) | BrokerError::Http(field) => field,
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

fn worker_pool(read: &Read<'_>, wp: &WorkerPool, all: &[Read<'_>]) -> Vec<Finding> {
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
    let mut findings = Vec::new();
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
        Err(invalid) => findings.push(read.find(Severity::Error, &invalid.field, &invalid.message)),
        Ok(pool) => {
            findings.extend(budgets::too_large(read, &pool, &queues, all));
            for advice in advise(&pool, wp, &queues, &others) {
                // Without a broker in the files nothing is known of its limits.
                if advice.reason == Some(Reason::RedeliveryRisk) && known_broker.is_none() {
                    continue;
                }
                let reason = advice
                    .reason
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default();
                findings.push(read.find(
                    Severity::Warning,
                    &advice.field,
                    &format!("{}{reason}", advice.text),
                ));
            }
        }
    }
    findings
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
