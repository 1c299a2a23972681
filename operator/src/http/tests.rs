//! The server over a real socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::telemetry::{self, LogFormat};

struct Server {
    address: std::net::SocketAddr,
    ready: watch::Sender<bool>,
    live: watch::Sender<bool>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    // The filter lives as long as its subscriber.
    _subscriber: Box<dyn tracing::Subscriber + Send + Sync>,
}

async fn server() -> Server {
    guarded(None).await
}

async fn guarded(readers: Option<Arc<Guard>>) -> Server {
    let (subscriber, logs) = telemetry::subscriber(LogFormat::Text, false, "info", std::io::sink).unwrap();
    let (ready, ready_seen) = watch::channel(false);
    let (live, live_seen) = watch::channel(true);
    let metrics = Metrics::default();
    metrics.broker_connections(3);
    let state = HttpState {
        metrics,
        logs,
        live: flag(live_seen),
        ready: flag(ready_seen),
        readers,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, None, state, async {
        let _ = stopped.await;
    }));
    Server {
        address,
        ready,
        live,
        stop,
        task,
        _subscriber: Box::new(subscriber),
    }
}

impl Server {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }
}

#[tokio::test]
async fn health_and_readiness_follow_their_checks() {
    let server = server().await;
    assert_eq!(server.ask("GET", "/healthz", "").await, (200, "ok\n".to_owned()));
    assert_eq!(
        server.ask("GET", "/readyz", "").await,
        (503, "not ready yet\n".to_owned())
    );
    server.ready.send(true).unwrap();
    server.live.send(false).unwrap();
    assert_eq!(server.ask("GET", "/readyz", "").await.0, 200);
    assert_eq!(server.ask("GET", "/healthz", "").await.0, 503);
}

#[tokio::test]
async fn metrics_are_served() {
    let (status, body) = server().await.ask("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(body.contains("poolwright_broker_connections 3"), "{body}");
}

/// Whom the API server knows is judged in the guard's own tests; here nobody is.
#[tokio::test]
async fn guarded_metrics_are_served_to_nobody_without_a_token_and_probes_are_answered() {
    let refuses = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let client = kube::client::ClientBuilder::new(refuses, "ns").build();
    let server = guarded(Some(Arc::new(Guard::new(client)))).await;
    let (status, body) = server.ask("GET", "/metrics", "").await;
    assert_eq!(status, 401);
    assert!(!body.contains("poolwright_"), "{body}");
    assert_eq!(server.ask("GET", "/healthz", "").await.0, 200);
    assert_eq!(server.ask("GET", "/readyz", "").await.0, 503);
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let server = server().await;
    assert_eq!(
        server.ask("GET", "/log-level", "").await,
        (200, "info\n".to_owned())
    );
    let set = server.ask("PUT", "/log-level", "poolwright=debug").await;
    assert_eq!(set, (200, "poolwright=debug\n".to_owned()));
    assert_eq!(server.ask("GET", "/log-level", "").await.1, "poolwright=debug\n");
    let (status, words) = server.ask("PUT", "/log-level", "loud").await;
    assert_eq!(status, 400);
    assert!(words.starts_with("directive 1 is not LEVEL"), "{words}");
    let (status, words) = server.ask("PUT", "/log-level", "info,lapin=trace").await;
    assert_eq!(status, 400);
    assert!(
        words.starts_with("directive 2 would log lapin above off"),
        "{words}"
    );
    assert_eq!(server.ask("PUT", "/log-level", &"a".repeat(257)).await.0, 413);
    assert_eq!(server.ask("POST", "/log-level", "info").await.0, 405);
    assert_eq!(server.ask("GET", "/log-level", "").await.1, "poolwright=debug\n");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_decides_nothing_any_more_is_not_alive() {
    let (pulse, is_beating) = watch::channel(None);
    let live = beating(is_beating, Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(live(), Ok(()), "not before it has begun");
    pulse.send_replace(Some(Instant::now()));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(live(), Ok(()));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(live(), Err("nothing was decided for 65 s".to_owned()));
    pulse.send_replace(Some(Instant::now()));
    assert_eq!(live(), Ok(()));
}

/// Live, ready, and with `/metrics` open to all; and the subscriber whose level it changes while that is kept.
pub(super) fn open_state() -> (impl tracing::Subscriber, HttpState) {
    let (subscriber, logs) = telemetry::subscriber(LogFormat::Text, false, "info", std::io::sink).unwrap();
    let state = HttpState {
        metrics: Metrics::default(),
        logs,
        live: flag(watch::channel(true).1),
        ready: flag(watch::channel(true).1),
        readers: None,
    };
    (subscriber, state)
}

#[tokio::test]
async fn only_the_loopback_changes_the_log_level() {
    let (_subscriber, state) = open_state();
    let never = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    for (peer, status) in [
        ("10.1.2.3:5000", 403),
        ("[::ffff:10.1.2.3]:5000", 403),
        ("[::ffff:127.0.0.1]:5000", 200),
        ("[::1]:5000", 200),
    ] {
        let peer = ConnectInfo(peer.parse().unwrap());
        let body = match status {
            200 => Body::from("debug"),
            _ => never(),
        };
        let answer = set_log_level(State(state.clone()), peer, Request::new(body));
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
        assert_eq!(answer.expect("whose body is not waited for").status(), status);
    }
}

#[tokio::test]
async fn it_stops_when_told() {
    let server = server().await;
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
