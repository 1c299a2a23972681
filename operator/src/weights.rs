//! `poolwright weights`: what each task of a graph weighs under the three rules.
//!
//! Says which task goes first where a full pool keeps several waiting. Reads one file and asks nobody; the arithmetic is
//! the one by which queues weigh (`poolwright_core::weight`).

use std::collections::BTreeMap;
use std::io::{self, Write};

use poolwright_api::text::printable;
use poolwright_core::weight::{GraphError, Node, by_rule};
use serde::Deserialize;

use crate::cli::WeightsArgs;
use crate::input;

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(String, #[source] io::Error),
    /// It is not of this form.
    #[error(
        "{0}: {words}. It should be like {{\"tasks\": [{{\"id\": \"a\", \"weight\": 1, \"downstream\": [\"b\"]}}, {{\"id\": \"b\"}}]}}",
        words = printable(&.1.to_string())
    )]
    Form(String, #[source] serde_json::Error),
    /// Two tasks have the same name.
    #[error("{0}: two tasks have the id {1:?}: give one of them another, and name it in `downstream`")]
    Twice(String, String),
    /// The graph has no weights.
    #[error("{0}: {words}", words = printable(&.1.to_string()))]
    Graph(String, #[source] GraphError),
    /// Nobody takes the answer.
    #[error("cannot write the table: {0}")]
    Write(#[from] io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    id: String,
    #[serde(default = "one")]
    weight: i64,
    #[serde(default)]
    downstream: Vec<String>,
}

/// What a task weighs where nothing is said, as in Airflow.
const fn one() -> i64 {
    1
}

/// Prints a line for each task, in the order of the file.
///
/// # Errors
///
/// [`WeightsError`], with the file's name and where in it.
pub fn run(args: &WeightsArgs, output: &mut impl Write) -> Result<(), WeightsError> {
    let file = args.file.display().to_string();
    let text = input::read(&args.file).map_err(|error| WeightsError::Read(file.clone(), error))?;
    output.write_all(table(&file, &text)?.as_bytes())?;
    Ok(())
}

pub(crate) fn table(file: &str, text: &str) -> Result<String, WeightsError> {
    let graph: Graph =
        serde_json::from_str(text).map_err(|error| WeightsError::Form(file.to_owned(), error))?;
    // Each with what is printed of it.
    let ids: Vec<(String, String)> = graph
        .tasks
        .iter()
        .map(|task| (task.id.clone(), printable(&task.id)))
        .collect();
    let mut nodes = BTreeMap::new();
    for task in graph.tasks {
        let node = Node {
            weight: task.weight,
            downstream: task.downstream,
        };
        if nodes.insert(task.id.clone(), node).is_some() {
            return Err(WeightsError::Twice(file.to_owned(), task.id));
        }
    }
    let found = by_rule(&nodes).map_err(|error| WeightsError::Graph(file.to_owned(), error))?;
    let width = ids
        .iter()
        .map(|(_, printed)| printed.chars().count())
        .max()
        .unwrap_or(0)
        .max("TASK".len());
    let row = |id: &str, numbers: [&str; 3]| {
        let [downstream, upstream, absolute] = numbers;
        format!("{id:width$}  {downstream:>10}  {upstream:>10}  {absolute:>10}\n")
    };
    let mut table = row("TASK", ["DOWNSTREAM", "UPSTREAM", "ABSOLUTE"]);
    for (id, printed) in &ids {
        let one = found[id.as_str()];
        let numbers = [one.downstream, one.upstream, one.absolute].map(|number| number.to_string());
        table.push_str(&row(printed, numbers.each_ref().map(String::as_str)));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        table("dag.json", text).map_err(|error| error.to_string())
    }

    #[test]
    fn tasks_are_told_in_the_order_of_the_file() {
        let text = r#"{"tasks": [
            {"id": "load", "weight": 2},
            {"id": "extract", "downstream": ["clean", "enrich"]},
            {"id": "clean", "weight": 2, "downstream": ["load"]},
            {"id": "enrich", "weight": -3, "downstream": ["load"]}
        ]}"#;
        let expected = "\
TASK     DOWNSTREAM    UPSTREAM    ABSOLUTE
load              2           2           2
extract           2           1           1
clean             4           3           2
enrich           -1          -2          -3
";
        assert_eq!(of(text).unwrap(), expected);
        assert_eq!(of(r#"{"tasks": []}"#).unwrap().lines().count(), 1);
    }

    #[test]
    fn nothing_is_printed_that_a_terminal_obeys() {
        let clean = |text: &str| text.chars().all(|c| !c.is_control() || c == '\n');
        let table = of(r#"{"tasks": [{"id": "a\u001b[2J\rb"}]}"#).unwrap();
        assert!(clean(&table) && table.contains("\na [2J b "), "{table:?}");
        for wrong in [
            r#"{"tasks": [{"id": "a\u001b", "downstream": ["a\u001b"]}]}"#,
            r#"{"tasks": [{"\u001b": 1}]}"#,
            r#"{"tasks": [{"id": "a\u001b"}, {"id": "a\u001b"}]}"#,
            r#"{"tasks": [{"id": "a", "downstream": ["a\u001b"]}]}"#,
        ] {
            let error = of(wrong).unwrap_err();
            assert!(clean(&error), "{error:?}");
        }
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dag.json");
        std::fs::write(&file, "\u{feff}{\"tasks\": []}").unwrap();
        let mut output = Vec::new();
        run(&WeightsArgs { file }, &mut output).unwrap();
        assert!(output.starts_with(b"TASK"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases = [
            (
                "{\"tasks\": [\n{\"id\": 1}]}",
                "dag.json: invalid type: integer `1`, expected a string at line 2",
            ),
            (
                r#"{"tasks": [{"id": "a", "wieght": 1}]}"#,
                "unknown field `wieght`",
            ),
            (r#"{"tasks": [{"id": "a", "weight": 0.5}]}"#, "expected i64"),
            (
                r#"{"tasks": [{"id": "a"}, {"id": "a"}]}"#,
                "two tasks have the id \"a\"",
            ),
            (
                r#"{"tasks": [{"id": "a", "downstream": ["b"]}]}"#,
                "names \"b\", and there is no such task",
            ),
            (
                r#"{"tasks": [{"id": "a", "downstream": ["a"]}]}"#,
                "in a circle, a -> a",
            ),
        ];
        for (text, words) in cases {
            let error = of(text).unwrap_err();
            assert!(
                error.starts_with("dag.json: ") && error.contains(words),
                "{error}"
            );
        }
    }
}
