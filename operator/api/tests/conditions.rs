//! Conditions: what counts as a change, and what is kept.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use poolwright_api::{
    Change, ConditionType, Reason,
    conditions::{MESSAGE_BYTES_MAX, condition, find, set},
};

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).unwrap()
}

fn ready(status: bool, reason: Reason, message: &str, generation: i64) -> Condition {
    condition(
        ConditionType::Ready,
        Some(status),
        reason,
        message,
        Some(generation),
    )
}

#[test]
fn the_transition_time_moves_only_with_the_status() {
    let mut all = Vec::new();
    assert_eq!(
        set(&mut all, ready(true, Reason::AsDesired, "", 1), at(10)),
        Change::Transitioned
    );
    assert_eq!(
        set(&mut all, ready(true, Reason::ScaledUp, "", 1), at(20)),
        Change::Updated
    );
    assert_eq!(all[0].last_transition_time.0, Timestamp::from_second(10).unwrap());
    assert_eq!(all[0].reason, "ScaledUp");
    assert_eq!(
        set(&mut all, ready(false, Reason::ScaledUp, "", 1), at(30)),
        Change::Transitioned
    );
    assert_eq!(all[0].last_transition_time.0, Timestamp::from_second(30).unwrap());
    assert_eq!(all.len(), 1);
}

#[test]
fn the_same_again_changes_nothing_even_when_it_was_read_back() {
    let mut all = Vec::new();
    let _ = set(&mut all, ready(true, Reason::AsDesired, "well", 1), at(10));
    let text = serde_json::to_string(&all).unwrap();
    let mut read: Vec<Condition> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, all);
    assert_eq!(
        set(&mut read, ready(true, Reason::AsDesired, "well", 1), at(99)),
        Change::Unchanged
    );
    assert_eq!(read, all);
}

#[test]
fn a_new_generation_or_message_is_an_update() {
    let mut all = Vec::new();
    let _ = set(&mut all, ready(true, Reason::AsDesired, "a", 1), at(10));
    assert_eq!(
        set(&mut all, ready(true, Reason::AsDesired, "a", 2), at(11)),
        Change::Updated
    );
    assert_eq!(all[0].observed_generation, Some(2));
    assert_eq!(
        set(&mut all, ready(true, Reason::AsDesired, "b", 2), at(12)),
        Change::Updated
    );
}

#[test]
fn other_conditions_are_left_alone() {
    let mut all = Vec::new();
    let _ = set(&mut all, ready(true, Reason::AsDesired, "", 1), at(10));
    let stalled = condition(ConditionType::Stalled, None, Reason::Progressing, "", None);
    let _ = set(&mut all, stalled, at(11));
    assert_eq!(find(&all, ConditionType::Ready).unwrap().status, "True");
    assert_eq!(find(&all, ConditionType::Stalled).unwrap().status, "Unknown");
    assert_eq!(find(&all, ConditionType::ManualHold), None);
}

#[test]
fn long_messages_are_cut_between_characters_and_stay_unchanged() {
    let mut all = Vec::new();
    let long = "é".repeat(MESSAGE_BYTES_MAX);
    let _ = set(&mut all, ready(true, Reason::AsDesired, &long, 1), at(10));
    assert!((MESSAGE_BYTES_MAX - 1..=MESSAGE_BYTES_MAX).contains(&all[0].message.len()));
    assert!(all[0].message.ends_with('…'));
    assert_eq!(
        set(&mut all, ready(true, Reason::AsDesired, &long, 1), at(11)),
        Change::Unchanged
    );
}

#[test]
fn names_are_written_as_they_are_spelt() {
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        assert_eq!(reason.as_str().parse(), Ok(*reason));
        assert_eq!(reason.to_string(), reason.as_str());
    }
    assert_eq!(Reason::ALL.len(), 54);
    assert!("Nonsense".parse::<Reason>().is_err());
    assert_eq!(ConditionType::ALL.len(), 11);
}
