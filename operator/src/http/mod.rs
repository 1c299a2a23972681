//! The operator's HTTP server: health, readiness, metrics and the log level.
//!
//! Everything but the log level is read-only, and nothing here may ask a broker or Kubernetes: an answer is made from
//! what the process already knows, so that a slow broker cannot fail a probe. The one exception is who reads the metrics,
//! where that is asked for. Who may reach the server is decided by
//! the address it listens on: outside a pod the loopback, inside one the pod's own network. What changes something is
//! taken from the loopback alone, which `kubectl port-forward` reaches too. How many connections there are, and for how
//! long, is decided apart, in `connections`.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::telemetry::{DIRECTIVES_BYTES_MAX, LogHandle};

use self::connections::InParts;
use self::guard::{Guard, Verdict};
use self::tls::Certificate;

mod connections;
#[cfg(test)]
mod connections_tests;
pub mod guard;
#[cfg(test)]
mod tests;
pub mod tls;
#[cfg(test)]
mod tls_tests;
mod turns;

/// A check: `Err` says in words what is wrong. Must return at once.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the server answers from.
#[derive(Clone)]
pub struct HttpState {
    /// The numbers of `/metrics`.
    pub metrics: Metrics,
    /// The filter behind `/log-level`.
    pub logs: LogHandle,
    /// Whether the process should go on living; `Err` makes Kubernetes restart it.
    pub live: Check,
    /// Whether the process does its work.
    pub ready: Check,
    /// Who may read the metrics; `None` is everybody.
    pub readers: Option<Arc<Guard>>,
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState").finish_non_exhaustive()
    }
}

/// A check that passes while the newest value of `flag` is true.
#[must_use]
pub fn flag(flag: watch::Receiver<bool>) -> Check {
    Arc::new(move || {
        if *flag.borrow() {
            Ok(())
        } else {
            Err("not ready yet".to_owned())
        }
    })
}

/// A check that fails when the last beat is more than `most` ago; before the first one it passes.
#[must_use]
pub fn beating(pulse: watch::Receiver<Option<Instant>>, most: Duration) -> Check {
    Arc::new(move || {
        let silent = pulse.borrow().map(|last| last.elapsed());
        match silent.filter(|silent| *silent > most) {
            Some(silent) => Err(format!("nothing was decided for {} s", silent.as_secs())),
            None => Ok(()),
        }
    })
}

/// Serves until `shutdown` ends, then finishes the requests under way; over TLS with a certificate, and then nothing
/// without it.
///
/// # Errors
///
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    certificate: Option<Certificate>,
    state: HttpState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let scheme = if certificate.is_some() { "https" } else { "http" };
    tracing::info!(%address, "serving health, metrics and the log level at {scheme}://{address}");
    connections::serve(
        listener,
        certificate,
        router(state),
        connections::LIMITS,
        shutdown,
    )
    .await;
    Ok(())
}

/// The routes.
fn router(state: HttpState) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(DIRECTIVES_BYTES_MAX))
        .with_state(state)
}

async fn healthz(State(state): State<HttpState>) -> Response {
    outcome((state.live)())
}

async fn readyz(State(state): State<HttpState>) -> Response {
    outcome((state.ready)())
}

async fn metrics(
    State(state): State<HttpState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if let Some(guard) = &state.readers {
        match guard.judge(&headers, peer.ip().to_canonical()).await {
            Verdict::Yes => {}
            Verdict::Unknown => {
                let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
                let words = "the metrics want a bearer token that Kubernetes knows\n";
                return (StatusCode::UNAUTHORIZED, scheme, words).into_response();
            }
            Verdict::Forbidden => {
                let words =
                    "this account may not read the metrics: it needs the verb get on the path /metrics\n";
                return (StatusCode::FORBIDDEN, words).into_response();
            }
            Verdict::Unavailable => {
                let words = "whether this account may read the metrics cannot be asked at the moment\n";
                return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
            }
        }
    }
    let format = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    let body = Body::new(InParts::new(state.metrics.render()));
    (format, body).into_response()
}

async fn log_level(State(state): State<HttpState>) -> String {
    format!("{}\n", state.logs.current())
}

/// A browser cannot be made to send this across sites: PUT needs a preflight, which nothing here answers. The body of
/// whoever may not is not waited for.
async fn set_log_level(
    State(state): State<HttpState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        let words = "the log level is changed from the loopback only: use kubectl port-forward\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let Ok(directives) = std::str::from_utf8(&body) else {
        return (StatusCode::BAD_REQUEST, "the body is not UTF-8 text\n").into_response();
    };
    match state.logs.set(directives) {
        Ok(()) => {
            let directives = state.logs.current();
            tracing::info!(directives, "log level changed");
            (StatusCode::OK, format!("{directives}\n")).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

fn outcome(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")).into_response(),
    }
}
