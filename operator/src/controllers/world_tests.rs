//! What a change marks, and what a rebuild makes of it.

use poolwright_api::v1alpha1::{Priority, TaskQueueSpec, WeightRule};

use super::*;
use crate::kube::lenient::Lenient;

fn pool(name: &str, class: &str, queues: &[&str]) -> WorkerPool {
    let queues: Vec<_> = queues
        .iter()
        .map(|name| serde_json::json!({"name": name}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool",
        "metadata": {"namespace": "n", "name": name, "generation": 1},
        "spec": {"class": class, "queues": queues, "celery": {"app": "a"}, "worker": {"image": "i"},
            "scaling": {}},
    }))
    .expect("a WorkerPool")
}

#[test]
fn those_that_share_a_queue_are_looked_at_anew() {
    let world = World::default();
    let group = |name: &str| ("n".to_owned(), name.to_owned());
    let marked = |world: &World| -> Vec<String> {
        let dirty = std::mem::take(&mut *lock(&world.dirty));
        dirty.into_keys().map(|group| group.1).collect()
    };
    for one in [
        pool("a", "Cpu", &["q"]),
        pool("b", "Cpu", &["r"]),
        pool("c", "Cpu", &["q", "s"]),
    ] {
        world.pools.put(one);
    }
    let (before, after) = (pool("d", "Cpu", &["q"]), pool("d", "General", &["q"]));
    world.pool_changed(&group("d"), None, Some(&before));
    assert_eq!(marked(&world), ["a", "c", "d"]);
    world.pool_changed(&group("d"), Some(&before), Some(&before));
    assert!(marked(&world).is_empty());
    world.pool_changed(&group("d"), Some(&before), Some(&after));
    assert_eq!(marked(&world), ["a", "c"], "a generation would tell of itself");
    world.pool_changed(&group("d"), Some(&after), None);
    assert_eq!(marked(&world), ["a", "c", "d"]);
    world.pool_changed(&group("d"), None, None);
    assert_eq!(marked(&world), ["a", "b", "c", "d"]);
}

fn queue(namespace: &str, name: &str, weight: i32, downstream: &[&str]) -> TaskQueue {
    let priority = Priority {
        weight,
        weight_rule: WeightRule::Downstream,
        downstream: downstream.iter().map(ToString::to_string).collect(),
        ..Priority::default()
    };
    let spec = TaskQueueSpec {
        priority,
        ..TaskQueueSpec::default()
    };
    let mut queue = TaskQueue::new(name, spec);
    queue.metadata.namespace = Some(namespace.to_owned());
    queue
}

#[test]
fn a_weight_follows_the_other_queues_of_its_namespace_alone() {
    let world = World::default();
    let effective = |changed: &str| -> Vec<(String, Vec<u64>)> {
        world.mark_budgets(changed, true);
        world.rebuild(Moment(0));
        let weights = world.weights().into_iter();
        weights
            .map(|(name, one)| (name, one.effective.values().copied().collect()))
            .collect()
    };
    for one in [
        queue("n", "a", 1, &["b", "c"]),
        queue("n", "b", 2, &["d"]),
        queue("n", "c", 3, &["d"]),
        queue("n", "d", 1, &[]),
        queue("o", "a", 5, &["b"]),
        queue("o", "c", 9, &[]),
    ] {
        world.queues.put(one);
    }
    assert_eq!(effective("n"), [("n".to_owned(), vec![7, 3, 4, 1])]);
    let other = ("o".to_owned(), vec![5, 9]);
    assert_eq!(
        effective("o"),
        [("n".to_owned(), vec![7, 3, 4, 1]), other.clone()]
    );
    world.queues.put(queue("n", "d", 10, &[]));
    assert_eq!(
        effective("o")[0].1,
        [7, 3, 4, 1],
        "nobody has said that it changed"
    );
    assert_eq!(effective("n"), [("n".to_owned(), vec![16, 12, 13, 10]), other]);
}

/// Shows an object that cannot be read.
fn pass<K>(index: &Index<K>, name: &str)
where
    K: Resource + serde::de::DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let object = serde_json::json!({"metadata": {"namespace": "n", "name": name}, "spec": 7});
    let object: Lenient<K> = serde_json::from_value(object).unwrap();
    index.pass(&object.open().unwrap_err());
}

/// A process that has just started knows of it only that it is there.
#[test]
fn a_queue_that_cannot_be_read_is_not_taken_for_one_that_is_missing() {
    let world = World::default();
    world.pools.put(pool("w", "General", &["q"]));
    world.queues.put(queue("n", "first", 1, &["q", "typo"]));
    let told = || {
        world.mark_namespace("n", Some("q"));
        world.rebuild(Moment(0));
        let state = world.states().remove(0);
        assert!(state.input.is_none(), "nothing is decided for it");
        state.spec.as_ref().err().cloned().unwrap()
    };
    let unknown = || world.weights()["n"].unknown["first"].clone();
    let missing = told();
    assert_eq!((missing.reason, unknown().len()), (Reason::QueueUnknown, 2));
    pass(&world.queues, "q");
    let unread = told();
    assert_eq!(
        (unread.field.as_str(), unread.reason),
        ("spec.queues[0].name", Reason::InvalidSpec)
    );
    assert!(
        unread
            .message
            .contains("TaskQueue \"q\" cannot be read: correct it"),
        "{}",
        unread.message
    );
    assert_eq!(unknown(), ["typo"], "nobody is told to create what is there");
    world.queues.forget("n");
    assert_eq!(told().reason, Reason::QueueUnknown);
}

#[test]
fn a_pool_that_cannot_be_read_has_nothing_to_give_and_is_not_missing() {
    let world = World::default();
    let seen = || {
        world.mark_budgets("n", false);
        world.rebuild(Moment(0));
        let namespace = world.namespace("n").unwrap_or_default();
        let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<String>>();
        (
            names(namespace.pools.keys().collect()),
            names(namespace.unreadable.keys().collect()),
        )
    };
    let denied = kube::core::Status::failure("no", "Forbidden").boxed();
    world
        .unmade
        .tried("n", Some(&kube::Error::Api(denied)), Moment(0));
    let unmade = || world.no_default("n", Moment(60_000)).is_some();
    assert!(unmade());
    pass(&world.budgets, DEFAULT_POOL);
    let own = || vec![DEFAULT_POOL.to_owned()];
    assert_eq!((seen(), unmade()), ((vec![], own()), false));
    let mut read = Pool::new(DEFAULT_POOL, poolwright_api::v1alpha1::PoolSpec::default());
    read.metadata.namespace = Some("n".to_owned());
    world.budgets.put(read);
    assert_eq!(seen(), (own(), vec![]));
    pass(&world.budgets, DEFAULT_POOL);
    assert_eq!(seen(), (vec![], own()), "what is known of it is old");
}

/// Marks of preview environments, say, that come and go while a process stands by.
#[test]
fn who_stands_by_keeps_no_marks_of_what_is_gone() {
    let world = World::default();
    world.pools.put(pool("stays", "Cpu", &["q"]));
    for name in ["stays", "gone"] {
        world.mark(&("n".to_owned(), name.to_owned()), true);
        world.mark(&("away".to_owned(), name.to_owned()), true);
    }
    assert!(world.prune());
    let left: Vec<Group> = lock(&world.dirty).keys().cloned().collect();
    assert_eq!(left, [("n".to_owned(), "stays".to_owned())]);
    let stale: Vec<String> = lock(&world.stale).keys().cloned().collect();
    assert_eq!(stale, ["n"]);
    // Whoever decides learns of what is gone, and forgets it everywhere.
    world.mark(&("n".to_owned(), "gone".to_owned()), true);
    assert_eq!(world.rebuild(Moment(0)).len(), 2);
    world.mark(&("n".to_owned(), "gone".to_owned()), true);
    assert!(!world.prune());
    assert_eq!(lock(&world.dirty).len(), 1);
}
