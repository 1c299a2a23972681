//! The worker's command line.
//!
//! Decides which flags a worker gets: exactly those that a field or a class sets and the execution pool can use,
//! plus what Poolwright itself relies on (the node name, no gossip). It may not add taste: what nobody set is left
//! to Celery and the app's configuration. Node names come from the pod's name because a heartbeat must lead back
//! to its pod, and because a duplicate name is fatal on RabbitMQ.

use poolwright_api::ENV_POD_NAME;

use crate::airflow;
use crate::validate::{Program, ValidPool};

/// The arguments that follow `spec.worker.command`, in the form of a container's `args`.
///
/// `$(POD_NAME)` is filled in by Kubernetes; a `$` in the app's or a queue's name is doubled, which Kubernetes
/// undoes. The user's `extraArgs` come last, unchanged, so variables work in them.
#[must_use]
pub fn arguments(pool: &ValidPool) -> Vec<String> {
    let Program::Celery { app } = &pool.program else {
        return airflow::arguments(pool);
    };
    let queues = pool.queue_names().collect::<Vec<_>>().join(",");
    let mut arguments = vec![
        "-A".to_owned(),
        literal(app),
        "worker".to_owned(),
        "-n".to_owned(),
        format!("celery@$({ENV_POD_NAME})"),
        "-Q".to_owned(),
        literal(&queues),
        "-P".to_owned(),
        pool.execution_pool.as_flag().to_owned(),
    ];
    match pool.autoscale {
        Some(autoscale) => arguments.push(format!("--autoscale={},{}", autoscale.max, autoscale.min)),
        None => arguments.extend(["-c".to_owned(), pool.concurrency.to_string()]),
    }
    let numbers = [
        ("--prefetch-multiplier", pool.prefetch_multiplier.map(i64::from)),
        ("--max-tasks-per-child", pool.max_tasks_per_child.map(i64::from)),
        ("--max-memory-per-child", pool.max_memory_per_child_kib),
        (
            "--time-limit",
            pool.time_limit.map(|limit| i64::from(limit.seconds)),
        ),
        (
            "--soft-time-limit",
            pool.soft_time_limit.map(|limit| i64::from(limit.seconds)),
        ),
    ];
    for (flag, value) in numbers {
        arguments.extend(value.map(|value| format!("{flag}={value}")));
    }
    arguments.extend(
        pool.log_level
            .map(|level| format!("--loglevel={}", level.as_flag())),
    );
    arguments.push("--without-gossip".to_owned());
    arguments.extend(pool.extra_args.iter().cloned());
    arguments
}

/// The queues on a worker's command line, as [`arguments`] writes it; `None` for one that is written otherwise.
#[must_use]
pub fn queues<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<Vec<String>> {
    let list = arguments
        .into_iter()
        .skip_while(|one| !matches!(*one, "-Q" | "-q"))
        .nth(1)?;
    Some(list.replace("$$", "$").split(',').map(str::to_owned).collect())
}

/// The slots of a worker with this command line, as [`arguments`] writes it; `None` for one that is written otherwise.
#[must_use]
pub fn concurrency<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "-c" {
            return arguments.next()?.parse().ok();
        }
        if let Some(bounds) = argument.strip_prefix("--autoscale=") {
            return bounds.split(',').next()?.parse().ok();
        }
    }
    None
}

/// `text` so that Kubernetes leaves it as it is when it fills in variables.
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::arguments;
    use crate::testing::{pool, wp};
    use serde_json::json;

    fn line(patch: serde_json::Value) -> String {
        arguments(&pool(&wp(patch))).join(" ")
    }

    #[test]
    fn a_worker_of_each_class_is_started_as_designed() {
        let head = "-A shop.celery worker -n celery@$(POD_NAME) -Q orders,mail";
        let table = [
            (
                json!({"class": "Cpu"}),
                "-P prefork -c 4 --prefetch-multiplier=1 --max-tasks-per-child=100 --time-limit=3600 \
                 --soft-time-limit=3000",
            ),
            (
                json!({"class": "Cpu", "worker": {"resources": {"limits": {"cpu": "1500m"}}}}),
                "-P prefork -c 2 --prefetch-multiplier=1 --max-tasks-per-child=100 --time-limit=3600 \
                 --soft-time-limit=3000",
            ),
            (
                json!({"class": "Memory"}),
                "-P prefork -c 2 --prefetch-multiplier=1 --max-tasks-per-child=50 --time-limit=7200 \
                 --soft-time-limit=6600",
            ),
            (
                json!({"class": "General"}),
                "-P prefork -c 10 --prefetch-multiplier=4 --max-tasks-per-child=500 --time-limit=600 \
                 --soft-time-limit=540",
            ),
            (
                json!({"class": "Io", "celery": {"executionPool": "Prefork"}}),
                "-P prefork -c 50 --prefetch-multiplier=10 --max-tasks-per-child=1000 --time-limit=300 \
                 --soft-time-limit=240",
            ),
            (
                json!({"class": "Io", "celery": {"executionPool": "Gevent"}}),
                "-P gevent -c 50 --prefetch-multiplier=10 --time-limit=300",
            ),
            (
                json!({"class": "Io", "celery": {"executionPool": "Threads"}}),
                "-P threads -c 50 --prefetch-multiplier=10",
            ),
            (
                json!({"class": "Io", "celery": {"executionPool": "Eventlet"}}),
                "-P eventlet -c 50 --prefetch-multiplier=10",
            ),
            (json!({"celery": {"executionPool": "Solo"}}), "-P solo -c 1"),
            (json!({"celery": {"concurrency": 3}}), "-P prefork -c 3"),
        ];
        for (patch, tail) in table {
            assert_eq!(line(patch), format!("{head} {tail} --without-gossip"));
        }
    }

    #[test]
    fn what_is_written_wins_and_extra_arguments_come_last() {
        let patch = json!({"class": "General", "celery": {
            "autoscale": {"min": 2, "max": 8}, "prefetchMultiplier": 7, "maxTasksPerChild": 9,
            "maxMemoryPerChild": "300Mi", "timeLimitSeconds": 100, "softTimeLimitSeconds": 90,
            "logLevel": "Info", "extraArgs": ["-E", "--statedb=/tmp/$(POD_NAME)"],
        }});
        assert_eq!(
            line(patch),
            "-A shop.celery worker -n celery@$(POD_NAME) -Q orders,mail -P prefork --autoscale=8,2 \
             --prefetch-multiplier=7 --max-tasks-per-child=9 --max-memory-per-child=307200 --time-limit=100 \
             --soft-time-limit=90 --loglevel=INFO --without-gossip -E --statedb=/tmp/$(POD_NAME)"
        );
    }

    #[test]
    fn a_written_limit_is_passed_even_where_it_is_ignored() {
        let patch = json!({"class": "Io", "celery": {"executionPool": "Threads", "timeLimitSeconds": 60}});
        assert!(line(patch).contains(" --time-limit=60 "));
    }

    #[test]
    fn a_dollar_in_a_name_survives_kubernetes() {
        let mut valid = pool(&wp(json!({"class": "Cpu"})));
        valid.queues[0].queue = "a$(POD_NAME)$$".to_owned();
        let arguments = arguments(&valid);
        assert_eq!(arguments[6], "a$$(POD_NAME)$$$$,mail");
        let read = super::queues(arguments.iter().map(String::as_str));
        assert_eq!(read.unwrap(), ["a$(POD_NAME)$$", "mail"]);
        assert_eq!(super::queues(["worker"]), None);
    }
}
