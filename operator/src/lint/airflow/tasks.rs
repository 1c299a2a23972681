//! Tasks and the pools that they name: what never runs, and what is never filled.

use std::collections::BTreeMap;

use poolwright_api::text::counted;
use poolwright_api::v1alpha1::DEFAULT_AIRFLOW_POOL;

use super::super::{Finding, Severity, schema};
use super::dags::{Dag, Dags, Task};
use super::pools::Pools;
use super::{SOUGHT_MAX, first_of};

/// Tasks that need more slots than their pool has, and tasks whose pool does not exist.
pub fn never_run(dags: &Dags, pools: &Pools) -> Vec<Finding> {
    let mut findings: Vec<Finding> = dags
        .tasks()
        .filter_map(|task| too_wide(dags, task, pools))
        .collect();
    let mut missing: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in dags.tasks().filter(|task| !pools.may_have(&task.pool)) {
        missing.entry(&task.pool).or_default().push(task);
    }
    for (at, (pool, tasks)) in missing.into_iter().enumerate() {
        let names = pools.by_name.keys().map(String::as_str);
        let similar = (at < SOUGHT_MAX).then(|| schema::similar(pool, names)).flatten();
        findings.extend(without_pool(dags, pool, &tasks, similar, pools.complete));
    }
    findings
}

fn too_wide(dags: &Dags, task: &Task, pools: &Pools) -> Option<Finding> {
    let (slots, known) = pools
        .limited(&task.pool)
        .filter(|(slots, _)| *slots < task.slots)?;
    let words = format!(
        "{:?} takes {} of pool {:?}, which has {slots} ({}): it never runs; lower pool_slots to at most {slots}, or raise \
         the pool's slots to {}",
        task.name,
        counted(task.slots, "slot", "slots"),
        task.pool,
        known.position(),
        task.slots,
    );
    Some(dags.find(Severity::Error, (&task.path, task.place), "pool_slots", &words))
}

/// Only Airflow's own file tells that a pool is nowhere.
fn without_pool(
    dags: &Dags,
    pool: &str,
    tasks: &[&Task],
    similar: Option<&str>,
    complete: bool,
) -> Option<Finding> {
    let first = tasks.first()?;
    let who = first_of(&first.name, tasks.len(), ("is", "are"));
    let fix = similar.map_or_else(
        || "make it, or correct the name".to_owned(),
        |name| format!("is {name:?} meant?"),
    );
    let (severity, words) = if complete {
        (
            Severity::Error,
            format!("there is no pool {pool:?}: {who} never scheduled; {fix}"),
        )
    } else if similar.is_some() {
        (
            Severity::Warning,
            format!("no Pool of these files is {pool:?}: without it {who} never scheduled; {fix}"),
        )
    } else {
        (
            Severity::Note,
            format!("no Pool of these files is {pool:?}: it must exist in Airflow, or {who} never scheduled"),
        )
    };
    Some(dags.find(severity, (&first.path, first.place), "pool", &words))
}

/// Pools that one DAG alone uses, and can never fill because of its own limit.
pub fn unfilled(dags: &Dags, pools: &Pools) -> Vec<Finding> {
    let mut users: BTreeMap<&str, Vec<(&Dag, u64)>> = BTreeMap::new();
    for dag in &dags.all {
        let mut widest: BTreeMap<&str, u64> = BTreeMap::new();
        for task in &dag.tasks {
            let most = widest.entry(&task.pool).or_default();
            *most = task.slots.max(*most);
        }
        for (pool, slots) in widest {
            users.entry(pool).or_default().push((dag, slots));
        }
    }
    let alone = users.iter().filter_map(|(pool, users)| match users.as_slice() {
        // Tasks that no one has described are in that one.
        [one] if *pool != DEFAULT_AIRFLOW_POOL => Some((*pool, *one)),
        _ => None,
    });
    alone
        .filter_map(|(pool, (dag, widest))| unfilled_by(dags, dag, pool, widest, pools))
        .collect()
}

fn unfilled_by(dags: &Dags, dag: &Dag, pool: &str, widest: u64, pools: &Pools) -> Option<Finding> {
    let (slots, known) = pools.limited(pool)?;
    let most = dag.most_tasks.saturating_mul(widest);
    if most >= slots {
        return None;
    }
    let (tasks, fitting) = (dag.most_tasks, slots.div_ceil(widest));
    let slots_of = format!(
        "the {slots} slots of pool {pool:?} ({}), which no other DAG uses",
        known.position()
    );
    let sum = format!("max_active_tasks {tasks} × pool_slots {widest} = {most}");
    let all = dags.most_at_once(dag).saturating_mul(widest);
    let (severity, words) = if dags.major.is_some_and(|major| major < 3) {
        let words = format!(
            "{sum} for all runs of DAG {:?} together: it never takes more of {slots_of}",
            dag.id
        );
        (Severity::Warning, words)
    } else if all < slots {
        let words = format!(
            "{sum} for each run, and max_active_runs {} makes {all} at most: DAG {:?} never takes more of {slots_of}",
            dag.most_runs, dag.id
        );
        (Severity::Warning, words)
    } else {
        let words = format!(
            "{sum}: one run of DAG {:?} takes no more of {slots_of}. Airflow 3 counts each run for itself, Airflow 2 all \
             runs together",
            dag.id
        );
        (Severity::Note, words)
    };
    let words = format!("{words}; raise max_active_tasks to {fitting}, or lower the pool's slots to {most}");
    Some(dags.find(severity, (&dag.path, dag.place), "max_active_tasks", &words))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::pool;
    use super::super::testing::{dag, dags, pools, said};

    #[test]
    fn a_task_wider_than_its_pool_never_runs() {
        let of = |slots: i32, task: &str| {
            said(
                &[],
                &pools(&[("s3", slots)]),
                &dags("3.3.2", &[dag("d", 64, &[task])]),
            )
        };
        let wide = r#""id": "t", "pool": "s3", "pool_slots": 3"#;
        assert_eq!(
            of(2, wide),
            [
                "error: dags[0].tasks[0].pool_slots: \"d.t\" takes 3 slots of pool \"s3\", which has 2 (pools.json:2): it \
                 never runs; lower pool_slots to at most 2, or raise the pool's slots to 3"
            ]
        );
        for slots in [3, -1, 0] {
            assert_eq!(of(slots, wide), [""; 0], "{slots}");
        }
    }

    #[test]
    fn a_task_without_a_pool_is_never_scheduled() {
        let tasks = dags(
            "3.3.2",
            &[dag(
                "d",
                64,
                &[
                    r#""id": "a", "pool": "s4""#,
                    r#""id": "b", "pool": "s4""#,
                    r#""id": "c""#,
                ],
            )],
        );
        let known = pools(&[("mail", 2), ("ftp", 1)]);
        assert_eq!(
            said(&[], &known, &tasks),
            [
                "error: dags[0].tasks[0].pool: there is no pool \"s4\": \"d.a\" and 1 more task are never scheduled; make it, \
                 or correct the name"
            ]
        );
        let near = said(&[], &known, &tasks.replace("s4", "mai")).concat();
        assert!(near.ends_with("is \"mail\" meant?"), "{near}");
        assert_eq!(said(&[], &known, &tasks.replace("s4", "ftp")), [""; 0]);
    }

    /// Pools of the manifests may not be all.
    #[test]
    fn a_pool_that_no_manifest_has_may_exist() {
        let manifest = pool("mail", "slots: 4, airflow: {secretRef: {name: s}}");
        let of = |name: &str| {
            let task = format!(r#""id": "a", "pool": "{name}", "pool_slots": 5"#);
            said(
                std::slice::from_ref(&manifest),
                "",
                &dags("3.3.2", &[dag("d", 64, &[&task])]),
            )
        };
        let found = of("s3").concat();
        assert!(
            found.starts_with("note: dags[0].tasks[0].pool: no Pool of these files is \"s3\": it must exist in Airflow, or \"d.a\" is"),
            "{found}"
        );
        let near = of("mai").concat();
        assert!(
            near.starts_with("warning: dags[0].tasks[0].pool: no Pool of these files is \"mai\""),
            "{near}"
        );
        let wide = of("mail").concat();
        assert!(
            wide.contains("takes 5 slots of pool \"mail\", which has 4 (a.yaml:5)"),
            "{wide}"
        );
    }

    #[test]
    fn a_pool_that_its_only_dag_never_fills_is_told_by_version() {
        let own = r#""id": "t", "pool": "s3", "pool_slots": 2"#;
        let of = |version: &str, most: u64, runs: u64| {
            let dag = dag("d", most, &[own]).replacen(
                "\"tasks\"",
                &format!("\"max_active_runs\": {runs}, \"tasks\""),
                1,
            );
            said(&[], &pools(&[("s3", 20)]), &dags(version, &[dag])).concat()
        };
        assert_eq!(
            of("2.11.2", 9, 16),
            "warning: dags[0].max_active_tasks: max_active_tasks 9 × pool_slots 2 = 18 for all runs of DAG \"d\" together: it \
             never takes more of the 20 slots of pool \"s3\" (pools.json:2), which no other DAG uses; raise \
             max_active_tasks to 10, or lower the pool's slots to 18"
        );
        let one_run = of("3.3.2", 9, 1);
        assert!(
            one_run.starts_with("warning: ") && one_run.contains("max_active_runs 1 makes 18 at most"),
            "{one_run}"
        );
        let runs = of("3.3.2", 9, 2);
        assert!(
            runs.starts_with("note: ") && runs.contains("Airflow 3 counts each run for itself"),
            "{runs}"
        );
        for version in ["2.11.2", "3.3.2"] {
            assert_eq!(of(version, 10, 1), "", "{version}");
        }
    }

    #[test]
    fn a_pool_of_two_dags_and_the_default_pool_are_not_told() {
        let own = r#""id": "t", "pool": "s3""#;
        let two = [dag("d", 1, &[own]), dag("e", 1, &[own])];
        assert_eq!(said(&[], &pools(&[("s3", 20)]), &dags("2.11.2", &two)), [""; 0]);
        let default = [dag("d", 1, &[r#""id": "t""#])];
        assert_eq!(
            said(&[], &pools(&[("default_pool", 128)]), &dags("2.11.2", &default)),
            [""; 0]
        );
    }
}
