//! Nodes that are drained or lost: Kubernetes replaces their pods at once, which is an overlap that ends.

use k8s_openapi::api::core::v1::{Node as NodeObject, Taint};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use poolwright_api::Reason;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

use super::bank::Bank;
use crate::ground::LIMIT;

/// Starts a node for the pods of this test alone.
async fn node(stage: &Stage, name: &str) -> Result<NodeHandle> {
    let own = &stage.namespace.name;
    let mut config = NodeConfig::new(&format!("{name}-{own}"), &stage.dir.path().join(name));
    config.record = stage.plane.record();
    config.images = stage.plane.usual_node()?.images;
    config.labels.insert(RESERVED.into(), own.clone());
    config.taints.push(Taint {
        key: RESERVED.into(),
        value: Some(own.clone()),
        effect: "NoSchedule".into(),
        time_added: None,
    });
    Node::start(stage.plane.node_client().await?, config).await
}

/// Four workers that fill a Pool, on those nodes.
async fn fill(bank: &Bank) -> Result<()> {
    let own = &bank.stage().namespace.name;
    let placement: Value = json!({
        "nodeSelector": {RESERVED: own},
        "tolerations": [{"key": RESERVED, "value": own, "effect": "NoSchedule"}],
    });
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    let shape = json!({
        "pod": placement, "drain": {"graceSeconds": 30},
        "scaling": {"minReplicas": 4, "maxReplicas": 4},
    });
    bank.workers("w", 4, shape).await?;
    bank.ground.await_heard("w", 4).await
}

/// Names of the pods on a node.
async fn pods_on(bank: &Bank, node: &str) -> Result<Vec<String>> {
    let pods = bank.stage().pods("w").await?.into_iter();
    let there = pods.filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
    Ok(there.map(|pod| pod.name_any()).collect())
}

#[tokio::test]
async fn a_drained_node_is_an_overlap_that_ends_and_loses_no_task() -> Result<()> {
    let bank = Bank::new("b-drain").await?;
    let first = node(bank.stage(), "first").await?;
    fill(&bank).await?;
    let second = node(bank.stage(), "second").await?;
    let ids = bank.wire.publish(&Batch::sleep("w", 2, 12.0)).await?;
    bank.stage().await_running(2, LIMIT).await?;
    let drain = ["drain", first.name(), "--force", "--timeout=60s"];
    let kubectl = bank.stage().kubectl()?;
    let told = kubectl.run(drain);
    let over = bank.await_pool_ready("db", "False", Reason::OverBudget);
    let (told, message) = futures::try_join!(told, over)?;
    println!("{}: {message}", told.lines().last().unwrap_or_default());
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    assert!(pods_on(&bank, first.name()).await?.is_empty());
    wait_until("four pods on the other node", LIMIT, || async {
        Ok(pods_on(&bank, second.name()).await?.len() == 4)
    })
    .await?;
    let patch = json!({"spec": {"scaling": {"minReplicas": 0}}});
    bank.stage().patch_pool("w", patch).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    let sheet = bank.charges.sheet("db")?;
    assert!(sheet.peak() == 4 && sheet.peak_of_all() > 4, "{sheet:?}");
    bank.charges.expect_within()?;
    bank.stage().expect_all_done_once(&ids)?;
    first.remove().await?;
    second.remove().await
}

/// Nobody ends the pods of a dead node. A minute after they should have been gone, their slots are free.
#[tokio::test]
async fn a_lost_node_is_an_overlap_that_ends_although_its_pods_stay() -> Result<()> {
    let mut bank = Bank::new("b-lost").await?;
    let first = node(bank.stage(), "first").await?;
    fill(&bank).await?;
    let second = node(bank.stage(), "second").await?;
    let (kubectl, name) = (bank.stage().kubectl()?, first.name().to_owned());
    let lost = pods_on(&bank, &name).await?;
    assert_eq!(lost.len(), 4);
    first.lose_power();
    // What the node's controller does after some minutes.
    kubectl.run(["cordon", &name]).await?;
    let mut delete = vec!["delete", "pod", "--wait=false", "--grace-period=3"];
    delete.extend(lost.iter().map(String::as_str));
    kubectl.run(&delete).await?;
    let message = bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    assert!(message.contains("slots are taken of 4"), "{message}");
    bank.ground.await_heard("w", 4).await?;
    // All four of them, one after the other.
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    assert_eq!(pods_on(&bank, &name).await?.len(), 4, "they are still there");
    let said = bank.stage().notes_about("w", "LostPods").await?;
    println!("{said:?}");
    assert!(!said.is_empty());
    assert_eq!(bank.stage().replicas("w").await?, 4);
    // For one who does not believe it they are taken until the pods are gone.
    bank.ground.stage.operator.start_with("--hold-lost-slots").await?;
    let message = bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    assert!(message.contains("8 slots are taken of 4"), "{message}");
    tokio::time::sleep(Duration::from_secs(scale::pick(5, 75))).await;
    bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    // Whoever has seen the machine dead takes them away.
    delete.splice(2..4, ["--force", "--grace-period=0"]);
    kubectl.run(&delete).await?;
    let patch = json!({"spec": {"scaling": {"minReplicas": 0}}});
    bank.stage().patch_pool("w", patch).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.await_pool("db", "nothing is held", |status| status.holders.is_empty())
        .await?;
    let sheet = bank.charges.sheet("db")?;
    assert_eq!((sheet.peak(), sheet.peak_of_all()), (4, 8));
    bank.charges.expect_within()?;
    let machines: Api<NodeObject> = Api::all(bank.stage().plane.client().await?);
    machines.delete(&name, &DeleteParams::default()).await?;
    second.remove().await
}
