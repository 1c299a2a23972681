//! An API server that is gone, refuses, forgets or no longer knows: on control planes of its own, since all of it concerns whoever
//! asks. One at a time, for the same reason. And single requests of one operator that go wrong, on the plane that all tests share.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "apiserver/definitions.rs"]
mod definitions;
#[path = "apiserver/every_request.rs"]
mod every_request;
#[path = "apiserver/outage.rs"]
mod outage;
#[path = "apiserver/refusals.rs"]
mod refusals;
#[path = "apiserver/slow.rs"]
mod slow;

use poolwright_tests::*;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// A stage whose operator reaches the API server by a wire, and nobody else's.
struct Alone {
    stage: Stage,
    wire: Proxy,
    _redis: Redis,
    broker: Wire,
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Alone {
    async fn new(prefix: &str, plane: impl Future<Output = Result<&'static Plane>>) -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let plane = plane.await?;
        // One that has failed may have left none.
        apply_crds(plane).await?;
        let dir = tempfile::tempdir()?;
        let wire = Proxy::start(plane.server()?).await?;
        let kubeconfig = dir.path().join("kubeconfig");
        plane.kubeconfig_through(wire.address(), &plane.token(plane::OPERATOR)?, &kubeconfig)?;
        let stage = Stage::on(plane, &kubeconfig, prefix, &[]).await?;
        let redis = Redis::start(RedisConfig::default()).await?;
        Ok(Self {
            broker: Wire::redis(&redis, 0),
            stage,
            wire,
            _redis: redis,
            _dir: dir,
            _turn: turn,
        })
    }
}

impl Alone {
    /// What was said of objects while the test ran, before the next one makes others.
    async fn end(self) -> Result<()> {
        leaks::look_through(self.stage.plane).await
    }
}

/// Requests have less time, and so have watches of a definition that is removed: they are ended after twice that, which
/// by default is two minutes.
async fn hasty() -> Result<&'static Plane> {
    static PLANE: OnceCell<Plane> = OnceCell::const_new();
    PLANE.get_or_try_init(|| start(&["--request-timeout=10s"])).await
}

/// Watches go to etcd itself, whose history is thrown away after seconds in place of minutes.
async fn forgetful() -> Result<&'static Plane> {
    static PLANE: OnceCell<Plane> = OnceCell::const_new();
    let args = ["--watch-cache=false", "--etcd-compaction-interval=1s"];
    PLANE.get_or_try_init(|| start(&args)).await
}

async fn start(args: &[&str]) -> Result<Plane> {
    let config = PlaneConfig {
        apiserver_args: args.iter().copied().map(String::from).collect(),
        ..PlaneConfig::default()
    };
    let plane = Plane::start_with_node(config).await?;
    apply_rights(&plane).await?;
    Ok(plane)
}
