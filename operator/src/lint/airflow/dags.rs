//! DAGs and their tasks, as a script writes them from Airflow's `DagBag`.
//!
//! Only what is written for a task is known: how often a task is mapped, and how long it takes, is not.

use poolwright_api::v1alpha1::DEFAULT_AIRFLOW_POOL;
use poolwright_core::executor::Executors;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::document::Place;
use super::super::{Finding, Severity};
use super::config::Config;
use super::{Cursor, syntax};

/// What the file looks like.
const FORM: &str =
    r#"like {"dags": [{"id": "etl", "max_active_tasks": 16, "tasks": [{"id": "load", "pool": "db"}]}]}"#;

/// All DAGs.
pub struct Dags {
    /// Name of the file.
    pub file: String,
    /// First number of Airflow's version, if it is written.
    pub major: Option<u32>,
    /// In the order of the file.
    pub all: Vec<Dag>,
}

/// One DAG.
pub struct Dag {
    /// `dag_id`.
    pub id: String,
    /// Path in the file.
    pub path: String,
    /// Where its id is.
    pub place: Place,
    /// `max_active_tasks`.
    pub most_tasks: u64,
    /// `max_active_runs`; without a limit as many as a number can say.
    pub most_runs: u64,
    /// In the order of the file.
    pub tasks: Vec<Task>,
}

/// One task.
pub struct Task {
    /// `dag_id.task_id`, for people.
    pub name: String,
    /// Path in the file.
    pub path: String,
    /// Where its id is.
    pub place: Place,
    /// Its pool.
    pub pool: String,
    /// `pool_slots`, at least 1.
    pub slots: u64,
    /// Its queue.
    pub queue: String,
    /// `priority_weight` as it is written in the DAG.
    pub weight: i64,
    /// Whether Celery's workers run it.
    pub on_celery: bool,
}

impl Dags {
    /// The tasks of all.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.all.iter().flat_map(|dag| &dag.tasks)
    }

    /// A finding about a field of a DAG or task.
    pub fn find(&self, severity: Severity, at: (&str, Place), field: &str, words: &str) -> Finding {
        let (path, place) = at;
        Finding::new(&self.file, place, severity, &format!("{path}.{field}"), words)
    }

    /// Most tasks of a DAG at a time.
    pub fn most_at_once(&self, dag: &Dag) -> u64 {
        match self.major {
            Some(..3) => dag.most_tasks,
            // The limit is for each run.
            _ => dag.most_tasks.saturating_mul(dag.most_runs),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(default)]
    airflow: Option<String>,
    #[serde(borrow)]
    dags: Vec<FileDag<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDag<'a> {
    /// As it is written, so that its place is known.
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(default)]
    max_active_tasks: Option<u64>,
    #[serde(default)]
    max_active_runs: Option<u64>,
    #[serde(borrow)]
    tasks: Vec<FileTask<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTask<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    pool_slots: Option<i64>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    priority_weight: Option<i64>,
    #[serde(default)]
    executor: Option<String>,
}

/// The DAGs of a text with the defaults of `config`, and what is wrong with it.
pub fn read(file: &str, text: &str, config: &Config) -> (Option<Dags>, Vec<Finding>) {
    let written: File<'_> = match serde_json::from_str(text) {
        Ok(written) => written,
        Err(error) => return (None, vec![syntax(file, &error, FORM)]),
    };
    let version = written.airflow.as_deref().and_then(|text| text.split('.').next());
    let mut dags = Dags {
        file: file.to_owned(),
        major: version.and_then(|major| major.parse().ok()),
        all: Vec::new(),
    };
    let mut reader = Reader {
        text,
        cursor: Cursor::new(text),
        config,
        executors: Executors::read(&config.executor).with_kubernetes_queue(&config.kubernetes_queue),
        findings: Vec::new(),
    };
    for (at, dag) in written.dags.into_iter().enumerate() {
        let dag = reader.dag(file, format!("dags[{at}]"), dag);
        dags.all.push(dag);
    }
    (Some(dags), reader.findings)
}

struct Reader<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
    config: &'a Config,
    executors: Executors,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn dag(&mut self, file: &str, path: String, dag: FileDag<'_>) -> Dag {
        let (id, place) = self.id(file, &path, dag.id);
        let tasks = dag.tasks.into_iter().enumerate();
        let tasks = tasks
            .map(|(at, task)| self.task(file, &id, format!("{path}.tasks[{at}]"), task))
            .collect();
        let most_runs = dag.max_active_runs.unwrap_or(self.config.most_runs);
        Dag {
            id,
            path,
            place,
            most_tasks: dag.max_active_tasks.unwrap_or(self.config.most_tasks),
            most_runs: if most_runs == 0 { u64::MAX } else { most_runs },
            tasks,
        }
    }

    fn task(&mut self, file: &str, dag: &str, path: String, task: FileTask<'_>) -> Task {
        let (id, place) = self.id(file, &path, task.id);
        let name = format!("{dag}.{id}");
        let slots = task.pool_slots.unwrap_or(1);
        if slots < 1 {
            let path = format!("{path}.pool_slots");
            let words = format!("must be at least 1, is {slots} for {name:?}: Airflow refuses such a DAG");
            self.findings
                .push(Finding::new(file, place, Severity::Error, &path, &words));
        }
        let queue = task.queue.unwrap_or_else(|| self.config.queue.clone());
        Task {
            name,
            on_celery: self.executors.is_celery(task.executor.as_deref(), &queue),
            path,
            place,
            pool: task.pool.unwrap_or_else(|| DEFAULT_AIRFLOW_POOL.to_owned()),
            slots: slots.max(1).unsigned_abs(),
            queue,
            weight: task.priority_weight.unwrap_or(1),
        }
    }

    /// An id and its place.
    fn id(&mut self, file: &str, path: &str, id: &RawValue) -> (String, Place) {
        let written = id.get();
        // The value borrows from the text.
        let offset = (written.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let place = self.cursor.place(offset);
        let id = serde_json::from_str(written).unwrap_or_else(|_| {
            let words = format!("must be text, is {written}");
            let path = format!("{path}.id");
            self.findings
                .push(Finding::new(file, place, Severity::Error, &path, &words));
            written.to_owned()
        });
        (id, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let (_, findings) = read("tasks.json", text, &Config::default());
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_absent_is_airflows_default() {
        let config = Config {
            queue: "main".to_owned(),
            most_tasks: 7,
            executor: "KubernetesExecutor".to_owned(),
            ..Config::default()
        };
        let text = r#"{"airflow": "2.11.2", "dags": [{"id": "a", "tasks": [{"id": "b"},
            {"id": "ü", "pool": "p", "pool_slots": 2, "queue": "q", "priority_weight": -3, "executor": "CeleryExecutor"},
            {"id": "null", "pool": null, "executor": null}]}]}"#;
        let (dags, findings) = read("tasks.json", text, &config);
        assert_eq!(findings, []);
        let dags = dags.unwrap();
        let dag = &dags.all[0];
        assert_eq!((dags.major, dag.most_tasks, dag.most_runs), (Some(2), 7, 16));
        let first = &dag.tasks[0];
        assert_eq!(
            (first.pool.as_str(), first.queue.as_str()),
            ("default_pool", "main")
        );
        assert_eq!((first.slots, first.weight, first.on_celery), (1, 1, false));
        assert_eq!(first.name, "a.b");
        let second = &dag.tasks[1];
        assert_eq!((second.slots, second.weight, second.on_celery), (2, -3, true));
        assert_eq!((second.pool.as_str(), second.queue.as_str()), ("p", "q"));
        assert_eq!(second.place, Place { line: 2, column: 20 });
        assert_eq!(dag.tasks[2].place, Place { line: 3, column: 20 });
        assert_eq!(dags.tasks().count(), 3);
    }

    #[test]
    fn a_limit_counts_for_each_run_from_version_three_on() {
        let most = |version: &str| {
            let text = format!(
                r#"{{{version} "dags": [{{"id": "a", "max_active_tasks": 4, "max_active_runs": 3, "tasks": []}}]}}"#
            );
            let (dags, _) = read("t", &text, &Config::default());
            let dags = dags.unwrap();
            dags.most_at_once(&dags.all[0])
        };
        assert_eq!(most(r#""airflow": "2.11.2","#), 4);
        assert_eq!(most(r#""airflow": "3.3.2","#), 12);
        assert_eq!(most(""), 12);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let task = |task: &str| {
            said(&format!(
                "{{\"dags\": [{{\"id\": \"a\", \"tasks\": [\n{task}]}}]}}"
            ))
        };
        for slots in [0, -3] {
            assert_eq!(
                task(&format!(r#"{{"id": "b", "pool_slots": {slots}}}"#)),
                format!(
                    "tasks.json:2:8: error: dags[0].tasks[0].pool_slots: must be at least 1, is {slots} for \"a.b\": Airflow \
                     refuses such a DAG"
                )
            );
        }
        assert!(task(r#"{"id": 7}"#).contains("dags[0].tasks[0].id: must be text, is 7"));
        let typo = task(r#"{"id": "b", "pol": "c"}"#);
        assert!(
            typo.starts_with("tasks.json:2:17: error: unknown field `pol`")
                && typo.contains("It should be like"),
            "{typo}"
        );
        assert!(
            task(r#"{"id": "b", "pool_slots": 1.5}"#).starts_with("tasks.json:2:29: error: invalid type")
        );
        assert!(said("[").contains("error: "));
        assert_eq!(task(r#"{"id": "b"}"#), "");
    }
}
