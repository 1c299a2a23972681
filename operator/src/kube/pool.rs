//! Writes of a Pool that are none of its status: what it follows of Airflow, and what was made there for it.
//!
//! Each under the uid and resourceVersion that it was decided on.

use kube::api::Patch;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use poolwright_api::v1alpha1::Pool;
use poolwright_api::{ANNOTATION_AIRFLOW_MADE, FINALIZER_AIRFLOW};
use poolwright_core::airflow_pool::Follow;
use serde_json::{Value, json};

use super::patching;

/// A Pool that others write at the same time is read again this often.
const ATTEMPTS: usize = 8;

/// What was made for this Pool, in the words of [`mark`].
#[must_use]
pub fn made(pool: &Pool) -> Option<&str> {
    pool.annotations()
        .get(ANNOTATION_AIRFLOW_MADE)
        .map(String::as_str)
}

/// True if the Pool waits for what was made for it.
#[must_use]
pub fn waits(pool: &Pool) -> bool {
    pool.finalizers().iter().any(|one| one == FINALIZER_AIRFLOW)
}

/// Writes down what was made for this Pool, or that nothing is any more; false if the Pool is gone, or is written by somebody
/// else all the time.
///
/// # Errors
/// What else the API server answers.
pub async fn mark(client: &Client, pool: &Pool, made: Option<&str>) -> Result<bool, kube::Error> {
    write(client, pool, |_| true, |pool| marking(pool, made)).await
}

/// The same, if the mark and the spec are still those that this was decided on.
///
/// # Errors
/// What else the API server answers.
pub async fn settle(client: &Client, pool: &Pool, made: Option<&str>) -> Result<bool, kube::Error> {
    let same = |found: &Pool| is_of_spec(found, pool) && self::made(found) == self::made(pool);
    write(client, pool, same, |pool| marking(pool, made)).await
}

/// Lets a Pool follow Airflow; false if its spec has changed meanwhile, or it is gone.
///
/// # Errors
/// What else the API server answers, such as that a rule of the definition forbids it.
pub async fn follow(client: &Client, pool: &Pool, follow: &Follow) -> Result<bool, kube::Error> {
    let spec = json!({
        "slots": follow.slots,
        "description": follow.description,
        "includeDeferred": follow.include_deferred,
    });
    let same = |found: &Pool| is_of_spec(found, pool);
    write(client, pool, same, |_| json!({ "spec": spec })).await
}

fn is_of_spec(found: &Pool, pool: &Pool) -> bool {
    found.meta().generation == pool.meta().generation
}

/// The finalizer stands as long as something was made, or may have been.
fn marking(pool: &Pool, made: Option<&str>) -> Value {
    let others = pool.finalizers().iter().filter(|one| *one != FINALIZER_AIRFLOW);
    let ours = FINALIZER_AIRFLOW.to_owned();
    let finalizers: Vec<&String> = others.chain(made.map(|_| &ours)).collect();
    json!({ "metadata": {
        "annotations": {ANNOTATION_AIRFLOW_MADE: made},
        "finalizers": finalizers,
    } })
}

/// Writes a patch of this Pool as it was read, and as it is read anew where it has changed meanwhile: its status is written
/// at the same time. False if it is gone or not the same in what counts, and if it changes all the time.
async fn write(
    client: &Client,
    pool: &Pool,
    is_same: impl Fn(&Pool) -> bool,
    patch: impl Fn(&Pool) -> Value,
) -> Result<bool, kube::Error> {
    if send(client, pool, patch(pool)).await? {
        return Ok(true);
    }
    let api = api(client, pool);
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(&pool.name_any()).await?;
        let found = found.filter(|found| found.meta().uid == pool.meta().uid && is_same(found));
        let Some(found) = found else {
            return Ok(false);
        };
        if send(client, &found, patch(&found)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn send(client: &Client, pool: &Pool, mut patch: Value) -> Result<bool, kube::Error> {
    let meta = pool.meta();
    patch["metadata"]["uid"] = json!(meta.uid);
    patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
    match api(client, pool)
        .patch(&pool.name_any(), &patching(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

fn api(client: &Client, pool: &Pool) -> Api<Pool> {
    Api::namespaced(client.clone(), &pool.namespace().unwrap_or_default())
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
