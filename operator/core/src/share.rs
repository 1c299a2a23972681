//! How the slots of one Pool are divided among the WorkerPools that want them.
//!
//! Pods are whole, so everything here is: a claim is rounded to pods once, when its layers are made, and from then on
//! pods are handed out. Guarantees come first, then what they leave unused is set aside, then tiers are served
//! strictly one after the other and by weight inside each. This module may not look at what runs: a target is what
//! a WorkerPool should have, and when it may take it is the business of grants. It knows no clock, and the same
//! claims give the same targets in any order, so that two operators agree.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::time::Duration;

/// The weight of a claim that has no pod doubles in so long a time.
pub const AGING: Duration = Duration::from_secs(30);
/// Weights that [`aged`] returns are in so many parts of a weight.
pub const AGED_PARTS: u64 = 1000;
/// The tier of pods that are spare: below those of all queues.
pub const SPARE_TIER: u32 = 0;
/// Up to here a weight doubles. It is beyond any sum of weights, and every claim that has aged so far is above every
/// one that has not.
const AGED_MAX: u64 = 1 << 62;

/// What one queue asks of the pods of a WorkerPool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    /// Name of the TaskQueue.
    pub queue: &'a str,
    /// Its tier as a number; the higher is served first.
    pub tier: u32,
    /// Its weight inside the tier, at least 1; all weights of one division in the same parts.
    pub weight: u64,
    /// Worker slots that its tasks ask for; 0 while it has none.
    pub slots: u64,
}

/// Pods that a WorkerPool wants for one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The tier; the higher is served first.
    pub tier: u32,
    /// Weight inside the tier, at least 1.
    pub weight: u64,
    /// Whole pods, besides those of higher tiers.
    pub pods: u64,
}

/// One WorkerPool's claim on one Pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant<'a> {
    /// Name of the WorkerPool; the last thing that ties are broken by.
    pub id: &'a str,
    /// Slots of the Pool that one pod takes, at least 1.
    pub unit: u64,
    /// What it wants: the highest tier first, each tier once.
    pub layers: &'a [Layer],
    /// Pods that guarantees keep for it, whether it wants them at the moment or not. Those that it does not want are
    /// kept free.
    pub guaranteed: u64,
}

/// The layers of a claim on `pods` pods with `pod_slots` worker slots each.
///
/// The rounding rule: the slots of all queues are laid in a row, the highest tier first, and the row is cut into pods; a
/// pod belongs to the tier of its first slot. So 3 critical and 21 other slots in pods of 4 are one critical pod, whose
/// fourth slot serves the others, and 5 other ones: 6 pods in all and never 7. Pods beyond the row (a minimum, a hold)
/// belong to the lowest tier of the queues; slots beyond the pods (a maximum) are cut from the end of the row. The last
/// `spare` of the pods, which are kept only because that is cheaper than to start them again, belong to no queue's tier.
///
/// The weight of a layer is the sum of the weights of the tier's queues that have tasks, or of all of them if none has:
/// a WorkerPool of two queues claims for both.
#[must_use]
pub fn layers(wants: &[Want], pod_slots: u64, pods: u64, spare: u64) -> Vec<Layer> {
    let mut layers = Vec::new();
    push_layers(&mut layers, wants, pod_slots, pods, spare);
    layers
}

/// Puts the [`layers`] of one claim behind those of others.
pub(crate) fn push_layers(layers: &mut Vec<Layer>, wants: &[Want], pod_slots: u64, pods: u64, spare: u64) {
    let spare = spare.min(pods);
    let pods = pods - spare;
    let mut wants = Cow::Borrowed(wants);
    if !wants.is_sorted_by_key(|want| Reverse(want.tier)) {
        wants.to_mut().sort_unstable_by_key(|want| Reverse(want.tier));
    }
    let (mut row, mut cut) = (0_u64, 0);
    let mut lowest = Layer {
        tier: 0,
        weight: 1,
        pods: 0,
    };
    for tier in wants.chunk_by(|a, b| a.tier == b.tier) {
        if lowest.pods > 0 {
            layers.push(lowest);
        }
        row = tier.iter().fold(row, |row, want| row.saturating_add(want.slots));
        let end = row.div_ceil(pod_slots.max(1)).min(pods);
        lowest = Layer {
            tier: tier[0].tier,
            weight: weight(tier),
            pods: end - cut,
        };
        cut = end;
    }
    let apart = if lowest.tier == SPARE_TIER { 0 } else { spare };
    lowest.pods = lowest.pods.saturating_add(pods - cut + (spare - apart));
    if lowest.pods > 0 {
        layers.push(lowest);
    }
    if apart > 0 {
        layers.push(Layer {
            tier: SPARE_TIER,
            pods: apart,
            ..lowest
        });
    }
}

fn weight(tier: &[Want]) -> u64 {
    let has_tasks = tier.iter().any(|want| want.slots > 0);
    let counts = |want: &&Want| !has_tasks || want.slots > 0;
    let weights = || tier.iter().filter(counts).map(|want| want.weight);
    let sum = weights().fold(0, u64::saturating_add);
    if sum < AGED_MAX {
        return sum.max(1);
    }
    // Among those that wait so long it is the time that counts, and not for how many queues.
    weights().fold(AGED_MAX, u64::max)
}

/// `weight` of a claim that has had no pod for so long although it wants one, in [`AGED_PARTS`] of a weight: twice as much
/// every 30 s, until it is beyond whatever others weigh; from then on whoever has waited longest weighs most.
///
/// So whoever gets nothing passes whatever weight in its own tier: a million within ten minutes, and all others that wait,
/// too, in half an hour. It never passes a tier. A claim with pods does not age: what is saturated would press what is within
/// its share. All weights of one division go through here, those of claims with pods with a time of zero. Measuring the
/// time is the caller's business; it does so in memory alone, so a restart of the operator sets it to zero.
#[must_use]
pub fn aged(weight: u64, without: Duration) -> u64 {
    let millis = u64::try_from(without.as_millis()).unwrap_or(u64::MAX);
    let aging = u64::try_from(AGING.as_millis()).unwrap_or(u64::MAX);
    let (doubled, rest) = (millis / aging, millis % aging);
    // Between two doublings it rises in a straight line.
    let line = AGED_PARTS + rest * AGED_PARTS / aging;
    let doubled = u32::try_from(doubled)
        .ok()
        .and_then(|doubled| 1_u64.checked_shl(doubled));
    let grown = doubled.and_then(|doubled| weight.checked_mul(line)?.checked_mul(doubled));
    match grown {
        Some(grown) if grown < AGED_MAX => grown,
        _ => AGED_MAX.saturating_add(millis),
    }
}

/// Divides `slots` of a Pool, and returns the target of each claimant in pods, in the order given. `reserved` slots are
/// kept free for queues that none of the claimants' guarantees speaks for, as far as those leave any.
///
/// 1. Guaranteed pods that are wanted, the highest tier first where even those do not fit.
/// 2. Guaranteed slots that are not used are set aside and lent to nobody.
/// 3. The rest tier by tier: a lower one gets what the higher ones cannot use. Inside a tier it is max-min fair by
///    weight, above what is guaranteed.
///
/// A pod that is larger than what is left is passed over and blocks nobody. Takes O(n log n) in the number of layers.
#[must_use]
pub fn share(slots: u64, reserved: u64, claimants: &[Claimant]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..claimants.len()).collect();
    order.sort_unstable_by_key(|at| claimants[*at].id);
    let sorted: Vec<Claimant> = order.iter().map(|at| claimants[*at]).collect();
    let mut divider = Divider::default();
    let mut targets = vec![0; claimants.len()];
    for (at, pods) in order.into_iter().zip(divider.share(slots, reserved, &sorted)) {
        targets[at] = *pods;
    }
    targets
}

/// Guaranteed pods, as far as they fit in the Pool at all: nothing is kept for a pod that can never start.
pub(crate) fn guaranteed(slots: u64, pods: u64, unit: u64) -> u64 {
    pods.min(slots / unit.max(1))
}

/// One layer of one claimant.
pub(crate) struct Step {
    /// Its tier.
    pub(crate) tier: u32,
    /// Its place among the claimants, and so in the order of ids.
    pub(crate) who: usize,
    /// Its weight, at least 1.
    pub(crate) weight: u64,
    /// Pods of this and all higher tiers.
    pub(crate) up_to: u64,
}

/// Puts all layers of these claimants, who come in the order of their places, into `steps`: the highest tier first, and then
/// in that order.
pub(crate) fn line_up<'a>(steps: &mut Vec<Step>, claimants: impl Iterator<Item = (usize, &'a [Layer])>) {
    steps.clear();
    for (who, layers) in claimants {
        let mut up_to = 0_u64;
        for layer in layers {
            up_to = up_to.saturating_add(layer.pods);
            steps.push(Step {
                tier: layer.tier,
                who,
                weight: layer.weight.max(1),
                up_to,
            });
        }
    }
    // Stable: they stand in the order of the claimants already, and so there are as few different keys as tiers.
    steps.sort_by_key(|step| Reverse(step.tier));
}

/// A division under way. It can be used again, which saves most of the memory to work in.
#[derive(Default)]
pub(crate) struct Divider {
    /// All layers, the highest tier first and then in the order of ids.
    steps: Vec<Step>,
    /// Those of one tier.
    fillings: Vec<Filling>,
    /// Slots that are still to be handed out.
    rest: u64,
    /// Pods of each claimant so far.
    pods: Vec<u64>,
}

impl Divider {
    /// [`share`] for claimants that stand in the order of their ids.
    pub(crate) fn share(&mut self, slots: u64, reserved: u64, claimants: &[Claimant]) -> &[u64] {
        self.rest = slots;
        self.pods.clear();
        self.pods.resize(claimants.len(), 0);
        let layers = claimants.iter().map(|claimant| claimant.layers);
        line_up(&mut self.steps, layers.enumerate());
        let kept = |claimant: &Claimant| guaranteed(slots, claimant.guaranteed, claimant.unit);
        if claimants.iter().any(|claimant| claimant.guaranteed > 0) {
            self.serve(claimants, kept);
        }
        let unused = claimants
            .iter()
            .zip(&self.pods)
            .fold(reserved, |sum, (claimant, pods)| {
                sum.saturating_add((kept(claimant) - pods).saturating_mul(claimant.unit))
            });
        self.rest = self.rest.saturating_sub(unused);
        self.serve(claimants, |_| u64::MAX);
        &self.pods
    }

    /// Hands out the rest tier by tier, and inside each by weight until nothing fits; nobody gets beyond `most`.
    fn serve(&mut self, claimants: &[Claimant], most: impl Fn(&Claimant) -> u64) {
        for tier in self.steps.chunk_by(|a, b| a.tier == b.tier) {
            self.fillings.clear();
            for step in tier {
                let claimant = &claimants[step.who];
                let unit = claimant.unit.max(1);
                let missing = step.up_to.min(most(claimant)).saturating_sub(self.pods[step.who]);
                let filling = Filling::new(step.who, unit, step.weight, missing, self.rest);
                self.fillings.extend(filling);
            }
            self.rest = pour(self.rest, &mut self.fillings);
            for filling in &self.fillings {
                self.pods[filling.who] += filling.pods;
            }
        }
    }
}

/// What a claimant still wants of one tier, and what it gets.
pub(crate) struct Filling {
    /// Place among the claimants, and so in the order of ids.
    pub(crate) who: usize,
    unit: u64,
    weight: u64,
    /// Pods that it wants, none of which is larger than all that is left.
    want: u64,
    /// Pods that it gets.
    pub(crate) pods: u64,
    /// Fraction of a pod that its fair share is above them, in 2⁻³² pods.
    fraction: u128,
}

impl Filling {
    /// One that wants `want` pods of `rest` slots, if a pod of it fits in at all.
    pub(crate) fn new(who: usize, unit: u64, weight: u64, want: u64, rest: u64) -> Option<Self> {
        (want > 0 && unit <= rest).then(|| Self {
            who,
            unit,
            weight,
            want: want.min(rest / unit),
            pods: 0,
            fraction: 0,
        })
    }
}

/// Weighted max-min in whole pods; returns what is left.
///
/// First the exact level of the water is found; everyone whose want lies below it gets all of it, and the others the
/// whole pods of their share. What that leaves goes out a pod each by the largest fraction of a pod that was cut off
/// (ties: weight, id), and then in that order as long as anything fits.
pub(crate) fn pour(mut rest: u64, fillings: &mut [Filling]) -> u64 {
    let wanted = fillings.iter().fold(0, |sum: u128, one| {
        sum + u128::from(one.want) * u128::from(one.unit)
    });
    if wanted <= u128::from(rest) {
        for one in fillings {
            one.pods = one.want;
            rest -= one.want * one.unit;
        }
        return rest;
    }
    // By want for each weight; where these are equal, the order makes no difference.
    fillings.sort_unstable_by(|a, b| {
        let (a_slots, b_slots) = (u128::from(a.want * a.unit), u128::from(b.want * b.unit));
        (a_slots * u128::from(b.weight)).cmp(&(b_slots * u128::from(a.weight)))
    });
    let mut weights: u128 = fillings.iter().map(|one| u128::from(one.weight)).sum();
    let mut dry = 0;
    while let Some(one) = fillings.get_mut(dry) {
        let slots = one.want * one.unit;
        if u128::from(slots) > u128::from(rest) * u128::from(one.weight) / weights {
            break;
        }
        one.pods = one.want;
        rest -= slots;
        weights -= u128::from(one.weight);
        dry += 1;
    }
    let dry = &mut fillings[dry..];
    let level = u128::from(rest);
    for one in &mut *dry {
        let (unit, exact) = (u128::from(one.unit), level * u128::from(one.weight));
        let share = exact / weights;
        // A share is below the want, which is a u64.
        one.pods = u64::try_from(share / unit).unwrap_or(0);
        one.fraction = (((share % unit) << 32) + ((exact % weights) << 32) / weights) / unit;
        rest -= one.pods * one.unit;
    }
    dry.sort_unstable_by_key(|one| (Reverse(one.fraction), Reverse(one.weight), one.who));
    for one in &mut *dry {
        if one.pods < one.want && one.unit <= rest {
            one.pods += 1;
            rest -= one.unit;
        }
    }
    for one in dry {
        let more = (one.want - one.pods).min(rest / one.unit);
        one.pods += more;
        rest -= more * one.unit;
    }
    rest
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
