//! The Rust types and the schema agree: names, defaults, and what a minimal object reads as.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use kube::{Resource, core::cel::apply_defaults};
use poolwright_api::{
    API_VERSION, GROUP, VERSION,
    v1alpha1::{Broker, RabbitmqOptions, RedisOptions, Scaling, TaskQueue, Worker, WorkerPool},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The object as the API server would store it.
fn stored(kind: &str, object: &Value) -> Value {
    let (_, crd) = poolwright_api::crds()
        .into_iter()
        .find(|(_, crd)| crd.spec.names.kind == kind)
        .unwrap();
    let schema = crd.spec.versions[0]
        .schema
        .clone()
        .unwrap()
        .open_api_v3_schema
        .unwrap();
    apply_defaults(&serde_json::to_value(schema).unwrap(), object)
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
        (0, 10, 60)
    );
    assert_eq!(
        pool.spec.worker,
        Worker {
            image: "mail:1".to_owned(),
            ..Worker::default()
        }
    );
    assert_eq!(pool.spec.worker.command, ["celery"]);
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
        (TaskQueue::plural(&()), WorkerPool::plural(&())),
        ("taskqueues".into(), "workerpools".into())
    );
}
