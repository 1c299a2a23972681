//! The controllers: each keeps one thing as it should be, and they meet only through shared, read-only views.

pub mod airflow;
mod brokers;
pub mod budgets;
pub mod conflicts;
pub mod cycle;
pub mod granter;
mod kept;
pub mod loads;
pub mod run;
pub mod secrets;
pub mod shards;
pub mod task_queue;
pub mod turns;
pub mod unmade;
pub mod wake;
pub mod watches;
pub mod worker_pool;
pub mod world;
