//! The answers of Airflow's API, and what they say.

use jiff::Timestamp;
use poolwright_core::airflow_pool::{Counts, PoolView};
use serde::Deserialize;

use super::rest::PAGE;

/// Most characters of a name: no column of Airflow's holds more of a pool's, a queue's, a DAG's, a run's or a task's.
pub(super) const NAME_MAX: usize = 256;
/// Characters of a description that are kept: one more than a Pool may have, so that what is longer is still another.
pub(super) const DESCRIPTION_MAX: usize = 1025;
/// Most characters of the name of an executor.
const EXECUTOR_MAX: usize = 1000;

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

/// One page of tasks, each with what makes it that one. No more of them than were asked for.
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
                description: cut(&pool.description.unwrap_or_default(), DESCRIPTION_MAX),
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
                cut(&task.dag_id, NAME_MAX),
                cut(&task.dag_run_id, NAME_MAX),
                cut(&task.task_id, NAME_MAX),
                task.map_index
            );
            let found = Task {
                pool: cut(&task.pool, NAME_MAX),
                queue: cut(&task.queue.unwrap_or_default(), NAME_MAX),
                state: cut(&task.state.unwrap_or_default(), NAME_MAX),
                executor: task.executor.map(|name| cut(&name, EXECUTOR_MAX)),
                is_sensor: task.operator.as_deref().is_some_and(is_sensor),
                start: task.start_date,
            };
            (id, found)
        };
        Self {
            rows: answer.task_instances.into_iter().take(PAGE).map(task).collect(),
            total: answer.total_entries,
        }
    }
}

/// Sensors are told by the name of their class, which is all that Airflow keeps: `FileSensor`, `DecoratedSensorOperator`.
fn is_sensor(operator: &str) -> bool {
    operator.to_ascii_lowercase().contains("sensor")
}

/// Whether this is no name that Airflow can have.
pub(super) fn is_long(name: &str) -> bool {
    name.chars().nth(NAME_MAX).is_some()
}

/// The first so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_description_no_more_is_kept_than_tells_it_from_that_of_a_pool() {
        for (length, kept) in [(1024, 1024), (1025, 1025), (5000, 1025)] {
            let pool = json!({"name": "p", "slots": 1, "description": "ö".repeat(length),
                "running_slots": 0, "queued_slots": 0, "scheduled_slots": 0});
            let answer: PoolsAnswer =
                serde_json::from_value(json!({"pools": [pool], "total_entries": 1})).unwrap();
            let page = Pools::from(answer);
            assert_eq!(page.pools[0].1.description, "ö".repeat(kept));
        }
    }

    #[test]
    fn of_a_page_of_tasks_no_more_is_kept_than_was_asked_for() {
        let long = "ö".repeat(2000);
        let task = json!({"dag_id": long, "dag_run_id": long, "task_id": long, "pool": long, "queue": long,
            "state": long, "executor": long});
        let answer: TasksAnswer =
            serde_json::from_value(json!({"task_instances": vec![task; 150], "total_entries": 150})).unwrap();
        let page = Tasks::from(answer);
        assert_eq!((page.rows.len(), page.total), (PAGE, 150));
        let (id, task) = &page.rows[0];
        assert_eq!(id.chars().count(), 3 * NAME_MAX + "\n\n\n0".len());
        for name in [&task.pool, &task.queue, &task.state] {
            assert_eq!(name.chars().count(), NAME_MAX);
        }
        let executor = task.executor.as_ref().unwrap();
        assert_eq!(executor.chars().count(), EXECUTOR_MAX);
    }
}
