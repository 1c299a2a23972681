//! What is said of Airflow's limits beside workers, on both sides of each number.

use super::super::super::testing::{pool, queue};
use super::super::testing::{airflow_worker, dag, dags, pools, said, said_with};

const TEN: &str = "scaling: {maxReplicas: 10}";

/// A queue, `more` of it, and ten workers of four slots.
fn fleet(more: &str) -> Vec<String> {
    vec![queue("default", more), airflow_worker("w", &["default"], TEN)]
}

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
    assert!(of(fleet("maxActiveTasks: 20"), 1, 19).contains("have 20 slots (\"w\" 20 by maxActiveTasks)"));
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

/// Tasks of two pools in one queue.
fn fed(version: &str, most: u64) -> String {
    let tasks = [
        r#""id": "a", "pool": "db", "pool_slots": 2"#,
        r#""id": "b", "pool": "s3""#,
    ];
    dags(version, &[dag("d", most, &tasks)])
}

fn overfed(config: &str, named: &[(&str, i32)], tasks: &str) -> String {
    let found = said_with(&fleet(""), config, &pools(named), tasks);
    let found = found.into_iter().filter(|words| words.contains("into queue"));
    found.collect::<Vec<_>>().concat()
}

#[test]
fn pools_that_let_in_more_than_the_workers_run_are_told() {
    assert_eq!(
        overfed("", &[("db", 60), ("s3", 11)], &fed("3.3.2", 100)),
        "warning: \"db\".slots: pools \"db\" 30 and \"s3\" 11 let 41 tasks into queue \"default\" at once, and its workers \
         run at most 40 (\"w\" 10 × 4 = 40): the others hold their slots while they wait for a worker, and after \
         600 s ([scheduler] task_queued_timeout) the scheduler sends such tasks anew, and in the end it fails them; lower \
         slots of pool \"db\" to 58, which keeps them \
         waiting in Airflow, or raise spec.scaling.maxReplicas"
    );
    assert_eq!(overfed("", &[("db", 58), ("s3", 11)], &fed("3.3.2", 100)), "");
    let both = overfed("", &[("db", 200), ("s3", 50)], &fed("3.3.2", 100));
    assert!(
        both.contains("lower the slots of these pools together, so that they let in 40 tasks"),
        "{both}"
    );
    let one = overfed("", &[("db", 200), ("s3", 0)], &fed("3.3.2", 100));
    assert!(
        one.contains("pool \"db\" 100 lets 100 tasks") && one.contains("lower slots of pool \"db\" to 80"),
        "{one}"
    );
}

/// Neither a DAG nor a scheduler lets in more than its own limit.
#[test]
fn other_limits_of_airflow_are_counted_with() {
    let unlimited = [("db", -1), ("s3", -1)];
    let dags = overfed("", &unlimited, &fed("2.11.2", 41));
    assert!(
        dags.contains(
            "\"db\" 41 by the limits of its DAGs and \"s3\" 41 by the limits of its DAGs let, by the limits of the DAGs \
             together, 41 tasks"
        ),
        "{dags}"
    );
    assert_eq!(overfed("", &unlimited, &fed("2.11.2", 40)), "");
    assert!(
        overfed("", &unlimited, &fed("3.3.2", 20)).contains("together, 320 tasks"),
        "each of 16 runs"
    );
    let config = |parallelism: u32| format!("[core]\nparallelism = {parallelism}\n");
    assert_eq!(overfed(&config(40), &unlimited, &fed("3.3.2", 20)), "");
    for parallelism in [41, 0] {
        assert!(overfed(&config(parallelism), &unlimited, &fed("3.3.2", 20)).contains("together, 320 tasks"));
    }
    assert_eq!(
        overfed("", &[("mail", 4)], &fed("3.3.2", 100)),
        "",
        "nobody has shown the pools"
    );
}

/// The Pool of the manifests is what Airflow will have; one that follows is what it has had.
#[test]
fn a_pool_counts_as_it_will_be() {
    let tasks = dags("3.3.2", &[dag("d", 100, &[r#""id": "a", "pool": "db""#])]);
    let of = |sync: &str| {
        let mut manifests = fleet("");
        let airflow = format!("airflow: {{secretRef: {{name: s}}, sync: {sync}}}");
        manifests.push(pool("db", &format!("slots: 41, {airflow}")));
        let found = said(&manifests, &pools(&[("db", 40)]), &tasks);
        found
            .into_iter()
            .filter(|words| words.contains("into queue"))
            .collect::<Vec<_>>()
            .concat()
    };
    let told = of("Apply");
    assert!(
        told.starts_with("warning: spec.slots: pool \"db\" 41 lets 41 tasks"),
        "{told}"
    );
    assert_eq!(of("Mirror"), "");
}
