//! Specs that contradict other objects: stored, said in a condition, and not carried out.

use super::{LIMIT, admission, await_queue, expect_words};
use kube::api::DeleteParams;
use poolwright_api::ConditionType::{Ready, ScalingActive, Stalled};
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD: &str = "canary-password-7c1f";
const ARGUMENT: &str = "canary-argument-b209";

/// A WorkerPool `w` on the queue `q` of a Redis with a password, with one worker that has done a task.
async fn running() -> Result<(Stage, Redis, Publisher)> {
    let stage = Stage::new("bad-spec").await?;
    let redis = Redis::start(RedisConfig {
        password: Some(PASSWORD.into()),
        ..RedisConfig::default()
    })
    .await?;
    stage.secret("broker", "url", &redis.url(0)).await?;
    let secret = json!({"urlSecretRef": {"name": "broker", "key": "url"}});
    stage.queue("q", secret.clone()).await?;
    stage
        .task_queue("twin", json!({"queue": "q", "broker": secret}))
        .await?;
    // The same place by another name.
    stage.secret("alias", "url", &redis.url(0)).await?;
    let alias = json!({"urlSecretRef": {"name": "alias", "key": "url"}});
    stage
        .task_queue("same", json!({"queue": "q", "broker": alias}))
        .await?;
    stage
        .queue("elsewhere", json!({"url": "redis://127.0.0.1:1/0"}))
        .await?;
    // A cap, and the WorkerPool that keeps it.
    stage
        .task_queue("capped", json!({"broker": secret, "maxActiveTasks": 4}))
        .await?;
    let keeps = json!({"celery": {"brokerEnv": "Inject"}, "worker": {"env": []}});
    stage.pool("keeper", &["capped"], "", keeps).await?;
    let patch = json!({
        "celery": {"brokerEnv": "Inject"},
        "worker": {"env": [{"name": "TAPP_LOG", "value": stage.task_log()}]},
        "scaling": {"minReplicas": 1, "scaleDownDelaySeconds": 1},
    });
    stage.pool("w", &["q"], "", patch).await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    publisher.publish(&task(0.0, "first")).await?;
    stage.await_ended(1, LIMIT).await?;
    // Pausing the new Deployment, proving the revision and shrinking to the least come after the first task.
    stage
        .await_condition("w", Ready, "True", "AsDesired", LIMIT)
        .await?;
    stage.await_replicas("w", 1, LIMIT).await?;
    let settled = wait_until("the Deployment to be paused and proven", LIMIT, || async {
        let deployments = stage.deployments("w").await?;
        Ok(deployments.iter().all(|one| {
            let proven = one.metadata.annotations.as_ref();
            one.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
                && proven.is_some_and(|all| all.contains_key("poolwright.dev/proven-at"))
        }))
    });
    settled.await?;
    Ok((stage, redis, publisher))
}

fn task(seconds: f64, name: &str) -> Batch {
    Batch {
        prefix: Some(format!("{ARGUMENT}-{name}")),
        ..Batch::sleep("q", 1, seconds)
    }
}

/// One bad spec: what is written, and what `Ready` then says.
struct Case {
    what: &'static str,
    spec: Value,
    reason: &'static str,
    words: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let queues = |names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"queues": names})
    };
    vec![
        Case {
            what: "queues on different brokers",
            spec: queues(&["q", "elsewhere"]),
            reason: "InvalidSpec",
            words: &[
                "spec.queues[1].name",
                "\"elsewhere\"",
                "on different brokers (Secret broker, key url and redis://127.0.0.1:1/0)",
                "make a WorkerPool for each broker",
            ],
        },
        Case {
            what: "a queue that nobody has declared",
            spec: queues(&["q", "nowhere"]),
            reason: "QueueUnknown",
            words: &["spec.queues[1].name", "TaskQueue \"nowhere\" does not exist"],
        },
        Case {
            what: "a sidecar's mount without its volume",
            spec: json!({"pod": {"sidecars": [{"name": "proxy", "image": FAKE_IMAGE,
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}]}}),
            reason: "InvalidSpec",
            words: &[
                "spec.pod.sidecars[0].volumeMounts[0].name",
                "\"scratch\", which is no volume in spec.pod.volumes",
            ],
        },
        Case {
            what: "one queue under two names",
            spec: queues(&["q", "twin"]),
            reason: "InvalidSpec",
            words: &["spec.queues[1].name", "the same queue \"q\"", "remove one"],
        },
        Case {
            what: "a capped queue beside another",
            spec: queues(&["q", "capped"]),
            reason: "InvalidSpec",
            words: &[
                "spec.queues[1].name",
                "TaskQueue \"capped\" has maxActiveTasks, which needs a WorkerPool that consumes this queue alone",
            ],
        },
        Case {
            what: "a capped queue of another WorkerPool",
            spec: queues(&["capped"]),
            reason: "InvalidSpec",
            words: &[
                "spec.queues[0].name",
                "TaskQueue \"capped\" has maxActiveTasks",
                "WorkerPool \"keeper\" consumes it too",
            ],
        },
    ]
}

/// Checks what a bad spec does, with a task that arrives meanwhile for the worker that runs.
async fn holds(stage: &Stage, publisher: &mut Publisher, before: &Footprint, case: &Case) -> Result<()> {
    let what = case.what;
    let message = stage
        .await_condition("w", Ready, "False", case.reason, LIMIT)
        .await
        .map_err(|error| format!("{what}: {error}"))?;
    expect_words(what, &message, case.words)?;
    expect_words(what, &message, &["running workers are left as they are"])?;
    for (type_, status) in [(Stalled, "True"), (ScalingActive, "False")] {
        let found = stage.condition("w", type_).await?;
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (status, case.reason),
            "{what}: {type_}"
        );
    }
    let own = format!("name=\"w\",namespace=\"{}\"", stage.namespace.name);
    wait_until("the metrics of what runs, and of no decision", LIMIT, || async {
        let text = stage.operator.metrics().await?;
        let shown = |series: &str| text.contains(&format!("poolwright_worker_pool_{series}{{{own}"));
        Ok(shown("ready_replicas")
            && shown("decisions_total")
            && !shown("desired_replicas")
            && !shown("slots"))
    })
    .await?;
    let done = stage.events()?.len();
    publisher.publish(&task(0.0, &what.replace(' ', "-"))).await?;
    wait_until("the worker to do a task", LIMIT, || async {
        Ok(stage.events()?.len() >= done + 2)
    })
    .await?;
    // Longer than the window after which an idle worker could go.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(&stage.footprint("w").await?, before, "{what}");
    Ok(())
}

/// A Pool that nobody has made, and queues that come after each other in a circle.
async fn budgets(stage: &Stage) -> Result<()> {
    let broker = json!({"urlSecretRef": {"name": "broker", "key": "url"}});
    let spec = json!({"broker": broker, "pool": {"name": "gpu"}});
    stage.task_queue("render", spec).await?;
    let message = await_queue(stage, "render", "False", "PoolMissing").await?;
    let words = [
        "Pool \"gpu\" does not exist",
        "create it, or correct spec.pool.name",
    ];
    expect_words("an unknown Pool", &message, &words)?;
    let pool = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
        "metadata": {"name": "gpu"}, "spec": {"slots": 4}});
    stage.kubectl()?.apply(&pool.to_string()).await?;
    await_queue(stage, "render", "True", "AsDesired").await?;

    let links = |next: &str| json!({"weight": 3, "weightRule": "Downstream", "downstream": [next]});
    for (name, next) in [("extract", "load"), ("load", "extract"), ("fetch", "load")] {
        let spec = json!({"broker": broker, "priority": links(next)});
        stage.task_queue(name, spec).await?;
    }
    for name in ["extract", "load"] {
        let message = await_queue(stage, name, "True", "WeightCycle").await?;
        let words = ["extract -> load -> extract", "remove one of the links"];
        expect_words("a circle", &message, &words)?;
    }
    await_queue(stage, "fetch", "True", "AsDesired").await?;
    for (name, weight) in [("extract", 3), ("load", 3), ("fetch", 9), ("render", 1)] {
        let status = stage.tq(name).await?.status.unwrap_or_default();
        assert_eq!(status.effective_weight, Some(weight), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_spec_is_refused_or_said_and_touches_nothing() -> Result<()> {
    let (stage, _redis, mut publisher) = running().await?;
    for second in ["twin", "same"] {
        let message = await_queue(&stage, second, "False", "Conflict").await?;
        let words = [
            "TaskQueue \"q\" already names the queue \"q\"",
            "delete one of the two",
        ];
        expect_words(second, &message, &words)?;
    }
    await_queue(&stage, "q", "True", "AsDesired").await?;
    budgets(&stage).await?;

    let before = stage.footprint("w").await?;
    admission::refuses_all(&stage).await?;
    let good = json!({"spec": {"queues": [{"name": "q"}], "pod": {"sidecars": null}}});
    for case in cases() {
        stage.patch_pool("w", json!({"spec": case.spec})).await?;
        holds(&stage, &mut publisher, &before, &case).await?;
        stage.patch_pool("w", good.clone()).await?;
        stage
            .await_condition("w", Ready, "True", "AsDesired", LIMIT)
            .await?;
    }

    // The same by the loss of what the spec names.
    let queues = stage.namespace.api::<TaskQueue>();
    queues.delete("q", &DeleteParams::default()).await?;
    let lost = Case {
        what: "a TaskQueue that was deleted",
        spec: json!({}),
        reason: "QueueUnknown",
        words: &["spec.queues[0].name", "TaskQueue \"q\" does not exist"],
    };
    holds(&stage, &mut publisher, &before, &lost).await?;
    stage
        .queue("q", json!({"urlSecretRef": {"name": "broker", "key": "url"}}))
        .await?;
    stage
        .await_condition("w", Ready, "True", "AsDesired", LIMIT)
        .await?;
    assert_eq!(
        stage.footprint("w").await?,
        before,
        "after all is well again, nothing has been started anew"
    );

    // A running task, so that the workers' answers hold its arguments.
    let ended = stage.events()?.len() + 2;
    publisher.publish(&task(4.0, "last")).await?;
    wait_until("the last task to end", LIMIT, || async {
        Ok(stage.events()?.len() >= ended)
    })
    .await?;
    stage.expect_none_killed()?;
    stage.expect_unsaid(&[PASSWORD, ARGUMENT]).await
}
