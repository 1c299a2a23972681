//! Whether a queue can be read and used, in words: the condition `Ready` of a TaskQueue.
//!
//! A function of what one look saw.

use kube::ResourceExt as _;
use poolwright_api::v1alpha1::{Pool, TaskQueue};
use poolwright_api::{DEFAULT_POOL, Reason};
use poolwright_core::cause;
use poolwright_core::conditions::reason_of;

use super::Seen;

/// Why the tasks of a queue may take no slots: its Pool does not exist. One that the operator makes itself is only on
/// its way, unless it is refused.
pub(super) fn missing_pool(queue: &TaskQueue, pool: Option<&Pool>, unmade: Option<&str>) -> Option<String> {
    let name = queue.pool_name();
    if name == DEFAULT_POOL {
        return unmade.filter(|_| pool.is_none()).map(str::to_owned);
    }
    pool.is_none().then(|| {
        format!(
            "Pool {name:?} does not exist in this namespace, so no worker is started for this queue: create it, or \
             correct spec.pool.name"
        )
    })
}

pub(super) fn summary(queue: &TaskQueue, seen: &Seen<'_>) -> (Option<bool>, Reason, String) {
    if let Some(rival) = seen.rival {
        let (name, other) = (queue.queue_name(), rival.name_any());
        let place = match rival.namespace() {
            namespace if namespace == queue.namespace() => String::new(),
            namespace => format!(" in namespace {:?}", namespace.unwrap_or_default()),
        };
        let message = format!(
            "TaskQueue {other:?}{place} already names the queue {name:?} of this broker, and WorkerPools may count its messages twice: delete one of the two"
        );
        return (Some(false), Reason::Conflict, message);
    }
    if let Some(why) = &seen.unreadable {
        let message = cause::unreadable(queue.pool_name(), why);
        return (Some(false), Reason::PoolMissing, message);
    }
    if let Some(message) = missing_pool(queue, seen.pool, seen.unmade.as_deref()) {
        return (Some(false), Reason::PoolMissing, message);
    }
    let Some(book) = seen.book else {
        return (None, Reason::Progressing, "not read yet".to_owned());
    };
    if let Some(fault) = &book.fault {
        let message = format!("{} (since {:.0})", fault.message, fault.since_wall);
        return (Some(false), reason_of(fault.kind), message);
    }
    if book.ready.is_none() {
        return (None, Reason::Progressing, "not read yet".to_owned());
    }
    // It works; the first of these gives the reason, and each its words.
    let foreign = (book.foreign_consumers > 0).then(|| {
        let names: Vec<&str> = book.foreign.iter().take(5).map(String::as_str).collect();
        let words = format!(
            "{} consumers are not ours: {}",
            book.foreign_consumers,
            names.join(", ")
        );
        (Reason::ForeignConsumers, words)
    });
    let (reasons, words): (Vec<Reason>, Vec<String>) = links(seen).chain(foreign).unzip();
    let reason = reasons.first().copied().unwrap_or(Reason::AsDesired);
    (Some(true), reason, words.join("; "))
}

/// What is wrong with its links to other queues.
fn links(seen: &Seen<'_>) -> impl Iterator<Item = (Reason, String)> {
    let circle = seen.cycle.map(|cycle| {
        let words = format!(
            "{cycle} is a circle of spec.priority.downstream, in which no queue comes before another: each weighs what \
             is written in it; remove one of the links"
        );
        (Reason::WeightCycle, words)
    });
    let unknown = seen.unknown.first().map(|first| {
        let more = match seen.unknown.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let words = format!(
            "spec.priority.downstream names {first:?}{more}, and no TaskQueue of that name is in this namespace: it adds \
             no weight; create it, or correct the name"
        );
        (Reason::QueueUnknown, words)
    });
    circle.into_iter().chain(unknown)
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
