//! Operators that die at any moment, two at once, and everything at once: what pods take stays within a tight Pool.

use kube::api::DeleteParams;
use poolwright_api::v1alpha1::{Pool, WorkerPool};
use poolwright_tests::operator::Operator;
use poolwright_tests::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::bank::{Bank, Broker, on_each};
use crate::ground::LIMIT;

/// Pods that must have come for a test to show anything; waves go on for longer until more have.
const ENOUGH: usize = 6;
const BOTH: [&str; 2] = ["small", "large"];

/// Two WorkerPools that want more than a Pool of 5 slots has, one of them two slots a pod.
async fn tight(bank: &Bank) -> Result<()> {
    without_workers(bank).await?;
    hire(bank).await
}

/// Their Pool and their queues.
async fn without_workers(bank: &Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 5})).await?;
    bank.queue("small", "db", 1, json!({})).await?;
    bank.queue("large", "db", 2, json!({"priority": {"weight": 2}}))
        .await
}

/// The two WorkerPools.
async fn hire(bank: &Bank) -> Result<()> {
    for name in BOTH {
        bank.workers(name, 5, json!({})).await?;
    }
    Ok(())
}

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}

/// Publishes bursts, now for one and now for the other, so that slots change hands all the time: for so long, and until
/// enough pods have come.
async fn waves(wire: &Wire, moves: &Moves, done: &AtomicBool) -> Result<Vec<String>> {
    waves_until(wire, moves, done, &AtomicBool::new(true)).await
}

/// The same, and until `tried`.
async fn waves_until(
    wire: &Wire,
    moves: &Moves,
    done: &AtomicBool,
    tried: &AtomicBool,
) -> Result<Vec<String>> {
    let (since, mut publisher) = (Instant::now(), wire.publisher().await?);
    let length = Duration::from_secs(scale::pick(50, 600));
    let mut ids = Vec::new();
    for queue in BOTH.iter().cycle() {
        let enough = moves.count(|act| act == Act::Created) > ENOUGH + 2 || since.elapsed() > length * 3;
        if since.elapsed() > length && enough && tried.load(Ordering::SeqCst) {
            break;
        }
        let (count, seconds) = (fastrand::usize(4..=7), 0.1 + 1.5 * fastrand::f64());
        ids.extend(publisher.publish(&Batch::sleep(queue, count, seconds)).await?);
        tokio::time::sleep(millis(2_000..10_000)).await;
    }
    done.store(true, Ordering::SeqCst);
    Ok(ids)
}

/// All is done, nothing is held, and no pod was ever too many; `enough` pods have come.
async fn expect_settled(bank: &Bank, ids: &[String], enough: usize) -> Result<()> {
    for name in BOTH {
        bank.stage().await_no_pods(name, LIMIT * 2).await?;
    }
    bank.await_pool("db", "nothing is held", |status| {
        status.holders.is_empty() && status.open == Some(5)
    })
    .await?;
    let sheet = bank.charges.sheet("db")?;
    let created = bank.moves.count(|act| act == Act::Created);
    println!(
        "{} tasks, {created} pods, at most {} slots",
        ids.len(),
        sheet.peak()
    );
    assert!(
        sheet.peak() >= 4 && created >= enough,
        "too little happened to show anything"
    );
    bank.charges.expect_within()?;
    bank.stage().expect_none_killed()
}

#[tokio::test]
async fn an_operator_that_is_killed_again_and_again_never_exceeds_a_pool() -> Result<()> {
    on_each("b-crash", Broker::Redis, killed_again_and_again).await
}

async fn killed_again_and_again(mut bank: Bank) -> Result<()> {
    tight(&bank).await?;
    let done = AtomicBool::new(false);
    let operator = &mut bank.ground.stage.operator;
    let kill = async {
        let mut kills = 0;
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(millis(2_000..20_000)).await;
            operator.kill();
            kills += 1;
            tokio::time::sleep(millis(0..1_500)).await;
            operator.start_again().await?;
        }
        println!("killed {kills} times");
        Ok(())
    };
    let (ids, ()) = futures::try_join!(waves(&bank.wire, &bank.moves, &done), kill)?;
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    expect_settled(&bank, &ids, ENOUGH).await?;
    bank.expect_well(&ids)
}

/// A kind of write: a resource, a subresource, and whether the object is made by it.
pub(super) type Write = (&'static str, &'static str, bool);

/// The writes after which an operator is killed: a Pool's status, which is a grant or what is told of it; a number of
/// replicas; a mark; a pause or a note on a Deployment; and a Deployment that is made. Each grant is followed by a
/// number, so the first two are what counts; the last comes only at the beginning.
pub(super) const WRITES: [Write; 5] = [
    ("pools", "status", false),
    ("deployments", "scale", false),
    ("pods", "", false),
    ("deployments", "", false),
    ("deployments", "", true),
];

/// Kills an operator right after what it writes.
struct Killer<'a> {
    operator: &'a mut Operator,
    log: PathBuf,
    namespace: String,
    tail: AuditTail,
    /// How often after each kind of write.
    kills: [u32; WRITES.len()],
}

impl Killer<'_> {
    /// Which kind of write of the operator's this is.
    fn kind(&self, entry: &AuditEntry) -> Option<usize> {
        let is_ours = entry.user == plane::OPERATOR && entry.namespace == self.namespace;
        // What was refused has written nothing.
        let has_written = entry.is_write() && entry.code < 300;
        let what = (
            entry.resource.as_str(),
            entry.subresource.as_str(),
            entry.verb == "create",
        );
        WRITES
            .iter()
            .position(|one| is_ours && has_written && *one == what)
    }

    /// Starts a dead one; what the dead one has written is not looked at any more.
    async fn start(&mut self) -> Result<()> {
        self.tail.read(&self.log)?;
        self.operator.start_again().await
    }

    /// Kills it after a write of this kind, or after the first of any kind, if it comes in time; and starts it again.
    async fn kill_after(&mut self, kind: Option<usize>, limit: Duration) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < limit {
            let written = self.tail.read(&self.log)?;
            let mut kinds = written.iter().filter_map(|entry| self.kind(entry));
            let hit = kinds.find(|one| kind == Some(*one) || self.kills[*one] == 0);
            if let Some(hit) = hit {
                self.operator.kill();
                self.kills[hit] += 1;
                tokio::time::sleep(millis(0..500)).await;
                return self.start().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Goes on until it is `done`, and then until each kind has had its turn: the workers that are left must be marked
    /// before they go.
    async fn run(mut self, done: &AtomicBool) -> Result<[u32; WRITES.len()]> {
        self.start().await?;
        while !done.load(Ordering::SeqCst) {
            let kinds = if fastrand::bool() { 2 } else { WRITES.len() - 1 };
            self.kill_after(Some(fastrand::usize(..kinds)), Duration::from_secs(6))
                .await?;
        }
        let since = Instant::now();
        while self.kills.contains(&0) && since.elapsed() < LIMIT {
            self.kill_after(None, Duration::from_secs(6)).await?;
        }
        println!("killed {:?} times after {WRITES:?}", self.kills);
        Ok(self.kills)
    }
}

#[tokio::test]
async fn an_operator_that_is_killed_right_after_a_write_never_exceeds_a_pool() -> Result<()> {
    on_each("b-writes", Broker::RabbitMq, killed_after_writes).await
}

async fn killed_after_writes(mut bank: Bank) -> Result<()> {
    without_workers(&bank).await?;
    // So that it makes both Deployments while it is watched.
    bank.ground.stage.operator.kill();
    hire(&bank).await?;
    let (done, log) = (AtomicBool::new(false), bank.stage().plane.audit_log());
    let killer = Killer {
        namespace: bank.stage().namespace.name.clone(),
        tail: AuditTail::from_now(&log)?,
        log,
        operator: &mut bank.ground.stage.operator,
        kills: [0; WRITES.len()],
    };
    let (ids, kills) = futures::try_join!(waves(&bank.wire, &bank.moves, &done), killer.run(&done))?;
    assert!(
        !kills.contains(&0),
        "killed {kills:?} times after {WRITES:?}: some have not been tried"
    );
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    expect_settled(&bank, &ids, ENOUGH).await?;
    bank.expect_well(&ids)
}

/// Lets the operator do all but one kind of write in this namespace, so that it cannot pass the moment before it.
struct Barrier {
    cluster: Kubectl,
    file: PathBuf,
}

impl Barrier {
    async fn before((resource, part, is_made): Write, stage: &Stage) -> Result<Self> {
        let namespace = &stage.namespace.name;
        let name = format!("{namespace}-{resource}{part}{is_made}");
        let group = match resource {
            "pools" => "poolwright.dev",
            "deployments" => "apps",
            _ => "",
        };
        let resource = [resource, part].join("/");
        let resource = resource.trim_end_matches('/');
        let operation = if is_made { "CREATE" } else { "UPDATE" };
        let expression = format!("request.userInfo.username != '{}'", plane::OPERATOR);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["*"], "operations": [operation],
                        "resources": [resource],
                    }],
                },
                "validations": [{"expression": expression, "message": "not yet"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]});
        let (cluster, file) = (stage.plane.kubectl()?, stage.dir.path().join("barrier.json"));
        std::fs::write(&file, list.to_string())?;
        cluster.run(["apply", "-f", file.to_str().unwrap()]).await?;
        if is_made {
            // It acts a moment later, and what is made at the beginning is made only then.
            let deployment = [
                "create",
                "deployment",
                "probe",
                "--image=none",
                "--dry-run=server",
            ];
            let probe = deployment
                .into_iter()
                .chain(["--as", plane::OPERATOR, "-n", namespace]);
            wait_until("the barrier", LIMIT, || async {
                Ok(cluster.run(probe.clone()).await.is_err())
            })
            .await?;
        }
        Ok(Self { cluster, file })
    }

    async fn lift(self) -> Result<()> {
        let file = self.file.to_str().unwrap();
        self.cluster.run(["delete", "-f", file]).await.map(drop)
    }
}

/// Kills the operator when it is refused this kind of write, if it comes to one in time, and starts it without the barrier.
pub(super) async fn stop_before(kind: Write, stage: &mut Stage) -> Result<bool> {
    let log = stage.plane.audit_log();
    let mut tail = AuditTail::from_now(&log)?;
    let barrier = Barrier::before(kind, stage).await?;
    if stage.operator.pid().is_none() {
        stage.operator.start_again().await?;
    }
    let (since, namespace) = (Instant::now(), stage.namespace.name.clone());
    let is_stopped = |entry: &AuditEntry| {
        let what = (entry.resource.as_str(), entry.subresource.as_str());
        let ours = entry.namespace == namespace && entry.user == plane::OPERATOR;
        let same = what == (kind.0, kind.1) && (entry.verb == "create") == kind.2;
        ours && same && [403, 422].contains(&entry.code)
    };
    // That a revision is proven is noted once, when its first worker is up.
    let is_note = kind.0 == "deployments" && kind.1.is_empty() && !kind.2;
    let limit = if is_note { LIMIT } else { Duration::from_secs(15) };
    while since.elapsed() < limit {
        if tail.read(&log)?.iter().any(is_stopped) {
            stage.operator.kill();
            barrier.lift().await?;
            stage.operator.start_again().await?;
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    barrier.lift().await?;
    Ok(false)
}

/// What a killed process cannot be aimed at: it is stopped at the moment before a write, for each kind of write, and the
/// next one finds what the others have left.
#[tokio::test]
async fn an_operator_that_dies_before_a_write_never_exceeds_a_pool() -> Result<()> {
    on_each("b-before", Broker::Redis, stopped_before_writes).await
}

async fn stopped_before_writes(mut bank: Bank) -> Result<()> {
    without_workers(&bank).await?;
    // So that it is stopped before it makes the first Deployment, too.
    bank.ground.stage.operator.kill();
    hire(&bank).await?;
    let (done, tried) = (AtomicBool::new(false), AtomicBool::new(false));
    let stage = &mut bank.ground.stage;
    let stop = async {
        let (mut hit, begun) = ([0; WRITES.len()], Instant::now());
        while !done.load(Ordering::SeqCst) {
            // The last first: it comes only at the beginning.
            for (kind, hits) in WRITES.into_iter().zip(&mut hit).rev() {
                // A note on a Deployment comes seldom.
                if *hits == 0 || kind.0 != "deployments" || kind.1 == "scale" {
                    *hits += u32::from(stop_before(kind, stage).await?);
                }
            }
            tried.store(!hit.contains(&0) || begun.elapsed() > LIMIT * 3, Ordering::SeqCst);
        }
        println!("stopped {hit:?} times before {WRITES:?}");
        Ok(hit)
    };
    let tasks = waves_until(&bank.wire, &bank.moves, &done, &tried);
    let (ids, hit) = futures::try_join!(tasks, stop)?;
    assert!(
        !hit.contains(&0),
        "stopped {hit:?} times: some have not been tried"
    );
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    // Who cannot mark a pod keeps it; that writes came is in those counts.
    expect_settled(&bank, &ids, BOTH.len()).await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn two_operators_at_once_never_exceed_a_pool() -> Result<()> {
    on_each("b-two", Broker::Redis, two_at_once).await
}

async fn two_at_once(bank: Bank) -> Result<()> {
    tight(&bank).await?;
    let (done, dir, stage) = (AtomicBool::new(false), tempfile::tempdir()?, bank.stage());
    let mut second = Operator::start(
        &stage.plane.operator_kubeconfig(),
        &stage.namespace.name,
        dir.path(),
        &[],
    )
    .await?;
    let kill = async {
        let mut stored = 0;
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(millis(5_000..15_000)).await;
            stored += decisions(&second).await?;
            second.kill();
            second.start_again().await?;
        }
        Ok(stored)
    };
    let (ids, by_second) = futures::try_join!(waves(&bank.wire, &bank.moves, &done), kill)?;
    let by_first = decisions(&stage.operator).await?;
    println!("{by_first} and {by_second} decisions were stored");
    assert!(by_first > 0 && by_second > 0, "one of them did nothing");
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    expect_settled(&bank, &ids, ENOUGH).await?;
    bank.expect_well(&ids)
}

/// Decisions that this process has stored.
async fn decisions(operator: &Operator) -> Result<usize> {
    let text = operator.metrics().await?;
    let stored = text
        .lines()
        .filter(|line| line.starts_with("poolwright_worker_pool_decisions_total{"));
    Ok(stored
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum())
}

/// One of the things that people and machines do.
async fn mischief(bank: &Bank, operators: &mut [Operator; 2], round: u32) -> Result<&'static str> {
    let (stage, one) = (bank.stage(), fastrand::usize(0..2));
    let name = BOTH[one];
    let pools = stage.namespace.api::<Pool>();
    Ok(match fastrand::u8(0..8) {
        0 | 1 => {
            operators[one].kill();
            tokio::time::sleep(millis(0..1_000)).await;
            operators[one].start_again().await?;
            "an operator is killed"
        }
        2 | 3 => {
            if let Some(pod) = bank.names(name).await?.into_iter().next() {
                let args = ["delete", "pod", &pod, "--wait=false", "--ignore-not-found"];
                stage.kubectl()?.run(args).await?;
            }
            "a pod is deleted"
        }
        4 => {
            bank.pool("db", json!({"slots": fastrand::u32(2..6)})).await?;
            "the Pool has other slots"
        }
        5 => {
            bank.ground.restart(name, &round.to_string()).await?;
            "a rollout"
        }
        6 => {
            let patch = json!({"spec": {"celery": {"concurrency": fastrand::u32(1..3)}}});
            stage.patch_pool(name, patch).await?;
            "other workers"
        }
        _ if round.is_multiple_of(2) => {
            pools.delete("db", &DeleteParams::default()).await?;
            tokio::time::sleep(millis(0..2_000)).await;
            bank.pool("db", json!({"slots": 5})).await?;
            "another Pool of the same name"
        }
        _ => {
            let workers = stage.namespace.api::<WorkerPool>();
            workers.delete(name, &DeleteParams::default()).await?;
            tokio::time::sleep(millis(0..2_000)).await;
            bank.workers(name, 5, json!({})).await?;
            "another WorkerPool of the same name"
        }
    })
}

#[tokio::test]
async fn whatever_happens_at_once_no_pod_is_made_that_a_pool_has_no_room_for() -> Result<()> {
    let bank = Bank::new("b-chaos").await?;
    tight(&bank).await?;
    let (done, stage) = (AtomicBool::new(false), bank.stage());
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let (kubeconfig, namespace) = (stage.plane.operator_kubeconfig(), &stage.namespace.name);
    let mut operators = [
        Operator::start(&kubeconfig, namespace, dirs[0].path(), &[]).await?,
        Operator::start(&kubeconfig, namespace, dirs[1].path(), &[]).await?,
    ];
    let chaos = async {
        let mut round = 0;
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(millis(500..4_000)).await;
            round += 1;
            println!("{round}: {}", mischief(&bank, &mut operators, round).await?);
        }
        Ok(())
    };
    let (ids, ()) = futures::try_join!(waves(&bank.wire, &bank.moves, &done), chaos)?;
    bank.pool("db", json!({"slots": 5})).await?;
    // A pod that is deleted in the moment in which it acknowledges a task loses it; that is Celery's.
    stage.await_ended(ids.len() - ids.len() / 10, LIMIT * 3).await?;
    expect_settled(&bank, &ids, ENOUGH).await
}
