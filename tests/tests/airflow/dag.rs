//! Workers of a real Airflow: a DAG brings them up from zero, each task of it runs once, and they go when it is done.

use crate::LIMIT;
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_dag_starts_its_workers_and_they_go_when_it_is_done() -> Result<()> {
    for major in scale::pick(&[3][..], &[2, 3]) {
        dag(*major).await?;
    }
    Ok(())
}

async fn dag(major: u32) -> Result<()> {
    let airflow = Airflow::start(major).await?;
    let stage = Stage::new(&format!("airflow-{major}")).await?;
    let (node, name) = image_node(&stage, &airflow, major).await?;
    let slots = json!({"concurrency": 2});
    let bounds = json!({"autoscale": {"min": 1, "max": 2}, "prefetchMultiplier": 2});
    for (queue, most, shape) in [("wide", 3, slots), ("narrow", 2, bounds)] {
        workers(&stage, &airflow, major, &name, queue, most, shape).await?;
    }
    let run = airflow.trigger("fan", &json!({"seconds": 8})).await?;
    stage.await_replicas("wide", 3, LIMIT).await?;
    let pods = poll("a pod of the other queue", LIMIT, || async {
        Ok(stage.pods("narrow").await?.into_iter().next())
    });
    let pod = pods.await?.spec.unwrap_or_default();
    assert_eq!(pod.termination_grace_period_seconds, Some(60 + 15));
    let written = pod.containers[0].env.iter().flatten();
    let prefetch = written.filter(|one| one.name == "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER");
    let prefetch: Vec<_> = prefetch.map(|one| one.value.as_deref()).collect();
    assert_eq!(prefetch, [Some("2")]);
    let succeeded = || async {
        let answer = airflow.ask(Method::GET, &run, None).await?;
        if answer["state"] == "failed" {
            return Err(format!("the DAG has failed: {:?}", airflow.tasks(&run).await?).into());
        }
        Ok(answer["state"] == "success")
    };
    wait_until("the DAG to succeed", LIMIT, succeeded).await?;
    for queue in ["wide", "narrow"] {
        stage.await_no_pods(queue, LIMIT).await?;
    }
    // Eight tasks and two slots a worker would take four, and three are allowed; two tasks take one.
    assert_eq!((stage.peak("wide"), stage.peak("narrow")), (3, 1));
    let all = airflow.tasks(&run).await?;
    let once = |task: &Value| task["state"] == "success" && task["try_number"] == 1;
    assert!(all.len() == 10 && all.iter().all(once), "{all:?}");
    let status = stage.wp("wide").await?.status.unwrap_or_default();
    assert_eq!(status.concurrency.as_deref(), Some("2: spec.airflow.concurrency"));
    let status = stage.wp("narrow").await?.status.unwrap_or_default();
    assert_eq!(
        status.concurrency.as_deref(),
        Some("2: spec.airflow.autoscale.max")
    );
    stage.expect_none_killed()?;
    node.remove().await
}

/// A node that has the image, and its name, by which pods find it.
pub async fn image_node(stage: &Stage, airflow: &Airflow, major: u32) -> Result<(NodeHandle, String)> {
    let mut config = NodeConfig::new(&stage.namespace.name, stage.dir.path());
    config.record = stage.plane.record();
    let folder = Image::Folder(airflow.folder.clone());
    config.images.insert(airflow::image(major), folder);
    config.labels.insert("image".into(), config.name.clone());
    let node = Node::start(stage.plane.node_client().await?, config.clone()).await?;
    Ok((node, config.name))
}

/// A TaskQueue and the workers of it, on the node of this name.
pub async fn workers(
    stage: &Stage,
    airflow: &Airflow,
    major: u32,
    node: &str,
    queue: &str,
    most: i32,
    mut shape: Value,
) -> Result<()> {
    let broker = json!({"url": airflow.redis.url(0), "redis": {"visibilityTimeoutSeconds": 86_400}});
    stage.queue(queue, broker).await?;
    shape["longestTaskSeconds"] = json!(60);
    shape["extraArgs"] = json!(["--skip-serve-logs"]);
    let patch = json!({
        "celery": null,
        "airflow": shape,
        "worker": {"image": airflow::image(major), "env": airflow.worker_env()},
        "pod": {"nodeSelector": {"image": node}},
        "scaling": {"maxReplicas": most},
    });
    stage.pool(queue, &[queue], "", patch).await
}
