//! What a decision remembers of the past of one WorkerPool.
//!
//! All of it is bounded, and all of it may be lost: a process that has just started knows nothing, and nothing
//! known means that no pod goes for a full window.

use std::time::Duration;

use crate::demand::{Demand, PodState};
use crate::sample::BrokerView;
use crate::scaling::need;
use crate::snapshot::PoolInput;
use crate::time::Moment;
use crate::window::Window;

/// After its last new worker was heard, a growth that has started no task for so long is barren.
const BARREN_AFTER: Duration = Duration::from_secs(6);

/// The past of one WorkerPool.
#[derive(Clone, Debug, Default)]
pub struct PoolMemory {
    /// Needs of the last while.
    pub window: Window,
    /// Share of running tasks (thousandths) that acknowledge early, as last seen.
    pub early: Option<u64>,
    /// Since when not every source has been fresh.
    pub stale_since: Option<Moment>,
    /// Until when a sudden zero is not believed.
    pub suspect_until: Option<Moment>,
    /// The last growth has added nothing.
    pub barren: bool,
    /// What the broker showed before it showed nothing, and what the workers had started by then.
    before_zero: Option<(u64, u64)>,
    /// When it began to show nothing.
    zero_since: Option<Moment>,
    /// The last growth: when, and what the workers had started by then.
    growth: Option<(Moment, u64)>,
    /// Tasks started, as of the last look.
    processed: u64,
}

impl PoolMemory {
    /// Takes in one look at the world.
    pub fn observe(&mut self, pool: &PoolInput, view: &BrokerView, demand: &Demand, now: Moment) {
        if demand.early_seen.is_some() {
            self.early = demand.early_seen;
        }
        let progressed = demand.processed != self.processed;
        self.processed = demand.processed;
        self.look_for_zero(pool, view, demand, now);
        self.look_for_growth(pool, view, demand, progressed, now);
        if !demand.complete {
            self.window.gap();
            self.stale_since.get_or_insert(now);
            return;
        }
        self.stale_since = None;
        let need = need(demand.hold_milli, pool.slots);
        // Heartbeats sample every two seconds and miss short tasks: a count that moved is work, too.
        let least = u32::from(progressed || !demand.nothing());
        self.window.push(now, demand.read_at, need.max(least));
    }

    /// The pool was given more pods.
    pub fn grew(&mut self, now: Moment, processed: u64) {
        self.growth = Some((now, processed));
    }

    /// On Redis a flush or an empty failover reads as zero. A fall to zero is believed once the workers have
    /// started as many tasks as vanished; until then, or for one window, it is suspect.
    fn look_for_zero(&mut self, pool: &PoolInput, view: &BrokerView, demand: &Demand, now: Moment) {
        if !view.zero_is_suspect || !demand.complete {
            return;
        }
        if demand.visible > 0 {
            self.before_zero = Some((demand.visible, demand.processed));
            self.zero_since = None;
            self.suspect_until = None;
            return;
        }
        let Some((vanished, processed)) = self.before_zero else {
            return;
        };
        let since = *self.zero_since.get_or_insert(now);
        // What ran at that time was counted as started before it vanished.
        let explained = demand.processed.saturating_sub(processed) + demand.busy.max(u64::from(pool.slots));
        if explained >= vanished {
            self.before_zero = None;
            self.suspect_until = None;
        } else {
            self.suspect_until = Some(since.after(pool.scale_down_delay));
        }
    }

    /// Growth is barren when all its pods have come up and no task has started since.
    fn look_for_growth(
        &mut self,
        pool: &PoolInput,
        view: &BrokerView,
        demand: &Demand,
        progressed: bool,
        now: Moment,
    ) {
        if demand.busy > 0
            || (progressed
                && self
                    .growth
                    .is_none_or(|(_, processed)| demand.processed > processed))
        {
            self.barren = false;
            self.growth = None;
            return;
        }
        let Some((grown, _)) = self.growth else { return };
        let coming = demand.count(|state| matches!(state, PodState::Pending | PodState::Starting));
        let newest = pool
            .consuming()
            .filter_map(|pod| view.workers.get(&pod.node()))
            .map(|worker| worker.first_seen)
            .max();
        if coming == 0 && newest.is_some_and(|seen| seen >= grown && now.since(seen) >= BARREN_AFTER) {
            self.barren = true;
        }
    }
}
