//! Helm as a program, with folders of its own: what a person has configured on this machine is none of the tests'
//! business.

use crate::{Plane, Result, plane};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Which Helm: the third writes with merge patches of its own, the fourth by server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// Helm 3.
    Three,
    /// Helm 4.
    Four,
}

impl Major {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Three, Self::Four];
}

/// Helm, with a cluster or without one.
#[derive(Debug)]
pub struct Helm {
    major: Major,
    binary: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: TempDir,
}

impl Helm {
    /// Without a cluster: it renders and checks.
    pub fn new(major: Major) -> Result<Self> {
        let tool = match major {
            Major::Three => "helm3",
            Major::Four => "helm4",
        };
        Ok(Self {
            major,
            binary: plane::tool(tool)?,
            kubeconfig: None,
            home: tempfile::tempdir()?,
        })
    }

    /// As the administrator of this control plane.
    pub fn of(major: Major, plane: &Plane) -> Result<Self> {
        let mut helm = Self::new(major)?;
        helm.kubeconfig = Some(plane.kubeconfig());
        Ok(helm)
    }

    /// Which one it is.
    pub fn major(&self) -> Major {
        self.major
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null());
        for (name, folder) in [("CACHE", "cache"), ("CONFIG", "config"), ("DATA", "data")] {
            command.env(format!("HELM_{name}_HOME"), self.home.path().join(folder));
        }
        let nowhere = self.home.path().join("no-cluster");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nowhere));
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    /// What it prints; an error is its words.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        told(self.command(args).output()?)
    }

    /// The same, while other things go on.
    pub async fn run_beside<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        told(tokio::process::Command::from(self.command(args)).output().await?)
    }

    /// What the chart renders as release `poolwright` of namespace `poolwright`.
    pub fn render(&self, values: Option<&Path>, more: &[&str]) -> Result<String> {
        let chart = super::folder();
        let mut args: Vec<&OsStr> = ["template", "poolwright"].map(OsStr::new).to_vec();
        args.extend([chart.as_os_str(), "--namespace".as_ref(), "poolwright".as_ref()]);
        if let Some(values) = values {
            args.extend(["--values".as_ref(), values.as_os_str()]);
        }
        args.extend(more.iter().map(OsStr::new));
        self.run(args)
    }
}

fn told(output: Output) -> Result<String> {
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("helm: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
