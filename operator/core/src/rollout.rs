//! Rollouts are scaling: how a number of pods is spread over the revisions of a WorkerPool.
//!
//! The proven revision serves until the newest has shown, by one pod, that its workers come up. Everything else
//! follows from that: a wrong image or command can never replace what works, and a rollout needs no more than
//! one pod above the maximum. This module only divides; how many pods there should be is decided before.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use poolwright_api::Reason;

use crate::constants::{UNPROVEN_SECONDS, UNSEEN_AFTER};
use crate::demand::{Demand, PodState};
use crate::fleet::{CONSUMED_FOR, Fleet, Revision};
use crate::ledger::heartbeats_since;
use crate::member::Member;
use crate::sample::BrokerView;
use crate::snapshot::Snapshot;

/// A first pod that no node takes for so long makes room for itself.
const NO_ROOM_SECONDS: i64 = 30;
/// At most so many Deployments of one WorkerPool exist.
pub const REVISIONS_MAX: usize = 5;

/// What should become of the revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Pods that take work by revision, in name order; revisions that exist and are not named keep what they have.
    pub targets: Vec<(Arc<str>, u32)>,
    /// The Deployment of the newest revision is missing and should be created.
    pub create: bool,
    /// Revisions whose worker was heard, or seen to consume, for the first time.
    pub prove: Vec<String>,
    /// Revisions to give up.
    pub fail: Vec<String>,
    /// Deployments that have had their day.
    pub remove: Vec<String>,
    /// What keeps the rollout from ending, for the condition.
    pub note: Option<(Reason, String)>,
    /// A pod goes so that one of the newest revision finds room in a Pool.
    pub makes_room: bool,
    /// The newest revision has taken over, or is alone.
    pub complete: bool,
}

impl Allocation {
    /// The target of one revision.
    #[must_use]
    pub fn target(&self, revision: &str) -> Option<u32> {
        self.targets
            .iter()
            .find(|(name, _)| **name == *revision)
            .map(|(_, replicas)| *replicas)
    }
}

/// Which part each revision plays.
#[derive(Clone, Debug)]
pub struct Cast<'a> {
    /// The one that serves, or will: the newest if it is proven or no other is, else the latest proven one. `None`
    /// if the newest does not exist yet and no other is proven.
    pub leader: Option<&'a Revision<'a>>,
    /// The newest, while another one serves.
    pub proving: Option<&'a Revision<'a>>,
    /// All others, the latest proven first.
    pub others: Vec<&'a Revision<'a>>,
    /// Proven by what is seen now.
    prove: Vec<String>,
}

impl<'a> Cast<'a> {
    /// Gives each revision its part.
    #[must_use]
    pub fn new(fleet: &'a Fleet<'a>, demand: &Demand, snapshot: &Snapshot) -> Self {
        let pool = fleet.pool;
        let mut prove: Vec<String> = fleet
            .revisions
            .iter()
            .filter(|revision| {
                revision.proven.is_none() && come_up(fleet, demand, snapshot, &revision.name) > 0
            })
            .map(|revision| revision.name.to_string())
            .collect();
        prove.sort();
        let is_proven = |revision: &Revision| {
            revision.proven.is_some() || prove.iter().any(|name| **name == *revision.name)
        };
        let mut others: Vec<&Revision> = fleet
            .revisions
            .iter()
            .filter(|revision| revision.name != pool.revision)
            .collect();
        others.sort_by_key(|one| {
            Reverse((
                is_proven(one),
                one.proven.unwrap_or(snapshot.wall),
                one.name.clone(),
            ))
        });
        let newest = fleet
            .revisions
            .iter()
            .find(|revision| revision.name == pool.revision);
        let fallback = others.first().copied().filter(|old| is_proven(old));
        let (leader, proving) = match (newest, fallback) {
            (Some(newest), Some(old)) if !is_proven(newest) => (Some(old), Some(newest)),
            (Some(newest), _) => (Some(newest), None),
            (None, old) => (old, None),
        };
        others.retain(|other| leader.is_none_or(|leader| leader.name != other.name));
        Self {
            leader,
            proving,
            others,
            prove,
        }
    }

    /// Pods that the decision counts: all that take work, or will, but the one that only proves a new revision.
    #[must_use]
    pub fn serving(&self) -> u32 {
        self.leader
            .into_iter()
            .chain(self.others.iter().copied())
            .fold(0, add)
    }

    /// Pods of the revision that has most of those.
    #[must_use]
    pub fn largest(&self) -> u32 {
        let all = self.leader.into_iter().chain(self.others.iter().copied());
        all.map(|revision| revision.replicas).max().unwrap_or(0)
    }

    /// True while another revision than the leader has pods.
    #[must_use]
    pub fn rolls(&self) -> bool {
        self.leader.is_some() && self.in_others() > 0
    }

    /// True if there is no other revision than the one that serves, not even one without pods.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.proving.is_none() && self.others.is_empty()
    }

    fn in_others(&self) -> u32 {
        self.others.iter().copied().fold(0, add)
    }
}

fn add(sum: u32, revision: &Revision) -> u32 {
    sum.saturating_add(revision.replicas)
}

fn has_been_heard(member: &Member) -> bool {
    matches!(
        member.state,
        PodState::Busy(_) | PodState::Idle(_) | PodState::Silent
    )
}

/// How many workers of a revision have come up: one that was heard has. Where no pod of the WorkerPool is ever heard,
/// one that has long been ready has, if it says itself that it consumes or the broker counts no fewer consumers than
/// pods.
fn come_up(fleet: &Fleet, demand: &Demand, snapshot: &Snapshot, revision: &str) -> u32 {
    let are_heard = fleet.consuming().any(has_been_heard);
    let consumes = |member: &Member| {
        let seen = demand.all_consume || member.seen_consuming();
        seen && member.pod.ready && member.has_run(CONSUMED_FOR, snapshot.now)
    };
    let own = fleet
        .consuming()
        .filter(|member| *member.pod.revision == *revision);
    let up = own.filter(|member| has_been_heard(member) || !are_heard && consumes(member));
    u32::try_from(up.count()).unwrap_or(u32::MAX)
}

/// What a division depends on.
pub struct Ground<'a> {
    /// The WorkerPool and its pods.
    pub fleet: &'a Fleet<'a>,
    /// Its broker.
    pub view: &'a BrokerView,
    /// Its demand: pods go only while every source is fresh.
    pub demand: &'a Demand,
    /// The clocks.
    pub snapshot: &'a Snapshot,
    /// Least pods, by `minReplicas` and schedules.
    pub least: u32,
    /// Pods that its Pools let it create now.
    pub room: u32,
    /// Its Pools give it one pod more, to bring up a new revision.
    pub extra: bool,
    /// A pod of the newest revision fits in its Pools at all.
    pub fits: bool,
}

impl Ground<'_> {
    /// The pods that a revision has, or will without another write; parked ones come back without room.
    fn stands(&self, revision: &Revision) -> u32 {
        let own = self.fleet.members.iter().filter(|member| !member.pod.draining);
        let own = own.filter(|member| member.pod.revision == revision.name).count();
        let asked = self
            .fleet
            .pool
            .revisions
            .iter()
            .find(|one| one.name == revision.name);
        u32::try_from(own)
            .unwrap_or(u32::MAX)
            .max(asked.map_or(0, |one| one.replicas))
    }
}

/// Spreads `to` pods over the revisions.
#[must_use]
pub fn allocate(ground: &Ground, cast: &Cast, to: u32) -> Allocation {
    let pool = ground.fleet.pool;
    let exists = pool
        .revisions
        .iter()
        .any(|revision| revision.name == pool.revision);
    let full = pool.revisions.len() >= REVISIONS_MAX;
    let mut allocation = Allocation {
        create: !pool.terminating && !exists && !full,
        prove: cast.prove.clone(),
        targets: Vec::with_capacity(pool.revisions.len()),
        ..Allocation::default()
    };
    if !exists && full {
        let text =
            format!("{REVISIONS_MAX} older revisions still have pods; the newest waits until one has none");
        allocation.note = Some((Reason::Progressing, text));
    }
    if pool.terminating || pool.conflict.is_some() {
        allocation.complete = exists && !cast.rolls() && cast.proving.is_none();
        return allocation;
    }
    let (mut serving, mut room) = (to, ground.room);
    // Where a pod of the newest revision fits nowhere, the room is that of the pods that there are.
    let is_for = |revision: &Revision| ground.fits || revision.name != pool.revision;
    let mut extra = 0;
    if let Some(newest) = cast.proving {
        extra = prove(ground, cast, newest, to, &mut allocation);
        let stands = ground.stands(newest);
        // What is given in the end may be what its own older pods take now.
        let given = ground.extra && (stands > 0 || room > 0);
        let may_exceed = given && pool.cap.is_none_or(|cap| to < cap);
        let needs_room = !may_exceed && (ground.fits || stands > 0);
        if extra > 0 && ground.demand.complete && (needs_room || has_no_room(ground, newest)) {
            serving = to.saturating_sub(1);
            allocation.makes_room = needs_room && stands == 0;
        }
        extra = extra.min(stands.saturating_add(if is_for(newest) { room } else { 0 }));
        room -= extra.saturating_sub(stands).min(room);
        allocation.targets.push((newest.name.clone(), extra));
    } else if let Some(newest) = cast.leader.filter(|leader| waited(ground, leader)) {
        let text = format!(
            "revision {} has had pods for {UNPROVEN_SECONDS} s and none of its workers has sent a heartbeat",
            newest.name
        );
        allocation.note = Some((Reason::RevisionUnproven, text));
    }
    if let Some(leader) = cast.leader {
        let most = ground
            .stands(leader)
            .saturating_add(if is_for(leader) { room } else { 0 });
        take_over(ground, cast, leader, serving, (extra, most), &mut allocation);
    }
    allocation.targets.sort();
    allocation.remove = removable(ground.fleet, cast, &allocation.targets);
    allocation.complete = exists && !cast.rolls() && cast.proving.is_none();
    allocation
}

/// The newest gets one pod to prove itself, beside those that serve. At zero nothing is started to prove it, nor
/// while an earlier take-over still needs the room.
fn prove(ground: &Ground, cast: &Cast, newest: &Revision, to: u32, allocation: &mut Allocation) -> u32 {
    let serving = cast.leader.map_or("", |leader| &*leader.name);
    if newest.failed || waited(ground, newest) {
        if !newest.failed {
            allocation.fail.push(newest.name.to_string());
        }
        let text = format!(
            "revision {} was given up: no heartbeat from its pod within {UNPROVEN_SECONDS} s; revision {serving} works on",
            newest.name
        );
        allocation.note = Some((Reason::RevisionUnproven, text));
        return 0;
    }
    let room = newest.replicas > 0 || cast.serving() <= ground.fleet.pool.max.max(to);
    if to == 0 || !room {
        return 0;
    }
    let text = format!(
        "revision {} has one pod to prove itself; revision {serving} serves",
        newest.name
    );
    allocation.note = Some((Reason::Progressing, text));
    1
}

/// Growth goes to the leader, and the others shrink as its workers come up. Of what is wanted above the minimum a
/// quarter may be missing meanwhile, so that a large pool does not roll one pod at a time; never fewer than the
/// minimum, nor more than one pod above the maximum, nor than Pools have room for: `most` of the leader.
fn take_over(
    ground: &Ground,
    cast: &Cast,
    leader: &Revision,
    to: u32,
    (extra, most): (u32, u32),
    allocation: &mut Allocation,
) {
    let pool = ground.fleet.pool;
    let others = cast.in_others();
    let targets = &mut allocation.targets;
    if others == 0 {
        // Parked pods of others are in the way.
        allocation.makes_room |= most < to && ground.fits;
        targets.push((leader.name.clone(), to.min(most)));
        targets.extend(cast.others.iter().map(|other| (other.name.clone(), 0)));
        return;
    }
    // A lowered maximum is reached as pods empty; it is no reason to drop those of the leader at once.
    let goal = if pool.hold.is_some() {
        to
    } else {
        to.min(pool.max.max(leader.replicas))
    };
    let whole = goal.max(pool.max).saturating_add(1);
    let whole = whole.min(pool.cap.unwrap_or(u32::MAX).max(goal));
    let room = whole.saturating_sub(extra).saturating_sub(others);
    let target = goal.min(room.max(leader.replicas)).min(most);
    // Only what was proven serves; what was not is replaced at once.
    let (old, unproven): (Vec<&Revision>, Vec<&Revision>) =
        cast.others.iter().partition(|other| other.proven.is_some());
    let blind = !ground.demand.complete && pool.hold.is_none();
    let runs = |other: &Revision| {
        let members = ground.fleet.consuming();
        let running =
            members.filter(|member| member.pod.running_since.is_some() && member.pod.revision == other.name);
        u32::try_from(running.count())
            .unwrap_or(u32::MAX)
            .min(other.replicas)
    };
    // While nobody can be heard, what runs may work although it is not proven.
    let kept = |other: &&Revision| (other.name.clone(), if blind { runs(other) } else { 0 });
    targets.extend(unproven.iter().copied().map(|other| kept(&other)));
    let serving = old.iter().copied().fold(0, add);
    if serving > 0 && blind {
        // No pod goes without fresh data, in a rollout as in any scale-in.
        targets.push((leader.name.clone(), target.max(leader.replicas)));
        return;
    }
    targets.push((leader.name.clone(), target));
    let up = come_up(ground.fleet, ground.demand, ground.snapshot, &leader.name);
    let floor = if pool.hold.is_some() { 0 } else { ground.least };
    let spare = (goal / 4).min(goal.saturating_sub(floor));
    let mut left = goal
        .saturating_sub(up.min(target))
        .saturating_sub(spare)
        .min(serving);
    let awaited = ground.fleet.members.iter().any(|member| !member.consumes());
    let is_limited = target == most && most < goal;
    if is_limited && !ground.fits {
        // What runs goes on while what should replace it fits nowhere.
        left = goal.saturating_sub(target).min(serving);
    } else if target < goal && target <= up && !(is_limited && awaited)
        || !awaited && has_no_room(ground, leader)
    {
        // For want of room in a Pool one at a time, each awaited before the next.
        left = left.min(serving.saturating_sub(1));
        allocation.makes_room |= is_limited;
    }
    for old in old {
        let keep = old.replicas.min(left);
        left -= keep;
        targets.push((old.name.clone(), keep));
    }
}

/// True if a pod of the revision has found no node for a while.
fn has_no_room(ground: &Ground, revision: &Revision) -> bool {
    ground.fleet.consuming().any(|member| {
        let trouble = member.pod.trouble.as_ref();
        member.pod.revision == revision.name
            && trouble.is_some_and(|trouble| trouble.reason == Reason::Unschedulable)
            && age(member.pod.created, ground.snapshot) >= NO_ROOM_SECONDS
    })
}

fn age(created: Timestamp, snapshot: &Snapshot) -> i64 {
    snapshot.wall.as_second().saturating_sub(created.as_second())
}

/// True if the revision has had a pod for long without proof, and a heartbeat would have been heard.
fn waited(ground: &Ground, revision: &Revision) -> bool {
    let now = ground.snapshot.now;
    let audible = heartbeats_since(ground.view, now).is_some_and(|since| now.since(since) >= UNSEEN_AFTER);
    let mut pods = ground
        .fleet
        .consuming()
        .filter(|member| member.pod.revision == revision.name);
    audible
        && revision.proven.is_none()
        && pods.any(|member| age(member.pod.created, ground.snapshot) >= UNPROVEN_SECONDS)
}

/// An old revision goes when it has no pods, unless it is what the newest would fall back to.
fn removable(fleet: &Fleet, cast: &Cast, targets: &[(Arc<str>, u32)]) -> Vec<String> {
    let idle = |revision: &&&Revision| {
        revision.replicas == 0
            && targets
                .iter()
                .any(|(name, target)| *name == revision.name && *target == 0)
            && !fleet.pool.pods.iter().any(|pod| pod.revision == revision.name)
    };
    let mut names: Vec<String> = cast
        .others
        .iter()
        .filter(idle)
        .map(|one| one.name.to_string())
        .collect();
    names.sort();
    names
}
