//! What both benchmarks stand on: a plane, a node without processes, Redis, and an operator in its release build.

use crate::operator::{Operator, built};
use crate::plane::User;
use crate::{
    AuditEntry, FAKE_IMAGE, Image, Node, NodeConfig, NodeHandle, Plane, PlaneConfig, Redis, RedisConfig,
    Result, TestNamespace, apply_crds, audit_entries, wait_until,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::PostParams;
use poolwright_api::DEFAULT_POOL;
use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The operator's user in the audit log.
pub const USER: &str = "poolwright-under-test";

/// The parts; dropped in this order.
pub struct Rig {
    /// The operator, while it runs.
    pub operator: Option<Operator>,
    /// The broker.
    pub redis: Redis,
    /// The namespace of all objects.
    pub namespace: TestNamespace,
    /// A client of the benchmark's own.
    pub client: kube::Client,
    node: NodeHandle,
    /// The control plane.
    pub plane: Plane,
    /// `spec.scaling.policy` of the WorkerPools.
    policy: String,
    kubeconfig: PathBuf,
    dir: TempDir,
}

impl Rig {
    /// Starts everything but the operator, for WorkerPools with this policy.
    pub async fn start(policy: &str) -> Result<Self> {
        let token = "token-of-the-operator-under-test".to_owned();
        let user = User {
            name: USER.into(),
            token: token.clone(),
            groups: vec!["system:masters".into()],
        };
        let plane = Plane::start(PlaneConfig {
            users: vec![user],
            ..PlaneConfig::default()
        })
        .await?;
        let dir = tempfile::tempdir()?;
        let mut config = NodeConfig::new("bench", dir.path());
        config.images.insert(FAKE_IMAGE.into(), Image::Fake);
        let node = Node::start(plane.node_client().await?, config).await?;
        apply_crds(&plane).await?;
        let client = plane.client().await?;
        let namespace = TestNamespace::create(client.clone(), "bench").await?;
        let redis = Redis::start(RedisConfig::default()).await?;
        let kubeconfig = dir.path().join("kubeconfig");
        plane.kubeconfig_with_token(&token, &kubeconfig)?;
        // What is measured is not to be what a budget leaves.
        let pool: Pool = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
            "metadata": {"name": DEFAULT_POOL}, "spec": {"slots": -1},
        }))?;
        let pools = namespace.api::<Pool>();
        pools.create(&PostParams::default(), &pool).await?;
        Ok(Self {
            operator: None,
            redis,
            namespace,
            client,
            node,
            plane,
            policy: policy.to_owned(),
            kubeconfig,
            dir,
        })
    }

    /// Ends it in order: a node that outlives its control plane would only complain.
    pub async fn end(self) -> Result<()> {
        drop(self.operator);
        self.node.remove().await
    }

    /// Starts the operator; its flags are the defaults.
    pub async fn operate(&mut self) -> Result<()> {
        let program = built("release");
        let operator = Operator::start_program(
            program,
            &self.kubeconfig,
            &self.namespace.name,
            self.dir.path(),
            &[],
        )
        .await?;
        self.operator = Some(operator);
        Ok(())
    }

    /// A TaskQueue and a WorkerPool of that name whose pods have no process.
    pub fn manifests(&self, name: &str, slots: u32, min: u32, max: u32) -> Result<(TaskQueue, WorkerPool)> {
        let url = self.redis.url(0);
        let queue = json!({"metadata": {"name": name}, "spec": {"broker": {"url": url}}});
        let pool = json!({"metadata": {"name": name}, "spec": {
            "queues": [{"name": name}],
            "celery": {"app": "bench", "concurrency": slots, "prefetchMultiplier": 1, "timeLimitSeconds": 60},
            "worker": {"image": FAKE_IMAGE},
            "scaling": {"policy": self.policy, "minReplicas": min, "maxReplicas": max},
        }});
        let typed = |kind: &str, mut value: Value| {
            value["apiVersion"] = json!("poolwright.dev/v1alpha1");
            value["kind"] = json!(kind);
            value
        };
        Ok((
            serde_json::from_value(typed("TaskQueue", queue))?,
            serde_json::from_value(typed("WorkerPool", pool))?,
        ))
    }

    /// Starts a new operator in the place of the one that was killed, and waits until it has decided for so many
    /// WorkerPools; returns the seconds that took from its start.
    pub async fn start_again(&mut self, pools: usize, limit: Duration) -> Result<f64> {
        let operator = self.operator.as_mut().ok_or("the operator was never started")?;
        let began = Instant::now();
        operator.start_within(limit).await?;
        wait_until("every WorkerPool to be decided", limit, || async {
            let text = operator.metrics().await?;
            Ok(series(&text, "poolwright_worker_pool_desired_replicas").len() >= pools)
        })
        .await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Resident memory of the operator in MB.
    pub fn resident(&self) -> f64 {
        let bytes = self.operator.as_ref().and_then(Operator::resident_bytes);
        let kilobytes = bytes.and_then(|bytes| u32::try_from(bytes / 1000).ok());
        kilobytes.map_or(f64::NAN, |kilobytes| f64::from(kilobytes) / 1000.0)
    }

    /// Connections to Redis, but for so many of the benchmark's own.
    pub async fn connections(&self, own: usize) -> Result<usize> {
        let mut connection = self.redis.connection(0).await?;
        let list: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut connection)
            .await?;
        // The one that asks is among them.
        Ok(list.lines().count().saturating_sub(own + 1))
    }

    /// Writes of the operator so far, by the server's own log.
    pub fn writes(&self) -> Result<Vec<AuditEntry>> {
        let entries = audit_entries(&self.plane.audit_log())?;
        Ok(entries
            .into_iter()
            .filter(|entry| entry.user == USER && entry.is_write())
            .collect())
    }

    /// Processor seconds that the API server has used.
    pub fn apiserver_seconds(&self) -> Option<f64> {
        let dir = self.plane.dir().to_str()?.to_owned();
        let process = std::fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("kube-apiserver") && line.contains(&dir) && !line.contains("setpriv")
            })?;
        processor_seconds(process.parse().ok()?)
    }
}

/// Values of all series of a metric.
pub fn series(text: &str, metric: &str) -> Vec<f64> {
    let own = text.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with('{'))
    });
    own.filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

/// User and system time of a process, in seconds.
pub fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    // Linux counts in hundredths of a second whatever the kernel's own tick is.
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// A message as Celery writes it on Redis.
pub fn message(queue: &str) -> String {
    let id = format!("{:032x}", fastrand::u128(..));
    let body = STANDARD.encode(r#"[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#);
    json!({
        "body": body, "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"task": "bench.task", "id": id, "eta": null, "lang": "py"},
        "properties": {"body_encoding": "base64", "delivery_tag": id, "delivery_info": {"exchange": "", "routing_key": queue}},
    })
    .to_string()
}

/// A worker's heartbeat as Celery publishes it on Redis.
pub fn heartbeat(node: &str, active: u64, processed: u64) -> String {
    let event = json!({
        "hostname": node, "utcoffset": 0, "pid": 7, "clock": 1, "freq": 2.0, "active": active, "processed": processed,
        "loadavg": [0.1, 0.1, 0.1], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux",
        "timestamp": 0.0, "type": "worker-heartbeat",
    });
    json!({
        "body": STANDARD.encode(event.to_string()), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"hostname": node},
        "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"},
            "priority": 0, "body_encoding": "base64", "delivery_tag": "x"},
    })
    .to_string()
}
