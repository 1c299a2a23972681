//! What a real Airflow does not show at will: many pages, pools that come and go between two of them, sessions that end.

mod odd;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use poolwright_core::broker::Tls;
use poolwright_core::sample::FaultKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::signals::guard::Policy;

/// An Airflow in memory.
#[derive(Default)]
struct Fake {
    version: &'static str,
    pools: Vec<String>,
    /// Pools of tasks that have run for long, and whether they are sensors.
    tasks: Vec<(&'static str, bool)>,
    /// Tasks that wait: pool, queue and executor.
    waiting: Vec<(&'static str, &'static str, Option<&'static str>)>,
    /// Logins so far; only the token of the last is good.
    logins: usize,
    /// Lines of requests that change something, with their bodies.
    changes: Vec<String>,
    /// A pool that comes after the first page was read.
    comes: Option<String>,
    /// It answers nothing but its version.
    broken: bool,
    /// Its default pool has no limit, and it fails to show it.
    unlimited: bool,
}

type Shared = Arc<Mutex<Fake>>;

fn shown(name: &String) -> Value {
    json!({"name": name, "slots": 5, "description": null, "running_slots": 1, "queued_slots": 0, "scheduled_slots": 2})
}

/// Its tasks, or those alone that have run for long.
fn rows(fake: &Fake, of_long: bool) -> Vec<Value> {
    let long = fake.tasks.iter().enumerate().map(|(at, (pool, sensor))| {
        json!({"dag_id": "d", "dag_run_id": "r", "task_id": format!("long{at}"), "pool": pool, "queue": "q",
            "operator": if *sensor { "FileSensor" } else { "BashOperator" }, "state": "running",
            "start_date": "1969-12-31T23:54:59.5+00:00"})
    });
    let waiting = fake.waiting.iter().enumerate().filter(|_| !of_long);
    let waiting = waiting.map(|(at, (pool, queue, executor))| {
        json!({"dag_id": "d", "dag_run_id": "r", "task_id": "mapped", "map_index": at, "pool": pool, "queue": queue,
            "operator": "BashOperator", "state": "scheduled", "executor": executor, "start_date": null})
    });
    long.chain(waiting).collect()
}

async fn serve(
    State(fake): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut fake = fake.lock().unwrap();
    let path = head.uri.path().to_owned();
    let of = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| value.parse().ok())
    };
    let page = |all: usize| {
        let offset: usize = of("offset").unwrap_or(0);
        offset.min(all)..(offset + of("limit").unwrap_or(50).min(100)).min(all)
    };
    let api = if fake.version.starts_with('2') {
        "/api/v1"
    } else {
        "/api/v2"
    };
    if path == format!("{api}/version") {
        return json!({"version": fake.version}).to_string().into_response();
    }
    if fake.broken {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if path == "/auth/token" {
        fake.logins += 1;
        return json!({"access_token": format!("t{}", fake.logins)})
            .to_string()
            .into_response();
    }
    let Some(rest) = path.strip_prefix(api) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let said = head
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let good = if api.ends_with('1') {
        "Basic bWU6cHc=".to_owned()
    } else {
        format!("Bearer t{}", fake.logins)
    };
    if said != good {
        return (StatusCode::FORBIDDEN, r#"{"detail":"Invalid JWT token"}"#).into_response();
    }
    if fake.unlimited && ["/pools", "/pools/default_pool"].contains(&rest) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    match (head.method.as_str(), rest) {
        ("GET", "/pools") => {
            let all = fake.pools.len();
            let range = page(all);
            let pools: Vec<Value> = fake.pools[range].iter().map(shown).collect();
            let come = fake.comes.take();
            fake.pools.extend(come);
            json!({"pools": pools, "total_entries": all})
                .to_string()
                .into_response()
        }
        ("GET", "/dags/~/dagRuns/~/taskInstances") => {
            if fake.tasks.iter().any(|(pool, _)| *pool == "bad") {
                return StatusCode::FORBIDDEN.into_response();
            }
            let is_later = of("offset").is_some_and(|offset: usize| offset > 0);
            let breaks = |pool: &str| pool == "broken" || pool == "broken later" && is_later;
            if fake.tasks.iter().any(|(pool, _)| breaks(pool)) {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            let of_long = query.iter().any(|(key, _)| key == "start_date_lte");
            let rows = rows(&fake, of_long);
            let all = rows.len();
            json!({"task_instances": rows[page(all)], "total_entries": all})
                .to_string()
                .into_response()
        }
        (method, rest) if method != "POST" && rest.contains("%2F") && fake.version.starts_with("3.0") => {
            StatusCode::METHOD_NOT_ALLOWED.into_response()
        }
        (method, _) => {
            let body = String::from_utf8_lossy(&body);
            let query = head.uri.query().unwrap_or_default();
            fake.changes.push(format!("{method} {rest}?{query} {body}"));
            if method == "POST" && body.contains("\"there\"") {
                return StatusCode::CONFLICT.into_response();
            }
            "{}".into_response()
        }
    }
}

async fn start(fake: Fake) -> (Shared, Airflow) {
    let fake = Arc::new(Mutex::new(fake));
    let router = Router::new().fallback(serve).with_state(Arc::clone(&fake));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let access = Access {
        url,
        credentials: Credentials::Password("me".to_owned(), Secret::new("pw")),
        tls: Tls::default(),
        database: None,
        executor: "CeleryExecutor".to_owned(),
    };
    let network = Network::of_machine(Policy::outside(), Vec::new());
    (fake, Airflow::new(&access, &network).unwrap())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("p{at}")).collect()
}

/// Looks so often, and says how many pools were read each time, 0 for none.
async fn look(airflow: &mut Airflow, times: usize) -> Vec<usize> {
    let mut seen = Vec::new();
    for _ in 0..times {
        let before = airflow.requests();
        let reading = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap();
        assert!(
            airflow.requests() - before <= if seen.is_empty() { 5 } else { 2 },
            "a look that asks too often"
        );
        seen.push(reading.map_or(0, |reading| reading.pools.len()));
    }
    seen
}

#[tokio::test]
async fn many_pools_are_read_over_several_looks_and_told_as_a_whole() {
    for (pools, seen) in [
        (1, [1, 1, 1, 1]),
        (100, [100, 100, 100, 100]),
        (200, [200, 0, 200, 0]),
        (250, [0, 250, 0, 250]),
    ] {
        for version in ["2.11.2", "3.3.2"] {
            let (_, mut airflow) = start(Fake {
                version,
                pools: names(pools),
                ..Fake::default()
            })
            .await;
            assert_eq!(look(&mut airflow, 4).await, seen, "{pools} of {version}");
        }
    }
}

#[tokio::test]
async fn a_pool_that_comes_between_two_pages_makes_the_reading_begin_anew() {
    let comes = Some("late".to_owned());
    let (_, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(150),
        comes,
        ..Fake::default()
    })
    .await;
    let seen = look(&mut airflow, 2).await;
    assert_eq!(seen, [0, 151]);
}

/// What the last of so many looks says; however many tasks there are to look through, each reads the pools.
async fn last(airflow: &mut Airflow, looks: usize) -> BTreeMap<String, PoolView> {
    let mut last = BTreeMap::new();
    for _ in 0..looks {
        let reading = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap();
        last = reading.unwrap().pools;
    }
    last
}

/// What a look says at this second.
async fn at(airflow: &mut Airflow, second: i64) -> PoolView {
    let reading = airflow.look(Timestamp::from_second(second).unwrap()).await;
    reading.unwrap().unwrap().pools["p0"].clone()
}

#[tokio::test]
async fn sensors_are_counted_by_pool_once_all_were_looked_through_twice() {
    let mut tasks = vec![("p0", true); 330];
    tasks.extend([("p0", false), ("p1", true), ("p1", true), ("other", true)]);
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(2),
        tasks,
        ..Fake::default()
    })
    .await;
    // A page a look, told with the next one: after the first pass none has been seen twice, as one that runs for a moment is not.
    for (looks, p0, p1) in [(5, None, None), (3, None, None), (1, Some(330), Some(2))] {
        let pools = last(&mut airflow, looks).await;
        assert_eq!((pools["p0"].poking, pools["p1"].poking), (p0, p1));
    }
    fake.lock().unwrap().tasks.clear();
    assert_eq!(last(&mut airflow, 6).await["p0"].poking, Some(0));
}

#[tokio::test]
async fn what_was_seen_of_tasks_stands_while_they_cannot_be_read_and_goes_when_they_may_not() {
    for (after, stands) in [("broken", true), ("bad", false)] {
        let (fake, mut airflow) = start(Fake {
            version: "3.3.2",
            pools: names(1),
            tasks: vec![("p0", true)],
            ..Fake::default()
        })
        .await;
        let pools = last(&mut airflow, 4).await;
        assert_eq!((pools["p0"].poking, pools["p0"].queues.len()), (Some(1), 1));
        fake.lock().unwrap().tasks = vec![(after, true)];
        let now = last(&mut airflow, 4).await;
        assert_eq!(now["p0"] == pools["p0"], stands, "{after}: {:?}", now["p0"]);
        assert_eq!(now["p0"].unread.is_none(), stands);
    }
}

#[tokio::test]
async fn what_cannot_be_read_for_minutes_does_not_stand() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(1),
        tasks: vec![("p0", true)],
        ..Fake::default()
    })
    .await;
    let before = last(&mut airflow, 4).await["p0"].clone();
    let tasks = std::mem::replace(&mut fake.lock().unwrap().tasks, vec![("broken", true)]);
    for second in (5..=299).step_by(5) {
        assert_eq!(at(&mut airflow, second).await, before, "{second}");
    }
    // It is asked once a minute, and told by the look after that.
    for second in (300..=370).step_by(5) {
        at(&mut airflow, second).await;
    }
    let after = at(&mut airflow, 375).await;
    assert_eq!((after.poking, after.queues.len()), (None, 0));
    let (kind, words) = after.unread.unwrap();
    assert_eq!(kind, FaultKind::Unreachable, "{words}");
    // And then it is looked through twice again.
    fake.lock().unwrap().tasks = tasks;
    let mut seen: Vec<_> = Vec::new();
    for second in (380..=500).step_by(5) {
        let now = at(&mut airflow, second).await;
        seen.push((now.poking, now.unread.is_some()));
    }
    seen.dedup();
    assert_eq!(seen, [(None, true), (None, false), (Some(1), false)]);
}

#[tokio::test]
async fn first_pages_alone_do_not_let_what_is_old_stand() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(1),
        tasks: vec![("p0", true); 150],
        ..Fake::default()
    })
    .await;
    assert_eq!(last(&mut airflow, 6).await["p0"].poking, Some(150));
    fake.lock().unwrap().tasks.push(("broken later", true));
    for second in (5..=299).step_by(5) {
        assert_eq!(at(&mut airflow, second).await.poking, Some(150), "{second}");
    }
    for second in (300..=440).step_by(5) {
        at(&mut airflow, second).await;
    }
    let after = at(&mut airflow, 445).await;
    assert_eq!((after.poking, after.unread.is_some()), (None, true));
}

#[tokio::test]
async fn tasks_of_celery_are_counted_by_pool_and_queue() {
    let waiting = vec![
        ("p0", "wide", None),
        ("p0", "wide", Some("CeleryExecutor")),
        (
            "p0",
            "narrow",
            Some("airflow.providers.celery.executors.celery_executor.CeleryExecutor"),
        ),
        ("p0", "wide", Some("KubernetesExecutor")),
        ("other", "wide", None),
    ];
    let (fake, mut airflow) = start(Fake {
        version: "2.11.2",
        pools: names(2),
        tasks: vec![("p1", true)],
        waiting,
        ..Fake::default()
    })
    .await;
    let queues = |pools: &BTreeMap<String, PoolView>, name: &str| -> Vec<(String, u64, u64)> {
        let of = pools[name].queues.iter();
        of.map(|(queue, counts)| (queue.clone(), counts.running, counts.scheduled))
            .collect()
    };
    assert!(
        last(&mut airflow, 1).await["p0"].queues.is_empty(),
        "nothing was looked through yet"
    );
    let pools = last(&mut airflow, 1).await;
    assert_eq!(
        queues(&pools, "p0"),
        [("narrow".to_owned(), 0, 1), ("wide".to_owned(), 0, 2)]
    );
    assert_eq!(queues(&pools, "p1"), [("q".to_owned(), 1, 0)]);

    // Too many for that: sensors are found all the same, and no part of the queues is told as all of them.
    fake.lock().unwrap().waiting = vec![("p0", "wide", None); 2000];
    let pools = last(&mut airflow, 5).await;
    assert_eq!((pools["p1"].poking, pools["p1"].queues.len()), (Some(1), 0));
    assert_eq!(pools["p0"].queues.len(), 0);
}

#[tokio::test]
async fn pools_are_told_also_where_tasks_cannot_be_looked_at() {
    let tasks = vec![("bad", true)];
    let (_, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(1),
        tasks,
        ..Fake::default()
    })
    .await;
    for turn in 0..3 {
        let before = airflow.requests();
        let reading = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap().unwrap();
        assert_eq!(reading.pools["p0"].poking, None);
        assert!(
            turn == 0 || airflow.requests() - before == 1,
            "it logs in or asks again and again"
        );
    }
}

#[tokio::test]
async fn what_version_two_cannot_list_is_told_and_proves_the_credentials() {
    for (version, words, proves) in [
        ("2.11.2", "while one of them has no limit (-1 slots)", true),
        ("3.3.2", "status 500", false),
    ] {
        let (_, mut airflow) = start(Fake {
            version,
            unlimited: true,
            ..Fake::default()
        })
        .await;
        let error = airflow.look(Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(error.message.contains(words), "{}", error.message);
        airflow.rest.version().await.unwrap();
        assert_eq!(airflow.rest.prove().await.is_ok(), proves, "{version}");
    }
}

#[tokio::test]
async fn after_a_failure_it_asks_for_no_more_than_before() {
    for version in ["2.11.2", "3.3.2"] {
        let (fake, mut airflow) = start(Fake {
            version,
            pools: names(200),
            ..Fake::default()
        })
        .await;
        // The next one is for pools.
        look(&mut airflow, 2).await;
        for broken in [true, false, false] {
            fake.lock().unwrap().broken = broken;
            let before = airflow.requests();
            let seen = airflow.look(Timestamp::UNIX_EPOCH).await;
            assert_eq!(seen.is_err(), broken, "{version}");
            assert!(
                airflow.requests() - before <= 2,
                "{version}: {}",
                airflow.requests() - before
            );
        }
    }
}

#[tokio::test]
async fn a_session_that_ended_is_made_anew() {
    let (fake, mut airflow) = start(Fake {
        version: "3.3.2",
        pools: names(1),
        ..Fake::default()
    })
    .await;
    look(&mut airflow, 2).await;
    assert_eq!(fake.lock().unwrap().logins, 1);
    // Another has logged in, and this one's token is refused.
    fake.lock().unwrap().logins += 1;
    airflow.look(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(fake.lock().unwrap().logins, 3);
}

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        slots: 7,
        description: "d".to_owned(),
        include_deferred: true,
    }
}

#[tokio::test]
async fn each_version_is_written_to_in_its_own_way() {
    for (version, mask) in [
        ("2.11.2", "update_mask=slots%2Cinclude_deferred"),
        ("3.3.2", "update_mask=slots&update_mask=include_deferred"),
    ] {
        let (fake, mut airflow) = start(Fake {
            version,
            ..Fake::default()
        })
        .await;
        assert!(airflow.create(&wanted("a")).await.unwrap());
        assert!(!airflow.create(&wanted("there")).await.unwrap());
        airflow.change(&wanted("a b")).await.unwrap();
        airflow.change(&wanted("default_pool")).await.unwrap();
        airflow.delete("a").await.unwrap();
        assert_eq!(airflow.lists_unlimited(), version.starts_with('3'));
        let body = |name: &str| {
            format!("{{\"description\":\"d\",\"include_deferred\":true,\"name\":\"{name}\",\"slots\":7}}")
        };
        let default = "{\"include_deferred\":true,\"name\":\"default_pool\",\"slots\":7}";
        assert_eq!(
            fake.lock().unwrap().changes,
            [
                format!("POST /pools? {}", body("a")),
                format!("POST /pools? {}", body("there")),
                format!("PATCH /pools/a%20b? {}", body("a b")),
                format!("PATCH /pools/default_pool?{mask} {default}"),
                "DELETE /pools/a? ".to_owned(),
            ]
        );
    }
}
