//! Airflow's pools, from its own file and from Pools that stand for some.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{AirflowSync, DEFAULT_AIRFLOW_POOL};

use super::super::document::Place;
use super::super::objects::Read;
use super::super::{Finding, Severity};
use super::{Cursor, Source, syntax};
use crate::pools::file;

/// One of Airflow's pools.
pub struct Known {
    /// File that has it.
    pub file: String,
    /// Where its slots are.
    pub place: Place,
    /// Path of its slots.
    pub path: String,
    /// Slots; `None` without a limit.
    pub slots: Option<u64>,
}

/// All that are known.
pub struct Pools {
    /// By name.
    pub by_name: BTreeMap<String, Known>,
    /// Whether there is no other: Airflow's own file has all.
    pub complete: bool,
}

impl Known {
    /// A finding about its slots.
    pub fn find(&self, severity: Severity, words: &str) -> Finding {
        Finding::new(&self.file, self.place, severity, &self.path, words)
    }

    /// File and line.
    pub fn position(&self) -> String {
        format!("{}:{}", self.file, self.place.line)
    }
}

impl Pools {
    /// Slots of a pool that is known and neither unlimited nor closed, and where it is. A closed one is so for a while,
    /// which says nothing about the set-up.
    pub fn limited(&self, name: &str) -> Option<(u64, &Known)> {
        let known = self.by_name.get(name)?;
        Some((known.slots.filter(|slots| *slots > 0)?, known))
    }

    /// Whether a pool of this name may be there.
    pub fn may_have(&self, name: &str) -> bool {
        // Airflow makes that one, and deletes it never.
        self.by_name.contains_key(name) || name == DEFAULT_AIRFLOW_POOL
    }
}

/// The pools of Airflow's file and of the manifests. Where both have one, the Pool says what will be, unless it follows.
pub fn read(exported: Option<&Source>, all: &[Read<'_>]) -> (Pools, Vec<Finding>) {
    let mut pools = Pools {
        by_name: BTreeMap::new(),
        complete: false,
    };
    let mut findings = Vec::new();
    if let Some((file, text)) = exported {
        match file::parse(text) {
            Ok(found) => {
                pools.complete = true;
                pools.by_name = known(file, text, found);
            }
            Err(error) => findings.push(syntax(file, &error.0, file::FORM)),
        }
    }
    for read in all {
        let Some(pool) = read.pool() else { continue };
        let Some(airflow) = &pool.spec.airflow else {
            continue;
        };
        let name = airflow.pool_name(&read.name);
        if airflow.sync == AirflowSync::Mirror && pools.by_name.contains_key(name) {
            continue;
        }
        let known = Known {
            file: read.file.to_owned(),
            place: read.node.locate("spec.slots"),
            path: "spec.slots".to_owned(),
            slots: pool.spec.limit(),
        };
        pools.by_name.insert(name.to_owned(), known);
    }
    (pools, findings)
}

fn known(file: &str, text: &str, found: BTreeMap<String, file::FilePool>) -> BTreeMap<String, Known> {
    let mut sorted: Vec<_> = found.into_iter().collect();
    sorted.sort_by_key(|(_, pool)| pool.offset);
    let mut cursor = Cursor::new(text);
    let known = sorted.into_iter().map(|(name, pool)| {
        let known = Known {
            file: file.to_owned(),
            place: cursor.place(pool.offset),
            path: format!("{name:?}.slots"),
            slots: u64::try_from(pool.slots).ok(),
        };
        (name, known)
    });
    known.collect()
}
