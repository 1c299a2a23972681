//! An Airflow's set-up: its configuration, pools and tasks, checked together with the workers of the manifests.
//!
//! Says what none of them shows alone: slots that are never busy, tasks that never run, and tasks that fail because they
//! wait too long. Reads only what is named: what nobody gave, nothing is said about. The bounds that it calculates are the
//! most that is possible, so that what it says is so for every run of the tasks.

mod claims;
mod config;
mod dags;
mod fleet;
#[cfg(test)]
pub(super) mod fuzzed;
mod names;
mod overfed;
mod pools;
mod priority;
mod tasks;
#[cfg(test)]
mod testing;
mod together;

use std::io;
use std::path::Path;

use super::document::Place;
use super::objects::Read;
use super::workers::{self, Worker};
use super::{Finding, Severity, named};
use crate::cli::LintArgs;
use crate::input;
use config::Config;
use dags::Dags;
use pools::Pools;
use poolwright_api::text::counted;
use poolwright_core::validate::Program;

/// Names for which similar ones are sought; each is compared with all that there are.
const SOUGHT_MAX: usize = 100;

/// A text and the name that findings show.
pub type Source = (String, String);

/// What is known of an Airflow beside the manifests.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `airflow.cfg`.
    pub config: Option<Source>,
    /// What `airflow pools export` wrote.
    pub pools: Option<Source>,
    /// DAGs and their tasks.
    pub tasks: Option<Source>,
}

impl Inputs {
    /// Reads the files that are named.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn read(args: &LintArgs) -> io::Result<Self> {
        let source = |path: &Option<_>| path.as_deref().map(source).transpose();
        Ok(Self {
            config: source(&args.airflow_config)?,
            pools: source(&args.airflow_pools)?,
            tasks: source(&args.airflow_tasks)?,
        })
    }

    /// The texts that there are.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.config, &self.pools, &self.tasks].into_iter().flatten()
    }
}

fn source(path: &Path) -> io::Result<Source> {
    let text = input::read(path).map_err(|error| named(path, &error))?;
    let name = path.display().to_string();
    Ok((if name == "-" { "stdin".to_owned() } else { name }, text))
}

/// All that is known together.
struct Setup<'a> {
    /// `None` if nobody gave one that can be read.
    config: Option<Config>,
    pools: Pools,
    /// `None` if nobody gave any that can be read.
    dags: Option<Dags>,
    /// Those with `spec.airflow`.
    workers: Vec<&'a Worker<'a>>,
    all: &'a [Read<'a>],
}

impl Setup<'_> {
    /// The configuration, or Airflow's defaults.
    fn config(&self) -> Config {
        self.config.clone().unwrap_or_default()
    }
}

/// Everything found about the set-up.
#[must_use]
pub fn check(inputs: &Inputs, all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = inputs.config.as_ref().and_then(|(file, text)| {
        let (config, found) = config::read(file, text);
        findings.extend(found);
        config
    });
    let (pools, found) = pools::read(inputs.pools.as_ref(), all);
    findings.extend(found);
    let dags = inputs.tasks.as_ref().and_then(|(file, text)| {
        let defaults = config.clone().unwrap_or_default();
        let (dags, found) = dags::read(file, text, &defaults);
        findings.extend(found);
        // Of tasks whose defaults cannot be read nothing that is said would be certain.
        dags.filter(|_| inputs.config.is_none() || config.is_some())
    });
    // What is wrong with them is told by then.
    let (valid, _) = workers::check(all);
    let workers = valid
        .iter()
        .filter(|worker| worker.pool.program == Program::Airflow)
        .collect();
    let setup = Setup {
        config,
        pools,
        dags,
        workers,
        all,
    };
    findings.extend(claims::contested(all));
    findings.extend(names::overlaps(&setup.pools));
    findings.extend(fleet::elsewhere(&setup));
    findings.extend(fleet::parallelism(&setup));
    if let Some(dags) = &setup.dags {
        findings.extend(tasks::unfilled(dags, &setup.pools));
        findings.extend(tasks::never_run(dags, &setup.pools));
        findings.extend(priority::drowned(dags, &setup.pools));
        findings.extend(fleet::unconsumed(dags, &setup));
        findings.extend(overfed::overfed(dags, &setup));
    }
    findings
}

/// What JSON gets wrong, at its place.
fn syntax(file: &str, error: &serde_json::Error, form: &str) -> Finding {
    let number = |number: usize| u64::try_from(number.max(1)).unwrap_or(1);
    let place = Place {
        line: number(error.line()),
        column: number(error.column()),
    };
    let words = error.to_string();
    let end = words.rfind(" at line ").unwrap_or(words.len());
    let words = format!("{}. It should be {form}", words.get(..end).unwrap_or_default());
    Finding::new(file, place, Severity::Error, "", &words)
}

/// Finds lines and columns of places in a text that are asked for in rising order, in one pass over it.
struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    place: Place,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        let place = Place { line: 1, column: 1 };
        Self {
            text,
            offset: 0,
            place,
        }
    }

    fn place(&mut self, offset: usize) -> Place {
        let passed = self.text.get(self.offset..offset).unwrap_or_default();
        for c in passed.chars() {
            if c == '\n' {
                self.place.line += 1;
                self.place.column = 1;
            } else {
                self.place.column += 1;
            }
        }
        self.offset = self.offset.max(offset);
        self.place
    }
}

/// The first of so many tasks by its name, and how many more there are, with the verb for one and for several.
fn first_of(name: &str, tasks: usize, (one, several): (&str, &str)) -> String {
    match tasks.saturating_sub(1) {
        0 => format!("{name:?} {one}"),
        more => format!(
            "{name:?} and {} {several}",
            counted(more, "more task", "more tasks")
        ),
    }
}

/// Names in words: at most three, and how many more there are.
fn few<T: AsRef<str>>(names: &[T]) -> String {
    const FEW: usize = 3;
    let mut words: Vec<String> = names
        .iter()
        .take(FEW)
        .map(|name| name.as_ref().to_owned())
        .collect();
    let more = names.len().saturating_sub(FEW);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::run;
    use super::*;

    fn testdata(file: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("src/lint/testdata/airflow")
            .join(file)
    }

    fn args() -> LintArgs {
        LintArgs {
            files: vec![testdata("fleet.yaml")],
            airflow_config: Some(testdata("airflow.cfg")),
            airflow_pools: Some(testdata("pools.json")),
            airflow_tasks: Some(testdata("tasks.json")),
            strict: false,
        }
    }

    /// `UPDATE=1` writes the expected text anew; each line of it was compared with the files by eye.
    #[test]
    fn a_set_up_is_checked_together() {
        let mut output = Vec::new();
        assert!(!run(&args(), &mut output).unwrap(), "an error is no success");
        let folder = format!("{}/", testdata("").display()).replace("//", "/");
        let found = String::from_utf8(output).unwrap().replace(&folder, "");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            fs::write(testdata("expected.txt"), &found).unwrap();
        }
        let expected = fs::read_to_string(testdata("expected.txt")).unwrap();
        assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
        assert!(!found.contains("hunter2"), "a password is repeated");
    }

    #[test]
    fn manifests_are_not_needed_and_missing_files_are_named() {
        let alone = LintArgs {
            files: Vec::new(),
            airflow_config: None,
            airflow_tasks: None,
            ..args()
        };
        let mut output = Vec::new();
        assert!(run(&alone, &mut output).unwrap());
        let text = String::from_utf8(output).unwrap();
        assert!(
            text.ends_with("0 errors, 1 warning, 1 note in 0 objects of 1 file\n"),
            "{text}"
        );
        let missing = LintArgs {
            airflow_tasks: Some(testdata("missing.json")),
            ..args()
        };
        let error = run(&missing, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("missing.json: "), "{error}");
    }

    #[test]
    fn files_with_a_byte_order_mark_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let marked = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let copy = folder.path().join(path.file_name().unwrap());
            fs::write(&copy, format!("\u{feff}{text}")).unwrap();
            copy
        };
        let plain = args();
        let marked = LintArgs {
            files: plain.files.iter().cloned().map(marked).collect(),
            airflow_config: plain.airflow_config.map(marked),
            airflow_pools: plain.airflow_pools.map(marked),
            airflow_tasks: plain.airflow_tasks.map(marked),
            strict: false,
        };
        let mut output = Vec::new();
        run(&marked, &mut output).unwrap();
        let found = String::from_utf8(output).unwrap();
        let found = found.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(found, fs::read_to_string(testdata("expected.txt")).unwrap());
    }

    /// A file that cannot be read hides no other.
    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let pools = "{\n\"a\": {\"slots\": -5}}";
        let found = testing::said_with(&[], "[core]\n", pools, "{\"dags\": 1}");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("error: holds no setting"), "{found:?}");
        assert!(
            found[1].starts_with("error: pool \"a\": slots must be"),
            "{found:?}"
        );
        assert!(found[2].starts_with("error: invalid type"), "{found:?}");
    }

    /// A default queue in the place of the hidden one has no worker.
    #[test]
    fn tasks_are_not_checked_with_defaults_in_the_place_of_hidden_values() {
        let tasks = testing::dags("3.3.2", &[testing::dag("d", 16, &[r#""id": "a""#])]);
        let manifests = [
            super::super::testing::queue("main", ""),
            testing::airflow_worker("w", &["main"], "scaling: {maxReplicas: 10}"),
        ];
        let of = |config: &str| testing::said_with(&manifests, config, "", &tasks);
        let found = of("[core]\nparallelism = 1\n[operators]\ndefault_queue = < hidden >\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("error: [operators] default_queue: is hidden"),
            "{found:?}"
        );
        assert_eq!(
            of("[core]\nparallelism = 40\n").len(),
            1,
            "the queue of the default"
        );
    }

    #[test]
    fn few_names_are_told_and_the_others_counted() {
        assert_eq!(few(&["a"]), "a");
        assert_eq!(few(&["a", "b", "c"]), "a, b and c");
        assert_eq!(few(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
