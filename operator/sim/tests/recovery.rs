//! How soon after a fault the number is again what it would be without one.
//!
//! Beside the operator that meets the fault another one decides about the same pods at the same times, which misses
//! nothing and is not heeded: what it asks for is what true signals ask for in that very state. (A second run without the
//! fault would have another backlog by then, and other workers.) What counts is growth: wherever fewer workers were asked
//! for when the fault ended, from its end until no fewer are. A number that falls is held on purpose until a whole window of
//! data without a gap is there, which is measured apart. No run may be left out because of what it shows.
#![allow(missing_docs, clippy::unwrap_used)]

mod scale;

use poolwright_sim::outcome::quantile;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scaler::{Scaler, Victims};
use poolwright_sim::scenario::{Fault, FaultKind, Millis, Scenario, Task};
use poolwright_sim::suite::parallel;
use poolwright_sim::world::{World, run};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Time between two polls of the operator, as by default.
const POLL: Millis = 200;
/// Tasks arrive for so long after a fault.
const TAIL: Millis = 180_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Signals(FaultKind),
    /// The operator is not there, and another one is after it, which remembers nothing.
    Gone,
}

const KINDS: [(&str, Wrong); 5] = [
    ("counts missing", Wrong::Signals(FaultKind::Uncounted)),
    ("heartbeats missing", Wrong::Signals(FaultKind::Unheard)),
    ("both missing", Wrong::Signals(FaultKind::Silence)),
    ("false zero", Wrong::Signals(FaultKind::FalseZero)),
    ("operator restarted", Wrong::Gone),
];

/// The operator, which may be gone for a while, and what it has decided at each look.
struct Noted {
    operator: Poolwright,
    /// One that never misses anything, and is never heeded.
    seeing: Poolwright,
    gone: Option<(Millis, Millis)>,
    was_gone: bool,
    decided: Vec<Look>,
}

/// What was decided at one look.
struct Look {
    at: Millis,
    /// Workers that should take work.
    number: u32,
    /// The same by the one that misses nothing.
    should: u32,
    /// And whether that keeps them warm.
    warm: bool,
}

impl Scaler for &mut Noted {
    fn period(&self) -> Millis {
        self.operator.period()
    }

    fn look(&mut self, world: &mut World) {
        let is_gone = self
            .gone
            .is_some_and(|(from, to)| (from..to).contains(&world.now));
        if !is_gone && std::mem::take(&mut self.was_gone) {
            self.operator.restart(world.now);
        }
        self.seeing.judge(world, &mut self.operator);
        if is_gone {
            self.was_gone = true;
            return;
        }
        self.operator.look(world);
        let [own, other] =
            [&self.operator, &self.seeing].map(|one| one.last().decisions.values().next().unwrap());
        self.decided.push(Look {
            at: world.now,
            number: own.to,
            should: other.to,
            warm: other.text().contains("kept warm"),
        });
    }

    fn victims(&self) -> Victims {
        Victims::Marked
    }
}

fn between(chance: &mut ChaCha8Rng, least: u64, most: u64) -> u64 {
    least + chance.next_u64() % (most - least + 1)
}

/// A load that goes up and down: every half to four minutes another rate, from none to six tasks a second.
fn tasks(chance: &mut ChaCha8Rng, length: Millis) -> Vec<Task> {
    let service = between(chance, 1000, 20_000);
    let (mut at, mut tasks) = (0, Vec::new());
    while at < length {
        let until = at + between(chance, 20_000, 120_000);
        let gap = 1_000_000 / between(chance, 1, 6000);
        while at < until.min(length) {
            tasks.push(Task {
                arrives: at,
                service: between(chance, service / 2, service * 3 / 2),
                queue: 0,
                failures: 0,
            });
            at += between(chance, gap / 2, gap * 3 / 2).clamp(1, 60_000);
        }
    }
    tasks
}

/// What a fault has left behind at its end, and how soon it is made good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Debt {
    /// Workers that should be asked for, or should not be.
    owed: u32,
    /// Of these, those that the first two looks have made good.
    soon: u32,
    /// After so many milliseconds and looks all of it was; `None` if it never was.
    over: Option<(Millis, u64)>,
    /// Only memory can tell: workers are kept warm for what the last hour has shown.
    warm: bool,
}

/// The debt at the end of a fault. `gap` is what a number lacks of the one that it should be.
fn debt(noted: &Noted, end: Millis, gap: fn(u32, u32) -> u32) -> Debt {
    let split = noted.decided.partition_point(|one| one.at < end);
    let (before, after) = noted.decided.split_at(split);
    let (Some(before), Some(first)) = (before.last(), after.first()) else {
        return Debt::default();
    };
    let owed = gap(before.number, first.should);
    if owed == 0 {
        return Debt::default();
    }
    let left = after.iter().take(2).map(|one| gap(one.number, one.should)).min();
    let over = (1..).zip(after).find(|(_, one)| gap(one.number, one.should) == 0);
    Debt {
        owed,
        soon: owed.saturating_sub(left.unwrap_or(owed)),
        over: over.map(|(looks, one)| (one.at - end, looks)),
        warm: first.warm,
    }
}

/// What one fault leaves: workers that are missing, and workers that are too many.
fn after(wrong: Wrong, settings: Settings, seed: u64) -> [Debt; 2] {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let from = between(&mut chance, 60_000, 600_000);
    let to = from + between(&mut chance, 1000, 180_000);
    let length = to + TAIL;
    let mut scenario = Scenario::plain("recovery", length, tasks(&mut chance, length));
    let mut gone = None;
    match wrong {
        Wrong::Signals(kind) => scenario.faults = vec![Fault { from, to, kind }],
        Wrong::Gone => gone = Some((from, to)),
    }
    let mut noted = Noted {
        operator: Poolwright::new(&scenario, settings),
        seeing: Poolwright::new(&scenario, settings),
        gone,
        was_gone: false,
        decided: Vec::new(),
    };
    run(&scenario, &mut &mut noted, seed);
    [
        debt(&noted, to, |number, should| should.saturating_sub(number)),
        debt(&noted, to, u32::saturating_sub),
    ]
}

/// What all faults of one policy, or of one kind of fault, have left.
struct Sum {
    faults: usize,
    debts: Vec<Debt>,
    /// Milliseconds and looks until each was over, the shortest first; one that never was lasts for ever.
    millis: Vec<Millis>,
    looks: Vec<u64>,
}

impl Sum {
    fn of(all: &[Debt]) -> Self {
        let debts: Vec<Debt> = all.iter().filter(|debt| debt.owed > 0).copied().collect();
        let over = || {
            debts
                .iter()
                .map(|debt| debt.over.unwrap_or((Millis::MAX, u64::MAX)))
        };
        let mut millis: Vec<Millis> = over().map(|(millis, _)| millis).collect();
        let mut looks: Vec<u64> = over().map(|(_, looks)| looks).collect();
        millis.sort_unstable();
        looks.sort_unstable();
        Self {
            faults: all.len(),
            debts,
            millis,
            looks,
        }
    }

    /// Workers that the first two looks have asked for, and all that were missing.
    fn soon(&self) -> (u32, u32) {
        let sum = |of: fn(&Debt) -> u32| self.debts.iter().map(of).sum();
        (sum(|debt| debt.soon), sum(|debt| debt.owed))
    }

    fn at(&self, part: f64) -> (Millis, u64) {
        (quantile(&self.millis, part), quantile(&self.looks, part))
    }

    fn words(&self) -> String {
        let at = |part| {
            let (millis, looks) = self.at(part);
            format!("{}.{} s = {looks} polls", millis / 1000, millis % 1000 / 100)
        };
        let within = self.looks.iter().filter(|looks| **looks <= 2).count();
        let late = self
            .debts
            .iter()
            .filter(|debt| debt.over.is_none_or(|(_, looks)| looks > 2));
        let warm = late.filter(|debt| debt.warm).count();
        let (soon, owed) = self.soon();
        format!(
            "{}/{} faults, p50 {}, p99 {}, max {}; within 2 polls {within}/{}, of the others {warm} kept warm; workers within 2 \
             polls {soon}/{owed}",
            self.debts.len(),
            self.faults,
            at(0.5),
            at(0.99),
            at(1.0),
            self.debts.len()
        )
    }
}

/// Runs every kind of fault on so many seeds, and prints what was found: growth, and scale-in.
fn measure(policy: &str, settings: Settings, seeds: usize) -> [Sum; 2] {
    let jobs = KINDS.len() * seeds;
    let all = parallel(2, jobs, &|job| {
        let seed = u64::try_from(job % seeds).unwrap() + 1;
        after(KINDS[job / seeds].1, settings, seed)
    });
    let [growth, less] = [0, 1].map(|which| all.iter().map(|one| one[which]).collect::<Vec<Debt>>());
    for (at, (name, _)) in KINDS.iter().enumerate() {
        let of_kind = at * seeds..(at + 1) * seeds;
        println!(
            "{policy}, {name}: growth {}",
            Sum::of(&growth[of_kind.clone()]).words()
        );
        println!("{policy}, {name}: scale-in {}", Sum::of(&less[of_kind]).words());
    }
    let sums = [Sum::of(&growth), Sum::of(&less)];
    println!("recovery: {policy} growth {}", sums[0].words());
    println!("recovery: {policy} scale-in {}", sums[1].words());
    sums
}

/// Seeds of each kind of fault.
fn seeds() -> usize {
    scale::pick(12, 40)
}

#[test]
fn growth_by_backlog_is_back_with_the_first_poll_after_a_fault() {
    let settings = Settings {
        wait_target: false,
        poll: POLL,
        ..Settings::default()
    };
    let [growth, less] = measure("Backlog", settings, seeds());
    assert!(!growth.debts.is_empty(), "nothing was to be made good");
    assert!(growth.at(1.0).1 <= 2);
    // A whole window (`scaleDownDelaySeconds`) and the next poll.
    assert!(less.at(0.99).0 <= 61_000);
}

#[test]
fn growth_by_wait_target_is_back_when_the_load_is_known_again() {
    let settings = Settings {
        poll: POLL,
        ..Settings::default()
    };
    let [growth, _] = measure("WaitTarget", settings, seeds());
    assert!(!growth.debts.is_empty(), "nothing was to be made good");
    // What waits is answered with the first polls; for what the load alone asks for, its rate and how long its tasks take
    // must have been seen again, each for some seconds.
    assert!(growth.at(0.5).0 <= 10_000);
    // Only for what the last hour has shown they wait longer.
    let mut known = growth.debts.iter().filter(|debt| !debt.warm);
    assert!(known.all(|debt| debt.over.is_some_and(|(millis, _)| millis <= 60_000)));
}
