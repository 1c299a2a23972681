//! What is said of pools that let in more than workers run, on both sides of each number.

use super::super::super::testing::pool;
use super::super::testing::{dag, dags, fleet, pools, said, said_with};

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

/// What would be let in without the largest pool is what a DAG sends elsewhere then, too.
#[test]
fn the_largest_pool_is_lowered_by_what_is_too_much() {
    let of_two = [
        dag(
            "a",
            10,
            &[r#""id": "p", "pool": "p""#, r#""id": "q", "pool": "q""#],
        ),
        dag("b", 100, &[r#""id": "r", "pool": "r""#]),
    ];
    let words = overfed("", &[("p", 20), ("q", 20), ("r", 40)], &dags("2.11.2", &of_two));
    assert!(
        words.contains("let, by the limits of the DAGs together, 50 tasks")
            && words.contains("lower slots of pool \"r\" to 30"),
        "{words}"
    );
    assert_eq!(
        overfed("", &[("p", 20), ("q", 20), ("r", 30)], &dags("2.11.2", &of_two)),
        ""
    );
}

/// Of tasks that take few slots there are no more than their DAG lets run.
#[test]
fn each_task_takes_its_own_slots() {
    let of_two = |most: u64| {
        dags(
            "2.11.2",
            &[
                dag("a", 2, &[r#""id": "small", "pool": "db""#]),
                dag("b", most, &[r#""id": "wide", "pool": "db", "pool_slots": 10"#]),
            ],
        )
    };
    assert_eq!(overfed("", &[("db", 60)], &of_two(100)), "");
    assert_eq!(overfed("", &[("db", 389)], &of_two(100)), "");
    let words = overfed("", &[("db", 392)], &of_two(100));
    assert!(words.contains("pool \"db\" 41 lets 41 tasks"), "{words}");
    let words = overfed("", &[("db", 400)], &of_two(39));
    assert!(
        words.contains("pool \"db\" 41 by the limits of its DAGs lets 41 tasks"),
        "{words}"
    );
}

#[test]
fn no_limit_is_no_number() {
    let of = |inside: &str| {
        let endless = format!(r#"{{"id": "d", "max_active_runs": 0, "tasks": [{inside}]}}"#);
        format!(r#"{{"airflow": "3.3.2", "dags": [{endless}]}}"#)
    };
    let one = r#"{"id": "a", "pool": "db"}"#;
    let words = overfed("", &[("db", -1)], &of(one));
    assert!(
        words.contains("pool \"db\" any number lets any number of tasks"),
        "{words}"
    );
    let two = format!(r#"{one}, {{"id": "b", "pool": "s3"}}"#);
    let words = overfed("", &[("db", -1), ("s3", -1)], &of(&two));
    assert!(
        words.contains("pools \"db\" any number and \"s3\" any number let any number of tasks"),
        "{words}"
    );
}
