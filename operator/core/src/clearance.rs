//! Which pods may go: those that are seen to be empty, in an order that Kubernetes will follow.
//!
//! A busy pod is no victim, nor one of which that is not known. Relies on answers that are asked for when pods
//! should go; a heartbeat alone does not show what a worker has fetched.

use std::time::Duration;

use crate::demand::PodState;
use crate::fleet::{Fleet, Member};
use crate::ledger::sum;
use crate::rollout::Allocation;
use crate::sample::WorkerView;
use crate::snapshot::{PodInput, PoolInput, RevisionInput};
use crate::time::Moment;

/// An answer that clears a pod for scale-in may be so old: long enough to be asked for and to arrive, and hardly longer
/// than the time between two heartbeats, which is how long a task that began after it stays unseen.
pub const CLEARANCE_AGE: Duration = Duration::from_secs(3);
/// A mark must have been seen for so long before replicas fall: the `ReplicaSet` controller's own view may be behind ours.
const MARKED_FOR: Duration = Duration::from_secs(2);
/// A worker that cannot be asked is empty when it has started nothing for the scale-in delay, and for so long.
const UNREADABLE_IDLE: Duration = Duration::from_secs(10);

/// What is known of a pod that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its container does not run.
    Absent,
    /// It holds nothing.
    Empty,
    /// It holds nothing but tasks that are not due.
    Later,
    /// It idles and must be asked.
    Ask,
    /// It holds tasks, or may.
    Holds,
}

/// The standing of every consuming pod, in name order.
#[must_use]
pub fn standings<'a>(fleet: &'a Fleet<'a>, now: Moment) -> Vec<(&'a Member<'a>, Standing)> {
    fleet
        .consuming()
        .map(|member| (member, standing(member, fleet.pool, now)))
        .collect()
}

fn standing(member: &Member, pool: &PoolInput, now: Moment) -> Standing {
    match (member.state, member.heard()) {
        (PodState::Pending, _) => Standing::Absent,
        (PodState::Idle(_), Some(worker)) => idle(member, worker, pool, now),
        _ => Standing::Holds,
    }
}

/// A worker that idles at its last heartbeat. Short tasks may come and go between answer and heartbeat: that does
/// not make it busy, or a pool with a trickle of them could never shrink.
fn idle(member: &Member, worker: &WorkerView, pool: &PoolInput, now: Moment) -> Standing {
    if worker.unreadable.is_some() {
        // Remote control is off or cannot be read: a whole window without a task, and the grace as second line.
        let long = now.since(worker.last_progress) >= pool.scale_down_delay.max(UNREADABLE_IDLE);
        return if long { Standing::Empty } else { Standing::Holds };
    }
    let Some(answer) = member
        .answer()
        .filter(|answer| now.since(answer.at) <= CLEARANCE_AGE)
    else {
        return Standing::Ask;
    };
    let running = answer
        .value
        .running
        .values()
        .flat_map(|one| [one.acknowledged, one.unacknowledged]);
    let held = sum(running.chain(answer.value.reserved.values().copied()));
    if held > 0 {
        // A heartbeat after the answer shows that it has finished them.
        return if worker.last_seen > answer.at {
            Standing::Ask
        } else {
            Standing::Holds
        };
    }
    if answer.value.scheduled.values().any(|count| *count > 0) {
        Standing::Later
    } else {
        Standing::Empty
    }
}

/// How many pods of a revision may go now. Kubernetes takes those that are not ready before it looks at marks: while
/// one of these holds tasks, no ready one can be taken.
#[must_use]
pub fn free(revision: &RevisionInput, standings: &[(&Member, Standing)]) -> u32 {
    let (mut pods, mut first, mut second, mut stuck) = (0u32, 0u32, 0u32, false);
    for (member, standing) in standings
        .iter()
        .filter(|(member, _)| member.pod.revision == revision.name)
    {
        pods += 1;
        match standing {
            Standing::Empty | Standing::Later if member.pod.ready => second += 1,
            Standing::Absent | Standing::Empty | Standing::Later => first += 1,
            Standing::Ask | Standing::Holds => stuck |= !member.pod.ready,
        }
    }
    let (coming, going) = under_way(revision, pods);
    let free = coming + first + if stuck { 0 } else { second };
    free.saturating_sub(going).min(revision.replicas)
}

/// How many pods of a revision are still to come, and how many are about to go: its number was changed, and Kubernetes
/// acts a moment later. One that is about to go is seen as before, and must not pay for a second.
#[must_use]
pub fn under_way(revision: &RevisionInput, pods: u32) -> (u32, u32) {
    (
        revision.replicas.saturating_sub(pods),
        pods.saturating_sub(revision.replicas),
    )
}

/// How long a pod's mark must still be left alone; `None` while it has none.
#[must_use]
pub fn mark_left(pod: &PodInput, now: Moment) -> Option<Duration> {
    Some(MARKED_FOR.saturating_sub(now.since(pod.marked?)))
}

/// True for a pod that Kubernetes may take for marked: it carries the mark, or did until just now.
#[must_use]
pub fn may_look_marked(pod: &PodInput, now: Moment) -> bool {
    pod.marked.is_some() || !unmark_left(pod, now).is_zero()
}

/// How long a mark that was taken off may still be seen by others.
#[must_use]
pub fn unmark_left(pod: &PodInput, now: Moment) -> Duration {
    let since = pod.unmarked.filter(|_| pod.marked.is_none());
    since.map_or(Duration::ZERO, |at| MARKED_FOR.saturating_sub(now.since(at)))
}

/// How many of a revision's victims may go now: those that do not exist or do not run, which Kubernetes takes first,
/// and those that have carried their mark for a while and are still empty. None of the marked ones while one of them
/// may hold a task, because Kubernetes takes any of them.
#[must_use]
pub fn may_go(
    revision: &RevisionInput,
    standings: &[(&Member, Standing)],
    victims: &[String],
    now: Moment,
) -> u32 {
    let (mut pods, mut first, mut marked, mut stuck) = (0u32, 0u32, 0u32, false);
    for (member, standing) in standings
        .iter()
        .filter(|(member, _)| member.pod.revision == revision.name)
    {
        pods += 1;
        let is_victim = victims.contains(&member.pod.name);
        let settled = mark_left(member.pod, now) == Some(Duration::ZERO);
        match standing {
            Standing::Absent => first += u32::from(is_victim),
            Standing::Empty | Standing::Later => marked += u32::from(is_victim && settled),
            Standing::Ask | Standing::Holds => stuck |= may_look_marked(member.pod, now),
        }
    }
    let (coming, going) = under_way(revision, pods);
    (coming + first + if stuck { 0 } else { marked }).saturating_sub(going)
}

/// Pods of shrinking revisions in the order in which they should go: not started, then empty longest, then least
/// busy. A pod that is marked stays chosen while it is as empty as the next.
#[must_use]
pub fn victims(pool: &PoolInput, standings: &[(&Member, Standing)], allocation: &Allocation) -> Vec<String> {
    let mut revisions: Vec<&RevisionInput> = pool.revisions.iter().collect();
    revisions.sort_by(|left, right| left.name.cmp(&right.name));
    let mut chosen = Vec::new();
    for revision in revisions {
        let Some(target) = allocation.target(&revision.name) else {
            continue;
        };
        let go = revision.replicas.saturating_sub(target);
        let mut pods: Vec<_> = standings
            .iter()
            .filter(|(member, _)| member.pod.revision == revision.name)
            .map(|(member, standing)| {
                let order = match member.state {
                    PodState::Idle(since) => (1, since.0),
                    PodState::Starting => (2, 0),
                    PodState::Busy(tasks) => (3, tasks),
                    _ => (4, 0),
                };
                let class = if *standing == Standing::Absent {
                    0
                } else {
                    1 + u8::from(member.pod.ready)
                };
                // One that is marked and must only be asked again stays chosen: another's mark would take as long.
                let certain = match standing {
                    Standing::Ask if member.pod.marked.is_some() => Standing::Empty,
                    other => *other,
                };
                (
                    class,
                    certain,
                    matches!(member.state, PodState::Busy(_)),
                    member.pod.marked.is_none(),
                    order,
                    member.pod.name.as_str(),
                )
            })
            .collect();
        pods.sort_unstable();
        let (coming, going) = under_way(revision, u32::try_from(pods.len()).unwrap_or(u32::MAX));
        chosen.extend(
            pods.into_iter()
                .take((go + going).saturating_sub(coming) as usize)
                .map(|pod| pod.5.to_owned()),
        );
    }
    chosen
}
