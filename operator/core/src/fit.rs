//! Cuts a number to what Pools allow, and says which of them takes off how much, and why.
//!
//! What a WorkerPool has above its share is given up only where others wait for it, and on fresh data.

use std::fmt::Write as _;
use std::time::Duration;

use poolwright_api::Reason;

use crate::budget::{Allowance, Cause, Pressed};
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

/// The reason, the limit's name and the words for what a Pool takes off.
fn cut(why: Option<&Cause>, target: u32, wanted: u32) -> (Reason, &'static str, String) {
    match why {
        Some(Cause::Missing { pool }) => {
            let clause = format!("Pool {pool:?} does not exist: create it, or correct spec.pool.name");
            (Reason::PoolMissing, "pool", clause)
        }
        Some(Cause::TooLarge {
            pool,
            slots,
            pod,
            fits,
        }) => {
            let mut clause = format!("Pool {pool:?} has {slots} slots and one pod takes {pod}");
            if *fits > 0 {
                let _ = write!(clause, ": the largest concurrency that fits is {fits}");
            }
            (Reason::PodLargerThanPool, "pool", clause)
        }
        Some(Cause::Waiting { pool, missing }) => {
            let clause = format!("waits for {missing} slots of Pool {pool:?} that others still take");
            (Reason::WaitingForSlots, "pool", clause)
        }
        Some(Cause::Limited { pool, missing }) => {
            let clause =
                format!("Pool {pool:?} gives {target} of {wanted} pods: {missing} slots are missing");
            (Reason::PoolLimited, "pool", clause)
        }
        Some(Cause::Capped) | None => {
            let clause = format!("capped at {target} pods by maxActiveTasks");
            (Reason::AtMaximum, "maxActiveTasks", clause)
        }
    }
}
