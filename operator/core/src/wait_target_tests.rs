use proptest::prelude::*;

use super::*;

fn sight() -> Sight {
    Sight {
        waiting: 0.0,
        age: 0.0,
        busy: 0.0,
        rate: 0.0,
        service: 10.0,
        coming_service: 10.0,
        waiting_service: 10.0,
        start_up: 30.0,
        slots: 4.0,
        up: 0.0,
        starting: 0.0,
        starting_for: 0.0,
        quiet: 0.0,
        target: 30.0,
    }
}

fn lasting(service: f64) -> Sight {
    Sight {
        service,
        coming_service: service,
        waiting_service: service,
        ..sight()
    }
}

#[test]
fn nothing_needs_nothing_and_one_task_one_worker() {
    assert_eq!(desired(&sight(), 0).pods, 0);
    let one = Sight {
        waiting: 1.0,
        ..sight()
    };
    assert_eq!(desired(&one, 0).pods, 1);
    let runs = Sight { busy: 1.0, ..sight() };
    assert_eq!(desired(&runs, 0).pods, 1);
}

/// A burst of fifteen a minute ago is no stream of one each four seconds: three would have to come in the time in which
/// none has. While something is to be done, the load is not doubted.
#[test]
fn a_load_that_stays_away_is_not_kept_for() {
    let idle = |quiet| Sight {
        rate: 0.25,
        quiet,
        up: 1.0,
        ..sight()
    };
    assert_eq!(desired(&idle(59.0), 0).term, Term::Steady);
    assert_eq!(desired(&idle(61.0), 0).term, Term::Nothing);
    let works = Sight {
        busy: 1.0,
        ..idle(61.0)
    };
    let wish = desired(&works, 0);
    assert_eq!(wish, desired(&Sight { quiet: 0.0, ..works }, 0));
    assert!(wish.steady > 2.0, "{wish:?}");
}

/// Two tasks a second of ten seconds: twenty slots work, and a few more keep the wait low.
#[test]
fn steady_load_gets_its_slots_and_a_few_to_spare() {
    let busy = Sight {
        busy: 20.0,
        rate: 2.0,
        up: 6.0,
        ..sight()
    };
    let wish = desired(&busy, 0);
    assert_eq!(wish.term, Term::Steady);
    assert!((21.0..=26.0).contains(&wish.steady), "{wish:?}");
    assert_eq!(wish.pods, 6);
}

/// Against Erlang's formula for twenty erlangs and one standard deviation to spare (0.18).
#[test]
fn the_probability_of_waiting_is_halfin_and_whitts() {
    assert!(
        (delay_probability(1.0) - 0.2234).abs() < 1e-3,
        "{}",
        delay_probability(1.0)
    );
    assert!(delay_probability(40.0).abs() < 1e-12);
    assert!((delay_probability(0.0) - 1.0).abs() < 1e-12);
}

/// The least number that keeps the target: by Halfin and Whitt's formula written down anew, one slot fewer would let more
/// than one task in twenty wait longer, or would be less than the load.
#[test]
fn one_slot_fewer_than_the_staffing_misses_the_target() {
    for load in [0.3_f64, 1.0, 2.5, 7.0, 20.0, 64.0, 300.5] {
        for (service, wait) in [
            (1.0, 15.0),
            (10.0, 15.0),
            (10.0, 1.0),
            (600.0, 15.0),
            (600.0, 300.0),
        ] {
            let late = |slots: f64| {
                let spare = slots - load;
                delay_probability(spare / load.sqrt()) * (-spare * wait / service).exp()
            };
            let slots = staff(load, service, wait);
            let what = format!("{slots} for {load} of {service} s within {wait} s");
            assert!(slots > load && late(slots) <= 0.05, "{what}: {}", late(slots));
            let fewer = slots - 1.0;
            assert!(fewer <= load || late(fewer) > 0.05, "{what}: {}", late(fewer));
        }
    }
}

/// A hundred tasks of a second and one worker that is up: it does them sooner than others could come.
#[test]
fn a_burst_that_is_done_before_others_are_up_is_not_chased() {
    let burst = Sight {
        waiting: 100.0,
        up: 1.0,
        ..lasting(1.0)
    };
    assert_eq!(desired(&burst, 0).pods, 1);
    let long = Sight {
        waiting: 100.0,
        up: 1.0,
        ..lasting(60.0)
    };
    assert!(desired(&long, 0).pods > 10, "{:?}", desired(&long, 0));
    // What is known of other queues' tasks does not hide it.
    let mixed = Sight {
        service: 1.0,
        coming_service: 1.0,
        ..long
    };
    assert!(desired(&mixed, 0).pods > 10, "{:?}", desired(&mixed, 0));
}

#[test]
fn a_floor_is_kept_only_where_it_pays() {
    let every = Duration::from_secs(30);
    let busy = |at: u32| if at.is_multiple_of(4) { 40 } else { 0 };
    assert!(floor((0..120).map(busy).collect::<Vec<_>>().into_iter(), every, 30.0, 4) == 10);
    let rare = |at: u32| if at == 60 { 40 } else { 0 };
    assert_eq!(
        floor((0..120).map(rare).collect::<Vec<_>>().into_iter(), every, 30.0, 4),
        0
    );
    assert_eq!(
        floor((0..10).map(busy).collect::<Vec<_>>().into_iter(), every, 30.0, 4),
        0,
        "too little is known"
    );
}

prop_compose! {
    fn any_sight()(
        waiting in prop_oneof![Just(0u32), 0u32..2000],
        age in 0.0f64..600.0,
        busy in 0u32..400,
        rate in prop_oneof![Just(0.0), 0.0f64..50.0],
        service in prop_oneof![Just(0.0), 0.01f64..5000.0],
        coming_service in prop_oneof![Just(0.0), 0.01f64..5000.0],
        waiting_service in prop_oneof![Just(0.0), 0.01f64..5000.0],
        start_up in 0.0f64..400.0,
        slots in 1u32..64,
        up in 0u32..100,
        starting in 0u32..100,
        starting_for in 0.0f64..100.0,
        quiet in prop_oneof![Just(0.0), 0.0f64..4000.0],
        target in 1.0f64..600.0,
    ) -> Sight {
        Sight {
            waiting: f64::from(waiting),
            age,
            busy: f64::from(busy.min(up * slots)),
            rate,
            service,
            coming_service,
            waiting_service,
            start_up,
            slots: f64::from(slots),
            up: f64::from(up),
            starting: f64::from(starting),
            starting_for,
            quiet,
            target,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn is_bounded_by_the_tasks_that_there_can_be(sight in any_sight(), floor in 0u32..50) {
        let wish = desired(&sight, floor);
        // Written out here anew: what runs and waits, and what comes meanwhile with two standard deviations.
        let come = sight.rate * sight.start_up;
        let tasks = sight.busy + sight.waiting + come + 2.0 * come.sqrt();
        let most = whole(tasks.ceil() / sight.slots).max(floor).max(u32::from(sight.waiting + sight.busy > 0.0));
        prop_assert!(wish.pods <= most, "{wish:?} above {most}");
        prop_assert!(wish.steady.is_finite() && wish.backlog.is_finite());
        prop_assert!(wish.pods >= u32::from(sight.waiting + sight.busy > 0.0));
        prop_assert!(wish.pods >= floor);
    }

    /// Nothing is expected where nothing comes, and where not even three tasks in the time in which none came would be a
    /// load.
    #[test]
    fn nothing_to_do_and_nothing_expected_asks_for_none(sight in any_sight(), comes in any::<bool>()) {
        let idle = Sight { waiting: 0.0, busy: 0.0, ..sight };
        let nothing = if comes {
            Sight { quiet: 1.001 * MISSED * idle.coming_service / NO_LOAD, ..idle }
        } else {
            Sight { rate: 0.0, ..idle }
        };
        let wish = desired(&nothing, 0);
        prop_assert_eq!((wish.pods, wish.term), (0, Term::Nothing), "{:?}", nothing);
    }

    #[test]
    fn more_backlog_never_needs_less(sight in any_sight(), more in 1u32..500) {
        let longer = Sight { waiting: sight.waiting + f64::from(more), ..sight };
        prop_assert!(desired(&longer, 0).pods >= desired(&sight, 0).pods, "{sight:?}");
    }
}

/// Beyond some number the next slot cannot be told from it: the search must end all the same.
#[test]
fn an_absurd_load_is_answered_too() {
    let absurd = Sight {
        rate: 1e15,
        service: 1e6,
        ..sight()
    };
    let slots = staff(absurd.rate * absurd.service, absurd.service, 15.0);
    assert!((SLOTS_MAX..2.0 * SLOTS_MAX).contains(&slots), "{slots}");
    assert!(desired(&absurd, 0).steady.is_finite());
}
