//! A stage for one test: a namespace, an operator that works in it alone, workers whose tasks leave a trace, and
//! the questions that every test asks afterwards: what was lost, killed or run twice, and how replicas moved.

use crate::history::Consuming;
use crate::operator::Operator;
use crate::{
    CELERY_IMAGE, History, Kubectl, Plane, Record, Result, Step, TaskEvent, TestNamespace, apply_crds,
    apply_policies, apply_rights, read_records, read_task_events, wait_until,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use poolwright_api::{ConditionType, conditions};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A test's own part of the cluster.
pub struct Stage {
    /// The control plane.
    pub plane: &'static Plane,
    /// The namespace.
    pub namespace: TestNamespace,
    /// The operator that works in it.
    pub operator: Operator,
    /// Files of this test.
    pub dir: TempDir,
    history: History,
}

/// Lays `patch` over `base`, object by object; `null` removes.
pub fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, patch) => *base = patch,
    }
}

impl Stage {
    /// A new namespace with an operator.
    pub async fn new(prefix: &str) -> Result<Self> {
        Self::with_args(prefix, &[]).await
    }

    /// The same with more flags for `poolwright run`.
    pub async fn with_args(prefix: &str, args: &[&str]) -> Result<Self> {
        let plane = Self::shared_plane().await?;
        Self::on(plane, &plane.operator_kubeconfig(), prefix, args).await
    }

    /// The shared plane, with the definitions, the policies and the rights.
    pub async fn shared_plane() -> Result<&'static Plane> {
        static APPLIED: OnceCell<()> = OnceCell::const_new();
        let plane = Plane::shared().await?;
        let apply = || async {
            apply_crds(plane).await?;
            apply_policies(plane).await?;
            apply_rights(plane).await
        };
        APPLIED.get_or_try_init(apply).await?;
        Ok(plane)
    }

    /// The same on a plane that has the definitions and the rights, with an operator that reaches it in its own way.
    pub async fn on(plane: &'static Plane, kubeconfig: &Path, prefix: &str, args: &[&str]) -> Result<Self> {
        let namespace = TestNamespace::create(plane.client().await?, prefix).await?;
        let dir = tempfile::tempdir()?;
        namespace.let_read_secrets(plane).await?;
        let operator = Operator::start(kubeconfig, &namespace.name, dir.path(), args).await?;
        let history = History::follow(namespace.api(), namespace.api());
        Ok(Self {
            plane,
            namespace,
            operator,
            dir,
            history,
        })
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Ok(self.plane.kubectl()?.namespaced(&self.namespace.name))
    }

    /// The file to which tasks write.
    pub fn task_log(&self) -> PathBuf {
        self.dir.path().join("tasks.jsonl")
    }

    /// Creates a TaskQueue named like its queue. `broker` is `spec.broker`.
    pub async fn queue(&self, name: &str, broker: Value) -> Result<()> {
        let queue = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": {"name": name}, "spec": {"broker": broker},
        }))?;
        self.namespace
            .api::<TaskQueue>()
            .create(&PostParams::default(), &queue)
            .await?;
        Ok(())
    }

    /// The manifest of a WorkerPool on `queues` whose workers use `broker`: 2 slots, prefetch 1, a window of 5 s,
    /// with `patch` laid over its spec.
    pub fn pool_manifest(&self, name: &str, queues: &[&str], broker: &str, patch: Value) -> Value {
        let queues: Vec<Value> = queues.iter().map(|queue| json!({"name": queue})).collect();
        let mut spec = json!({
            "queues": queues,
            "celery": {"app": "tapp", "concurrency": 2, "prefetchMultiplier": 1, "timeLimitSeconds": 300},
            "worker": {"image": CELERY_IMAGE, "env": [
                {"name": "CELERY_BROKER_URL", "value": broker},
                {"name": "TAPP_LOG", "value": self.task_log()},
            ]},
            "scaling": {"policy": "Backlog", "maxReplicas": 10, "scaleDownDelaySeconds": 5},
        });
        merge(&mut spec, patch);
        json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": {"name": name, "namespace": self.namespace.name}, "spec": spec,
        })
    }

    /// Creates that WorkerPool.
    pub async fn pool(&self, name: &str, queues: &[&str], broker: &str, patch: Value) -> Result<()> {
        let pool = serde_json::from_value(self.pool_manifest(name, queues, broker, patch))?;
        self.namespace
            .api::<WorkerPool>()
            .create(&PostParams::default(), &pool)
            .await?;
        Ok(())
    }

    /// Merge-patches a WorkerPool.
    pub async fn patch_pool(&self, name: &str, patch: Value) -> Result<()> {
        let patch = kube::api::Patch::Merge(patch);
        self.namespace
            .api::<WorkerPool>()
            .patch(name, &kube::api::PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// A WorkerPool as it is now.
    pub async fn wp(&self, name: &str) -> Result<WorkerPool> {
        Ok(self.namespace.api::<WorkerPool>().get(name).await?)
    }

    /// A condition of a WorkerPool: status, reason and message, empty while there is none.
    pub async fn condition(&self, pool: &str, type_: ConditionType) -> Result<(String, String, String)> {
        let status = self.wp(pool).await?.status.unwrap_or_default();
        let found = conditions::find(&status.conditions, type_).cloned();
        Ok(found
            .map(|one| (one.status, one.reason, one.message))
            .unwrap_or_default())
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub async fn await_condition(
        &self,
        pool: &str,
        type_: ConditionType,
        status: &str,
        reason: &str,
        limit: Duration,
    ) -> Result<String> {
        let seen = Mutex::new(Default::default());
        let what = format!("{type_} of {pool} to be {status}/{reason}");
        let outcome = wait_until(&what, limit, || async {
            let now = self.condition(pool, type_).await?;
            let hit = now.0 == status && now.1 == reason;
            *seen.lock().unwrap() = now;
            Ok(hit)
        })
        .await;
        let (found_status, found_reason, message) = seen.into_inner().unwrap();
        outcome.map_err(|error| format!("{error}; it is {found_status}/{found_reason}: {message}"))?;
        Ok(message)
    }

    /// Deployments of a WorkerPool.
    pub async fn deployments(&self, pool: &str) -> Result<Vec<Deployment>> {
        let ours = ListParams::default().labels(&format!("poolwright.dev/worker-pool={pool}"));
        Ok(self.namespace.api::<Deployment>().list(&ours).await?.items)
    }

    /// Pods of a WorkerPool, draining ones included.
    pub async fn pods(&self, pool: &str) -> Result<Vec<Pod>> {
        let ours = ListParams::default().labels(&format!("poolwright.dev/worker-pool={pool}"));
        Ok(self.namespace.api::<Pod>().list(&ours).await?.items)
    }

    /// Σ of `spec.replicas` over a WorkerPool's Deployments.
    pub async fn replicas(&self, pool: &str) -> Result<i32> {
        let deployments = self.deployments(pool).await?;
        Ok(deployments
            .iter()
            .filter_map(|one| one.spec.as_ref()?.replicas)
            .sum())
    }

    /// Waits until a WorkerPool has so many replicas.
    pub async fn await_replicas(&self, pool: &str, wanted: i32, limit: Duration) -> Result<()> {
        let what = format!("{pool} to have {wanted} replicas");
        let outcome = wait_until(&what, limit, || async {
            Ok(self.replicas(pool).await? == wanted)
        })
        .await;
        if let Err(error) = outcome {
            let status = self.wp(pool).await?.status.unwrap_or_default();
            let text = status
                .last_decision
                .map(|decision| decision.text)
                .unwrap_or_default();
            return Err(format!("{error}; it has {}: {text}", self.replicas(pool).await?).into());
        }
        Ok(())
    }

    /// Waits until a WorkerPool has no pods at all, draining ones included.
    pub async fn await_no_pods(&self, pool: &str, limit: Duration) -> Result<()> {
        wait_until(&format!("{pool} to have no pods"), limit, || async {
            Ok(self.pods(pool).await?.is_empty())
        })
        .await
    }

    /// Every change of `spec.replicas` that the watch has told since the stage was set.
    pub fn history(&self) -> Vec<Step> {
        self.history.steps()
    }

    /// Most pods of a WorkerPool that took work at a time since then: neither parked nor being deleted.
    pub fn most_consuming(&self, pool: &str, since: Instant) -> i32 {
        self.history.most_consuming(pool, since)
    }

    /// How the pods of a WorkerPool that take work changed since then, by the watch.
    pub fn consuming(&self, pool: &str, since: Instant) -> Vec<Consuming> {
        self.history.consuming(pool, since)
    }

    /// Σ of replicas over all Deployments of a WorkerPool after each write of one, by the watch.
    pub fn sums(&self, pool: &str) -> Vec<(Instant, i32)> {
        self.history.sums(pool)
    }

    /// Largest Σ of replicas over all Deployments of a WorkerPool, by the watch.
    pub fn peak(&self, pool: &str) -> i32 {
        self.history.peak(pool)
    }

    /// Changes of direction in a WorkerPool's replicas: up after down or down after up.
    pub fn reversals(&self, pool: &str) -> usize {
        self.history.reversals(pool)
    }

    /// What the tasks wrote.
    pub fn events(&self) -> Result<Vec<TaskEvent>> {
        read_task_events(&self.task_log())
    }

    /// Waits until so many different tasks have ended. Where they do not, those are named that no time would bring to an end.
    pub async fn await_ended(&self, count: usize, limit: Duration) -> Result<()> {
        let waited = wait_until(&format!("{count} tasks to end"), limit, || async {
            let events = self.events()?;
            let ended: BTreeSet<&str> = events
                .iter()
                .filter(|event| event.event == "end")
                .map(|event| event.id.as_str())
                .collect();
            Ok(ended.len() >= count)
        })
        .await;
        if waited.is_err() {
            self.expect_none_lost().await?;
        }
        waited
    }

    /// The node's record of this namespace.
    pub fn records(&self) -> Result<Vec<Record>> {
        let records = read_records(&self.plane.record())?;
        Ok(records
            .into_iter()
            .filter(|record| record.namespace == self.namespace.name)
            .collect())
    }

    /// Fails unless each of these tasks started once and ended once, and no worker was killed.
    pub fn expect_all_done_once(&self, ids: &[String]) -> Result<()> {
        let events = self.events()?;
        let count = |id: &str, kind: &str| {
            events
                .iter()
                .filter(|event| event.id == id && event.event == kind)
                .count()
        };
        for id in ids {
            let (started, ended) = (count(id, "start"), count(id, "end"));
            if (started, ended) != (1, 1) {
                return Err(format!("task {id} started {started} times and ended {ended} times").into());
            }
        }
        self.expect_none_killed()
    }

    /// Fails if the node had to kill a worker.
    pub fn expect_none_killed(&self) -> Result<()> {
        let killed: Vec<Record> = self
            .records()?
            .into_iter()
            .filter(|record| record.killed)
            .collect();
        if killed.is_empty() {
            Ok(())
        } else {
            Err(format!("workers were killed: {killed:?}").into())
        }
    }
}
