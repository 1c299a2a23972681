//! What the Pools of a namespace leave to each WorkerPool: how many pods in the end, and how many new ones now.
//!
//! `arbitrate` says what each should have; here that meets what is taken. A pod takes its slots until it is gone, so who
//! should grow waits for who should shrink, and who has more than it should parks pods only where somebody waits for
//! them: at once for a higher tier, after a while for its own. Nothing here takes a pod away; it only says how many
//! should take work. That no Pool is overdrawn is not left to this module: `grants` checks every raise once more.
//!
//! For how long one has gone without a pod, which ages its claim, is handed in from the memory of the process and stands in no
//! object: an operator that has just started knows of nobody's waiting, and every claim begins at its plain weight again.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::time::Duration;

use crate::arbitrate::{Charge as Price, Claim, Guarantee, PoolBudget, arbitrate};
use crate::bidder::{Bidder, Seat, Stake, seat};
use crate::cause::Cause;
use crate::guarantee::{Use, kept};
use crate::share::{Layer, SPARE_TIER};
use crate::snapshot::{Budget, Namespace};

/// In the order of turns: tier, how long it has waited for its first pod, what it lacks for its weight, name, seat, and pods
/// that it lacks.
type Turn<'a> = (Reverse<u32>, Reverse<(Duration, u128)>, &'a str, usize, u32);

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
    /// Others, of its own tier or of a lower one, to which its Pools give what it does not need.
    ByEquals,
    /// Others of a higher tier, or the Pool itself, which has fewer slots than are taken.
    ByHigher,
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

fn pods(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Divides the Pools of one namespace among its WorkerPools, and returns what each may do, in the order given.
#[must_use]
pub fn divide(namespace: &Namespace, bidders: &[Bidder]) -> Vec<Allowance> {
    let limited = namespace.pools.values().any(|pool| pool.effective.is_some());
    let plain = |bidder: &Bidder| {
        let mut pools = bidder.input.bid.charge.slots.keys();
        pools.all(|pool| namespace.pools.contains_key(pool))
    };
    if !limited && bidders.iter().all(plain) {
        return bidders
            .iter()
            .map(|bidder| Allowance::free(bidder.wanted))
            .collect();
    }
    let mut prices = Vec::new();
    let mut desk = Desk::new(namespace, bidders);
    prices.extend(desk.prices());
    let targets = desk.targets(&prices);
    let mut all = desk.allowances(&targets);
    let waits = desk.hand_out(&targets, &mut all);
    desk.press(&waits, &mut all);
    all
}

/// One Pool with what is taken of it.
struct Account<'a> {
    name: &'a str,
    budget: &'a Budget,
    /// Slots that are taken or granted, by uid of the WorkerPool, in that order, and in all.
    held: Vec<(&'a str, u64)>,
    taken: u64,
    /// Who is charged by it, by place among the bidders.
    seats: Vec<usize>,
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
    accounts: Vec<Account<'a>>,
    seats: Vec<Seat<'a>>,
}

impl<'a> Desk<'a> {
    fn new(namespace: &'a Namespace, bidders: &'a [Bidder<'a>]) -> Self {
        let account = |(name, budget): (&'a String, &'a Budget)| Account {
            name,
            budget,
            held: Vec::new(),
            taken: 0,
            seats: Vec::new(),
        };
        let mut accounts: Vec<Account> = namespace.pools.iter().map(account).collect();
        let pools: Vec<(&str, &Budget)> = accounts
            .iter()
            .map(|account| (account.name, account.budget))
            .collect();
        let seats: Vec<Seat> = bidders
            .iter()
            .map(|bidder| seat(namespace, &pools, bidder))
            .collect();
        for (at, seat) in seats.iter().enumerate() {
            for stake in &seat.stakes {
                accounts[stake.account].seats.push(at);
            }
        }
        for (place, account) in accounts.iter_mut().enumerate() {
            let budget = account.budget;
            let mut held: Vec<(&str, u64)> = Vec::new();
            for seat in account.seats.iter().map(|at| &seats[*at]) {
                let own = seat.stakes.iter().filter(|stake| stake.account == place);
                held.extend(own.map(|stake| (seat.bidder.input.key.uid.as_str(), stake.committed)));
            }
            let said = budget.used.iter().chain(&budget.granted);
            held.extend(said.map(|(uid, slots)| (uid.as_str(), *slots)));
            // Of what is known of one holder the most counts, and comes first.
            held.sort_by_key(|(uid, slots)| (*uid, Reverse(*slots)));
            held.dedup_by_key(|(uid, _)| *uid);
            let all = held.iter().map(|(_, slots)| *slots);
            account.taken = all.fold(0, u64::saturating_add);
            account.held = held;
        }
        Self {
            namespace,
            accounts,
            seats,
        }
    }

    /// What a pod of each one takes, in the order of the seats: one list, since most take one thing.
    fn prices(&self) -> impl Iterator<Item = Price> {
        let stakes = self.seats.iter().flat_map(|seat| &seat.stakes);
        let stakes = stakes.filter(|stake| stake.charge > 0);
        stakes.map(|stake| Price {
            pool: stake.account,
            slots: stake.charge,
        })
    }

    /// Pods in the end, the extra ones included, with the prices of all seats.
    fn targets(&mut self, mut prices: &'a [Price]) -> Vec<u32> {
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
        let claim = |seat: &mut Seat<'a>| {
            let own = seat.stakes.iter().filter(|stake| stake.charge > 0).count();
            let (charges, others) = prices.split_at(own);
            prices = others;
            Claim {
                id: &seat.bidder.input.key.name,
                pods: u64::from(seat.claims()),
                spare: u64::from(seat.spare()),
                pod_slots: u64::from(seat.bidder.slots),
                wants: std::mem::take(&mut seat.wants),
                charges: Cow::Borrowed(charges),
            }
        };
        let claims: Vec<Claim> = self.seats.iter_mut().map(claim).collect();
        let targets = arbitrate(&budgets, &claims);
        for (seat, claim) in self.seats.iter_mut().zip(claims) {
            seat.wants = claim.wants;
        }
        targets.into_iter().map(pods).collect()
    }

    fn allowances(&self, targets: &[u32]) -> Vec<Allowance> {
        let seats = self.seats.iter().zip(targets);
        seats
            .map(|(seat, given)| {
                let target = (*given).min(seat.bidder.wanted);
                let cause = match seat.missing {
                    Some(pool) => Some(self.absence(pool)),
                    None if seat.too_large.is_some() => seat.too_large.clone(),
                    None => self.limit(seat, target),
                };
                Allowance {
                    // What runs is left as it is while a Pool is not there, or nobody knows what it has.
                    target: seat.missing.map_or(target, |_| seat.bidder.wanted),
                    room: 0,
                    extra: *given > target && seat.bidder.extra > 0,
                    pressed: Pressed::No,
                    cause,
                    waits: None,
                }
            })
            .collect()
    }

    /// Why a Pool has no account.
    fn absence(&self, pool: &str) -> Cause {
        let pool = pool.to_owned();
        match self.namespace.unreadable.get(&pool).cloned() {
            Some(why) => Cause::Unreadable { pool, why },
            None => Cause::Missing { pool },
        }
    }

    /// The Pool that has least for its pods, where it lacks some in the end.
    fn limit(&self, seat: &Seat, gives: u32) -> Option<Cause> {
        let needed = seat.bidder.wanted.saturating_sub(seat.bidder.spare);
        let wanted = if gives < needed {
            needed
        } else {
            seat.bidder.wanted
        };
        let lacks = wanted.saturating_sub(gives);
        let limits = seat.stakes.iter().filter(|stake| stake.charge > 0 && lacks > 0);
        let limits = limits.filter_map(|stake| {
            let account = &self.accounts[stake.account];
            let slots = account.budget.effective?;
            Some((slots / stake.charge, account.name, stake.charge))
        });
        let (_, pool, pod) = limits.min()?;
        Some(Cause::Limited {
            pool: pool.to_owned(),
            gives,
            wanted,
            missing: pod.saturating_mul(u64::from(lacks)),
        })
    }

    /// Gives what is free now, the highest tier first, then whose turn it is because it has waited longest for its first
    /// pod, then who lacks most for its weight. Returns the Pool that each one still waits for.
    fn hand_out(&self, targets: &[u32], all: &mut [Allowance]) -> Vec<Option<usize>> {
        let mut waits = vec![None; self.seats.len()];
        let mut left: Vec<u64> = self.accounts.iter().map(Account::free).collect();
        let guarantees = |account| self.guarantees(account);
        let mut uses: Vec<Vec<(&str, Use)>> = self.accounts.iter().map(guarantees).collect();
        let (mut order, mut layers): (Vec<Turn>, Vec<Layer>) = (Vec::new(), Vec::new());
        for (at, seat) in self.seats.iter().enumerate() {
            let lacks = targets[at].saturating_sub(seat.bidder.serving);
            if seat.missing.is_some() || lacks == 0 {
                continue;
            }
            let needed = targets[at].min(seat.needed()).saturating_sub(seat.bidder.serving);
            let layer = seat.layer(seat.bidder.serving, &mut layers);
            // What it needs has its turn, and what is spare comes after all that others need.
            let turns = [(needed, layer.tier), (lacks - needed, SPARE_TIER)];
            for (lacks, tier) in turns.into_iter().filter(|(lacks, _)| *lacks > 0) {
                let rank = (u128::from(lacks) << 64) / u128::from(layer.weight.max(1));
                let name = &seat.bidder.input.key.name;
                order.push((Reverse(tier), Reverse((seat.turn(), rank)), name, at, lacks));
            }
        }
        order.sort_unstable();
        for (Reverse(tier), .., at, lacks) in order {
            let seat = &self.seats[at];
            let lacks = u64::from(lacks);
            let (mut fit, mut tight) = (lacks, None);
            // A pod of an older revision may take more, or of other Pools: `grants` refuses it where that is not there.
            for stake in seat.stakes.iter().filter(|stake| stake.charge > 0) {
                let slots = self.accounts[stake.account].budget.effective.unwrap_or(u64::MAX);
                let uses = uses[stake.account].iter();
                let kept = kept(slots, uses.map(|(queue, one)| (*one, seat.consumes(queue))));
                let fits = left[stake.account].saturating_sub(kept) / stake.charge;
                if fits < fit {
                    (fit, tight) = (fits, Some(stake));
                }
            }
            for stake in &seat.stakes {
                let spent = stake.charge.saturating_mul(fit);
                left[stake.account] = left[stake.account].saturating_sub(spent);
                let uses = uses[stake.account].iter_mut();
                let own = uses.filter(|(queue, _)| seat.consumes(queue));
                own.for_each(|(_, one)| one.used = one.used.saturating_add(spent));
            }
            all[at].room = all[at].room.saturating_add(pods(fit));
            // Nobody waits for what it would only keep.
            let Some(tight) = tight.filter(|_| tier > SPARE_TIER) else {
                continue;
            };
            waits[at] = Some(tight.account);
            all[at].waits = Some(Cause::Waiting {
                pool: self.accounts[tight.account].name.to_owned(),
                missing: tight.charge.saturating_mul(lacks - fit),
            });
        }
        for (seat, allowance) in self.seats.iter().zip(all) {
            let limits = |stake: &Stake| self.accounts[stake.account].budget.effective.is_some();
            // Without a limit there is room for whatever a rollout needs.
            if seat.missing.is_none() && !seat.stakes.iter().any(limits) {
                (allowance.room, allowance.extra) = (u32::MAX, true);
            }
        }
        waits
    }

    /// What is kept for queues, and what those who consume them take.
    fn guarantees(&self, account: &Account<'a>) -> Vec<(&'a str, Use)> {
        let guarantee = |(queue, slots): (&'a String, &'a u64)| {
            let seats = account.seats.iter().map(|at| &self.seats[*at]);
            let (mut used, mut unit) = (0u64, None);
            for seat in seats.filter(|seat| seat.consumes(queue)) {
                let uid = seat.bidder.input.key.uid.as_str();
                let held = account.held.binary_search_by_key(&uid, |(uid, _)| uid);
                used = used.saturating_add(held.map_or(0, |at| account.held[at].1));
                let stakes = seat.stakes.iter();
                let own = stakes.filter(|stake| self.accounts[stake.account].name == account.name);
                unit = own.map(|stake| stake.charge.max(1)).chain(unit).min();
            }
            let slots = *slots;
            (queue.as_str(), Use { slots, used, unit })
        };
        account.budget.guarantees.iter().map(guarantee).collect()
    }

    /// Who has more than it should gives it back where somebody waits for it.
    fn press(&self, waits: &[Option<usize>], all: &mut [Allowance]) {
        let mut layers: Vec<Layer> = Vec::new();
        for (place, account) in self.accounts.iter().enumerate() {
            let Some(effective) = account.budget.effective else {
                continue;
            };
            let waiting = account.seats.iter().filter(|at| waits[**at] == Some(place));
            let seats = waiting.map(|at| &self.seats[*at]);
            let tiers = seats.map(|seat| seat.layer(seat.bidder.serving, &mut layers).tier);
            let (highest, overdrawn) = (tiers.max(), account.taken > effective);
            for at in &account.seats {
                let (seat, allowance) = (&self.seats[*at], &mut all[*at]);
                if seat.bidder.serving <= allowance.target {
                    continue;
                }
                let pressed = match highest {
                    _ if overdrawn => Pressed::ByHigher,
                    Some(tier) if tier > seat.layer_held(allowance.target, &mut layers).tier => {
                        Pressed::ByHigher
                    }
                    Some(_) => Pressed::ByEquals,
                    None => Pressed::No,
                };
                allowance.pressed = allowance.pressed.max(pressed);
            }
        }
    }
}
