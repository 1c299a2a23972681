//! The operator under test, as a process of this machine.

use crate::process::{Daemon, Frozen};
use crate::{Result, leaks, process, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The operator's binary in a profile's folder of the target directory.
pub fn built(profile: &str) -> PathBuf {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(target)
        .join(profile)
        .join("poolwright")
}

/// A running operator that works in one namespace.
pub struct Operator {
    daemon: Option<Daemon>,
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    args: Vec<String>,
    api_server: Option<String>,
    log: PathBuf,
    starts: usize,
}

impl Operator {
    /// Starts the operator that this workspace builds, and waits until its watches have synced.
    pub async fn start(kubeconfig: &Path, namespace: &str, dir: &Path, args: &[&str]) -> Result<Self> {
        Self::start_program(built("debug"), kubeconfig, namespace, dir, args).await
    }

    /// From now on it takes itself to be in a pod of a cluster, whose API server has this address.
    pub async fn start_in_pod(&mut self, api_server: &str) -> Result<()> {
        self.kill();
        self.api_server = Some(api_server.to_owned());
        self.args.push("--http-address=127.0.0.1:0".to_owned());
        self.start_again().await
    }

    /// Starts another build of the operator.
    pub async fn start_program(
        program: PathBuf,
        kubeconfig: &Path,
        namespace: &str,
        dir: &Path,
        args: &[&str],
    ) -> Result<Self> {
        let mut operator = Self {
            daemon: None,
            program,
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            api_server: None,
            log: dir.join("operator.log"),
            starts: 0,
        };
        operator.start_again().await?;
        Ok(operator)
    }

    /// Starts it anew after [`Operator::kill`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_within(Duration::from_secs(30)).await
    }

    /// The same, where there is so much to be listed that it takes longer.
    pub async fn start_within(&mut self, limit: Duration) -> Result<()> {
        let program = &self.program;
        if !program.exists() {
            return Err(format!("{} is not built: run `make build`", program.display()).into());
        }
        let mut command = process::mortal(program);
        command
            .args(["run", "--log-format", "text"])
            .args(&self.args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env(
                "RUST_LOG",
                std::env::var("OPERATOR_LOG").unwrap_or_else(|_| "info,poolwright=debug".into()),
            );
        if let Some(address) = &self.api_server {
            command.env("KUBERNETES_SERVICE_HOST", address);
        }
        if !self.namespace.is_empty() {
            command.args(["--namespace", &self.namespace]);
        }
        self.daemon = Some(Daemon::start("operator", command, &self.log)?);
        self.starts += 1;
        let (log, starts) = (self.log.clone(), self.starts);
        wait_for("the operator's watches", limit, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.matches("all watches have synced").count() >= starts
        })
        .await
    }

    /// Kills it, and starts it with one flag more.
    pub async fn start_with(&mut self, flag: &str) -> Result<()> {
        self.kill();
        self.args.push(flag.to_owned());
        self.start_again().await
    }

    /// SIGTERM, as Kubernetes sends it.
    pub fn terminate(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.signal(Signal::TERM);
        }
    }

    /// Stops it until what is returned is dropped.
    pub fn freeze(&self) -> Option<Frozen> {
        self.pid().map(Frozen::new)
    }

    /// How it ended by itself, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut()?.ended()
    }

    /// Waits until it has ended by itself.
    pub async fn await_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if since.elapsed() > limit {
                return Err(format!("the operator has not ended within {limit:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The answer to a GET, and its code.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        self.get_with(path, None).await
    }

    /// The answer to a GET with a bearer token, and its code.
    pub async fn get_with(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        crate::process::install_crypto();
        let address = self.http().ok_or("the operator has not logged its address")?;
        let mut request = reqwest::Client::new().get(format!("http://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// True if it decides, by its own metrics.
    pub async fn leads(&self) -> Result<bool> {
        Ok(self
            .metrics()
            .await?
            .lines()
            .any(|line| line == "poolwright_leader 1"))
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    fn look_for_leaks(&self) {
        if let Some(metrics) = self.http().and_then(|address| leaks::fetch(&address, "/metrics")) {
            leaks::look("metrics", &metrics);
        }
        leaks::look("log", &self.log());
    }

    /// SIGKILL, as the kernel does to a container that is out of memory.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// The file that it logs to.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        let pid = self.daemon.as_ref()?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// All its metrics, as text.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics").await? {
            (200, text) => Ok(text),
            (code, text) => Err(format!("the metrics are refused with {code}: {text}").into()),
        }
    }

    /// Its HTTP address, as logged.
    pub fn http(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("serving health"))?;
        Some(
            line.split("address=")
                .nth(1)?
                .split_whitespace()
                .next()?
                .to_owned(),
        )
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.look_for_leaks();
    }
}
