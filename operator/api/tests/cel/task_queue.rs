//! The rules of a TaskQueue.

use serde_json::{Value, json};

use super::{Row, check, row};

#[test]
fn every_rule() {
    let base = json!({
        "apiVersion": "poolwright.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": { "name": "mail" },
        "spec": { "broker": { "url": "redis://redis:6379/0" } },
    });
    let broker = |broker: Value| json!({ "spec": { "broker": broker } });
    let secret = json!({ "name": "broker", "key": "url" });
    let mut rows = vec![
        row(
            "spec.queue must be at most 255 bytes",
            json!({ "spec": { "queue": "é".repeat(127) } }),
            json!({ "spec": { "queue": "é".repeat(128) } }),
        ),
        row(
            "spec.broker must have exactly one of url and urlSecretRef",
            broker(json!({ "url": null, "urlSecretRef": secret })),
            broker(json!({ "urlSecretRef": secret })),
        ),
        row(
            "spec.broker must have exactly one of url and urlSecretRef",
            broker(json!({})),
            broker(json!({ "url": null })),
        ),
        row(
            "spec.broker.redis.sentinelMaster is required",
            broker(
                json!({ "url": "sentinel://a:26379;sentinel://b:26379", "redis": { "sentinelMaster": "main" } }),
            ),
            broker(json!({ "url": "sentinel://a:26379;sentinel://b:26379" })),
        ),
        row(
            "spec.broker.redis.sentinelMaster is required",
            broker(json!({ "url": null, "urlSecretRef": secret })),
            broker(json!({ "url": "sentinel://a:26379", "redis": {} })),
        ),
        row(
            "spec.broker.redis.sentinelMaster is allowed only",
            broker(json!({ "url": null, "urlSecretRef": secret, "redis": { "sentinelMaster": "main" } })),
            broker(json!({ "redis": { "sentinelMaster": "main" } })),
        ),
        row(
            "spec.broker must have at most one of redis and rabbitmq",
            broker(json!({ "url": null, "urlSecretRef": secret, "redis": {} })),
            broker(json!({ "url": null, "urlSecretRef": secret, "redis": {}, "rabbitmq": {} })),
        ),
        row(
            "spec.broker.redis is allowed only",
            broker(json!({ "url": "rediss://redis:6379", "redis": {} })),
            broker(json!({ "url": "amqp://rabbit", "redis": {} })),
        ),
        row(
            "spec.broker.rabbitmq is allowed only",
            broker(json!({ "url": "amqps://rabbit//", "rabbitmq": {} })),
            broker(json!({ "rabbitmq": {} })),
        ),
        row(
            "spec.broker.tls is allowed only",
            broker(json!({ "url": "rediss://redis", "tls": {} })),
            broker(json!({ "url": "amqp://rabbit", "tls": {} })),
        ),
        row(
            "spec.broker.url must start with",
            broker(json!({ "url": "amqps://rabbit.example:5671/vhost" })),
            broker(json!({ "url": "sqs://eu-central-1" })),
        ),
        row(
            "spec.broker.url must start with",
            broker(json!({ "url": "redis://redis" })),
            broker(json!({ "url": "redis://re dis" })),
        ),
        row(
            "spec.broker.url must hold no user or password",
            broker(json!({ "url": "amqp://rabbit/v%40host" })),
            broker(json!({ "url": "amqp://user:secret@rabbit" })),
        ),
        row(
            "spec.broker.url must hold no user or password",
            broker(json!({ "url": "redis://redis/0?socket_timeout=5" })),
            broker(json!({ "url": "redis://redis/0?Password=secret" })),
        ),
    ];
    rows.extend(address_rows());
    rows.extend(option_rows(&secret));
    rows.push(row(
        "spec.priority.downstream must not name the TaskQueue itself",
        json!({ "spec": { "priority": { "downstream": ["mail2", "email"] } } }),
        json!({ "spec": { "priority": { "downstream": ["archive", "mail"] } } }),
    ));
    check("TaskQueue", &base, &rows);
}

/// Addresses without a host, and Redis addresses without a database number. Of an address with a password only that is
/// said.
fn address_rows() -> Vec<Row> {
    const NO_HOST: &str = "spec.broker.url names no host: write it after ://, such as redis://redis:6379/0";
    const DATABASE: &str = "spec.broker.url names no database: the path of a Redis address must be a database number, such as /0";
    let url = |url: &str| json!({ "spec": { "broker": { "url": url } } });
    let sentinels =
        |url: &str| json!({ "spec": { "broker": { "url": url, "redis": { "sentinelMaster": "main" } } } });
    let refused = |message, accepts: &str, refuses: &str| row(message, url(accepts), url(refuses));
    vec![
        refused(NO_HOST, "redis://redis", "redis:///0"),
        refused(NO_HOST, "redis://[::1]:6380/1", "rediss://:6379/0"),
        refused(NO_HOST, "redis://redis/0?x=redis:///1", "rediss://?x=1"),
        refused(NO_HOST, "amqp://rabbit", "amqp:///vhost"),
        refused(NO_HOST, "amqps://rabbit//", "amqps://:5671"),
        row(
            NO_HOST,
            sentinels("sentinel://a;sentinel://b"),
            sentinels("sentinel://a;sentinel:///0"),
        ),
        refused(DATABASE, "redis://redis/", "redis://redis/nine"),
        refused(DATABASE, "rediss://redis//9", "rediss://redis:6379/9x"),
        refused(DATABASE, "redis://redis/0?x=a/b", "redis://redis/0/1?x=y"),
        refused(DATABASE, "redis://redis/x/../0", "redis://redis/-1"),
        refused(DATABASE, "amqp://rabbit/nine", "redis://redis/0/"),
        row(
            DATABASE,
            sentinels("sentinel://a/1;sentinel://b/1"),
            sentinels("sentinel://a/1;sentinel://b/main"),
        ),
        refused(
            "spec.broker.url must hold no user or password",
            "redis://redis/1",
            "redis://:pass/word@redis/0",
        ),
    ]
}

/// Rules of the options that belong to one kind of broker.
fn option_rows(secret: &Value) -> Vec<Row> {
    let steps = |steps: Value| json!({ "spec": { "broker": { "redis": { "prioritySteps": steps } } } });
    let rabbit =
        |options: Value| json!({ "spec": { "broker": { "url": "amqp://rabbit", "rabbitmq": options } } });
    vec![
        row(
            "spec.broker.rabbitmq.managementUrl must",
            rabbit(json!({ "managementUrl": "https://rabbit:15671" })),
            rabbit(json!({ "managementUrl": "https://guest:guest@rabbit:15671" })),
        ),
        row(
            "spec.broker.rabbitmq must have at most one of",
            rabbit(json!({ "managementUrlSecretRef": secret })),
            rabbit(json!({ "managementUrlSecretRef": secret, "managementUrl": "http://rabbit:15672" })),
        ),
        row(
            "spec.broker.rabbitmq.metricsUrl must",
            rabbit(json!({ "metricsUrl": "http://rabbit:15692/metrics" })),
            rabbit(json!({ "metricsUrl": "ftp://rabbit" })),
        ),
        row(
            "spec.broker.redis.prioritySteps must start with 0",
            steps(json!([0])),
            steps(json!([1, 2])),
        ),
        row(
            "spec.broker.redis.prioritySteps must not repeat",
            steps(json!([0, 255])),
            steps(json!([0, 3, 3])),
        ),
        row(
            "spec.broker.redis.prioritySteps must be in rising",
            steps(json!([0, 1, 9])),
            steps(json!([0, 6, 3])),
        ),
    ]
}
