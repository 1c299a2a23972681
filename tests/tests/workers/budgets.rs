//! Pools: what is taken never exceeds a budget by an act of ours, and who shares one gets a fair part of it. Every test
//! ends with the count of what pods took, read at each event of its namespace.

pub mod bank;
mod changes;
mod crashes;
mod gpus;
mod limits;
mod load;
mod midway;
mod mistakes;
mod nodes;
mod others;
mod refused;
mod shares;
