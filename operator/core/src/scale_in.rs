//! How far pods may go, as far as the data is known: a whole window of it, and every worker that may hold something asked.
//!
//! It may not say which pods go, nor how many are wanted: it only keeps a number from falling.

use std::collections::BTreeSet;
use std::time::Duration;

use poolwright_api::Reason;

use crate::constants::ZEROS;
use crate::demand::PodState;
use crate::draft::Draft;
use crate::evidence::CLEARANCE_AGE;
use crate::member::Member;
use crate::memory::PoolMemory;
use crate::policy::{little_less_for, stay};
use crate::scaling::{Scene, pods, sources};
use crate::text::counted;

/// What a busy worker said at most so long ago stands when pods should go: as often as busy workers are asked anyway.
const BUSY_ANSWER_AGE: Duration = Duration::from_secs(30);
/// The same of any worker, when the last pod should go.
const IDLE_ANSWER_AGE: Duration = Duration::from_secs(10);

/// A zero that is suspect for so long is told as such: what workers have done, their next heartbeat says.
const SUSPECT_TOLD: Duration = Duration::from_secs(3);

impl Scene<'_> {
    /// Lets pods go only as far as the data allows, and names the workers that must be asked first. What stays above
    /// `needed` only because it was needed lately is spare.
    pub(crate) fn shrink(
        &self,
        memory: &mut PoolMemory,
        needed: u32,
        draft: &mut Draft,
        ask: &mut BTreeSet<String>,
    ) {
        let (pool, demand, now, from) = (self.pool, self.demand, self.now, self.from);
        if !demand.complete {
            draft.reason = Reason::HeldStale;
            let clause = format!("held: no fresh data of {}", sources(demand));
            return draft.limit("signals", from, clause);
        }
        if let Some(suspect) = memory.suspect_for(now) {
            if suspect >= SUSPECT_TOLD {
                draft.reason = Reason::HeldSuspect;
            }
            let clause = "held: the queues fell to zero and no worker says that it did the work".to_owned();
            return draft.limit("suspectZero", from, clause);
        }
        let delay = stay(self.fleet, memory, now);
        let Some(mut floor) = memory.window.settled(now, delay) else {
            let covered = memory.window.covered(now).as_secs();
            let clause = format!(
                "scale-in waits: {covered} of {} s of data without a gap",
                delay.as_secs()
            );
            return draft.limit("scaleDownDelaySeconds", from, clause);
        };
        if memory.window.zeros() < ZEROS {
            floor = floor.max(1);
        }
        let floor = floor.min(from).min(pool.most().max(draft.to));
        let unheard = self.unheard();
        if floor > draft.to && unheard >= floor {
            draft.limit("workersUnseen", floor, unheard_clause(unheard));
        } else if floor > draft.to {
            let (name, clause) = self.staying(memory, floor, delay);
            draft.limit(name, floor, clause);
            draft.spare = floor.saturating_sub(needed);
        }
        self.ask_holders(delay, draft, ask);
        if unheard > 0 && draft.to == from && from <= unheard {
            draft.reason = Reason::HeldUnseen;
        }
    }

    /// Why so many stay that are not needed at this moment.
    fn staying(&self, memory: &PoolMemory, pods: u32, delay: Duration) -> (&'static str, String) {
        if memory.at_work >= pods {
            let are = counted(pods, "is", "are");
            return (
                "atWork",
                format!("{are} at work or will be up in time, and tasks wait"),
            );
        }
        let enough = memory.little_less_since.map(|since| self.now.since(since));
        let long = little_less_for(memory.start_up(self.fleet, self.now));
        if let Some(enough) = enough.filter(|enough| *enough < long && pods == self.from) {
            let (enough, long) = (enough.as_secs(), long.as_secs());
            let clause = format!("a little less must suffice for {long} s, and has for {enough} s");
            return ("littleLess", clause);
        }
        let (were, delay) = (counted(pods, "was", "were"), delay.as_secs());
        (
            "scaleDownDelaySeconds",
            format!("{were} needed within the last {delay} s"),
        )
    }

    /// The last pod goes only on data that this process has seen, however it came to be parked.
    pub(crate) fn may_empty(&self, memory: &mut PoolMemory) -> bool {
        let delay = stay(self.fleet, memory, self.now);
        let settled = memory.window.settled(self.now, delay);
        self.pool.hold.is_some() || settled.is_some() && memory.window.zeros() >= ZEROS
    }

    pub(crate) fn unheard(&self) -> u32 {
        let mute =
            |member: &&Member| matches!(member.state, PodState::Silent | PodState::Unseen) && !member.engaged;
        pods(self.fleet.consuming().filter(mute))
    }

    /// No pod is parked before the busy workers have said what they fetched: an idle one may be needed for it. Nor is the
    /// last one before it has, where only it can tell what is not due: a worker answers before it fetches for the first
    /// time, and what it fetched then would be lost from sight. Of many all but one may go meanwhile: to hear all of them at
    /// a time could take for ever.
    fn ask_holders(&self, window: Duration, draft: &mut Draft, ask: &mut BTreeSet<String>) {
        ask_untold(self.untold(false, window), self.from, draft, ask);
        if !self.view.zero_is_suspect {
            ask_untold(self.untold(true, window), self.from.min(1), draft, ask);
        }
    }

    /// Workers that are busy, or said so when they were, or all, that have not said what they hold within the window: what
    /// they fetched in it was waiting in it, and is in the window's largest need.
    fn untold(&self, all: bool, window: Duration) -> impl Iterator<Item = &str> {
        let most = if all { IDLE_ANSWER_AGE } else { BUSY_ANSWER_AGE };
        let age = window.clamp(CLEARANCE_AGE, most);
        let holds = move |member: &&Member| {
            all || matches!(member.state, PodState::Busy(_))
                || member.said_held().is_some_and(|held| held > 0)
        };
        let readable = self
            .fleet
            .consuming()
            .filter(holds)
            .filter(|member| member.heard().is_some_and(|worker| worker.unreadable.is_none()));
        readable
            .filter(move |member| {
                member
                    .answer()
                    .is_none_or(|answer| self.now.since(answer.at) > age)
            })
            .map(Member::node)
    }
}

/// Keeps as many as stay until those have answered that have not.
fn ask_untold<'a>(
    untold: impl Iterator<Item = &'a str>,
    stay: u32,
    draft: &mut Draft,
    ask: &mut BTreeSet<String>,
) {
    let untold: Vec<&str> = untold.collect();
    if draft.to >= stay || untold.is_empty() {
        return;
    }
    let (count, one, many) = (untold.len() as u64, "worker is", "workers are");
    let clause = format!("{} asked before others are parked", counted(count, one, many));
    ask.extend(untold.iter().map(|node| (*node).to_owned()));
    // Those beyond what was spare count as needed until they have answered.
    let spare = draft.spare;
    draft.limit("workersAsked", stay, clause);
    draft.spare = spare;
}

fn unheard_clause(unheard: u32) -> String {
    let pods = counted(unheard, "pod is", "pods are");
    let count = if unheard == 1 { "counts" } else { "count" };
    format!("{pods} not heard, and {count} as full")
}
