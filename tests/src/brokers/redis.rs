//! Redis: alone, with a password, users, TLS, replicas and Sentinel.

use super::Authority;
use crate::process::{Daemon, free_port, mortal, temp_dir};
use crate::{Result, wait_until};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What a Redis server is to be like.
#[derive(Clone, Debug, Default)]
pub struct RedisConfig {
    /// `requirepass`, the default user's password.
    pub password: Option<String>,
    /// An ACL user: name and password, with all rights; see [`RedisConfig::lines`] for fewer.
    pub user: Option<(String, String)>,
    /// A TLS port as well, with a certificate of an [`Authority`] of its own.
    pub tls: bool,
    /// The port of a server on loopback to be a replica of, with the same password.
    pub replica_of: Option<u16>,
    /// Forgets everything when it is stopped.
    pub forgetful: bool,
    /// More lines of `redis.conf`.
    pub lines: Vec<String>,
}

/// A Redis server; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Redis {
    /// The plain port; it stays the same when the server is stopped and started.
    pub port: u16,
    /// The TLS port.
    pub tls_port: Option<u16>,
    /// The authority of its certificate.
    pub authority: Option<Authority>,
    config: RedisConfig,
    dir: TempDir,
    daemon: Option<Daemon>,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start(config: RedisConfig) -> Result<Self> {
        let dir = temp_dir("redis")?;
        let authority = if config.tls {
            Some(Authority::create(dir.path())?)
        } else {
            None
        };
        let tls_port = if config.tls { Some(free_port()?) } else { None };
        let mut server = Self {
            port: free_port()?,
            tls_port,
            authority,
            config,
            dir,
            daemon: None,
        };
        server.write_config()?;
        server.start_again().await?;
        Ok(server)
    }

    fn write_config(&self) -> Result<()> {
        let dir = self.dir.path().display();
        let mut text = format!(
            "bind 127.0.0.1\nport {}\ndir {dir}\ndaemonize no\nsave \"\"\nappendfsync no\nappendonly {}\n",
            self.port,
            if self.config.forgetful { "no" } else { "yes" },
        );
        if let Some(password) = &self.config.password {
            writeln!(text, "requirepass {password}\nmasterauth {password}")?;
        }
        if let Some((name, password)) = &self.config.user {
            writeln!(text, "user {name} on >{password} ~* &* +@all")?;
        }
        if let (Some(port), Some(files)) = (self.tls_port, &self.authority) {
            writeln!(text, "tls-port {port}\ntls-auth-clients no")?;
            writeln!(
                text,
                "tls-cert-file {}\ntls-key-file {}",
                files.certificate.display(),
                files.key.display()
            )?;
            writeln!(text, "tls-ca-cert-file {}", files.ca.display())?;
        }
        if let Some(port) = self.config.replica_of {
            writeln!(text, "replicaof 127.0.0.1 {port}\nrepl-diskless-sync-delay 0")?;
        }
        for line in &self.config.lines {
            writeln!(text, "{line}")?;
        }
        Ok(fs::write(self.dir.path().join("redis.conf"), text)?)
    }

    /// Starts a stopped server on the same port; it has its data unless it is forgetful.
    pub async fn start_again(&mut self) -> Result<()> {
        let mut command = mortal("redis-server");
        command.arg(self.dir.path().join("redis.conf"));
        let mut daemon = Daemon::start("redis-server", command, &self.dir.path().join("redis.log"))?;
        let url = self.admin_url(0);
        daemon
            .wait_serving("Redis to answer", START_LIMIT, || async {
                let mut connection = connect(&url).await?;
                let answer: String = redis::cmd("PING").query_async(&mut connection).await?;
                Ok(answer == "PONG")
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops it in an orderly way.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(Duration::from_secs(5));
        }
    }

    /// Stops it from answering, with its connections open.
    pub fn freeze(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.freeze();
        }
    }

    /// Lets it answer again.
    pub fn thaw(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.thaw();
        }
    }

    /// The URL that a user would configure: with the ACL user or the password, `rediss` with TLS.
    pub fn url(&self, database: u8) -> String {
        let login = match (&self.config.user, &self.config.password) {
            (Some((name, password)), _) => format!("{name}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        };
        match self.tls_port {
            Some(port) => format!("rediss://{login}127.0.0.1:{port}/{database}"),
            None => format!("redis://{login}127.0.0.1:{}/{database}", self.port),
        }
    }

    /// A URL on the plain port as the default user, for the test itself.
    pub fn admin_url(&self, database: u8) -> String {
        let login = self
            .config
            .password
            .as_ref()
            .map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{login}127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of the test itself.
    pub async fn connection(&self, database: u8) -> Result<MultiplexedConnection> {
        connect(&self.admin_url(database)).await
    }
}

/// A connection with more patience than the library's half a second, which a busy machine may take.
pub async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let patience = Some(Duration::from_secs(10));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(patience)
        .set_response_timeout(patience);
    let client = redis::Client::open(url)?;
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

/// Some Sentinels that watch one master and agree on its failover.
#[derive(Debug)]
pub struct Sentinel {
    /// The ports of the Sentinels.
    pub ports: Vec<u16>,
    /// The name under which they know the master.
    pub master: String,
    dir: TempDir,
    daemons: Vec<Daemon>,
}

impl Sentinel {
    /// Starts so many of them for a master; they find its replicas by themselves.
    pub async fn start(master: &Redis, name: &str, count: usize) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("poolwright-sentinel-")
            .tempdir()?;
        let mut group = Self {
            ports: Vec::new(),
            master: name.into(),
            dir,
            daemons: Vec::new(),
        };
        for index in 0..count {
            let port = free_port()?;
            let own = group.dir.path().join(index.to_string());
            fs::create_dir(&own)?;
            let mut text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {} {}\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n",
                own.display(),
                master.port,
                count / 2 + 1,
            );
            if let Some(password) = &master.config.password {
                writeln!(text, "sentinel auth-pass {name} {password}")?;
            }
            let file = own.join("sentinel.conf");
            fs::write(&file, text)?;
            let mut command = mortal("redis-server");
            command.arg(&file).arg("--sentinel");
            group
                .daemons
                .push(Daemon::start("redis-sentinel", command, &own.join("log"))?);
            group.ports.push(port);
            let url = format!("redis://127.0.0.1:{port}");
            let asked = ["get-master-addr-by-name", name];
            wait_until("Sentinel to know its master", START_LIMIT, || async {
                let mut connection = connect(&url).await?;
                let address: Option<(String, u16)> = redis::cmd("SENTINEL")
                    .arg(&asked)
                    .query_async(&mut connection)
                    .await?;
                Ok(address.is_some())
            })
            .await?;
        }
        Ok(group)
    }

    /// The broker URL in Celery's form: `sentinel://…;sentinel://…`.
    pub fn url(&self, database: u8) -> String {
        let urls: Vec<String> = self
            .ports
            .iter()
            .map(|port| format!("sentinel://127.0.0.1:{port}/{database}"))
            .collect();
        urls.join(";")
    }

    /// The port of the present master, as the first Sentinel says.
    pub async fn master_port(&self) -> Result<u16> {
        let port = self.ports.first().ok_or("there is no Sentinel")?;
        let mut connection = connect(&format!("redis://127.0.0.1:{port}")).await?;
        let asked = ["get-master-addr-by-name", &self.master];
        let address: (String, u16) = redis::cmd("SENTINEL")
            .arg(&asked)
            .query_async(&mut connection)
            .await?;
        Ok(address.1)
    }
}
