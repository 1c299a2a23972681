//! What every WorkerPool should have, where some draw on several Pools.
//!
//! Each Pool is divided on its own by `share`. A WorkerPool on queues of several Pools is charged to each with every pod,
//! so it gets the least of what they give, and what it cannot use of the others goes to others there: in a bounded
//! number of rounds, after which no pod of anybody would still fit. This module only divides: who may take what he was
//! given, and when, is the business of grants.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::share::{Claimant, Divider, Layer, Want, guaranteed, push_layers};

/// Rounds at most: all but the last divide each Pool anew, and the last hands out what is still left.
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
    /// Worker slots of one pod, at least 1.
    pub pod_slots: u64,
    /// What each of its queues asks for, also of those that ask for nothing: guarantees are found by them.
    pub wants: Vec<Want<'a>>,
    /// The Pools of its queues, and what they charge for a pod.
    pub charges: Vec<Charge>,
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
/// is not asked for is kept free, but for a rest in which none of their pods fits. Takes O(n log n) in the number of claims, charges and wants.
#[must_use]
pub fn arbitrate(pools: &[PoolBudget], claims: &[Claim]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_unstable_by_key(|at| claims[*at].id);
    let mut budgets: Vec<Budget> = pools.iter().map(|pool| Budget::new(pool.slots)).collect();
    let table = Table::new(order.iter().map(|at| &claims[*at]), &mut budgets);
    let mut divider = Divider::default();
    for (pool, budget) in pools.iter().zip(&mut budgets) {
        budget.guarantee(&pool.guarantees, &table, &mut divider);
    }
    let mut claimants = Vec::new();
    for _ in 1..ROUNDS {
        for budget in budgets.iter_mut().filter(|budget| budget.stale) {
            budget.divide(&table, &mut claimants, &mut divider);
        }
        if !cap_by_others(&table, &mut budgets) {
            break;
        }
    }
    let least = |case: &Case| {
        let given = table.seats(case).iter().map(|seat| seat.of(&budgets).pods);
        given.fold(case.wanted, u64::min)
    };
    let mut targets: Vec<u64> = table.cases.iter().map(least).collect();
    if table.cases.iter().any(Case::spans) {
        top_up(&table, &budgets, &mut targets);
    }
    let mut in_order = vec![0; claims.len()];
    for (at, target) in order.into_iter().zip(targets) {
        in_order[at] = target;
    }
    in_order
}

/// All claims in the order of their ids, with their layers and their seats at the budgets.
struct Table<'a> {
    cases: Vec<Case<'a>>,
    layers: Vec<Layer>,
    seats: Vec<Seat>,
}

/// One claim.
struct Case<'a> {
    claim: &'a Claim<'a>,
    /// Pods that it wants, within its cap.
    wanted: u64,
    /// Its layers in the table.
    layers: Range<usize>,
    /// Its seats in the table: one at each Pool with a limit.
    seats: Range<usize>,
}

impl Case<'_> {
    fn spans(&self) -> bool {
        self.seats.len() > 1
    }

    /// Pods that one queue asks for: what its tasks need, and those that no other queue needs (a minimum, a hold).
    fn pods_for(&self, want: &Want) -> u64 {
        let needed = |slots: u64| slots.div_ceil(self.claim.pod_slots.max(1));
        let all = self
            .claim
            .wants
            .iter()
            .fold(0, |sum: u64, want| sum.saturating_add(want.slots));
        let others = needed(all.saturating_sub(want.slots));
        needed(want.slots)
            .max(self.wanted.saturating_sub(others))
            .min(self.wanted)
    }
}

/// Where a claim sits.
#[derive(Clone, Copy)]
struct Seat {
    pool: usize,
    member: usize,
}

impl Seat {
    fn of(self, budgets: &[Budget]) -> &Member {
        &budgets[self.pool].members[self.member]
    }
}

impl<'a> Table<'a> {
    fn new(claims: impl ExactSizeIterator<Item = &'a Claim<'a>>, budgets: &mut [Budget]) -> Self {
        let mut table = Self {
            cases: Vec::with_capacity(claims.len()),
            layers: Vec::with_capacity(claims.len()),
            seats: Vec::with_capacity(claims.len()),
        };
        for claim in claims {
            let known = claim.charges.iter().all(|charge| charge.pool < budgets.len());
            let wanted = if known { claim.pods } else { 0 };
            let (layers, seats) = (table.layers.len(), table.seats.len());
            push_layers(&mut table.layers, &claim.wants, claim.pod_slots, wanted);
            table.sit(claim, budgets);
            table.cases.push(Case {
                claim,
                wanted,
                layers: layers..table.layers.len(),
                seats: seats..table.seats.len(),
            });
        }
        table
    }

    /// Takes a seat at each Pool that charges the claim and has a limit; one that is named twice charges both.
    fn sit(&mut self, claim: &Claim, budgets: &mut [Budget]) {
        let case = self.cases.len();
        for charge in &claim.charges {
            let Some(budget) = budgets
                .get_mut(charge.pool)
                .filter(|budget| budget.slots.is_some())
            else {
                continue;
            };
            let unit = charge.slots.max(1);
            if let Some(same) = budget.members.last_mut().filter(|last| last.case == case) {
                same.unit = same.unit.saturating_add(unit);
                continue;
            }
            self.seats.push(Seat {
                pool: charge.pool,
                member: budget.members.len(),
            });
            budget.members.push(Member {
                case,
                unit,
                guaranteed: 0,
                cap: u64::MAX,
                pods: 0,
            });
        }
    }

    fn seats(&self, case: &Case) -> &[Seat] {
        &self.seats[case.seats.clone()]
    }

    fn claimant(&self, member: &Member) -> Claimant<'_> {
        let case = &self.cases[member.case];
        Claimant {
            id: case.claim.id,
            unit: member.unit,
            layers: &self.layers[case.layers.clone()],
            guaranteed: member.guaranteed,
            cap: member.cap,
        }
    }
}

/// One claim at one Pool.
struct Member {
    case: usize,
    /// Slots of one pod.
    unit: u64,
    /// Pods that guarantees keep for it.
    guaranteed: u64,
    /// Pods that its other Pools give it.
    cap: u64,
    /// Pods that this Pool gives it.
    pods: u64,
}

/// One Pool and the claims on it, in the order of ids.
struct Budget {
    slots: Option<u64>,
    /// Kept free for queues that do not use their guarantee.
    reserved: u64,
    members: Vec<Member>,
    /// Something changed since it was last divided.
    stale: bool,
}

impl Budget {
    fn new(slots: Option<u64>) -> Self {
        Self {
            slots,
            reserved: 0,
            members: Vec::new(),
            stale: slots.is_some(),
        }
    }

    /// Splits each guarantee among the claims of its queue, and reserves what they do not ask for.
    fn guarantee(&mut self, guarantees: &[Guarantee], table: &Table, divider: &mut Divider) {
        if self.slots.is_none() {
            return;
        }
        // By queue: who consumes it, and how many of his pods are for it.
        let mut consumers: BTreeMap<&str, Vec<(usize, Layer)>> = guarantees
            .iter()
            .map(|guarantee| (guarantee.queue, Vec::new()))
            .collect();
        for (at, member) in self.members.iter().enumerate().filter(|_| !guarantees.is_empty()) {
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
                    layers: std::slice::from_ref(layer),
                    guaranteed: 0,
                    ..table.claimant(&self.members[*at])
                })
                .collect();
            let mut left = guarantee.slots;
            for ((at, _), pods) in consumers
                .iter()
                .zip(divider.share(guarantee.slots, 0, &claimants))
            {
                let member = &mut self.members[*at];
                member.guaranteed = member.guaranteed.saturating_add(*pods);
                left -= pods * member.unit;
            }
            // A rest in which none of their pods fits is of no use to the queue.
            let smallest = claimants.iter().map(|claimant| claimant.unit).min().unwrap_or(1);
            self.reserved = self.reserved.saturating_add(left - left % smallest);
        }
    }

    /// Divides the Pool anew. `claimants` is memory to work in.
    fn divide<'a>(&mut self, table: &'a Table, claimants: &mut Vec<Claimant<'a>>, divider: &mut Divider) {
        claimants.clear();
        claimants.extend(self.members.iter().map(|member| table.claimant(member)));
        let targets = divider.share(self.slots.unwrap_or(0), self.reserved, claimants);
        for (member, pods) in self.members.iter_mut().zip(targets) {
            member.pods = *pods;
        }
        self.stale = false;
    }

    /// Slots that are kept for a claim by its guarantees and that it does not have.
    fn unused(&self, member: &Member, targets: &[u64]) -> u64 {
        let guaranteed = guaranteed(self.slots.unwrap_or(0), member.guaranteed, member.unit);
        guaranteed
            .saturating_sub(targets[member.case])
            .saturating_mul(member.unit)
    }
}

/// Caps every claim on several Pools at each by what the others give it. A Pool is to be divided anew if one of its
/// claims can use less than it was given there, or more than it was allowed to take; true if there is such a Pool.
fn cap_by_others(table: &Table, budgets: &mut [Budget]) -> bool {
    let mut stale = false;
    for case in table.cases.iter().filter(|case| case.spans()) {
        let seats = table.seats(case);
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

/// Hands out what the least of several divisions left over: tier by tier, the heaviest claim first (ties: id), as many
/// pods as fit at all its Pools beside what is kept for others. Afterwards every unmet claim has a Pool in which no pod
/// of it fits.
fn top_up(table: &Table, budgets: &[Budget], targets: &mut [u64]) {
    let mut rooms: Vec<Room> = budgets.iter().map(|budget| Room::new(budget, targets)).collect();
    let fitting = |rooms: &[Room], targets: &[u64], case: &Case| {
        let fit = table.seats(case).iter().map(|seat| {
            let (budget, member) = (&budgets[seat.pool], seat.of(budgets));
            rooms[seat.pool].beside(budget.unused(member, targets)) / member.unit
        });
        fit.min().unwrap_or(0)
    };
    let mut steps: Vec<(Reverse<u32>, Reverse<u64>, usize, u64)> = Vec::new();
    for (at, case) in table.cases.iter().enumerate() {
        // Room only shrinks: what does not fit now will not fit later.
        if targets[at] == case.wanted || fitting(&rooms, targets, case) == 0 {
            continue;
        }
        let mut up_to = 0_u64;
        for layer in &table.layers[case.layers.clone()] {
            up_to = up_to.saturating_add(layer.pods);
            steps.push((Reverse(layer.tier), Reverse(layer.weight), at, up_to));
        }
    }
    steps.sort_unstable();
    for (.., at, up_to) in steps {
        let case = &table.cases[at];
        let more = up_to
            .saturating_sub(targets[at])
            .min(fitting(&rooms, targets, case));
        for seat in table.seats(case) {
            let (budget, member) = (&budgets[seat.pool], seat.of(budgets));
            let room = &mut rooms[seat.pool];
            room.left -= more * member.unit;
            room.kept = room
                .kept
                .saturating_sub(budget.unused(member, targets).min(more * member.unit));
        }
        targets[at] += more;
    }
}

/// What is left of a Pool.
struct Room {
    /// Slots that nobody takes.
    left: u64,
    /// How many of them are kept for someone.
    kept: u64,
}

impl Room {
    fn new(budget: &Budget, targets: &[u64]) -> Self {
        let mut room = Self {
            left: budget.slots.unwrap_or(0),
            kept: budget.reserved,
        };
        for member in &budget.members {
            room.left = room
                .left
                .saturating_sub(targets[member.case].saturating_mul(member.unit));
            room.kept = room.kept.saturating_add(budget.unused(member, targets));
        }
        room
    }

    /// Slots for somebody for whom `own` of the kept ones are.
    fn beside(&self, own: u64) -> u64 {
        self.left.saturating_sub(self.kept.saturating_sub(own))
    }
}

#[cfg(test)]
#[path = "arbitrate_tests.rs"]
mod tests;
