//! Poolwright's decisions.
//!
//! Everything here is a function of its arguments: no I/O, no clock, no environment, no randomness. That is what
//! lets the operator, `explain` and the tests print and check the same decision.

pub mod broker;
pub mod cycle;
pub mod decision;
pub mod demand;
pub mod ledger;
pub mod memory;
pub mod rollout;
pub mod sample;
pub mod scaling;
pub mod snapshot;
pub mod text;
pub mod time;
pub mod window;
