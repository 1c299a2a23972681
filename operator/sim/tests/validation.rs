//! The world against what is known of such worlds: queueing theory, Little's law, and the conservation of tasks and
//! costs.
//!
//! A comparison of scalers is worth what its simulator is worth, so nothing in here scales well; what is checked is what
//! any scaler would be measured by.

// The lint knows test functions, not their helpers; and counts here are far below 2^52.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "validation/identities.rs"]
mod identities;
#[path = "validation/order.rs"]
mod order;
#[path = "validation/theory.rs"]
mod theory;
#[path = "validation/watch.rs"]
mod watch;
