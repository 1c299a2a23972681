//! What a WorkerPool wants by its policy, before any bound.
//!
//! Two policies: a slot for each task there is, or the wait below a target. Both say what justifies growth and what keeps
//! pods, from the same demand; what is confirmed, bounded, delayed or shared is decided after, the same way for both.

use std::time::Duration;

use jiff::Timestamp;

use crate::ahead::{Ahead, Told};
use crate::crowding::Useful;
use crate::demand::{Demand, Input, PodState};
use crate::estimate::{Estimates, float, whole};
use crate::fleet::Fleet;
use crate::member::Member;
use crate::memory::PoolMemory;
use crate::scaling::need;
use crate::snapshot::Snapshot;
use crate::time::Moment;
use crate::wait_target::{PLANNED, Sight, Term, Wish, desired};

/// `spec.scaling.policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// A slot for each task that waits or runs.
    #[default]
    Backlog,
    /// As few slots as keep the wait below the target.
    WaitTarget {
        /// The least `waitTargetSeconds` of its queues.
        target: Duration,
        /// `scaleDownDelaySeconds`, where it is written; otherwise pods that are not needed any more stay for their
        /// own start-up time, or for less where that has cost less lately.
        delay: Option<Duration>,
    },
}

/// Bounds of the longest time for which pods stay where none is written.
const STAY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// One worker, or this part of what there is, is little.
const DEAD_BAND: f64 = 0.1;
/// So long a little more must have been wanted for the load alone.
pub(crate) const LITTLE_MORE_FOR: Duration = Duration::from_secs(60);
/// A task that has waited for this part of the target, half of what is planned for, waits for a worker.
const WAITS: f64 = PLANNED / 2.0;
/// For so many start-up times a little less must have sufficed, and so long at least.
const LITTLE_LESS_FOR: (f64, Duration) = (2.0, Duration::from_secs(60));
/// The window of the rate of arrivals, and shorter ones in which a change is looked for, in seconds.
const USUAL: f64 = 900.0;
const RECENT: [f64; 3] = [60.0, 120.0, 300.0];
/// What comes for so long, in seconds, and twice more, does not come at once.
const THIRD: f64 = 5.0;
/// Pods that have been starting for more than so many start-up times may never be up.
const OVERDUE: f64 = 2.0;
/// The past is young until so many seconds of it are known.
const YOUNG: f64 = 60.0;

/// What it wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// Pods by the formula.
    pub(crate) formula: u32,
    /// Pods that are justified.
    pub(crate) pods: u32,
    /// Pods that may be needed, and so stay.
    pub(crate) hold: u32,
    /// Of these, pods that what there is to do may need: the others are kept because that is cheaper than to start them
    /// again. `u32::MAX` where nobody says so.
    pub(crate) needed: u32,
    /// How the wait target came to it. Apart from the rest: it is most of it, and the other policy has none.
    pub(crate) wish: Option<Box<(Sight, Wish)>>,
    /// What falls due soon.
    pub(crate) ahead: Told,
}

/// What the policy of this WorkerPool makes of its demand.
pub(crate) fn wanted(fleet: &Fleet, demand: &Demand, memory: &mut PoolMemory, snapshot: &Snapshot) -> Wanted {
    let now = snapshot.now;
    let slots = fleet.slots;
    let least = u32::from(demand.orphaned > 0);
    let ahead = Ahead::new(fleet, demand, memory, snapshot);
    memory.at_work = 0;
    let Policy::WaitTarget { target, delay } = fleet.pool.policy else {
        let tasks = demand.counted.tasks();
        let (now, soon) = (need(tasks, slots), need(ahead.with(tasks), slots));
        let (counts, told) = ahead.counts(now, soon);
        let pods = if counts { soon } else { now }.max(least);
        return Wanted {
            formula: pods,
            pods,
            hold: need(demand.hold.saturating_add(ahead.kept), slots),
            needed: u32::MAX,
            wish: None,
            ahead: told,
        };
    };
    let start_up = memory.start_up(fleet, now).as_secs_f64();
    let warm = memory.warm;
    let counted = demand.counted;
    let waiting = counted.ready.saturating_add(counted.reserved);
    let (coming, waits) = memory.flows.coming_and_waiting(memory.estimates.service());
    let (sure, perhaps, known) = rates(&memory.estimates, now);
    let sight = Sight {
        waiting: float(waiting),
        age: memory.age(waiting, now).as_secs_f64(),
        busy: float(counted.busy),
        rate: sure,
        quiet: memory.estimates.quiet(now).as_secs_f64(),
        service: memory.estimates.running_service(),
        coming_service: coming,
        waiting_service: waits,
        start_up,
        slots: f64::from(slots),
        up: fleet_count(fleet, |member| {
            member.engaged || matches!(member.state, PodState::Busy(_) | PodState::Idle(_))
        }),
        starting: fleet_count(fleet, |member| {
            matches!(member.state, PodState::Pending | PodState::Starting)
        }),
        starting_for: starting_for(fleet, snapshot.wall),
        target: target.as_secs_f64(),
    };
    let wish = desired(&sight, warm);
    let soon = ahead.plan(sight).map_or(wish, |sight| desired(&sight, warm));
    let (counts, told) = ahead.counts(wish.pods, soon.pods);
    let wish = if counts { soon } else { wish };
    // What may be true keeps pods, and so does what is busy only perhaps.
    let busy = float(demand.busy);
    let doubtful = Sight {
        waiting: float(demand.hold.saturating_sub(demand.busy).saturating_add(ahead.kept)),
        busy,
        // Until the known past is as long as a task takes, or as a rate is known for, what runs has come before it, and may do
        // so again.
        rate: if known < sight.service.min(USUAL) {
            perhaps.max(busy / sight.coming_service.max(1e-3))
        } else {
            perhaps
        },
        ..sight
    };
    let at_most = desired(&doubtful, warm);
    let hold = at_most.pods.max(wish.pods);
    // While nothing begins, who is idle cannot take what waits. Who has been starting for long may never be up.
    let at_work = fleet_count(fleet, |member| {
        let works = match member.state {
            PodState::Busy(_) => true,
            PodState::Idle(_) => memory.progressed,
            PodState::Pending | PodState::Starting => age(member, snapshot.wall) <= OVERDUE * start_up,
            _ => false,
        };
        works || member.engaged
    });
    memory.at_work = kept_at_work(&Sight { busy, ..sight }, at_work);
    let hold = hold.max(kept(&sight, hold, memory, now)).max(memory.at_work);
    let needed = wish.needed.max(at_most.needed).max(memory.at_work).max(least);
    let hold = useful_pods(fleet, memory).map_or(hold, |(most, _)| hold.min(most));
    Wanted {
        formula: wish.pods.max(least),
        pods: steadied(&sight, &wish, memory, now).max(least),
        hold,
        // For how long pods stay after they were needed is written there, and so it is promised.
        needed: delay.map_or(needed, |_| u32::MAX),
        wish: Some(Box::new((sight, wish))),
        ahead: told,
    }
}

impl Wanted {
    /// The counts, behind the numbers that the wait target goes by, for people; the other policy goes by none. Of estimates
    /// the age says nothing: they are of this moment.
    pub(crate) fn inputs(&self, mut counts: Vec<Input>) -> Vec<Input> {
        let Some((sight, _)) = self.wish.as_deref() else {
            return counts;
        };
        let of = |name, value: f64, source| Input {
            name,
            queue: None,
            value: whole(value.round()).into(),
            source,
            age: Duration::ZERO,
        };
        let estimates: [Input; ESTIMATES] = [
            of("arrivalsPerHour", sight.rate * 3600.0, ESTIMATE),
            of("serviceMilliseconds", sight.service * 1000.0, ESTIMATE),
            of("oldestWaitMilliseconds", sight.age * 1000.0, ESTIMATE),
            of("startUpMilliseconds", sight.start_up * 1000.0, ESTIMATE),
            of("waitTargetSeconds", sight.target, "spec"),
        ];
        counts.splice(0..0, estimates);
        counts
    }
}

/// How many numbers the wait target goes by.
pub(crate) const ESTIMATES: usize = 5;

/// The source of a number that was worked out from many readings.
const ESTIMATE: &str = "estimate";

/// The most pods that are of use, where more have been seen to do no more work.
pub(crate) fn useful_pods(fleet: &Fleet, memory: &PoolMemory) -> Option<(u32, Useful)> {
    let useful = memory
        .crowding
        .useful()
        .filter(|_| fleet.pool.policy != Policy::Backlog)?;
    let pods = whole(useful.slots / f64::from(fleet.slots.max(1)));
    Some((pods.max(1), useful))
}

/// For how long a need must be gone before pods go.
pub(crate) fn stay(fleet: &Fleet, memory: &PoolMemory, now: Moment) -> Duration {
    match fleet.pool.policy {
        Policy::Backlog => fleet.pool.scale_down_delay,
        Policy::WaitTarget { delay, .. } => {
            delay.unwrap_or_else(|| memory.stay.time(longest_stay(fleet, memory, now)))
        }
    }
}

/// Learns for how long pods should stay, where nothing is written, from what was needed by the look that the memory has just
/// taken in.
pub(crate) fn learn_stay(fleet: &Fleet, demand: &Demand, memory: &mut PoolMemory, now: Moment) {
    let by_itself = matches!(fleet.pool.policy, Policy::WaitTarget { delay: None, .. });
    if !by_itself || !demand.complete || memory.suspect_for(now).is_some() {
        return memory.stay.gap();
    }
    let longest = longest_stay(fleet, memory, now);
    // What is kept whatever is needed teaches nothing.
    let needed = |long| Some(memory.window.settled(now, long)?.max(fleet.pool.min));
    memory.stay.observe(needed, longest, now);
}

/// The longest that pods stay where nothing is written: what their start takes.
pub(crate) fn longest_stay(fleet: &Fleet, memory: &PoolMemory, now: Moment) -> Duration {
    memory.start_up(fleet, now).clamp(STAY.0, STAY.1)
}

/// A little more than there is, for the load alone, is no reason to start workers unless it lasts and tasks have begun to
/// wait, or one is late by half of the target. The estimates are not that good, and take tasks to come by chance: those of
/// which each follows the last one, as through a full pool of Airflow, never wait for a worker and seem to need one more.
fn steadied(sight: &Sight, wish: &Wish, memory: &mut PoolMemory, now: Moment) -> u32 {
    let have = sight.up + sight.starting;
    let more = f64::from(wish.pods) - have;
    let little = have > 0.0 && more > 0.0 && more <= (DEAD_BAND * have).max(1.0);
    if wish.term != Term::Steady || !little || sight.age > PLANNED * sight.target {
        memory.little_more_since = None;
        return wish.pods;
    }
    let since = *memory.little_more_since.get_or_insert(now);
    if now.since(since) >= LITTLE_MORE_FOR && sight.age > WAITS * sight.target {
        return wish.pods;
    }
    whole(have)
}

/// For how long a little less must suffice before pods go: the longer a start takes, the surer it should be that none follows.
pub(crate) fn little_less_for(start_up: Duration) -> Duration {
    let (times, least) = LITTLE_LESS_FOR;
    start_up.min(STAY.1).mul_f64(times).clamp(least, STAY.1)
}

/// A little less than there is, while there is work, is no reason to stop workers either, unless it lasts.
fn kept(sight: &Sight, hold: u32, memory: &mut PoolMemory, now: Moment) -> u32 {
    let have = sight.up + sight.starting;
    let less = have - f64::from(hold);
    let little = less > 0.0 && less <= (DEAD_BAND * have).max(1.0) && hold > 0 && sight.busy > 0.0;
    if !little {
        memory.little_less_since = None;
        return 0;
    }
    let since = *memory.little_less_since.get_or_insert(now);
    if now.since(since) >= little_less_for(Duration::from_secs_f64(sight.start_up)) {
        return 0;
    }
    whole(have)
}

/// Tasks a second that justify growth, and that may come, and how many seconds of the past are known. While that is little,
/// the rates differ: one burst is no stream, and so only what each third of the known time says justifies anything, but it
/// may be the first of many.
fn rates(estimates: &Estimates, now: Moment) -> (f64, f64, f64) {
    let (perhaps, known) = rate(estimates, now);
    if known >= YOUNG {
        return (perhaps, perhaps, known);
    }
    let sure = if known < 3.0 * THIRD {
        0.0
    } else {
        3.0 * least_third(estimates, known / 3.0, now) / known
    };
    (sure.min(perhaps), perhaps, known)
}

/// Tasks that came at least in each of the last three such stretches of seconds.
fn least_third(estimates: &Estimates, third: f64, now: Moment) -> f64 {
    let past = [0.0, 1.0, 2.0, 3.0].map(|thirds| estimates.arrived(thirds * third, now).0);
    let stretches = past.windows(2).map(|two| two[1] - two[0]);
    stretches.fold(f64::MAX, f64::min)
}

/// Tasks a second, and the seconds that are known of the last quarter of an hour: the rate of these, or of a shorter time
/// that has seen more or less than chance explains. What came at once is a backlog, and says nothing of what comes next: of
/// the last quarter of a minute each third must say that it is more, and of a longer time what came in less than half of it
/// does not count.
fn rate(estimates: &Estimates, now: Moment) -> (f64, f64) {
    let (arrived, long) = estimates.arrived(USUAL, now);
    let usual = arrived / long.max(3.0 * THIRD);
    // So few are too few to be more or less than chance explains in any part of the time.
    if arrived <= 1.0 {
        return (usual, long);
    }
    let lately = (3.0 * least_third(estimates, THIRD, now), 3.0 * THIRD);
    if long >= 3.0 * THIRD && lately.0 > usual * lately.1 && is_sudden(lately, usual) {
        return (lately.0 / lately.1, long);
    }
    let mut recent = RECENT.into_iter().filter(|seconds| *seconds < long);
    let sudden = recent.find_map(|seconds| {
        let steadily = (steadily(estimates, seconds, now), seconds);
        let (all, _) = estimates.arrived(seconds, now);
        // That it is less, what comes at once does not hide, and that it is more, it does not show.
        let more = steadily.0 > usual * seconds && is_sudden(steadily, usual);
        let less = all < usual * seconds && is_sudden((all, seconds), usual);
        (more || less).then_some(steadily)
    });
    (sudden.map_or(usual, |(arrived, long)| arrived / long), long)
}

/// Tasks that came within so many seconds, without those that came at once: of six parts of that time the two in which most
/// came count for no more than chance makes of the third. One burst is never in more than two.
fn steadily(estimates: &Estimates, seconds: f64, now: Moment) -> f64 {
    let past = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|part| estimates.arrived(part * seconds / 6.0, now).0);
    let mut parts = [0, 1, 2, 3, 4, 5].map(|part| past[part + 1] - past[part]);
    parts.sort_unstable_by(f64::total_cmp);
    let third = parts[3].max(0.0);
    let most = third + 3.0 * third.sqrt() + 2.0;
    parts.iter().map(|part| part.min(most)).sum()
}

/// True if a rate explains so many arrivals in so many seconds by three standard deviations of a Poisson count at most.
fn is_sudden((arrived, long): (f64, f64), rate: f64) -> bool {
    let expected = rate * long;
    (arrived - expected).abs() > 3.0 * expected.sqrt() + 2.0
}

/// For how long the pods that are starting have been, on average, in seconds.
fn starting_for(fleet: &Fleet, wall: Timestamp) -> f64 {
    let starting = fleet
        .members
        .iter()
        .filter(|member| member.consumes() && matches!(member.state, PodState::Pending | PodState::Starting));
    let ages = starting.map(|member| age(member, wall));
    let (sum, count) = ages.fold((0.0, 0.0), |(sum, count), age| (sum + age, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Of the pods that work, or will be up in time, those that tasks suffice for while some wait: fewer would make these wait
/// longer and cost no less, for the work is the same. That fewer would do until some time from now is true each time anew.
fn kept_at_work(sight: &Sight, at_work: f64) -> u32 {
    if sight.waiting <= 0.0 {
        return 0;
    }
    whole(((sight.busy + sight.waiting) / sight.slots.max(1.0)).min(at_work))
}

/// For how long the pod has been there, in seconds.
fn age(member: &Member, wall: Timestamp) -> f64 {
    wall.duration_since(member.pod.created).as_secs_f64().max(0.0)
}

fn fleet_count(fleet: &Fleet, which: impl Fn(&Member) -> bool) -> f64 {
    let count = fleet.consuming().filter(|member| which(member)).count();
    float(count as u64)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
