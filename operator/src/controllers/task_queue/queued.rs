//! What is told of Airflow's `task_queued_timeout`: the condition `QueuedInTime` of a TaskQueue whose workers are Airflow's.
//!
//! A task that has waited so long in the broker the scheduler takes back, and in the end fails. How long tasks wait, or
//! would until workers have started, is known to the core; this says when it is half of the time that they have.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use poolwright_api::Reason;
use poolwright_core::late::Lateness;
use poolwright_core::ledger::QueueLedger;
use poolwright_core::time::Moment;

use super::late::Said;
use crate::controllers::world::World;

/// It is told once it has been so for so long: a burst that finds no worker is no danger.
const AFTER: Duration = Duration::from_secs(5);

/// What is remembered of one queue.
pub(super) struct Queued(Lateness);

impl Default for Queued {
    /// Whether tasks wait or not: who reads it has time to do something before the first one does.
    fn default() -> Self {
        Self(Lateness::ahead())
    }
}

impl Queued {
    /// Takes in what is known now, and says what the condition says.
    pub(super) fn look(
        &mut self,
        timeout: Duration,
        book: Option<&QueueLedger>,
        times: (Moment, Timestamp),
    ) -> Said {
        self.0.look(book, (timeout / 2, AFTER), times);
        let Some(miss) = self.0.miss() else {
            return match self.0.is_missed() {
                Some(_) => (Some(true), Reason::AsDesired, String::new()),
                None => (None, Reason::Progressing, "not known yet".to_owned()),
            };
        };
        let words = format!(
            "since {:.0} tasks wait, or would until workers have started, longer than half of Airflow's task_queued_timeout \
             ({} s), after which its scheduler takes them back and in the end fails them: put the limit into Airflow's pool, \
             where they wait without a time limit, or raise spec.scaling.maxReplicas",
            miss.since,
            timeout.as_secs()
        );
        (Some(false), Reason::QueuedTooLong, words)
    }
}

/// The least `task_queued_timeout` of the Airflows whose workers consume a queue, by namespace and name of the TaskQueue.
pub(super) fn timeouts(world: &World) -> BTreeMap<(String, String), Duration> {
    let mut all: BTreeMap<(String, String), Duration> = BTreeMap::new();
    for wp in world.pools.all(None) {
        let Some(airflow) = &wp.spec.airflow else { continue };
        let namespace = wp.namespace().unwrap_or_default();
        for queue in &wp.spec.queues {
            let known = all.entry((namespace.clone(), queue.name.clone()));
            let timeout = airflow.task_queued_timeout();
            known
                .and_modify(|known| *known = timeout.min(*known))
                .or_insert(timeout);
        }
    }
    all
}
