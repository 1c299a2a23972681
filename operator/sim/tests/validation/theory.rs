//! Waits of a fixed number of slots: exactly those of the recursion, and in the mean those of the formulas.
//!
//! The formulas hold for an endless run, so a run differs from them by chance. Each case is 32 runs with seeds of their
//! own, long enough that the standard error of their mean, as the runs themselves show it, is below 0.9 %: what is 2 %
//! off is then wrong rather than unlucky.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use poolwright_sim::scaler::Scaler;
use poolwright_sim::scenario::{Millis, Scenario, StartUp, Task};
use poolwright_sim::world::{World, run};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp, Exp1};

/// Mean time that a task takes: long against the millisecond that times are cut to.
const SIZE: f64 = 10_000.0;

/// Runs of one case.
const RUNS: u64 = 32;

/// The same number of workers for ever.
struct Fixed(u32);

impl Scaler for Fixed {
    fn period(&self) -> Millis {
        3_600_000
    }

    fn look(&mut self, world: &mut World) {
        world.scale(0, self.0);
    }
}

#[derive(Clone, Copy)]
enum Sizes {
    Exponential,
    Constant,
}

/// So many workers of so many slots, this busy.
#[derive(Clone, Copy)]
struct Case {
    sizes: Sizes,
    rho: f64,
    workers: u32,
    slots: u32,
    tasks: u32,
}

impl Case {
    fn servers(self) -> u32 {
        self.workers * self.slots
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn scenario(self, seed: u64) -> Scenario {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let gaps = Exp::new(self.rho * f64::from(self.servers()) / SIZE).unwrap();
        let mut at = 0.0;
        let tasks: Vec<Task> = (0..self.tasks)
            .map(|_| {
                at += gaps.sample(&mut chance);
                let size: f64 = match self.sizes {
                    Sizes::Exponential => Exp1.sample(&mut chance),
                    Sizes::Constant => 1.0,
                };
                Task {
                    arrives: at as Millis,
                    service: ((SIZE * size).round() as Millis).max(1),
                    queue: 0,
                    failures: 0,
                }
            })
            .collect();
        let mut scenario = Scenario::plain("queue", at as Millis + 1, tasks);
        scenario.fleets[0].slots = self.slots;
        scenario.start_up = vec![StartUp {
            from: 0,
            mean: 0,
            spread: 0,
        }];
        scenario
    }

    /// The mean wait and the share of tasks that waited, by run.
    fn measure(self) -> (Vec<f64>, Vec<f64>) {
        let first = 100 * u64::from(self.servers());
        (first..first + RUNS).map(|seed| self.measure_one(seed)).unzip()
    }

    /// Checks what holds exactly, and measures, the first tenth of the tasks left out.
    fn measure_one(self, seed: u64) -> (f64, f64) {
        let scenario = self.scenario(seed);
        let outcome = run(&scenario, &mut Fixed(self.workers), seed);
        let held = u128::from(self.servers()) * u128::from(outcome.ended);
        assert_eq!(outcome.slot_millis, held, "every slot is paid for, all the time");
        let exact = recursion(&scenario, self.servers());
        assert!(outcome.waits.iter().copied().eq(exact));
        let waits = &outcome.waits[scenario.tasks.len() / 10..];
        let sum: Millis = waits.iter().map(|wait| wait.unwrap()).sum();
        let waited = waits.iter().filter(|wait| wait.unwrap() > 0).count();
        let count = waits.len() as f64;
        (sum as f64 / count, waited as f64 / count)
    }
}

/// The waits of tasks that are served in order of arrival, whoever is free first: Kiefer and Wolfowitz.
fn recursion(scenario: &Scenario, servers: u32) -> impl Iterator<Item = Option<Millis>> {
    let mut free = BinaryHeap::from(vec![Reverse(0); servers as usize]);
    scenario.tasks.iter().map(move |task| {
        let Reverse(at) = free.pop()?;
        let starts = task.arrives.max(at);
        free.push(Reverse(starts + task.service));
        Some(starts - task.arrives)
    })
}

/// The probability of waiting with c servers, each this busy: by Erlang's B, whose recursion is stable.
fn erlang_c(rho: f64, servers: u32) -> f64 {
    let load = rho * f64::from(servers);
    let blocked = (1..=servers).fold(1.0, |blocked, n| load * blocked / (f64::from(n) + load * blocked));
    blocked / (1.0 - rho * (1.0 - blocked))
}

/// The mean of runs is within 2 % of the theory, and known to 0.9 %.
#[track_caller]
fn near(what: &str, figures: &[f64], theory: f64) {
    let count = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / count;
    let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
    let error = (squares / (count - 1.0) / count).sqrt() / theory;
    let off = mean / theory - 1.0;
    println!(
        "{what}: {mean:.4}, theory {theory:.4}, off {:+.2} % ± {:.2} %",
        100.0 * off,
        100.0 * error
    );
    assert!(error < 0.009, "{what}: known to {error} only");
    assert!(off.abs() < 0.02, "{what}: {mean} instead of {theory}");
}

fn erlang(rho: f64, workers: u32, slots: u32, tasks: u32) {
    let case = Case {
        sizes: Sizes::Exponential,
        rho,
        workers,
        slots,
        tasks,
    };
    let servers = case.servers();
    let waits = erlang_c(rho, servers);
    let (means, shares) = case.measure();
    let mean = waits * SIZE / (f64::from(servers) * (1.0 - rho));
    near(&format!("M/M/{servers} at {rho}, mean wait"), &means, mean);
    near(
        &format!("M/M/{servers} at {rho}, share that waits"),
        &shares,
        waits,
    );
}

#[test]
fn erlang_c_is_known_for_one_and_two_servers() {
    assert!((erlang_c(0.7, 1) - 0.7).abs() < 1e-12);
    assert!((erlang_c(0.7, 2) - 2.0 * 0.49 / 1.7).abs() < 1e-12);
}

#[test]
fn one_server_waits_as_erlang_says() {
    erlang(0.5, 1, 1, 60_000);
}

#[test]
fn four_servers_wait_as_erlang_says() {
    erlang(0.7, 4, 1, 140_000);
}

#[test]
fn servers_in_workers_of_four_slots_wait_as_erlang_says() {
    erlang(0.8, 3, 4, 170_000);
}

#[test]
fn two_servers_wait_as_erlang_says() {
    erlang(0.7, 2, 1, 90_000);
}

/// Tasks of one size wait half as long as exponential ones: Pollaczek and Khinchine.
#[test]
fn tasks_of_one_size_wait_half_as_long() {
    let rho = 0.7;
    let case = Case {
        sizes: Sizes::Constant,
        rho,
        workers: 1,
        slots: 1,
        tasks: 50_000,
    };
    let (means, shares) = case.measure();
    near("M/D/1, mean wait", &means, rho * SIZE / (2.0 * (1.0 - rho)));
    near("M/D/1, share that waits", &shares, rho);
}
