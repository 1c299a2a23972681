//! What a worker class means, and what each of Celery's execution pools obeys.
//!
//! Both are tables, so that code, documentation and advice cannot drift apart. This module knows no WorkerPool
//! and refuses nothing: `validate` lays what the user wrote over these defaults, and an explicit field always
//! wins. A default that the execution pool ignores is never passed on, because a limit that is printed on a
//! command line and not enforced is worse than none.

#[cfg(test)]
mod reference;

use poolwright_api::v1alpha1::{ExecutionPool, WorkerClass};

/// Celery's own prefetch multiplier, in force when neither the user nor the class gives one.
pub const CELERY_PREFETCH: i32 = 4;

/// Where the concurrency comes from when it is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// This many slots.
    Fixed(i32),
    /// The container's CPU limit, rounded up; without one, this many slots, or a refusal for `None`.
    CpuLimit {
        /// Slots when there is no CPU limit.
        otherwise: Option<i32>,
    },
}

/// The defaults of one class. `None` leaves the value to Celery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassDefaults {
    /// Execution pool; `None` means that it must be written.
    pub execution_pool: Option<ExecutionPool>,
    /// Slots a pod.
    pub concurrency: Concurrency,
    /// Messages fetched for each slot, the running one included.
    pub prefetch: Option<i32>,
    /// Tasks after which a child process is replaced.
    pub max_tasks_per_child: Option<i32>,
    /// Seconds after which a task is killed.
    pub time_limit_seconds: Option<i32>,
    /// Seconds after which a task is told to stop; below the hard limit.
    pub soft_time_limit_seconds: Option<i32>,
}

/// The defaults of `class`, or those without a class.
///
/// The numbers are the design's table of worker classes: compute (few slots, no prefetch, long limits), waiting
/// on others (many slots, short limits), memory-bound (two slots, early restarts) and everything else.
#[must_use]
pub const fn defaults(class: Option<WorkerClass>) -> ClassDefaults {
    let (execution_pool, concurrency, prefetch, tasks, hard, soft) = match class {
        Some(WorkerClass::Cpu) => (
            Some(ExecutionPool::Prefork),
            Concurrency::CpuLimit { otherwise: Some(4) },
            1,
            100,
            3600,
            3000,
        ),
        Some(WorkerClass::Io) => (None, Concurrency::Fixed(50), 10, 1000, 300, 240),
        Some(WorkerClass::Memory) => (
            Some(ExecutionPool::Prefork),
            Concurrency::Fixed(2),
            1,
            50,
            7200,
            6600,
        ),
        Some(WorkerClass::General) => (
            Some(ExecutionPool::Prefork),
            Concurrency::Fixed(10),
            4,
            500,
            600,
            540,
        ),
        None => {
            return ClassDefaults {
                execution_pool: Some(ExecutionPool::Prefork),
                concurrency: Concurrency::CpuLimit { otherwise: None },
                prefetch: None,
                max_tasks_per_child: None,
                time_limit_seconds: None,
                soft_time_limit_seconds: None,
            };
        }
    };
    ClassDefaults {
        execution_pool,
        concurrency,
        prefetch: Some(prefetch),
        max_tasks_per_child: Some(tasks),
        time_limit_seconds: Some(hard),
        soft_time_limit_seconds: Some(soft),
    }
}

/// What an execution pool obeys and how it behaves; tried against celery 5.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a table of independent yes/no facts"
)]
pub struct Traits {
    /// Kills a task at `--time-limit`.
    pub hard_limit: bool,
    /// Raises in a task at `--soft-time-limit`.
    pub soft_limit: bool,
    /// Replaces children by `--max-tasks-per-child` and `--max-memory-per-child`.
    pub children: bool,
    /// Survives `--autoscale` (with threads the worker dies, solo has nothing to scale).
    pub autoscale: bool,
    /// May run what it has prefetched after SIGTERM, so that a drain takes 1 + prefetch tasks in a row.
    pub runs_prefetched_on_drain: bool,
    /// Every slot is a process of its own, with memory and a CPU of its own.
    pub processes: bool,
    /// Runs one task at a time whatever `-c` says.
    pub single: bool,
}

/// The facts about `pool`.
#[must_use]
pub const fn traits(pool: ExecutionPool) -> Traits {
    const NONE: Traits = Traits {
        hard_limit: false,
        soft_limit: false,
        children: false,
        autoscale: false,
        runs_prefetched_on_drain: false,
        processes: false,
        single: false,
    };
    match pool {
        ExecutionPool::Prefork => Traits {
            hard_limit: true,
            soft_limit: true,
            children: true,
            autoscale: true,
            processes: true,
            ..NONE
        },
        ExecutionPool::Gevent => Traits {
            hard_limit: true,
            autoscale: true,
            runs_prefetched_on_drain: true,
            ..NONE
        },
        ExecutionPool::Eventlet => Traits {
            autoscale: true,
            runs_prefetched_on_drain: true,
            ..NONE
        },
        ExecutionPool::Threads => NONE,
        ExecutionPool::Solo => Traits {
            runs_prefetched_on_drain: true,
            single: true,
            ..NONE
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Concurrency, ExecutionPool, WorkerClass, defaults, traits};

    #[test]
    fn the_classes_are_those_of_the_design() {
        use Concurrency::{CpuLimit, Fixed};
        let table = [
            (
                WorkerClass::Cpu,
                CpuLimit { otherwise: Some(4) },
                1,
                100,
                3600,
                3000,
            ),
            (WorkerClass::Io, Fixed(50), 10, 1000, 300, 240),
            (WorkerClass::Memory, Fixed(2), 1, 50, 7200, 6600),
            (WorkerClass::General, Fixed(10), 4, 500, 600, 540),
        ];
        for (class, concurrency, prefetch, tasks, hard, soft) in table {
            let found = defaults(Some(class));
            let expected_pool = (class != WorkerClass::Io).then_some(ExecutionPool::Prefork);
            assert_eq!(found.execution_pool, expected_pool, "{class:?}");
            assert_eq!(found.concurrency, concurrency, "{class:?}");
            assert_eq!(found.prefetch, Some(prefetch), "{class:?}");
            assert_eq!(found.max_tasks_per_child, Some(tasks), "{class:?}");
            assert_eq!(found.time_limit_seconds, Some(hard), "{class:?}");
            assert_eq!(found.soft_time_limit_seconds, Some(soft), "{class:?}");
        }
        assert_eq!(defaults(None).concurrency, CpuLimit { otherwise: None });
        assert_eq!(defaults(None).prefetch, None);
    }

    #[test]
    fn execution_pools_obey_what_was_measured() {
        use ExecutionPool::{Eventlet, Gevent, Prefork, Solo, Threads};
        // hard, soft, children, autoscale, runs prefetched while draining
        let table = [
            (Prefork, [true, true, true, true, false]),
            (Gevent, [true, false, false, true, true]),
            (Eventlet, [false, false, false, true, true]),
            (Threads, [false, false, false, false, false]),
            (Solo, [false, false, false, false, true]),
        ];
        for (pool, expected) in table {
            let t = traits(pool);
            let found = [
                t.hard_limit,
                t.soft_limit,
                t.children,
                t.autoscale,
                t.runs_prefetched_on_drain,
            ];
            assert_eq!(found, expected, "{pool:?}");
        }
    }
}
