//! Who may read the metrics: whomever Kubernetes knows by the bearer token and lets `get` the path `/metrics`.
//!
//! Decides nothing itself: it asks the API server for a `TokenReview` and a `SubjectAccessReview`, as other controllers do,
//! and remembers the answer for a while. What it cannot ask about is refused. Tokens are not kept, only a keyed hash of them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// A yes counts for so long: as long as a token that was revoked may still read.
const YES_FOR: Duration = Duration::from_secs(60);
/// A no counts for so long: whoever was given the right waits no longer for it.
const NO_FOR: Duration = Duration::from_secs(10);
/// Both questions may take so long together, which is the longest that most scrapes wait.
const PATIENCE: Duration = Duration::from_secs(8);
/// Answers that are remembered.
const KNOWN_MAX: usize = 256;
/// Questions at a time: whoever sends tokens at random must not load the API server.
const ASKING_MAX: usize = 4;

/// Whether a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Yes,
    /// There is no token, or Kubernetes does not know it.
    Unknown,
    /// Its user may not.
    Forbidden,
    /// Nobody could be asked.
    Unavailable,
}

/// Asks and remembers.
pub struct Guard {
    client: Client,
    known: Mutex<HashMap<[u64; 2], (Verdict, Instant)>>,
    keys: [RandomState; 2],
    asking: Semaphore,
}

impl Guard {
    /// One that knows nobody yet. The client must not wait for this process to lead: a replica that stands by has metrics
    /// too.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
            keys: [RandomState::new(), RandomState::new()],
            asking: Semaphore::new(ASKING_MAX),
        }
    }

    /// Judges a request by its headers.
    pub async fn judge(&self, headers: &HeaderMap) -> Verdict {
        let Some(token) = bearer(headers) else {
            return Verdict::Unknown;
        };
        // Two hashes with keys that nobody knows: what a forger would have to meet has 128 bits.
        let key = self.keys.each_ref().map(|one| one.hash_one(token));
        if let Some(verdict) = self.remembered(key) {
            return verdict;
        }
        let Ok(_turn) = self.asking.try_acquire() else {
            return Verdict::Unavailable;
        };
        let verdict = match timeout(PATIENCE, self.ask(token)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::warn!("cannot ask who reads the metrics: {error}");
                return Verdict::Unavailable;
            }
            Err(_) => {
                tracing::warn!("cannot ask who reads the metrics: no answer within {PATIENCE:?}");
                return Verdict::Unavailable;
            }
        };
        self.remember(key, verdict);
        verdict
    }

    fn remembered(&self, key: [u64; 2]) -> Option<Verdict> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (verdict, until) = known.get(&key)?;
        (Instant::now() < *until).then_some(*verdict)
    }

    fn remember(&self, key: [u64; 2], verdict: Verdict) {
        let now = Instant::now();
        let until = now + if verdict == Verdict::Yes { YES_FOR } else { NO_FOR };
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (verdict, until)| *verdict == Verdict::Yes && now < *until);
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, (verdict, until));
        }
    }

    async fn ask(&self, token: &str) -> Result<Verdict, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await?;
        let status = reviewed.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Verdict::Unknown);
        };
        let access = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let accesses: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = accesses.create(&PostParams::default(), &access).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok(if allowed { Verdict::Yes } else { Verdict::Forbidden })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::{Body, ClientBuilder};
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// An API server that knows `good` and `poor`, of which `good` may read, and the number of questions it was asked.
    fn server(is_up: bool) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                let sent: Value =
                    serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                let status = if sent["kind"] == "TokenReview" {
                    let name = sent["spec"]["token"].clone();
                    json!({"authenticated": name == "good" || name == "poor", "user": {"username": name}})
                } else {
                    let asks = json!({"path": "/metrics", "verb": "get"});
                    assert_eq!(sent["spec"]["nonResourceAttributes"], asks);
                    json!({"allowed": sent["spec"]["user"] == "good"})
                };
                let mut answer = sent;
                answer["status"] = status;
                let response = Response::builder().status(if is_up { 201 } else { 500 });
                Ok::<_, Infallible>(
                    response
                        .body(Body::from(answer.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        (ClientBuilder::new(service, "ns").build(), asked)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_read_is_asked_and_remembered() {
        let (client, asked) = server(true);
        let guard = Guard::new(client);
        let judged = async |value: &str| (guard.judge(&with(value)).await, asked.load(Ordering::SeqCst));
        for none in ["good", "Basic good", "Bearer ", "Bearer"] {
            assert_eq!(judged(none).await, (Verdict::Unknown, 0), "{none:?}");
        }
        assert_eq!(guard.judge(&HeaderMap::new()).await, Verdict::Unknown);
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 2));
        assert_eq!(judged("bearer good").await, (Verdict::Yes, 2), "it is remembered");
        assert_eq!(judged("Bearer poor").await, (Verdict::Forbidden, 4));
        assert_eq!(judged("Bearer else").await, (Verdict::Unknown, 5));
        tokio::time::sleep(NO_FOR).await;
        assert_eq!(judged("Bearer poor").await, (Verdict::Forbidden, 7), "asked anew");
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 7));
        tokio::time::sleep(YES_FOR).await;
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_asked_is_no_yes() {
        let (client, _) = server(false);
        assert_eq!(
            Guard::new(client).judge(&with("Bearer good")).await,
            Verdict::Unavailable
        );
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_at_random_fill_no_memory_and_push_nobody_out() {
        let (client, asked) = server(true);
        let guard = Guard::new(client);
        assert_eq!(guard.judge(&with("Bearer good")).await, Verdict::Yes);
        for number in 0..KNOWN_MAX * 3 {
            let verdict = guard.judge(&with(&format!("Bearer {number}"))).await;
            assert_eq!(verdict, Verdict::Unknown);
        }
        assert!(guard.known.lock().unwrap().len() <= KNOWN_MAX);
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(guard.judge(&with("Bearer good")).await, Verdict::Yes);
        assert_eq!(asked.load(Ordering::SeqCst), before);
    }
}
