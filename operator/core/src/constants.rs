//! The times and counts that a promise or an explanation rests on, in one place.
//!
//! What only one module cares about stays there. Adapters take theirs from here too, so that no two of them differ.

use std::time::Duration;

/// Time between two polls of a broker with few queues, in milliseconds; a flag sets another.
pub const POLL_INTERVAL_MILLISECONDS: u64 = 200;
/// Queues that are polled at that interval; each further one adds a millisecond.
pub const QUEUES_AT_POLL_INTERVAL: usize = 200;
/// The longest poll interval, unless the flag sets a longer one.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Time between two polls of a broker with so many queues, if it is `base` with few. With each poll the broker's workers are
/// told at most one thing.
#[must_use]
pub fn poll_interval(base: Duration, queues: usize) -> Duration {
    let more = u64::try_from(queues.saturating_sub(QUEUES_AT_POLL_INTERVAL)).unwrap_or(u64::MAX);
    (base + Duration::from_millis(more)).min(POLL_INTERVAL_MAX.max(base))
}

/// RabbitMQ's management or metrics address gets at most one request in this time.
pub const MANAGEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// A reading of a broker is fresh for so many polls.
pub const FRESH_POLLS: u32 = 3;
/// But for no less than this.
pub const FRESH_AT_LEAST: Duration = Duration::from_secs(3);
/// A heartbeat is fresh for so many of its own intervals.
pub const FRESH_HEARTBEATS: u32 = 5;
/// Deadline of every exchange with a broker, and of a question to workers.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(2);
/// First and longest wait before connecting again. Short, so that counts are fresh again within a second and a poll of
/// the broker's return.
pub const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Secrets are read again this often.
pub const SECRET_INTERVAL: Duration = Duration::from_secs(60);
/// A load (a percentage that a Prometheus or a `ConfigMap` tells) is read this often.
pub const LOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Deadline of one reading of a load.
pub const LOAD_DEADLINE: Duration = Duration::from_secs(2);
/// A load counts for three readings; after that it is unknown.
pub const LOAD_FRESH: Duration = Duration::from_secs(15);
/// An Airflow is asked this often.
pub const AIRFLOW_INTERVAL: Duration = Duration::from_secs(5);
/// A Pool that is being deleted waits so long for an Airflow that does not answer; what was made there for it stays then.
pub const AIRFLOW_LEAVE: Duration = Duration::from_secs(60);
/// A zero counts only after so many fresh readings of it in a row.
pub const ZEROS: u32 = 3;
/// No heartbeat so long after the container started: the pod's slots are unseen.
pub const UNSEEN_AFTER: Duration = Duration::from_secs(60);
/// A revision with a pod and without a heartbeat for so many seconds is given up (or `Stalled`, with none to go back to).
pub const UNPROVEN_SECONDS: i64 = 600;
