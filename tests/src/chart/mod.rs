//! The Helm chart: Helm of both majors, what the chart renders, and what is made of it.
//!
//! Nothing here knows what the chart should say; tests do. Helm is the real one, built from its module, since what an
//! installation runs into (merges of values, order of kinds, hooks, ownership) is Helm's and not the chart's.

mod generated;
mod helm;
mod schemas;
mod values;

pub use generated::{Generated, WITH_COMPONENTS, generated};
pub use helm::{Helm, Major};
pub use schemas::{kubernetes_schemas, our_schemas, schema_file};
pub use values::{Described, default_of, described, readme, value_at, without};

use crate::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file or folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The chart's folder.
pub fn folder() -> PathBuf {
    repository("charts/poolwright")
}

/// The files of values that show each switch, by name.
pub fn ci_values() -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder().join("ci"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// The objects of a text with several documents.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let documents = serde_saphyr::from_multiple::<Value>(text)?;
    Ok(documents.into_iter().filter(|one| !one.is_null()).collect())
}

/// One YAML file.
pub fn read_yaml(path: &Path) -> Result<Value> {
    Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?)
}

/// Kind, namespace and name, by which an object is one of its kind.
pub fn identity(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!(
        "{} {}/{}",
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"])
    )
}
