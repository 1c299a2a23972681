//! Names and numbers of pools that the two versions of Airflow's API do not treat alike.

use crate::linked::{SOON, await_left, await_link, await_pool, await_sync, change, get, pool};
use crate::owned::{remove, there};
use poolwright_tests::*;
use reqwest::Method;
use serde_json::json;

/// A name with a slash: made by both; 2.x finds it only in its list, and that is said.
pub async fn slashed(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let spec = json!({"slots": 3, "airflow": {"name": "team/a b"}});
    pool(stage, "slashed", spec).await?;
    await_sync(stage, "slashed").await?;
    change(stage, "slashed", json!({"slots": 4})).await?;
    if airflow.major() == 2 {
        let words = "2.x finds no pool with a slash in its name";
        await_link(stage, "slashed", "False", "AirflowUnknown", words).await?;
        // Nor can it be deleted: it is waited for a minute, and left.
        remove(stage, "slashed").await?;
        return await_left(stage, "slashed", words).await;
    }
    let changed = || async {
        let answer = airflow.ask(Method::GET, "pools", None).await?;
        let mut pools = answer["pools"].as_array().into_iter().flatten();
        Ok(pools.any(|pool| pool["name"] == "team/a b" && pool["slots"] == 4))
    };
    wait_until("it to be changed", SOON, changed).await?;
    remove(stage, "slashed").await?;
    assert!(!there(airflow).await?.contains(&"team/a b".to_owned()));
    Ok(())
}

/// A pool without a limit: the one follows it, the other answers no list of its pools any more, and that is said.
pub async fn unlimited(airflow: &Airflow, stage: &Stage) -> Result<()> {
    airflow.run(&["pools", "set", "endless", "5", "x"])?;
    pool(
        stage,
        "endless",
        json!({"slots": 5, "airflow": {"sync": "Mirror"}}),
    )
    .await?;
    await_sync(stage, "endless").await?;
    airflow.sql("UPDATE slot_pool SET slots = -1 WHERE pool = 'endless'")?;
    if airflow.major() == 2 {
        let words =
            "2.x answers its list of pools with status 500, as it does while one of them has no limit";
        await_link(stage, "endless", "False", "AirflowUnknown", words).await?;
    } else {
        let followed = || async { Ok(get(stage, "endless").await?.spec.slots == -1) };
        wait_until("the Pool to have no limit", SOON, followed).await?;
    }
    airflow.sql("UPDATE slot_pool SET slots = 6 WHERE pool = 'endless'")?;
    await_pool(airflow, "endless", json!({"slots": 6})).await?;
    let followed = || async { Ok(get(stage, "endless").await?.spec.slots == 6) };
    wait_until("the Pool to have a limit again", SOON, followed).await?;
    remove(stage, "endless").await
}
