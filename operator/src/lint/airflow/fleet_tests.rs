//! What is said of Airflow's limits beside workers, on both sides of each number.

use super::super::super::testing::{pool, queue};
use super::super::testing::{TEN, dag, dags, fleet, said, said_with};

#[test]
fn a_scheduler_that_runs_less_than_the_workers_is_told() {
    let of = |config: &str| said_with(&fleet(""), config, "", "").concat();
    assert_eq!(
        of("[core]\nparallelism = 39\n"),
        "warning: [core] parallelism: lets a scheduler run 39 tasks at a time, and the workers have 40 slots (\"w\" 10 × 4 = \
         40): with one scheduler 1 of them is never busy; raise it to 40, run 2 schedulers, or lower \
         spec.scaling.maxReplicas"
    );
    assert!(of("[core]\nexecutor = CeleryExecutor\n").contains("run 32 tasks at a time"));
    assert_eq!(of("[core]\nparallelism = 40\n"), "");
    assert_eq!(of("[core]\nparallelism = 0\n"), "", "no limit");
    assert_eq!(of(""), "", "nobody said it");
}

#[test]
fn workers_whose_executor_is_not_there_are_told() {
    let of = |executor: &str| {
        let config = format!("[core]\nparallelism = 40\nexecutor = {executor}\n");
        said_with(&fleet(""), &config, "", "").concat()
    };
    assert_eq!(
        of("LocalExecutor,KubernetesExecutor"),
        "warning: [core] executor: is \"LocalExecutor,KubernetesExecutor\", which sends no task to a queue of Celery's, and the \
         workers of \"w\" take theirs from there: none ever comes; write CeleryExecutor, alone or with the others in a list"
    );
    for with in [
        "CeleryExecutor",
        "KubernetesExecutor, x:airflow.providers.celery.executors.celery_executor.CeleryExecutor",
    ] {
        assert_eq!(of(with), "", "{with}");
    }
    let celery = [
        queue("default", ""),
        super::super::super::testing::worker("w", &["default"], TEN),
    ];
    let config = "[core]\nexecutor = LocalExecutor\n";
    assert_eq!(said_with(&celery, config, "", ""), [""; 0], "none of Airflow's");
    assert_eq!(
        said_with(&fleet(""), "[core]\nparallelism = 40\n", "", ""),
        [""; 0],
        "not written"
    );
}

/// Workers that a Pool or `maxActiveTasks` holds back have not all of their slots.
#[test]
fn the_bounds_of_the_workers_are_counted_with() {
    let of = |mut manifests: Vec<String>, slots: i32, parallelism: u32| {
        manifests.push(pool("db", &format!("slots: {slots}")));
        said_with(
            &manifests,
            &format!("[core]\nparallelism = {parallelism}\n"),
            "",
            "",
        )
        .concat()
    };
    let drawing = || fleet("pool: {name: db, slotsPerTask: 2}");
    assert_eq!(of(drawing(), 48, 24), "");
    let told = of(drawing(), 48, 23);
    assert!(
        told.contains("the workers have 24 slots (\"w\" 10 × 4 = 40; Pool \"db\" has slots for 24 of 40)"),
        "{told}"
    );
    for closed_or_unlimited in [0, -1] {
        assert!(of(drawing(), closed_or_unlimited, 39).contains("have 40 slots"));
    }
    assert_eq!(of(fleet("maxActiveTasks: 20"), 1, 20), "");
    // As many whole workers as fit.
    for most in [20, 23] {
        let words = of(fleet(&format!("maxActiveTasks: {most}")), 1, 19);
        assert!(
            words.contains("have 20 slots (\"w\" 20 by maxActiveTasks)"),
            "{words}"
        );
    }
}

#[test]
fn workers_of_celery_are_none_of_airflows() {
    let manifests = [
        queue("default", ""),
        super::super::super::testing::worker("w", &["default"], TEN),
    ];
    assert_eq!(
        said_with(&manifests, "[core]\nparallelism = 1\n", "", ""),
        [""; 0]
    );
    let task = dags("3.3.2", &[dag("d", 16, &[r#""id": "a", "queue": "gpu""#])]);
    assert_eq!(said(&manifests, "", &task), [""; 0]);
}

#[test]
fn a_queue_that_no_worker_takes_is_told() {
    let of =
        |tasks: &[&str]| said(&fleet("queue: main"), "", &dags("3.3.2", &[dag("d", 16, tasks)])).concat();
    assert_eq!(
        of(&[r#""id": "a", "queue": "gpu""#, r#""id": "b", "queue": "gpu""#]),
        "warning: dags[0].tasks[0].queue: no WorkerPool with spec.airflow of these files consumes queue \"gpu\": \"d.a\" and \
         1 more task wait there; after 600 s ([scheduler] task_queued_timeout) the scheduler sends such tasks anew, and in \
         the end it fails them; add it to spec.queues of one, or correct the queue"
    );
    assert!(of(&[r#""id": "a", "queue": "mai""#]).ends_with("is \"main\" meant?"));
    assert!(
        of(&[r#""id": "a""#]).contains("consumes queue \"default\""),
        "Airflow's own"
    );
    assert_eq!(
        of(&[r#""id": "a", "queue": "main""#]),
        "",
        "the name on the broker"
    );
    assert_eq!(
        of(&[r#""id": "a", "queue": "gpu", "executor": "KubernetesExecutor""#]),
        ""
    );
    let alone = said(
        &[],
        "",
        &dags("3.3.2", &[dag("d", 16, &[r#""id": "a", "queue": "gpu""#])]),
    );
    assert_eq!(alone, [""; 0], "without WorkerPools");
}

#[test]
fn the_default_queue_is_that_of_the_configuration() {
    let tasks = dags("3.3.2", &[dag("d", 16, &[r#""id": "a""#])]);
    let of = |queue: &str| {
        let config = format!(
            "[core]\nparallelism = 40\n[operators]\ndefault_queue = {queue}\n[scheduler]\ntask_queued_timeout = 60\n"
        );
        said_with(&fleet("queue: main"), &config, "", &tasks).concat()
    };
    assert_eq!(of("main"), "");
    assert!(of("default").contains("after 60 s"));
}
