//! `spec.airflow`: how Airflow's Celery workers run.

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Autoscale;

/// How workers of Airflow's `CeleryExecutor` run. What runs is the image's Airflow, 2.x or 3.x, with the configuration
/// that `worker` gives it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscale) || self.autoscale.min <= self.autoscale.max")
        .message(Message::Expression("'spec.airflow.autoscale.min must be at most spec.airflow.autoscale.max (%d), is %d'.format([self.autoscale.max, self.autoscale.min])".into())),
    validation = Rule::new("!has(self.autoscale) || !has(self.concurrency)")
        .message("spec.airflow must have at most one of concurrency and autoscale")
)]
pub struct Airflow {
    /// `concurrency` is the number of tasks that one worker executes at a time, 1 to 10,000. Default: the least of 32, 12
    /// for each CPU and 8 for each GiB of memory, of the limits that are written in `worker.resources`; without any, 16.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,

    /// `autoscale` lets the worker itself add and remove processes. Default: off. Scaling counts with `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,

    /// `prefetchMultiplier` is how many tasks a worker fetches for each process, 1 to 1,000. Default: 1. Fetched tasks
    /// wait for that one worker.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_multiplier: Option<i32>,

    /// `longestTaskSeconds` is how long a task may run, in seconds, 1 to 604,800: the greatest `execution_timeout` of the
    /// tasks of these queues. Default: none is known. A worker that is stopped gets so long, and 15 seconds more, to
    /// finish; without it and `drain.graceSeconds` a day.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_task_seconds: Option<i32>,

    /// `taskQueuedTimeoutSeconds` is Airflow's `[scheduler] task_queued_timeout`, in seconds, 1 to 604,800. Default: 600. The
    /// TaskQueues say in `QueuedInTime` when tasks wait longer than half of it for a worker.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_queued_timeout_seconds: Option<i32>,

    /// `extraArgs` are put at the end of the worker's command line, at most 32 of at most 512 characters. Default:
    /// none. Flags that a field of this resource or Poolwright itself sets are refused.
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(a, !a.matches('^(-[sv]*[qcaHD]|--(queues|concurrency|autoscale|celery-hostname|daemon|without-gossip)(=|$))'))")
            .message("spec.airflow.extraArgs must not hold flags that other fields or Poolwright set: -q, -c, -a, -H, -D and their long forms, --without-gossip")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
}

impl Airflow {
    /// How long a task may wait in the broker before Airflow takes it back.
    #[must_use]
    pub fn task_queued_timeout(&self) -> Duration {
        let written = self.task_queued_timeout_seconds.filter(|seconds| *seconds > 0);
        Duration::from_secs(u64::from(written.unwrap_or(600).unsigned_abs()))
    }
}
