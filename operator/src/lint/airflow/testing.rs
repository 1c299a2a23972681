//! Set-ups for tests in as few words as they need, and what is said of them.

use super::super::lint_with;
use super::super::testing::{queue, worker};
use super::Inputs;

/// Airflow's file of pools, each on a line of its own from the second on.
pub fn pools(named: &[(&str, i32)]) -> String {
    let pool =
        |(name, slots): &(&str, i32)| format!("{name:?}: {{\"slots\": {slots}, \"description\": null}}");
    let pools: Vec<String> = named.iter().map(pool).collect();
    format!("{{\n{}\n}}", pools.join(",\n"))
}

/// A DAG with these tasks, each of which is the inside of a map.
pub fn dag(id: &str, most: u64, tasks: &[&str]) -> String {
    let tasks: Vec<String> = tasks.iter().map(|task| format!("{{{task}}}")).collect();
    format!(
        "{{\"id\": {id:?}, \"max_active_tasks\": {most}, \"tasks\": [{}]}}",
        tasks.join(", ")
    )
}

/// The file of these DAGs, written by a version of Airflow.
pub fn dags(version: &str, dags: &[String]) -> String {
    format!("{{\"airflow\": {version:?}, \"dags\": [{}]}}", dags.join(", "))
}

/// A WorkerPool of Airflow's on these queues, whose pods take four tasks.
pub fn airflow_worker(name: &str, queues: &[&str], more: &str) -> String {
    let celery = "celery: {app: shop, concurrency: 4, prefetchMultiplier: 1}";
    let airflow = "airflow: {concurrency: 4, longestTaskSeconds: 600}";
    worker(name, queues, more)
        .replace(celery, airflow)
        .replace("class: General, ", "")
}

/// What is found, without places; an empty text is a file that is not given. What lint finds without an Airflow is left
/// out.
pub fn said(manifests: &[String], pools: &str, tasks: &str) -> Vec<String> {
    said_with(manifests, "", pools, tasks)
}

/// The same with a configuration.
pub fn said_with(manifests: &[String], config: &str, pools: &str, tasks: &str) -> Vec<String> {
    let source = |name: &str, text: &str| (!text.is_empty()).then(|| (name.to_owned(), text.to_owned()));
    let inputs = Inputs {
        config: source("airflow.cfg", config),
        pools: source("pools.json", pools),
        tasks: source("tasks.json", tasks),
    };
    let manifests: Vec<_> = source("a.yaml", &manifests.concat()).into_iter().collect();
    let before = super::super::lint(&manifests);
    let report = lint_with(&manifests, &inputs);
    assert!(!before.has_errors(), "{before}");
    let new = report
        .findings
        .iter()
        .filter(|finding| !before.findings.contains(finding));
    let words = new.map(|finding| {
        let place = format!(
            "{}:{}:{}: ",
            finding.file, finding.place.line, finding.place.column
        );
        finding.to_string().replacen(&place, "", 1)
    });
    words.collect()
}

pub const TEN: &str = "scaling: {maxReplicas: 10}";

/// A queue, `more` of it, and ten workers of four slots.
pub fn fleet(more: &str) -> Vec<String> {
    vec![queue("default", more), airflow_worker("w", &["default"], TEN)]
}
