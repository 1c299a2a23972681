//! A small node for a cluster: it runs pods as processes of this machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use clap::Parser;
use k8s_openapi::api::core::v1::Taint;
use poolwright_tests::{Image, Node, NodeConfig, Result, plane};
use std::path::PathBuf;

/// Runs pods as processes of this machine.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The cluster's kubeconfig.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The Node's name.
    #[arg(long, default_value = "local")]
    name: String,
    /// NAME=DIR: DIR/bin is first on the path, DIR/app the working folder. NAME=fake: no process.
    #[arg(long = "image", value_name = "NAME=DIR")]
    images: Vec<String>,
    /// Takes every pod as one without a process.
    #[arg(long)]
    fake: bool,
    /// Allocatable processors.
    #[arg(long, default_value = "1000")]
    cpu: String,
    /// Allocatable memory.
    #[arg(long, default_value = "4Ti")]
    memory: String,
    /// Allocatable pods.
    #[arg(long, default_value_t = 10_000)]
    pods: u32,
    /// Allocatable nvidia.com/gpu.
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// KEY=VALUE, repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// KEY=VALUE:EFFECT, repeatable.
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT")]
    taints: Vec<String>,
    /// File for the record of starts, signals and exits.
    #[arg(long)]
    record: PathBuf,
    /// Folder for the pods' output.
    #[arg(long)]
    logs: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut config = NodeConfig::new(&arguments.name, &arguments.logs);
    config.logs = arguments.logs;
    config.record = arguments.record;
    config.cpu = arguments.cpu;
    config.memory = arguments.memory;
    config.pods = arguments.pods;
    config.gpus = arguments.gpus;
    config.fake = arguments.fake;
    for image in &arguments.images {
        let (name, image) = Image::parse(image)?;
        config.images.insert(name, image);
    }
    for label in &arguments.labels {
        let (key, value) = label.split_once('=').ok_or("a label is KEY=VALUE")?;
        config.labels.insert(key.into(), value.into());
    }
    for taint in &arguments.taints {
        let (rest, effect) = taint.rsplit_once(':').ok_or("a taint is KEY=VALUE:EFFECT")?;
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        config.taints.push(Taint {
            key: key.into(),
            value,
            effect: effect.into(),
            time_added: None,
        });
    }
    let node = Node::start(plane::client(&arguments.kubeconfig, None).await?, config).await?;
    println!("node {} is ready", node.name());
    poolwright_tests::process::until_told_to_stop(false).await?;
    Ok(())
}
