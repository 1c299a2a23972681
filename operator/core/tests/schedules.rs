//! Schedules raise the minimum for a time, and go before nothing that goes before a minimum.

#![allow(
    clippy::unwrap_used,
    reason = "the lint knows test functions, not their helpers"
)]

mod world;

use std::sync::Arc;

use jiff::Timestamp;
use poolwright_api::Reason;
use poolwright_api::v1alpha1::Schedule as Spec;
use poolwright_core::decision::Decision;
use poolwright_core::schedule::Schedule;
use poolwright_core::snapshot::{Fallback, Hold, Pause, PoolInput};
use proptest::prelude::*;
use world::{EPOCH, World, pool, seconds};

fn schedule(name: &str, cron: String, seconds: i32, pods: i32) -> Schedule {
    Schedule::new(&Spec {
        name: name.to_owned(),
        cron,
        time_zone: "UTC".to_owned(),
        duration_seconds: seconds,
        min_replicas: pods,
    })
    .unwrap()
}

/// One that begins so many minutes after the world does, which is at the moment 600 s.
fn from_minute(name: &str, minute: i64, seconds: i32, pods: i32) -> Schedule {
    let at = Timestamp::from_second(EPOCH + 600 + minute * 60).unwrap();
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let cron = format!("{} {} {} {} *", at.minute(), at.hour(), at.day(), at.month());
    schedule(name, cron, seconds, pods)
}

/// Up to ten pods, with these schedules.
fn scheduled(schedules: Vec<Schedule>) -> PoolInput {
    PoolInput {
        schedules: schedules.into(),
        ..pool("p")
    }
}

fn limits(decision: &Decision) -> Vec<(&str, u32, u32)> {
    let all = decision.limits.iter();
    all.map(|limit| (limit.name, limit.from, limit.to)).collect()
}

#[test]
fn the_minimum_is_raised_for_its_time_and_says_so() {
    let mut world = World::new([scheduled(vec![from_minute("day", 2, 600, 4)])]);
    let decision = world.settle(110);
    assert_eq!(
        (decision.to, limits(&decision)),
        (0, vec![]),
        "not before its time"
    );
    let decision = world.settle(10);
    assert_eq!((decision.to, decision.reason), (4, Reason::ScaledUp));
    assert_eq!(limits(&decision), [("schedule", 0, 4)]);
    let text = decision.text();
    assert!(
        text.starts_with("4; wanted 0 = ceil((0 ready + 0 reserved + 0 busy) / 10 slots); schedule day (12 ")
            && text.contains(" *, UTC) raises the minimum from 0 to 4 until 2027-01-15 08:22"),
        "{text}"
    );
    // More work than it keeps pods for is no matter of the schedule.
    world.set("q", 70, 0);
    let decision = world.settle(1);
    assert_eq!((decision.to, limits(&decision)), (7, vec![]));
}

#[test]
fn after_its_end_pods_go_as_ever_and_after_the_same_delay() {
    let mut world = World::new([scheduled(vec![from_minute("day", 0, 600, 3)])]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    let decision = world.settle(595);
    assert_eq!(decision.to, 3);
    let decision = world.settle(55);
    assert_eq!(
        (decision.to, limits(&decision)),
        (3, vec![("scaleDownDelaySeconds", 0, 3)])
    );
    assert!(
        decision.text().contains("3 were needed within the last 60 s"),
        "{}",
        decision.text()
    );
    assert_eq!(world.settle(20).to, 0, "{}", world.decision("p").text());
}

#[test]
fn of_several_the_largest_counts_and_the_written_minimum_with_them() {
    let both = vec![from_minute("day", 0, 3600, 2), from_minute("peak", 10, 600, 5)];
    let mut world = World::new([scheduled(both)]);
    assert_eq!(world.settle(1).to, 2);
    assert_eq!(world.settle(600).to, 5);
    world.pool().min = 7;
    let decision = world.settle(1);
    assert_eq!(
        limits(&decision),
        [("minReplicas", 0, 7)],
        "the schedule raises nothing"
    );
    world.pool().min = 1;
    let decision = world.settle(1);
    assert!(decision.text().contains("from 1 to 5"), "{}", decision.text());
}

/// Everything that goes before a minimum goes before a raised one.
#[test]
fn a_hold_a_pause_a_conflict_and_a_maximum_win() {
    let with = |change: &dyn Fn(&mut PoolInput)| {
        let mut world = World::new([scheduled(vec![from_minute("day", 0, 3600, 4)])]);
        world.add("a", 0);
        change(world.pool());
        world.settle(2)
    };
    assert_eq!(with(&|_| ()).to, 4);
    let hold = with(&|pool| {
        pool.hold = Some(Hold {
            replicas: 2,
            by: None,
        });
    });
    assert_eq!((hold.to, hold.reason), (2, Reason::ManualHold));
    let paused = with(&|pool| {
        pool.pause = Pause {
            scale_in: true,
            scale_out: true,
        };
    });
    assert_eq!((paused.to, paused.reason), (1, Reason::Paused));
    let recommended = with(&|pool| pool.recommend = true);
    assert_eq!((recommended.to, recommended.reason), (1, Reason::Recommended));
    assert!(
        recommended.text().contains("4 recommended"),
        "{}",
        recommended.text()
    );
    let conflict = with(&|pool| pool.conflict = Some("an HPA".to_owned()));
    assert_eq!((conflict.to, conflict.reason), (1, Reason::Conflict));
    assert_eq!(with(&|pool| pool.terminating = true).to, 1);
    assert_eq!(with(&|pool| pool.max = 3).to, 3);
    assert_eq!(with(&|pool| pool.cap = Some(2)).to, 2);
}

/// As a minimum does: what is known of the clock is enough.
#[test]
fn it_needs_no_data() {
    let mut world = World::new([scheduled(vec![from_minute("day", 2, 600, 4)])]);
    world.pool().fallback = Some(Fallback {
        replicas: 1,
        after: seconds(30),
    });
    world.fail_all();
    let mut to = Vec::new();
    for _ in 0..150 {
        world.now = world.now.after(seconds(1));
        to.push(world.decide().to);
    }
    assert_eq!(
        (to[0], to[100], to[149]),
        (0, 1, 4),
        "{}",
        world.decision("p").text()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// At every moment `min ≤ to ≤ max`, with the minimum of that moment.
    #[test]
    fn bounds_hold_at_every_moment(
        min in 0u32..4, max in 4u32..9, ready in 0u64..120,
        times in prop::collection::vec((0i64..30, 60i32..900, 1i32..9), 0..4),
    ) {
        let named = |(at, (minute, seconds, pods)): (usize, &(i64, i32, i32))| {
            from_minute(&format!("s{at}"), *minute, *seconds, *pods)
        };
        let mut input = scheduled(times.iter().enumerate().map(named).collect());
        (input.min, input.max) = (min, max);
        let mut world = World::new([input]);
        world.set("q", ready, 0);
        for second in (0..2400i64).step_by(20) {
            let decision = world.settle(20);
            let now = second + 20;
            let on = times.iter().filter(|(minute, long, _)| (minute * 60..minute * 60 + i64::from(*long)).contains(&now));
            let least = on.map(|(_, _, pods)| u32::try_from(*pods).unwrap()).max().unwrap_or(0).max(min).min(max);
            prop_assert!(decision.to >= least && decision.to <= max, "{} at {}: {}", least, now, decision.text());
        }
    }
}

/// What has none pays for none.
#[test]
fn without_schedules_nothing_is_kept() {
    let mut world = World::new([pool("p")]);
    world.pool().schedules = Arc::default();
    let decision = world.settle(1);
    assert_eq!((decision.to, limits(&decision)), (0, vec![]));
}
