//! What shows that a parked pod is empty and stays so.
//!
//! A worker says that it stops consuming before it does, and a message may still be on its way to it. So three things
//! must follow one another, of one process: an answer that names no queue; two heartbeats that show nothing running and
//! nothing started; an answer to a later question that names no queue and nothing held. Anything else starts over. This
//! module only keeps the proof; what is done with it is decided elsewhere.

use std::time::Duration;

use crate::member::Member;
use crate::sample::{Answer, WorkerView};
use crate::time::Moment;

/// The last answer before a pod goes may be so old: long enough to be asked for and to arrive, and hardly longer than the
/// time between two heartbeats.
pub const CLEARANCE_AGE: Duration = Duration::from_secs(3);
/// Heartbeats that must show nothing in between.
const BEATS: u32 = 2;

/// How far the proof for one parked pod has come.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    confirmed: Option<Confirmed>,
}

/// What a parked pod has been proven to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is proven yet.
    None,
    /// Nothing but tasks that are not due: it gives them back when it ends.
    Later,
    /// Nothing, and it can get nothing any more.
    Empty,
}

#[derive(Clone, Copy, Debug)]
struct Confirmed {
    /// When the answer came that named no queue.
    at: Moment,
    /// The process that gave it.
    process: (i64, Moment),
    /// Tasks that it had started by the last heartbeat, and when that came.
    processed: u64,
    beat: Moment,
    /// Heartbeats since then that showed nothing.
    quiet: u32,
}

impl Evidence {
    /// Takes in what is known of the pod now.
    pub fn observe(&mut self, member: &Member) {
        let said = member.heard().zip(member.answer());
        let (Some(parked), Some((worker, answer))) = (member.pod.parked, said) else {
            // Silence proves nothing, and takes nothing back: what comes after it is compared with what was before.
            if !member.is_parked() {
                self.confirmed = None;
            }
            return;
        };
        let process = (worker.pid, worker.first_seen);
        let is_same = |known: &Confirmed| known.process == process && worker.processed >= known.processed;
        let quiet = answer.value.queues.is_empty();
        self.confirmed = self.confirmed.filter(|known| is_same(known) && quiet);
        let Some(known) = &mut self.confirmed else {
            if quiet && answer.value.asked_at >= parked {
                self.confirmed = Some(Confirmed {
                    at: answer.at,
                    process,
                    processed: worker.processed,
                    beat: worker.last_seen,
                    quiet: 0,
                });
            }
            return;
        };
        if worker.last_seen > known.beat {
            let nothing = worker.active == 0 && worker.processed == known.processed;
            known.quiet = if nothing { known.quiet + 1 } else { 0 };
            (known.processed, known.beat) = (worker.processed, worker.last_seen);
        }
    }

    /// What is proven.
    #[must_use]
    pub fn proof(&self, member: &Member, now: Moment) -> Proof {
        let (Some(known), Some(worker), Some(answer)) = (self.confirmed, member.heard(), member.answer())
        else {
            return Proof::None;
        };
        let still = known.process == (worker.pid, worker.first_seen)
            && known.quiet >= BEATS
            && worker.active == 0
            && worker.processed == known.processed
            && answer.value.asked_at > known.at
            && now.since(answer.at) <= CLEARANCE_AGE;
        if !still || !runs_nothing(&answer.value) {
            Proof::None
        } else if answer.value.scheduled.values().any(|count| *count > 0) {
            Proof::Later
        } else {
            Proof::Empty
        }
    }
}

/// True if the worker said that it runs nothing and has fetched nothing that is due.
fn runs_nothing(answer: &Answer) -> bool {
    let running = answer.running.values();
    let running = running.flat_map(|one| [one.acknowledged, one.unacknowledged]);
    running
        .chain(answer.reserved.values().copied())
        .all(|count| count == 0)
}

/// Since when a worker that cannot be asked has shown nothing: it started none, and never answered.
#[must_use]
pub fn mute_since(worker: &WorkerView) -> Option<Moment> {
    let since = worker.unreadable_since.filter(|_| worker.unreadable.is_some())?;
    Some(since.max(worker.last_progress)).filter(|_| worker.active == 0)
}
