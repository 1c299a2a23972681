//! A second autoscaler, of either kind, aimed at either object.

use crate::ground::{Ground, LIMIT};
use kube::ResourceExt as _;
use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const STALLED: &str = "poolwright_worker_pool_stalled";
const HELD: &str = "poolwright_worker_pool_held";

#[tokio::test]
async fn a_second_autoscaler_is_a_conflict_until_it_is_gone() -> Result<()> {
    let mut ground = Ground::new("rival").await?;
    let kubectl = ground.stage.kubectl()?;
    install_scaled_objects(&ground).await?;
    ground.pool("w", json!({"scaling": {"minReplicas": 1}})).await?;
    ground.await_ready("w").await?;
    let name = super::deployment(&ground).await?.name_any();
    let hpa = |kind: &str, api: &str, name: &str| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "rival"},
            "spec": {"scaleTargetRef": {"apiVersion": api, "kind": kind, "name": name}, "maxReplicas": 9}})
    };
    let scaled = |target: Value| {
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "rival"},
            "spec": {"scaleTargetRef": target}})
    };
    let rivals = [
        (
            hpa("Deployment", "apps/v1", &name),
            format!("HorizontalPodAutoscaler \"rival\" scales Deployment \"{name}\""),
        ),
        (
            hpa("WorkerPool", "poolwright.dev/v1alpha1", "w"),
            "HorizontalPodAutoscaler \"rival\" scales WorkerPool \"w\"".into(),
        ),
        (
            scaled(json!({"name": name})),
            format!("ScaledObject \"rival\" scales Deployment \"{name}\""),
        ),
        (
            scaled(json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "name": "w"})),
            "ScaledObject \"rival\" scales WorkerPool \"w\"".into(),
        ),
    ];
    let mut ids = Vec::new();
    for (rival, words) in rivals {
        kubectl.apply(&rival.to_string()).await?;
        let stage = &ground.stage;
        let message = stage
            .await_condition("w", ConditionType::Ready, "False", "Conflict", LIMIT)
            .await?;
        assert!(message.starts_with(&words), "{message}");
        stage
            .await_condition("w", ConditionType::Stalled, "True", "Conflict", LIMIT)
            .await?;
        for series in [STALLED, HELD] {
            stage.await_metric(series, "name=\"w\"", 1.0).await?;
        }
        ids.extend(ground.publish(16, 3.0).await?);
        ground
            .expect_sum("w", 1, Duration::from_secs(3))
            .await
            .map_err(|error| format!("it was scaled in spite of the conflict: {error}"))?;
        kubectl
            .run_with_input(&["delete", "-f", "-"], &rival.to_string())
            .await?;
        wait_until("it to scale again", LIMIT, || async {
            Ok(ground.stage.replicas("w").await? > 1)
        })
        .await?;
        ground.stage.await_ended(ids.len(), LIMIT).await?;
        ground.stage.await_replicas("w", 1, LIMIT).await?;
        ground.await_ready("w").await?;
        for series in [STALLED, HELD] {
            ground.stage.await_metric(series, "name=\"w\"", 0.0).await?;
        }
    }
    ground.expect_done(&ids)
}

/// As much of KEDA's definition as its objects need. It stays: other tests' operators find no object of it.
async fn install_scaled_objects(ground: &Ground) -> Result<()> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {"group": "keda.sh", "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "listKind": "ScaledObjectList", "plural": "scaledobjects", "singular": "scaledobject"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    let kubectl = ground.stage.plane.kubectl()?;
    kubectl
        .run_with_input(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &definition.to_string(),
        )
        .await?;
    kubectl
        .run([
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/scaledobjects.keda.sh",
        ])
        .await?;
    Ok(())
}
