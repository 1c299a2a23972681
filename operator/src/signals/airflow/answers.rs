//! The answers of Airflow's API, and what they say.

use poolwright_core::airflow_pool::{Counts, PoolView};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct VersionAnswer {
    pub(super) version: String,
}

#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: String,
}

#[derive(Deserialize)]
pub(super) struct PoolsAnswer {
    pools: Vec<PoolAnswer>,
    total_entries: usize,
}

/// Fields that older versions lack have their default; what is not a number of slots is none.
#[derive(Deserialize)]
struct PoolAnswer {
    name: String,
    slots: i64,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    include_deferred: bool,
    running_slots: u64,
    queued_slots: u64,
    scheduled_slots: u64,
    #[serde(default)]
    deferred_slots: u64,
}

#[derive(Deserialize)]
pub(super) struct TasksAnswer {
    task_instances: Vec<TaskAnswer>,
    total_entries: usize,
}

#[derive(Deserialize)]
struct TaskAnswer {
    pool: String,
    #[serde(default)]
    operator: Option<String>,
}

/// One page of pools.
pub(super) struct Pools {
    pub(super) pools: Vec<(String, PoolView)>,
    pub(super) total: usize,
}

/// One page of tasks that have run for long: the pools of those that are sensors.
pub(super) struct Sensors {
    pub(super) pools: Vec<String>,
    pub(super) rows: usize,
    pub(super) total: usize,
}

impl From<PoolsAnswer> for Pools {
    fn from(answer: PoolsAnswer) -> Self {
        let pools = answer.pools.into_iter().map(|pool| {
            let view = PoolView {
                slots: pool.slots,
                description: pool.description.unwrap_or_default(),
                include_deferred: pool.include_deferred,
                counts: Counts {
                    running: pool.running_slots,
                    queued: pool.queued_slots,
                    scheduled: pool.scheduled_slots,
                    deferred: pool.deferred_slots,
                },
                ..PoolView::default()
            };
            (pool.name, view)
        });
        Self {
            pools: pools.collect(),
            total: answer.total_entries,
        }
    }
}

impl From<TasksAnswer> for Sensors {
    fn from(answer: TasksAnswer) -> Self {
        let rows = answer.task_instances.len();
        let all = answer.task_instances.into_iter();
        let sensors = all.filter(|task| task.operator.as_deref().is_some_and(is_sensor));
        Self {
            pools: sensors.map(|task| task.pool).collect(),
            rows,
            total: answer.total_entries,
        }
    }
}

/// Sensors are told by the name of their class, which is all that Airflow keeps: `FileSensor`, `DecoratedSensorOperator`.
fn is_sensor(operator: &str) -> bool {
    operator.to_ascii_lowercase().contains("sensor")
}
