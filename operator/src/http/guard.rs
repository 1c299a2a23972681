//! Who may read the metrics: whomever Kubernetes knows by the bearer token and lets `get` the path `/metrics`.
//!
//! Decides nothing itself: it asks the API server for a `TokenReview` and a `SubjectAccessReview`, as other controllers do,
//! and remembers the answer for a while. What it cannot ask about is refused. Tokens are not kept, only a keyed hash of them.
//! Whoever could read when he was last asked about is asked about apart from all others, and remembered apart from them:
//! tokens at random, however many, make a reader neither wait nor unknown.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

use super::turns::Turns;

/// A yes counts for so long: as long as a token that was revoked may still read.
const YES_FOR: Duration = Duration::from_secs(60);
/// A no counts for so long: whoever was given the right waits no longer for it.
const NO_FOR: Duration = Duration::from_secs(10);
/// Both questions may take so long together, which is the longest that most scrapes wait.
const PATIENCE: Duration = Duration::from_secs(8);
/// Readers that are remembered, and others.
const KNOWN_MAX: usize = 256;
/// Questions at a time about readers; more wait in line, for as long as they have patience.
const RENEWING_MAX: usize = 4;

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

/// Stands for a token.
type Key = [u64; 2];

/// Who was asked about, and until when the answer counts.
#[derive(Default)]
struct Known {
    /// Whose last answer was yes. They stay when it counts no more, for they are asked about apart.
    readers: HashMap<Key, Instant>,
    others: HashMap<Key, (Verdict, Instant)>,
}

/// What is known of a token.
enum Last {
    /// An answer that still counts.
    Counts(Verdict),
    /// It was a yes.
    WasYes,
    Nothing,
}

impl Known {
    fn last(&self, key: Key) -> Last {
        let now = Instant::now();
        match (self.readers.get(&key), self.others.get(&key)) {
            (Some(until), _) if now < *until => Last::Counts(Verdict::Yes),
            (Some(_), _) => Last::WasYes,
            (None, Some((verdict, until))) if now < *until => Last::Counts(*verdict),
            _ => Last::Nothing,
        }
    }

    fn remember(&mut self, key: Key, verdict: Verdict) {
        let now = Instant::now();
        self.readers.remove(&key);
        self.others.remove(&key);
        if verdict == Verdict::Yes {
            if self.readers.len() >= KNOWN_MAX {
                let oldest = self.readers.iter().min_by_key(|(_, until)| **until);
                if let Some(oldest) = oldest.map(|(key, _)| *key) {
                    self.readers.remove(&oldest);
                }
            }
            self.readers.insert(key, now + YES_FOR);
        } else {
            if self.others.len() >= KNOWN_MAX {
                self.others.clear();
            }
            self.others.insert(key, (verdict, now + NO_FOR));
        }
    }
}

/// Asks and remembers.
pub struct Guard {
    client: Client,
    known: Mutex<Known>,
    keys: [RandomState; 2],
    renewing: Semaphore,
    turns: Turns,
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
            renewing: Semaphore::new(RENEWING_MAX),
            turns: Turns::new(),
        }
    }

    /// Judges a request by its headers. Where it comes from says only whose turn it is, if nothing is known of the token.
    pub async fn judge(&self, headers: &HeaderMap, peer: IpAddr) -> Verdict {
        let Some(token) = bearer(headers) else {
            return Verdict::Unknown;
        };
        // Two hashes with keys that nobody knows: what a forger would have to meet has 128 bits.
        let key = self.keys.each_ref().map(|one| one.hash_one(token));
        let last = self.known().last(key);
        match last {
            Last::Counts(verdict) => verdict,
            Last::WasYes => in_time(self.renew(key, token)).await,
            Last::Nothing => match self.turns.take(peer) {
                Some(_turn) => in_time(self.ask_and_remember(key, token)).await,
                None => Verdict::Unavailable,
            },
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks about a reader once more.
    async fn renew(&self, key: Key, token: &str) -> Result<Verdict, kube::Error> {
        // An error only if it were closed, which it is not.
        let _turn = self.renewing.acquire().await;
        // Those before in the line may have had the same token.
        let last = self.known().last(key);
        match last {
            Last::Counts(verdict) => Ok(verdict),
            Last::WasYes | Last::Nothing => self.ask_and_remember(key, token).await,
        }
    }

    async fn ask_and_remember(&self, key: Key, token: &str) -> Result<Verdict, kube::Error> {
        let verdict = self.ask(token).await?;
        self.known().remember(key, verdict);
        Ok(verdict)
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

/// The answer, if there is one and before the patience is at its end.
async fn in_time(question: impl Future<Output = Result<Verdict, kube::Error>>) -> Verdict {
    match timeout(PATIENCE, question).await {
        Ok(Ok(verdict)) => return verdict,
        Ok(Err(error)) => tracing::warn!("cannot ask who reads the metrics: {error}"),
        Err(_) => tracing::warn!("cannot ask who reads the metrics: no answer within {PATIENCE:?}"),
    }
    Verdict::Unavailable
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::future::join_all;
    use http::{Request, Response, StatusCode};
    use kube::client::{Body, ClientBuilder};
    use serde_json::{Value, json};
    use tokio::task::JoinSet;
    use tokio::time::{advance, sleep};
    use tower::service_fn;

    use super::super::turns::AT_ONCE;
    use super::*;

    /// An API server that knows `good` and `poor`, of which `good` may read, and never says whether it knows `hang…`.
    #[derive(Default)]
    struct Server {
        asked: AtomicUsize,
        is_down: AtomicBool,
        has_revoked: AtomicBool,
    }

    impl Server {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        async fn answer(&self, mut sent: Value) -> Response<Body> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let status = if sent["kind"] == "TokenReview" {
                let name = sent["spec"]["token"].as_str().unwrap();
                if name.starts_with("hang") {
                    std::future::pending::<()>().await;
                }
                let is_known = ["good", "poor"].contains(&name) && !self.has_revoked.load(Ordering::SeqCst);
                json!({"authenticated": is_known, "user": {"username": name}})
            } else {
                let asks = json!({"path": "/metrics", "verb": "get"});
                assert_eq!(sent["spec"]["nonResourceAttributes"], asks);
                json!({"allowed": sent["spec"]["user"] == "good"})
            };
            sent["status"] = status;
            let mut response = Response::new(Body::from(sent.to_string().into_bytes()));
            if self.is_down.load(Ordering::SeqCst) {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
    }

    fn guard() -> (Arc<Guard>, Arc<Server>) {
        let server = Arc::new(Server::default());
        let asked = Arc::clone(&server);
        let service = service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&asked);
            async move {
                let sent = request.into_body().collect_bytes().await.unwrap();
                let sent = serde_json::from_slice(&sent).unwrap();
                Ok::<_, Infallible>(server.answer(sent).await)
            }
        });
        let guard = Guard::new(ClientBuilder::new(service, "ns").build());
        (Arc::new(guard), server)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn pod(number: usize) -> IpAddr {
        let [.., high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_read_is_asked_and_remembered() {
        let (guard, server) = guard();
        let judged = async |value: &str| (guard.judge(&with(value), pod(1)).await, server.asked());
        for none in ["good", "Basic good", "Bearer ", "Bearer"] {
            assert_eq!(judged(none).await, (Verdict::Unknown, 0), "{none:?}");
        }
        assert_eq!(guard.judge(&HeaderMap::new(), pod(1)).await, Verdict::Unknown);
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 2));
        assert_eq!(judged("bearer good").await, (Verdict::Yes, 2), "it is remembered");
        assert_eq!(judged("Bearer poor").await, (Verdict::Forbidden, 4));
        assert_eq!(judged("Bearer else").await, (Verdict::Unknown, 5));
        sleep(NO_FOR).await;
        assert_eq!(judged("Bearer poor").await, (Verdict::Forbidden, 7), "asked anew");
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 7));
        sleep(YES_FOR).await;
        assert_eq!(judged("Bearer good").await, (Verdict::Yes, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_asked_is_no_yes() {
        let (guard, server) = guard();
        server.is_down.store(true, Ordering::SeqCst);
        let verdict = guard.judge(&with("Bearer good"), pod(1)).await;
        assert_eq!(verdict, Verdict::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_whose_token_is_revoked_is_refused_when_the_yes_counts_no_more() {
        let (guard, server) = guard();
        let judged = async || guard.judge(&with("Bearer good"), pod(1)).await;
        assert_eq!(judged().await, Verdict::Yes);
        server.has_revoked.store(true, Ordering::SeqCst);
        server.is_down.store(true, Ordering::SeqCst);
        sleep(YES_FOR).await;
        assert_eq!(judged().await, Verdict::Unavailable, "nobody can be asked");
        server.is_down.store(false, Ordering::SeqCst);
        assert_eq!(judged().await, Verdict::Unknown);
        assert!(guard.known().readers.is_empty(), "he is a stranger now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_answered_while_all_that_may_be_asked_about_strangers_hangs() {
        let (guard, server) = guard();
        let good = with("Bearer good");
        assert_eq!(guard.judge(&good, pod(1)).await, Verdict::Yes);
        sleep(YES_FOR).await;
        let before = server.asked();
        let mut strangers = JoinSet::new();
        for number in 0..AT_ONCE {
            let guard = Arc::clone(&guard);
            let token = with(&format!("Bearer hang{number}"));
            strangers.spawn(async move { guard.judge(&token, pod(10 + number)).await });
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(
            server.asked(),
            before + strangers.len(),
            "all of them are asked about"
        );
        let stranger = with("Bearer else");
        assert_eq!(guard.judge(&stranger, pod(20)).await, Verdict::Unavailable);
        let scrapes = join_all((0..20).map(|_| guard.judge(&good, pod(1))));
        let verdicts = timeout(Duration::from_millis(100), scrapes).await;
        assert_eq!(verdicts, Ok(vec![Verdict::Yes; 20]));
        // Those in line get what the first were told.
        let renewed = server.asked() - before - strangers.len();
        assert!((2..=2 * RENEWING_MAX).contains(&renewed), "{renewed}");
        while let Some(verdict) = strangers.join_next().await {
            assert_eq!(verdict.unwrap(), Verdict::Unavailable);
        }
        let verdict = guard.judge(&stranger, pod(20)).await;
        assert_eq!(verdict, Verdict::Unknown, "there are turns again");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_at_random_fill_no_memory_and_push_nobody_out() {
        let (guard, server) = guard();
        let good = with("Bearer good");
        assert_eq!(guard.judge(&good, pod(1)).await, Verdict::Yes);
        for number in 0..KNOWN_MAX * 3 {
            let verdict = guard.judge(&with(&format!("Bearer {number}")), pod(number)).await;
            assert_eq!(verdict, Verdict::Unknown);
            sleep(Duration::from_millis(100)).await;
        }
        assert!(guard.known().others.len() <= KNOWN_MAX);
        assert_eq!(guard.known().readers.len(), 1, "he is still known");
        let before = server.asked();
        for _ in 0..2 {
            assert_eq!(guard.judge(&good, pod(1)).await, Verdict::Yes);
        }
        assert_eq!(server.asked(), before + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_at_random_load_the_api_server_no_more_than_so_much() {
        let (guard, server) = guard();
        for number in 0..1000 {
            let token = with(&format!("Bearer {number}"));
            let verdict = guard.judge(&token, pod(number % 50)).await;
            assert!([Verdict::Unknown, Verdict::Unavailable].contains(&verdict));
            advance(Duration::from_millis(10)).await;
        }
        let asked = server.asked();
        assert!((100..=111).contains(&asked), "{asked} in ten seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn more_readers_than_are_remembered_push_out_who_was_asked_about_longest_ago() {
        let mut known = Known::default();
        for number in 0..=KNOWN_MAX as u64 {
            known.remember([number, 0], Verdict::Yes);
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(known.readers.len(), KNOWN_MAX);
        assert!(!known.readers.contains_key(&[0, 0]));
    }
}
