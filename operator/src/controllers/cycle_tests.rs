//! Which WorkerPools a cycle sees.

use poolwright_api::{LABEL_REVISION, LABEL_WORKER_POOL};
use serde_json::json;

use super::*;

fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, rest: &serde_json::Value) -> K {
    let mut object = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": "n", "name": name, "uid": name, "generation": 1},
    });
    for (key, value) in rest.as_object().unwrap() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// As with `kubectl delete -f` of a whole fleet: nobody reads its queues any more, and what its pods hold is no other's.
#[test]
fn what_is_left_behind_is_seen_whether_its_queues_are_read_or_not() {
    let driver = Driver {
        world: Arc::default(),
        board: Arc::default(),
        latest: Arc::default(),
        wake: Arc::default(),
        hold_lost_slots: false,
        metrics: Arc::default(),
        pulse: watch::channel(None).0,
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
    };
    let world = &driver.world;
    let spec = json!({"spec": {"broker": {"url": "redis://broker:6379/0"}}});
    world.queues.put(object("TaskQueue", "q", &spec));
    let spec = json!({"class": "General", "queues": [{"name": "q"}], "celery": {"app": "a"}, "worker": {"image": "i"}});
    world.pools.put(object("WorkerPool", "w", &json!({"spec": spec})));
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w", "uid": "set", "controller": true});
    let pod = json!({"metadata": {
        "namespace": "n", "name": "w-1", "uid": "w-1", "ownerReferences": [owner],
        "labels": {LABEL_WORKER_POOL: "w", LABEL_REVISION: "r"},
    }});
    let pod = serde_json::from_value(pod).unwrap();
    world.pods.put(pod);
    let seen = |now| {
        world.mark_namespace("n", None);
        world.rebuild(now);
        let snapshot = driver.snapshot(now);
        let pools: Vec<bool> = snapshot.pools.iter().map(|pool| pool.terminating).collect();
        (pools, snapshot.unread.len())
    };
    assert_eq!(seen(Moment(1000)), (vec![], 1), "its queue was not read yet");
    world.queues.forget("n");
    assert_eq!(seen(Moment(2000)), (vec![true], 0));
}
