//! The definitions only go forward, whoever writes them and by whatever verb; and only ours are looked at.

use poolwright_api::{ANNOTATION_CRD_VERSION, CRD_VERSION};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const KINDS: [&str; 3] = ["pools", "taskqueues", "workerpools"];

/// What the API server says to a change of a definition's number. Nothing is written: the definitions are everybody's.
async fn patched(kubectl: &Kubectl, kind: &str, number: &Value) -> Result<String> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION_CRD_VERSION: number}}}).to_string();
    let name = format!("{kind}.poolwright.dev");
    let args = [
        "patch",
        "crd",
        &name,
        "--type=merge",
        "--dry-run=server",
        "-p",
        &patch,
    ];
    kubectl.run(args).await
}

#[tokio::test]
async fn a_definition_is_not_replaced_by_an_older_one() -> Result<()> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    apply_policies(plane).await?;
    let kubectl = plane.kubectl()?;
    wait_until("the policy to be obeyed", LIMIT, || async {
        Ok(patched(&kubectl, "pools", &Value::Null).await.is_err())
    })
    .await?;
    let lower = (CRD_VERSION - 1).to_string();
    for kind in KINDS {
        let older = [
            (json!(lower), format!("the older ones of number {lower}")),
            (json!(null), "older ones, without a number,".to_owned()),
            (json!(""), "older ones, without a number,".to_owned()),
            (json!("9x"), "older ones, without a number,".to_owned()),
            (json!("-9"), "older ones, without a number,".to_owned()),
        ];
        for (number, words) in older {
            let told = patched(&kubectl, kind, &number).await.unwrap_err().to_string();
            let stays = format!("{kind}.poolwright.dev stays as it is");
            for words in [&stays, &words, "--set crds.install=false"] {
                assert!(told.contains(words), "{kind} {number}: {told}");
            }
        }
        for number in [
            json!(CRD_VERSION.to_string()),
            json!((CRD_VERSION + 1).to_string()),
        ] {
            patched(&kubectl, kind, &number).await?;
        }
        // What has nothing to do with the schemas.
        let name = format!("{kind}.poolwright.dev");
        kubectl
            .run(["label", "crd", &name, "touched=yes", "--dry-run=server"])
            .await?;
    }
    Ok(())
}

/// As from before there were numbers, and of somebody else under the same annotation.
#[tokio::test]
async fn a_definition_without_a_number_is_replaced_by_any() -> Result<()> {
    let plane = Plane::start(PlaneConfig::default()).await?;
    let kubectl = plane.kubectl()?;
    let mut text = String::new();
    for (_, mut crd) in poolwright_api::crds() {
        crd.metadata.annotations = None;
        text.push_str(&poolwright_api::to_yaml(&crd)?);
        text.push_str("---\n");
    }
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    kubectl.run_with_input(&apply, &text).await?;
    apply_policies(&plane).await?;
    apply_crds(&plane).await?;
    wait_until("the policy to be obeyed", LIMIT, || async {
        Ok(patched(&kubectl, "pools", &Value::Null).await.is_err())
    })
    .await?;
    kubectl.run_with_input(&apply, &text).await.unwrap_err();
    let foreign = |number: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "pools.example.com", "annotations": {ANNOTATION_CRD_VERSION: number}},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"kind": "Pool", "plural": "pools"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        })
    };
    for number in ["7", "6"] {
        kubectl.apply(&foreign(number).to_string()).await?;
    }
    // Whoever takes a definition away and makes it anew has decided so.
    kubectl.run(["delete", "crd", "pools.poolwright.dev"]).await?;
    let older = text.split("---\n").next().unwrap_or_default();
    kubectl.run_with_input(&apply, older).await.map(|_| ())
}
