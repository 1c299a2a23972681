//! What the workers of a WorkerPool last said that they run and hold, added up.
//!
//! An answer is up to half a minute old: what its worker has started since is taken off. It decides nothing.

use std::collections::BTreeMap;

use crate::demand::MILLI;
use crate::fleet::Fleet;
use crate::later::Later;
use crate::ledger::{ANSWER_AGE, sum};
use crate::time::Moment;

/// Answers of a pool's consuming workers, added up.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) reserved: u64,
    /// Of these, what was fetched before the queues were counted: the rest may be in that count still.
    pub(crate) apart: u64,
    pub(crate) later: u64,
    /// When these fall due.
    pub(crate) coming: Later,
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    /// Running and acknowledged, by queue: no broker counts them.
    pub(crate) early: BTreeMap<String, u64>,
}

/// Adds them up, but for those that are too old. The queues were counted at `counted`.
pub(crate) fn answers(fleet: &Fleet, counted: Moment, now: Moment) -> Answers {
    let mut all = Answers::default();
    for member in fleet.consuming() {
        let (Some(worker), Some(answer)) = (member.heard(), member.answer()) else {
            continue;
        };
        if now.since(answer.at) > ANSWER_AGE {
            continue;
        }
        // What it started since is no longer reserved, and with a free slot it would have started all.
        let started = worker.processed.saturating_sub(answer.value.processed);
        if worker.last_seen <= answer.at || worker.active >= member.slots() {
            let reserved = sum(answer.value.reserved.values().copied()).saturating_sub(started);
            all.reserved = all.reserved.saturating_add(reserved);
            if answer.at <= counted {
                all.apart = all.apart.saturating_add(reserved);
            }
        }
        all.later = sum(answer.value.scheduled.values().copied().chain([all.later]));
        all.coming
            .add(&answer.value.later, |count| count.saturating_mul(MILLI));
        for (queue, running) in &answer.value.running {
            if running.acknowledged > 0 {
                let early = all.early.entry(queue.clone()).or_default();
                *early = early.saturating_add(running.acknowledged);
            }
            all.acknowledged = all.acknowledged.saturating_add(running.acknowledged);
            all.unacknowledged = all.unacknowledged.saturating_add(running.unacknowledged);
        }
    }
    all
}
