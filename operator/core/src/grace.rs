//! How long a pod may take to finish what it holds after SIGTERM.
//!
//! This is the second line of defence: a busy pod is no victim in the first place, so the grace matters where
//! others end pods (a node that drains, a person that deletes). It decides a number and whether that number is
//! proven by an enforced limit; it kills nothing.

use poolwright_api::v1alpha1::ExecutionPool;

use crate::class::{CELERY_PREFETCH, traits};

/// Seconds allowed between the end of the last task and the worker's exit: acknowledging, returning prefetched
/// messages, closing connections. The project's safe-shutdown profile for Celery, longest task + 15 s.
pub const EXIT_SECONDS: i64 = 15;

/// Grace in seconds where nothing bounds a task: 6 hours.
pub const UNPROVEN_SECONDS: i64 = 21_600;

/// A pod's `terminationGracePeriodSeconds` and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Seconds; at least 1.
    pub seconds: i64,
    /// False if no enforced time limit and no written grace stands behind it: tasks that run longer are killed,
    /// and nobody has said that none do (`GraceUnproven`).
    pub proven: bool,
}

/// The grace of a pool's pods: `written` (`spec.drain.graceSeconds`) if there is one, else what
/// [`needed_seconds`] says, else `otherwise`, unproven.
///
/// `enforced_limit_seconds` is the hard time limit if the execution pool enforces it.
#[must_use]
pub fn grace(
    written: Option<i64>,
    execution_pool: ExecutionPool,
    enforced_limit_seconds: Option<i32>,
    prefetch: Option<i32>,
    otherwise: i64,
) -> Grace {
    let needed = needed_seconds(execution_pool, enforced_limit_seconds, prefetch);
    match written.or(needed) {
        Some(seconds) => Grace {
            seconds: seconds.max(1),
            proven: true,
        },
        None => Grace {
            seconds: otherwise,
            proven: false,
        },
    }
}

/// Seconds in which a worker of `execution_pool` surely ends: (enforced hard limit + [`EXIT_SECONDS`]), times
/// (1 + prefetch) where the worker may run what it has prefetched after SIGTERM (gevent, eventlet, solo: measured
/// on both brokers; prefork and threads return it). `None` without an enforced limit.
#[must_use]
pub fn needed_seconds(
    execution_pool: ExecutionPool,
    enforced_limit_seconds: Option<i32>,
    prefetch: Option<i32>,
) -> Option<i64> {
    let one_task = i64::from(enforced_limit_seconds?).saturating_add(EXIT_SECONDS);
    let tasks_in_a_row = if traits(execution_pool).runs_prefetched_on_drain {
        1 + i64::from(prefetch.unwrap_or(CELERY_PREFETCH).max(0))
    } else {
        1
    };
    Some(one_task.saturating_mul(tasks_in_a_row))
}

#[cfg(test)]
mod tests {
    use super::{Grace, UNPROVEN_SECONDS, grace};
    use poolwright_api::v1alpha1::ExecutionPool::{self, Eventlet, Gevent, Prefork, Solo, Threads};
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn grace_by_execution_pool() {
        type Row = (Option<i64>, ExecutionPool, Option<i32>, Option<i32>, i64, bool);
        let table: &[Row] = &[
            // written, pool, enforced limit, prefetch, grace, proven
            (None, Prefork, Some(3600), Some(1), 3615, true),
            (None, Prefork, Some(300), Some(10), 315, true),
            (None, Gevent, Some(300), Some(10), 3465, true),
            (None, Gevent, Some(300), None, 1575, true),
            (None, Eventlet, Some(10), Some(1), 50, true),
            (None, Solo, Some(10), Some(3), 100, true),
            (None, Threads, Some(10), Some(3), 25, true),
            (None, Prefork, None, Some(1), 21_600, false),
            (None, Threads, None, Some(10), 21_600, false),
            (Some(120), Prefork, Some(3600), Some(1), 120, true),
            (Some(120), Eventlet, None, Some(10), 120, true),
            (Some(0), Prefork, None, None, 1, true),
        ];
        for &(written, pool, limit, prefetch, seconds, proven) in table {
            let found = grace(written, pool, limit, prefetch, UNPROVEN_SECONDS);
            assert_eq!(
                found,
                Grace { seconds, proven },
                "{pool:?} {limit:?} {prefetch:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn grace_is_positive_and_covers_the_limit(
            limit in proptest::option::of(1_i32..),
            prefetch in proptest::option::of(any::<i32>()),
        ) {
            for pool in [Prefork, Gevent, Eventlet, Threads, Solo] {
                let found = grace(None, pool, limit, prefetch, UNPROVEN_SECONDS);
                prop_assert!(found.seconds >= 1);
                prop_assert!(limit.is_none_or(|limit| found.seconds > i64::from(limit)));
            }
        }
    }
}
