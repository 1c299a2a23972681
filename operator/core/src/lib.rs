//! Poolwright's decisions.
//!
//! Everything here is a function of its arguments: no I/O, no clock, no environment, no randomness. That is what
//! lets the operator, `explain` and the tests print and check the same decision.

pub mod advice;
mod ahead;
mod airflow;
mod answers;
pub mod arbitrate;
pub mod bidder;
mod bounds;
pub mod broker;
pub mod broker_key;
pub mod budget;
pub mod canonical;
pub mod cause;
pub mod charge;
mod checks;
pub mod class;
pub mod command;
pub mod conditions;
pub mod constants;
pub mod consumers;
pub mod crowding;
pub mod cycle;
pub mod decision;
pub mod demand;
pub mod deployment;
mod draft;
pub mod estimate;
pub mod evidence;
pub mod exits;
mod fit;
pub mod fleet;
pub mod flow;
pub mod grace;
pub mod grants;
pub mod guarantee;
mod held;
pub mod idle;
pub mod later;
pub mod ledger;
pub mod member;
pub mod memory;
pub mod objects;
pub mod observe;
pub mod outlook;
pub mod parking;
pub mod plan;
pub mod pod_name;
pub mod policy;
pub mod pool_status;
pub mod quantity;
pub mod resizing;
mod resources;
pub mod revision;
pub mod rollout;
pub mod sample;
pub mod scale_in;
pub mod scaling;
pub mod schedule;
pub mod share;
pub mod shedding;
pub mod snapshot;
pub mod start_ups;
pub mod starts;
pub mod status;
#[cfg(test)]
mod testing;
pub mod time;
mod trouble;
pub mod validate;
pub mod wait_target;
pub mod weight;
pub mod window;
pub mod words;

pub use poolwright_api::text;
