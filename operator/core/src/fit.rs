//! Cuts a number to what Pools allow, and says which of them takes off how much, and why.
//!
//! What a WorkerPool has above its share is given up only where others wait for it, and on fresh data.

use std::time::Duration;

use crate::budget::{Allowance, Pressed};
use crate::cause::{Cause, cut};
use crate::decision::POOL;
use crate::draft::Draft;
use crate::memory::PoolMemory;
use crate::policy::longest_stay;
use crate::scaling::{Scene, pods};
use crate::text::counted;
use crate::time::Moment;

/// What a WorkerPool has above its share others of its own tier wait for at least so long.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);

/// Others of a higher tier at least so long: what comes and goes between two looks is no reason to park.
const PRESSED_FOR: Duration = Duration::from_secs(2);

impl Scene<'_> {
    /// Cuts the number to what its Pools allow; true if they leave it none although it has something to do.
    pub(crate) fn fit(&self, allowance: &Allowance, memory: &mut PoolMemory, draft: &mut Draft) -> bool {
        let (pool, from, wanted) = (self.pool, self.from, draft.to);
        let needed = wanted - draft.spare;
        if pool.conflict.is_some() || pool.terminating {
            memory.giving = None;
            return false;
        }
        let shrinks = allowance.target < from.min(wanted);
        let lasts = |since: &mut Option<Moment>, is: bool, long: Duration| {
            *since = is.then(|| since.unwrap_or(self.now));
            since.is_some_and(|since| self.now.since(since) >= long)
        };
        let pressed = allowance.pressed;
        // What is only spare is given up no sooner than a start would have paid for it.
        let after = if allowance.target < needed {
            RECLAIM_AFTER
        } else {
            RECLAIM_AFTER.max(longest_stay(self.fleet, memory, self.now))
        };
        // What more could go is seen once those are parked.
        if memory.giving.is_some_and(|left| from <= left) {
            (memory.giving, memory.pressed_since.0) = (None, None);
        }
        let (by_any, by_higher) = &mut memory.pressed_since;
        let long = lasts(by_any, shrinks && pressed != Pressed::No, after);
        let at_once = lasts(by_higher, shrinks && pressed == Pressed::ByHigher, PRESSED_FOR);
        let due = long || at_once;
        let is_kept = !self.demand.complete || pool.pause.scale_in || pool.recommend;
        let least = if due && !is_kept { 0 } else { from };
        let share = allowance.target.max(least.min(wanted));
        let left = share.max(needed).max(memory.giving.unwrap_or(0)).min(wanted);
        memory.giving = None;
        if let Some(cause) = allowance.cause.as_ref().filter(|_| left < wanted) {
            self.give_up(draft, left, Some(cause.pool()));
            memory.giving = (share >= needed && left < from).then_some(left);
        }
        if let Some(cause) = allowance.cause.as_ref().filter(|_| share < needed) {
            let clause;
            (draft.reason, clause) = cut(cause);
            draft.limit(POOL, share, clause);
        }
        let staying = pods(self.fleet.members.iter().filter(|one| !one.pod.draining));
        let most = staying
            .max(pool.replicas())
            .saturating_add(allowance.room)
            .max(from);
        let why = allowance.waits.as_ref().or(allowance.cause.as_ref());
        let is_short = matches!(why, None | Some(Cause::Limited { .. } | Cause::Waiting { .. }));
        if is_short && draft.to > most.max(needed) {
            self.give_up(draft, most.max(needed), why.map(Cause::pool));
        }
        if let Some(cause) = why.filter(|_| draft.to > most) {
            let clause;
            (draft.reason, clause) = cut(cause);
            draft.limit(POOL, most, clause);
        }
        let is_shared = matches!(why, Some(Cause::Waiting { .. } | Cause::Limited { .. }));
        // One that is parked still has its turn: else it would come back before its slots are another's. And a turn that has
        // come is not over before its pod is asked for: else it would be another's by the next look.
        let has_none = staying.max(pool.replicas()) == 0 && needed > 0;
        let waits = draft.to == 0 && is_shared || memory.without_since.is_some();
        let without = has_none && waits;
        memory.without_since = without.then(|| memory.without_since.unwrap_or(self.now));
        let too_large = allowance
            .cause
            .as_ref()
            .filter(|cause| matches!(cause, Cause::TooLarge { .. }));
        let is_told = draft.limits.iter().any(|limit| limit.name == POOL);
        if let Some(cause) = too_large.filter(|_| !is_told) {
            let clause;
            (draft.reason, clause) = cut(cause);
            draft.clauses.push(clause);
        }
        draft.to == 0 && wanted > 0 && !is_kept
    }

    /// Cuts off what would only be kept, or is refused.
    fn give_up(&self, draft: &mut Draft, left: u32, pool: Option<&str>) {
        let pods = counted(draft.to - left, "pod is", "pods are");
        let whose = pool.map_or_else(
            || "its Pools have".to_owned(),
            |pool| format!("Pool {pool:?} has"),
        );
        let why = if self.fleet.with_one_refused().is_some() {
            "refused by the cluster"
        } else {
            "not needed now"
        };
        draft.limit(
            "spare",
            left,
            format!("{pods} {why}, and {whose} no slots for that"),
        );
    }
}
