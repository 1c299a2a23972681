//! The command line: what can be asked for, and with which bounds.
//!
//! Parses and does nothing else, except `crd`, which only prints what the API crate knows. A flag exists only when it
//! works. The same binary is a kubectl plugin when it is called `kubectl-poolwright`.

mod pools;
#[cfg(test)]
mod reference;
mod simulate;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use ipnet::IpNet;
use poolwright_core::constants::POLL_INTERVAL_MILLISECONDS;

pub use self::pools::{ExportArgs, ImportArgs, PoolsCommand};
pub use self::simulate::SimulateArgs;
use crate::http::tls;
use crate::kube::lease;
use crate::kube::selector::Selector;
use crate::telemetry::LogFormat;

/// Name under which kubectl finds its plugins.
const PLUGIN: &str = "kubectl-poolwright";

/// Scales Celery workers by queue depth and busy slots, and says why.
#[derive(Clone, Debug, Parser)]
#[command(name = "poolwright", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the operator, on the cluster of KUBECONFIG or of its pod.
    Run(RunArgs),
    /// Print the resource definitions.
    Crd(CrdArgs),
    /// Check manifests without a cluster: schema, rules and known mistakes.
    Lint(LintArgs),
    /// Say why a WorkerPool has the number of workers it has.
    Explain(ExplainArgs),
    /// Run manifests, or the suite of workloads and other autoscalers, in a simulated world.
    Simulate(SimulateArgs),
    /// Print what each task of an Airflow DAG weighs under the weight rules.
    Weights(WeightsArgs),
    /// Make Pools of an Airflow's pools, and Airflow's pools of Pools.
    Pools(PoolsArgs),
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Address of health, metrics and log level. Default: 0.0.0.0:8080 in a pod, otherwise a free port of 127.0.0.1,
    /// which is logged.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http_address: Option<SocketAddr>,

    /// Answers /metrics only to a bearer token of an account that Kubernetes lets `get` that path. Needs the right to create
    /// tokenreviews and subjectaccessreviews
    #[arg(long)]
    pub guard_metrics: bool,

    /// PEM file with the certificate, and those that vouch for it, by which everything of the HTTP address is served over
    /// TLS. Read again when it changes, without a restart. Default: no TLS
    #[arg(long, value_name = "FILE", requires = "metrics_tls_key")]
    pub metrics_tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate, not encrypted
    #[arg(long, value_name = "FILE", requires = "metrics_tls_cert")]
    pub metrics_tls_key: Option<PathBuf>,

    /// Namespace to work in; may be repeated. Default: all.
    #[arg(long = "namespace", short = 'n', value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,

    /// Works in the namespaces whose labels match this selector, and in no other, so that several operators share a
    /// cluster: `shard=a` for one and `shard=b` for another. No namespace may match two of them, and each needs a Lease of
    /// its own. Labels may change while it runs. Needs the right to list and watch namespaces
    #[arg(long, value_name = "SELECTOR", conflicts_with = "namespaces")]
    pub namespace_selector: Option<Selector>,

    /// Form of the log lines. Default: json in a pod, otherwise text.
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What is logged: LEVEL, TARGET=LEVEL, or several with commas. Can be changed while it runs, by a PUT of the same
    /// text to /log-level.
    #[arg(long, env = "RUST_LOG", value_name = "DIRECTIVES", default_value = "info", value_parser = crate::telemetry::directives)]
    pub log_level: String,

    /// Time between two readings of a broker, in milliseconds, 50 to 2000. With more than 200 queues on the broker it is
    /// 1 ms longer for each further one, at most 2000.
    #[arg(long, value_name = "NUMBER", default_value_t = POLL_INTERVAL_MILLISECONDS, value_parser = clap::value_parser!(u64).range(50..=2000))]
    pub poll_interval_milliseconds: u64,

    /// Writes of numbers to status a second, for all objects together, 1 to 1000. Scaling is never held back by it.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub status_writes_per_second: u32,

    /// Slots that the `default-pool` of a namespace gets when it is made, or as many as its workers take already
    #[arg(long, value_name = "NUMBER", default_value_t = 128, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub default_pool_slots: i32,

    /// The Lease for which several operators of the same scope are candidates: only the one that holds it decides and
    /// writes. Default: no election, for an operator that is alone
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = lease_name)]
    pub lease: Option<lease::Name>,

    /// A holder that has not renewed the Lease for so many seconds is replaced, 3 to 300. It stops writing after two thirds
    /// of them. All candidates should have the same number; of two the larger counts
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=300), requires = "lease")]
    pub lease_seconds: u32,

    /// Slots of a pod that is lost with its node (silent, and a minute past its deletion) stay taken until it is gone.
    /// Without it they return: such a pod cannot run a task any more, unless only its network is away.
    #[arg(long)]
    pub hold_lost_slots: bool,

    /// Network in which brokers may be although the operator refuses its addresses in a pod: loopback, link-local, cloud
    /// metadata, multicast and the API server's host; may be repeated. Outside a pod nothing is refused
    #[arg(long = "allow-broker-cidr", value_name = "CIDR", value_parser = crate::signals::guard::network)]
    pub allow_broker_cidrs: Vec<IpNet>,
}

impl RunArgs {
    /// Where the certificate of the HTTP server is, if it has one.
    #[must_use]
    pub fn metrics_tls(&self) -> Option<tls::Files> {
        let certificate = self.metrics_tls_cert.clone()?;
        let key = self.metrics_tls_key.clone()?;
        Some(tls::Files { certificate, key })
    }

    /// The address to listen on; `in_pod` decides the default.
    #[must_use]
    pub fn http_address_or_default(&self, in_pod: bool) -> SocketAddr {
        self.http_address.unwrap_or_else(|| {
            if in_pod {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080)
            } else {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
            }
        })
    }

    /// The form of the log lines; `in_pod` decides the default.
    #[must_use]
    pub fn log_format_or_default(&self, in_pod: bool) -> LogFormat {
        self.log_format
            .unwrap_or(if in_pod { LogFormat::Json } else { LogFormat::Text })
    }
}

/// Flags of `crd`.
#[derive(Clone, Debug, Args)]
pub struct CrdArgs {
    /// Write each definition to its own file in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    pub out: Option<PathBuf>,
}

/// Flags of `lint`.
#[derive(Clone, Debug, Default, Args)]
pub struct LintArgs {
    /// Manifests to check: files, or folders, of which the .yaml, .yml and .json files right in them are read; may be
    /// repeated. - is standard input.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required_unless_present_any = ["airflow_config", "airflow_pools", "airflow_tasks"], num_args = 1..)]
    pub files: Vec<PathBuf>,

    /// Airflow's configuration, to check with the WorkerPools: `airflow.cfg`, or what `airflow config list` writes (in
    /// Airflow 3 with --show-values)
    #[arg(long, value_name = "FILE")]
    pub airflow_config: Option<PathBuf>,

    /// Airflow's pools, to check with its tasks and the WorkerPools: what `airflow pools export FILE` wrote
    #[arg(long, value_name = "FILE")]
    pub airflow_pools: Option<PathBuf>,

    /// Airflow's DAGs and tasks, in JSON: `dags`, each with an `id` and `tasks`, each with an `id` and what is not Airflow's
    /// default. Needs neither Pools nor WorkerPools, and says more with them
    #[arg(long, value_name = "FILE")]
    pub airflow_tasks: Option<PathBuf>,

    /// End with 1 for a warning or a note, too.
    #[arg(long)]
    pub strict: bool,
}

/// Flags of `weights`.
#[derive(Clone, Debug, Args)]
pub struct WeightsArgs {
    /// The graph in JSON: `tasks`, each with an `id`, a `weight` (any whole number; default 1) and `downstream`, the ids of
    /// those that come right after it. Weights are kept between -2147483648 and 2147483647, as in Airflow's database: one that is
    /// written before it is added, and each sum. - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `pools` should do.
#[derive(Clone, Debug, Args)]
pub struct PoolsArgs {
    /// Where from and where to.
    #[command(subcommand)]
    pub what: PoolsCommand,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The WorkerPool: wp/NAME or NAME.
    #[arg(value_name = "wp/NAME", value_parser = worker_pool_name)]
    pub name: String,

    /// Its namespace. Default: that of the current context.
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl Cli {
    /// Parses the arguments of the process, and ends it with a usage message where they cannot be used.
    #[must_use]
    pub fn from_process() -> Self {
        Self::try_from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Parses `arguments`, the first of which is the program's own name.
    ///
    /// # Errors
    ///
    /// The usage message.
    pub fn try_from_arguments<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let mut command = Self::command();
        if arguments.first().is_some_and(is_plugin) {
            command = command.bin_name("kubectl poolwright");
        }
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

/// Prints the resource definitions, or writes each to its file.
///
/// # Errors
///
/// The output cannot be written.
pub fn crd(args: &CrdArgs, output: &mut impl Write) -> io::Result<()> {
    for (position, (file, text)) in poolwright_api::CRD_FILES.into_iter().enumerate() {
        if let Some(folder) = &args.out {
            let path = folder.join(file);
            let named = |error: io::Error| {
                io::Error::new(
                    error.kind(),
                    format!("{} cannot be written: {error}", path.display()),
                )
            };
            std::fs::create_dir_all(folder).map_err(named)?;
            std::fs::write(&path, text).map_err(named)?;
            continue;
        }
        if position > 0 {
            output.write_all(b"---\n")?;
        }
        output.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn is_plugin(program: &OsString) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == PLUGIN)
}

fn lease_name(text: &str) -> Result<lease::Name, String> {
    let (namespace, name) = text.split_once('/').ok_or("is not NAMESPACE/NAME")?;
    let character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = |text: &str| {
        let ends = !text.starts_with('-') && !text.ends_with('-');
        (1..=63).contains(&text.len()) && text.chars().all(character) && ends
    };
    if !is_label(namespace) || name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is not the namespace and name of a Lease: NAMESPACE/NAME".to_owned());
    }
    Ok(lease::Name {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn worker_pool_name(text: &str) -> Result<String, String> {
    const KINDS: &[&str] = &[
        "wp",
        "workerpool",
        "workerpools",
        "workerpool.poolwright.dev",
        "workerpools.poolwright.dev",
    ];
    let name = match text.split_once('/') {
        None => text,
        Some((kind, name)) if KINDS.contains(&kind.to_lowercase().as_str()) => name,
        Some(_) => return Err("only a WorkerPool can be explained: wp/NAME".to_owned()),
    };
    let character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(character) {
        return Err("is not the name of a WorkerPool: wp/NAME".to_owned());
    }
    Ok(name.to_owned())
}
