//! Poolwright: the adapters and controllers around `poolwright-core`.
//!
//! A library so that tests reach every part; the binary only reads flags and starts it.

pub mod cli;
pub mod clock;
pub mod controllers;
pub mod explain;
#[cfg(test)]
mod fuzz;
pub mod gate;
pub mod http;
pub mod input;
pub mod kube;
pub mod lint;
pub mod metrics;
pub mod outcome;
mod pace;
#[cfg(test)]
mod pages;
pub mod pools;
pub mod shard;
pub mod signals;
pub mod simulate;
pub mod telemetry;
pub mod weights;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }

    #[test]
    fn adapters_do_not_import_one_another() {
        let adapters = ["kube", "signals", "http"];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for adapter in adapters {
            let mut found = Vec::new();
            sources(&root.join(adapter), &mut found);
            assert!(!found.is_empty(), "{adapter} is not where it was");
            for (path, text) in found {
                let mut others = adapters.iter().filter(|other| **other != adapter);
                let named = others.find(|other| text.contains(&format!("crate::{other}")));
                assert_eq!(named, None, "in {path}");
                assert!(!text.contains("crate::controllers"), "in {path}");
            }
        }
    }
}
