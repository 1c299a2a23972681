//! What the API server refuses by itself, before anything of ours runs.

use super::expect_words;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_tests::{FAKE_IMAGE, Result, Stage};
use serde_json::{Value, json};
use std::time::Duration;

const CANARY: &str = "canary-in-a-url";

/// What is tried, and the words of the answer.
struct Case {
    what: &'static str,
    act: Act,
    words: &'static [&'static str],
}

enum Act {
    /// A change of the running WorkerPool's spec.
    Change(Value),
    /// A new WorkerPool of this name, with a valid spec.
    Name(String),
    /// A change of the TaskQueue's spec.
    Queue(Value),
    /// A new TaskQueue with this broker.
    Broker(Value),
    /// A new Pool with this spec.
    Pool(Value),
}

fn case(what: &'static str, act: Act, words: &'static [&'static str]) -> Case {
    Case { what, act, words }
}

fn change(what: &'static str, spec: Value, words: &'static [&'static str]) -> Case {
    case(what, Act::Change(spec), words)
}

fn names_and_queues() -> Vec<Case> {
    let many: Vec<Value> = (0..65).map(|at| json!({"name": format!("q{at}")})).collect();
    let long = "n".repeat(300);
    vec![
        case(
            "a name of 53 characters",
            Act::Name("w".repeat(53)),
            &["metadata.name must be at most 52 characters long"],
        ),
        case(
            "a name of 300 characters",
            Act::Name(long.clone()),
            &["metadata.name", "no more than 253"],
        ),
        change(
            "65 queues",
            json!({"queues": many}),
            &["spec.queues", "must have at most 64 items"],
        ),
        change(
            "no queue",
            json!({"queues": []}),
            &["spec.queues", "should have at least 1 items"],
        ),
        change(
            "one queue twice",
            json!({"queues": [{"name": "q"}, {"name": "q"}]}),
            &["spec.queues[1]", "Duplicate value"],
        ),
        change(
            "a reference of 300 characters",
            json!({"queues": [{"name": long}]}),
            &["spec.queues[0].name", "may not be more than 253"],
        ),
        case(
            "a queue's name of 300 characters",
            Act::Queue(json!({"queue": "n".repeat(300)})),
            &["spec.queue", "may not be more than 255"],
        ),
        case(
            "a queue's name of 400 bytes",
            Act::Queue(json!({"queue": "é".repeat(200)})),
            &["spec.queue must be at most 255 bytes long"],
        ),
        case(
            "a comma in a queue's name",
            Act::Queue(json!({"queue": "a,b"})),
            &["spec.queue"],
        ),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        change(
            "min above max",
            json!({"scaling": {"minReplicas": 11}}),
            &["spec.scaling.minReplicas must be at most spec.scaling.maxReplicas (10), is 11"],
        ),
        change(
            "a request that is no quantity",
            json!({"worker": {"resources": {"requests": {"cpu": "four"}}}}),
            &["spec.worker.resources.requests.cpu", "should match"],
        ),
        change(
            "a request above its limit",
            json!({"worker": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1500Mi"}}}}),
            &[
                "spec.worker.resources.requests.memory is 2Gi, which is more than the limit 1500Mi",
                "lower it, or raise spec.worker.resources.limits.memory",
            ],
        ),
        change(
            "a request above its limit, as a number",
            json!({"worker": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}}}),
            &["spec.worker.resources.requests.cpu is 2, which is more than the limit 1999m"],
        ),
        change(
            "max of 0",
            json!({"scaling": {"maxReplicas": 0}}),
            &["spec.scaling.maxReplicas", "should be greater than or equal to 1"],
        ),
        change(
            "max of 10,001",
            json!({"scaling": {"maxReplicas": 10_001}}),
            &[
                "spec.scaling.maxReplicas",
                "should be less than or equal to 10000",
            ],
        ),
        change(
            "a fallback above max",
            json!({"scaling": {"fallback": {"replicas": 11, "afterSeconds": 60}}}),
            &["spec.scaling.fallback.replicas must be at most spec.scaling.maxReplicas"],
        ),
        change(
            "a schedule above max",
            json!({"scaling": {"schedules": [
                {"name": "day", "cron": "0 8 * * *", "durationSeconds": 60, "minReplicas": 10},
                {"name": "night", "cron": "0 22 * * *", "durationSeconds": 60, "minReplicas": 11},
            ]}}),
            &["spec.scaling.schedules[1].minReplicas must be at most spec.scaling.maxReplicas (10), is 11"],
        ),
        change(
            "time limits that cross",
            json!({"celery": {"timeLimitSeconds": 60, "softTimeLimitSeconds": 60}}),
            &["spec.celery.softTimeLimitSeconds must be less than spec.celery.timeLimitSeconds"],
        ),
        change(
            "a time limit beyond a week",
            json!({"celery": {"timeLimitSeconds": 604_801}}),
            &["spec.celery.timeLimitSeconds", "less than or equal to 604800"],
        ),
        change(
            "no concurrency to be found",
            json!({"celery": {"concurrency": null}}),
            &["spec.celery.concurrency (1 to 10000) is required"],
        ),
        change(
            "a concurrency of 0",
            json!({"celery": {"concurrency": 0}}),
            &["spec.celery.concurrency", "should be greater than or equal to 1"],
        ),
        change(
            "a grace of 0",
            json!({"drain": {"graceSeconds": 0}}),
            &["spec.drain.graceSeconds", "should be greater than or equal to 1"],
        ),
    ]
}

fn budgets() -> Vec<Case> {
    let guarantees = |all: &[(&str, i64)]| -> Value {
        let all = all
            .iter()
            .map(|(queue, slots)| json!({"queue": queue, "slots": slots}));
        all.collect()
    };
    let pool = |what, spec, words| case(what, Act::Pool(spec), words);
    let queue = |what, spec, words| case(what, Act::Queue(spec), words);
    vec![
        pool(
            "guarantees above the slots",
            json!({"slots": 4, "guarantees": guarantees(&[("q", 3), ("r", 2)])}),
            &[
                "spec.guarantees must add up to at most spec.slots (4), add up to 5",
                "close the Pool with slots 0",
            ],
        ),
        pool(
            "a queue with two guarantees",
            json!({"slots": 4, "guarantees": guarantees(&[("q", 1), ("q", 1)])}),
            &["spec.guarantees[1]", "Duplicate value"],
        ),
        pool(
            "a guarantee of nothing",
            json!({"slots": 4, "guarantees": guarantees(&[("q", 0)])}),
            &["spec.guarantees[0].slots", "should be greater than or equal to 1"],
        ),
        pool(
            "negative slots",
            json!({"slots": -2}),
            &["spec.slots", "should be greater than or equal to -1"],
        ),
        pool(
            "huge slots",
            json!({"slots": 1_000_001}),
            &["spec.slots", "should be less than or equal to 1000000"],
        ),
        pool(
            "slots beyond 32 bits",
            json!({"slots": 3_000_000_000_i64}),
            &["spec.slots", "should be less than or equal to 1000000"],
        ),
        pool("no slots at all", json!({}), &["spec.slots", "Required value"]),
        queue(
            "a weight of 0",
            json!({"priority": {"weight": 0}}),
            &["spec.priority.weight", "should be greater than or equal to 1"],
        ),
        queue(
            "an unknown tier",
            json!({"priority": {"tier": "Urgent"}}),
            &["spec.priority.tier", "Unsupported value", "Critical"],
        ),
        queue(
            "downstream naming itself",
            json!({"priority": {"downstream": ["r", "q"]}}),
            &["spec.priority.downstream must not name the TaskQueue itself"],
        ),
        queue(
            "a task of no slots",
            json!({"pool": {"slotsPerTask": 0}}),
            &["spec.pool.slotsPerTask", "should be greater than or equal to 1"],
        ),
        queue(
            "a task of huge slots",
            json!({"pool": {"slotsPerTask": 10_001}}),
            &["spec.pool.slotsPerTask", "should be less than or equal to 10000"],
        ),
        queue(
            "a cap of 0",
            json!({"maxActiveTasks": 0}),
            &["spec.maxActiveTasks", "should be greater than or equal to 1"],
        ),
        change(
            "a negative hold",
            json!({"replicas": -1}),
            &["spec.replicas", "should be greater than or equal to 0"],
        ),
    ]
}

fn workers() -> Vec<Case> {
    vec![
        change(
            "an app of 300 characters",
            json!({"celery": {"app": "a".repeat(300)}}),
            &["spec.celery.app", "may not be more than 256"],
        ),
        change(
            "neither celery nor anything else",
            json!({"celery": null}),
            &["spec.celery is required"],
        ),
        change(
            "class Io without an execution pool",
            json!({"class": "Io"}),
            &["spec.celery.executionPool is required with class Io"],
        ),
        change(
            "an argument that a field sets",
            json!({"celery": {"extraArgs": ["--concurrency=9"]}}),
            &["spec.celery.extraArgs must not hold flags"],
        ),
        change(
            "an argument that empties the queues",
            json!({"celery": {"extraArgs": ["--purge"]}}),
            &["nor --purge and --discard, with which each start empties the queues"],
        ),
        change(
            "a mount of a volume that is not there",
            json!({"worker": {"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}}),
            &["spec.worker.volumeMounts must each name a volume of spec.pod.volumes"],
        ),
        change(
            "a variable that is ours",
            json!({"worker": {"env": [{"name": "POD_NAME", "value": "me"}]}}),
            &["spec.worker.env must not set POD_NAME"],
        ),
        change(
            "a sidecar with the worker's name",
            json!({"pod": {"sidecars": [{"name": "worker", "image": FAKE_IMAGE}]}}),
            &["spec.pod.sidecars must not be named worker"],
        ),
        change(
            "a label that Poolwright sets",
            json!({"pod": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}),
            &["spec.pod.labels must not use the prefix", "Poolwright sets them"],
        ),
        change(
            "an annotation by which Poolwright says who goes first",
            json!({"pod": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "1"}}}),
            &[
                "spec.pod.annotations must not use the prefix",
                "Poolwright sets them",
            ],
        ),
    ]
}

fn addresses() -> Vec<Case> {
    let secret = json!({"name": "broker", "key": "url"});
    let password: &[&str] = &["spec.broker.url must hold no user or password", "urlSecretRef"];
    let mut all = vec![
        case(
            "url and Secret",
            Act::Broker(json!({"url": "redis://redis/0", "urlSecretRef": secret})),
            &["spec.broker must have exactly one of url and urlSecretRef"],
        ),
        case(
            "no address",
            Act::Broker(json!({})),
            &["spec.broker must have exactly one of url and urlSecretRef"],
        ),
        case(
            "an unknown scheme",
            Act::Broker(json!({"url": "kafka://kafka:9092"})),
            &["spec.broker.url must start with redis://, rediss://, sentinel://, amqp:// or amqps://"],
        ),
        case(
            "options of the other broker",
            Act::Broker(json!({"url": "amqp://rabbit/", "redis": {"keyPrefix": "p"}})),
            &["spec.broker.redis is allowed only with a redis://, rediss:// or sentinel:// url"],
        ),
        case(
            "a master's name without sentinels",
            Act::Broker(json!({"url": "redis://redis/0", "redis": {"sentinelMaster": "m"}})),
            &["spec.broker.redis.sentinelMaster is allowed only with a sentinel:// url"],
        ),
    ];
    for (url, words) in [
        ("redis:///0", &["spec.broker.url names no host"][..]),
        ("rediss://:6379/0", &["spec.broker.url names no host"]),
        ("amqp:///vhost", &["spec.broker.url names no host"]),
        (
            "redis://redis/nine",
            &[
                "spec.broker.url names no database: the path of a Redis address must be a database number, such as /0",
            ],
        ),
        ("rediss://redis:6379/0x", &["must be a database number"]),
    ] {
        all.push(case(
            "an address that is none",
            Act::Broker(json!({"url": url})),
            words,
        ));
    }
    for url in [
        format!("redis://:{CANARY}@redis:6379/0"),
        format!("redis://redis:6379/0?password={CANARY}"),
        format!("sentinel://a:26379;sentinel://user:{CANARY}@b:26379"),
        format!("amqp://user:{CANARY}/@rabbit/vhost"),
    ] {
        let mut broker = json!({"url": url});
        if url.starts_with("sentinel") {
            broker["redis"] = json!({"sentinelMaster": "m"});
        }
        all.push(case("a URL with a password", Act::Broker(broker), password));
    }
    for (field, words) in [
        (
            "managementUrl",
            &[
                "managementUrl must",
                "hold no user or password",
                "managementUrlSecretRef",
            ][..],
        ),
        ("metricsUrl", &["metricsUrl must", "hold no user or password"]),
    ] {
        let url = format!("http://user:{CANARY}@rabbit:15672");
        let broker = json!({"url": "amqp://rabbit/", "rabbitmq": {field: url}});
        all.push(case(
            "an HTTP address with a password",
            Act::Broker(broker),
            words,
        ));
    }
    all
}

async fn refusal(stage: &Stage, act: &Act) -> Result<String> {
    let client = stage.plane.client().await?;
    let space = &stage.namespace.name;
    let pools: Api<DynamicObject> = Api::namespaced_with(client.clone(), space, &resource::<WorkerPool>());
    let queues: Api<DynamicObject> = Api::namespaced_with(client.clone(), space, &resource::<TaskQueue>());
    let budgets: Api<DynamicObject> = Api::namespaced_with(client, space, &resource::<Pool>());
    let (post, params) = (PostParams::default(), PatchParams::default());
    let merge = |spec: &Value| Patch::Merge(json!({"spec": spec}));
    let answer = match act {
        Act::Change(spec) => pools.patch("w", &params, &merge(spec)).await,
        Act::Queue(spec) => queues.patch("q", &params, &merge(spec)).await,
        Act::Name(name) => {
            let pool = stage.pool_manifest(name, &["q"], "redis://redis/0", json!({}));
            pools.create(&post, &serde_json::from_value(pool)?).await
        }
        Act::Broker(broker) => {
            let queue = json!({
                "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
                "metadata": {"name": "bad"}, "spec": {"broker": broker}});
            queues.create(&post, &serde_json::from_value(queue)?).await
        }
        Act::Pool(spec) => {
            let pool = json!({
                "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
                "metadata": {"name": "bad"}, "spec": spec});
            budgets.create(&post, &serde_json::from_value(pool)?).await
        }
    };
    match answer {
        Ok(_) => Err("it was accepted".into()),
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
    }
}

fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Tries all of it on the TaskQueue `q` and the running WorkerPool `w`.
pub async fn refuses_all(stage: &Stage) -> Result<()> {
    let before = stage.footprint("w").await?;
    let generation = stage.wp("w").await?.metadata.generation;
    let all = [names_and_queues(), numbers(), budgets(), workers(), addresses()];
    for Case { what, act, words } in all.iter().flatten() {
        let text = refusal(stage, act)
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        expect_words(what, &text, words)?;
        assert!(!text.contains(CANARY), "{what}: the answer repeats it: {text}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.wp("w").await?.metadata.generation, generation);
    assert_eq!(stage.footprint("w").await?, before);
    Ok(())
}
