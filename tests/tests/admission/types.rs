//! The policies fit the types of what they judge, as far as Kubernetes compares them: expressions of validations and of
//! messages, not of variables, and not of a policy for any version.

use poolwright_tests::*;
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Names of our policies that Kubernetes has compared with the types, and what it found.
fn checked(list: &Value) -> Vec<(&str, &Value)> {
    let items = list["items"].as_array().into_iter().flatten();
    let ours = items.filter_map(|one| Some((one["metadata"]["name"].as_str()?, one)));
    ours.filter(|(name, one)| {
        name.ends_with(".poolwright.dev")
            && one["status"]["observedGeneration"] == one["metadata"]["generation"]
    })
    .map(|(name, one)| (name, &one["status"]["typeChecking"]["expressionWarnings"]))
    .collect()
}

#[tokio::test]
async fn no_expression_names_a_field_that_is_not_there() -> Result<()> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    let kubectl = plane.kubectl()?;
    let install = chart::repository("deploy/install");
    let args = ["apply", "--server-side", "--force-conflicts", "-k"];
    kubectl
        .run([&args[..], &[install.to_str().unwrap()]].concat())
        .await?;
    wait_until("eight policies to be checked", LIMIT, || async {
        let text = kubectl
            .run(["get", "validatingadmissionpolicies", "-o", "json"])
            .await?;
        let list: Value = serde_json::from_str(&text)?;
        for policy in list["items"].as_array().into_iter().flatten() {
            let name = policy["metadata"]["name"].as_str().unwrap_or_default();
            // Advice, and a kindness, must not keep anybody from working; what guards must.
            let open = ["advice", "default-pool."]
                .iter()
                .any(|one| name.starts_with(one));
            let closes = policy["spec"]["failurePolicy"] == "Fail";
            assert!(!name.ends_with(".poolwright.dev") || closes != open, "{name}");
        }
        let checked = checked(&list);
        for (name, warnings) in &checked {
            assert!(warnings.is_null(), "{name}: {warnings}");
        }
        Ok(checked.len() == 8)
    })
    .await
}
