//! The control plane: etcd, API server, controllers and scheduler as four
//! processes on loopback ports with everything in one temporary folder.
//!
//! A plane takes five to ten seconds to start, so that a test run starts one
//! and names it in `POOLWRIGHT_PLANE_KUBECONFIG`; [`Plane::shared`] uses that
//! one, or starts one for this process, with a node, when there is none.

use crate::process::{self, Daemon, free_port, mortal, temp_dir};
use crate::{
    CELERY_IMAGE, Celery, Image, Kubectl, Node, NodeConfig, Result, audit, poll, rights, wait_for, wait_until,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// Names the kubeconfig of a plane that serves a whole test run.
pub const KUBECONFIG_VARIABLE: &str = "POOLWRIGHT_PLANE_KUBECONFIG";
/// An image whose pods run at once and are nothing.
pub const FAKE_IMAGE: &str = "poolwright.test/fake:1";
/// The account of an operator that is installed as `deploy/install` has it. Tests run theirs as this user, with a token
/// that the plane knows from its start.
pub const OPERATOR: &str = "system:serviceaccount:poolwright:poolwright";
/// Names a file to which a plane that ends adds what [`OPERATOR`] has asked of it.
pub const RIGHTS_VARIABLE: &str = "POOLWRIGHT_RIGHTS";
/// The plane's own users and their groups: a user each, so that the audit log tells them apart.
const PARTS: [(&str, &str); 5] = [
    ("admin", "system:masters"),
    (
        OPERATOR,
        "system:serviceaccounts,system:serviceaccounts:poolwright",
    ),
    (NODE, "system:masters"),
    (CONTROLLERS, "system:authenticated"),
    (SCHEDULER, "system:authenticated"),
];
const NODE: &str = "local-node";
const CONTROLLERS: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
/// How long a plane may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A user who is known by a token.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name, as in the audit log and in bindings.
    pub name: String,
    /// Its bearer token.
    pub token: String,
    /// Its groups; `system:masters` may do everything.
    pub groups: Vec<String>,
}

/// What a plane is to be like beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct PlaneConfig {
    /// More users than `admin`.
    pub users: Vec<User>,
    /// More arguments for the API server.
    pub apiserver_args: Vec<String>,
    /// More arguments for the controller manager, for example a short `--node-monitor-grace-period`.
    pub controller_args: Vec<String>,
    /// More arguments for the scheduler.
    pub scheduler_args: Vec<String>,
}

/// One of its processes.
#[derive(Debug)]
struct Part {
    command: Vec<String>,
    daemon: Daemon,
}

/// A running control plane; its processes end with this value.
#[derive(Debug)]
pub struct Plane {
    dir: PathBuf,
    parts: Mutex<Vec<Part>>,
    temporary: Option<TempDir>,
}

impl Plane {
    /// Starts one, and waits until pods can be created in it.
    pub async fn start(config: PlaneConfig) -> Result<Self> {
        let binary = tokio::task::spawn_blocking(binary).await??;
        let temporary = temp_dir("plane")?;
        let dir = temporary.path().to_path_buf();
        let etcd = format!("http://127.0.0.1:{}", free_port()?);
        let port = free_port()?;
        write_secrets(&dir, &config.users)?;
        let plane = Self {
            dir,
            parts: Mutex::default(),
            temporary: Some(temporary),
        };

        let data = plane.text("etcd")?;
        plane.launch(&binary, "etcd", &[data, etcd.clone()], &[])?;
        let certificates = plane.text("certificates")?;
        let apiserver = [
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            format!("--cert-dir={certificates}"),
            format!("--token-auth-file={}", plane.text("tokens.csv")?),
            format!("--service-account-key-file={}", plane.text("accounts.pub")?),
            format!(
                "--service-account-signing-key-file={}",
                plane.text("accounts.key")?
            ),
            format!("--audit-policy-file={}", plane.text("audit-policy.yaml")?),
            format!("--audit-log-path={}", plane.text("audit.log")?),
            // It is one file to who reads it: in megabytes, and by default it would be put away at a hundred.
            "--audit-log-maxsize=4000".into(),
            // As most do, and leave it to Pod Security.
            "--allow-privileged=true".into(),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            "--service-account-issuer=https://local.test".into(),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.96.0.0/24".into(),
            "--endpoint-reconciler-type=none".into(),
        ];
        plane.launch(&binary, "kube-apiserver", &apiserver, &config.apiserver_args)?;
        let authority = Path::new(&certificates).join("apiserver.crt");
        wait_for("the API server's certificate", START_LIMIT, || {
            // It is there before its content is, and a client reads it once.
            let text = fs::read_to_string(&authority).unwrap_or_default();
            text.trim_end().ends_with("-----END CERTIFICATE-----") || plane.check().is_err()
        })
        .await?;
        plane.check()?;
        plane.write_kubeconfig(port, &authority)?;

        let controllers = [
            format!("--kubeconfig={}", plane.kubeconfig_of(CONTROLLERS).display()),
            format!(
                "--service-account-private-key-file={}",
                plane.text("accounts.key")?
            ),
            format!("--root-ca-file={}", authority.display()),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
            "--use-service-account-credentials".into(),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
        ];
        plane.wait_ready().await?;
        plane.launch(
            &binary,
            "kube-controller-manager",
            &controllers,
            &config.controller_args,
        )?;
        let scheduler = [
            format!("--kubeconfig={}", plane.kubeconfig_of(SCHEDULER).display()),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
        ];
        plane.launch(&binary, "kube-scheduler", &scheduler, &config.scheduler_args)?;
        plane.wait_accounts().await?;
        Ok(plane)
    }

    /// The plane of this test run, or one for this process with a node that knows
    /// [`CELERY_IMAGE`] and [`FAKE_IMAGE`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: tokio::sync::OnceCell<Plane> = tokio::sync::OnceCell::const_new();
        SHARED
            .get_or_try_init(|| async {
                if let Some(kubeconfig) = std::env::var_os(KUBECONFIG_VARIABLE) {
                    return Self::attach(Path::new(&kubeconfig));
                }
                Self::start_with_node(PlaneConfig::default()).await
            })
            .await
    }

    /// Starts one with a node that knows [`CELERY_IMAGE`] and [`FAKE_IMAGE`].
    pub async fn start_with_node(config: PlaneConfig) -> Result<Self> {
        let plane = Self::start(config).await?;
        plane.start_usual_node().await?;
        Ok(plane)
    }

    /// Uses a plane that another process started and will stop.
    pub fn attach(kubeconfig: &Path) -> Result<Self> {
        let dir = kubeconfig
            .parent()
            .ok_or("the kubeconfig lies in no folder")?
            .to_path_buf();
        Ok(Self {
            dir,
            parts: Mutex::default(),
            temporary: None,
        })
    }

    /// The configuration of the node that a shared plane has.
    pub fn usual_node(&self) -> Result<NodeConfig> {
        let mut node = NodeConfig::new("local", &self.dir.join("node"));
        node.record = self.record();
        node.images
            .insert(CELERY_IMAGE.into(), Image::Folder(Celery::locate()?.dir));
        node.images.insert(FAKE_IMAGE.into(), Image::Fake);
        Ok(node)
    }

    /// Runs the usual node on a thread of its own: a test's runtime ends with the test.
    async fn start_usual_node(&self) -> Result<()> {
        let config = self.usual_node()?;
        let (kubeconfig, token) = (self.kubeconfig(), self.token(NODE)?);
        let (sender, started) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("node".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime can be made");
            runtime.block_on(async move {
                let node =
                    async { Node::start(client(&kubeconfig, Some(&token)).await?, config).await }.await;
                let (node, answer) = match node {
                    Ok(node) => (Some(node), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = sender.send(answer);
                if let Some(node) = node {
                    node.run().await;
                }
            });
        })?;
        started.await?
    }

    /// The administrator's kubeconfig; everything else lies in the same folder.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The kubeconfig of [`OPERATOR`].
    pub fn operator_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(OPERATOR)
    }

    /// The folder with the logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The audit log, for [`audit_entries`](crate::audit_entries).
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The record of the shared plane's node, for [`read_records`](crate::read_records).
    pub fn record(&self) -> PathBuf {
        self.dir.join("record.jsonl")
    }

    /// A client as the administrator. It belongs to the current runtime: make one per test.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig(), None).await
    }

    /// A client with another token, for example of a `ServiceAccount`.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        client(&self.kubeconfig(), Some(token)).await
    }

    /// Writes a kubeconfig with another token, for a process that is started with it.
    pub fn kubeconfig_with_token(&self, token: &str, file: &Path) -> Result<()> {
        let mut text: serde_json::Value = serde_json::from_str(&fs::read_to_string(self.kubeconfig())?)?;
        text["users"][0]["user"]["token"] = json!(token);
        Ok(fs::write(file, text.to_string())?)
    }

    /// The address at which the API server listens.
    pub fn server(&self) -> Result<SocketAddr> {
        let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(self.kubeconfig())?)?;
        let server = config["clusters"][0]["cluster"]["server"].as_str();
        let server = server.and_then(|server| server.strip_prefix("https://"));
        Ok(server.ok_or("the kubeconfig names no server")?.parse()?)
    }

    /// Writes a kubeconfig with another token that reaches the API server at another address of this machine.
    pub fn kubeconfig_through(&self, server: SocketAddr, token: &str, file: &Path) -> Result<()> {
        self.kubeconfig_with_token(token, file)?;
        let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://{server}"));
        Ok(fs::write(file, config.to_string())?)
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }

    /// Fails with the end of its log when one of the processes has ended.
    pub fn check(&self) -> Result<()> {
        self.parts
            .lock()
            .expect("no check panics")
            .iter_mut()
            .try_for_each(|part| part.daemon.check())
    }

    /// Stops one of its processes for so long, as if it were behind. Other tests of the run wait with it.
    pub async fn pause(&self, name: &str, length: Duration) -> Result<()> {
        let pid = fs::read_to_string(self.pid_file(name))?.parse()?;
        let frozen = process::Frozen::new(pid);
        tokio::time::sleep(length).await;
        drop(frozen);
        Ok(())
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pid"))
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(self
            .dir
            .join(name)
            .to_str()
            .ok_or("the folder's name is no text")?
            .to_owned())
    }

    fn launch(&self, binary: &Path, name: &str, args: &[String], more: &[String]) -> Result<()> {
        let mut command = vec![binary.display().to_string(), name.to_owned()];
        command.extend(args.iter().chain(more).cloned());
        let daemon = self.spawn(&command)?;
        let mut parts = self.parts.lock().expect("no launch panics");
        parts.push(Part { command, daemon });
        Ok(())
    }

    fn spawn(&self, words: &[String]) -> Result<Daemon> {
        let [binary, name, args @ ..] = words else {
            return Err("a command has no name".into());
        };
        let mut command = mortal(Path::new(binary));
        command.arg(name).args(args).current_dir(&self.dir);
        let daemon = Daemon::start(name, command, &self.dir.join(format!("{name}.log")))?;
        fs::write(self.pid_file(name), daemon.pid().to_string())?;
        Ok(daemon)
    }

    /// Kills its API server, and starts it anew after `meanwhile`, which must not ask it. Not while others use this plane.
    pub async fn without_apiserver(&self, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
        let of = |part: &&mut Part| part.command[1] == "kube-apiserver";
        {
            let mut parts = self.parts.lock().expect("no check panics");
            let part = parts
                .iter_mut()
                .find(of)
                .ok_or("this plane has no API server of its own")?;
            part.daemon.kill();
        }
        let done = meanwhile.await;
        {
            let mut parts = self.parts.lock().expect("no check panics");
            let part = parts.iter_mut().find(of).ok_or("it is gone")?;
            part.daemon = self.spawn(&part.command)?;
        }
        self.wait_ready().await?;
        done
    }

    fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.dir.join(format!("kubeconfig-{}", user.replace(':', "-")))
    }

    /// The token of one of the plane's users.
    pub fn token(&self, user: &str) -> Result<String> {
        let tokens = fs::read_to_string(self.dir.join("tokens.csv"))?;
        let mut lines = tokens.lines().map(|line| line.split(','));
        let token = lines.find_map(|mut fields| {
            let token = fields.next()?;
            (fields.next()? == user).then(|| token.to_owned())
        });
        Ok(token.ok_or_else(|| format!("the plane has no user {user}"))?)
    }

    /// A client for a node, which is a user of its own in the audit log.
    pub async fn node_client(&self) -> Result<Client> {
        client(&self.kubeconfig(), Some(&self.token(NODE)?)).await
    }

    fn write_kubeconfig(&self, port: u16, authority: &Path) -> Result<()> {
        let token = self.token("admin")?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "local",
            "clusters": [{"name": "local", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
        });
        fs::write(self.kubeconfig(), config.to_string())?;
        for user in [CONTROLLERS, SCHEDULER, OPERATOR] {
            self.kubeconfig_with_token(&self.token(user)?, &self.kubeconfig_of(user))?;
        }
        Ok(())
    }

    async fn wait_ready(&self) -> Result<()> {
        let client = self.client().await?;
        poll("the API server", START_LIMIT, || async {
            if let Err(error) = self.check() {
                return Ok(Some(Err(error)));
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok((client.request_text(request).await? == "ok").then_some(Ok(())))
        })
        .await?
    }

    async fn wait_accounts(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        wait_until("the default ServiceAccount", START_LIMIT, || async {
            self.check()?;
            Ok(accounts.get_opt("default").await?.is_some())
        })
        .await
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // The API server is useless without etcd: end the dependants first, all at once.
        if let Ok(parts) = self.parts.get_mut() {
            while parts.pop().is_some() {}
        }
        let wanted = std::env::var_os(RIGHTS_VARIABLE).filter(|_| self.temporary.is_some());
        if let Some(file) = wanted
            && let Err(error) = rights::note(&self.audit_log(), Path::new(&file))
        {
            eprintln!("what the operator asked for was not noted: {error}");
        }
    }
}

/// The binary that holds all of it; it is built when it has not been built yet.
pub fn binary() -> Result<PathBuf> {
    static BINARY: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = BINARY.lock().expect("no build panics");
    if let Some(binary) = &*known {
        return Ok(binary.clone());
    }
    let binary = build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane/build.sh"))?;
    Ok(known.insert(binary).clone())
}

/// A tool of `tests/tools` by its name there, for example `helm3`; it is built when it has not been built yet.
pub fn tool(name: &str) -> Result<PathBuf> {
    build_with(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build.sh"),
        &[name],
    )
}

/// Runs a script that prints the path of what it built.
pub(crate) fn build(script: &Path) -> Result<PathBuf> {
    build_with(script, &[])
}

pub(crate) fn build_with(script: &Path, args: &[&str]) -> Result<PathBuf> {
    let output = Command::new(script)
        .args(args)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{} failed", script.display()).into());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A client of a kubeconfig's current context.
pub async fn client(kubeconfig: &Path, token: Option<&str>) -> Result<Client> {
    process::install_crypto();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    if let Some(token) = token {
        config.auth_info.token = Some(token.to_owned().into());
    }
    Ok(Client::try_from(config)?)
}

fn write_secrets(dir: &Path, users: &[User]) -> Result<()> {
    let mut tokens = String::new();
    for (name, group) in PARTS {
        let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
        writeln!(tokens, "{token},{name},{name},\"{group}\"")?;
    }
    for User { name, token, groups } in users {
        writeln!(tokens, "{token},{name},{name},\"{}\"", groups.join(","))?;
    }
    fs::write(dir.join("tokens.csv"), tokens)?;
    let key = rcgen::KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), key.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), key.public_key_pem())?;
    fs::write(dir.join("audit-policy.yaml"), audit::POLICY)?;
    fs::create_dir(dir.join("certificates"))?;
    Ok(())
}
