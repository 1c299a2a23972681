//! What it costs to read many pools: ten thousand task instances in two hundred pools, over the API and with SQL.

use crate::LIMIT;
use crate::counts::insert;
use crate::linked::{held, secret};
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;

const POOLS: usize = 200;

/// Looks that the operator has told of: milliseconds, requests, and whether it was the last of a reading.
fn looks(log: &str) -> Vec<(u64, u64, bool)> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let looks = lines
        .map(|line| line["fields"].clone())
        .filter(|fields| fields["message"] == "looked at Airflow");
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let look = |fields: Value| {
        Some((
            number(&fields["milliseconds"])?,
            number(&fields["requests"])?,
            fields["whole"].as_bool()?,
        ))
    };
    looks.filter_map(look).collect()
}

#[tokio::test]
async fn two_hundred_pools_are_read_in_two_requests() -> Result<()> {
    for major in scale::pick(&[3][..], &[2, 3]) {
        let airflow = Airflow::start(*major).await?;
        let known = || async { Ok(airflow.ask(Method::GET, "dags/fan", None).await.is_ok()) };
        wait_until("the DAG to be known", LIMIT, known).await?;
        let _asleep = airflow.freeze_scheduler();
        let mut pools = String::new();
        for at in 1..POOLS {
            write!(pools, "('pool{at}', {at}, false),")?;
        }
        let pools = pools.trim_end_matches(',');
        airflow.sql(&format!(
            "INSERT INTO slot_pool (pool, slots, include_deferred) VALUES {pools}"
        ))?;
        let states = ["running", "queued", "scheduled", "deferred", "success"];
        let rows: Vec<String> = (0..50)
            .map(|at| format!("('{}', 1, 'q{}', NULL)", states[at % 5], at % 7))
            .collect();
        for at in 0..POOLS {
            let name = if at == 0 {
                "default_pool".to_owned()
            } else {
                format!("pool{at}")
            };
            insert(*major, &airflow, &name, &rows.join(","))?;
        }
        for (way, more, most) in [
            ("REST", json!({}), 2000),
            ("SQL", json!({"databaseUrl": airflow.reader_url()?}), 200),
        ] {
            let args = ["--log-level", "poolwright=debug", "--log-format", "json"];
            let stage = Stage::with_args(&format!("figures-{major}-{}", way.to_lowercase()), &args).await?;
            secret(&stage, "airflow", &airflow.api, more).await?;
            let mut manifests = String::new();
            for at in 1..POOLS {
                let name = format!("pool{at}");
                let pool = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": name},
                    "spec": {"slots": at, "airflow": {"secretRef": {"name": "airflow"}}}});
                writeln!(manifests, "---\n{pool}")?;
            }
            stage.kubectl()?.apply(&manifests).await?;
            let all = || async {
                Ok(held(&stage, "pool199")
                    .await
                    .is_ok_and(|status| status.scheduled == 10))
            };
            wait_until("the last Pool to be told of", LIMIT, all).await?;
            let looked = || async { Ok(looks(&stage.operator.log()).len() >= 8) };
            wait_until("eight looks", LIMIT, looked).await?;
            let looks = looks(&stage.operator.log());
            // The first has to find out what is there.
            let later = &looks[1..];
            let requests = later.iter().map(|look| look.1).max();
            let mut times: Vec<u64> = later.iter().map(|look| look.0).collect();
            times.sort_unstable();
            let mebibytes = stage.operator.resident_bytes().unwrap_or(0) >> 20;
            println!(
                "{way} of Airflow {major}: 10,000 task instances in {POOLS} pools; milliseconds of a look {times:?} (target {most}); \
                 at most {requests:?} requests; {mebibytes} MiB resident (a build for tests)"
            );
            assert!(requests <= Some(2), "{looks:?}");
            // A look that takes no more than a session's deadline: a bound for a busy machine, not the target.
            assert!(times[times.len() / 2] <= 2 * most, "{times:?}");
        }
    }
    Ok(())
}
