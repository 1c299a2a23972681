//! What it costs to read many pools: ten thousand task instances in two hundred pools, over the API and with SQL.

use crate::LIMIT;
use crate::counts::insert;
use crate::linked::{held, secret};
use poolwright_tests::*;
use reqwest::Method;
use serde_json::json;
use std::fmt::Write as _;

const POOLS: usize = 200;

/// Looks that the operator has told of: milliseconds, requests, and whether it was the last of a reading.
fn looks(log: &str) -> Vec<(u64, u64, bool)> {
    let look = |line: &str| {
        let (_, said) = line.split_once("looked at Airflow ")?;
        let field = |name: &str| {
            said.split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Some((
            field("milliseconds")?.parse().ok()?,
            field("requests")?.parse().ok()?,
            field("whole")? == "true",
        ))
    };
    log.lines().filter_map(look).collect()
}

/// How long whole readings were asked for, in milliseconds: the pause between the looks of one is not in it.
fn readings(looks: &[(u64, u64, bool)]) -> Vec<u64> {
    let begins = looks.split_inclusive(|look| look.2);
    let whole = begins.filter(|looks| looks.last().is_some_and(|look| look.2));
    let mut times: Vec<u64> = whole.map(|looks| looks.iter().map(|look| look.0).sum()).collect();
    times.sort_unstable();
    times
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
            (
                "SQL",
                json!({"databaseUrl": airflow.reader_url()? + "?sslmode=disable"}),
                200,
            ),
        ] {
            let stage = Stage::new(&format!("figures-{major}-{}", way.to_lowercase())).await?;
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
            // Until the first reading it finds out what is there, and logs in.
            let later = || {
                let looks = looks(&stage.operator.log());
                let first = looks.iter().position(|look| look.2).unwrap_or(looks.len());
                looks.into_iter().skip(first + 1).collect::<Vec<_>>()
            };
            wait_until("ten looks", LIMIT, || async { Ok(later().len() >= 10) }).await?;
            let looks = later();
            let later = &looks;
            let whole = later.iter().filter(|look| look.2).count();
            // Every second look ends a reading; one that comes too late on a busy machine begins anew.
            assert!(
                whole * 10 >= later.len() * 3,
                "pools are not read often enough: {later:?}"
            );
            let requests = later.iter().map(|look| look.1).max();
            let mut times: Vec<u64> = later.iter().map(|look| look.0).collect();
            times.sort_unstable();
            let mebibytes = stage.operator.resident_bytes().ok_or("the operator is gone")? >> 20;
            println!(
                "{way} of Airflow {major}: 10,000 task instances in {POOLS} pools; milliseconds of a look {times:?} (target {most}), \
                 of a whole reading {:?}; \
                 at most {requests:?} requests; {mebibytes} MiB resident (a build for tests)",
                readings(&looks)
            );
            assert!(requests <= Some(2), "{looks:?}");
            assert!(mebibytes < 100, "{mebibytes} MiB");
            // A bound for a busy machine, not the target, of the looks that end a reading.
            let mut ends: Vec<u64> = later.iter().filter(|look| look.2).map(|look| look.0).collect();
            ends.sort_unstable();
            assert!(ends[ends.len() / 2] <= 2 * most, "{ends:?}");
        }
    }
    Ok(())
}
