//! One run: a small fleet from nothing to nothing by way of every kind of write, with or without a fault.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use poolwright_api::v1alpha1::{Pool, WorkerPool};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::state::{differences, look};

/// For what must happen, beside other runs.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks: runs wait side by side.
const STEP: Duration = Duration::from_millis(500);
/// How long a run without a fault must stay as it is before it counts as what others are held against.
const STILL: Duration = Duration::from_secs(4);
/// The WorkerPool.
const NAME: &str = "w";

/// A broker and a publisher, which runs use one after the other.
pub struct Lane {
    _redis: Redis,
    wire: Wire,
    publisher: Publisher,
}

impl Lane {
    pub async fn new() -> Result<Self> {
        let redis = Redis::start(RedisConfig::default()).await?;
        // Late: a worker holds no more than it runs.
        let wire = Wire::redis(&redis, 0).late(true);
        Ok(Self {
            publisher: wire.publisher().await?,
            wire,
            _redis: redis,
        })
    }
}

/// What a run has come to at each of its rests, and what the operator asked for.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rests: Vec<Value>,
    pub asked: Vec<Asked>,
    /// What was not as it should be.
    pub trouble: Option<String>,
}

/// Runs it on a lane. What it comes to is held against `model`, where there is one.
pub async fn run(lane: &mut Lane, aims: &[Aim], model: Option<&[Value]>) -> Result<Outcome> {
    let plane = Stage::shared_plane().await?;
    let dir = tempfile::tempdir()?;
    let front = ApiFront::start(&plane.operator_kubeconfig(), aims).await?;
    let kubeconfig = dir.path().join("kubeconfig");
    front.write_kubeconfig(&kubeconfig)?;
    let stage = match Stage::on(plane, &kubeconfig, "e", &[]).await {
        Ok(stage) => stage,
        Err(error) => {
            return Ok(Outcome {
                asked: front.asked(),
                trouble: Some(error.to_string()),
                ..Outcome::default()
            });
        }
    };
    let mut course = Course {
        charges: Charges::follow(&stage),
        moves: Moves::follow(stage.namespace.api()),
        lane,
        model,
        stage,
        rests: Vec::new(),
    };
    let done = course.go().await;
    let rests = std::mem::take(&mut course.rests);
    let trouble = match done {
        Ok(()) => None,
        Err(error) => Some(format!("{error}; the operator said:\n{}", course.complaints())),
    };
    let asked = front.asked();
    let end = course.end().await;
    Ok(Outcome {
        rests,
        asked,
        trouble: trouble.or_else(|| end.err().map(|error| error.to_string())),
    })
}

struct Course<'a> {
    lane: &'a mut Lane,
    model: Option<&'a [Value]>,
    stage: Stage,
    charges: Charges,
    moves: Moves,
    rests: Vec<Value>,
}

impl Course<'_> {
    async fn go(&mut self) -> Result<()> {
        let mut ids = self.hire().await?;
        self.stage.await_ended(ids.len(), LIMIT).await?;
        self.rest(&|state| settled(state, 1, false)).await?;
        let two = self.charges.sheet("db")?.peak();
        if two != 2 {
            return Err(format!("{two} slots were taken, so that the budget was of no matter").into());
        }

        // Another revision takes over, and works.
        let turn = json!([{
            "op": "add", "path": "/spec/worker/env/-", "value": {"name": "TURN", "value": "two"},
        }]);
        let turn: Patch<()> = Patch::Json(serde_json::from_value(turn)?);
        let workers = self.stage.namespace.api::<WorkerPool>();
        workers.patch(NAME, &PatchParams::default(), &turn).await?;
        self.rest(&|state| settled(state, 1, true)).await?;
        ids.extend(self.publish(1).await?);
        self.stage.await_ended(ids.len(), LIMIT).await?;

        // All is given back, before there is nobody left to give it.
        let none = Patch::Merge(json!({"spec": {"scaling": {"minReplicas": 0}}}));
        workers.patch(NAME, &PatchParams::default(), &none).await?;
        self.rest(&|state| settled(state, 0, true)).await?;
        workers.delete(NAME, &DeleteParams::default()).await?;
        self.rest(&is_over).await?;
        self.charges.expect_within()?;
        self.moves.expect_all_parked_first()?;
        self.stage.expect_no_busy_victim()?;
        self.stage.expect_all_done_once(&ids)
    }

    /// A Pool of two slots, and a WorkerPool with work for more.
    async fn hire(&mut self) -> Result<Vec<String>> {
        let ids = self.publish(4).await?;
        let pool: Pool = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
            "metadata": {"name": "db"}, "spec": {"slots": 2},
        }))?;
        let pools = self.stage.namespace.api::<Pool>();
        pools.create(&PostParams::default(), &pool).await?;
        let queue = json!({"broker": self.lane.wire.spec, "pool": {"name": "db", "slotsPerTask": 1}});
        self.stage.task_queue("q", queue).await?;
        let shape = json!({
            "celery": {"concurrency": 1},
            "scaling": {"minReplicas": 1, "maxReplicas": 3, "scaleDownDelaySeconds": 2},
        });
        self.lane.wire.workers(&self.stage, NAME, &["q"], shape).await?;
        Ok(ids)
    }

    async fn publish(&mut self, count: usize) -> Result<Vec<String>> {
        self.lane.publisher.publish(&Batch::sleep("q", count, 1.0)).await
    }

    /// Waits until the state is one of rest, and the same as the model's or one that stays.
    async fn rest(&mut self, is_rest: &(dyn Fn(&Value) -> bool + Sync)) -> Result<()> {
        let model = self.model.and_then(|model| model.get(self.rests.len()));
        let (begun, mut since, mut last) = (Instant::now(), Instant::now(), Value::Null);
        loop {
            let state = look(&self.stage, &self.lane.wire.url).await?;
            if state != last {
                since = Instant::now();
            }
            let is_end = match model {
                Some(model) => state == *model,
                None => is_rest(&state) && since.elapsed() > STILL,
            };
            if is_end {
                self.rests.push(state);
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                let place = self.rests.len();
                let what = model.map_or_else(|| vec![state.to_string()], |model| differences(&state, model));
                return Err(format!("no rest {place} within {LIMIT:?}: {}", what.join("; ")).into());
            }
            last = state;
            tokio::time::sleep(STEP).await;
        }
    }

    /// What the operator has logged as trouble, and the last that it has done.
    fn complaints(&self) -> String {
        let log = self.stage.operator.log();
        let lines: Vec<&str> = log.lines().collect();
        let recent = lines.len().saturating_sub(8);
        let told = lines.iter().enumerate().filter(|(number, line)| {
            let is_trouble = [" WARN ", " ERROR "].iter().any(|level| line.contains(level));
            *number >= recent || is_trouble
        });
        told.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
    }

    /// Ends what is left, so that it takes nothing from other runs. The namespace stays: to delete it is work for the plane.
    async fn end(self) -> Result<()> {
        if self.stage.pods(NAME).await?.is_empty() {
            return Ok(());
        }
        self.stage.strike().await
    }
}

fn of<'a>(state: &'a Value, kind: &str) -> &'a [Value] {
    state[kind].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What a Pool has granted, and the slots that it has left.
fn granted(state: &Value) -> (i64, i64) {
    let pools = of(state, "pools").iter();
    let status = pools
        .filter(|one| one["metadata"]["name"] == "db")
        .map(|one| &one["status"]);
    status.fold((0, 0), |_, status| {
        let holders = of(status, "holders")
            .iter()
            .filter_map(|one| one["granted"].as_i64());
        (holders.sum(), status["open"].as_i64().unwrap_or(-1))
    })
}

/// No worker pool, and nothing that is held for one.
fn is_over(state: &Value) -> bool {
    let is_none = |kind: &str| of(state, kind).is_empty();
    is_none("pods") && is_none("deployments") && is_none("workers") && granted(state) == (0, 2)
}

/// So many workers, of the second revision or the first, and nothing on its way.
fn settled(state: &Value, workers: i64, second: bool) -> bool {
    let conditions = of(state, "workers")
        .iter()
        .flat_map(|one| of(&one["status"], "conditions"));
    let ready = conditions.filter(|one| one["type"] == "Ready");
    let reasons: BTreeSet<&str> = ready.filter_map(|one| one["reason"].as_str()).collect();
    let [deployment] = of(state, "deployments") else {
        return false;
    };
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    deployment["spec"]["replicas"] == workers
        && deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) == workers
        && env.contains("TURN") == second
        && i64::try_from(of(state, "pods").len()) == Ok(workers)
        && granted(state) == (workers, 2 - workers)
        && reasons == BTreeSet::from(["AsDesired"])
}
