//! Heartbeats and answers, from workers that the test plays itself.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use poolwright::signals::celery::{Bindings, Told};
use poolwright::signals::{Heartbeat, SignalSource, Wanted};
use poolwright_core::broker::BrokerConfig;
use poolwright_core::sample::FaultKind;

use super::server::{fill, publish};
use super::{connect, hold, management, ready, shared, unacked};

const HEARTBEAT: &str =
    r#"{"hostname":"celery@pod","pid":7,"freq":2.0,"active":2,"processed":5,"type":"TYPE"}"#;

/// What the source makes of an event of this kind.
async fn beat(
    channel: &Channel,
    stream: &mut BoxStream<'static, Heartbeat>,
    key: &str,
    kind: &str,
) -> Heartbeat {
    let body = HEARTBEAT.replace("TYPE", kind);
    publish(
        channel,
        "celeryev",
        key,
        body.as_bytes(),
        BasicProperties::default(),
    )
    .await;
    let beat = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
    beat.expect("in time").expect("a heartbeat")
}

#[tokio::test]
async fn heartbeats_arrive_whoever_declares_the_exchange() {
    let server = shared().await;
    server.vhost("events").await;
    let (_connection, channel) = server.client("events").await;
    let source = connect(server.config("events")).await;
    for _ in 0..2 {
        // The first round finds no exchange, the second one that is there.
        let mut stream = source.heartbeats().await.expect("subscribed");
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (name, kind) = ("celeryev".into(), ExchangeKind::Topic);
        channel
            .exchange_declare(name, kind, durable, FieldTable::default())
            .await
            .expect("as Celery declares it");
        for (key, kind) in [
            ("worker.heartbeat", "worker-heartbeat"),
            ("worker.offline", "worker-offline"),
        ] {
            publish(&channel, "celeryev", key, b"no JSON", BasicProperties::default()).await;
            let beat = beat(&channel, &mut stream, key, kind).await;
            assert_eq!(
                (beat.node.as_str(), beat.pid, beat.active, beat.processed),
                ("celery@pod", 7, 2, 5)
            );
            assert_eq!(beat.offline, kind == "worker-offline");
        }
    }
}

/// A worker that answers every question on its own channel.
async fn answering(channel: Channel, node: &'static str) {
    let name = format!("{node}.celery.pidbox");
    let fanout = ExchangeKind::Fanout;
    let options = ExchangeDeclareOptions::default();
    channel
        .exchange_declare("celery.pidbox".into(), fanout, options, FieldTable::default())
        .await
        .expect("declared");
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.as_str().into(), exclusive, FieldTable::default())
        .await
        .expect("declared");
    let (queue, bind) = (name.as_str().into(), QueueBindOptions::default());
    channel
        .queue_bind(
            queue,
            "celery.pidbox".into(),
            "".into(),
            bind,
            FieldTable::default(),
        )
        .await
        .expect("bound");
    let mut requests = hold(&channel, &name, 100).await;
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            let body: serde_json::Value = serde_json::from_slice(&request.data).expect("JSON");
            let reply = match body["method"].as_str() {
                Some("active_queues") => {
                    r#"[{"name":"q","exchange":{"name":"q","type":"direct"},"routing_key":"q"}]"#
                }
                Some("active") => {
                    r#"[{"id":"1","acknowledged":true,"delivery_info":{"exchange":"","routing_key":"q"},"args":"sesame"}]"#
                }
                _ => "[]",
            };
            let mut headers = FieldTable::default();
            let ticket = body["ticket"].as_str().expect("a ticket");
            headers.insert(
                "ticket".into(),
                lapin::types::AMQPValue::LongString(ticket.into()),
            );
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_content_encoding("utf-8".into())
                .with_headers(headers);
            let to = body["reply_to"].clone();
            let (exchange, key) = (
                to["exchange"].as_str().expect("set"),
                to["routing_key"].as_str().expect("set"),
            );
            publish(
                &channel,
                exchange,
                key,
                format!(r#"{{"{node}":{reply}}}"#).as_bytes(),
                properties,
            )
            .await;
        }
    });
}

#[tokio::test]
async fn workers_answer_before_the_deadline_or_are_missing() {
    let server = shared().await;
    server.vhost("ask").await;
    let source = connect(server.config("ask")).await;
    let nodes = ["w1@pod".to_owned()];
    let nobody = source.ask(&nodes, Duration::from_secs(2)).await.expect("asked");
    assert!(nobody.is_empty());
    let (_connection, channel) = server.client("ask").await;
    answering(channel, "w1@pod").await;
    let begun = Instant::now();
    let answers = source.ask(&nodes, Duration::from_secs(5)).await.expect("asked");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "stops when all have answered"
    );
    let [(node, Ok(answer))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    let answer = answer.answer(&Bindings::default(), Timestamp::now());
    assert_eq!((node.as_str(), answer.running["q"].acknowledged), ("w1@pod", 1));
    assert!(answer.queues.contains("q") && !format!("{answers:?}").contains("sesame"));
    let two = ["w1@pod".to_owned(), "gone@pod".to_owned()];
    let begun = Instant::now();
    let answers = source.ask(&two, Duration::from_millis(700)).await.expect("asked");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let [(_, Ok(Told { age, .. }))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(
        *age > Duration::from_millis(350),
        "as old as when it came: {age:?}"
    );
    assert_eq!(source.connections(), 2);
}

/// What docs/reference/brokers.md lets the operator's user configure, write and read.
fn least() -> [String; 3] {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/brokers.md");
    let page = std::fs::read_to_string(page).expect("the page");
    ["configure ", "write ", "read "].map(|what| {
        let line = page.lines().find_map(|line| line.strip_prefix(what));
        line.expect("a pattern").trim().to_owned()
    })
}

#[tokio::test]
async fn the_permissions_that_the_reference_names_suffice() {
    let server = shared().await;
    server.vhost("least").await;
    let user = r#"{"password":"sesame","tags":"management"}"#;
    server
        .http("PUT", "users/poolwright", Some(user))
        .await
        .expect("made");
    let [configure, write, read] = least();
    server
        .permit_each("poolwright", "least", [&configure, &write, &read])
        .await;
    let (_connection, channel) = server.client("least").await;
    fill(&channel, "orders", 2).await;
    fill(&channel, "celery", 1).await;
    let address = format!("amqp://poolwright:sesame@127.0.0.1:{}/least", server.amqp);
    let config_of =
        |address: &str, server| BrokerConfig::parse(address, &management(server)).expect("an address");
    let source = connect(config_of(&address, server)).await;

    let orders = Wanted {
        queues: vec!["orders".to_owned()],
        stray: true,
    };
    let begun = Instant::now();
    let polled = loop {
        let polled = source.poll(&orders).await.expect("polled");
        if unacked(&polled, "orders").is_ok() {
            break polled;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{polled:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((ready(&polled, "orders"), polled.stray), (2, 1));
    let mut stream = source.heartbeats().await.expect("subscribed");
    let beat = beat(&channel, &mut stream, "worker.heartbeat", "worker-heartbeat").await;
    assert_eq!(beat.node, "celery@pod");
    answering(channel, "w1@pod").await;
    let asked = source.ask(&["w1@pod".to_owned()], Duration::from_secs(5)).await;
    assert!(
        matches!(asked.expect("asked").as_slice(), [(_, Ok(_))]),
        "an answer"
    );
    // Without the right to write to the exchange of remote control, that is what is said.
    let less = write.replace(r"|celery\.pidbox)", ")");
    assert_ne!(less, write);
    server
        .permit_each("poolwright", "least", [&configure, &less, &read])
        .await;
    let source = connect(config_of(&address, server)).await;
    let asked = source.ask(&["w1@pod".to_owned()], Duration::from_secs(5)).await;
    let error = asked.expect_err("refused");
    assert_eq!(error.kind, FaultKind::Refused, "{error}");
    assert!(error.message.contains("remote control"), "{error}");
}
