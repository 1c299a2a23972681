//! An operator releases what a holder does not take, or rebuilds the status of a Pool: both write to Deployments, wait,
//! and list.

use std::collections::BTreeMap;

use poolwright_core::charge::Slots;
use poolwright_core::grants::{Mark, Mode, mark, mode, rebuild, release};

use crate::operator::{Act, Listing, Mutant, Operator, uid};
use crate::raise::millis;
use crate::world::{Live, POOLS, Seen, World, Write, say};

/// A release or a rebuild, and how far it has come.
pub struct Sweep {
    pool: usize,
    /// The holder to release; `None` to rebuild.
    holder: Option<usize>,
    mark: Option<Mark>,
    /// The Pool's resourceVersion at first sight.
    rv: u64,
    /// Deployments that were there when they were written to.
    fenced: Vec<usize>,
    listing: Listing,
    stage: Stage,
    tries: u32,
    /// It has to wait for controllers.
    pub waits: bool,
}

enum Stage {
    Begin,
    List,
    Fence(usize, Vec<Seen>),
    Mark,
    /// Waits for controllers that are at work on what is gone: a minute since the operator has seen it go.
    Minute,
    Deployments,
    Sets,
    Pods,
    LastLook,
    Finish,
    Patch(Box<Live>),
}

impl Sweep {
    pub fn release(pool: usize, holder: usize) -> Self {
        Self::new(pool, Some(holder))
    }

    pub fn rebuild(pool: usize) -> Self {
        Self::new(pool, None)
    }

    fn new(pool: usize, holder: Option<usize>) -> Self {
        Self {
            pool,
            holder,
            mark: None,
            rv: 0,
            fenced: Vec::new(),
            listing: Listing::default(),
            stage: Stage::Begin,
            tries: 0,
            waits: false,
        }
    }

    pub fn step(mut self, act: &mut Act, operator: &Operator) -> Option<Self> {
        self.waits = false;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Begin => {
                self.begin(act)?;
                Stage::List
            }
            Stage::List => self.list(act, operator),
            Stage::Fence(at, seen) => self.fence(act, at, seen)?,
            Stage::Mark => {
                self.mark = mark(&act.get(self.pool)?.pool, &uid(self.holder?));
                Stage::Minute
            }
            Stage::Minute => {
                let is_quiet = self.mine(act.world).all(|at| act.world.branches[at].is_quiet());
                if is_quiet || act.is(Mutant::NoMinute) {
                    if act.is(Mutant::PodsFirst) {
                        Stage::Pods
                    } else {
                        Stage::Deployments
                    }
                } else {
                    self.wait(Stage::Minute)?
                }
            }
            Stage::Deployments => {
                self.listing.deployments = act.world.look();
                let is_settled = self
                    .mine(act.world)
                    .all(|at| self.listing.deployments[at].settled);
                if is_settled || act.is(Mutant::DeploymentsUnobserved) {
                    Stage::Sets
                } else {
                    self.wait(Stage::Deployments)?
                }
            }
            Stage::Sets => {
                self.listing.sets = act.world.look();
                let is_settled = self.mine(act.world).all(|at| self.is_settled(at));
                if !is_settled && !act.is(Mutant::SetsUnobserved) {
                    self.wait(Stage::Deployments)?
                } else if act.is(Mutant::PodsFirst) {
                    Stage::LastLook
                } else {
                    Stage::Pods
                }
            }
            Stage::Pods => {
                self.listing.pods = act.world.look();
                if act.is(Mutant::DrainingUncounted) && self.holder.is_some() {
                    self.listing.pods.iter_mut().for_each(|seen| seen.draining = 0);
                }
                if act.is(Mutant::PodsFirst) {
                    Stage::Deployments
                } else {
                    Stage::LastLook
                }
            }
            Stage::LastLook => {
                let is_gone = |at: &usize| act.world.branches[*at].deployment.now.is_none();
                if self.fenced.iter().any(is_gone) && !act.is(Mutant::NoLastLook) {
                    return None;
                }
                Stage::Finish
            }
            Stage::Finish => Stage::Patch(Box::new(act.get(self.pool)?)),
            Stage::Patch(live) => {
                self.patch(act, &live)?;
                self.again()?;
                Stage::Finish
            }
        };
        Some(self)
    }

    fn wait(&mut self, stage: Stage) -> Option<Stage> {
        self.waits = true;
        self.again()?;
        Some(stage)
    }

    fn again(&mut self) -> Option<()> {
        self.tries += 1;
        (self.tries < 20).then_some(())
    }

    /// Deployments that matter.
    fn mine(&self, world: &World) -> impl Iterator<Item = usize> {
        let (holder, pool) = (self.holder, self.pool);
        let all = world.branches.iter().enumerate();
        let is_mine = all.map(move |(at, branch)| {
            (
                at,
                holder.map_or(branch.slots[pool] > 0, |holder| branch.holder == holder),
            )
        });
        is_mine.filter_map(|(at, is_mine)| is_mine.then_some(at))
    }

    /// The `ReplicaSet` is as its Deployment asks, and its controller has seen it. The Deployment's own word is not enough: a
    /// controller may see the number that it wants in its cache, where it is an old one.
    fn is_settled(&self, at: usize) -> bool {
        let seen = &self.listing.sets[at];
        let listed = self.listing.deployments.get(at);
        let asked = listed.and_then(|seen| seen.deployment).map(|now| now.replicas);
        let made = seen.set.map(|now| now.replicas);
        seen.set_settled && (asked.is_none() || made.is_none() || asked == made)
    }

    fn begin(&mut self, act: &mut Act) -> Option<()> {
        let live = act.get(self.pool)?;
        self.rv = live.rv;
        if let Some(holder) = self.holder {
            self.mark = Some(mark(&live.pool, &uid(holder))?);
        } else if mode(&live.pool) != Mode::Unknown {
            return None;
        }
        say!(act.world, "{self} begins");
        Some(())
    }

    /// Lists the Deployments; what is to be done next.
    fn list(&mut self, act: &mut Act, operator: &Operator) -> Stage {
        let seen = act.world.look();
        self.fenced = self
            .mine(act.world)
            .filter(|at| seen[*at].deployment.is_some())
            .collect();
        let pool = self.pool;
        let is_scaled_in = |at: &usize| match operator.scale_ins.get(at) {
            Some(marks) => act.is(Mutant::ScaleInWithoutMark) || marks[pool] == self.mark,
            None => false,
        };
        let (is_release, after) = (self.holder.is_some(), self.after_fence(act));
        if is_release && (act.is(Mutant::NoFence) || self.fenced.iter().all(is_scaled_in)) {
            say!(act.world, "{self} needs no fence");
            return after;
        }
        if !is_release && act.is(Mutant::RebuildWithoutFence) {
            return after;
        }
        Stage::Fence(0, seen)
    }

    fn after_fence(&self, act: &Act) -> Stage {
        if self.holder.is_some() && act.is(Mutant::MarkAfterFence) {
            Stage::Mark
        } else {
            Stage::Minute
        }
    }

    fn fence(&mut self, act: &mut Act, at: usize, seen: Vec<Seen>) -> Option<Stage> {
        let Some(branch) = self.fenced.get(at).copied() else {
            return Some(self.after_fence(act));
        };
        let rv = seen[branch].deployment?.rv;
        if act.send(Write::Fence { branch, rv }) {
            return Some(Stage::Fence(at + 1, seen));
        }
        self.again()?;
        Some(if self.holder.is_some() {
            Stage::List
        } else {
            Stage::Begin
        })
    }

    /// Writes what was found; `None` when there is nothing more to do.
    fn patch(&self, act: &mut Act, live: &Live) -> Option<()> {
        let taken = self.listing.taken(act.world);
        let slots = |slots: &Slots| slots.get(POOLS[self.pool]).copied().unwrap_or(0);
        let status = if let Some(holder) = self.holder {
            let left = taken.get(&uid(holder)).map_or(0, slots);
            let left: BTreeMap<_, _> = [(uid(holder), (self.mark.clone()?, left))].into();
            release(&live.pool, &left)?
        } else {
            if live.rv != self.rv && !act.is(Mutant::RebuildOfOldPool) || mode(&live.pool) != Mode::Unknown {
                return None;
            }
            let left = taken
                .iter()
                .map(|(uid, taken)| (uid.clone(), ("worker-pool".to_owned(), slots(taken))));
            rebuild(&live.pool, &left.collect(), millis(act.world))
        };
        say!(act.world, "{self} writes");
        let write = Write::Status {
            pool: self.pool,
            rv: live.rv,
            status: Box::new(status),
        };
        (!act.send(write)).then_some(())
    }
}

impl std::fmt::Display for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.holder {
            Some(holder) => write!(f, "release of {} of {}", uid(holder), POOLS[self.pool]),
            None => write!(f, "rebuild of {}", POOLS[self.pool]),
        }
    }
}
