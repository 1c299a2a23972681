//! Two operators with one lease, each its own user under the rights of `deploy/install`: whoever leads is killed, stopped
//! or cut off under load, and the audit log says who wrote what and when.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "workers/budgets/bank.rs"]
mod bank;
#[path = "failover/cast.rs"]
mod cast;
#[path = "failover/faults.rs"]
mod faults;
#[path = "workers/ground/mod.rs"]
mod ground;
#[path = "failover/handover.rs"]
mod handover;
