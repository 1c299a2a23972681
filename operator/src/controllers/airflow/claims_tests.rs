use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use poolwright_api::v1alpha1::{AirflowPool, AirflowPoolStatus, PoolSpec, PoolStatus};

use super::*;

/// A Pool made in this second, for the pool `x`.
fn pool(namespace: &str, second: i64, sync: AirflowSync) -> Arc<Pool> {
    let airflow = AirflowPool {
        name: Some("x".to_owned()),
        sync,
        ..AirflowPool::default()
    };
    let spec = PoolSpec {
        airflow: Some(airflow),
        ..PoolSpec::default()
    };
    let mut pool = Pool::new(&format!("made-at-{second}"), spec);
    pool.metadata.namespace = Some(namespace.to_owned());
    pool.metadata.uid = Some(format!("{namespace}-{second}"));
    pool.metadata.creation_timestamp = Timestamp::from_second(second).ok().map(Time);
    Arc::new(pool)
}

/// Claims of all that are in `a`, and of those of other namespaces whose Airflow is at this URL.
fn claims(pools: &[Arc<Pool>], url: &str) -> Claims {
    let link = Link {
        url: Some(url.to_owned()),
        ..Link::default()
    };
    let link = Arc::new(link);
    let is_own = |pool: &Pool| pool.namespace().as_deref() == Some("a");
    Claims::new(pools.to_vec(), "http://airflow", is_own, |_| {
        Some(Arc::clone(&link))
    })
}

#[test]
fn of_several_pools_the_oldest_has_it() {
    use AirflowSync::{Apply, Mirror};
    let there = "http://airflow/";
    for (older, younger, url, is_rival) in [
        (("a", Apply), ("a", Apply), there, true),
        (("a", Mirror), ("a", Mirror), there, false),
        (("a", Apply), ("a", Mirror), there, false),
        (("b", Apply), ("a", Apply), there, true),
        (("b", Apply), ("a", Mirror), there, false),
        (("b", Mirror), ("a", Apply), there, false),
        (("b", Apply), ("a", Apply), "http://other", false),
    ] {
        let pools = [pool(younger.0, 2, younger.1), pool(older.0, 1, older.1)];
        let claims = claims(&pools, url);
        let rival = claims.rival(&pools[0], "x").map(|rival| rival.name_any());
        assert_eq!(rival.is_some(), is_rival, "{older:?} {younger:?} {url}");
        assert!(
            claims.rival(&pools[1], "x").is_none(),
            "the older waits for the younger"
        );
    }
}

#[test]
fn what_another_pool_keeps_is_not_deleted() {
    use AirflowSync::{Apply, Mirror};
    let there = "http://airflow";
    let mut gone = (*pool("a", 1, Apply)).clone();
    gone.metadata.deletion_timestamp = Timestamp::from_second(9).ok().map(Time);
    for (other, heir) in [
        (Some(("a", Apply)), true),
        (Some(("b", Apply)), true),
        (Some(("a", Mirror)), false),
        (None, false),
    ] {
        let mut pools = vec![Arc::new(gone.clone())];
        pools.extend(other.map(|(namespace, sync)| pool(namespace, 2, sync)));
        let claims = claims(&pools, there);
        assert_eq!(claims.heir(&gone, "x").is_some(), heir, "{other:?}");
        // And whoever is left has it at once.
        assert!(pools.get(1).is_none_or(|left| claims.rival(left, "x").is_none()));
    }
}

#[test]
fn who_was_there_before_a_restart_is_known() {
    use AirflowSync::Apply;
    let mut older = (*pool("b", 1, Apply)).clone();
    let younger = pool("a", 2, Apply);
    let is_own = |pool: &Pool| pool.namespace().as_deref() == Some("a");
    for (url, is_rival) in [("http://airflow", true), ("http://other", false)] {
        let told = AirflowPoolStatus {
            url: Some(url.to_owned()),
            ..AirflowPoolStatus::default()
        };
        older.status = Some(PoolStatus {
            airflow: Some(told),
            ..PoolStatus::default()
        });
        let pools = vec![Arc::new(older.clone()), Arc::clone(&younger)];
        // Not read by this process yet, or in vain.
        for link in [None, Some(Arc::new(Link::default()))] {
            let claims = Claims::new(pools.clone(), "http://airflow/", is_own, |_| link.clone());
            assert_eq!(claims.rival(&younger, "x").is_some(), is_rival, "{url}");
        }
    }
}
