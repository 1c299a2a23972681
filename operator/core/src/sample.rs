//! What the brokers and workers said, as decisions see it.
//!
//! Adapters fill these values and decide nothing. Each reading carries its time; a reading that failed leaves
//! the last good one in place beside the fault, because missing is not zero.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::later::Later;
use crate::time::Moment;

/// A value and the moment it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<T> {
    /// What was read.
    pub value: T,
    /// When the answer arrived.
    pub at: Moment,
}

/// Why a reading is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// No connection: refused, reset, name not found, TLS failed, or no answer in time.
    Unreachable,
    /// The broker answered and refused: wrong password, no permission. Or the operator refuses the broker's address.
    Refused,
    /// The queue does not exist on this broker (RabbitMQ only; Redis cannot tell).
    QueueAbsent,
    /// The answer has the wrong type or shape, or a number that cannot be true.
    Implausible,
    /// The Secret that holds the address does not exist or lacks the key.
    SecretMissing,
    /// The operator may not read the Secret.
    SecretForbidden,
    /// The address cannot be used: unknown scheme, no host, missing option.
    InvalidAddress,
}

/// A failure to read, since when, and in which words. Holds no secret and no byte of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The class of the failure.
    pub kind: FaultKind,
    /// What went wrong and what to do about it; at most 256 bytes.
    pub message: String,
    /// When the failure began (the first of an unbroken run).
    pub since: Moment,
    /// The same on the wall clock, for people.
    pub since_wall: Timestamp,
}

/// The last good sample of something, and the fault that has kept it from being renewed.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal<T> {
    /// The last good reading, however old.
    pub last: Option<Sample<T>>,
    /// Set while the newest attempt failed.
    pub fault: Option<Fault>,
}

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Self {
            last: None,
            fault: None,
        }
    }
}

impl<T> Signal<T> {
    /// Takes in a good reading.
    pub fn succeed(&mut self, value: T, at: Moment) {
        self.last = Some(Sample { value, at });
        self.fault = None;
    }

    /// Takes in a failure. An unbroken run of failures of one kind keeps the time of its first.
    pub fn fail(&mut self, kind: FaultKind, message: &str, at: Moment, wall: Timestamp) {
        let (since, since_wall) = match &self.fault {
            Some(old) if old.kind == kind => (old.since, old.since_wall),
            _ => (at, wall),
        };
        let message = crate::text::bounded(message, 256);
        self.fault = Some(Fault {
            kind,
            message,
            since,
            since_wall,
        });
    }

    /// The value, if it is not older than `max_age`. A newer failed attempt does not make it stale by itself:
    /// age does.
    #[must_use]
    pub fn fresh(&self, now: Moment, max_age: Duration) -> Option<&T> {
        self.last
            .as_ref()
            .filter(|sample| now.since(sample.at) <= max_age)
            .map(|sample| &sample.value)
    }
}

/// The messages that wait in one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// All waiting messages: on Redis the sum over the priority sublists.
    pub count: u64,
    /// Of these, how many have an ETA in the future (on Redis estimated from a bounded sample; elsewhere 0).
    pub not_due: u64,
    /// When these fall due, as far as it is known (on Redis from the same sample; elsewhere not at all).
    pub later: Later,
    /// Consumers of the queue, where the broker knows (RabbitMQ): one for each worker, ours and others.
    pub consumers: Option<u64>,
}

/// The messages of one queue that workers have fetched and not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unacked {
    /// Messages that are due: everything but `not_due`.
    pub due: u64,
    /// Messages whose ETA lies in the future. Where the broker cannot tell (RabbitMQ), 0.
    pub not_due: u64,
    /// When these fall due, as far as it is known.
    pub later: Later,
    /// The due ones by the second in which they were fetched, oldest first, at most 256 entries (the oldest are
    /// merged); empty where the broker does not say (RabbitMQ).
    pub fetched: Vec<Fetched>,
}

/// Due messages that were fetched in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The second, in Unix time, by the clock of the worker that fetched.
    pub unix_seconds: i64,
    /// How many.
    pub count: u64,
}

/// What is known of one queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueView {
    /// Waiting messages.
    pub ready: Signal<Ready>,
    /// Fetched messages. On RabbitMQ without a management or metrics address this never has a sample, and
    /// `unacked_known` of the broker is false: the workers' answers stand in.
    pub unacked: Signal<Unacked>,
}

/// One worker process as its heartbeats and answers show it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// Process id of the worker's main process. In Kubernetes it is mostly 1, also after the container has restarted:
    /// `first_seen` tells one process from the next.
    pub pid: i64,
    /// Tasks executing now: busy slots.
    pub active: u64,
    /// Tasks started since the process began.
    pub processed: u64,
    /// Time between two of its heartbeats.
    pub interval: Duration,
    /// First heartbeat of this process that we saw. A process is a new one when the pid changes, `processed` falls, or it
    /// says that it came online (which a process that lost its connection to the broker does too).
    pub first_seen: Moment,
    /// Latest heartbeat.
    pub last_seen: Moment,
    /// The latest moment at which it was busy, or `processed` or the process changed. From `first_seen` on.
    pub last_progress: Moment,
    /// True after its `worker-offline`: it is shutting down.
    pub offline: bool,
    /// The latest answer of this process to our questions. Shared: a view is copied whenever it is published, and most of
    /// it are answers.
    pub answer: Option<Sample<Arc<Answer>>>,
    /// When it was last asked, answered or not.
    pub asked: Option<Moment>,
    /// Set while its answers are missing or cannot be read (remote control off, pickle, too large). Of a process that has
    /// answered before, one such answer is not enough.
    pub unreadable: Option<String>,
    /// Since when that has been so without a break: the first such answer of the run. Set while `unreadable` is.
    pub unreadable_since: Option<Moment>,
    /// Slots of its execution pool, where it was asked for them, dated by the question: they were so after it.
    pub size: Option<Sample<u64>>,
}

impl WorkerView {
    /// A process that is heard for the first time: idle, and not asked yet.
    #[must_use]
    pub const fn new(pid: i64, processed: u64, interval: Duration, now: Moment) -> Self {
        Self {
            pid,
            active: 0,
            processed,
            interval,
            first_seen: now,
            last_seen: now,
            last_progress: now,
            offline: false,
            answer: None,
            asked: None,
            unreadable: None,
            unreadable_since: None,
            size: None,
        }
    }
}

/// A worker that was asked although no heartbeat of it arrives, because a WorkerPool's pod should be one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnheardView {
    /// When it was last asked, answered or not.
    pub asked: Moment,
    /// The queues that it consumed by its latest answer, dated by the question: whatever process answered, it ran
    /// after that.
    pub queues: Option<Sample<BTreeSet<String>>>,
}

/// A worker's answer to `active`, `reserved`, `scheduled` and `active_queues`, reduced to counts by queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Executing tasks by queue.
    pub running: BTreeMap<String, Running>,
    /// Fetched and not started, without ETA, by queue.
    pub reserved: BTreeMap<String, u64>,
    /// Held with an ETA that has not come, by queue.
    pub scheduled: BTreeMap<String, u64>,
    /// When these fall due, whatever their queue.
    pub later: Later,
    /// The queues it consumes.
    pub queues: BTreeSet<String>,
    /// `processed` of the last heartbeat before the question, and what was started after it and ran then.
    pub processed: u64,
    /// Process id at the time of the answer.
    pub pid: i64,
    /// When the question was put: what it tells of was so at some moment after that.
    pub asked_at: Moment,
}

/// Executing tasks of one queue on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Already acknowledged: no longer among the broker's messages (early acknowledgement).
    pub acknowledged: u64,
    /// Not yet acknowledged: still among the broker's unacked messages (late acknowledgement).
    pub unacknowledged: u64,
    /// For how long they have been running, added up.
    pub ran: Duration,
}

/// All that is known of one broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerView {
    /// Its address for people: scheme, host, port, database or virtual host; never user information.
    pub address: String,
    /// True if the broker itself tells unacked counts (Redis always; RabbitMQ with a management or metrics
    /// address).
    pub unacked_known: bool,
    /// True on Redis, where a flush or an empty failover reads as zero.
    pub zero_is_suspect: bool,
    /// Time between two polls of this broker, as it is now.
    pub poll_interval: Duration,
    /// By queue name.
    pub queues: BTreeMap<String, QueueView>,
    /// By node name (`celery@pod`), ours and at most 10,000 others; forgotten 10 minutes after the last sign.
    pub workers: BTreeMap<String, WorkerView>,
    /// By node name, those that were asked and are not heard; at most 2,000; forgotten when they are heard, 90 seconds
    /// after they were last asked, and with the connection.
    pub unheard: BTreeMap<String, UnheardView>,
    /// The heartbeat stream: `last` holds the moment since which the subscription has stood without a break, and
    /// its `at` is renewed each poll while it stands; `fault` is set while it is down.
    pub heartbeats: Signal<Moment>,
    /// Messages in the queue `celery` while no TaskQueue names it and no one consumes it.
    pub stray: u64,
}
