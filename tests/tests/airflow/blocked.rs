//! Tiers, pools and queues: what waits behind a full pool starts no worker, no pool is exceeded, and a sensor that pokes is
//! found.

use crate::LIMIT;
use crate::dag::{image_node, workers};
use crate::linked::{await_link, await_sync, held, pool, said, secret};
use poolwright_api::ConditionType::ConfigurationAdvised;
use poolwright_api::v1alpha1::ScalingPolicy;
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pools by name in Kubernetes, in Airflow, and with their slots.
const POOLS: [(&str, &str, i64); 4] = [
    ("tier1-critical", "tier1_critical", 4),
    ("tier2-standard", "tier2_standard", 4),
    ("tier3-batch", "tier3_batch", 1),
    ("waiting", "waiting", 1),
];

#[tokio::test]
async fn what_a_full_pool_blocks_starts_no_worker() -> Result<()> {
    for major in scale::pick(&[3][..], &[2, 3]) {
        run(*major).await?;
    }
    Ok(())
}

async fn run(major: u32) -> Result<()> {
    let airflow = Airflow::start(major).await?;
    let stage = Stage::new(&format!("blocked-{major}")).await?;
    let (node, name) = image_node(&stage, &airflow, major).await?;
    let server = airflow.api.trim_start_matches("http://").parse()?;
    let wire = Proxy::start(server).await?;
    secret(
        &stage,
        "airflow",
        &format!("http://{}", wire.address()),
        json!({}),
    )
    .await?;
    for (name, theirs, slots) in POOLS {
        pool(&stage, name, json!({"slots": slots, "airflow": {"name": theirs}})).await?;
        await_sync(&stage, name).await?;
    }
    for queue in ["wide", "narrow"] {
        workers(
            &stage,
            &airflow,
            major,
            &name,
            queue,
            14,
            json!({"concurrency": 1}),
        )
        .await?;
    }
    // Airflow gives a slot of a pool to the next task as soon as the last one is done, some tenths of a second before the
    // process that ran it is free. By its backlog that is a worker more; a target of waiting knows that the task can wait.
    let policy = json!({"spec": {"scaling": {"policy": null}}});
    stage.patch_pool("narrow", policy).await?;
    assert_eq!(
        stage.wp("narrow").await?.spec.scaling.policy,
        ScalingPolicy::WaitTarget
    );
    let file = stage.dir.path().join("come");
    let run = airflow
        .trigger("blocked", &json!({"seconds": 8, "file": file}))
        .await?;
    let (mut most, begun) = (BTreeMap::new(), Instant::now());
    let done = tokio::select! {
        done = finish(&airflow, &stage, &wire, &run, &file) => done,
        exceeded = watch(&airflow, &mut most) => exceeded,
    };
    done?;
    for queue in ["wide", "narrow"] {
        stage.await_no_pods(queue, LIMIT).await?;
    }
    println!(
        "most slots taken: {most:?}; most workers: wide {}, narrow {}",
        stage.peak("wide"),
        stage.most_consuming("narrow", begun)
    );
    assert_eq!(most.get("tier1_critical"), Some(&4), "the tiers were looked at");
    // Of eleven tasks four and two at a time of both tiers, and the sensor; of six that wait in the other queue one may run.
    // Between two of them a worker may go, and be parked still when the next one starts. By its backlog the wide queue may
    // have one or two more on a busy machine, as said above; were what is blocked counted, it would have twelve.
    assert!(stage.peak("wide") <= 9, "{}", stage.peak("wide"));
    assert_eq!(stage.most_consuming("narrow", begun), 1);
    stage.expect_none_killed()?;
    node.remove().await
}

/// The DAG from its start to its end: what waits behind a full pool is told, the sensor is found, and each task runs once.
async fn finish(airflow: &Airflow, stage: &Stage, wire: &Proxy, run: &str, file: &Path) -> Result<()> {
    let blocked = || async {
        let batch = held(stage, "tier3-batch").await?;
        let narrow = batch.queues.iter().find(|queue| queue.name == "narrow");
        Ok(batch.scheduled >= 3
            && narrow.is_some_and(|queue| queue.scheduled >= 3 && queue.queued + queue.running == 1))
    };
    wait_until("tasks to wait behind the full pool", LIMIT, blocked).await?;
    sensor(airflow, stage).await?;
    silent(airflow, stage, wire, run).await?;
    std::fs::write(file, "")?;
    let ended = || async {
        let answer = airflow.ask(Method::GET, run, None).await?;
        let ended = answer["state"].as_str().unwrap_or_default().to_owned();
        Ok(Some(ended).filter(|ended| ended == "success" || ended == "failed"))
    };
    let end = poll("the DAG to end", 2 * LIMIT, ended).await?;
    let all = airflow.tasks(run).await?;
    let once = |task: &Value| task["state"] == "success" && task["try_number"] == 1;
    assert!(
        end == "success" && all.len() == 18 && all.iter().all(once),
        "{all:?}"
    );
    Ok(())
}

/// While the operator hears nothing of Airflow, what it knew stands, and workers are scaled as before.
async fn silent(airflow: &Airflow, stage: &Stage, wire: &Proxy, run: &str) -> Result<()> {
    let done = || async {
        let all = airflow.tasks(run).await?;
        Ok::<_, Error>(all.iter().filter(|task| task["state"] == "success").count())
    };
    wire.cut();
    await_link(stage, "waiting", "Unknown", "AirflowUnreachable", "").await?;
    let (before, known) = (done().await?, held(stage, "tier3-batch").await?);
    tokio::time::sleep(scale::pick(Duration::from_secs(10), Duration::from_secs(60))).await;
    assert_eq!(held(stage, "tier3-batch").await?, known);
    assert!(stage.replicas("wide").await? >= 1, "the sensor's worker is gone");
    assert!(done().await? > before, "tasks have stopped");
    wire.restore();
    await_sync(stage, "waiting").await
}

/// What Airflow says that its pools hold is within what they have, all the time.
async fn watch(airflow: &Airflow, most: &mut BTreeMap<String, i64>) -> Result<()> {
    loop {
        let answer = airflow.ask(Method::GET, "pools", None).await?;
        for one in answer["pools"].as_array().into_iter().flatten() {
            let name = one["name"].as_str().unwrap_or_default();
            let (slots, occupied) = (one["slots"].as_i64(), one["occupied_slots"].as_i64());
            if occupied > slots {
                return Err(format!("{name} is exceeded: {one}").into());
            }
            let known = most.entry(name.to_owned()).or_default();
            *known = occupied.unwrap_or(0).max(*known);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The sensor holds its slot; ten minutes of that are not waited for.
async fn sensor(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let pokes = || async { Ok(held(stage, "waiting").await?.running == 1) };
    wait_until("the sensor to run", LIMIT, pokes).await?;
    // On a busy machine Airflow may be too slow for it once, and is asked again a minute later.
    let none = || async { Ok(held(stage, "waiting").await?.poking_sensors == Some(0)) };
    wait_until("the sensor not to be one that pokes", LIMIT, none).await?;
    assert_eq!(said(stage, "waiting", ConfigurationAdvised).await?.0, "False");
    airflow.sql(
        "UPDATE task_instance SET start_date = start_date - interval '10 minutes' WHERE task_id = 'poke'",
    )?;
    let found =
        || async {
            let (status, reason, words) = said(stage, "waiting", ConfigurationAdvised).await?;
            Ok(status == "True"
                && reason == "SensorsPoke"
                && words.starts_with("1 sensor of this pool has held"))
        };
    wait_until("the sensor to be found", LIMIT, found).await?;
    assert_eq!(held(stage, "waiting").await?.poking_sensors, Some(1));
    let metric = "poolwright_pool_airflow_poking_sensors";
    stage.await_metric(metric, "name=\"waiting\"", 1.0).await
}
