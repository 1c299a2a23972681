//! What one WorkerPool brings to the Pools of its namespace: what it wants, what its pods take, and what one more would.

use std::time::Duration;

use crate::cause::Cause;
use crate::charge::{Charge, whose};
use crate::demand::Share;
use crate::share::{AGING, Layer, Want, aged, push_layers};
use crate::snapshot::{BidQueue, Budget, Namespace, PodInput, PoolInput};

/// One WorkerPool's side.
pub struct Bidder<'a> {
    /// It, its revisions and pods.
    pub input: &'a PoolInput,
    /// Slots of one of its pods that serve.
    pub slots: u32,
    /// Pods that it wants to take work.
    pub wanted: u32,
    /// Of these, pods that it would give up for what others need.
    pub spare: u32,
    /// One pod more, to bring up a new revision.
    pub extra: u32,
    /// Pods that take work, or will. A parked one still takes its slots, and is not counted on: it may be of a revision
    /// that should get no more work.
    pub serving: u32,
    /// Its share of each of its queues, whose tasks ask for worker slots.
    pub tasks: &'a [Share],
    /// Names of its pods that take nothing any more.
    pub lost: &'a [String],
    /// How long it has had no pod because its Pools gave none.
    pub without: std::time::Duration,
}

/// One bidder at one Pool.
#[derive(Default)]
pub(crate) struct Stake<'a> {
    /// The Pool.
    pub(crate) pool: &'a str,
    /// The Pool's place.
    pub(crate) account: usize,
    /// What a pod of the present revision takes.
    pub(crate) charge: u64,
    /// What its pods take.
    pub(crate) committed: u64,
}

/// One bidder.
pub(crate) struct Seat<'a> {
    pub(crate) bidder: &'a Bidder<'a>,
    pub(crate) stakes: Vec<Stake<'a>>,
    pub(crate) wants: Vec<Want<'a>>,
    /// A Pool that it is charged to and that does not exist, or cannot be read.
    pub(crate) missing: Option<&'a str>,
    /// A Pool that a pod of its present revision does not fit in.
    pub(crate) too_large: Option<Cause>,
}

impl Seat<'_> {
    /// Pods that it wants, with the one to bring up a new revision.
    fn all(&self) -> u32 {
        self.bidder.wanted.saturating_add(self.bidder.extra)
    }

    /// Pods that it asks its Pools for. With an aged weight only the first one; and none that it could not start.
    pub(crate) fn claims(&self) -> u32 {
        let all = self.all();
        if self.missing.is_some() {
            all.min(self.bidder.serving)
        } else if self.bidder.without >= AGING {
            all.min(1)
        } else {
            all
        }
    }

    /// Of these, pods that are spare: what it does not claim was spare first.
    pub(crate) fn spare(&self) -> u32 {
        self.bidder.spare.saturating_sub(self.all() - self.claims())
    }

    /// Pods that it wants because it needs them, or to bring up a new revision.
    pub(crate) fn needed(&self) -> u32 {
        self.all().saturating_sub(self.bidder.spare)
    }

    /// For how long it has had no pod, if that gives it a turn before its equals.
    pub(crate) fn turn(&self) -> Duration {
        Some(self.bidder.without)
            .filter(|without| *without >= AGING)
            .unwrap_or_default()
    }

    pub(crate) fn consumes(&self, queue: &str) -> bool {
        self.bidder.input.bid.queues.iter().any(|one| one.object == queue)
    }

    /// The layer that its pod number `pod + 1` belongs to, as a claim. `all` is memory to work in.
    pub(crate) fn layer(&self, pod: u32, all: &mut Vec<Layer>) -> Layer {
        self.layer_with(pod, self.bidder.spare, all)
    }

    /// The same once it is there: a pod that is spare is of its queues' tier.
    pub(crate) fn layer_held(&self, pod: u32, all: &mut Vec<Layer>) -> Layer {
        self.layer_with(pod, 0, all)
    }

    fn layer_with(&self, pod: u32, spare: u32, all: &mut Vec<Layer>) -> Layer {
        let wanted = u64::from(self.all()).max(u64::from(pod) + 1);
        all.clear();
        let slots = u64::from(self.bidder.slots);
        push_layers(all, &self.wants, slots, wanted, spare.into());
        let mut left = u64::from(pod);
        for layer in all.iter() {
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

/// What one WorkerPool has to do with Pools. Mostly it is one Pool: a list is faster than a map.
struct Stakes<'a>(Vec<Stake<'a>>);

impl<'a> Stakes<'a> {
    fn of(&mut self, pool: &'a str) -> &mut Stake<'a> {
        let at = self.0.iter().position(|stake| stake.pool == pool);
        let at = at.unwrap_or_else(|| {
            let stake = Stake::default();
            self.0.push(Stake { pool, ..stake });
            self.0.len() - 1
        });
        &mut self.0[at]
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

/// `pools` are all Pools of the namespace, in the order of their names.
pub(crate) fn seat<'a>(namespace: &Namespace, pools: &[(&str, &Budget)], bidder: &'a Bidder<'a>) -> Seat<'a> {
    let input = bidder.input;
    let present = &input.bid.charge;
    let mut stakes = Stakes(Vec::with_capacity(present.slots.len()));
    // Where a new pod takes something, and where those that there are do.
    stakes.commit(present, 0);
    stakes.commit_all(input, bidder.lost);
    let mut stakes = stakes.0;
    stakes.sort_unstable_by_key(|stake| stake.pool);
    let (mut missing, mut too_large) = (None, None);
    stakes.retain_mut(|stake| {
        stake.charge = present.at(stake.pool);
        let Ok(place) = pools.binary_search_by_key(&stake.pool, |(name, _)| *name) else {
            missing = missing.or_else(|| present.slots.contains_key(stake.pool).then_some(stake.pool));
            return false;
        };
        stake.account = place;
        too_large = too_large
            .take()
            .or_else(|| is_too_large(pools[place].1, stake, input));
        true
    });
    // While a new pod fits nowhere, those that there are go on.
    let works = input.revisions.iter().filter(|one| one.replicas > 0);
    let works = works
        .max_by_key(|one| one.created)
        .filter(|_| too_large.is_some());
    if let Some(works) = works {
        for stake in &mut stakes {
            stake.charge = works.charge.at(stake.pool);
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

/// One pod of the present revision takes more of the Pool than there is. One without slots is closed, which says nothing
/// about pods.
fn is_too_large(budget: &Budget, stake: &Stake, input: &PoolInput) -> Option<Cause> {
    let (slots, pod) = (budget.slots.filter(|slots| *slots > 0)?, stake.charge);
    let task = (pod / u64::from(input.slots).max(1)).max(1);
    (pod > slots).then(|| Cause::TooLarge {
        pool: stake.pool.to_owned(),
        slots,
        pod,
        fits: slots / task,
    })
}

fn wants<'a>(namespace: &Namespace, bidder: &Bidder<'a>) -> Vec<Want<'a>> {
    let want = |queue: &'a BidQueue| {
        let weight = namespace
            .weights
            .effective
            .get(&queue.object)
            .copied()
            .unwrap_or(1);
        let tasks = bidder.tasks.iter().find(|one| *one.name == *queue.queue);
        Want {
            queue: &queue.object,
            tier: queue.tier,
            weight: aged(weight.max(1), bidder.without),
            slots: tasks.map_or(0, |one| one.tasks),
        }
    };
    bidder.input.bid.queues.iter().map(want).collect()
}
