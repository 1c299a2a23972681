//! What the cluster refuses is said in the WorkerPool's conditions in the server's, scheduler's or node's own words,
//! never starts more than was decided, and is over when its cause is.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use poolwright_api::ConditionType::Ready;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// Pods that each case's demand asks for.
const DECIDED: i32 = 2;
const ARGUMENT: &str = "canary-argument-9d1e";

/// One refusal: the spec that is refused, what `Ready` says, and what ends it.
struct Case {
    name: &'static str,
    spec: Value,
    reason: &'static str,
    words: &'static [&'static str],
    cure: Cure,
}

enum Cure {
    /// A change of the WorkerPool's spec.
    Spec(Value),
    /// The quota goes.
    Quota,
    /// The policy of admission goes.
    Policy,
    /// The Secret comes.
    Secret,
    /// The `ConfigMap` comes.
    ConfigMap,
}

fn fake(patch: Value) -> Value {
    let mut spec = json!({"worker": {"image": FAKE_IMAGE, "env": []}});
    stage::merge(&mut spec, patch);
    spec
}

/// What a pod meets before a node has it.
fn before_the_node(space: &str) -> Vec<Case> {
    vec![
        Case {
            name: "processors",
            spec: fake(json!({"worker": {"resources": {"requests": {"cpu": "5k"}}}})),
            reason: "Unschedulable",
            words: &["nodes are available", "Insufficient cpu"],
            cure: Cure::Spec(json!({"worker": {"resources": {"requests": {"cpu": "1m"}}}})),
        },
        Case {
            name: "gpu",
            spec: fake(json!({"worker": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}})),
            reason: "Unschedulable",
            words: &["nodes are available", "Insufficient nvidia.com/gpu"],
            cure: Cure::Spec(json!({"worker": {"resources": null}})),
        },
        Case {
            name: "quota",
            spec: fake(json!({"pod": {"priorityClassName": space}})),
            reason: "QuotaExceeded",
            words: &["exceeded quota: one-pod", "used: pods=1, limited: pods=1"],
            cure: Cure::Quota,
        },
        Case {
            name: "denied-pod",
            spec: fake(json!({"pod": {"labels": {"denied": "yes"}}})),
            reason: "AdmissionDenied",
            words: &["ValidatingAdmissionPolicy", "not with this label"],
            cure: Cure::Policy,
        },
        Case {
            name: "denied-deployment",
            spec: fake(json!({})),
            reason: "AdmissionDenied",
            words: &["ValidatingAdmissionPolicy", "not under this name"],
            cure: Cure::Policy,
        },
        Case {
            name: "account",
            spec: fake(json!({"pod": {"serviceAccountName": "nobody"}})),
            reason: "AdmissionDenied",
            words: &["nobody", "not found"],
            cure: Cure::Spec(json!({"pod": null})),
        },
    ]
}

/// What a pod meets on its node.
fn on_the_node() -> Vec<Case> {
    let shell = |script: &str| json!(["/bin/sh", "-c", script]);
    let to_fake = || Cure::Spec(json!({"worker": {"image": FAKE_IMAGE}}));
    vec![
        Case {
            name: "image",
            spec: json!({"worker": {"image": "registry.example/unknown:1"}}),
            reason: "ImageNotPulled",
            words: &["ImagePull", "registry.example/unknown:1"],
            cure: to_fake(),
        },
        Case {
            name: "sidecar-image",
            spec: json!({"pod": {"sidecars": [{"name": "proxy", "image": "registry.example/proxy:1"}]}}),
            reason: "ImageNotPulled",
            words: &["ImagePull", "registry.example/proxy:1", "proxy"],
            cure: Cure::Spec(json!({"pod": null, "worker": {"image": FAKE_IMAGE}})),
        },
        Case {
            name: "crash",
            spec: json!({"worker": {"command": shell("exit 3")}}),
            reason: "CrashLoop",
            words: &["exit code 3", "restarts: "],
            cure: to_fake(),
        },
        Case {
            name: "memory",
            spec: json!({"worker": {
                "command": shell("exit 137"), "env": [{"name": "POOLWRIGHT_FAKE_OOM", "value": "1"}]}}),
            reason: "OutOfMemory",
            words: &["OOMKilled", "exit code 137", "restarts: "],
            cure: to_fake(),
        },
        Case {
            name: "secret",
            spec: json!({"worker": {"command": shell("sleep 1000"), "envFrom": [{"secretRef": {"name": "settings"}}]}}),
            reason: "SecretMissing",
            words: &["secret \"settings\" not found"],
            cure: Cure::Secret,
        },
        Case {
            name: "config-map",
            spec: json!({"worker": {"command": shell("sleep 1000"), "envFrom": [{"configMapRef": {"name": "levels"}}]}}),
            reason: "ConfigMapMissing",
            words: &["configmap \"levels\" not found"],
            cure: Cure::ConfigMap,
        },
    ]
}

/// Policies that refuse in this namespace alone; a quota that counts pods of one priority class.
async fn obstacles(stage: &Stage) -> Result<()> {
    let space = stage.namespace.name.as_str();
    let mut items = vec![
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": space}, "value": 1}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one-pod", "namespace": space},
            "spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In", "values": [space]}]}}}),
    ];
    let only_here = json!({"matchLabels": {"kubernetes.io/metadata.name": space}});
    for (kind, group, version, plural, labels, message) in [
        (
            "pod",
            "",
            "v1",
            "pods",
            json!({"denied": "yes"}),
            "not with this label",
        ),
        (
            "deployment",
            "apps",
            "v1",
            "deployments",
            json!({"app.kubernetes.io/instance": "denied-deployment"}),
            "not under this name",
        ),
    ] {
        let (api, name) = ("admissionregistration.k8s.io/v1", format!("{space}-{kind}"));
        items.push(json!({"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": {
            "matchConstraints": {"namespaceSelector": only_here, "objectSelector": {"matchLabels": labels},
                "resourceRules": [{"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE"],
                    "resources": [plural]}]},
            "validations": [{"expression": "false", "message": message}]}}));
        items.push(
            json!({"apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]}}),
        );
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    stage.kubectl()?.apply(&list.to_string()).await?;
    let quotas: Api<ResourceQuota> = stage.namespace.api();
    wait_until("the quota to be counted", LIMIT, || async {
        let status = quotas.get("one-pod").await?.status;
        Ok(status.is_some_and(|status| status.used.is_some_and(|used| used.contains_key("pods"))))
    })
    .await?;
    let probe = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "labels": {"denied": "yes"}},
        "spec": {"containers": [{"name": "c", "image": FAKE_IMAGE}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "probe", "labels": {"app.kubernetes.io/instance": "denied-deployment"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": FAKE_IMAGE}]}}}});
    for probe in [probe, deployment] {
        wait_until("the policies to be in force", LIMIT, || async {
            let args = ["create", "--dry-run=server", "-f", "-"];
            let answer = stage.kubectl()?.run_with_input(&args, &probe.to_string()).await;
            Ok(answer.is_err_and(|error| error.to_string().contains("ValidatingAdmissionPolicy")))
        })
        .await?;
    }
    Ok(())
}

async fn cure(stage: &Stage, case: &Case) -> Result<()> {
    let space = stage.namespace.name.as_str();
    match &case.cure {
        Cure::Spec(spec) => stage.patch_pool(case.name, json!({"spec": spec})).await,
        Cure::Quota => {
            let quotas: Api<ResourceQuota> = stage.namespace.api();
            quotas.delete("one-pod", &DeleteParams::default()).await?;
            Ok(())
        }
        Cure::Policy => {
            let binding = format!("{space}-{}", case.name.trim_start_matches("denied-"));
            let args = ["delete", "validatingadmissionpolicybinding", &binding];
            stage.kubectl()?.run(args).await.map(drop)
        }
        Cure::Secret => stage.secret("settings", "KEY", "value").await,
        Cure::ConfigMap => {
            let args = ["create", "configmap", "levels", "--from-literal=LEVEL=1"];
            stage.kubectl()?.run(args).await.map(drop)
        }
    }
}

/// Waits until the refusal is over: the pods that were decided are ready and nothing of it is said any more.
async fn is_over(stage: &Stage, case: &Case) -> Result<()> {
    wait_until(&format!("{} to be well", case.name), LIMIT, || async {
        let status = stage.wp(case.name).await?.status.unwrap_or_default();
        let (ready, reason, _) = stage.condition(case.name, Ready).await?;
        Ok(status.ready_replicas == Some(DECIDED) && ready == "True" && reason != case.reason)
    })
    .await
}

#[tokio::test]
async fn what_the_cluster_refuses_is_said_and_is_over_with_its_cause() -> Result<()> {
    let stage = Stage::new("refusals").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    obstacles(&stage).await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    let all: Vec<Case> = before_the_node(&stage.namespace.name)
        .into_iter()
        .chain(on_the_node())
        .collect();
    for case in &all {
        stage.queue(case.name, json!({"url": redis.url(0)})).await?;
        let tasks = Batch {
            prefix: Some(format!("{ARGUMENT}-{}", case.name)),
            ..Batch::sleep(case.name, 4, 1.0)
        };
        publisher.publish(&tasks).await?;
        stage
            .pool(case.name, &[case.name], &redis.url(0), case.spec.clone())
            .await?;
    }
    for case in &all {
        let message = stage
            .await_condition(case.name, Ready, "False", case.reason, LIMIT)
            .await?;
        for word in case.words {
            assert!(
                message.contains(word),
                "{}: {word:?} is not in {message:?}",
                case.name
            );
        }
    }
    // Long enough for whatever would start more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for case in &all {
        let (_, reason, message) = stage.condition(case.name, Ready).await?;
        assert_eq!(
            reason, case.reason,
            "{} says so all the time: {message}",
            case.name
        );
        let (replicas, pods) = stage.started(case.name).await?;
        let expected = if case.name == "denied-deployment" {
            0
        } else {
            DECIDED
        };
        assert_eq!(replicas, expected, "{}", case.name);
        assert!(pods <= DECIDED as usize, "{}: {pods} pods", case.name);
        let most = stage.peak(case.name);
        assert!(most <= DECIDED, "{}: {most} at one time", case.name);
    }
    for case in &all {
        cure(&stage, case).await?;
    }
    for case in &all {
        is_over(&stage, case).await?;
        // A change of the spec is a rollout: pods of the old revision, which never ran, leave while the new ones come.
        let most = stage.peak(case.name);
        assert!(most <= 2 * DECIDED, "{}: {most}", case.name);
    }
    stage.expect_unsaid(&[ARGUMENT]).await
}

/// A worker that ends again and again for a wrong app, and then does its tasks with the right one.
#[tokio::test]
async fn a_worker_that_cannot_start_is_said_and_its_correction_does_the_work() -> Result<()> {
    let stage = Stage::new("crash").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let wrong = json!({"celery": {"app": "no_such_module"}, "scaling": {"maxReplicas": 1}});
    stage.pool("w", &["q"], &redis.url(0), wrong).await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    let ids = publisher.publish(&Batch::sleep("q", 4, 0.1)).await?;
    let message = stage
        .await_condition("w", Ready, "False", "CrashLoop", LIMIT)
        .await?;
    assert!(
        message.contains("exit code 2") && message.contains("restarts: "),
        "{message}"
    );
    assert_eq!(stage.started("w").await?, (1, 1));
    stage
        .patch_pool("w", json!({"spec": {"celery": {"app": "tapp"}}}))
        .await?;
    stage.await_ended(4, LIMIT).await?;
    stage
        .await_condition("w", Ready, "True", "AsDesired", LIMIT)
        .await?;
    stage.await_replicas("w", 0, LIMIT).await?;
    stage.expect_all_done_once(&ids)
}

/// The next revision is refused: the proven one goes on following its demand, out and in, until the next one may come.
#[tokio::test]
async fn a_revision_that_is_refused_keeps_the_proven_one_from_nothing() -> Result<()> {
    let stage = Stage::new("refused-next").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 1, "maxReplicas": 4, "scaleDownDelaySeconds": 2},
    });
    stage.pool("w", &["q"], &redis.url(0), shape).await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    let mut ids = publisher.publish(&Batch::sleep("q", 1, 0.1)).await?;
    stage.await_ended(1, LIMIT).await?;
    let deployments: Api<Deployment> = stage.namespace.api();
    wait_until("the first revision to be proven", LIMIT, || async {
        let all = deployments.list(&ListParams::default()).await?;
        Ok(!all.items.is_empty()
            && all
                .iter()
                .all(|one| one.annotations().contains_key("poolwright.dev/proven-at")))
    })
    .await?;

    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one-deployment"},
        "spec": {"hard": {"count/deployments.apps": "1"}}});
    stage.kubectl()?.apply(&quota.to_string()).await?;
    let quotas: Api<ResourceQuota> = stage.namespace.api();
    wait_until("the quota to be counted", LIMIT, || async {
        let status = quotas.get("one-deployment").await?.status;
        Ok(status.is_some_and(|status| status.used.is_some()))
    })
    .await?;
    let changed = json!({"spec": {"pod": {"labels": {"next": "yes"}}}});
    stage.patch_pool("w", changed).await?;
    stage
        .await_condition("w", Ready, "False", "QuotaExceeded", LIMIT)
        .await?;
    ids.extend(publisher.publish(&Batch::sleep("q", 12, 2.0)).await?);
    stage.await_replicas("w", 4, Duration::from_secs(10)).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_replicas("w", 1, LIMIT).await?;
    let (_, reason, _) = stage.condition("w", Ready).await?;
    assert_eq!(reason, "QuotaExceeded", "it is still refused");

    quotas.delete("one-deployment", &DeleteParams::default()).await?;
    stage
        .await_condition("w", Ready, "True", "AsDesired", LIMIT)
        .await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}
