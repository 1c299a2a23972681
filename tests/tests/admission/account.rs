//! What the operator's own account may do to pods and Pools, beyond what its roles can say.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_api::v1alpha1::Pool;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const UNLABELLED: &str = "the operator changes no pod without the label poolwright.dev/worker-pool";
const ELSE: &str =
    "of a pod the operator changes nothing but the annotation controller.kubernetes.io/pod-deletion-cost";

/// Objects of a new namespace, as the installed account sees them and as the administrator does. What the account tries
/// it has a right to: only the policy keeps it from that.
async fn installed<K>() -> Result<(Api<K>, Api<K>)>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
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
async fn the_operator_changes_pools_for_airflow_and_no_others() -> Result<()> {
    const SPEC: &str = "the operator changes slots, description and includeDeferred of a Pool that says";
    const REST: &str =
        "of the metadata of a Pool the operator changes nothing but its finalizer and the annotation";
    let (operator, admin) = installed::<Pool>().await?;
    for (name, sync) in [
        ("plain", None),
        ("apply", Some("Apply")),
        ("mirror", Some("Mirror")),
    ] {
        let airflow = sync.map(|sync| json!({"secretRef": {"name": "a"}, "sync": sync}));
        let pool = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
            "metadata": {"name": name, "labels": {"app": "shop"}, "finalizers": ["poolwright.test/other"]},
            "spec": {"slots": 3, "airflow": airflow},
        }))?;
        admin.create(&PostParams::default(), &pool).await?;
    }
    let write = |pools: &Api<Pool>, name: &'static str, patch: Value| {
        let pools = pools.clone();
        async move {
            pools
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
        }
    };
    let slots = |slots: i32| json!({"spec": {"slots": slots}});
    wait_until("the policy to be obeyed", LIMIT, || async {
        let dry = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let tried = operator.patch("plain", &dry, &Patch::Merge(slots(4))).await;
        Ok(tried.is_err_and(|error| error.to_string().contains(SPEC)))
    })
    .await?;
    let made = json!({"annotations": {"poolwright.dev/airflow-made": "http://a p"},
        "finalizers": ["poolwright.test/other", "poolwright.dev/airflow-pool"]});
    write(&operator, "apply", json!({"metadata": made})).await?;
    let gone = json!({"annotations": {"poolwright.dev/airflow-made": null}, "finalizers": ["poolwright.test/other"]});
    write(&operator, "apply", json!({"metadata": gone})).await?;
    let follow = json!({"slots": 7, "description": "d", "includeDeferred": true});
    write(&operator, "mirror", json!({"spec": follow})).await?;
    for (name, change, words) in [
        ("apply", slots(4), SPEC),
        ("plain", json!({"spec": {"description": "x"}}), SPEC),
        ("mirror", json!({"spec": {"airflow": {"sync": "Apply"}}}), SPEC),
        (
            "mirror",
            json!({"spec": {"guarantees": [{"queue": "q", "slots": 1}]}}),
            SPEC,
        ),
        ("mirror", json!({"metadata": {"finalizers": null}}), REST),
        ("mirror", json!({"metadata": {"labels": {"app": "bank"}}}), REST),
        (
            "mirror",
            json!({"metadata": {"annotations": {"more": "x"}}}),
            REST,
        ),
    ] {
        let what = format!("account: Pool {name}: {change}");
        attempts::tried(&what);
        let refused = write(&operator, name, change.clone()).await.err();
        let text = refused
            .ok_or_else(|| format!("{change} was let through"))?
            .to_string();
        assert!(text.contains(words), "{change}: {text}");
        attempts::blocked(&what);
    }
    // Nobody waits for it.
    for name in ["plain", "apply", "mirror"] {
        write(&admin, name, json!({"metadata": {"finalizers": null}})).await?;
    }
    Ok(())
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
        let what = format!("account: pod {name}: {change}");
        attempts::tried(&what);
        let refused = patch(&operator, name, &change, false).await;
        let text = refused
            .err()
            .ok_or_else(|| format!("{change} was let through"))?
            .to_string();
        assert!(text.contains(words), "{change}: {text}");
        attempts::blocked(&what);
        // It is the operator alone that is kept from it.
        patch(&admin, name, &change, true)
            .await
            .map_err(|error| format!("{change}: {error}"))?;
    }
    Ok(())
}
