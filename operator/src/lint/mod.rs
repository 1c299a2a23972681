//! `poolwright lint`: manifests checked without a cluster.
//!
//! What the API server, the operator and its advice would say, each with file, line and column. Reads only the files
//! that are named; asks neither cluster nor broker, so a Secret, a Pool or a TaskQueue that is elsewhere is not looked for.
//! User information in an address is never repeated.

pub mod airflow;
mod budgets;
mod document;
pub mod fleet;
#[cfg(test)]
pub(crate) mod fuzzed;
mod hints;
mod intents;
mod kinds;
mod lanes;
mod names;
mod objects;
mod schema;
mod split;
mod workers;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use poolwright_api::text::{counted, printable};
use regex::Regex;

use crate::cli::LintArgs;
use crate::input;
use airflow::Inputs;
use document::{Node, Place};
use kinds::{Definition, Sort};
use objects::{Object, Read};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The cluster or the operator refuses it.
    Error,
    /// It works, and is a known mistake or not what was meant.
    Warning,
    /// Worth knowing, or something that could not be checked.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the file.
    pub file: String,
    /// Line and column.
    pub place: Place,
    /// How bad it is.
    pub severity: Severity,
    /// JSON path in the object; empty for the whole document.
    pub path: String,
    /// What is wrong and what to do, without user information.
    pub message: String,
}

impl Finding {
    fn new(file: &str, place: Place, severity: Severity, path: &str, message: &str) -> Self {
        Self {
            file: file.to_owned(),
            place,
            severity,
            path: redacted(path),
            message: redacted(message),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            place,
            severity,
            path,
            message,
        } = self;
        write!(f, "{file}:{}:{}: {severity}: ", place.line, place.column)?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings in the order of files, lines and columns.
    pub findings: Vec<Finding>,
    /// Number of files.
    pub files: usize,
    /// Number of Pools, TaskQueues and WorkerPools that were checked.
    pub objects: usize,
}

impl Report {
    /// Whether something would be refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        writeln!(
            f,
            "{}, {}, {} in {} of {}",
            counted(self.count(Severity::Error), "error", "errors"),
            counted(self.count(Severity::Warning), "warning", "warnings"),
            counted(self.count(Severity::Note), "note", "notes"),
            counted(self.objects, "object", "objects"),
            counted(self.files, "file", "files"),
        )
    }
}

/// Reads and checks the files, and writes the report to `output`. True if nothing would be refused; with `strict`, if
/// there is nothing to say.
///
/// # Errors
///
/// A file cannot be read, or the report not be written.
pub fn run(args: &LintArgs, output: &mut impl Write) -> io::Result<bool> {
    let report = lint_with(&sources(&args.files)?, &Inputs::read(args)?);
    write!(output, "{report}")?;
    Ok(if args.strict {
        report.findings.is_empty()
    } else {
        !report.has_errors()
    })
}

/// The texts of the files, each with the name that findings show.
fn sources(paths: &[PathBuf]) -> io::Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for path in paths {
        for path in manifests(path).map_err(|error| named(path, &error))? {
            let text = input::read(&path).map_err(|error| named(&path, &error))?;
            let name = path.display().to_string();
            sources.push((if name == "-" { "stdin".to_owned() } else { name }, text));
        }
    }
    Ok(sources)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The file itself; of a folder, as `kubectl apply -f` takes it, the manifests that lie right in it.
fn manifests(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if file.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("holds no .yaml, .yml or .json file"));
    }
    found.sort();
    Ok(found)
}

/// Checks texts, each with the name that findings show.
#[must_use]
pub fn lint(sources: &[(String, String)]) -> Report {
    lint_with(sources, &Inputs::default())
}

/// Checks texts together with what is known of an Airflow.
#[must_use]
pub fn lint_with(sources: &[(String, String)], airflow: &Inputs) -> Report {
    examine(sources, airflow).0
}

/// What was found, and the objects that it was found in.
fn examine<'a>(sources: &'a [(String, String)], airflow: &Inputs) -> (Report, Vec<Read<'a>>) {
    let definitions = kinds::definitions();
    let mut findings = Vec::new();
    let mut objects = Vec::new();
    for (file, text) in sources {
        let mut is_empty = true;
        for (start, part) in split::documents(text) {
            let parsed = document::parse(start, part);
            is_empty &= matches!(parsed, Ok(None));
            match parsed {
                Ok(Some(node)) => document(definitions, file, &node, &mut objects, &mut findings),
                Ok(None) => {}
                Err(error) => findings.push(Finding::new(
                    file,
                    error.place,
                    Severity::Error,
                    "",
                    &error.message,
                )),
            }
        }
        if is_empty {
            let place = Place { line: 1, column: 1 };
            findings.push(Finding::new(file, place, Severity::Error, "", "holds no object"));
        }
    }
    findings.extend(objects::check(&objects));
    findings.extend(airflow::check(airflow, &objects));
    let files: Vec<&str> = sources
        .iter()
        .chain(airflow.sources())
        .map(|(name, _)| name.as_str())
        .collect();
    let order = |file: &str| files.iter().position(|name| *name == file);
    findings.sort_by_key(|finding| (order(&finding.file), finding.place, finding.severity));
    let report = Report {
        findings,
        files: files.len(),
        objects: objects.len(),
    };
    (report, objects)
}

fn document<'a>(
    definitions: &[Definition],
    file: &'a str,
    node: &Node,
    objects: &mut Vec<Read<'a>>,
    findings: &mut Vec<Finding>,
) {
    match kinds::sort(definitions, node) {
        Sort::Ours(definition) => {
            let (value, found) = kinds::check(definitions, definition, node, file);
            findings.extend(found);
            let object = value.and_then(|value| match typed(&definition.kind, &value) {
                Ok(object) => Some(object),
                Err(error) => {
                    // Line and column of the text that it was read from are nobody's.
                    let words = error.to_string();
                    let words = words.split(" at line ").next().unwrap_or_default();
                    let words = format!("cannot be read: {words}");
                    findings.push(Finding::new(file, node.place, Severity::Error, "", &words));
                    None
                }
            });
            let metadata = |key: &str| {
                let value = node.get("metadata").and_then(|metadata| metadata.get(key));
                value.and_then(Node::text).unwrap_or_default().to_owned()
            };
            let (namespace, name) = (metadata("namespace"), metadata("name"));
            objects.push(Read {
                file,
                node: node.clone(),
                kind: definition.kind.clone(),
                namespace,
                name,
                object,
            });
        }
        // A list in a list is no list to the server either.
        Sort::List(items) => {
            for item in items {
                match kinds::sort(definitions, item) {
                    Sort::List(_) => {
                        let words = "a List in a List is not taken";
                        findings.push(Finding::new(file, item.place, Severity::Error, "kind", words));
                    }
                    _ => document(definitions, file, item, objects, findings),
                }
            }
        }
        Sort::Other(kind) => {
            let words = format!("{kind} is not checked");
            findings.push(Finding::new(
                file,
                node.locate("kind"),
                Severity::Note,
                "",
                &words,
            ));
        }
        Sort::Wrong(path, words) => {
            findings.push(Finding::new(
                file,
                node.locate(path),
                Severity::Error,
                path,
                &words,
            ));
        }
    }
}

/// By way of its text, as answers of the API server are read: another way would be the same code once more in the program.
fn typed(kind: &str, value: &serde_json::Value) -> Result<Object, serde_json::Error> {
    let text = value.to_string();
    match kind {
        "Pool" => serde_json::from_str(&text).map(Object::Pool),
        "TaskQueue" => serde_json::from_str(&text).map(Object::TaskQueue),
        _ => serde_json::from_str(&text).map(Object::WorkerPool),
    }
}

/// Without user information of an address and without control characters.
fn redacted(text: &str) -> String {
    static USER_INFO: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?i)(//)[^\s@]*@|([?&;](?:user|username|password)=)[^\s&;]*").ok());
    let text = printable(text);
    match &*USER_INFO {
        Some(regex) => regex.replace_all(&text, "$1$2***").into_owned(),
        None => text,
    }
}
