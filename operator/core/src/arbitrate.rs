//! What every WorkerPool should have, where some draw on several Pools.
//!
//! A Pool whose WorkerPools draw on no other one is divided by `share`, all tiers at once. The others are divided tier by
//! tier: a WorkerPool on queues of several Pools is charged to each with every pod, so it gets the least of what they give,
//! and what it cannot use of the others goes to others there: in a bounded number of rounds, after which no pod of anybody
//! of that tier would still fit. Only then is a lower tier looked at: divided together, a lower one would keep what a higher
//! one turns out to be able to use when the rounds are over.
//! This module only divides: who may take what he was given, and when, is the business of grants.

mod table;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::share::{Claimant, Divider, Filling, Layer, Step, Want, guaranteed, pour};
use table::Table;

/// Rounds of a tier at most: all but the last divide each Pool anew, and the last hands out what is still left.
pub const ROUNDS: usize = 4;

/// One Pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolBudget<'a> {
    /// Its slots; `None` for no limit.
    pub slots: Option<u64>,
    /// Slots that are kept for one queue each, each queue once.
    pub guarantees: Vec<Guarantee<'a>>,
}

/// Slots of a Pool that are kept for one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee<'a> {
    /// Name of the TaskQueue.
    pub queue: &'a str,
    /// Slots.
    pub slots: u64,
}

/// What one WorkerPool wants, and what it is charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Name of the WorkerPool; no two have the same.
    pub id: &'a str,
    /// Pods that it wants, within its own bounds.
    pub pods: u64,
    /// Of these, pods that it would give up for what others need; the last ones.
    pub spare: u64,
    /// Worker slots of one pod, at least 1.
    pub pod_slots: u64,
    /// What each of its queues asks for, also of those that ask for nothing: guarantees are found by them.
    pub wants: Vec<Want<'a>>,
    /// The Pools of its queues, and what they charge for a pod.
    pub charges: Cow<'a, [Charge]>,
}

/// What a Pool charges for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The Pool, by its place in the list of budgets. Where there is none, the claim gets nothing.
    pub pool: usize,
    /// Slots for one pod, at least 1.
    pub slots: u64,
}

/// Divides all `pools` among all `claims`, and returns the target of each claim in pods, in the order given.
///
/// At no Pool do the targets take more than its slots. Of several claims of one queue with a guarantee each has an equal
/// part of it, for the pods that the tasks of that queue need and those that no other queue needs. What of a guarantee
/// is not asked for is kept free, but for a rest in which none of their pods fits. A rest that is smaller than a pod that
/// is asked for, since their pods have several sizes, such a pod takes with slots that its tier has left free. Takes
/// O(n log n) in the number of claims, charges and wants, and in a Pool as much again for each such rest.
#[must_use]
pub fn arbitrate(pools: &[PoolBudget], claims: &[Claim]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_unstable_by_key(|at| claims[*at].id);
    let mut members = vec![0; pools.len()];
    for charge in claims.iter().flat_map(|claim| claim.charges.iter()) {
        if let Some(count) = members.get_mut(charge.pool) {
            *count += 1;
        }
    }
    let budget = |(pool, members): (&PoolBudget, usize)| Budget::new(pool.slots, members);
    let mut budgets: Vec<Budget> = pools.iter().zip(members).map(budget).collect();
    let mut table = Table::new(order.iter().map(|at| &claims[*at]), &mut budgets);
    let mut divider = Divider::default();
    for (pool, budget) in pools.iter().zip(&mut budgets) {
        budget.guarantee(&pool.guarantees, &table, &mut divider);
    }
    table.settle_alone(&budgets, &mut divider);
    let steps = table.steps();
    let mut fillings = Vec::new();
    for tier in steps.chunk_by(|one, next| one.tier == next.tier) {
        table.open(tier, &mut budgets);
        for _ in 1..ROUNDS {
            for seat in tier.iter().flat_map(|step| table.seats(step.who)) {
                let budget = &mut budgets[seat.pool];
                if budget.stale {
                    budget.divide(&table, &mut fillings);
                }
            }
            if !cap_by_others(&table, tier, &mut budgets) {
                break;
            }
        }
        for step in tier {
            let given = table.seats(step.who).iter().map(|seat| seat.of(&budgets).pods);
            let pods = given.fold(table.cases[step.who].missing, u64::min);
            table.give(step.who, pods, &mut budgets);
        }
        top_up(&mut table, tier, &mut budgets);
        for seat in tier.iter().flat_map(|step| table.seats(step.who)) {
            budgets[seat.pool].open.clear();
        }
    }
    let mut in_order = vec![0; claims.len()];
    for (at, case) in order.into_iter().zip(&table.cases) {
        in_order[at] = case.target;
    }
    in_order
}

/// One claim at one Pool.
struct Member {
    case: usize,
    /// Slots of one pod.
    unit: u64,
    /// Pods that guarantees keep for it, besides those that it was given.
    guaranteed: u64,
    /// Pods of the tier that is divided that its other Pools give it.
    cap: u64,
    /// Pods of the tier that is divided that this Pool gives it.
    pods: u64,
}

/// What pods of several sizes leave of one guarantee: a larger one is wanted than fits in it. With slots that its tier
/// leaves free it may fit, and takes this: it belongs to the queue.
struct Rest {
    slots: u64,
    /// Who wants such a pod, in the order of members.
    members: Vec<usize>,
}

impl Rest {
    fn is_for(&self, member: usize) -> bool {
        self.slots > 0 && self.members.binary_search(&member).is_ok()
    }
}

/// One Pool and the claims on it, in the order of ids.
struct Budget {
    slots: Option<u64>,
    members: Vec<Member>,
    /// Slots that nobody was given.
    left: u64,
    /// How many of them are kept for queues that do not use their guarantee.
    kept: u64,
    /// The part of those that no member's guarantee speaks for, and no pod that is wanted will use.
    reserved: u64,
    /// The part of those in which no pod fits that is wanted for their queue.
    rests: Vec<Rest>,
    /// Members that compete in the tier that is divided.
    open: Vec<usize>,
    /// Something changed since it was last divided.
    stale: bool,
}

impl Budget {
    /// With room for so many members, so that lists do not grow one by one.
    fn new(slots: Option<u64>, members: usize) -> Self {
        let members = slots.map_or(0, |_| members);
        Self {
            slots,
            members: Vec::with_capacity(members),
            left: slots.unwrap_or(0),
            kept: 0,
            reserved: 0,
            rests: Vec::new(),
            open: Vec::with_capacity(members),
            stale: false,
        }
    }

    /// Splits each guarantee among the claims of its queue, and keeps what they do not ask for.
    fn guarantee(&mut self, guarantees: &[Guarantee], table: &Table, divider: &mut Divider) {
        let Some(slots) = self.slots.filter(|_| !guarantees.is_empty()) else {
            return;
        };
        // By queue: who consumes it, and how many of his pods are for it.
        let mut consumers: BTreeMap<&str, Vec<(usize, Layer)>> = guarantees
            .iter()
            .map(|guarantee| (guarantee.queue, Vec::new()))
            .collect();
        for (at, member) in self.members.iter().enumerate() {
            let case = &table.cases[member.case];
            for want in &case.claim.wants {
                if let Some(consumers) = consumers.get_mut(want.queue) {
                    let (tier, weight, pods) = (0, 1, case.pods_for(want));
                    consumers.push((at, Layer { tier, weight, pods }));
                }
            }
        }
        for guarantee in guarantees {
            let consumers = &consumers[guarantee.queue];
            let claimants: Vec<Claimant> = consumers
                .iter()
                .map(|(at, layer)| Claimant {
                    id: table.cases[self.members[*at].case].claim.id,
                    unit: self.members[*at].unit,
                    layers: std::slice::from_ref(layer),
                    guaranteed: 0,
                })
                .collect();
            let mut left = guarantee.slots;
            let mut unmet = Vec::new();
            for ((at, layer), pods) in consumers
                .iter()
                .zip(divider.share(guarantee.slots, 0, &claimants))
            {
                let member = &mut self.members[*at];
                member.guaranteed = member.guaranteed.saturating_add(*pods);
                left -= pods * member.unit;
                if *pods < layer.pods {
                    unmet.push(*at);
                }
            }
            // A rest in which none of their pods fits is of no use to the queue.
            let smallest = claimants.iter().map(|claimant| claimant.unit).min().unwrap_or(1);
            left -= left % smallest;
            self.kept = self.kept.saturating_add(left);
            if left == 0 || unmet.is_empty() {
                self.reserved = self.reserved.saturating_add(left);
            } else {
                self.rests.push(Rest {
                    slots: left,
                    members: unmet,
                });
            }
        }
        for member in &mut self.members {
            member.guaranteed = guaranteed(slots, member.guaranteed, member.unit);
            let own = member.guaranteed.saturating_mul(member.unit);
            self.kept = self.kept.saturating_add(own);
        }
    }

    /// Divides what is left among those that compete: what is guaranteed to them first, then what is kept for nobody.
    /// `fillings` is memory to work in.
    fn divide(&mut self, table: &Table, fillings: &mut Vec<Filling>) {
        let (mut left, mut kept) = (self.left, self.kept);
        let missing = |member: &Member| table.cases[member.case].missing.min(member.cap);
        let weight = |member: &Member| table.cases[member.case].weight;
        for at in &self.open {
            self.members[*at].pods = 0;
        }
        let guaranteed = self.open.iter().any(|at| self.members[*at].guaranteed > 0);
        for first in [true, false] {
            if first && !guaranteed {
                continue;
            }
            let rest = if first { left } else { left.saturating_sub(kept) };
            fillings.clear();
            fillings.extend(self.open.iter().filter_map(|at| {
                let member = &self.members[*at];
                let most = if first { member.guaranteed } else { u64::MAX };
                let want = missing(member).min(most).saturating_sub(member.pods);
                Filling::new(*at, member.unit, weight(member), want, rest)
            }));
            pour(rest, fillings);
            for filling in fillings.iter() {
                let member = &mut self.members[filling.who];
                member.pods += filling.pods;
                left -= filling.pods * member.unit;
                kept = kept.saturating_sub(if first { filling.pods * member.unit } else { 0 });
            }
        }
        self.stale = false;
    }

    /// Slots for a member: those that are not kept, and those that are kept for it or for its queue.
    fn room(&self, at: usize) -> u64 {
        let member = &self.members[at];
        let own = member.guaranteed.saturating_mul(member.unit);
        let rests = self.rests.iter().filter(|rest| rest.is_for(at));
        let own = rests.fold(own, |own, rest| own.saturating_add(rest.slots));
        self.left.saturating_sub(self.kept.saturating_sub(own))
    }

    fn take(&mut self, at: usize, pods: u64) {
        let member = &mut self.members[at];
        let own = member.guaranteed.min(pods);
        member.guaranteed -= own;
        self.left = self.left.saturating_sub(pods.saturating_mul(member.unit));
        self.kept = self.kept.saturating_sub(own.saturating_mul(member.unit));
        let mut beyond = (pods - own).saturating_mul(member.unit);
        for rest in self.rests.iter_mut().filter(|rest| rest.is_for(at)) {
            let used = rest.slots.min(beyond);
            rest.slots -= used;
            beyond -= used;
            self.kept = self.kept.saturating_sub(used);
        }
    }
}

/// Caps every claim on several Pools at each by what the others give it. A Pool is to be divided anew if one of its
/// claims can use less than it was given there, or more than it was allowed to take; true if there is such a Pool.
fn cap_by_others(table: &Table, tier: &[Step], budgets: &mut [Budget]) -> bool {
    let mut stale = false;
    for step in tier.iter().filter(|step| table.cases[step.who].spans()) {
        let seats = table.seats(step.who);
        // The least of all, and the least of all but that one.
        let (mut least, mut at_least, mut second) = (u64::MAX, 0, u64::MAX);
        for (at, seat) in seats.iter().enumerate() {
            let pods = seat.of(budgets).pods;
            if pods < least {
                (second, least, at_least) = (least, pods, at);
            } else {
                second = second.min(pods);
            }
        }
        for (at, seat) in seats.iter().enumerate() {
            let cap = if at == at_least { second } else { least };
            let budget = &mut budgets[seat.pool];
            let member = &mut budget.members[seat.member];
            if cap < member.pods || member.cap < cap && member.cap <= member.pods {
                budget.stale = true;
                stale = true;
            }
            member.cap = cap;
        }
    }
    stale
}

/// Hands out what the least of several divisions left over: the heaviest claim first (ties: id), as many pods as fit at
/// all its Pools beside what is kept for others. Afterwards every unmet claim of the tier has a Pool in which no pod of it
/// fits.
fn top_up(table: &mut Table, tier: &[Step], budgets: &mut [Budget]) {
    let fitting = |table: &Table, budgets: &[Budget], case: usize| {
        let fit = table.seats(case).iter().map(|seat| {
            let budget = &budgets[seat.pool];
            budget.room(seat.member) / budget.members[seat.member].unit
        });
        fit.min().unwrap_or(0).min(table.cases[case].missing)
    };
    // Room only shrinks: what does not fit now will not fit later.
    let unmet = tier.iter().filter(|step| fitting(table, budgets, step.who) > 0);
    let mut unmet: Vec<&Step> = unmet.collect();
    unmet.sort_unstable_by_key(|step| (Reverse(step.weight), step.who));
    for step in unmet {
        let more = fitting(table, budgets, step.who);
        table.give(step.who, more, budgets);
    }
}

#[cfg(test)]
#[path = "arbitrate_tests.rs"]
mod tests;
