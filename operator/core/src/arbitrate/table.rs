//! All claims of a division under way: what each wants, at which Pools it sits, and what it has been given so far.
//!
//! It keeps account; which of them gets how much of a Pool that several draw on, its parent decides.

use std::ops::Range;

use super::{Budget, Claim, Member};
use crate::share::{Claimant, Divider, Layer, Step, Want, line_up, push_layers};

/// All claims in the order of their ids, with their layers and their seats at the budgets.
pub(super) struct Table<'a> {
    pub(super) cases: Vec<Case<'a>>,
    layers: Vec<Layer>,
    seats: Vec<Seat>,
}

/// One claim.
pub(super) struct Case<'a> {
    pub(super) claim: &'a Claim<'a>,
    /// Pods that it wants.
    pub(super) wanted: u64,
    /// Its layers in the table.
    layers: Range<usize>,
    /// Its seats in the table: one at each Pool with a limit.
    seats: Range<usize>,
    /// Pods that it gets, of all tiers so far.
    pub(super) target: u64,
    /// Pods that it lacks of the tier that is divided.
    pub(super) missing: u64,
    /// Its weight there.
    pub(super) weight: u64,
    /// What it gets is decided.
    settled: bool,
}

impl Case<'_> {
    pub(super) fn spans(&self) -> bool {
        self.seats.len() > 1
    }

    /// Pods that one queue asks for: what its tasks need, and those that no other queue needs (a minimum, a hold).
    pub(super) fn pods_for(&self, want: &Want) -> u64 {
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
pub(super) struct Seat {
    pub(super) pool: usize,
    pub(super) member: usize,
}

impl Seat {
    pub(super) fn of(self, budgets: &[Budget]) -> &Member {
        &budgets[self.pool].members[self.member]
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(claims: impl ExactSizeIterator<Item = &'a Claim<'a>>, budgets: &mut [Budget]) -> Self {
        let mut table = Self {
            cases: Vec::with_capacity(claims.len()),
            layers: Vec::with_capacity(claims.len()),
            seats: Vec::with_capacity(claims.len()),
        };
        for claim in claims {
            let known = claim.charges.iter().all(|charge| charge.pool < budgets.len());
            let wanted = if known { claim.pods } else { 0 };
            let (layers, seats) = (table.layers.len(), table.seats.len());
            push_layers(
                &mut table.layers,
                &claim.wants,
                claim.pod_slots,
                wanted,
                claim.spare,
            );
            table.sit(claim, budgets);
            table.cases.push(Case {
                claim,
                wanted,
                layers: layers..table.layers.len(),
                seats: seats..table.seats.len(),
                target: 0,
                missing: 0,
                weight: 1,
                settled: false,
            });
        }
        table
    }

    /// Takes a seat at each Pool that charges the claim and has a limit; one that is named twice charges both.
    fn sit(&mut self, claim: &Claim, budgets: &mut [Budget]) {
        let case = self.cases.len();
        for charge in claim.charges.iter() {
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

    pub(super) fn seats(&self, case: usize) -> &[Seat] {
        &self.seats[self.cases[case].seats.clone()]
    }

    /// Divides each Pool on which nobody draws who draws on another one, too, and where no guarantee leaves a rest: there one
    /// division of all tiers says it all.
    pub(super) fn settle_alone(&mut self, budgets: &[Budget], divider: &mut Divider) {
        let Self { cases, layers, .. } = self;
        let mut claimants = Vec::new();
        for budget in budgets {
            let Some(slots) = budget.slots else { continue };
            if !budget.rests.is_empty() || budget.members.iter().any(|member| cases[member.case].spans()) {
                continue;
            }
            claimants.clear();
            claimants.extend(budget.members.iter().map(|member| Claimant {
                id: cases[member.case].claim.id,
                unit: member.unit,
                layers: &layers[cases[member.case].layers.clone()],
                guaranteed: member.guaranteed,
            }));
            let targets = divider.share(slots, budget.reserved, &claimants);
            for (member, target) in budget.members.iter().zip(targets) {
                let case = &mut cases[member.case];
                (case.target, case.settled) = (*target, true);
            }
        }
    }

    /// What all claims want that are not settled, the highest tier first, then in the order of ids.
    pub(super) fn steps(&self) -> Vec<Step> {
        let open = self.cases.iter().enumerate().filter(|(_, case)| !case.settled);
        let mut steps = Vec::with_capacity(self.layers.len());
        line_up(
            &mut steps,
            open.map(|(at, case)| (at, &self.layers[case.layers.clone()])),
        );
        steps
    }

    /// Lets the claims of one tier compete. What one did not get in a higher tier it wants in this one, too.
    pub(super) fn open(&mut self, tier: &[Step], budgets: &mut [Budget]) {
        for step in tier {
            let case = &mut self.cases[step.who];
            (case.missing, case.weight) = (step.up_to.saturating_sub(case.target), step.weight);
            for seat in &self.seats[case.seats.clone()] {
                let budget = &mut budgets[seat.pool];
                budget.members[seat.member].cap = u64::MAX;
                budget.open.push(seat.member);
                budget.stale = true;
            }
        }
    }

    /// Gives a claim so many pods, for good.
    pub(super) fn give(&mut self, case: usize, pods: u64, budgets: &mut [Budget]) {
        for seat in self.seats(case) {
            budgets[seat.pool].take(seat.member, pods);
        }
        let case = &mut self.cases[case];
        case.target = case.target.saturating_add(pods);
        case.missing = case.missing.saturating_sub(pods);
    }
}
