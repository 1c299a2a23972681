//! The harness itself: that the plane, the node, the brokers and Celery do
//! what the other tests take for granted.
#![allow(missing_docs, clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use poolwright_tests::*;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

async fn setup(prefix: &str) -> Result<(&'static Plane, TestNamespace)> {
    let plane = Plane::shared().await?;
    let namespace = TestNamespace::create(plane.client().await?, prefix).await?;
    Ok((plane, namespace))
}

fn pod(name: &str, image: &str, command: &[&str], grace: u32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": grace, "restartPolicy": "Always",
            "containers": [{"name": "main", "image": image, "command": command}]},
    }))
    .unwrap()
}

fn worker(replicas: u32, log: &Path) -> Deployment {
    let labels = json!({"app": "worker"});
    let command = [
        "celery",
        "-A",
        "tapp",
        "worker",
        "-Q",
        "q1",
        "-c",
        "1",
        "-n",
        "celery@%h",
        "--without-gossip",
    ];
    serde_json::from_value(json!({
        "metadata": {"name": "worker"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 60, "containers": [{
                "name": "worker", "image": CELERY_IMAGE, "command": command,
                "env": [
                    {"name": "CELERY_BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "broker", "key": "url"}}},
                    {"name": "TAPP_LOG", "value": log},
                ],
            }]},
        }},
    }))
    .unwrap()
}

async fn status(pods: &Api<Pod>, name: &str) -> Result<Value> {
    Ok(serde_json::to_value(pods.get(name).await?.status)?)
}

fn records_of(plane: &Plane, namespace: &TestNamespace) -> Result<Vec<Record>> {
    let records = read_records(&plane.record())?;
    Ok(records
        .into_iter()
        .filter(|record| record.namespace == namespace.name)
        .collect())
}

#[tokio::test]
async fn a_real_worker_runs_and_drains() -> Result<()> {
    let (plane, namespace) = setup("worker").await?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("tasks.jsonl");
    let redis = Redis::start(RedisConfig {
        password: Some("secret".into()),
        ..RedisConfig::default()
    })
    .await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "broker"}, "stringData": {"url": redis.url(0)}}))?;
    namespace.api().create(&PostParams::default(), &secret).await?;
    let deployments: Api<Deployment> = namespace.api();
    deployments
        .create(&PostParams::default(), &worker(1, &log))
        .await?;

    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    let short = publisher.publish(&Batch::sleep("q1", 1, 0.0)).await?;
    let has = |id: &str, event: &str| -> Result<bool> {
        Ok(read_task_events(&log)?
            .iter()
            .any(|entry| entry.id == id && entry.event == event))
    };
    wait_until("the short task to end", LIMIT, || async { has(&short[0], "end") }).await?;
    let pods: Api<Pod> = namespace.api();
    let running = pods.list(&ListParams::default()).await?.items.remove(0);
    let name = running.metadata.name.unwrap();
    assert_eq!(
        read_task_events(&log)?[0].pod,
        name,
        "the worker knows itself by its pod's name"
    );

    let slow = publisher.publish(&Batch::sleep("q1", 1, 5.0)).await?;
    wait_until("the long task to start", LIMIT, || async {
        has(&slow[0], "start")
    })
    .await?;
    let scale = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments
        .patch_scale("worker", &PatchParams::default(), &scale)
        .await?;
    wait_until("the pod to be gone", LIMIT, || async {
        Ok(pods.get_opt(&name).await?.is_none())
    })
    .await?;
    assert!(
        has(&slow[0], "end")?,
        "the running task was finished before the worker ended"
    );

    let records = records_of(plane, &namespace)?;
    let told: Vec<_> = records
        .iter()
        .filter_map(|record| record.signal.as_deref())
        .collect();
    assert_eq!(told, ["TERM"], "{records:?}");
    let exit = records.iter().find(|record| record.event == "exit").unwrap();
    assert_eq!((exit.code, exit.killed), (Some(0), false), "{records:?}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_image_cannot_be_pulled() -> Result<()> {
    let (_, namespace) = setup("image").await?;
    let pods: Api<Pod> = namespace.api();
    pods.create(
        &PostParams::default(),
        &pod("lost", "example.com/none:1", &["true"], 1),
    )
    .await?;
    let waits_for = async |reason: &str| {
        wait_until(reason, LIMIT, || async {
            let status = status(&pods, "lost").await?;
            Ok(status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason)
        })
        .await
    };
    waits_for("ErrImagePull").await?;
    waits_for("ImagePullBackOff").await?;
    assert_eq!(status(&pods, "lost").await?["phase"], "Pending");
    pods.delete("lost", &DeleteParams::default()).await?;
    wait_until("the pod to be gone", LIMIT, || async {
        Ok(pods.get_opt("lost").await?.is_none())
    })
    .await
}

#[tokio::test]
async fn a_kill_after_the_grace_is_on_record() -> Result<()> {
    let (plane, namespace) = setup("kill").await?;
    let pods: Api<Pod> = namespace.api();
    let stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
    pods.create(
        &PostParams::default(),
        &pod("stubborn", CELERY_IMAGE, &stubborn, 1),
    )
    .await?;
    wait_until("the pod to run", LIMIT, || async {
        Ok(status(&pods, "stubborn").await?["phase"] == "Running")
    })
    .await?;
    pods.delete("stubborn", &DeleteParams::default()).await?;
    wait_until("the pod to be gone", LIMIT, || async {
        Ok(pods.get_opt("stubborn").await?.is_none())
    })
    .await?;
    let records = records_of(plane, &namespace)?;
    let told: Vec<_> = records
        .iter()
        .filter_map(|record| record.signal.as_deref())
        .collect();
    assert_eq!(told, ["TERM", "KILL"]);
    let exit = records.last().unwrap();
    assert_eq!(
        (exit.event.as_str(), exit.code, exit.killed),
        ("exit", Some(137), true)
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_key_a_crash_and_a_sidecar_are_reported() -> Result<()> {
    let (plane, namespace) = setup("crash").await?;
    let pods: Api<Pod> = namespace.api();
    let mut keyless = serde_json::to_value(pod("keyless", CELERY_IMAGE, &["true"], 1))?;
    keyless["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "a"}}}]);
    pods.create(&PostParams::default(), &serde_json::from_value(keyless)?)
        .await?;

    let oom = ["sh", "-c", "exit 137"];
    let mut crashing = serde_json::to_value(pod("crashing", CELERY_IMAGE, &oom, 1))?;
    crashing["spec"]["containers"][0]["env"] = json!([{"name": "POOLWRIGHT_FAKE_OOM", "value": "1"}]);
    pods.create(&PostParams::default(), &serde_json::from_value(crashing)?)
        .await?;

    let script = "test \"$GREETING\" = \"hello sidecar in $NAMESPACE\" && exec sleep 100";
    let mut sidecar = serde_json::to_value(pod("sidecar", CELERY_IMAGE, &["sh", "-c", script], 5))?;
    sidecar["spec"]["containers"][0]["env"] = json!([
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": "hello $(NAME) in $(NAMESPACE)"}]);
    sidecar["spec"]["initContainers"] = json!([
        {"name": "once", "image": CELERY_IMAGE, "command": ["true"]},
        {"name": "beside", "image": CELERY_IMAGE, "command": ["sleep", "100"], "restartPolicy": "Always"}]);
    pods.create(&PostParams::default(), &serde_json::from_value(sidecar)?)
        .await?;

    wait_until("the error of the missing Secret", LIMIT, || async {
        let status = status(&pods, "keyless").await?;
        Ok(status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError")
    })
    .await?;
    wait_until("the crash loop", LIMIT, || async {
        let status = &status(&pods, "crashing").await?["containerStatuses"][0];
        Ok(status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && status["lastState"]["terminated"]["reason"] == "OOMKilled"
            && status["restartCount"].as_i64() > Some(0))
    })
    .await?;
    let ready = || async {
        let status = status(&pods, "sidecar").await?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions
            .iter()
            .any(|entry| entry["type"] == "Ready" && entry["status"] == "True"))
    };
    wait_until("the pod with a sidecar to be ready", LIMIT, ready).await?;
    pods.delete("sidecar", &DeleteParams::default()).await?;
    wait_until("it to be gone", LIMIT, || async {
        Ok(pods.get_opt("sidecar").await?.is_none())
    })
    .await?;
    let records = records_of(plane, &namespace)?;
    let ends: Vec<_> = records
        .iter()
        .filter(|record| record.pod == "sidecar" && record.event == "exit")
        .map(|record| record.container.as_str())
        .collect();
    assert_eq!(
        ends,
        ["once", "main", "beside"],
        "a sidecar outlives the main container"
    );
    for name in ["keyless", "crashing"] {
        pods.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_force_deleted_pod_is_killed() -> Result<()> {
    let (plane, namespace) = setup("force").await?;
    let pods: Api<Pod> = namespace.api();
    pods.create(
        &PostParams::default(),
        &pod("gone", CELERY_IMAGE, &["sleep", "100"], 30),
    )
    .await?;
    wait_until("the pod to run", LIMIT, || async {
        Ok(status(&pods, "gone").await?["phase"] == "Running")
    })
    .await?;
    pods.delete("gone", &DeleteParams::default().grace_period(0))
        .await?;
    wait_until("the kill to be on record", LIMIT, || async {
        Ok(records_of(plane, &namespace)?
            .iter()
            .any(|record| record.event == "exit" && record.killed))
    })
    .await
}

#[tokio::test]
async fn a_node_of_its_own_is_chosen_by_gpu_and_runs_pods_without_processes() -> Result<()> {
    let (plane, namespace) = setup("gpu").await?;
    let dir = tempfile::tempdir()?;
    let mut config = NodeConfig::new(&format!("{}-gpu", namespace.name), dir.path()).reserved();
    config.gpus = 300;
    config.fake = true;
    let mut spec = config.placement();
    spec["containers"] = json!([{"name": "main", "image": "example.com/any:1",
        "resources": {"limits": {"nvidia.com/gpu": "1"}}}]);
    let node = Node::start(plane.node_client().await?, config).await?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "many"},
        "spec": {"replicas": 200, "selector": {"matchLabels": {"app": "many"}}, "template": {
            "metadata": {"labels": {"app": "many"}},
            "spec": spec,
        }},
    }))?;
    let deployments: Api<Deployment> = namespace.api();
    let since = Instant::now();
    deployments.create(&PostParams::default(), &deployment).await?;
    wait_until("200 pods to be ready", LIMIT, || async {
        let ready = deployments
            .get("many")
            .await?
            .status
            .and_then(|status| status.ready_replicas);
        Ok(ready == Some(200))
    })
    .await?;
    println!("200 pods were ready after {:.1} s", since.elapsed().as_secs_f32());
    let pods: Api<Pod> = namespace.api();
    let names: Vec<_> = pods.list(&ListParams::default()).await?.items;
    assert!(
        names
            .iter()
            .all(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node.name()))
    );
    deployments.delete("many", &DeleteParams::background()).await?;
    wait_until("all to be gone", LIMIT, || async {
        Ok(pods.list(&ListParams::default()).await?.items.is_empty())
    })
    .await?;
    node.remove().await
}

#[tokio::test]
async fn writes_are_in_the_audit_log_by_user() -> Result<()> {
    let (plane, namespace) = setup("audit").await?;
    let kubectl = plane.kubectl()?.namespaced(&namespace.name);
    kubectl
        .run(["create", "configmap", "noted", "--from-literal=a=b"])
        .await?;
    kubectl.run(["get", "configmap", "noted"]).await?;
    let entries = audit_entries(&plane.audit_log())?;
    let own: Vec<_> = entries
        .iter()
        .filter(|entry| {
            entry.namespace == namespace.name && entry.resource == "configmaps" && entry.user == "admin"
        })
        .collect();
    assert_eq!(own.len(), 1, "one write, and no read: {own:?}");
    assert!(own[0].is_write() && own[0].code == 201);
    Ok(())
}

#[tokio::test]
async fn redis_stops_starts_and_fails_over() -> Result<()> {
    let config = RedisConfig {
        user: Some(("worker".into(), "word".into())),
        password: Some("secret".into()),
        tls: true,
        ..RedisConfig::default()
    };
    let mut redis = Redis::start(config).await?;
    let ca = redis.authority.as_ref().unwrap().ca.to_str().unwrap().to_owned();
    let celery = Celery::locate()?;
    let mut publisher = celery.publisher(&redis.url(0), &[("TAPP_CA", &ca)]).await?;
    publisher.publish(&Batch::sleep("q1", 3, 0.0)).await?;
    redis.stop();
    assert!(redis.connection(0).await.is_err());
    redis.start_again().await?;
    let length: usize = redis.connection(0).await?.llen("q1").await?;
    assert_eq!(length, 3, "it kept its data");

    let replica = RedisConfig {
        replica_of: Some(redis.port),
        password: Some("secret".into()),
        ..RedisConfig::default()
    };
    let replica = Redis::start(replica).await?;
    let sentinel = Sentinel::start(&redis, "main", 1).await?;
    let known = replica.port;
    wait_until("the replica to be in step", LIMIT, || async {
        let length: usize = replica.connection(0).await?.llen("q1").await?;
        Ok(length == 3)
    })
    .await?;
    // Sentinel asks the master for its replicas every ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    redis.stop();
    wait_until("the failover", LIMIT, || async {
        Ok(sentinel.master_port().await? == known)
    })
    .await
}

#[tokio::test]
async fn rabbitmq_gives_each_test_a_virtual_host() -> Result<()> {
    let rabbit = RabbitMq::shared().await?;
    let vhost = rabbit.vhost("harness", "monitoring").await?;
    let celery = Celery::locate()?;
    let ca = rabbit.authority.as_ref().unwrap().ca.to_str().unwrap().to_owned();
    let url = vhost.tls_url.clone().unwrap();
    let mut publisher = celery.publisher(&url, &[("TAPP_CA", &ca)]).await?;
    publisher.publish(&Batch::sleep("q1", 2, 0.0)).await?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("tasks.jsonl");
    let mut worker = celery.command("celery", &vhost.url, &[("TAPP_LOG", log.to_str().unwrap())]);
    worker.args(["-A", "tapp", "worker", "-Q", "q1", "-c", "1", "-P", "solo"]);
    let worker = process::Daemon::start("worker", worker, &dir.path().join("worker.log"))?;
    wait_until("both tasks to end", LIMIT, || async {
        let events = read_task_events(&log)?;
        Ok(events.iter().filter(|event| event.event == "end").count() == 2)
    })
    .await?;
    drop(worker);
    Ok(())
}
