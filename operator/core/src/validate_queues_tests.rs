//! What is refused of the queues of a WorkerPool.

use super::tests::refusal;
use super::{consumes_alone, validate};
use crate::advice::Neighbour;
use crate::testing::{queues, task_queue, wp};
use poolwright_api::Reason;
use serde_json::json;

#[test]
fn a_queue_that_does_not_exist_has_a_reason_of_its_own() {
    let (field, reason, message) = refusal(json!({"queues": [{"name": "orders"}, {"name": "gone"}]}));
    assert_eq!(
        (field.as_str(), reason),
        ("spec.queues[1].name", Reason::QueueUnknown)
    );
    assert!(
        message.starts_with("TaskQueue \"gone\" does not exist in this namespace"),
        "{message}"
    );
}

#[test]
fn queues_on_two_brokers_are_named_with_their_brokers() {
    let mut known = queues();
    let other = json!({"broker": {"urlSecretRef": {"name": "rabbit", "key": "url"}}});
    known.insert("mail".to_owned(), task_queue("mail", &other));
    let invalid = validate(&wp(json!({"class": "Cpu"})), &known).expect_err("two brokers");
    assert_eq!(invalid.field, "spec.queues[1].name");
    for words in [
        "\"orders\"",
        "\"mail\"",
        "redis://redis:6379/0",
        "Secret rabbit, key url",
    ] {
        assert!(invalid.message.contains(words), "{}", invalid.message);
    }
}

#[test]
fn one_queue_under_two_names_and_unusable_queues_are_refused() {
    let broker = json!({"url": "redis://redis:6379/0"});
    let table = [
        (json!({"broker": broker, "queue": "orders"}), "counted twice"),
        (json!({"broker": broker, "queue": "a,b"}), "comma"),
        (json!({"broker": broker, "queue": "q".repeat(256)}), "255"),
        (json!({"broker": {}}), "exactly one"),
        (
            json!({"broker": {"url": "redis://u:hunter2@redis:6379/0"}}),
            "without user",
        ),
    ];
    for (spec, words) in table {
        let mut known = queues();
        known.insert("mail".to_owned(), task_queue("mail", &spec));
        let invalid = validate(&wp(json!({"class": "Cpu"})), &known).expect_err(words);
        assert_eq!(invalid.field, "spec.queues[1].name");
        assert!(invalid.message.contains(words), "{}", invalid.message);
        assert!(!invalid.message.contains("hunter2"));
    }
}

#[test]
fn a_cap_below_the_concurrency_would_never_let_a_pod_start() {
    let with = |cap: i32| {
        let spec = json!({"broker": {"url": "redis://redis:6379/0"}, "maxActiveTasks": cap});
        let known = [("orders".to_owned(), task_queue("orders", &spec))].into();
        let celery = json!({"app": "shop.celery:app", "concurrency": 4});
        let alone = json!({"class": "Cpu", "queues": [{"name": "orders"}], "celery": celery});
        validate(&wp(alone), &known)
    };
    let invalid = with(3).expect_err("no pod fits");
    assert_eq!(
        (invalid.field.as_str(), invalid.reason),
        ("spec.celery.concurrency", Reason::InvalidSpec)
    );
    let words = "is 4, and maxActiveTasks of TaskQueue \"orders\" is 3: no pod may start; 3 is the most that fits, or \
                 raise spec.maxActiveTasks there";
    assert_eq!(invalid.message, words);
    assert!(with(4).is_ok());
}

#[test]
fn a_queue_with_a_cap_wants_one_worker_pool_of_its_own() {
    let capped = |names: &[&str]| {
        let mut known = queues();
        for name in names {
            let spec = json!({"broker": {"url": "redis://redis:6379/0"}, "maxActiveTasks": 8});
            known.insert((*name).to_owned(), task_queue(name, &spec));
        }
        known
    };
    let shared = wp(json!({"class": "Cpu"}));
    for (name, field) in [("orders", "spec.queues[0].name"), ("mail", "spec.queues[1].name")] {
        let invalid = validate(&shared, &capped(&[name])).expect_err(name);
        assert_eq!(
            (invalid.field.as_str(), invalid.reason),
            (field, Reason::InvalidSpec)
        );
        let words = format!(
            "TaskQueue {name:?} has maxActiveTasks, which needs a WorkerPool that consumes this queue alone: give it \
             one of its own, or remove spec.maxActiveTasks there"
        );
        assert_eq!(invalid.message, words);
    }

    let alone = wp(json!({"class": "Cpu", "queues": [{"name": "orders"}]}));
    let pool = validate(&alone, &capped(&["orders"])).expect("its only queue has the cap");
    let other = |name: &str, queue: &str| Neighbour {
        name: name.to_owned(),
        class: None,
        queues: vec![queue.to_owned()],
    };
    let (itself, apart) = (other("checkout", "orders"), other("newsletter", "mail"));
    let rivals = [other("slow", "orders"), other("fast", "orders")];
    let check = |queues: &[&str], others: &[Neighbour]| consumes_alone(&pool, &capped(queues), others);
    assert_eq!(check(&["orders"], &[itself, apart]), Ok(()));
    assert_eq!(
        check(&["mail"], &rivals),
        Ok(()),
        "a queue without a cap is shared"
    );
    let invalid = check(&["orders"], &rivals).expect_err("two others consume it");
    assert_eq!(invalid.field, "spec.queues[0].name");
    assert!(
        invalid.message.ends_with("; WorkerPool \"fast\" consumes it too"),
        "{}",
        invalid.message
    );
}
