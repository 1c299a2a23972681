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
    for (name, url, words) in [
        ("api", "redis://10.96.0.1:6379/0", "the API server's host"),
        (
            "link-local",
            "redis://169.254.169.254/0",
            "is a link-local address",
        ),
        ("link-local-6", "amqp://[fe80::1]//", "is a link-local address"),
        (
            "metadata",
            "redis://[fd00:ec2::254]:80/0",
            "is a cloud's metadata service",
        ),
    ] {
        attempts::tried(&format!("address: {name}"));
        stage.queue(name, json!({"url": url})).await?;
        let message = await_queue(&stage, name, "False", "BrokerRefused").await?;
        expect_words(name, &message, &[words, "--allow-broker-cidr="])?;
        attempts::blocked(&format!("address: {name}"));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    for name in ["plain", "name", "mapped", "amqp"] {
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

/// What is asked beside a broker: its own numbers, the load of a database, and Airflow.
#[tokio::test]
async fn no_other_address_leads_there_either() -> Result<()> {
    let rabbit = RabbitMq::shared().await?;
    let vhost = rabbit.vhost("aside", "monitoring").await?;
    let (port, count) = listener("127.0.0.3", None)?;
    let url = format!("http://127.0.0.3:{port}");
    let mut stage = Stage::new("aside").await?;
    stage.operator.start_in_pod("10.96.0.1").await?;
    stage
        .operator
        .start_with("--allow-broker-cidr=127.0.0.1/32")
        .await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let kubectl = stage.kubectl()?;
    let login = url.replace("//", "//canary-user:canary-pass@");
    stage.secret("login", "url", &login).await?;
    let own = json!({"managementUrlSecretRef": {"name": "login", "key": "url"}});
    for (field, options) in [("managementUrl", own), ("metricsUrl", json!({"metricsUrl": url}))] {
        attempts::tried(&format!("address: {field}"));
        let name = field.to_lowercase();
        let mut broker = wire.spec.clone();
        broker["rabbitmq"] = options;
        // A publisher declares the queue: of one that is absent, nothing more is asked.
        wire.publish(&Batch::sleep(&name, 1, 1.0)).await?;
        stage.queue(&name, broker).await?;
        let message = await_queue(&stage, &name, "False", "BrokerRefused").await?;
        expect_words(&name, &message, &[field, "127.0.0.3 is a loopback address"])?;
        attempts::blocked(&format!("address: {field}"));
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "airflow"},
        "stringData": {"url": url, "username": "canary-user", "password": "canary-pass"}});
    kubectl.apply(&secret.to_string()).await?;
    let load = json!({"source": {"prometheus": {"url": url, "query": "load"}}});
    for (name, field, spec) in [
        (
            "load",
            "source.prometheus.url",
            json!({"slots": 4, "loadShedding": load}),
        ),
        (
            "airflow",
            "url in the Secret of spec.airflow.secretRef",
            json!({"slots": 4, "airflow": {"secretRef": {"name": "airflow"}}}),
        ),
    ] {
        attempts::tried(&format!("address: {name}"));
        let pool = json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": name}, "spec": spec});
        kubectl.apply(&pool.to_string()).await?;
        let words = [field, "127.0.0.3 is a loopback address"];
        super::await_words(name, &words, async || {
            kubectl
                .run(["get", "pools.poolwright.dev", name, "-o", "jsonpath={.status}"])
                .await
        })
        .await?;
        attempts::blocked(&format!("address: {name}"));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    Ok(())
}
