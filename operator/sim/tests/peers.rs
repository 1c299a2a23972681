//! The peers against hand-worked examples: of the documentation of their systems where it has some, of its rule where
//! it has none. A peer that is weaker than its system would make every comparison with it worthless.

use poolwright_sim::outcome::Outcome;
use poolwright_sim::peers::hpa::{Behaviour, Controller, Metric, desired};
use poolwright_sim::peers::keda::{self, Keda};
use poolwright_sim::peers::kpa::{self, Kpa};
use poolwright_sim::peers::sqs::{self, Sqs};
use poolwright_sim::peers::view::{Reading, Rule, View};
use poolwright_sim::peers::{Entry, Grace, Settings, all, defaults, fixed};
use poolwright_sim::scenario::{Fault, FaultKind, Millis, Scenario, Task};
use poolwright_sim::world::run;

/// A fleet of four slots, of which all pods are up.
fn view(now: Millis, pods: u32, ready: u64, held: u64) -> View {
    View {
        now,
        wanted: pods,
        up: pods,
        slots: 4,
        bounds: (0, 1_000),
        reading: Some(Reading {
            ready,
            unacked: held,
            held,
            running: held,
            published: 0,
        }),
    }
}

fn blind(now: Millis, pods: u32) -> View {
    View {
        reading: None,
        ..view(now, pods, 0, 0)
    }
}

/// Tasks of one length, so many at each of these times.
fn tasks(at: &[(Millis, usize)], service: Millis) -> Vec<Task> {
    let task = |arrives| Task {
        arrives,
        service,
        queue: 0,
        failures: 0,
    };
    at.iter()
        .flat_map(|(at, count)| vec![task(*at); *count])
        .collect()
}

/// When the fleet's number changed, and to what.
fn numbers(outcome: &Outcome) -> Vec<(Millis, u32)> {
    outcome
        .changes
        .iter()
        .map(|change| (change.at, change.to))
        .collect()
}

fn play(settings: &Settings, scenario: &Scenario) -> Outcome {
    let mut scaler = settings.build(scenario);
    run(scenario, scaler.as_mut(), 7)
}

mod hpa {
    use super::{Behaviour, Controller, Metric, Reading, desired};

    /// Documentation of the horizontal pod autoscaler, "Algorithm details": twice the wanted value doubles the pods
    /// (200m / 100m = 2.0), half of it halves them, and close to 1.0 (tolerance 0.1) nothing happens.
    #[test]
    fn the_ratio_counts_beyond_the_tolerance_only() {
        // 10 pods, target 100 each, 2 000 in all: ratio 2.0.
        assert_eq!(desired(10, 2_000.0, 100.0, 0.1), 20);
        // 500 in all: ratio 0.5.
        assert_eq!(desired(10, 500.0, 100.0, 0.1), 5);
        // 1 100 in all: ratio 1.1, within; 1 101: 1.101, ⌈11.01⌉.
        assert_eq!(desired(10, 1_100.0, 100.0, 0.1), 10);
        assert_eq!(desired(10, 1_101.0, 100.0, 0.1), 12);
        // 900 in all: ratio 0.9, within; 899: 0.899, ⌈8.99⌉.
        assert_eq!(desired(10, 900.0, 100.0, 0.1), 10);
        assert_eq!(desired(10, 899.0, 100.0, 0.1), 9);
    }

    /// Default behaviour: the larger of +100 % and +4 pods in 15 s. 1 → 5 (4 pods), 10 (100 %), 20, 40, 80, 100.
    #[test]
    fn it_grows_by_four_and_then_doubles() {
        let mut controller = Controller::new(Behaviour::default());
        let mut pods = 1;
        for (sync, expected) in (0..).zip([5, 10, 20, 40, 80, 100, 100]) {
            pods = controller.sync(sync * 15_000, pods, Some(500.0), 5.0, (1, 1_000));
            assert_eq!(pods, expected);
        }
    }

    /// KEP-853, "scale up as fast as possible": 900 % in 60 s gives 1 → 10 → 100 → 1 000.
    #[test]
    fn a_policy_of_percent_counts_from_the_begin_of_its_period() {
        let mut controller = Controller::new(Behaviour {
            up_percent: 900,
            up_pods: 0,
            up_period: 60_000,
            ..Behaviour::default()
        });
        let mut pods = 1;
        let mut seen = Vec::new();
        for sync in 0..12 {
            pods = controller.sync(sync * 15_000, pods, Some(5_000.0), 1.0, (1, 1_000));
            seen.push(pods);
        }
        assert_eq!(
            seen,
            [10, 10, 10, 10, 100, 100, 100, 100, 1_000, 1_000, 1_000, 1_000]
        );
    }

    /// Documentation, "Scaling policies": 4 pods or 10 % in 60 s, the larger. From 80, 10 % are 8; from 72 they are
    /// 7.2, rounded up to 8; from 64, 6.4, so 7; once it is 40 or fewer, 4 pods are more than 10 %.
    #[test]
    fn a_scale_down_may_be_limited_by_pods_or_percent() {
        let slow = Behaviour {
            down_percent: 10,
            down_pods: 4,
            down_period: 60_000,
            down_window: 0,
            ..Behaviour::default()
        };
        let mut controller = Controller::new(slow.clone());
        let mut pods = 80;
        for (sync, expected) in (0..).zip([72, 72, 72, 72, 64, 64, 64, 64, 57]) {
            pods = controller.sync(sync * 15_000, pods, Some(50.0), 5.0, (1, 1_000));
            assert_eq!(pods, expected);
        }
        assert_eq!(Controller::new(slow).sync(0, 30, Some(50.0), 5.0, (1, 1_000)), 26);
    }

    /// Documentation, "Stabilization window": 300 s down by default, the highest recommendation of the window counts.
    #[test]
    fn it_shrinks_to_the_highest_recommendation_of_five_minutes() {
        let mut controller = Controller::new(Behaviour::default());
        let bounds = (1, 1_000);
        // 20 are right at 0; from 15 s on 2, but for 8 at 30 s.
        assert_eq!(controller.sync(0, 20, Some(100.0), 5.0, bounds), 20);
        for sync in 1..20 {
            let metric = if sync == 2 { 40.0 } else { 10.0 };
            assert_eq!(controller.sync(sync * 15_000, 20, Some(metric), 5.0, bounds), 20);
        }
        // At 300 s the recommendation of 0 s is 300 s old and out; the highest is the 8 of 30 s, for two syncs.
        assert_eq!(controller.sync(300_000, 20, Some(10.0), 5.0, bounds), 8);
        assert_eq!(controller.sync(315_000, 8, Some(10.0), 5.0, bounds), 8);
        assert_eq!(controller.sync(330_000, 8, Some(10.0), 5.0, bounds), 2);
    }

    /// Documentation, "Implicit maintenance-mode deactivation": at 0 replicas it stops adjusting. Without the metric it
    /// changes nothing, and it never goes below the least, which is 1.
    #[test]
    fn it_rests_at_zero_and_without_a_reading() {
        let mut controller = Controller::new(Behaviour {
            down_window: 0,
            ..Behaviour::default()
        });
        assert_eq!(controller.sync(0, 0, Some(500.0), 5.0, (1, 1_000)), 0);
        assert_eq!(controller.sync(15_000, 7, None, 5.0, (1, 1_000)), 7);
        assert_eq!(controller.sync(30_000, 7, Some(0.0), 5.0, (1, 1_000)), 1);
    }

    /// Airflow's chart: `SELECT ceil(COUNT(*)::decimal / 16) … (state='running' OR state='queued')`: 33 tasks are 3
    /// pods of 16. RabbitMQ's `messages` are ready + unacked, without what runs though it was acknowledged.
    #[test]
    fn each_metric_counts_what_its_source_counts() {
        let reading = Reading {
            ready: 20,
            unacked: 3,
            held: 13,
            running: 10,
            published: 100,
        };
        let whole = |metric: Metric, slots| format!("{:.1}", metric.value(&reading, slots));
        assert_eq!(whole(Metric::Query, 16), "3.0");
        assert_eq!(whole(Metric::Query, 32), "2.0");
        assert_eq!(whole(Metric::Query, 33), "1.0");
        assert_eq!(whole(Metric::Waiting, 16), "20.0");
        assert_eq!(whole(Metric::Unacknowledged, 16), "23.0");
    }
}

mod keda_rule {
    use super::{
        Fault, FaultKind, Keda, Rule, Scenario, Settings, View, blind, keda, numbers, play, tasks, view,
    };

    /// `ScaledObject` specification: active means above `activationListLength`, 0 by default; 0 → 1 is KEDA's own.
    #[test]
    fn a_poll_wakes_the_first_pod_above_the_activation() {
        let mut rule = Keda::new(keda::Settings::redis());
        assert_eq!(rule.decide(&view(0, 0, 0, 0)), None);
        // Only polls look: 15 s is none. The poll at 30 s wakes one pod however much waits.
        assert_eq!(rule.decide(&view(15_000, 0, 1_000, 0)), None);
        assert_eq!(rule.decide(&view(30_000, 0, 1_000, 0)), Some(1));
        // The next sync, at 37.5 s, wants 200 and adds 4.
        assert_eq!(rule.decide(&view(37_500, 1, 1_000, 0)), Some(5));

        let mut rule = Keda::new(keda::Settings {
            activation: 10.0,
            ..keda::Settings::redis()
        });
        assert_eq!(rule.decide(&view(0, 0, 10, 0)), None);
        assert_eq!(rule.decide(&view(30_000, 0, 11, 0)), Some(1));
    }

    /// `ScaledObject` specification: `cooldownPeriod`, 300 s, from the last time that a trigger was active, and only to
    /// 0.
    #[test]
    fn a_cool_down_after_the_last_activity_there_are_none() {
        let mut rule = Keda::new(keda::Settings::redis());
        assert_eq!(rule.decide(&view(0, 3, 1, 0)), None);
        for poll in 1..10 {
            assert_eq!(rule.decide(&view(poll * 30_000, 3, 0, 0)), None);
        }
        // Last active at 0, so at 300 s: all at once, though the autoscaler held three.
        assert_eq!(rule.decide(&view(300_000, 3, 0, 0)), Some(0));

        // With a minimum there is no scale to zero.
        let mut rule = Keda::new(keda::Settings::redis());
        let least = |now, pods| View {
            bounds: (2, 10),
            ..view(now, pods, 0, 0)
        };
        assert_eq!(rule.decide(&least(0, 0)), Some(2));
        assert_eq!(rule.decide(&least(600_000, 2)), None);
    }

    /// `scale_scaledobjects.go`: a trigger that errs, without `fallback`, is neither active nor scaled down.
    #[test]
    fn without_a_reading_and_a_fallback_nothing_changes() {
        let mut rule = Keda::new(keda::Settings::redis());
        assert_eq!(rule.decide(&blind(0, 0)), None);
        assert_eq!(rule.decide(&blind(900_000, 3)), None);
        assert_eq!(rule.decide(&blind(907_500, 3)), None);
    }

    /// Redis sees only what waits: three pods whose twelve slots are all busy look idle and are ended; RabbitMQ's and
    /// Airflow's counts hold them.
    #[test]
    fn a_list_makes_busy_workers_look_idle() {
        let pods = |settings: keda::Settings| {
            let mut rule = Keda::new(settings);
            rule.decide(&view(0, 3, 1, 12));
            rule.decide(&view(300_000, 3, 0, 12))
        };
        assert_eq!(pods(keda::Settings::redis()), Some(0));
        assert_eq!(pods(keda::Settings::rabbit()), None);
        assert_eq!(pods(keda::Settings::airflow()), None);
    }

    /// Airflow's database knows what runs, whether or not the broker still holds its message: 80 tasks of 10 min on pods of
    /// four need 20 pods, no more and, until they are done, no fewer.
    #[test]
    fn the_query_counts_each_running_task_once() {
        for late in [true, false] {
            let mut scenario = Scenario::plain("long", 900_000, tasks(&[(1_000, 80)], 600_000));
            scenario.fleets[0].late = late;
            let outcome = play(&Settings::Keda(keda::Settings::airflow()), &scenario);
            assert_eq!(outcome.peak, [20]);
            assert!(
                numbers(&outcome)
                    .iter()
                    .all(|(at, pods)| *pods > 0 || *at > 600_000)
            );
            assert_eq!((outcome.killed, outcome.undone), (0, 0));
        }
    }

    /// 80 tasks of 60 s at 1 s, on pods of four that are up in 30 s. RabbitMQ's count over a target of 4: 20 pods.
    /// Woken at the poll of 30 s; syncs at 37.5, 52.5 and 67.5 s give 5, 10, 20.
    #[test]
    fn from_zero_it_takes_a_poll_and_three_syncs() {
        let mut scenario = Scenario::plain("burst", 400_000, tasks(&[(1_000, 80)], 60_000));
        scenario.start_up[0].spread = 0;
        let outcome = play(&Settings::Keda(keda::Settings::rabbit()), &scenario);
        let up = numbers(&outcome);
        assert_eq!(up[..4], [(30_000, 1), (37_500, 5), (52_500, 10), (67_500, 20)]);
        assert_eq!(outcome.undone, 0);

        // A broker that says nothing from 20 s on keeps it asleep.
        scenario.faults = vec![Fault {
            from: 20_000,
            to: 100_000,
            kind: FaultKind::Silence,
        }];
        let outcome = play(&Settings::Keda(keda::Settings::rabbit()), &scenario);
        assert_eq!(numbers(&outcome)[0], (120_000, 1));
    }
}

mod kpa_rule {
    use super::{Kpa, Rule, blind, kpa, view};

    /// 10 pods of four slots, target 0.7 × 4 = 2.8 each: 28 in the system are 10 pods, stable.
    fn stable() -> Kpa {
        let mut rule = Kpa::new(kpa::Settings::default());
        for tick in 0..30 {
            assert_eq!(rule.decide(&view(tick * 2_000, 10, 0, 28)), Some(10));
        }
        rule
    }

    /// `autoscaler.go`: desired = ⌈mean ÷ target⌉; panic while ⌈mean of 6 s ÷ target⌉ ÷ ready ≥ 2.0.
    #[test]
    fn a_burst_of_the_short_window_is_panic() {
        let mut rule = stable();
        // At 60 s there are 83. The short window is 83, 28, 28: mean 46.3, ⌈16.5⌉ = 17 pods, 1.7 times ready: no panic.
        // The long one, (29 × 28 + 83) ÷ 30 = 29.8: 11 pods.
        assert_eq!(rule.decide(&view(60_000, 10, 55, 28)), Some(11));
        // Then 83, 83, 28: mean 64.7, ⌈23.1⌉ = 24, 2.4 times ready: panic.
        assert_eq!(rule.decide(&view(62_000, 10, 55, 28)), Some(24));
        // And 83 throughout: ⌈29.6⌉.
        assert_eq!(rule.decide(&view(64_000, 10, 55, 28)), Some(30));
    }

    /// The threshold itself is panic: 104, 28, 28 have a mean of 53.3, ⌈19.05⌉ = 20 pods, exactly twice the 10 that are
    /// ready.
    #[test]
    fn twice_the_ready_pods_is_panic_already() {
        let mut rule = stable();
        assert_eq!(rule.decide(&view(60_000, 10, 76, 28)), Some(20));
    }

    /// In panic only increases are applied, until a stable window after the last time over the threshold.
    #[test]
    fn panic_never_shrinks_and_ends_after_the_stable_window() {
        let mut rule = stable();
        for tick in 30..33 {
            rule.decide(&view(tick * 2_000, 10, 55, 28));
        }
        // Over the threshold last at 66 s: 83, 83, 28 at 66, 64 and 62 s is still 2.4 times ready.
        assert_eq!(rule.decide(&view(66_000, 10, 0, 28)), Some(30));
        for tick in 34..=63 {
            assert_eq!(rule.decide(&view(tick * 2_000, 10, 0, 28)), Some(30), "{tick}");
        }
        // Later than 66 + 60 s: stable again, 28 ÷ 2.8 = 10.
        assert_eq!(rule.decide(&view(128_000, 10, 0, 28)), Some(10));
    }

    /// At most half of the ready pods go in a tick (`max-scale-down-rate` 2), and the last one after 30 s of none
    /// wanted.
    #[test]
    fn it_halves_and_holds_the_last_pod_for_the_grace() {
        let mut rule = Kpa::new(kpa::Settings::default());
        assert_eq!(rule.decide(&view(0, 9, 0, 0)), Some(4));
        assert_eq!(rule.decide(&view(2_000, 4, 0, 0)), Some(2));
        assert_eq!(rule.decide(&view(4_000, 2, 0, 0)), Some(1));
        for tick in 3..18 {
            assert_eq!(rule.decide(&view(tick * 2_000, 1, 0, 0)), None, "{tick}");
        }
        // First 0 wanted at 6 s.
        assert_eq!(rule.decide(&view(36_000, 1, 0, 0)), Some(0));
    }

    /// `ErrNoData` makes the result invalid, and nothing is applied.
    #[test]
    fn without_a_sample_in_the_window_nothing_changes() {
        let mut rule = stable();
        // The window still has samples at 116 s, and none at 118 s.
        assert_eq!(rule.decide(&blind(118_000, 10)), None);
        assert_eq!(Kpa::new(kpa::Settings::default()).decide(&blind(0, 10)), None);
    }
}

mod sqs_rule {
    use super::{Scenario, Settings, Sqs, View, blind, numbers, play, sqs, tasks, view};
    use poolwright_sim::peers::view::Rule;

    /// EC2 Auto Scaling guide, "Scaling policy based on Amazon SQS": 1 500 messages, 10 instances, 0.1 s each, 10 s
    /// acceptable: target 10 ÷ 0.1 = 100, backlog 150 for each, so it scales out by five.
    #[test]
    fn it_scales_out_in_proportion_once_the_alarm_has_its_values() {
        let mut rule = Sqs::new(sqs::Settings::default(), 100.0);
        assert_eq!(rule.decide(&view(0, 10, 1_500, 0)), None);
        assert_eq!(rule.decide(&view(60_000, 10, 1_500, 0)), None);
        assert_eq!(rule.decide(&view(120_000, 10, 1_500, 0)), Some(15));
        // The five that start are not in service: no further ones for the same backlog.
        let starting = View {
            up: 10,
            ..view(180_000, 15, 1_500, 0)
        };
        assert_eq!(rule.decide(&starting), None);
    }

    /// In only after 15 values under 0.9 of the target, a tenth at a time; between 90 and 100 nothing happens.
    #[test]
    fn it_scales_in_late_and_gradually() {
        let mut rule = Sqs::new(sqs::Settings::default(), 100.0);
        for minute in 0..14 {
            assert_eq!(rule.decide(&view(minute * 60_000, 20, 0, 80)), None);
        }
        assert_eq!(rule.decide(&view(840_000, 20, 0, 80)), Some(18));
        assert_eq!(rule.decide(&view(900_000, 18, 0, 72)), Some(17));
        // Exactly 90 is not below, and at exactly 100 the number is right.
        for ready in [1_800, 1_900, 2_000] {
            let mut rule = Sqs::new(sqs::Settings::default(), 100.0);
            for minute in 0..60 {
                assert_eq!(rule.decide(&view(minute * 60_000, 20, ready, 0)), None);
            }
        }
    }

    /// Without data an alarm has no state, and at no instance only a waiting message starts one.
    #[test]
    fn missing_values_and_no_instance() {
        let mut rule = Sqs::new(sqs::Settings::default(), 100.0);
        rule.decide(&view(0, 10, 1_500, 0));
        rule.decide(&view(60_000, 10, 1_500, 0));
        assert_eq!(rule.decide(&blind(120_000, 10)), None);
        assert_eq!(rule.decide(&view(180_000, 10, 1_500, 0)), None);
        assert_eq!(rule.decide(&view(240_000, 0, 0, 0)), None);
        assert_eq!(rule.decide(&view(300_000, 0, 1, 0)), Some(1));
    }

    /// The target of a scenario: wait target 30 s, four slots, tasks of 5 s: 30 × 4 ÷ 5 = 24 for each pod. 240 tasks at
    /// 1 s: one pod at 60 s, up at 90 s, works on four every 5 s; at 120, 180 and 240 s more than 24 wait for the one
    /// that is up. 16 more are gone each 20 s: at 240 s it is 240 − 4 × 31 = 116, ⌈116 ÷ 24⌉ = 5.
    #[test]
    fn the_target_comes_from_the_scenario() {
        let mut scenario = Scenario::plain("sqs", 600_000, tasks(&[(1_000, 240)], 5_000));
        scenario.start_up[0].spread = 0;
        let outcome = play(&Settings::Sqs(sqs::Settings::default()), &scenario);
        assert_eq!(numbers(&outcome)[..2], [(60_000, 1), (240_000, 5)]);
    }
}

#[test]
fn every_peer_does_all_work_and_repeats_itself() {
    let bursts: Vec<(Millis, usize)> = (0..40)
        .zip((1..14).cycle())
        .map(|(at, count)| (at * 20_000, count))
        .collect();
    let scenario = Scenario::plain("mixed", 900_000, tasks(&bursts, 9_000));
    for entry in all() {
        let outcome = || {
            let (scenario, mut scaler) = entry.on(&scenario);
            run(&scenario, scaler.as_mut(), 3)
        };
        let once = outcome();
        assert_eq!(once.undone, 0, "{}", entry.name());
        assert!(once.slot_millis > 0, "{}", entry.name());
        assert_eq!(once, outcome(), "{}", entry.name());
        if entry.grace == Grace::Unlimited {
            assert_eq!(once.killed, 0, "{}", entry.name());
        }
    }
}

#[test]
fn every_grid_is_small_without_repeats_and_has_the_default() {
    for settings in defaults() {
        let grid = settings.grid();
        // Each of them is run on the workloads that it is tuned on, with some seeds each.
        assert!(grid.len() <= 72, "{} has {}", settings.name(), grid.len());
        assert!(grid.contains(&settings), "{}", settings.name());
        for (at, one) in grid.iter().enumerate() {
            assert_eq!(one.name(), settings.name());
            assert!(!grid[..at].contains(one), "{one:?}");
        }
    }
    let mut names: Vec<String> = all().iter().map(Entry::name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), count), (24, 24));
}

#[test]
fn a_fixed_number_stays_within_the_bounds_of_its_fleet_and_is_flat() {
    let mut scenario = Scenario::plain("flat", 600_000, tasks(&[(0, 4)], 10_000));
    scenario.fleets[0].bounds = (1, 3);
    let outcome = play(&Settings::Celery(fixed::Size::Pods(9)), &scenario);
    assert_eq!(numbers(&outcome), [(0, 3)]);
    // Three pods of four slots for the whole length of 600 s.
    assert_eq!(outcome.slot_millis, 3 * 4 * 600_000);
}
