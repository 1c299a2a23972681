//! A real Airflow: its workers, its pools, and what both know of each other.
#![allow(missing_docs, clippy::unwrap_used)]

mod blocked;
mod counts;
mod dag;
mod figures;
mod linked;
mod named;
mod owned;
mod pools;
mod secured;
mod trouble;

use std::time::Duration;

/// For what must happen, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);
