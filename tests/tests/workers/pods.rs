//! The pods of a WorkerPool as the real API server stores and runs them.

mod restricted;

use k8s_openapi::api::core::v1::Pod;
use poolwright_api::ConditionType::Ready;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// The stored pod template of a WorkerPool's one Deployment.
async fn template(stage: &Stage, pool: &str) -> Result<Value> {
    let what = format!("the Deployment of {pool}");
    let found = poll(&what, LIMIT, || async {
        Ok(stage.deployments(pool).await?.pop())
    })
    .await?;
    let spec = found.spec.ok_or("a Deployment has a spec")?;
    Ok(serde_json::to_value(spec.template)?)
}

/// The arguments of a container, in one line.
fn line(container: &Value) -> String {
    let args = container["args"].as_array().unwrap();
    let words: Vec<&str> = args.iter().map(|word| word.as_str().unwrap()).collect();
    words.join(" ")
}

/// A class, what is written beside it, and what follows `-P` on the worker's command line.
fn classes() -> Vec<(&'static str, Value, &'static str, i64)> {
    vec![
        (
            "Cpu",
            json!({"worker": {"resources": {"limits": {"cpu": "2500m"}}}}),
            "prefork -c 3 --prefetch-multiplier=1 --max-tasks-per-child=100 --time-limit=3600 --soft-time-limit=3000",
            3615,
        ),
        (
            "Io",
            json!({"celery": {"executionPool": "Gevent"}}),
            "gevent -c 50 --prefetch-multiplier=10 --time-limit=300",
            3465,
        ),
        (
            "Memory",
            json!({}),
            "prefork -c 2 --prefetch-multiplier=1 --max-tasks-per-child=50 --time-limit=7200 --soft-time-limit=6600",
            7215,
        ),
        (
            "General",
            json!({"celery": {"prefetchMultiplier": 7}}),
            "prefork -c 10 --prefetch-multiplier=7 --max-tasks-per-child=500 --time-limit=600 --soft-time-limit=540",
            615,
        ),
    ]
}

/// A WorkerPool that asks for something of everything.
fn everything() -> Value {
    json!({
        "celery": {
            "app": "shop.celery:app", "executionPool": "Prefork", "autoscale": {"min": 1, "max": 4},
            "concurrency": null, "prefetchMultiplier": 3, "maxTasksPerChild": 20, "maxMemoryPerChild": "300Mi",
            "timeLimitSeconds": 100, "softTimeLimitSeconds": 90, "logLevel": "Info", "extraArgs": ["-E"],
            "brokerEnv": "Inject",
        },
        "worker": {
            "image": FAKE_IMAGE, "command": ["python", "-m", "celery"],
            "env": [{"name": "A", "value": "on $(POD_NAME)"}],
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "1"}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            "securityContext": {"runAsNonRoot": true, "capabilities": {"add": ["NET_BIND_SERVICE"]}},
        },
        "pod": {
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 10, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "everything"}}}}]}},
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
            "imagePullSecrets": [{"name": "registry"}],
            "labels": {"team": "shop"}, "annotations": {"note": "n"},
            "initContainers": [{"name": "prepare", "image": FAKE_IMAGE}],
            "sidecars": [{"name": "proxy", "image": FAKE_IMAGE}],
        },
        "drain": {"graceSeconds": 1234},
    })
}

/// What must stand in the stored template, by path.
fn expected() -> Vec<(&'static str, Value)> {
    let locked = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut worker_locked = locked.clone();
    worker_locked["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
    worker_locked["runAsNonRoot"] = json!(true);
    let env = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "CELERY_BROKER_URL", "value": "redis://127.0.0.1:1/0"},
        {"name": "A", "value": "on $(POD_NAME)"},
    ]);
    vec![
        ("/metadata/labels/team", json!("shop")),
        (
            "/metadata/labels/poolwright.dev~1worker-pool",
            json!("everything"),
        ),
        (
            "/metadata/labels/app.kubernetes.io~1managed-by",
            json!("poolwright"),
        ),
        ("/metadata/annotations/note", json!("n")),
        (
            "/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict",
            json!("false"),
        ),
        (
            "/metadata/annotations/karpenter.sh~1do-not-disrupt",
            json!("true"),
        ),
        ("/spec/terminationGracePeriodSeconds", json!(1234)),
        ("/spec/automountServiceAccountToken", json!(false)),
        ("/spec/enableServiceLinks", json!(false)),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
        ),
        ("/spec/nodeSelector", json!({"pool": "gpu"})),
        ("/spec/tolerations/0/key", json!("nvidia.com/gpu")),
        (
            "/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/weight",
            json!(10),
        ),
        (
            "/spec/topologySpreadConstraints/0/labelSelector/matchLabels",
            json!({"poolwright.dev/worker-pool": "everything"}),
        ),
        (
            "/spec/volumes",
            json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}]),
        ),
        ("/spec/imagePullSecrets", json!([{"name": "registry"}])),
        ("/spec/initContainers/0/name", json!("prepare")),
        ("/spec/initContainers/0/restartPolicy", Value::Null),
        ("/spec/initContainers/0/securityContext", locked.clone()),
        ("/spec/initContainers/1/name", json!("proxy")),
        ("/spec/initContainers/1/restartPolicy", json!("Always")),
        ("/spec/initContainers/1/securityContext", locked),
        ("/spec/containers/0/name", json!("worker")),
        ("/spec/containers/0/command", json!(["python", "-m", "celery"])),
        ("/spec/containers/0/env", env),
        (
            "/spec/containers/0/envFrom/0/configMapRef/name",
            json!("settings"),
        ),
        (
            "/spec/containers/0/resources/limits",
            json!({"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "1"}),
        ),
        ("/spec/containers/0/resources/requests/memory", json!("1Gi")),
        ("/spec/containers/0/volumeMounts/0/mountPath", json!("/scratch")),
        ("/spec/containers/0/securityContext", worker_locked),
        ("/spec/containers/0/readinessProbe", Value::Null),
        ("/spec/containers/1", Value::Null),
    ]
}

#[tokio::test]
async fn the_stored_pods_are_those_of_the_class_and_the_fields() -> Result<()> {
    let stage = Stage::new("pods").await?;
    stage.queue("q", json!({"url": "redis://127.0.0.1:1/0"})).await?;
    for (class, patch, _, _) in classes() {
        let mut spec = json!({"class": class,
            "celery": {"concurrency": null, "prefetchMultiplier": null, "timeLimitSeconds": null}});
        stage::merge(&mut spec, patch);
        let name = class.to_lowercase();
        stage.pool(&name, &["q"], "", spec).await?;
    }
    stage.pool("everything", &["q"], "", everything()).await?;
    for (class, _, arguments, grace) in classes() {
        let template = template(&stage, &class.to_lowercase()).await?;
        let expected = format!("-A tapp worker -n celery@$(POD_NAME) -Q q -P {arguments} --without-gossip");
        assert_eq!(line(&template["spec"]["containers"][0]), expected, "{class}");
        assert_eq!(
            template["spec"]["terminationGracePeriodSeconds"], grace,
            "{class}"
        );
    }
    let template = template(&stage, "everything").await?;
    for (path, value) in expected() {
        let found = template.pointer(path).cloned().unwrap_or(Value::Null);
        assert_eq!(found, value, "{path}");
    }
    assert_eq!(
        line(&template["spec"]["containers"][0]),
        "-A shop.celery:app worker -n celery@$(POD_NAME) -Q q -P prefork --autoscale=4,1 --prefetch-multiplier=3 \
         --max-tasks-per-child=20 --max-memory-per-child=307200 --time-limit=100 --soft-time-limit=90 \
         --loglevel=INFO --without-gossip -E"
    );
    // With no broker to be read, nothing has been started.
    assert!(stage.history().iter().all(|step| step.replicas == Some(0)));
    Ok(())
}

/// A native sidecar serves the worker until its last task is done.
#[tokio::test]
async fn a_sidecar_starts_before_the_worker_and_outlives_its_drain() -> Result<()> {
    let stage = Stage::new("sidecar").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let sidecar = json!({"name": "proxy", "image": CELERY_IMAGE, "command": ["sleep", "1000"]});
    stage
        .pool(
            "w",
            &["q"],
            &redis.url(0),
            json!({"pod": {"sidecars": [sidecar]}}),
        )
        .await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    let ids = publisher.publish(&Batch::sleep("q", 1, 4.0)).await?;
    wait_until("the task to start", LIMIT, || async {
        Ok(!stage.events()?.is_empty())
    })
    .await?;
    let kubectl = stage.kubectl()?;
    kubectl.run(["delete", "wp", "w", "--wait=false"]).await?;
    stage.await_no_pods("w", LIMIT).await?;
    let records = stage.records()?;
    let at = |container: &str, event: &str| {
        let found = records
            .iter()
            .position(|record| record.container == container && record.event == event);
        found.ok_or_else(|| format!("no {event} of {container}"))
    };
    assert!(at("proxy", "start")? < at("worker", "start")?);
    assert!(at("worker", "exit")? < at("proxy", "signal")?, "{records:?}");
    let killed = records
        .iter()
        .find(|record| record.container == "worker" && record.killed);
    assert_eq!(killed, None);
    let events = stage.events()?;
    assert!(
        events
            .iter()
            .any(|event| event.id == ids[0] && event.event == "end")
    );
    Ok(())
}

/// GPUs are scheduled by the real scheduler: two fit, the third waits and says why.
#[tokio::test]
async fn gpu_pods_run_on_gpu_nodes_as_far_as_there_are_gpus() -> Result<()> {
    let stage = Stage::new("gpu").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let mut config = NodeConfig::new(&format!("gpu-{}", stage.namespace.name), stage.dir.path()).reserved();
    (config.gpus, config.fake) = (2, true);
    let node = Node::start(stage.plane.node_client().await?, config.clone()).await?;
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let patch = json!({
        "worker": {"image": FAKE_IMAGE, "env": [], "resources": {"limits": {"nvidia.com/gpu": "1"}}},
        "pod": config.placement(), "scaling": {"maxReplicas": 3},
    });
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    publisher.publish(&Batch::sleep("q", 6, 1.0)).await?;
    stage.pool("w", &["q"], "", patch).await?;
    let message = stage
        .await_condition("w", Ready, "False", "Unschedulable", LIMIT)
        .await?;
    assert!(message.contains("Insufficient nvidia.com/gpu"), "{message}");
    let on_node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    wait_until("two of three pods to run", LIMIT, || async {
        let pods = stage.pods("w").await?;
        let placed = pods
            .iter()
            .filter(|pod| on_node(pod).as_deref() == Some(node.name()));
        Ok((pods.len(), placed.count()) == (3, 2))
    })
    .await?;
    let ready = |count: i32| {
        let stage = &stage;
        async move {
            wait_until(&format!("{count} ready pods"), LIMIT, || async {
                let status = stage.wp("w").await?.status.unwrap_or_default();
                Ok(status.ready_replicas == Some(count))
            })
            .await
        }
    };
    ready(2).await?;
    assert_eq!(stage.peak("w"), 3);

    // Another machine comes, of the same kind.
    let mut more = config.clone();
    more.name = format!("more-{}", stage.namespace.name);
    let second = Node::start(stage.plane.node_client().await?, more).await?;
    ready(3).await?;
    let (_, reason, _) = stage.condition("w", Ready).await?;
    assert_ne!(reason, "Unschedulable");
    stage.namespace.delete().await?;
    second.remove().await?;
    node.remove().await
}
