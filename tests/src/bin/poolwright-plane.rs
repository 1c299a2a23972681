//! A control plane with a node, for as long as a command runs or until it is
//! told to stop: by SIGINT, SIGTERM, the end of its input (`--until-eof`), or
//! the end of the process that started it.
#![allow(clippy::unwrap_used, clippy::panic)]

use clap::Parser;
use poolwright_tests::{Image, Node, Plane, PlaneConfig, Result, leaks, plane, process};
use std::process::ExitCode;

/// Runs a control plane with a node on loopback ports.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// More images of the node: NAME=DIR, or NAME=fake for pods without a process.
    #[arg(long = "image", value_name = "NAME=DIR")]
    images: Vec<String>,
    /// Allocatable nvidia.com/gpu of the node.
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// Stops at the end of the input.
    #[arg(long)]
    until_eof: bool,
    /// A command to run with `KUBECONFIG` and `POOLWRIGHT_PLANE_KUBECONFIG` set.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let plane = Plane::start(PlaneConfig::default()).await?;
    let mut config = plane.usual_node()?;
    config.gpus = arguments.gpus;
    for image in &arguments.images {
        let (name, image) = Image::parse(image)?;
        config.images.insert(name, image);
    }
    let node = Node::start(plane.node_client().await?, config).await?;
    let kubeconfig = plane.kubeconfig();
    let Some((program, rest)) = arguments.command.split_first() else {
        println!("kubeconfig: {}", kubeconfig.display());
        println!("ready");
        process::until_told_to_stop(arguments.until_eof).await?;
        drop((node, plane));
        return Ok(ExitCode::SUCCESS);
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(rest)
        .env("KUBECONFIG", &kubeconfig)
        .env(plane::KUBECONFIG_VARIABLE, &kubeconfig);
    let mut child = command.kill_on_drop(true).spawn()?;
    let code = tokio::select! {
        status = child.wait() => status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        stopped = process::until_told_to_stop(false) => { stopped?; 130 }
    };
    leaks::look_through(&plane).await?;
    drop((node, plane));
    Ok(ExitCode::from(code))
}
