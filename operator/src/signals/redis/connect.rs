//! Finding and reaching the Redis server: directly or through Sentinel, with or without TLS.
//!
//! Decides which server is the master. It keeps no connection and retries nothing: whoever loses a connection
//! drops it and connects again, which asks the sentinels again. Through Sentinel a server is used only if it says
//! itself that it is a master (unless its user may not ask), because a sentinel can be behind.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use poolwright_core::broker::{BrokerConfig, Tls};
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::sample::FaultKind;
use redis::aio::{AsyncStream, MultiplexedConnection, PubSub};
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates, Value,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{errors, values};
use crate::signals::SignalError;
use crate::signals::network::Network;
use crate::signals::tls::client_config;

/// The field that an address of the configuration comes from.
const FIELD: &str = "spec.broker";
/// Where an address comes from that a sentinel told.
const NAMED: &str = "the server that Sentinel names";

/// A server to talk to, and a connection that has been tried.
pub(super) async fn connect(
    config: &BrokerConfig,
    network: &Network,
) -> Result<(Server, MultiplexedConnection), SignalError> {
    let Some(master) = &config.sentinel_master else {
        let (host, port) = config
            .hosts
            .first()
            .ok_or_else(|| errors::unreachable("the address names no host"))?;
        let server = Server::new(config, network, (host, *port, FIELD), Credentials::Given)?;
        let connection = server.open().await?;
        select(&connection, config.database).await?;
        return Ok((server, connection));
    };
    let mut answers: FuturesUnordered<_> = config
        .hosts
        .iter()
        .map(|(host, port)| ask_sentinel(config, network, master, (host, *port, FIELD)))
        .collect();
    let mut worst = errors::unreachable("no sentinel answers");
    let mut tried = Vec::new();
    while let Some(answer) = answers.next().await {
        let (host, port) = match answer {
            Ok(address) if tried.contains(&address) => continue,
            Ok(address) => address,
            Err(error) => {
                worst = worse(worst, error);
                continue;
            }
        };
        match master_at(config, network, (&host, port, NAMED)).await {
            Ok(found) => return Ok(found),
            Err(error) => worst = worse(worst, error),
        }
        tried.push((host, port));
    }
    Err(worst)
}

/// What is told of two failures: a refusal before anything else, because it does not pass by itself.
fn worse(before: SignalError, now: SignalError) -> SignalError {
    if before.kind == FaultKind::Refused {
        before
    } else {
        now
    }
}

/// Connects to the server that a sentinel named, if it is a master.
async fn master_at(
    config: &BrokerConfig,
    network: &Network,
    place: Place<'_>,
) -> Result<(Server, MultiplexedConnection), SignalError> {
    let server = Server::new(config, network, place, Credentials::Given)?;
    let mut connection = server.open().await?;
    let answer = connection.send_packed_command(&redis::cmd("ROLE")).await;
    match answer {
        Err(error) if error.code() == Some("NOPERM") => {}
        Err(error) => return Err(errors::of(&error, "ask for the server's role")),
        Ok(Value::ServerError(error)) if error.code() == "NOPERM" => {}
        Ok(Value::ServerError(error)) => return Err(errors::of_answer(&error, "ask for the server's role")),
        Ok(role) => {
            let role = values::array(&role).and_then(|r| values::bytes(r.first()?));
            if role != Some(b"master") {
                return Err(errors::unreachable(
                    "Sentinel names a server that is no master (a failover?)",
                ));
            }
        }
    }
    select(&connection, config.database).await?;
    Ok((server, connection))
}

/// Goes to the database. The server counts from 0 to a limit of its own.
async fn select(connection: &MultiplexedConnection, database: u32) -> Result<(), SignalError> {
    if database == 0 {
        return Ok(());
    }
    let mut command = redis::cmd("SELECT");
    command.arg(database);
    match super::one(connection, &command, "use the database of the address").await? {
        Value::ServerError(error) if error.code() == "ERR" => {
            let message = format!("Redis has no database {database}");
            Err(SignalError::new(FaultKind::InvalidAddress, message))
        }
        Value::ServerError(error) => Err(errors::of_answer(&error, "use the database of the address")),
        _ => Ok(()),
    }
}

/// Asks one sentinel for the master's address. It gets the password only if it asks for one.
async fn ask_sentinel(
    config: &BrokerConfig,
    network: &Network,
    master: &str,
    place: Place<'_>,
) -> Result<(String, u16), SignalError> {
    let server = |credentials| Server::new(config, network, place, credentials);
    let mut answer = sentinel_answer(&server(Credentials::None)?, master).await;
    let refused = answer.as_ref().is_err_and(|e| e.kind == FaultKind::Refused);
    if refused && config.password.is_some() {
        answer = sentinel_answer(&server(Credentials::Given)?, master).await;
    }
    master_of(&answer?)
}

/// The host and port of the master that a sentinel names.
pub(super) fn master_of(answer: &Value) -> Result<(String, u16), SignalError> {
    let parts = match answer {
        Value::Nil => {
            let message = "the sentinels know no master of this name (redis.sentinelMaster)";
            return Err(SignalError::new(FaultKind::InvalidAddress, message));
        }
        value => values::array(value),
    };
    let text = |at: usize| std::str::from_utf8(values::bytes(parts?.get(at)?)?).ok();
    let address = text(0).zip(text(1).and_then(|port| port.parse().ok()));
    address
        .map(|(host, port)| (host.to_owned(), port))
        .ok_or_else(|| errors::shape("ask the sentinel"))
}

async fn sentinel_answer(server: &Server, master: &str) -> Result<Value, SignalError> {
    let mut connection = server.open().await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    match connection.send_packed_command(&command).await {
        Ok(Value::ServerError(error)) => Err(errors::of_answer(&error, "ask the sentinel")),
        Ok(value) => Ok(value),
        Err(error) => Err(errors::of(&error, "ask the sentinel")),
    }
}

/// Host, port, and the field that they come from.
type Place<'a> = (&'a str, u16, &'static str);

/// A server and how to connect to it. Each connection looks the host up anew, and goes to what was judged then.
pub(super) struct Server {
    client: Client,
    network: Network,
    host: String,
    port: u16,
    field: &'static str,
    tls: Option<TlsConnector>,
}

impl Server {
    fn new(
        config: &BrokerConfig,
        network: &Network,
        (host, port, field): Place<'_>,
        credentials: Credentials,
    ) -> Result<Self, SignalError> {
        let client = client(config, host, port, credentials)?;
        let tls = config.tls.as_ref().map(client_config).transpose()?;
        Ok(Self {
            client,
            network: network.clone(),
            host: host.to_owned(),
            port,
            field,
            tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))),
        })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, SignalError> {
        let found = self.network.resolve(&self.host, self.port).await;
        found.map_err(|unusable| unusable.error(self.field))
    }

    /// A connection for commands.
    async fn open(&self) -> Result<MultiplexedConnection, SignalError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(COMMAND_DEADLINE))
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_dns_resolver(Judged(self.addresses().await?));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&settings)
            .await;
        connection.map_err(|error| errors::of(&error, "connect"))
    }

    /// A connection for pub/sub. The library would look the name up by itself, so the socket is ours.
    pub(super) async fn subscriber(&self) -> Result<PubSub, SignalError> {
        let addresses = self.addresses().await?;
        let opened = async {
            let socket = TcpStream::connect(&addresses[..]).await?;
            socket.set_nodelay(true)?;
            let stream: Pin<Box<dyn AsyncStream + Send + Sync>> = match &self.tls {
                None => Box::pin(socket),
                Some(tls) => {
                    let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
                    Box::pin(tls.connect(name, socket).await?)
                }
            };
            PubSub::new(self.client.get_connection_info().redis_settings(), stream).await
        };
        opened
            .await
            .map_err(|error: RedisError| errors::of(&error, "connect"))
    }
}

/// Gives the library the addresses that were judged, whatever it asks for.
struct Judged(Vec<SocketAddr>);

impl AsyncDNSResolver for Judged {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _host: &'b str,
        _port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let addresses: Box<dyn Iterator<Item = SocketAddr> + Send + 'a> = Box::new(self.0.iter().copied());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

#[derive(Clone, Copy)]
enum Credentials {
    /// The address's.
    Given,
    /// None.
    None,
}

fn client(
    config: &BrokerConfig,
    host: &str,
    port: u16,
    credentials: Credentials,
) -> Result<Client, SignalError> {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if !matches!(credentials, Credentials::None) {
        if let Some(username) = config.username.as_ref().filter(|_| config.password.is_some()) {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose());
        }
    }
    let host = host.to_owned();
    let address = match &config.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(tls) => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: tls.insecure_skip_verify,
            tls_params: None,
        },
    };
    let info = address
        .into_connection_info()
        .map(|info| info.set_redis_settings(settings));
    let client = info.and_then(|info| match &config.tls {
        None => Client::open(info),
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
    });
    client.map_err(|_| {
        SignalError::new(
            FaultKind::InvalidAddress,
            "the TLS certificates or the key cannot be read as PEM",
        )
    })
}

fn certificates(tls: &Tls) -> TlsCertificates {
    // The program installs this at its start; a connection must not panic where it has not.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let bytes = |text: &str| text.as_bytes().to_vec();
    let client_tls = tls.client_cert_pem.as_deref().zip(tls.client_key_pem.as_ref());
    let client_tls = client_tls.map(|(cert, key)| ClientTlsConfig {
        client_cert: bytes(cert),
        client_key: bytes(key.expose()),
    });
    TlsCertificates {
        client_tls,
        root_cert: tls.ca_pem.as_deref().map(bytes),
    }
}
