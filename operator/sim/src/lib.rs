//! A deterministic world for autoscalers.
//!
//! Tasks arrive, workers start, fetch, execute and drain, a cluster follows the numbers that it is given, and a scaler
//! decides: Poolwright's own cycle, unforked, or the rule of a peer. Time is a number, chance has a seed, and the same
//! scenario with the same seed gives the same outcome. Nothing here reads a clock, a file or the network.
//!
//! `scenario` says what happens to whom, `world` lets it happen, a `scaler` decides, `outcome` measures. `suite` compares
//! and `report` draws.

pub mod bound;
pub mod outcome;
pub mod peers;
pub mod poolwright;
pub mod report;
pub mod scaler;
pub mod scenario;
pub mod suite;
pub mod workloads;
pub mod world;
