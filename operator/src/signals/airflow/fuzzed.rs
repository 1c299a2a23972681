//! The parsers of what Airflow answers, and of where its database is, for the fuzzer. Rows of the database are taken apart
//! by the library.

use jiff::Timestamp;
use poolwright_core::airflow_pool::PoolView;
use poolwright_core::executor::Executors;

use super::answers::{Pools, PoolsAnswer, Tasks, TasksAnswer, TokenAnswer, VersionAnswer};
use super::rest::Version;
use super::tasks::Pass;
use crate::fuzz::Target;

const POOLS: &[u8] = br#"{"pools": [{"name": "default_pool", "slots": 128, "occupied_slots": 3, "running_slots": 2, "queued_slots": 1, "scheduled_slots": 4, "open_slots": 125, "deferred_slots": 0, "description": "Default pool", "include_deferred": false}], "total_entries": 1}"#;
const TASKS: &[u8] = br#"{"task_instances": [{"dag_id": "etl", "dag_run_id": "manual__2026", "task_id": "wait", "map_index": -1, "pool": "default_pool", "queue": "default", "state": "running", "executor": null, "operator": "FileSensor", "start_date": "2026-11-22T09:03:41.494128Z", "try_number": 1}, {"dag_id": "etl", "dag_run_id": "manual__2026", "task_id": "load", "pool": "db", "queue": null, "state": "queued"}], "total_entries": 2}"#;

/// A page of tasks, taken in as the first and the last of its pass.
fn pass(page: Tasks) -> usize {
    let kept = page
        .rows
        .iter()
        .map(|(id, task)| id.len() + task.pool.len() + task.queue.len())
        .sum();
    let mut pass = Pass::new(Executors::read("CeleryExecutor"));
    pass.take(page, Timestamp::UNIX_EPOCH);
    let mut pool = PoolView::default();
    pass.tell("default_pool", &mut pool);
    kept
}

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = vec![
        Target::bytes("airflow: pools", &[POOLS], |body| {
            let read = serde_json::from_slice::<PoolsAnswer>(body).map(Pools::from);
            read.map_or(0, |page| {
                page.pools
                    .iter()
                    .map(|(name, view)| name.len() + view.description.len())
                    .sum()
            })
        })
        .words(&[
            "pools",
            "slots",
            "running_slots",
            "total_entries",
            "description",
            "include_deferred",
        ]),
        Target::bytes("airflow: tasks", &[TASKS], |body| {
            serde_json::from_slice::<TasksAnswer>(body)
                .map(Tasks::from)
                .map_or(0, pass)
        })
        .words(&[
            "task_instances",
            "total_entries",
            "start_date",
            "map_index",
            "operator",
            "Sensor",
            "state",
        ]),
        Target::bytes(
            "airflow: version",
            &[
                br#"{"version": "3.3.2", "git_version": null}"#,
                br#"{"version":"2.11.2"}"#,
            ],
            |body| {
                let read = serde_json::from_slice::<VersionAnswer>(body).ok();
                read.and_then(|answer| Version::read(&answer.version))
                    .map_or(0, |version| version.text.len())
            },
        )
        .words(&["version", "2.", "3."]),
        Target::bytes(
            "airflow: token",
            &[br#"{"access_token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}"#],
            |body| serde_json::from_slice::<TokenAnswer>(body).map_or(0, |answer| answer.access_token.len()),
        )
        .words(&["access_token"]),
    ];
    all.extend(database());
    all
}

#[cfg(not(feature = "airflow-sql"))]
fn database() -> Vec<Target> {
    Vec::new()
}

#[cfg(feature = "airflow-sql")]
fn database() -> Vec<Target> {
    let urls = [
        "postgresql://user:p%40ss@host:5432/airflow?sslmode=verify-full&connect_timeout=3",
        "postgresql+psycopg2://airflow@db/airflow",
        "postgres://u:p?w@[::1]/a?sslmode=disable&options=-c%20x",
    ];
    let target = Target::text("airflow: address of the database", &urls, |text| {
        let Some((plain, _)) = super::sql::plain(text) else {
            return 0;
        };
        plain.len()
            + plain
                .parse::<tokio_postgres::Config>()
                .map_or(0, |config| config.get_hosts().len())
    });
    vec![target.words(&[
        "://",
        "sslmode=",
        "&",
        "?",
        "@",
        "host=",
        "hostaddr=",
        "%",
        "port=",
        "keepalives_idle=",
    ])]
}
