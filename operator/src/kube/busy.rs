//! The layer around kube's client that leaves an API server alone for as long as it asks to be.
//!
//! One answer keeps back all that this process asks after it, watches as well, but not the Lease: they are refused for the
//! same reason, and each would only add to it. Decides nothing else: a request that was refused stays refused, and whoever asked tries again
//! by its own rules. Outside of the [`Gate`](crate::gate::Gate), so that what waits here is not under way.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode, header};
use tokio::time::{Instant, sleep_until};
use tower::util::MapFutureLayer;

/// No answer keeps us back for longer: another server may answer by then, and what is decided grows old. One that shuts
/// down asks for this long, and one that has too much to do for a second.
const LONGEST: Duration = Duration::from_secs(5);

/// Until when nothing is asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause(Arc<Mutex<Option<Instant>>>);

impl Pause {
    fn until(&self) -> Option<Instant> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    fn heed(&self, status: StatusCode, headers: &HeaderMap) {
        let Some(wait) = asks_for(status, headers) else {
            return;
        };
        let until = Instant::now() + wait;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known < until) {
            *known = Some(until);
        }
    }
}

/// How long an answer asks to be left alone (RFC 9110, `Retry-After` in seconds).
fn asks_for(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_busy = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let seconds = headers.get(header::RETRY_AFTER).filter(|_| is_busy)?;
    let seconds = seconds.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// Lets a client's service heed what any service of this pause was told.
pub(super) fn layer<A, R, E>(
    pause: &Pause,
) -> MapFutureLayer<impl Fn(A) -> BoxFuture<'static, Result<Response<R>, E>> + Clone + use<A, R, E>>
where
    A: Future<Output = Result<Response<R>, E>> + Send + 'static,
    R: 'static,
    E: 'static,
{
    let pause = pause.clone();
    MapFutureLayer::new(move |answer: A| {
        let pause = pause.clone();
        async move {
            while let Some(until) = pause.until() {
                sleep_until(until).await;
            }
            // Nothing was asked before this is polled.
            let answer = answer.await?;
            pause.heed(answer.status(), answer.headers());
            Ok(answer)
        }
        .boxed()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Request;
    use kube::Client;
    use kube::client::{Body, ClientBuilder};
    use tokio::time::advance;
    use tower::service_fn;

    use super::*;

    fn headers(after: &str) -> HeaderMap {
        [(header::RETRY_AFTER, after.parse().unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn only_a_busy_server_is_left_alone_and_never_for_long() {
        let busy = StatusCode::TOO_MANY_REQUESTS;
        let second = Some(Duration::from_secs(1));
        assert_eq!(asks_for(busy, &headers("1")), second);
        assert_eq!(asks_for(StatusCode::SERVICE_UNAVAILABLE, &headers(" 1 ")), second);
        assert_eq!(asks_for(busy, &headers("86400")), Some(LONGEST));
        for odd in ["", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(asks_for(busy, &headers(odd)), None, "{odd}");
        }
        assert_eq!(asks_for(busy, &HeaderMap::new()), None);
        assert_eq!(asks_for(StatusCode::CREATED, &headers("1")), None);
    }

    /// A client whose server is busy when it is asked first, and how often it was asked.
    fn client(pause: &Pause) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&asked);
        let answer = service_fn(move |_: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let busy = seen.fetch_add(1, Ordering::Relaxed) == 0;
                let answer = Response::builder().status(if busy { 429 } else { 200 });
                let answer = if busy {
                    answer.header(header::RETRY_AFTER, "2")
                } else {
                    answer
                };
                answer.body(Body::from(b"{}".to_vec()))
            }
        });
        let client = ClientBuilder::new(answer, "default")
            .with_layer(&layer(pause))
            .build();
        (client, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_request_is_told_all_of_them_heed() {
        let pause = Pause::default();
        let ((first, asked), (second, asked_too)) = (client(&pause), client(&pause));
        let ask = |client: Client| async move { client.request_text(Request::new(Vec::new())).await };
        assert!(ask(first.clone()).await.is_err(), "it is not repeated");
        let began = Instant::now();
        let waits = [tokio::spawn(ask(first)), tokio::spawn(ask(second))];
        advance(Duration::from_millis(1990)).await;
        tokio::task::yield_now().await;
        let so_far = [&asked, &asked_too].map(|asked| asked.load(Ordering::Relaxed));
        assert_eq!(so_far, [1, 0]);
        let [again, other] = waits.map(|wait| async { wait.await.unwrap() });
        assert!(again.await.is_ok());
        assert!(other.await.is_err(), "its own server was busy, too");
        assert!(began.elapsed() >= Duration::from_secs(2));
    }
}
