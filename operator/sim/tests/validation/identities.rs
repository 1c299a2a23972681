//! What holds exactly, in every run, whatever a scaler does.

use proptest::prelude::*;

use super::watch::{Setting, watch};

fn setting() -> impl Strategy<Value = Setting> {
    let prefetch = prop::sample::select(vec![1, 4]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (any::<u64>(), prefetch, 1_u32..4, flags).prop_map(|(seed, prefetch, slots, (late, kills, fails))| {
        Setting {
            seed,
            late,
            prefetch,
            slots,
            kills,
            fails,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    /// Tasks are conserved: each ends well once, as long after its last start as it takes.
    #[test]
    fn every_task_ends_once(setting in setting()) {
        let (scenario, outcome, _) = watch(setting);
        prop_assert_eq!(outcome.undone, 0);
        for (at, task) in scenario.tasks.iter().enumerate() {
            let done = outcome.done[at].unwrap();
            let takes = outcome.waits[at].unwrap() + task.service;
            if task.failures == 0 {
                prop_assert_eq!(done, task.arrives + takes);
            } else {
                prop_assert!(done >= task.arrives + takes + 2 * (task.service + scenario.retry_after));
            }
        }
    }

    /// Costs are conserved: slots are paid for while their pods are there, and slots work or waste while they are busy.
    #[test]
    fn costs_are_the_integrals_of_slots(setting in setting()) {
        let (scenario, outcome, seen) = watch(setting);
        prop_assert_eq!(outcome.slot_millis, seen.slots);
        prop_assert_eq!(outcome.work_millis + outcome.wasted_millis, seen.busy);
        let runs = scenario.tasks.iter().map(|task| u128::from(task.service) * (1 + u128::from(task.failures)));
        prop_assert_eq!(outcome.work_millis, runs.sum::<u128>());
    }

    /// Little's law, as an identity of a whole run: the time-integral of the number that waits is the sum of all waits.
    /// A task that is killed or fails waits again and keeps its last wait only, so that none may.
    #[test]
    fn the_number_that_waits_is_the_sum_of_waits(setting in setting()) {
        let (_, outcome, seen) = watch(Setting { kills: false, fails: false, ..setting });
        let waits: u128 = outcome.waits.iter().map(|wait| u128::from(wait.unwrap())).sum();
        prop_assert_eq!(waits, seen.waiting);
        prop_assert!(waits > 0);
    }

    /// One scenario, one seed, one outcome.
    #[test]
    fn a_run_can_be_repeated(setting in setting()) {
        prop_assert_eq!(watch(setting).1, watch(setting).1);
    }
}

/// The properties above would hold of runs in which nothing happens, so this says that it does.
#[test]
fn the_runs_are_eventful() {
    for (late, prefetch) in [(true, 1), (true, 4), (false, 1), (false, 4)] {
        let setting = Setting {
            seed: 1,
            late,
            prefetch,
            slots: 2,
            kills: true,
            fails: true,
        };
        let (_, outcome, _) = watch(setting);
        assert!(outcome.killed >= 5, "{setting:?}: {} killed", outcome.killed);
        assert!(outcome.drained_busy >= 10, "{setting:?}");
        assert!(
            outcome.reversals.iter().all(|changes| *changes >= 5),
            "{setting:?}"
        );
    }
}
