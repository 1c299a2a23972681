//! What belongs to whom: a request of which nobody knows whether it was heard, two namespaces with one Airflow, credentials
//! that change, and Airflow's own export.

use crate::linked::{
    SOON, await_left, await_link, await_pool, await_sync, get, held, pool, said, secret, told_of_drifts,
};
use crate::pools::{drifts, write};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use poolwright_api::v1alpha1::Pool;
use poolwright_api::{ANNOTATION_AIRFLOW_MADE, ConditionType, FINALIZER_AIRFLOW};
use poolwright_tests::operator::built;
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// Names of Airflow's pools.
pub async fn there(airflow: &Airflow) -> Result<Vec<String>> {
    let answer = airflow.ask(Method::GET, "pools", None).await?;
    let pools = answer["pools"].as_array().into_iter().flatten();
    let mut names: Vec<String> = pools
        .filter_map(|pool| pool["name"].as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    Ok(names)
}

pub async fn remove(stage: &Stage, name: &str) -> Result<()> {
    let pools = stage.namespace.api::<Pool>();
    pools.delete(name, &DeleteParams::default()).await?;
    let gone = || async { Ok(pools.get_opt(name).await?.is_none()) };
    wait_until(&format!("the Pool {name} to be gone"), 3 * SOON, gone).await
}

/// Of three slots, without deferred tasks and without a description.
const SHAPE: &str = "d83dac8295d26fe8";

/// As an operator leaves it that died while it made pools: one was made, one had been there before.
pub async fn asked(airflow: &Airflow, stage: &Stage) -> Result<()> {
    for (name, slots) in [("asked", 3), ("foreign", 9)] {
        // Asked for with three slots, and raised since then.
        pool(stage, name, json!({"slots": 4, "airflow": null})).await?;
        let fields = json!({"slots": slots, "description": ""});
        write(airflow, Method::POST, name, fields).await?;
        let uid = get(stage, name).await?.metadata.uid.unwrap_or_default();
        let mark = format!("making {SHAPE} {uid} {} {name}", airflow.api);
        let patch = Patch::Merge(json!({
            "metadata": {"annotations": {ANNOTATION_AIRFLOW_MADE: mark}, "finalizers": [FINALIZER_AIRFLOW]},
            "spec": {"airflow": {"secretRef": {"name": "airflow"}}},
        }));
        let pools = stage.namespace.api::<Pool>();
        pools.patch(name, &PatchParams::default(), &patch).await?;
        let settled = || async {
            let pool = get(stage, name).await?;
            let made = pool.metadata.annotations.unwrap_or_default();
            let made = made.get(ANNOTATION_AIRFLOW_MADE).cloned();
            let ours = (name == "asked").then(|| format!("{uid} {} {name}", airflow.api));
            if made == ours {
                Ok(true)
            } else {
                Err(format!("{made:?}").into())
            }
        };
        wait_until(&format!("it to be known whose {name} is"), SOON, settled).await?;
        await_pool(airflow, name, json!({"slots": 4})).await?;
        await_sync(stage, name).await?;
        remove(stage, name).await?;
    }
    let left = there(airflow).await?;
    assert!(
        left.contains(&"foreign".to_owned()) && !left.contains(&"asked".to_owned()),
        "{left:?}"
    );
    Ok(())
}

/// Pools that are deleted while nobody knows whether their requests were heard: what appears within seconds goes with its
/// Pool, and of what does not it is told.
pub async fn unanswered(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let pools = stage.namespace.api::<Pool>();
    for name in ["late", "never"] {
        // Its Secret is not there yet, so that nothing is done with it before.
        let pool = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
            "metadata": {"name": name, "finalizers": [FINALIZER_AIRFLOW]},
            "spec": {"slots": 3, "airflow": {"secretRef": {"name": "unanswered"}}}});
        let pool = pools
            .create(&PostParams::default(), &serde_json::from_value(pool)?)
            .await?;
        let uid = pool.metadata.uid.unwrap_or_default();
        let mark = format!("making {SHAPE} {uid} {} {name}", airflow.api);
        let patch = Patch::Merge(json!({
            "metadata": {"annotations": {ANNOTATION_AIRFLOW_MADE: mark}, "finalizers": [FINALIZER_AIRFLOW]}}));
        pools.patch(name, &PatchParams::default(), &patch).await?;
        pools.delete(name, &DeleteParams::default()).await?;
    }
    secret(stage, "unanswered", &airflow.api, json!({})).await?;
    // A look that does not show it comes before, or it does not: it is within the ten seconds either way.
    let late = json!({"slots": 3, "description": ""});
    write(airflow, Method::POST, "late", late).await?;
    for name in ["late", "never"] {
        let gone = || async { Ok(pools.get_opt(name).await?.is_none()) };
        wait_until(&format!("the Pool {name} to be gone"), SOON, gone).await?;
    }
    assert!(!there(airflow).await?.contains(&"late".to_owned()));
    await_left(stage, "never", "\"never\" may have been made for this Pool").await
}

/// Of a Pool that names another Airflow, which does not answer, the numbers of the first are not said any more; and what was
/// made in the first stays there, which is told once the other is read.
pub async fn moved(airflow: &Airflow, stage: &Stage) -> Result<()> {
    pool(stage, "moved", json!({"slots": 2})).await?;
    await_sync(stage, "moved").await?;
    assert_eq!(held(stage, "moved").await?.slots, 2);
    // A port on which nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    secret(stage, "nobody", &format!("http://{nobody}"), json!({})).await?;
    let of = |secret: &str| json!({"slots": 2, "airflow": {"secretRef": {"name": secret}}});
    pool(stage, "moved", of("nobody")).await?;
    await_link(stage, "moved", "Unknown", "AirflowUnreachable", "").await?;
    assert!(held(stage, "moved").await.is_err(), "numbers of another Airflow");
    // By its address another one, with the same pools.
    let wire = Proxy::start(airflow.api.trim_start_matches("http://").parse()?).await?;
    let other = format!("http://{}", wire.address());
    secret(stage, "other", &other, json!({})).await?;
    pool(stage, "moved", of("other")).await?;
    await_sync(stage, "moved").await?;
    let words = format!(
        "was made for this Pool in the Airflow at {}, and stays there: the Secret of spec.airflow.secretRef names the one at {other} now",
        airflow.api
    );
    await_left(stage, "moved", &words).await?;
    remove(stage, "moved").await?;
    assert!(there(airflow).await?.contains(&"moved".to_owned()));
    Ok(())
}

/// Of two namespaces the one whose Pool is older has it; when that goes the pool stays, and is the other's.
pub async fn rivals(airflow: &Airflow, stage: &Stage, other: &TestNamespace) -> Result<()> {
    let there = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"},
        "stringData": {"url": format!("{}/", airflow.api), "username": airflow::ADMIN.0, "password": airflow::ADMIN.1}}));
    let secrets = other.api::<k8s_openapi::api::core::v1::Secret>();
    secrets
        .patch("elsewhere", &PatchParams::apply("test"), &there)
        .await?;
    pool(stage, "shared", json!({"slots": 4})).await?;
    await_sync(stage, "shared").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kubectl = stage.plane.kubectl()?.namespaced(&other.name);
    let theirs = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "shared"},
        "spec": {"slots": 8, "airflow": {"secretRef": {"name": "elsewhere"}}}});
    kubectl.apply(&theirs.to_string()).await?;
    let said = |reason: &'static str| {
        let pools = other.api::<Pool>();
        move || {
            let pools = pools.clone();
            async move {
                let status = pools.get("shared").await?.status.unwrap_or_default();
                let found = status.conditions.iter().find(|one| one.type_ == "AirflowInSync");
                match found {
                    Some(one) if one.reason == reason => Ok(true),
                    other => Err(format!("{other:?}").into()),
                }
            }
        }
    };
    wait_until("the younger to be told", SOON, said("Conflict")).await?;
    // For longer than a look takes: nobody has changed it, and the elder has changed nothing back.
    tokio::time::sleep(Duration::from_secs(6)).await;
    await_pool(airflow, "shared", json!({"slots": 4})).await?;
    assert_eq!(drifts(stage, "shared").await?.as_deref(), Some("0"));
    remove(stage, "shared").await?;
    wait_until("the heir to have it", SOON, said("AsDesired")).await?;
    await_pool(airflow, "shared", json!({"slots": 8})).await?;
    // What was made for the one goes with the other.
    other
        .api::<Pool>()
        .delete("shared", &DeleteParams::default())
        .await?;
    let gone = || async { Ok(!self::there(airflow).await?.contains(&"shared".to_owned())) };
    wait_until("Airflow's pool to be gone", SOON, gone).await
}

/// A database that is another Airflow's shows a pool that the API has not, and hides one that it has. Both are said, and stay
/// said: neither is asked for at each look as if it came any moment.
pub async fn elsewhere(airflow: &Airflow, stage: &Stage) -> Result<()> {
    airflow.sql(
        "CREATE ROLE stranger LOGIN; CREATE SCHEMA elsewhere; ALTER ROLE stranger SET search_path = elsewhere; \
         CREATE TABLE elsewhere.slot_pool AS TABLE slot_pool; \
         CREATE TABLE elsewhere.task_instance AS TABLE task_instance WITH NO DATA; \
         INSERT INTO elsewhere.slot_pool (pool, slots, include_deferred) VALUES ('phantom', 3, false); \
         GRANT USAGE ON SCHEMA elsewhere TO stranger; GRANT SELECT ON ALL TABLES IN SCHEMA elsewhere TO stranger",
    )?;
    write(airflow, Method::POST, "concealed", json!({"slots": 3})).await?;
    let url = airflow.reader_url()?.replace("reader@", "stranger@") + "?sslmode=disable";
    secret(stage, "elsewhere", &airflow.api, json!({"databaseUrl": url})).await?;
    let words = [
        ("phantom", "which is shown: is databaseUrl"),
        ("concealed", "does not show it"),
    ];
    for (name, words) in words {
        let spec = json!({"slots": 5, "airflow": {"secretRef": {"name": "elsewhere"}}});
        pool(stage, name, spec).await?;
        await_link(stage, name, "False", "AirflowPoolMissing", words).await?;
    }
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (name, words) in words {
            let (_, reason, said) = said(stage, name, ConditionType::AirflowInSync).await?;
            assert!(
                reason == "AirflowPoolMissing" && said.contains(words),
                "{name}: {reason}: {said}"
            );
        }
    }
    await_pool(airflow, "concealed", json!({"slots": 3})).await?;
    for (name, _) in words {
        remove(stage, name).await?;
    }
    assert!(there(airflow).await?.contains(&"concealed".to_owned()));
    Ok(())
}

/// A Secret whose password is wrong, and then right; and one with a token of somebody who has logged in.
pub async fn rotated(airflow: &Airflow, stage: &Stage) -> Result<()> {
    secret(stage, "rotated", &airflow.api, json!({"password": "wrong"})).await?;
    let spec = json!({"slots": 5, "airflow": {"secretRef": {"name": "rotated"}}});
    pool(stage, "kept", spec).await?;
    await_link(stage, "kept", "False", "AirflowRefused", "credentials").await?;
    secret(stage, "rotated", &airflow.api, json!({})).await?;
    await_sync(stage, "kept").await?;
    await_pool(airflow, "kept", json!({"slots": 5})).await?;
    if scale::pick(false, true) {
        // What has worked is read again once a minute.
        secret(stage, "rotated", &airflow.api, json!({"password": "wrong"})).await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        await_link(stage, "kept", "False", "AirflowRefused", "credentials").await?;
        secret(stage, "rotated", &airflow.api, json!({})).await?;
        await_sync(stage, "kept").await?;
    }
    let Some(token) = airflow.token() else {
        return Ok(());
    };
    let only = json!({"username": null, "password": null, "token": token});
    secret(stage, "token", &airflow.api, only).await?;
    let by_token = json!({"slots": 2, "airflow": {"secretRef": {"name": "token"}}});
    pool(stage, "by-token", by_token).await?;
    await_sync(stage, "by-token").await?;
    await_pool(airflow, "by-token", json!({"slots": 2})).await?;
    remove(stage, "by-token").await
}

/// Who may only look can mirror a pool and make none; that it may not is said, and not tried again and again.
pub async fn looked_at(airflow: &Airflow, stage: &Stage) -> Result<()> {
    secret(
        stage,
        "viewer",
        &airflow.api,
        json!({"username": airflow::VIEWER}),
    )
    .await?;
    let spec = |sync: &str| json!({"airflow": {"secretRef": {"name": "viewer"}, "sync": sync}});
    pool(stage, "kept", spec("Mirror")).await?;
    let followed = || async { Ok(get(stage, "kept").await?.spec.slots == 5) };
    wait_until("the Pool to follow", SOON, followed).await?;
    pool(stage, "unmade", spec("Apply")).await?;
    await_link(stage, "unmade", "False", "AirflowRefused", "lacks the role").await?;
    // Its status says it a moment after the mark is gone.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = get(stage, "unmade").await?.metadata;
    assert_eq!(before.finalizers.unwrap_or_default(), Vec::<String>::new());
    tokio::time::sleep(Duration::from_secs(12)).await;
    let after = get(stage, "unmade").await?.metadata;
    assert_eq!(
        after.resource_version, before.resource_version,
        "it is written again and again"
    );
    assert!(!there(airflow).await?.contains(&"unmade".to_owned()));
    remove(stage, "unmade").await
}

/// What Airflow exports becomes Pools that are kept, and they become what Airflow imports.
pub async fn exported(airflow: &Airflow, stage: &Stage) -> Result<()> {
    write(
        airflow,
        Method::POST,
        "Reports DB",
        json!({"slots": 6, "include_deferred": true}),
    )
    .await?;
    let before = stage.dir.path().join("before.json");
    let path = |path: &std::path::Path| path.display().to_string();
    airflow.run(&["pools", "export", &path(&before)])?;
    let manifests = stage.dir.path().join("pools.yaml");
    let imported = poolwright(&["pools", "import", &path(&before), "--secret", "airflow"])?;
    std::fs::write(&manifests, &imported)?;
    stage.kubectl()?.apply(&imported).await?;
    await_sync(stage, "reports-db").await?;
    let exported = poolwright(&["pools", "export", "-f", &path(&manifests)])?;
    let same: (Value, Value) = (
        serde_json::from_str(&exported)?,
        serde_json::from_str(&std::fs::read_to_string(&before)?)?,
    );
    assert_eq!(same.0, same.1);
    let after = stage.dir.path().join("after.json");
    std::fs::write(&after, exported.replace("\"slots\": 6", "\"slots\": 7"))?;
    airflow.run(&["pools", "import", &path(&after)])?;
    // It is changed there, and taken back.
    await_pool(
        airflow,
        "Reports DB",
        json!({"slots": 6, "include_deferred": true}),
    )
    .await?;
    let drifted = || async {
        let told = told_of_drifts(stage).await?;
        Ok(told.contains("slots: 7 in Airflow, 6 in this Pool"))
    };
    wait_until("what was imported to be taken back", SOON, drifted).await
}

fn poolwright(args: &[&str]) -> Result<String> {
    let output = Command::new(built("debug")).args(args).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}

/// A Pool whose Airflow does not answer is let go after a minute, and what was made for it stays.
pub async fn left(airflow: &Airflow, stage: &Stage) -> Result<()> {
    pool(stage, "left", json!({"slots": 2})).await?;
    await_sync(stage, "left").await?;
    let frozen = airflow.freeze();
    let begun = std::time::Instant::now();
    remove(stage, "left").await?;
    assert!(
        begun.elapsed() >= Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    drop(frozen);
    assert!(there(airflow).await?.contains(&"left".to_owned()));
    await_left(stage, "left", "stays there: Airflow does not answer within 5 s").await
}
