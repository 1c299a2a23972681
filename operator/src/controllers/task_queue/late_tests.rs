use poolwright_api::conditions::{condition, set};
use poolwright_core::late::Wait;
use serde_json::{Value, json};

use super::*;

const WALL: i64 = 1_800_000_000;

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(WALL + seconds).unwrap()
}

fn queue(status: &Value) -> TaskQueue {
    serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"name": "mail", "namespace": "shop"},
        "spec": {"broker": {"url": "redis://redis:6379/0"}, "waitTargetSeconds": 10, "waitTargetMissedAfterSeconds": 5},
        "status": status,
    }))
    .unwrap()
}

/// Five tasks that nobody takes.
fn unserved() -> QueueLedger {
    QueueLedger {
        ready: Some(5),
        ..QueueLedger::default()
    }
}

/// Looks at it each second of these; what is said last.
fn look(watched: &mut Watched, seconds: std::ops::Range<u64>, book: Option<&QueueLedger>) -> Said {
    let queue = queue(&json!({}));
    let mut said = (None, Reason::Progressing, String::new());
    for second in seconds {
        let now = Moment(second * 1000);
        watched.look(&queue, book, (now, wall(second.try_into().unwrap())));
        said = watched.said(queue.wait_target(), now, || vec![format!("held at {second}")]);
    }
    said
}

#[test]
fn a_miss_is_told_with_its_numbers_and_not_with_each_look() {
    let mut watched = Watched::of(&queue(&json!({})));
    assert_eq!(look(&mut watched, 0..5, None).0, None);
    let kept = (Some(true), Reason::AsDesired, String::new());
    assert_eq!(look(&mut watched, 5..21, Some(&unserved())), kept);
    assert_eq!(watched.numbers(), (Some(false), 0));
    let (met, reason, message) = look(&mut watched, 21..22, Some(&unserved()));
    assert_eq!((met, reason), (Some(false), Reason::WaitTargetMissed));
    assert_eq!(
        message,
        "tasks wait longer than spec.waitTargetSeconds 10 since 2027-01-15T08:00:16Z: nobody takes them, the oldest has \
         waited 16 s; held at 21"
    );
    assert_eq!(watched.numbers(), (Some(true), 1));
    assert_eq!(look(&mut watched, 22..51, Some(&unserved())).2, message);
    let (.., later) = look(&mut watched, 51..52, Some(&unserved()));
    assert!(later.ends_with("has waited 46 s; held at 51"), "{later}");
    let (.., same) = look(&mut watched, 52..90, Some(&unserved()));
    assert!(same.contains("has waited 76 s"), "{same}");
    let (.., settled) = look(&mut watched, 111..112, Some(&unserved()));
    assert!(
        settled.contains("has waited 106 s"),
        "a quarter more is told: {settled}"
    );
}

#[test]
fn what_another_process_told_is_no_news() {
    let stored = |status: &str, message: &str| {
        json!({"conditions": [{"type": "WaitTargetMet", "status": status, "reason": "WaitTargetMissed",
            "message": message, "lastTransitionTime": "2027-01-15T07:00:00Z"}]})
    };
    let told =
        "tasks wait longer than spec.waitTargetSeconds 10 since 2027-01-15T06:58:00Z: nobody takes them";
    for (message, since) in [
        (told, "2027-01-15T06:58:00Z"),
        ("of another version", "2027-01-15T07:00:00Z"),
        ("since ever", "2027-01-15T07:00:00Z"),
    ] {
        let mut watched = Watched::of(&queue(&stored("False", message)));
        assert_eq!(watched.numbers(), (Some(true), 0));
        let (met, _, words) = look(&mut watched, 0..1, None);
        assert_eq!(met, Some(false));
        assert!(words.contains(&format!("since {since}; held")), "{words}");
    }
    let mut watched = Watched::of(&queue(&stored("True", "")));
    assert_eq!(look(&mut watched, 0..1, None).0, Some(true));
    let mut watched = Watched::of(&queue(&stored("Unknown", "")));
    assert_eq!(look(&mut watched, 0..1, None).0, None);
}

#[test]
fn a_miss_makes_one_event_as_it_begins_and_one_as_it_ends() {
    let status = |met: Option<bool>, message: &str| {
        let mut status = TaskQueueStatus::default();
        let one = condition(
            ConditionType::WaitTargetMet,
            met,
            Reason::WaitTargetMissed,
            message,
            None,
        );
        let _ = set(&mut status.conditions, one, wall(0));
        status
    };
    let missed = status(Some(false), "a");
    let told = Some((Reason::WaitTargetMissed, "a".to_owned()));
    for before in [
        TaskQueueStatus::default(),
        status(None, ""),
        status(Some(true), ""),
    ] {
        assert_eq!(news(&before, &missed), told);
        assert_eq!(news(&before, &status(Some(true), "")), None);
    }
    assert_eq!(news(&missed, &status(Some(false), "b")), None);
    let over = news(&missed, &status(Some(true), "")).expect("it is told");
    assert_eq!(over.0, Reason::AsDesired);
}

#[test]
fn what_holds_a_worker_pool_is_told_the_worst_first() {
    let held = |conditions: &[(&str, &str, &str)]| {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({"type": type_, "status": status, "reason": reason, "message": "words",
                    "lastTransitionTime": "2027-01-15T07:00:00Z"})
            })
            .collect();
        let wp: WorkerPool = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "w"},
            "spec": {"queues": [{"name": "mail"}], "celery": {"app": "a"}, "worker": {"image": "i"}},
            "status": {"conditions": conditions},
        }))
        .unwrap();
        holds(&wp)
    };
    let limited = ("ScalingLimited", "True", "AtMaximum");
    let starting = ("Ready", "False", "Progressing");
    assert_eq!(
        held(&[("Ready", "True", "AtMaximum"), limited]).as_deref(),
        Some("WorkerPool w: AtMaximum, words")
    );
    assert_eq!(
        held(&[starting, limited]).as_deref(),
        Some("WorkerPool w: AtMaximum, words")
    );
    let paused = ("ScalingActive", "False", "Paused");
    assert_eq!(
        held(&[starting, limited, paused]).as_deref(),
        Some("WorkerPool w: Paused, words")
    );
    let crash = ("Ready", "False", "CrashLoop");
    assert_eq!(
        held(&[crash, paused]).as_deref(),
        Some("WorkerPool w: CrashLoop, words")
    );
    assert_eq!(
        held(&[starting, ("ScalingLimited", "True", "AtMinimum")]).as_deref(),
        Some("WorkerPool w: Progressing, words")
    );
    assert_eq!(held(&[("Ready", "True", "AsDesired")]), None);
}

#[test]
fn words_say_only_what_is_known() {
    let miss = |expected, unserved| Miss {
        since: wall(0),
        wait: Wait {
            expected,
            oldest: None,
            unserved,
        },
    };
    let target = Duration::from_secs(10);
    let begins = "tasks wait longer than spec.waitTargetSeconds 10 since 2027-01-15T08:00:00Z";
    let said = |miss: &Miss, numbers| words(miss, target, numbers, &[]);
    assert_eq!(said(&miss(None, false), (None, None)), begins);
    assert_eq!(
        said(&miss(Some(12.0), false), (Some(12), Some(4))),
        format!("{begins}: one that is pushed now would wait 12 s, the oldest has waited 4 s")
    );
}
