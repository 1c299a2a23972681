//! Real Celery workers that are told to stop consuming, and to go on.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use poolwright::signals::SignalSource as _;
use poolwright::signals::celery::Command;
use poolwright_core::sample::FaultKind;

use super::celery::{self, Worker};
use super::server::publish;
use super::{connect, ready, shared, wanted};

/// A task as Celery publishes it.
async fn task(channel: &Channel, queue: &str, id: &str) {
    let mut headers = FieldTable::default();
    for (key, value) in [("task", "tapp.add"), ("id", id)] {
        headers.insert(key.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers);
    publish(channel, "", queue, celery::task(id).as_bytes(), properties).await;
}

#[tokio::test]
async fn workers_are_parked_and_brought_back() {
    let server = shared().await;
    server.vhost("park").await;
    let source = connect(server.config("park")).await;
    let nobody = Command::AddConsumer { queue: "q1".into() };
    let told = source.command(&nobody, &["celery@nobody".to_owned()]).await;
    assert!(told.is_ok(), "that there is no worker is no failure: {told:?}");
    let (_connection, channel) = server.client("park").await;
    celery::park_and_unpark(
        &source,
        &server.url("park"),
        async |id| task(&channel, "q1", id).await,
        async || ready(&source.poll(&wanted(&["q1"])).await.expect("polled"), "q1"),
    )
    .await;
}

#[tokio::test]
async fn a_user_that_may_not_write_to_the_exchange_is_told_so() {
    let server = shared().await;
    server.vhost("mute").await;
    let source = connect(server.config("mute")).await;
    let (_connection, channel) = server.client("mute").await;
    let options = lapin::options::ExchangeDeclareOptions::default();
    let (name, kind) = ("celery.pidbox".into(), lapin::ExchangeKind::Fanout);
    let declared = channel.exchange_declare(name, kind, options, FieldTable::default());
    declared.await.expect("declared");
    server.permit_each("guest", "mute", [".*", "nothing", ".*"]).await;
    let command = Command::CancelConsumer { queue: "q1".into() };
    let told = source.command(&command, &["celery@a".to_owned()]).await;
    assert_eq!(told.expect_err("refused").kind, FaultKind::Refused);
}

/// Why a queue must not be declared anew, otherwise, while its workers are parked: bringing one back ends it, once its
/// tasks have. A queue that was there all along it has declared before, so for that this cannot happen.
#[tokio::test]
async fn a_worker_ends_when_it_is_to_consume_a_queue_that_was_declared_otherwise() {
    let server = shared().await;
    server.vhost("strict").await;
    let source = connect(server.config("strict")).await;
    let (_connection, channel) = server.client("strict").await;
    let (node, queue) = ("celery@a", || "q1".to_owned());
    let mut worker = Worker::start(&server.url("strict"), "a", "q1");
    celery::consumes(&source, node, &["q1"]).await;
    let nodes = [node.to_owned()];
    let cancel = Command::CancelConsumer { queue: queue() };
    source.command(&cancel, &nodes).await.expect("told");
    celery::consumes(&source, node, &[]).await;
    let deleted = channel.queue_delete("q1".into(), QueueDeleteOptions::default());
    deleted.await.expect("deleted");
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(100));
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("q1".into(), durable, arguments);
    declared.await.expect("declared");
    let add = Command::AddConsumer { queue: queue() };
    source.command(&add, &nodes).await.expect("told");
    let mut ended = None;
    celery::until("it ends", async || {
        ended = worker.child.try_wait().expect("its state");
        ended.is_some()
    })
    .await;
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
    assert!(
        worker.log().contains("inequivalent arg 'x-max-length'"),
        "{}",
        worker.log()
    );
}
