//! Which Pools stand for the same pool of one Airflow: of several the oldest has it.
//!
//! Pools of other Secrets and namespaces count too, as soon as their Airflow has been read: it is told by its URL. Those of
//! another shard or of another cluster are not seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::v1alpha1::{AirflowSync, Pool};
use poolwright_core::airflow_pool::{Link, wanted};

/// One Airflow's URL, however its ends are written.
pub(super) fn same_url(url: &str) -> &str {
    url.trim().trim_end_matches('/')
}

/// Pools that are not being deleted, by the name of Airflow's pool, the oldest first.
pub(super) struct Claims(BTreeMap<String, Vec<Arc<Pool>>>);

impl Claims {
    /// Of one Airflow: of all Pools those for which `is_own` is true, and those whose link is to its URL; before they are
    /// read by this process, those whose status says so.
    pub(super) fn new(
        pools: Vec<Arc<Pool>>,
        url: &str,
        is_own: impl Fn(&Pool) -> bool,
        link: impl Fn(&Pool) -> Option<Arc<Link>>,
    ) -> Self {
        let mut claims: BTreeMap<String, Vec<Arc<Pool>>> = BTreeMap::new();
        for pool in pools {
            let Some(wanted) = wanted(&pool).filter(|_| pool.meta().deletion_timestamp.is_none()) else {
                continue;
            };
            let is_there = || {
                let told = pool.status.as_ref().and_then(|status| status.airflow.as_ref());
                // A reading that has failed tells no URL: what was known before it stands.
                let read = link(&pool).and_then(|link| link.url.clone());
                let of = read.or_else(|| told.and_then(|told| told.url.clone()));
                of.as_deref().map(same_url) == Some(same_url(url))
            };
            if is_own(&pool) || is_there() {
                claims.entry(wanted.name).or_default().push(pool);
            }
        }
        for pools in claims.values_mut() {
            pools.sort_by_key(|pool| age(pool));
        }
        Self(claims)
    }

    fn others<'a>(&'a self, pool: &Pool, name: &str) -> impl Iterator<Item = &'a Arc<Pool>> + use<'a> {
        let all = self.0.get(name).into_iter().flatten();
        let own = pool.meta().uid.clone();
        all.filter(move |other| other.meta().uid != own)
    }

    /// The Pool that has this pool before this one, if both want to change it.
    pub(super) fn rival(&self, pool: &Pool, name: &str) -> Option<&Arc<Pool>> {
        let mut older = self.others(pool, name).filter(|other| age(other) < age(pool));
        older.find(|other| applies(other) && applies(pool))
    }

    /// The oldest of the other Pools that keep this pool in Airflow.
    pub(super) fn heir(&self, pool: &Pool, name: &str) -> Option<&Arc<Pool>> {
        self.others(pool, name).find(|other| applies(other))
    }
}

/// What orders Pools: the oldest first, and of those of one second by name.
fn age(pool: &Pool) -> impl Ord + use<> {
    let created = pool.meta().creation_timestamp.clone();
    (created.map(|at| at.0), pool.namespace(), pool.name_any())
}

fn applies(pool: &Pool) -> bool {
    let airflow = pool.spec.airflow.as_ref();
    airflow.is_some_and(|airflow| airflow.sync == AirflowSync::Apply)
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
