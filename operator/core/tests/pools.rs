//! What holds for every arbitration, where WorkerPools draw on several Pools.

use std::collections::{BTreeMap, BTreeSet};

use poolwright_core::arbitrate::{Charge, Claim, Guarantee, PoolBudget, arbitrate};
use poolwright_core::share::{Claimant, Layer, Want, layers, share};
use proptest::prelude::*;
use proptest::sample::Index;

const QUEUES: usize = 8;
const TIERS: [u32; 3] = [100, 50, 1];

/// A namespace: Pools, queues that draw on one each, and WorkerPools on some of them.
#[derive(Clone, Debug)]
struct Namespace {
    /// Slots, and guarantees by queue.
    pools: Vec<(Option<u64>, BTreeMap<usize, u64>)>,
    /// Pool, tier and weight of each queue.
    queues: Vec<(usize, u32, u64)>,
    worker_pools: Vec<WorkerPool>,
    /// Somebody who wants nothing draws on every Pool and on one more, so that none is divided alone.
    watched: bool,
}

#[derive(Clone, Debug)]
struct WorkerPool {
    id: String,
    pod_slots: u64,
    /// Slots of tasks by queue.
    tasks: BTreeMap<usize, u64>,
    pods: u64,
    /// Of these, those that others may have.
    spare: u64,
    /// What a pod costs at a Pool of this number.
    costs: Vec<u64>,
}

fn name(queue: usize) -> &'static str {
    ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7"][queue]
}

impl WorkerPool {
    fn pools(&self, namespace: &Namespace) -> BTreeSet<usize> {
        self.tasks
            .keys()
            .map(|queue| namespace.queues[*queue].0)
            .collect()
    }

    fn wanted(&self) -> u64 {
        self.pods
    }

    /// Pods that it wants for `tier` and all above.
    fn up_to(&self, namespace: &Namespace, tier: u32) -> u64 {
        let claim = self.claim(namespace, &[0; 5]);
        let layers = layers(&claim.wants, claim.pod_slots, claim.pods, claim.spare);
        let higher = layers.iter().filter(|layer| layer.tier >= tier);
        higher.map(|layer| layer.pods).sum()
    }

    fn claim(&self, namespace: &Namespace, place: &[usize]) -> Claim<'_> {
        let want = |(queue, slots): (&usize, &u64)| {
            let (_, tier, weight) = namespace.queues[*queue];
            Want {
                queue: name(*queue),
                tier,
                weight,
                slots: *slots,
            }
        };
        let charge = |pool: usize| Charge {
            pool: place[pool],
            slots: self.costs[pool],
        };
        Claim {
            id: &self.id,
            pods: self.pods,
            spare: self.spare,
            pod_slots: self.pod_slots,
            wants: self.tasks.iter().map(want).collect(),
            charges: self.pools(namespace).into_iter().map(charge).collect(),
        }
    }
}

impl Namespace {
    /// Targets by name. Pools are handed over in the order `pools`, WorkerPools in the order `claims`.
    fn arbitrate(&self, pools: &[usize], claims: &[usize]) -> BTreeMap<String, u64> {
        let budget = |(slots, guarantees): &(Option<u64>, BTreeMap<usize, u64>)| PoolBudget {
            slots: *slots,
            guarantees: guarantees
                .iter()
                .map(|(queue, slots)| Guarantee {
                    queue: name(*queue),
                    slots: *slots,
                })
                .collect(),
        };
        let mut budgets: Vec<PoolBudget> = pools.iter().map(|pool| budget(&self.pools[*pool])).collect();
        let mut place = vec![0; pools.len()];
        for (at, pool) in pools.iter().enumerate() {
            place[*pool] = at;
        }
        let mut claims: Vec<Claim> = claims
            .iter()
            .map(|at| self.worker_pools[*at].claim(self, &place))
            .collect();
        if self.watched {
            budgets.push(budget(&(Some(0), BTreeMap::new())));
            claims.push(Claim {
                id: "watcher",
                pods: 0,
                spare: 0,
                pod_slots: 1,
                wants: Vec::new(),
                charges: (0..budgets.len()).map(|pool| Charge { pool, slots: 1 }).collect(),
            });
        }
        let targets = arbitrate(&budgets, &claims);
        claims
            .iter()
            .map(|claim| claim.id.to_owned())
            .zip(targets)
            .collect()
    }

    fn targets(&self) -> BTreeMap<String, u64> {
        let pools: Vec<usize> = (0..self.pools.len()).collect();
        let claims: Vec<usize> = (0..self.worker_pools.len()).collect();
        self.arbitrate(&pools, &claims)
    }

    /// The same, whose WorkerPools ask for what they were given.
    fn satisfied(&self, targets: &BTreeMap<String, u64>) -> Self {
        let mut again = self.clone();
        for one in &mut again.worker_pools {
            // What it lacks was spare first.
            one.spare = one.spare.saturating_sub(one.pods - targets[&one.id]);
            one.pods = targets[&one.id];
        }
        again
    }

    /// Slots of a Pool that the targets leave, if it has a limit.
    fn left(&self, pool: usize, targets: &BTreeMap<String, u64>) -> Option<i128> {
        let slots = i128::from(self.pools[pool].0?);
        let on_it = self
            .worker_pools
            .iter()
            .filter(|one| one.pools(self).contains(&pool));
        Some(on_it.fold(slots, |left, one| {
            left - i128::from(targets[&one.id] * one.costs[pool])
        }))
    }
}

fn worker_pool(most_queues: usize) -> impl Strategy<Value = WorkerPool> {
    let tasks = prop::collection::btree_map(
        0..QUEUES,
        prop_oneof![1 => Just(0u64), 4 => 0u64..40],
        1..=most_queues,
    );
    let cost = prop_oneof![2 => Just(1u64), 3 => 1u64..7, 1 => 1u64..40];
    let spare = prop_oneof![2 => Just(0u64), 1 => 0u64..25];
    (1u64..5, tasks, 0u64..25, spare, prop::collection::vec(cost, 5)).prop_map(
        |(pod_slots, tasks, pods, spare, costs)| WorkerPool {
            id: String::new(),
            pod_slots,
            tasks,
            pods,
            spare,
            costs,
        },
    )
}

fn namespace(most_queues: usize, guaranteed: bool) -> impl Strategy<Value = Namespace> {
    let slots = prop_oneof![1 => Just(None), 6 => (0u64..60).prop_map(Some)];
    let queue = (any::<Index>(), 0usize..3, 1u64..12);
    let guarantee = prop_oneof![1 => Just(0u64), 1 => 1u64..15];
    (
        prop::collection::vec(slots, 1..=5),
        prop::collection::vec((queue, guarantee), QUEUES),
        prop::collection::vec(worker_pool(most_queues), 1..=12),
    )
        .prop_map(move |(slots, queues, mut worker_pools)| {
            for (at, one) in worker_pools.iter_mut().enumerate() {
                one.id = format!("w{at:02}");
            }
            let mut pools: Vec<(Option<u64>, BTreeMap<usize, u64>)> =
                slots.into_iter().map(|slots| (slots, BTreeMap::new())).collect();
            let mut all = Vec::new();
            for (at, ((pool, tier, weight), guarantee)) in queues.into_iter().enumerate() {
                let pool = pool.index(pools.len());
                all.push((pool, TIERS[tier], weight));
                if guaranteed && guarantee > 0 {
                    pools[pool].1.insert(at, guarantee);
                }
            }
            Namespace {
                pools,
                queues: all,
                worker_pools,
                watched: false,
            }
        })
}

/// Guaranteed pods of each claimant on queues of one Pool, and the slots that nobody asks for. `None` where somebody asks
/// for a pod that is larger than such a rest.
fn split(
    guarantees: &BTreeMap<usize, u64>,
    on_it: &[&WorkerPool],
    claimants: &[Claimant],
) -> Option<(Vec<u64>, u64)> {
    let (mut all, mut reserved) = (vec![0; claimants.len()], 0);
    for (queue, slots) in guarantees {
        let places: Vec<usize> = (0..claimants.len())
            .filter(|at| on_it[*at].tasks.contains_key(queue))
            .collect();
        let wants: Vec<Layer> = places
            .iter()
            .map(|at| Layer {
                tier: 0,
                weight: 1,
                pods: on_it[*at].wanted(),
            })
            .collect();
        let parts: Vec<Claimant> = places
            .iter()
            .zip(&wants)
            .map(|(at, want)| Claimant {
                layers: std::slice::from_ref(want),
                ..claimants[*at]
            })
            .collect();
        let (mut left, mut unmet) = (*slots, false);
        for (at, pods) in places.iter().zip(share(*slots, 0, &parts)) {
            all[*at] += pods;
            left -= pods * claimants[*at].unit;
            unmet |= pods < on_it[*at].wanted();
        }
        let smallest = parts.iter().map(|part| part.unit).min().unwrap_or(1);
        let rest = left - left % smallest;
        if unmet && rest > 0 {
            return None;
        }
        reserved += rest;
    }
    Some((all, reserved))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// No target is above what is wanted, and no Pool gives more than it has.
    #[test]
    fn no_budget_is_exceeded(namespace in namespace(4, true)) {
        let targets = namespace.targets();
        for one in &namespace.worker_pools {
            prop_assert!(targets[&one.id] <= one.wanted());
        }
        for pool in 0..namespace.pools.len() {
            prop_assert!(namespace.left(pool, &targets).is_none_or(|left| left >= 0), "{pool}: {targets:?}");
        }
    }

    /// The order in which Pools and claims are handed over shows in no target.
    #[test]
    fn the_order_of_pools_and_claims_does_not_matter(
        (namespace, pools, claims) in namespace(4, true).prop_flat_map(|namespace| {
            let pools = Just((0..namespace.pools.len()).collect::<Vec<_>>()).prop_shuffle();
            let claims = Just((0..namespace.worker_pools.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(namespace), pools, claims)
        }),
    ) {
        prop_assert_eq!(namespace.targets(), namespace.arbitrate(&pools, &claims));
    }

    /// Who gets less than he wants has a Pool in which no further pod of his fits.
    #[test]
    fn what_one_cannot_use_goes_to_others(namespace in namespace(4, false)) {
        let targets = namespace.targets();
        for one in namespace.worker_pools.iter().filter(|one| targets[&one.id] < one.wanted()) {
            let is_full = |pool: usize| {
                namespace.left(pool, &targets).is_some_and(|left| left < i128::from(one.costs[pool]))
            };
            prop_assert!(one.pools(&namespace).into_iter().any(is_full), "{}: {targets:?}", one.id);
        }
    }

    /// Guarantees of a Pool that has slots for all: what a WorkerPool of one queue wants, as far as whole pods of it fit
    /// in, and what a queue that wants none does not use is free, whatever others want.
    #[test]
    fn guarantees_are_met_and_kept(namespace in namespace(1, true)) {
        let targets = namespace.targets();
        for (pool, (slots, guarantees)) in namespace.pools.iter().enumerate() {
            let Some(slots) = slots.filter(|slots| guarantees.values().sum::<u64>() <= *slots) else {
                continue;
            };
            let mut idle = 0;
            for (queue, guaranteed) in guarantees {
                let consumers: Vec<&WorkerPool> =
                    namespace.worker_pools.iter().filter(|one| one.tasks.contains_key(queue)).collect();
                if let [one] = consumers[..] {
                    let fits = guaranteed / one.costs[pool];
                    prop_assert!(targets[&one.id] >= one.wanted().min(fits), "{}", one.id);
                }
                // Of several, no pod of one who wants more fits in what they do not take.
                let taken: u64 = consumers.iter().map(|one| targets[&one.id] * one.costs[pool]).sum();
                for one in consumers.iter().filter(|one| targets[&one.id] < one.wanted()) {
                    prop_assert!(taken + one.costs[pool] > *guaranteed, "{} of {name:?}", one.id, name = name(*queue));
                }
                if consumers.iter().all(|one| one.wanted() == 0) {
                    let smallest = consumers.iter().map(|one| one.costs[pool]).min().unwrap_or(1);
                    idle += guaranteed / smallest * smallest;
                }
            }
            let left = namespace.left(pool, &targets).unwrap();
            prop_assert!(left >= i128::from(idle), "{left} of {slots} are left, {idle} are kept");
        }
    }

    /// What pods of several sizes leave of a guarantee is used by the next pod of its queue, with free slots: in a Pool that
    /// has slots for all guarantees, who wants one has no room for it beside what other queues do not use of theirs.
    #[test]
    fn the_rest_of_a_guarantee_is_used_by_its_queue(namespace in namespace(1, true)) {
        let targets = namespace.targets();
        for (pool, (slots, guarantees)) in namespace.pools.iter().enumerate() {
            if slots.is_some_and(|slots| guarantees.values().sum::<u64>() > slots) {
                continue;
            }
            let taken = |queue: &usize| -> u64 {
                let consumers = namespace.worker_pools.iter().filter(|one| one.tasks.contains_key(queue));
                consumers.map(|one| targets[&one.id] * one.costs[pool]).sum()
            };
            for one in namespace.worker_pools.iter().filter(|one| targets[&one.id] < one.wanted()) {
                let others = guarantees.iter().filter(|(queue, _)| !one.tasks.contains_key(queue));
                let unused: u64 = others.map(|(queue, slots)| slots.saturating_sub(taken(queue))).sum();
                if let Some(left) = namespace.left(pool, &targets).filter(|_| one.pools(&namespace).contains(&pool)) {
                    prop_assert!(left < i128::from(one.costs[pool] + unused), "{}: {left}, {unused}", one.id);
                }
            }
        }
    }

    /// Guarantees of a Pool that has not slots for all, as beside a high load: who wants pods of his own has no room left for
    /// one, and as long as guarantees take all that there is nobody else has anything.
    #[test]
    fn guarantees_that_do_not_fit_are_met_as_far_as_there_are_slots(namespace in namespace(1, true)) {
        let targets = namespace.targets();
        for (pool, (slots, guarantees)) in namespace.pools.iter().enumerate() {
            let Some(slots) = slots.filter(|slots| guarantees.values().sum::<u64>() > *slots) else {
                continue;
            };
            let left = namespace.left(pool, &targets).unwrap();
            let (mut kept, mut guests) = (0, 0);
            for one in namespace.worker_pools.iter().filter(|one| one.pools(&namespace).contains(&pool)) {
                let own = one.tasks.keys().find_map(|queue| guarantees.get(queue));
                guests += if own.is_none() { targets[&one.id] } else { 0 };
            }
            for (queue, guaranteed) in guarantees {
                let consumers: Vec<&WorkerPool> =
                    namespace.worker_pools.iter().filter(|one| one.tasks.contains_key(queue)).collect();
                let largest = consumers.iter().map(|one| one.costs[pool]).max().unwrap_or(1);
                // What fits in the Pool at all, but for a rest in which the largest pod of the queue does not fit.
                kept += if largest > slots { 0 } else { (guaranteed.min(&slots) + 1).saturating_sub(largest) };
                if let [one] = consumers[..]
                    && targets[&one.id] < one.wanted().min(guaranteed / one.costs[pool])
                {
                    prop_assert!(left < i128::from(one.costs[pool]), "{} has room: {left} of {slots}", one.id);
                }
            }
            prop_assert!(kept < slots || guests == 0, "{guests} pods of {slots} slots, {kept} kept");
        }
    }

    /// Who gets less than he wants has a Pool in which no further pod of his fits beside what is guaranteed to others,
    /// or to one of several queues of his own.
    #[test]
    fn what_is_not_guaranteed_to_others_goes_to_who_can_use_it(namespace in namespace(4, true)) {
        let targets = namespace.targets();
        for one in namespace.worker_pools.iter().filter(|one| targets[&one.id] < one.wanted()) {
            let is_full = |pool: usize| {
                let guarantees = namespace.pools[pool].1.iter();
                // Also from its own other queues a guarantee is kept.
                let is_shared = |queue: &usize| {
                    let consumers = namespace.worker_pools.iter().filter(|one| one.tasks.contains_key(queue));
                    one.tasks.len() > 1 || !one.tasks.contains_key(queue) || consumers.count() > 1
                };
                let others: u64 = guarantees.filter(|(queue, _)| is_shared(queue)).map(|(_, slots)| slots).sum();
                let left = namespace.left(pool, &targets);
                left.is_some_and(|left| left < i128::from(one.costs[pool] + others))
            };
            prop_assert!(one.pools(&namespace).into_iter().any(is_full), "{}: {targets:?}", one.id);
        }
    }

    /// Who asks for no more than his target gets it again, over several Pools too.
    #[test]
    fn arbitrating_what_was_arbitrated_changes_nothing(namespace in namespace(4, false)) {
        let targets = namespace.targets();
        prop_assert_eq!(namespace.satisfied(&targets).targets(), targets);
    }

    /// The same where queues have guarantees, as far as their Pool has slots for all and their WorkerPools have no other
    /// queue: who has several and gets less than he wants asks for less of the lowest, whose guarantee he does not use then.
    #[test]
    fn arbitrating_what_was_arbitrated_beside_guarantees_changes_nothing(mut namespace in namespace(4, true)) {
        let worker_pools = &namespace.worker_pools;
        for (slots, guarantees) in &mut namespace.pools {
            let all: u64 = guarantees.values().sum();
            guarantees.retain(|queue, _| {
                let mut consumers = worker_pools.iter().filter(|one| one.tasks.contains_key(queue));
                slots.is_none_or(|slots| all <= slots) && consumers.all(|one| one.tasks.len() == 1)
            });
        }
        let targets = namespace.targets();
        prop_assert_eq!(namespace.satisfied(&targets).targets(), targets);
    }

    /// Strict tiers over several Pools: while somebody wants a pod in a tier, it has a Pool in which that pod would not
    /// fit even if all lower tiers gave back what they have there.
    #[test]
    fn no_lower_tier_has_what_an_unmet_higher_one_could_use(namespace in namespace(4, false)) {
        let targets = namespace.targets();
        for one in &namespace.worker_pools {
            for tier in TIERS.into_iter().filter(|tier| targets[&one.id] < one.up_to(&namespace, *tier)) {
                let is_full = |pool: usize| {
                    let on_it = namespace.worker_pools.iter().filter(|other| other.pools(&namespace).contains(&pool));
                    let lower: u64 = on_it
                        .map(|other| targets[&other.id].saturating_sub(other.up_to(&namespace, tier)) * other.costs[pool])
                        .sum();
                    let left = namespace.left(pool, &targets);
                    left.is_some_and(|left| left + i128::from(lower) < i128::from(one.costs[pool]))
                };
                prop_assert!(one.pools(&namespace).into_iter().any(is_full), "{} in {tier}: {targets:?}", one.id);
            }
        }
    }

    /// Where nobody draws on several Pools, each Pool is shared as if it were alone, so that all that holds for `share`
    /// holds there, whether the Pool is divided at once or tier by tier. Each guarantee is split among its consumers as a
    /// Pool of its own, if that leaves no rest that a larger pod of theirs may use.
    #[test]
    fn single_pools_are_shared_alone(mut namespace in namespace(1, true), watched in any::<bool>()) {
        namespace.watched = watched;
        let targets = namespace.targets();
        for (pool, (slots, guarantees)) in namespace.pools.iter().enumerate() {
            let on_it: Vec<&WorkerPool> =
                namespace.worker_pools.iter().filter(|one| one.pools(&namespace).contains(&pool)).collect();
            let claims: Vec<Claim> = on_it.iter().map(|one| one.claim(&namespace, &[0; 5])).collect();
            let layers: Vec<_> =
                claims.iter().map(|claim| layers(&claim.wants, claim.pod_slots, claim.pods, claim.spare)).collect();
            let claimants: Vec<Claimant> = claims
                .iter()
                .zip(&layers)
                .map(|(claim, layers)| Claimant {
                    id: claim.id,
                    unit: claim.charges[0].slots,
                    layers,
                    guaranteed: 0,
                })
                .collect();
            let Some((guaranteed, reserved)) = split(guarantees, &on_it, &claimants) else {
                continue;
            };
            let claimants: Vec<Claimant> = claimants
                .iter()
                .zip(guaranteed)
                .map(|(claimant, guaranteed)| Claimant { guaranteed, ..*claimant })
                .collect();
            for (one, pods) in on_it.iter().zip(share(slots.unwrap_or(u64::MAX), reserved, &claimants)) {
                prop_assert_eq!(targets[&one.id], pods, "{} on {}", one.id, pool);
            }
        }
    }
}
