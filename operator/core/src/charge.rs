//! What a pod takes of Pools, and on whose account.
//!
//! A pod takes its slots from its creation until it is gone, whatever it does. What it takes is written on it when it is
//! made, so that a change of a spec, or a WorkerPool that is gone, changes nothing about pods that exist. This module
//! counts; how many slots there are, and who may have them, is decided elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use poolwright_api::DEFAULT_POOL;

use crate::objects::{Objects, PodView};
use crate::validate::ValidPool;

/// Slots by Pool, in the Pools' units.
pub type Slots = BTreeMap<String, u64>;

/// Holder of what names none and has no owner any more.
pub const NOBODY: &str = "unknown";

/// What one pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge {
    /// Uid of the WorkerPool that the pod was made for; empty where the pod does not say.
    pub holder: String,
    /// Slots of one pod, by Pool; each at least 1.
    pub slots: Slots,
}

impl Charge {
    /// What a pod of this WorkerPool takes now: of each Pool of its queues, its concurrency times the largest
    /// `slotsPerTask` of those queues.
    #[must_use]
    pub fn of(pool: &ValidPool) -> Self {
        let worker = u64::try_from(pool.concurrency).unwrap_or(1).max(1);
        let mut slots = Slots::new();
        for queue in &pool.queues {
            let taken = worker.saturating_mul(queue.slots_per_task);
            let most = slots.entry(queue.pool.clone()).or_default();
            *most = taken.max(*most);
        }
        Self {
            holder: pool.uid.clone(),
            slots,
        }
    }

    /// True if it is what a pod takes whose queues say nothing of Pools.
    #[must_use]
    pub fn is_default(&self, concurrency: i32) -> bool {
        let worker = u64::try_from(concurrency).unwrap_or(1).max(1);
        self.slots.len() == 1 && self.slots.get(DEFAULT_POOL) == Some(&worker)
    }

    /// Reads what a pod's annotations say; `None` where they say nothing that can be read.
    #[must_use]
    pub fn read(slots: &str, holder: Option<&str>) -> Option<Self> {
        let mut all = Slots::new();
        for part in slots.split(',') {
            let (pool, taken) = part.split_once('=')?;
            let taken: u64 = taken.parse().ok().filter(|taken| *taken > 0)?;
            all.insert(pool.to_owned(), taken);
        }
        Some(Self {
            holder: holder.unwrap_or_default().to_owned(),
            slots: all,
        })
    }

    /// What a pod takes that was made before charges were written: its worker's slots, of the Pool of queues that name
    /// none.
    #[must_use]
    pub fn unwritten(worker_slots: u64) -> Self {
        Self {
            holder: String::new(),
            slots: [(DEFAULT_POOL.to_owned(), worker_slots.max(1))].into(),
        }
    }

    /// Slots of one Pool.
    #[must_use]
    pub fn at(&self, pool: &str) -> u64 {
        self.slots.get(pool).copied().unwrap_or(0)
    }
}

/// The slots as the annotation has them.
impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (pool, slots)) in self.slots.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{pool}={slots}")?;
        }
        Ok(())
    }
}

/// Adds `count` pods that take `charge`.
pub fn add(sum: &mut Slots, charge: &Charge, count: u64) {
    for (pool, slots) in &charge.slots {
        let taken = sum.entry(pool.clone()).or_default();
        *taken = taken.saturating_add(slots.saturating_mul(count));
    }
}

/// The slots that the objects of one WorkerPool's name take, by the holder's uid and by Pool.
///
/// Each object says itself whose it is: what a predecessor of the same name has left may have the same revision. One
/// that does not say is the owner's of the revision's Deployment. Of a holder's revision as many pods count as any of
/// its Deployment, its `ReplicaSet`s and its pods have, so that what a controller has not done yet is in it; the pods on
/// their way out come on top. `is_lost` leaves out pods that cannot run any more.
pub fn taken(objects: &Objects, is_lost: impl Fn(&PodView) -> bool) -> BTreeMap<String, Slots> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for deployment in &objects.deployments {
        if let Some(owner) = &deployment.owner {
            owners.entry(&deployment.revision).or_insert(owner);
        }
    }
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for deployment in &objects.deployments {
        let holder = whose(&deployment.charge, deployment.owner.as_deref());
        let row = rows.entry((&deployment.revision, holder)).or_default();
        row.charge.get_or_insert(&deployment.charge);
        row.asked = row.asked.saturating_add(u64::from(deployment.replicas));
    }
    for set in &objects.sets {
        let holder = whose(&set.charge, owners.get(&*set.revision).copied());
        let row = rows.entry((&set.revision, holder)).or_default();
        row.charge.get_or_insert(&set.charge);
        row.made = row.made.saturating_add(u64::from(set.replicas));
    }
    let mut sums: BTreeMap<String, Slots> = BTreeMap::new();
    for pod in objects.pods.iter().filter(|pod| !pod.ended && !is_lost(pod)) {
        let holder = whose(&pod.charge, owners.get(&*pod.revision).copied());
        if pod.draining {
            add(sums.entry(holder.to_owned()).or_default(), &pod.charge, 1);
            continue;
        }
        let row = rows.entry((&pod.revision, holder)).or_default();
        row.charge.get_or_insert(&pod.charge);
        row.staying = row.staying.saturating_add(1);
    }
    for ((_, holder), row) in rows {
        let Some(charge) = row.charge else { continue };
        let count = row.asked.max(row.made).max(row.staying);
        if count > 0 {
            add(sums.entry(holder.to_owned()).or_default(), charge, count);
        }
    }
    sums
}

/// The holder that a charge names, or else the owner; [`NOBODY`] if neither is known.
#[must_use]
pub fn whose<'a>(charge: &'a Charge, owner: Option<&'a str>) -> &'a str {
    match owner {
        _ if !charge.holder.is_empty() => &charge.holder,
        Some(owner) => owner,
        None => NOBODY,
    }
}

/// One holder's pods of one revision.
#[derive(Default)]
struct Row<'a> {
    charge: Option<&'a Arc<Charge>>,
    asked: u64,
    made: u64,
    staying: u64,
}

#[cfg(test)]
#[path = "charge_tests.rs"]
mod tests;
