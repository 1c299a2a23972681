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
use poolwright_core::broker::BrokerConfig;
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::sample::FaultKind;
use redis::aio::{AsyncStream, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::sieve::{ANSWERED, PUBLISHED, Sifted};
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

/// What a connection reads from and writes to.
type Stream = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// Host, port, and the field that they come from.
type Place<'a> = (&'a str, u16, &'static str);

/// A server and how to connect to it. Each connection looks the host up anew, and goes to what was judged then.
pub(super) struct Server {
    login: RedisConnectionInfo,
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
        let tls = config.tls.as_ref().map(client_config).transpose()?;
        Ok(Self {
            login: login(config, credentials),
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
            .set_response_timeout(Some(COMMAND_DEADLINE));
        let opened = async {
            let stream = self.stream(ANSWERED).await?;
            let opened = MultiplexedConnection::new_with_config(&self.login, stream, settings).await;
            opened.map_err(|error| errors::of(&error, "connect"))
        };
        let (connection, driver) = in_time(opened).await?;
        // It ends with the last handle to the connection, at the latest when what is unsent has waited too long.
        tokio::spawn(driver);
        Ok(connection)
    }

    /// A connection for pub/sub.
    pub(super) async fn subscriber(&self) -> Result<PubSub, SignalError> {
        let stream = self.stream(PUBLISHED).await?;
        let opened = PubSub::new(&self.login, stream).await;
        opened.map_err(|error| errors::of(&error, "connect"))
    }

    /// A socket at an address that was judged, TLS where it is asked for, and the sieve. The library would look the name up
    /// by itself.
    async fn stream(&self, most: u64) -> Result<Stream, SignalError> {
        let addresses = self.addresses().await?;
        let opened = async {
            let socket = TcpStream::connect(&addresses[..]).await?;
            socket.set_nodelay(true)?;
            let stream: Stream = match &self.tls {
                None => Box::pin(Sifted::new(socket, most)),
                Some(tls) => {
                    let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
                    Box::pin(Sifted::new(tls.connect(name, socket).await?, most))
                }
            };
            Ok(stream)
        };
        let opened: std::io::Result<Stream> = opened.await;
        opened.map_err(|error| errors::of(&RedisError::from(error), "connect"))
    }
}

async fn in_time<T>(opened: impl Future<Output = Result<T, SignalError>>) -> Result<T, SignalError> {
    let late = |_| errors::unreachable("Redis did not answer in time (connect)");
    tokio::time::timeout(COMMAND_DEADLINE, opened)
        .await
        .map_err(late)?
}

#[derive(Clone, Copy)]
enum Credentials {
    /// The address's.
    Given,
    /// None.
    None,
}

/// Who to be for the server.
fn login(config: &BrokerConfig, credentials: Credentials) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if !matches!(credentials, Credentials::None) {
        if let Some(username) = config.username.as_ref().filter(|_| config.password.is_some()) {
            login = login.set_username(username);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password.expose());
        }
    }
    login
}
