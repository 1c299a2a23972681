//! How a schedule ends: operators take what they can, then all faults end.

use poolwright_core::grants::{Mode, mark, mode};

use crate::controllers::{collect, control, end};
use crate::guarantees::must_fit;
use crate::operator::{Operator, Program, uid};
use crate::raise::Raise;
use crate::schedule::Schedule;
use crate::sweep::Sweep;
use crate::world::{POOLS, say};

impl Schedule {
    /// Operators take what they can get, and go on with what they had begun, in any order: a grant that is too small shows.
    pub fn close(&mut self) {
        for _ in 0..8 {
            let operator = self.random.below(2);
            if self.random.percent(60) {
                self.refresh(operator);
                let branch = self.random.below(self.world.branches.len());
                let view = &self.operators[operator].view;
                let raise =
                    Raise::new(&self.world, view, branch, 1).filter(|_| view.has_room(&self.world, branch));
                self.finish(operator, raise.map(Program::Raise));
            } else if !self.operators[operator].programs.is_empty() {
                let program = self.operators[operator].programs.remove(0);
                self.finish(operator, Some(program));
            }
        }
    }

    /// What must hold once faults have ended: grants become what is taken, and what fits is granted.
    pub fn settle(&mut self) {
        self.world.late.clear();
        self.operators[0].programs.clear();
        self.operators[1] = Operator::default();
        self.calm();
        for pool in 0..self.pools {
            for _ in 0..2 {
                self.finish_calmly(Program::Sweep(Sweep::rebuild(pool)));
            }
            for holder in 0..self.world.worker_pools.len() {
                self.finish_calmly(Program::Sweep(Sweep::release(pool, holder)));
            }
            self.check_grants(pool);
        }
        for branch in 0..self.world.branches.len() {
            self.check_raise(branch);
        }
    }

    /// Does a program to its end.
    fn finish(&mut self, operator: usize, mut program: Option<Program>) {
        while let Some(next) = program {
            self.world.now += 1;
            program = self.step(operator, next, 0);
        }
    }

    /// Does a program to its end, while controllers do their work.
    fn finish_calmly(&mut self, program: Program) {
        let mut next = Some(program);
        while let Some(program) = next {
            self.world.now += 1;
            self.calm();
            next = self.step(0, program, 0);
        }
        self.calm();
    }

    /// Controllers do all that there is to do, and an operator sees it.
    fn calm(&mut self) {
        for at in 0..self.world.branches.len() {
            while !self.is_calm(&self.world.branches[at]) {
                control(&mut self.world, at, &mut self.random);
                collect(&mut self.world, at);
                end(&mut self.world, at, &mut self.random);
            }
        }
        self.refresh(0);
    }

    fn check_grants(&mut self, pool: usize) {
        let Some(live) = &self.world.pools[pool] else {
            return;
        };
        if mode(&live.pool) != Mode::Limited {
            assert!(live.pool.spec.limit().is_none(), "a Pool was not rebuilt");
            return;
        }
        for holder in 0..self.world.worker_pools.len() {
            let mine = self
                .world
                .branches
                .iter()
                .filter(|branch| branch.holder == holder);
            let (mut left, mut lifted) = (0, 0);
            for branch in mine {
                left += u64::from(branch.committed()) * branch.slots[pool];
                lifted += branch.lifted;
            }
            let status = live.pool.status.as_ref().expect("a status");
            let granted = status
                .holders
                .iter()
                .find(|one| one.uid == uid(holder))
                .map_or(0, |one| one.granted);
            let granted = u64::try_from(granted).expect("a grant");
            assert_eq!(mark(&live.pool, &uid(holder)).is_some(), granted > 0);
            if granted > left || (lifted == 0 && granted < left) {
                let what = format!(
                    "{} is granted {granted} of {}, and takes {left}",
                    uid(holder),
                    POOLS[pool]
                );
                say!(self.world, "{what}");
                self.world.broken = Some(what);
                return;
            }
        }
    }

    /// A raise that fits is granted.
    fn check_raise(&mut self, at: usize) {
        let Some(before) = self.world.branches[at].deployment.now else {
            return;
        };
        let branch = &self.world.branches[at];
        let answers = [0, 1].map(|pool| must_fit(&self.world, pool, branch.holder, branch.slots[pool]));
        let fits = match answers {
            [Some(false), _] | [_, Some(false)] => Some(false),
            [Some(true), Some(true)] => Some(true),
            _ => None,
        };
        let raise = Raise::new(&self.world, &self.operators[0].view, at, 1).expect("a Deployment");
        self.finish_calmly(Program::Raise(raise));
        let after = self.world.branches[at].deployment.now.map(|now| now.replicas);
        if fits.is_some_and(|fits| fits != (after == Some(before.replicas + 1))) {
            let what = format!("a raise of d{at} fits: {fits:?}, and there are {after:?} of {before:?}");
            say!(self.world, "{what}");
            self.world.broken = Some(what);
        }
    }
}
