//! What holds for every division of a Pool, on arbitrary claims; slots and pods are computed anew from the claims.

use poolwright_core::share::{Claimant, Layer, share};
use proptest::prelude::*;

/// One WorkerPool with what it owns.
#[derive(Clone, Debug)]
struct Owner {
    id: String,
    unit: u64,
    layers: Vec<Layer>,
    guaranteed: u64,
}

impl Owner {
    fn claimant(&self) -> Claimant<'_> {
        Claimant {
            id: &self.id,
            unit: self.unit,
            layers: &self.layers,
            guaranteed: self.guaranteed,
        }
    }

    /// From now on it wants no more than so many pods, the lowest tiers less.
    fn ask_for(&mut self, mut pods: u64) {
        self.layers.sort_by_key(|layer| std::cmp::Reverse(layer.tier));
        for layer in &mut self.layers {
            layer.pods = layer.pods.min(pods);
            pods -= layer.pods;
        }
    }

    /// Pods that it wants for `tier` and all above.
    fn up_to(&self, tier: u32) -> u64 {
        let layers = self.layers.iter().filter(|layer| layer.tier >= tier);
        layers.map(|layer| layer.pods).sum()
    }

    fn weight(&self, tier: u32) -> u64 {
        self.layers
            .iter()
            .find(|layer| layer.tier == tier)
            .map_or(1, |layer| layer.weight)
    }
}

/// A division and what the claims say about it, in slots unless it says pods.
struct Divided<'a> {
    slots: u64,
    reserved: u64,
    owners: &'a [Owner],
    /// Pods by owner.
    targets: Vec<u64>,
}

impl<'a> Divided<'a> {
    fn new(slots: u64, reserved: u64, owners: &'a [Owner]) -> Self {
        let claimants: Vec<Claimant> = owners.iter().map(Owner::claimant).collect();
        let targets = share(slots, reserved, &claimants);
        assert_eq!(targets.len(), owners.len());
        Self {
            slots,
            reserved,
            owners,
            targets,
        }
    }

    /// Guaranteed pods that can exist at all.
    fn guaranteed(&self, at: usize) -> u64 {
        let owner = &self.owners[at];
        owner.guaranteed.min(self.slots / owner.unit)
    }

    /// Guaranteed pods that it wants.
    fn asked(&self, at: usize) -> u64 {
        self.guaranteed(at).min(self.owners[at].up_to(0))
    }

    fn sum(&self, pods: impl Fn(usize) -> u64) -> u64 {
        (0..self.owners.len())
            .map(|at| pods(at) * self.owners[at].unit)
            .sum()
    }

    fn left(&self) -> u64 {
        self.slots - self.sum(|at| self.targets[at])
    }

    /// Slots of guarantees that are not used.
    fn unused(&self) -> u64 {
        self.reserved + self.sum(|at| self.guaranteed(at).saturating_sub(self.targets[at]))
    }

    /// Pods that one has in `tier` above what is guaranteed.
    fn in_tier(&self, at: usize, tier: u32) -> u64 {
        let owner = &self.owners[at];
        let below = owner.up_to(tier + 1).max(self.asked(at));
        self.targets[at].min(owner.up_to(tier)).saturating_sub(below)
    }

    fn unmet(&self, at: usize, tier: u32) -> bool {
        self.targets[at] < self.owners[at].up_to(tier)
    }
}

const TIERS: [u32; 5] = [100, 75, 50, 25, 1];

fn owner(unit: impl Strategy<Value = u64>, equal: bool) -> impl Strategy<Value = Owner> {
    let weight = || prop_oneof![Just(1u64), 1u64..10, 1u64..100_000];
    let pods = prop_oneof![2 => Just(0u64), 5 => 1u64..6, 2 => 1u64..200];
    let layers = prop::collection::btree_map(0usize..5, (weight(), pods), 0..4);
    let guaranteed = prop_oneof![3 => Just(0u64), 2 => 1u64..5];
    (unit, layers, guaranteed).prop_map(move |(unit, layers, guaranteed)| Owner {
        id: String::new(),
        unit,
        layers: layers
            .into_iter()
            .map(|(tier, (weight, pods))| Layer {
                tier: TIERS[tier],
                weight: if equal { 1 } else { weight },
                pods,
            })
            .collect(),
        guaranteed,
    })
}

/// Up to twelve, in an order that is not that of their names.
fn owners(same_unit: bool, equal: bool) -> impl Strategy<Value = Vec<Owner>> {
    (1u64..9).prop_flat_map(move |shared| {
        let unit = if same_unit {
            Just(shared).boxed()
        } else {
            prop_oneof![3 => Just(1u64), 4 => 1u64..6, 2 => 1u64..60].boxed()
        };
        prop::collection::vec(owner(unit, equal), 1..=12)
            .prop_map(|mut owners| {
                for (at, owner) in owners.iter_mut().enumerate() {
                    owner.id = format!("w{at:02}");
                }
                owners
            })
            .prop_shuffle()
    })
}

fn budget() -> impl Strategy<Value = (u64, u64)> {
    let reserved = prop_oneof![3 => Just(0u64), 1 => 0u64..40];
    (
        prop_oneof![1 => 0u64..12, 4 => 0u64..150, 1 => 0u64..3000],
        reserved,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// 1. Nobody gets more pods than he wants, and all together take no more slots than there are.
    #[test]
    fn targets_are_within_wants_and_slots((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        for (at, owner) in owners.iter().enumerate() {
            prop_assert!(divided.targets[at] <= owner.up_to(0));
        }
        prop_assert!(divided.sum(|at| divided.targets[at]) <= slots);
    }

    /// 2. Guaranteed pods that are asked for are given, when all of those fit; and when they do not, nobody gets more
    /// than is guaranteed to him. What is kept and not used is lent to nobody.
    #[test]
    fn guarantees_are_met_and_not_lent((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        let fit = divided.sum(|at| divided.asked(at)) <= slots;
        for at in 0..owners.len() {
            if fit {
                prop_assert!(divided.targets[at] >= divided.asked(at));
            } else {
                prop_assert!(divided.targets[at] <= divided.asked(at));
            }
        }
        let by_guarantee = divided.sum(|at| divided.targets[at].min(divided.asked(at)));
        let above = divided.sum(|at| divided.targets[at].saturating_sub(divided.asked(at)));
        prop_assert!(above <= (slots - by_guarantee).saturating_sub(divided.unused()));
    }

    /// 3. Work-conserving: no pod of anyone who wants more would fit in what is left, beside what is kept for others.
    #[test]
    fn nothing_is_left_that_somebody_could_use((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        for (at, owner) in owners.iter().enumerate().filter(|(at, _)| divided.unmet(*at, 0)) {
            let own = divided.guaranteed(at).saturating_sub(divided.targets[at]) * owner.unit;
            let room = divided.left().saturating_sub(divided.unused() - own);
            prop_assert!(owner.unit > room, "{} has room for {room}", owner.id);
        }
    }

    /// 4. Strict tiers: while somebody wants a pod in a tier, all lower ones together have, above what is guaranteed,
    /// less than that pod takes. The same holds for guaranteed pods among themselves.
    #[test]
    fn a_lower_tier_has_less_than_a_pod_of_an_unmet_higher_one(
        (slots, reserved) in budget(), owners in owners(false, false),
    ) {
        let divided = Divided::new(slots, reserved, &owners);
        for (at, owner) in owners.iter().enumerate() {
            for tier in TIERS {
                if divided.unmet(at, tier) {
                    let lower = divided.sum(|other| {
                        let higher = owners[other].up_to(tier).max(divided.asked(other));
                        divided.targets[other].saturating_sub(higher)
                    });
                    prop_assert!(lower < owner.unit, "{} in {tier}: {lower}", owner.id);
                }
                if divided.targets[at] < divided.guaranteed(at).min(owner.up_to(tier)) {
                    let lower = divided.sum(|other| {
                        let higher = owners[other].up_to(tier).min(divided.guaranteed(other));
                        divided.targets[other].saturating_sub(higher)
                    });
                    prop_assert!(lower < owner.unit, "guarantee of {} in {tier}: {lower}", owner.id);
                }
            }
        }
    }

    /// 5. Weighted max-min inside a tier, above guarantees: for each weight nobody has more than one who is unmet, but
    /// for one pod of the unmet, one of his own, and less than the largest pod that found no room.
    #[test]
    fn shares_inside_a_tier_are_fair((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        let largest = owners.iter().map(|owner| owner.unit).max().unwrap_or(0);
        fair(&divided, |at| owners[at].unit + largest)?;
    }

    /// 5. Where all pods are alike: but for one pod of each.
    #[test]
    fn shares_of_equal_pods_are_within_a_pod((slots, reserved) in budget(), owners in owners(true, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        fair(&divided, |at| owners[at].unit)?;
    }

    /// 5. Where weights are equal too, nobody has two pods more than one who is unmet.
    #[test]
    fn equals_are_within_a_pod((slots, reserved) in budget(), owners in owners(true, true)) {
        let divided = Divided::new(slots, reserved, &owners);
        for tier in TIERS {
            for unmet in (0..owners.len()).filter(|at| divided.unmet(*at, tier)) {
                for other in 0..owners.len() {
                    prop_assert!(divided.in_tier(other, tier) <= divided.in_tier(unmet, tier) + 1);
                }
            }
        }
    }

    /// 6. The same claims give the same targets in any order.
    #[test]
    fn order_does_not_matter((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        let mut sorted = owners.clone();
        sorted.sort_by(|a, b| b.id.cmp(&a.id));
        let other = Divided::new(slots, reserved, &sorted);
        for (at, owner) in owners.iter().enumerate() {
            let same = sorted.iter().position(|one| one.id == owner.id).unwrap();
            prop_assert_eq!(divided.targets[at], other.targets[same]);
        }
    }

    /// 6. Who asks for no more than his target gets it again.
    #[test]
    fn dividing_what_was_divided_changes_nothing((slots, reserved) in budget(), owners in owners(false, false)) {
        let divided = Divided::new(slots, reserved, &owners);
        let mut again = owners.clone();
        for (owner, pods) in again.iter_mut().zip(&divided.targets) {
            owner.ask_for(*pods);
        }
        prop_assert_eq!(&Divided::new(slots, reserved, &again).targets, &divided.targets);
    }
}

/// For each weight nobody has more than one who is unmet, but for a pod of the unmet and `slack` slots of his own.
fn fair(divided: &Divided, slack: impl Fn(usize) -> u64) -> Result<(), TestCaseError> {
    let owners = divided.owners;
    for tier in TIERS {
        let slots = |at: usize| divided.in_tier(at, tier) * owners[at].unit;
        for unmet in (0..owners.len()).filter(|at| divided.unmet(*at, tier)) {
            for other in 0..owners.len() {
                let more = slots(other).saturating_sub(slack(other)) * owners[unmet].weight(tier);
                let less = (slots(unmet) + owners[unmet].unit) * owners[other].weight(tier);
                prop_assert!(
                    more < less,
                    "{} and {} in {tier}",
                    owners[other].id,
                    owners[unmet].id
                );
            }
        }
    }
    Ok(())
}
