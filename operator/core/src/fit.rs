//! Cuts a number to what Pools allow, and says which of them takes off how much, and why.
//!
//! What a WorkerPool has above its share is given up only where others wait for it, and on fresh data.

use std::time::Duration;

use crate::budget::{Allowance, Pressed};
use crate::cause::cut;
use crate::memory::PoolMemory;
use crate::scaling::{Draft, Scene, pods};

/// What a WorkerPool has above its share others of its own tier wait for at least so long.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);

impl Scene<'_> {
    /// Cuts the number to what its Pools allow; true if they take back the last pod. What it has above its share it
    /// gives up only where others wait for it, and on fresh data.
    pub(crate) fn fit(&self, allowance: &Allowance, memory: &mut PoolMemory, draft: &mut Draft) -> bool {
        let (pool, from, wanted) = (self.pool, self.from, draft.to);
        if pool.conflict.is_some() || pool.terminating {
            return false;
        }
        let shrinks = allowance.target < from.min(wanted) && allowance.pressed != Pressed::No;
        let since = shrinks.then(|| memory.pressed_since.unwrap_or(self.now));
        memory.pressed_since = since;
        let due = match allowance.pressed {
            Pressed::ByHigher => true,
            Pressed::ByEquals => since.is_some_and(|since| self.now.since(since) >= RECLAIM_AFTER),
            Pressed::No => false,
        };
        let is_kept = !self.demand.complete || pool.pause.scale_in || pool.recommend;
        let least = if due && !is_kept { 0 } else { from };
        let share = allowance.target.max(least.min(wanted));
        if share < wanted {
            let (reason, name, clause) = cut(allowance.cause.as_ref(), allowance.target, wanted);
            (draft.reason, memory.unmet_since) = (reason, memory.unmet_since.or(Some(self.now)));
            draft.limit(name, share, clause);
        }
        let staying = pods(self.fleet.members.iter().filter(|one| !one.pod.draining));
        let most = staying.max(pool.replicas()).saturating_add(allowance.room);
        if draft.to > most.max(from) {
            let why = allowance.waits.as_ref().or(allowance.cause.as_ref());
            let (reason, name, clause) = cut(why, allowance.target, draft.to);
            (draft.reason, memory.unmet_since) = (reason, memory.unmet_since.or(Some(self.now)));
            draft.limit(name, most.max(from), clause);
        }
        if draft.to == wanted {
            memory.unmet_since = None;
        }
        draft.to == 0 && wanted > 0 && due
    }
}
