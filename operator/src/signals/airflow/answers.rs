//! The answers of Airflow's API, and what they say.

use jiff::Timestamp;
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
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    #[serde(default)]
    map_index: i64,
    pool: String,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    executor: Option<String>,
    #[serde(default)]
    operator: Option<String>,
    #[serde(default)]
    start_date: Option<Timestamp>,
}

/// One page of pools.
pub(super) struct Pools {
    pub(super) pools: Vec<(String, PoolView)>,
    pub(super) total: usize,
}

/// One page of tasks, each with what makes it that one.
pub(super) struct Tasks {
    pub(super) rows: Vec<(String, Task)>,
    pub(super) total: usize,
}

/// A task instance.
pub(super) struct Task {
    pub(super) pool: String,
    pub(super) queue: String,
    pub(super) state: String,
    pub(super) executor: Option<String>,
    pub(super) is_sensor: bool,
    pub(super) start: Option<Timestamp>,
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

impl From<TasksAnswer> for Tasks {
    fn from(answer: TasksAnswer) -> Self {
        let task = |task: TaskAnswer| {
            // A line's end is in none of these names.
            let id = format!(
                "{}\n{}\n{}\n{}",
                task.dag_id, task.dag_run_id, task.task_id, task.map_index
            );
            let found = Task {
                pool: task.pool,
                queue: task.queue.unwrap_or_default(),
                state: task.state.unwrap_or_default(),
                executor: task.executor,
                is_sensor: task.operator.as_deref().is_some_and(is_sensor),
                start: task.start_date,
            };
            (id, found)
        };
        Self {
            rows: answer.task_instances.into_iter().map(task).collect(),
            total: answer.total_entries,
        }
    }
}

/// Sensors are told by the name of their class, which is all that Airflow keeps: `FileSensor`, `DecoratedSensorOperator`.
fn is_sensor(operator: &str) -> bool {
    operator.to_ascii_lowercase().contains("sensor")
}
