//! Opening an AMQP connection.
//!
//! Tries the hosts of the address in turn, each for a bounded time, and gives up for good: connecting again is
//! the poller's. lapin runs a connection on its own thread and has no time limit for the handshake, so a server
//! that accepts and never speaks would keep a thread and its buffers for each attempt; [`Attempt`] closes the
//! socket under it when the attempt is dropped.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_rs::Runtime;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use poolwright_core::broker::BrokerConfig;
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::sample::FaultKind;

use super::errors;
use super::sieve::Bounds;
use super::transport::{Kit, Sifted};
use crate::signals::SignalError;
use crate::signals::network::Network;

/// AMQP heartbeat: a silent broker is noticed within twice this many seconds.
const HEARTBEAT_SECONDS: u16 = 10;
/// Largest frame that is agreed to (bytes); RabbitMQ's default is four times that. lapin sets aside 64 of them at once, so
/// a server without a limit, which 0 is, would take all memory.
pub(super) const FRAME_BYTES: u32 = 32_768;
/// The user that RabbitMQ and kombu assume when the address names none.
const DEFAULT_USER: &str = "guest";

/// What a connection is for: its name in RabbitMQ's own lists, and what may come over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    pub(super) name: &'static str,
    pub(super) bounds: Bounds,
}

/// A connection to the first host that accepts one, at an address that `network` permits.
pub(super) async fn open(
    config: &BrokerConfig,
    network: &Network,
    tls: Option<&Arc<rustls::ClientConfig>>,
    purpose: Purpose,
) -> Result<Connection, SignalError> {
    let mut last = SignalError::new(FaultKind::InvalidAddress, "the address names no host");
    for (host, port) in &config.hosts {
        let opened = async {
            let found = network.resolve(host, *port).await;
            let found = found.map_err(|unusable| unusable.error("spec.broker"))?;
            open_host(config, (host, *port), found, tls, purpose).await
        };
        match tokio::time::timeout(COMMAND_DEADLINE, opened).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if error.kind == FaultKind::Refused => return Err(error),
            Ok(Err(error)) => last = error,
            Err(_) => last = errors::unreachable("no answer from RabbitMQ in time"),
        }
    }
    Err(last)
}

async fn open_host(
    config: &BrokerConfig,
    (host, port): (&str, u16),
    found: Vec<SocketAddr>,
    tls: Option<&Arc<rustls::ClientConfig>>,
    purpose: Purpose,
) -> Result<Connection, SignalError> {
    let runtime = lapin::runtime::default_runtime().map_err(|e| errors::connecting(&e))?;
    let name = format!("poolwright {}", purpose.name);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connector = tls.map(|config| RustlsConnector::from(Arc::clone(config)));
    let attempt = Attempt::default();
    let socket = Arc::clone(&attempt.0);
    let sockets = runtime.clone();
    let dial = async move |uri: AMQPUri, _: Runtime<Kit>| {
        let steps = async {
            let host = uri.authority.host.as_str();
            let stream = AsyncTcpStream::connect(&sockets, found.clone()).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                hold(&socket, plain.get_ref())?;
            }
            match &connector {
                Some(connector) => stream.into_rustls(connector, host).await,
                None => Ok(stream),
            }
        };
        let stream = tokio::time::timeout(COMMAND_DEADLINE, steps).await;
        let stream: io::Result<_> = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(AsyncTcpStream::Plain(Sifted::new(stream?, purpose.bounds)))
    };
    let runtime = Runtime::new(Kit(runtime));
    let opened = Connection::connector(uri(config, host, port), runtime, dial, properties).await;
    let connection = opened.map_err(|error| errors::connecting(&error))?;
    attempt.succeed();
    Ok(connection)
}

fn uri(config: &BrokerConfig, host: &str, port: u16) -> AMQPUri {
    let username = config.username.as_deref().unwrap_or(DEFAULT_USER);
    let password = match (&config.password, &config.username) {
        (Some(password), _) => password.expose(),
        (None, Some(_)) => "",
        (None, None) => DEFAULT_USER,
    };
    AMQPUri {
        scheme: if config.tls.is_some() {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: username.to_owned(),
                password: password.to_owned(),
            },
            host: host.to_owned(),
            port,
        },
        vhost: config.virtual_host.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT_SECONDS),
            frame_max: Some(FRAME_BYTES),
            ..AMQPQueryString::default()
        },
    }
}

/// The socket of a connection that is not yet open, or that nobody waits for any more.
#[derive(Default)]
enum Socket {
    #[default]
    None,
    Open(std::net::TcpStream),
    Abandoned,
}

/// Closes the socket of an unfinished attempt when it is dropped.
#[derive(Default)]
struct Attempt(Arc<Mutex<Socket>>);

impl Attempt {
    /// The connection is open and closes itself from here on.
    fn succeed(self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Socket::None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Socket::Open(open) = std::mem::replace(&mut *socket, Socket::Abandoned) {
            // It may be closed already; there is nothing else to do about it.
            let _ = open.shutdown(Shutdown::Both);
        }
    }
}

fn hold(socket: &Mutex<Socket>, stream: &tokio::net::TcpStream) -> io::Result<()> {
    let copy = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*socket, Socket::Abandoned) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    *socket = Socket::Open(copy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use poolwright_core::broker::BrokerOptions;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::signals::guard::Policy;

    const TEST: Purpose = Purpose {
        name: "test",
        bounds: Bounds { body: 1, credit: 1 },
    };

    /// A method of channel 0 as a frame.
    fn frame(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
        let size = u32::try_from(arguments.len() + 4).unwrap();
        let mut bytes = vec![1, 0, 0];
        bytes.extend(size.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(method.to_be_bytes());
        bytes.extend(arguments);
        bytes.push(0xCE);
        bytes
    }

    /// The arguments of the next method.
    async fn arguments(stream: &mut TcpStream) -> Vec<u8> {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        stream.read_exact(&mut payload).await.unwrap();
        payload[4..size].to_vec()
    }

    /// Greets, says that frames may be of this size, and returns the size that was agreed to.
    async fn tuned(listener: TcpListener, frame_max: u32) -> u32 {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        let mut start = vec![0, 9, 0, 0, 0, 0];
        for text in [b"PLAIN", b"en_US"] {
            start.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            start.extend(text);
        }
        stream.write_all(&frame(10, 10, &start)).await.unwrap();
        arguments(&mut stream).await;
        let mut tune = vec![0, 0];
        tune.extend(frame_max.to_be_bytes());
        tune.extend([0, 0]);
        stream.write_all(&frame(10, 30, &tune)).await.unwrap();
        let agreed = arguments(&mut stream).await;
        u32::from_be_bytes(agreed[2..6].try_into().unwrap())
    }

    #[tokio::test]
    async fn a_server_without_a_limit_gets_frames_of_ours() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (said, agreed) in [(0, FRAME_BYTES), (u32::MAX, FRAME_BYTES), (16_384, 16_384)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("amqp://u:p@{}/", listener.local_addr().unwrap());
            let config = BrokerConfig::parse(&url, &BrokerOptions::default()).unwrap();
            let network = Network::of_machine(Policy::outside(), Vec::new());
            tokio::select! {
                found = tuned(listener, said) => assert_eq!(found, agreed, "{said}"),
                _ = open(&config, &network, None, TEST) => panic!("nothing was agreed to"),
            }
        }
    }

    /// Without the sieve this ends the whole process: the stack of the thread that reads it runs over.
    #[tokio::test]
    async fn a_greeting_of_tables_within_tables_is_no_greeting() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://u:p@{}/", listener.local_addr().unwrap());
        let config = BrokerConfig::parse(&url, &BrokerOptions::default()).unwrap();
        let network = Network::of_machine(Policy::outside(), Vec::new());
        let greets = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            let mut table = vec![b'V'];
            for _ in 0..6000 {
                let size = u32::try_from(table.len()).unwrap();
                table = [&b"A"[..], &size.to_be_bytes(), &table].concat();
            }
            let size = u32::try_from(table.len() + 2).unwrap();
            let start = [&[0, 9][..], &size.to_be_bytes(), b"\x01k", &table, &[0; 8]].concat();
            stream.write_all(&frame(10, 10, &start)).await.unwrap();
            // Until we hang up.
            let _ = stream.read(&mut [0; 8]).await;
        };
        let (opened, ()) = tokio::join!(open(&config, &network, None, TEST), greets);
        let error = opened.err().unwrap();
        assert!(error.message.contains("does not speak AMQP"), "{error}");
    }
}
