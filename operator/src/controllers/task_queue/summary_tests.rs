use std::collections::BTreeSet;

use poolwright_api::v1alpha1::{PoolSpec, PoolUse, TaskQueueSpec};
use poolwright_core::ledger::QueueLedger;
use poolwright_core::weight::Cycle;

use super::*;

fn drawing_on(name: &str) -> TaskQueue {
    let pool = PoolUse {
        name: name.to_owned(),
        ..PoolUse::default()
    };
    let spec = TaskQueueSpec {
        pool,
        ..TaskQueueSpec::default()
    };
    TaskQueue::new("mail", spec)
}

#[test]
fn a_pool_that_does_not_exist_is_told_unless_the_operator_makes_it() {
    let pool = Pool::new("gpu", PoolSpec::default());
    assert_eq!(missing_pool(&drawing_on("gpu"), Some(&pool), None), None);
    assert_eq!(missing_pool(&drawing_on(DEFAULT_POOL), None, None), None);
    let refused = Some("exceeded quota");
    assert_eq!(
        missing_pool(&drawing_on(DEFAULT_POOL), None, refused).as_deref(),
        refused
    );
    let message = missing_pool(&drawing_on("gpu"), None, refused).expect("it is missing");
    for words in [
        "Pool \"gpu\" does not exist",
        "create it, or correct spec.pool.name",
    ] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_pool_that_cannot_be_read_is_not_said_to_be_missing() {
    let seen = Seen {
        view: None,
        book: None,
        rival: None,
        pool: None,
        unmade: None,
        unreadable: Some("integer `3000000000`, expected i32".to_owned()),
        weight: None,
        cycle: None,
        unknown: &[],
        queued: None,
        late: (None, Reason::Progressing, String::new()),
    };
    for name in ["gpu", DEFAULT_POOL] {
        let (ready, reason, message) = summary(&drawing_on(name), &seen);
        assert_eq!((ready, reason), (Some(false), Reason::PoolMissing));
        for words in [name, "cannot be read", "3000000000", "correct it"] {
            assert!(message.contains(words), "{message}");
        }
        assert!(!message.contains("does not exist"), "{message}");
    }
}

#[test]
fn a_queue_with_wrong_links_works_and_says_so() {
    let names = || vec!["mail".to_owned(), "push".to_owned()];
    let cycle = Cycle {
        path: names(),
        queues: names(),
    };
    let queue = drawing_on(DEFAULT_POOL);
    let told = |foreign: u64, cycle: Option<&Cycle>, unknown: &[String]| {
        let book = QueueLedger {
            ready: Some(3),
            foreign_consumers: foreign,
            foreign: BTreeSet::from(["old@host".to_owned()]),
            ..QueueLedger::default()
        };
        let seen = Seen {
            view: None,
            book: Some(&book),
            rival: None,
            pool: None,
            unmade: None,
            unreadable: None,
            weight: Some(1),
            cycle,
            unknown,
            queued: None,
            late: (Some(true), Reason::AsDesired, String::new()),
        };
        summary(&queue, &seen)
    };
    assert_eq!(told(0, None, &[]), (Some(true), Reason::AsDesired, String::new()));
    let foreign = "1 consumers are not ours: old@host";
    assert_eq!(
        told(1, None, &[]),
        (Some(true), Reason::ForeignConsumers, foreign.to_owned())
    );
    let (ready, reason, message) = told(1, Some(&cycle), &[]);
    assert_eq!((ready, reason), (Some(true), Reason::WeightCycle));
    assert!(
        message.starts_with("mail -> push -> mail is a circle of spec.priority.downstream"),
        "{message}"
    );
    assert!(
        message.ends_with(&format!("remove one of the links; {foreign}")),
        "{message}"
    );
    let (ready, reason, message) = told(1, None, &["psuh".to_owned(), "x".to_owned()]);
    assert_eq!((ready, reason), (Some(true), Reason::QueueUnknown));
    assert!(
        message.starts_with("spec.priority.downstream names \"psuh\" and 1 more, and no TaskQueue"),
        "{message}"
    );
    assert!(message.ends_with(&format!("; {foreign}")), "{message}");
}
