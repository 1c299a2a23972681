//! An operator raises a Deployment.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_core::charge::Slots;
use poolwright_core::grants::{Mode, Request, Sight, mode, open, raise};

use crate::guarantees::sight;
use crate::operator::{Act, Listing, Mutant, Program, View, uid};
use crate::sweep::Sweep;
use crate::world::{Live, POOLS, Version, World, Write, say};

/// What is known of the Deployment when it begins, and how far it has come.
pub struct Raise {
    branch: usize,
    holder: usize,
    deployment: Version,
    nonce: u64,
    more: u32,
    /// The Pools of its charge, and what the raise takes of each.
    claims: Vec<(usize, u64)>,
    used: BTreeMap<String, Slots>,
    /// What it knows of guarantees and loads, by Pool.
    sights: [Sight; 2],
    permits: Vec<(usize, u64)>,
    stage: Stage,
    tries: u32,
}

enum Stage {
    /// Gets each Pool, and finds out whether the raise would be granted.
    Look(usize),
    /// Gets a Pool to claim from it.
    Claim(usize),
    Patch(usize, u64, Box<PoolStatus>),
    Put(u64),
    /// Looks at the Deployment after a conflict.
    Check,
}

/// What a Pool says.
enum Answer {
    Write(Box<PoolStatus>),
    Endless,
    Unknown,
    Refused,
}

impl Raise {
    pub fn new(world: &World, view: &View, branch: usize, more: u32) -> Option<Self> {
        let seen = view.branches.get(branch)?;
        let claims = world.branches[branch].slots.iter().enumerate();
        let claims = claims.filter(|(_, slots)| **slots > 0);
        let listing = Listing {
            deployments: view.branches.clone(),
            sets: view.branches.clone(),
            pods: view.branches.clone(),
        };
        Some(Self {
            branch,
            holder: world.branches[branch].holder,
            deployment: seen.deployment?,
            nonce: seen.nonce,
            more,
            claims: claims
                .map(|(pool, slots)| (pool, slots * u64::from(more)))
                .collect(),
            used: listing.taken(world),
            sights: [sight(world, 0), sight(world, 1)],
            permits: Vec::new(),
            stage: Stage::Look(0),
            tries: 0,
        })
    }

    pub fn step(mut self, act: &mut Act) -> Option<Program> {
        let (branch, more) = (self.branch, self.more);
        match std::mem::replace(&mut self.stage, Stage::Check) {
            Stage::Look(at) => {
                let Some((pool, _)) = self.claims.get(at) else {
                    self.stage = Stage::Claim(0);
                    return self.step(act);
                };
                match self.ask(act, at, act.get(*pool).as_ref()) {
                    Answer::Refused => return None,
                    Answer::Unknown => return Some(Program::Sweep(Sweep::rebuild(*pool))),
                    Answer::Write(_) | Answer::Endless => self.stage = Stage::Look(at + 1),
                }
            }
            Stage::Claim(at) => {
                let Some((pool, _)) = self.claims.get(at) else {
                    self.stage = Stage::Put(self.deployment.rv);
                    return Some(Program::Raise(self));
                };
                let pool = *pool;
                let live = act.get(pool);
                self.stage = match self.ask(act, at, live.as_ref()) {
                    Answer::Refused => return None,
                    Answer::Unknown => return Some(Program::Sweep(Sweep::rebuild(pool))),
                    Answer::Endless => {
                        say!(act.world, "raise d{branch} by {more}: {} is endless", POOLS[pool]);
                        self.permits.push((pool, act.world.now));
                        Stage::Claim(at + 1)
                    }
                    Answer::Write(status) => Stage::Patch(at, live?.rv, status),
                };
            }
            Stage::Patch(at, rv, status) => {
                let pool = self.claims[at].0;
                say!(act.world, "raise d{branch} by {more}: claims of {}", POOLS[pool]);
                let write = Write::Status { pool, rv, status };
                self.stage = if act.send(write) {
                    self.permits.push((pool, act.world.now));
                    Stage::Claim(at + 1)
                } else {
                    self.again()?;
                    Stage::Claim(at)
                };
            }
            Stage::Put(rv) => {
                say!(act.world, "raise d{branch} by {more}: writes replicas");
                let write = Write::Replicas {
                    branch,
                    rv,
                    replicas: self.deployment.replicas + more,
                    permits: self.permits.clone(),
                };
                if act.send(write) {
                    return None;
                }
                self.again()?;
                self.stage = Stage::Check;
            }
            Stage::Check => {
                let found = act.world.branches[branch].deployment.now?;
                let is_same_token = found.generation == self.deployment.generation
                    && act.world.branches[branch].nonce == self.nonce;
                let is_same = is_same_token || act.is(Mutant::RetryOnReplicas);
                if !is_same || found.replicas != self.deployment.replicas {
                    return None;
                }
                self.stage = Stage::Put(found.rv);
            }
        }
        Some(Program::Raise(self))
    }

    fn again(&mut self) -> Option<()> {
        self.tries += 1;
        (self.tries < 5).then_some(())
    }

    fn ask(&self, act: &Act, at: usize, live: Option<&Live>) -> Answer {
        let Some(live) = live else { return Answer::Refused };
        let found = match mode(&live.pool) {
            found if !act.is(Mutant::ModeBySpec) => found,
            _ if live.pool.spec.limit().is_none() => Mode::Unlimited,
            Mode::Unknown
                if live
                    .pool
                    .status
                    .as_ref()
                    .is_some_and(|status| status.pool_uid == live.pool.metadata.uid) =>
            {
                Mode::Limited
            }
            found => found,
        };
        match found {
            Mode::Unlimited => Answer::Endless,
            Mode::Unknown => Answer::Unknown,
            Mode::Opening => Answer::Write(Box::new(open(&live.pool, millis(act.world)))),
            Mode::Limited => self.claim(act, at, &live.pool),
        }
    }

    fn claim(&self, act: &Act, at: usize, pool: &Pool) -> Answer {
        let (place, slots) = self.claims[at];
        let used = self
            .used
            .iter()
            .map(|(uid, slots)| (uid.clone(), slots.get(POOLS[place]).copied().unwrap_or(0)));
        let sight = Sight {
            used: used.collect(),
            ..self.sights[place].clone()
        };
        let holder = uid(self.holder);
        let request = Request {
            uid: holder.clone(),
            worker_pool: "worker-pool".to_owned(),
            slots,
        };
        let granted = if act.is(Mutant::DeadUncounted) {
            forgetful(act.world, pool, &sight, request)
        } else {
            raise(pool, &sight, &[request]).0
        };
        let Some(mut status) = granted else {
            return Answer::Refused;
        };
        let before = pool
            .status
            .iter()
            .flat_map(|status| &status.holders)
            .find(|one| one.uid == holder);
        for one in status.holders.iter_mut().filter(|one| one.uid == holder) {
            if act.is(Mutant::AbsoluteGrant) {
                let seen = sight.used.get(&holder).copied().unwrap_or(0);
                one.granted = i64::try_from(seen + slots).expect("a small number");
            }
            if act.is(Mutant::EpochKept) {
                one.epoch = before.map_or(one.epoch, |before| before.epoch);
            }
        }
        Answer::Write(Box::new(status))
    }
}

/// The epoch of a rebuilt status is above the number of writes so far.
pub fn millis(world: &World) -> i64 {
    i64::try_from(world.now * 100).expect("a small number")
}

/// A raise that does not count the grants of WorkerPools that are gone.
fn forgetful(world: &World, pool: &Pool, sight: &Sight, request: Request) -> Option<PoolStatus> {
    let is_dead = |uid: &str| {
        let mut all = world.worker_pools.iter().enumerate();
        all.any(|(at, (_, exists))| !exists && *uid == *self::uid(at))
    };
    let mut shown = pool.clone();
    let holders = &mut shown.status.as_mut()?.holders;
    let dead = holders
        .extract_if(.., |one| is_dead(&one.uid))
        .collect::<Vec<_>>();
    let mut sight = sight.clone();
    sight.used.retain(|uid, _| !is_dead(uid));
    let mut status = raise(&shown, &sight, &[request]).0?;
    status.holders.extend(dead);
    Some(status)
}
