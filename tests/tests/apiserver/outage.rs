//! An API server that dies, and comes back.

use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::{Alone, hasty};

/// For what must happen, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(90);

/// Nothing is decided meanwhile, and what runs does not notice.
#[tokio::test]
async fn an_api_server_that_dies_takes_no_worker_with_it() -> Result<()> {
    let length = Duration::from_secs(scale::pick(20, 60));
    let alone = Alone::new("a-dead", hasty()).await?;
    let stage = &alone.stage;
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 2, "maxReplicas": 4, "scaleDownDelaySeconds": 2},
    });
    alone.broker.pool(stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 2, LIMIT).await?;
    let mut publisher = alone.broker.publisher().await?;
    // Two workers hold a task each for longer than the API server is gone.
    let long = Batch::sleep("q", 2, length.as_secs_f64() + 15.0);
    let mut ids = publisher.publish(&long).await?;
    stage.await_running(2, LIMIT).await?;

    let gone = async {
        ids.extend(publisher.publish(&Batch::sleep("q", 12, 1.0)).await?);
        tokio::time::sleep(length).await;
        let (status, _) = stage.operator.get("/healthz").await?;
        assert_eq!(status, 200, "it is to be started anew, which helps nobody");
        assert_eq!(stage.running()?.len(), 2, "a worker was taken");
        Ok(())
    };
    stage.plane.without_apiserver(gone).await?;
    stage.await_replicas("q", 4, LIMIT).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_replicas("q", 2, LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)?;
    alone.end().await
}
