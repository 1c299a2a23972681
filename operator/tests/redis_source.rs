//! `RedisSource` against real Redis servers: what is counted, whose error is whose, and how connections fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "celery/mod.rs"]
mod celery;
#[path = "redis_source/faults.rs"]
mod faults;
#[path = "redis_source/parking.rs"]
mod parking;
#[path = "redis_source/server.rs"]
mod server;
#[path = "redis_source/workers.rs"]
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use poolwright::clock::Clock;
use poolwright::signals::guard::Policy;
use poolwright::signals::network::Network;
use poolwright::signals::redis::RedisSource;
use poolwright::signals::{self, Polled, SignalError, SignalSource, Wanted};
use poolwright_core::broker::{BrokerConfig, BrokerOptions};
use poolwright_core::later::Later;
use poolwright_core::sample::{FaultKind, Ready, Unacked};
use redis::aio::MultiplexedConnection;
use server::Server;

/// No address is refused.
fn anywhere() -> Network {
    Network::of_machine(Policy::outside(), Vec::new())
}

fn wanted(queues: &[&str]) -> Wanted {
    Wanted {
        queues: queues.iter().map(|q| (*q).to_owned()).collect(),
        stray: false,
    }
}

fn ready(polled: &Polled, queue: &str) -> Result<Ready, SignalError> {
    polled.queues[queue].ready.clone()
}

fn unacked(polled: &Polled, queue: &str) -> Result<Unacked, SignalError> {
    polled.queues[queue].unacked.clone().expect("Redis always tells")
}

async fn push(raw: &mut MultiplexedConnection, list: &str, messages: &[String]) {
    let () = redis::cmd("LPUSH")
        .arg(list)
        .arg(messages)
        .query_async(raw)
        .await
        .expect("pushed");
}

/// A message as Celery writes it; `separator` is kombu's `", "` or a compact `","`.
fn message(eta: Option<&str>, body_bytes: usize, separator: &str) -> String {
    let body = "QUJD".repeat(body_bytes / 4);
    let eta = eta.map_or_else(|| "null".to_owned(), |eta| format!("\"{eta}\""));
    let fields = [
        format!("\"body\": \"{body}\""),
        "\"content-encoding\": \"utf-8\"".to_owned(),
        "\"content-type\": \"application/json\"".to_owned(),
        // What only looks like an ETA stands before the real one.
        format!(
            "\"headers\": {{\"task\": \"eta\"{separator}\"argsrepr\": \"{{\\\"eta\\\": \\\"2999-01-01T00:00:00\\\"}}\"\
             {separator}\"eta\": {eta}}}"
        ),
        "\"properties\": {\"body_encoding\": \"base64\"}".to_owned(),
    ];
    format!("{{{}}}", fields.join(separator))
}

/// The due time of the tests' late messages.
const LATE: &str = "2999-01-01T00:00:00+00:00";

/// So many of them.
fn in_2999(count: u64) -> Later {
    let due: jiff::Timestamp = LATE.parse().expect("a time");
    Later::new([(due.as_millisecond(), count)])
}

async fn fetch(raw: &mut MultiplexedConnection, tag: &str, score: f64, message: &str, route: &str) {
    let entry = format!("[{message}, {route}]");
    let () = redis::pipe()
        .cmd("HSET")
        .arg("unacked")
        .arg(tag)
        .arg(entry)
        .ignore()
        .cmd("ZADD")
        .arg("unacked_index")
        .arg(score)
        .arg(tag)
        .ignore()
        .query_async(raw)
        .await
        .expect("fetched");
}

async fn connect(server: &Server) -> RedisSource {
    reach(server.config()).await.expect("connected")
}

/// By the system's clock.
async fn reach(config: BrokerConfig) -> Result<RedisSource, SignalError> {
    RedisSource::connect(config, Arc::new(Timestamp::now), &anywhere()).await
}

#[tokio::test]
async fn a_queue_is_the_sum_of_its_lists_under_its_prefix_in_its_database() {
    let server = Server::start();
    let mut raw = server.raw(3).await;
    let one = || vec!["{}".to_owned()];
    push(&mut raw, "app1:q", &one()).await;
    push(&mut raw, "app1:q\u{6}\u{16}3", &[one(), one()].concat()).await;
    push(&mut raw, "app1:q\u{6}\u{16}9", &[one(), one(), one()].concat()).await;
    push(&mut raw, "app1:q\u{6}\u{16}4", &one()).await;
    push(&mut raw, "q", &one()).await;
    push(&mut raw, "app1:celery", &[one(), one()].concat()).await;
    push(&mut server.raw(0).await, "app1:q", &one()).await;

    let options = BrokerOptions {
        key_prefix: "app1:".into(),
        ..BrokerOptions::default()
    };
    let config = BrokerConfig::parse(&server.url("", 3), &options).unwrap();
    let source = reach(config).await.unwrap();
    let polled = source
        .poll(&Wanted {
            stray: true,
            ..wanted(&["q", "none"])
        })
        .await
        .unwrap();
    assert_eq!(
        ready(&polled, "q").ok(),
        Some(Ready {
            count: 6,
            ..Ready::default()
        })
    );
    assert_eq!(ready(&polled, "none").ok(), Some(Ready::default()));
    assert_eq!(unacked(&polled, "q").ok(), Some(Unacked::default()));
    assert_eq!((polled.stray, polled.queues.len()), (2, 2));
    let polled = source
        .poll(&Wanted {
            stray: true,
            ..wanted(&["celery"])
        })
        .await
        .unwrap();
    assert_eq!((ready(&polled, "celery").unwrap().count, polled.stray), (2, 2));

    let options = BrokerOptions {
        priority_steps: vec![0, 4],
        ..options
    };
    let config = BrokerConfig::parse(&server.url("", 3), &options).unwrap();
    let source = reach(config).await.unwrap();
    assert_eq!(
        ready(&source.poll(&wanted(&["q"])).await.unwrap(), "q")
            .unwrap()
            .count,
        2
    );
    assert_eq!(source.connections(), 1);
}

#[tokio::test]
async fn a_key_of_the_wrong_type_spoils_its_own_queue_only() {
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let () = redis::cmd("SET")
        .arg("bad")
        .arg("x")
        .query_async(&mut raw)
        .await
        .unwrap();
    push(&mut raw, "good", &["{}".to_owned()]).await;
    let source = connect(&server).await;
    let polled = source.poll(&wanted(&["bad", "good"])).await.unwrap();
    let error = ready(&polled, "bad").unwrap_err();
    assert_eq!(error.kind, FaultKind::Implausible);
    assert!(error.message.contains("\"bad\""), "{error}");
    assert_eq!(ready(&polled, "good").unwrap().count, 1);

    for key in ["unacked", "unacked_index"] {
        let () = redis::cmd("SET")
            .arg(key)
            .arg("x")
            .query_async(&mut raw)
            .await
            .unwrap();
        let polled = source.poll(&wanted(&["good"])).await.unwrap();
        let error = unacked(&polled, "good").unwrap_err();
        assert_eq!(error.kind, FaultKind::Implausible);
        assert_eq!(ready(&polled, "good").unwrap().count, 1);
        let () = redis::cmd("DEL").arg(key).query_async(&mut raw).await.unwrap();
    }
    assert!(unacked(&source.poll(&wanted(&["good"])).await.unwrap(), "good").is_ok());
}

#[tokio::test]
async fn fetched_messages_are_told_by_queue_by_second_and_by_eta() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let later = Some("2026-11-22T10:00:00.5+00:00");
    fetch(&mut raw, "a", 100.2, &message(None, 8, ", "), r#""", "q1""#).await;
    fetch(&mut raw, "b", 100.9, &message(None, 3_000_000, ","), r#""","q1""#).await;
    fetch(
        &mut raw,
        "c",
        101.0,
        &message(later, 3_000_000, ", "),
        r#""", "q1""#,
    )
    .await;
    fetch(
        &mut raw,
        "d",
        102.0,
        &message(None, 8, ", "),
        r#"null, "caf\u00e9""#,
    )
    .await;
    fetch(
        &mut raw,
        "e",
        103.0,
        &message(None, 8, ", "),
        r#""tasks", "task.high""#,
    )
    .await;
    fetch(&mut raw, "f", 104.0, &message(None, 8, ", "), r#""", "foreign""#).await;
    fetch(&mut raw, "g", 105.0, "not JSON", "").await;
    let () = redis::cmd("ZADD")
        .arg("unacked_index")
        .arg(1)
        .arg("gone")
        .query_async(&mut raw)
        .await
        .unwrap();
    let binding = "task.high\u{6}\u{16}\u{6}\u{16}high";
    let () = redis::cmd("SADD")
        .arg("_kombu.binding.tasks")
        .arg(binding)
        .query_async(&mut raw)
        .await
        .unwrap();

    let begin = "2026-11-22T09:00:00Z".parse::<Timestamp>().unwrap();
    NOW.store(begin.as_second(), Ordering::Relaxed);
    // As the operator connects, whose only clock this is.
    let clock = Clock::new(|| Timestamp::from_second(NOW.load(Ordering::Relaxed)).expect("a time"));
    let source = signals::connect(server.config(), clock, anywhere())
        .await
        .unwrap();
    let queues = wanted(&["q1", "café", "high"]);
    // The large ones do not fit into one poll's bytes together; meanwhile the total is already right.
    let first = source.poll(&queues).await.unwrap();
    assert_eq!(unacked(&first, "high").unwrap().not_due, 0);
    let polled = source.poll(&queues).await.unwrap();
    let q1 = unacked(&polled, "q1").unwrap();
    assert_eq!((q1.due, q1.not_due), (2, 1));
    assert_eq!(
        q1.fetched
            .iter()
            .map(|f| (f.unix_seconds, f.count))
            .collect::<Vec<_>>(),
        [(100, 2)]
    );
    assert_eq!(unacked(&polled, "café").unwrap().due, 1);
    assert_eq!(unacked(&polled, "high").unwrap().due, 1);
    assert_eq!(polled.queues.len(), 3);

    NOW.fetch_add(3601, Ordering::Relaxed);
    assert_eq!(
        unacked(&source.poll(&queues).await.unwrap(), "q1").unwrap().due,
        3
    );
    let () = redis::cmd("DEL")
        .arg("unacked")
        .arg("unacked_index")
        .query_async(&mut raw)
        .await
        .unwrap();
    assert_eq!(
        unacked(&source.poll(&queues).await.unwrap(), "q1").ok(),
        Some(Unacked::default())
    );
}

#[tokio::test]
async fn thousands_of_fetched_messages_are_counted_by_their_ends() {
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let mut pipe = redis::pipe();
    for n in 0..6000 {
        let queue = if n % 3 == 0 { "a" } else { "b" };
        pipe.cmd("HSET")
            .arg("unacked")
            .arg(n)
            .arg(format!(r#"[{{"body": ""}}, "", "{queue}"]"#))
            .ignore();
        pipe.cmd("ZADD").arg("unacked_index").arg(n).arg(n).ignore();
    }
    let () = pipe.query_async(&mut raw).await.unwrap();
    let source = connect(&server).await;
    for _ in 0..6 {
        let polled = source.poll(&wanted(&["a", "b"])).await.unwrap();
        let (a, b) = (unacked(&polled, "a").unwrap(), unacked(&polled, "b").unwrap());
        assert!((5998..=6002).contains(&(a.due + b.due)), "{} {}", a.due, b.due);
        assert!((1900..=2100).contains(&a.due), "{}", a.due);
        assert_eq!(b.fetched.iter().map(|f| f.count).sum::<u64>(), b.due);
        assert!(b.fetched.len() <= 256);
    }
}

/// What Redis sends for one poll grows neither with what workers hold nor with how large it is, and takes no more round
/// trips and no connection more for a hundred queues.
#[tokio::test]
async fn a_poll_costs_the_same_however_much_workers_hold() {
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let source = connect(&server).await;
    let mut costs = Vec::new();
    for (from, to, size) in [(0, 3000, 10), (3000, 30_000, 10), (30_000, 30_100, 1_000_000)] {
        let mut pipe = redis::pipe();
        for n in from..to {
            let held = format!(r#"[{{"body": "{}"}}, "", "a"]"#, "x".repeat(size));
            pipe.cmd("HSET").arg("unacked").arg(n).arg(held).ignore();
            pipe.cmd("ZADD").arg("unacked_index").arg(n).arg(n).ignore();
        }
        let () = pipe.query_async(&mut raw).await.unwrap();
        // The first sees all for the first time.
        source.poll(&wanted(&["a", "b"])).await.unwrap();
        costs.push(server.sent_during(source.poll(&wanted(&["a", "b"]))).await);
    }
    println!("bytes sent for a poll: {costs:?}");
    let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
    assert!(*most < 100_000 && *most < 3 * least, "{costs:?}");
    let names: Vec<String> = (0..100).map(|number| format!("q{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let polled = source.poll(&wanted(&names)).await.unwrap();
    assert_eq!((polled.queues.len(), source.connections()), (100, 1));
}

#[tokio::test]
async fn waiting_messages_with_an_eta_are_estimated_from_both_ends() {
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let messages = |due: usize, later: usize| {
        let later = std::iter::repeat_n(message(Some(LATE), 400, ", "), later);
        std::iter::repeat_n(message(None, 400, ","), due)
            .chain(later)
            .collect::<Vec<_>>()
    };
    push(&mut raw, "small", &messages(6, 4)).await;
    push(&mut raw, "small\u{6}\u{16}9", &messages(1, 1)).await;
    push(&mut raw, "large", &messages(500, 500)).await;
    push(
        &mut raw,
        "heavy",
        &[message(None, 3_000_000, ", "), message(None, 3_000_000, ", ")],
    )
    .await;
    let source = connect(&server).await;
    let queues = wanted(&["small", "large", "heavy"]);
    let polled = source.poll(&queues).await.unwrap();
    assert_eq!(
        ready(&polled, "heavy").ok(),
        Some(Ready {
            count: 2,
            ..Ready::default()
        })
    );
    source.poll(&queues).await.unwrap();
    let polled = source.poll(&queues).await.unwrap();
    assert_eq!(
        ready(&polled, "small").ok(),
        Some(Ready {
            count: 12,
            not_due: 5,
            later: in_2999(5),
            ..Ready::default()
        })
    );
    assert_eq!(
        ready(&polled, "large").ok(),
        Some(Ready {
            count: 1000,
            not_due: 500,
            later: in_2999(500),
            ..Ready::default()
        })
    );
    push(&mut raw, "small", &messages(0, 1)).await;
    let polled = source.poll(&queues).await.unwrap();
    assert_eq!(
        ready(&polled, "small").ok(),
        Some(Ready {
            count: 13,
            not_due: 6,
            later: in_2999(6),
            ..Ready::default()
        })
    );
}
