//! What others do to what is ours: edit, scale, delete, aim a second autoscaler at it, and ask about it.

mod explain;
mod namespaces;
mod overrides;
mod rivals;
mod schedules;

use crate::ground::{Ground, LIMIT};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_api::{ConditionType, DEFAULT_POOL};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Two pods, each with two tasks that run and two that wait in it: a worker fetches what it has acknowledged anew.
async fn two_busy_pods(prefix: &str, seconds: f64) -> Result<(Ground, Vec<String>)> {
    let mut ground = Ground::new(prefix).await?;
    ground
        .pool("w", json!({"scaling": {"minReplicas": 2, "maxReplicas": 2}}))
        .await?;
    ground.await_heard("w", 2).await?;
    let ids = ground.publish(8, seconds).await?;
    ground.await_running(4).await?;
    Ok((ground, ids))
}

/// The one Deployment, once it is paused.
async fn deployment(ground: &Ground) -> Result<Deployment> {
    poll("one paused Deployment", LIMIT, || async {
        let mut all = ground.stage.deployments("w").await?;
        let paused = |one: &Deployment| one.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        Ok(all.pop().filter(|one| all.is_empty() && paused(one)))
    })
    .await
}

fn template(deployment: &Deployment) -> Value {
    json!(deployment.spec.as_ref().map(|spec| &spec.template))
}

async fn names(ground: &Ground) -> Result<BTreeSet<String>> {
    Ok(ground
        .living("w")
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect())
}

#[tokio::test]
async fn what_somebody_edits_comes_back_and_no_pod_notices() -> Result<()> {
    let (ground, ids) = two_busy_pods("edited", scale::pick(20.0, 120.0)).await?;
    let kubectl = ground.stage.kubectl()?;
    let before = deployment(&ground).await?;
    let (name, pods) = (before.name_any(), names(&ground).await?);
    let target = format!("deployment/{name}");
    kubectl
        .run(["set", "image", &target, "worker=example.test/other:1"])
        .await?;
    let more = json!({"metadata": {"annotations": {"added": "by-hand"}}, "spec": {"containers": [
        {"name": "worker", "env": [{"name": "ADDED", "value": "by-hand"}]}]}});
    let more = json!({"spec": {"template": more}}).to_string();
    kubectl.run(["patch", "deployment", &name, "-p", &more]).await?;
    kubectl
        .run([
            "label",
            "deployment",
            &name,
            "poolwright.dev/worker-pool-",
            "app.kubernetes.io/name=x",
            "--overwrite",
        ])
        .await?;
    let restored = || async {
        let after = deployment(&ground).await?;
        Ok(template(&after) == template(&before)
            && after.labels() == before.labels()
            && after.uid() == before.uid())
    };
    wait_until("template and labels to be ours again", LIMIT, restored).await?;
    wait_until("it to be told", LIMIT, || async {
        let notes = ground.stage.notes_about("w", "Restored").await?;
        Ok(notes.iter().any(|note| note.contains(&name)))
    })
    .await?;
    // Labels change without a new generation; and more than once.
    for value in ["x", "y"] {
        let label = format!("poolwright.dev/worker-pool={value}");
        kubectl
            .run(["label", "deployment", &name, &label, "--overwrite"])
            .await?;
        wait_until("the label to be ours again", LIMIT, restored).await?;
    }
    // It is paused: its controller made no pod of what it read meanwhile.
    assert_eq!(names(&ground).await?, pods);
    let refused = kubectl
        .run(["rollout", "restart", &target])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("paused"), "{refused}");
    // An edit that also unpauses: the Deployment's controller may have begun to replace pods.
    let both = json!({"spec": {"paused": false, "template": {"spec": {"containers": [
        {"name": "worker", "image": "example.test/other:1"}]}}}});
    kubectl
        .run(["patch", "deployment", &name, "-p", &both.to_string()])
        .await?;
    wait_until("template and pause to be ours again", LIMIT, restored).await?;
    let sets: Api<ReplicaSet> = ground.stage.namespace.api();
    wait_until("one ReplicaSet with two pods", LIMIT, || async {
        let sets = sets.list(&ListParams::default()).await?;
        let replicas = sets
            .iter()
            .filter_map(|set| set.spec.as_ref()?.replicas)
            .filter(|one| *one > 0);
        Ok(replicas.collect::<Vec<_>>() == [2] && restored().await?)
    })
    .await?;
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 500)));
    ground.stage.await_ended(ids.len(), limit).await?;
    ground.expect_done(&ids)
}

#[tokio::test]
async fn a_deployment_that_is_scaled_or_deleted_comes_back() -> Result<()> {
    let (ground, ids) = two_busy_pods("scaled", scale::pick(15.0, 120.0)).await?;
    let kubectl = ground.stage.kubectl()?;
    let first = deployment(&ground).await?;
    let name = first.name_any();
    for replicas in ["--replicas=4", "--replicas=0"] {
        kubectl.run(["scale", "deployment", &name, replicas]).await?;
        ground.stage.await_replicas("w", 2, LIMIT).await?;
    }
    // In the background, as kubectl does it by default: its pods go, and its name is free at once.
    kubectl
        .run(["delete", "deployment", &name, "--wait=false"])
        .await?;
    wait_until("a successor with two pods", LIMIT, || async {
        let all = ground.stage.deployments("w").await?;
        let pods = ground.living("w").await?;
        Ok(all.len() == 1 && all[0].uid() != first.uid() && pods.len() == 2)
    })
    .await?;
    let second = deployment(&ground).await?;
    assert_eq!((second.name_any(), template(&second)), (name, template(&first)));
    // Its ReplicaSet and pods stay: the next one takes them over, and not one of them goes.
    let (before, set) = (names(&ground).await?, second.uid());
    kubectl
        .run(["delete", "deployment", &second.name_any(), "--cascade=orphan"])
        .await?;
    let third = poll("the third", LIMIT, || async {
        let all = ground.stage.deployments("w").await?;
        Ok(all.into_iter().find(|one| one.uid() != set))
    })
    .await?;
    assert_eq!(template(&third), template(&second));
    let settled = || async {
        let spec = deployment(&ground).await?.spec.unwrap_or_default();
        Ok(spec.replicas == Some(2) && names(&ground).await? == before)
    };
    wait_until("the third to be settled", LIMIT, settled).await?;
    ground.expect_sum("w", 2, Duration::from_secs(3)).await?;
    assert_eq!(names(&ground).await?, before);
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 500)));
    ground.stage.await_ended(ids.len(), limit).await?;
    ground.await_ready("w").await?;
    ground.expect_done(&ids)
}

#[tokio::test]
async fn kubectl_scale_holds_until_it_is_taken_back() -> Result<()> {
    let ground = Ground::new("hold").await?;
    ground.pool("w", json!({"scaling": {"maxReplicas": 2}})).await?;
    let kubectl = ground.stage.kubectl()?;
    let wait = ["wait", "--for=condition=Ready", "wp/w", "--timeout=120s"];
    kubectl.run(wait).await?;
    assert_eq!(ground.stage.replicas("w").await?, 0);
    let scale = format!(
        "/apis/poolwright.dev/v1alpha1/namespaces/{}/workerpools/w/scale",
        ground.stage.namespace.name
    );
    let absent = kubectl.output(["get", "--raw", &scale]).await?;
    assert!(
        !absent.status.success(),
        "GET of /scale works: an HPA would be obeyed"
    );

    kubectl.run(["scale", "wp/w", "--replicas=3"]).await?;
    let message = ground
        .stage
        .await_condition("w", ConditionType::ManualHold, "True", "ManualHold", LIMIT)
        .await?;
    assert!(
        message.starts_with("held since 20") && message.contains("kubectl scale, now at 3 replicas"),
        "{message}"
    );
    ground.stage.await_replicas("w", 3, LIMIT).await?;
    let held = Duration::from_secs(scale::pick(10, 90));
    ground
        .expect_sum("w", 3, held)
        .await
        .map_err(|error| format!("the hold is not obeyed: {error}"))?;
    kubectl.run(wait).await?;
    let present: Value = serde_json::from_str(&kubectl.run(["get", "--raw", &scale]).await?)?;
    assert_eq!(
        (&present["spec"]["replicas"], &present["status"]["replicas"]),
        (&json!(3), &json!(3))
    );

    let command = message
        .split("to end it: ")
        .nth(1)
        .ok_or("the message names no command")?;
    run_as_written(&ground, command).await?;
    ground
        .stage
        .await_condition("w", ConditionType::ManualHold, "False", "AsDesired", LIMIT)
        .await?;
    ground.stage.await_replicas("w", 0, LIMIT).await?;
    ground.stage.await_no_pods("w", LIMIT).await?;
    kubectl.run(wait).await?;
    ground.stage.expect_none_killed()
}

/// Runs a command line as a person would paste it, with `kubectl` on the path and no default namespace.
async fn run_as_written(ground: &Ground, line: &str) -> Result<()> {
    let (binary, kubeconfig) = (plane::binary()?, ground.stage.plane.kubeconfig());
    let line = format!("kubectl() {{ {} kubectl \"$@\"; }}; {line}", binary.display());
    let output = tokio::process::Command::new("sh")
        .args(["-c", &line])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .await?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

#[tokio::test]
async fn definitions_can_be_applied_by_any_client() -> Result<()> {
    let stage = Stage::new("crds").await?;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
    stage
        .plane
        .kubectl()?
        .run(["apply", "-f", folder])
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_worker_pool_that_is_deleted_and_made_again_loses_nothing() -> Result<()> {
    // Shorter than the time limit of these workers.
    let (mut ground, mut ids) = two_busy_pods("again", scale::pick(20.0, 240.0)).await?;
    let pools: Api<WorkerPool> = ground.stage.namespace.api();
    let before = names(&ground).await?;
    pools.delete("w", &DeleteParams::default()).await?;
    // At once: its Deployment, its ReplicaSet and its pods are still there.
    let running = ground.running()?;
    ground
        .pool("w", json!({"scaling": {"minReplicas": 2, "maxReplicas": 2}}))
        .await?;
    let fresh = || async {
        let pods = names(&ground).await?;
        Ok(pods.len() == 2 && pods.is_disjoint(&before))
    };
    wait_until("two pods of the successor", LIMIT, fresh).await?;
    assert_eq!(running.len(), 4);
    ids.extend(ground.publish(4, 1.0).await?);
    ground
        .stage
        .await_ended(ids.len(), LIMIT.max(Duration::from_secs(scale::pick(0, 900))))
        .await?;
    wait_until("the predecessor's pods to be gone", LIMIT, || async {
        Ok(ground.stage.pods("w").await?.len() == 2)
    })
    .await?;
    ground.stage.await_replicas("w", 2, LIMIT).await?;
    ground.await_ready("w").await?;
    ground.expect_done(&ids)
}

/// What pods of a deleted WorkerPool hold is theirs to the end: a neighbour on the queue starts nothing for it.
#[tokio::test]
async fn a_neighbour_starts_nothing_for_what_a_deleted_worker_pool_still_does() -> Result<()> {
    let (ground, ids) = two_busy_pods("neighbour", scale::pick(20.0, 120.0)).await?;
    ground.pool("n", json!({})).await?;
    ground.await_ready("n").await?;
    let pools: Api<WorkerPool> = ground.stage.namespace.api();
    pools.delete("w", &DeleteParams::default()).await?;
    let mut looks = 0;
    while ground.running()?.len() == 4 {
        let queue = ground.stage.tq("q").await?.status.unwrap_or_default();
        assert_eq!(queue.orphaned, Some(0), "they are held");
        assert_eq!(queue.foreign_consumers, Some(0), "they are ours");
        assert_eq!(ground.stage.peak("n"), 0, "{:?}", ground.stage.timeline("n"));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(looks > 20, "seen only {looks} times");
    // What they had only fetched comes back with their end, and is the neighbour's.
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 600)));
    ground.stage.await_ended(ids.len(), limit).await?;
    ground.stage.await_no_pods("n", LIMIT).await?;
    ground.expect_done(&ids)
}

/// As with `kubectl delete -f` of a whole fleet: what its workers still do takes its slots, and the Pool says so.
#[tokio::test]
async fn what_a_deleted_fleet_still_does_is_told_by_its_pool() -> Result<()> {
    let (ground, _) = two_busy_pods("fleet", 20.0).await?;
    let stage = &ground.stage;
    let budgets: Api<Pool> = stage.namespace.api();
    let running = async || -> Result<Option<i64>> {
        let status = budgets.get(DEFAULT_POOL).await?.status;
        Ok(status.and_then(|status| status.running))
    };
    wait_until("the Pool to count them", LIMIT, || async {
        Ok(running().await? == Some(4))
    })
    .await?;
    stage
        .kubectl()?
        .run(["delete", "workerpool/w", "taskqueue/q"])
        .await?;
    let mut looks = 0;
    while ground.running()?.len() == 4 {
        let counted = running().await?;
        // The last of them may have ended since.
        assert!(counted == Some(4) || ground.running()?.len() < 4, "{counted:?}");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(looks > 10, "seen only {looks} times");
    stage.await_no_pods("w", LIMIT).await?;
    stage.expect_none_killed()
}

/// What was decided before the operator can know that a namespace goes is still carried out so long after.
const UNDER_WAY: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

#[tokio::test]
async fn a_namespace_that_is_deleted_lets_every_running_task_finish() -> Result<()> {
    let (ground, _) = two_busy_pods("gone", scale::pick(20.0, 240.0)).await?;
    let since = jiff::Timestamp::now();
    let running: Vec<String> = ground.running()?.into_iter().collect();
    let name = ground.stage.namespace.name.clone();
    ground.stage.namespace.delete().await?;
    // The namespace itself goes when its controller looks again, half a grace period later.
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 500)));
    ground.stage.await_no_pods("w", limit).await?;
    assert_eq!(running.len(), 4);
    ground.expect_done(&running)?;
    let attempts: Vec<AuditEntry> = audit_entries(&ground.stage.plane.audit_log())?
        .into_iter()
        .filter(|entry| entry.namespace == name && entry.verb == "create" && entry.at > since)
        .filter(|entry| entry.resource == "deployments")
        .collect();
    // The server refuses them all; only those that were under way may have been tried.
    let late = |entry: &&AuditEntry| entry.at > since + UNDER_WAY;
    assert_eq!(
        attempts.iter().find(late),
        None,
        "created in a namespace that goes"
    );
    assert!(attempts.len() <= 2, "{attempts:#?}");
    Ok(())
}

#[tokio::test]
async fn metrics_go_with_their_objects() -> Result<()> {
    let ground = Ground::new("series").await?;
    ground.pool("w", json!({})).await?;
    ground.await_ready("w").await?;
    let name = ground.stage.namespace.name.clone();
    let series = async || -> Result<usize> {
        let text = ground.stage.operator.metrics().await?;
        let own = format!("namespace=\"{name}\"");
        Ok(text.lines().filter(|line| line.contains(&own)).count())
    };
    wait_until("a WorkerPool's and a TaskQueue's metrics", LIMIT, || async {
        Ok(series().await? >= 6)
    })
    .await?;
    // A round that is due anyway, to see what the last one did, would forget them too.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let pools = ground.stage.namespace.api::<WorkerPool>();
    pools.delete("w", &DeleteParams::default()).await?;
    let queues = ground.stage.namespace.api::<TaskQueue>();
    queues.delete("q", &DeleteParams::default()).await?;
    // Nobody may delete it while a TaskQueue is there.
    let budgets = ground.stage.namespace.api::<Pool>();
    wait_until("default-pool to be deleted", LIMIT, || async {
        Ok(budgets
            .delete(DEFAULT_POOL, &DeleteParams::default())
            .await
            .is_ok())
    })
    .await?;
    wait_until(
        "metrics of what is gone to go",
        Duration::from_secs(20),
        || async { Ok(series().await? == 0) },
    )
    .await
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() -> Result<()> {
    let mut ground = Ground::new("quiet").await?;
    ground.stage.queue("r", json!({"url": ground.broker})).await?;
    ground.pool("w", json!({"scaling": {"minReplicas": 2}})).await?;
    ground
        .stage
        .pool("zero", &["r"], &ground.broker, json!({}))
        .await?;
    let ids = ground.publish(4, 0.5).await?;
    ground.stage.await_ended(4, LIMIT).await?;
    ground.await_ready("w").await?;
    ground.await_ready("zero").await?;
    // Rates of the tasks above are written until they are zero, a few minutes long: the short form leaves these out.
    let rates: &[&str] = scale::pick(&["q"], &[]);
    // A rate may stand for the five minutes that it is taken over, and then fall.
    let calm = Duration::from_secs(scale::pick(4, 330));
    let since = ground
        .stage
        .expect_quiet(rates, calm, Duration::from_secs(scale::pick(35, 120)))
        .await?;
    // The log does show the operator's writes.
    let patch = Patch::Merge(json!({"spec": {"scaling": {"minReplicas": 3}}}));
    ground
        .stage
        .namespace
        .api::<WorkerPool>()
        .patch("w", &PatchParams::default(), &patch)
        .await?;
    ground.stage.await_replicas("w", 3, LIMIT).await?;
    wait_until("the log to show a write of /scale", LIMIT, || async {
        let writes = ground.stage.writes_since(since, &[])?;
        Ok(writes.iter().any(|entry| entry.subresource == "scale"))
    })
    .await?;
    ground.expect_done(&ids)
}
