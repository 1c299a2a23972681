//! One schedule: a namespace, and who acts in which order, by chance.

use std::collections::BTreeMap;
use std::sync::Arc;

use poolwright_api::v1alpha1::UNLIMITED;
use poolwright_core::charge::Charge;
use poolwright_core::grants::{Mode, mode, open, rebuild};

use crate::controllers::{collect, control, end, evict, scale};
use crate::guarantees::Promises;
use crate::operator::{Act, Listing, Mutant, Operator, Program, uid};
use crate::raise::Raise;
use crate::random::Random;
use crate::scale_in::ScaleIn;
use crate::sweep::Sweep;
use crate::world::{Branch, Object, POOLS, World, say};

const REVISIONS: [[&str; 2]; 2] = [["a-1", "a-2"], ["b-1", "b-2"]];

/// A schedule while it runs.
pub struct Schedule {
    pub world: World,
    pub random: Random,
    pub operators: [Operator; 2],
    pub mutant: Option<Mutant>,
    /// Pools that are in use.
    pub pools: usize,
    /// What a pod takes of each Pool, by name of the WorkerPool and by revision.
    charges: [[[u64; 2]; 2]; 2],
    /// How often each [`Actor`] acts in this schedule.
    weights: [usize; ACTORS.len()],
    /// How many of 100 requests fail.
    faults: usize,
}

/// Who acts next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Actor {
    Operator,
    Controllers,
    Watch,
    PodsEnd,
    Eviction,
    Crash,
    LateRequest,
    PoolChange,
    WorkerPoolChange,
    Creation,
    Collector,
    Touch,
    Meddler,
}

/// With how often each acts, where it acts at all.
const ACTORS: [(Actor, usize); 13] = [
    (Actor::Operator, 45),
    (Actor::Controllers, 25),
    (Actor::Watch, 10),
    (Actor::PodsEnd, 6),
    (Actor::Collector, 4),
    (Actor::Eviction, 3),
    (Actor::Crash, 2),
    (Actor::LateRequest, 3),
    (Actor::PoolChange, 3),
    (Actor::WorkerPoolChange, 3),
    (Actor::Creation, 3),
    (Actor::Touch, 2),
    (Actor::Meddler, 2),
];

impl Schedule {
    pub fn new(seed: u64, mutant: Option<Mutant>, is_logged: bool) -> Self {
        let mut random = Random::new(seed);
        let pools = 1 + random.below(3) / 2;
        let mut charge = || {
            let slots = [2, 3][random.below(2)];
            match random.below(pools * pools) {
                0 | 1 => [slots, 0],
                2 => [0, slots],
                _ => [slots, slots],
            }
        };
        let charges = [[charge(), charge()], [charge(), charge()]];
        let theme = random.below(4);
        let weights = ACTORS.map(|(actor, weight)| match actor {
            Actor::PoolChange => weight * [0, 0, 1, 3][theme],
            Actor::WorkerPoolChange | Actor::Creation | Actor::Collector => weight * [0, 1, 1, 0][theme],
            Actor::Eviction | Actor::Crash | Actor::LateRequest | Actor::Touch => weight * random.below(3),
            Actor::Meddler => weight * random.below(2) * random.below(2),
            _ => weight,
        });
        let faults = [0, 5, 20][random.below(3)];
        let mut schedule = Self {
            world: World::new(Promises::new(seed), is_logged),
            random,
            operators: [Operator::default(), Operator::default()],
            mutant,
            pools,
            charges,
            weights,
            faults,
        };
        schedule.begin();
        schedule
    }

    /// Workers that run, and Pools that know of them or do not.
    fn begin(&mut self) {
        for name in 0..2 {
            self.world.worker_pools.push((name, true));
            for revision in 0..=self.random.below(3) / 2 {
                let replicas = self.random.small(4);
                self.create(name, revision, replicas);
            }
        }
        for pool in 0..self.pools {
            if self.random.percent(96) {
                self.begin_pool(pool);
            }
        }
        self.refresh(0);
        self.refresh(1);
    }

    /// A Pool with what is taken, some more that somebody did not come to take, and some room.
    fn begin_pool(&mut self, pool: usize) {
        let mut left = BTreeMap::new();
        let mut all = 0;
        for (uid, taken) in self.listing().taken(&self.world) {
            let mut slots = taken.get(POOLS[pool]).copied().unwrap_or(0);
            if slots > 0 {
                slots += [0, 0, 2, 3, 4, 6][self.random.below(6)];
            }
            all += slots;
            left.insert(uid, ("worker-pool".to_owned(), slots));
        }
        let room = i32::try_from(all).expect("a small number") + [0, 1, 2, 3, 5, 7][self.random.below(6)];
        let slots = if self.random.percent(10) { UNLIMITED } else { room };
        self.world.make_pool(pool, slots, None);
        let mut known = (*self.world.pools[pool].clone().expect("a Pool").pool).clone();
        known.status = match self.random.below(100) {
            0..8 => None,
            8..16 => Some(open(&known, 1)),
            _ if slots == UNLIMITED => Some(open(&known, 1)),
            _ => Some(rebuild(&known, &left, 1)),
        };
        self.world.put_pool(pool, Some(known));
    }

    fn slots(&mut self) -> i32 {
        [-1, 4, 5, 6, 7, 8, 9, 10, 12, 14][self.random.below(10)]
    }

    fn listing(&self) -> Listing {
        let seen = self.world.look();
        Listing {
            deployments: seen.clone(),
            sets: seen.clone(),
            pods: seen,
        }
    }

    /// Creates a Deployment, unless there is one of this name. Only one that was there from the start has replicas.
    fn create(&mut self, holder: usize, revision: usize, replicas: u32) {
        let name = self.world.worker_pools[holder].0;
        let label = REVISIONS[name][revision];
        let taken = |branch: &Branch| branch.revision == label && branch.deployment.now.is_some();
        if self.world.branches.len() >= 8 || self.world.branches.iter().any(taken) {
            return;
        }
        let slots = self.charges[name][revision];
        let by_pool = POOLS.iter().zip(slots).filter(|(_, slots)| *slots > 0);
        let charge = Charge {
            holder: uid(holder),
            slots: by_pool.map(|(pool, slots)| ((*pool).to_owned(), slots)).collect(),
        };
        let mut branch = Branch {
            name,
            holder,
            revision: label.to_owned(),
            charge: Arc::new(charge),
            slots,
            nonce: 0,
            deployment: Object::default(),
            set: Object::default(),
            roll: None,
            fill: None,
            live: replicas,
            draining: 0,
            evicted: 0,
            lifted: 0,
        };
        let rv = self.world.rv();
        branch.deployment.create(rv, replicas);
        if self.world.now == 0 {
            branch.set.create(rv, replicas);
            (branch.deployment.observed, branch.set.observed) = (1, 1);
        }
        self.world.branches.push(branch);
        say!(
            self.world,
            "d{} of {}: {label} with {replicas}, a pod takes {slots:?}",
            self.world.branches.len() - 1,
            uid(holder)
        );
    }

    pub fn refresh(&mut self, operator: usize) {
        let view = &mut self.operators[operator].view;
        view.branches = self.world.look();
        view.pools.clone_from(&self.world.pools);
    }

    /// Runs so many steps, or until something is wrong.
    pub fn run(&mut self, steps: usize) {
        let mut left = steps;
        while left > 0 && self.world.broken.is_none() {
            let actor = self.actor();
            let is_busy = matches!(actor, Actor::Operator | Actor::Controllers);
            let burst = if is_busy { 1 + self.random.below(10) } else { 1 };
            let (operator, branch) = (self.random.below(2), self.branch());
            let place = self.random.below(3);
            for _ in 0..burst.min(left) {
                self.world.now += 1;
                self.world.promises.pass();
                match actor {
                    Actor::Operator => {
                        if !self.program(operator, place) {
                            break;
                        }
                    }
                    Actor::Controllers => {
                        let at = if self.random.percent(90) {
                            branch
                        } else {
                            self.branch()
                        };
                        control(&mut self.world, at, &mut self.random);
                    }
                    _ => self.event(actor, operator, branch),
                }
                left -= 1;
            }
        }
    }

    fn actor(&mut self) -> Actor {
        let mut at = self.random.below(self.weights.iter().sum());
        for (weight, (actor, _)) in self.weights.iter().zip(ACTORS) {
            if at < *weight {
                return actor;
            }
            at -= weight;
        }
        Actor::Operator
    }

    /// A Deployment, rather one where something is to be done.
    fn branch(&mut self) -> usize {
        let count = self.world.branches.len();
        let first = self.random.below(count);
        let mut all = (first..count).chain(0..first);
        all.find(|at| !self.is_calm(&self.world.branches[*at]))
            .filter(|_| self.random.percent(80))
            .unwrap_or(first)
    }

    /// Goes on with a program of an operator, or starts one; false if there is nothing that it can do now.
    fn program(&mut self, operator: usize, place: usize) -> bool {
        if place >= self.operators[operator].programs.len() {
            if self.random.percent(50) {
                self.refresh(operator);
            }
            let program = (0..4).find_map(|_| self.start(operator));
            self.operators[operator].programs.extend(program);
        }
        if place >= self.operators[operator].programs.len() {
            return false;
        }
        let program = self.operators[operator].programs.remove(place);
        let Some(left) = self.step(operator, program, self.faults) else {
            return true;
        };
        let waits = matches!(&left, Program::Sweep(sweep) if sweep.waits);
        let programs = &mut self.operators[operator].programs;
        let is_second = |other: &Program| matches!((other, &left), (Program::Sweep(_), Program::Sweep(_)));
        if !programs.iter().any(is_second) {
            programs.insert(place, left);
        }
        !waits
    }

    pub fn step(&mut self, operator: usize, program: Program, faults: usize) -> Option<Program> {
        let mut act = Act {
            world: &mut self.world,
            random: &mut self.random,
            mutant: self.mutant,
            faults,
        };
        program.step(&mut act, &mut self.operators[operator])
    }

    /// Something that makes sense by what the operator has seen.
    fn start(&mut self, operator: usize) -> Option<Program> {
        let (world, view) = (&self.world, &self.operators[operator].view);
        let branch = self.random.below(world.branches.len());
        let pool = self.random.below(self.pools);
        match self.random.below(100) {
            0..45 if view.has_room(world, branch) => {
                Raise::new(world, view, branch, 1 + self.random.small(2)).map(Program::Raise)
            }
            45..55 => ScaleIn::new(world, view, branch, 1 + self.random.small(2)).map(Program::ScaleIn),
            _ if self.operators[operator].has_sweep() => None,
            _ => match view.pools[pool].as_ref().map(|live| mode(&live.pool))? {
                Mode::Unknown => Some(Program::Sweep(Sweep::rebuild(pool))),
                Mode::Limited => {
                    let first = self.random.below(world.worker_pools.len());
                    let mut all = (first..world.worker_pools.len()).chain(0..first);
                    let holder = all.find(|holder| view.has_slack(world, pool, *holder));
                    holder.map(|holder| Program::Sweep(Sweep::release(pool, holder)))
                }
                Mode::Unlimited | Mode::Opening => None,
            },
        }
    }

    fn event(&mut self, actor: Actor, operator: usize, branch: usize) {
        match actor {
            Actor::Operator | Actor::Controllers => {}
            Actor::Watch => self.watch(operator),
            Actor::PodsEnd => {
                let all = 0..self.world.branches.len();
                all.for_each(|at| end(&mut self.world, at, &mut self.random));
            }
            Actor::Eviction => evict(&mut self.world, branch),
            Actor::Crash => {
                say!(self.world, "operator {operator} crashes");
                self.operators[operator] = Operator::default();
                self.refresh(operator);
            }
            Actor::LateRequest => {
                let count = self.world.late.len();
                if count > 0 {
                    let write = self.world.late.swap_remove(self.random.below(count));
                    say!(self.world, "a late request arrives");
                    self.world.apply(write);
                }
            }
            Actor::PoolChange => self.change_pool(),
            Actor::WorkerPoolChange => self.change_worker_pool(),
            Actor::Creation => {
                let holder = self.random.below(self.world.worker_pools.len());
                let revision = self.random.below(2);
                self.create(holder, revision, 0);
            }
            Actor::Collector => {
                let parts = 1 + self.random.below(4);
                (0..parts).for_each(|_| collect(&mut self.world, branch));
            }
            Actor::Touch => {
                let rv = self.world.rv();
                self.world.branches[branch].deployment.touch(rv);
            }
            Actor::Meddler => {
                let replicas = self.random.small(4);
                scale(&mut self.world, branch, replicas);
            }
        }
    }

    /// An operator sees something of what has happened.
    fn watch(&mut self, operator: usize) {
        let what = self.random.below(4);
        let view = &mut self.operators[operator].view;
        if what != 0 {
            view.branches = self.world.look();
        }
        if what != 1 {
            view.pools.clone_from(&self.world.pools);
        }
    }

    fn change_pool(&mut self) {
        let (pool, slots) = (self.random.below(self.pools), self.slots());
        let changed = self.world.pools[pool].as_ref().map(|live| (*live.pool).clone());
        match (self.random.below(10), changed) {
            (_, None) => self.world.make_pool(pool, slots, None),
            (0, Some(_)) => self.world.put_pool(pool, None),
            (1, Some(old)) => {
                let status = old.status.filter(|_| self.random.percent(50));
                self.world.make_pool(pool, slots, status);
            }
            (2, Some(mut wiped)) => {
                wiped.status = None;
                self.world.put_pool(pool, Some(wiped));
            }
            (_, Some(mut changed)) => {
                let is_toggled = self.random.percent(40);
                changed.spec.slots = if is_toggled && changed.spec.slots >= 0 {
                    UNLIMITED
                } else {
                    slots
                };
                self.world.put_pool(pool, Some(changed));
            }
        }
    }

    fn change_worker_pool(&mut self) {
        let name = self.random.below(2);
        if let Some(at) = self
            .world
            .worker_pools
            .iter()
            .position(|one| *one == (name, true))
        {
            self.world.worker_pools[at].1 = false;
            say!(self.world, "{} is deleted", uid(at));
        } else if self.world.worker_pools.len() < 4 {
            self.world.worker_pools.push((name, true));
        }
    }

    /// Nothing is to be done by controllers.
    pub fn is_calm(&self, branch: &Branch) -> bool {
        let (_, exists) = self.world.worker_pools[branch.holder];
        let has_owner = branch.deployment.now.is_none() || exists;
        let has_deployment = branch.set.now.is_none() || branch.deployment.now.is_some();
        let is_done = branch.is_rolled_out() && branch.is_filled() && branch.is_quiet();
        has_owner && has_deployment && is_done && branch.draining == 0
    }
}
