//! The name of a revision: a hash of what the user asked a pod to be.
//!
//! A new name means new pods, so this hashes the resolved inputs and never rendered output: an operator that adds
//! a label, a flag or a security default must not restart anybody's workers. What only steers scaling (bounds,
//! delays, `ackMode`, the hold) is no input; the class counts only through what it resolves to. Every name in the
//! JSON below is part of the contract: renaming one renames every revision in every cluster. New inputs must be
//! absent (`null`) where nobody uses them.

use poolwright_api::ANNOTATION_RESTARTED_AT;
use poolwright_api::v1alpha1::WorkerPool;
use serde_json::{Value, json};

use crate::broker_key::BrokerAddress;
use crate::canonical::{canonical, digest};
use crate::charge::Charge;
use crate::validate::{Program, ValidPool};

/// Characters of a revision's name: 40 bits of SHA-256 as lower-case hexadecimal digits. Two of the few revisions
/// of one WorkerPool meet with a chance below one in a billion, and 52 + 1 + 10 characters still fit in a label.
pub const LENGTH: usize = 10;

/// The name of the revision that `wp`, validated as `pool`, asks for: [`LENGTH`] characters of `0-9a-f`.
#[must_use]
pub fn revision(pool: &ValidPool, wp: &WorkerPool) -> String {
    digest(&canonical(&inputs(pool, wp)), LENGTH)
}

/// The resolved inputs of a pod.
fn inputs(pool: &ValidPool, wp: &WorkerPool) -> Value {
    let worker = &wp.spec.worker;
    json!({
        "queues": pool.queue_names().collect::<Vec<_>>(),
        "broker": pool.inject_broker.then(|| broker(&pool.broker.address)),
        "celery": matches!(pool.program, Program::Celery { .. }).then(|| celery(pool)),
        "airflow": (pool.program == Program::Airflow).then(|| airflow(pool)),
        // What its pods take, unless it is what they take where nobody speaks of Pools.
        "charge": Some(Charge::of(pool)).filter(|charge| !charge.is_default(pool.concurrency)).map(|charge| charge.to_string()),
        "graceSeconds": pool.grace.seconds,
        "restartedAt": wp.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_RESTARTED_AT)),
        "image": worker.image,
        "command": pool.command,
        "env": non_empty(&worker.env),
        "envFrom": non_empty(&worker.env_from),
        "resources": worker.resources,
        "volumeMounts": non_empty(&worker.volume_mounts),
        "securityContext": worker.security_context,
        "pod": wp.spec.pod.as_ref().filter(|pod| **pod != poolwright_api::v1alpha1::Pod::default()),
    })
}

/// What the command line says.
fn celery(pool: &ValidPool) -> Value {
    json!({
        "app": match &pool.program {
            Program::Celery { app } => Some(app),
            Program::Airflow => None,
        },
        "executionPool": pool.execution_pool,
        "concurrency": pool.concurrency,
        "autoscaleMin": pool.autoscale.map(|autoscale| autoscale.min),
        "prefetchMultiplier": pool.prefetch_multiplier,
        "maxTasksPerChild": pool.max_tasks_per_child,
        "maxMemoryPerChildKiB": pool.max_memory_per_child_kib,
        "timeLimitSeconds": pool.time_limit.map(|limit| limit.seconds),
        "softTimeLimitSeconds": pool.soft_time_limit.map(|limit| limit.seconds),
        "logLevel": pool.log_level,
        "extraArgs": non_empty(&pool.extra_args),
    })
}

/// The same of Airflow's.
fn airflow(pool: &ValidPool) -> Value {
    json!({
        "concurrency": pool.concurrency,
        "autoscaleMin": pool.autoscale.map(|autoscale| autoscale.min),
        "prefetchMultiplier": pool.prefetch_multiplier,
        "extraArgs": non_empty(&pool.extra_args),
    })
}

fn broker(address: &BrokerAddress) -> Value {
    match address {
        BrokerAddress::Url(url) => json!({"url": url}),
        BrokerAddress::Secret { name, key } => json!({"secret": name, "key": key}),
    }
}

/// A list that is empty is the same as one that is absent.
fn non_empty<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::revision;
    use crate::testing::{merge, pool, queues_on, wp};
    use crate::validate::validate;
    use poolwright_api::ANNOTATION_RESTARTED_AT;
    use poolwright_api::v1alpha1::WorkerPool;
    use serde_json::{Value, json};

    fn full() -> Value {
        json!({
            "class": "Io",
            "celery": {
                "executionPool": "Gevent", "concurrency": 20, "prefetchMultiplier": 2, "timeLimitSeconds": 120,
                "logLevel": "Info", "extraArgs": ["-E"], "brokerEnv": "Inject",
            },
            "worker": {
                "command": ["python", "-m", "celery"],
                "env": [{"name": "A", "value": "1"}],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "securityContext": {"runAsUser": 1000},
            },
            "pod": {
                "nodeSelector": {"pool": "spot"},
                "volumes": [{"name": "data", "emptyDir": {}}],
                "labels": {"team": "shop"},
                "sidecars": [{"name": "proxy", "image": "registry.example/proxy:1"}],
            },
            "drain": {"graceSeconds": 90},
        })
    }

    fn name(wp: &WorkerPool) -> String {
        revision(&pool(wp), wp)
    }

    fn patched(patch: Value) -> String {
        let mut spec = full();
        merge(&mut spec, patch);
        name(&wp(spec))
    }

    /// Of a WorkerPool whose queue is on this broker.
    fn on(broker: &Value, inject: &str) -> String {
        let wp = wp(json!({"class": "Cpu", "celery": {"brokerEnv": inject}}));
        revision(&validate(&wp, &queues_on(broker)).expect("valid"), &wp)
    }

    /// Of one that somebody has asked to be restarted.
    fn restarted(mut wp: WorkerPool) -> String {
        let time = "2026-01-01T00:00:00Z".to_owned();
        wp.metadata.annotations = Some([(ANNOTATION_RESTARTED_AT.to_owned(), time)].into());
        name(&wp)
    }

    /// If this fails, an upgrade of the operator would restart every worker. Do not change the name; change the
    /// code back.
    #[test]
    fn the_name_is_the_same_in_every_version() {
        assert_eq!(patched(json!({})), "24ba6aab2a");
        assert_eq!(name(&wp(json!({"class": "Cpu"}))), "f03b55f308");
        let cpu = |celery: Value| name(&wp(json!({"class": "Cpu", "celery": celery})));
        let autoscale = json!({"autoscale": {"min": 1, "max": 20}, "maxMemoryPerChild": "1Gi"});
        assert_eq!(cpu(autoscale), "0676e252bd");
        let airflow = json!({"celery": null, "airflow": {
            "concurrency": 8, "prefetchMultiplier": 2, "longestTaskSeconds": 60, "extraArgs": ["--skip-serve-logs"],
        }});
        assert_eq!(name(&wp(airflow)), "4862bb5cf9");
        let secret = json!({"urlSecretRef": {"name": "s", "key": "k"}});
        assert_eq!(on(&secret, "Inject"), "9839e38f96");
        assert_eq!(restarted(wp(full())), "6d94ae0a8b");
    }

    #[test]
    fn what_only_steers_scaling_makes_no_revision() {
        let same = [
            json!({"scaling": {"minReplicas": 2, "maxReplicas": 40, "scaleDownDelaySeconds": 5}}),
            json!({"scaling": {"fallback": {"replicas": 2, "afterSeconds": 60}}}),
            json!({"replicas": 3}),
            json!({"celery": {"ackMode": "Late"}}),
            // The class counts through what it resolves to, and here everything it sets is written.
            json!({"class": "General"}),
            json!({"class": null}),
            // Absent and empty are the same.
            json!({"pod": {"tolerations": []}}),
        ];
        for patch in same {
            assert_eq!(patched(patch.clone()), patched(json!({})), "{patch}");
        }
        let cpu = json!({"class": "Cpu"});
        let mut written = wp(json!({"celery": {
            "executionPool": "Prefork", "concurrency": 4, "prefetchMultiplier": 1, "maxTasksPerChild": 100,
            "timeLimitSeconds": 3600, "softTimeLimitSeconds": 3000,
        }, "pod": {}}));
        assert_eq!(name(&written), name(&wp(cpu)));
        written.metadata.generation = Some(99);
        written.metadata.uid = Some("another".to_owned());
        assert_eq!(name(&written), name(&wp(json!({"class": "Cpu"}))));
    }

    #[test]
    fn every_input_of_a_pod_makes_a_revision() {
        let different = [
            json!({"queues": [{"name": "orders"}]}),
            json!({"celery": {"app": "other"}}),
            json!({"celery": {"executionPool": "Eventlet"}}),
            json!({"celery": {"concurrency": 21}}),
            json!({"celery": {"concurrency": null, "autoscale": {"min": 1, "max": 20}}}),
            json!({"celery": {"prefetchMultiplier": 3}}),
            json!({"celery": {"timeLimitSeconds": 121}}),
            json!({"celery": {"softTimeLimitSeconds": 10}}),
            json!({"celery": {"maxTasksPerChild": 10}}),
            json!({"celery": {"maxMemoryPerChild": "1Gi"}}),
            json!({"celery": {"logLevel": "Debug"}}),
            json!({"celery": {"extraArgs": ["-E", "-E"]}}),
            json!({"celery": {"brokerEnv": "None"}}),
            json!({"worker": {"image": "registry.example/shop:2"}}),
            json!({"worker": {"command": ["celery"]}}),
            json!({"worker": {"env": [{"name": "A", "value": "2"}]}}),
            json!({"worker": {"envFrom": null}}),
            json!({"worker": {"resources": {"limits": {"memory": "2Gi"}}}}),
            json!({"worker": {"volumeMounts": null}}),
            json!({"worker": {"securityContext": {"runAsUser": 1001}}}),
            json!({"pod": {"nodeSelector": {"pool": "other"}}}),
            json!({"pod": {"annotations": {"a": "b"}}}),
            json!({"pod": {"volumes": [{"name": "data"}]}}),
            json!({"pod": {"sidecars": null}}),
            json!({"drain": {"graceSeconds": 91}}),
        ];
        let mut seen = std::collections::BTreeSet::from([patched(json!({}))]);
        for patch in different {
            assert!(seen.insert(patched(patch.clone())), "{patch}");
        }
        assert!(seen.insert(restarted(wp(full()))));
    }

    #[test]
    fn the_broker_counts_only_where_it_is_injected() {
        let (one, other) = (
            json!({"url": "redis://one"}),
            json!({"urlSecretRef": {"name": "s", "key": "k"}}),
        );
        assert_eq!(on(&one, "None"), on(&other, "None"));
        assert_ne!(on(&one, "Inject"), on(&other, "Inject"));
    }
}
