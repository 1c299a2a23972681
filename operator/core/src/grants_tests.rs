use poolwright_api::v1alpha1::{Guarantee, PoolSpec};

use super::*;

const POOL: &str = "p-1";

fn holder(uid: &str, granted: i64, epoch: i64) -> Holder {
    Holder {
        worker_pool: format!("wp-{uid}"),
        uid: uid.to_owned(),
        granted,
        used: 0,
        epoch,
    }
}

/// A Pool with a status of its own, at epoch 7.
fn pool(slots: i32, holders: Vec<Holder>) -> Pool {
    let mut pool = Pool::new(
        "gpu",
        PoolSpec {
            slots,
            ..PoolSpec::default()
        },
    );
    pool.metadata.uid = Some(POOL.to_owned());
    pool.status = Some(PoolStatus {
        pool_uid: Some(POOL.to_owned()),
        slots: Some(slots),
        epoch: Some(7),
        holders,
        ..PoolStatus::default()
    });
    pool
}

fn request(uid: &str, slots: u64) -> Request {
    Request {
        uid: uid.to_owned(),
        worker_pool: format!("wp-{uid}"),
        slots,
    }
}

fn used(all: &[(&str, u64)]) -> Sight {
    Sight {
        used: all
            .iter()
            .map(|(uid, slots)| ((*uid).to_owned(), *slots))
            .collect(),
        ..Sight::default()
    }
}

/// Uid, grant and epoch of each holder.
fn grants(status: Option<&PoolStatus>) -> Vec<(&str, i64, i64)> {
    let holders = status.iter().flat_map(|status| &status.holders);
    holders.map(|one| (&*one.uid, one.granted, one.epoch)).collect()
}

#[test]
fn a_status_is_worth_what_it_says_of_this_pool() {
    let with = |slots: i32, change: fn(&mut PoolStatus)| {
        let mut pool = pool(slots, Vec::new());
        pool.status.iter_mut().for_each(change);
        mode(&pool)
    };
    let unlimited: fn(&mut PoolStatus) = |status| status.slots = Some(UNLIMITED);
    let limited: fn(&mut PoolStatus) = |status| status.slots = Some(5);
    let another: fn(&mut PoolStatus) = |status| status.pool_uid = Some("p-0".to_owned());
    let fresh: fn(&mut PoolStatus) = |status| status.epoch = None;
    assert_eq!(with(9, limited), Mode::Limited);
    assert_eq!(with(9, |status| status.slots = None), Mode::Limited);
    assert_eq!(with(9, unlimited), Mode::Unknown);
    assert_eq!(with(9, another), Mode::Unknown);
    assert_eq!(with(9, fresh), Mode::Unknown);
    assert_eq!(with(9, |status| *status = PoolStatus::default()), Mode::Unknown);
    assert_eq!(with(-1, unlimited), Mode::Unlimited);
    assert_eq!(with(-1, limited), Mode::Opening);
    assert_eq!(with(-1, another), Mode::Opening);
    assert_eq!(with(-1, fresh), Mode::Opening);
    for (slots, expected) in [(9, Mode::Unknown), (-1, Mode::Opening)] {
        let mut pool = pool(slots, Vec::new());
        (pool.status, pool.metadata.uid) = (None, None);
        assert_eq!(mode(&pool), expected);
        pool.status = Some(PoolStatus {
            epoch: Some(1),
            slots: Some(slots),
            ..PoolStatus::default()
        });
        assert_eq!(mode(&pool), expected, "no uid is nobody's");
    }
}

#[test]
fn a_raise_adds_and_starts_an_epoch() {
    let pool = pool(10, vec![holder("a", 4, 3), holder("b", 2, 5)]);
    let (status, answers) = raise(&pool, &used(&[("a", 1)]), &[request("a", 2), request("c", 2)]);
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert_eq!(grants(status.as_ref()), [("a", 6, 8), ("b", 2, 5), ("c", 2, 8)]);
    assert_eq!(status.and_then(|status| status.epoch), Some(8));
}

#[test]
fn a_full_pool_refuses_who_does_not_fit() {
    let pool = pool(10, vec![holder("a", 4, 3), holder("b", 3, 5)]);
    let (status, answers) = raise(
        &pool,
        &Sight::default(),
        &[request("a", 4), request("b", 3), request("a", 1)],
    );
    assert_eq!(answers, [Err(Refusal::Full), Ok(()), Err(Refusal::Full)]);
    assert_eq!(grants(status.as_ref()), [("a", 4, 3), ("b", 6, 8)]);
    let (status, answers) = raise(&pool, &Sight::default(), &[request("c", 4)]);
    assert_eq!((status, answers), (None, vec![Err(Refusal::Full)]));
}

#[test]
fn what_is_seen_above_a_grant_counts() {
    let pool = pool(10, vec![holder("a", 4, 3)]);
    let refused = |sight: &Sight| raise(&pool, sight, &[request("b", 4)]).1 == [Err(Refusal::Full)];
    assert!(!refused(&used(&[("a", 6)])));
    assert!(refused(&used(&[("a", 7)])), "others added to it");
    assert!(refused(&used(&[("gone", 3)])), "somebody without a grant");
    let half = Sight {
        effective: Some(5),
        ..Sight::default()
    };
    assert!(refused(&half), "load is shed");
}

#[test]
fn a_guarantee_is_kept_from_others_until_it_is_met() {
    let mut pool = pool(10, vec![holder("a", 2, 3), holder("b", 2, 3)]);
    pool.spec.guarantees = vec![Guarantee {
        queue: "urgent".to_owned(),
        slots: 6,
    }];
    let sight = Sight {
        consumers: [("urgent".to_owned(), ["a".to_owned()].into())].into(),
        ..Sight::default()
    };
    let ask =
        |pool: &Pool, sight: &Sight, uid: &str, slots: u64| raise(pool, sight, &[request(uid, slots)]).1[0];
    assert_eq!(ask(&pool, &sight, "b", 2), Ok(()));
    assert_eq!(ask(&pool, &sight, "b", 3), Err(Refusal::Full));
    assert_eq!(ask(&pool, &sight, "a", 6), Ok(()));
    assert_eq!(
        ask(&pool, &Sight::default(), "b", 1),
        Err(Refusal::Full),
        "nobody consumes it yet"
    );
    let (_, both) = raise(
        &pool,
        &sight,
        &[request("a", 4), request("b", 2), request("b", 1)],
    );
    assert_eq!(both, [Ok(()), Ok(()), Err(Refusal::Full)]);
}

#[test]
fn no_more_holders_than_fit_in() {
    let many = (0..HOLDERS_MAX)
        .map(|at| holder(&format!("h{at}"), 1, 1))
        .collect();
    let pool = pool(5000, many);
    let (status, answers) = raise(&pool, &Sight::default(), &[request("new", 1), request("h5", 1)]);
    assert_eq!(answers, [Err(Refusal::TooManyHolders), Ok(())]);
    assert_eq!(status.map(|status| status.holders.len()), Some(HOLDERS_MAX));
}

#[test]
fn a_release_holds_only_for_the_mark_that_was_noted() {
    let pool = pool(10, vec![holder("a", 6, 3), holder("b", 4, 5)]);
    let noted = mark(&pool, "a").expect("a grant");
    let lower = |mark: &Mark, slots: u64| release(&pool, &[("a".to_owned(), (mark.clone(), slots))].into());
    let status = lower(&noted, 2);
    assert_eq!(grants(status.as_ref()), [("a", 2, 3), ("b", 4, 5)]);
    assert_eq!(status.and_then(|status| status.epoch), Some(8));
    assert_eq!(grants(lower(&noted, 0).as_ref()), [("b", 4, 5)]);
    assert_eq!(lower(&noted, 6), None, "nothing is free");
    assert_eq!(lower(&noted, 9), None, "a release never adds");
    let other_epoch = Mark {
        epoch: 2,
        ..noted.clone()
    };
    let other_pool = Mark {
        pool_uid: "p-0".to_owned(),
        ..noted
    };
    assert_eq!(lower(&other_epoch, 2), None);
    assert_eq!(lower(&other_pool, 2), None);
}

#[test]
fn only_a_grant_of_this_pool_has_a_mark() {
    let mut pool = pool(10, vec![holder("a", 6, 3)]);
    assert_eq!(mark(&pool, "b"), None);
    assert!(mark(&pool, "a").is_some());
    pool.metadata.uid = Some("p-2".to_owned());
    assert_eq!(mark(&pool, "a"), None);
    pool.status = None;
    assert_eq!(release(&pool, &BTreeMap::new()), None);
}

#[test]
fn a_rebuilt_status_says_what_is_taken_in_a_new_epoch() {
    let mut pool = pool(10, vec![holder("gone", 6, 3)]);
    pool.metadata.uid = Some("p-2".to_owned());
    let left = |uid: &str, slots| (uid.to_owned(), (format!("wp-{uid}"), slots));
    let left = [left("a", 12), left("b", 0)].into();
    let status = rebuild(&pool, &left, 5000);
    assert_eq!(grants(Some(&status)), [("a", 12, 5000)]);
    assert_eq!(
        (status.epoch, status.slots, status.pool_uid.as_deref()),
        (Some(5000), Some(10), Some("p-2"))
    );
    assert_eq!(rebuild(&pool, &left, 3).epoch, Some(8), "an epoch never falls");
    pool.status = Some(status);
    assert_eq!(mode(&pool), Mode::Limited);
    pool.status = None;
    assert_eq!(rebuild(&pool, &left, 5000).epoch, Some(5000));
}

#[test]
fn a_pool_without_a_limit_grants_nothing_and_says_so() {
    let mut pool = pool(10, vec![holder("a", 6, 3)]);
    pool.spec.slots = UNLIMITED;
    assert_eq!(mode(&pool), Mode::Opening);
    let status = open(&pool, 0);
    assert_eq!((grants(Some(&status)), status.epoch), (vec![], Some(8)));
    pool.status = Some(status);
    assert_eq!(mode(&pool), Mode::Unlimited);
    pool.spec.slots = 10;
    assert_eq!(
        mode(&pool),
        Mode::Unknown,
        "what was taken meanwhile is in no grant"
    );
}

/// Of 6 slots for pods of 4 two are of no use to the queue.
#[test]
fn the_rest_of_a_guarantee_is_granted_to_others() {
    let mut pool = pool(10, vec![holder("b", 4, 3)]);
    pool.spec.guarantees = vec![Guarantee {
        queue: "urgent".to_owned(),
        slots: 6,
    }];
    let mut sight = Sight {
        consumers: [("urgent".to_owned(), ["a".to_owned()].into())].into(),
        ..Sight::default()
    };
    let ask = |sight: &Sight, slots: u64| raise(&pool, sight, &[request("b", slots)]).1[0];
    assert_eq!(ask(&sight, 1), Err(Refusal::Full), "nobody consumes it yet");
    sight.units.insert("urgent".to_owned(), 4);
    assert_eq!((ask(&sight, 2), ask(&sight, 3)), (Ok(()), Err(Refusal::Full)));
}

fn guaranteed(slots: i32, holders: Vec<Holder>, guarantees: &[(&str, i32)]) -> Pool {
    let mut pool = pool(slots, holders);
    pool.spec.guarantees = guarantees
        .iter()
        .map(|(queue, slots)| Guarantee {
            queue: (*queue).to_owned(),
            slots: *slots,
        })
        .collect();
    pool
}

/// Each queue is consumed by the WorkerPool of its name, in pods of so many slots.
fn shed(effective: u64, units: &[(&str, u64)]) -> Sight {
    Sight {
        effective: Some(effective),
        consumers: units
            .iter()
            .map(|(queue, _)| ((*queue).to_owned(), [(*queue).to_owned()].into()))
            .collect(),
        units: units
            .iter()
            .map(|(queue, unit)| ((*queue).to_owned(), *unit))
            .collect(),
        ..Sight::default()
    }
}

/// A high load leaves less than all guarantees together: whoever comes first gets his own, and nobody more.
#[test]
fn guarantees_that_do_not_fit_together_keep_nobody_from_his_own() {
    let ask = |holders, uid: &str, slots| {
        let pool = guaranteed(10, holders, &[("a", 5), ("b", 5)]);
        raise(&pool, &shed(5, &[("a", 1), ("b", 1)]), &[request(uid, slots)]).1[0]
    };
    assert_eq!((ask(vec![], "a", 1), ask(vec![], "b", 5)), (Ok(()), Ok(())));
    assert_eq!(ask(vec![], "a", 6), Err(Refusal::Full));
    assert_eq!(ask(vec![], "c", 1), Err(Refusal::Full), "it has no guarantee");
    let b = || vec![holder("b", 3, 3)];
    assert_eq!((ask(b(), "a", 2), ask(b(), "a", 3)), (Ok(()), Err(Refusal::Full)));
    assert_eq!(ask(b(), "c", 1), Err(Refusal::Full));
}

/// What still fits beside one's own guarantee is kept for the other's.
#[test]
fn as_much_of_the_guarantees_is_kept_as_fits() {
    let ask = |holders, uid: &str, slots| {
        let pool = guaranteed(10, holders, &[("a", 5), ("b", 5)]);
        raise(&pool, &shed(8, &[("a", 1), ("b", 1)]), &[request(uid, slots)]).1[0]
    };
    assert_eq!(
        (ask(vec![], "a", 5), ask(vec![], "a", 6)),
        (Ok(()), Err(Refusal::Full))
    );
    let both = || vec![holder("a", 3, 3), holder("b", 3, 3)];
    assert_eq!((ask(both(), "a", 2), ask(both(), "b", 2)), (Ok(()), Ok(())));
    let whole = || vec![holder("a", 5, 3), holder("b", 2, 3)];
    assert_eq!(
        (ask(whole(), "a", 1), ask(whole(), "b", 1)),
        (Err(Refusal::Full), Ok(()))
    );
    let pods = |unit| {
        let pool = guaranteed(40, vec![], &[("a", 15), ("b", 15)]);
        raise(&pool, &shed(20, &[("a", 8), ("b", unit)]), &[request("a", 8)]).1[0]
    };
    assert_eq!((pods(8), pods(1)), (Ok(()), Ok(())));
}
