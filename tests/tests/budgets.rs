//! Pools: what is taken never exceeds a budget by an act of ours, and who shares one gets a fair part of it. Every test
//! ends with the count of what pods took, read at each event of its namespace.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "budgets/bank.rs"]
mod bank;
#[path = "budgets/changes.rs"]
mod changes;
#[path = "budgets/crashes.rs"]
mod crashes;
#[path = "budgets/gpus.rs"]
mod gpus;
mod ground;
#[path = "budgets/limits.rs"]
mod limits;
#[path = "budgets/load.rs"]
mod load;
#[path = "budgets/mistakes.rs"]
mod mistakes;
#[path = "budgets/nodes.rs"]
mod nodes;
#[path = "budgets/others.rs"]
mod others;
#[path = "budgets/shares.rs"]
mod shares;
