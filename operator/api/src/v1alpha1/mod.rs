//! Version `v1alpha1` of the Poolwright resources.

pub mod task_queue;
pub mod worker_pool;

pub use task_queue::{
    Broker, RabbitmqOptions, RedisOptions, SecretKeyRef, SecretRef, TaskQueue, TaskQueueSpec,
    TaskQueueStatus, TlsOptions,
};
pub use worker_pool::{
    AckMode, Autoscale, BrokerEnv, Celery, Decision, DecisionInput, DecisionLimit, Drain, ExecutionPool,
    Fallback, LogLevel, PastDecision, Pod, QueueRef, Scaling, ScalingMode, ScalingPolicy, Worker,
    WorkerClass, WorkerPool, WorkerPoolSpec, WorkerPoolStatus,
};
