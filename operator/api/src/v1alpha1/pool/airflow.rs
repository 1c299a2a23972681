//! `spec.airflow` of a Pool: which of Airflow's pools it stands for, and what that one's status says.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::{SecretRef, TlsOptions};

/// The pool of an Airflow that a Pool stands for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AirflowPool {
    /// `secretRef` names the Secret that says where Airflow is and how to log in. Required. Its keys: `url` of the API
    /// server (3.x) or web server (2.x), such as `http://airflow-api-server:8080`; `username` and `password`, or `token`,
    /// which is sent as it is; and, where what pools hold is to be read with SQL, `databaseUrl`, such as
    /// `postgresql://reader:password@airflow-db:5432/airflow`, which has TLS unless `?sslmode=` says otherwise. With `sync: Apply` that user must be allowed to edit pools
    /// (role Op in Airflow), else to read pools and task instances (Viewer); that of the database needs SELECT on
    /// `slot_pool` and `task_instance`.
    // Address and credentials stand in one object, so that nobody who may write Pools has credentials sent elsewhere.
    pub secret_ref: SecretRef,

    /// `tls` of the operator's own connections to Airflow's API and database. Default: the system's authorities are
    /// trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,

    /// `name` of the pool in Airflow, at most 256 characters. Default: the name of this Pool, with `default_pool` for
    /// `default-pool`.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// `sync` says who follows whom: `Apply` keeps Airflow's pool as this Pool says (`slots`, `description`,
    /// `includeDeferred`), makes it where it is missing, and deletes what it made with this Pool; `Mirror` writes what
    /// Airflow says into this Pool's spec, and never writes to Airflow. Default: Apply.
    #[serde(default)]
    pub sync: AirflowSync,

    /// `executor` is Airflow's `[core] executor`, at most 512 characters. Default: `CeleryExecutor`. Tasks whose executor
    /// is empty run on its first entry; those of other executors than Celery's are no demand for workers.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[!-~][ -~]*$"))]
    #[serde(default = "executor")]
    pub executor: String,
}

/// Who follows whom.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AirflowSync {
    /// Airflow's pool follows the resource.
    #[default]
    Apply,
    /// The resource follows Airflow's pool.
    Mirror,
}

/// What Airflow's pool holds, in Airflow's slots: a task takes `pool_slots` of them, and one process of a worker.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AirflowPoolStatus {
    /// `name` of the pool in Airflow.
    #[schemars(length(max = 256))]
    pub name: String,

    /// `url` of Airflow, without credentials.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// `version` of Airflow.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,

    /// `slots` of the pool as Airflow has them; -1 is no limit.
    #[schemars(range(min = -1))]
    pub slots: i32,

    /// `running` is the number of slots of tasks that run, sensors in poke mode included.
    #[schemars(range(min = 0))]
    pub running: i64,

    /// `queued` is the number of slots of tasks that the scheduler has sent to an executor and that do not run yet.
    #[schemars(range(min = 0))]
    pub queued: i64,

    /// `scheduled` is the number of slots of tasks that could run and wait for the scheduler: for room in this pool, or
    /// below another of Airflow's limits. They hold no slots and are in no queue.
    #[schemars(range(min = 0))]
    pub scheduled: i64,

    /// `deferred` is the number of slots of tasks that wait in the triggerer. They hold slots with `includeDeferred` only.
    #[schemars(range(min = 0))]
    pub deferred: i64,

    /// `occupied` is the number of slots that are taken: `running` and `queued`, and `deferred` with `includeDeferred`.
    #[schemars(range(min = 0))]
    pub occupied: i64,

    /// `open` is the number of slots that are not taken, negative while more are than there are, as in Airflow. Absent
    /// without a limit.
    #[schemars(range(min = -1_000_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<i64>,

    /// `utilizationPercent` is `occupied` in percent of `slots`, rounded down. Absent without a limit and with 0 slots.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<i32>,

    /// `pokingSensors` is the number of sensors of this pool that have held their slot for more than five minutes; over the
    /// API of the first 2,000 tasks that have run for so long. Absent while it is not known, as where this user may not read
    /// task instances.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poking_sensors: Option<i32>,

    /// `queues` of Airflow's tasks in this pool, at most 100, those with most tasks. Over the API they are known while at most
    /// 2,000 tasks of all pools run, are queued or scheduled, and are read a hundred tasks at a time. Tasks that other
    /// executors than Celery's run are not in it.
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<AirflowQueue>,
}

/// Tasks of one pool in one queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AirflowQueue {
    /// `name` of the queue in Airflow.
    #[schemars(length(max = 256))]
    pub name: String,

    /// `running` tasks.
    #[schemars(range(min = 0))]
    pub running: i64,

    /// `queued` tasks: each waits for a process of a worker.
    #[schemars(range(min = 0))]
    pub queued: i64,

    /// `scheduled` tasks: no worker is started for them.
    #[schemars(range(min = 0))]
    pub scheduled: i64,
}

impl AirflowPool {
    /// The Airflow that is meant, and how it is read: all but which pool of it and who follows whom.
    #[must_use]
    pub fn without_pool(&self) -> Self {
        Self {
            name: None,
            sync: AirflowSync::default(),
            ..self.clone()
        }
    }

    /// The pool's name in Airflow, for a Pool of this name.
    #[must_use]
    pub fn pool_name<'a>(&'a self, resource: &'a str) -> &'a str {
        self.name
            .as_deref()
            .unwrap_or(if resource == crate::DEFAULT_POOL {
                DEFAULT_AIRFLOW_POOL
            } else {
                resource
            })
    }
}

/// The pool that every Airflow has and none deletes.
pub const DEFAULT_AIRFLOW_POOL: &str = "default_pool";

fn executor() -> String {
    "CeleryExecutor".to_owned()
}
