//! The explanation as a person reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use poolwright_api::conditions::{Change, condition, set};
use poolwright_api::v1alpha1::DecisionInput;
use poolwright_api::{ConditionType, Reason};
use tokio::time::timeout;

use super::*;
use crate::kube::serving;

fn time(seconds_ago: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 - seconds_ago).unwrap()
}

fn input(name: &str, queue: Option<&str>, value: i64, source: &str, age_milliseconds: i64) -> DecisionInput {
    DecisionInput {
        name: name.into(),
        queue: queue.map(Into::into),
        value,
        source: source.into(),
        age_milliseconds,
    }
}

fn decision(seconds_ago: i64, from: i32, to: i32, reason: Reason, text: &str) -> Decision {
    Decision {
        time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(seconds_ago)),
        from,
        to,
        reason: reason.to_string(),
        text: text.into(),
        ..Decision::default()
    }
}

fn pool() -> WorkerPool {
    let mut wp = WorkerPool::new("mail", poolwright_api::v1alpha1::WorkerPoolSpec::default());
    wp.metadata.namespace = Some("shop".into());
    wp.metadata.generation = Some(3);
    wp.spec.scaling.max_replicas = 7;
    let mut last = decision(
        12,
        3,
        7,
        Reason::AtMaximum,
        "9 = ceil((112 ready + 54 busy) / 20 slots), at most 7",
    );
    last.inputs = vec![
        input("ready", Some("mail"), 100, "redis", 180),
        input("ready", Some("mail-bulk"), 12, "redis", 12_345),
        input("busy", None, 54, "heartbeats", 2_040),
    ];
    last.limits = vec![DecisionLimit {
        name: "maxReplicas".into(),
        from: 9,
        to: 7,
    }];
    let older = decision(
        4_000,
        0,
        3,
        Reason::ScaledUp,
        "3 = ceil((50 ready + 0 busy) / 20 slots)",
    );
    let mut status = WorkerPoolStatus {
        observed_generation: Some(3),
        replicas: Some(7),
        ready_replicas: Some(5),
        slots: Some(100),
        busy_slots: Some(54),
        queued: Some(112),
        decisions: vec![PastDecision::from(&last), PastDecision::from(&older)],
        last_decision: Some(last),
        ..WorkerPoolStatus::default()
    };
    let conditions = [
        (ConditionType::Ready, true, Reason::AsDesired, "all is well"),
        (
            ConditionType::ScalingLimited,
            true,
            Reason::AtMaximum,
            "2 more workers are wanted than maxReplicas allows",
        ),
        (ConditionType::Stalled, false, Reason::AsDesired, ""),
    ];
    for (type_, value, reason, words) in conditions {
        let new = condition(type_, Some(value), reason, words, Some(3));
        assert_eq!(set(&mut status.conditions, new, time(30)), Change::Transitioned);
    }
    wp.status = Some(status);
    wp
}

#[test]
fn the_whole_story() {
    let expected = "\
WorkerPool shop/mail
  3 → 7 workers, AtMaximum, 12s ago (2027-01-15T07:59:48Z)
  9 = ceil((112 ready + 54 busy) / 20 slots), at most 7
  Now: 7 workers, 5 ready; 54 of 100 slots busy; 112 queued; bounds 0 to 7

Inputs, as they were at the decision
  NAME   QUEUE      VALUE  SOURCE       AGE
  ready  mail         100  redis       0.1s
  ready  mail-bulk     12  redis        12s
  busy   –             54  heartbeats  2.0s

Limits that changed the number, in this order
  maxReplicas  9 → 7

Earlier decisions
  66m ago (2027-01-15T06:53:20Z)  0 → 3  ScaledUp  3 = ceil((50 ready + 0 busy) / 20 slots)

Conditions that are not as they should be
  ScalingLimited is True for 30s (AtMaximum): 2 more workers are wanted than maxReplicas allows

What to do
  - Raise spec.scaling.maxReplicas if the backlog should go faster
";
    assert_eq!(render(&pool(), time(0)), expected);
}

#[test]
fn a_pool_that_was_never_seen() {
    let mut wp = pool();
    wp.status = None;
    let expected = "\
WorkerPool shop/mail
  No decision has been made yet.

What to do
  - If this lasts, see whether the operator runs and watches this namespace
";
    assert_eq!(render(&wp, time(0)), expected);
}

#[test]
fn a_hold_says_how_to_end_it_and_an_old_status_says_so() {
    let mut wp = pool();
    wp.metadata.generation = Some(4);
    let status = wp.status.as_mut().unwrap();
    status.last_decision = Some(decision(5, 2, 2, Reason::ManualHold, "held at 2"));
    let text = render(&wp, time(0));
    assert!(text.contains("  2 workers, ManualHold, 5s ago"), "{text}");
    assert!(
        text.contains(r#"kubectl patch wp mail -n shop --type=merge -p '{"spec":{"replicas":null}}'"#),
        "{text}"
    );
    assert!(text.contains("The newest spec has not been seen yet"), "{text}");
}

#[test]
fn a_terminal_is_never_sent_control_characters() {
    let mut wp = pool();
    let status = wp.status.as_mut().unwrap();
    status.last_decision.as_mut().unwrap().text = "evil \u{1b}[2J\n\u{202e}desrever".into();
    let text = render(&wp, time(0));
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'));
}

#[test]
fn ages_are_short_and_never_negative() {
    let texts: Vec<String> = [-5, 0, 119, 120, 7_199, 7_200, 172_800]
        .iter()
        .map(|ago| age(time(*ago), time(0)))
        .collect();
    assert_eq!(texts, ["0s", "0s", "119s", "2m", "119m", "2h", "2d"]);
}

#[test]
fn a_pool_at_its_least_has_nothing_to_mend() {
    let limited = |reason: Reason| {
        let mut wp = pool();
        let status = wp.status.as_mut().unwrap();
        let words = "the demand asks for something else";
        status.conditions = vec![condition(
            ConditionType::ScalingLimited,
            Some(true),
            reason,
            words,
            Some(3),
        )];
        render(&wp, time(0))
    };
    assert!(limited(Reason::AtMaximum).contains("not as they should be"));
    let least = limited(Reason::AtMinimum);
    assert!(!least.contains("not as they should be"), "{least}");
}

/// What helps depends on what holds the number down.
#[test]
fn at_the_maximum_the_limit_is_named_that_can_be_raised() {
    let mut wp = pool();
    let next = |wp: &WorkerPool| next::steps(wp).join("; ");
    assert!(next(&wp).contains("spec.scaling.maxReplicas"), "{}", next(&wp));
    if let Some(last) = wp
        .status
        .as_mut()
        .and_then(|status| status.last_decision.as_mut())
    {
        last.limits.push(DecisionLimit {
            name: "maxActiveTasks".into(),
            from: 7,
            to: 2,
        });
    }
    let next = next(&wp);
    assert!(
        next.contains("spec.maxActiveTasks") && !next.contains("maxReplicas"),
        "{next}"
    );
}

/// The library's words name every place that it looked at, those of a pod first.
#[test]
fn without_a_cluster_it_is_told_what_to_set() {
    use kube::config::KubeconfigError;

    #[derive(Debug, thiserror::Error)]
    #[error("in-cluster, kubeconfig")]
    struct Infer(#[source] KubeconfigError);

    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    for (flaw, words) in [
        (KubeconfigError::FindPath, "no kubeconfig: set KUBECONFIG"),
        (
            KubeconfigError::ReadConfig(missing, "/root/.kube/config".into()),
            "no kubeconfig at /root/.kube/config: set KUBECONFIG",
        ),
        (
            KubeconfigError::CurrentContextNotSet,
            "no cluster to ask: failed to determine current context; set KUBECONFIG",
        ),
    ] {
        let said = no_kubeconfig(&Infer(flaw));
        assert!(said.starts_with(words), "{said}");
    }
}

/// The library would try again for minutes, and say nothing.
#[tokio::test]
async fn a_server_that_is_not_ready_is_asked_once_and_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let answer = move || {
        seen.fetch_add(1, Ordering::Relaxed);
        async { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
    };
    let config = serving(Router::new().fallback(answer)).await;
    let told = read(config, "shop".to_owned(), "mail".to_owned());
    let told = timeout(Duration::from_secs(20), told).await;
    let words = told.expect("it tells something").unwrap_err().to_string();
    assert!(
        words.starts_with("WorkerPool shop/mail cannot be read: "),
        "{words}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
