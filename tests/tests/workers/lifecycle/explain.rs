//! `poolwright explain` as a person runs it, against the real API server.

use crate::ground::{Ground, LIMIT};
use poolwright_tests::operator::built;
use poolwright_tests::*;
use serde_json::json;
use std::process::Output;

/// Runs the command with the test's kubeconfig and nothing else of ours in its environment.
pub async fn explain(ground: &Ground, name: &str) -> Result<Output> {
    let namespace = &ground.stage.namespace.name;
    let output = tokio::process::Command::new(built("debug"))
        .args(["explain", name, "--namespace", namespace])
        .env("KUBECONFIG", ground.stage.plane.kubeconfig())
        .output()
        .await?;
    Ok(output)
}

#[tokio::test]
async fn explain_names_the_pool_the_decision_and_the_next_step() -> Result<()> {
    let mut ground = Ground::new("explain").await?;
    ground
        .pool("w", json!({"scaling": {"minReplicas": 1, "maxReplicas": 1}}))
        .await?;
    ground.await_ready("w").await?;
    let ids = ground.publish(10, 2.0).await?;
    let stage = &ground.stage;
    stage
        .await_status("w", "too few workers allowed", LIMIT, |status| {
            let last = status.last_decision.as_ref();
            last.is_some_and(|decision| decision.reason == "AtMaximum")
        })
        .await?;
    let output = poll("an explanation of one and the same decision", LIMIT, || async {
        let before = stage.decision("w").await?;
        let output = explain(&ground, "wp/w").await?;
        Ok((before == stage.decision("w").await?).then_some((before, output)))
    });
    let (decision, output) = output.await?;
    let (said, wrong) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    assert!(output.status.success(), "{wrong}");
    let pool = format!("WorkerPool {}/w\n", stage.namespace.name);
    assert!(said.starts_with(&pool), "{said}");
    assert!(decision.contains("capped at maxReplicas 1"), "{decision}");
    assert!(said.contains(&decision), "{decision:?} is not in {said}");
    let step = "\nWhat to do\n  - Raise spec.scaling.maxReplicas";
    assert!(said.contains(step), "{said}");

    let absent = explain(&ground, "wp/nobody").await?;
    let words = String::from_utf8(absent.stderr)?;
    assert!(
        !absent.status.success() && words.contains("there is no WorkerPool nobody in namespace"),
        "{words}"
    );
    ground.stage.await_ended(ids.len(), LIMIT).await?;
    ground.expect_done(&ids)
}
