//! What one WorkerPool brings to the Pools of its namespace: what it wants, what its pods take, and what one more would.

use std::collections::BTreeSet;

use crate::cause::Cause;
use crate::charge::{Charge, Slots, add, whose};
use crate::share::{AGING, Layer, Want, aged, layers};
use crate::snapshot::{BidQueue, Namespace, PoolInput};

/// One WorkerPool's side.
pub struct Bidder<'a> {
    /// It, its revisions and pods.
    pub input: &'a PoolInput,
    /// Pods that it wants to take work.
    pub wanted: u32,
    /// One pod more, to bring up a new revision.
    pub extra: u32,
    /// Pods that take work, or will. A parked one still takes its slots, and is not counted on: it may be of a revision
    /// that should get no more work.
    pub serving: u32,
    /// Worker slots that the tasks of each of its queues ask for, by the queue's name on the broker.
    pub tasks: &'a [(String, u64)],
    /// Names of its pods that take nothing any more.
    pub lost: &'a [String],
    /// How long it has had no pod because its Pools gave none.
    pub without: std::time::Duration,
}

/// What a WorkerPool's pods take, starting, parked and draining ones included, those that are `lost` excepted.
#[must_use]
pub fn committed(input: &PoolInput, lost: &[String]) -> Slots {
    let mut sum = Slots::new();
    // What a namesake has left behind is on its own account.
    let uid = input.key.uid.as_str();
    let own = |charge: &Charge| whose(charge, Some(uid)) == uid;
    for revision in input.revisions.iter().filter(|one| own(&one.charge)) {
        let staying = input
            .staying()
            .filter(|pod| pod.revision == revision.name)
            .count();
        let count = revision.replicas.max(revision.made);
        add(&mut sum, &revision.charge, u64::from(count).max(staying as u64));
    }
    let known: BTreeSet<&str> = input.revisions.iter().map(|one| one.name.as_str()).collect();
    let pods = input
        .pods
        .iter()
        .filter(|pod| own(&pod.charge) && !lost.contains(&pod.name));
    for pod in pods.filter(|pod| pod.draining || !known.contains(pod.revision.as_str())) {
        add(&mut sum, &pod.charge, 1);
    }
    sum
}

/// The most that a new pod of any of its revisions takes.
fn price(input: &PoolInput) -> Slots {
    let mut most = input.bid.charge.slots.clone();
    for (pool, slots) in input.revisions.iter().flat_map(|one| &one.charge.slots) {
        let price = most.entry(pool.clone()).or_default();
        *price = (*price).max(*slots);
    }
    most
}

/// One bidder at one Pool.
pub(crate) struct Stake {
    /// The Pool's place.
    pub(crate) account: usize,
    /// What a pod of the present revision takes.
    pub(crate) charge: u64,
    /// The most that a new pod of any of its revisions takes.
    pub(crate) price: u64,
    /// What its pods take.
    pub(crate) committed: u64,
}

/// One bidder.
pub(crate) struct Seat<'a> {
    pub(crate) bidder: &'a Bidder<'a>,
    pub(crate) stakes: Vec<Stake>,
    pub(crate) wants: Vec<Want<'a>>,
    /// A Pool that it is charged to and that does not exist.
    pub(crate) missing: Option<&'a str>,
    /// A Pool that a pod of its present revision does not fit in.
    pub(crate) too_large: Option<Cause>,
}

impl Seat<'_> {
    /// Pods that it asks its Pools for. With an aged weight only the first one; and none that it could not start.
    pub(crate) fn claims(&self) -> u32 {
        let all = self.bidder.wanted.saturating_add(self.bidder.extra);
        if self.missing.is_some() {
            all.min(self.bidder.serving)
        } else if self.bidder.without >= AGING {
            all.min(1)
        } else {
            all
        }
    }

    pub(crate) fn consumes(&self, queue: &str) -> bool {
        self.bidder.input.bid.queues.iter().any(|one| one.object == queue)
    }

    /// The layer that its pod number `pod + 1` belongs to.
    pub(crate) fn layer(&self, pod: u32) -> Layer {
        let wanted = u64::from(self.bidder.wanted.saturating_add(self.bidder.extra)).max(u64::from(pod) + 1);
        let all = layers(&self.wants, u64::from(self.bidder.input.slots), wanted);
        let mut left = u64::from(pod);
        for layer in &all {
            if left < layer.pods {
                return *layer;
            }
            left -= layer.pods;
        }
        all.last().copied().unwrap_or(Layer {
            tier: 0,
            weight: 1,
            pods: 0,
        })
    }
}

/// `pools` are the names of all Pools, in order.
pub(crate) fn seat<'a>(namespace: &'a Namespace, pools: &[&str], bidder: &'a Bidder<'a>) -> Seat<'a> {
    let input = bidder.input;
    let too_large = too_large(namespace, input);
    // While a new pod fits nowhere, those that there are go on.
    let works = || {
        input
            .revisions
            .iter()
            .filter(|one| one.replicas > 0)
            .max_by_key(|one| one.created)
    };
    let present = &input.bid.charge;
    let charge = too_large
        .as_ref()
        .and_then(|_| works())
        .map_or(present, |one| &one.charge);
    let (charge, prices, committed) = (&charge.slots, price(input), committed(input, bidder.lost));
    let place = |pool: &str| pools.binary_search(&pool).ok();
    let names: BTreeSet<&String> = prices.keys().chain(committed.keys()).collect();
    let stake = |pool: &&String| {
        Some(Stake {
            account: place(pool)?,
            charge: charge.get(*pool).copied().unwrap_or(0),
            price: prices.get(*pool).copied().unwrap_or(0),
            committed: committed.get(*pool).copied().unwrap_or(0),
        })
    };
    Seat {
        bidder,
        stakes: names.iter().filter_map(stake).collect(),
        wants: wants(namespace, bidder),
        missing: present
            .slots
            .keys()
            .find(|pool| place(pool).is_none())
            .map(String::as_str),
        too_large,
    }
}

/// The first Pool that one pod of the present revision takes more of than there is. One without slots is closed, which says
/// nothing about pods.
fn too_large(namespace: &Namespace, input: &PoolInput) -> Option<Cause> {
    input.bid.charge.slots.iter().find_map(|(pool, pod)| {
        let slots = namespace.pools.get(pool)?.slots.filter(|slots| *slots > 0)?;
        let task = (pod / u64::from(input.slots).max(1)).max(1);
        (*pod > slots).then(|| Cause::TooLarge {
            pool: pool.clone(),
            slots,
            pod: *pod,
            fits: slots / task,
        })
    })
}

fn wants<'a>(namespace: &'a Namespace, bidder: &Bidder<'a>) -> Vec<Want<'a>> {
    let want = |queue: &'a BidQueue| {
        let weight = namespace
            .weights
            .effective
            .get(&queue.object)
            .copied()
            .unwrap_or(1);
        let tasks = bidder.tasks.iter().find(|(name, _)| *name == queue.queue);
        Want {
            queue: &queue.object,
            tier: queue.tier,
            weight: aged(weight.max(1), bidder.without),
            slots: tasks.map_or(0, |(_, slots)| *slots),
        }
    };
    bidder.input.bid.queues.iter().map(want).collect()
}
