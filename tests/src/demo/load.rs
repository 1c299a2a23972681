//! What is published, and what the tasks say of themselves.

use crate::brokers::connect;
use crate::{Batch, Celery, Result, TaskEvent};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Key of the list on the broker to which tasks write; see `TAPP_TRACE`.
pub const TRACE: &str = "poolwright-demo-trace";
/// How many tasks the demo publishes.
pub const TASKS: usize = 200;

/// Some equal tasks for one queue.
struct Part {
    /// Seconds after the beginning.
    at: u64,
    pool: &'static str,
    queue: &'static str,
    count: usize,
    seconds: f64,
}

const fn part(at: u64, pool: &'static str, queue: &'static str, count: usize, seconds: f64) -> Part {
    Part {
        at,
        pool,
        queue,
        count,
        seconds,
    }
}

/// First a little, so that each pool starts as many workers as it needs; then more than some may have. The two
/// imports take longer than every delay: they show that a busy worker stays when others go.
const PLAN: [Part; 12] = [
    part(0, "cpu", "cpu_ml_training", 6, 6.0),
    part(0, "io", "io_api_calls", 20, 3.0),
    part(0, "memory", "memory_aggregations", 2, 4.0),
    part(0, "memory", "memory_large_imports", 2, 35.0),
    part(0, "general", "general_background", 10, 4.0),
    part(12, "cpu", "cpu_video_processing", 10, 5.0),
    part(12, "cpu", "cpu_data_analysis", 14, 3.0),
    part(12, "io", "io_file_operations", 40, 6.0),
    part(12, "io", "io_email_sending", 50, 5.0),
    part(12, "memory", "memory_aggregations", 11, 4.0),
    part(12, "general", "general_background", 20, 3.0),
    part(12, "general", "general_scheduled", 15, 2.0),
];

/// The pool that a task belongs to, by its id.
pub fn pool_of(id: &str) -> &str {
    id.split('-').next().unwrap_or_default()
}

/// Tasks by pool.
pub fn planned() -> BTreeMap<&'static str, usize> {
    let mut planned = BTreeMap::new();
    for part in &PLAN {
        *planned.entry(part.pool).or_insert(0) += part.count;
    }
    planned
}

/// The publishing of the plan.
pub struct Load {
    /// When the first task was published.
    pub began: Instant,
    publishing: JoinHandle<Result<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.publishing.abort();
    }
}

impl Load {
    /// Begins to publish.
    pub async fn begin(celery: &Celery, broker: &str) -> Result<Self> {
        let mut publisher = celery.publisher(broker, &[]).await?;
        let began = Instant::now();
        let publishing = tokio::spawn(async move {
            for (index, part) in PLAN.iter().enumerate() {
                tokio::time::sleep_until((began + Duration::from_secs(part.at)).into()).await;
                let mut batch = Batch::sleep(part.queue, part.count, part.seconds);
                batch.prefix = Some(format!("{}-{index}", part.pool));
                publisher.publish(&batch).await?;
            }
            Ok(())
        });
        Ok(Self { began, publishing })
    }

    /// Everything is published, or publishing has failed.
    pub fn is_published(&self) -> bool {
        self.publishing.is_finished()
    }

    /// Fails if the plan is not through, or with what kept it from being published.
    pub async fn check(&mut self) -> Result<()> {
        if !self.is_published() {
            return Err("the tasks could not all be published in time".into());
        }
        (&mut self.publishing).await?
    }
}

/// What the tasks wrote so far.
pub struct Trace {
    connection: MultiplexedConnection,
    events: Vec<TaskEvent>,
    ended: BTreeSet<String>,
}

impl Trace {
    /// Reads from this broker.
    pub async fn open(broker: &str) -> Result<Self> {
        let connection = connect(broker).await?;
        Ok(Self {
            connection,
            events: Vec::new(),
            ended: BTreeSet::new(),
        })
    }

    /// Removes what an earlier demo left on the broker.
    pub async fn clear(broker: &str) -> Result<()> {
        let mut trace = Self::open(broker).await?;
        Ok(trace.connection.del(TRACE).await?)
    }

    /// Reads what is new.
    pub async fn read(&mut self) -> Result<()> {
        let first = isize::try_from(self.events.len())?;
        let lines: Vec<String> = self.connection.lrange(TRACE, first, -1).await?;
        for line in lines {
            let event: TaskEvent = serde_json::from_str(&line)?;
            if event.event == "end" {
                self.ended.insert(event.id.clone());
            }
            self.events.push(event);
        }
        Ok(())
    }

    /// Different tasks that have ended.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Different tasks of a pool that have ended.
    pub fn completed(&self, pool: &str) -> usize {
        self.ended.iter().filter(|id| pool_of(id) == pool).count()
    }

    /// Runs of a pool's tasks that began and never ended.
    pub fn cut_short(&self, pool: &str) -> usize {
        let ours = || self.events.iter().filter(|event| pool_of(&event.id) == pool);
        let begun = ours().filter(|event| event.event == "start").count();
        begun.saturating_sub(ours().filter(|event| event.event != "start").count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_has_all_tasks_and_covers_the_fleet() {
        assert_eq!(planned().values().sum::<usize>(), TASKS);
        assert_eq!(
            planned().into_keys().collect::<BTreeSet<_>>(),
            super::super::POOLS.into()
        );
        let queues: BTreeSet<&str> = PLAN.iter().map(|part| part.queue).collect();
        assert_eq!(queues.len(), 10);
        assert!(PLAN.is_sorted_by_key(|part| part.at));
    }
}
