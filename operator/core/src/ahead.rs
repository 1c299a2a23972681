//! What falls due soon: the tasks that a worker which is started now would be in time for.
//!
//! Decides how far ahead to look, what of it counts as demand and when. Knows no formula and no bound: a policy says how
//! many pods there would be without it and with it, and is told which of the two holds now.
//!
//! What shapes it is that a worker fetches *every* task that is not due, however many slots it has, and must run them itself
//! (unless the app sets `worker_eta_task_limit`). So one pod may come up early, but of several the first would take
//! everything and run it task by task beside idle ones: several are started so late that even the quickest of them comes
//! up when the tasks are due, and then they share them. And while a worker takes from a queue, more pods change nothing.

use std::time::Duration;

use crate::demand::{Demand, MILLI};
use crate::fleet::Fleet;
use crate::later::Later;
use crate::ledger::sum;
use crate::memory::PoolMemory;
use crate::snapshot::Snapshot;
use crate::wait_target::Sight;

/// One pod is up so long before the first task falls due: a worker's clock may be so much ahead of ours.
const EARLY: Duration = Duration::from_secs(5);
/// What has waited so long in a queue that a worker takes from is not fetched: all workers are full.
const UNFETCHED_AFTER: Duration = Duration::from_secs(10);

/// What falls due within the time that one pod needs, and a little more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// Tasks that no worker has fetched, or is about to.
    tasks: u64,
    /// Tasks, wherever they are: those that workers hold, too, as many as fall due at once.
    pub(crate) kept: u64,
    /// How far ahead was looked.
    within: Duration,
    /// Time until the first of `tasks` falls due.
    first: Duration,
    /// The least time that a pod needed lately; zero where that is not known.
    quickest: Duration,
}

/// What a decision says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tasks that are counted although they are not due, and within how long they are.
    pub(crate) counted: Option<(u64, Duration)>,
    /// Tasks that are not counted yet because several pods would be up too early, and when the first falls due.
    pub(crate) waits: Option<(u64, Duration)>,
}

impl Ahead {
    /// Looks ahead for one WorkerPool.
    pub(crate) fn new(fleet: &Fleet, demand: &Demand, memory: &mut PoolMemory, snapshot: &Snapshot) -> Self {
        let (now, wall) = (snapshot.now, snapshot.wall);
        let mut coming = demand.coming.clone();
        if demand.attended.is_empty() {
            memory.unfetched_since = None;
        } else if now.since(*memory.unfetched_since.get_or_insert(now)) >= UNFETCHED_AFTER {
            coming.add(&demand.attended, |count| count);
        }
        let within = memory.start_up(fleet, now).saturating_add(EARLY);
        let count = |later: &Later| later.within(within, wall).div_ceil(MILLI);
        // A worker has begun what was due by now, and may not have been asked since. Of a stream only what falls due within
        // one service time is there at once.
        let held = demand.held_coming.after(wall);
        let service = Duration::try_from_secs_f64(memory.estimates.service()).unwrap_or(within);
        let at_once = held.most_at_once(service, within, wall).div_ceil(MILLI);
        let kept = [count(&demand.coming), count(&demand.attended), at_once];
        Self {
            tasks: count(&coming),
            kept: sum(kept),
            within,
            first: coming.first(wall).unwrap_or_default(),
            quickest: memory.quickest(),
        }
    }

    /// So many tasks with those that fall due soon.
    pub(crate) fn with(&self, tasks: u64) -> u64 {
        tasks.saturating_add(self.tasks)
    }

    /// What the wait target looks at with those that fall due soon, if there are any: they have time until then.
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts far below 2^52; larger ones are only large"
    )]
    pub(crate) fn plan(&self, sight: Sight) -> Option<Sight> {
        let young = -self.first.as_secs_f64().min(sight.start_up);
        (self.tasks > 0).then_some(Sight {
            waiting: sight.waiting + self.tasks as f64,
            age: if sight.waiting > 0.0 { sight.age } else { young },
            ..sight
        })
    }

    /// Of the pods that are needed without and with what falls due soon: whether the latter are the ones to have now, and
    /// what there is to say of it.
    pub(crate) fn counts(&self, without: u32, with: u32) -> (bool, Told) {
        if self.tasks == 0 {
            return (false, Told::default());
        }
        let counts = with <= without.max(1) || self.first <= self.quickest;
        let told = if counts {
            Told {
                counted: Some((self.tasks, self.within)),
                waits: None,
            }
        } else {
            Told {
                counted: None,
                waits: Some((self.tasks, self.first)),
            }
        };
        (counts, told)
    }
}
