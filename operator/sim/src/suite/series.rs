//! Runs everybody on everything.
//!
//! It decides an order for the processors and nothing else: each scenario is made from its own seed and each result has
//! its place, so that what comes out is the same for one thread and for two.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::tuned::tuned;
use super::{Contender, Score};
use crate::bound::lower_bound_on_average;
use crate::peers;
use crate::poolwright::Settings;
use crate::scenario::Scenario;
use crate::workloads::Workload;

/// Milliseconds between two looks of most who take part, to guess how long a workload takes.
const LOOK: u64 = 1000;

/// Longest waits, in seconds, at which the bound is drawn as a curve.
const CURVE: [u32; 4] = [5, 30, 120, 600];

/// Somebody who takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant {
    /// A name that no other entrant has.
    pub name: String,
    /// Who.
    pub contender: Contender,
    /// A peer with the settings of a tuning run, or one whose defaults are the best or the only ones.
    pub tuned: bool,
}

/// Poolwright with its two policies, and every peer under each grace, with its defaults and tuned.
#[must_use]
pub fn entrants() -> Vec<Entrant> {
    let ours = [true, false].map(|wait_target| {
        let settings = Settings {
            wait_target,
            ..Settings::default()
        };
        let contender = Contender::Poolwright(settings);
        Entrant {
            name: contender.name(),
            contender,
            tuned: false,
        }
    });
    let mut all = ours.to_vec();
    for entry in peers::all() {
        let best = tuned().into_iter().find(|best| best.name() == entry.name());
        let better = best.filter(|best| *best != entry);
        all.push(Entrant {
            name: entry.name(),
            tuned: better.is_none(),
            contender: Contender::Peer(entry.clone()),
        });
        all.extend(better.map(|best| Entrant {
            name: format!("{} tuned", entry.name()),
            tuned: true,
            contender: Contender::Peer(best),
        }));
    }
    all
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On what.
    pub workloads: Vec<Workload>,
    /// With which chance; the same for everybody.
    pub seeds: Vec<u64>,
    /// Who; the first is the one that the others are compared with.
    pub entrants: Vec<Entrant>,
    /// Threads, at least 1.
    pub threads: usize,
}

/// One scenario, and what everybody made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The lower bound in slot-hours; `None` where no schedule keeps the wait target, as with a budget in which nothing
    /// can finish.
    pub bound: Option<f64>,
    /// The lower bound if no wait may exceed the first entrant's p99 wait, in slot-hours.
    pub own_bound: Option<f64>,
    /// For the first seed: by the longest wait that is allowed, in seconds, the lower bound in slot-hours.
    pub curve: Vec<(u32, Option<f64>)>,
    /// The bound took the queues of a Pool together, which makes it weaker.
    pub aggregate: bool,
    /// By entrant.
    pub scores: Vec<Score>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What it is.
    pub name: &'static str,
    /// By seed.
    pub cells: Vec<Cell>,
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Who took part.
    pub entrants: Vec<Entrant>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// By workload.
    pub workloads: Vec<Measured>,
}

impl Contender {
    /// The same at the pace at which a scenario of this size is run.
    #[must_use]
    pub fn paced(&self, scenario: &Scenario) -> Self {
        match self {
            Self::Poolwright(settings) => Self::Poolwright(settings.paced(scenario.fleets.len())),
            peer @ Self::Peer(_) => peer.clone(),
        }
    }
}

impl Plan {
    /// Runs it. `done` is told after each scenario, in any order: the workload, the seed, how many are done, of how many.
    pub fn run(&self, done: impl Fn(&str, u64, usize, usize) + Sync) -> Results {
        let seeds = self.seeds.len();
        let jobs = self.workloads.len() * seeds;
        let finished = AtomicUsize::new(0);
        let order = self.longest_first();
        let mut cells = parallel(self.threads, jobs, &|place| {
            let (at, turn) = (order[place / seeds], place % seeds);
            let (workload, seed) = (&self.workloads[at], self.seeds[turn]);
            let cell = self.cell(workload, seed);
            done(
                workload.name,
                seed,
                finished.fetch_add(1, Ordering::Relaxed) + 1,
                jobs,
            );
            (at, turn, cell)
        });
        cells.sort_by_key(|(at, turn, _)| (*at, *turn));
        let mut cells = cells.into_iter().map(|(.., cell)| cell);
        let measured = |workload: &Workload| Measured {
            name: workload.name,
            cells: cells.by_ref().take(seeds).collect(),
        };
        Results {
            workloads: self.workloads.iter().map(measured).collect(),
            entrants: self.entrants.clone(),
            seeds: self.seeds.clone(),
        }
    }

    /// Places of the workloads, those that take longest first: a day of hundreds of fleets begun last would leave every
    /// other thread idle until it is over. What is looked at most, and by how many tasks, is guess enough.
    fn longest_first(&self) -> Vec<usize> {
        let seed = self.seeds.first().copied().unwrap_or_default();
        let work = |workload: &Workload| {
            let scenario = (workload.make)(seed);
            let looks = scenario.length / LOOK * scenario.fleets.len() as u64;
            looks + scenario.tasks.len() as u64
        };
        let works: Vec<u64> = self.workloads.iter().map(work).collect();
        let mut order: Vec<usize> = (0..works.len()).collect();
        order.sort_by_key(|at| Reverse(works[*at]));
        order
    }

    fn cell(&self, workload: &Workload, seed: u64) -> Cell {
        let scenario = (workload.make)(seed);
        let bound = lower_bound_on_average(&scenario, None).ok();
        let at = |wait: u64| {
            lower_bound_on_average(&scenario, Some(wait))
                .ok()
                .map(|bound| bound.slot_hours)
        };
        let mut scores: Vec<Score> = Vec::with_capacity(self.entrants.len());
        for (place, entrant) in self.entrants.iter().enumerate() {
            let known = self.same_but_for_grace(place, &scores);
            let score = known.unwrap_or_else(|| {
                let contender = entrant.contender.paced(&scenario);
                Score::of(&contender.run(&scenario, seed), &scenario)
            });
            scores.push(score);
        }
        let curve = if self.seeds.first() == Some(&seed) {
            CURVE.as_slice()
        } else {
            &[]
        };
        Cell {
            bound: bound.map(|bound| bound.slot_hours),
            own_bound: scores.first().and_then(|score| at(score.waits[2].max(1000))),
            curve: curve
                .iter()
                .map(|wait| (*wait, at(1000 * u64::from(*wait))))
                .collect(),
            aggregate: bound.is_some_and(|bound| bound.aggregate),
            scores,
        }
    }

    /// What this entrant comes to, if one before it differs from it by the grace alone and took no busy pod away: a grace
    /// begins when a busy pod is told to go, and at no other time.
    fn same_but_for_grace(&self, place: usize, scores: &[Score]) -> Option<Score> {
        let Contender::Peer(own) = &self.entrants[place].contender else {
            return None;
        };
        let same = |(entrant, score): &(&Entrant, &Score)| {
            let peer = matches!(&entrant.contender, Contender::Peer(other) if other.settings == own.settings);
            peer && score.drained_busy == 0
        };
        let found = self.entrants.iter().zip(scores).find(same);
        found.map(|(_, score)| score.clone())
    }
}

/// Does `jobs` jobs on a few threads; what they give is in the order of the jobs.
pub fn parallel<T: Send>(threads: usize, jobs: usize, work: &(dyn Fn(usize) -> T + Sync)) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(jobs));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.max(1)) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    let result = work(job);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((job, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(job, _)| *job);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Budget, Task};
    use crate::workloads::ALL;

    fn plan(threads: usize) -> Plan {
        let chosen = ALL
            .into_iter()
            .filter(|one| ["cron", "adversarial"].contains(&one.name));
        Plan {
            workloads: chosen.collect(),
            seeds: vec![1, 2],
            entrants: entrants().into_iter().skip(2).take(4).collect(),
            threads,
        }
    }

    #[test]
    fn two_threads_find_what_one_finds() {
        let (one, two) = (plan(1).run(|_, _, _, _| {}), plan(2).run(|_, _, _, _| {}));
        assert_eq!(one, two);
        assert_eq!(one.workloads.len(), 2);
        assert!(one.workloads.iter().all(|one| one.cells.len() == 2));
        assert_ne!(one.workloads[0].cells, one.workloads[1].cells);
    }

    /// On tasks of ten minutes some rules take busy pods away, and some do not: of each the score is that of its own run.
    #[test]
    fn who_is_not_run_again_under_another_grace_has_the_score_of_a_run() {
        let mut plan = plan(2);
        plan.workloads = ALL.into_iter().filter(|one| one.name == "long").collect();
        plan.seeds = vec![1];
        plan.entrants = entrants();
        plan.entrants
            .retain(|one| matches!(one.contender, Contender::Peer(_)));
        let scenario = (plan.workloads[0].make)(1);
        let found = plan.run(|_, _, _, _| {});
        let (mut taken_over, mut killed) = (0, 0);
        let scores = &found.workloads[0].cells[0].scores;
        for (at, (entrant, score)) in plan.entrants.iter().zip(scores).enumerate() {
            let own = Score::of(&entrant.contender.run(&scenario, 1), &scenario);
            assert_eq!(*score, own, "{}", entrant.name);
            taken_over += usize::from(plan.same_but_for_grace(at, &scores[..at]).is_some());
            killed += score.killed;
        }
        assert!(
            taken_over >= 4 && killed > 0,
            "{taken_over} taken over, {killed} killed"
        );
    }

    #[test]
    fn the_longest_workload_is_begun_first() {
        let mut plan = plan(1);
        let chosen = |one: &Workload| ["cron", "steady", "tenants"].contains(&one.name);
        plan.workloads = ALL.into_iter().filter(chosen).collect();
        let order = plan.longest_first();
        let names: Vec<&str> = order.iter().map(|at| plan.workloads[*at].name).collect();
        assert_eq!(names, ["tenants", "steady", "cron"]);
    }

    #[test]
    fn every_peer_takes_part_under_each_grace_by_default_and_tuned() {
        let all = entrants();
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        for entry in peers::all() {
            assert!(names.contains(&entry.name().as_str()), "{}", entry.name());
            let own = all
                .iter()
                .filter(|one| one.name.split(' ').next() == Some(&entry.name()));
            assert_eq!(own.filter(|one| one.tuned).count(), 1, "{}", entry.name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(all[0].name, "poolwright");
    }

    #[test]
    fn a_budget_in_which_nothing_finishes_has_no_bound() {
        fn closed(_: u64) -> Scenario {
            let task = Task {
                arrives: 1000,
                service: 1000,
                queue: 0,
                failures: 0,
            };
            let mut scenario = Scenario::plain("closed", 60_000, vec![task]);
            scenario.queues[0].budget = Some(0);
            scenario.budgets = vec![Budget {
                name: "none".to_owned(),
                slots: vec![(0, Some(0))],
                guarantees: Vec::new(),
            }];
            scenario
        }
        let workload = Workload {
            name: "closed",
            about: "",
            make: closed,
        };
        let mut plan = plan(1);
        plan.workloads = vec![workload];
        plan.entrants.truncate(1);
        let results = plan.run(|_, _, _, _| {});
        assert_eq!(results.workloads[0].cells[0].bound, None);
        assert_eq!(super::super::geo_mean_ratio(&results, 0), None);
    }
}
