//! What a Pool's status says, and what of it may wait.

use std::collections::BTreeMap;

use jiff::Timestamp;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{AirflowPool, Holder, Pool, PoolStatus};
use poolwright_api::{ConditionType, Reason};
use serde_json::json;

use super::{Figures, only_numbers, status, with_open};
use crate::airflow_pool::{Link, PoolView};
use crate::grants::Sight;
use crate::sample::FaultKind;

/// A Pool of so many slots whose grants are known: 8 for `u-1`.
fn pool(slots: i32) -> Pool {
    let mut pool: Pool = serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
        "metadata": {"name": "p", "namespace": "shop", "uid": "pool-1", "generation": 2},
        "spec": {"slots": slots},
    }))
    .expect("a Pool");
    pool.status = Some(PoolStatus {
        pool_uid: Some("pool-1".to_owned()),
        slots: Some(slots),
        epoch: Some(5),
        holders: vec![Holder {
            worker_pool: "w".to_owned(),
            uid: "u-1".to_owned(),
            granted: 8,
            used: 8,
            epoch: 5,
        }],
        ..PoolStatus::default()
    });
    pool
}

fn used(slots: &[(&str, u64)]) -> Sight {
    Sight {
        used: slots
            .iter()
            .map(|(uid, slots)| ((*uid).to_owned(), *slots))
            .collect(),
        ..Sight::default()
    }
}

fn figures(running: Option<u64>, queued: Option<u64>) -> Figures {
    Figures {
        running,
        queued,
        ..Figures::default()
    }
}

fn new(pool: &Pool, sight: &Sight, figures: &Figures, unknown: &[String]) -> PoolStatus {
    status(pool, sight, figures, unknown, None, Timestamp::UNIX_EPOCH)
}

fn ready(status: &PoolStatus) -> (String, String) {
    let ready = find(&status.conditions, ConditionType::Ready).expect("Ready");
    (ready.status.clone(), ready.reason.clone())
}

fn said(status: &str, reason: Reason) -> (String, String) {
    (status.to_owned(), reason.to_string())
}

#[test]
fn numbers_are_those_of_now() {
    let status = new(
        &pool(20),
        &used(&[("u-1", 8), ("u-2", 4)]),
        &figures(Some(6), Some(30)),
        &[],
    );
    assert_eq!((status.running, status.queued), (Some(6), Some(30)));
    assert_eq!((status.open, status.utilization_percent), (Some(8), Some(30)));
    assert_eq!((status.slots, status.effective_slots), (Some(20), Some(20)));
    assert_eq!(ready(&status), said("True", Reason::AsDesired));
}

/// Missing is not zero.
#[test]
fn what_is_not_known_stands() {
    let mut pool = pool(20);
    pool.status.as_mut().expect("a status").running = Some(7);
    let status = new(&pool, &used(&[]), &figures(None, Some(0)), &[]);
    assert_eq!((status.running, status.queued), (Some(7), Some(0)));
}

#[test]
fn without_a_limit_nothing_is_open_and_no_share_of_it_is_used() {
    let status = new(&pool(-1), &used(&[]), &figures(Some(3), Some(0)), &[]);
    assert_eq!((status.open, status.utilization_percent), (None, None));
    assert_eq!(status.effective_slots, Some(-1));
    assert_eq!(
        new(&pool(0), &used(&[]), &figures(Some(3), Some(0)), &[]).utilization_percent,
        None
    );
}

/// Otherwise a scale-in would write each pod that goes.
#[test]
fn a_use_that_falls_waits_for_its_grant_to_be_lowered() {
    let status = |used_now| {
        new(
            &pool(20),
            &used(&[("u-1", used_now)]),
            &figures(Some(0), Some(0)),
            &[],
        )
    };
    assert_eq!(status(4).holders[0].used, 8);
    assert_eq!(status(12).holders[0].used, 12);
    assert_eq!(status(4).holders[0].granted, 8, "no grant is changed here");
}

#[test]
fn each_thing_that_is_wrong_is_said() {
    let over = new(
        &pool(10),
        &used(&[("u-1", 8), ("u-2", 4)]),
        &figures(Some(0), Some(0)),
        &[],
    );
    assert_eq!(ready(&over), said("False", Reason::OverBudget));
    let unknown = new(
        &pool(10),
        &used(&[]),
        &figures(Some(0), Some(0)),
        &["mail".to_owned()],
    );
    assert_eq!(ready(&unknown), said("False", Reason::QueueUnknown));
    let mut copied = pool(10);
    copied.metadata.uid = Some("pool-2".to_owned());
    let counting = new(&copied, &used(&[]), &figures(Some(0), Some(0)), &[]);
    assert_eq!(ready(&counting), said("False", Reason::Progressing));
    assert_eq!(counting.slots, Some(10), "who rebuilds it must see it as it was");
    let mut full = pool(1_000_000);
    let holders = &mut full.status.as_mut().expect("a status").holders;
    holders.resize(1000, holders[0].clone());
    let full = new(&full, &used(&[]), &figures(Some(0), Some(0)), &[]);
    assert_eq!(ready(&full), said("False", Reason::TooManyHolders));
}

/// Whatever else is to be said: a Pool is above its budget just because half of it was taken away.
#[test]
fn a_load_is_told_beside_all_else() {
    let load = "the load is above 80 %".to_owned();
    let figures = Figures {
        load: Some(load.clone()),
        ..figures(Some(0), Some(0))
    };
    let message = |pool: &Pool, sight: &Sight| {
        let status = new(pool, sight, &figures, &[]);
        let ready = find(&status.conditions, ConditionType::Ready).expect("Ready");
        ready.message.clone()
    };
    assert_eq!(message(&pool(20), &used(&[("u-1", 8)])), load);
    let half = Sight {
        effective: Some(5),
        ..used(&[("u-1", 8)])
    };
    let words =
        "8 slots are taken of 5: nothing is granted until enough pods have gone; the load is above 80 %";
    assert_eq!(message(&pool(10), &half), words);
    let mut copied = pool(10);
    copied.metadata.uid = Some("pool-2".to_owned());
    assert!(message(&copied, &used(&[])).ends_with(&format!("; {load}")));
}

/// A Pool of Airflow's, and what its status says with each of these links in turn, a second apart.
fn with_airflow(links: &[Option<Link>]) -> Vec<PoolStatus> {
    let mut pool = pool(10);
    pool.spec.airflow = Some(AirflowPool::default());
    let mut all = Vec::new();
    for (second, link) in (0..).zip(links) {
        all.push(goes_on(&mut pool, link.as_ref(), second));
    }
    all
}

/// What the status of a Pool says next with a link, at this second; and it does.
fn goes_on(pool: &mut Pool, link: Option<&Link>, second: i64) -> PoolStatus {
    let wall = Timestamp::from_second(second).expect("a time");
    let sight = used(&[("u-1", 8)]);
    let new = status(pool, &sight, &figures(Some(1), Some(0)), &[], link, wall);
    pool.status = Some(new.clone());
    new
}

fn link(poking: Option<u32>, trouble: Option<(Reason, &str)>) -> Link {
    Link {
        seen: Some(PoolView {
            poking,
            ..PoolView::default()
        }),
        trouble: trouble.map(|(reason, words)| (reason, words.to_owned())),
        generation: pool(10).metadata.generation,
        ..Link::default()
    }
}

#[test]
fn an_airflow_that_is_not_as_it_should_be_is_said_once() {
    let down = link(Some(0), Some((Reason::AirflowUnreachable, "it is silent")));
    let well = link(Some(0), None);
    let all = with_airflow(&[
        None,
        Some(down.clone()),
        Some(down),
        None,
        Some(well.clone()),
        None,
        Some(well),
    ]);
    let unread = Reason::Progressing;
    assert_eq!(ready(&all[0]), said("False", unread));
    assert_eq!(ready(&all[1]), said("False", Reason::AirflowUnreachable));
    let sync = |status: &PoolStatus| {
        let found = find(&status.conditions, ConditionType::AirflowInSync).expect("the condition");
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!(sync(&all[1]), said("Unknown", Reason::AirflowUnreachable));
    // Nothing new is said of it a second later, nor by another process that has read nothing yet.
    assert_eq!((&all[1], &all[1]), (&all[2], &all[3]));
    assert_eq!(
        (ready(&all[4]), sync(&all[4])),
        (said("True", Reason::AsDesired), said("True", Reason::AsDesired))
    );
    assert_eq!((&all[4], &all[4]), (&all[5], &all[6]));
}

#[test]
fn a_pool_that_has_changed_is_in_sync_once_airflow_was_read_again() {
    let mut pool = pool(10);
    pool.spec.airflow = Some(AirflowPool::default());
    let mut sync = |generation, link: Option<&Link>| {
        pool.metadata.generation = Some(generation);
        let new = goes_on(&mut pool, link, 0);
        let found = find(&new.conditions, ConditionType::AirflowInSync).expect("the condition");
        let is_ready = find(&new.conditions, ConditionType::Ready).is_some_and(|one| one.status == "True");
        let is = (found.status.as_str(), found.observed_generation, is_ready);
        (is.0.to_owned(), is.1.unwrap_or_default(), is.2)
    };
    let of = |generation, trouble| Link {
        generation: Some(generation),
        ..link(Some(0), trouble)
    };
    let is = |status: &str, generation, is_ready| (status.to_owned(), generation, is_ready);
    assert_eq!(sync(1, Some(&of(1, None))), is("True", 1, true));
    assert_eq!(sync(2, Some(&of(1, None))), is("Unknown", 2, false));
    assert_eq!(sync(2, Some(&of(2, None))), is("True", 2, true));
    // Another process, which has read nothing yet.
    assert_eq!(sync(2, None), is("True", 2, true));
    assert_eq!(sync(3, None), is("Unknown", 3, false));
    // What is wrong is said of what it was found with.
    let wrong = Some((Reason::Conflict, "another has it"));
    assert_eq!(sync(4, Some(&of(3, wrong))), is("False", 3, false));
}

#[test]
fn numbers_of_airflow_stand_until_its_pool_is_gone() {
    let down = Link {
        trouble: Some((Reason::AirflowUnreachable, "it is silent".to_owned())),
        ..Link::default()
    };
    let gone = Link {
        absent: true,
        trouble: Some((Reason::AirflowPoolMissing, "it has none".to_owned())),
        ..Link::default()
    };
    let mut unread = link(None, None);
    if let Some(seen) = &mut unread.seen {
        seen.unread = Some((FaultKind::Refused, "it refuses".into()));
    }
    let all = with_airflow(&[
        Some(link(Some(2), None)),
        Some(down),
        Some(link(None, None)),
        Some(unread),
        Some(link(None, None)),
        Some(gone),
    ]);
    let advised = |status: &PoolStatus| {
        let found = find(&status.conditions, ConditionType::ConfigurationAdvised)?;
        Some((found.status.clone(), found.reason.clone()))
    };
    let pokes = Some(said("True", Reason::SensorsPoke));
    // While another process counts, and while nothing is read, what was said stands.
    for status in &all[..3] {
        assert_eq!(advised(status), pokes);
    }
    assert_eq!(all[1].airflow, all[0].airflow);
    assert_eq!(advised(&all[3]), Some(said("Unknown", Reason::AirflowRefused)));
    assert_eq!(advised(&all[4]), Some(said("Unknown", Reason::Progressing)));
    assert_eq!((&all[5].airflow, advised(&all[5])), (&None, None));
}

#[test]
fn numbers_may_wait_and_grants_may_not() {
    let pool = pool(20);
    let old = new(&pool, &used(&[("u-1", 8)]), &figures(Some(0), Some(0)), &[]);
    let busy = new(&pool, &used(&[("u-1", 8)]), &figures(Some(4), Some(9)), &[]);
    assert!(old != busy && only_numbers(&old, &busy));
    let mut granted = old.clone();
    granted.holders[0].granted = 12;
    assert!(!only_numbers(&old, &granted));
    let over = new(&pool, &used(&[("u-2", 30)]), &figures(Some(0), Some(0)), &[]);
    assert!(!only_numbers(&old, &over));
}

#[test]
fn what_is_open_is_what_is_neither_taken_nor_granted() {
    let pool = pool(20);
    let status = pool.status.clone().expect("a status");
    let open = |sight: &Sight| with_open(&pool, sight, status.clone()).open;
    assert_eq!(open(&used(&[])), Some(12));
    assert_eq!(open(&used(&[("u-1", 10)])), Some(10));
    assert_eq!(open(&used(&[("u-1", 30)])), Some(0));
    let shed = Sight {
        effective: Some(10),
        used: BTreeMap::new(),
        ..Sight::default()
    };
    assert_eq!(open(&shed), Some(2));
}

#[test]
fn fifty_who_lack_most_are_told_whatever_the_order() {
    let waiter = |number: u64| (format!("w{number:02}"), number / 2);
    let told = |mut waiters: Vec<(String, u64)>| {
        waiters.rotate_left(17);
        let mut figures = Figures {
            waiters,
            ..Figures::default()
        };
        figures.keep_greatest_waiters();
        figures.waiters
    };
    let last: Vec<_> = (10..60).map(waiter).collect();
    assert_eq!(told((0..60).map(waiter).collect()), last);
    assert_eq!(told((0..60).rev().map(waiter).collect()), last);
}
