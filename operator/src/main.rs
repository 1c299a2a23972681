//! Poolwright's binary: reads the command line and starts what it names.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use poolwright::cli::{Cli, Command, RunArgs};
use poolwright::controllers::run::{Options, run};
use poolwright::gate::Gate;
use poolwright::http::tls::Certificate;
use poolwright::kube::Clients;
use poolwright::outcome::is_closed_pipe;
use poolwright::shard::Shard;
use poolwright::signals::guard::Policy;
use poolwright::signals::network::Network;
use poolwright::{cli, explain, lint, pools, signals, simulate, telemetry, weights};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Small parts that come and go by the thousand: it keeps them closer together than the C library does, and hands pages back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let command = Cli::from_process().command;
    let prints = !matches!(command, Command::Run(_));
    let outcome = match command {
        Command::Run(args) => operate(args),
        Command::Crd(args) => cli::crd(&args, &mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Lint(args) => lint::run(&args, &mut std::io::stdout())
            .map(|good| {
                if good {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            })
            .map_err(Into::into),
        Command::Simulate(args) => {
            simulate::run(&args, &mut std::io::stdout(), &mut std::io::stderr()).map(|()| ExitCode::SUCCESS)
        }
        Command::Weights(args) => weights::run(&args, &mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Pools(args) => pools::run(&args, &mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Explain(args) => block_on(async move {
            explain::run(&args, jiff::Timestamp::now(), &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    outcome.unwrap_or_else(|error| {
        if !(prints && is_closed_pipe(&*error)) {
            eprintln!("poolwright: {error}");
        }
        ExitCode::FAILURE
    })
}

/// Runs `work` on a runtime with TLS ready.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Some libraries take the provider that the process has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A name that nobody resolves must not keep the process from ending.
    runtime.shutdown_background();
    done
}

/// Where addresses of users may lead. `server` is the API server's, which has other names in a pod too.
fn network(in_pod: bool, allowed: Vec<IpNet>, server: (String, u16)) -> Network {
    if !in_pod {
        return Network::of_machine(Policy::outside(), Vec::new());
    }
    let variable = |name| std::env::var(name).unwrap_or_default();
    let port = variable("KUBERNETES_SERVICE_PORT").parse().unwrap_or(443);
    let servers = vec![
        server,
        (variable("KUBERNETES_SERVICE_HOST"), port),
        ("kubernetes.default.svc".to_owned(), 443),
    ];
    Network::of_machine(Policy::inside(allowed), servers)
}

fn operate(args: RunArgs) -> Result<ExitCode, Failure> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let logs = telemetry::init(args.log_format_or_default(in_pod), &args.log_level)?;
    block_on(async move {
        let certificate = args.metrics_tls().map(Certificate::load).transpose()?;
        let listener = TcpListener::bind(args.http_address_or_default(in_pod)).await?;
        let gate = if args.lease.is_some() {
            Gate::shut()
        } else {
            Gate::open()
        };
        let gate = match args.namespace_selector {
            Some(_) => gate.within(Shard::selected()),
            None if args.namespaces.is_empty() => gate,
            None => gate.within(Shard::named()),
        };
        let clients = Clients::infer(&gate).await?;
        let commands = gate.clone();
        let network = network(in_pod, args.allow_broker_cidrs, clients.server.clone());
        let brokers = network.clone();
        let options = Options {
            guard_metrics: args.guard_metrics,
            certificate,
            namespaces: args.namespaces,
            selector: args.namespace_selector,
            poll_interval: Duration::from_millis(args.poll_interval_milliseconds),
            status_writes_per_second: args.status_writes_per_second,
            default_pool_slots: args.default_pool_slots,
            hold_lost_slots: args.hold_lost_slots,
            network,
            connect: Arc::new(move |config, clock| {
                signals::gated::connect(config, clock, brokers.clone(), commands.clone())
            }),
            lease: args.lease.map(|name| (name, args.lease_seconds)),
            wall: jiff::Timestamp::now,
        };
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            tracing::info!("stopping");
        };
        run(clients, gate, options, listener, logs, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
