use crate::estimate::Counts;

use super::*;

/// So long after a time before which nothing was seen.
const fn at(seconds: u64) -> Moment {
    Moment((100_000 + seconds) * 1000)
}

/// Ten workers of one slot, nine of them busy.
fn ten() -> Sight {
    Sight {
        waiting: 0.0,
        age: 0.0,
        busy: 9.0,
        rate: 0.9,
        service: 10.0,
        coming_service: 10.0,
        waiting_service: 10.0,
        start_up: 30.0,
        slots: 1.0,
        up: 8.0,
        starting: 2.0,
        starting_for: 0.0,
        quiet: 0.0,
        target: 30.0,
    }
}

fn wish(pods: u32, term: Term) -> Wish {
    let slots = f64::from(pods);
    Wish {
        pods,
        needed: pods,
        term,
        steady: slots,
        unbounded: slots,
        backlog: 0.0,
        uncut: 0.0,
        floor: 0,
    }
}

#[test]
fn a_little_more_for_the_load_alone_must_last_a_minute_and_tasks_must_wait() {
    let memory = &mut PoolMemory::default();
    let eleven = wish(11, Term::Steady);
    let waits = |age| Sight { age, ..ten() };
    let mut pods = |sight: &Sight, wish: &Wish, second| steadied(sight, wish, memory, at(second));
    assert_eq!(pods(&waits(7.6), &eleven, 0), 10);
    assert_eq!(pods(&waits(7.6), &eleven, 59), 10);
    assert_eq!(
        pods(&waits(7.5), &eleven, 60),
        10,
        "not for a quarter of the target"
    );
    assert_eq!(pods(&waits(0.0), &eleven, 600), 10);
    assert_eq!(pods(&waits(7.6), &eleven, 601), 11);
    // In between it was not wanted.
    assert_eq!(pods(&waits(7.6), &wish(10, Term::Steady), 602), 10);
    assert_eq!(pods(&waits(7.6), &eleven, 603), 10);
    assert_eq!(pods(&waits(7.6), &eleven, 662), 10);
    assert_eq!(pods(&waits(7.6), &eleven, 663), 11);
}

#[test]
fn what_is_much_or_waits_or_is_late_or_the_first_does_not_wait() {
    let memory = &mut PoolMemory::default();
    let mut pods = |sight: &Sight, wish: &Wish| steadied(sight, wish, memory, at(0));
    assert_eq!(pods(&ten(), &wish(12, Term::Steady)), 12, "more than a tenth");
    assert_eq!(pods(&ten(), &wish(11, Term::Backlog)), 11);
    let late = Sight { age: 15.1, ..ten() };
    assert_eq!(pods(&late, &wish(11, Term::Steady)), 11);
    let none = Sight {
        up: 0.0,
        starting: 0.0,
        ..ten()
    };
    assert_eq!(pods(&none, &wish(1, Term::Steady)), 1);
}

#[test]
fn a_little_less_must_suffice_for_a_minute_or_two_start_up_times() {
    let memory = &mut PoolMemory::default();
    let mut pods = |sight: &Sight, hold, second| kept(sight, hold, memory, at(second));
    assert_eq!(pods(&ten(), 9, 0), 10);
    assert_eq!(pods(&ten(), 9, 59), 10);
    assert_eq!(pods(&ten(), 9, 60), 0);
    assert_eq!(pods(&ten(), 10, 61), 0);
    assert_eq!(pods(&ten(), 9, 62), 10, "it begins anew");
    assert_eq!(pods(&ten(), 8, 63), 0, "more than a tenth");
    let idle = Sight { busy: 0.0, ..ten() };
    assert_eq!(pods(&idle, 9, 64), 0);
    let one = Sight {
        up: 1.0,
        starting: 0.0,
        ..ten()
    };
    assert_eq!(pods(&one, 0, 65), 0, "nothing needs it");
    for (start_up, long) in [(100.0, 200), (6000.0, 600)] {
        let slow = Sight { start_up, ..ten() };
        assert_eq!(pods(&slow, 9, 1000), 10);
        assert_eq!(pods(&slow, 9, 1000 + long - 1), 10);
        assert_eq!(pods(&slow, 9, 1000 + long), 0);
        assert_eq!(pods(&slow, 10, 2000), 0);
    }
}

#[test]
fn whoever_is_at_work_stays_while_tasks_wait() {
    let waits = |waiting| Sight { waiting, ..ten() };
    assert_eq!(kept_at_work(&waits(0.0), 10.0), 0);
    assert_eq!(kept_at_work(&waits(1.0), 10.0), 10);
    assert_eq!(kept_at_work(&waits(5.0), 10.0), 10, "there are no more");
    assert_eq!(kept_at_work(&waits(5.0), 3.0), 3);
    let rest = Sight {
        busy: 3.0,
        ..waits(2.0)
    };
    assert_eq!(kept_at_work(&rest, 10.0), 5, "the others have nothing to do");
    assert_eq!(kept_at_work(&Sight { slots: 4.0, ..rest }, 10.0), 2);
}

#[test]
fn chance_is_no_change_of_a_rate() {
    // Sixty are expected: up to 26 more or less are chance.
    for (arrived, is) in [
        (60.0, false),
        (85.0, false),
        (86.0, true),
        (34.0, true),
        (35.0, false),
    ] {
        assert_eq!(is_sudden((arrived, 60.0), 1.0), is, "{arrived}");
    }
    assert!(!is_sudden((2.0, 60.0), 0.0) && is_sudden((3.0, 60.0), 0.0));
}

/// Tasks of a second that come as `arrivals` says for each second, and wait for nobody.
fn estimates(arrivals: impl Iterator<Item = u64>) -> (Estimates, Moment) {
    let (mut estimates, mut started, mut last) = (Estimates::default(), 0, 0);
    for (second, come) in (0..).zip(arrivals) {
        (started, last) = (started + come, second);
        let counts = Counts {
            waiting: 0,
            busy: come,
            started,
        };
        estimates.observe(counts, Some(0), at(second));
    }
    (estimates, at(last))
}

fn is_near(rate: f64, expected: f64) {
    assert!((rate / expected - 1.0).abs() < 0.1, "{rate}, and not {expected}");
}

/// Of a young past only what each third of it says justifies anything; all of it may be true.
#[test]
fn a_burst_in_a_young_past_is_no_stream_yet() {
    let after = |arrivals: &mut dyn Iterator<Item = u64>| {
        let (estimates, now) = estimates(arrivals);
        let (sure, perhaps, _) = rates(&estimates, now);
        (sure, perhaps)
    };
    let (sure, perhaps) = after(&mut [0, 60].into_iter().chain([0; 28]));
    assert!(sure.abs() < 1e-9 && perhaps > 2.0, "{sure} {perhaps}");
    let (sure, perhaps) = after(&mut std::iter::repeat_n(2, 30));
    is_near(sure, 2.0);
    is_near(perhaps, 2.0);
    let (sure, _) = after(&mut std::iter::repeat_n(2, 10));
    assert!(sure.abs() < 1e-9, "{sure}");
    // A minute later it is what came in that time.
    let (sure, perhaps) = after(&mut [0, 60].into_iter().chain([0; 60]));
    is_near(sure, 1.0);
    is_near(perhaps, 1.0);
}

#[test]
fn a_rate_is_that_of_a_quarter_of_an_hour_unless_it_has_changed() {
    let now = |arrivals: &mut dyn Iterator<Item = u64>| {
        let (estimates, now) = estimates(arrivals);
        rate(&estimates, now).0
    };
    let one = || std::iter::repeat_n(1, 1200);
    is_near(now(&mut one()), 1.0);
    // Each third of a quarter of a minute says four.
    is_near(now(&mut one().chain([4; 16])), 4.0);
    // A hundred at once are a backlog, and more do not become a rate a while later either.
    let burst = now(&mut one().chain([100]));
    assert!(burst < 2.7, "{burst}");
    for later in [0, 10, 25, 50, 90, 200, 290] {
        let burst = now(&mut one().chain([1000]).chain(std::iter::repeat_n(1, later)));
        assert!(burst < 2.7, "{burst} a second {later} s after a thousand");
    }
    // Three for a minute and two minutes are no burst.
    is_near(now(&mut one().chain([3; 60])), 3.0);
    is_near(now(&mut one().chain([3; 120])), 3.0);
    // It falls to a tenth, which a minute shows.
    let tenth = (0..70).map(|second| u64::from(second % 10 == 0));
    is_near(now(&mut one().chain(tenth)), 0.1);
}
