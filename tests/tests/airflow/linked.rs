//! A namespace whose Pools stand for pools of one Airflow.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use poolwright_api::ConditionType::{self, AirflowInSync};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{AirflowPoolStatus, Pool};
use poolwright_tests::airflow::{ADMIN, OP};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

/// For what takes one look at Airflow and one step, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(40);

/// The Secret of an Airflow, with the role that it needs, and more keys.
pub async fn secret(stage: &Stage, name: &str, url: &str, more: Value) -> Result<()> {
    let mut keys = json!({"url": url, "username": OP, "password": ADMIN.1});
    stage::merge(&mut keys, more);
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys}))?;
    let params = PatchParams::apply("test").force();
    stage
        .namespace
        .api::<Secret>()
        .patch(name, &params, &Patch::Apply(&secret))
        .await?;
    Ok(())
}

/// A Pool with this spec, of the Airflow in the Secret `airflow` where the spec names no other.
pub async fn pool(stage: &Stage, name: &str, patch: Value) -> Result<()> {
    let mut spec = json!({"slots": 1, "airflow": {"secretRef": {"name": "airflow"}}});
    stage::merge(&mut spec, patch);
    let pool = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": name}, "spec": spec});
    stage.kubectl()?.apply(&pool.to_string()).await.map(|_| ())
}

/// Changes the spec of a Pool.
pub async fn change(stage: &Stage, name: &str, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    stage
        .namespace
        .api::<Pool>()
        .patch(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

pub async fn get(stage: &Stage, name: &str) -> Result<Pool> {
    Ok(stage.namespace.api::<Pool>().get(name).await?)
}

/// What Airflow's pool holds, by the Pool's status.
pub async fn held(stage: &Stage, name: &str) -> Result<AirflowPoolStatus> {
    let status = get(stage, name).await?.status.unwrap_or_default();
    Ok(status.airflow.ok_or("nothing is known of Airflow's pool")?)
}

/// Status, reason and words of one condition of a Pool.
pub async fn said(stage: &Stage, name: &str, type_: ConditionType) -> Result<(String, String, String)> {
    let status = get(stage, name).await?.status.unwrap_or_default();
    let one = find(&status.conditions, type_).ok_or("the condition is not there")?;
    Ok((one.status.clone(), one.reason.clone(), one.message.clone()))
}

/// Waits until a Pool and its Airflow say the same, or say why not.
pub async fn await_link(stage: &Stage, name: &str, status: &str, reason: &str, words: &str) -> Result<()> {
    let what = format!("{name} to be {status} for {reason}: {words:?}");
    let is = || async {
        let (is, why, said) = said(stage, name, AirflowInSync).await?;
        if (is.as_str(), why.as_str()) == (status, reason) && said.contains(words) {
            return Ok(true);
        }
        Err(format!("it is {is} for {why}: {said}").into())
    };
    wait_until(&what, SOON, is).await
}

pub async fn await_sync(stage: &Stage, name: &str) -> Result<()> {
    await_link(stage, name, "True", "AsDesired", "").await
}

/// Waits until Airflow's pool has these fields.
pub async fn await_pool(airflow: &Airflow, name: &str, fields: Value) -> Result<()> {
    let what = format!("Airflow's pool {name} to have {fields}");
    let has = || async {
        let answer = airflow
            .ask(reqwest::Method::GET, &format!("pools/{name}"), None)
            .await?;
        let same = fields
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| answer[key] == *value);
        if same {
            Ok(true)
        } else {
            Err(answer.to_string().into())
        }
    };
    wait_until(&what, SOON, has).await
}

/// What was told of drifts, in events.
pub async fn told_of_drifts(stage: &Stage) -> Result<String> {
    told(stage, "reason=AirflowDrifted").await
}

/// Words of events with these fields.
async fn told(stage: &Stage, fields: &str) -> Result<String> {
    let of = format!("--field-selector={fields}");
    let events = ["get", "events", &of, "-o=jsonpath={.items[*].message}"];
    stage.kubectl()?.run(events).await
}

/// Waits until it is told of a pool that stays in Airflow, and why.
pub async fn await_left(stage: &Stage, name: &str, words: &str) -> Result<()> {
    let fields = format!("involvedObject.name={name},reason=AirflowPoolLeft");
    let is_told = || async {
        let told = told(stage, &fields).await?;
        if told.contains(words) {
            Ok(true)
        } else {
            Err(format!("{told:?}").into())
        }
    };
    wait_until(&format!("it to be told of {name}: {words:?}"), SOON, is_told).await
}
