//! An Airflow that changes while it is read, and one that cannot do what others can.

use super::*;

/// How many pools one look tells, 0 for none.
async fn told(airflow: &mut Airflow) -> usize {
    let reading = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap();
    reading.map_or(0, |reading| reading.pools.len())
}

#[tokio::test]
async fn a_reading_that_failed_for_want_of_a_version_begins_anew() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(250),
        ..Fake::default()
    })
    .await;
    assert_eq!(look(&mut airflow, 1).await, [0], "two pages of three");
    fake.lock().unwrap().version = "4.0.0";
    airflow.rest.forget_version();
    airflow.look(Timestamp::UNIX_EPOCH).await.unwrap_err();
    let other = (0..250).map(|at| format!("other{at}")).collect();
    fake.lock().unwrap().version = "3.3.2";
    fake.lock().unwrap().pools = other;
    let mut reading = None;
    for _ in 0..3 {
        let looked = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap();
        reading = reading.or(looked);
    }
    let pools = reading.unwrap().pools;
    assert_eq!(pools.len(), 250);
    assert!(
        pools.keys().all(|name| name.starts_with("other")),
        "of two moments"
    );
}

#[tokio::test]
async fn pools_that_come_now_and_then_are_no_failure() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(150),
        ..Fake::default()
    })
    .await;
    assert_eq!(look(&mut airflow, 1).await, [150]);
    for come in 1..6 {
        fake.lock().unwrap().comes = Some(format!("late{come}"));
        let seen = [told(&mut airflow).await, told(&mut airflow).await];
        assert_eq!(seen, [0, 0], "one for tasks, and one that is torn");
        assert_eq!(told(&mut airflow).await, 150 + come);
    }
}

#[tokio::test]
async fn pools_that_come_whenever_they_are_read_are_a_failure_until_they_do_not() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(150),
        ..Fake::default()
    })
    .await;
    for come in 0..3 {
        fake.lock().unwrap().comes = Some(format!("late{come}"));
        let seen = airflow.look(Timestamp::UNIX_EPOCH).await;
        if come < 2 {
            assert_eq!(seen.unwrap(), None);
        } else {
            let error = seen.unwrap_err();
            assert_eq!(error.kind, FaultKind::Implausible);
            let words = "Airflow changes its list of pools each time while it is read";
            assert_eq!(error.message, words);
        }
    }
    let mut seen = 0;
    for _ in 0..2 {
        seen = seen.max(told(&mut airflow).await);
    }
    assert_eq!(seen, 153);
}

#[tokio::test]
async fn a_version_that_finds_no_pool_with_a_slash_says_so() {
    for (version, finds) in [("3.0.6", false), ("3.3.2", true)] {
        let (fake, mut airflow) = start(Fake {
            version,
            ..Fake::default()
        })
        .await;
        assert!(airflow.create(&wanted("a/b")).await.unwrap());
        assert!(airflow.change(&wanted("a")).await.unwrap());
        let changed = airflow.change(&wanted("a/b")).await.map(drop);
        let deleted = airflow.delete("a/b").await;
        for done in [changed, deleted] {
            assert_eq!(done.is_ok(), finds, "{version}");
            let Err(error) = done else { continue };
            assert_eq!(error.kind, FaultKind::Implausible);
            let words = "this version finds no pool with a slash in its name";
            assert!(error.message.contains(words), "{}", error.message);
        }
        let count = fake.lock().unwrap().changes.len();
        assert_eq!(count, if finds { 4 } else { 2 }, "{version}");
    }
}
