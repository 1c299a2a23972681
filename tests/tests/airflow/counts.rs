//! What pools hold, as Pools tell it, beside what Airflow itself says of the same rows: read over its API and with SQL.

use crate::LIMIT;
use crate::linked::{SOON, await_link, await_sync, held, pool, secret};
use poolwright_api::v1alpha1::AirflowPoolStatus;
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};

/// Task instances of each state in one pool, by slots: more states than hold any.
const ROWS: &str = "
    ('running', 1, 'wide', NULL), ('running', 2, 'wide', 'CeleryExecutor'),
    ('queued', 3, 'wide', 'airflow.providers.celery.executors.celery_executor.CeleryExecutor'),
    ('queued', 1, 'narrow', NULL), ('queued', 1, 'kubernetes', 'KubernetesExecutor'),
    ('scheduled', 5, 'narrow', NULL), ('scheduled', 2, 'wide', NULL),
    ('deferred', 4, 'wide', NULL), ('up_for_reschedule', 50, 'wide', NULL), ('up_for_retry', 50, 'wide', NULL),
    ('restarting', 50, 'wide', NULL), ('success', 50, 'wide', NULL), (NULL, 50, 'wide', NULL)";

/// Rows of tasks of the DAG `fan`, whose scheduler does not run.
pub fn insert(major: u32, airflow: &Airflow, pool: &str, rows: &str) -> Result<()> {
    let (date, id, value) = if major == 3 {
        ("run_after", "id, ", "gen_random_uuid(), ")
    } else {
        ("execution_date", "", "")
    };
    airflow.sql(&format!(
        "INSERT INTO dag_run (dag_id, run_id, run_type, {date}) VALUES ('fan', 'r', 'manual', '2020-01-01') ON CONFLICT DO NOTHING;
         INSERT INTO task_instance ({id}dag_id, run_id, task_id, map_index, try_number, max_tries, hostname, unixname, executor_config, pool, state, pool_slots, queue, executor,
            operator, start_date)
         SELECT {value}'fan', 'r', '{pool}_' || row_number() OVER (), -1, 1, 0, '', 'airflow', '\\x80057d942e', '{pool}', state, slots, queue, executor, 'BashSensor',
            now() - interval '299 seconds' - slots * interval '1 second'
         FROM (VALUES {rows}) AS rows (state, slots, queue, executor)"
    ))
}

/// The numbers as Airflow's API has them.
fn theirs(answer: &Value) -> Vec<i64> {
    let fields = [
        "slots",
        "running_slots",
        "queued_slots",
        "scheduled_slots",
        "deferred_slots",
        "occupied_slots",
        "open_slots",
    ];
    fields
        .map(|field| answer[field].as_i64().unwrap_or(i64::MIN))
        .into()
}

fn ours(status: &AirflowPoolStatus) -> Vec<i64> {
    let open = status.open.unwrap_or(-1);
    vec![
        status.slots.into(),
        status.running,
        status.queued,
        status.scheduled,
        status.deferred,
        status.occupied,
        open,
    ]
}

#[tokio::test]
async fn the_status_says_of_slots_what_airflow_says() -> Result<()> {
    for major in scale::pick(&[3][..], &[2, 3]) {
        let airflow = Airflow::start(*major).await?;
        let known = || async { Ok(airflow.ask(Method::GET, "dags/fan", None).await.is_ok()) };
        wait_until("the DAG to be known", LIMIT, known).await?;
        // It would do something about such rows.
        let _asleep = airflow.freeze_scheduler();
        let stage = Stage::new(&format!("counts-{major}")).await?;
        secret(&stage, "airflow", &airflow.api, json!({})).await?;
        secret(
            &stage,
            "sql",
            &airflow.api,
            json!({"databaseUrl": airflow.reader_url()?}),
        )
        .await?;
        stage
            .secret("authority", "ca.crt", &airflow.authority.ca_pem()?)
            .await?;
        for (name, slots, include_deferred) in [("plain", 64, false), ("with-deferred", 8, true)] {
            let spec = json!({"slots": slots, "includeDeferred": include_deferred});
            pool(&stage, name, spec.clone()).await?;
            await_sync(&stage, name).await?;
            let mut twin = spec;
            let tls = json!({"caSecretRef": {"name": "authority", "key": "ca.crt"}});
            stage::merge(
                &mut twin,
                json!({"airflow": {"secretRef": {"name": "sql"}, "name": name, "sync": "Mirror", "tls": tls}}),
            );
            pool(&stage, &format!("{name}-sql"), twin).await?;
            insert(*major, &airflow, name, ROWS)?;
        }
        // Of an authority that nobody has named nothing is taken.
        let untrusted = json!({"airflow": {"secretRef": {"name": "sql"}, "name": "plain", "sync": "Mirror"}});
        pool(&stage, "untrusted", untrusted).await?;
        await_link(
            &stage,
            "untrusted",
            "Unknown",
            "AirflowUnreachable",
            "signed by no trusted authority",
        )
        .await?;
        for name in ["plain", "with-deferred"] {
            let answer = airflow.ask(Method::GET, &format!("pools/{name}"), None).await?;
            for name in [name.to_owned(), format!("{name}-sql")] {
                await_sync(&stage, &name).await?;
                let same = || async {
                    let status = held(&stage, &name).await?;
                    if ours(&status) == theirs(&answer) {
                        Ok(true)
                    } else {
                        Err(format!("{status:?}").into())
                    }
                };
                wait_until(&format!("{name} to say {answer}"), SOON, same).await?;
            }
        }
        let status = held(&stage, "plain").await?;
        assert_eq!(ours(&status), [64, 3, 5, 7, 4, 8, 56]);
        assert_eq!(
            ours(&held(&stage, "with-deferred").await?),
            [8, 3, 5, 7, 4, 12, -4]
        );
        poking(&stage).await?;
        for (what, slots) in [
            ("running", 3.0),
            ("queued", 5.0),
            ("scheduled", 7.0),
            ("deferred", 4.0),
            ("open", 56.0),
        ] {
            let metric = format!("poolwright_pool_airflow_{what}_slots");
            stage.await_metric(&metric, "name=\"plain\"", slots).await?;
        }
        for name in ["plain", "plain-sql"] {
            let queues = held(&stage, name).await?.queues;
            let queues: Vec<_> = queues
                .iter()
                .map(|one| (one.name.as_str(), one.running, one.queued, one.scheduled))
                .collect();
            assert_eq!(
                queues,
                [("narrow", 0, 1, 1), ("wide", 2, 1, 1)],
                "tasks of Celery's workers alone, by {name}"
            );
        }
    }
    Ok(())
}

/// Two sensors run for five minutes by now; the API shows it when it was asked twice.
async fn poking(stage: &Stage) -> Result<()> {
    let found = || async {
        let of = |name| held(stage, name);
        let (api, sql) = (of("plain").await?, of("plain-sql").await?);
        let log = stage.operator.log();
        let why = log.lines().rfind(|line| line.contains("are not looked through"));
        match (api.poking_sensors, sql.poking_sensors) {
            (Some(2), Some(2)) => Ok(true),
            other => Err(format!("{other:?}: {why:?}").into()),
        }
    };
    wait_until(
        "sensors that poke to be found over the API and with SQL",
        LIMIT,
        found,
    )
    .await
}
