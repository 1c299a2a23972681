//! Where the address of a broker may lead: an operator in a pod connects to no address of its own pod, node or API
//! server, unless it is told to.

use super::{await_queue, expect_words};
use poolwright_tests::*;
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who connects; a sentinel that names the second address as the master, or mute without one.
fn listener(host: &str, names: Option<u16>) -> Result<(u16, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((host, 0))?;
    let port = listener.local_addr()?.port();
    let count = Arc::new(AtomicUsize::new(0));
    let into = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            into.fetch_add(1, Ordering::SeqCst);
            let Some(master) = names.map(|port| port.to_string()) else {
                continue;
            };
            std::thread::spawn(move || {
                let (mut answers, lines) = (stream.try_clone().unwrap(), BufReader::new(stream));
                for line in lines.lines().map_while(std::io::Result::ok) {
                    // The name is the last word of the only question that a sentinel is asked.
                    if line == "mymaster" {
                        let length = master.len();
                        let _ = write!(answers, "*2\r\n$9\r\n127.0.0.1\r\n${length}\r\n{master}\r\n");
                    }
                }
            });
        }
    });
    Ok((port, count))
}

#[tokio::test]
async fn an_operator_in_a_pod_connects_to_no_address_of_its_own() -> Result<()> {
    let redis = Redis::start(RedisConfig::default()).await?;
    let (port, count) = listener("127.0.0.1", None)?;
    let (master, reached) = listener("127.0.0.1", None)?;
    let (sentinel, asked) = listener("127.0.0.2", Some(master))?;
    let mut stage = Stage::new("reach").await?;
    stage.operator.start_in_pod("10.96.0.1").await?;
    for (name, url) in [
        ("plain", format!("redis://:canary-pass@127.0.0.1:{port}/0")),
        ("name", format!("redis://localhost:{port}/0")),
        ("mapped", format!("redis://[::ffff:127.0.0.1]:{port}/0")),
        (
            "amqp",
            format!("amqp://canary-user:canary-pass@127.0.0.1:{port}//"),
        ),
    ] {
        attempts::tried(&format!("address: {name}"));
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url},
        });
        stage.kubectl()?.apply(&manifest.to_string()).await?;
        stage
            .queue(name, json!({"urlSecretRef": {"name": name, "key": "url"}}))
            .await?;
        let message = await_queue(&stage, name, "False", "BrokerRefused").await?;
        let words = ["spec.broker: ", "is a loopback address", "--allow-broker-cidr="];
        expect_words(name, &message, &words)?;
        assert!(!message.contains("canary"), "{message}");
    }
    attempts::tried("address: api");
    stage
        .queue("api", json!({"url": "redis://10.96.0.1:6379/0"}))
        .await?;
    let message = await_queue(&stage, "api", "False", "BrokerRefused").await?;
    expect_words("api", &message, &["10.96.0.1", "the API server's host"])?;
    assert_eq!(count.load(Ordering::SeqCst), 0);
    for name in ["plain", "name", "mapped", "amqp", "api"] {
        attempts::blocked(&format!("address: {name}"));
    }

    // The sentinel may be asked; the master that it names is another address.
    attempts::tried("address: named by a sentinel");
    stage
        .operator
        .start_with("--allow-broker-cidr=127.0.0.2/32")
        .await?;
    stage
        .queue(
            "watched",
            json!({
                "url": format!("sentinel://127.0.0.2:{sentinel}/0"), "redis": {"sentinelMaster": "mymaster"},
            }),
        )
        .await?;
    let message = await_queue(&stage, "watched", "False", "BrokerRefused").await?;
    expect_words(
        "watched",
        &message,
        &["the server that Sentinel names: 127.0.0.1 is a loopback address"],
    )?;
    assert!(asked.load(Ordering::SeqCst) > 0);
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    attempts::blocked("address: named by a sentinel");

    stage
        .operator
        .start_with("--allow-broker-cidr=127.0.0.0/8")
        .await?;
    stage.queue("allowed", json!({"url": redis.url(0)})).await?;
    await_queue(&stage, "allowed", "True", "AsDesired").await?;
    Ok(())
}
