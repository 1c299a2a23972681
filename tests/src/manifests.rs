//! The manifests that the repository shows to people: in its documents and as examples.
//!
//! Finds them and says nothing about them: `lint` judges them without a cluster, the API server with one.

use std::path::{Path, PathBuf};

/// A folder or file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Every page that people read: those at the root, all of `docs`, the chart's, and those beside examples.
pub fn documents() -> Vec<PathBuf> {
    let single = [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "charts/poolwright/README.md",
    ];
    let mut all: Vec<PathBuf> = single.into_iter().map(repository).collect();
    pages(&repository("docs"), &mut all);
    pages(&repository("deploy/examples"), &mut all);
    all
}

/// The fenced blocks of YAML that hold an object of Poolwright, each with its line.
pub fn shown(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (line, text) in (1..).zip(text.lines()) {
        match &mut block {
            None if text == "```yaml" => block = Some((line, String::new())),
            None => {}
            Some(_) if text == "```" => found.extend(block.take()),
            Some((_, yaml)) => {
                yaml.push_str(text);
                yaml.push('\n');
            }
        }
    }
    found.retain(|(_, yaml)| yaml.contains("apiVersion: poolwright.dev/"));
    found
}

/// A file of manifests; of a folder, those that lie in it, together, as they are applied.
fn example(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap();
    }
    let files = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_manifest = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "yaml");
    let mut files: Vec<PathBuf> = files.filter(is_manifest).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| example(file)).collect();
    texts.join("---\n")
}

/// Every manifest of the documents and of `deploy/examples`, each with where it is.
pub fn all() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let place = |line| format!("the manifest at {}:{line}", document.display());
        all.extend(shown(&text).into_iter().map(|(line, yaml)| (place(line), yaml)));
    }
    for entry in std::fs::read_dir(repository("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        all.push((path.display().to_string(), example(&path)));
    }
    all
}
