//! GPUs: the real scheduler places the workers, and a Pool keeps as many as there are GPUs.

use k8s_openapi::api::core::v1::Taint;
use poolwright_tests::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Mutex;

use super::bank::Bank;
use crate::ground::LIMIT;

const GPUS: u32 = 4;

#[tokio::test]
async fn two_gpu_worker_pools_share_four_gpus_and_run_nowhere_else() -> Result<()> {
    let bank = Bank::new("b-gpu").await?;
    let stage = bank.stage();
    let mut config = NodeConfig::new(&format!("gpu-{}", stage.namespace.name), stage.dir.path());
    config.gpus = GPUS;
    config.record = stage.plane.record();
    config.images = stage.plane.usual_node()?.images;
    config.labels.insert("accelerator".into(), config.name.clone());
    config.taints.push(Taint {
        key: "nvidia.com/gpu".into(),
        value: Some("present".into()),
        effect: "NoSchedule".into(),
        time_added: None,
    });
    let node = Node::start(stage.plane.node_client().await?, config.clone()).await?;
    let shape = json!({
        "worker": {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
        "pod": {
            "nodeSelector": {"accelerator": config.name},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    });
    bank.pool("gpu", json!({"slots": GPUS})).await?;
    let mut ids = Vec::new();
    for name in ["train", "infer", "plain"] {
        ids.extend(bank.wire.publish(&Batch::sleep(name, 8, 4.0)).await?);
        let pool = if name == "plain" { "default-pool" } else { "gpu" };
        bank.queue(name, pool, 1, json!({})).await?;
    }
    bank.workers("train", 4, shape.clone()).await?;
    bank.workers("infer", 4, shape).await?;
    bank.workers("plain", 1, json!({})).await?;
    // The WorkerPool and the node of every pod that was seen.
    let seen = Mutex::new(BTreeSet::new());
    wait_until("all tasks to end", LIMIT, || async {
        for name in ["train", "infer", "plain"] {
            let pods = stage.pods(name).await?.into_iter();
            let nodes = pods.filter_map(|pod| Some((name, pod.spec?.node_name?)));
            seen.lock().unwrap().extend(nodes);
        }
        let events = stage.events()?;
        let ended = events.iter().filter(|event| event.event == "end");
        Ok(ended.count() == ids.len())
    })
    .await?;
    let seen = seen.into_inner().unwrap();
    let right = |(name, at): &(&str, String)| (*name == "plain") != (*at == config.name);
    assert!(seen.iter().all(right) && seen.len() == 3, "{seen:?}");
    // No pod was asked for that had no GPU to go to.
    let refused = stage.notes("FailedScheduling").await?;
    assert!(refused.is_empty(), "{refused:?}");
    for name in ["train", "infer", "plain"] {
        stage.await_no_pods(name, LIMIT).await?;
    }
    assert_eq!(bank.charges.sheet("gpu")?.peak(), u64::from(GPUS));
    bank.expect_well(&ids)?;
    node.remove().await
}
