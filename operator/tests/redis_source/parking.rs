//! Real Celery workers that are told to stop consuming, and to go on.

use std::collections::BTreeSet;

use base64::Engine as _;
use futures::StreamExt as _;
use poolwright::signals::SignalSource as _;
use poolwright::signals::celery::Command;
use poolwright_core::sample::FaultKind;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::celery::{self, Worker};
use crate::server::Server;

/// A task as kombu's Redis transport writes it.
async fn publish(raw: &mut MultiplexedConnection, queue: &str, id: &str) {
    let message = json!({
        "body": base64::engine::general_purpose::STANDARD.encode(celery::task(id)),
        "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"task": "tapp.add", "id": id},
        "properties": {
            "body_encoding": "base64", "delivery_tag": id,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    });
    let () = redis::cmd("LPUSH")
        .arg(queue)
        .arg(message.to_string())
        .query_async(raw)
        .await
        .unwrap();
}

#[tokio::test]
async fn workers_are_parked_and_brought_back() {
    let server = Server::start();
    let source = crate::connect(&server).await;
    let nobody = Command::AddConsumer { queue: "q1".into() };
    let told = source.command(&nobody, &["celery@nobody".to_owned()]).await;
    assert!(told.is_ok(), "that nobody listens is no failure");
    let (mut one, mut two) = (server.raw(0).await, server.raw(0).await);
    celery::park_and_unpark(
        &source,
        &server.url("", 0),
        async |id| publish(&mut one, "q1", id).await,
        async || {
            let count = redis::cmd("LLEN").arg("q1").query_async(&mut two).await;
            count.unwrap()
        },
    )
    .await;
}

/// Celery before 5.7 forgot on a reconnection what it was told to consume again.
#[tokio::test]
async fn a_worker_that_loses_its_connection_keeps_to_what_it_was_told() {
    let server = Server::start();
    let source = crate::connect(&server).await;
    let mut beats = source.heartbeats().await.unwrap();
    let mut raw = server.raw(0).await;
    let ours = clients(&mut raw).await;
    let _worker = Worker::start(&server.url("", 0), "a", "q1,q2");
    let node = "celery@a".to_owned();
    assert!(beats.next().await.unwrap().online, "it begins");
    celery::consumes(&source, &node, &["q1", "q2"]).await;
    let queue = || "q1".to_owned();
    let cancel = Command::CancelConsumer { queue: queue() };
    for (command, queues) in [
        (cancel, &["q2"][..]),
        (Command::AddConsumer { queue: queue() }, &["q1", "q2"]),
    ] {
        source
            .command(&command, std::slice::from_ref(&node))
            .await
            .unwrap();
        celery::consumes(&source, &node, queues).await;
        for id in clients(&mut raw).await.difference(&ours) {
            let mut kill = redis::cmd("CLIENT");
            let _: i64 = kill.arg(&["KILL", "ID", id]).query_async(&mut raw).await.unwrap();
        }
        while !beats.next().await.unwrap().online {}
        celery::consumes(&source, &node, queues).await;
    }
}

/// The ids of the server's connections.
async fn clients(raw: &mut MultiplexedConnection) -> BTreeSet<String> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(raw).await.unwrap();
    let ids = list.lines().filter_map(|line| line.split_whitespace().next());
    ids.filter_map(|id| id.strip_prefix("id="))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_user_that_may_not_publish_is_told_so() {
    let server = Server::with(&["--user", "bob on >builder ~* &none +@all"]);
    let options = poolwright_core::broker::BrokerOptions::default();
    let config = poolwright_core::broker::BrokerConfig::parse(&server.url("bob:builder@", 0), &options);
    let source = crate::reach(config.unwrap()).await.unwrap();
    let command = Command::CancelConsumer { queue: "q1".into() };
    let told = source.command(&command, &["celery@a".to_owned()]).await;
    assert_eq!(told.unwrap_err().kind, FaultKind::Refused);
}
