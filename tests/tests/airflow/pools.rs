//! Pools as code: Airflow's pools are kept as Pools say, or Pools follow Airflow's.

use crate::linked::{
    SOON, await_left, await_link, await_pool, await_sync, change, get, held, pool, secret, told_of_drifts,
};
use crate::{named, owned, secured};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use poolwright_api::v1alpha1::Pool;
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn pools_are_kept_the_same_on_both_sides() -> Result<()> {
    for major in scale::pick(&[3][..], &[2, 3]) {
        let airflow = Airflow::start(*major).await?;
        let plane = Plane::shared().await?;
        let other = TestNamespace::create(plane.client().await?, &format!("pools-other-{major}")).await?;
        let mut stage = Stage::with_args(&format!("pools-{major}"), &["--namespace", &other.name]).await?;
        other.let_read_secrets(plane).await?;
        secret(&stage, "airflow", &airflow.api, json!({})).await?;
        apply(&airflow, &stage).await?;
        away(&airflow, &stage).await?;
        mirror(&airflow, &stage).await?;
        deleted(&airflow, &stage).await?;
        shed(&stage, &airflow).await?;
        secured::secured(&airflow, &stage).await?;
        owned::asked(&airflow, &stage).await?;
        owned::unanswered(&airflow, &stage).await?;
        owned::moved(&airflow, &stage).await?;
        owned::rivals(&airflow, &stage, &other).await?;
        owned::elsewhere(&airflow, &stage).await?;
        owned::rotated(&airflow, &stage).await?;
        owned::looked_at(&airflow, &stage).await?;
        owned::exported(&airflow, &stage).await?;
        named::slashed(&airflow, &stage).await?;
        named::unlimited(&airflow, &stage).await?;
        restarted(&airflow, &mut stage).await?;
        if scale::pick(false, true) {
            owned::left(&airflow, &stage).await?;
        }
    }
    Ok(())
}

/// Somebody else's write.
pub async fn write(airflow: &Airflow, method: Method, name: &str, fields: Value) -> Result<()> {
    let path = if method == Method::POST {
        "pools".to_owned()
    } else {
        format!("pools/{name}")
    };
    let mut body = json!({"name": name, "description": "theirs", "include_deferred": false});
    stage::merge(&mut body, fields);
    airflow.ask(method, &path, Some(&body)).await.map(drop)
}

pub async fn drifts(stage: &Stage, name: &str) -> Result<Option<String>> {
    let metrics = stage.operator.metrics().await?;
    let is_it = |line: &&str| {
        line.starts_with("poolwright_pool_airflow_drifts_total") && line.contains(&format!("\"{name}\""))
    };
    Ok(metrics
        .lines()
        .find(is_it)
        .and_then(|line| line.rsplit(' ').next())
        .map(str::to_owned))
}

async fn apply(airflow: &Airflow, stage: &Stage) -> Result<()> {
    pool(
        stage,
        "api-calls",
        json!({"slots": 3, "description": "partner X", "airflow": {"name": "api_calls"}}),
    )
    .await?;
    await_sync(stage, "api-calls").await?;
    await_pool(
        airflow,
        "api_calls",
        json!({"slots": 3, "description": "partner X", "include_deferred": false}),
    )
    .await?;
    let seen = held(stage, "api-calls").await?;
    assert_eq!((seen.slots, seen.open, seen.occupied), (3, Some(3), 0));
    assert_eq!(seen.url.as_deref(), Some(airflow.api.as_str()));
    assert_eq!(
        drifts(stage, "api-calls").await?.as_deref(),
        Some("0"),
        "that it was made is no drift"
    );

    // What somebody changes there is taken back; what is changed here goes there.
    write(
        airflow,
        Method::PATCH,
        "api_calls",
        json!({"slots": 9, "include_deferred": true}),
    )
    .await?;
    await_pool(
        airflow,
        "api_calls",
        json!({"slots": 3, "description": "partner X", "include_deferred": false}),
    )
    .await?;
    await_sync(stage, "api-calls").await?;
    assert_eq!(drifts(stage, "api-calls").await?.as_deref(), Some("1"));
    let told = told_of_drifts(stage).await?;
    assert!(told.contains("slots: 9 in Airflow, 3 in this Pool; includeDeferred: true in Airflow, false in this Pool; description: Airflow's pool is changed"), "{told}");
    change(
        stage,
        "api-calls",
        json!({"slots": 4, "includeDeferred": true, "description": null}),
    )
    .await?;
    await_pool(
        airflow,
        "api_calls",
        json!({"slots": 4, "description": "", "include_deferred": true}),
    )
    .await?;
    await_sync(stage, "api-calls").await?;
    assert_eq!(
        drifts(stage, "api-calls").await?.as_deref(),
        Some("1"),
        "a change of ours is no drift"
    );

    // Airflow's own pool is changed, never made; its description is nobody's.
    pool(
        stage,
        "default-pool",
        json!({"slots": 77, "includeDeferred": true, "description": "ours"}),
    )
    .await?;
    await_pool(
        airflow,
        "default_pool",
        json!({"slots": 77, "include_deferred": true, "description": "Default pool"}),
    )
    .await?;
    await_sync(stage, "default-pool").await?;

    // Two for one: the older has it.
    pool(
        stage,
        "second",
        json!({"slots": 8, "airflow": {"name": "api_calls"}}),
    )
    .await?;
    await_link(
        stage,
        "second",
        "False",
        "Conflict",
        "another Pool of this namespace",
    )
    .await?;
    await_pool(airflow, "api_calls", json!({"slots": 4})).await?;
    stage
        .namespace
        .api::<Pool>()
        .delete("second", &DeleteParams::default())
        .await?;
    Ok(())
}

/// While Airflow is silent what was known stands; then it goes on where it was.
async fn away(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let silent = scale::pick(Duration::from_secs(5), Duration::from_secs(60));
    let frozen = airflow.freeze();
    await_link(
        stage,
        "api-calls",
        "Unknown",
        "AirflowUnreachable",
        "does not answer within 5 s",
    )
    .await?;
    tokio::time::sleep(silent).await;
    assert_eq!(held(stage, "api-calls").await?.slots, 4);
    assert!(get(stage, "api-calls").await?.spec.include_deferred);
    drop(frozen);
    await_sync(stage, "api-calls").await
}

/// What somebody changes while no operator runs is found by the next one, and told as what it is.
async fn restarted(airflow: &Airflow, stage: &mut Stage) -> Result<()> {
    pool(stage, "meanwhile", json!({"slots": 3})).await?;
    await_sync(stage, "meanwhile").await?;
    stage.operator.kill();
    write(
        airflow,
        Method::PATCH,
        "meanwhile",
        json!({"slots": 2, "description": ""}),
    )
    .await?;
    // Also where that one does not read Airflow at once.
    let frozen = airflow.freeze();
    stage.operator.start_again().await?;
    await_link(stage, "meanwhile", "Unknown", "AirflowUnreachable", "").await?;
    drop(frozen);
    await_pool(airflow, "meanwhile", json!({"slots": 3})).await?;
    let told = || async {
        let told = told_of_drifts(stage).await?;
        Ok(told.contains("slots: 2 in Airflow, 3 in this Pool: Airflow's pool is changed"))
    };
    wait_until("it to be told", SOON, told).await?;
    owned::remove(stage, "meanwhile").await
}

async fn mirror(airflow: &Airflow, stage: &Stage) -> Result<()> {
    pool(
        stage,
        "theirs",
        json!({"slots": 1, "airflow": {"sync": "Mirror"}}),
    )
    .await?;
    await_link(
        stage,
        "theirs",
        "False",
        "AirflowPoolMissing",
        "Airflow has no pool \"theirs\"",
    )
    .await?;
    write(airflow, Method::POST, "theirs", json!({"slots": 5})).await?;
    await_sync(stage, "theirs").await?;
    let spec = get(stage, "theirs").await?.spec;
    assert_eq!((spec.slots, spec.description.as_deref()), (5, Some("theirs")));
    let told_of = |slots: &str, count: &'static str| {
        let words = format!("slots: {slots} in this Pool");
        move || {
            let words = words.clone();
            async move {
                let told = told_of_drifts(stage).await?;
                let counted = drifts(stage, "theirs").await?;
                if counted.as_deref() == Some(count) && told.contains(&words) == (count != "0") {
                    return Ok(true);
                }
                Err(format!("{counted:?} {told}").into())
            }
        }
    };
    let nothing = told_of("5 in Airflow, 1", "0");
    wait_until("the first following to be no drift", SOON, nothing).await?;
    write(
        airflow,
        Method::PATCH,
        "theirs",
        json!({"slots": 6, "include_deferred": true, "description": ""}),
    )
    .await?;
    let followed = || async {
        let spec = get(stage, "theirs").await?.spec;
        Ok((spec.slots, spec.include_deferred, spec.description) == (6, true, None))
    };
    wait_until("the Pool to follow", SOON, followed).await?;
    wait_until("that to be told", SOON, told_of("6 in Airflow, 5", "1")).await?;
    await_sync(stage, "theirs").await?;
    // Who mirrors never writes there: what is changed here is taken back.
    change(stage, "theirs", json!({"slots": 2})).await?;
    wait_until("the Pool to follow again", SOON, followed).await?;
    wait_until("that to be told", SOON, told_of("6 in Airflow, 2", "2")).await?;
    await_pool(airflow, "theirs", json!({"slots": 6})).await
}

/// What a high load takes away, it takes from Airflow's pool, too, and gives it back.
async fn shed(stage: &Stage, airflow: &Airflow) -> Result<()> {
    let maps = stage.namespace.api::<ConfigMap>();
    let map = json!({"metadata": {"name": "load"}, "data": {"percent": "95"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map)?)
        .await?;
    let source = json!({"configMapKeyRef": {"name": "load", "key": "percent"}});
    let spec = json!({"slots": 9, "loadShedding": {"source": source}, "airflow": {"name": "load"}});
    pool(stage, "shed", spec).await?;
    await_pool(airflow, "load", json!({"slots": 4})).await?;
    let low = Patch::Merge(json!({"data": {"percent": "10"}}));
    maps.patch("load", &PatchParams::default(), &low).await?;
    await_pool(airflow, "load", json!({"slots": 9})).await?;
    await_sync(stage, "shed").await?;
    assert_eq!(get(stage, "shed").await?.spec.slots, 9);
    assert_eq!(
        drifts(stage, "shed").await?.as_deref(),
        Some("0"),
        "a load is no drift"
    );
    owned::remove(stage, "shed").await
}

/// A Pool that was copied with its mark, as by a backup, deletes nothing that was made for the other.
async fn copied(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let pools = stage.namespace.api::<Pool>();
    let original = get(stage, "api-calls").await?.metadata;
    let before = drifts(stage, "api-calls").await?;
    let copy = serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
        "metadata": {"name": "copy", "annotations": original.annotations, "finalizers": original.finalizers},
        "spec": {"slots": 4, "airflow": {"name": "api_calls", "secretRef": {"name": "airflow"}}}}))?;
    pools.create(&PostParams::default(), &copy).await?;
    pools.delete("copy", &DeleteParams::default()).await?;
    let gone = || async { Ok(pools.get_opt("copy").await?.is_none()) };
    wait_until("the copy to be gone", SOON, gone).await?;
    // Were it deleted, it would be made anew for the original, as a drift that is taken back.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(drifts(stage, "api-calls").await?, before);
    await_pool(airflow, "api_calls", json!({"slots": 4})).await
}

/// What was made for a Pool stays, and is told, where the Pool gets another name or follows Airflow from now on.
async fn handed_over(airflow: &Airflow, stage: &Stage) -> Result<()> {
    for (name, edit, why) in [
        (
            "earlier",
            json!({"name": "later"}),
            "this Pool stands for another one now",
        ),
        (
            "mirrored",
            json!({"sync": "Mirror"}),
            "this Pool follows Airflow now",
        ),
    ] {
        pool(stage, name, json!({"slots": 2})).await?;
        await_sync(stage, name).await?;
        change(stage, name, json!({"airflow": edit})).await?;
        await_left(stage, name, &format!("stays there: {why}")).await?;
        await_sync(stage, name).await?;
    }
    // Whoever wants to keep it in Airflow may delete the Pool at once, at whatever moment of the operator's looks.
    let kept = ["kept0", "kept1", "kept2", "kept3"];
    for name in kept {
        pool(stage, name, json!({"slots": 2})).await?;
        await_sync(stage, name).await?;
    }
    let pools = stage.namespace.api::<Pool>();
    for name in kept {
        change(stage, name, json!({"airflow": {"sync": "Mirror"}})).await?;
        pools.delete(name, &DeleteParams::default()).await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for name in kept {
        let gone = || async { Ok(pools.get_opt(name).await?.is_none()) };
        wait_until(&format!("the Pool {name} to be gone"), SOON, gone).await?;
    }
    let left = owned::there(airflow).await?;
    assert!(
        kept.iter().all(|name| left.contains(&(*name).to_owned())),
        "{left:?}"
    );
    await_pool(airflow, "later", json!({"slots": 2})).await?;
    for name in ["earlier", "mirrored"] {
        owned::remove(stage, name).await?;
    }
    Ok(())
}

/// What was made goes with its Pool; what was there, and what is only mirrored, stays.
async fn deleted(airflow: &Airflow, stage: &Stage) -> Result<()> {
    write(airflow, Method::POST, "before", json!({"slots": 5})).await?;
    pool(stage, "before", json!({"slots": 7})).await?;
    await_pool(airflow, "before", json!({"slots": 7})).await?;
    await_sync(stage, "before").await?;
    pool(stage, "released", json!({"slots": 2})).await?;
    await_sync(stage, "released").await?;
    change(stage, "released", json!({"airflow": null})).await?;
    let pools = stage.namespace.api::<Pool>();
    copied(airflow, stage).await?;
    let freed = || async {
        Ok(get(stage, "released")
            .await?
            .metadata
            .finalizers
            .is_none_or(|all| all.is_empty()))
    };
    wait_until("a Pool that names no Airflow any more to be free", SOON, freed).await?;
    await_left(
        stage,
        "released",
        "stays there: this Pool stands for none of Airflow now",
    )
    .await?;
    handed_over(airflow, stage).await?;
    for name in ["api-calls", "theirs", "before", "released", "default-pool"] {
        pools.delete(name, &DeleteParams::default()).await?;
    }
    for name in ["api-calls", "theirs", "before", "released", "default-pool"] {
        let gone = || async { Ok(pools.get_opt(name).await?.is_none()) };
        wait_until(&format!("the Pool {name} to be gone"), SOON, gone).await?;
    }
    let left = owned::there(airflow).await?;
    assert_eq!(
        left,
        [
            "before",
            "default_pool",
            "earlier",
            "kept0",
            "kept1",
            "kept2",
            "kept3",
            "mirrored",
            "released",
            "theirs"
        ]
    );
    Ok(())
}
