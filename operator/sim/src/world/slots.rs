//! Slots of budgets: who takes them, how much of them is taken, and whose tasks get them while they are scarce.

use super::World;
use crate::scenario::{Millis, NOTICE, Scenario};

/// What is counted of budgets.
#[derive(Debug)]
pub(super) struct Slots {
    /// By fleet: places of its budgets, and what one pod takes of each.
    charges: Vec<Vec<(usize, u64)>>,
    /// By budget: slots that pods take, starting, parked and draining ones included.
    taken: Vec<u64>,
    /// By budget: since when it has been so.
    since: Vec<Millis>,
    /// By budget: what may be taken from each of these times on, with time to leave what it was before.
    may: Vec<Vec<(Millis, Option<u64>)>>,
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
            may: (0..budgets).map(|budget| may(scenario, budget)).collect(),
            least,
            sharers,
            waiting: vec![0; scenario.queues.len()],
        }
    }
}

/// A budget with time to leave it after it has sunk: from each of these times on, the most that it was for as long as the
/// longest task takes, and a minute to notice it.
fn may(scenario: &Scenario, budget: usize) -> Vec<(Millis, Option<u64>)> {
    let leaves = scenario
        .longest_in(budget)
        .map_or(Millis::MAX, |longest| longest.saturating_add(NOTICE));
    let budget = &scenario.budgets[budget];
    let changes = budget.slots.iter().map(|(at, _)| *at);
    let mut times: Vec<Millis> = changes.flat_map(|at| [at, at.saturating_add(leaves)]).collect();
    times.sort_unstable();
    let most = |at: Millis| (at, budget.most_between(at.saturating_sub(leaves), at));
    times.into_iter().map(most).collect()
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
        if self.left == 0 {
            return;
        }
        let taken = self.slots.taken[budget];
        let outcome = &mut self.outcome.taken[budget];
        outcome.slot_millis += u128::from(taken) * u128::from(self.now - since);
        let may = &self.slots.may[budget];
        let ends = may.iter().skip(1).map(|(at, _)| *at).chain([Millis::MAX]);
        for ((from, slots), to) in may.iter().zip(ends) {
            let over = slots.map_or(0, |slots| taken.saturating_sub(slots));
            let long = self.now.min(to).saturating_sub(since.max(*from));
            outcome.overstay_millis += u128::from(over) * u128::from(long);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::scaler::Scaler;
    use crate::scenario::{Budget, Task};
    use crate::world::run;

    /// Four pods, and so many from the first look after this time on.
    struct Lowered(Millis, u32);

    impl Scaler for Lowered {
        fn period(&self) -> Millis {
            1000
        }

        fn look(&mut self, world: &mut World) {
            let pods = if world.now < self.0 { 4 } else { self.1 };
            world.scale(0, pods);
        }
    }

    /// A task of 100 s every ten minutes for an hour, and a budget of 16 slots that sinks to 8 after half of it.
    fn lowered(at: Millis, to: u32, change: impl Fn(&mut Scenario)) -> Outcome {
        let task = |place: u64| Task {
            arrives: 600_000 * place,
            service: 100_000,
            queue: 0,
            failures: 0,
        };
        let mut scenario = Scenario::plain("sinks", 3_600_000, (0..=5).map(task).collect());
        scenario.queues[0].budget = Some(0);
        scenario.budgets = vec![Budget {
            name: "b".to_owned(),
            slots: vec![(0, Some(16)), (1_800_000, Some(8))],
            guarantees: Vec::new(),
        }];
        change(&mut scenario);
        run(&scenario, &mut Lowered(at, to), 1)
    }

    /// The longest task and a minute end at 1960 s; the last task begins at 3000 s.
    #[test]
    fn whoever_stays_above_a_budget_that_sank_is_counted() {
        let over = |at, to| lowered(at, to, |_| ()).taken[0].overstay_millis;
        assert_eq!(over(Millis::MAX, 4), 8 * (3_100_000 - 1_960_000));
        assert_eq!(over(1_900_000, 2), 0);
        assert_eq!(over(2_000_000, 2), 8 * 40_000);
        assert_eq!(over(1_900_000, 3), 4 * (3_100_000 - 1_960_000));
    }

    #[test]
    fn nobody_overstays_where_there_is_no_limit_or_tasks_take_as_long_as_they_must() {
        let stays = |change: fn(&mut Scenario)| lowered(Millis::MAX, 4, change).taken[0].overstay_millis;
        assert_eq!(stays(|scenario| scenario.budgets[0].slots = vec![(0, None)]), 0);
        assert_eq!(stays(|scenario| scenario.budgets[0].slots[1].1 = None), 0);
        let behind = |scenario: &mut Scenario| {
            scenario.downstream = Some(crate::scenario::Downstream { bears: 100 });
        };
        assert_eq!(stays(behind), 0);
        // It rises again before anybody must have left.
        assert_eq!(
            stays(|scenario| scenario.budgets[0].slots.push((1_950_000, Some(16)))),
            0
        );
    }
}
