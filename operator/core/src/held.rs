//! Messages that pods have fetched and not acknowledged, as far as the workers' word and the broker's count tell.
//!
//! What is not known counts as much for what somebody may hold, and as nothing for what he still holds for certain. Decides
//! nothing.

use crate::demand::MILLI;
use crate::fleet::Fleet;
use crate::ledger::{ANSWER_AGE, capacity, fleet_capacity, sum};
use crate::member::Member;
use crate::snapshot::PoolInput;
use crate::time::Moment;

/// What a parked pod holds, as far as is known: a process that is not heard may hold something.
pub(crate) fn held_by_parked(member: &Member) -> u64 {
    match member.heard() {
        Some(worker) => worker.active.max(member.said_held().unwrap_or(0)),
        None => u64::from(member.pod.running_since.is_some()),
    }
}

/// What a parked pod may hold unacknowledged: for growth as much as it can until it has said what it does hold, for
/// scale-in no more than it still holds for certain.
fn held_apart(member: &Member, pool: &PoolInput, now: Moment) -> (u64, u64) {
    let since = |at: Moment| member.pod.parked.is_some_and(|parked| at >= parked);
    let asked = member.answer().is_some_and(|answer| since(answer.at));
    let said = member.said_held().filter(|_| asked);
    (
        said.unwrap_or_else(|| capacity(member, pool)),
        still_held(member, now),
    )
}

/// Fetched messages on consuming pods, in thousandths, for growth and for scale-in: all that our pods can hold,
/// less what the draining ones may hold (a draining worker is silent and counts as full) and the parked ones do, but no
/// less than the consuming ones say. Where the broker cannot tell what is due, growth counts no more than they say.
pub(crate) fn held_by_consuming(fleet: &Fleet, held: u64, able: u64, dated: bool, now: Moment) -> (u64, u64) {
    let draining = fleet_capacity(fleet, |member| member.pod.draining);
    let parked = fleet.members.iter().filter(|member| member.is_parked());
    let (most, least) = parked.fold((draining, draining), |(most, least), member| {
        let (may, does) = held_apart(member, fleet.pool, now);
        (most.saturating_add(may), least.saturating_add(does))
    });
    let heard = || fleet.consuming().filter(|member| member.heard().is_some());
    let said = sum(heard().filter_map(Member::said_held)).saturating_mul(MILLI);
    let held = held.min(able.saturating_mul(MILLI));
    let still = || sum(heard().map(|member| still_held(member, now))).saturating_mul(MILLI);
    let certain = if most == 0 { 0 } else { held.min(still()) };
    let at_most = held.saturating_sub(least.saturating_mul(MILLI)).max(certain);
    let held = held.saturating_sub(most.saturating_mul(MILLI)).max(certain);
    if dated {
        return (held, at_most);
    }
    let mute = heard().filter(|member| member.worker.is_some_and(|worker| worker.unreadable.is_some()));
    let mute = sum(mute.map(|member| capacity(member, fleet.pool))).saturating_mul(MILLI);
    (held.min(said.saturating_add(mute)), at_most)
}

/// The least that a worker still holds unacknowledged of what it last said, by what it has started and runs since.
fn still_held(member: &Member, now: Moment) -> u64 {
    let (Some(worker), Some(answer)) = (member.heard(), member.answer()) else {
        return 0;
    };
    let said = &answer.value;
    let running = sum(said.running.values().map(|running| running.unacknowledged));
    let reserved = sum(said.reserved.values().copied());
    if now.since(answer.at) > ANSWER_AGE {
        0
    } else if worker.last_seen <= answer.at {
        running.saturating_add(reserved)
    } else if worker.active < member.slots() {
        // With a free slot it has started all that it had.
        running.min(worker.active)
    } else {
        let started = worker.processed.saturating_sub(said.processed);
        running
            .min(worker.active)
            .saturating_add(reserved.saturating_sub(started))
    }
}
