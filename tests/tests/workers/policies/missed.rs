//! A queue that misses its wait target says so, in its status, in events and in metrics, and says when it is over.

use kube::api::{DeleteParams, PostParams};
use poolwright_api::ConditionType;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;

/// The target, and for how long it must be missed, in seconds.
const TARGET: u64 = 3;
const AFTER: u64 = 5;

async fn queue(stage: &Stage, wire: &Wire, name: &str) -> Result<()> {
    let queue = serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": name},
        "spec": {"broker": wire.spec, "waitTargetSeconds": TARGET, "waitTargetMissedAfterSeconds": AFTER},
    }))?;
    let api = stage.namespace.api::<TaskQueue>();
    api.create(&PostParams::default(), &queue).await?;
    Ok(())
}

/// Waits until the condition of this queue has this status; its reason and message.
async fn await_met(stage: &Stage, name: &str, wanted: &str) -> Result<(String, String)> {
    let condition = |queue: &TaskQueue| {
        let status = queue.status.as_ref()?;
        find(&status.conditions, ConditionType::WaitTargetMet).cloned()
    };
    let what = format!("WaitTargetMet is {wanted}");
    let found = stage
        .await_tq(name, &what, LIMIT, |queue| {
            condition(queue).is_some_and(|one| one.status == wanted)
        })
        .await?;
    let found = condition(&found).ok_or("no condition")?;
    Ok((found.reason, found.message))
}

async fn await_missed(stage: &Stage, name: &str, wanted: f64) -> Result<()> {
    let label = format!("name=\"{name}\"");
    let metric = "poolwright_task_queue_wait_target_missed";
    stage.await_metric(metric, &label, wanted).await
}

async fn misses(stage: &Stage, name: &str) -> Result<Option<f64>> {
    let label = format!("name=\"{name}\"");
    let metric = "poolwright_task_queue_wait_target_misses_total";
    stage.metric(metric, &label).await
}

/// Two slots and no more, for twenty times as many tasks; and a queue without any worker.
#[tokio::test]
async fn a_missed_wait_target_is_told_and_so_is_its_end() -> Result<()> {
    let stage = Stage::new("p-missed").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    for name in ["mail", "alone"] {
        queue(&stage, &wire, name).await?;
    }
    let scaling = json!({"minReplicas": 1, "maxReplicas": 1});
    wire.workers(&stage, "w", &["mail"], json!({"scaling": scaling}))
        .await?;
    for name in ["mail", "alone"] {
        let kept = await_met(&stage, name, "True").await?;
        assert_eq!(kept, ("AsDesired".to_owned(), String::new()));
        await_missed(&stage, name, 0.0).await?;
        assert_eq!(misses(&stage, name).await?, Some(0.0));
    }
    let mut publisher = wire.publisher().await?;
    let mut ids = publisher.publish(&Batch::sleep("mail", 40, 2.0)).await?;
    ids.extend(publisher.publish(&Batch::sleep("alone", 1, 0.1)).await?);
    for (name, why) in [
        (
            "mail",
            "; WorkerPool w: AtMaximum, the demand asks for more than maxReplicas 1",
        ),
        ("alone", "; no WorkerPool names it in spec.queues"),
    ] {
        let (reason, message) = await_met(&stage, name, "False").await?;
        println!("{name}: {message}");
        assert_eq!(reason, "WaitTargetMissed");
        assert!(
            message.starts_with("tasks wait longer than spec.waitTargetSeconds 3 since 20"),
            "{message}"
        );
        assert!(
            message.contains("the oldest has waited ") && message.ends_with(why),
            "{message}"
        );
        let nobody = message.contains("nobody takes them");
        assert_eq!(nobody, name == "alone", "{message}");
        await_missed(&stage, name, 1.0).await?;
        assert_eq!(misses(&stage, name).await?, Some(1.0));
    }
    stage.await_ended(40, LIMIT).await?;
    let (reason, message) = await_met(&stage, "mail", "True").await?;
    assert_eq!((reason.as_str(), message.as_str()), ("AsDesired", ""));
    await_missed(&stage, "mail", 0.0).await?;
    // Once a miss, however often it was looked at; and what nobody takes is still missed.
    wait_until("the end to be told", LIMIT, || async {
        Ok(stage.notes_about("mail", "AsDesired").await?.len() == 1)
    })
    .await?;
    for name in ["mail", "alone"] {
        let notes = stage.notes_about(name, "WaitTargetMissed").await?;
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(misses(&stage, name).await?, Some(1.0));
    }
    await_met(&stage, "alone", "False").await?;
    // A worker for it is what was missing.
    wire.workers(&stage, "late", &["alone"], json!({})).await?;
    await_met(&stage, "alone", "True").await?;
    stage.expect_all_done_once(&ids)?;
    let api = stage.namespace.api::<TaskQueue>();
    api.delete("alone", &DeleteParams::default()).await?;
    wait_until("the series to go with the queue", LIMIT, || async {
        Ok(misses(&stage, "alone").await?.is_none())
    })
    .await
}

/// Tasks of Airflow's that no worker takes: long before its scheduler fails them it is said.
#[tokio::test]
async fn tasks_that_airflow_may_take_back_are_told() -> Result<()> {
    let stage = Stage::new("p-queued").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    for name in ["taken", "celery"] {
        queue(&stage, &wire, name).await?;
    }
    let airflow = json!({"longestTaskSeconds": 5, "taskQueuedTimeoutSeconds": 10});
    let worker = json!({"image": "registry.invalid/airflow:1"});
    let spec = json!({"celery": null, "airflow": airflow, "worker": worker, "scaling": {"maxReplicas": 1}});
    stage.pool("w", &["taken"], "", spec).await?;
    wire.workers(&stage, "c", &["celery"], json!({})).await?;
    let said = |queue: &TaskQueue, status: &str| {
        let conditions = queue.status.as_ref().map(|status| status.conditions.clone());
        let found = find(&conditions.unwrap_or_default(), ConditionType::QueuedInTime).cloned();
        found.filter(|one| one.status == status)
    };
    let kept = |queue: &TaskQueue| said(queue, "True").is_some();
    stage
        .await_tq("taken", "QueuedInTime is True", LIMIT, kept)
        .await?;
    wire.publisher()
        .await?
        .publish(&Batch::sleep("taken", 3, 0.1))
        .await?;
    let late = |queue: &TaskQueue| said(queue, "False").is_some();
    let queue = stage
        .await_tq("taken", "QueuedInTime is False", LIMIT, late)
        .await?;
    let said_of_it = said(&queue, "False").ok_or("no condition")?;
    assert_eq!(said_of_it.reason, "QueuedTooLong");
    assert!(
        said_of_it.message.contains("task_queued_timeout (10 s)"),
        "{}",
        said_of_it.message
    );
    // Celery by itself takes nothing back.
    let other = stage.namespace.api::<TaskQueue>().get("celery").await?;
    let types: Vec<String> = other
        .status
        .unwrap_or_default()
        .conditions
        .into_iter()
        .map(|one| one.type_)
        .collect();
    assert!(!types.contains(&"QueuedInTime".to_owned()), "{types:?}");
    Ok(())
}
