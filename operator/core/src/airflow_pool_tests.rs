use poolwright_api::conditions::condition;
use poolwright_api::v1alpha1::{AirflowPool, HighLoad, PoolSpec, PoolStatus};

use super::*;

fn pool(sync: AirflowSync, slots: i32) -> Pool {
    let spec = PoolSpec {
        slots,
        description: Some("for people".to_owned()),
        airflow: Some(AirflowPool {
            sync,
            ..AirflowPool::default()
        }),
        ..PoolSpec::default()
    };
    Pool::new("database", spec)
}

fn view(slots: i64) -> PoolView {
    PoolView {
        slots,
        description: "for people".to_owned(),
        ..PoolView::default()
    }
}

#[test]
fn slots_are_held_by_airflows_rule() {
    let mut counts = Counts::default();
    for (state, slots) in [
        ("running", 2),
        ("queued", 1),
        ("deferred", 3),
        ("scheduled", 7),
        ("up_for_reschedule", 10),
        ("up_for_retry", 10),
        ("restarting", 10),
        ("awaiting_input", 10),
        ("", 10),
    ] {
        counts.add(state, slots);
    }
    let link = |slots, include_deferred| Link {
        name: "database".to_owned(),
        seen: Some(PoolView {
            include_deferred,
            counts,
            ..view(slots)
        }),
        ..Link::default()
    };
    // As Airflow itself says of such rows: 64 slots, 3 taken, 61 open; and 8 with deferred ones, 6 taken, 2 open.
    let status = link(64, false).status().unwrap();
    assert_eq!(
        (status.occupied, status.open, status.utilization_percent),
        (3, Some(61), Some(4))
    );
    assert_eq!(
        (status.running, status.queued, status.deferred, status.scheduled),
        (2, 1, 3, 7)
    );
    let status = link(8, true).status().unwrap();
    assert_eq!(
        (status.occupied, status.open, status.utilization_percent),
        (6, Some(2), Some(75))
    );
    let status = link(-1, true).status().unwrap();
    assert_eq!(
        (status.slots, status.open, status.utilization_percent),
        (-1, None, None)
    );
    // More than there are, and none at all.
    assert_eq!(link(2, false).status().unwrap().open, Some(-1));
    let closed = link(0, false).status().unwrap();
    assert_eq!((closed.open, closed.utilization_percent), (Some(-3), None));
}

#[test]
fn airflow_follows_the_resource() {
    let ours = pool(AirflowSync::Apply, 10);
    let wanted = wanted(&ours).unwrap();
    assert_eq!(step(&ours, None, true), Step::Create(wanted.clone()));
    assert_eq!(step(&ours, Some(&view(10)), true), Step::Nothing);
    let words = "slots: 12 in Airflow, 10 in this Pool".to_owned();
    assert_eq!(
        step(&ours, Some(&view(12)), true),
        Step::Change(wanted.clone(), words)
    );
    for seen in [
        PoolView {
            description: String::new(),
            ..view(10)
        },
        PoolView {
            include_deferred: true,
            ..view(10)
        },
    ] {
        assert!(matches!(step(&ours, Some(&seen), true), Step::Change(one, _) if one == wanted));
    }
}

#[test]
fn the_resource_follows_airflow() {
    let ours = pool(AirflowSync::Mirror, 10);
    assert_eq!(step(&ours, Some(&view(10)), true), Step::Nothing);
    let seen = PoolView {
        description: String::new(),
        include_deferred: true,
        ..view(-1)
    };
    let follow = Follow {
        slots: -1,
        description: None,
        include_deferred: true,
    };
    assert!(matches!(step(&ours, Some(&seen), false), Step::Follow(one, _) if one == follow));
    assert!(matches!(
        step(&ours, None, true),
        Step::Stuck(Reason::AirflowPoolMissing, _)
    ));
    for slots in [-2, 1_000_001, i64::MAX] {
        let stuck = step(&ours, Some(&view(slots)), true);
        assert!(matches!(stuck, Step::Stuck(Reason::InvalidSpec, _)), "{slots}");
    }
    // What does not fit is followed as far as it fits, and then left alone.
    let long = PoolView {
        description: "ä".repeat(2000),
        ..view(10)
    };
    let Step::Follow(follow, _) = step(&ours, Some(&long), true) else {
        unreachable!()
    };
    let mut after = ours.clone();
    after.spec.description = follow.description;
    assert_eq!(step(&after, Some(&long), true), Step::Nothing);
}

#[test]
fn the_default_pool_is_neither_made_nor_described() {
    let mut ours = pool(AirflowSync::Apply, 10);
    ours.metadata.name = Some("default-pool".to_owned());
    assert_eq!(wanted(&ours).unwrap().name, "default_pool");
    assert!(matches!(
        step(&ours, None, true),
        Step::Stuck(Reason::AirflowPoolMissing, _)
    ));
    let seen = PoolView {
        description: "Default pool".to_owned(),
        ..view(10)
    };
    assert_eq!(step(&ours, Some(&seen), true), Step::Nothing);
    assert!(matches!(step(&ours, Some(&view(128)), true), Step::Change(..)));
}

#[test]
fn no_pool_without_a_limit_is_made_where_it_stops_all_lists() {
    let ours = pool(AirflowSync::Apply, -1);
    for seen in [None, Some(&view(5))] {
        assert!(matches!(
            step(&ours, seen, false),
            Step::Stuck(Reason::InvalidSpec, _)
        ));
        assert!(!matches!(step(&ours, seen, true), Step::Stuck(..)));
    }
}

#[test]
fn what_a_load_takes_away_it_takes_from_airflow_too() {
    let mut ours = pool(AirflowSync::Apply, 10);
    ours.status = Some(PoolStatus {
        effective_slots: Some(5),
        ..PoolStatus::default()
    });
    assert_eq!(wanted(&ours).unwrap().slots, 10);
    ours.spec.load_shedding = Some(HighLoad::default());
    assert_eq!(wanted(&ours).unwrap().slots, 5);
    // A status of before the spec was lowered, or had a limit.
    ours.spec.slots = 3;
    assert_eq!(wanted(&ours).unwrap().slots, 3);
    ours.spec.slots = -1;
    assert_eq!(wanted(&ours).unwrap().slots, -1);
}

#[test]
fn sensors_are_advised_on_and_queues_are_bounded() {
    let counts = |scheduled| Counts {
        scheduled,
        ..Counts::default()
    };
    let mut seen = view(10);
    seen.queues = (0..150).map(|at| (format!("q{at:03}"), counts(at))).collect();
    let mut link = Link {
        seen: Some(seen),
        ..Link::default()
    };
    let status = link.status().unwrap();
    assert_eq!(
        (status.queues.len(), status.queues[0].name.as_str()),
        (100, "q050")
    );
    assert_eq!((status.poking_sensors, link.advice()), (None, None));
    link.seen.as_mut().unwrap().poking = Some(0);
    assert_eq!(link.advice(), None);
    link.seen.as_mut().unwrap().poking = Some(2);
    assert!(link.advice().unwrap().starts_with("2 sensors"));
}

#[test]
fn a_shape_is_that_of_what_was_asked_for_and_of_nothing_else() {
    let mut asked = wanted(&pool(AirflowSync::Apply, 10)).unwrap();
    let made = PoolView {
        description: asked.description.clone(),
        ..view(10)
    };
    assert_eq!(made.shape(), asked.shape());
    let others = [
        view(11),
        PoolView {
            include_deferred: true,
            ..made.clone()
        },
        PoolView {
            description: "theirs".to_owned(),
            ..made.clone()
        },
    ];
    assert!(others.iter().all(|other| other.shape() != asked.shape()));
    asked.slots = 11;
    assert_ne!(made.shape(), asked.shape());
}

#[test]
fn what_another_process_has_seen_agree_is_changed_by_somebody_else() {
    let mut pool = pool(AirflowSync::Apply, 8);
    pool.metadata.generation = Some(3);
    let link = Link {
        name: "database".to_owned(),
        url: Some("http://a".to_owned()),
        seen: Some(view(8)),
        ..Link::default()
    };
    let said = |is, generation| {
        let said = condition(
            ConditionType::AirflowInSync,
            is,
            Reason::AsDesired,
            "",
            Some(generation),
        );
        PoolStatus {
            conditions: vec![said],
            airflow: link.status(),
            ..PoolStatus::default()
        }
    };
    assert_eq!(agreed(&pool), None, "nothing is known");
    pool.status = Some(said(Some(true), 3));
    let known = (wanted(&pool).unwrap(), "http://a".to_owned());
    assert_eq!(agreed(&pool), Some(known));
    pool.spec.slots = 9;
    assert_eq!(agreed(&pool), None, "it is changed by us");
    pool.spec.slots = 8;
    for (in_sync, generation) in [(Some(true), 2), (Some(false), 3), (None, 3)] {
        pool.status = Some(said(in_sync, generation));
        assert_eq!(agreed(&pool), None, "{in_sync:?} {generation}");
    }
}
