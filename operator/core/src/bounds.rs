//! What bounds, pauses and a fallback make of a number.
//!
//! They are applied in an order that `scaling` gives. Each says what it changed; none knows a formula.

use poolwright_api::Reason;

use crate::decision::SCHEDULE;
use crate::draft::Draft;
use crate::member::Member;
use crate::memory::PoolMemory;
use crate::scaling::Scene;
use crate::schedule::Raise;
use crate::snapshot::PoolInput;

impl Scene<'_> {
    /// Tasks that are not due and that a worker holds keep one pod. All may have been parked in the moment before they were
    /// seen to be fetched: then one comes back.
    pub(crate) fn keep_for_later(&self, draft: &mut Draft) {
        let parked = self.fleet.members.iter().any(Member::is_parked);
        if draft.to == 0 && parked && self.demand.held_later > 0 {
            let clause = "1 stays for tasks that are not due".to_owned();
            draft.limit("heldLater", 1, clause);
        }
    }

    /// What somebody has asked not to be done. Where no pod may go, those that are parked take work again, as far as the
    /// bounds let them.
    pub(crate) fn brake(&self, draft: &mut Draft) {
        let (pause, (stands, parked)) = (self.pool.pause, self.stands);
        if self.pool.recommend && draft.to != stands {
            draft.reason = Reason::Recommended;
            let clause = format!("{} recommended: spec.scaling.mode is Recommend", draft.to);
            draft.limit("mode", stands, clause);
        }
        let whole = stands.saturating_add(parked).min(self.pool.most()).max(stands);
        let most = if pause.scale_in { whole } else { stands };
        if pause.scale_in && draft.to < whole {
            draft.reason = Reason::Paused;
            draft.limit("pausedScaleIn", whole, "scale-in is paused".to_owned());
        }
        if pause.scale_out && draft.to > most {
            draft.reason = Reason::Paused;
            draft.limit("pausedScaleOut", most, "scale-out is paused".to_owned());
        }
    }

    /// What stays where data stays away.
    pub(crate) fn fall_back(&self, memory: &PoolMemory, draft: &mut Draft) {
        let (Some(fallback), Some(since)) = (self.pool.fallback, memory.stale_since) else {
            return;
        };
        let stale = self.now.since(since);
        let least = fallback.replicas.min(self.pool.most());
        if stale < fallback.after || draft.to > least || self.from > least {
            return;
        }
        draft.reason = Reason::Fallback;
        let seconds = stale.as_secs();
        let clause = format!("fallback: no fresh data for {seconds} s, so at least {least} pods");
        if draft.to == least {
            // Reached: that it is the fallback which keeps them must be said all the same.
            draft.clauses.push(clause);
        } else {
            draft.limit("fallback", least, clause);
        }
    }
}

/// The least and the most, by the spec and its schedules.
pub(crate) fn bound(pool: &PoolInput, raise: Option<&Raise>, draft: &mut Draft) {
    if let Some(raise) = raise.filter(|raise| draft.to < raise.pods) {
        draft.limit(SCHEDULE, raise.pods, raise.words(pool.min));
    } else if draft.to < pool.min {
        let clause = format!("raised to minReplicas {}", pool.min);
        draft.limit("minReplicas", pool.min, clause);
    }
    if draft.to > pool.max {
        draft.reason = Reason::AtMaximum;
        let clause = format!("capped at maxReplicas {}", pool.max);
        draft.limit("maxReplicas", pool.max, clause);
    }
    cap(pool, draft);
}

/// The most by `maxActiveTasks`, which nothing passes.
pub(crate) fn cap(pool: &PoolInput, draft: &mut Draft) {
    if let Some(most) = pool.cap.filter(|most| draft.to > *most) {
        draft.reason = Reason::AtMaximum;
        let clause = format!("capped at {most} pods by maxActiveTasks");
        draft.limit("maxActiveTasks", most, clause);
    }
}
