use jiff::Timestamp;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::WorkerPoolStatus;
use serde_json::json;

use super::*;
use crate::advice::Advice;
use crate::decision::Limit;
use crate::demand::PodState;
use crate::objects::Objects;
use crate::sample::Fault;
use crate::snapshot::{Hold, PodInput, RevisionInput};
use crate::testing::{decision, observed, wp};
use crate::time::Moment;

/// Everything that conditions are made of.
struct Case {
    input: PoolInput,
    decision: Decision,
    refused: Option<Trouble>,
    advice: Vec<Advice>,
    old: WorkerPoolStatus,
}

fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Two ready pods of a proven revision, as wanted.
fn good() -> Case {
    let mut input = observed(&wp(json!({"class": "Cpu"})), &Objects::default(), None);
    input.revision = "new".into();
    input.revisions = vec![RevisionInput {
        name: "new".into(),
        replicas: 2,
        proven: Some(wall()),
        ..RevisionInput::default()
    }];
    input.pods = ["a", "b"].map(|name| pod(name, "new")).into();
    let mut decision = decision(2, 2, Reason::AsDesired);
    decision.facts.pods = ["a", "b"].map(|name| (name.into(), PodState::Busy(1))).into();
    Case {
        input,
        decision,
        refused: None,
        advice: Vec::new(),
        old: WorkerPoolStatus::default(),
    }
}

fn pod(name: &str, revision: &str) -> PodInput {
    PodInput {
        name: name.into(),
        revision: revision.into(),
        ready: true,
        ..PodInput::default()
    }
}

fn trouble(reason: Reason) -> Trouble {
    Trouble {
        reason,
        message: "its words".to_owned(),
    }
}

fn said(case: &Case) -> Vec<Condition> {
    let facts = Facts {
        generation: Some(3),
        name: "checkout",
        old: &case.old,
        spec: Ok((&case.input, Some(&case.decision))),
        concurrency: None,
        objects: &Objects::default(),
        advice: &case.advice,
        refused: case.refused.as_ref(),
        wall: wall(),
    };
    let mut conditions = Vec::new();
    let seen = Seen {
        input: Some(&case.input),
        decision: Some(&case.decision),
        invalid: None,
        facts: &facts,
    };
    write(&mut conditions, &seen);
    conditions
}

fn one(conditions: &[Condition], type_: ConditionType) -> (&str, &str, &str) {
    let found = find(conditions, type_).unwrap();
    (&found.status, &found.reason, &found.message)
}

type Change = fn(&mut Case);

fn check(type_: ConditionType, cases: &[(&str, &str, &str, Change)]) {
    for (status, reason, words, change) in cases {
        let mut case = good();
        change(&mut case);
        let conditions = said(&case);
        let found = one(&conditions, type_);
        assert_eq!((found.0, found.1), (*status, *reason), "{}", found.2);
        assert!(found.2.contains(words), "{words:?} in {:?}", found.2);
        assert!(conditions.iter().all(|one| one.observed_generation == Some(3)));
    }
}

fn missing(kind: FaultKind) -> Vec<(String, Option<Fault>)> {
    let fault = Fault {
        kind,
        message: "its fault".to_owned(),
        since: Moment(0),
        since_wall: wall(),
    };
    vec![("queue \"orders\"".to_owned(), Some(fault))]
}

fn unproven(case: &mut Case) {
    case.decision.allocation.note = Some((Reason::RevisionUnproven, "revision new was given up".to_owned()));
}

#[test]
fn ready_names_what_can_be_mended_first() {
    check(
        ConditionType::Ready,
        &[
            ("True", "AsDesired", "2 pods, as wanted", |_| ()),
            ("False", "Conflict", "an HPA", |one| {
                one.input.conflict = Some("an HPA".to_owned());
            }),
            ("False", "QuotaExceeded", "its words", |one| {
                one.input.revisions[0].refused = Some(trouble(Reason::QuotaExceeded));
            }),
            ("False", "AdmissionDenied", "its words", |one| {
                one.refused = Some(trouble(Reason::AdmissionDenied));
            }),
            ("False", "BrokerUnreachable", "its fault", |one| {
                one.decision.facts.missing = missing(FaultKind::Unreachable);
            }),
            ("False", "BrokerRefused", "since", |one| {
                one.decision.facts.missing = missing(FaultKind::Refused);
            }),
            ("False", "SecretMissing", "", |one| {
                one.decision.facts.missing = missing(FaultKind::SecretMissing);
            }),
            ("False", "SecretForbidden", "", |one| {
                one.decision.facts.missing = missing(FaultKind::SecretForbidden);
            }),
            ("False", "QueueAbsent", "", |one| {
                one.decision.facts.missing = missing(FaultKind::QueueAbsent);
            }),
            ("False", "HeldStale", "", |one| {
                one.decision.facts.missing = missing(FaultKind::Implausible);
            }),
            ("False", "HeldStale", "no reading yet", |one| {
                one.decision.facts.missing = vec![("heartbeats".to_owned(), None)];
            }),
            ("False", "RevisionUnproven", "given up", unproven),
            ("False", "HeldUnseen", "", |one| {
                one.decision.reason = Reason::HeldUnseen;
            }),
            ("False", "WrongBroker", "", |one| {
                one.decision.reason = Reason::WrongBroker;
            }),
            ("False", "NoProgress", "", |one| {
                one.decision.reason = Reason::NoProgress;
            }),
            ("False", "Progressing", "2 of 3 pods", |one| one.decision.to = 3),
            ("True", "AtMaximum", "", |one| {
                one.decision.reason = Reason::AtMaximum;
            }),
            ("True", "ManualHold", "", |one| {
                one.decision.reason = Reason::ManualHold;
            }),
        ],
    );
}

#[test]
fn a_pods_trouble_counts_until_its_worker_is_heard() {
    for reason in [
        Reason::Unschedulable,
        Reason::ImageNotPulled,
        Reason::CrashLoop,
        Reason::OutOfMemory,
        Reason::SecretMissing,
    ] {
        let mut case = good();
        case.input.pods[0].trouble = Some(trouble(reason));
        let heard = said(&case);
        assert_eq!(one(&heard, ConditionType::Ready).0, "True", "{reason}");
        // It runs for a second, as a worker that ends again and again does.
        case.decision.facts.pods[0].1 = PodState::Starting;
        let starting = said(&case);
        assert_eq!(
            one(&starting, ConditionType::Ready),
            ("False", reason.as_str(), "its words")
        );
    }
    let mut case = good();
    case.input.pods[0].trouble = Some(trouble(Reason::OutOfMemory));
    let advised = said(&case);
    let found = one(&advised, ConditionType::ConfigurationAdvised);
    assert_eq!((found.0, found.1), ("True", "OutOfMemory"));
    assert!(found.2.contains("of a for one"), "{}", found.2);
}

#[test]
fn the_order_of_pods_does_not_matter() {
    let mut case = good();
    case.decision.facts.pods.clear();
    case.input.pods[0].trouble = Some(trouble(Reason::CrashLoop));
    case.input.pods[1].trouble = Some(trouble(Reason::Unschedulable));
    let forwards = said(&case);
    case.input.pods.reverse();
    assert_eq!(forwards, said(&case));
}

#[test]
fn stalled_is_what_only_a_change_can_end() {
    check(
        ConditionType::Stalled,
        &[
            ("False", "AsDesired", "", |_| ()),
            ("True", "Conflict", "an HPA", |one| {
                one.input.conflict = Some("an HPA".to_owned());
            }),
            ("True", "RevisionUnproven", "given up", unproven),
            ("True", "RevisionUnproven", "given up", |one| {
                // Its pods crash: that is why it is unproven, and still no progress.
                unproven(one);
                one.decision.facts.pods.clear();
                one.input.pods[0].trouble = Some(trouble(Reason::CrashLoop));
            }),
            ("False", "AsDesired", "", |one| {
                one.decision.facts.missing = missing(FaultKind::Unreachable);
            }),
        ],
    );
}

#[test]
fn reconciling_is_anything_on_its_way() {
    check(
        ConditionType::Reconciling,
        &[
            ("False", "AsDesired", "", |_| ()),
            ("True", "Progressing", "2 pods ready, 3 wanted", |one| {
                one.decision.to = 3;
            }),
            ("True", "Progressing", "to prove itself", |one| {
                one.decision.allocation.note =
                    Some((Reason::Progressing, "one pod to prove itself".to_owned()));
            }),
            ("True", "Progressing", "takes over", |one| {
                one.input.revisions.push(RevisionInput {
                    name: "old".into(),
                    replicas: 1,
                    ..RevisionInput::default()
                });
            }),
            ("False", "AsDesired", "", |one| {
                one.input.revisions.push(RevisionInput {
                    name: "old".into(),
                    replicas: 2,
                    ..RevisionInput::default()
                });
                unproven(one);
            }),
            ("False", "Conflict", "", |one| {
                one.input.conflict = Some("an HPA".to_owned());
                one.decision.to = 3;
            }),
        ],
    );
}

#[test]
fn scaling_is_active_and_limited_as_decided() {
    check(
        ConditionType::ScalingActive,
        &[
            ("True", "AsDesired", "follows", |_| ()),
            ("True", "AsDesired", "follows", |one| {
                one.decision.reason = Reason::ScaledUp;
            }),
            ("False", "HeldStale", "ceil", |one| {
                one.decision.reason = Reason::HeldStale;
            }),
            ("False", "HeldSuspect", "ceil", |one| {
                one.decision.reason = Reason::HeldSuspect;
            }),
            ("False", "Fallback", "ceil", |one| {
                one.decision.reason = Reason::Fallback;
            }),
            ("False", "ManualHold", "ceil", |one| {
                one.decision.reason = Reason::ManualHold;
            }),
        ],
    );
    check(
        ConditionType::ScalingLimited,
        &[
            ("False", "AsDesired", "", |_| ()),
            ("True", "AtMaximum", "more than maxReplicas 5", |one| {
                one.decision.limits = vec![Limit {
                    name: "maxReplicas",
                    from: 9,
                    to: 5,
                }];
            }),
            ("True", "AtMinimum", "less than minReplicas 1", |one| {
                one.decision.limits = vec![Limit {
                    name: "minReplicas",
                    from: 0,
                    to: 1,
                }];
            }),
            ("False", "AsDesired", "", |one| {
                one.decision.limits = vec![Limit {
                    name: "workersBusy",
                    from: 0,
                    to: 1,
                }];
            }),
        ],
    );
    // By how much moves with every message: no word of it does.
    let mut case = good();
    case.decision.limits = vec![Limit {
        name: "maxReplicas",
        from: 9,
        to: 5,
    }];
    let before = said(&case);
    case.decision.limits[0].from = 90;
    assert_eq!(before, said(&case));
}

#[test]
fn a_hold_says_who_since_when_and_how_to_end_it() {
    let hour = |hour: i64| Timestamp::from_second(1_800_000_000 - 3600 * hour).unwrap();
    let end =
        "; to end it: kubectl patch wp checkout -n shop --type=merge -p '{\"spec\":{\"replicas\":null}}'";
    let unnamed = "a writer that the API server has not recorded, as with kubectl scale";
    let cases = [
        (
            Some(("argocd".to_owned(), Some(hour(2)))),
            None,
            "2027-01-15T06:00:00Z by argocd".to_owned(),
        ),
        (
            Some(("kubectl".to_owned(), None)),
            None,
            "2027-01-15T08:00:00Z by kubectl".to_owned(),
        ),
        (None, None, format!("2027-01-15T08:00:00Z by {unnamed}")),
        (None, Some(hour(1)), format!("2027-01-15T07:00:00Z by {unnamed}")),
    ];
    for (by, before, words) in cases {
        let mut case = good();
        case.input.hold = Some(Hold { replicas: 3, by });
        if let Some(before) = before {
            let held = condition(
                ConditionType::ManualHold,
                Some(true),
                Reason::ManualHold,
                "",
                None,
            );
            let _ = set(&mut case.old.conditions, held, before);
        }
        let conditions = said(&case);
        let (status, reason, message) = one(&conditions, ConditionType::ManualHold);
        assert_eq!((status, reason), ("True", "ManualHold"));
        assert_eq!(message, format!("held since {words}, now at 3 replicas{end}"));
    }
}

#[test]
fn what_somebody_asked_for_is_said_with_since_when() {
    let scaling = |case: &Case, type_| {
        let conditions = said(case);
        let (status, reason, message) = one(&conditions, type_);
        (status.to_owned(), reason.to_owned(), message.to_owned())
    };
    let mut case = good();
    case.input.pause.scale_in = true;
    let limited = ConditionType::ScalingLimited;
    let (status, reason, message) = scaling(&case, limited);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Paused"));
    let words = "scale-in is paused by annotation since 2027-01-15T08:00:00Z";
    assert_eq!(message, words);
    assert_eq!(scaling(&case, ConditionType::ScalingActive).0, "True");
    // It began when it was first said; another reason before it had another beginning.
    let earlier = words.replace("08:00:00", "07:00:00");
    let old = |reason: Reason, message: &str| {
        let mut old = condition(limited, Some(true), reason, message, None);
        old.last_transition_time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(wall());
        vec![old]
    };
    case.old.conditions = old(Reason::Paused, &earlier);
    assert_eq!(scaling(&case, limited).2, earlier);
    case.old.conditions = old(Reason::AtMaximum, "since 2026-01-15T08:00:00Z");
    assert_eq!(scaling(&case, limited).2, words);
    // So had a pause in the other direction, in whose place this one came.
    let other = earlier.replace("scale-in", "scale-out");
    case.old.conditions = old(Reason::Paused, &other);
    assert_eq!(scaling(&case, limited).2, words);
    // Something else was wrong meanwhile, and took the place of those words: the writers are on record.
    case.input.overridden_since = "2027-01-15T07:00:00Z".parse().ok();
    assert_eq!(scaling(&case, limited).2, earlier);
    case.input.overridden_since = None;

    // What else keeps it is said as well; a manual hold goes before a pause.
    case.decision.limits = vec![Limit {
        name: "maxReplicas",
        from: 9,
        to: 5,
    }];
    let bound = "the demand asks for more than maxReplicas 5";
    assert_eq!(scaling(&case, limited).2, format!("{words}; {bound}"));
    case.input.hold = Some(Hold {
        replicas: 5,
        by: None,
    });
    assert_eq!(scaling(&case, limited).2, bound);
    (case.input.hold, case.decision.limits) = (None, Vec::new());

    case.input.pause.scale_out = true;
    let active = ConditionType::ScalingActive;
    let (status, reason, message) = scaling(&case, active);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Paused"));
    assert!(
        message.starts_with("paused by annotation since 2027-01-15T08:00:00Z: "),
        "{message}"
    );
    case.input.pause = crate::snapshot::Pause::default();
    case.input.recommend = true;
    let (status, reason, message) = scaling(&case, active);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Recommended"));
    assert!(message.contains("Recommend since 2027"), "{message}");
}

#[test]
fn advice_is_joined_and_says_what_is_known() {
    check(
        ConditionType::ConfigurationAdvised,
        &[
            ("False", "AsDesired", "", |_| ()),
            ("True", "Advised", "spec.worker: known mistake", |one| {
                let (field, text) = ("spec.worker".to_owned(), "known mistake".to_owned());
                one.advice = vec![Advice {
                    field,
                    text,
                    reason: None,
                    unless_redis: false,
                }];
            }),
            ("True", "RedeliveryRisk", "spec.celery: twice", |one| {
                one.decision.facts.is_rabbitmq = true;
                let (field, text) = ("spec.celery".to_owned(), "twice".to_owned());
                one.advice = vec![Advice {
                    field,
                    text,
                    reason: Some(Reason::RedeliveryRisk),
                    unless_redis: true,
                }];
            }),
            ("False", "AsDesired", "", |one| {
                one.advice = vec![Advice {
                    field: "spec.celery".to_owned(),
                    text: "twice, if it is RabbitMQ".to_owned(),
                    reason: Some(Reason::RedeliveryRisk),
                    unless_redis: true,
                }];
            }),
            ("True", "ForeignConsumers", "celery@x", |one| {
                one.decision.facts.foreign = (vec!["celery@x".to_owned()], 1);
            }),
            ("True", "AnswersUnreadable", "cannot be asked", |one| {
                one.decision.facts.unreadable = Some((1, "pickle".to_owned()));
            }),
        ],
    );
}

#[test]
fn an_invalid_spec_is_said_and_nothing_is_claimed() {
    let invalid = Invalid::spec("spec.celery.concurrency", "must be written");
    let old = WorkerPoolStatus::default();
    let facts = Facts {
        generation: Some(3),
        name: "checkout",
        old: &old,
        spec: Err(&invalid),
        concurrency: None,
        objects: &Objects::default(),
        advice: &[],
        refused: None,
        wall: wall(),
    };
    let mut conditions = Vec::new();
    write(
        &mut conditions,
        &Seen {
            input: None,
            decision: None,
            invalid: Some(&invalid),
            facts: &facts,
        },
    );
    for (type_, status) in [
        (ConditionType::Ready, "False"),
        (ConditionType::Stalled, "True"),
        (ConditionType::ScalingActive, "False"),
    ] {
        let found = one(&conditions, type_);
        assert_eq!((found.0, found.1), (status, "InvalidSpec"), "{type_}");
        assert!(found.2.contains("spec.celery.concurrency"));
    }
    assert_eq!(one(&conditions, ConditionType::SignalsFresh).0, "Unknown");
    assert_eq!(
        conditions.len(),
        ConditionType::ALL.len() - 3,
        "all but WaitTargetMet, QueuedInTime and AirflowInSync, which are of other kinds"
    );
}
