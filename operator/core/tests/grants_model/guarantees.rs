//! Guarantees and loads: what is kept for whom, how much is granted from, and which raise must be granted once all is calm.
//!
//! The WorkerPools of one name consume the queue of that name. Guarantees of a Pool fit in its slots together, and a high
//! load leaves half of those. Chance is of its own here, so that the rest of a schedule is as it would be without.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{Guarantee, Pool};
use poolwright_core::grants::Sight;
use poolwright_core::shedding::half;

use crate::operator::uid;
use crate::random::Random;
use crate::world::{Branch, ENDLESS, World};

/// Queues, by number of the WorkerPool's name.
pub const QUEUES: [&str; 2] = ["queue-a", "queue-b"];

/// What is promised in one schedule.
pub struct Promises {
    random: Random,
    /// How many of 100 slots are guaranteed, by Pool and by name.
    shares: [[u64; 2]; 2],
    /// The load is high, by Pool.
    pub high: [bool; 2],
    /// How often of 100 moments a load changes.
    changes: usize,
}

impl Promises {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        let mut share = || [0, 30, 50][random.below(3)];
        let shares = [[share(), share()], [share(), share()]];
        let (has_guarantees, has_loads) = (random.percent(40), random.percent(30));
        Self {
            random,
            shares: if has_guarantees { shares } else { [[0; 2]; 2] },
            high: [false; 2],
            changes: if has_loads { 4 } else { 0 },
        }
    }

    /// Lets loads change.
    pub fn pass(&mut self) {
        if self.random.percent(self.changes) {
            let pool = self.random.below(2);
            self.high[pool] = !self.high[pool];
        }
    }

    /// Writes the guarantees of a Pool by its slots.
    pub fn write(&self, at: usize, pool: &mut Pool) {
        let slots = pool.spec.limit().unwrap_or(0);
        let all = QUEUES.iter().zip(self.shares[at]);
        let guarantee = |(queue, share): (&&str, u64)| Guarantee {
            queue: (*queue).to_owned(),
            slots: i32::try_from(slots * share / 100).expect("a small number"),
        };
        pool.spec.guarantees = all.map(guarantee).filter(|one| one.slots > 0).collect();
    }
}

/// Slots that are granted from, of those that there are.
pub fn effective(slots: u64, is_high: bool) -> u64 {
    if is_high && slots != ENDLESS {
        half(slots)
    } else {
        slots
    }
}

/// What an operator knows of guarantees and of the load.
pub fn sight(world: &World, pool: usize) -> Sight {
    let limit = world.pools[pool].as_ref().and_then(|live| live.pool.spec.limit());
    let mut sight = Sight {
        effective: limit.map(|slots| effective(slots, world.promises.high[pool])),
        ..Sight::default()
    };
    for (name, queue) in QUEUES.iter().enumerate() {
        let holder = consumer(world, name);
        sight
            .consumers
            .insert((*queue).to_owned(), holder.map(uid).into_iter().collect());
        let unit = holder.and_then(|holder| unit(world, pool, holder));
        sight.units.extend(unit.map(|unit| ((*queue).to_owned(), unit)));
    }
    sight
}

/// The WorkerPool that consumes the queue of a name: the newest, while it exists or has pods.
fn consumer(world: &World, name: usize) -> Option<usize> {
    let holder = world.worker_pools.iter().rposition(|one| one.0 == name)?;
    let has_pods = |branch: &&Branch| branch.holder == holder && branch.committed() > 0;
    let is_there = world.worker_pools[holder].1 || world.branches.iter().any(|one| has_pods(&one));
    is_there.then_some(holder)
}

/// The least that a pod of a WorkerPool takes.
fn unit(world: &World, pool: usize, holder: usize) -> Option<u64> {
    let own = world.branches.iter().filter(|branch| branch.holder == holder);
    own.map(|branch| branch.slots[pool])
        .filter(|slots| *slots > 0)
        .min()
}

/// Whether so many slots more for a WorkerPool must be granted, when all is calm and grants are what is taken; `None` where
/// either answer is right. Said once more in other words than `guarantee` has, and only of cases that are plain.
pub fn must_fit(world: &World, pool: usize, holder: usize, slots: u64) -> Option<bool> {
    if slots == 0 {
        return Some(true);
    }
    let Some(live) = &world.pools[pool] else {
        return Some(false);
    };
    let Some(limit) = live.pool.spec.limit() else {
        return Some(true);
    };
    let limit = effective(limit, world.promises.high[pool]);
    let mut taken: BTreeMap<usize, u64> = BTreeMap::new();
    for branch in &world.branches {
        *taken.entry(branch.holder).or_default() += u64::from(branch.committed()) * branch.slots[pool];
    }
    let after: u64 = taken.values().sum::<u64>() + slots;
    if after > limit {
        return Some(false);
    }
    let (mut kept, mut promised, mut own, mut others) = (0, 0, 0, after - slots);
    for guarantee in &live.pool.spec.guarantees {
        let name = QUEUES.iter().position(|queue| *queue == guarantee.queue)?;
        let consumer = consumer(world, name);
        let used = consumer.map_or(0, |at| taken.get(&at).copied().unwrap_or(0));
        let rest = u64::try_from(guarantee.slots).ok()?.saturating_sub(used);
        let pods = consumer.and_then(|at| unit(world, pool, at)).unwrap_or(1);
        let rest = rest - rest % pods;
        promised += used + rest;
        others -= used;
        if consumer == Some(holder) {
            own = rest;
        } else {
            kept += rest;
        }
    }
    if after + kept <= limit || slots <= own && others == 0 && is_within(world, pool, &taken) {
        return Some(true);
    }
    (promised <= limit).then_some(false)
}

/// Nobody takes more than is guaranteed to him.
fn is_within(world: &World, pool: usize, taken: &BTreeMap<usize, u64>) -> bool {
    let guarantees = world.pools[pool]
        .iter()
        .flat_map(|live| &live.pool.spec.guarantees);
    let mut all = guarantees.filter_map(|one| {
        let name = QUEUES.iter().position(|queue| *queue == one.queue)?;
        Some((consumer(world, name)?, u64::try_from(one.slots).ok()?))
    });
    all.all(|(holder, slots)| taken.get(&holder).copied().unwrap_or(0) <= slots)
}
