//! Whether work of a higher tier gets past work of a lower one.
//!
//! A tier decides who gets workers. What a worker then takes is Celery's business: it goes through its queues in turn,
//! and runs all that it has fetched before it makes room. So both can undo what a tier or a guarantee is for.

use std::cmp::Reverse;

use poolwright_api::v1alpha1::AckMode;

use super::objects::Read;
use super::workers::{Consumed, Worker};
use super::{Finding, Severity};

/// What one WorkerPool does to the tiers and guarantees of its queues and of others.
#[must_use]
pub fn check(worker: &Worker<'_>, all: &[Read<'_>]) -> Vec<Finding> {
    let mixed = tiers(worker).or_else(|| guarantees(worker, all));
    mixed.into_iter().chain(prefetch(worker, all)).collect()
}

/// Queues of several tiers in one WorkerPool.
fn tiers(worker: &Worker<'_>) -> Option<Finding> {
    let tier = |consumed: &&Consumed<'_>| consumed.queue.tier().value();
    let first = worker
        .queues
        .iter()
        .max_by_key(|one| (tier(one), Reverse(&one.read.name)))?;
    let last = worker
        .queues
        .iter()
        .min_by_key(|one| (tier(one), &one.read.name))?;
    if tier(&first) == tier(&last) {
        return None;
    }
    let words = format!(
        "TaskQueue {:?} is {:?} and {:?} is {:?}, and a worker takes from its queues in turn: tasks of the higher tier \
         wait behind those of the lower one; give each tier a WorkerPool of its own",
        first.read.name,
        first.queue.tier(),
        last.read.name,
        last.queue.tier(),
    );
    Some(worker.read.find(Severity::Warning, "spec.queues", &words))
}

/// A queue with a guarantee beside one without.
fn guarantees(worker: &Worker<'_>, all: &[Read<'_>]) -> Option<Finding> {
    let guarantee = |consumed: &&Consumed<'_>| {
        let near = all
            .iter()
            .filter(|other| other.namespace == worker.read.namespace);
        let mut pools = near.filter(|other| other.name == consumed.queue.pool_name());
        let names = |pool: &Read<'_>| {
            let guarantees = pool.pool().map(|pool| &pool.spec.guarantees);
            guarantees.is_some_and(|all| all.iter().any(|one| one.queue == consumed.read.name))
        };
        pools.any(names)
    };
    let with = worker.queues.iter().find(guarantee)?;
    let without = worker.queues.iter().find(|consumed| !guarantee(consumed))?;
    let words = format!(
        "Pool {:?} guarantees slots to TaskQueue {:?} and none to {:?}, and a worker takes from its queues in turn: the \
         slots that are kept run both; give the queue with the guarantee a WorkerPool of its own",
        with.queue.pool_name(),
        with.read.name,
        without.read.name,
    );
    Some(worker.read.find(Severity::Warning, "spec.queues", &words))
}

/// Tasks that a worker has fetched and runs before it makes room for a higher tier.
fn prefetch(worker: &Worker<'_>, all: &[Read<'_>]) -> Option<Finding> {
    let prefetch = worker.pool.effective_prefetch();
    if prefetch <= 1 {
        return None;
    }
    let near = || {
        let near = all
            .iter()
            .filter(|other| other.namespace == worker.read.namespace);
        near.filter_map(|other| Some((other, other.task_queue()?)))
    };
    let above = worker.queues.iter().find_map(|own| {
        let same = near().filter(|(_, other)| other.pool_name() == own.queue.pool_name());
        let above = same.filter(|(_, other)| other.tier().value() > own.queue.tier().value());
        above.max_by_key(|(read, other)| (other.tier().value(), Reverse(&read.name)))
    });
    let (read, queue) = above?;
    // An early acknowledgement makes room for one more behind the running one.
    let early = i32::from(worker.pool.ack_mode != AckMode::Late);
    let words = format!(
        "Pool {:?} has work of a higher tier (TaskQueue {:?}, {:?}), and a worker makes room for it only after all that it \
         has fetched: with prefetch {prefetch} up to {} tasks a slot, one after the other; write 1 here, and let tasks \
         acknowledge late",
        queue.pool_name(),
        read.name,
        queue.tier(),
        prefetch.saturating_add(early),
    );
    let field = worker.pool.program.field("prefetchMultiplier");
    Some(worker.read.find(Severity::Note, &field, &words))
}

#[cfg(test)]
mod tests {
    use crate::lint::testing::{pool, queue, said, worker};

    fn two(tiers: [&str; 2], guarantees: &str) -> Vec<String> {
        let queue =
            |name: &str, tier: &str| queue(name, &format!("pool: {{name: db}}, priority: {{tier: {tier}}}"));
        said(&[
            pool("db", &format!("slots: 20, guarantees: [{guarantees}]")),
            queue("payments", tiers[0]),
            queue("reports", tiers[1]),
            worker("both", &["reports", "payments"], ""),
        ])
    }

    #[test]
    fn a_tier_has_a_worker_pool_of_its_own() {
        assert_eq!(two(["Normal", "Normal"], ""), [""; 0]);
        assert_eq!(
            two(["Critical", "Low"], ""),
            [
                "warning: spec.queues: TaskQueue \"payments\" is Critical and \"reports\" is Low, and a worker takes from \
                 its queues in turn: tasks of the higher tier wait behind those of the lower one; give each tier a \
                 WorkerPool of its own"
            ]
        );
    }

    #[test]
    fn a_guarantee_has_a_worker_pool_of_its_own() {
        let (payments, reports) = ("{queue: payments, slots: 4}", "{queue: reports, slots: 4}");
        assert_eq!(
            two(["Normal", "Normal"], payments),
            [
                "warning: spec.queues: Pool \"db\" guarantees slots to TaskQueue \"payments\" and none to \"reports\", and \
                 a worker takes from its queues in turn: the slots that are kept run both; give the queue with the \
                 guarantee a WorkerPool of its own"
            ]
        );
        assert_eq!(
            two(["Normal", "Normal"], &format!("{payments}, {reports}")),
            [""; 0]
        );
    }

    #[test]
    fn what_a_lower_tier_fetches_is_told_where_a_higher_one_waits() {
        let with = |tier: &str, prefetch: &str| {
            let high = format!("pool: {{name: db}}, priority: {{tier: {tier}}}");
            let slow = worker("slow", &["reports"], "").replace("prefetchMultiplier: 1", prefetch);
            said(&[
                pool("db", "slots: 20"),
                queue("payments", &high),
                queue("reports", "pool: {name: db}"),
                worker("fast", &["payments"], ""),
                slow,
            ])
        };
        assert_eq!(with("Normal", "prefetchMultiplier: 4"), [""; 0]);
        assert_eq!(with("Low", "prefetchMultiplier: 4"), [""; 0]);
        assert_eq!(with("High", "prefetchMultiplier: 1"), [""; 0]);
        let note = "note: spec.celery.prefetchMultiplier: Pool \"db\" has work of a higher tier (TaskQueue \"payments\", \
                    High), and a worker makes room for it only after all that it has fetched: with prefetch 4 up to 5 \
                    tasks a slot, one after the other; write 1 here, and let tasks acknowledge late";
        assert_eq!(with("High", "prefetchMultiplier: 4"), [note]);
        let late = with("High", "prefetchMultiplier: 4, ackMode: Late");
        assert_eq!(late, [note.replace("up to 5", "up to 4")]);
        // Nothing written: class General has 4.
        assert_eq!(with("High", "logLevel: Info"), [note]);
    }
}
