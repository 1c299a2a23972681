//! More questions to a stage: how replicas moved, what runs, what is written in status, metrics and events.

use crate::scenario::LIMIT;
use crate::{Record, Result, Stage, wait_until};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool, WorkerPoolStatus};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

impl Stage {
    /// Σ of a WorkerPool's replicas after each change of that, by the watch.
    pub fn timeline(&self, pool: &str) -> Vec<(Instant, i32)> {
        let mut timeline = self.sums(pool);
        timeline.dedup_by_key(|(_, sum)| *sum);
        timeline
    }

    /// Moments after `since` at which a WorkerPool lost replicas.
    pub fn falls(&self, pool: &str, since: Instant) -> Vec<(Instant, i32, i32)> {
        let timeline = self.timeline(pool);
        let pairs = timeline.windows(2).map(|pair| (pair[1].0, pair[0].1, pair[1].1));
        pairs.filter(|(at, from, to)| *at > since && to < from).collect()
    }

    /// Fails as soon as a WorkerPool has other than so many replicas within this time.
    pub async fn expect_steady(&self, pool: &str, replicas: i32, length: Duration) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < length {
            let now = self.replicas(pool).await?;
            if now != replicas {
                let after = since.elapsed().as_secs_f32();
                let text = self.decision(pool).await?;
                return Err(format!("{pool} went from {replicas} to {now} after {after} s: {text}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The watch may tell of the last write only now.
        let other = |(at, sum): &&(Instant, i32)| *at > since && *sum != replicas;
        match self.timeline(pool).iter().find(other) {
            None => Ok(()),
            Some((_, to)) => Err(format!("{pool} went from {replicas} to {to}").into()),
        }
    }

    /// A WorkerPool's status.
    pub async fn status(&self, pool: &str) -> Result<WorkerPoolStatus> {
        Ok(self.wp(pool).await?.status.unwrap_or_default())
    }

    /// The text of a WorkerPool's last decision.
    pub async fn decision(&self, pool: &str) -> Result<String> {
        let last = self.status(pool).await?.last_decision;
        Ok(last.map(|decision| decision.text).unwrap_or_default())
    }

    /// A TaskQueue as it is now.
    pub async fn tq(&self, name: &str) -> Result<TaskQueue> {
        Ok(self.namespace.api::<TaskQueue>().get(name).await?)
    }

    /// Waits until a TaskQueue's status satisfies a test.
    pub async fn await_tq(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        test: impl Fn(&TaskQueue) -> bool,
    ) -> Result<TaskQueue> {
        let api: Api<TaskQueue> = self.namespace.api();
        let outcome = wait_until(&format!("TaskQueue {name}: {what}"), limit, || async {
            Ok(test(&api.get(name).await?))
        })
        .await;
        let queue = self.tq(name).await?;
        outcome.map_err(|error| format!("{error}; its status is {:?}", queue.status))?;
        Ok(queue)
    }

    /// Waits until so many workers consume a queue, by its status. Tasks that come then are one for each: before that, the
    /// first that is up could take two.
    pub async fn await_consumers(&self, queue: &str, count: i32, limit: Duration) -> Result<()> {
        let consumed =
            |queue: &TaskQueue| queue.status.as_ref().and_then(|status| status.consumers) == Some(count);
        let what = format!("{count} consumers");
        self.await_tq(queue, &what, limit, consumed).await.map(drop)
    }

    /// Waits until a WorkerPool's status satisfies a test.
    pub async fn await_status(
        &self,
        pool: &str,
        what: &str,
        limit: Duration,
        test: impl Fn(&WorkerPoolStatus) -> bool,
    ) -> Result<()> {
        let outcome = wait_until(&format!("{pool}: {what}"), limit, || async {
            Ok(test(&self.status(pool).await?))
        })
        .await;
        if let Err(error) = outcome {
            return Err(format!("{error}; its status is {:?}", self.status(pool).await?).into());
        }
        Ok(())
    }

    /// Tasks that have started and not ended, by the tasks' own account.
    pub fn running(&self) -> Result<BTreeSet<String>> {
        let mut running = BTreeSet::new();
        for event in self.events()? {
            if event.event == "start" {
                running.insert(event.id);
            } else {
                running.remove(&event.id);
            }
        }
        Ok(running)
    }

    /// Waits until so many tasks run at the same time.
    pub async fn await_running(&self, count: usize, limit: Duration) -> Result<()> {
        wait_until(&format!("{count} tasks to run"), limit, || async {
            Ok(self.running()?.len() == count)
        })
        .await
    }

    /// Notes of events in this namespace with this reason.
    pub async fn notes(&self, reason: &str) -> Result<Vec<String>> {
        Ok(self.events_of(reason).await?.map(|(_, note)| note).collect())
    }

    /// Notes of events about the object of this name with this reason.
    pub async fn notes_about(&self, name: &str, reason: &str) -> Result<Vec<String>> {
        let all = self.events_of(reason).await?;
        Ok(all
            .filter(|(about, _)| about == name)
            .map(|(_, note)| note)
            .collect())
    }

    async fn events_of(&self, reason: &str) -> Result<impl Iterator<Item = (String, String)>> {
        let events: Api<Event> = self.namespace.api();
        let all = events.list(&ListParams::default()).await?;
        let reason = reason.to_owned();
        let ours = all
            .items
            .into_iter()
            .filter(move |event| event.reason.as_ref() == Some(&reason));
        Ok(ours.filter_map(|event| Some((event.regarding?.name?, event.note?))))
    }

    /// A number of the operator's metrics: the series of this name whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> Result<Option<f64>> {
        let text = self.operator.metrics().await?;
        let series = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        Ok(series.and_then(|line| line.rsplit(' ').next()?.parse().ok()))
    }

    /// Waits until this series of the operator's metrics has this value.
    pub async fn await_metric(&self, name: &str, label: &str, wanted: f64) -> Result<()> {
        wait_until(&format!("{name} of {label} to be {wanted}"), LIMIT, || async {
            Ok(self.metric(name, label).await? == Some(wanted))
        })
        .await
    }

    /// No pod that Kubernetes ended stood for one that was parked, by the operator's own count.
    pub async fn expect_none_misplaced(&self) -> Result<()> {
        let name = "poolwright_worker_pool_misplaced_pods_total";
        let text = self.operator.metrics().await?;
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        if series.is_empty() || !series.iter().all(|line| line.ends_with(" 0")) {
            return Err(format!("not 0 for each WorkerPool: {series:?}").into());
        }
        Ok(())
    }

    /// SIGKILL to the main process of a pod's worker and all its children, as an out-of-memory killer does.
    /// Returns the process id.
    pub fn kill_worker(&self, pod: &str) -> Result<u32> {
        let records = self.records()?;
        let started = records.iter().rfind(|one| one.pod == pod && one.event == "start");
        let pid = started.ok_or_else(|| format!("pod {pod} has no process"))?.pid;
        crate::process::signal_group(pid, Signal::KILL);
        Ok(pid)
    }

    /// All starts of workers that the record has.
    pub fn starts(&self) -> Result<Vec<Record>> {
        Ok(self
            .records()?
            .into_iter()
            .filter(|one| one.event == "start")
            .collect())
    }

    /// Every SIGTERM to a worker that the node's record has.
    pub fn asked_to_end(&self) -> Result<Vec<Record>> {
        let term = |one: &Record| one.event == "signal" && one.signal.as_deref() == Some("TERM");
        Ok(self.records()?.into_iter().filter(term).collect())
    }

    /// Ends a test whose workers still have work: deletes the pools and kills the pods, so that they do not take
    /// the processors from the tests after it.
    pub async fn strike(self) -> Result<()> {
        let pools: Api<WorkerPool> = self.namespace.api();
        let background = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        pools
            .delete_collection(&background, &ListParams::default())
            .await?;
        let pods: Api<Pod> = self.namespace.api();
        wait_until("all pods to be gone", Duration::from_secs(60), || async {
            let kill = DeleteParams::default().grace_period(0);
            let _ = pods.delete_collection(&kill, &ListParams::default()).await;
            Ok(pods.list(&ListParams::default()).await?.items.is_empty())
        })
        .await
    }
}
