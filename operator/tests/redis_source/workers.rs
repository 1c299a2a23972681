//! Heartbeats and remote control, with workers played by the test as kombu's Redis transport would.

use std::time::{Duration, Instant};

use base64::Engine as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use poolwright::signals::celery::Bindings;
use poolwright::signals::{SignalSource, Wanted};
use poolwright_core::broker::{BrokerConfig, BrokerOptions};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::reach;
use crate::server::Server;

fn envelope(content_type: &str, ticket: &str, body: &[u8]) -> String {
    json!({
        "body": base64::engine::general_purpose::STANDARD.encode(body),
        "content-encoding": "utf-8", "content-type": content_type,
        "headers": {"ticket": ticket, "clock": 7},
        "properties": {"body_encoding": "base64", "delivery_mode": 1, "priority": 0},
    })
    .to_string()
}

fn heartbeat(node: &str, active: u32, kind: &str) -> String {
    let body = json!({
        "hostname": node, "utcoffset": 0.0, "pid": 7, "clock": 6, "freq": 2.0, "active": active, "processed": 9,
        "loadavg": [0.88, 0.41, 0.16], "sw_ident": "py-celery", "timestamp": 1_795_337_642.95, "type": kind,
    });
    envelope("application/json", "", body.to_string().as_bytes())
}

async fn publish(raw: &mut MultiplexedConnection, channel: &str, message: &str) {
    let _: i64 = redis::cmd("PUBLISH")
        .arg(channel)
        .arg(message)
        .query_async(raw)
        .await
        .unwrap();
}

fn renamed(server: &Server, user: &str) -> BrokerConfig {
    let options = BrokerOptions {
        key_prefix: "app[1]:".into(),
        control_exchange: "ctl".into(),
        event_exchange: "ev*".into(),
        ..BrokerOptions::default()
    };
    BrokerConfig::parse(&server.url(user, 2), &options).unwrap()
}

#[tokio::test]
async fn heartbeats_of_this_app_arrive_and_everything_else_is_dropped() {
    let server = Server::start();
    let mut raw = server.raw(0).await;
    let source = reach(renamed(&server, "")).await.unwrap();
    let mut beats = source.heartbeats().await.unwrap();
    assert_eq!(source.connections(), 2);
    for n in 0..200 {
        publish(&mut raw, "app[1]:/2.ev*/worker.heartbeat", &"x".repeat(n * 100)).await;
    }
    publish(
        &mut raw,
        "app[1]:/0.ev*/worker.heartbeat",
        &heartbeat("other@db", 1, "worker-heartbeat"),
    )
    .await;
    publish(
        &mut raw,
        "/2.ev*/worker.heartbeat",
        &heartbeat("other@prefix", 1, "worker-heartbeat"),
    )
    .await;
    publish(
        &mut raw,
        "app[1]:/2.evil/worker.heartbeat",
        &heartbeat("other@exchange", 1, "worker-heartbeat"),
    )
    .await;
    publish(
        &mut raw,
        "app[1]:/2.ev*/worker.online",
        &heartbeat("w@1", 0, "worker-online"),
    )
    .await;
    publish(
        &mut raw,
        "app[1]:/2.ev*/worker.heartbeat",
        &heartbeat("w@1", 3, "worker-heartbeat"),
    )
    .await;
    publish(
        &mut raw,
        "app[1]:/2.ev*/worker.offline",
        &heartbeat("w@1", 1, "worker-offline"),
    )
    .await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let beat = tokio::time::timeout(Duration::from_secs(5), beats.next())
            .await
            .unwrap()
            .unwrap();
        seen.push((beat.node, beat.active, beat.offline));
    }
    let expected = [(0, false), (3, false), (1, true)].map(|(active, off)| ("w@1".to_owned(), active, off));
    seen.sort_by_key(|(_, active, off)| (*off, *active));
    assert_eq!(seen, expected);
    drop(beats);
    let until = Instant::now() + Duration::from_secs(5);
    while source.connections() > 1 {
        assert!(Instant::now() < until, "the connection closes with the stream");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Answers questions as the node's worker would: looks up the bindings and pushes to the list.
async fn answer(
    raw: &mut MultiplexedConnection,
    question: &Value,
    node: &str,
    content_type: &str,
    padding: usize,
) {
    let task = json!([{ "id": "1", "args": ["SECRET-ARG".repeat(padding)], "acknowledged": false,
                        "delivery_info": {"exchange": "", "routing_key": "q"} }]);
    let reply = match question["method"].as_str().unwrap() {
        "active" => task,
        "active_queues" => {
            json!([{"name": "q", "exchange": {"name": "q", "type": "direct"}, "routing_key": "q"}])
        }
        _ => json!([]),
    };
    let body = json!({ node: reply }).to_string();
    let ticket = question["ticket"].as_str().unwrap();
    // No more than bytes, because the others wait while they are made.
    let huge = content_type.is_empty() && question["method"] == "active";
    let reply = if huge {
        "x".repeat(5 << 20)
    } else {
        envelope(content_type, ticket, body.as_bytes())
    };
    let exchange = question["reply_to"]["exchange"].as_str().unwrap();
    let key = question["reply_to"]["routing_key"].as_str().unwrap();
    let table = format!("app[1]:_kombu.binding.{exchange}");
    let members: Vec<String> = redis::cmd("SMEMBERS").arg(table).query_async(raw).await.unwrap();
    for member in members {
        let parts: Vec<&str> = member.split("\u{6}\u{16}").collect();
        if parts[0] == key {
            let list = format!("app[1]:{}", parts[2]);
            let () = redis::cmd("LPUSH")
                .arg(list)
                .arg(&reply)
                .query_async(raw)
                .await
                .unwrap();
        }
    }
}

/// Plays the workers `good@1`, `pickle@1`, `large@1` and `huge@1`; everyone else stays silent.
async fn play(server: &Server) -> tokio::task::JoinHandle<()> {
    let url = server.url("", 2);
    let mut pubsub = redis::Client::open(url)
        .unwrap()
        .get_async_pubsub()
        .await
        .unwrap();
    pubsub.subscribe("app[1]:/2.ctl.pidbox").await.unwrap();
    let mut raw = server.raw(2).await;
    tokio::spawn(async move {
        let mut questions = pubsub.into_on_message();
        while let Some(message) = questions.next().await {
            let envelope: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
            assert_eq!(envelope["headers"]["expires"], 0);
            let body = base64::engine::general_purpose::STANDARD
                .decode(envelope["body"].as_str().unwrap())
                .unwrap();
            let question: Value = serde_json::from_slice(&body).unwrap();
            for (node, content_type, padding) in [
                ("good@1", "application/json", 1),
                ("foreign@1", "application/json", 1),
                ("pickle@1", "application/x-python-serialize", 1),
                ("large@1", "application/json", 200_000),
                ("huge@1", "", 1),
            ] {
                if question["destination"].as_array().unwrap().contains(&json!(node)) || node == "foreign@1" {
                    answer(&mut raw, &question, node, content_type, padding).await;
                }
            }
        }
    })
}

/// What came late is removed within two seconds.
async fn leaves_nothing(server: &Server) {
    let mut raw = server.raw(2).await;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut raw).await.unwrap();
        if keys.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "left behind: {keys:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn workers_answer_within_bounds_and_nothing_is_left_behind() {
    let server = Server::start();
    let workers = play(&server).await;
    let source = reach(renamed(&server, "")).await.unwrap();
    let nodes = ["good@1", "pickle@1", "large@1"].map(str::to_owned);
    let start = Instant::now();
    let answers = source.ask(&nodes, Duration::from_secs(5)).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "it ends when all have answered"
    );
    assert!(!format!("{answers:?}").contains("SECRET-ARG"));
    let of = |node: &str| answers.iter().find(|(n, _)| n == node).unwrap().1.clone();
    let good = of("good@1")
        .unwrap()
        .answer(&Bindings::default(), Timestamp::now());
    assert_eq!((good.running["q"].unacknowledged, good.queues.len()), (1, 1));
    assert!(of("pickle@1").unwrap_err().contains("not JSON"));
    assert!(of("large@1").unwrap_err().contains("larger than 1 MiB"));
    assert_eq!(answers.len(), 3);
    leaves_nothing(&server).await;

    let nodes = ["good@1", "silent@1"].map(str::to_owned);
    let start = Instant::now();
    let answers = source.ask(&nodes, Duration::from_millis(300)).await.unwrap();
    assert!(
        (300..4000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        answers.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(),
        ["good@1"]
    );
    leaves_nothing(&server).await;

    // Nobody waits for the end of an inquiry to somebody else.
    let (silent, good) = (["silent@1".to_owned()], ["good@1".to_owned()]);
    let start = Instant::now();
    let (_, took) = futures::join!(source.ask(&silent, Duration::from_secs(2)), async {
        let answers = source.ask(&good, Duration::from_secs(2)).await.unwrap();
        assert_eq!(answers.len(), 1);
        start.elapsed()
    });
    assert!(took < Duration::from_millis(1500), "{took:?}");
    leaves_nothing(&server).await;

    // Given up half-way.
    let silent = ["silent@1".to_owned()];
    let asking = source.ask(&silent, Duration::from_secs(30));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), asking)
            .await
            .is_err()
    );
    leaves_nothing(&server).await;
    let until = Instant::now() + Duration::from_secs(10);
    workers.abort();
    let _ = workers.await;
    let mut raw = server.raw(0).await;
    loop {
        let count = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg("app[1]:/2.ctl.pidbox")
            .query_async(&mut raw)
            .await;
        let (_, listeners): (String, u64) = count.unwrap();
        if listeners == 0 {
            break;
        }
        assert!(Instant::now() < until, "the workers are gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let start = Instant::now();
    assert_eq!(source.ask(&nodes, Duration::from_secs(20)).await.unwrap(), []);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "nobody listens, so nobody is waited for"
    );
    assert_eq!(source.connections(), 1);
}

#[tokio::test]
async fn without_scripts_too_large_an_answer_spoils_no_other() {
    let server = Server::with(&["--user", "bob on >builder ~* &* +@all -eval"]);
    let _workers = play(&server).await;
    let source = reach(renamed(&server, "bob:builder@")).await.unwrap();
    let nodes = ["huge@1", "good@1", "pickle@1"].map(str::to_owned);
    let answers = source.ask(&nodes, Duration::from_secs(8)).await.unwrap();
    let of = |node: &str| answers.iter().find(|(n, _)| n == node).unwrap().1.clone();
    assert_eq!(
        of("good@1")
            .unwrap()
            .answer(&Bindings::default(), Timestamp::now())
            .running["q"]
            .unacknowledged,
        1
    );
    assert!(of("pickle@1").unwrap_err().contains("not JSON"));
    assert!(of("huge@1").unwrap_err().contains("without EVAL"));
    assert_eq!(answers.len(), 3);
    leaves_nothing(&server).await;
}

/// The user of docs/reference/brokers.md, as it would be with the names of [`renamed`].
fn least() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/brokers.md");
    let page = std::fs::read_to_string(page).unwrap();
    let user = page.lines().find_map(|line| line.strip_prefix("user ")).unwrap();
    user.replace(" ~", r" ~app\[1]:")
        .replace(" &/0.celeryev/", r" &app\[1]:/2.ev\*/")
        .replace(" &/0.celery.pidbox", r" &app\[1]:/2.ctl.pidbox")
        .replace("reply.celery.", "reply.ctl.")
}

#[tokio::test]
async fn the_permissions_that_the_reference_names_suffice() {
    let server = Server::with(&["--user", &least()]);
    let _workers = play(&server).await;
    let mut raw = server.raw(2).await;
    for n in 0..3 {
        let task = json!({"body": "e30=", "headers": {"eta": null}, "n": n}).to_string();
        let lists = ["app[1]:orders", "app[1]:orders\u{6}\u{16}3", "app[1]:celery"];
        let () = redis::cmd("LPUSH")
            .arg(lists[n])
            .arg(task)
            .query_async(&mut raw)
            .await
            .unwrap();
    }
    let held = json!([{"body": "e30=", "headers": {}}, "x", "orders"]).to_string();
    let mut fetch = redis::pipe();
    fetch.cmd("HSET").arg("app[1]:unacked").arg("tag").arg(held);
    fetch
        .cmd("ZADD")
        .arg("app[1]:unacked_index")
        .arg(100.0)
        .arg("tag");
    fetch
        .cmd("SADD")
        .arg("app[1]:_kombu.binding.x")
        .arg("orders\u{6}\u{16}\u{6}\u{16}orders");
    let () = fetch.query_async(&mut raw).await.unwrap();

    let source = reach(renamed(&server, "poolwright:PASSWORD@")).await.unwrap();
    let wanted = Wanted {
        queues: vec!["orders".to_owned()],
        stray: true,
    };
    let polled = source.poll(&wanted).await.unwrap();
    let orders = &polled.queues["orders"];
    assert_eq!(orders.ready.as_ref().unwrap().count, 2);
    assert_eq!(orders.unacked.as_ref().unwrap().as_ref().unwrap().due, 1);
    assert_eq!(polled.stray, 1);
    let mut beats = source.heartbeats().await.unwrap();
    publish(
        &mut raw,
        "app[1]:/2.ev*/worker.heartbeat",
        &heartbeat("good@1", 1, "worker-heartbeat"),
    )
    .await;
    assert_eq!(beats.next().await.unwrap().node, "good@1");
    let answers = source
        .ask(&["good@1".to_owned()], Duration::from_secs(8))
        .await
        .unwrap();
    assert!(matches!(answers.as_slice(), [(_, Ok(_))]), "{answers:?}");
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query_async(&mut raw).await.unwrap();
    assert!(denied.is_empty(), "{denied:?}");
}
