//! What the tests of parking share: a WorkerPool `q` of small workers, one of which is parked.

use kube::ResourceExt;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

/// A stage whose pods are watched, and the broker of its one WorkerPool `q`.
pub struct Yard {
    pub moves: Moves,
    pub stage: Stage,
    pub wire: Wire,
}

impl Yard {
    pub fn new(stage: Stage, wire: Wire) -> Self {
        Self {
            moves: Moves::follow(stage.namespace.api()),
            stage,
            wire,
        }
    }

    /// Two workers of one slot that both consume. `celery` is laid over their settings.
    pub async fn two(&self, celery: Value) -> Result<()> {
        let mut shape = json!({
            "celery": {"concurrency": 1},
            "scaling": {"minReplicas": 2, "maxReplicas": 2, "scaleDownDelaySeconds": 3},
        });
        stage::merge(&mut shape["celery"], celery);
        self.wire.pool(&self.stage, "q", &["q"], shape).await?;
        self.await_consumers(2).await
    }

    /// Two workers with a task each of so many seconds, one of them parked and no longer consuming: its pod, and the
    /// tasks.
    pub async fn park_one_of_two_busy(&self, seconds: f64) -> Result<(Vec<String>, String)> {
        self.two(json!({})).await?;
        let ids = self.wire.publish(&Batch::sleep("q", 2, seconds)).await?;
        self.stage.await_running(2, LIMIT).await?;
        let busy = |status: &poolwright_api::v1alpha1::WorkerPoolStatus| status.busy_slots == Some(2);
        self.stage
            .await_status("q", "two busy slots", LIMIT, busy)
            .await?;
        self.at_most(1).await?;
        let parked = self.await_parked().await?;
        self.await_deaf(&parked).await?;
        assert!(!self.has_ended(&parked)?, "the long tasks ended too early");
        Ok((ids, parked))
    }

    /// Lowers `minReplicas` to 0 and sets `maxReplicas`.
    pub async fn at_most(&self, count: i32) -> Result<()> {
        let patch = json!({"spec": {"scaling": {"minReplicas": 0, "maxReplicas": count}}});
        self.stage.patch_pool("q", patch).await
    }

    /// Sets `minReplicas`.
    pub async fn at_least(&self, count: i32) -> Result<()> {
        let patch = json!({"spec": {"scaling": {"minReplicas": count}}});
        self.stage.patch_pool("q", patch).await
    }

    /// Waits until so many workers say that they consume.
    pub async fn await_consumers(&self, count: i32) -> Result<()> {
        self.stage.await_consumers("q", count, LIMIT).await
    }

    /// Waits for a pod with a mark, and returns its name.
    pub async fn await_parked(&self) -> Result<String> {
        poll("a parked pod", LIMIT, || async {
            let pods = self.stage.pods("q").await?;
            Ok(pods.iter().find(|pod| is_parked(pod)).map(ResourceExt::name_any))
        })
        .await
    }

    /// Waits until only the other worker consumes, and a moment longer, for what was on its way.
    pub async fn await_deaf(&self, pod: &str) -> Result<()> {
        self.await_consumers(1).await?;
        println!("{pod} is parked");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// True if a task has ended on this pod.
    pub fn has_ended(&self, pod: &str) -> Result<bool> {
        let mut events = self.stage.events()?.into_iter();
        Ok(events.any(|event| event.pod == pod && event.event == "end"))
    }

    /// What must hold at the end of each test.
    pub async fn expect_well(&self, ids: &[String]) -> Result<()> {
        self.stage.expect_no_busy_victim()?;
        self.expect_given_back(ids).await
    }

    /// The same where a worker gives back what it has fetched and not begun.
    pub async fn expect_given_back(&self, ids: &[String]) -> Result<()> {
        self.stage.expect_no_running_victim()?;
        self.expect_done(ids).await
    }

    /// All was done once, by workers that were parked before they went.
    pub async fn expect_done(&self, ids: &[String]) -> Result<()> {
        self.stage.expect_none_misplaced().await?;
        self.moves.expect_all_parked_first()?;
        self.stage.expect_all_done_once(ids)
    }
}
