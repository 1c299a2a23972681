//! The only code that talks to Kubernetes: watches in, writes out. Decides nothing.

mod busy;
pub mod config_map;
pub mod events;
pub mod execute;
pub mod gaps;
mod gated;
pub mod index;
pub mod lease;
pub mod lenient;
pub mod namespaces;
pub mod pool;
pub mod selector;
pub mod status;
pub mod version;

use std::time::Duration;

use kube::api::{PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::runtime::watcher;
use kube::{Client, Config};
use poolwright_api::FIELD_MANAGER;

use self::busy::Pause;
use crate::gate::Gate;

/// Seconds after which the API server ends a watch, to be begun anew where it ended. It costs a request a kind, and
/// bounds how long a connection that is open and dead can hide what changes.
const WATCH_ENDS: u32 = 120;
/// No byte for so long ends a watch: the server should have ended it by then.
const WATCH_SILENCE: Duration = Duration::from_secs(150);
const _: () = assert!(WATCH_SILENCE.as_secs() > WATCH_ENDS as u64);
/// No byte for so long ends any other request: a connection that is open and dead must not hold a pool's turn.
const ANSWER_SILENCE: Duration = Duration::from_secs(10);

/// Clients of one API server. The first two write only while the gate is open.
#[derive(Clone)]
pub struct Clients {
    /// For watches, which may be silent for long.
    pub watch: Client,
    /// For everything else.
    pub ask: Client,
    /// For the Lease alone: it is what opens the gate. It waits behind no other request.
    pub lease: Client,
    /// Host and port of the API server.
    pub server: (String, u16),
}

impl Clients {
    /// By the kubeconfig, or the pod's own account.
    ///
    /// # Errors
    /// Neither can be used.
    pub async fn infer(gate: &Gate) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let config = Config::infer().await.map_err(|error| no_kubeconfig(&error))?;
        let url = &config.cluster_url;
        let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let server = (
            url.host().unwrap_or_default().to_owned(),
            url.port_u16().unwrap_or(default),
        );
        let pause = Pause::default();
        Ok(Self {
            watch: patient(config.clone(), WATCH_SILENCE, gate, &pause)?,
            ask: patient(config.clone(), ANSWER_SILENCE, gate, &pause)?,
            lease: ungated(config)?,
            server,
        })
    }
}

/// What to do without a cluster: the words of the library name every place that it looked at.
#[must_use]
pub fn no_kubeconfig(error: &(dyn std::error::Error + 'static)) -> String {
    use kube::config::KubeconfigError::{FindPath, ReadConfig};
    const FIX: &str = "set KUBECONFIG to the path of one, or write ~/.kube/config, as for kubectl";
    match error.source().and_then(<dyn std::error::Error>::downcast_ref) {
        Some(FindPath) => format!("no kubeconfig: {FIX}"),
        Some(ReadConfig(cause, path)) if cause.kind() == std::io::ErrorKind::NotFound => {
            format!("no kubeconfig at {}: {FIX}", path.display())
        }
        Some(flaw) => format!("no cluster to ask: {flaw}; {FIX}"),
        None => format!("no cluster to ask: {error}"),
    }
}

/// How a kind is watched: all of it, until a label narrows it.
#[must_use]
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_ENDS)
}

/// For patches in our name.
#[must_use]
pub fn patching() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// For objects that are made, or replaced, in our name.
#[must_use]
pub fn posting() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// A client that waits no longer than this for the next byte, and writes only while the gate is open. What the server says
/// of when to come again is heeded by all of this pause.
fn patient(config: Config, silence: Duration, gate: &Gate, pause: &Pause) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(asking_once(config, silence))?
        .with_layer(&gated::layer(gate))
        .with_layer(&busy::layer(pause))
        .build())
}

/// A client for what no gate is in front of: the Lease, and a command that reads.
///
/// # Errors
///
/// The configuration cannot be used.
pub fn ungated(config: Config) -> Result<Client, kube::Error> {
    Client::try_from(asking_once(config, ANSWER_SILENCE))
}

/// Waits no longer than this for the next byte, and repeats nothing by itself: kube would wait for minutes between two tries
/// of one request, with a turn held, or a person without a word, and long after the API server is back. Whoever asks tries
/// again by itself.
fn asking_once(mut config: Config, silence: Duration) -> Config {
    (config.read_timeout, config.default_retry) = (Some(silence), false);
    config
}

/// A client where nothing listens, for what asks nobody.
#[cfg(test)]
pub(crate) fn no_cluster() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(Config::new(http::Uri::from_static("http://127.0.0.1:9"))).expect("an address")
}

/// How to reach a server of a test that answers so, for as long as the test runs.
#[cfg(test)]
pub(crate) async fn serving(router: axum::Router) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(axum::serve(listener, router).into_future());
    Config::new(address.parse().expect("an address"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::http::{StatusCode, Uri};
    use futures::stream;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use tokio::net::TcpListener;

    use super::*;
    use crate::kube::index::{Index, follow};

    #[tokio::test]
    async fn a_server_that_never_answers_ends_the_request() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        let config = Config::new(address.parse().unwrap());
        let client = patient(
            config,
            Duration::from_millis(100),
            &Gate::open(),
            &Pause::default(),
        )
        .unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(10), client.apiserver_version()).await;
        assert!(asked.expect("an end").is_err());
    }

    /// Whoever asks tries again by itself, and soon. The library would sleep ever longer between two tries, for minutes.
    #[tokio::test]
    async fn a_server_that_is_busy_is_asked_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&asked);
        let answer = move || {
            seen.fetch_add(1, Ordering::Relaxed);
            async { (StatusCode::TOO_MANY_REQUESTS, "busy") }
        };
        let config = serving(Router::new().fallback(answer)).await;
        let client = patient(config, ANSWER_SILENCE, &Gate::open(), &Pause::default()).unwrap();
        assert!(client.apiserver_version().await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    /// Both clients of an operator ask through what one of them was told.
    #[tokio::test]
    async fn when_a_busy_server_wants_to_be_asked_again_is_heeded_by_both_clients() {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&asked);
        let answer = move || {
            let busy = seen.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if busy {
                    return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "busy");
                }
                (
                    StatusCode::OK,
                    [("retry-after", "0")],
                    r#"{"major": "1", "minor": "34"}"#,
                )
            }
        };
        let config = serving(Router::new().fallback(answer)).await;
        let pause = Pause::default();
        let client = || patient(config.clone(), ANSWER_SILENCE, &Gate::open(), &pause).unwrap();
        let (first, second) = (client(), client());
        assert!(first.apiserver_version().await.is_err());
        let began = tokio::time::Instant::now();
        let _ = second.apiserver_version().await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(
            began.elapsed() > Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
    }

    /// It is open, and nothing comes: what the operator knows would grow old unseen.
    #[tokio::test]
    async fn a_watch_that_falls_silent_is_begun_anew() {
        let watches = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&watches);
        let answer = move |uri: Uri| {
            let is_watch = uri.query().is_some_and(|query| query.contains("watch=true"));
            let ends = format!("timeoutSeconds={WATCH_ENDS}");
            assert!(
                !is_watch || uri.query().is_some_and(|query| query.contains(&ends)),
                "{uri}"
            );
            seen.fetch_add(usize::from(is_watch), Ordering::Relaxed);
            async move {
                if is_watch {
                    return Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
                }
                Body::from(
                    r#"{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}"#,
                )
            }
        };
        let config = serving(Router::new().fallback(answer)).await;
        let client = patient(
            config,
            Duration::from_millis(100),
            &Gate::open(),
            &Pause::default(),
        )
        .unwrap();
        let index = Arc::new(Index::new(|pod: &Pod| pod.metadata.name.clone(), |pod| pod));
        let follows = follow(
            Api::<Pod>::all(client),
            watching(),
            (None, gaps::Gaps::default().of::<Pod>(None)),
            (index, Ok),
            || {},
            |_, _, _| {},
        );
        let twice = async {
            while watches.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let limit = tokio::time::sleep(Duration::from_secs(20));
        tokio::select! {
            () = twice => {}
            () = follows => panic!("it ended"),
            () = limit => panic!("it was not begun anew"),
        }
    }
}
