//! Real workers on real brokers, under a real control plane that all of these tests share: what the product is for.
//!
//! One binary, so that it is linked once, and so that tests of every part run side by side: most of their time they wait for
//! workers to come up or to finish. Each has a namespace and a broker of its own; what is not in a namespace they name
//! after it.
#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod budgets;
mod dynamic;
mod faults;
mod ground;
mod lane;
mod lifecycle;
mod outages;
mod parking;
mod pods;
mod policies;
mod pools;
mod rabbitmq;
mod redis;
mod refusals;
mod rollouts;
mod shards;
