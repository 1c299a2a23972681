//! Every known mistake is found, with its number, at its threshold and not below it.

use super::{Advice, Neighbour, advise};
use crate::testing::{merge, queues_on, wp};
use crate::validate::validate;
use poolwright_api::Reason;
use poolwright_api::v1alpha1::WorkerClass;
use serde_json::{Value, json};

fn advice_on(broker: &Value, patch: Value, others: &[Neighbour]) -> Vec<Advice> {
    // The base has nothing to be advised on: prefork, limits, and all of it far below the broker's limit.
    let mut spec = json!({"class": "General", "celery": {
        "concurrency": 4, "timeLimitSeconds": 100, "softTimeLimitSeconds": 90,
    }});
    merge(&mut spec, patch);
    let (wp, queues) = (wp(spec), queues_on(broker));
    let pool = validate(&wp, &queues).expect("valid");
    advise(&pool, &wp, &queues, others)
}

fn advice(patch: Value) -> Vec<Advice> {
    advice_on(&json!({"url": "redis://redis:6379/0"}), patch, &[])
}

#[test]
fn a_sound_worker_pool_gets_no_advice() {
    assert_eq!(advice(json!({})), []);
}

/// For each change the field and the words of the only advice; no field where there must be none.
fn found(table: Vec<(Value, &str, &str)>) {
    for (patch, field, words) in table {
        let found = advice(patch.clone());
        let fields: Vec<_> = found.iter().map(|advice| advice.field.as_str()).collect();
        let expected = if field.is_empty() { vec![] } else { vec![field] };
        assert_eq!(fields, expected, "{patch}: {found:?}");
        assert!(
            found.iter().all(|advice| advice.text.contains(words)),
            "{patch}: {found:?}"
        );
    }
}

#[test]
fn each_mistake_is_found_at_its_threshold() {
    let limits =
        |resource: &str, value: &str| json!({"worker": {"resources": {"limits": {resource: value}}}});
    let table: Vec<(Value, &str, &str)> = vec![
        (limits("cpu", "2"), "", ""),
        (json!({"celery": {"extraArgs": ["-E", "--queue-beat"]}}), "", ""),
        (json!({"celery": {"extraArgs": ["-sBeat.db", "-EsB"]}}), "", ""),
        (
            json!({"celery": {"extraArgs": ["-E", "--beat"]}}),
            "spec.celery.extraArgs[1]",
            "one replica",
        ),
        (
            json!({"celery": {"extraArgs": ["-EB"]}}),
            "spec.celery.extraArgs[0]",
            "one replica",
        ),
        (
            limits("cpu", "1999m"),
            "spec.celery.concurrency",
            "4 prefork processes share a CPU limit of 1999m",
        ),
        (json!({"class": "Cpu"}), "", ""),
        (
            json!({"class": "Cpu", "celery": {"prefetchMultiplier": 1}}),
            "",
            "",
        ),
        (
            json!({"class": "Memory", "celery": {"prefetchMultiplier": 2}}),
            "spec.celery.prefetchMultiplier",
            "holds 2 messages",
        ),
        (limits("memory", "400Mi"), "", ""),
        (
            limits("memory", "399Mi"),
            "spec.worker.resources.limits.memory",
            "raise it to 400Mi",
        ),
    ];
    found(table);
}

#[test]
fn each_useless_limit_is_found() {
    let threads = |more: Value| {
        let mut celery =
            json!({"executionPool": "Threads", "timeLimitSeconds": null, "softTimeLimitSeconds": null});
        merge(&mut celery, more);
        json!({"celery": celery})
    };
    let table: Vec<(Value, &str, &str)> = vec![
        (
            json!({"class": null, "celery": {"timeLimitSeconds": null, "softTimeLimitSeconds": null}}),
            "spec.celery.timeLimitSeconds",
            "no time limit",
        ),
        (
            threads(json!({})),
            "spec.celery.timeLimitSeconds",
            "Threads enforces no time limit",
        ),
        (
            threads(json!({"timeLimitSeconds": 60})),
            "spec.celery.timeLimitSeconds",
            "60 s has no effect",
        ),
        (
            json!({"celery": {"executionPool": "Gevent"}}),
            "spec.celery.softTimeLimitSeconds",
            "90 s has no effect: executionPool Gevent",
        ),
        (
            json!({"celery": {"executionPool": "Gevent", "softTimeLimitSeconds": null, "maxTasksPerChild": 5}}),
            "spec.celery.maxTasksPerChild",
            "5 tasks has no effect",
        ),
        (
            json!({"celery": {"executionPool": "Gevent", "softTimeLimitSeconds": null, "maxMemoryPerChild": "1Gi"}}),
            "spec.celery.maxMemoryPerChild",
            "1Gi has no effect",
        ),
        (
            json!({"celery": {"softTimeLimitSeconds": null}}),
            "spec.celery.softTimeLimitSeconds",
            "soft limit of 540 s is left out",
        ),
        (json!({"drain": {"graceSeconds": 115}}), "", ""),
        (
            json!({"drain": {"graceSeconds": 114}}),
            "spec.drain.graceSeconds",
            "needs up to 115 s",
        ),
    ];
    found(table);
}

#[test]
fn an_unproven_grace_has_its_reason() {
    let found =
        advice(json!({"class": null, "celery": {"timeLimitSeconds": null, "softTimeLimitSeconds": null}}));
    assert_eq!(found[0].reason, Some(Reason::GraceUnproven));
    assert!(found[0].text.contains("21600 s"));
    let written = json!({"drain": {"graceSeconds": 60}, "celery": {"executionPool": "Threads", "softTimeLimitSeconds": null}});
    assert_eq!(advice(written)[0].reason, None);
}

#[test]
fn redelivery_is_a_risk_at_the_brokers_limit() {
    let redis = json!({"url": "redis://r"});
    let patient = json!({"url": "redis://r", "redis": {"visibilityTimeoutSeconds": 7200}});
    let amqp = json!({"url": "amqp://r"});
    let secret = |more: Value| {
        let mut broker = json!({"urlSecretRef": {"name": "s", "key": "k"}});
        merge(&mut broker, more);
        broker
    };
    // broker, hard limit (prefetch 1), the limit that is named
    let table = [
        (redis.clone(), 1799, None),
        (redis, 1800, Some("after 3600 s (visibilityTimeoutSeconds)")),
        (patient.clone(), 3599, None),
        (patient, 3600, Some("after 7200 s")),
        (amqp.clone(), 899, None),
        (amqp, 900, Some("after 1800 s (consumerTimeoutSeconds)")),
        (secret(json!({"redis": {}})), 1799, None),
        (
            secret(json!({"rabbitmq": {"consumerTimeoutSeconds": 60}})),
            100,
            Some("after 60 s"),
        ),
        (secret(json!({})), 899, None),
        (secret(json!({})), 900, Some("if this is Redis")),
    ];
    for (broker, hard, words) in table {
        let patch = json!({"celery": {
            "timeLimitSeconds": hard, "softTimeLimitSeconds": 50, "prefetchMultiplier": 1,
        }});
        let found = advice_on(&broker, patch, &[]);
        let risks: Vec<_> = found
            .iter()
            .filter(|advice| advice.reason == Some(Reason::RedeliveryRisk))
            .collect();
        assert_eq!(risks.len(), usize::from(words.is_some()), "{broker} {hard}");
        assert!(
            risks
                .iter()
                .all(|risk| risk.text.contains(words.unwrap_or_default())),
            "{risks:?}"
        );
    }
    let classless = json!({"class": null, "celery": {"timeLimitSeconds": 720}});
    assert!(
        advice(classless)[0].text.contains("720 s × (1 + prefetch 4)"),
        "Celery's own prefetch counts"
    );
}

#[test]
fn a_queue_of_two_classes_is_named_with_the_others() {
    let other = |name: &str, class, queue: &str| Neighbour {
        name: name.to_owned(),
        class,
        queues: vec![queue.to_owned()],
    };
    let mut others = vec![
        other("same", Some(WorkerClass::General), "mail"),
        other("classless", None, "mail"),
        other("elsewhere", Some(WorkerClass::Cpu), "other"),
        other("checkout", Some(WorkerClass::Cpu), "mail"),
    ];
    let broker = json!({"url": "redis://redis:6379/0"});
    assert_eq!(advice_on(&broker, json!({}), &others), []);
    others.extend(["d", "b", "c", "a"].map(|name| other(name, Some(WorkerClass::Io), "mail")));
    let found = advice_on(&broker, json!({}), &others);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].field, "spec.queues[1].name");
    assert!(
        found[0].text.contains("by a (Io), b (Io), c (Io) and 1 more"),
        "{}",
        found[0].text
    );
    others.reverse();
    assert_eq!(advice_on(&broker, json!({}), &others), found);
}
