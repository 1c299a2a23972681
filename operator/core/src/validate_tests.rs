//! What is refused, with which field and reason, and what the defaults become.

use super::{Limit, ValidPool, validate};
use crate::testing::{check, merge, pool, queues_on, wp};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::ExecutionPool;
use proptest::prelude::{prop_assert, proptest};
use serde_json::{Value, json};

/// The field, reason and message of the refusal of `patch` over a valid class Cpu example.
pub(super) fn refusal(mut patch: Value) -> (String, Reason, String) {
    let spec = patch.as_object_mut().expect("an object");
    spec.entry("class").or_insert_with(|| json!("Cpu"));
    let invalid = check(&wp(patch.clone())).expect_err(&patch.to_string());
    (invalid.field, invalid.reason, invalid.message)
}

/// Each change is refused at that field, in these words.
fn refused<const N: usize>(table: [(Value, &str, &str); N]) {
    for (patch, field, words) in table {
        let (found, reason, message) = refusal(patch);
        assert_eq!(
            (found.as_str(), reason),
            (field, Reason::InvalidSpec),
            "{message}"
        );
        assert!(message.contains(words), "{field}: {message}");
    }
}

#[test]
fn each_bad_field_of_celery_is_named() {
    let table = [
        (json!({"class": null}), "spec.celery.concurrency", "1 to 10000"),
        (json!({"class": "Io"}), "spec.celery.executionPool", "Gevent"),
        (json!({"celery": null}), "spec.celery", "required"),
        (
            json!({"celery": {"app": ""}}),
            "spec.celery.app",
            "proj.celery:app",
        ),
        (json!({"celery": {"app": "--help"}}), "spec.celery.app", "module"),
        (
            json!({"celery": {"concurrency": 0}}),
            "spec.celery.concurrency",
            "1 to 10000",
        ),
        (
            json!({"celery": {"prefetchMultiplier": 0}}),
            "spec.celery.prefetchMultiplier",
            "1 to 1000",
        ),
        (
            json!({"celery": {"timeLimitSeconds": -1}}),
            "spec.celery.timeLimitSeconds",
            "604800",
        ),
        (
            json!({"celery": {"timeLimitSeconds": 10, "softTimeLimitSeconds": 10}}),
            "spec.celery.softTimeLimitSeconds",
            "below",
        ),
    ];
    refused(table);
}

#[test]
fn each_bad_mix_of_celery_fields_is_named() {
    let load = json!({"configMapKeyRef": {"name": "load", "key": "percent"}});
    let table = [
        (
            json!({"celery": {"autoscale": {"min": 3, "max": 2}}}),
            "spec.celery.autoscale.min",
            "(2)",
        ),
        (
            json!({"celery": {"autoscale": {"min": 1, "max": 0}}}),
            "spec.celery.autoscale.max",
            "1 to",
        ),
        (
            json!({"celery": {"autoscale": {"min": 1, "max": 2}, "concurrency": 2}}),
            "spec.celery.concurrency",
            "remove one",
        ),
        (
            json!({"celery": {"autoscale": {"min": 1, "max": 2}, "executionPool": "Threads"}}),
            "spec.celery.autoscale",
            "Threads",
        ),
        (
            json!({"celery": {"executionPool": "Threads", "concurrency": 2, "dynamicConcurrency": {"source": load}}}),
            "spec.celery.dynamicConcurrency",
            "Threads",
        ),
        (
            json!({"celery": {"autoscale": {"min": 1, "max": 2}, "dynamicConcurrency": {"source": load}}}),
            "spec.celery.dynamicConcurrency",
            "remove one",
        ),
        (
            json!({"celery": {"concurrency": 2, "dynamicConcurrency": {"source": {}}}}),
            "spec.celery.dynamicConcurrency.source",
            "exactly one",
        ),
        (
            json!({"celery": {"concurrency": 2, "dynamicConcurrency": {"highPercent": 101, "source": load}}}),
            "spec.celery.dynamicConcurrency.highPercent",
            "1 to 100",
        ),
        (
            json!({"celery": {"concurrency": 2, "executionPool": "Solo"}}),
            "spec.celery.concurrency",
            "one task at a time",
        ),
        (
            json!({"celery": {"maxMemoryPerChild": "0"}}),
            "spec.celery.maxMemoryPerChild",
            "300Mi",
        ),
        (
            json!({"celery": {"extraArgs": ["-E", "-c4"]}}),
            "spec.celery.extraArgs[1]",
            "concurrency",
        ),
        (
            json!({"celery": {"extraArgs": ["-Ec"]}}),
            "spec.celery.extraArgs[0]",
            "-c",
        ),
        (
            json!({"celery": {"extraArgs": ["--pool=solo"]}}),
            "spec.celery.extraArgs[0]",
            "executionPool",
        ),
    ];
    refused(table);
}

/// A Deployment that is refused for one of these would name no field of the WorkerPool.
#[test]
fn each_bad_quantity_is_named() {
    let worker = |resources: Value| json!({"worker": {"resources": resources}});
    let container = |resources: Value| json!([{"name": "x", "image": "x", "resources": resources}]);
    let table = [
        (
            worker(json!({"requests": {"cpu": "four"}})),
            "spec.worker.resources.requests.cpu",
            "such as 2, 500m or 1Gi",
        ),
        (
            worker(json!({"limits": {"memory": "-1Gi"}})),
            "spec.worker.resources.limits.memory",
            "at least 0",
        ),
        (
            worker(json!({"requests": {"cpu": 2}, "limits": {"cpu": "1000m"}})),
            "spec.worker.resources.requests.cpu",
            "is 2, which is more than the limit 1000m",
        ),
        (
            worker(json!({"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 1}})),
            "spec.worker.resources.requests[nvidia.com/gpu]",
            "raise spec.worker.resources.limits[nvidia.com/gpu]",
        ),
        (
            json!({"pod": {"sidecars": container(json!({"limits": {"cpu": "1core"}}))}}),
            "spec.pod.sidecars[0].resources.limits.cpu",
            "quantity",
        ),
        (
            json!({"pod": {"initContainers": container(json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1G"}}))}}),
            "spec.pod.initContainers[0].resources.requests.memory",
            "more than the limit 1G",
        ),
        (
            json!({"pod": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "big"}}]}}),
            "spec.pod.volumes[0].emptyDir.sizeLimit",
            "quantity",
        ),
    ];
    refused(table);
    let good = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m"}});
    let accepted = check(&wp(json!({"class": "Cpu", "worker": {"resources": good}})));
    assert!(accepted.is_ok(), "{accepted:?}");
}

#[test]
fn each_bad_field_of_the_rest_is_named() {
    let table = [
        (
            json!({"scaling": {"minReplicas": 11}}),
            "spec.scaling.minReplicas",
            "(10)",
        ),
        (
            json!({"scaling": {"maxReplicas": 0}}),
            "spec.scaling.maxReplicas",
            "1 to 10000",
        ),
        (
            json!({"scaling": {"fallback": {"replicas": 11, "afterSeconds": 60}}}),
            "spec.scaling.fallback.replicas",
            "(10)",
        ),
        (json!({"replicas": -1}), "spec.replicas", "0 to 10000"),
        (
            json!({"drain": {"graceSeconds": 0}}),
            "spec.drain.graceSeconds",
            "604800",
        ),
        (json!({"worker": {"image": ""}}), "spec.worker.image", "required"),
        (
            json!({"worker": {"command": [""]}}),
            "spec.worker.command",
            "celery",
        ),
        (
            json!({"worker": {"env": [{"name": "POD_NAME", "value": "x"}]}}),
            "spec.worker.env[0].name",
            "POD_NAME",
        ),
        (
            json!({
                "celery": {"brokerEnv": "Inject"},
                "worker": {"env": [{"name": "A"}, {"name": "CELERY_BROKER_URL"}]},
            }),
            "spec.worker.env[1].name",
            "Inject",
        ),
        (
            json!({"worker": {"resources": {"limits": {"cpu": "lots"}}}}),
            "spec.worker.resources.limits.cpu",
            "500m",
        ),
        (
            json!({"pod": {"sidecars": [{"name": "worker"}]}}),
            "spec.pod.sidecars[0].name",
            "worker",
        ),
        (
            json!({"pod": {"initContainers": [{"name": "a"}], "sidecars": [{"name": "a"}]}}),
            "spec.pod.sidecars[0].name",
            "another container",
        ),
        (json!({"queues": []}), "spec.queues", "1 to 64"),
    ];
    refused(table);
}

#[test]
fn a_mount_without_its_volume_is_named_with_those_that_there_are() {
    let mounts = |name: &str| json!([{"name": name, "mountPath": "/a"}]);
    let volumes = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Value>();
    let container = |name: &str| json!([{"name": "x", "image": "x", "volumeMounts": mounts(name)}]);
    let worker = json!({"volumeMounts": [
        {"name": "code", "mountPath": "/code"}, {"name": "scratch", "mountPath": "/tmp"},
    ]});
    let many = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let table = [
        (
            json!({"worker": {"volumeMounts": mounts("scratch")}}),
            "spec.worker.volumeMounts[0].name",
            "is \"scratch\", which is no volume in spec.pod.volumes (it has none): correct the name, or add the volume \
             there",
        ),
        (
            json!({"worker": worker, "pod": {"volumes": volumes(&["code", "Scratch"])}}),
            "spec.worker.volumeMounts[1].name",
            "(allowed is one of code, Scratch)",
        ),
        (
            json!({"pod": {"volumes": volumes(&many), "initContainers": container("k")}}),
            "spec.pod.initContainers[0].volumeMounts[0].name",
            "(allowed is one of a, b, c, d, e, f, g, h and 2 more)",
        ),
        (
            json!({"pod": {"volumes": volumes(&["a"]), "sidecars": container(&"k".repeat(9_000))}}),
            "spec.pod.sidecars[0].volumeMounts[0].name",
            "kkk…\", which",
        ),
    ];
    refused(table);
    let pod = json!({
        "volumes": volumes(&["code", "scratch"]), "initContainers": container("code"), "sidecars": [{"name": "y"}],
    });
    let accepted = check(&wp(json!({"class": "Cpu", "worker": worker, "pod": pod})));
    assert!(accepted.is_ok(), "{accepted:?}");
}

#[test]
fn a_name_leaves_room_for_the_hash() {
    for (length, good) in [(1, true), (52, true), (53, false), (0, false)] {
        let mut wp = wp(json!({"class": "Cpu"}));
        wp.metadata.name = Some("n".repeat(length));
        assert_eq!(
            check(&wp).err().map(|invalid| invalid.field),
            (!good).then(|| "metadata.name".to_owned())
        );
    }
}

#[test]
fn slots_follow_what_is_written_then_the_class_then_the_cpu_limit() {
    let cpu = |limit: &str| json!({"resources": {"limits": {"cpu": limit}}});
    let table = [
        (json!({"class": "Cpu"}), 4),
        (json!({"class": "Cpu", "worker": cpu("2500m")}), 3),
        (json!({"class": "Cpu", "worker": cpu("0")}), 4),
        (
            json!({"class": "Cpu", "worker": cpu("8"), "celery": {"concurrency": 2}}),
            2,
        ),
        (json!({"class": "Memory", "worker": cpu("8")}), 2),
        (
            json!({"class": "General", "celery": {"autoscale": {"min": 1, "max": 7}}}),
            7,
        ),
        (json!({"worker": cpu("0.1")}), 1),
        (json!({"worker": cpu("1e9")}), 10_000),
        (json!({"class": "Cpu", "celery": {"executionPool": "Solo"}}), 1),
        (json!({"class": "Io", "celery": {"executionPool": "Threads"}}), 50),
    ];
    for (patch, slots) in table {
        assert_eq!(pool(&wp(patch.clone())).concurrency, slots, "{patch}");
    }
}

#[test]
fn limits_are_the_classes_only_where_they_are_enforced() {
    type Row = (Value, Option<(i32, bool)>, Option<(i32, bool)>);
    let io = |pool: &str, more: Value| {
        let mut celery = json!({"executionPool": pool});
        merge(&mut celery, more);
        json!({"class": "Io", "celery": celery})
    };
    let table: Vec<Row> = vec![
        (json!({"class": "Cpu"}), Some((3600, true)), Some((3000, true))),
        (io("Gevent", json!({})), Some((300, true)), None),
        (io("Eventlet", json!({})), None, None),
        (io("Threads", json!({})), None, None),
        (
            io("Threads", json!({"timeLimitSeconds": 9})),
            Some((9, false)),
            None,
        ),
        (
            io("Gevent", json!({"softTimeLimitSeconds": 400})),
            Some((300, true)),
            Some((400, false)),
        ),
        // A written limit drops the class's other limit when both cannot hold.
        (
            io("Prefork", json!({"timeLimitSeconds": 240})),
            Some((240, true)),
            None,
        ),
        (
            io("Prefork", json!({"timeLimitSeconds": 241})),
            Some((241, true)),
            Some((240, true)),
        ),
        (
            io("Prefork", json!({"softTimeLimitSeconds": 300})),
            None,
            Some((300, true)),
        ),
        (json!({"celery": {"concurrency": 1}}), None, None),
    ];
    for (patch, hard, soft) in table {
        let limit = |limit: Option<(i32, bool)>| limit.map(|(seconds, enforced)| Limit { seconds, enforced });
        let found = pool(&wp(patch.clone()));
        assert_eq!(
            (found.time_limit, found.soft_time_limit),
            (limit(hard), limit(soft)),
            "{patch}"
        );
    }
}

#[test]
fn everything_else_is_taken_over() {
    let found: ValidPool = pool(&wp(json!({
        "class": "Io",
        "celery": {"executionPool": "Gevent", "maxMemoryPerChild": "1500k", "ackMode": "Late"},
        "scaling": {"minReplicas": 2, "maxReplicas": 5, "scaleDownDelaySeconds": 7},
        "replicas": 9,
    })));
    assert_eq!(
        (found.namespace.as_str(), found.name.as_str(), found.generation),
        ("shop", "checkout", 3)
    );
    assert_eq!(found.queue_names().collect::<Vec<_>>(), ["orders", "mail"]);
    assert_eq!(found.execution_pool, ExecutionPool::Gevent);
    assert_eq!(
        (found.prefetch_multiplier, found.max_tasks_per_child),
        (Some(10), None)
    );
    assert_eq!(found.max_memory_per_child_kib, Some(1_464));
    assert_eq!((found.min, found.max, found.hold), (2, 5, Some(9)));
    assert_eq!(found.scale_down_delay.as_secs(), 7);
    assert_eq!((found.grace.seconds, found.grace.proven), (3_465, true));
}

/// A task that has just begun is in no count until the next heartbeat.
#[test]
fn a_need_is_gone_for_two_heartbeats_at_least() {
    for (written, counts) in [(0, 4), (3, 4), (4, 4), (5, 5)] {
        for policy in ["Backlog", "WaitTarget"] {
            let scaling = json!({"policy": policy, "scaleDownDelaySeconds": written});
            let found = pool(&wp(json!({"celery": {"concurrency": 1}, "scaling": scaling})));
            assert_eq!(found.scale_down_delay.as_secs(), counts, "{policy}, {written}");
            if let crate::policy::Policy::WaitTarget { delay, .. } = found.policy {
                assert_eq!(delay, Some(found.scale_down_delay));
            }
        }
    }
}

/// New WorkerPools get it written into their spec by the API server; those that were stored with the other keep that.
#[test]
fn the_wait_target_is_the_schemas_default_and_a_written_policy_stays() {
    let crds = poolwright_api::crds();
    let (_, crd) = crds
        .iter()
        .find(|(file, _)| file.contains("workerpools"))
        .unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    let scaling = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/scaling";
    for default in ["default/policy", "properties/policy/default"] {
        let found = crd.pointer(&format!("{scaling}/{default}"));
        assert_eq!(found, Some(&json!("WaitTarget")), "{default}");
    }
    let policy = |scaling: Value| pool(&wp(json!({"celery": {"concurrency": 1}, "scaling": scaling}))).policy;
    let target = std::time::Duration::from_secs(30);
    let delay = None;
    assert_eq!(
        policy(json!({})),
        crate::policy::Policy::WaitTarget { target, delay }
    );
    assert_eq!(
        policy(json!({"policy": "Backlog"})),
        crate::policy::Policy::Backlog
    );
}

#[test]
fn a_broker_named_by_secret_is_enough() {
    let known = queues_on(&json!({"urlSecretRef": {"name": "broker", "key": "url"}}));
    assert!(validate(&wp(json!({"class": "Cpu"})), &known).is_ok());
}

proptest! {
    #[test]
    fn what_is_valid_keeps_every_bound(
        concurrency in proptest::option::of(-1_i32..11_000),
        prefetch in proptest::option::of(-1_i32..1_100),
        hard in proptest::option::of(0_i32..700_000),
        soft in proptest::option::of(0_i32..700_000),
        min in -1_i32..20,
        max in -1_i32..20,
        class in 0_usize..5,
        execution_pool in 0_usize..6,
    ) {
        let class = [None, Some("Cpu"), Some("Io"), Some("Memory"), Some("General")][class];
        let execution_pool =
            [None, Some("Prefork"), Some("Gevent"), Some("Eventlet"), Some("Threads"), Some("Solo")][execution_pool];
        let wp = wp(json!({
            "class": class,
            "celery": {
                "executionPool": execution_pool, "concurrency": concurrency, "prefetchMultiplier": prefetch,
                "timeLimitSeconds": hard, "softTimeLimitSeconds": soft,
            },
            "scaling": {"minReplicas": min, "maxReplicas": max},
        }));
        match check(&wp) {
            Ok(pool) => {
                prop_assert!((1..=10_000).contains(&pool.concurrency));
                prop_assert!(pool.prefetch_multiplier.is_none_or(|prefetch| prefetch >= 1));
                prop_assert!(0 <= pool.min && pool.min <= pool.max && pool.max >= 1);
                prop_assert!(concurrency.is_none_or(|written| written == pool.concurrency));
                prop_assert!(pool.grace.seconds >= 1);
                let enforced = |limit: Option<Limit>| limit.filter(|limit| limit.enforced).map(|limit| limit.seconds);
                if let (Some(soft), Some(hard)) = (enforced(pool.soft_time_limit), enforced(pool.time_limit)) {
                    prop_assert!(soft < hard);
                }
            }
            Err(invalid) => prop_assert!(invalid.field.starts_with("spec."), "{invalid}"),
        }
    }
}
