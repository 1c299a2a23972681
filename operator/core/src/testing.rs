//! A WorkerPool and its TaskQueues for tests: a small valid example, and changes laid over it.

use std::collections::BTreeMap;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use serde_json::{Value, json};

use crate::decision::{Decision, Facts};
use crate::objects::Objects;
use crate::observe::{Runs, pool_input};
use crate::parking::Parking;
use crate::revision::revision;
use crate::rollout::Allocation;
use crate::snapshot::PoolInput;
use crate::time::Moment;
use crate::validate::{Invalid, ValidPool, validate};
use crate::words::Words;

/// Lays `patch` over `base`: objects member by member, everything else replaced, `null` removes.
pub fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    base.remove(&name);
                } else {
                    merge(base.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (base, patch) => *base = patch,
    }
}

/// The example WorkerPool `shop/checkout` on the queues `orders` and `mail`, with `patch` over its spec.
pub fn wp(patch: Value) -> WorkerPool {
    let mut spec = json!({
        "queues": [{"name": "orders"}, {"name": "mail"}],
        "celery": {"app": "shop.celery"},
        "worker": {"image": "registry.example/shop:1"},
    });
    merge(&mut spec, patch);
    serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"namespace": "shop", "name": "checkout", "uid": "u-1", "generation": 3},
        "spec": spec,
    }))
    .expect("a WorkerPool")
}

/// A TaskQueue `shop/<name>` with this `spec`.
pub fn task_queue(name: &str, spec: &Value) -> TaskQueue {
    serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    }))
    .expect("a TaskQueue")
}

/// The TaskQueues `orders` and `mail` on one Redis.
pub fn queues() -> BTreeMap<String, TaskQueue> {
    queues_on(&json!({"url": "redis://redis:6379/0"}))
}

/// The TaskQueues `orders` and `mail` on this broker.
pub fn queues_on(broker: &Value) -> BTreeMap<String, TaskQueue> {
    ["orders", "mail"]
        .map(|name| (name.to_owned(), task_queue(name, &json!({"broker": broker}))))
        .into()
}

/// `wp` checked against [`queues`].
pub fn check(wp: &WorkerPool) -> Result<ValidPool, Invalid> {
    validate(wp, &queues())
}

/// `wp`, which must be valid.
pub fn pool(wp: &WorkerPool) -> ValidPool {
    check(wp).expect("a valid WorkerPool")
}

/// `wp` with these objects as a decision sees it.
pub fn observed(wp: &WorkerPool, objects: &Objects, conflict: Option<&str>) -> PoolInput {
    let pool = pool(wp);
    let (mut runs, name) = (Runs::new(), revision(&pool, wp));
    pool_input(
        wp,
        &pool,
        &name,
        objects,
        conflict.map(str::to_owned),
        &mut runs,
        Moment(0),
    )
}

/// A decision to go from `from` to `to`, with nothing else in it.
pub fn decision(from: u32, to: u32, reason: Reason) -> Decision {
    Decision {
        from,
        to,
        reason,
        words: Words::plain(format!("{to} = ceil(0 tasks)")),
        limits: Vec::new(),
        inputs: Vec::new(),
        allocation: Allocation::default(),
        parking: Parking::default(),
        ask: Vec::new(),
        budget: None,
        facts: Facts::default(),
    }
}
