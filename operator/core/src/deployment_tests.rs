//! What a WorkerPool's pods look like, and what a user may change about them.

use super::render;
use crate::testing::{merge, pool, queues_on, wp};
use crate::validate::validate;
use poolwright_api::ANNOTATION_RESTARTED_AT;
use serde_json::{Value, json};

/// The Deployment of the class Cpu example with `patch` over its spec, as JSON.
fn rendered(patch: Value) -> Value {
    let mut spec = json!({"class": "Cpu"});
    merge(&mut spec, patch);
    let wp = wp(spec);
    serde_json::to_value(render(&pool(&wp), &wp)).expect("JSON")
}

fn pod(patch: Value) -> Value {
    rendered(patch)["spec"]["template"]["spec"].clone()
}

#[test]
fn the_smallest_worker_pool_gives_exactly_this() {
    let revision =
        crate::revision::revision(&pool(&wp(json!({"class": "Cpu"}))), &wp(json!({"class": "Cpu"})));
    let labels = json!({
        "app.kubernetes.io/name": "celery-worker",
        "app.kubernetes.io/instance": "checkout",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/part-of": "poolwright",
        "app.kubernetes.io/managed-by": "poolwright",
        "poolwright.dev/worker-pool": "checkout",
        "poolwright.dev/revision": revision,
    });
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": format!("checkout-{revision}"),
            "namespace": "shop",
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "name": "checkout", "uid": "u-1",
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {
                "poolwright.dev/worker-pool": "checkout", "poolwright.dev/revision": revision,
            }},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                        "karpenter.sh/do-not-disrupt": "true",
                        "poolwright.dev/charge": "default-pool=4",
                        "poolwright.dev/worker-pool-uid": "u-1",
                    },
                },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 3615,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "worker",
                        "image": "registry.example/shop:1",
                        "command": ["celery"],
                        "args": [
                            "-A", "shop.celery", "worker", "-n", "celery@$(POD_NAME)", "-Q", "orders,mail",
                            "-P", "prefork", "-c", "4", "--prefetch-multiplier=1", "--max-tasks-per-child=100",
                            "--time-limit=3600", "--soft-time-limit=3000", "--without-gossip",
                        ],
                        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    });
    assert_eq!(rendered(json!({})), expected);
}

#[test]
fn every_name_fits() {
    let mut wp = wp(json!({"class": "Cpu"}));
    wp.metadata.name = Some("n".repeat(52));
    let name = render(&pool(&wp), &wp).metadata.name.unwrap_or_default();
    assert_eq!(name.len(), 63);
}

#[test]
fn pod_options_are_taken_over() {
    let options = json!({
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "serviceAccountName": "shop",
        "imagePullSecrets": [{"name": "pull"}],
        "priorityClassName": "low",
        "runtimeClassName": "nvidia",
    });
    let found = pod(json!({
        "pod": options,
        "worker": {
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "env": [{"name": "ME", "value": "$(POD_NAME)"}],
            "envFrom": [{"secretRef": {"name": "settings"}}],
        },
    }));
    for (field, value) in options.as_object().expect("an object") {
        assert_eq!(&found[field], value, "{field}");
    }
    let worker = &found["containers"][0];
    assert_eq!(worker["resources"], json!({"limits": {"nvidia.com/gpu": "1"}}));
    assert_eq!(
        worker["volumeMounts"],
        json!([{"name": "data", "mountPath": "/data"}])
    );
    assert_eq!(worker["env"][1], json!({"name": "ME", "value": "$(POD_NAME)"}));
    assert_eq!(worker["envFrom"], json!([{"secretRef": {"name": "settings"}}]));
}

#[test]
fn the_broker_is_injected_by_reference_or_by_value() {
    let table = [
        (
            json!({"url": "redis://r/0"}),
            "Inject",
            Some(json!({"name": "CELERY_BROKER_URL", "value": "redis://r/0"})),
        ),
        (
            json!({"urlSecretRef": {"name": "broker", "key": "url"}}),
            "Inject",
            Some(json!({
                "name": "CELERY_BROKER_URL",
                "valueFrom": {"secretKeyRef": {"name": "broker", "key": "url"}},
            })),
        ),
        (json!({"url": "redis://r/0"}), "None", None),
    ];
    for (broker, mode, expected) in table {
        let wp = wp(json!({"class": "Cpu", "celery": {"brokerEnv": mode}}));
        let valid = validate(&wp, &queues_on(&broker)).expect("valid");
        let found = serde_json::to_value(render(&valid, &wp)).expect("JSON");
        let env = &found["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(env.get(1), expected.as_ref());
    }
}

#[test]
fn security_defaults_give_way_field_by_field() {
    let table = [
        (
            json!(null),
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        ),
        (
            json!({"runAsUser": 1000, "readOnlyRootFilesystem": true}),
            json!({
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "runAsUser": 1000, "readOnlyRootFilesystem": true,
            }),
        ),
        (
            json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}),
            json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}),
        ),
        (
            json!({"allowPrivilegeEscalation": true, "capabilities": {"drop": ["NET_RAW"]}}),
            json!({"allowPrivilegeEscalation": true, "capabilities": {"drop": ["NET_RAW"]}}),
        ),
        // The API server refuses `allowPrivilegeEscalation: false` with either of these.
        (
            json!({"privileged": true}),
            json!({"privileged": true, "capabilities": {"drop": ["ALL"]}}),
        ),
        (
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            json!({"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}),
        ),
    ];
    for (written, expected) in table {
        let container = |name: &str| json!({"name": name, "image": "i", "securityContext": written});
        let found = pod(json!({
            "worker": {"securityContext": written},
            "pod": {"initContainers": [container("init")], "sidecars": [container("side")]},
        }));
        for container in [
            &found["containers"][0],
            &found["initContainers"][0],
            &found["initContainers"][1],
        ] {
            assert_eq!(container["securityContext"], expected, "{}", container["name"]);
        }
    }
}

#[test]
fn sidecars_are_native_and_come_after_the_init_containers() {
    let found = pod(json!({"pod": {
        "initContainers": [{"name": "migrate"}],
        "sidecars": [{"name": "proxy"}, {"name": "logs", "restartPolicy": "Always"}],
    }}));
    let order: Vec<_> = found["initContainers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|container| (container["name"].as_str(), container["restartPolicy"].as_str()))
        .collect();
    let always = Some("Always");
    assert_eq!(
        order,
        [
            (Some("migrate"), None),
            (Some("proxy"), always),
            (Some("logs"), always)
        ]
    );
    assert_eq!(found["containers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_spread_without_selector_means_the_pool() {
    let constraint = |selector: Value| {
        let mut constraint =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        merge(&mut constraint, json!({"labelSelector": selector}));
        constraint
    };
    let own = json!({"matchLabels": {"team": "shop"}});
    let found = pod(
        json!({"pod": {"topologySpreadConstraints": [constraint(json!(null)), constraint(own.clone())]}}),
    );
    let found = &found["topologySpreadConstraints"];
    assert_eq!(
        found[0]["labelSelector"],
        json!({"matchLabels": {"poolwright.dev/worker-pool": "checkout"}})
    );
    assert_eq!(found[1]["labelSelector"], own);
}

#[test]
fn labels_and_annotations_of_the_user_win_except_over_ours() {
    let mut wp = wp(json!({"class": "Cpu", "pod": {
        "labels": {
            "team": "shop", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/managed-by": "me",
            "poolwright.dev/worker-pool": "stolen",
        },
        "annotations": {"karpenter.sh/do-not-disrupt": "false", "poolwright.dev/proven-at": "never"},
    }}));
    wp.metadata.annotations = Some([(ANNOTATION_RESTARTED_AT.to_owned(), "now".to_owned())].into());
    let found = serde_json::to_value(render(&pool(&wp), &wp)).expect("JSON");
    let metadata = &found["spec"]["template"]["metadata"];
    let labels = &metadata["labels"];
    assert_eq!(labels["team"], "shop");
    assert_eq!(labels["app.kubernetes.io/part-of"], "shop");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "poolwright");
    assert_eq!(labels["poolwright.dev/worker-pool"], "checkout");
    assert_eq!(
        metadata["annotations"],
        json!({
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "false",
            "poolwright.dev/charge": "default-pool=4",
            "poolwright.dev/worker-pool-uid": "u-1",
            "poolwright.dev/restarted-at": "now",
        })
    );
    for (key, value) in found["spec"]["selector"]["matchLabels"]
        .as_object()
        .expect("labels")
    {
        assert_eq!(&labels[key], value, "the selector must match the pods");
    }
}
