//! Slots of budgets: who takes them, how much of them is taken, and whose tasks get them while they are scarce.

use super::World;
use crate::scenario::{Millis, Scenario};

/// What is counted of budgets.
#[derive(Debug)]
pub(super) struct Slots {
    /// By fleet: places of its budgets, and what one pod takes of each.
    charges: Vec<Vec<(usize, u64)>>,
    /// By budget: slots that pods take, starting, parked and draining ones included.
    taken: Vec<u64>,
    /// By budget: since when it has been so.
    since: Vec<Millis>,
    /// By budget: the least that a pod takes of it.
    least: Vec<u64>,
    /// By budget: its queues that get a task in this scenario.
    sharers: Vec<Vec<usize>>,
    /// By queue: tasks that are published and do not run.
    pub(super) waiting: Vec<u64>,
}

impl Slots {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let charges: Vec<Vec<(usize, u64)>> = (0..scenario.fleets.len())
            .map(|fleet| scenario.charge(fleet).into_iter().collect())
            .collect();
        let budgets = scenario.budgets.len();
        let mut least = vec![u64::MAX; budgets];
        for (budget, slots) in charges.iter().flatten() {
            least[*budget] = least[*budget].min(*slots);
        }
        let mut has_tasks = vec![false; scenario.queues.len()];
        for task in &scenario.tasks {
            has_tasks[task.queue] = true;
        }
        let mut sharers = vec![Vec::new(); budgets];
        for (place, queue) in scenario.queues.iter().enumerate() {
            if let Some(budget) = queue.budget.filter(|_| has_tasks[place]) {
                sharers[budget].push(place);
            }
        }
        Self {
            charges,
            taken: vec![0; budgets],
            since: vec![0; budgets],
            least,
            sharers,
            waiting: vec![0; scenario.queues.len()],
        }
    }
}

impl World {
    /// Slots that a Pool's pods take, starting, parked and draining ones included.
    #[must_use]
    pub fn taken(&self, budget: usize) -> u64 {
        self.slots.taken[budget]
    }

    /// A pod of the fleet was made. Notes where it takes more than there is.
    pub(super) fn take(&mut self, fleet: usize) {
        for at in 0..self.slots.charges[fleet].len() {
            let (budget, own) = self.slots.charges[fleet][at];
            self.count(budget);
            self.slots.taken[budget] += own;
            let taken = self.slots.taken[budget];
            let most = &mut self.outcome.taken[budget].peak;
            *most = taken.max(*most);
            let slots = self.scenario.budgets[budget].at(self.now);
            let over = slots.map_or(0, |slots| taken.saturating_sub(slots));
            self.outcome.overdrawn(budget, over.min(own));
        }
    }

    /// A pod of the fleet is gone.
    pub(super) fn free(&mut self, fleet: usize) {
        for at in 0..self.slots.charges[fleet].len() {
            let (budget, own) = self.slots.charges[fleet][at];
            self.count(budget);
            self.slots.taken[budget] -= own;
        }
    }

    /// Adds what was taken until now.
    fn count(&mut self, budget: usize) {
        let since = std::mem::replace(&mut self.slots.since[budget], self.now);
        if self.left > 0 {
            let slot_millis = u128::from(self.slots.taken[budget]) * u128::from(self.now - since);
            self.outcome.taken[budget].slot_millis += slot_millis;
        }
    }

    /// Adds for every budget what was taken until now, which is when the work is over.
    pub(super) fn sum_up(&mut self) {
        (0..self.slots.taken.len()).for_each(|budget| self.count(budget));
        self.outcome.over = self.now;
    }

    /// Nothing is left to do of one task.
    pub(super) fn is_over(&mut self) {
        if self.left == 1 {
            self.sum_up();
        }
        self.left -= 1;
    }

    /// A task of the queue begins and will take so long. It still counts as waiting.
    pub(super) fn note_scarce(&mut self, queue: usize, long: Millis) {
        let Some(budget) = self.scenario.queues[queue].budget else {
            return;
        };
        let free = self.scenario.budgets[budget]
            .at(self.now)
            .map_or(u64::MAX, |slots| slots.saturating_sub(self.slots.taken[budget]));
        let sharers = &self.slots.sharers[budget];
        let waits = |queue: &usize| self.slots.waiting[*queue] > 0;
        if free < self.slots.least[budget] && sharers.len() > 1 && sharers.iter().all(waits) {
            let slots = u128::from(self.scenario.queues[queue].slots_per_task);
            self.outcome.scarce_millis[queue] += slots * u128::from(long);
        }
    }
}
