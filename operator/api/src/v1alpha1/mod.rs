//! Version `v1alpha1` of the Poolwright resources.

pub mod load;
pub mod pool;
pub mod task_queue;
pub mod worker_pool;

pub use load::{ConfigMapKeyRef, HighLoad, LoadSource, PrometheusQuery};
pub use pool::{
    AirflowPool, AirflowPoolStatus, AirflowQueue, AirflowSync, DEFAULT_AIRFLOW_POOL, Guarantee, Holder, Pool,
    PoolSpec, PoolStatus, UNLIMITED, Waiter,
};
pub use task_queue::{
    Broker, PoolUse, Priority, PriorityTier, RabbitmqOptions, RedisOptions, SecretKeyRef, SecretRef,
    TaskQueue, TaskQueueSpec, TaskQueueStatus, TlsOptions, WeightRule,
};
pub use worker_pool::{
    AckMode, Airflow, Autoscale, BrokerEnv, Celery, Decision, DecisionInput, DecisionLimit, Drain,
    ExecutionPool, Fallback, LogLevel, PastDecision, Pod, QueueRef, Scaling, ScalingMode, ScalingPolicy,
    Schedule, Worker, WorkerClass, WorkerPool, WorkerPoolSpec, WorkerPoolStatus,
};
