//! `airflow.cfg`: the few settings that decide how much runs at once.
//!
//! Reads lines as Python's `configparser` does: whole-line comments, `=` or `:`, and lines that go on indented. Settings
//! in the environment (`AIRFLOW__…`), which Airflow prefers, are not in the file: `airflow config list` writes both.

use poolwright_core::executor::KUBERNETES_QUEUE;

use super::super::document::Place;
use super::super::{Finding, Severity};

/// What `airflow config list` writes for a value that it does not show.
const HIDDEN: &str = "< hidden >";
/// What the file should be.
const FORM: &str =
    "it should be airflow.cfg, or what `airflow config list` writes, in Airflow 3 with --show-values";

/// Settings, with Airflow's defaults for what is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the file.
    pub file: String,
    /// `[core] parallelism`: tasks of one scheduler; 0 is no limit, in Airflow 2.
    pub parallelism: u64,
    /// Where that is written, or the beginning of the file.
    pub parallelism_place: Place,
    /// `[core] max_active_tasks_per_dag`.
    pub most_tasks: u64,
    /// `[core] max_active_runs_per_dag`.
    pub most_runs: u64,
    /// `[core] executor`: the first of them runs tasks that name none.
    pub executor: String,
    /// Where that is written, or the beginning of the file.
    pub executor_place: Place,
    /// `[celery_kubernetes_executor] kubernetes_queue`, in Airflow 2.
    pub kubernetes_queue: String,
    /// `[operators] default_queue`.
    pub queue: String,
    /// `[scheduler] task_queued_timeout`, in whole seconds.
    pub queued_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: String::new(),
            parallelism: 32,
            parallelism_place: Place { line: 1, column: 1 },
            most_tasks: 16,
            most_runs: 16,
            executor: "CeleryExecutor".to_owned(),
            executor_place: Place { line: 1, column: 1 },
            kubernetes_queue: KUBERNETES_QUEUE.to_owned(),
            queue: "default".to_owned(),
            queued_seconds: 600,
        }
    }
}

/// One setting of the file.
struct Line<'a> {
    section: &'a str,
    key: String,
    value: &'a str,
    place: Place,
}

/// Why a setting cannot be used.
enum Wrong {
    /// The file does not show it.
    Hidden,
    /// It is not what it must be; in words.
    Value(String),
}

/// The settings of a text, if it shows those that count, and what is wrong with them.
pub fn read(file: &str, text: &str) -> (Option<Config>, Vec<Finding>) {
    let settings = lines(text);
    let what = if settings.is_empty() {
        Some("holds no setting")
    } else if settings.iter().all(|line| line.section.is_empty()) {
        Some("has no section, such as [core]")
    } else {
        None
    };
    if let Some(what) = what {
        let place = Place { line: 1, column: 1 };
        let words = format!("{what}: {FORM}");
        return (None, vec![Finding::new(file, place, Severity::Error, "", &words)]);
    }
    let mut is_shown = true;
    let mut config = Config {
        file: file.to_owned(),
        ..Config::default()
    };
    let mut findings = Vec::new();
    for line in &settings {
        if let Err(wrong) = take(&mut config, line) {
            let path = format!("[{}] {}", line.section, line.key);
            is_shown &= !matches!(wrong, Wrong::Hidden);
            let words = match wrong {
                Wrong::Hidden => "is hidden, so nothing that goes by it is checked: write the file with \
                                  `airflow config list`, in Airflow 3 with --show-values, or give airflow.cfg itself"
                    .to_owned(),
                Wrong::Value(words) => words,
            };
            findings.push(Finding::new(file, line.place, Severity::Error, &path, &words));
        }
    }
    // A default in the place of a hidden value would make findings that are not so.
    (is_shown.then_some(config), findings)
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let (mut settings, mut section) = (Vec::new(), "");
    for (number, line) in (1..).zip(text.lines()) {
        let bare = line.trim();
        // An indented line goes on with the value before it, and none of these settings has more than one.
        if bare.is_empty() || bare.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(rest) = bare.strip_prefix('[') {
            section = rest.rsplit_once(']').map_or(rest, |(name, _)| name);
        } else if let Some((key, value)) = bare.split_once(['=', ':']) {
            settings.push(Line {
                section,
                key: key.trim().to_lowercase(),
                value: value.trim(),
                place: Place {
                    line: number,
                    column: 1,
                },
            });
        }
    }
    settings
}

/// Takes over a setting that is one of ours.
fn take(config: &mut Config, line: &Line<'_>) -> Result<(), Wrong> {
    match (line.section, line.key.as_str()) {
        ("core", "parallelism") => {
            config.parallelism = number(line.value)?;
            config.parallelism_place = line.place;
        }
        ("core", "max_active_tasks_per_dag") => config.most_tasks = number(line.value)?,
        ("core", "max_active_runs_per_dag") => config.most_runs = number(line.value)?,
        ("core", "executor") => {
            shown(line.value)?.clone_into(&mut config.executor);
            config.executor_place = line.place;
        }
        ("celery_kubernetes_executor", "kubernetes_queue") => {
            shown(line.value)?.clone_into(&mut config.kubernetes_queue);
        }
        ("operators", "default_queue") => shown(line.value)?.clone_into(&mut config.queue),
        ("scheduler", "task_queued_timeout") => {
            // Airflow takes a fraction of a second, too.
            let whole = line.value.split('.').next().unwrap_or_default();
            config.queued_seconds = number(whole)?;
        }
        _ => {}
    }
    Ok(())
}

fn shown(value: &str) -> Result<&str, Wrong> {
    if value == HIDDEN {
        return Err(Wrong::Hidden);
    }
    Ok(value)
}

fn number(value: &str) -> Result<u64, Wrong> {
    shown(value)?.parse().map_err(|_| {
        Wrong::Value(format!(
            "must be a whole number that is not negative, is {value:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_python_reads_them() {
        let text = "\
[2026-11-28T14:44:07] {default_celery.py:90} WARNING - [a] b
parallelism = 1
[core]
# parallelism = 2
; parallelism = 3
dags_folder = /opt/airflow/dags
Parallelism: 64
    parallelism = 4
max_active_tasks_per_dag=8
max_active_runs_per_dag = 2
executor = CeleryExecutor,KubernetesExecutor
[celery_kubernetes_executor]
kubernetes_queue = k8s
[operators]
default_queue = main
[scheduler]
task_queued_timeout = 900.5
parallelism = 5
";
        let (config, findings) = read("airflow.cfg", text);
        let expected = Config {
            file: "airflow.cfg".to_owned(),
            parallelism: 64,
            parallelism_place: Place { line: 7, column: 1 },
            most_tasks: 8,
            most_runs: 2,
            executor: "CeleryExecutor,KubernetesExecutor".to_owned(),
            executor_place: Place { line: 11, column: 1 },
            kubernetes_queue: "k8s".to_owned(),
            queue: "main".to_owned(),
            queued_seconds: 900,
        };
        assert_eq!(config, Some(expected));
        assert_eq!(findings, []);
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_place() {
        let said = |text: &str| {
            let (_, findings) = read("airflow.cfg", text);
            findings.iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(
            said("[core]\nparallelism = many\n"),
            "airflow.cfg:2:1: error: [core] parallelism: must be a whole number that is not negative, is \"many\""
        );
        assert!(said("[core]\nparallelism = -1\n").contains("is \"-1\""));
        // What `airflow config list` of version 3 writes without --show-values.
        let hidden = said("[core]\n# parallelism = \n");
        assert!(
            hidden.starts_with("airflow.cfg:1:1: error: holds no setting"),
            "{hidden}"
        );
        assert_eq!(said("[core]\nother = x\n"), "");
        for other in [
            "parallelism = 4\n",
            "{\"mail\": {\"slots\": 5}}",
            "config:\n  core:\n",
        ] {
            assert_eq!(
                said(other),
                "airflow.cfg:1:1: error: has no section, such as [core]: it should be airflow.cfg, or what `airflow config \
                 list` writes, in Airflow 3 with --show-values"
            );
        }
    }

    /// Neither a default nor the words that stand for it are its value.
    #[test]
    fn a_hidden_setting_is_told_and_replaced_by_nothing() {
        for (section, key) in [
            ("core", "parallelism"),
            ("core", "executor"),
            ("core", "max_active_tasks_per_dag"),
            ("celery_kubernetes_executor", "kubernetes_queue"),
            ("operators", "default_queue"),
            ("scheduler", "task_queued_timeout"),
        ] {
            let text = format!("[{section}]\n{key} = < hidden >\n");
            let (config, findings) = read("airflow.cfg", &text);
            assert_eq!(config, None, "{key}");
            let found: String = findings.iter().map(ToString::to_string).collect();
            let expected = format!("airflow.cfg:2:1: error: [{section}] {key}: is hidden, so nothing");
            assert!(found.starts_with(&expected), "{found}");
        }
        let (config, findings) = read(
            "airflow.cfg",
            "[core]\nfernet_key = < hidden >\nparallelism = 4\n",
        );
        assert_eq!(config.map(|config| config.parallelism), Some(4));
        assert_eq!(findings, [], "nobody reads that one");
    }
}
