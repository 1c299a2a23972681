//! The parsers of an Airflow's files, for the fuzzer.

use super::config::Config;
use super::{Inputs, config, dags};
use crate::fuzz::Target;
use crate::lint::lint_with;

const CONFIG: &str = include_str!("../testdata/airflow/airflow.cfg");
const LISTED: &str = "[core]\n# parallelism = 2\nParallelism: 64\nexecutor = CeleryExecutor,KubernetesExecutor\nmax_active_tasks_per_dag=8\n    16\n[operators]\ndefault_queue = default\n[scheduler]\ntask_queued_timeout = 600.0\n[database]\nsql_alchemy_conn = < hidden >\n";
const TASKS: &str = include_str!("../testdata/airflow/tasks.json");
const POOLS: &str = include_str!("../testdata/airflow/pools.json");
const FLEET: &str = include_str!("../testdata/airflow/fleet.yaml");

/// All of them.
pub(in crate::lint) fn targets() -> Vec<Target> {
    let source = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    vec![
        Target::text("airflow: airflow.cfg", &[CONFIG, LISTED], |text| {
            let (config, findings) = config::read("airflow.cfg", text);
            findings.len() + config.map_or(0, |config| config.executor.len() + config.queue.len())
        })
        .words(&[
            "[core]",
            "[",
            "]",
            "parallelism = ",
            "= ",
            ": ",
            "#",
            "< hidden >",
            "executor = ",
            "\n ",
            "\r",
        ])
        .slow(),
        Target::text("airflow: DAGs", &[TASKS], |text| {
            let (dags, findings) = dags::read("tasks.json", text, &Config::default());
            findings.len()
                + dags.map_or(0, |dags| {
                    dags.tasks().map(|task| task.pool.len() + task.queue.len()).sum()
                })
        })
        .words(&[
            "dags",
            "id",
            "tasks",
            "pool",
            "pool_slots",
            "priority_weight",
            "max_active_runs",
            "airflow",
            "executor",
            "null",
        ])
        .slow(),
        Target::text(
            "airflow: lint of all its files",
            &[TASKS, POOLS, LISTED],
            move |text| {
                let known = |config: &str, pools: &str, tasks: &str| Inputs {
                    config: Some(source("airflow.cfg", config)),
                    pools: Some(source("pools.json", pools)),
                    tasks: Some(source("tasks.json", tasks)),
                };
                // The text is the file that it looks like.
                let inputs = if text.contains("dags") {
                    known(LISTED, POOLS, text)
                } else if text.trim_start().starts_with('{') {
                    known(LISTED, text, TASKS)
                } else {
                    known(text, POOLS, TASKS)
                };
                lint_with(&[source("fleet.yaml", FLEET)], &inputs).findings.len()
            },
        )
        .words(&["dags", "tasks", "pool", "slots", "parallelism = "])
        .fleet(),
    ]
}
