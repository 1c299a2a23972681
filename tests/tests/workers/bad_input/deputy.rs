//! What somebody could ask the operator to do for him that he may not do himself: each is tried.
//!
//! Addresses that need a password are tried in `admission.rs`, Secrets of one's own namespace that the operator may not read
//! in `permission.rs`.

use super::{LIMIT, await_queue, expect_words};
use poolwright_api::ConditionType::{Ready, SignalsFresh};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const CANARY: &str = "canary-answer-90ad";
const PRIZE: &str = "canary-prize-c41f";

/// A server that says the same to everybody, and how many have come.
async fn server(answer: String) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let came = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            came.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok((address, count))
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// What the policy of the API server (`worker-pods`) lets through, and Pod Security does not.
fn greedy() -> [(&'static str, Value); 2] {
    let security = |security: Value| json!([{"name": "s", "image": FAKE_IMAGE, "securityContext": security}]);
    [
        (
            "unconfined",
            json!({"sidecars": security(json!({"seccompProfile": {"type": "Unconfined"}}))}),
        ),
        (
            "super-type",
            json!({"initContainers": security(json!({"seLinuxOptions": {"type": "spc_t"}}))}),
        ),
    ]
}

/// Pod Security judges pods whoever makes them, and the operator has no way around it.
#[tokio::test]
async fn a_pod_that_the_namespace_refuses_is_made_for_nobody() -> Result<()> {
    let stage = Stage::new("bad-greedy").await?;
    let label = "pod-security.kubernetes.io/enforce=baseline";
    let space = stage.namespace.name.clone();
    let cluster = stage.plane.kubectl()?;
    cluster.run(["label", "namespace", &space, label]).await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    for (name, pod) in greedy() {
        attempts::tried(&format!("pod: {name}"));
        stage.queue(name, json!({"url": redis.url(0)})).await?;
        let shape =
            json!({"worker": {"image": FAKE_IMAGE, "env": []}, "pod": pod, "scaling": {"minReplicas": 1}});
        stage.pool(name, &[name], "", shape).await?;
    }
    for (name, _) in greedy() {
        let message = stage
            .await_condition(name, Ready, "False", "AdmissionDenied", LIMIT)
            .await?;
        expect_words(name, &message, &["violates PodSecurity \"baseline"])?;
        assert!(stage.pods(name).await?.is_empty(), "{name}");
        attempts::blocked(&format!("pod: {name}"));
    }
    // What has no field cannot be asked for.
    for field in [
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "nodeName",
        "automountServiceAccountToken",
    ] {
        attempts::tried(&format!("field: {field}"));
        let manifest = stage.pool_manifest(field, &["unconfined"], "", json!({"pod": {field: true}}));
        let refused = stage.kubectl()?.apply(&manifest.to_string()).await;
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(
            refused.contains(&format!("unknown field \"spec.pod.{field}\"")),
            "{refused}"
        );
        attempts::blocked(&format!("field: {field}"));
    }
    Ok(())
}

#[tokio::test]
async fn another_namespaces_secret_is_not_read() -> Result<()> {
    let stage = Stage::new("bad-thief").await?;
    let redis = Redis::start(RedisConfig {
        password: Some(PRIZE.into()),
        ..RedisConfig::default()
    })
    .await?;
    let other = TestNamespace::create(stage.plane.client().await?, "prize").await?;
    other.let_read_secrets(stage.plane).await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prize"},
        "stringData": {"url": redis.url(0)}});
    let theirs = stage.plane.kubectl()?.namespaced(&other.name);
    theirs.apply(&secret.to_string()).await?;

    // By name alone it is one of the own namespace, where it is not.
    attempts::tried("secret: by name alone");
    stage
        .queue("q", json!({"urlSecretRef": {"name": "prize", "key": "url"}}))
        .await?;
    let pool = json!({"worker": {"image": FAKE_IMAGE, "env": []}});
    stage.pool("w", &["q"], "", pool).await?;
    await_queue(&stage, "q", "False", "SecretMissing").await?;
    let own = Redis::start(RedisConfig::default()).await?;
    stage.queue("good", json!({"url": own.url(0)})).await?;
    await_queue(&stage, "good", "True", "AsDesired").await?;
    for (what, name) in [
        ("its namespace", format!("{}/prize", other.name)),
        ("a path", format!("../{}/secrets/prize", other.name)),
        ("a query", "prize?".to_owned()),
        ("another dot", "prize\u{2024}".to_owned()),
    ] {
        attempts::tried(&format!("secret: {what}"));
        let broker = json!({"urlSecretRef": {"name": name, "key": "url"}});
        let refused = stage.queue("thief", broker).await;
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("urlSecretRef.name"), "{name:?}: {refused:?}");
        attempts::blocked(&format!("secret: {what}"));
    }
    let reads = audit_entries(&stage.plane.audit_log())?;
    let reads = reads
        .iter()
        .filter(|entry| entry.user == plane::OPERATOR && entry.resource == "secrets");
    let reads: Vec<_> = reads.filter(|entry| entry.namespace == other.name).collect();
    assert!(reads.is_empty(), "{reads:?}");
    stage.expect_unsaid(&[PRIZE]).await?;
    attempts::blocked("secret: by name alone");
    Ok(())
}

/// Whoever names an address learns no more of what is there than that it is no broker.
#[tokio::test]
async fn what_a_server_answers_is_neither_followed_nor_repeated() -> Result<()> {
    let stage = Stage::new("bad-probe").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let (trap, trapped) = server(http("200 OK", "", CANARY)).await?;
    let (bounce, bounced) = server(http(
        "302 Found",
        &format!("Location: http://{trap}/{CANARY}\r\n"),
        CANARY,
    ))
    .await?;
    let (failing, failed) = server(http("500 Internal Server Error", "", CANARY)).await?;
    let (talking, talked) = server(format!("-ERR {CANARY}\r\n")).await?;
    let prometheus = |address: &str| json!({"source": {"prometheus": {"url": format!("http://{address}"), "query": "up"}}});
    for (name, address) in [("bounce", &bounce), ("failing", &failing)] {
        let pool = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": name},
            "spec": {"slots": 4, "loadShedding": prometheus(address)}});
        stage.kubectl()?.apply(&pool.to_string()).await?;
    }
    let all = [
        "answer: a redirect",
        "answer: of an HTTP server",
        "answer: of a broker",
    ];
    for one in all {
        attempts::tried(one);
    }
    stage
        .queue("talking", json!({"url": format!("redis://{talking}/0")}))
        .await?;
    stage.queue("good", json!({"url": redis.url(0)})).await?;
    let fake = || json!({"worker": {"image": FAKE_IMAGE, "env": []}});
    stage.pool("talking", &["talking"], "", fake()).await?;
    stage.pool("good", &["good"], "", fake()).await?;
    wait_until("all of them to be asked", LIMIT, || async {
        Ok([&bounced, &failed, &talked]
            .iter()
            .all(|count| count.load(Ordering::SeqCst) > 0))
    })
    .await?;
    await_queue(&stage, "good", "True", "AsDesired").await?;
    let (status, reason, message) = stage.condition("talking", SignalsFresh).await?;
    assert_ne!(status, "True", "{reason}: {message}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(trapped.load(Ordering::SeqCst), 0, "a redirect was followed");
    stage.expect_unsaid(&[CANARY]).await?;
    for one in all {
        attempts::blocked(one);
    }
    Ok(())
}

/// Who may write a TaskQueue and read no Secret names a server of his own as the management API.
#[tokio::test]
async fn a_brokers_login_is_sent_to_no_server_that_a_task_queue_names() -> Result<()> {
    let stage = Stage::new("bad-login").await?;
    let vhost = RabbitMq::shared().await?.vhost("bad-login", "monitoring").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    // An absent queue would end the reading before anybody is asked for more.
    wire.publish(&Batch::sleep("q", 1, 1.0)).await?;
    let (thief, came) = server(http("200 OK", "", "[]")).await?;
    attempts::tried("login: to a managementUrl elsewhere");
    let mut broker = wire.spec.clone();
    broker["rabbitmq"] =
        json!({"managementUrl": format!("http://{}", thief.replace("127.0.0.1", "localhost"))});
    stage.queue("q", broker).await?;
    let message = await_queue(&stage, "q", "False", "InvalidSpec").await?;
    let words = [
        "rabbitmq.managementUrl is on another host",
        "managementUrlSecretRef",
    ];
    expect_words("q", &message, &words)?;
    assert_eq!(came.load(Ordering::SeqCst), 0);
    attempts::blocked("login: to a managementUrl elsewhere");
    Ok(())
}
