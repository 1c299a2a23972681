//! What a run came to: waits, cost, and everything that should not have happened.

use crate::scenario::{Millis, Scenario};

/// One change of a fleet's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Millis,
    /// Place of the fleet.
    pub fleet: usize,
    /// Pods asked for after it.
    pub to: u32,
}

/// What workers took of a budget until the last task was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Most slots at a time.
    pub peak: u64,
    /// Slots × time.
    pub slot_millis: u128,
    /// The same of what was above the budget for longer than leaving it takes after it sank: the longest task, and a minute
    /// to notice it.
    pub overstay_millis: u128,
}

/// The measures of one run. Waits are from a task's last publication to its last start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// By task; `None` for one that never started.
    pub waits: Vec<Option<Millis>>,
    /// By task: when it ended well; `None` for one that did not.
    pub done: Vec<Option<Millis>>,
    /// Slots × time of pods, from their creation until they were gone.
    pub slot_millis: u128,
    /// Time that tasks executed, runs that failed included, those that were killed left out.
    pub work_millis: u128,
    /// Pods that were made.
    pub created: u64,
    /// Pods that were told to go while they executed something.
    pub drained_busy: u64,
    /// Pods that were told to go, or to take nothing more, while the signals were lost or falsely zero.
    pub blind: u64,
    /// Tasks that were killed.
    pub killed: u64,
    /// Time that killed tasks had executed.
    pub wasted_millis: u128,
    /// Tasks that were ended at their time limit. They are not done, and nothing is left to do of them.
    pub over_limit: u64,
    /// Slots of pods that were made beyond a budget, by budget. A budget that was lowered below what is taken is nobody's
    /// act.
    pub overshoot: Vec<u64>,
    /// What was taken, by budget.
    pub taken: Vec<Taken>,
    /// By queue of a budget that it shares: slots × time of the tasks that began while slots were scarce, which means that no
    /// worker more fitted into the budget and every queue of it that has tasks at all had some that waited.
    pub scarce_millis: Vec<u128>,
    /// Every change of a number, in order.
    pub changes: Vec<Change>,
    /// Changes of direction, by fleet.
    pub reversals: Vec<u64>,
    /// Most pods at a time, draining ones included, by fleet.
    pub peak: Vec<usize>,
    /// When the last task was over, or else the end of the run.
    pub over: Millis,
    /// When the run ended.
    pub ended: Millis,
    /// Tasks that were not done then.
    pub undone: usize,
    rising: Vec<Option<bool>>,
}

impl Outcome {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            waits: vec![None; scenario.tasks.len()],
            done: vec![None; scenario.tasks.len()],
            overshoot: vec![0; scenario.budgets.len()],
            taken: vec![Taken::default(); scenario.budgets.len()],
            scarce_millis: vec![0; scenario.queues.len()],
            reversals: vec![0; scenario.fleets.len()],
            peak: vec![0; scenario.fleets.len()],
            rising: vec![None; scenario.fleets.len()],
            ..Self::default()
        }
    }

    pub(crate) fn started(&mut self, task: usize, wait: Millis) {
        self.waits[task] = Some(wait);
    }

    pub(crate) fn worked(&mut self, long: Millis) {
        self.work_millis += u128::from(long);
    }

    pub(crate) fn done(&mut self, task: usize, at: Millis) {
        let before = self.done[task].replace(at);
        debug_assert!(before.is_none(), "task {task} ends twice");
    }

    pub(crate) fn killed(&mut self, long: Millis) {
        self.killed += 1;
        self.wasted_millis += u128::from(long);
    }

    pub(crate) fn paid(&mut self, slots: u32, long: Millis) {
        self.slot_millis += u128::from(slots) * u128::from(long);
    }

    pub(crate) fn scaled(&mut self, at: Millis, fleet: usize, from: u32, to: u32) {
        self.changes.push(Change { at, fleet, to });
        let rises = Some(to > from);
        if self.rising[fleet].is_some() && self.rising[fleet] != rises {
            self.reversals[fleet] += 1;
        }
        self.rising[fleet] = rises;
    }

    pub(crate) fn peaked(&mut self, fleet: usize, pods: usize) {
        self.peak[fleet] = self.peak[fleet].max(pods);
    }

    pub(crate) fn overdrawn(&mut self, budget: usize, slots: u64) {
        self.overshoot[budget] += slots;
    }

    pub(crate) fn close(&mut self, now: Millis, undone: usize) {
        (self.ended, self.undone) = (now, undone);
    }

    /// Waits of the tasks that started, shortest first.
    #[must_use]
    pub fn sorted_waits(&self) -> Vec<Millis> {
        let mut waits: Vec<Millis> = self.waits.iter().copied().flatten().collect();
        waits.sort_unstable();
        waits
    }

    /// Slot-hours.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn slot_hours(&self) -> f64 {
        self.slot_millis as f64 / 3_600_000.0
    }

    /// All that tasks waited. What never began has waited until the end.
    #[must_use]
    pub fn waited_millis(&self, scenario: &Scenario) -> u128 {
        let waits = self.waits.iter().zip(&scenario.tasks);
        let waits = waits.map(|(wait, task)| wait.unwrap_or_else(|| self.ended.saturating_sub(task.arrives)));
        waits.map(u128::from).sum()
    }

    /// How long each fleet of which no pod was asked for took to ask for some, from the first task that came for it; what
    /// was never answered has waited until the end.
    #[must_use]
    pub fn replies(&self, scenario: &Scenario) -> Vec<Millis> {
        let mut replies = Vec::new();
        for (place, fleet) in scenario.fleets.iter().enumerate() {
            let changes = self.changes.iter().filter(|change| change.fleet == place);
            let mut changes = changes.peekable();
            let tasks = scenario
                .tasks
                .iter()
                .filter(|task| fleet.queues.contains(&task.queue));
            let mut arrivals: Vec<Millis> = tasks.map(|task| task.arrives).collect();
            arrivals.sort_unstable();
            let (mut asked, mut answered) = (0, None);
            for arrives in arrivals {
                while let Some(change) = changes.next_if(|change| change.at < arrives) {
                    asked = change.to;
                }
                if asked > 0 || answered.is_some_and(|at| arrives <= at) {
                    continue;
                }
                // Whoever is asked for later answers all that came until then.
                let at = changes.peek().map_or(self.ended, |change| change.at);
                replies.push(at.saturating_sub(arrives));
                answered = Some(at);
            }
        }
        replies
    }

    /// Share of tasks that waited longer than the target of their queue, or never started.
    #[must_use]
    pub fn late_share(&self, scenario: &Scenario) -> f64 {
        let (late, all) = self.late_and_all(scenario).into_iter().fold((0, 0), add);
        share(late, all)
    }

    /// The same of each queue alone. A queue of few tasks weighs nothing in that of all.
    #[must_use]
    pub fn late_shares(&self, scenario: &Scenario) -> Vec<f64> {
        let queues = self.late_and_all(scenario).into_iter();
        queues.map(|(late, all)| share(late, all)).collect()
    }

    /// By queue: tasks that were late, and all.
    fn late_and_all(&self, scenario: &Scenario) -> Vec<(usize, usize)> {
        let mut found = vec![(0, 0); scenario.queues.len()];
        for (task, wait) in scenario.tasks.iter().zip(&self.waits) {
            let target = scenario.queues[task.queue].wait_target;
            let late = wait.is_none_or(|wait| wait > target);
            found[task.queue] = add(found[task.queue], (usize::from(late), 1));
        }
        found
    }
}

fn add(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0 + other.0, one.1 + other.1)
}

#[allow(clippy::cast_precision_loss)]
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

/// How many of so many sorted values lie below this part (0 to 1) of them, the value itself included: the nearest rank, at
/// least 1.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
pub fn rank(count: usize, part: f64) -> usize {
    let rank = (part * count as f64).ceil() as usize;
    rank.clamp(1, count.max(1))
}

/// The value below which this part (0 to 1) of `sorted` lies, by nearest rank; 0 where there is none.
#[must_use]
pub fn quantile(sorted: &[Millis], part: f64) -> Millis {
    sorted.get(rank(sorted.len(), part) - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Task;

    #[test]
    fn a_reply_is_to_the_first_task_for_which_nobody_is_asked_for() {
        let task = |arrives| Task {
            arrives,
            service: 1000,
            queue: 0,
            failures: 0,
        };
        let arrivals = [1000, 2000, 6000, 20_000, 21_000, 30_000, 30_000, 40_000];
        let scenario = Scenario::plain("quiet", 60_000, arrivals.map(task).to_vec());
        let mut outcome = Outcome::new(&scenario);
        for (at, to) in [
            (4000, 2),
            (7000, 3),
            (10_000, 0),
            (20_500, 1),
            (25_000, 0),
            (30_000, 2),
            (35_000, 0),
        ] {
            outcome.changes.push(Change { at, fleet: 0, to });
        }
        outcome.ended = 60_000;
        assert_eq!(outcome.replies(&scenario), [3000, 500, 0, 20_000]);
    }
}
