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

/// Writes down what was made for this Pool, or that nothing is any more; false if the Pool is gone. Its status is written at
/// the same time, so that it is read anew where it has changed meanwhile.
///
/// # Errors
/// What else the API server answers.
pub async fn mark(client: &Client, pool: &Pool, made: Option<&str>) -> Result<bool, kube::Error> {
    if mark_as_read(client, pool, made).await? {
        return Ok(true);
    }
    let api = api(client, pool);
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(&pool.name_any()).await?;
        let Some(found) = found.filter(|found| found.meta().uid == pool.meta().uid) else {
            return Ok(false);
        };
        if mark_as_read(client, &found, made).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same of a Pool as it was read; false if it has changed meanwhile, or is gone.
///
/// # Errors
/// What else the API server answers.
pub async fn mark_as_read(client: &Client, pool: &Pool, made: Option<&str>) -> Result<bool, kube::Error> {
    let others = pool.finalizers().iter().filter(|one| *one != FINALIZER_AIRFLOW);
    let ours = FINALIZER_AIRFLOW.to_owned();
    let finalizers: Vec<&String> = others.chain(made.map(|_| &ours)).collect();
    let metadata = json!({
        "annotations": {ANNOTATION_AIRFLOW_MADE: made},
        "finalizers": finalizers,
    });
    patch(client, pool, json!({ "metadata": metadata })).await
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
    let spec = json!({ "spec": spec });
    if patch(client, pool, spec.clone()).await? {
        return Ok(true);
    }
    // Its status is written at the same time.
    let api = api(client, pool);
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(&pool.name_any()).await?;
        let same = |found: &Pool| {
            let (found, read) = (found.meta(), pool.meta());
            found.uid == read.uid && found.generation == read.generation
        };
        let Some(found) = found.filter(same) else {
            return Ok(false);
        };
        if patch(client, &found, spec.clone()).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn patch(client: &Client, pool: &Pool, mut patch: Value) -> Result<bool, kube::Error> {
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
