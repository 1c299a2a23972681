//! The first table of `docs/reference/performance.md`, as `make bench` measures it. That runs the `speed` test of the core
//! too. What else the page has is made elsewhere, and the page says how.
//!
//! The control plane and Redis are real. Pods are marked as running by the node without a process, and their
//! heartbeats are published by the benchmark, so that a thousand workers fit on a small machine.

pub mod crowd;
pub mod many;
pub mod reaction;
pub mod rig;

/// The value below which `part` of the sorted values lie (nearest rank).
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
