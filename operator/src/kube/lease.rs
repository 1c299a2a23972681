//! Leader election: who of several operators of one scope decides and writes.
//!
//! Decides when this process holds the Lease and until when that is proven, and tells the [`Gate`], which every write
//! passes; [`step`] judges what is read, here it is sent. Writes nothing but the Lease, always by replacing what was read,
//! so that a conflict shows whoever else has written it. A renewal is proven from the moment *before* it was sent, and the
//! gate shuts two thirds of the duration after that: whoever waits counts the whole duration, from when it *saw* the last
//! change. Between the two a third of the duration is left, in which writes that were sent arrive or never do.
//!
//! A Lease is no fence: a write may be under way for longer. Whatever changes an object that is there carries a
//! resourceVersion therefore, with a lease and without.
//!
//! Who has lost the lease ends its process; nothing is taken back into a new tenure. Pollers and rounds are tasks of
//! their own that would have to be found and ended one by one, and what they remember (who was seen to idle, what was
//! written a moment ago) was true of a world in which nobody else wrote. A new process has the one start that is tested
//! most, and Kubernetes starts it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::step::{Candidate, Look, Renewal, Timing};
use super::posting;
use super::selector::Selector;
use crate::gate::Gate;

pub mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;

/// That the Lease cannot be read is said again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// Most characters of what a holder says of its namespaces.
const SCOPE_MAX: usize = 1000;
/// Releasing it may take so long.
const RELEASE: Duration = Duration::from_millis(700);

/// Which Lease, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a process leads no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Another has taken it.
    #[error("lost the lease {0}: {1} holds it; this process ends, so that a new one can wait for its turn")]
    Taken(String, String),
    /// It could not be renewed.
    #[error(
        "lost the lease {0}: it could not be renewed for {1} s ({2}); this process ends, so that a new one can wait for \
         its turn"
    )]
    Late(String, u64, String),
}

/// Takes part in the election of one Lease.
pub struct Elector {
    api: Api<Lease>,
    name: Name,
    candidate: Candidate,
    gate: Gate,
    wall: fn() -> Timestamp,
    /// The Lease as this process wrote it last; `None` when it must be read again.
    known: Option<Lease>,
    /// When the last good write of it was sent.
    proven: Instant,
    trouble: watch::Sender<Option<String>>,
    said: Option<(String, Instant)>,
}

/// What is wrong with the Lease, so that this process can never lead; `None` while nothing is.
pub type Trouble = watch::Receiver<Option<String>>;

impl Elector {
    /// One that holds nothing yet. The client must not wait behind this gate.
    #[must_use]
    pub fn new(
        client: Client,
        name: Name,
        identity: String,
        scope: String,
        timing: Timing,
        gate: Gate,
        wall: fn() -> Timestamp,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &name.namespace),
            candidate: Candidate::new(identity, scope, timing),
            name,
            gate,
            wall,
            known: None,
            proven: Instant::now(),
            trouble: watch::Sender::new(None),
            said: None,
        }
    }

    /// What keeps it from ever leading.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.trouble.subscribe()
    }

    /// Returns when this process holds the Lease.
    pub async fn acquire(&mut self) {
        let (lease, identity) = (self.name.to_string(), self.candidate.identity.clone());
        tracing::info!(lease, identity, "standing by for the lease");
        loop {
            match self.attempt().await {
                Ok(Some(before)) => {
                    tracing::info!(
                        lease,
                        identity,
                        before,
                        "leading: took the lease, which was held by {before}"
                    );
                    return;
                }
                Ok(None) => {}
                Err(words) => self.say(&words),
            }
            // Two that look at the same time would look at the same time again.
            sleep(self.candidate.timing.retry.mul_f64(0.8 + 0.2 * fastrand::f64())).await;
        }
    }

    /// Looks once, and takes it if it is free. `Some` says whose it was.
    async fn attempt(&mut self) -> Result<Option<String>, String> {
        let patience = self.candidate.timing.patience;
        let asked = Instant::now();
        let found = within(patience, self.api.get_opt(&self.name.name)).await;
        let found = found.map_err(|error| self.words(&error))?;
        let told = Instant::now();
        let (write, before) = match self.candidate.look(found.as_ref(), asked, told, (self.wall)()) {
            Look::Wait {
                holder,
                is_news,
                elsewhere,
            } => {
                self.well();
                if is_news {
                    let lease = self.name.to_string();
                    tracing::info!(lease, holder, "the lease is held by {holder}");
                    if let Some(elsewhere) = elsewhere {
                        tracing::warn!(lease, holder, "{}", self.apart(&holder, &elsewhere));
                    }
                }
                return Ok(None);
            }
            Look::Take { write, before } => (write, before),
        };
        match within(patience, self.put(&write)).await {
            Ok(()) => {
                self.well();
                Ok(Some(before))
            }
            // Another was faster.
            Err(Failure::Kube(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Err(error) => Err(self.words(&error)),
        }
    }

    /// Renews it until it is lost. May be called anew after it was dropped.
    pub async fn hold(&mut self) -> Lost {
        let timing = self.candidate.timing;
        let mut next = self.proven + timing.renew;
        let mut why = "no renewal was tried".to_owned();
        loop {
            sleep_until(next).await;
            let left = (self.proven + timing.deadline).saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.gate.shut_now();
                return Lost::Late(self.name.to_string(), self.proven.elapsed().as_secs(), why);
            }
            let renewed = within(left.min(timing.patience), self.renew()).await;
            next = match renewed {
                Ok(None) => {
                    self.well();
                    self.proven + timing.renew
                }
                Ok(Some(holder)) => {
                    self.gate.shut_now();
                    return Lost::Taken(self.name.to_string(), holder);
                }
                Err(error) => {
                    why = self.words(&error);
                    tracing::warn!(lease = %self.name, "the lease was not renewed: {why}");
                    Instant::now() + timing.retry
                }
            }
            .min(self.proven + timing.deadline);
        }
    }

    /// Renews it once. `Some` says who else holds it.
    async fn renew(&mut self) -> Result<Option<String>, kube::Error> {
        if let Some(known) = self.known.take() {
            let write = self.candidate.claim(Some(&known), (self.wall)());
            match self.put(&write).await {
                // Whatever has changed is read below.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                other => return other.map(|()| None),
            }
        }
        let found = self.api.get_opt(&self.name.name).await?;
        match self.candidate.renewal(found.as_ref(), (self.wall)()) {
            Renewal::Write(write) => self.put(&write).await.map(|()| None),
            Renewal::Taken(holder) => Ok(Some(holder)),
        }
    }

    /// Writes it in this process's name, which proves until when it may write.
    async fn put(&mut self, write: &Lease) -> Result<(), kube::Error> {
        let sent = Instant::now();
        let written = self.send(write).await?;
        self.known = Some(written);
        self.proven = sent;
        self.gate.open_until(sent + self.candidate.timing.deadline);
        Ok(())
    }

    async fn send(&self, write: &Lease) -> Result<Lease, kube::Error> {
        if write.metadata.resource_version.is_some() {
            return self.api.replace(&self.name.name, &posting(), write).await;
        }
        let mut new = write.clone();
        new.metadata.name = Some(self.name.name.clone());
        self.api.create(&posting(), &new).await
    }

    /// Gives it back, so that whoever waits takes it with its next look. Nothing may be under way any more. A failure is no
    /// harm: the Lease runs out by itself.
    pub async fn release(&mut self) {
        self.gate.shut_now();
        let done = timeout(RELEASE, async {
            if let Some(known) = self.known.take() {
                match self.send(&self.candidate.release(&known, (self.wall)())).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    other => return other.map(drop),
                }
            }
            // A renewal was under way when it was dropped.
            let Some(found) = self.api.get_opt(&self.name.name).await? else {
                return Ok(());
            };
            match self.candidate.renewal(Some(&found), (self.wall)()) {
                Renewal::Write(_) => {
                    let write = self.candidate.release(&found, (self.wall)());
                    self.send(&write).await.map(drop)
                }
                Renewal::Taken(_) => Ok(()),
            }
        });
        match done.await {
            Ok(Ok(())) => tracing::info!(lease = %self.name, "released the lease"),
            Ok(Err(error)) => tracing::warn!(lease = %self.name, "the lease was not released: {error}"),
            Err(_) => tracing::warn!(lease = %self.name, "the lease was not released in time"),
        }
    }

    /// What to do about a holder that works elsewhere.
    fn apart(&self, holder: &str, elsewhere: &str) -> String {
        format!(
            "the lease {} is held by {holder}, which works in {elsewhere}, and this operator is for {}: while it stands by, \
             nobody may work there; unless one of them is about to end, give this one a --lease of its own",
            self.name, self.candidate.scope
        )
    }

    fn words(&self, error: &Failure) -> String {
        let Failure::Kube(kube::Error::Api(status)) = error else {
            return error.to_string();
        };
        let Name { namespace, name } = &self.name;
        let words = match status.code {
            401 | 403 => format!(
                "this account may not use the lease {namespace}/{name}: bind it a Role in namespace {namespace} with get, \
                 create and update on leases in coordination.k8s.io ({})",
                status.message
            ),
            404 => format!(
                "the namespace of the lease {namespace}/{name} does not exist ({})",
                status.message
            ),
            _ => return status.message.clone(),
        };
        self.trouble.send_replace(Some(words.clone()));
        words
    }

    fn say(&mut self, words: &str) {
        let is_said = |(last, at): &(String, Instant)| last == words && at.elapsed() < SAY_AGAIN;
        if !self.said.as_ref().is_some_and(is_said) {
            tracing::warn!(lease = %self.name, "cannot stand by: {words}");
            self.said = Some((words.to_owned(), Instant::now()));
        }
    }

    fn well(&mut self) {
        self.said = None;
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }
}

/// Why the Lease was not read or written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

async fn within<T>(most: Duration, work: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    match timeout(most, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Late(most)),
    }
}

/// The namespaces in which an operator works, in words that are equal where the namespaces are.
#[must_use]
pub fn scope(namespaces: &[String], selector: Option<&Selector>) -> String {
    let words = match (selector, namespaces) {
        (Some(selector), _) => format!("the namespaces whose labels match {selector}"),
        (None, []) => "all namespaces".to_owned(),
        (None, names) => {
            let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let names: Vec<&str> = names.into_iter().collect();
            format!("the namespaces {}", names.join(", "))
        }
    };
    words.chars().take(SCOPE_MAX).collect()
}

/// A name for this process that no other has: whoever shares one would take the other's renewals for its own.
#[must_use]
pub fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let place = pod.or_else(host).unwrap_or_else(|| "poolwright".to_owned());
    let place: String = place.trim().chars().take(253).collect();
    format!("{place}_{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}
