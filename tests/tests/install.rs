//! `deploy/install`, applied as a user does it: its account may do what the operator does, and neither list, watch,
//! update nor delete Secrets. What else it might do is not tried.
#![allow(missing_docs, clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use poolwright_api::{ConditionType, LABEL_WORKER_POOL};
use poolwright_tests::demo::load::TRACE;
use poolwright_tests::demo::place::NAMESPACE;
use poolwright_tests::process::Daemon;
use poolwright_tests::*;
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_installed_account_may_do_what_the_operator_does() -> Result<()> {
    let mut stage = Stage::new("install").await?;
    let cluster = stage.plane.kubectl()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install");
    for _ in 0..2 {
        cluster.run(["apply", "-k", folder.to_str().unwrap()]).await?;
    }

    // The operator's own pod is let into a namespace that enforces the strictest profile.
    let pods: Api<Pod> = Api::namespaced(stage.plane.client().await?, "poolwright");
    wait_until("the operator's pod", LIMIT, || async {
        Ok(!pods.list(&ListParams::default()).await?.items.is_empty())
    })
    .await?;

    // Its image is nowhere, so the operator runs here, with the rights of that pod's account.
    let token = cluster
        .run(["create", "token", "poolwright", "--namespace", "poolwright"])
        .await?;
    let kubeconfig = stage.dir.path().join("kubeconfig");
    stage.plane.kubeconfig_with_token(token.trim(), &kubeconfig)?;
    stage.operator.kill();
    let own = stage.dir.path().join("installed");
    std::fs::create_dir(&own)?;
    // As it is installed: for every namespace, and a candidate for the lease.
    let lease = ["--lease", "poolwright/poolwright"];
    let _operator = Operator::start(&kubeconfig, "", &own, &lease).await?;
    let here = stage.kubectl()?;
    here.run([
        "create",
        "rolebinding",
        "poolwright-secrets",
        "--clusterrole=poolwright-secrets",
        "--serviceaccount=poolwright:poolwright",
    ])
    .await?;

    let redis = Redis::start(RedisConfig::default()).await?;
    let broker = redis.url(0);
    here.run([
        "create",
        "secret",
        "generic",
        "broker",
        &format!("--from-literal=url={broker}"),
    ])
    .await?;
    stage
        .queue("q", json!({"urlSecretRef": {"name": "broker", "key": "url"}}))
        .await?;
    here.run(["create", "configmap", "load", "--from-literal=percent=1"])
        .await?;
    let load = json!({"source": {"configMapKeyRef": {"name": "load", "key": "percent"}}});
    let heeding = json!({"celery": {"dynamicConcurrency": load}});
    let others = decoys(&stage).await?;
    stage.pool("w", &["q"], &broker, heeding).await?;
    stage
        .await_condition("w", ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    let mut publisher = Celery::locate()?.publisher(&broker, &[]).await?;
    let ids = publisher.publish(&Batch::sleep("q", 4, 1.0)).await?;
    stage.await_replicas("w", 2, LIMIT).await?;
    stage.await_ended(4, LIMIT).await?;
    // A new revision: Deployments are created, changed and deleted.
    stage
        .patch_pool(
            "w",
            json!({"spec": {"worker": {"env": [
            {"name": "CELERY_BROKER_URL", "value": broker},
            {"name": "TAPP_LOG", "value": stage.task_log()},
            {"name": "NEW", "value": "1"}]}}}),
        )
        .await?;
    stage.await_no_pods("w", LIMIT).await?;
    let more = publisher.publish(&Batch::sleep("q", 4, 1.0)).await?;
    stage.await_ended(8, LIMIT).await?;
    stage.await_no_pods("w", LIMIT).await?;
    stage.expect_all_done_once(&[ids, more].concat())?;
    wait_until("an event", LIMIT, || async {
        Ok(here.run(["get", "events"]).await?.contains("ScaledUp"))
    })
    .await?;

    let entries = audit_entries(&stage.plane.audit_log())?;
    let ours: Vec<&AuditEntry> = entries
        .iter()
        .filter(|entry| entry.user == plane::OPERATOR && entry.namespace == stage.namespace.name)
        .collect();
    assert!(ours.iter().any(|entry| entry.subresource == "scale"), "{ours:?}");
    // The policy of its account lets it say which pods go first.
    let marks = |entry: &AuditEntry| entry.verb == "patch" && entry.resource == "pods";
    assert!(ours.iter().any(|entry| marks(entry)), "{ours:?}");
    // Nothing that only looks like its own, and nothing in the namespace beside.
    let touched = |entry: &&AuditEntry| {
        let foreign = others.contains(&entry.name) || entry.namespace == "install-neighbour";
        entry.user == plane::OPERATOR && entry.is_write() && foreign
    };
    let touched: Vec<_> = entries.iter().filter(touched).collect();
    assert!(touched.is_empty(), "{touched:?}");
    let (_, _, message) = stage.condition("w", ConditionType::SignalsFresh).await?;
    assert_eq!(message, "every source has fresh data", "the load was not read");
    let refused: Vec<_> = ours.iter().filter(|entry| entry.code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    for verb in ["list", "watch", "update", "delete"] {
        let may = here
            .run(["auth", "can-i", verb, "secrets", "--as", plane::OPERATOR])
            .await;
        assert!(may.is_err(), "{} may {verb} Secrets", plane::OPERATOR);
    }
    Ok(())
}

/// What carries the WorkerPool's label and is not its own, here and in a namespace beside; their names.
async fn decoys(stage: &Stage) -> Result<[String; 2]> {
    let client = stage.plane.client().await?;
    let beside = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "install-neighbour"}});
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &serde_json::from_value(beside)?)
        .await?;
    let names = ["w-lookalike".to_owned(), "w-neighbour".to_owned()];
    for (name, namespace) in names.iter().zip([&*stage.namespace.name, "install-neighbour"]) {
        let labels = json!({LABEL_WORKER_POOL: "w", "app": name});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "worker", "image": FAKE_IMAGE}]},
                },
            },
        });
        Api::<Deployment>::namespaced(client.clone(), namespace)
            .create(&PostParams::default(), &serde_json::from_value(deployment)?)
            .await?;
    }
    Ok(names)
}

/// `CLUSTER=current make demo`, told to stop as soon as a task has begun: it brings all that it needs to a cluster that is
/// there, and takes its namespace away.
#[tokio::test]
async fn the_demo_comes_to_the_cluster_of_a_kubeconfig_and_leaves_it() -> Result<()> {
    let plane = Plane::shared().await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("demo.log");
    let mut command = process::mortal(operator::built("debug").with_file_name("poolwright-demo"));
    command.env("KUBECONFIG", plane.kubeconfig()).envs([
        ("CLUSTER", "current"),
        ("DEMO_BROKER_URL", &redis.url(0)),
        ("DEMO_IMAGE", CELERY_IMAGE),
    ]);
    let mut demo = Daemon::start("demo", command, &log)?;
    let connection = redis.connection(0).await?;
    demo.wait_serving("a task on a worker in the cluster", LIMIT, || async {
        let begun: usize = redis::cmd("LLEN")
            .arg(TRACE)
            .query_async(&mut connection.clone())
            .await?;
        Ok(begun > 0)
    })
    .await?;
    demo.signal(Signal::INT);
    let ended = poll("the demo to end", LIMIT, || std::future::ready(Ok(demo.ended()))).await?;
    let said = std::fs::read_to_string(&log)?;
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("every WorkerPool is Ready at 0 workers"), "{said}");
    assert!(said.contains("it was told to stop"), "{said}");
    let namespaces: Api<Namespace> = Api::all(plane.client().await?);
    wait_until("its namespace to be gone", LIMIT, || async {
        Ok(namespaces.get_opt(NAMESPACE).await?.is_none())
    })
    .await
}

/// The metrics name queues, workers and Pools: they are for those whom somebody lets read them.
#[tokio::test]
async fn guarded_metrics_are_read_by_whom_kubernetes_lets() -> Result<()> {
    let stage = Stage::with_args("guarded", &["--guard-metrics"]).await?;
    let (cluster, here) = (stage.plane.kubectl()?, stage.kubectl()?);
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install/user-roles.yaml");
    cluster.run(["apply", "-f", roles.to_str().unwrap()]).await?;
    let token = here.run(["create", "token", "default"]).await?;
    let reads = async |token: Option<&str>| stage.operator.get_with("/metrics", token).await;

    for unknown in [None, Some("no-token-of-anybody")] {
        let (code, words) = reads(unknown).await?;
        assert_eq!(code, 401, "{words}");
        assert!(!words.contains("poolwright_"), "{words}");
    }
    let (code, words) = reads(Some(token.trim())).await?;
    assert_eq!(code, 403, "{words}");
    assert!(words.contains("get on the path /metrics"), "{words}");
    // Probes carry no token.
    assert_eq!(stage.operator.get("/readyz").await?.0, 200);

    let space = &stage.namespace.name;
    let binding = [
        "create",
        "clusterrolebinding",
        space,
        "--clusterrole=poolwright-metrics-reader",
        &format!("--serviceaccount={space}:default"),
    ];
    cluster.run(binding).await?;
    wait_until("the right to count", LIMIT, || async {
        let (code, text) = reads(Some(token.trim())).await?;
        Ok(code == 200 && text.contains("poolwright_leader 1"))
    })
    .await
}

/// What a scraper sends and is sent is read by nobody on the way, and a scraper that does not trust the certificate gets
/// nothing.
#[tokio::test]
async fn metrics_are_served_over_tls_where_a_certificate_is_given() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let made = Authority::create(dir.path())?;
    let flags = [
        format!("--metrics-tls-cert={}", made.certificate.display()),
        format!("--metrics-tls-key={}", made.key.display()),
    ];
    let stage = Stage::with_args("tls", &[&flags[0], &flags[1]]).await?;
    let address = stage.operator.http().ok_or("no address in the log")?;
    let port = address.rsplit(':').next().unwrap_or_default();
    let url = format!("https://localhost:{port}/metrics");
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&made.ca)?)?;
    let trusting = reqwest::Client::builder().tls_certs_merge([authority]).build()?;
    wait_until("metrics of who leads", LIMIT, || async {
        let response = trusting.get(&url).send().await?;
        Ok(response.text().await?.contains("poolwright_leader 1"))
    })
    .await?;
    let stranger = reqwest::Client::new().get(&url).send().await;
    assert!(
        stranger.is_err(),
        "a client that knows no such authority was answered"
    );
    assert!(
        stage.operator.get("/metrics").await.is_err(),
        "answered without TLS"
    );
    Ok(())
}
