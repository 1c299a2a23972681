//! Poolwright's own cycle on simulated fleets.
#![allow(missing_docs, clippy::unwrap_used)]

use poolwright_api::v1alpha1::Schedule;
use poolwright_sim::outcome::quantile;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scenario::{Scenario, Task};
use poolwright_sim::world::run;

fn burst(count: usize, service: u64) -> Vec<Task> {
    let task = |at: usize| Task {
        arrives: 1000 + at as u64 / 10,
        service,
        queue: 0,
        failures: 0,
    };
    (0..count).map(task).collect()
}

fn backlog() -> Settings {
    Settings {
        wait_target: false,
        ..Settings::default()
    }
}

/// Two hundred tasks of a minute on one worker of 32 slots: six full waves and one of eight.
#[test]
fn two_hundred_tasks_on_thirty_two_slots_take_seven_waves() {
    let mut scenario = Scenario::plain("waves", 600_000, burst(200, 60_000));
    scenario.fleets[0].slots = 32;
    scenario.fleets[0].bounds = (0, 1);
    let outcome = run(&scenario, &mut Poolwright::new(&scenario, backlog()), 1);
    assert_eq!((outcome.undone, outcome.killed), (0, 0));
    let waits = outcome.sorted_waits();
    let waves: std::collections::BTreeSet<u64> = waits.iter().map(|wait| wait / 60_000).collect();
    assert_eq!(waves.len(), 7, "{waves:?}");
    println!(
        "longest {} s, {:.2} slot-hours",
        quantile(&waits, 1.0) / 1000,
        outcome.slot_hours()
    );
}

/// The time of day is that of the scenario.
#[test]
fn a_schedule_is_kept_at_its_time_of_day() {
    let mut scenario = Scenario::plain("schedule", 1_200_000, burst(1, 1000));
    scenario.begins = "2027-01-04T06:58:00Z".parse().unwrap();
    let spec = Schedule {
        name: "day".to_owned(),
        cron: "0 8 * * MON".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        duration_seconds: 300,
        min_replicas: 3,
    };
    let read = poolwright_core::schedule::Schedule::new(&spec).unwrap();
    scenario.fleets[0].schedules = [read].into();
    let outcome = run(&scenario, &mut Poolwright::new(&scenario, backlog()), 1);
    let to = |least: u32| {
        let mut changes = outcome.changes.iter().filter(move |one| one.to >= least);
        (changes.next().map(|one| one.at), changes.next().map(|one| one.at))
    };
    assert_eq!(outcome.peak, [3], "{:?}", outcome.changes);
    assert_eq!(to(3), (Some(120_000), None), "{:?}", outcome.changes);
    let last = outcome.changes.last().unwrap();
    assert!(
        last.to == 0 && (480_000..500_000).contains(&last.at),
        "{:?}",
        outcome.changes
    );
}

#[test]
fn a_burst_starts_what_it_needs_at_once_and_all_of_it_goes_again() {
    let scenario = Scenario::plain("burst", 1_200_000, burst(400, 20_000));
    let outcome = run(&scenario, &mut Poolwright::new(&scenario, backlog()), 1);
    assert_eq!((outcome.undone, outcome.killed, outcome.drained_busy), (0, 0, 0));
    assert_eq!(outcome.peak, [100]);
    assert_eq!(outcome.changes.last().unwrap().to, 0);
    println!("{:?} {:.2} slot-hours", outcome.changes, outcome.slot_hours());
}

/// What comes at once says nothing of what comes next, however short the past is that it is a part of.
#[test]
fn workers_of_one_small_burst_go_soon_after_it() {
    let mut scenario = Scenario::plain("small", 1_200_000, burst(15, 7_600));
    scenario.fleets[0].slots = 2;
    let outcome = run(&scenario, &mut Poolwright::new(&scenario, Settings::default()), 1);
    assert_eq!((outcome.undone, outcome.killed, outcome.drained_busy), (0, 0, 0));
    let last = outcome.changes.last().unwrap();
    let over = outcome.done.iter().flatten().max().unwrap();
    println!("over after {} s, {:?}", over / 1000, outcome.changes);
    assert!(last.to == 0 && last.at < over + 75_000, "{:?}", outcome.changes);
}
