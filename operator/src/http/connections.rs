//! Connections to the operator's own server: how many there are at a time, and what one may take.
//!
//! Decides who goes when every place is taken: who asks for nothing, or takes nothing of his answer, before who is being
//! answered, and of these whoever has done so for longest. So who connects and is silent takes the place of his like, never that of a probe, and what
//! all of them together make the operator hold is bounded. May not look at what is asked: that is the router's.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tower::Service as _;

use super::tls::Certificate;

/// The first line of a request and its headers have no more bytes than this. A token of Kubernetes has one or two KiB.
pub(super) const HEAD_MAX: usize = 16 << 10;
/// A long answer is handed over in parts of so many bytes.
const PART: usize = 16 << 10;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// So many there are at a time.
    pub places: usize,
    /// A TLS handshake may take so long, then the head of a request, and so long may pass between two requests.
    pub silence: Duration,
    /// After so long a connection is asked no more: who wants more connects anew, as a scraper does by itself.
    pub life: Duration,
    /// And what is then being answered may take so long, as it may when the server stops. Who takes nothing of his answer
    /// for so long counts as one who asks for nothing.
    pub rest: Duration,
}

/// The limits that are served by. Two probes and two scrapers need four places; the rest is for who watches them.
pub(super) const LIMITS: Limits = Limits {
    places: 64,
    silence: Duration::from_secs(5),
    life: Duration::from_secs(60),
    rest: Duration::from_secs(10),
};

/// Serves until `shutdown` ends, then finishes the requests under way.
pub(super) async fn serve(
    mut listener: TcpListener,
    certificate: Option<Certificate>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    // Ends when this does.
    let mut follows = JoinSet::new();
    if let Some(certificate) = certificate.clone() {
        follows.spawn(certificate.follow());
    }
    let mut places = Places {
        limits,
        tasks: JoinSet::new(),
        taken: Vec::new(),
    };
    let (stopping, stop) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut shutdown => break,
        };
        places.make_room().await;
        let doing = Arc::new(Doing(Mutex::new((false, Instant::now()))));
        let connection = Connection {
            peer,
            router: router.clone(),
            limits,
            doing: Arc::clone(&doing),
            stop: stop.clone(),
        };
        let task = places.tasks.spawn(connection.begin(stream, certificate.clone()));
        places.taken.push((doing, task));
    }
    drop(listener);
    // Which each connection sees.
    drop(stopping);
    while places.tasks.join_next().await.is_some() {}
}

/// What a connection does: whether it is being answered, and since when it is as it is or has taken the last part.
struct Doing(Mutex<(bool, Instant)>);

impl Doing {
    fn set(&self, is_answered: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (is_answered, Instant::now());
    }

    fn get(&self) -> (bool, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is connected.
struct Places {
    limits: Limits,
    tasks: JoinSet<()>,
    taken: Vec<(Arc<Doing>, AbortHandle)>,
}

impl Places {
    /// Waits until there is a place, and ends whom it must for that. Waits until he is gone, too: his memory is.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= self.limits.places {
            let there = self.taken.iter().filter(|(_, task)| !task.is_finished());
            let rank = |doing: &Doing| {
                let (is_answered, since) = doing.get();
                (is_answered && since.elapsed() < self.limits.rest, since)
            };
            if let Some((_, task)) = there.min_by_key(|(doing, _)| rank(doing)) {
                task.abort();
            }
            self.tasks.join_next().await;
        }
        self.taken.retain(|(_, task)| !task.is_finished());
    }
}

/// A connection that has a place.
struct Connection {
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    doing: Arc<Doing>,
    /// Changes when the server stops.
    stop: watch::Receiver<()>,
}

impl Connection {
    async fn begin(self, stream: TcpStream, certificate: Option<Certificate>) {
        let Some(certificate) = certificate else {
            self.hold(stream).await;
            return;
        };
        let peer = self.peer;
        match timeout(self.limits.silence, certificate.handshake(stream)).await {
            Ok(Ok(stream)) => self.hold(stream).await,
            Ok(Err(error)) => tracing::debug!(%peer, "no TLS: {error}"),
            Err(_) => tracing::debug!(%peer, "no TLS within {:?}", self.limits.silence),
        }
    }

    /// Answers until the client has gone or its time is over.
    async fn hold(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            peer,
            router,
            limits,
            doing,
            mut stop,
        } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            doing.set(true);
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answer, doing) = (router.clone().call(request), Arc::clone(&doing));
            async move {
                let answer = answer.await;
                answer.map(|answer| answer.map(|body| Sending { body, doing }))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Counts from the end of the answer before, so that it is for how long nothing need be asked, too.
            .header_read_timeout(limits.silence)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let over = async {
            tokio::select! {
                _ = stop.changed() => {}
                () = sleep(limits.life) => {}
            }
        };
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, "a connection has ended: {error}");
                }
                return;
            }
            () = over => connection.as_mut().graceful_shutdown(),
        }
        if timeout(limits.rest, connection).await.is_err() {
            tracing::debug!(%peer, "a connection is cut off");
        }
    }
}

/// The body of an answer. Its connection is being answered until hyper drops this: when it has taken the last of it, or
/// at once if there is nothing to send.
struct Sending {
    body: Body,
    doing: Arc<Doing>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.doing.set(false);
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.doing.set(true);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A text that is handed over in parts. Whole, hyper would take it for sent, and count from then on how long the next
/// request takes to come: who reads slowly would be cut off.
pub(super) struct InParts(Bytes);

impl InParts {
    pub(super) fn new(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }
}

impl HttpBody for InParts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = PART.min(self.0.len());
        Poll::Ready((next > 0).then(|| Ok(Frame::data(self.0.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
