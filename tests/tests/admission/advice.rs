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
        json!({"celery": {"extraArgs": ["--beat"]}}),
        json!({"celery": {"extraArgs": ["--max-interval=5", "-EB"]}}),
        json!({"celery": {"extraArgs": ["-O", "-Ofair", "--beater"]}}),
        json!({"celery": {"maxTasksPerChild": 5, "maxMemoryPerChild": "300Mi"}}),
    ]
}

/// What is laid over a WorkerPool of Airflow.
fn airflow_patches() -> Vec<Value> {
    let limits = |limits: Value| json!({"worker": {"resources": {"limits": limits}}});
    let told = |slots: Value| {
        let first = json!({"name": "A", "value": "7"});
        let set = json!({"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": slots});
        json!({"worker": {"env": [first, set], "resources": {"limits": {"cpu": "300m", "memory": "600Mi"}}}})
    };
    vec![
        json!({}),
        limits(json!({"cpu": "1500m"})),
        limits(json!({"cpu": "250m", "memory": "299Mi"})),
        limits(json!({"cpu": "10m", "memory": "99Mi"})),
        limits(json!({"memory": "100Mi"})),
        limits(json!({"memory": "1G"})),
        limits(json!({"cpu": "64", "memory": "64Gi"})),
        limits(json!({"cpu": "0", "memory": "0"})),
        json!({"airflow": {"concurrency": 4}, "worker": {"resources": {"limits": {"memory": "399Mi"}}}}),
        json!({"airflow": {"concurrency": 4}, "worker": {"resources": {"limits": {"memory": "400Mi"}}}}),
        json!({"airflow": {"autoscale": {"min": 1, "max": 9}}, "worker": {"resources": {"limits": {"memory": "512Mi"}}}}),
        told(json!("3")),
        told(json!(" 03 ")),
        told(json!("5")),
        told(json!("five")),
        told(json!("")),
        told(json!("0")),
        json!({"airflow": {"concurrency": 4}, "worker": {"env": [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": "16"}]}}),
        json!({"airflow": {"autoscale": {"min": 1, "max": 9}}, "worker": {"env": [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": "16"}]}}),
        json!({"worker": {"env": [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": "12"}]}}),
    ]
}

/// Every patch with a proven end of tasks, with none, and with graces that are long enough and too short.
fn airflow_worker_pools() -> Vec<Value> {
    let ends = [
        json!({}),
        json!({"airflow": {"longestTaskSeconds": 600}}),
        json!({"drain": {"graceSeconds": 100}}),
        json!({"airflow": {"longestTaskSeconds": 600}, "drain": {"graceSeconds": 614}}),
        json!({"airflow": {"longestTaskSeconds": 600}, "drain": {"graceSeconds": 615}}),
    ];
    let all = airflow_patches().into_iter().flat_map(|patch| {
        ends.clone().map(|end| {
            let mut spec = json!({"airflow": {}, "worker": {"image": FAKE_IMAGE}});
            stage::merge(&mut spec, patch.clone());
            stage::merge(&mut spec, end);
            spec
        })
    });
    all.collect()
}

/// Every class with every execution pool and every patch.
fn celery_worker_pools() -> Vec<Value> {
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
                let concurrency = if pool == Some("Solo") { 1 } else { 4 };
                let mut spec = json!({
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
                all.push(spec);
            }
        }
    }
    all
}

/// All of them by name, each on a queue of its own: neighbours are no matter here.
fn worker_pools() -> Vec<(String, Value)> {
    let specs = celery_worker_pools().into_iter().chain(airflow_worker_pools());
    let named = specs.enumerate().map(|(number, mut spec)| {
        let name = format!("w{number}");
        spec["queues"] = json!([{"name": name}]);
        let manifest = json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": {"name": name}, "spec": spec,
        });
        (name, manifest)
    });
    named.collect()
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
        // UTF-8, as no `to_str` takes it.
        let text = std::str::from_utf8(header.as_bytes())?.replace("\\\"", "\"");
        let from = text.split_once("with binding 'advice");
        let words = from.and_then(|(_, from)| from.split_once(".poolwright.dev': "));
        let (_, words) = words.ok_or("a warning that is no advice")?;
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
        compared > 500 && silent > 30,
        "{compared} compared, {silent} without advice"
    );
    let known = [
        "spec.airflow.longestTaskSeconds",
        "spec.celery.concurrency",
        "spec.celery.extraArgs[0]",
        "spec.celery.extraArgs[1]",
        "spec.celery.maxMemoryPerChild",
        "spec.celery.maxTasksPerChild",
        "spec.celery.prefetchMultiplier",
        "spec.celery.softTimeLimitSeconds",
        "spec.celery.timeLimitSeconds",
        "spec.drain.graceSeconds",
        "spec.worker.env[0].value",
        "spec.worker.env[1].value",
        "spec.worker.resources.limits.memory",
    ];
    assert_eq!(fields, known.map(String::from).into(), "an advice was not met");
    println!("{compared} compared, {silent} without advice");
    Ok(())
}
