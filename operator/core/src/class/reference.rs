//! The reference page of worker classes, made from the tables that decide.
//!
//! Whatever is a number or a yes or no on it is asked of the functions that the operator asks.

use std::fmt::Write as _;

use poolwright_api::WORKER_POOL_NAME_CHARACTERS_MAX;
use poolwright_api::v1alpha1::{ExecutionPool, WorkerClass};

use super::{CELERY_PREFETCH, ClassDefaults, Concurrency, defaults, traits};
use crate::grace::{EXIT_SECONDS, UNPROVEN_SECONDS, grace};

/// Every class, and none, in the order of the page.
const CLASSES: [Option<WorkerClass>; 5] = [
    Some(WorkerClass::Cpu),
    Some(WorkerClass::Io),
    Some(WorkerClass::Memory),
    Some(WorkerClass::General),
    None,
];

/// Every execution pool, in the order of the page.
const POOLS: [ExecutionPool; 5] = [
    ExecutionPool::Prefork,
    ExecutionPool::Gevent,
    ExecutionPool::Eventlet,
    ExecutionPool::Threads,
    ExecutionPool::Solo,
];

const HEAD: &str = "\
# Worker classes

<!-- Generated from the tables in operator/core/src/class.rs and grace.rs. Do not edit. -->

`spec.class` of a WorkerPool says what its tasks are like, and sets what `celery worker` gets. A field that is written \
in `spec.celery` wins over the class. The command line is in the pod: `kubectl get pod POD -o yaml`, under `args`.

- **Cpu**: tasks that compute. A process a processor, as little fetched ahead as Celery can, long limits.
- **Io**: tasks that wait for others. Many at a time, short limits. With so many processes a pod would need gigabytes, \
so `executionPool` has to be chosen: Gevent or Eventlet if the image has it, Threads, or Prefork all the same.
- **Memory**: tasks that hold much. Two processes, each replaced early, the longest limits.
- **General**: everything else.

## What a class sets

Limits are in seconds. `–` leaves a value to Celery and the app's configuration; Celery's own prefetch is in \
brackets.

| class | `executionPool` | `concurrency` | `prefetchMultiplier` | `maxTasksPerChild` | `timeLimitSeconds` | `softTimeLimitSeconds` |
|---|---|---|---|---|---|---|
";

const BETWEEN: &str = "
`concurrency` is the number of slots of a pod, which is what scaling counts with. With `autoscale` its `max` is, and \
with `executionPool: Solo` it is 1.

A class's default that the execution pool ignores is not passed on. What is written is passed on even then, and \
`ConfigurationAdvised` says that it has no effect. A class's soft limit gives way to a written hard limit that is not \
above it, and its hard limit to a written soft limit that is not below it.

## What an execution pool obeys

| `executionPool` | time limit | soft time limit | `maxTasksPerChild`, `maxMemoryPerChild` | `autoscale` | a process for each slot | after SIGTERM |
|---|---|---|---|---|---|---|
";

const GRACE: &str = "
Gevent enforces its limit only where a task yields.

## How long a pod gets to end

`spec.drain.graceSeconds` if it is written; else what the enforced time limit needs; else, with no enforced limit, \
";

/// The page's end, before the greatest length of a name.
const TAIL: &str = "
## What no class sets

- **Resources.** A pod requests and is limited to what `spec.worker.resources` says, and to nothing without it. The CPU \
limit is read for `concurrency`, as above.
- **Spread.** Pods are spread only where `spec.pod.topologySpreadConstraints` says so. One without a `labelSelector` \
counts the WorkerPool's own pods, of all revisions.
- **Scaling.** `minReplicas` 0, `maxReplicas` 10 and policy `WaitTarget` are the defaults of every class. \
`scaleDownDelaySeconds` is by default as long as the workers were seen to need to start, 10 to 600, \
or half of that or 5 where it has cost less lately; with policy `Backlog` it is 60.

Every worker, whatever its class, gets `-n celery@$(POD_NAME)`, `-Q` with its queues and `--without-gossip`. Its pod has \
all capabilities dropped, no privilege escalation, seccomp `RuntimeDefault`, no ServiceAccount token, no readiness probe, \
and annotations that keep the cluster autoscaler and Karpenter from evicting it; your own annotations win.

Deployments are called after the WorkerPool, with the revision's hash behind its name, and both have to fit into the 63 \
characters of a label: the name of a WorkerPool has at most ";

/// The reference page of all classes.
fn reference() -> String {
    let mut page = HEAD.to_owned();
    for class in CLASSES {
        page.push_str(&class_row(class));
    }
    page.push_str(BETWEEN);
    for pool in POOLS {
        page.push_str(&pool_row(pool));
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "{GRACE}{UNPROVEN_SECONDS} s and the advice `GraceUnproven`. What a limit needs is the limit + {EXIT_SECONDS} s, \
         times 1 + prefetch where a worker may run what it has fetched.\n\n\
         | class | `executionPool` | `graceSeconds` |\n|---|---|---|"
    );
    for class in CLASSES {
        page.push_str(&grace_rows(class));
    }
    let _ = writeln!(page, "{TAIL}{WORKER_POOL_NAME_CHARACTERS_MAX} characters.");
    page
}

fn name(class: Option<WorkerClass>) -> String {
    class.map_or_else(|| "none".to_owned(), |class| format!("{class:?}"))
}

fn number(value: Option<i32>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn class_row(class: Option<WorkerClass>) -> String {
    let ClassDefaults {
        execution_pool,
        concurrency,
        prefetch,
        max_tasks_per_child,
        time_limit_seconds,
        soft_time_limit_seconds,
    } = defaults(class);
    let pool = execution_pool.map_or_else(|| "must be written".to_owned(), |pool| format!("{pool:?}"));
    let concurrency = match concurrency {
        Concurrency::Fixed(slots) => slots.to_string(),
        Concurrency::CpuLimit {
            otherwise: Some(slots),
        } => format!("the CPU limit rounded up, else {slots}"),
        Concurrency::CpuLimit { otherwise: None } => {
            "the CPU limit rounded up, else must be written".to_owned()
        }
    };
    let prefetch = prefetch.map_or_else(
        || format!("– ({CELERY_PREFETCH})"),
        |prefetch| prefetch.to_string(),
    );
    format!(
        "| {} | {pool} | {concurrency} | {prefetch} | {} | {} | {} |\n",
        name(class),
        number(max_tasks_per_child),
        number(time_limit_seconds),
        number(soft_time_limit_seconds),
    )
}

fn pool_row(pool: ExecutionPool) -> String {
    let obeys = traits(pool);
    let yes = |fact: bool| if fact { "yes" } else { "no" };
    let drain = if obeys.runs_prefetched_on_drain {
        "may run what it has fetched"
    } else {
        "gives back what it has fetched"
    };
    format!(
        "| {pool:?} | {} | {} | {} | {} | {} | {drain} |\n",
        yes(obeys.hard_limit),
        yes(obeys.soft_limit),
        yes(obeys.children),
        yes(obeys.autoscale),
        yes(obeys.processes),
    )
}

/// One row, or one for each execution pool where the class leaves it open.
fn grace_rows(class: Option<WorkerClass>) -> String {
    let default = defaults(class);
    let pools = default.execution_pool.map_or_else(
        || {
            let concurrent = POOLS.into_iter().filter(|pool| !traits(*pool).single);
            concurrent.collect()
        },
        |pool| vec![pool],
    );
    let row = |pool: ExecutionPool| {
        let enforced = default.time_limit_seconds.filter(|_| traits(pool).hard_limit);
        let found = grace(None, pool, enforced, default.prefetch, UNPROVEN_SECONDS);
        let unproven = if found.proven { "" } else { ", unproven" };
        format!("| {} | {pool:?} | {}{unproven} |\n", name(class), found.seconds)
    };
    pools.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::reference;

    #[test]
    fn the_reference_page_is_what_the_tables_say() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/classes.md");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            fs::write(&path, reference()).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == reference(),
            "docs/reference/classes.md differs from the tables: run `UPDATE=1 cargo test -p poolwright-core class`"
        );
    }
}
