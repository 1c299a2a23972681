//! Rollouts are scaling: how a number of pods is spread over the revisions of a WorkerPool.
//!
//! The proven revision serves until the newest has shown, by one pod, that its workers come up. Everything else
//! follows from that: a wrong image or command can never replace what works, and a rollout needs no more than
//! one pod above the maximum. This module only divides; how many pods there should be is decided before.

use jiff::Timestamp;
use poolwright_api::Reason;

use crate::demand::PodState;
use crate::snapshot::{PodInput, PoolInput, RevisionInput};

/// A revision with a pod and without a heartbeat for so long is given up (or `Stalled`, with none to go back to).
pub const UNPROVEN_SECONDS: i64 = 600;
/// A first pod that no node takes for so long makes room for itself.
const NO_ROOM_SECONDS: i64 = 30;
/// At most so many Deployments of one WorkerPool exist.
pub const REVISIONS_MAX: usize = 5;

/// What should become of the revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Replicas by revision, in name order; revisions that exist and are not named keep what they have.
    pub targets: Vec<(String, u32)>,
    /// The Deployment of the newest revision is missing and should be created.
    pub create: bool,
    /// Revisions whose worker was heard for the first time.
    pub prove: Vec<String>,
    /// Revisions to give up.
    pub fail: Vec<String>,
    /// Deployments that have had their day.
    pub remove: Vec<String>,
    /// What keeps the rollout from ending, for the condition.
    pub note: Option<(Reason, String)>,
    /// The newest revision has taken over, or is alone.
    pub complete: bool,
}

impl Allocation {
    /// The target of one revision.
    #[must_use]
    pub fn target(&self, revision: &str) -> Option<u32> {
        self.targets
            .iter()
            .find(|(name, _)| name == revision)
            .map(|(_, replicas)| *replicas)
    }
}

/// Pods that the decision counts: all replicas but the one that only proves a new revision.
#[must_use]
pub fn serving_replicas(pool: &PoolInput) -> u32 {
    let proven_exists = pool.revisions.iter().any(|revision| revision.proven.is_some());
    let proving = |revision: &RevisionInput| {
        proven_exists && revision.name == pool.revision && revision.proven.is_none() && revision.replicas > 0
    };
    pool.replicas() - u32::from(pool.revisions.iter().any(proving))
}

/// Spreads `to` pods over the revisions.
#[must_use]
pub fn allocate(pool: &PoolInput, to: u32, pods: &[(String, PodState)], wall: Timestamp) -> Allocation {
    let heard = |revision: &str| heard_pods(pool, pods, revision);
    let mut allocation = Allocation {
        create: !pool.terminating
            && !pool
                .revisions
                .iter()
                .any(|revision| revision.name == pool.revision),
        prove: pool
            .revisions
            .iter()
            .filter(|revision| revision.proven.is_none() && heard(&revision.name) > 0)
            .map(|revision| revision.name.clone())
            .collect(),
        ..Allocation::default()
    };
    if pool.revisions.len() >= REVISIONS_MAX {
        allocation.create = false;
    }
    let prove = allocation.prove.clone();
    let is_proven = |revision: &RevisionInput| revision.proven.is_some() || prove.contains(&revision.name);
    let newest = pool
        .revisions
        .iter()
        .find(|revision| revision.name == pool.revision);
    let mut proven: Vec<&RevisionInput> = pool
        .revisions
        .iter()
        .filter(|revision| revision.name != pool.revision && is_proven(revision))
        .collect();
    proven
        .sort_by_key(|revision| std::cmp::Reverse((revision.proven.unwrap_or(wall), revision.name.clone())));

    let mut targets: Vec<(String, u32)> = Vec::new();
    match (newest, proven.first()) {
        (Some(newest), _) if is_proven(newest) => {
            take_over(pool, to, newest, heard(&newest.name), &mut targets)
        }
        (Some(newest), None) => {
            targets.push((newest.name.clone(), to));
            shrink_others(pool, &[&newest.name], &mut targets);
            if waited(pool, newest, wall, UNPROVEN_SECONDS) {
                let text = format!(
                    "revision {} has had pods for {UNPROVEN_SECONDS} s and none of its workers has sent a heartbeat",
                    newest.name
                );
                allocation.note = Some((Reason::RevisionUnproven, text));
            }
        }
        (newest, Some(serving)) => {
            try_newest(pool, to, newest, serving, wall, &mut targets, &mut allocation);
        }
        (None, None) => shrink_others(pool, &[], &mut targets),
    }
    targets.sort();
    allocation.remove = removable(
        pool,
        &targets,
        proven.first().map(|revision| revision.name.as_str()),
        newest.is_some_and(is_proven),
    );
    let others = |revision: &RevisionInput| revision.name != pool.revision && revision.replicas > 0;
    allocation.complete = newest.is_some() && !pool.revisions.iter().any(others);
    allocation.targets = targets;
    allocation
}

fn heard_pods(pool: &PoolInput, pods: &[(String, PodState)], revision: &str) -> u32 {
    let heard = |pod: &PodInput| {
        pods.iter().any(|(name, state)| {
            *name == pod.name && matches!(state, PodState::Busy(_) | PodState::Idle(_) | PodState::Silent)
        })
    };
    let count = pool
        .consuming()
        .filter(|pod| pod.revision == revision && heard(pod))
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The newest is proven: growth goes to it, and the others shrink as its workers are heard. A quarter may be
/// missing meanwhile, so that a large pool does not roll one pod at a time.
fn take_over(
    pool: &PoolInput,
    to: u32,
    newest: &RevisionInput,
    heard: u32,
    targets: &mut Vec<(String, u32)>,
) {
    let others: u32 = pool
        .revisions
        .iter()
        .filter(|other| other.name != newest.name)
        .map(|other| other.replicas)
        .sum();
    if others == 0 {
        targets.push((newest.name.clone(), to));
        shrink_others(pool, &[&newest.name], targets);
        return;
    }
    let serving = pool.hold.as_ref().map_or(to.min(pool.max), |_| to);
    let room = (serving.max(pool.max) + 1).saturating_sub(others);
    let target = serving.min(room.max(newest.replicas));
    targets.push((newest.name.clone(), target));
    let mut left = serving
        .saturating_sub(heard.min(target))
        .saturating_sub(serving / 4)
        .min(others);
    if target < serving && target <= heard {
        left = left.min(others.saturating_sub(1));
    }
    let mut olds: Vec<&RevisionInput> = pool
        .revisions
        .iter()
        .filter(|other| other.name != newest.name)
        .collect();
    olds.sort_by_key(|old| std::cmp::Reverse((old.proven, old.name.clone())));
    for old in olds {
        let keep = old.replicas.min(left);
        left -= keep;
        targets.push((old.name.clone(), keep));
    }
}

/// A proven revision serves; the newest gets one pod to prove itself.
fn try_newest(
    pool: &PoolInput,
    to: u32,
    newest: Option<&RevisionInput>,
    serving: &RevisionInput,
    wall: Timestamp,
    targets: &mut Vec<(String, u32)>,
    allocation: &mut Allocation,
) {
    let mut keep = vec![serving.name.as_str()];
    let mut rest = to;
    if let Some(newest) = newest {
        keep.push(&newest.name);
        let given_up = newest.failed || waited(pool, newest, wall, UNPROVEN_SECONDS);
        if given_up {
            if !newest.failed {
                allocation.fail.push(newest.name.clone());
            }
            let text = format!(
                "revision {} was given up: no heartbeat from its pod within {UNPROVEN_SECONDS} s; revision {} works on",
                newest.name, serving.name
            );
            allocation.note = Some((Reason::RevisionUnproven, text));
        }
        let one = u32::from(!given_up && to > 0);
        targets.push((newest.name.clone(), one));
        if one > 0 {
            rest = rest_of(pool, to, newest, serving, wall);
            let text = format!(
                "revision {} has one pod to prove itself; revision {} serves",
                newest.name, serving.name
            );
            allocation.note = Some((Reason::Progressing, text));
        }
    }
    targets.push((serving.name.clone(), rest));
    shrink_others(pool, &keep, targets);
}

/// What the proven revision serves with while the newest has its one pod: never fewer than it has and is wanted,
/// but for a first pod that no node takes.
fn rest_of(
    pool: &PoolInput,
    to: u32,
    newest: &RevisionInput,
    serving: &RevisionInput,
    wall: Timestamp,
) -> u32 {
    let no_room = pool.pods.iter().any(|pod| {
        pod.revision == newest.name
            && pod
                .trouble
                .as_ref()
                .is_some_and(|trouble| trouble.reason == Reason::Unschedulable)
            && wall.as_second() - pod.created.as_second() >= NO_ROOM_SECONDS
    });
    if no_room {
        return to
            .saturating_sub(1)
            .min(serving.replicas.saturating_sub(1).max(to.saturating_sub(1)));
    }
    to.saturating_sub(1).max(serving.replicas.min(to)).max(1)
}

fn shrink_others(pool: &PoolInput, keep: &[&str], targets: &mut Vec<(String, u32)>) {
    for other in pool
        .revisions
        .iter()
        .filter(|other| !keep.contains(&other.name.as_str()))
    {
        targets.push((other.name.clone(), 0));
    }
}

/// True if the revision has had a pod for `seconds`.
fn waited(pool: &PoolInput, revision: &RevisionInput, wall: Timestamp, seconds: i64) -> bool {
    let pods = pool.consuming().filter(|pod| pod.revision == revision.name);
    pods.map(|pod| pod.created)
        .min()
        .is_some_and(|oldest| wall.as_second() - oldest.as_second() >= seconds)
}

fn removable(
    pool: &PoolInput,
    targets: &[(String, u32)],
    fallback: Option<&str>,
    newest_is_proven: bool,
) -> Vec<String> {
    let has_pods = |name: &str| pool.pods.iter().any(|pod| pod.revision == name);
    let idle = |revision: &&RevisionInput| {
        revision.replicas == 0
            && revision.name != pool.revision
            && targets
                .iter()
                .any(|(name, target)| *name == revision.name && *target == 0)
            && !has_pods(&revision.name)
            && (newest_is_proven || fallback != Some(revision.name.as_str()))
    };
    pool.revisions
        .iter()
        .filter(idle)
        .map(|revision| revision.name.clone())
        .collect()
}
