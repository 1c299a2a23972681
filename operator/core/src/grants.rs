//! Grants: what a Pool's status lets WorkerPools take, so that no act of ours takes more than the Pool has.
//!
//! Two operators may be at work, each may stop after any step, and what either has seen of the cluster may be old. So the
//! sum of grants is kept in one object, the Pool's status, and every change of it is written under the resourceVersion
//! that it was read at. A grant is an upper bound of what the pods of one WorkerPool take, whatever they do, and of raises
//! that are under way:
//!
//! - A *raise* reads the Deployment first, then adds to the grant, then writes the number of replicas under the
//!   Deployment's resourceVersion. It always adds, and never counts on slack: that may belong to another raise.
//! - A *release* notes the holder's epoch, then makes a write on every Deployment of the WorkerPool (fewer replicas, or
//!   the annotation `poolwright.dev/grant-epoch`), waits until the controllers have acted on it, lists what is left, and
//!   lowers the grant to that, if the holder's epoch is still the same. A raise that read its Deployment before the write
//!   fails on it; one that read it after has changed the epoch.
//! - A status that is not this Pool's, or was made without a limit, is *rebuilt* from a list, after such a write on every
//!   Deployment that is charged to the Pool.
//!
//! What others do (a pod that is evicted is replaced at once) is in no grant; it is seen, and nothing is granted until
//! what is seen fits again. This module computes each status from the one that was read; it reads and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::charge::NOBODY;
use crate::guarantee::{Use, kept};
use crate::snapshot::PoolInput;
use poolwright_api::v1alpha1::{Holder, Pool, PoolStatus, UNLIMITED};

/// Holders that fit in a status.
pub const HOLDERS_MAX: usize = 1000;

/// What the status of a Pool is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No limit, and the status says so: nothing is granted.
    Unlimited,
    /// No limit, and the status does not say so yet: whoever saw a limit must find out.
    Opening,
    /// It has a limit, and the status holds its grants.
    Limited,
    /// It has a limit, and the status is another's, or none: it must be rebuilt.
    Unknown,
}

/// What `pool`'s status is worth.
#[must_use]
pub fn mode(pool: &Pool) -> Mode {
    let status = pool.status.as_ref();
    let is_own = status.is_some_and(|status| {
        status.pool_uid.is_some() && status.pool_uid == pool.metadata.uid && status.epoch.is_some()
    });
    let was_unlimited = status.and_then(|status| status.slots) == Some(UNLIMITED);
    match pool.spec.limit() {
        None if is_own && was_unlimited => Mode::Unlimited,
        None => Mode::Opening,
        Some(_) if is_own && !was_unlimited => Mode::Limited,
        Some(_) => Mode::Unknown,
    }
}

/// One WorkerPool's wish for more slots of one Pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Uid of the WorkerPool.
    pub uid: String,
    /// Its name.
    pub worker_pool: String,
    /// Slots besides those that it has.
    pub slots: u64,
}

/// Why a request was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no room.
    Full,
    /// The status has no room for another holder.
    TooManyHolders,
}

/// What is known beside the Pool itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Slots to grant from; `None` for those of the spec.
    pub effective: Option<u64>,
    /// What pods are seen to take of this Pool, by uid of the WorkerPool.
    pub used: BTreeMap<String, u64>,
    /// Uids of the WorkerPools that consume a queue with a guarantee, by name of the TaskQueue.
    pub consumers: BTreeMap<String, BTreeSet<String>>,
    /// The least that one pod of those consumers takes, by name of the TaskQueue.
    pub units: BTreeMap<String, u64>,
}

impl Sight {
    /// What pods are seen to take of it in all.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.used.values().fold(0, |sum, one| sum.saturating_add(*one))
    }

    /// What is seen beside `pool`: who consumes the queues that have a guarantee in it, of all `inputs` that the cycle sees
    /// in its namespace. Those that are gone or cannot be used and still have pods are among them: what these take of a
    /// guarantee is not kept free for it once more.
    #[must_use]
    pub fn new<'a>(
        pool: &Pool,
        effective: Option<u64>,
        used: BTreeMap<String, u64>,
        inputs: impl IntoIterator<Item = &'a PoolInput>,
    ) -> Self {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let queues = pool.spec.guarantees.iter().map(|one| one.queue.clone());
        let mut consumers: BTreeMap<String, BTreeSet<String>> =
            queues.map(|queue| (queue, BTreeSet::new())).collect();
        let mut units = BTreeMap::new();
        for input in inputs {
            for queue in &input.bid.queues {
                if let Some(uids) = consumers.get_mut(&queue.object) {
                    uids.insert(input.key.uid.clone());
                    let least = units.entry(queue.object.clone()).or_insert(u64::MAX);
                    *least = input.bid.charge.at(name).max(1).min(*least);
                }
            }
        }
        Self {
            effective,
            used,
            consumers,
            units,
        }
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What one holder takes or may take: the larger of its grant and of what is seen.
pub(crate) fn holds(status: &PoolStatus, sight: &Sight) -> BTreeMap<String, u64> {
    let mut all = sight.used.clone();
    for holder in &status.holders {
        let most = all.entry(holder.uid.clone()).or_default();
        *most = (*most).max(unsigned(holder.granted));
    }
    all
}

fn sum(all: &BTreeMap<String, u64>) -> u64 {
    all.values().fold(0, |sum: u64, one| sum.saturating_add(*one))
}

/// Grants what fits of `requests`, in the order given, from the Pool as it was read; the status to write under its
/// resourceVersion, if anything is granted, and the answer to each request. Only for [`Mode::Limited`].
#[must_use]
pub fn raise(
    pool: &Pool,
    sight: &Sight,
    requests: &[Request],
) -> (Option<PoolStatus>, Vec<Result<(), Refusal>>) {
    let mut status = pool.status.clone().unwrap_or_default();
    let slots = pool.spec.limit().unwrap_or(0);
    let slots = sight.effective.map_or(slots, |effective| effective.min(slots));
    let mut held = holds(&status, sight);
    let epoch = status.epoch.unwrap_or(0).saturating_add(1);
    let mut changed = false;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let kept = kept_from(pool, slots, sight, &held, &request.uid);
        let after = sum(&held).saturating_add(request.slots).saturating_add(kept);
        let place = status.holders.iter().position(|holder| holder.uid == request.uid);
        if after > slots {
            answers.push(Err(Refusal::Full));
            continue;
        }
        let Some(place) = place.or_else(|| seat(&mut status.holders, request)) else {
            answers.push(Err(Refusal::TooManyHolders));
            continue;
        };
        let holder = &mut status.holders[place];
        holder.granted = holder.granted.max(0).saturating_add(signed(request.slots));
        holder.epoch = epoch;
        let taken = held.entry(request.uid.clone()).or_default();
        *taken = taken.saturating_add(request.slots);
        changed = true;
        answers.push(Ok(()));
    }
    if !changed {
        return (None, answers);
    }
    status.epoch = Some(epoch);
    (Some(status), answers)
}

/// A place for a new holder.
fn seat(holders: &mut Vec<Holder>, request: &Request) -> Option<usize> {
    if holders.len() >= HOLDERS_MAX {
        return None;
    }
    holders.push(Holder {
        worker_pool: request.worker_pool.clone(),
        uid: request.uid.clone(),
        ..Holder::default()
    });
    Some(holders.len() - 1)
}

/// Slots of `slots` that guarantees keep from `uid`: of each queue that it does not consume, what its consumers do not
/// take.
fn kept_from(pool: &Pool, slots: u64, sight: &Sight, held: &BTreeMap<String, u64>, uid: &str) -> u64 {
    let nobody = BTreeSet::new();
    let uses = pool.spec.guarantees.iter().map(|guarantee| {
        let consumers = sight.consumers.get(&guarantee.queue).unwrap_or(&nobody);
        let used = consumers.iter().filter_map(|uid| held.get(uid));
        let one = Use {
            slots: unsigned(guarantee.slots.into()),
            used: used.fold(0, |sum: u64, one| sum.saturating_add(*one)),
            unit: sight.units.get(&guarantee.queue).copied(),
        };
        (one, consumers.contains(uid))
    });
    kept(slots, uses)
}

/// What a release noted of one holder before it wrote to Deployments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The Pool that the status was of.
    pub pool_uid: String,
    /// The holder's epoch.
    pub epoch: i64,
}

/// The mark of one holder; `None` if it has no grant in a status of this Pool.
#[must_use]
pub fn mark(pool: &Pool, uid: &str) -> Option<Mark> {
    if mode(pool) != Mode::Limited {
        return None;
    }
    let status = pool.status.as_ref()?;
    let holder = status.holders.iter().find(|holder| holder.uid == uid)?;
    Some(Mark {
        pool_uid: status.pool_uid.clone()?,
        epoch: holder.epoch,
    })
}

/// Lowers the grants of holders to what was listed of them, `left` slots by uid, each only if its mark is still the same;
/// the status to write under the resourceVersion of `pool`, if anything changes.
#[must_use]
pub fn release(pool: &Pool, left: &BTreeMap<String, (Mark, u64)>) -> Option<PoolStatus> {
    let mut status = pool.status.clone()?;
    let epoch = status.epoch.unwrap_or(0).saturating_add(1);
    let mut changed = false;
    for (uid, (noted, slots)) in left {
        if mark(pool, uid).as_ref() != Some(noted) {
            continue;
        }
        let Some(holder) = status.holders.iter_mut().find(|holder| holder.uid == *uid) else {
            continue;
        };
        let slots = signed(*slots);
        // Its epoch is that of its last raise: what was listed later under the same mark may lower it once more.
        if slots < holder.granted {
            holder.granted = slots;
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    status.holders.retain(|holder| holder.granted > 0);
    status.epoch = Some(epoch);
    Some(status)
}

/// The status of a Pool whose grants are not known, made from a list: `left` slots by uid and name of the WorkerPool.
/// Its epoch is above any that another status of this Pool may have had: `millis` since 1970.
#[must_use]
pub fn rebuild(pool: &Pool, left: &BTreeMap<String, (String, u64)>, millis: i64) -> PoolStatus {
    let old = pool.status.clone().unwrap_or_default();
    let epoch = old.epoch.unwrap_or(0).saturating_add(1).max(millis);
    let mut holders = left
        .iter()
        .filter(|(_, (_, slots))| *slots > 0)
        .map(|(uid, (worker_pool, slots))| Holder {
            worker_pool: worker_pool.clone(),
            uid: uid.clone(),
            granted: signed(*slots),
            used: signed(*slots),
            epoch,
        });
    let mut all: Vec<Holder> = holders.by_ref().take(HOLDERS_MAX).collect();
    // Those that do not fit are one holder together, until what each takes is seen.
    for (rest, last) in holders.zip(std::iter::repeat(HOLDERS_MAX - 1)) {
        let last = &mut all[last];
        (last.uid, last.worker_pool) = (NOBODY.to_owned(), NOBODY.to_owned());
        last.granted = last.granted.saturating_add(rest.granted);
        last.used = last.granted;
    }
    PoolStatus {
        pool_uid: pool.metadata.uid.clone(),
        slots: Some(pool.spec.slots),
        effective_slots: Some(pool.spec.slots),
        epoch: Some(epoch),
        holders: all,
        waiters: Vec::new(),
        ..old
    }
}

/// The status of a Pool without a limit: it grants nothing, and says that there is nothing to be granted.
#[must_use]
pub fn open(pool: &Pool, millis: i64) -> PoolStatus {
    PoolStatus {
        slots: Some(UNLIMITED),
        effective_slots: Some(UNLIMITED),
        holders: Vec::new(),
        open: None,
        utilization_percent: None,
        ..rebuild(pool, &BTreeMap::new(), millis)
    }
}

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
