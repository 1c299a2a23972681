use poolwright_api::v1alpha1::{AirflowPool, PoolSpec};
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::kube::events::Events;
use crate::kube::lenient::Lenient;
use crate::kube::no_cluster;
use crate::signals::guard::Policy;
use crate::signals::network::Network;

fn context() -> Context {
    let client = no_cluster();
    Context {
        events: Arc::new(Events::new(client.clone())),
        client,
        world: Arc::default(),
        links: Arc::default(),
        metrics: Arc::default(),
        network: Network::of_machine(Policy::outside(), Vec::new()),
        gate: Gate::open(),
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
    }
}

fn apply(name: &str) -> Pool {
    let spec = PoolSpec {
        airflow: Some(AirflowPool {
            name: Some("x".to_owned()),
            ..AirflowPool::default()
        }),
        ..PoolSpec::default()
    };
    let mut pool = Pool::new(name, spec);
    pool.metadata.namespace = Some("n".to_owned());
    pool.metadata.uid = Some(name.to_owned());
    pool
}

/// What it wanted is not kept up any more, and what it stands for is no other's for that.
#[tokio::test]
async fn of_a_pool_that_nobody_can_read_any_more_nothing_is_kept_up_but_its_claim() {
    let context = Arc::new(context());
    let (a, b) = (apply("a"), apply("b"));
    let mut newer = serde_json::to_value(&a).expect("JSON");
    newer["spec"]["slots"] = json!(3_000_000_000_u64);
    let newer: Lenient<Pool> = serde_json::from_value(newer).expect("metadata");
    let session = Session::new(Arc::clone(&context), Key::of(&a).expect("a key"));
    context.world.budgets.put(a);
    context.world.budgets.put(b.clone());
    let kept = || -> Vec<String> { session.pools().iter().map(|pool| pool.name_any()).collect() };
    assert_eq!(kept(), ["a", "b"]);
    context
        .world
        .budgets
        .pass(&newer.open().expect_err("too many slots"));
    assert_eq!(kept(), ["b"]);
    let claims = session.claims();
    let rival = claims.rival(&b, "x").map(|pool| pool.name_any());
    assert_eq!(rival.as_deref(), Some("a"));
}

#[test]
fn only_what_was_the_same_has_drifted() {
    let of = |sync, slots| {
        let airflow = AirflowPool {
            sync,
            ..AirflowPool::default()
        };
        let spec = PoolSpec {
            slots,
            airflow: Some(airflow),
            ..PoolSpec::default()
        };
        Pool::new("p", spec)
    };
    for (sync, slots, agreed, is) in [
        // Made or followed for the first time.
        (AirflowSync::Apply, 4, None, false),
        (AirflowSync::Mirror, 4, None, false),
        // Airflow's pool was changed.
        (AirflowSync::Apply, 4, Some(4), true),
        (AirflowSync::Mirror, 4, Some(4), true),
        // The Pool was changed: one is to be followed, and the other follows.
        (AirflowSync::Apply, 5, Some(4), false),
        (AirflowSync::Mirror, 5, Some(4), true),
    ] {
        let pool = of(sync, slots);
        let wanted = wanted(&pool).expect("a pool of Airflow");
        let agreed = agreed.and_then(|slots| super::wanted(&of(sync, slots)));
        let drifted = has_drifted(&pool, &wanted, agreed.as_ref());
        assert_eq!(drifted, is, "{sync:?} {slots} {agreed:?}");
        let renamed = agreed.map(|agreed| Wanted {
            name: "other".to_owned(),
            ..agreed
        });
        assert!(!has_drifted(&pool, &wanted, renamed.as_ref()), "another pool");
    }
}

#[test]
fn a_turn_begins_after_the_pool_for_which_airflow_was_silent() {
    let pools = ["a", "b", "c"].map(|name| Arc::new(Pool::new(name, PoolSpec::default())));
    for (silent, order) in [
        (None, "abc"),
        (Some("a"), "bca"),
        (Some("c"), "abc"),
        (Some("gone"), "abc"),
    ] {
        let names: String = from(&pools, silent).map(|pool| pool.name_any()).collect();
        assert_eq!(names, order, "{silent:?}");
    }
}
