//! Manifests as a fleet that can be run, or why they cannot.
//!
//! Takes what `lint` takes and refuses what it refuses, in the same words and with the same places. It asks for more in
//! one point: every queue must be there, because nothing is known of one that is not.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_core::validate::{ValidPool, validate};

use super::airflow::Inputs;
use super::objects::Read;
use super::{Finding, Place, Report, Severity, examine, sources};

/// The objects of one namespace, by name.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// Pools.
    pub pools: BTreeMap<String, Pool>,
    /// TaskQueues.
    pub queues: BTreeMap<String, TaskQueue>,
    /// WorkerPools, as written and with their defaults, in the order of the files; of each name one.
    pub workers: Vec<(WorkerPool, ValidPool)>,
}

/// Reads the fleet of these files; what is found wrong is a report with an error.
///
/// # Errors
///
/// A file cannot be read.
pub fn read(paths: &[PathBuf]) -> io::Result<Result<Fleet, Report>> {
    Ok(of(&sources(paths)?))
}

/// The fleet of these texts, each with the name that findings show.
///
/// # Errors
///
/// What is wrong with them.
pub fn of(sources: &[(String, String)]) -> Result<Fleet, Report> {
    let (mut report, objects) = examine(sources, &Inputs::default());
    report
        .findings
        .retain(|finding| finding.severity == Severity::Error);
    if report.has_errors() {
        return Err(report);
    }
    let mut fleet = Fleet::default();
    for read in &objects {
        if let Some(pool) = read.pool() {
            fleet.pools.insert(read.name.clone(), pool.clone());
        }
        if let Some(queue) = read.task_queue() {
            fleet.queues.insert(read.name.clone(), queue.clone());
        }
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for read in &objects {
        let Some(wp) = read.worker_pool() else { continue };
        match validate(wp, &fleet.queues) {
            // The later one of a name wins, as it does of Pools and TaskQueues.
            Ok(valid) => {
                if let Some(place) = places.get(read.name.as_str()) {
                    fleet.workers[*place] = (wp.clone(), valid);
                } else {
                    places.insert(&read.name, fleet.workers.len());
                    fleet.workers.push((wp.clone(), valid));
                }
            }
            Err(invalid) => {
                report
                    .findings
                    .push(read.find(Severity::Error, &invalid.field, &invalid.message));
            }
        }
    }
    report.findings.extend(namespaces(&objects));
    if fleet.workers.is_empty() && !report.has_errors() {
        let file = sources.first().map_or("", |(name, _)| name);
        let place = Place { line: 1, column: 1 };
        report.findings.push(Finding::new(
            file,
            place,
            Severity::Error,
            "",
            "holds no WorkerPool to run",
        ));
    }
    if report.has_errors() {
        Err(report)
    } else {
        Ok(fleet)
    }
}

/// The Pools of these files, each with its place; what would be refused is a report with an error.
///
/// # Errors
///
/// A file cannot be read.
pub fn pools(paths: &[PathBuf]) -> io::Result<Result<Vec<(String, Pool)>, Report>> {
    let sources = sources(paths)?;
    let (mut report, objects) = examine(&sources, &Inputs::default());
    report
        .findings
        .retain(|finding| finding.severity == Severity::Error);
    if report.has_errors() {
        return Ok(Err(report));
    }
    let pools = objects
        .iter()
        .filter_map(|read| Some((read.position("metadata.name"), read.pool()?.clone())));
    Ok(Ok(pools.collect()))
}

/// The first object that is in another namespace than the first one.
fn namespaces(objects: &[Read<'_>]) -> Option<Finding> {
    let first = objects.first()?;
    let other = objects.iter().find(|other| other.namespace != first.namespace)?;
    let words = format!(
        "is {:?}, and {} {:?} before it is in {:?}: a fleet is run one namespace at a time",
        other.namespace, first.kind, first.name, first.namespace
    );
    Some(other.find(Severity::Error, "metadata.namespace", &words))
}
