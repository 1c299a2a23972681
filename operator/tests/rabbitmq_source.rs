//! `RabbitSource` against a real RabbitMQ.

#[path = "celery/mod.rs"]
mod celery;
#[path = "rabbitmq_source/parking.rs"]
mod parking;
#[path = "rabbitmq_source/server.rs"]
mod server;
#[path = "rabbitmq_source/workers.rs"]
mod workers;

use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use poolwright::signals::guard::Policy;
use poolwright::signals::network::Network;
use poolwright::signals::rabbitmq::RabbitSource;
use poolwright::signals::{Polled, SignalError, SignalSource, Wanted};
use poolwright_core::broker::{BrokerConfig, BrokerOptions, Secret, Tls};
use poolwright_core::sample::FaultKind;
use server::{Server, fill};
use tokio::sync::OnceCell;

static SERVER: OnceCell<Server> = OnceCell::const_new();

async fn shared() -> &'static Server {
    SERVER.get_or_init(Server::start).await
}

async fn connect(config: BrokerConfig) -> RabbitSource {
    RabbitSource::connect(config, &anywhere())
        .await
        .expect("connected")
}

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

fn ready(polled: &Polled, queue: &str) -> u64 {
    polled.queues[queue].ready.as_ref().expect("a count").count
}

fn unacked(polled: &Polled, queue: &str) -> Result<u64, SignalError> {
    polled.queues[queue]
        .unacked
        .clone()
        .expect("a source of unacked counts")
        .map(|unacked| unacked.due)
}

/// A consumer that holds `prefetch` messages unacknowledged.
async fn hold(channel: &Channel, queue: &str, prefetch: u16) -> Consumer {
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .expect("qos");
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("consumes")
}

async fn refusal(config: BrokerConfig) -> SignalError {
    RabbitSource::connect(config, &anywhere())
        .await
        .err()
        .expect("no connection")
}

fn parse(url: &str) -> BrokerConfig {
    BrokerConfig::parse(url, &BrokerOptions::default()).expect("an address")
}

#[tokio::test]
async fn counts_are_live_and_absent_is_not_empty() {
    let server = shared().await;
    server.vhost("counts").await;
    let (_connection, channel) = server.client("counts").await;
    fill(&channel, "busy", 3).await;
    let source = connect(server.config("counts")).await;
    let wanted = wanted(&["busy", "later", "busy"]);
    let polled = source.poll(&wanted).await.expect("polled");
    assert_eq!(polled.queues.len(), 2);
    assert_eq!(ready(&polled, "busy"), 3);
    assert_eq!(
        polled.queues["busy"].ready.as_ref().expect("a count").consumers,
        Some(0)
    );
    assert!(polled.queues["busy"].unacked.is_none());
    let error = polled.queues["later"].ready.clone().expect_err("absent");
    assert_eq!(error.kind, FaultKind::QueueAbsent);
    fill(&channel, "later", 0).await;
    let _consumer = hold(&channel, "busy", 1).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let polled = source.poll(&wanted).await.expect("polled");
    assert_eq!((ready(&polled, "busy"), ready(&polled, "later")), (2, 0));
    assert_eq!(
        polled.queues["busy"].ready.as_ref().expect("a count").consumers,
        Some(1)
    );
    assert_eq!(source.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_queues_take_one_poll_and_few_channels() {
    let server = shared().await;
    server.vhost("many").await;
    let (_connection, channel) = server.client("many").await;
    let names: Vec<String> = (0..1000).map(|i| format!("queue-{i}")).collect();
    for name in &names {
        let options = QueueDeclareOptions {
            exclusive: false,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .expect("declared");
    }
    fill(&channel, "the-last", 1).await;
    let source = connect(server.config("many")).await;
    let mut wanted = Wanted {
        queues: names,
        stray: false,
    };
    wanted
        .queues
        .extend(["absent-1", "absent-2", "the-last"].map(str::to_owned));
    let begun = Instant::now();
    let polled = source.poll(&wanted).await.expect("polled");
    let took = begun.elapsed();
    assert_eq!(polled.queues.len(), 1003);
    assert_eq!(polled.queues.values().filter(|q| q.ready.is_ok()).count(), 1001);
    assert_eq!(ready(&polled, "the-last"), 1);
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("1003 queues in {took:?}");
}

#[tokio::test]
async fn a_virtual_host_may_hold_slashes_and_spaces() {
    let server = shared().await;
    server.vhost("team%2Fa%20b").await;
    let (_connection, channel) = server.client("team%2Fa%20b").await;
    fill(&channel, "q", 5).await;
    let _consumer = hold(&channel, "q", 2).await;
    for endpoint in [management(server), metrics(server)] {
        let config = BrokerConfig::parse(&server.url("team%2Fa%20b"), &endpoint).expect("an address");
        let source = connect(config).await;
        await_unacked(&source, 2).await;
        assert_eq!(
            ready(&source.poll(&wanted(&["q"])).await.expect("polled"), "q"),
            3
        );
    }
}

fn management(server: &Server) -> BrokerOptions {
    let url = Some(Secret::new(format!("http://127.0.0.1:{}", server.management)));
    BrokerOptions {
        management_url: url,
        ..BrokerOptions::default()
    }
}

fn metrics(server: &Server) -> BrokerOptions {
    let url = Some(Secret::new(format!(
        "http://127.0.0.1:{}/metrics",
        server.metrics
    )));
    BrokerOptions {
        metrics_url: url,
        ..BrokerOptions::default()
    }
}

#[tokio::test]
async fn a_broken_http_address_leaves_the_live_counts() {
    let server = shared().await;
    server.vhost("http").await;
    let (_connection, channel) = server.client("http").await;
    fill(&channel, "q", 1).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("bound").port();
    let addresses = [
        (
            format!("http://guest:sesame@127.0.0.1:{}", server.management),
            FaultKind::Refused,
        ),
        (
            format!("http://127.0.0.1:{}/nowhere", server.management),
            FaultKind::InvalidAddress,
        ),
        (format!("http://127.0.0.1:{silent}"), FaultKind::Unreachable),
    ];
    for (address, kind) in addresses {
        let options = BrokerOptions {
            management_url: Some(Secret::new(address)),
            ..BrokerOptions::default()
        };
        let source = connect(BrokerConfig::parse(&server.url("http"), &options).expect("an address")).await;
        let polled = source.poll(&wanted(&["q", "absent"])).await.expect("polled");
        assert_eq!(ready(&polled, "q"), 1);
        let error = unacked(&polled, "q").expect_err("no count");
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.message.contains("sesame"));
    }
}

#[tokio::test]
async fn refusals_and_silence_are_told_apart_and_name_nobody() {
    let server = shared().await;
    let port = server.amqp;
    let wrong = refusal(parse(&format!("amqp://maria:sesame@127.0.0.1:{port}//"))).await;
    let vhost = refusal(parse(&format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"))).await;
    server.vhost("closed").await;
    let body = r#"{"password":"sesame","tags":""}"#;
    server
        .http("PUT", "users/maria2", Some(body))
        .await
        .expect("made");
    let closed = refusal(parse(&format!("amqp://maria2:sesame@127.0.0.1:{port}/closed"))).await;
    for error in [&wrong, &vhost, &closed] {
        assert_eq!(error.kind, FaultKind::Refused, "{error}");
        assert!(
            !error.message.contains("maria") && !error.message.contains("sesame"),
            "{error}"
        );
    }
    assert!(
        wrong.message.contains("password") && vhost.message.contains("does not exist"),
        "{vhost}"
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_port = silent.local_addr().expect("bound").port();
    let begun = Instant::now();
    let silence = refusal(parse(&format!("amqp://127.0.0.1:{silent_port}"))).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    drop(silent);
    let nothing = refusal(parse(&format!("amqp://127.0.0.1:{silent_port}"))).await;
    let http = refusal(parse(&format!("amqp://127.0.0.1:{}", server.management))).await;
    for error in [silence, nothing, http] {
        assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
    }
    // The second host of an address is tried when the first is down.
    let both = format!("amqp://guest:guest@127.0.0.1:{silent_port}//;amqp://guest:guest@127.0.0.1:{port}//");
    connect(parse(&both)).await;
}

#[tokio::test]
async fn what_is_closed_to_the_user_is_refused_alone() {
    let server = shared().await;
    server.vhost("partly").await;
    let (_connection, channel) = server.client("partly").await;
    fill(&channel, "open", 1).await;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("theirs".into(), exclusive, FieldTable::default())
        .await
        .expect("declared");
    server
        .http("PUT", "users/partly", Some(r#"{"password":"sesame","tags":""}"#))
        .await
        .expect("made");
    server.permit("partly", "partly", "^open$").await;
    let source = connect(parse(&format!(
        "amqp://partly:sesame@127.0.0.1:{}/partly",
        server.amqp
    )))
    .await;
    let polled = source.poll(&wanted(&["open", "theirs"])).await.expect("polled");
    assert_eq!(ready(&polled, "open"), 1);
    let error = polled.queues["theirs"]
        .ready
        .clone()
        .expect_err("exclusive to another connection");
    assert_eq!(error.kind, FaultKind::Refused, "{error}");
    let error = source.heartbeats().await.err().expect("no permission");
    assert_eq!(error.kind, FaultKind::Refused, "{error}");
    assert!(!error.message.contains("partly"), "{error}");
}

#[tokio::test]
async fn strays_are_counted_only_while_nobody_consumes_them() {
    let server = shared().await;
    server.vhost("stray").await;
    let (_connection, channel) = server.client("stray").await;
    let source = connect(server.config("stray")).await;
    let ask = Wanted {
        queues: vec![],
        stray: true,
    };
    assert_eq!(source.poll(&ask).await.expect("polled").stray, 0);
    fill(&channel, "celery", 2).await;
    let source = connect(server.config("stray")).await;
    let polled = source.poll(&ask).await.expect("polled");
    assert_eq!((polled.stray, polled.queues.len()), (2, 0));
    let _consumer = hold(&channel, "celery", 1).await;
    assert_eq!(source.poll(&ask).await.expect("polled").stray, 0);
}

#[tokio::test]
async fn tls_trusts_what_it_is_told_to_and_shows_its_certificate() {
    let server = shared().await;
    let url = format!("amqps://guest:guest@127.0.0.1:{}//", server.amqps);
    let with = |tls: Tls| {
        BrokerConfig::parse(
            &url,
            &BrokerOptions {
                tls: Some(tls),
                ..BrokerOptions::default()
            },
        )
        .expect("an address")
    };
    let trusting = || Tls {
        ca_pem: Some(server.pem("ca.pem")),
        ..Tls::default()
    };
    let careless = || Tls {
        insecure_skip_verify: true,
        ..Tls::default()
    };
    let shown = |tls: Tls| Tls {
        client_cert_pem: Some(server.pem("client.pem")),
        client_key_pem: Some(Secret::new(server.pem("client.key"))),
        ..tls
    };
    connect(with(shown(trusting()))).await;
    connect(with(shown(careless()))).await;
    for tls in [trusting(), careless()] {
        let nameless = refusal(with(tls)).await;
        assert_eq!(nameless.kind, FaultKind::Unreachable, "no client certificate");
    }
    let unknown = refusal(with(shown(Tls::default()))).await;
    assert_eq!(unknown.kind, FaultKind::Unreachable);
    assert!(unknown.message.contains("tls.caSecretRef"), "{unknown}");
    let plain = refusal(parse(&format!("amqps://guest:guest@127.0.0.1:{}//", server.amqp))).await;
    assert_eq!(plain.kind, FaultKind::Unreachable, "{plain}");
}

/// What `tls` says holds for both addresses of counts, whose servers ask for a certificate as the broker does.
#[tokio::test]
async fn counts_come_over_https_from_whom_tls_trusts() {
    let server = shared().await;
    server.vhost("https").await;
    let (_connection, channel) = server.client("https").await;
    fill(&channel, "q", 5).await;
    let _consumer = hold(&channel, "q", 2).await;
    let url = format!("amqps://guest:guest@127.0.0.1:{}/https", server.amqps);
    let address = |host: &str, port: u16| Some(Secret::new(format!("https://{host}:{port}")));
    // A login of its own: the broker's goes to no other host.
    let own = |host: &str, port: u16| Some(Secret::new(format!("https://guest:guest@{host}:{port}")));
    let source = async |management_url, metrics_url, insecure_skip_verify| {
        let options = BrokerOptions {
            management_url,
            metrics_url,
            tls: Some(Tls {
                ca_pem: Some(server.pem("ca.pem")),
                client_cert_pem: Some(server.pem("client.pem")),
                client_key_pem: Some(Secret::new(server.pem("client.key"))),
                insecure_skip_verify,
            }),
            ..BrokerOptions::default()
        };
        connect(BrokerConfig::parse(&url, &options).expect("an address")).await
    };
    let [management, metrics] = server.https;
    for insecure in [false, true] {
        // The certificate is for the number alone.
        let host = if insecure { "localhost" } else { "127.0.0.1" };
        await_unacked(&source(own(host, management), None, insecure).await, 2).await;
        await_unacked(&source(None, address(host, metrics), insecure).await, 2).await;
    }
    let misnamed = [
        source(own("localhost", management), None, false).await,
        source(None, address("localhost", metrics), false).await,
    ];
    for source in misnamed {
        let polled = source.poll(&wanted(&["q"])).await.expect("polled");
        assert_eq!(ready(&polled, "q"), 3);
        let error = unacked(&polled, "q").expect_err("another's certificate");
        assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
    }
}

/// Counts of what is fetched lag behind.
async fn await_unacked(source: &RabbitSource, wanted_count: u64) {
    let begun = Instant::now();
    loop {
        let polled = source.poll(&wanted(&["q"])).await.expect("polled");
        match unacked(&polled, "q") {
            Ok(count) if count == wanted_count => return,
            other => assert!(begun.elapsed() < Duration::from_secs(15), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_ends_everything() {
    let mut server = Server::start().await;
    let (_connection, channel) = server.client("%2F").await;
    fill(&channel, "q", 1).await;
    let source = connect(server.config("%2F")).await;
    let mut stream = source.heartbeats().await.expect("subscribed");
    let all = wanted(&["q"]);
    source.poll(&all).await.expect("polled");
    server.kill();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
    assert!(ended.expect("ends by itself").is_none());
    let error = source.poll(&all).await.expect_err("nothing to read");
    assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
    assert_eq!(source.connections(), 0);
    let error = source
        .ask(&["w1@pod".to_owned()], Duration::from_secs(1))
        .await
        .expect_err("nobody to ask");
    assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
    let error = refusal(server.config("%2F")).await;
    assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
}
