//! The documented way into a namespace that enforces Pod Security's `restricted`, read out of the document.

use super::LIMIT;
use poolwright_api::ConditionType::Ready;
use poolwright_tests::*;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../../docs/how-to/restricted-namespace.md");
/// What is put in for the page's own names, and nothing else.
const IMAGE: &str = "registry.example.com/shop/worker:1.0";
const BROKER: &str = "redis://redis:6379/0";
const APP: &str = "shop.celery";

/// The page's one block of this language.
fn block(language: &str) -> Result<&'static str> {
    let start = format!("```{language}\n");
    let mut blocks = PAGE.split(&start).skip(1);
    let (first, more) = (blocks.next(), blocks.next());
    let text = first.and_then(|rest| rest.split("```").next());
    match (text, more) {
        (Some(text), None) => Ok(text),
        _ => Err(format!("the page must have one block of {language}").into()),
    }
}

#[tokio::test]
async fn the_documented_fields_run_where_restricted_is_enforced() -> Result<()> {
    let stage = Stage::new("restricted").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let broker = redis.url(0);
    let label = block("sh")?
        .trim()
        .replace(" shop ", &format!(" {} ", stage.namespace.name));
    let words: Vec<&str> = label.split_whitespace().skip(1).collect();
    stage.plane.kubectl()?.run(words).await?;

    let mut manifest = block("yaml")?.to_owned();
    for (theirs, ours) in [(IMAGE, CELERY_IMAGE), (BROKER, &broker), (APP, "tapp")] {
        assert!(manifest.contains(theirs), "the page no longer says {theirs:?}");
        manifest = manifest.replace(theirs, ours);
    }
    stage.kubectl()?.apply(&manifest).await?;
    let plain = json!({"worker": {"image": FAKE_IMAGE, "env": []}, "scaling": {"minReplicas": 1}});
    stage.queue("plain", json!({"url": broker})).await?;
    stage.pool("plain", &["plain"], "", plain).await?;
    let mut publisher = Celery::locate()?.publisher(&broker, &[]).await?;
    publisher.publish(&Batch::sleep("orders", 2, 0.1)).await?;

    // Without the page's fields the server refuses, and names what is missing: that alone.
    let message = stage
        .await_condition("plain", Ready, "False", "AdmissionDenied", LIMIT)
        .await?;
    assert!(message.contains("violates PodSecurity \"restricted"), "{message}");
    assert!(message.contains("runAsNonRoot != true"), "{message}");
    for given in ["allowPrivilegeEscalation", "capabilities", "seccompProfile"] {
        assert!(!message.contains(given), "{message}");
    }
    assert_eq!(stage.started("plain").await?.1, 0);

    wait_until("the documented worker to do two tasks", LIMIT, || async {
        let mut connection = redis.connection(0).await?;
        let waiting: u64 = redis::cmd("LLEN")
            .arg("orders")
            .query_async(&mut connection)
            .await?;
        let deployments = stage.deployments("checkout").await?;
        let proven = deployments.iter().any(|one| {
            let annotations = one.metadata.annotations.as_ref();
            annotations.is_some_and(|all| all.contains_key("poolwright.dev/proven-at"))
        });
        Ok(waiting == 0 && proven)
    })
    .await?;
    let pods = stage.pods("checkout").await?;
    let pod: Value = serde_json::to_value(pods.first().ok_or("there is no pod")?)?;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    Ok(())
}
