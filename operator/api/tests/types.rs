//! The Rust types and the schema agree: names, defaults, and what a minimal object reads as.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

mod rules;

use kube::{Resource, core::cel::apply_defaults};
use poolwright_api::{
    API_VERSION, DEFAULT_POOL, GROUP, VERSION,
    v1alpha1::{
        Broker, Guarantee, Pool, PoolUse, Priority, PriorityTier, RabbitmqOptions, RedisOptions, Scaling,
        TaskQueue, WeightRule, Worker, WorkerPool,
    },
};
use rules::schema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The object as the API server would store it.
fn stored(kind: &str, object: &Value) -> Value {
    apply_defaults(&schema(kind), object)
}

/// The schema of one field: `spec.guarantees[].slots`.
fn field(kind: &str, path: &str) -> Value {
    let pointer = path.replace("[]", "/items").replace('.', "/properties/");
    schema(kind)
        .pointer(&format!("/properties/{pointer}"))
        .unwrap()
        .clone()
}

/// Reading the object as written and as stored gives the same, and writes the same as stored.
fn agree<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(kind: &str, object: &Value) -> T {
    let stored = stored(kind, object);
    let read: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(read, serde_json::from_value::<T>(stored.clone()).unwrap());
    assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    read
}

#[test]
fn a_minimal_task_queue_has_the_documented_defaults() {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": "TaskQueue", "metadata": { "name": "mail" },
        "spec": { "broker": { "url": "redis://redis", "redis": {} } },
    });
    let queue: TaskQueue = agree("TaskQueue", &object);
    assert_eq!(queue.queue_name(), "mail");
    assert_eq!(queue.spec.broker.redis, Some(RedisOptions::default()));
    assert_eq!(queue.spec.broker.redis_options().priority_steps, [0, 3, 6, 9]);
    assert_eq!(queue.spec.broker.redis_options().visibility_timeout_seconds, 3600);
    assert_eq!(Broker::default().redis_options(), RedisOptions::default());
    assert_eq!(queue.spec.broker.control_exchange, "celery");
    assert_eq!(queue.spec.broker.event_exchange, "celeryev");

    object["spec"] = json!({
        "queue": "mail.out",
        "broker": { "url": "amqp://rabbit", "rabbitmq": {}, "tls": { "caSecretRef": { "name": "ca", "key": "pem" } } },
    });
    let queue: TaskQueue = agree("TaskQueue", &object);
    assert_eq!(queue.queue_name(), "mail.out");
    assert_eq!(queue.spec.broker.rabbitmq, Some(RabbitmqOptions::default()));
    assert_eq!(
        queue.spec.broker.rabbitmq_options().consumer_timeout_seconds,
        1800
    );
}

#[test]
fn a_queue_draws_on_the_default_pool_and_has_a_usual_priority() {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": "TaskQueue", "metadata": { "name": "mail" },
        "spec": { "broker": { "url": "redis://redis" } },
    });
    let queue: TaskQueue = agree("TaskQueue", &object);
    assert_eq!((queue.pool_name(), queue.slots_per_task()), (DEFAULT_POOL, 1));
    assert_eq!(queue.spec.priority, Priority::default());
    assert_eq!((queue.tier(), queue.tier().value()), (PriorityTier::Normal, 50));
    assert_eq!(queue.spec.priority.weight, 1);
    assert_eq!(queue.spec.priority.weight_rule, WeightRule::Absolute);
    assert_eq!(queue.spec.max_active_tasks, None);

    // A part that is written leaves the others at their defaults.
    object["spec"]["pool"] = json!({ "slotsPerTask": 3 });
    object["spec"]["priority"] = json!({ "tier": "Critical", "downstream": ["archive"] });
    object["spec"]["maxActiveTasks"] = json!(7);
    let queue: TaskQueue = agree("TaskQueue", &object);
    assert_eq!((queue.pool_name(), queue.slots_per_task()), (DEFAULT_POOL, 3));
    assert_eq!(queue.tier(), PriorityTier::Critical);
    assert_eq!(
        (queue.spec.priority.weight, queue.spec.max_active_tasks),
        (1, Some(7))
    );
    assert_eq!(queue.spec.priority.downstream, ["archive"]);
    assert_eq!(PoolUse::default().name, DEFAULT_POOL);
}

/// A stored object can be older than a bound, and a task that takes nothing would make a budget worthless.
#[test]
fn a_task_takes_at_least_one_slot() {
    for written in [0, -5, i32::MIN] {
        let mut queue = TaskQueue::default();
        queue.spec.pool.slots_per_task = written;
        assert_eq!(queue.slots_per_task(), 1);
    }
}

#[test]
fn tiers_are_numbers_that_fall() {
    let values = PriorityTier::ALL.map(PriorityTier::value);
    assert_eq!(values, [100, 75, 50, 25, 1]);
    let names = PriorityTier::ALL.map(|tier| serde_json::to_value(tier).unwrap());
    assert_eq!(names, ["Critical", "High", "Normal", "Low", "Background"]);
}

#[test]
fn a_minimal_pool_has_the_documented_defaults() {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": "Pool", "metadata": { "name": "database" }, "spec": { "slots": 10 },
    });
    let pool: Pool = agree("Pool", &object);
    assert_eq!((pool.spec.limit(), pool.spec.guarantees.len()), (Some(10), 0));
    assert_eq!(pool.spec.description, None);
    object["spec"] = json!({ "slots": -1, "guarantees": [{ "queue": "mail", "slots": 2 }] });
    let pool: Pool = agree("Pool", &object);
    assert_eq!(pool.spec.limit(), None);
    let guarantee = Guarantee {
        queue: "mail".to_owned(),
        slots: 2,
    };
    assert_eq!(pool.spec.guarantees, [guarantee]);
    object["spec"]["slots"] = json!(0);
    assert_eq!(agree::<Pool>("Pool", &object).spec.limit(), Some(0));
}

#[test]
fn a_minimal_worker_pool_has_the_documented_defaults() {
    let object = json!({
        "apiVersion": API_VERSION, "kind": "WorkerPool", "metadata": { "name": "mail" },
        "spec": {
            "class": "Cpu",
            "queues": [{ "name": "mail" }],
            "celery": { "app": "proj" },
            "worker": { "image": "mail:1" },
        },
    });
    let pool: WorkerPool = agree("WorkerPool", &object);
    assert_eq!(pool.spec.scaling, Scaling::default());
    let scaling = &pool.spec.scaling;
    assert_eq!(
        (
            scaling.min_replicas,
            scaling.max_replicas,
            scaling.scale_down_delay_seconds
        ),
        (0, 10, None)
    );
    assert_eq!(
        pool.spec.worker,
        Worker {
            image: "mail:1".to_owned(),
            ..Worker::default()
        }
    );
    assert!(pool.spec.worker.command.is_empty(), "what the program says");
}

#[test]
fn quantities_may_be_written_as_numbers() {
    // The schema takes both, and an object that is stored but cannot be read would never be acted on.
    let pool: WorkerPool = serde_json::from_value(json!({
        "apiVersion": API_VERSION, "kind": "WorkerPool", "metadata": { "name": "mail" },
        "spec": {
            "queues": [{ "name": "mail" }],
            "celery": { "app": "proj" },
            "worker": { "image": "mail:1", "resources": { "limits": { "cpu": 2, "memory": "1Gi" } } },
            "pod": { "volumes": [{ "name": "tmp", "emptyDir": { "sizeLimit": 1024 } }] },
        },
    }))
    .unwrap();
    let limits = pool
        .spec
        .worker
        .resources
        .and_then(|resources| resources.limits)
        .unwrap();
    assert_eq!(limits["cpu"].0, "2");
    assert_eq!(limits["memory"].0, "1Gi");
}

#[test]
fn names_are_the_constants() {
    assert_eq!(API_VERSION, format!("{GROUP}/{VERSION}"));
    assert_eq!(
        (WorkerPool::group(&()), WorkerPool::version(&())),
        (GROUP.into(), VERSION.into())
    );
    assert_eq!(
        (TaskQueue::plural(&()), WorkerPool::plural(&()), Pool::plural(&())),
        ("taskqueues".into(), "workerpools".into(), "pools".into())
    );
}

/// Numbers that budgets are computed with, and lists that grow with a namespace: their bounds are part of the API.
#[test]
fn budgets_have_these_bounds() {
    let expected = [
        ("Pool", "spec.slots", "minimum", -1),
        ("Pool", "spec.slots", "maximum", 1_000_000),
        ("Pool", "spec.guarantees", "maxItems", 100),
        ("Pool", "spec.guarantees[].slots", "minimum", 1),
        ("Pool", "spec.guarantees[].slots", "maximum", 1_000_000),
        ("Pool", "status.holders", "maxItems", 1000),
        ("Pool", "status.waiters", "maxItems", 50),
        ("TaskQueue", "spec.pool.slotsPerTask", "minimum", 1),
        ("TaskQueue", "spec.pool.slotsPerTask", "maximum", 10_000),
        ("TaskQueue", "spec.priority.weight", "minimum", 1),
        ("TaskQueue", "spec.priority.weight", "maximum", 1_000_000),
        ("TaskQueue", "spec.priority.downstream", "maxItems", 64),
        ("TaskQueue", "spec.maxActiveTasks", "minimum", 1),
        ("TaskQueue", "spec.maxActiveTasks", "maximum", 1_000_000),
    ];
    for (kind, path, keyword, bound) in expected {
        let found = field(kind, path)[keyword].as_f64();
        assert_eq!(found, Some(f64::from(bound)), "{kind} {path} {keyword}");
    }
}

/// The API server refuses an entry that is there twice only where the list says what makes two entries the same.
#[test]
fn lists_whose_entries_are_unique_say_so() {
    let expected = [
        ("Pool", "spec.guarantees", json!(["queue"])),
        ("Pool", "status.holders", json!(["uid"])),
        ("TaskQueue", "spec.priority.downstream", Value::Null),
    ];
    for (kind, path, keys) in expected {
        let field = field(kind, path);
        let list_type = if keys.is_null() { "set" } else { "map" };
        assert_eq!(field["x-kubernetes-list-type"], list_type, "{kind} {path}");
        assert_eq!(field["x-kubernetes-list-map-keys"], keys, "{kind} {path}");
    }
}
