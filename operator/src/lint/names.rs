//! Names of objects that the files do not have.
//!
//! An object that is not in the files may well be in the cluster: that is a note. One that is nearly there, under
//! another name or in another namespace, is a warning.

use poolwright_api::DEFAULT_POOL;

use super::document::{Node, Value};
use super::objects::Read;
use super::{Finding, Severity, schema};

/// What a document names that is not there. A TaskQueue's name that cannot be one is looked at too: names on the broker,
/// which are what a WorkerPool's column QUEUES shows, often hold an underscore.
pub fn references(read: &Read<'_>, all: &[Read<'_>]) -> Vec<Finding> {
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
        let meant = meant(kind, name, &known).or_else(|| elsewhere(kind, name, all));
        let (severity, words) = match meant {
            Some(words) => (Severity::Warning, words),
            None if read.object.is_some() => (
                Severity::Note,
                format!("{kind} {name:?} is not in these files: it must exist in the namespace"),
            ),
            None => continue,
        };
        findings.push(read.find(severity, &path, &words));
    }
    findings
}

/// The object of the namespace that may be meant.
fn meant(kind: &str, name: &str, known: &[&Read<'_>]) -> Option<String> {
    let on_broker = known.iter().find(|queue| {
        let task_queue = queue.task_queue();
        task_queue.is_some_and(|task_queue| task_queue.queue_name() == name)
    });
    if let Some(queue) = on_broker {
        return Some(format!(
            "{name:?} is a queue's name on the broker: write the name of its TaskQueue, {:?} ({})",
            queue.name,
            queue.position("metadata.name")
        ));
    }
    let names = || known.iter().map(|other| other.name.as_str());
    let similar = schema::similar(name, names()).or_else(|| names().find(|other| extends(name, other)))?;
    Some(format!(
        "{kind} {name:?} is not in these files; is {similar:?} meant?"
    ))
}

/// Whether one name is the other with a word before or behind it, such as `mail` and `mail-queue`.
fn extends(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    let rest = [long.strip_prefix(short), long.strip_suffix(short)];
    let [behind, before] = rest.map(|rest| rest.filter(|_| !short.is_empty()));
    behind.is_some_and(|rest| rest.starts_with('-')) || before.is_some_and(|rest| rest.ends_with('-'))
}

/// The object of this very name in another namespace.
fn elsewhere(kind: &str, name: &str, all: &[Read<'_>]) -> Option<String> {
    let found = all
        .iter()
        .find(|other| other.kind == kind && other.name == name)?;
    let namespace = match found.namespace.as_str() {
        "" => "is written without a namespace".to_owned(),
        namespace => format!("is in namespace {namespace:?}"),
    };
    Some(format!(
        "{kind} {name:?} ({}) {namespace}: objects see those of their own namespace only",
        found.position("metadata.name")
    ))
}

/// What a document names: the field, the kind and the name.
pub(super) fn named<'a>(read: &'a Read<'_>) -> Vec<(String, &'static str, &'a str)> {
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

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
