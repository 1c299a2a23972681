//! Two candidates for one lease, the load that they work under, and what the audit log says of each.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleBinding};
use kube::api::PostParams;
use poolwright_tests::*;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::bank::Bank;
use crate::ground::LIMIT;

pub const NAMES: [&str; 2] = ["one", "two"];
const QUEUES: [&str; 2] = ["small", "large"];

/// The lease that is tested: short, and in full the default.
pub fn lease() -> Duration {
    Duration::from_secs(scale::pick(3, 15))
}

/// One operator.
pub struct Candidate {
    /// Its name in the audit log.
    pub user: String,
    pub operator: Operator,
    /// Its way to the API server.
    pub wire: Proxy,
    _dir: TempDir,
}

/// Both, and where they work.
pub struct Cast {
    pub bank: Bank,
    pub both: [Candidate; 2],
}

/// What the installed operator may do in any namespace.
fn installed_rules() -> Result<Vec<PolicyRule>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install/access.yaml");
    let text = std::fs::read_to_string(file)?;
    let part = text
        .split("\n---\n")
        .find(|part| part.contains("kind: ClusterRole\n"));
    let role: ClusterRole = serde_saphyr::from_str(part.ok_or("no ClusterRole is installed")?)?;
    Ok(role.rules.unwrap_or_default())
}

impl Cast {
    /// Two operators, the first of which leads, and two WorkerPools that want more than a Pool of 5 slots has.
    pub async fn new(prefix: &str) -> Result<Self> {
        let mut bank = Bank::new(prefix).await?;
        bank.ground.stage.operator.kill();
        allow(bank.stage()).await?;
        let first = Candidate::start(bank.stage(), NAMES[0]).await?;
        wait_until("a first leader", LIMIT, || first.operator.leads()).await?;
        let second = Candidate::start(bank.stage(), NAMES[1]).await?;
        bank.pool("db", json!({"slots": 5})).await?;
        bank.queue("small", "db", 1, json!({})).await?;
        bank.queue("large", "db", 2, json!({"priority": {"weight": 2}}))
            .await?;
        for name in QUEUES {
            bank.workers(name, 5, json!({})).await?;
        }
        Ok(Self {
            bank,
            both: [first, second],
        })
    }

    /// Which of them leads; fails if not exactly one does.
    pub async fn leader(&self) -> Result<usize> {
        match (
            self.both[0].operator.leads().await?,
            self.both[1].operator.leads().await?,
        ) {
            (true, false) => Ok(0),
            (false, true) => Ok(1),
            both => Err(format!("who leads: {both:?}").into()),
        }
    }

    /// What one of them wrote or tried to write in a time: everything but the lease.
    pub fn writes(&self, who: usize, since: Timestamp, until: Timestamp) -> Result<Vec<AuditEntry>> {
        let all = self.audit(who)?.into_iter();
        let during = |one: &AuditEntry| one.at > since && one.at < until;
        Ok(all
            .filter(|one| during(one) && one.resource != "leases")
            .collect())
    }

    /// When one of them took the lease after a moment: its first write of it.
    pub fn taken(&self, who: usize, since: Timestamp) -> Result<Option<Timestamp>> {
        let all = self.audit(who)?.into_iter();
        let mut takes = all.filter(|one| one.resource == "leases" && one.code < 300 && one.at > since);
        Ok(takes.next().map(|one| one.at))
    }

    fn audit(&self, who: usize) -> Result<Vec<AuditEntry>> {
        let stage = self.bank.stage();
        let ours =
            |one: &AuditEntry| one.user == self.both[who].user && one.namespace == stage.namespace.name;
        let all = audit_entries(&stage.plane.audit_log())?.into_iter();
        Ok(all.filter(|one| one.is_write() && ours(one)).collect())
    }

    /// All is done once and by nobody who was killed, nothing is held any more, and no pod was ever too many.
    pub async fn expect_settled(&self, ids: &[String]) -> Result<()> {
        let stage = self.bank.stage();
        stage.await_ended(ids.len(), LIMIT * 2).await?;
        for name in QUEUES {
            stage.await_no_pods(name, LIMIT).await?;
        }
        self.bank
            .await_pool("db", "nothing is held", |status| {
                status.holders.is_empty() && status.open == Some(5)
            })
            .await?;
        println!("{} tasks, each done once", ids.len());
        self.bank.expect_well(ids)?;
        stage.expect_none_killed()
    }
}

/// Publishes small bursts until it is `done`, so that slots change hands and numbers move all the time.
pub async fn load(wire: &Wire, done: &AtomicBool) -> Result<Vec<String>> {
    let (mut publisher, mut ids) = (wire.publisher().await?, Vec::new());
    for queue in QUEUES.iter().cycle() {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let (count, seconds) = (fastrand::usize(2..=5), 0.1 + 1.5 * fastrand::f64());
        ids.extend(publisher.publish(&Batch::sleep(queue, count, seconds)).await?);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..3_000))).await;
    }
    Ok(ids)
}

/// Lets both do what the installed account may, and use the lease.
async fn allow(stage: &Stage) -> Result<()> {
    let (name, create) = ("operator", PostParams::default());
    let mut rules = installed_rules()?;
    rules.push(serde_json::from_value(json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}))?);
    let role: Role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules}))?;
    stage.namespace.api::<Role>().create(&create, &role).await?;
    for account in NAMES {
        let one: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": account}}))?;
        stage
            .namespace
            .api::<ServiceAccount>()
            .create(&create, &one)
            .await?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": account},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": stage.namespace.name}],
        }))?;
        stage
            .namespace
            .api::<RoleBinding>()
            .create(&create, &binding)
            .await?;
    }
    Ok(())
}

impl Candidate {
    async fn start(stage: &Stage, name: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let kubeconfig = dir.path().join("kubeconfig");
        let args = ["create", "token", name, "--duration=6h"];
        let token = stage.kubectl()?.run(args).await?;
        let wire = Proxy::start(stage.plane.server()?).await?;
        stage
            .plane
            .kubeconfig_through(wire.address(), token.trim(), &kubeconfig)?;
        let namespace = &stage.namespace.name;
        let lease = [format!("{namespace}/operator"), lease().as_secs().to_string()];
        let args = ["--lease", &lease[0], "--lease-seconds", &lease[1]];
        Ok(Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            operator: Operator::start(&kubeconfig, namespace, dir.path(), &args).await?,
            wire,
            _dir: dir,
        })
    }

    /// Waits until it leads; returns how long that took.
    pub async fn await_lead(&self, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        wait_until(&format!("{} to lead", self.user), limit, || self.operator.leads()).await?;
        Ok(since.elapsed())
    }
}
