//! Only who may create pods decides what workers run.

use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Somebody who has the editor's rights to WorkerPools, and none to pods.
const JANE: &str = "--as=jane";

struct Place {
    namespace: TestNamespace,
    kubectl: Kubectl,
}

impl Place {
    async fn new() -> Result<Self> {
        let (namespace, kubectl) = super::namespace("authors").await?;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "editor"},
            "rules": [{
                "apiGroups": ["poolwright.dev"],
                "resources": ["workerpools", "workerpools/scale", "workerpools/status"],
                "verbs": ["get", "list", "create", "update", "patch", "delete"],
            }],
        });
        kubectl.apply(&role.to_string()).await?;
        kubectl
            .run(["create", "rolebinding", "editor", "--role=editor", "--user=jane"])
            .await?;
        Ok(Self { namespace, kubectl })
    }

    async fn create(&self, name: &str, who: &[&str]) -> Result<String> {
        let pool = json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name},
            "spec": {
                "class": "General",
                "queues": [{"name": "q"}],
                "celery": {"app": "app"},
                "worker": {"image": FAKE_IMAGE},
            },
        });
        let args = [&["create", "-f", "-"][..], who].concat();
        self.kubectl.run_with_input(&args, &pool.to_string()).await
    }

    async fn patch(&self, patch: &Value, more: &[&str]) -> Result<String> {
        let patch = patch.to_string();
        let args = ["patch", "workerpool", "w", JANE, "--type=merge", "-p", &patch];
        self.kubectl.run([&args[..], more].concat()).await
    }

    /// The words of a refusal.
    fn denied(&self, act: &str) -> String {
        format!(
            "\"jane\" may not {act} in namespace \"{}\", because workers are pods, and the right to create pods there is \
             missing: get a role with the verb create on pods, or ask somebody who has one",
            self.namespace.name
        )
    }
}

#[tokio::test]
async fn who_may_not_create_pods_scales_workers_and_does_not_say_what_they_run() -> Result<()> {
    let place = Place::new().await?;
    let denied = place.denied("create a WorkerPool");
    // The policy may be so new that the API server does not obey it yet.
    wait_until("the policy to be obeyed", LIMIT, || async {
        let tried = place.create("w", &[JANE, "--dry-run=server"]).await;
        Ok(tried.is_err_and(|error| error.to_string().contains(&denied)))
    })
    .await?;
    attempts::tried("author: create");
    assert!(place.create("w", &[JANE]).await.is_err());
    attempts::blocked("author: create");
    place.create("w", &[]).await?;

    for (patch, fields) in [
        (json!({"worker": {"image": "other:1"}}), "spec.worker"),
        (
            json!({"worker": {"env": [{"name": "A", "value": "b"}]}}),
            "spec.worker",
        ),
        (json!({"pod": {"serviceAccountName": "other"}}), "spec.pod"),
        (json!({"pod": {}}), "spec.pod"),
        (json!({"celery": {"app": "other"}}), "spec.celery"),
        (
            json!({"class": null, "celery": null, "airflow": {}}),
            "spec.celery, spec.airflow",
        ),
        (
            json!({"celery": {"extraArgs": ["--statedb=/x"]}, "pod": {"labels": {"a": "b"}}, "scaling": {"maxReplicas": 3}}),
            "spec.pod, spec.celery",
        ),
    ] {
        let what = format!("author: {patch}");
        attempts::tried(&what);
        let refused = place.patch(&json!({"spec": patch}), &[]).await;
        let text = refused
            .err()
            .ok_or_else(|| format!("{patch} was let through"))?
            .to_string();
        let words = place.denied(&format!("change {fields}"));
        assert!(text.contains(&words), "{patch}: {text}");
        assert!(text.contains("spec.scaling, spec.replicas"), "{patch}: {text}");
        attempts::blocked(&what);
    }

    // What is not of pods, and what others than authors write.
    for patch in [
        json!({"spec": {"scaling": {"minReplicas": 1, "maxReplicas": 3}}}),
        json!({"spec": {"class": "Memory", "drain": {"graceSeconds": 30}, "queues": [{"name": "r"}]}}),
        json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}),
        json!({"metadata": {"finalizers": ["poolwright.test/slow"]}}),
        json!({"metadata": {"finalizers": null}}),
        // The same values again are no change.
        json!({"spec": {"celery": {"app": "app"}, "worker": {"image": FAKE_IMAGE}}}),
    ] {
        place
            .patch(&patch, &[])
            .await
            .map_err(|error| format!("{patch}: {error}"))?;
    }
    let status = json!({"status": {"desiredReplicas": 1}});
    place.patch(&status, &["--subresource=status"]).await?;
    place
        .kubectl
        .run(["scale", "workerpool", "w", "--replicas=2", JANE])
        .await?;
    place.kubectl.run(["delete", "workerpool", "w", JANE]).await?;
    Ok(())
}

#[tokio::test]
async fn who_may_create_pods_writes_worker_pools_in_that_namespace_alone() -> Result<()> {
    let (place, other) = (Place::new().await?, Place::new().await?);
    let role = ["create", "role", "pods", "--verb=create", "--resource=pods"];
    let bind = ["create", "rolebinding", "pods", "--role=pods", "--user=jane"];
    place.kubectl.run(role).await?;
    place.kubectl.run(bind).await?;
    wait_until("the right to count", LIMIT, || async {
        Ok(place.create("w", &[JANE, "--dry-run=server"]).await.is_ok())
    })
    .await?;
    place.create("w", &[JANE]).await?;
    for patch in [
        json!({"worker": {"image": "other:1"}}),
        json!({"pod": {"serviceAccountName": "other"}}),
        json!({"celery": {"app": "other"}}),
    ] {
        place.patch(&json!({"spec": patch}), &[]).await?;
    }
    let denied = other.denied("create a WorkerPool");
    wait_until("the policy to be obeyed", LIMIT, || async {
        let tried = other.create("w", &[JANE, "--dry-run=server"]).await;
        Ok(tried.is_err_and(|error| error.to_string().contains(&denied)))
    })
    .await
}
