//! What happens to whom: tasks, queues, fleets, budgets and faults, all fixed before a run begins.
//!
//! A scenario holds no decision and no chance: two scalers that run on one scenario meet the very same tasks. Times are
//! milliseconds since the beginning.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use poolwright_core::schedule::Schedule;
use poolwright_core::snapshot::Pause;

/// Milliseconds.
pub type Millis = u64;

/// So long a scaler may need to notice that a budget has sunk.
pub const NOTICE: Millis = 60_000;

/// 2027-01-01 00:00 UTC, a Friday: when a scenario begins that says nothing else.
const BEGINS: i64 = 1_798_761_600;

/// One task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// When it is published.
    pub arrives: Millis,
    /// How long it takes a slot, if nothing slows it down.
    pub service: Millis,
    /// Place of its queue in [`Scenario::queues`].
    pub queue: usize,
    /// How often it fails and is published again before it succeeds.
    pub failures: u8,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The wait that its tasks should not exceed.
    pub wait_target: Millis,
    /// Its tier; the higher is served first.
    pub tier: u32,
    /// Its weight inside the tier.
    pub weight: u32,
    /// Place of its Pool in [`Scenario::budgets`], if it has one.
    pub budget: Option<usize>,
    /// Slots of its Pool that one of its tasks takes, at least 1.
    pub slots_per_task: u32,
}

/// Workers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Its name.
    pub name: String,
    /// Places of the queues that it consumes.
    pub queues: Vec<usize>,
    /// Slots of one worker, at least 1.
    pub slots: u32,
    /// Least and most workers.
    pub bounds: (u32, u32),
    /// Times in which Poolwright keeps more than the least; no other scaler has them.
    pub schedules: Arc<[Schedule]>,
    /// Messages that a slot may hold, the running one included; at least 1.
    pub prefetch: u32,
    /// Tasks acknowledge when they end, not when they start.
    pub late: bool,
    /// A worker that is told to go is killed after so long.
    pub grace: Millis,
    /// A task that runs for so long is ended, and not tried again: the hard time limit.
    pub time_limit: Option<Millis>,
    /// Most tasks at a time, kept in whole workers; only Poolwright heeds it.
    pub max_active: Option<u32>,
    /// What Poolwright is told not to do; no other scaler has it.
    pub pause: Pause,
}

/// A budget of slots, as it is from each of these times on; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// In order of time; the first is at 0.
    pub slots: Vec<(Millis, Option<u64>)>,
    /// Slots that are kept for a queue, by its name; only Poolwright heeds them.
    pub guarantees: Vec<(String, u64)>,
}

/// How long workers take to come up, from a time on: the mean and the standard deviation of a normal distribution, cut
/// below a tenth of the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartUp {
    /// From this time on.
    pub from: Millis,
    /// Mean.
    pub mean: Millis,
    /// Standard deviation.
    pub spread: Millis,
}

/// What is wrong with the signals for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From this time on.
    pub from: Millis,
    /// Until this time.
    pub to: Millis,
    /// What.
    pub kind: FaultKind,
}

/// Kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing can be read.
    Silence,
    /// The broker's counts cannot be read; workers are heard.
    Uncounted,
    /// Workers are not heard; the broker's counts are read.
    Unheard,
    /// The broker says that nothing waits and nothing is held, as an empty replica does. Whatever else can be read goes
    /// on: how many messages were published, and what workers say of themselves.
    FalseZero,
    /// What is read is as it was so long ago.
    Delay(Millis),
}

/// A shared resource behind the tasks, for example a database: with more tasks than it bears, each takes longer by the
/// same factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream {
    /// Running tasks that it bears.
    pub bears: u32,
}

/// All that a run is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The time of day at the beginning; only schedules ask for it.
    pub begins: Timestamp,
    /// Tasks arrive before this.
    pub length: Millis,
    /// In order of arrival.
    pub tasks: Vec<Task>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The fleets.
    pub fleets: Vec<Fleet>,
    /// The budgets.
    pub budgets: Vec<Budget>,
    /// In order of time; the first is at 0.
    pub start_up: Vec<StartUp>,
    /// Faults of the signals.
    pub faults: Vec<Fault>,
    /// What tasks share, if anything.
    pub downstream: Option<Downstream>,
    /// A task that failed is published again after so long.
    pub retry_after: Millis,
}

impl Scenario {
    /// One queue, one fleet of workers with four slots, prefetch 1, late acknowledgement, 30 s to start and a target of
    /// 30 s, no budget, no fault: what the suite varies.
    #[must_use]
    pub fn plain(name: &str, length: Millis, tasks: Vec<Task>) -> Self {
        Self {
            name: name.to_owned(),
            begins: Timestamp::from_second(BEGINS).unwrap_or_default(),
            length,
            tasks,
            queues: vec![Queue {
                name: "q".to_owned(),
                wait_target: 30_000,
                tier: 50,
                weight: 1,
                budget: None,
                slots_per_task: 1,
            }],
            fleets: vec![Fleet {
                name: "w".to_owned(),
                queues: vec![0],
                slots: 4,
                bounds: (0, 1000),
                schedules: Arc::default(),
                prefetch: 1,
                late: true,
                grace: 21_600_000,
                time_limit: None,
                max_active: None,
                pause: Pause::default(),
            }],
            budgets: Vec::new(),
            start_up: vec![StartUp {
                from: 0,
                mean: 30_000,
                spread: 6_000,
            }],
            faults: Vec::new(),
            downstream: None,
            retry_after: 10_000,
        }
    }

    /// The start-up time of workers that are created at this time.
    #[must_use]
    pub fn start_up_at(&self, now: Millis) -> StartUp {
        let past = self.start_up.iter().rev().find(|one| one.from <= now);
        *past.unwrap_or(&StartUp {
            from: 0,
            mean: 0,
            spread: 0,
        })
    }

    /// What a worker of a fleet takes of each budget of its queues, by the budget's place: its slots, times the largest
    /// `slots_per_task` of those queues.
    #[must_use]
    pub fn charge(&self, fleet: usize) -> BTreeMap<usize, u64> {
        let spec = &self.fleets[fleet];
        let mut charge = BTreeMap::new();
        for queue in spec.queues.iter().map(|place| &self.queues[*place]) {
            let Some(budget) = queue.budget else { continue };
            let slots = u64::from(spec.slots) * u64::from(queue.slots_per_task.max(1));
            let most = charge.entry(budget).or_insert(0);
            *most = slots.max(*most);
        }
        charge
    }

    /// True for a fleet whose workers take slots of the budget.
    #[must_use]
    pub fn draws(&self, fleet: &Fleet, budget: usize) -> bool {
        let belongs = |queue: &usize| self.queues[*queue].budget == Some(budget);
        fleet.queues.iter().any(belongs)
    }

    /// The longest that a task takes which a worker in the budget may execute; `None` where a resource behind the tasks
    /// makes them longer.
    #[must_use]
    pub fn longest_in(&self, budget: usize) -> Option<Millis> {
        let mut served = vec![false; self.queues.len()];
        for fleet in self.fleets.iter().filter(|fleet| self.draws(fleet, budget)) {
            for queue in &fleet.queues {
                served[*queue] = true;
            }
        }
        let tasks = self.tasks.iter().filter(|task| served[task.queue]);
        let longest = tasks.map(|task| task.service).max().unwrap_or(0);
        self.downstream.is_none().then_some(longest)
    }

    /// What is wrong with the signals now.
    #[must_use]
    pub fn fault_at(&self, now: Millis) -> Option<FaultKind> {
        let on = |fault: &&Fault| fault.from <= now && now < fault.to;
        self.faults.iter().find(on).map(|fault| fault.kind)
    }

    /// True while nothing true can be read of the queues. What only lags is true, if old.
    #[must_use]
    pub fn is_blind_at(&self, now: Millis) -> bool {
        matches!(
            self.fault_at(now),
            Some(FaultKind::Silence | FaultKind::Uncounted | FaultKind::FalseZero)
        )
    }
}

impl Budget {
    /// Its slots at this time; `None` for no limit.
    #[must_use]
    pub fn at(&self, now: Millis) -> Option<u64> {
        let past = self.slots.iter().rev().find(|(from, _)| *from <= now);
        past.and_then(|(_, slots)| *slots)
    }

    /// The most that it is between these times; `None` for no limit.
    #[must_use]
    pub fn most_between(&self, from: Millis, to: Millis) -> Option<u64> {
        let later = self.slots.iter().filter(|(at, _)| from < *at && *at <= to);
        let all = later.map(|(_, slots)| *slots).chain([self.at(from)]);
        let most = all.reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other)));
        most.flatten()
    }
}
