//! A wire between one client and a server, which a test can cut.
//!
//! Cut means that packets are lost and nobody is told: connections stay open and silent, new ones are accepted by nobody
//! who answers, and what was sent meanwhile arrives when the wire is whole again, as TCP has it. So a write that a client
//! sent before it gave up reaches the server late. That the client has closed its end arrives later still: a server gives up
//! what nobody waits for, and a test wants to see what it does.
//!
//! Single connections can be hushed, too: they stay open and silent, while others are made and work, as behind a middlebox
//! that has forgotten them.

use crate::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How much later than what it sent the end of a client is told, once something was late.
const LINGER: Duration = Duration::from_millis(500);

/// The wire; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    hushed: watch::Sender<u64>,
    severed: Arc<Notify>,
    late: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Lays a wire to a server.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (whole, hushed) = (watch::Sender::new(true), watch::Sender::new(0));
        let late = Arc::<AtomicUsize>::default();
        let (state, silence) = (whole.subscribe(), hushed.subscribe());
        let count = Arc::clone(&late);
        let severed = Arc::<Notify>::default();
        let end = Arc::clone(&severed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Wire {
                    whole: state.clone(),
                    hushed: silence.clone(),
                    born: *silence.borrow(),
                };
                let carried = carry(client, server, state, Arc::clone(&count));
                let severed = Arc::clone(&end);
                tokio::spawn(async move {
                    tokio::select! {
                        () = carried => {}
                        () = severed.notified() => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            whole,
            hushed,
            severed,
            late,
            task,
        })
    }

    /// Where the client's end is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes the client sent while it was cut, as far as they have been passed on since.
    pub fn late_bytes(&self) -> usize {
        self.late.load(Ordering::SeqCst)
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets every connection that there is fall silent for ever; neither side is told.
    pub fn hush(&self) {
        self.hushed.send_modify(|times| *times += 1);
    }

    /// Ends every connection that there is, and loses what was under way on it. Both sides are told.
    pub fn sever(&self) {
        self.severed.notify_waiters();
    }

    /// Makes it whole.
    pub fn restore(&self) {
        self.whole.send_replace(true);
    }
}

/// What a connection goes over.
#[derive(Clone)]
struct Wire {
    whole: watch::Receiver<bool>,
    /// How often all that there were have been hushed, and how often before this one was made.
    hushed: watch::Receiver<u64>,
    born: u64,
}

async fn carry(client: TcpStream, server: SocketAddr, mut wire: Wire, late: Arc<AtomicUsize>) {
    if wire.whole.wait_for(|whole| *whole).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, wire.clone(), late);
    let back = pass(from_server, to_client, wire, Arc::default());
    tokio::join!(there, back);
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut wire: Wire,
    late: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if *wire.hushed.borrow() > wire.born {
            return std::future::pending().await;
        }
        if !*wire.whole.borrow() {
            late.fetch_add(read, Ordering::SeqCst);
        }
        if wire.whole.wait_for(|whole| *whole).await.is_err() {
            return;
        }
        if read == 0 {
            if late.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(LINGER).await;
            }
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}
