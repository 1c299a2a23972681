//! One namespace, one operator, one Redis with the queue `q`, one publisher, and questions about revisions.
#![allow(dead_code, reason = "each test binary uses a part")]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use poolwright_api::{ANNOTATION_PROVEN_AT, ConditionType};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// For what must happen, on a machine that is busy.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Where a test of one WorkerPool takes place.
pub struct Ground {
    pub stage: Stage,
    pub redis: Redis,
    pub broker: String,
    pub publisher: Publisher,
}

/// Publishes without an end.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<String>>>,
}

impl Feeder {
    /// Publishes this batch every `pause` until it is told to end.
    pub fn start(mut publisher: Publisher, batch: Batch, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                ids.extend(publisher.publish(&batch).await?);
                tokio::time::sleep(pause).await;
            }
            Ok(ids)
        });
        Self { stop, task }
    }

    /// The ids of all that was published.
    pub async fn end(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?
    }
}

/// A Deployment: its `spec.replicas` and its pods that are not being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub replicas: i32,
    pub pods: BTreeSet<String>,
}

impl Ground {
    pub async fn new(prefix: &str) -> Result<Self> {
        let stage = Stage::new(prefix).await?;
        let redis = Redis::start(RedisConfig::default()).await?;
        let broker = redis.url(0);
        stage.queue("q", json!({"url": broker})).await?;
        let publisher = Celery::locate()?.publisher(&broker, &[]).await?;
        Ok(Self {
            stage,
            redis,
            broker,
            publisher,
        })
    }

    /// A WorkerPool on `q`.
    pub async fn pool(&self, name: &str, patch: Value) -> Result<()> {
        self.stage.pool(name, &["q"], &self.broker, patch).await
    }

    pub async fn publish(&mut self, count: usize, seconds: f64) -> Result<Vec<String>> {
        self.publisher.publish(&Batch::sleep("q", count, seconds)).await
    }

    /// Publishes `count` tasks every `pause` until it is told to end.
    pub async fn feed(&self, count: usize, seconds: f64, pause: Duration) -> Result<Feeder> {
        let publisher = Celery::locate()?.publisher(&self.broker, &[]).await?;
        Ok(Feeder::start(publisher, Batch::sleep("q", count, seconds), pause))
    }

    /// Asks for a new revision of the same pod.
    pub async fn restart(&self, pool: &str, at: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {"poolwright.dev/restarted-at": at}}});
        self.stage.patch_pool(pool, patch).await
    }

    /// Every Deployment of a WorkerPool by its revision.
    pub async fn parts(&self, pool: &str) -> Result<BTreeMap<String, Part>> {
        let revision = |labels: &BTreeMap<String, String>| labels.get("poolwright.dev/revision").cloned();
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        for deployment in self.stage.deployments(pool).await? {
            let name = revision(deployment.labels()).ok_or("a Deployment without a revision")?;
            parts.entry(name).or_default().replicas = deployment
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1);
        }
        for pod in self.living(pool).await? {
            if let Some(part) = revision(pod.labels()).and_then(|name| parts.get_mut(&name)) {
                part.pods.insert(pod.name_any());
            }
        }
        Ok(parts)
    }

    /// Pods that are not being deleted.
    pub async fn living(&self, pool: &str) -> Result<Vec<Pod>> {
        let pods = self.stage.pods(pool).await?;
        Ok(pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// The revision that a WorkerPool's status names, once it is another than `before`.
    pub async fn revision(&self, pool: &str, before: &str) -> Result<String> {
        poll("a new revision", LIMIT, || async {
            let revision = self
                .stage
                .wp(pool)
                .await?
                .status
                .and_then(|status| status.revision);
            Ok(revision.filter(|revision| revision != before))
        })
        .await
    }

    /// The revision that serves, once it is known to work: one that has not been heard yet is replaced at once.
    pub async fn proven_revision(&self, pool: &str) -> Result<String> {
        let revision = self.revision(pool, "").await?;
        wait_until(&format!("{pool}-{revision} to be proven"), LIMIT, || async {
            let deployments = self.stage.deployments(pool).await?;
            let proven = |one: &Deployment| one.annotations().contains_key(ANNOTATION_PROVEN_AT);
            Ok(deployments.iter().any(proven))
        })
        .await?;
        Ok(revision)
    }

    /// Waits until a revision is all that is left, with so many pods.
    pub async fn await_alone(&self, pool: &str, revision: &str, pods: usize) -> Result<()> {
        // In full, what runs on the older one takes minutes.
        let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 600)));
        let outcome = wait_until(&format!("{pool}-{revision} to be alone"), limit, || async {
            let parts = self.parts(pool).await?;
            Ok(parts.len() == 1 && parts.get(revision).is_some_and(|part| part.pods.len() == pods))
        })
        .await;
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{error}; there are {:?}", self.parts(pool).await?).into()),
        }
    }

    pub async fn await_ready(&self, pool: &str) -> Result<()> {
        self.stage
            .await_condition(pool, ConditionType::Ready, "True", "AsDesired", LIMIT)
            .await
            .map(|_| ())
    }

    /// Waits until so many workers have been heard: none idles who could have taken a task.
    pub async fn await_heard(&self, pool: &str, count: usize) -> Result<()> {
        wait_until(&format!("{count} workers of {pool}"), LIMIT, || async {
            let mut connection = brokers::connect(&self.broker).await?;
            let bound: BTreeSet<String> = redis::cmd("SMEMBERS")
                .arg("_kombu.binding.celery.pidbox")
                .query_async(&mut connection)
                .await?;
            let pods = self.living(pool).await?;
            let listens = |pod: &Pod| {
                bound
                    .iter()
                    .any(|one| one.contains(&format!("celery@{}.", pod.name_any())))
            };
            Ok(pods.iter().filter(|pod| listens(pod)).count() == count)
        })
        .await
    }

    /// Waits until so many tasks run at the same time.
    pub async fn await_running(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} tasks to run"), LIMIT, || async {
            Ok(self.running()?.len() == count)
        })
        .await
    }

    /// Tasks that have started and not ended.
    pub fn running(&self) -> Result<BTreeSet<String>> {
        let mut running = BTreeSet::new();
        for event in self.stage.events()? {
            if event.event == "start" {
                running.insert(event.id);
            } else {
                running.remove(&event.id);
            }
        }
        Ok(running)
    }

    /// Calls `check` with each look at the Deployments and the status of `Ready` for so long, several times a second.
    pub async fn watch(
        &self,
        pool: &str,
        length: Duration,
        mut check: impl FnMut(&BTreeMap<String, Part>, &str) -> Result<()>,
    ) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < length {
            let parts = self.parts(pool).await?;
            let (ready, ..) = self.stage.condition(pool, ConditionType::Ready).await?;
            if let Err(error) = check(&parts, &ready) {
                let after = since.elapsed().as_secs_f32();
                return Err(
                    format!("after {after} s: {error}; Ready is {ready:?}, there are {parts:?}").into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Fails as soon as the Deployments of a WorkerPool have other than so many replicas together within this time.
    pub async fn expect_sum(&self, pool: &str, replicas: i32, length: Duration) -> Result<()> {
        self.watch(pool, length, |parts, _| {
            let sum: i32 = parts.values().map(|part| part.replicas).sum();
            if sum == replicas {
                Ok(())
            } else {
                Err(format!("{sum} replicas instead of {replicas}").into())
            }
        })
        .await
    }

    /// Fails unless each of these tasks was done and no worker was killed. A task may have run twice only where the
    /// first worker was told to stop at the time: Celery acknowledges once a child has said that it starts, and a
    /// worker that stops in between gives back what runs.
    pub fn expect_done(&self, ids: &[String]) -> Result<()> {
        self.stage.expect_none_killed()?;
        let (events, records) = (self.stage.events()?, self.stage.records()?);
        let of = |id: &str, kind: &str| -> Vec<&TaskEvent> {
            events
                .iter()
                .filter(|event| event.id == id && event.event == kind)
                .collect()
        };
        for id in ids {
            let (starts, ends) = (of(id, "start"), of(id, "end"));
            let stopped = |start: &&TaskEvent| {
                records.iter().any(|one| {
                    let apart = (one.at.as_duration().as_secs_f64() - start.at).abs();
                    one.pod == start.pod && one.event == "signal" && apart < 5.0
                })
            };
            let again = starts.len().saturating_sub(1);
            if ends.is_empty() || starts.len() != ends.len() || !starts.iter().take(again).all(stopped) {
                return Err(format!("task {id} started {starts:?} and ended {ends:?}").into());
            }
        }
        Ok(())
    }

    /// Fails unless, since `since` and by the watches, the least Σ of replicas and the most pods that took work were as
    /// `holds` says; the error tells how they moved.
    pub fn expect_range(&self, pool: &str, since: Instant, holds: impl Fn(i32, i32) -> bool) -> Result<()> {
        let sums = self.stage.sums(pool);
        // What was there at that moment counts too.
        let first = sums.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        let least = sums[first..].iter().map(|(_, sum)| *sum).min();
        let least = least.unwrap_or(i32::MAX);
        let most = self.stage.most_consuming(pool, since);
        if holds(least, most) {
            return Ok(());
        }
        let after = |at: Instant| at.saturating_duration_since(since).as_secs_f32();
        let mut moves = format!("replicas went from {least} to {most}");
        for (at, sum) in &sums[first..] {
            let _ = write!(moves, "\n{:8.3} s: {sum} replicas", after(*at));
        }
        for one in self.stage.consuming(pool, since) {
            let _ = write!(
                moves,
                "\n{:8.3} s: {} pods, by {}",
                after(one.at),
                one.count,
                one.pod
            );
        }
        Err(moves.into())
    }
}
