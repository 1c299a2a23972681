//! What the documents name must exist: files that they link to, and tests that they say guard an invariant.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut all = vec![root().join("README.md")];
    documents(&root().join("docs"), &mut all);
    for document in all {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = document.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {link}", document.display());
        }
    }
}

#[test]
fn the_guards_of_the_invariants_exist() {
    let design = std::fs::read_to_string(root().join("docs/explanation/design.md")).unwrap();
    let mut guarded = 0;
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
            assert!(
                source.contains(&format!("fn {test}(")),
                "{file} has no test {test}"
            );
            guarded += 1;
        }
    }
    assert!(guarded >= 30, "only {guarded} tests are named");
}
