//! Every rule of the resources, with an object that it accepts and one that it refuses.
//!
//! A row changes a valid object by a merge patch. The refused object must fail on that rule and on no other, and the
//! accepted one on none. A rule without a row fails the test.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "cel/task_queue.rs"]
mod task_queue;

mod rules;

use rules::{Row, check, messages, row, schema};
use serde_json::{Value, json};

fn pool_base() -> Value {
    json!({
        "apiVersion": "poolwright.dev/v1alpha1",
        "kind": "Pool",
        "metadata": { "name": "database" },
        "spec": { "slots": 10 },
    })
}

/// A guarantee for each of these numbers of slots.
fn guarantees(slots: &[i32]) -> Value {
    let one = |(at, slots): (usize, &i32)| json!({ "queue": format!("q{at}"), "slots": slots });
    slots.iter().enumerate().map(one).collect()
}

#[test]
fn pool() {
    let message = "spec.guarantees must add up to at most spec.slots";
    let pool = |slots: i32, guaranteed: &[i32]| json!({ "spec": { "slots": slots, "guarantees": guarantees(guaranteed) } });
    let rows = [
        row(message, pool(10, &[4, 6]), pool(10, &[4, 6, 1])),
        row(message, pool(-1, &[4, 6]), pool(1, &[1, 1])),
        // Closing the resource must not wait for its guarantees.
        row(message, pool(0, &[4, 6]), pool(9, &[4, 6])),
        row(message, pool(10, &[]), pool(1_000_000, &[1_000_000; 100])),
    ];
    check(
        "Pool",
        &pool_base(),
        &rows
            .into_iter()
            .chain(load_rows())
            .chain(pool_airflow_rows())
            .collect::<Vec<_>>(),
    );
    let patch = json!({ "spec": { "guarantees": guarantees(&[4, 8]) } });
    assert_eq!(
        messages(&schema("Pool"), &pool_base(), &patch),
        [
            "spec.guarantees must add up to at most spec.slots (10), add up to 12: lower or remove some of them in the \
          same change, or close the Pool with slots 0"
        ]
    );
}

/// Every kind of source, by itself and beside another.
fn load_rows() -> Vec<Row> {
    let prometheus = json!({ "url": "http://prometheus:9090", "query": "up" });
    let config_map = json!({ "name": "load", "key": "percent" });
    let shed = |source: Value| json!({ "spec": { "loadShedding": { "source": source } } });
    let message = "spec.loadShedding.source must have exactly one";
    vec![
        row(
            message,
            shed(json!({ "prometheus": prometheus })),
            shed(json!({})),
        ),
        row(
            message,
            shed(json!({ "configMapKeyRef": config_map })),
            shed(json!({ "prometheus": prometheus, "configMapKeyRef": config_map })),
        ),
    ]
}

/// What has a meaning only with an Airflow, or none with one that is followed.
fn pool_airflow_rows() -> Vec<Row> {
    let of = |sync: &str| json!({ "secretRef": { "name": "airflow" }, "sync": sync });
    let config_map = json!({ "source": { "configMapKeyRef": { "name": "load", "key": "percent" } } });
    vec![
        row(
            "spec.includeDeferred has a meaning in Airflow only",
            json!({ "spec": { "includeDeferred": true, "airflow": of("Apply") } }),
            json!({ "spec": { "includeDeferred": true } }),
        ),
        row(
            "spec.loadShedding must not be written with spec.airflow.sync Mirror",
            json!({ "spec": { "loadShedding": config_map, "airflow": of("Apply") } }),
            json!({ "spec": { "loadShedding": config_map, "airflow": of("Mirror") } }),
        ),
    ]
}

#[test]
fn a_prometheus_is_reached_without_a_user() {
    let form = schema("Pool");
    let form = &form["properties"]["spec"]["properties"]["loadShedding"]["properties"]["source"];
    let form = &form["properties"]["prometheus"]["properties"]["url"]["pattern"];
    let form = regex::Regex::new(form.as_str().unwrap()).unwrap();
    for good in ["http://p:9090", "https://p.example/prefix/"] {
        assert!(form.is_match(good), "{good}");
    }
    for bad in ["ftp://p", "http://me:pw@p", "http://", "http://p 1", "p:9090"] {
        assert!(!form.is_match(bad), "{bad}");
    }
}

fn worker_pool_base() -> Value {
    json!({
        "apiVersion": "poolwright.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": { "name": "mail" },
        "spec": {
            "class": "Cpu",
            "queues": [{ "name": "mail" }],
            "celery": { "app": "proj" },
            "worker": { "image": "registry.example/mail:1" },
        },
    })
}

/// What the API server prints under "Invalid value" is the whole object.
#[test]
fn bounds_that_cross_are_said_with_both_values() {
    let spec = json!({
        "celery": { "softTimeLimitSeconds": 60, "timeLimitSeconds": 50, "autoscale": { "min": 3, "max": 2 } },
        "worker": { "resources": {
            "requests": { "cpu": 2, "memory": "1Gi", "ephemeral-storage": "2e3" },
            "limits": { "cpu": "1999m", "memory": "1G", "ephemeral-storage": "1k" },
        } },
        "scaling": { "minReplicas": 7, "maxReplicas": 5, "fallback": { "replicas": 6, "afterSeconds": 60 } },
    });
    let mut found = messages(
        &schema("WorkerPool"),
        &worker_pool_base(),
        &json!({ "spec": spec }),
    );
    found.sort();
    assert_eq!(
        found,
        [
            "spec.celery.autoscale.min must be at most spec.celery.autoscale.max (2), is 3",
            "spec.celery.softTimeLimitSeconds must be less than spec.celery.timeLimitSeconds (50), is 60",
            "spec.scaling.fallback.replicas must be at most spec.scaling.maxReplicas (5), is 6",
            "spec.scaling.minReplicas must be at most spec.scaling.maxReplicas (5), is 7",
            "spec.worker.resources.requests.cpu is 2, which is more than the limit 1999m: lower it, or raise spec.worker.resources.limits.cpu",
            "spec.worker.resources.requests.ephemeral-storage is 2e3, which is more than the limit 1k: lower it, or raise spec.worker.resources.limits.ephemeral-storage",
            "spec.worker.resources.requests.memory is 1Gi, which is more than the limit 1G: lower it, or raise spec.worker.resources.limits.memory",
        ]
    );
}

fn schedule(name: &str, cron: &str, least: i32) -> Value {
    json!({ "name": name, "cron": cron, "timeZone": "UTC", "durationSeconds": 3600, "minReplicas": least })
}

/// What `spec.airflow` and what stands beside it may say.
fn airflow_rows() -> Vec<Row> {
    let airflow = |airflow: Value, mut rest: Value| {
        rest["celery"] = Value::Null;
        rest["airflow"] = airflow;
        if rest.get("class").is_none() {
            rest["class"] = Value::Null;
        }
        json!({ "spec": rest })
    };
    let setting = |name: &str| json!({ "worker": { "env": [{ "name": name, "value": "1" }] } });
    vec![
        row(
            "spec.class sets the defaults of spec.celery",
            airflow(json!({}), json!({ "class": null })),
            airflow(json!({}), json!({ "class": "Cpu" })),
        ),
        row(
            "spec.worker.env must not set AIRFLOW__CELERY__WORKER_AUTOSCALE",
            airflow(json!({}), setting("AIRFLOW__CELERY__WORKER_CONCURRENCY")),
            airflow(json!({}), setting("AIRFLOW__CELERY__WORKER_AUTOSCALE")),
        ),
        row(
            "spec.airflow must have at most one of concurrency and autoscale",
            airflow(json!({ "autoscale": { "min": 1, "max": 2 } }), json!({})),
            airflow(
                json!({ "autoscale": { "min": 1, "max": 2 }, "concurrency": 2 }),
                json!({}),
            ),
        ),
        row(
            "spec.airflow.autoscale.min must be at most",
            airflow(json!({ "autoscale": { "min": 2, "max": 2 } }), json!({})),
            airflow(json!({ "autoscale": { "min": 3, "max": 2 } }), json!({})),
        ),
        row(
            "spec.airflow.extraArgs must not hold flags",
            airflow(json!({ "extraArgs": ["-s", "--without-mingle"] }), json!({})),
            airflow(json!({ "extraArgs": ["-sq"] }), json!({})),
        ),
    ]
}

#[test]
fn worker_pool() {
    let spec = |spec: Value| json!({ "spec": spec });
    let scaling = |scaling: Value| json!({ "spec": { "scaling": scaling } });
    let worker = |worker: Value| json!({ "spec": { "worker": worker } });
    let inject = |env: &str| {
        json!({ "spec": {
            "celery": { "brokerEnv": "Inject" },
            "worker": { "env": [{ "name": env, "value": "1" }] },
        } })
    };
    let mut rows = vec![
        row(
            "metadata.name must be at most 52",
            json!({ "metadata": { "name": "x".repeat(52) } }),
            json!({ "metadata": { "name": "x".repeat(53) } }),
        ),
        row(
            "spec.celery is required, or spec.airflow",
            spec(json!({ "class": null, "celery": null, "airflow": {} })),
            spec(json!({ "celery": null })),
        ),
        row(
            "spec.celery is required, or spec.airflow",
            spec(json!({})),
            spec(json!({ "class": null, "celery": { "concurrency": 4 }, "airflow": {} })),
        ),
        row(
            "spec.celery.executionPool is required with class Io",
            spec(json!({ "class": "Io", "celery": { "executionPool": "Gevent" } })),
            spec(json!({ "class": "Io" })),
        ),
        row(
            "spec.celery.concurrency (1 to 10000) is required without a class",
            spec(json!({ "class": null, "celery": { "concurrency": 4 } })),
            spec(json!({ "class": null })),
        ),
        row(
            "spec.celery.concurrency (1 to 10000) is required without a class",
            spec(json!({ "class": null, "worker": { "resources": { "limits": { "cpu": "2" } } } })),
            spec(json!({ "class": null, "worker": { "resources": { "limits": { "memory": "2Gi" } } } })),
        ),
        row(
            "spec.celery.concurrency (1 to 10000) is required without a class",
            spec(json!({ "class": null, "celery": { "executionPool": "Solo" } })),
            spec(json!({ "class": null, "celery": { "executionPool": "Threads" } })),
        ),
        row(
            "spec.worker.env must not set CELERY_BROKER_URL",
            inject("DEBUG"),
            inject("CELERY_BROKER_URL"),
        ),
        row(
            "spec.worker.env must not set POD_NAME",
            worker(json!({ "env": [{ "name": "POD_NAMES", "value": "1" }] })),
            worker(json!({ "env": [{ "name": "POD_NAME", "value": "1" }] })),
        ),
        row(
            "spec.worker.env names must be",
            worker(json!({ "env": [{ "name": "my.var-1" }] })),
            worker(json!({ "env": [{ "name": "a=b" }] })),
        ),
        row(
            "spec.scaling.minReplicas must be at most",
            scaling(json!({ "minReplicas": 10 })),
            scaling(json!({ "minReplicas": 11 })),
        ),
        row(
            "spec.scaling.fallback.replicas must be at most",
            scaling(json!({ "fallback": { "replicas": 10, "afterSeconds": 60 } })),
            scaling(json!({ "fallback": { "replicas": 11, "afterSeconds": 60 } })),
        ),
        row(
            "spec.scaling.schedules[",
            scaling(json!({ "schedules": [schedule("a", "0 8 * * *", 10), schedule("b", "0 9 * * *", 10)] })),
            scaling(json!({ "schedules": [schedule("a", "0 8 * * *", 10), schedule("b", "0 9 * * *", 11)] })),
        ),
        row(
            "spec.scaling.schedules must have a cron of five fields",
            scaling(json!({ "schedules": [schedule("a", "0 8 * * MON-FRI", 1)] })),
            scaling(json!({ "schedules": [schedule("a", "0 8 * * * Europe/Berlin", 1)] })),
        ),
    ];
    rows.extend(airflow_rows());
    rows.extend(celery_rows());
    rows.extend(dynamic_rows());
    rows.extend(resource_rows());
    rows.extend(pod_rows());
    rows.extend(mount_rows());
    check("WorkerPool", &worker_pool_base(), &rows);
    let two = [schedule("a", "0 8 * * *", 1), schedule("b", "0 9 * * *", 11)];
    assert_eq!(
        messages(
            &schema("WorkerPool"),
            &worker_pool_base(),
            &scaling(json!({ "schedules": two }))
        ),
        ["spec.scaling.schedules[1].minReplicas must be at most spec.scaling.maxReplicas (10), is 11"]
    );
}

fn celery_rows() -> Vec<Row> {
    let celery = |celery: Value| json!({ "spec": { "celery": celery } });
    let two = json!({ "min": 1, "max": 2 });
    let app = |app: &str| celery(json!({ "app": app }));
    let wrong = "spec.celery.app must be a module";
    vec![
        row(wrong, app("proj.celery:app"), app("ta pp")),
        row(wrong, app("a-b"), app("--help")),
        row(
            "spec.celery.softTimeLimitSeconds must be less",
            celery(json!({ "softTimeLimitSeconds": 59, "timeLimitSeconds": 60 })),
            celery(json!({ "softTimeLimitSeconds": 60, "timeLimitSeconds": 60 })),
        ),
        row(
            "spec.celery.autoscale is not allowed",
            celery(json!({ "autoscale": two, "executionPool": "Prefork" })),
            celery(json!({ "autoscale": two, "executionPool": "Threads" })),
        ),
        row(
            "spec.celery must have at most one of concurrency and autoscale",
            celery(json!({ "autoscale": two })),
            celery(json!({ "autoscale": two, "concurrency": 2 })),
        ),
        row(
            "spec.celery.autoscale.min must be at most",
            celery(json!({ "autoscale": { "min": 2, "max": 2 } })),
            celery(json!({ "autoscale": { "min": 3, "max": 2 } })),
        ),
        row(
            "spec.celery.concurrency must be 1 or absent",
            celery(json!({ "executionPool": "Solo", "concurrency": 1 })),
            celery(json!({ "executionPool": "Solo", "concurrency": 2 })),
        ),
        row(
            "spec.celery.maxMemoryPerChild must be a quantity with a unit",
            // Other pools ignore it: that is advised on, not refused.
            celery(json!({ "maxMemoryPerChild": "1G", "maxTasksPerChild": 1, "executionPool": "Eventlet" })),
            celery(json!({ "maxMemoryPerChild": "300000" })),
        ),
        row(
            "spec.celery.extraArgs must not hold flags",
            celery(
                json!({ "extraArgs": ["-E", "-O", "fair", "--statedb=/tmp/c", "--heartbeat-interval", "2", "-Ofair"] }),
            ),
            celery(json!({ "extraArgs": ["-E", "--concurrency=9"] })),
        ),
    ]
}

fn dynamic_rows() -> Vec<Row> {
    let source = json!({ "configMapKeyRef": { "name": "load", "key": "percent" } });
    let dynamic = |celery: Value| {
        let mut celery = celery;
        let source = celery.get("source").cloned().unwrap_or_else(|| source.clone());
        celery["source"] = Value::Null;
        celery["dynamicConcurrency"] = json!({ "source": source });
        json!({ "spec": { "celery": celery } })
    };
    let both = json!({ "configMapKeyRef": { "name": "a", "key": "b" }, "prometheus": { "url": "http://p", "query": "q" } });
    vec![
        row(
            "spec.celery.dynamicConcurrency is not allowed with executionPool",
            dynamic(json!({ "executionPool": "Gevent" })),
            dynamic(json!({ "executionPool": "Threads" })),
        ),
        row(
            "spec.celery.dynamicConcurrency is not allowed with autoscale",
            dynamic(json!({ "concurrency": 4 })),
            dynamic(json!({ "autoscale": { "min": 1, "max": 2 } })),
        ),
        row(
            "spec.celery.dynamicConcurrency.source must have exactly one",
            dynamic(json!({})),
            dynamic(json!({ "source": both })),
        ),
        row(
            "spec.celery.dynamicConcurrency.source must have exactly one",
            dynamic(json!({ "source": { "prometheus": { "url": "http://p", "query": "q" } } })),
            dynamic(json!({ "source": {} })),
        ),
    ]
}

#[test]
fn extra_args_that_a_field_sets_are_refused_in_every_form() {
    let schema = schema("WorkerPool");
    let refused = [
        "-A",
        "-Aproj",
        "-Q",
        "-Qmail",
        "-c",
        "-c4",
        "-P",
        "-Pgevent",
        "-n",
        "-nname",
        "-l",
        "-linfo",
        "-Ec4",
        "-X",
        "-b",
        "-D",
        "--app",
        "--queues=a",
        "--concurrency",
        "--pool=solo",
        "--hostname",
        "--loglevel",
        "--broker=x",
        "--detach",
        "--autoscale=9,1",
        "--prefetch-multiplier=0",
        "--max-tasks-per-child",
        "--max-memory-per-child=1",
        "--time-limit=5",
        "--soft-time-limit",
        "--without-heartbeat",
        "--without-gossip",
        "--purge",
        "--discard",
        "--exclude-queues=a",
    ];
    for flag in refused {
        let patch = json!({ "spec": { "celery": { "extraArgs": [flag] } } });
        assert_eq!(
            messages(&schema, &worker_pool_base(), &patch).len(),
            1,
            "{flag} must be refused"
        );
    }
}

fn resource_rows() -> Vec<Row> {
    let resources = |requests: Value, limits: Value| json!({ "spec": { "worker": { "resources": { "requests": requests, "limits": limits } } } });
    vec![
        row(
            "spec.worker.resources.requests.cpu is ",
            resources(json!({ "cpu": "1000m" }), json!({ "cpu": 1, "memory": "1Gi" })),
            resources(json!({ "cpu": "1001m" }), json!({ "cpu": 1 })),
        ),
        row(
            "spec.worker.resources.requests.memory is ",
            resources(
                json!({ "memory": "1024Mi", "cpu": 2 }),
                json!({ "memory": "1Gi" }),
            ),
            resources(json!({ "memory": "1Gi" }), json!({ "memory": "1G" })),
        ),
        row(
            "spec.worker.resources.requests.ephemeral-storage is ",
            resources(
                json!({ "ephemeral-storage": "1e3" }),
                json!({ "ephemeral-storage": "1k" }),
            ),
            resources(
                json!({ "ephemeral-storage": "2e3" }),
                json!({ "ephemeral-storage": "1k" }),
            ),
        ),
    ]
}

fn mount_rows() -> Vec<Row> {
    let message = "spec.worker.volumeMounts must each name a volume";
    let spec =
        |mounts: Value, pod: Value| json!({ "spec": { "worker": { "volumeMounts": mounts }, "pod": pod } });
    let both = json!([{ "name": "a", "mountPath": "/a" }, { "name": "b", "mountPath": "/b" }]);
    let volumes = |names: &[&str]| {
        let volumes: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        json!({ "volumes": volumes })
    };
    vec![
        row(
            message,
            spec(both.clone(), volumes(&["a", "b"])),
            spec(both.clone(), volumes(&["b"])),
        ),
        row(message, spec(json!([]), json!(null)), spec(both, json!(null))),
    ]
}

fn pod_rows() -> Vec<Row> {
    let pod = |pod: Value| json!({ "spec": { "pod": pod } });
    vec![
        row(
            "spec.pod.sidecars and spec.pod.initContainers must not share",
            pod(json!({ "sidecars": [{ "name": "a" }], "initContainers": [{ "name": "b" }] })),
            pod(json!({ "sidecars": [{ "name": "a" }], "initContainers": [{ "name": "a" }] })),
        ),
        row(
            "spec.pod.labels must not use the prefix",
            pod(json!({ "labels": { "team": "mail", "example.com/poolwright.dev": "1" } })),
            pod(json!({ "labels": { "poolwright.dev/worker-pool": "other" } })),
        ),
        row(
            "spec.pod.annotations must not use the prefix",
            pod(json!({ "annotations": { "team": "mail" } })),
            pod(json!({ "annotations": { "poolwright.dev/charge": "1" } })),
        ),
        row(
            "spec.pod.labels must not use the prefix",
            pod(json!({ "labels": { "app.kubernetes.io/part-of": "shop" } })),
            pod(json!({ "labels": { "app.kubernetes.io/managed-by": "me" } })),
        ),
        row(
            "spec.pod.labels must not use the prefix",
            pod(json!({ "labels": { "app.kubernetes.io/name": "shop" } })),
            pod(json!({ "labels": { "app.kubernetes.io/instance": "mine" } })),
        ),
        row(
            "spec.pod.annotations must not use the prefix",
            pod(json!({ "annotations": { "controller.kubernetes.io/other": "1" } })),
            pod(json!({ "annotations": { "controller.kubernetes.io/pod-deletion-cost": "1" } })),
        ),
        row(
            "spec.pod.initContainers must not be named worker",
            pod(json!({ "initContainers": [{ "name": "worker-setup" }] })),
            pod(json!({ "initContainers": [{ "name": "worker" }] })),
        ),
        row(
            "spec.pod.sidecars must not be named worker",
            pod(json!({ "sidecars": [{ "name": "proxy" }] })),
            pod(json!({ "sidecars": [{ "name": "worker" }] })),
        ),
        row(
            "spec.pod.sidecars must leave restartPolicy out",
            pod(json!({ "sidecars": [{ "name": "proxy", "restartPolicy": "Always" }] })),
            pod(json!({ "sidecars": [{ "name": "proxy", "restartPolicy": "Never" }] })),
        ),
    ]
}
