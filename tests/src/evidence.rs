//! What a test holds against the operator afterwards: whether anything that runs was touched, and all that it has
//! said anywhere.

use crate::plane::OPERATOR;
use crate::scenario::LIMIT;
use crate::{AuditEntry, Result, Stage, audit_entries, wait_until};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_api::{ConditionType, conditions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything of a WorkerPool that runs, so that two looks can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The spec of each Deployment, as text. Its generation would count annotations too, and so the return of slots.
    pub deployments: BTreeMap<String, String>,
    /// The pods: name, uid, whether it is being deleted, and how often its containers were started again.
    pub pods: BTreeSet<(String, String, bool, i32)>,
}

impl Stage {
    /// What the operator has written in this namespace since then, but for TaskQueues of these names.
    pub fn writes_since(&self, since: Timestamp, rates: &[&str]) -> Result<Vec<AuditEntry>> {
        let excused =
            |entry: &AuditEntry| entry.resource == "taskqueues" && rates.contains(&entry.name.as_str());
        let of_ours = |entry: &AuditEntry| {
            entry.namespace == self.namespace.name
                && entry.user == OPERATOR
                && entry.is_write()
                && entry.at > since
        };
        let all = audit_entries(&self.plane.audit_log())?.into_iter();
        Ok(all.filter(|entry| of_ours(entry) && !excused(entry)).collect())
    }

    /// Waits until the operator has written nothing for `calm`, and fails if it then writes within `long`; since when. What
    /// it writes regularly it writes every half minute at least. TaskQueues of these names may have a rate that falls.
    pub async fn expect_quiet(&self, rates: &[&str], calm: Duration, long: Duration) -> Result<Timestamp> {
        let back = SignedDuration::try_from(calm)?;
        wait_until("writes to end", 4 * calm + LIMIT, || async {
            Ok(self.writes_since(Timestamp::now() - back, rates)?.is_empty())
        })
        .await?;
        let since = Timestamp::now();
        tokio::time::sleep(long).await;
        let writes = self.writes_since(since, rates)?;
        assert!(writes.is_empty(), "written while nothing changes: {writes:#?}");
        Ok(since)
    }

    /// What runs of a WorkerPool.
    pub async fn footprint(&self, pool: &str) -> Result<Footprint> {
        let deployments = self.deployments(pool).await?.into_iter().map(|one| {
            let spec = serde_json::to_string(&one.spec).unwrap_or_default();
            (one.name_any(), spec)
        });
        let pods = self.pods(pool).await?.into_iter().map(|pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.clone());
            let restarts = statuses.iter().flatten().map(|one| one.restart_count).sum();
            let draining = pod.metadata.deletion_timestamp.is_some();
            (pod.name_any(), pod.uid().unwrap_or_default(), draining, restarts)
        });
        Ok(Footprint {
            deployments: deployments.collect(),
            pods: pods.collect(),
        })
    }

    /// Creates a Secret with one key, or gives it this value.
    pub async fn secret(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}}))?;
        let params = PatchParams::apply("test").force();
        self.namespace
            .api::<Secret>()
            .patch(name, &params, &Patch::Apply(&secret))
            .await?;
        Ok(())
    }

    /// Creates a TaskQueue with this spec.
    pub async fn task_queue(&self, name: &str, spec: Value) -> Result<()> {
        let queue = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": name}, "spec": spec}))?;
        self.namespace
            .api::<TaskQueue>()
            .create(&PostParams::default(), &queue)
            .await?;
        Ok(())
    }

    /// Replaces `spec.broker` of a TaskQueue.
    pub async fn set_broker(&self, name: &str, broker: &Value) -> Result<()> {
        let patch = json!([{"op": "replace", "path": "/spec/broker", "value": broker}]);
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        self.namespace
            .api::<TaskQueue>()
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// The condition `Ready` of a TaskQueue: status, reason and message, empty while there is none.
    pub async fn queue_ready(&self, name: &str) -> Result<(String, String, String)> {
        let status = self.namespace.api::<TaskQueue>().get(name).await?.status;
        let all = status.unwrap_or_default().conditions;
        let found = conditions::find(&all, ConditionType::Ready).cloned();
        Ok(found
            .map(|one| (one.status, one.reason, one.message))
            .unwrap_or_default())
    }

    /// Replicas of a WorkerPool's one Deployment and the number of its pods that are not being deleted.
    pub async fn started(&self, pool: &str) -> Result<(i32, usize)> {
        let pods = self.pods(pool).await?;
        let living = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok((self.replicas(pool).await?, living.count()))
    }

    /// All that the operator has said so far: its log, its metrics, its events, and every object that it writes.
    pub async fn everything_said(&self) -> Result<String> {
        let kinds = "events,wp,tq,pools.poolwright.dev,deployments,replicasets,pods";
        let objects = self.kubectl()?.run(["get", kinds, "-o", "yaml"]).await?;
        let metrics = self.operator.metrics().await?;
        Ok(format!("{}\n{objects}\n{metrics}", self.operator.log()))
    }

    /// Fails if one of these words is in anything that the operator has said.
    pub async fn expect_unsaid(&self, secrets: &[&str]) -> Result<()> {
        let said = self.everything_said().await?;
        for text in [
            "poolwright_task_queue_ready",
            "kind: WorkerPool",
            "all watches have synced",
        ] {
            if !said.contains(text) {
                return Err(format!("this look at what was said has not seen {text:?}").into());
            }
        }
        for secret in secrets {
            if let Some(line) = said.lines().find(|line| line.contains(secret)) {
                return Err(format!("{secret:?} was said: {line}").into());
            }
        }
        Ok(())
    }
}
