//! How the three sides of a test reach one broker: the operator (`spec.broker`), the workers and the publisher.

use crate::{Batch, Celery, Publisher, Redis, Result, Stage, Vhost};
use serde_json::{Value, json};

/// One broker, as each side is told of it.
#[derive(Clone, Debug)]
pub struct Wire {
    /// `spec.broker` of the TaskQueues.
    pub spec: Value,
    /// The URL of workers and publisher.
    pub url: String,
    /// Variables of `tapp.py`, for both.
    pub env: Vec<(String, String)>,
}

impl Wire {
    /// A database of a Redis without a login.
    pub fn redis(redis: &Redis, database: u8) -> Self {
        let url = redis.url(database);
        Self {
            spec: json!({"url": url}),
            url,
            env: Vec::new(),
        }
    }

    /// A virtual host; its URL is put into a Secret, because it has a login.
    pub async fn vhost(stage: &Stage, vhost: &Vhost) -> Result<Self> {
        Self::secret(stage, &vhost.name, &vhost.url).await
    }

    /// A URL that only a Secret of this name may hold.
    pub async fn secret(stage: &Stage, name: &str, url: &str) -> Result<Self> {
        stage.secret(name, "url", url).await?;
        Ok(Self {
            spec: json!({"urlSecretRef": {"name": name, "key": "url"}}),
            url: url.into(),
            env: Vec::new(),
        })
    }

    /// The same with one more variable of `tapp.py`.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut wire = self.clone();
        wire.env.push((name.into(), value.into()));
        wire
    }

    /// The same, with tasks that acknowledge late or early.
    #[must_use]
    pub fn late(&self, late: bool) -> Self {
        self.with("TAPP_ACKS_LATE", if late { "1" } else { "0" })
    }

    /// Creates these TaskQueues and a WorkerPool that consumes them.
    pub async fn pool(&self, stage: &Stage, name: &str, queues: &[&str], patch: Value) -> Result<()> {
        for queue in queues {
            stage.queue(queue, self.spec.clone()).await?;
        }
        self.workers(stage, name, queues, patch).await
    }

    /// Creates only the WorkerPool. Where a Secret holds the URL, its workers get it from there.
    pub async fn workers(&self, stage: &Stage, name: &str, queues: &[&str], patch: Value) -> Result<()> {
        let mut env = vec![json!({"name": "TAPP_LOG", "value": stage.task_log()})];
        let mut all = json!({});
        if self.spec["urlSecretRef"].is_null() {
            env.push(json!({"name": "CELERY_BROKER_URL", "value": self.url}));
        } else {
            all["celery"] = json!({"brokerEnv": "Inject"});
        }
        env.extend(
            self.env
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value})),
        );
        all["worker"] = json!({"env": env});
        crate::stage::merge(&mut all, patch);
        stage.pool(name, queues, &self.url, all).await
    }

    /// A publisher on this broker.
    pub async fn publisher(&self) -> Result<Publisher> {
        let env: Vec<(&str, &str)> = self
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Celery::locate()?.publisher(&self.url, &env).await
    }

    /// Publishes one batch and returns its ids.
    pub async fn publish(&self, batch: &Batch) -> Result<Vec<String>> {
        self.publisher().await?.publish(batch).await
    }
}
