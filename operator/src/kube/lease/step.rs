//! What one look at the Lease asks for: to wait, to take it, to renew it, or to stop.
//!
//! Pure: the time is handed in, and nothing is sent. A time that another machine wrote is only ever compared with itself.
//! A holder is believed to be gone when the Lease has not changed for as long as it says, by this process's own clock and
//! counted from when this process saw the last change. Whatever does not look like a Lease that its holder released is
//! waited for as if it were held: a field that somebody emptied by hand must not make two leaders.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// Bounds of a Lease's duration, in seconds, as the command line has them. Of what others write more is not believed.
pub const SECONDS: std::ops::RangeInclusive<u32> = 3..=300;
/// Where the holder says which namespaces it works in. Nothing is decided by it: it is for people who gave one Lease to
/// operators of different namespaces, one of which would stand by for ever.
pub const ANNOTATION_SCOPE: &str = "poolwright.dev/scope";
/// A Lease that was released says so with no holder and this duration, which is client-go's way.
const RELEASED_SECONDS: i32 = 1;

/// What is waited for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Unchanged for so long, a Lease may be taken.
    pub duration: Duration,
    /// The holder stops writing so long after it sent its last good renewal. What is left of the duration is for writes
    /// that are on their way.
    pub deadline: Duration,
    /// Time between two renewals.
    pub renew: Duration,
    /// Time between two looks of one that waits, and between a renewal that failed and the next.
    pub retry: Duration,
    /// One request may take so long: two fit into the deadline, so that one that hangs does not cost the lease.
    pub patience: Duration,
}

impl Timing {
    /// For a Lease of so many seconds.
    #[must_use]
    pub fn of(seconds: u32) -> Self {
        let duration = Duration::from_secs(seconds.clamp(*SECONDS.start(), *SECONDS.end()).into());
        let (deadline, fifth) = (duration * 2 / 3, duration / 5);
        let timing = Self {
            duration,
            deadline,
            renew: fifth.min(Duration::from_secs(2)),
            retry: fifth.min(Duration::from_secs(1)),
            patience: deadline / 2,
        };
        debug_assert!(
            timing.retry < timing.deadline
                && timing.renew < timing.deadline
                && timing.deadline < timing.duration,
            "no renewal could be repeated in time: {timing:?}"
        );
        timing
    }
}

/// What a candidate knows.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name by which it holds the Lease; no other process has it.
    pub identity: String,
    /// Its own times.
    pub timing: Timing,
    /// The namespaces in which it works, in words.
    pub scope: String,
    seen: Option<Seen>,
}

/// The Lease as it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    /// `None` if there was none.
    spec: Option<LeaseSpec>,
    /// When this was first told.
    since: Instant,
    /// The longest that one of its holders has asked for.
    wait: Duration,
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// It is another's, or may be.
    Wait {
        /// Who holds it.
        holder: String,
        /// This holder, or that there is none, is news.
        is_news: bool,
        /// Where the holder works, if it says so and it is elsewhere than this candidate.
        elsewhere: Option<String>,
    },
    /// It is free. `before` says whose it was, for people.
    Take {
        /// What to write: created without a resourceVersion, replaced with one.
        write: Box<Lease>,
        /// Whose it was.
        before: String,
    },
}

/// What a holder does after it has read the Lease again.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// Write it.
    Write(Box<Lease>),
    /// Another has it.
    Taken(String),
}

impl Candidate {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(identity: String, scope: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            scope,
            seen: None,
        }
    }

    /// Judges the Lease that was asked for at `asked` and told at `told`. The holder has stopped if nothing changed from
    /// when a state was told until it was asked for again.
    pub fn look(&mut self, found: Option<&Lease>, asked: Instant, told: Instant, wall: Timestamp) -> Look {
        let spec = found.map(|lease| lease.spec.clone().unwrap_or_default());
        let before = self.seen.as_ref();
        let is_same = before.is_some_and(|seen| seen.spec == spec);
        let holder = spec.as_ref().and_then(holder).map(str::to_owned);
        let is_free = match &spec {
            // Where there never was one, nobody leads. One that is gone may have been deleted under its holder, which
            // makes it again.
            None => before.is_none(),
            Some(spec) => is_released(spec) || holder.as_ref() == Some(&self.identity),
        };
        let waited =
            before.is_some_and(|seen| is_same && asked.saturating_duration_since(seen.since) >= seen.wait);
        if is_free || waited {
            let before = holder.unwrap_or_else(|| "nobody".to_owned());
            return Look::Take {
                write: Box::new(self.claim(found, wall)),
                before,
            };
        }
        let known = before.and_then(|seen| seen.spec.as_ref()).and_then(self::holder);
        let is_news = before.is_none() || known != holder.as_deref();
        if !is_same {
            let asks = spec
                .as_ref()
                .map(duration)
                .or_else(|| before.map(|seen| seen.wait));
            self.seen = Some(Seen {
                spec,
                since: told,
                wait: asks.unwrap_or_default().max(self.timing.duration),
            });
        }
        Look::Wait {
            is_news,
            elsewhere: found
                .filter(|_| holder.is_some())
                .and_then(scope)
                .filter(|scope| *scope != self.scope)
                .map(str::to_owned),
            holder: holder.unwrap_or_else(|| "nobody, as it seems".to_owned()),
        }
    }

    /// What the holder does with the Lease as it is, after a renewal has found it changed. Whoever has only removed the
    /// holder, or the Lease, has not taken it.
    #[must_use]
    pub fn renewal(&self, found: Option<&Lease>, wall: Timestamp) -> Renewal {
        let other = found
            .and_then(|lease| lease.spec.as_ref())
            .and_then(holder)
            .filter(|holder| *holder != self.identity);
        match other {
            Some(other) => Renewal::Taken(other.to_owned()),
            None => Renewal::Write(Box::new(self.claim(found, wall))),
        }
    }

    /// The Lease in this candidate's name. What others have written beside it stays.
    #[must_use]
    pub fn claim(&self, found: Option<&Lease>, wall: Timestamp) -> Lease {
        let spec = found.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_ours = holder(&spec) == Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or(0).max(0);
        // A clock that was set back would write the time that stands there, and nothing would change.
        let least = spec.renew_time.as_ref();
        let least = least.and_then(|last| last.0.checked_add(SignedDuration::from_micros(1)).ok());
        let now = MicroTime(least.map_or(wall, |least| least.max(wall)));
        let seconds = self.timing.duration.as_secs();
        let mut metadata = found.map(|lease| lease.metadata.clone()).unwrap_or_default();
        metadata.managed_fields = None;
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_SCOPE.to_owned(), self.scope.clone());
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(seconds).ok(),
                acquire_time: spec
                    .acquire_time
                    .filter(|_| is_ours)
                    .or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(if is_ours {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..spec
            }),
        }
    }

    /// The Lease without a holder, for whoever comes next.
    #[must_use]
    pub fn release(&self, held: &Lease, wall: Timestamp) -> Lease {
        let mut lease = self.claim(Some(held), wall);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(RELEASED_SECONDS);
        }
        lease
    }
}

/// Who holds it; an empty name is nobody's.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

fn scope(lease: &Lease) -> Option<&str> {
    let annotations = lease.metadata.annotations.as_ref()?;
    annotations.get(ANNOTATION_SCOPE).map(String::as_str)
}

fn is_released(spec: &LeaseSpec) -> bool {
    holder(spec).is_none() && spec.lease_duration_seconds == Some(RELEASED_SECONDS)
}

/// How long its holder wants to be waited for, within what an operator can be told.
fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(0).min((*SECONDS.end()).into()))
}
