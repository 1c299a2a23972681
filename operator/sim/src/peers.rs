//! Which rules Poolwright is compared with, and with which settings.
//!
//! Each peer decides one number of pods for each fleet, from the sums over the fleet's queues of what a broker shows,
//! and marks and parks nothing. It may not look into the scenario: where a rule takes a number that its users must
//! know beforehand (a mean service time, a static size), that number is computed when the peer is built, its module
//! says so, and the peer is to that extent clairvoyant. A peer that is weak because it was misread proves nothing, so
//! every rule is as its own system documents it, starts from that system's defaults, comes with a grid for a tuning
//! run, and may run under a grace that never kills.
//!
//! Not modelled, in favour of the peers: their own failures, late reconciles and limits on calls. All begin at the
//! lower bound of their fleet or at what their system begins with.

pub mod delayed_off;
pub mod fixed;
pub mod flink;
mod history;
pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod sqs;
pub mod view;
