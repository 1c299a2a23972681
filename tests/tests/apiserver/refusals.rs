//! An API server that has no time for the operator, and one whose history begins after what the operator has seen.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Alone, forgetful};

/// The priority level and the schema that leave the operator one seat, and the webhook that keeps whoever sits on it.
const ONE_SEAT: &str = "one-seat";

/// A level of one seat, for the operator and for the account `default` of a namespace. Who comes second is refused at once.
fn one_seat(namespace: &str) -> Value {
    let api = "flowcontrol.apiserver.k8s.io/v1";
    let level = json!({
        "apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": {"name": ONE_SEAT},
        "spec": {"type": "Limited", "limited": {
            // One request is served all the same, while there is no other.
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        }},
    });
    let everything = json!({
        "subjects": [
            {"kind": "User", "user": {"name": plane::OPERATOR}},
            {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "default"}},
        ],
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
        }],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    });
    let schema = json!({
        "apiVersion": api, "kind": "FlowSchema", "metadata": {"name": ONE_SEAT},
        "spec": {
            "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": ONE_SEAT}, "rules": [everything],
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [level, schema]})
}

/// A webhook that keeps the creation of every `ConfigMap` of a namespace waiting.
fn webhook(namespace: &str, port: u16) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": ONE_SEAT},
        "webhooks": [{
            "name": "slow.poolwright.test", "clientConfig": {"url": format!("https://127.0.0.1:{port}/")},
            "timeoutSeconds": 30, "failurePolicy": "Ignore", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        }],
    })
}

/// Keeps the seat taken. A TLS handshake that is not answered is given up after ten seconds, so there is always one who
/// would sit down next.
async fn take_the_seat(stage: &Stage) -> Result<JoinSet<()>> {
    let (kubectl, space) = (stage.kubectl()?, &stage.namespace.name);
    let account = format!("--serviceaccount={space}:default");
    kubectl
        .run(["create", "rolebinding", "default", "--clusterrole=edit", &account])
        .await?;
    let token = kubectl.run(["create", "token", "default"]).await?;
    let file = stage.dir.path().join("seat");
    stage.plane.kubeconfig_with_token(token.trim(), &file)?;
    let file = Kubeconfig::read_from(&file)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config)?, space);
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let port = silent.local_addr()?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            open.push(connection);
        }
    });
    kubectl.apply(&webhook(space, port).to_string()).await?;
    kubectl.apply(&one_seat(space).to_string()).await?;
    for who in 0..3 {
        let maps = maps.clone();
        tasks.spawn(async move {
            for number in 0.. {
                let map = json!({"metadata": {"name": format!("c-{who}-{number}")}});
                let map = serde_json::from_value(map).unwrap_or_default();
                let _ = maps.create(&PostParams::default(), &map).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    // It takes a moment until all of it is obeyed: whoever is second is refused then, the operator or one of these.
    let began = jiff::Timestamp::now();
    wait_until("a seat that is taken", LIMIT, || async {
        let all = audit_entries(&stage.plane.audit_log())?.into_iter();
        Ok(all.filter(|one| one.code == 429 && one.at > began).count() > 20)
    })
    .await?;
    Ok(tasks)
}

/// What the operator was refused with 429 since then.
fn refused(stage: &Stage, since: jiff::Timestamp) -> Result<Vec<AuditEntry>> {
    let all = audit_entries(&stage.plane.audit_log())?.into_iter();
    let is_refused = |one: &AuditEntry| one.code == 429 && one.user == plane::OPERATOR && one.at > since;
    Ok(all.filter(is_refused).collect())
}

#[tokio::test]
async fn an_api_server_that_refuses_everything_costs_time_and_no_task() -> Result<()> {
    let length = Duration::from_secs(scale::pick(15, 60));
    let alone = Alone::new("a-429", forgetful()).await?;
    let stage = &alone.stage;
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 1, "maxReplicas": 4, "scaleDownDelaySeconds": 2},
    });
    alone.broker.pool(stage, "q", &["q"], shape).await?;
    let mut publisher = alone.broker.publisher().await?;
    let long = Batch::sleep("q", 1, 2.0 * length.as_secs_f64() + 15.0);
    let mut ids = publisher.publish(&long).await?;
    stage.await_running(1, LIMIT).await?;

    let began = jiff::Timestamp::now();
    let seat = take_the_seat(stage).await?;
    ids.extend(publisher.publish(&Batch::sleep("q", 12, 1.0)).await?);
    // What it wants to write for them is refused.
    wait_until("a refusal", LIMIT, || async {
        Ok(!refused(stage, began)?.is_empty())
    })
    .await?;
    let steady = jiff::Timestamp::now();
    stage.expect_steady("q", 1, length).await?;
    let during = refused(stage, steady)?.len();
    println!("{during} requests were refused in {length:?}");
    // It goes on asking, and gently.
    assert!(during > 0);
    assert!(
        during as u64 <= 5 * length.as_secs(),
        "{during} requests in {length:?}"
    );
    assert_eq!(stage.operator.get("/healthz").await?.0, 200);

    drop(seat);
    let remove = "flowschema,prioritylevelconfiguration,validatingwebhookconfiguration";
    stage.plane.kubectl()?.run(["delete", remove, ONE_SEAT]).await?;
    stage.await_replicas("q", 4, LIMIT).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_replicas("q", 1, LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)?;
    alone.end().await
}

/// True once the API server no longer knows what came after this version.
async fn is_gone(pools: &Api<WorkerPool>, version: &str) -> Result<bool> {
    let told = match pools.watch(&WatchParams::default().timeout(5), version).await {
        Err(error) => Err(error),
        Ok(stream) => std::pin::pin!(stream).next().await.transpose(),
    };
    Ok(match told {
        Err(kube::Error::Api(status)) | Ok(Some(WatchEvent::Error(status))) => status.code == 410,
        _ => false,
    })
}

#[tokio::test]
async fn a_history_that_is_gone_is_listed_anew() -> Result<()> {
    let alone = Alone::new("a-410", forgetful()).await?;
    let stage = &alone.stage;
    for name in ["q", "gone"] {
        let shape = json!({"celery": {"concurrency": 1}, "scaling": {"minReplicas": 1}});
        alone.broker.pool(stage, name, &[name], shape).await?;
        stage.await_replicas(name, 1, LIMIT).await?;
    }
    let desired = "poolwright_worker_pool_desired_replicas";
    wait_until("numbers of both", LIMIT, || async {
        Ok(stage.metric(desired, "name=\"gone\"").await?.is_some())
    })
    .await?;
    let pools: Api<WorkerPool> = stage.namespace.api();
    let seen = pools.list(&ListParams::default()).await?.metadata;
    let seen = seen.resource_version.unwrap_or_default();

    alone.wire.cut();
    alone.wire.sever();
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 3}}}))
        .await?;
    pools.delete("gone", &DeleteParams::default()).await?;
    wait_until("the history to be gone", LIMIT, || is_gone(&pools, &seen)).await?;
    assert_eq!(stage.replicas("q").await?, 1, "nobody has told the operator");
    alone.wire.restore();

    stage.await_replicas("q", 3, LIMIT).await?;
    wait_until("the deleted one to be forgotten", LIMIT, || async {
        Ok(stage.metric(desired, "name=\"gone\"").await?.is_none())
    })
    .await?;
    let log = stage.operator.log();
    let expired = log
        .matches("The resourceVersion for the provided watch is too old")
        .count();
    println!("{expired} watches began anew");
    assert!(expired > 0, "{log}");
    alone.end().await
}
