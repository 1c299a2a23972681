//! `kubectl`, out of the same binary as the control plane.
//!
//! Tests use it where a user would: what it prints, and what its own client
//! side does (apply's annotation, printer columns, `scale`), is what they see.

use crate::{Result, plane};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// `kubectl` with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

impl Kubectl {
    /// For the cluster of this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        Ok(Self {
            binary: plane::binary()?,
            kubeconfig: kubeconfig.into(),
            namespace: None,
        })
    }

    /// With another default namespace.
    #[must_use]
    pub fn namespaced(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.into()),
            ..self.clone()
        }
    }

    /// The command, to be run in another way.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("kubectl").args(args);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("POD_NAMESPACE");
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command
    }

    /// Runs it and returns its output, whatever the exit code.
    pub async fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = self.command(args);
        command.stdin(Stdio::null());
        Ok(tokio::process::Command::from(command).output().await?)
    }

    /// Runs it and returns what it printed; fails with its error output.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.output(args).await?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(format!("kubectl: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }

    /// `kubectl apply -f -` of this text.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        self.run_with_input(&["apply", "-f", "-"], manifest).await
    }

    /// Runs it with this text as its input.
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let mut file = tempfile::tempfile()?;
        file.write_all(input.as_bytes())?;
        std::io::Seek::rewind(&mut file)?;
        let mut command = self.command(args);
        command.stdin(file);
        let output = tokio::process::Command::from(command).output().await?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(format!("kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}
