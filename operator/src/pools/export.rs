//! Airflow's pools for the Pools that stand for some.
//!
//! A Pool without `spec.airflow` is a budget of workers that no Airflow knows: it is left out.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::Pool;

use super::PoolsError;
use super::file::{self, FilePool};
use crate::cli::ExportArgs;
use crate::lint::fleet;

/// Airflow's file for the manifests that are named.
pub(super) fn run(args: &ExportArgs) -> Result<String, PoolsError> {
    match fleet::pools(&args.files).map_err(PoolsError::Manifests)? {
        Ok(pools) => text(&pools),
        Err(report) => Err(PoolsError::Refused(report.to_string().trim_end().to_owned())),
    }
}

/// Airflow's file for these Pools, each with its place.
pub(super) fn text(pools: &[(String, Pool)]) -> Result<String, PoolsError> {
    let mut found: BTreeMap<String, FilePool> = BTreeMap::new();
    let mut read: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for (place, pool) in pools {
        let Some(airflow) = &pool.spec.airflow else {
            continue;
        };
        let resource = pool.metadata.name.as_deref().unwrap_or_default();
        let name = airflow.pool_name(resource).to_owned();
        if let Some((first, before)) = read.insert(name.clone(), (resource, place)) {
            return Err(PoolsError::Twice {
                pool: name,
                first: first.to_owned(),
                before: before.to_owned(),
                second: resource.to_owned(),
                at: place.clone(),
            });
        }
        let pool = FilePool {
            slots: pool.spec.slots,
            description: pool.spec.description.clone(),
            include_deferred: pool.spec.include_deferred,
            offset: 0,
        };
        found.insert(name, pool);
    }
    Ok(file::write(&found)?)
}
