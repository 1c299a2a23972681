//! What one WorkerPool brings to the Pools of its namespace: what it wants, what its pods take, and what one more would.

use std::sync::Arc;

use crate::cause::Cause;
use crate::charge::{Charge, whose};
use crate::share::{AGING, Layer, Want, aged, layers};
use crate::snapshot::{BidQueue, Namespace, PodInput, PoolInput};

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
    pub tasks: &'a [(Arc<str>, u64)],
    /// Names of its pods that take nothing any more.
    pub lost: &'a [String],
    /// How long it has had no pod because its Pools gave none.
    pub without: std::time::Duration,
}

/// One bidder at one Pool.
#[derive(Default)]
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

/// What one WorkerPool has to do with one Pool.
struct Row<'a> {
    pool: &'a str,
    stake: Stake,
}

/// What one WorkerPool has to do with Pools. Mostly it is one Pool: a list is faster than a map.
#[derive(Default)]
struct Rows<'a>(Vec<Row<'a>>);

impl<'a> Rows<'a> {
    fn of(&mut self, pool: &'a str) -> &mut Stake {
        let at = self.0.iter().position(|row| row.pool == pool);
        let at = at.unwrap_or_else(|| {
            let stake = Stake::default();
            self.0.push(Row { pool, stake });
            self.0.len() - 1
        });
        &mut self.0[at].stake
    }

    /// Takes in the most that a new pod takes.
    fn price(&mut self, charge: &'a Charge) {
        for (pool, slots) in &charge.slots {
            let stake = self.of(pool);
            stake.price = stake.price.max(*slots);
        }
    }

    /// Takes in what pods take.
    fn commit(&mut self, charge: &'a Charge, count: u64) {
        for (pool, slots) in &charge.slots {
            let stake = self.of(pool);
            stake.committed = stake.committed.saturating_add(slots.saturating_mul(count));
        }
    }

    /// Takes in what the pods of a WorkerPool take, starting, parked and draining ones included, those that are `lost`
    /// excepted.
    fn commit_all(&mut self, input: &'a PoolInput, lost: &[String]) {
        // What a namesake has left behind is on its own account.
        let uid = input.key.uid.as_str();
        let own = |charge: &Charge| whose(charge, Some(uid)) == uid;
        for revision in input.revisions.iter().filter(|one| own(&one.charge)) {
            let staying = input
                .staying()
                .filter(|pod| pod.revision == revision.name)
                .count();
            let count = revision.replicas.max(revision.made);
            self.commit(&revision.charge, u64::from(count).max(staying as u64));
        }
        let known = |pod: &PodInput| input.revisions.iter().any(|one| one.name == pod.revision);
        let pods = input.pods.iter().filter(|pod| pod.draining || !known(pod));
        for pod in pods.filter(|pod| own(&pod.charge) && !lost.iter().any(|name| pod.name == *name)) {
            self.commit(&pod.charge, 1);
        }
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
    let mut rows = Rows::default();
    for revision in &input.revisions {
        rows.price(&revision.charge);
    }
    rows.price(present);
    rows.commit_all(input, bidder.lost);
    rows.0.sort_unstable_by_key(|row| row.pool);
    let (mut stakes, mut missing) = (Vec::with_capacity(rows.0.len()), None);
    for Row { pool, stake } in rows.0 {
        if let Ok(account) = pools.binary_search(&pool) {
            let charge = charge.at(pool);
            stakes.push(Stake {
                account,
                charge,
                ..stake
            });
        } else if present.slots.contains_key(pool) {
            missing.get_or_insert(pool);
        }
    }
    Seat {
        bidder,
        stakes,
        wants: wants(namespace, bidder),
        missing,
        too_large,
    }
}

/// The first Pool that one pod of the present revision takes more of than there is.
fn too_large(namespace: &Namespace, input: &PoolInput) -> Option<Cause> {
    input.bid.charge.slots.iter().find_map(|(pool, pod)| {
        let slots = namespace.pools.get(pool)?.slots?;
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
        let tasks = bidder.tasks.iter().find(|(name, _)| **name == *queue.queue);
        Want {
            queue: &queue.object,
            tier: queue.tier,
            weight: aged(weight.max(1), bidder.without),
            slots: tasks.map_or(0, |(_, slots)| *slots),
        }
    };
    bidder.input.bid.queues.iter().map(want).collect()
}
