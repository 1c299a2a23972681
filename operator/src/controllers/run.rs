//! Wires the parts together and runs them until the process is told to stop.
//!
//! Nothing is decided before every watch has delivered its first list: half a world would look like pods that
//! are gone. Whoever waits for a lease has its watches already, so that it decides at once when its turn comes; it reads
//! no broker and writes nothing else. Its clock starts with its turn: what it has seen before is not what it decides by.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::airflow::{self, Links};
use super::brokers::Supervisor;
use super::cycle::{Driver, Latest};
use super::granter::{Granter, Grants};
use super::shards;
use super::wake::Wake;
use super::watches::Watches;
use super::world::World;
use super::{granter, loads, task_queue, worker_pool};
use crate::clock::Clock;
use crate::gate::Gate;
use crate::http;
use crate::http::guard::Guard;
use crate::http::tls::Certificate;
use crate::kube::Clients;
use crate::kube::events::Events;
use crate::kube::gaps::Gaps;
use crate::kube::lease::step::Timing;
use crate::kube::lease::{self, Elector};
use crate::kube::namespaces;
use crate::kube::selector::Selector;
use crate::kube::status::Budget;
use crate::kube::version;
use crate::metrics::Metrics;
use crate::signals::Connect;
use crate::signals::board::Board;
use crate::signals::network::Network;
use crate::telemetry::LogHandle;

/// A cycle comes every second; after so long without one the process is stuck and should be started anew.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Writes that are under way when the process is told to end may take so long.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// A process that stands by forgets this often what has come and gone.
const PRUNE: Duration = Duration::from_secs(60);
/// KEDA's objects are looked for this often.
const SCALED_OBJECTS_INTERVAL: Duration = Duration::from_secs(10);

/// Named namespaces that cannot be read are waited for so long at a start.
const NAMED_PATIENCE: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the operator runs with; read once from flags.
pub struct Options {
    /// Only those whom Kubernetes lets read them get the metrics.
    pub guard_metrics: bool,
    /// What the HTTP server is reached by over TLS.
    pub certificate: Option<Certificate>,
    /// Namespaces to work in; empty for all.
    pub namespaces: Vec<String>,
    /// Labels of the namespaces to work in, in place of names. For either the gate must have a shard.
    pub selector: Option<Selector>,
    /// Time between polls of a broker with few queues.
    pub poll_interval: Duration,
    /// Budget of status writes a second.
    pub status_writes_per_second: u32,
    /// Slots that a new `default-pool` has at least.
    pub default_pool_slots: i32,
    /// Slots of pods that were lost with their node stay taken.
    pub hold_lost_slots: bool,
    /// Where addresses of users may lead.
    pub network: Network,
    /// What connects to brokers; its commands to workers must pass the gate.
    pub connect: Connect,
    /// The Lease for which this is a candidate, if there are others, and its seconds.
    pub lease: Option<(lease::Name, u32)>,
    /// The time of day. With tokio's clock it is all the time there is, so that a simulation can tell its own.
    pub wall: fn() -> Timestamp,
}

/// Runs the operator until `stop` resolves.
///
/// # Errors
/// When the HTTP server cannot be started, the API server is too old, a part has ended although none should, or the lease
/// is lost.
pub async fn run(
    clients: Clients,
    gate: Gate,
    options: Options,
    listener: TcpListener,
    logs: LogHandle,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut elector = options.lease.clone().map(|(name, seconds)| {
        let scope = lease::scope(&options.namespaces, options.selector.as_ref());
        Elector::new(
            clients.lease.clone(),
            name,
            lease::identity(),
            scope,
            Timing::of(seconds),
            gate.clone(),
            options.wall,
        )
    });
    let metrics = Arc::new(Metrics::default());
    let (ready, is_ready) = watch::channel(false);
    let (pulse, is_beating) = watch::channel(None);
    let gaps = Gaps::default();
    let state = http::HttpState {
        live: http::beating(is_beating, SILENCE_MAX),
        ready: ready_check(
            is_ready.clone(),
            gaps.clone(),
            elector.as_ref().map(Elector::trouble),
        ),
        metrics: (*metrics).clone(),
        logs,
        // A replica that stands by has metrics too, so this client waits for no lease.
        readers: options
            .guard_metrics
            .then(|| Arc::new(Guard::new(clients.lease.clone()))),
    };
    let certificate = options.certificate.clone();
    let mut parts: JoinSet<&'static str> = JoinSet::new();
    parts.spawn(answer(listener, certificate, state));
    tokio::pin!(stop);
    tokio::select! {
        () = &mut stop => return Ok(()),
        supported = version::supported(&clients.ask) => supported?,
    }
    let world = Arc::new(World::within(gate.shard()));
    let board = Arc::new(Board::default());
    let queues_changed = Arc::new(Notify::new());
    let watches = Watches {
        client: clients.watch.clone(),
        world: Arc::clone(&world),
        board: Arc::clone(&board),
        queues_changed: Arc::clone(&queues_changed),
        gaps,
    };
    match &options.selector {
        Some(selector) => watch_shard(&mut parts, &clients, watches, selector, &gate, ready),
        None if options.namespaces.is_empty() => watch_all(&mut parts, &watches, ready),
        None => watch_named(&mut parts, watches, &options.namespaces, ready),
    }
    look_on(&mut parts, &clients, &options, &world, &board);

    let mut synced = is_ready;
    tokio::select! {
        () = &mut stop => return Ok(()),
        _ = synced.wait_for(|ready| *ready) => {}
    }
    tracing::info!("all watches have synced");
    if let Some(elector) = &mut elector {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = elector.acquire() => {}
            ended = parts.join_next() => return Err(has_ended(ended)),
        }
    }
    metrics.leads(true);
    start(
        &mut parts,
        &clients.ask,
        &gate,
        &options,
        loads::reader(clients.ask.clone(), options.network.clone())?,
        world,
        board,
        queues_changed,
        metrics,
        pulse,
        Clock::new(options.wall),
    );
    let lost = async {
        match &mut elector {
            Some(elector) => elector.hold().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = &mut stop => {}
        lost = lost => return Err(lost.into()),
        ended = parts.join_next() => return Err(has_ended(ended)),
    }
    if let Some(elector) = &mut elector {
        hand_over(elector, &gate).await;
    }
    Ok(())
}

/// Lets nothing begin any more, and gives the lease back once nothing is under way: what is might land after the first
/// writes of whoever is next.
async fn hand_over(elector: &mut Elector, gate: &Gate) {
    if gate.close(LAST_WRITES).await {
        elector.release().await;
    } else {
        tracing::warn!(
            "writes are still under way after {} s: the lease is not released, it runs out",
            LAST_WRITES.as_secs()
        );
    }
}

fn has_ended(part: Option<Result<&'static str, tokio::task::JoinError>>) -> Failure {
    let part = part.and_then(Result::ok).unwrap_or("a part");
    format!("{part} has ended").into()
}

/// Ready is who could decide as soon as it is its turn, so that a rollout of two replicas goes on; so not who lacks a
/// definition, although it does all that goes without. Whoever is not says what it waits for.
fn ready_check(is_ready: watch::Receiver<bool>, gaps: Gaps, trouble: Option<lease::Trouble>) -> http::Check {
    let synced = http::flag(is_ready);
    Arc::new(move || {
        synced().map_err(|waits| gaps.all().unwrap_or(waits))?;
        gaps.none_unknown()?;
        let trouble = trouble.as_ref().and_then(|trouble| trouble.borrow().clone());
        trouble.map_or(Ok(()), Err)
    })
}

#[allow(clippy::too_many_arguments)] // wiring: each is a shared part
fn start(
    parts: &mut JoinSet<&'static str>,
    client: &Client,
    gate: &Gate,
    options: &Options,
    read: loads::Read,
    world: Arc<World>,
    board: Arc<Board>,
    changed: Arc<Notify>,
    metrics: Arc<Metrics>,
    pulse: watch::Sender<Option<Instant>>,
    clock: Clock,
) {
    let latest = Arc::new(Latest::default());
    let events = Arc::new(Events::new(client.clone()));
    let budget = Arc::new(Budget::new(options.status_writes_per_second));
    let wake = Arc::new(Wake::default());
    let supervisor = Supervisor {
        client: client.clone(),
        world: Arc::clone(&world),
        board: Arc::clone(&board),
        changed,
        base_interval: options.poll_interval,
        metrics: Arc::clone(&metrics),
        connect: Arc::clone(&options.connect),
        clock,
    };
    let heeded = Arc::clone(&world);
    let readings = loads::Supervisor {
        wanted: Box::new(move || heeded.loads()),
        read,
        board: Arc::clone(&board),
        clock,
    };
    let queues = task_queue::Controller {
        client: client.clone(),
        world: Arc::clone(&world),
        board: Arc::clone(&board),
        latest: Arc::clone(&latest),
        events: Arc::clone(&events),
        metrics: Arc::clone(&metrics),
        budget: Arc::clone(&budget),
        clock,
    };
    let links = Arc::new(Links::default());
    let airflows = airflow::Supervisor(Arc::new(airflow::Context {
        client: client.clone(),
        world: Arc::clone(&world),
        links: Arc::clone(&links),
        events: Arc::clone(&events),
        metrics: Arc::clone(&metrics),
        network: options.network.clone(),
        gate: gate.clone(),
        clock,
    }));
    let (grants, asked) = Grants::new(Arc::clone(&world));
    let granter = granter::Context {
        client: client.clone(),
        world: Arc::clone(&world),
        latest: Arc::clone(&latest),
        grants: Arc::clone(&grants),
        events: Arc::clone(&events),
        metrics: Arc::clone(&metrics),
        budget: Arc::clone(&budget),
        links,
        default_slots: options.default_pool_slots,
        clock,
    };
    let context = worker_pool::Context {
        client: client.clone(),
        world: Arc::clone(&world),
        latest: Arc::clone(&latest),
        grants,
        events,
        metrics: Arc::clone(&metrics),
        budget,
        clock,
    };
    let driver = Driver {
        world,
        board,
        latest,
        wake: Arc::clone(&wake),
        hold_lost_slots: options.hold_lost_slots,
        metrics,
        pulse,
        clock,
    };
    spawn(parts, "brokers", supervisor.run());
    spawn(parts, "loads", readings.run());
    spawn(parts, "airflows", airflows.run());
    spawn(parts, "task queues", queues.run());
    spawn(
        parts,
        "worker pools",
        worker_pool::Controller::new(Arc::new(context)).run(wake),
    );
    spawn(parts, "granter", Granter::new(granter, asked).run());
    spawn(parts, "cycle", driver.run());
}

fn spawn(
    parts: &mut JoinSet<&'static str>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    parts.spawn(async move {
        part.await;
        name
    });
}

/// Watches all of the cluster.
fn watch_all(parts: &mut JoinSet<&'static str>, watches: &Watches, ready: watch::Sender<bool>) {
    watches.start(parts, None, move || {
        let _ = ready.send(true);
    });
}

/// Watches these namespaces, each for itself.
fn watch_named(
    parts: &mut JoinSet<&'static str>,
    watches: Watches,
    namespaces: &[String],
    ready: watch::Sender<bool>,
) {
    let (names, matching) = watch::channel(Some(namespaces.iter().cloned().collect()));
    let supervisor = shards::Supervisor {
        watches,
        matching,
        ready,
        patience: Some(NAMED_PATIENCE),
    };
    parts.spawn(async move {
        // They never change, which the end of their channel would not say.
        let _names = names;
        supervisor.run().await
    });
}

/// Watches the namespaces whose labels match. These are read by the client that gives up a silent connection soon: what
/// they say is good for seconds.
fn watch_shard(
    parts: &mut JoinSet<&'static str>,
    clients: &Clients,
    watches: Watches,
    selector: &Selector,
    gate: &Gate,
    ready: watch::Sender<bool>,
) {
    tracing::info!(%selector, "works in the namespaces whose labels match");
    let (tell, matching) = watch::channel(None);
    let following = namespaces::follow(clients.ask.clone(), selector.clone(), gate.shard().clone(), tell);
    spawn(parts, "the watch of namespaces", following);
    let supervisor = shards::Supervisor {
        watches,
        matching,
        ready,
        patience: None,
    };
    parts.spawn(supervisor.run());
}

/// What goes on whether this process decides or stands by, beside the watches.
fn look_on(
    parts: &mut JoinSet<&'static str>,
    clients: &Clients,
    options: &Options,
    world: &Arc<World>,
    board: &Arc<Board>,
) {
    parts.spawn(stand_by(Arc::clone(world)));
    parts.spawn(find_scaled_objects(
        clients.ask.clone(),
        options.namespaces.clone(),
        Arc::clone(world),
        Arc::clone(board),
    ));
}

async fn answer(
    listener: TcpListener,
    certificate: Option<Certificate>,
    state: http::HttpState,
) -> &'static str {
    if let Err(error) = http::serve(listener, certificate, state, std::future::pending()).await {
        tracing::error!("http: {error}");
    }
    "http"
}

/// Keeps what the watches mark from growing until somebody decides by it.
async fn stand_by(world: Arc<World>) -> &'static str {
    while world.prune() {
        tokio::time::sleep(PRUNE).await;
    }
    std::future::pending().await
}

async fn find_scaled_objects(
    client: Client,
    namespaces: Vec<String>,
    world: Arc<World>,
    board: Arc<Board>,
) -> &'static str {
    loop {
        match world.conflicts.list_scaled_objects(&client, &namespaces).await {
            Ok(changed) => {
                for namespace in &changed {
                    world.mark_namespace(namespace, None);
                }
                if !changed.is_empty() {
                    board.changed.notify_one();
                }
            }
            Err(error) => tracing::debug!("ScaledObjects could not be listed: {error}"),
        }
        tokio::time::sleep(SCALED_OBJECTS_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::Status;
    use kube::runtime::watcher;

    use super::*;

    #[test]
    fn who_is_not_ready_says_what_it_waits_for() {
        let (sync, is_synced) = watch::channel(false);
        let (troubled, trouble) = watch::channel(None);
        let gaps = Gaps::default();
        let gap = gaps.of::<Pod>(None);
        let refuse = |code: u16| {
            let status = Status::failure("m", "r").with_code(code).boxed();
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status));
            gap.heed(&error, &format!("answered with {code}"));
        };
        let check = ready_check(is_synced, gaps, Some(trouble));
        let says = |words: &str| assert_eq!(check(), Err(words.to_owned()));
        says("not ready yet");
        refuse(403);
        says("answered with 403");
        sync.send_replace(true);
        assert_eq!(check(), Ok(()));
        refuse(404);
        says("answered with 404");
        gap.close();
        assert_eq!(check(), Ok(()));
        troubled.send_replace(Some("no Lease".to_owned()));
        says("no Lease");
    }
}
