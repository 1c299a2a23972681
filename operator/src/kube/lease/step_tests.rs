//! Every state of a Lease that a candidate may find, and what it makes of it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::step::{ANNOTATION_SCOPE, Candidate, Look, Renewal, SECONDS, Timing};

const WALL: &str = "2026-11-27T08:00:00Z";

fn wall() -> Timestamp {
    WALL.parse().unwrap()
}

fn candidate(seconds: u32) -> Candidate {
    Candidate::new("me".to_owned(), "shard a".to_owned(), Timing::of(seconds))
}

/// A Lease with this spec.
fn lease(spec: &Value) -> Lease {
    let object = json!({
        "metadata": {"name": "l", "resourceVersion": "7", "labels": {"team": "a"}}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn held(holder: &str, seconds: i64, renewed: &str) -> Lease {
    lease(&json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed}))
}

/// After how many seconds a Lease that stays as it is, is taken; it is looked at every second for so long.
fn taken_after(candidate: &mut Candidate, found: Option<&Lease>, most: u64) -> Option<u64> {
    let start = Instant::now();
    (0..=most).find(|seconds| {
        let now = start + Duration::from_secs(*seconds);
        matches!(candidate.look(found, now, now, wall()), Look::Take { .. })
    })
}

#[test]
fn a_renewal_can_always_be_repeated_in_time() {
    for seconds in SECONDS {
        let timing = Timing::of(seconds);
        assert!(timing.patience * 2 <= timing.deadline, "{timing:?}");
        assert!(timing.retry <= Duration::from_secs(1) && timing.renew <= Duration::from_secs(2));
    }
    let timing = Timing::of(15);
    let seconds = [timing.duration, timing.deadline, timing.renew, timing.retry].map(|one| one.as_secs());
    assert_eq!(seconds, [15, 10, 2, 1]);
}

#[test]
fn where_there_never_was_one_it_is_taken_at_once() {
    assert_eq!(taken_after(&mut candidate(15), None, 0), Some(0));
}

#[test]
fn what_a_holder_wrote_of_the_time_is_not_compared_with_any_clock() {
    for renewed in ["1970-01-01T00:00:00.000000Z", WALL, "9999-12-30T12:00:00.000000Z"] {
        let found = held("other", 15, renewed);
        assert_eq!(
            taken_after(&mut candidate(15), Some(&found), 60),
            Some(15),
            "{renewed}"
        );
    }
    let never = lease(&json!({"holderIdentity": "other", "leaseDurationSeconds": 15}));
    assert_eq!(taken_after(&mut candidate(15), Some(&never), 60), Some(15));
}

#[test]
fn it_is_waited_from_when_a_state_was_told_until_it_is_asked_for_again() {
    let (mut candidate, start) = (candidate(15), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let found = held("other", 15, WALL);
    let takes = |look: Look| matches!(look, Look::Take { .. });
    assert!(!takes(candidate.look(Some(&found), at(0), at(4), wall())));
    // Asked at 18 and told at 25: it may have been renewed right after 18.
    assert!(!takes(candidate.look(Some(&found), at(18), at(25), wall())));
    assert!(takes(candidate.look(Some(&found), at(19), at(25), wall())));
}

#[test]
fn one_that_is_renewed_is_never_taken() {
    let (mut candidate, start) = (candidate(3), Instant::now());
    for second in 0..60 {
        let found = held("other", 3, &format!("2026-11-27T08:00:{second:02}Z"));
        let now = start + Duration::from_secs(second);
        let look = candidate.look(Some(&found), now, now, wall());
        let Look::Wait { holder, is_news, .. } = look else {
            panic!("taken after {second} s")
        };
        assert_eq!((holder.as_str(), is_news), ("other", second == 0));
    }
}

#[test]
fn one_that_its_holder_released_is_taken_at_once_and_one_that_somebody_emptied_is_not() {
    let released = lease(&json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": WALL}));
    assert_eq!(taken_after(&mut candidate(15), Some(&released), 0), Some(0));
    for spec in [
        json!({"holderIdentity": "", "leaseDurationSeconds": 15}),
        json!({"leaseDurationSeconds": 15}),
        json!({"holderIdentity": ""}),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(
            taken_after(&mut candidate(15), Some(&lease(&spec)), 60),
            Some(15),
            "{spec}"
        );
    }
}

#[test]
fn one_that_was_deleted_under_its_holder_is_waited_for() {
    let (mut candidate, start) = (candidate(15), Instant::now());
    let first = candidate.look(Some(&held("other", 30, WALL)), start, start, wall());
    assert!(matches!(first, Look::Wait { .. }));
    assert_eq!(taken_after(&mut candidate, None, 60), Some(30));
}

#[test]
fn the_longer_of_two_durations_counts_and_nonsense_does_not() {
    for (own, theirs, waits) in [
        (3, json!(30), 30),
        (30, json!(3), 30),
        (15, json!(0), 15),
        (15, json!(-5), 15),
        (15, Value::Null, 15),
        (15, json!(i32::MAX), 300),
    ] {
        let found = lease(&json!({"holderIdentity": "other", "leaseDurationSeconds": theirs}));
        let after = taken_after(&mut candidate(own), Some(&found), 400);
        assert_eq!(after, Some(waits), "{own} s of its own, {theirs} in the Lease");
    }
}

#[test]
fn one_that_was_written_in_its_own_name_is_its_own() {
    // The answer to its write was lost.
    assert_eq!(
        taken_after(&mut candidate(15), Some(&held("me", 15, WALL)), 0),
        Some(0)
    );
}

#[test]
fn taking_it_counts_and_keeps_what_others_wrote_beside_it() {
    let me = candidate(15);
    let spec = json!({"holderIdentity": "other", "leaseTransitions": i32::MAX, "acquireTime": "2020-01-01T00:00:00.000000Z"});
    let taken = me.claim(Some(&lease(&spec)), wall());
    assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(taken.metadata.labels.as_ref().unwrap()["team"], "a");
    let spec = taken.spec.clone().unwrap();
    assert_eq!(spec.lease_transitions, Some(i32::MAX));
    assert_eq!(spec.acquire_time.as_ref().unwrap().0, wall());
    let later = me
        .claim(Some(&taken), wall() + Duration::from_secs(2))
        .spec
        .unwrap();
    assert_eq!(later.acquire_time, spec.acquire_time);
    assert_eq!(later.lease_transitions, spec.lease_transitions);
    let first = me.claim(None, wall());
    assert_eq!(first.spec.unwrap().lease_transitions, Some(1));
    assert_eq!(first.metadata.resource_version, None);
}

#[test]
fn each_renewal_differs_also_when_the_clock_is_set_back() {
    let me = candidate(15);
    let first = me.claim(None, wall());
    let back = me.claim(Some(&first), wall() - Duration::from_secs(3600));
    let renewed = |lease: &Lease| lease.spec.as_ref().unwrap().renew_time.clone().unwrap().0;
    assert!(renewed(&back) > renewed(&first));
    let mut last = first;
    last.spec.as_mut().unwrap().renew_time.as_mut().unwrap().0 = Timestamp::MAX;
    assert_eq!(
        renewed(&me.claim(Some(&last), wall())),
        wall(),
        "beyond the last there is none"
    );
}

#[test]
fn a_holder_gives_way_to_nobody_but_another_holder() {
    let me = candidate(15);
    let taken = me.renewal(Some(&held("other", 15, WALL)), wall());
    assert_eq!(taken, Renewal::Taken("other".to_owned()));
    let emptied = lease(&json!({"holderIdentity": ""}));
    for found in [None, Some(&emptied), Some(&held("me", 15, WALL))] {
        assert!(matches!(me.renewal(found, wall()), Renewal::Write(_)));
    }
}

#[test]
fn a_released_lease_has_no_holder_and_is_free() {
    let me = candidate(15);
    let released = me.release(&me.claim(None, wall()), wall());
    let mut other = Candidate::new("other".to_owned(), "shard b".to_owned(), Timing::of(15));
    assert_eq!(taken_after(&mut other, Some(&released), 0), Some(0));
}

#[test]
fn a_holder_of_other_namespaces_is_told_from_one_of_the_same_and_waited_for_alike() {
    let of = |scope: &str| Candidate::new("other".to_owned(), scope.to_owned(), Timing::of(15));
    for (scope, elsewhere) in [("shard a", None), ("shard b", Some("shard b"))] {
        let found = of(scope).claim(None, wall());
        assert_eq!(
            found.metadata.annotations.as_ref().unwrap()[ANNOTATION_SCOPE],
            scope
        );
        let (mut me, now) = (candidate(15), Instant::now());
        let Look::Wait { elsewhere: said, .. } = me.look(Some(&found), now, now, wall()) else {
            panic!("it was taken")
        };
        assert_eq!(said.as_deref(), elsewhere);
        assert_eq!(taken_after(&mut candidate(15), Some(&found), 60), Some(15));
    }
    // An older operator says nothing, and what a former holder said is not of nobody.
    let mut emptied = of("shard b").claim(None, wall());
    emptied.spec.as_mut().unwrap().holder_identity = None;
    for found in [held("other", 15, WALL), emptied] {
        let (mut me, now) = (candidate(15), Instant::now());
        let look = me.look(Some(&found), now, now, wall());
        assert!(matches!(look, Look::Wait { elsewhere: None, .. }), "{look:?}");
    }
    let taken = candidate(15).claim(Some(&of("shard b").claim(None, wall())), wall());
    assert_eq!(taken.metadata.annotations.unwrap()[ANNOTATION_SCOPE], "shard a");
}
