//! Shows the whole: a fleet that scales from zero, does 200 tasks and shrinks again. `make demo` runs it, and
//! `make demo-airflow` the same with a real Airflow.
#![allow(clippy::unwrap_used, clippy::panic)]

use clap::{Parser, ValueEnum};
use poolwright_tests::demo::{self, Options};
use std::process::ExitCode;

/// Runs the demo; the exit code is 0 only if no task was lost or killed.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// What to show.
    #[arg(value_enum, default_value = "fleet")]
    what: What,
    /// Where to run it.
    #[arg(
        long,
        env = "CLUSTER",
        value_enum,
        default_value = "local",
        hide_env_values = true
    )]
    cluster: Cluster,
    /// Leaves everything running at the end, until Ctrl-C.
    #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    keep: bool,
    /// With a cluster that is not the demo's own: a redis:// address that this machine and the pods reach.
    #[arg(long, env = "DEMO_BROKER_URL")]
    broker: Option<String>,
    /// With a cluster that is not the demo's own: an image made from tests/celery/Dockerfile.
    #[arg(long, env = "DEMO_IMAGE")]
    image: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Celery workers of four kinds on ten queues.
    Fleet,
    /// Workers and pools of a real Airflow, on the local control plane.
    Airflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cluster {
    /// A control plane, a node and Redis as processes of this machine.
    Local,
    /// The cluster of the current kubeconfig.
    Current,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {
        what,
        cluster,
        keep,
        broker,
        image,
    } = Arguments::parse();
    let options = Options {
        current: cluster == Cluster::Current,
        keep,
        broker,
        image,
    };
    let played = match what {
        What::Fleet => demo::run(&options).await,
        What::Airflow => demo::airflow::run(&options).await,
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo has failed: {error}");
            ExitCode::FAILURE
        }
    }
}
