//! Real Celery workers, and what both brokers' tests ask of them.
//!
//! The environment is the one of the end-to-end tests, in the user's cache folder; it is made when it is missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use poolwright::signals::SignalSource;
use poolwright::signals::celery::{self, Bindings};
use poolwright_core::sample::Answer;

/// How long a worker may take to start, or to do what it was told.
const SOON: Duration = Duration::from_secs(40);

/// The environment's folder.
fn environment() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/celery/build.sh");
        let built = Command::new("sh").arg(script).output().expect("sh runs");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "no Celery: {said}");
        String::from_utf8_lossy(&built.stdout).trim().into()
    })
}

/// A worker process with its pool; it is killed with this value.
pub struct Worker {
    pub child: Child,
    folder: tempfile::TempDir,
}

impl Worker {
    /// Starts one that consumes these queues, named `celery@` and `name`.
    pub fn start(broker: &str, name: &str, queues: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let environment = environment();
        // It ends with this process also where that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(environment.join("bin/celery"))
            .args(["-A", "tapp", "worker", "-Q", queues, "-c", "1"])
            .args(["--without-gossip", "--without-mingle", "-l", "INFO", "-n"])
            .arg(format!("celery@{name}"))
            .current_dir(environment.join("app"))
            .env("CELERY_BROKER_URL", broker)
            .env("HOSTNAME", name)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TAPP_LOG", folder.path().join("tasks"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("setpriv and Celery run");
        Self { child, folder }
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// True if it has ended this task.
    pub fn has_run(&self, id: &str) -> bool {
        let tasks = fs::read_to_string(self.folder.path().join("tasks")).unwrap_or_default();
        let mut ends = tasks.lines().filter(|line| line.contains(r#""event": "end""#));
        ends.any(|line| line.contains(&format!(r#""id": "{id}""#)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let mut kill = Command::new("kill");
        // It may have ended by itself.
        let _ = kill.args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// The body of a task's message.
pub fn task(id: &str) -> String {
    format!(r#"[[1,2],{{"id":"{id}"}},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]"#)
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < SOON, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a worker says of itself, if it answers.
pub async fn said(source: &dyn SignalSource, node: &str) -> Option<Answer> {
    let nodes = [node.to_owned()];
    let answers = source.ask(&nodes, Duration::from_secs(2)).await.expect("asked");
    let (_, told) = answers.into_iter().next()?;
    Some(
        told.expect("it can be read")
            .answer(&Bindings::default(), Timestamp::now()),
    )
}

/// The queues that a worker consumes now.
pub async fn consumed(source: &dyn SignalSource, node: &str) -> Option<BTreeSet<String>> {
    Some(said(source, node).await?.queues)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Waits until a worker consumes these queues, and no other.
pub async fn consumes(source: &dyn SignalSource, node: &str, queues: &[&str]) {
    let what = format!("{node} consumes {queues:?}");
    until(&what, async || consumed(source, node).await == Some(set(queues))).await;
}

/// Parks and unparks workers on one broker; `publish` puts a task of this id in `q1`, `ready` counts those in it.
pub async fn park_and_unpark(
    source: &dyn SignalSource,
    broker: &str,
    mut publish: impl AsyncFnMut(&str),
    mut ready: impl AsyncFnMut() -> u64,
) {
    let [a, b] = ["celery@a", "celery@b"].map(str::to_owned);
    let (first, second) = (
        Worker::start(broker, "a", "q1"),
        Worker::start(broker, "b", "q1,q2"),
    );
    consumes(source, &a, &["q1"]).await;
    consumes(source, &b, &["q1", "q2"]).await;
    let tell = async |command: celery::Command, nodes: &[String]| {
        source.command(&command, nodes).await.expect("told");
    };
    let queue = || "q1".to_owned();

    tell(
        celery::Command::CancelConsumer { queue: queue() },
        std::slice::from_ref(&a),
    )
    .await;
    consumes(source, &a, &[]).await;
    assert_eq!(consumed(source, &b).await, Some(set(&["q1", "q2"])), "not told");

    // Both in one message; that one has done so already changes nothing.
    tell(
        celery::Command::CancelConsumer { queue: queue() },
        &[a.clone(), b.clone()],
    )
    .await;
    consumes(source, &b, &["q2"]).await;
    assert_eq!(consumed(source, &a).await, Some(set(&[])));
    publish("parked").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ready().await, 1, "nobody fetches it");
    let ran = first.has_run("parked") || second.has_run("parked");
    assert!(!ran, "{}{}", first.log(), second.log());

    for _ in 0..2 {
        tell(
            celery::Command::AddConsumer { queue: queue() },
            std::slice::from_ref(&a),
        )
        .await;
    }
    consumes(source, &a, &["q1"]).await;
    until("the task is run", async || first.has_run("parked")).await;
    assert_eq!(ready().await, 0);
    assert_eq!(consumed(source, &b).await, Some(set(&["q2"])), "not told");

    for nodes in [Vec::new(), vec![a; 201]] {
        let command = celery::Command::CancelConsumer { queue: queue() };
        let refused = source.command(&command, &nodes).await;
        assert!(refused.is_err(), "to {} workers", nodes.len());
    }
    assert_eq!(consumed(source, "celery@a").await, Some(set(&["q1"])));
}
