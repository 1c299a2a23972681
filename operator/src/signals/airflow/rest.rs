//! Airflow's REST API: version 1 of 2.x, version 2 of 3.x.
//!
//! Knows where the two differ and nothing of why they are asked. Tokens are kept in memory, and renewed when Airflow
//! refuses one; no byte of an answer is repeated anywhere but names, numbers and descriptions of pools.

use std::time::{Duration, Instant};

use poolwright_api::v1alpha1::DEFAULT_AIRFLOW_POOL;
use poolwright_core::airflow_pool::Wanted;
use poolwright_core::broker::Secret;
use poolwright_core::sample::FaultKind;
use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::{Pools, PoolsAnswer, Tasks, TasksAnswer, TokenAnswer, VersionAnswer};
use super::tasks::Filter;
use super::{Access, Credentials};
use crate::signals::SignalError;
use crate::signals::network::Network;
use crate::signals::tls::client_config;
use crate::signals::web::{self, Broken};

/// Rows of a page: more than so many no Airflow gives, whatever it is asked for.
pub(super) const PAGE: usize = 100;
/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(5);
/// So long a version is believed.
const VERSION_INTERVAL: Duration = Duration::from_secs(60);
/// Largest answer: a hundred tasks with long configurations.
const MAX_BODY: usize = 4 << 20;
/// Where the address comes from.
const FIELD: &str = "url in the Secret of spec.airflow.secretRef";

/// Which Airflow it is.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// As it says it, such as `3.3.2`.
    pub(super) text: String,
    /// 2 or 3.
    pub(super) major: u32,
}

impl Version {
    fn api(&self) -> &'static str {
        if self.major == 2 { "v1" } else { "v2" }
    }
}

/// A session.
pub(super) struct Rest {
    client: Client,
    network: Network,
    root: Url,
    credentials: Credentials,
    version: Option<Version>,
    /// When it was asked for.
    asked: Option<Instant>,
    /// Whether it was 2.x, which is asked in its own way first.
    was_two: bool,
    token: Option<Secret>,
    /// Requests that were sent.
    pub(super) requests: u64,
}

/// An answer of any status.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// Whether it finds no pool of this name. 3.0 takes a name with a slash for another path, and lets nobody change that.
    fn finds_none(&self, name: &str) -> bool {
        self.status == StatusCode::NOT_FOUND
            || self.status == StatusCode::METHOD_NOT_ALLOWED && name.contains('/')
    }

    fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, SignalError> {
        serde_json::from_slice(&self.body).map_err(|_| {
            let words =
                format!("answers with something else than {what}: is its url in the Secret the root?");
            fault(FaultKind::Implausible, &words)
        })
    }
}

impl Rest {
    pub(super) fn new(access: &Access, network: &Network) -> Result<Self, SignalError> {
        let invalid = || {
            let words = "url in the Secret of spec.airflow.secretRef must be http or https and hold no user, password, query or fragment";
            SignalError::new(FaultKind::InvalidAddress, words)
        };
        let root = Url::parse(&access.url).map_err(|_| invalid())?;
        let has_user = !root.username().is_empty() || root.password().is_some();
        let more = has_user || root.query().is_some() || root.fragment().is_some();
        if !matches!(root.scheme(), "http" | "https") || more || root.cannot_be_a_base() {
            return Err(invalid());
        }
        let client = web::client(client_config(&access.tls)?, network, &root, DEADLINE);
        Ok(Self {
            client: client.ok_or_else(invalid)?,
            network: network.clone(),
            root,
            credentials: access.credentials.clone(),
            version: None,
            asked: None,
            was_two: false,
            token: None,
            requests: 0,
        })
    }

    /// The version, as far as it is known.
    pub(super) fn known(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Whatever answers next may be of another version.
    pub(super) fn forget_version(&mut self) {
        self.version = None;
    }

    /// Forgets a version that is old: an Airflow is upgraded where it stands.
    pub(super) fn expire(&mut self) {
        if self.asked.is_none_or(|at| at.elapsed() >= VERSION_INTERVAL) {
            self.forget_version();
        }
    }

    /// The version; asked for where it is not known.
    pub(super) async fn version(&mut self) -> Result<&Version, SignalError> {
        if self.version.is_none() {
            let (first, other) = if self.was_two { ("v1", "v2") } else { ("v2", "v1") };
            let mut answer = self
                .send(Method::GET, self.url(&["api", first, "version"]), None)
                .await?;
            if answer.status == StatusCode::NOT_FOUND {
                answer = self
                    .send(Method::GET, self.url(&["api", other, "version"]), None)
                    .await?;
            }
            check(&answer)?;
            let said: VersionAnswer = answer.read("its version")?;
            let known = Version::read(&said.version);
            let unknown = || {
                let words = "is of another version than 2 and 3, which are known";
                fault(FaultKind::Implausible, words)
            };
            let known = known.ok_or_else(unknown)?;
            self.was_two = known.major == 2;
            self.version = Some(known);
            self.asked = Some(Instant::now());
        }
        self.version
            .as_ref()
            .ok_or_else(|| fault(FaultKind::Implausible, "has no version"))
    }

    pub(super) async fn pools(&mut self, offset: usize) -> Result<Pools, SignalError> {
        let query = [("limit", PAGE.to_string()), ("offset", offset.to_string())];
        let answer = self.ask(Method::GET, &["pools"], &query, None).await?;
        let major = self.version().await?.major;
        if major == 2 && answer.status == StatusCode::INTERNAL_SERVER_ERROR {
            let words = "2.x answers its list of pools with status 500, as it does while one of them has no limit (-1 slots): \
                         give that one a number, or put databaseUrl into the Secret; if none has, its log says why";
            return Err(fault(FaultKind::Implausible, words));
        }
        check(&answer)?;
        Ok(answer.read::<PoolsAnswer>("its pools")?.into())
    }

    /// Whether these credentials may read pools here: also where all else is read elsewhere.
    pub(super) async fn prove(&mut self) -> Result<(), SignalError> {
        let path = ["pools", DEFAULT_AIRFLOW_POOL];
        let answer = self.ask(Method::GET, &path, &[], None).await?;
        // So 2.x answers where that one has no limit, to whoever may read it.
        let is_two = self.known().is_some_and(|version| version.major == 2);
        if is_two && answer.status == StatusCode::INTERNAL_SERVER_ERROR {
            return Ok(());
        }
        check(&answer)
    }

    /// One page of tasks.
    pub(super) async fn tasks(&mut self, filter: Filter, offset: usize) -> Result<Tasks, SignalError> {
        let mut query = vec![("limit", PAGE.to_string()), ("offset", offset.to_string())];
        let states = match filter {
            Filter::Active => &["running", "queued", "scheduled"][..],
            Filter::RunningSince(since) => {
                query.push(("start_date_lte", format!("{since:.0}")));
                &["running"]
            }
        };
        query.extend(states.iter().map(|state| ("state", (*state).to_owned())));
        let path = ["dags", "~", "dagRuns", "~", "taskInstances"];
        let answer = self.ask(Method::GET, &path, &query, None).await?;
        check(&answer)?;
        Ok(answer.read::<TasksAnswer>("its task instances")?.into())
    }

    pub(super) async fn create(&mut self, wanted: &Wanted) -> Result<bool, SignalError> {
        let answer = self
            .ask(Method::POST, &["pools"], &[], Some(body(wanted)))
            .await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(false);
        }
        check(&answer).map(|()| true)
    }

    pub(super) async fn change(&mut self, wanted: &Wanted) -> Result<bool, SignalError> {
        let mut query = Vec::new();
        let mut change = body(wanted);
        if wanted.name == DEFAULT_AIRFLOW_POOL {
            // Of this one only some fields may be named. 3.x wants one parameter for each of them, 2.x one for all.
            change = json!({
                "name": wanted.name,
                "slots": wanted.slots,
                "include_deferred": wanted.include_deferred,
            });
            query = if self.version().await?.major == 2 {
                vec![("update_mask", "slots,include_deferred".to_owned())]
            } else {
                ["slots", "include_deferred"]
                    .map(|field| ("update_mask", field.to_owned()))
                    .into()
            };
        }
        let answer = self
            .ask(Method::PATCH, &["pools", &wanted.name], &query, Some(change))
            .await?;
        if answer.finds_none(&wanted.name) {
            self.findable(&wanted.name, &answer)?;
            // Or it is of another version by now.
            self.forget_version();
            return Ok(false);
        }
        check(&answer).map(|()| true)
    }

    pub(super) async fn delete(&mut self, name: &str) -> Result<(), SignalError> {
        let path = ["pools", name];
        let mut answer = self.ask(Method::DELETE, &path, &[], None).await?;
        if answer.finds_none(name) {
            // Of another version not even the path is there.
            self.forget_version();
            answer = self.ask(Method::DELETE, &path, &[], None).await?;
        }
        if answer.finds_none(name) {
            return self.findable(name, &answer);
        }
        check(&answer)
    }

    /// Whether "not found" is true of a pool of this name.
    fn findable(&self, name: &str, answer: &Answer) -> Result<(), SignalError> {
        let which = if self.known().is_some_and(|known| known.major == 2) {
            "2.x"
        } else if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            "this version"
        } else {
            return Ok(());
        };
        if name.contains('/') {
            let words = format!("{which} finds no pool with a slash in its name: change and delete it there");
            return Err(fault(FaultKind::Implausible, &words));
        }
        Ok(())
    }

    /// Asks below the API, with a session; one that Airflow refuses is made anew once.
    async fn ask(
        &mut self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> Result<Answer, SignalError> {
        let api = self.version().await?.api();
        let mut url = self.url(&[&["api", api], path].concat());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let fresh = self.log_in().await?;
        let answer = self.send(method.clone(), url.clone(), body.clone()).await?;
        // A token that is none any more gets 403 from some versions, and so does a user without the right, who need not
        // log in for that again.
        let is_token = || answer.body.windows(3).any(|part| part == b"JWT");
        let stale =
            answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN && is_token();
        if fresh || !stale || self.token.take().is_none() {
            return Ok(answer);
        }
        self.log_in().await?;
        self.send(method, url, body).await
    }

    /// Makes a session where one is needed and there is none; true if it has.
    async fn log_in(&mut self) -> Result<bool, SignalError> {
        let Credentials::Password(username, password) = &self.credentials else {
            return Ok(false);
        };
        if self.version.as_ref().is_none_or(|version| version.major == 2) || self.token.is_some() {
            return Ok(false);
        }
        let login = json!({"username": username, "password": password.expose()});
        let answer = self
            .send(Method::POST, self.url(&["auth", "token"]), Some(login))
            .await?;
        check(&answer)?;
        self.token = Some(Secret::new(answer.read::<TokenAnswer>("a token")?.access_token));
        Ok(true)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&mut self, method: Method, url: Url, body: Option<Value>) -> Result<Answer, SignalError> {
        let judged = self.network.check_literal(&url).await;
        judged.map_err(|unusable| unusable.error(FIELD))?;
        self.requests += 1;
        let mut request = self.client.request(method, url);
        request = match (&self.credentials, &self.token) {
            (_, Some(token)) | (Credentials::Token(token), _) => request.bearer_auth(token.expose()),
            (Credentials::Password(name, password), None)
                if self.known().is_some_and(|known| known.major == 2) =>
            {
                request.basic_auth(name, Some(password.expose()))
            }
            _ => request,
        };
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = web::body(response, MAX_BODY)
            .await
            .map_err(|broken| match broken {
                Broken::Long => fault(FaultKind::Implausible, "answers with more than 4 MiB"),
                Broken::Off(error) => failed(&error),
            })?;
        Ok(Answer { status, body })
    }
}

/// A pool as both versions take it.
fn body(wanted: &Wanted) -> Value {
    json!({
        "name": wanted.name,
        "slots": wanted.slots,
        "description": wanted.description,
        "include_deferred": wanted.include_deferred,
    })
}

fn check(answer: &Answer) -> Result<(), SignalError> {
    Err(match answer.status {
        status if status.is_success() => return Ok(()),
        StatusCode::UNAUTHORIZED => fault(
            FaultKind::Refused,
            "refuses the credentials: correct those in the Secret of spec.airflow.secretRef",
        ),
        StatusCode::FORBIDDEN => fault(
            FaultKind::Refused,
            "refuses: the credentials in the Secret of spec.airflow.secretRef are wrong, or that user lacks the role (Op \
             for sync Apply, Viewer for Mirror)",
        ),
        StatusCode::NOT_FOUND => fault(
            FaultKind::Implausible,
            "is not what answers, or is older than 2: is its url in the Secret the root?",
        ),
        other if other.is_redirection() => fault(
            FaultKind::InvalidAddress,
            "answers with a redirect, which is not followed: write the address that it leads to",
        ),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => fault(
            FaultKind::Implausible,
            "does not take the pool as this version writes it",
        ),
        other => fault(
            FaultKind::Unreachable,
            &format!("answers with status {}", other.as_u16()),
        ),
    })
}

fn failed(error: &reqwest::Error) -> SignalError {
    web::failed(error, ("Airflow", FIELD), DEADLINE)
}

/// A failure of Airflow.
pub(super) fn fault(kind: FaultKind, words: &str) -> SignalError {
    SignalError::new(kind, format!("Airflow {words}"))
}
