use super::*;

const fn at(seconds: u64) -> Moment {
    Moment(seconds * 1000)
}

/// A steady load of two tasks a second, each of five seconds: ten run.
fn steady(until: u64) -> Estimates {
    let mut estimates = Estimates::default();
    for second in 0..=until {
        let counts = Counts {
            waiting: 0,
            busy: if second < 5 { second * 2 } else { 10 },
            started: second * 2,
        };
        estimates.observe(counts, Some(0), at(second));
    }
    estimates
}

#[test]
fn a_steady_load_is_read_as_it_is() {
    let estimates = steady(3000);
    let (arrived, long) = estimates.arrived(600.0, at(3000));
    assert!(
        (arrived - 1200.0).abs() < 1.0 && (long - 600.0).abs() < 1e-6,
        "{arrived} in {long}"
    );
    assert!((estimates.service() - 5.0).abs() < 0.1, "{}", estimates.service());
    assert!(estimates.points.len() < 120, "{}", estimates.points.len());
}

#[test]
fn memory_does_not_grow_with_time() {
    assert!(steady(50_000).points.len() <= steady(10_000).points.len() + 12);
    assert!(steady(50_000).occupancy.len() <= OCCUPANCIES);
}

#[test]
fn a_longer_service_time_is_found_within_a_few_completions() {
    let mut estimates = steady(1000);
    // Ten slots, each of which now takes 50 s: a task ends every five seconds.
    for second in 1..=40 {
        let counts = Counts {
            waiting: 0,
            busy: 10,
            started: 2000 + second / 5,
        };
        estimates.observe(counts, Some(0), at(1000 + second));
    }
    // Eight ended within 40 s of ten slots, and two of five seconds are taken to have: (400 + 10) / (8 + 2).
    let longer = estimates.service();
    assert!((25.0..=50.0).contains(&longer), "{longer}");
    // And back: two a second end now.
    for second in 1..=20 {
        let counts = Counts {
            waiting: 0,
            busy: 10,
            started: 2008 + 2 * second,
        };
        estimates.observe(counts, Some(0), at(1040 + second));
    }
    let shorter = estimates.service();
    assert!((2.0..=12.0).contains(&shorter), "{shorter}");
}

#[test]
fn tasks_that_began_together_last_no_longer_than_twice_what_they_have() {
    let mut estimates = Estimates::default();
    estimates.observe(Counts::default(), Some(0), at(0));
    for second in 1..=41 {
        let running = second <= 40;
        let counts = Counts {
            waiting: 0,
            busy: if running { 20 } else { 0 },
            started: 20,
        };
        estimates.observe(counts, Some(0), at(second));
        // They were first seen to run after a second.
        let most = (2.0 * (f64::from(u32::try_from(second).unwrap()) - 1.0)).max(5.0);
        assert!(
            !running || estimates.service() <= most,
            "{} at {second}",
            estimates.service()
        );
    }
    assert!(
        (estimates.service() - 36.8).abs() < 0.1,
        "{}",
        estimates.service()
    );
}

#[test]
fn the_age_of_the_oldest_follows_the_order_of_arrival() {
    let mut estimates = Estimates::default();
    estimates.observe(Counts::default(), Some(0), at(100));
    for second in 1..=60 {
        let counts = Counts {
            waiting: second,
            busy: 0,
            started: 0,
        };
        estimates.observe(counts, Some(0), at(100 + second));
    }
    let age = estimates.age(60, 0, at(160)).as_secs_f64();
    assert!((50.0..=61.0).contains(&age), "{age}");
    let age = estimates.age(10, 50, at(160)).as_secs_f64();
    assert!((9.0..=12.0).contains(&age), "{age}");
    assert_eq!(estimates.age(0, 60, at(160)), Duration::ZERO);
}

/// A thousand have come since the last look, half an hour after the last ones.
#[test]
fn what_has_come_since_the_last_look_is_young() {
    let estimates = steady(1000);
    let mut idle = estimates.clone();
    for second in 1001..2800 {
        let counts = Counts {
            waiting: 0,
            busy: 0,
            started: 2000,
        };
        idle.observe(counts, Some(0), at(second));
    }
    assert_eq!(idle.age(1000, 2000, at(2800)), Duration::from_secs(1));
    // Ten of them were started within the same second.
    assert_eq!(idle.age(990, 2010, at(2800)), Duration::from_secs(1));
}

/// What waits when a process starts has not just come.
#[test]
fn a_restart_takes_a_backlog_for_no_burst() {
    let mut estimates = Estimates::default();
    for second in 0..30 {
        let counts = Counts {
            waiting: 500,
            busy: 40,
            started: second * 4,
        };
        estimates.observe(counts, Some(0), at(second));
    }
    let (arrived, long) = estimates.arrived(15.0, at(29));
    assert!(
        arrived <= 61.0 && (long - 15.0).abs() < 1e-6,
        "{arrived} in {long}"
    );
}

#[test]
fn a_gap_is_a_longer_step_and_no_jump() {
    let mut estimates = steady(1000);
    let counts = Counts {
        waiting: 0,
        busy: 10,
        started: 3200,
    };
    estimates.observe(counts, Some(0), at(1600));
    let (arrived, _) = estimates.arrived(15.0, at(1600));
    assert!((arrived - 30.0).abs() < 2.0, "{arrived}");
}

#[test]
fn no_number_is_anything_but_finite_at_the_edges() {
    let mut estimates = Estimates::default();
    for counts in [
        Counts::default(),
        Counts {
            waiting: u64::MAX,
            busy: u64::MAX,
            started: u64::MAX,
        },
        Counts::default(),
    ] {
        for now in [0, 0, 1, u64::MAX / 1000] {
            estimates.observe(counts, Some(0), at(now));
            assert!(estimates.service().is_finite() && estimates.service() >= 0.0);
            assert!(estimates.arrived(15.0, at(now)).0.is_finite());
            let _ = estimates.age(counts.waiting, counts.started, at(now));
        }
    }
}

/// Ten thousand tasks are purged; what comes afterwards is seen, and is no older than it is.
#[test]
fn what_is_purged_hides_nothing_that_comes() {
    let purged = |held| {
        let mut estimates = Estimates::default();
        let mut see = |second: u64, waiting, started| {
            let counts = Counts {
                waiting,
                busy: 10,
                started,
            };
            estimates.observe(counts, held, at(second));
        };
        (0..100).for_each(|second| see(second, 10_000, second * 5));
        (100..400).for_each(|second| see(second, 0, second * 5));
        see(400, 5, 2000);
        let (arrived, long) = estimates.arrived(200.0, at(400));
        (arrived / long, estimates.age(5, 2000, at(400)))
    };
    let (rate, age) = purged(Some(40));
    assert!((4.9..=5.1).contains(&rate), "{rate}");
    assert!(age <= Duration::from_secs(12), "{age:?}");
    // As long as a fall is not believed, nothing is gone: it may come back.
    assert!(purged(None).0 < 0.1);
}

/// Tasks that workers hold unseen for a while are not gone, and are not counted again when they start.
#[test]
fn what_workers_hold_is_not_gone() {
    let mut estimates = Estimates::default();
    for second in 0..120_u64 {
        // Forty are fetched at 10 s, of which nobody tells until they are started, from 40 s on.
        let started = second.saturating_sub(40).min(40);
        let counts = Counts {
            waiting: if second < 10 { 40 } else { 0 },
            busy: 1,
            started,
        };
        estimates.observe(counts, Some(40), at(second));
    }
    assert_eq!(estimates.points.back().unwrap().arrived, 40);
}
