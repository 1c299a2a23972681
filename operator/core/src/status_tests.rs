use std::time::Duration;

use poolwright_api::ConditionType;
use poolwright_api::conditions::find;
use serde_json::json;

use super::*;
use crate::demand::Input;
use crate::objects::Objects;
use crate::testing::{decision, observed, wp};

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn of(
    old: &api::WorkerPoolStatus,
    input: &PoolInput,
    decision: &Decision,
    second: i64,
) -> api::WorkerPoolStatus {
    status(&Facts {
        generation: Some(3),
        name: "checkout",
        old,
        spec: Ok((input, Some(decision))),
        concurrency: Some("4: class Cpu, without a CPU limit"),
        objects: &Objects::default(),
        advice: &[],
        refused: None,
        wall: wall(second),
    })
}

fn quiet() -> PoolInput {
    observed(&wp(json!({"class": "Cpu"})), &Objects::default(), None)
}

fn limit(name: &'static str, from: u32, to: u32) -> Limit {
    Limit { name, from, to }
}

#[test]
fn equal_inputs_give_an_equal_status_at_any_time() {
    let input = quiet();
    let mut at_zero = decision(0, 0, Reason::AsDesired);
    at_zero.inputs.push(Input {
        name: "ready",
        queue: None,
        value: 0,
        source: "broker",
        age: Duration::from_millis(7),
    });
    let first = of(&api::WorkerPoolStatus::default(), &input, &at_zero, 0);
    at_zero.inputs[0].age = Duration::from_secs(9);
    let second = of(&first, &input, &at_zero, 60);
    assert_eq!(first, second);
    assert_eq!(
        first.selector.as_deref(),
        Some("poolwright.dev/worker-pool=checkout")
    );
    assert_eq!((first.replicas, first.desired_replicas), (Some(0), Some(0)));
    assert_eq!(
        find(&first.conditions, ConditionType::Ready).unwrap().status,
        "True"
    );
}

#[test]
fn only_news_replaces_the_stored_decision() {
    let input = quiet();
    let mut capped = decision(5, 5, Reason::AtMaximum);
    capped.limits = vec![limit("maxReplicas", 9, 5)];
    let with = |change: &dyn Fn(&mut Decision)| {
        let mut other = capped.clone();
        change(&mut other);
        other
    };
    let before = of(&api::WorkerPoolStatus::default(), &input, &capped, 0);
    let cases: [(&str, bool, Decision); 8] = [
        ("the same", false, capped.clone()),
        ("cut by more", false, with(&|one| one.limits[0].from = 30)),
        (
            "other words and ages",
            false,
            with(&|one| one.words.add_load("!")),
        ),
        ("the limit is gone", false, with(&|one| one.limits.clear())),
        ("another bound", true, with(&|one| one.limits[0].to = 4)),
        (
            "another limit",
            true,
            with(&|one| one.limits.push(limit("progress", 5, 5))),
        ),
        ("another number", true, with(&|one| one.to = 6)),
        (
            "another reason",
            true,
            with(&|one| one.reason = Reason::HeldStale),
        ),
    ];
    for (what, news, next) in cases {
        let after = of(&before, &input, &next, 10);
        assert_eq!(after.last_decision != before.last_decision, news, "{what}");
        assert_eq!(after.decisions.len(), usize::from(news), "{what}");
    }
}

#[test]
fn arriving_where_a_change_led_is_no_news() {
    let input = quiet();
    let up = of(
        &api::WorkerPoolStatus::default(),
        &input,
        &decision(0, 4, Reason::ScaledUp),
        0,
    );
    assert_eq!(up.last_scale_time, Some(Time(wall(0))));
    let there = of(&up, &input, &decision(4, 4, Reason::AsDesired), 5);
    assert_eq!(there.last_decision, up.last_decision);
    let down = of(&there, &input, &decision(4, 0, Reason::ScaledDown), 9);
    assert_eq!(down.last_scale_time, Some(Time(wall(9))));
    assert_eq!(down.decisions[0].to, 4);
    // Written by a version with other reasons.
    let mut other = there.clone();
    other.last_decision.as_mut().unwrap().reason = "Elsewhere".to_owned();
    assert_ne!(
        of(&other, &input, &decision(4, 4, Reason::AsDesired), 9).last_decision,
        other.last_decision
    );
}

#[test]
fn everything_is_bounded() {
    let mut input = quiet();
    input.queues = (0..64)
        .map(|index| format!("queue-{index}-{}", "é".repeat(100)).into())
        .collect();
    let mut now = api::WorkerPoolStatus::default();
    for round in 0..20u32 {
        let mut next = decision(round, round + 1, Reason::ScaledUp);
        next.limits = (0..20).map(|_| limit("maxReplicas", u32::MAX, round)).collect();
        next.inputs = (0..100)
            .map(|index| Input {
                name: "ready",
                queue: Some(index.to_string().into()),
                value: index,
                source: "broker",
                age: Duration::MAX,
            })
            .collect();
        next.facts.queued = Some(u64::MAX);
        next.facts.busy = Some(u64::MAX);
        now = of(&now, &input, &next, i64::from(round));
    }
    let last = now.last_decision.as_ref().unwrap();
    assert_eq!(
        (now.decisions.len(), last.inputs.len(), last.limits.len()),
        (5, 32, 8)
    );
    assert!(last.inputs.iter().all(|one| one.value > 0), "zeros come last");
    assert!(now.queue_names.as_ref().unwrap().chars().count() <= 256);
    assert_eq!((now.queued, now.busy_slots), (Some(i64::MAX), Some(i32::MAX)));
}

#[test]
fn numbers_and_words_may_wait_and_nothing_else() {
    let input = quiet();
    let mut capped = decision(5, 5, Reason::AtMaximum);
    capped.limits = vec![limit("maxReplicas", 9, 5)];
    let before = of(&api::WorkerPoolStatus::default(), &input, &capped, 0);
    let waits = |change: &dyn Fn(&mut api::WorkerPoolStatus)| {
        let mut after = before.clone();
        change(&mut after);
        only_numbers(&before, &after)
    };
    assert!(waits(&|one| one.queued = Some(7)));
    assert!(waits(&|one| (one.busy_slots, one.slots) = (Some(1), Some(2))));
    assert!(waits(&|one| one.conditions[0].message.push('!')));
    assert!(waits(&|one| one.last_decision.as_mut().unwrap().text.push('!')));
    assert!(!waits(&|one| one.last_decision.as_mut().unwrap().to = 6));
    assert!(!waits(&|one| one
        .last_decision
        .as_mut()
        .unwrap()
        .reason
        .push('!')));
    assert!(!waits(&|one| one.conditions[0].status = "Unknown".to_owned()));
    assert!(!waits(&|one| one.conditions[0].reason.push('!')));
    assert!(!waits(&|one| one.desired_replicas = Some(1)));
    assert!(!waits(&|one| one.replicas = Some(1)));
    assert!(!waits(&|one| one.revision = None));
}

#[test]
fn pods_are_counted_whatever_the_spec_is_worth() {
    let view = |name: &str, state: serde_json::Value| {
        let mut pod = json!({"metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        crate::testing::merge(&mut pod, state);
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        std::sync::Arc::new(crate::objects::PodView::from(pod))
    };
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let objects = Objects {
        pods: vec![
            view("ready", json!({})),
            view("starts", json!({"status": {"conditions": null}})),
            view("goes", going),
            view("evicted", json!({"status": {"phase": "Failed"}})),
        ],
        ..Objects::default()
    };
    let old = api::WorkerPoolStatus {
        replicas: Some(7),
        ready_replicas: Some(7),
        ..api::WorkerPoolStatus::default()
    };
    let new = status(&Facts {
        generation: Some(3),
        name: "checkout",
        old: &old,
        spec: Err(&Invalid::spec("spec.queues", "must be written")),
        concurrency: None,
        objects: &objects,
        advice: &[],
        refused: None,
        wall: wall(0),
    });
    assert_eq!((new.replicas, new.ready_replicas), (Some(2), Some(1)));
}
