//! Measures what `docs/reference/performance.md` publishes and prints it as a table.
#![allow(clippy::unwrap_used, clippy::panic)]

use clap::Parser;
use poolwright_tests::Result;
use poolwright_tests::bench::rig::Rig;
use poolwright_tests::bench::{crowd, many, reaction};

/// Runs the benchmarks on a control plane of their own.
#[derive(Parser, Debug)]
struct Arguments {
    /// Runs of the reaction benchmark, for each way to push.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Sizes of fleet.
    #[arg(long = "pools", default_values_t = [100, 1000])]
    pools: Vec<usize>,
    /// Policy of these fleets; the reaction benchmark's is always `Backlog`, by which 1,000 tasks want 100 pods.
    #[arg(long, default_value = "Backlog", value_parser = ["Backlog", "WaitTarget"])]
    policy: String,
    /// In place of all that: so many WorkerPools without a worker, and a new operator that starts beside them.
    #[arg(long)]
    objects: Option<usize>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    poolwright_tests::process::install_crypto();
    println!("| figure | measured | target |\n|---|---|---|");
    if let Some(objects) = arguments.objects {
        let mut rig = Rig::start(&arguments.policy).await?;
        rig.operate().await?;
        many::run(&mut rig, objects).await?.print();
        return rig.end().await;
    }
    if arguments.runs > 0 {
        let mut rig = Rig::start("Backlog").await?;
        rig.operate().await?;
        for push in reaction::Push::ALL {
            reaction::run(&rig, push, arguments.runs).await?.print();
        }
        rig.end().await?;
    }
    for pools in arguments.pools {
        // A fleet of its own each: what one leaves behind must not weigh on the next.
        let mut rig = Rig::start(&arguments.policy).await?;
        rig.operate().await?;
        crowd::run(&mut rig, pools).await?.print();
        rig.end().await?;
    }
    Ok(())
}
