//! RabbitMQ with its management API and its Prometheus endpoint.

use super::Authority;
use crate::Result;
use crate::leaks::CANARY;
use crate::process::{self, Daemon, free_port, mortal, temp_dir};
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const START_LIMIT: Duration = Duration::from_secs(120);

/// What a RabbitMQ server is to be like.
#[derive(Clone, Debug, Default)]
pub struct RabbitMqConfig {
    /// A TLS port as well, with a certificate of an [`Authority`] of its own.
    pub tls: bool,
    /// More lines of `rabbitmq.conf`.
    pub lines: Vec<String>,
}

/// A RabbitMQ server; it is killed when this value is dropped.
#[derive(Debug)]
pub struct RabbitMq {
    /// AMQP.
    pub port: u16,
    /// AMQP over TLS.
    pub tls_port: Option<u16>,
    /// The management API (HTTP).
    pub management_port: u16,
    /// The management API over HTTPS, where there is TLS.
    pub management_tls_port: Option<u16>,
    /// The Prometheus endpoint (HTTP).
    pub prometheus_port: u16,
    /// The authority of its certificate.
    pub authority: Option<Authority>,
    name: String,
    epmd_port: u16,
    distribution_port: u16,
    daemon: Mutex<Option<Daemon>>,
    _epmd: Daemon,
    dir: TempDir,
}

/// A virtual host with a user who may do everything in it, and nothing elsewhere.
#[derive(Clone, Debug)]
pub struct Vhost {
    /// Its name, which is also the user's.
    pub name: String,
    /// The user's password.
    pub password: String,
    /// `amqp://…`, as a user would configure it.
    pub url: String,
    /// `amqps://…` where the server has TLS.
    pub tls_url: Option<String>,
    /// `http://127.0.0.1:…`, the management API without a login.
    pub management_url: String,
    /// `http://127.0.0.1:…`, the Prometheus endpoint.
    pub prometheus_url: String,
}

impl RabbitMq {
    /// The server of this process; TLS is on.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| {
                Self::start(RabbitMqConfig {
                    tls: true,
                    lines: Vec::new(),
                })
            })
            .await
    }

    /// Starts one and waits until its management API answers.
    pub async fn start(config: RabbitMqConfig) -> Result<Self> {
        let dir = temp_dir("rabbitmq")?;
        let epmd_port = free_port()?;
        // Erlang's name service: one of its own, or the server would leave a daemon behind.
        let mut epmd = mortal("epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = Daemon::start("epmd", epmd, &dir.path().join("epmd.log"))?;
        let server = Self {
            port: free_port()?,
            tls_port: if config.tls { Some(free_port()?) } else { None },
            management_port: free_port()?,
            management_tls_port: if config.tls { Some(free_port()?) } else { None },
            prometheus_port: free_port()?,
            authority: if config.tls {
                Some(Authority::create(dir.path())?)
            } else {
                None
            },
            name: format!("t{}@localhost", fastrand::u32(..)),
            epmd_port,
            distribution_port: free_port()?,
            daemon: Mutex::default(),
            _epmd: epmd,
            dir,
        };
        server.write_config(&config.lines)?;
        server.start_again().await?;
        Ok(server)
    }

    fn write_config(&self, lines: &[String]) -> Result<()> {
        let mut text = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {}\ndisk_free_limit.absolute = 1MB\n",
            self.port, self.management_port, self.prometheus_port,
        );
        let tls = [
            ("listeners.ssl.1 = 127.0.0.1:", "ssl_options", self.tls_port),
            (
                "management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = ",
                "management.ssl",
                self.management_tls_port,
            ),
        ];
        for (listener, section, port) in tls {
            let (Some(port), Some(files)) = (port, &self.authority) else {
                continue;
            };
            let (ca, certificate) = (files.ca.display(), files.certificate.display());
            writeln!(text, "{listener}{port}\n{section}.cacertfile = {ca}")?;
            writeln!(text, "{section}.certfile = {certificate}")?;
            let key = files.key.display();
            writeln!(text, "{section}.keyfile = {key}\n{section}.verify = verify_none")?;
        }
        for line in lines {
            writeln!(text, "{line}")?;
        }
        fs::write(self.dir.path().join("rabbitmq.conf"), text)?;
        fs::write(
            self.dir.path().join("enabled_plugins"),
            "[rabbitmq_management,rabbitmq_prometheus].\n",
        )?;
        Ok(())
    }

    /// Starts a stopped server with its data on the same ports.
    pub async fn start_again(&self) -> Result<()> {
        let dir = self.dir.path();
        let mut command = mortal(SERVER);
        command.envs([
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string()),
            ("ERL_EPMD_PORT", self.epmd_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            // Few schedulers that do not spin: tests share the processors.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none".into(),
            ),
            // Without it the start script stays beside the server, and signals reach only the script.
            ("RABBITMQ_ALLOW_INPUT", "1".into()),
        ]);
        command.envs([
            ("RABBITMQ_MNESIA_BASE", dir.join("data")),
            ("RABBITMQ_LOG_BASE", dir.join("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins")),
            ("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf")),
            ("HOME", dir.to_path_buf()),
        ]);
        let mut daemon = Daemon::start("rabbitmq-server", command, &dir.join("rabbitmq.log"))?;
        daemon
            .wait_serving("RabbitMQ to answer", START_LIMIT, || async {
                self.manage(Method::GET, "/api/overview", &Value::Null).await?;
                // Which is there a moment before the listeners are.
                for port in [Some(self.port), self.tls_port].into_iter().flatten() {
                    TcpStream::connect(("127.0.0.1", port)).await?;
                }
                Ok(true)
            })
            .await?;
        *self.daemon.lock().expect("no change panics") = Some(daemon);
        Ok(())
    }

    /// Stops it in an orderly way. Only for a server that no other test shares.
    pub fn stop(&self) {
        let daemon = self.daemon.lock().expect("no change panics").take();
        if let Some(mut daemon) = daemon {
            daemon.stop(Duration::from_secs(20));
        }
    }

    /// Stops it from answering, with its connections open. Only for a server of one's own.
    pub fn freeze(&self) {
        if let Some(daemon) = &*self.daemon.lock().expect("no change panics") {
            daemon.freeze();
        }
    }

    /// Lets it answer again.
    pub fn thaw(&self) {
        if let Some(daemon) = &*self.daemon.lock().expect("no change panics") {
            daemon.thaw();
        }
    }

    /// Makes a user who may see the numbers of this virtual host in the management API, and nothing else; returns the
    /// password.
    pub async fn reader(&self, vhost: &Vhost, name: &str) -> Result<String> {
        let password = fresh_password();
        let user = json!({"password": password, "tags": "management"});
        self.manage(Method::PUT, &format!("/api/users/{name}"), &user)
            .await?;
        let none = json!({"configure": "", "write": "", "read": ""});
        let path = format!("/api/permissions/{}/{name}", vhost.name);
        self.manage(Method::PUT, &path, &none).await?;
        Ok(password)
    }

    /// Makes a virtual host and its user. `tags` is `""`, or `monitoring` for a user
    /// who may see the management API's numbers.
    pub async fn vhost(&self, prefix: &str, tags: &str) -> Result<Vhost> {
        let suffix: String = std::iter::repeat_with(fastrand::lowercase).take(8).collect();
        let name = format!("{prefix}-{suffix}");
        let password = fresh_password();
        let user = json!({"password": password, "tags": tags});
        self.manage(Method::PUT, &format!("/api/users/{name}"), &user)
            .await?;
        self.open_vhost(&name).await?;
        Ok(Vhost {
            url: format!("amqp://{name}:{password}@127.0.0.1:{}/{name}", self.port),
            tls_url: self
                .tls_port
                .map(|port| format!("amqps://{name}:{password}@localhost:{port}/{name}")),
            management_url: format!("http://127.0.0.1:{}", self.management_port),
            prometheus_url: format!("http://127.0.0.1:{}", self.prometheus_port),
            name,
            password,
        })
    }

    /// Makes a virtual host for the user of its name, who may do everything in it.
    pub async fn open_vhost(&self, name: &str) -> Result<()> {
        self.manage(Method::PUT, &format!("/api/vhosts/{name}"), &json!({}))
            .await?;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        for user in [name, "guest"] {
            self.manage(Method::PUT, &format!("/api/permissions/{name}/{user}"), &all)
                .await?;
        }
        Ok(())
    }

    /// Asks the management API as the administrator.
    pub async fn manage(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        process::install_crypto();
        let url = format!("http://127.0.0.1:{}{path}", self.management_port);
        let mut request = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()?
            .request(method, url);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request
            .basic_auth("guest", Some("guest"))
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        Ok(serde_json::from_str(&answer).unwrap_or(Value::Null))
    }
}

/// One that nothing may say.
fn fresh_password() -> String {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(16).collect();
    format!("{CANARY}{random}")
}
