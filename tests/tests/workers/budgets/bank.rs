//! What the tests of budgets share: a namespace with Pools, queues that draw on them, and a count of what pods take.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_api::{ConditionType, Reason};
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ground::{Ground, LIMIT};

/// A [`Ground`] whose pods are counted. Its queue `q` draws on default-pool.
pub struct Bank {
    pub charges: Charges,
    pub moves: Moves,
    pub ground: Ground,
    /// Tasks acknowledge late, so that a worker holds no more than it runs.
    pub wire: Wire,
}

/// Where the queues are.
#[derive(Clone, Copy, Debug)]
pub enum Broker {
    Redis,
    RabbitMq,
}

/// Calls a test on its broker, and in full on the other one, too.
pub async fn on_each(prefix: &str, own: Broker, test: impl AsyncFn(Bank) -> Result<()>) -> Result<()> {
    let other = match own {
        Broker::Redis => Broker::RabbitMq,
        Broker::RabbitMq => Broker::Redis,
    };
    let both = [own, other];
    for broker in &both[..scale::pick(1, 2)] {
        println!("on {broker:?}");
        let bank = match broker {
            Broker::Redis => Bank::new(prefix).await?,
            Broker::RabbitMq => Bank::on_rabbitmq(prefix).await?,
        };
        test(bank).await?;
    }
    Ok(())
}

impl Bank {
    pub async fn new(prefix: &str) -> Result<Self> {
        let ground = Ground::new(prefix).await?;
        let wire = Wire::redis(&ground.redis, 0).late(true);
        Ok(Self {
            charges: Charges::follow(&ground.stage),
            moves: Moves::follow(ground.stage.namespace.api()),
            ground,
            wire,
        })
    }

    /// One whose queues are on RabbitMQ.
    pub async fn on_rabbitmq(prefix: &str) -> Result<Self> {
        let mut bank = Self::new(prefix).await?;
        let vhost = RabbitMq::shared().await?.vhost(prefix, "monitoring").await?;
        bank.wire = Wire::vhost(bank.stage(), &vhost).await?.late(true);
        bank.wire.spec["rabbitmq"] = json!({"managementUrl": vhost.management_url});
        Ok(bank)
    }

    pub fn stage(&self) -> &Stage {
        &self.ground.stage
    }

    /// Creates a Pool, or gives it this spec.
    pub async fn pool(&self, name: &str, spec: Value) -> Result<()> {
        let pool: Pool = serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": name}, "spec": spec}))?;
        let api = self.stage().namespace.api::<Pool>();
        if api.get_opt(name).await?.is_none() {
            let made = api.create(&PostParams::default(), &pool).await;
            // default-pool may be made at this moment.
            if !matches!(&made, Err(kube::Error::Api(status)) if status.code == 409) {
                made?;
                return Ok(());
            }
        }
        let patch = Patch::Merge(json!({"spec": spec}));
        api.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Creates a TaskQueue whose tasks take so many slots of a Pool. `patch` is laid over its spec.
    pub async fn queue(&self, name: &str, pool: &str, slots: u32, patch: Value) -> Result<()> {
        let mut spec = json!({"broker": self.wire.spec, "pool": {"name": pool, "slotsPerTask": slots}});
        stage::merge(&mut spec, patch);
        self.stage().task_queue(name, spec).await
    }

    /// A WorkerPool of workers of one task each on the queue of its name.
    pub async fn workers(&self, name: &str, most: u32, patch: Value) -> Result<()> {
        let mut shape = json!({
            "celery": {"concurrency": 1},
            "scaling": {"maxReplicas": most, "scaleDownDelaySeconds": 3},
        });
        stage::merge(&mut shape, patch);
        self.wire.workers(self.stage(), name, &[name], shape).await
    }

    /// A Pool's status, empty while there is none.
    pub async fn status(&self, pool: &str) -> Result<PoolStatus> {
        let pool = self.stage().namespace.api::<Pool>().get_opt(pool).await?;
        Ok(pool.and_then(|pool| pool.status).unwrap_or_default())
    }

    /// Waits until a Pool's status satisfies a test.
    pub async fn await_pool(
        &self,
        pool: &str,
        what: &str,
        test: impl Fn(&PoolStatus) -> bool,
    ) -> Result<PoolStatus> {
        let outcome = poll(&format!("Pool {pool}: {what}"), LIMIT, || async {
            Ok(Some(self.status(pool).await?).filter(|status| test(status)))
        })
        .await;
        match outcome {
            Ok(status) => Ok(status),
            Err(error) => Err(format!("{error}; its status is {:?}", self.status(pool).await?).into()),
        }
    }

    /// Waits until a Pool's condition Ready has this status and reason, and returns its message.
    pub async fn await_pool_ready(&self, pool: &str, status: &str, reason: Reason) -> Result<String> {
        let of = |pool: &PoolStatus| find(&pool.conditions, ConditionType::Ready).cloned();
        let is = |pool: &PoolStatus| {
            of(pool).is_some_and(|ready| ready.status == status && ready.reason == reason.as_str())
        };
        let found = self
            .await_pool(pool, &format!("Ready {status}/{reason:?}"), is)
            .await?;
        Ok(of(&found).map(|ready| ready.message).unwrap_or_default())
    }

    /// Pods of a WorkerPool that take work: neither parked nor being deleted.
    pub async fn consuming(&self, name: &str) -> Result<u32> {
        let living = self.ground.living(name).await?;
        let count = living.iter().filter(|pod| !is_parked(pod)).count();
        Ok(u32::try_from(count)?)
    }

    /// Waits until the WorkerPools have so many pods that take work and no others, each within `off` of its number, and
    /// together exactly as many.
    pub async fn await_shares(&self, wanted: &[(&str, u32)], off: u32, limit: Duration) -> Result<()> {
        let (since, sum) = (Instant::now(), wanted.iter().map(|one| one.1).sum::<u32>());
        let mut last = Vec::new();
        while since.elapsed() < limit {
            last.clear();
            for (name, _) in wanted {
                last.push(self.consuming(name).await?);
            }
            let near = |(have, (_, want)): (&u32, &(&str, u32))| have.abs_diff(*want) <= off;
            if last.iter().sum::<u32>() == sum && last.iter().zip(wanted).all(near) {
                println!(
                    "{last:?} for {wanted:?} after {:.1} s",
                    since.elapsed().as_secs_f32()
                );
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut text = format!("waited {limit:?} for {wanted:?}: there are {last:?}");
        for (name, _) in wanted {
            text.push_str("; ");
            text.push_str(name);
            text.push_str(": ");
            text.push_str(&self.stage().decision(name).await?);
        }
        Err(text.into())
    }

    /// Throws away what waits in a queue.
    pub async fn purge(&self, queue: &str) -> Result<()> {
        if self.wire.url.starts_with("amqp") {
            let vhost = self.wire.url.rsplit('/').next().unwrap_or_default();
            let path = format!("/api/queues/{vhost}/{queue}/contents");
            let broker = RabbitMq::shared().await?;
            return broker.manage(Method::DELETE, &path, &Value::Null).await.map(drop);
        }
        let mut connection = brokers::connect(&self.wire.url).await?;
        let _: i64 = redis::cmd("DEL").arg(queue).query_async(&mut connection).await?;
        Ok(())
    }

    /// Ids of all tasks that have started.
    pub fn begun(&self) -> Result<Vec<String>> {
        let events = self.stage().events()?;
        let ids: BTreeSet<String> = events.into_iter().map(|event| event.id).collect();
        Ok(ids.into_iter().collect())
    }

    /// Names of the pods of a WorkerPool that are not being deleted.
    pub async fn names(&self, name: &str) -> Result<BTreeSet<String>> {
        let pods = self.ground.living(name).await?;
        Ok(pods.iter().map(ResourceExt::name_any).collect())
    }

    /// What must hold at the end of each test: no budget was broken, no busy worker was taken, and each of these tasks ran
    /// once.
    pub fn expect_well(&self, ids: &[String]) -> Result<()> {
        self.charges.expect_within()?;
        self.moves.expect_all_parked_first()?;
        self.stage().expect_no_busy_victim()?;
        self.stage().expect_all_done_once(ids)
    }
}
