//! What the Pools of a namespace leave to each WorkerPool: how many pods in the end, and how many new ones now.
//!
//! `arbitrate` says what each should have; here that meets what is taken. A pod takes its slots until it is gone, so who
//! should grow waits for who should shrink, and who has more than it should parks pods only where somebody waits for
//! them: at once for a higher tier, after a while for its own. Nothing here takes a pod away; it only says how many
//! should take work. That no Pool is overdrawn is not left to this module: `grants` checks every raise once more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::arbitrate::{Charge as Price, Claim, Guarantee, PoolBudget, arbitrate};
use crate::charge::{Slots, add};
use crate::share::{Layer, Want, aged, layers};
use crate::snapshot::{Budget, Namespace, PoolInput};

/// One WorkerPool's side.
pub struct Bidder<'a> {
    /// It, its revisions and pods.
    pub input: &'a PoolInput,
    /// Pods that it wants to take work.
    pub wanted: u32,
    /// One pod more, to bring up a new revision.
    pub extra: u32,
    /// Worker slots that the tasks of each of its queues ask for, by the queue's name on the broker.
    pub tasks: &'a [(String, u64)],
    /// How long it has wanted more than its Pools gave.
    pub unmet: std::time::Duration,
}

/// What a WorkerPool may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Pods that its Pools give it, at most what it wants; the extra one is not in it.
    pub target: u32,
    /// Pods that it may create now.
    pub room: u32,
    /// The extra pod is given, too.
    pub extra: bool,
    /// Others wait for what it has above its target.
    pub pressed: Pressed,
    /// What keeps it from more in the end.
    pub cause: Option<Cause>,
    /// What keeps it from its target now.
    pub waits: Option<Cause>,
}

/// Who waits for a WorkerPool's pods above its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressed {
    /// Nobody.
    #[default]
    No,
    /// Others of its own tier.
    ByEquals,
    /// Others of a higher tier, or the Pool itself, which has fewer slots than are taken.
    ByHigher,
}

/// Why a WorkerPool gets fewer pods than it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such Pool.
    Missing {
        /// Its name.
        pool: String,
    },
    /// One pod takes more than the whole Pool has.
    TooLarge {
        /// The Pool.
        pool: String,
        /// Its slots.
        slots: u64,
        /// Slots of one pod.
        pod: u64,
        /// The largest concurrency that fits; 0 if not even one slot does.
        fits: u64,
    },
    /// The Pool gives no more.
    Limited {
        /// The Pool.
        pool: String,
        /// Its slots that are missing.
        missing: u64,
    },
    /// The slots are its own and others still have them.
    Waiting {
        /// The Pool.
        pool: String,
        /// Its slots that are missing.
        missing: u64,
    },
    /// `maxActiveTasks` of its queue allows no more.
    Capped,
}

impl Allowance {
    /// No Pool limits it.
    #[must_use]
    pub const fn free(wanted: u32) -> Self {
        Self {
            target: wanted,
            room: u32::MAX,
            extra: true,
            pressed: Pressed::No,
            cause: None,
            waits: None,
        }
    }
}

/// What a WorkerPool's pods take, starting, parked and draining ones included.
#[must_use]
pub fn committed(input: &PoolInput) -> Slots {
    let mut sum = Slots::new();
    for revision in &input.revisions {
        let staying = input
            .staying()
            .filter(|pod| pod.revision == revision.name)
            .count();
        let count = revision.replicas.max(revision.made);
        add(&mut sum, &revision.charge, u64::from(count).max(staying as u64));
    }
    let known: BTreeSet<&str> = input.revisions.iter().map(|one| one.name.as_str()).collect();
    for pod in &input.pods {
        if pod.draining || !known.contains(pod.revision.as_str()) {
            add(&mut sum, &pod.charge, 1);
        }
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

fn pods(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The pods that stay, parked ones included, and those that are asked for.
fn standing(input: &PoolInput) -> u32 {
    pods(input.staying().count() as u64).max(input.replicas())
}

/// Divides the Pools of one namespace among its WorkerPools, and returns what each may do, in the order given.
#[must_use]
pub fn divide(namespace: &Namespace, bidders: &[Bidder]) -> Vec<Allowance> {
    let limited = namespace.pools.values().any(|pool| pool.effective.is_some());
    let plain = |bidder: &Bidder| {
        let known = |pool: &String| namespace.pools.contains_key(pool);
        bidder.input.bid.cap.is_none() && bidder.input.bid.charge.slots.keys().all(known)
    };
    if !limited && bidders.iter().all(plain) {
        return bidders
            .iter()
            .map(|bidder| Allowance::free(bidder.wanted))
            .collect();
    }
    let desk = Desk::new(namespace, bidders);
    let targets = desk.targets();
    let mut all = desk.allowances(&targets);
    desk.hand_out(&targets, &mut all);
    desk.press(&targets, &mut all);
    all
}

/// One Pool with what is taken of it.
struct Account<'a> {
    name: &'a str,
    budget: &'a Budget,
    /// Slots that are taken or granted.
    taken: u64,
}

impl Account<'_> {
    fn free(&self) -> u64 {
        self.budget
            .effective
            .map_or(u64::MAX, |slots| slots.saturating_sub(self.taken))
    }
}

struct Desk<'a> {
    namespace: &'a Namespace,
    bidders: &'a [Bidder<'a>],
    accounts: Vec<Account<'a>>,
    committed: Vec<Slots>,
    prices: Vec<Slots>,
    wants: Vec<Vec<Want<'a>>>,
}

impl<'a> Desk<'a> {
    fn new(namespace: &'a Namespace, bidders: &'a [Bidder<'a>]) -> Self {
        let committed: Vec<Slots> = bidders.iter().map(|bidder| committed(bidder.input)).collect();
        let account = |(name, budget): (&'a String, &'a Budget)| {
            let mut taken: BTreeMap<&str, u64> = budget
                .granted
                .iter()
                .map(|(uid, granted)| (uid.as_str(), *granted))
                .collect();
            let own = bidders.iter().zip(&committed).map(|(bidder, slots)| {
                let used = slots.get(name).copied().unwrap_or(0);
                (&bidder.input.key.uid, used)
            });
            for (uid, used) in budget.used.iter().map(|(uid, used)| (uid, *used)).chain(own) {
                let most = taken.entry(uid).or_default();
                *most = used.max(*most);
            }
            Account {
                name,
                budget,
                taken: taken.values().fold(0, |sum: u64, one| sum.saturating_add(*one)),
            }
        };
        Self {
            namespace,
            bidders,
            accounts: namespace.pools.iter().map(account).collect(),
            prices: bidders.iter().map(|bidder| price(bidder.input)).collect(),
            wants: bidders.iter().map(|bidder| wants(namespace, bidder)).collect(),
            committed,
        }
    }

    /// Pods in the end, the extra ones included.
    fn targets(&self) -> Vec<u32> {
        let budgets: Vec<PoolBudget> = self
            .accounts
            .iter()
            .map(|account| PoolBudget {
                slots: account.budget.effective,
                guarantees: account
                    .budget
                    .guarantees
                    .iter()
                    .map(|(queue, slots)| Guarantee { queue, slots: *slots })
                    .collect(),
            })
            .collect();
        let claims: Vec<Claim> = (0..self.bidders.len()).map(|at| self.claim(at)).collect();
        arbitrate(&budgets, &claims).into_iter().map(pods).collect()
    }

    fn claim(&self, at: usize) -> Claim<'_> {
        let bidder = &self.bidders[at];
        let charges = bidder.input.bid.charge.slots.iter().filter_map(|(pool, slots)| {
            let pool = self
                .accounts
                .binary_search_by(|account| account.name.cmp(pool))
                .ok()?;
            Some(Price { pool, slots: *slots })
        });
        let wanted = bidder.wanted.min(bidder.input.bid.cap.unwrap_or(u32::MAX));
        Claim {
            id: &bidder.input.key.name,
            pods: u64::from(wanted.saturating_add(bidder.extra)),
            pod_slots: u64::from(bidder.input.slots),
            cap: None,
            wants: self.wants[at].clone(),
            charges: charges.collect(),
        }
    }

    fn allowances(&self, targets: &[u32]) -> Vec<Allowance> {
        let bidders = self.bidders.iter().zip(targets);
        bidders
            .map(|(bidder, given)| {
                let missing = self.missing(bidder.input);
                let wanted = bidder.wanted.min(bidder.input.bid.cap.unwrap_or(u32::MAX));
                let target = (*given).min(wanted);
                let cause = match missing {
                    Some(pool) => Some(Cause::Missing { pool }),
                    None if target < wanted => Some(self.limit(bidder, wanted - target)),
                    None if wanted < bidder.wanted => Some(Cause::Capped),
                    None => None,
                };
                Allowance {
                    // What runs is left as it is while a Pool is not there.
                    target: if matches!(cause, Some(Cause::Missing { .. })) {
                        bidder.wanted
                    } else {
                        target
                    },
                    room: 0,
                    extra: *given > target && bidder.extra > 0,
                    pressed: Pressed::No,
                    cause,
                    waits: None,
                }
            })
            .collect()
    }

    fn missing(&self, input: &PoolInput) -> Option<String> {
        let mut pools = input.bid.charge.slots.keys();
        pools
            .find(|pool| !self.namespace.pools.contains_key(*pool))
            .cloned()
    }

    /// The Pool that has least for its pods.
    fn limit(&self, bidder: &Bidder, pods: u32) -> Cause {
        let charge = &bidder.input.bid.charge;
        let limits = self.accounts.iter().filter_map(|account| {
            let (slots, pod) = (account.budget.effective?, charge.at(account.name));
            (pod > 0).then(|| (slots / pod, account, pod))
        });
        let Some((fit, account, pod)) = limits.min_by_key(|(fit, account, _)| (*fit, account.name)) else {
            return Cause::Capped;
        };
        let pool = account.name.to_owned();
        let slots = account.budget.slots.unwrap_or(u64::MAX);
        if fit == 0 && pod > slots {
            let task = pod / u64::from(bidder.input.slots).max(1);
            let fits = slots / task.max(1);
            return Cause::TooLarge {
                pool,
                slots,
                pod,
                fits,
            };
        }
        Cause::Limited {
            pool,
            missing: pod.saturating_mul(u64::from(pods)),
        }
    }

    /// Gives what is free now, the highest tier first, then who lacks most for its weight.
    fn hand_out(&self, targets: &[u32], all: &mut [Allowance]) {
        let mut left: Vec<u64> = self.accounts.iter().map(Account::free).collect();
        let mut keeps: Vec<BTreeMap<&str, u64>> = self
            .accounts
            .iter()
            .map(|account| self.unused_guarantees(account))
            .collect();
        let mut order: Vec<(Reverse<u32>, Reverse<u64>, &str, usize)> = Vec::new();
        for (at, bidder) in self.bidders.iter().enumerate() {
            let standing = standing(bidder.input);
            let lacks = targets[at].saturating_sub(standing);
            if matches!(all[at].cause, Some(Cause::Missing { .. })) || lacks == 0 {
                continue;
            }
            let layer = self.layer(at, standing);
            let rank = u64::from(lacks).saturating_mul(1000) / layer.weight.max(1);
            order.push((Reverse(layer.tier), Reverse(rank), &bidder.input.key.name, at));
        }
        order.sort_unstable();
        for (.., at) in order {
            let bidder = &self.bidders[at];
            let lacks = u64::from(targets[at].saturating_sub(standing(bidder.input)));
            let own = |queue: &str| bidder.input.bid.queues.iter().any(|one| one.object == queue);
            let (mut fit, mut tight) = (lacks, None);
            for (place, account) in self.accounts.iter().enumerate() {
                let price = self.prices[at].get(account.name).copied().unwrap_or(0);
                if price == 0 {
                    continue;
                }
                let others = keeps[place].iter().filter(|(queue, _)| !own(queue));
                let kept = others.fold(0, |sum: u64, (_, slots)| sum.saturating_add(*slots));
                let fits = left[place].saturating_sub(kept) / price;
                if fits < fit {
                    (fit, tight) = (fits, Some((account.name, price)));
                }
            }
            for (place, account) in self.accounts.iter().enumerate() {
                let spent = self.prices[at]
                    .get(account.name)
                    .copied()
                    .unwrap_or(0)
                    .saturating_mul(fit);
                left[place] = left[place].saturating_sub(spent);
                for (queue, slots) in &mut keeps[place] {
                    if own(queue) {
                        *slots = slots.saturating_sub(spent);
                    }
                }
            }
            all[at].room = pods(fit);
            if let Some((pool, price)) = tight {
                all[at].waits = Some(Cause::Waiting {
                    pool: pool.to_owned(),
                    missing: price.saturating_mul(lacks - fit),
                });
            }
        }
        for (at, bidder) in self.bidders.iter().enumerate() {
            let charges = self.prices[at].keys();
            let is_free = |pool: &String| {
                let pool = self.namespace.pools.get(pool);
                pool.is_some_and(|pool| pool.effective.is_none())
            };
            // Without a limit there is room for whatever a rollout needs.
            if charges.into_iter().all(is_free) && bidder.input.bid.cap.is_none() {
                (all[at].room, all[at].extra) = (u32::MAX, true);
            }
        }
    }

    /// What is kept for a queue and not taken by those who consume it.
    fn unused_guarantees(&self, account: &Account<'a>) -> BTreeMap<&'a str, u64> {
        let unused = |(queue, slots): (&'a String, &'a u64)| {
            let consumers = self
                .bidders
                .iter()
                .zip(&self.committed)
                .filter(|(bidder, _)| bidder.input.bid.queues.iter().any(|one| one.object == *queue));
            let used = consumers.fold(0, |sum: u64, (_, taken)| {
                sum.saturating_add(taken.get(account.name).copied().unwrap_or(0))
            });
            (queue.as_str(), slots.saturating_sub(used))
        };
        account.budget.guarantees.iter().map(unused).collect()
    }

    /// The layer that a claim's pod number `at + 1` belongs to.
    fn layer(&self, at: usize, pod: u32) -> Layer {
        let bidder = &self.bidders[at];
        let wanted = u64::from(bidder.wanted.saturating_add(bidder.extra)).max(u64::from(pod) + 1);
        let all = layers(&self.wants[at], u64::from(bidder.input.slots), wanted);
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

    /// Who has more than it should gives it back where somebody waits for it.
    fn press(&self, targets: &[u32], all: &mut [Allowance]) {
        for account in &self.accounts {
            let Some(effective) = account.budget.effective else {
                continue;
            };
            let waits = (0..self.bidders.len()).filter(|at| {
                let takes = self.bidders[*at].input.bid.charge.at(account.name) > 0;
                let standing = standing(self.bidders[*at].input);
                takes && targets[*at] > standing.saturating_add(all[*at].room)
            });
            let tiers = waits.map(|at| self.layer(at, standing(self.bidders[at].input)).tier);
            let highest = tiers.max();
            let overdrawn = account.taken > effective;
            for (at, bidder) in self.bidders.iter().enumerate() {
                if self.committed[at].get(account.name).copied().unwrap_or(0) == 0 {
                    continue;
                }
                let own = self.layer(at, all[at].target).tier;
                let pressed = match highest {
                    _ if overdrawn => Pressed::ByHigher,
                    Some(tier) if tier > own => Pressed::ByHigher,
                    Some(_) => Pressed::ByEquals,
                    None => Pressed::No,
                };
                if standing(bidder.input) > all[at].target {
                    all[at].pressed = all[at].pressed.max(pressed);
                }
            }
        }
    }
}

fn wants<'a>(namespace: &'a Namespace, bidder: &Bidder<'a>) -> Vec<Want<'a>> {
    let has_none = bidder.input.staying().next().is_none();
    let want = |queue: &'a crate::snapshot::BidQueue| {
        let weight = namespace.weights.get(&queue.object).copied().unwrap_or(1);
        let tasks = bidder.tasks.iter().find(|(name, _)| *name == queue.queue);
        Want {
            queue: &queue.object,
            tier: queue.tier,
            weight: aged(weight.max(1), bidder.unmet, has_none),
            slots: tasks.map_or(0, |(_, slots)| *slots),
        }
    };
    bidder.input.bid.queues.iter().map(want).collect()
}
