//! An API server that takes its time for each write.

use kube::api::{ListParams, PostParams};
use poolwright_api::ConditionType;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

/// TaskQueues whose broker nobody reaches.
const QUEUES: usize = 100;
/// What each write takes longer. One after the other, one for each of them would take more than the limit, and there are
/// two of most.
const WRITE: Duration = Duration::from_millis(400);
/// Until all are told.
const LIMIT: Duration = Duration::from_secs(32);

/// What concerns all queues at once, as a broker that is gone, is told of all soon: several are written at a time.
#[tokio::test]
async fn all_queues_are_told_soon_although_each_write_takes_long() -> Result<()> {
    let plane = Stage::shared_plane().await?;
    let dir = tempfile::tempdir()?;
    let front = ApiFront::start_slow(&plane.operator_kubeconfig(), &[], WRITE).await?;
    let kubeconfig = dir.path().join("kubeconfig");
    front.write_kubeconfig(&kubeconfig)?;
    let stage = Stage::on(plane, &kubeconfig, "a-slow", &[]).await?;
    let api = stage.namespace.api::<TaskQueue>();
    for at in 0..QUEUES {
        let queue: TaskQueue = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": format!("q{at}")},
            "spec": {"broker": {"url": "redis://127.0.0.1:1/0"}},
        }))?;
        api.create(&PostParams::default(), &queue).await?;
    }
    wait_until("all to be told", LIMIT, || async {
        let all = api.list(&ListParams::default()).await?;
        let told = all.iter().filter(|queue| {
            let conditions = queue.status.as_ref().map(|status| &status.conditions);
            let ready = conditions.and_then(|all| find(all, ConditionType::Ready));
            ready.is_some_and(|ready| ready.status == "False")
        });
        Ok(told.count() == QUEUES)
    })
    .await
}
