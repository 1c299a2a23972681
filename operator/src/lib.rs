//! Poolwright: the adapters and controllers around `poolwright-core`.
//!
//! A library so that tests reach every part; the binary only reads flags and starts it.

pub mod cli;
pub mod clock;
pub mod controllers;
pub mod explain;
pub mod http;
pub mod kube;
pub mod lint;
pub mod metrics;
pub mod signals;
pub mod telemetry;
