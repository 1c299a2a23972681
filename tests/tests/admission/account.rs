//! What the operator's own account may do to pods, beyond what its roles can say.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const UNLABELLED: &str = "the operator changes no pod without the label poolwright.dev/worker-pool";
const ELSE: &str =
    "of a pod the operator changes nothing but the annotation controller.kubernetes.io/pod-deletion-cost";

/// The pods of a new namespace, as the installed account sees them and as the administrator does. What the account tries
/// it has a right to: only the policy keeps it from that.
async fn installed() -> Result<(Api<Pod>, Api<Pod>)> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    let install = chart::repository("deploy/install");
    let kubectl = plane.kubectl()?;
    let args = ["apply", "--server-side", "--force-conflicts", "-k"];
    kubectl
        .run([&args[..], &[install.to_str().unwrap()]].concat())
        .await?;
    let token = ["create", "token", "poolwright", "--namespace", "poolwright"];
    let token = kubectl.run(token).await?;
    let namespace = TestNamespace::create(plane.client().await?, "account").await?;
    let operator = plane.client_with_token(token.trim()).await?;
    Ok((Api::namespaced(operator, &namespace.name), namespace.api()))
}

/// A pod that no node takes, so that nobody else writes to it.
async fn make(pods: &Api<Pod>, name: &str, labels: Value) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels, "annotations": {"kept": "as it is"}},
        "spec": {
            "schedulerName": "none",
            "containers": [{"name": "worker", "image": FAKE_IMAGE}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    Ok(())
}

async fn patch(pods: &Api<Pod>, name: &str, patch: &Value, dry: bool) -> kube::Result<Pod> {
    let params = PatchParams {
        dry_run: dry,
        ..PatchParams::default()
    };
    pods.patch(name, &params, &Patch::Strategic(patch)).await
}

#[tokio::test]
async fn the_operator_changes_one_annotation_of_its_own_pods_and_nothing_else() -> Result<()> {
    let (operator, admin) = installed().await?;
    let labels = json!({"poolwright.dev/worker-pool": "w", "app": "shop"});
    make(&admin, "w", labels).await?;
    make(&admin, "other", json!({"app": "shop"})).await?;
    make(&admin, "bare", json!(null)).await?;
    let mark = |value: Value| json!({"metadata": {"annotations": {COST: value}}});
    wait_until("the policy to be obeyed", LIMIT, || async {
        let tried = patch(&operator, "bare", &mark(json!("1")), true).await;
        Ok(tried.is_err_and(|error| error.to_string().contains(UNLABELLED)))
    })
    .await?;

    for value in [json!("-5"), json!("7"), json!(null)] {
        patch(&operator, "w", &mark(value), false).await?;
    }
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]);
    let image = json!({"containers": [{"name": "worker", "image": "other:1"}]});
    let cases = [
        ("other", mark(json!("1")), UNLABELLED),
        (
            "other",
            json!({"metadata": {"labels": {"poolwright.dev/worker-pool": "w"}}}),
            UNLABELLED,
        ),
        ("w", json!({"metadata": {"labels": {"app": "bank"}}}), ELSE),
        (
            "w",
            json!({"metadata": {"labels": {"poolwright.dev/worker-pool": null}}}),
            ELSE,
        ),
        ("w", json!({"metadata": {"labels": null}}), ELSE),
        (
            "w",
            json!({"metadata": {"finalizers": ["poolwright.test/slow"]}}),
            ELSE,
        ),
        ("w", json!({"metadata": {"ownerReferences": owner}}), ELSE),
        ("w", json!({"metadata": {"annotations": {"kept": "no"}}}), ELSE),
        ("w", json!({"metadata": {"annotations": {"kept": null}}}), ELSE),
        (
            "w",
            json!({"metadata": {"annotations": {"more": "", COST: "1"}}}),
            ELSE,
        ),
        ("w", json!({"metadata": {"annotations": null}}), ELSE),
        ("w", json!({"spec": image}), ELSE),
        ("w", json!({"spec": {"activeDeadlineSeconds": 1}}), ELSE),
    ];
    for (name, change, words) in cases {
        let refused = patch(&operator, name, &change, false).await;
        let text = refused
            .err()
            .ok_or_else(|| format!("{change} was let through"))?
            .to_string();
        assert!(text.contains(words), "{change}: {text}");
        // It is the operator alone that is kept from it.
        patch(&admin, name, &change, true)
            .await
            .map_err(|error| format!("{change}: {error}"))?;
    }
    Ok(())
}
