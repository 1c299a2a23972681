//! What the documents name must exist: files that they link to, tests that they say guard an invariant, reasons and
//! condition types. Manifests that they show must pass `poolwright lint`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use poolwright_api::{ConditionType, Reason};
use poolwright_tests::bench::{crowd, reaction};
use poolwright_tests::manifests;
use poolwright_tests::operator::built;

fn root() -> PathBuf {
    manifests::repository("")
}

/// The names by which a link reaches the headings of a page.
fn headings(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if !is_code && line.starts_with('#') {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for document in manifests::documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{} links to {link}", document.display());
            if !heading.is_empty() {
                let headings = headings(&std::fs::read_to_string(&target).unwrap());
                assert!(
                    headings.contains(heading),
                    "{} links to {link}",
                    document.display()
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 150, "only {checked} links were found");
}

/// True if a function of this name is run as a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let here = lines
        .iter()
        .position(|line| line.contains(&format!("fn {name}(")));
    here.is_some_and(|at| {
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with('#'));
        attributes.into_iter().any(|line| line.contains("test"))
    })
}

#[test]
fn the_guards_of_the_invariants_exist() {
    let design = std::fs::read_to_string(root().join("docs/explanation/design.md")).unwrap();
    let (mut guarded, mut rows) = (0, Vec::new());
    for row in design.lines().filter(|line| line.starts_with("| ")) {
        // `file.rs::test`, and `::another` for one more of the same file.
        let mut file = String::new();
        for name in row.split('`').skip(1).step_by(2) {
            let Some((place, test)) = name.split_once("::") else {
                continue;
            };
            if !place.is_empty() {
                file = match place.split_once('/') {
                    Some(("core", rest)) => format!("operator/core/tests/{rest}"),
                    Some(("whole", rest)) => format!("tests/tests/{rest}"),
                    _ => place.to_owned(),
                };
            }
            let source = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
            assert!(is_test(&source, test), "{file} has no test {test}");
            guarded += 1;
            let number: u32 = row.split('|').nth(1).unwrap_or_default().trim().parse().unwrap();
            rows.push(number);
        }
    }
    rows.dedup();
    assert_eq!(rows, (1..=11).collect::<Vec<_>>(), "an invariant has no guard");
    assert!(guarded >= 30, "only {guarded} tests are named");
}

/// A figure that misses its target must be told as such in words below the table, not stand there as if it were met.
#[test]
fn the_figures_of_the_benchmark_meet_their_targets() {
    let page = std::fs::read_to_string(root().join("docs/reference/performance.md")).unwrap();
    let number = |cell: &str| -> f64 {
        let first = cell
            .trim_start_matches("≤ ")
            .split(' ')
            .next()
            .unwrap_or_default();
        first.parse().unwrap_or_else(|_| panic!("{cell:?} is no figure"))
    };
    let mut targets = 0;
    for row in page.lines().filter(|line| line.matches('|').count() == 4) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (measured, target) = (cells[2], cells[3]);
        if target.starts_with(|first: char| first == '≤' || first.is_ascii_digit()) {
            assert!(number(measured) <= number(target), "{row}");
            targets += 1;
        }
    }
    assert!(targets >= 16, "only {targets} figures have a target");
}

/// What the benchmark prints is what the page has rows for.
#[test]
fn the_page_of_figures_has_the_rows_of_the_benchmark() {
    let page = std::fs::read_to_string(root().join("docs/reference/performance.md")).unwrap();
    let table = page
        .split("\n\n")
        .find(|part| part.starts_with("| figure | measured | target |\n"));
    let rows: Vec<&str> = table.unwrap().lines().skip(2).collect();
    let push = reaction::Push::ALL.iter().flat_map(|push| push.labels(20));
    let crowd = [100, 1000].into_iter().flat_map(crowd::Crowd::labels);
    let labels: Vec<String> = push.chain(crowd).collect();
    for label in &labels {
        // A label may have figures behind it, in brackets.
        let starts = [format!("| {label} | "), format!("| {label} (")];
        let found = rows
            .iter()
            .filter(|row| starts.iter().any(|start| row.starts_with(start)));
        assert_eq!(
            found.count(),
            1,
            "docs/reference/performance.md has not one row {label:?}"
        );
    }
    assert_eq!(
        rows.len(),
        labels.len(),
        "a row that the benchmark does not print"
    );
}

/// All of the tests' source.
fn tests(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The tests that a cell names in backticks; what a colon follows is their group.
fn tests_named(cell: &str) -> Vec<&str> {
    let parts: Vec<&str> = cell.split('`').collect();
    let names = parts.chunks_exact(2).enumerate();
    let names = names.map(|(at, pair)| (pair[1], parts.get(2 * at + 2)));
    let tests =
        names.filter(|(name, then)| name.contains('_') && !then.is_some_and(|then| then.starts_with(':')));
    tests.map(|(name, _)| name).collect()
}

#[test]
fn each_fault_is_shown_by_a_test_that_exists() {
    let page = std::fs::read_to_string(root().join("docs/reference/reliability.md")).unwrap();
    let table = page
        .split("\n## ")
        .find(|part| part.starts_with("Faults"))
        .unwrap();
    let (mut code, mut shown) = (String::new(), 0);
    for folder in ["tests/tests", "operator/src", "operator/core/tests"] {
        tests(&root().join(folder), &mut code);
    }
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names = tests_named(by);
        assert!(!names.is_empty(), "no test shows: {row}");
        for name in names {
            assert!(is_test(&code, name), "there is no test {name}");
            shown += 1;
        }
    }
    assert!(shown >= 25, "only {shown} tests are named");
}

/// What a command of the documents asks for is a group.
#[test]
fn groups_that_documents_name_exist() {
    let run = std::fs::read_to_string(root().join("tests/run.sh")).unwrap();
    let list = |name: &str| -> BTreeSet<String> {
        let line = run
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=\"")));
        let names = line.unwrap_or_else(|| panic!("no {name}")).trim_end_matches('"');
        names.split_whitespace().map(str::to_owned).collect()
    };
    let known: BTreeSet<String> = list("known").union(&list("parts")).cloned().collect();
    let mut found = 0;
    for page in manifests::documents() {
        let text = std::fs::read_to_string(&page).unwrap();
        for after in text.split("GROUPS_ONLY=").skip(1) {
            let names = match after.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap(),
                None => after.split([' ', '`']).next().unwrap(),
            };
            for name in names.split_whitespace().filter(|name| *name != "GROUP") {
                assert!(known.contains(name), "{} names the group {name}", page.display());
                found += 1;
            }
        }
    }
    assert!(found >= 14, "only {found} are named");
}

/// The list has ten, and each says which test tries it; what none can is said in words before.
#[test]
fn each_risk_of_the_list_is_answered_by_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/reference/owasp.md")).unwrap();
    let mut code = String::new();
    for folder in ["tests/tests", "operator/src"] {
        tests(&root().join(folder), &mut code);
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| K")).collect();
    let numbers: Vec<&str> = rows.iter().map(|row| &row[2..5]).collect();
    let wanted: Vec<String> = (1..=10).map(|number| format!("K{number:02}")).collect();
    assert_eq!(numbers, wanted);
    for row in rows {
        let by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names = tests_named(by);
        assert!(!names.is_empty(), "no test tries: {row}");
        for name in names {
            assert!(is_test(&code, name), "there is no test {name}");
        }
    }
}

/// The names in the first column of the tables under a heading of the page of reasons.
fn named(page: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let sections = page.split("\n## ").skip(1);
    let wanted = sections.filter(|section| is_wanted(section.lines().next().unwrap_or_default()));
    let rows = wanted.flat_map(|section| section.lines().filter_map(|line| line.strip_prefix("| `")));
    rows.filter_map(|row| row.split('`').next().map(str::to_owned))
        .collect()
}

/// The sources of the operator that may set a reason: without tests, and without the words of `explain`.
fn sources(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if stem.ends_with("tests") || stem == "explain" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
}

#[test]
fn every_reason_and_condition_type_is_on_its_page_once() {
    const TYPES: &str = "Condition types";
    let page = std::fs::read_to_string(root().join("docs/reference/reasons.md")).unwrap();
    let same = |named: Vec<String>, wanted: Vec<String>, what: &str| {
        let (count, wanted) = (named.len(), BTreeSet::from_iter(wanted));
        let named = BTreeSet::from_iter(named);
        assert_eq!(named.len(), count, "a name of the {what} is there twice");
        let (missing, unknown) = (&wanted - &named, &named - &wanted);
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "docs/reference/reasons.md, {what}: missing {missing:?}, unknown {unknown:?}"
        );
    };
    let types = ConditionType::ALL.iter().map(ToString::to_string).collect();
    same(named(&page, |section| section == TYPES), types, "condition types");
    let reasons = Reason::ALL.iter().map(ToString::to_string).collect();
    same(named(&page, |section| section != TYPES), reasons, "reasons");

    let mut code = String::new();
    for folder in ["operator/src", "operator/core/src"] {
        sources(&root().join(folder), &mut code);
    }
    let is_set = |reason: &&Reason| code.contains(&format!("Reason::{reason}"));
    let unset: Vec<&Reason> = Reason::ALL.iter().filter(|reason| !is_set(reason)).collect();
    assert!(unset.is_empty(), "no code sets {unset:?}");
}

/// Fails unless `poolwright lint` has nothing to say against it.
fn lint(what: &str, yaml: &str) {
    let program = built("debug");
    let program = program.to_str().unwrap();
    let mut lint = Command::new(program)
        .args(["lint", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: run `cargo build --workspace --bins --locked`"));
    lint.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = lint.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && report.contains("0 errors, 0 warnings"),
        "{what}:\n{report}"
    );
}

#[test]
fn manifests_of_the_documents_and_examples_pass_lint() {
    let all = manifests::all();
    assert!(all.len() >= 15, "only {} manifests were found", all.len());
    for (place, yaml) in &all {
        lint(place, yaml);
    }
}
