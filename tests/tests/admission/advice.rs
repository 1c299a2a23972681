//! What the API server warns of is what `poolwright lint` says of the same WorkerPool, word for word, and nothing else.

use kube::client::Body;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Behind its text lint names the reason, where an advice has one.
const REASON: &str = " (GraceUnproven)";

/// What is laid over each class with each execution pool.
fn patches() -> Vec<Value> {
    let limits = |cpu: Value, memory: &str| json!({"worker": {"resources": {"limits": {"cpu": cpu, "memory": memory}}}});
    vec![
        json!({}),
        limits(json!("2"), "400Mi"),
        limits(json!(1), "399Mi"),
        limits(json!("1999m"), "1G"),
        limits(json!("250m"), "64Mi"),
        limits(json!("0"), "0"),
        json!({"celery": {"concurrency": null}, "worker": {"resources": {"limits": {"cpu": "2500m"}}}}),
        json!({"celery": {"concurrency": null}, "worker": {"resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}}),
        json!({"celery": {"concurrency": null, "autoscale": {"min": 1, "max": 9}}, "worker": {"resources": {"limits": {"cpu": 4}}}}),
        json!({"celery": {"concurrency": null}}),
        json!({"celery": {"prefetchMultiplier": 1}}),
        json!({"celery": {"prefetchMultiplier": 2}}),
        json!({"celery": {"timeLimitSeconds": 60}}),
        json!({"celery": {"softTimeLimitSeconds": 50}}),
        json!({"celery": {"softTimeLimitSeconds": 7200}}),
        json!({"celery": {"timeLimitSeconds": 240, "softTimeLimitSeconds": 30}}),
        json!({"celery": {"timeLimitSeconds": 540}, "drain": {"graceSeconds": 554}}),
        json!({"celery": {"timeLimitSeconds": 541}, "drain": {"graceSeconds": 556}}),
        json!({"drain": {"graceSeconds": 315}}),
        json!({"celery": {"maxTasksPerChild": 5, "maxMemoryPerChild": "300Mi"}}),
    ]
}

/// Every class with every execution pool and every patch, each on a queue of its own: neighbours are no matter here.
fn worker_pools() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for class in [None, Some("Cpu"), Some("Io"), Some("Memory"), Some("General")] {
        for pool in [
            None,
            Some("Prefork"),
            Some("Gevent"),
            Some("Eventlet"),
            Some("Threads"),
            Some("Solo"),
        ] {
            for patch in patches() {
                let name = format!("w{}", all.len());
                let concurrency = if pool == Some("Solo") { 1 } else { 4 };
                let mut spec = json!({
                    "queues": [{"name": name}],
                    "celery": {"app": "app", "concurrency": concurrency},
                    "worker": {"image": FAKE_IMAGE},
                });
                if let Some(class) = class {
                    spec["class"] = json!(class);
                }
                if let Some(pool) = pool {
                    spec["celery"]["executionPool"] = json!(pool);
                }
                stage::merge(&mut spec, patch);
                let manifest = json!({
                    "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool",
                    "metadata": {"name": name}, "spec": spec,
                });
                all.push((name, manifest));
            }
        }
    }
    all
}

/// What lint warns of, by name; nothing for what it refuses.
fn linted(all: &[(String, Value)]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("all.yaml");
    // A document a line, with a line between them.
    let texts: Vec<String> = all.iter().map(|(_, manifest)| manifest.to_string()).collect();
    std::fs::write(&file, texts.join("\n---\n"))?;
    let output = Command::new(operator::built("debug"))
        .args(["lint", "-f"])
        .arg(&file)
        .output()?;
    let names = || all.iter().map(|(name, _)| name.clone());
    let mut said: BTreeMap<_, BTreeSet<String>> = names().map(|name| (name, BTreeSet::new())).collect();
    let start = format!("{}:", file.display());
    for line in String::from_utf8(output.stdout)?.lines() {
        let Some(finding) = line.strip_prefix(&start) else {
            continue;
        };
        let (number, rest) = finding.split_once(':').ok_or("no line")?;
        let (_, rest) = rest.split_once(": ").ok_or("no column")?;
        let name = &all[(number.parse::<usize>()? - 1) / 2].0;
        if rest.starts_with("error: ") {
            said.remove(name);
        } else if let (Some(words), Some(found)) = (rest.strip_prefix("warning: "), said.get_mut(name)) {
            found.insert(words.trim_end_matches(REASON).to_owned());
        }
    }
    Ok(said)
}

/// The API server's warnings about a WorkerPool that it would take; `None` where it would not.
async fn warned(client: &kube::Client, space: &str, manifest: &Value) -> Result<Option<BTreeSet<String>>> {
    let path = format!("/apis/poolwright.dev/v1alpha1/namespaces/{space}/workerpools?dryRun=All");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(manifest.to_string().into_bytes()))?;
    let response = client.send(request).await?;
    if response.status() == http::StatusCode::UNPROCESSABLE_ENTITY {
        return Ok(None);
    }
    if response.status() != http::StatusCode::CREATED {
        return Err(format!("{manifest}: {}", response.status()).into());
    }
    let mut all = BTreeSet::new();
    for header in response.headers().get_all("warning") {
        let text = header.to_str()?.replace("\\\"", "\"");
        let from = "with binding 'advice.poolwright.dev': ";
        let (_, words) = text.split_once(from).ok_or("a warning that is no advice")?;
        all.insert(words.trim_end_matches('"').to_owned());
    }
    Ok(Some(all))
}

#[tokio::test]
async fn the_api_server_warns_of_what_lint_warns_of() -> Result<()> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    apply_policies(plane).await?;
    let client = plane.client().await?;
    let space = TestNamespace::create(client.clone(), "advice").await?.name;
    let all = worker_pools();
    let linted = linted(&all)?;
    let bad = all
        .iter()
        .find(|(name, _)| linted.get(name).is_some_and(|said| !said.is_empty()));
    let (_, bad) = bad.ok_or("lint warns of nothing")?;
    wait_until("the policy to be obeyed", LIMIT, || async {
        Ok(warned(&client, &space, bad)
            .await?
            .is_some_and(|said| !said.is_empty()))
    })
    .await?;

    let (mut compared, mut silent, mut fields) = (0, 0, BTreeSet::new());
    for (name, manifest) in &all {
        let Some(expected) = linted.get(name) else {
            continue; // The operator would not run it.
        };
        let found = warned(&client, &space, manifest).await?;
        assert_eq!(found.as_ref(), Some(expected), "{manifest}");
        compared += 1;
        silent += usize::from(expected.is_empty());
        fields.extend(
            expected
                .iter()
                .filter_map(|said| said.split_once(':'))
                .map(|said| said.0.to_owned()),
        );
    }
    assert!(
        compared > 400 && silent > 20,
        "{compared} compared, {silent} without advice"
    );
    let known = [
        "spec.celery.concurrency",
        "spec.celery.maxMemoryPerChild",
        "spec.celery.maxTasksPerChild",
        "spec.celery.prefetchMultiplier",
        "spec.celery.softTimeLimitSeconds",
        "spec.celery.timeLimitSeconds",
        "spec.drain.graceSeconds",
        "spec.worker.resources.limits.memory",
    ];
    assert_eq!(fields, known.map(String::from).into(), "an advice was not met");
    println!("{compared} compared, {silent} without advice");
    Ok(())
}
