//! How many slots each worker has, while the load of what its tasks use is high and when it is not.
//!
//! A worker is told a difference, so it must be known what it has: it says so when it is asked, in the order in which it
//! is told and asked. After a command nothing is sent until an answer shows the new size; or another size although the
//! question came after the answer to a question that came after the command: then that was refused or lost. A worker that
//! is parked, draining, silent or of an older revision is left alone.
//!
//! A pool of green threads changes its size at once. A pool of processes ends those that execute nothing, and in the
//! moment between the sending of a task to a process and its word that it has begun, Celery takes one for the other: the
//! task is lost. So such a worker first stops consuming, and is told only when it has said, some time later, that it
//! holds nothing that could begin and that enough of its processes are free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::evidence::CLEARANCE_AGE;
use crate::fleet::Fleet;
use crate::ledger::sum;
use crate::member::Member;
use crate::sample::{Answer, Sample};
use crate::shedding::{Loads, fresh, half, is_high, words};
use crate::snapshot::PoolInput;
use crate::text::counted;
use crate::time::Moment;

/// A command is sent or dropped within this time.
const SENT: Duration = Duration::from_secs(8);
/// What was done shows in the answers after this time: Celery looks every 5 s whether processes are missing.
const SHOWN: Duration = Duration::from_secs(6);
/// A message may still be on its way to a worker that has stopped consuming.
const DEAF_FOR: Duration = Duration::from_secs(2);
/// Workers in one message.
const NODES_MAX: usize = 200;

/// What is remembered of the workers of one WorkerPool; the load is not known before its first reading.
#[derive(Clone, Debug, Default)]
pub struct Resizing {
    high: Option<bool>,
    /// Some worker had, or was to have, less than all slots when it was last known.
    acts: bool,
    /// Some may have less than all slots, or have stopped consuming, although nothing asks for it any more.
    engaged: bool,
    /// Their slots are processes.
    processes: bool,
    /// By node.
    told: BTreeMap<String, Told>,
    /// Since when a worker has been known to consume nothing, by node.
    deaf: BTreeMap<String, Process>,
}

/// A command, until it is seen to be done.
#[derive(Clone, Copy, Debug)]
struct Told {
    process: Process,
    to: u64,
    /// When an answer was seen to a question that came after it: by then it had been done, if it ever is.
    passed: Option<Moment>,
}

/// A moment in the life of one process: when that was first heard, and the moment.
type Process = (Moment, Moment);

/// One message to some workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// More slots, or less.
    pub grow: bool,
    /// How many.
    pub by: u64,
    /// Node names, at most 200.
    pub nodes: Vec<String>,
}

/// What is to be done now, and what there is to say.
#[derive(Clone, Debug, Default)]
pub struct Resized {
    /// Workers to tell.
    pub resizes: Vec<Resize>,
    /// Workers to ask, also for their size.
    pub ask: Vec<String>,
    /// Workers that should consume nothing for now.
    pub quiet: BTreeSet<String>,
    /// All others should consume what they were started with.
    pub restores: bool,
    /// Slots of a worker, and how many it should have while the load is high; absent while no worker has less.
    pub slots: Option<(u32, u32)>,
    /// Why, and which workers have all the same, while the load is high.
    pub words: Option<String>,
    /// Why the load is not known.
    pub unknown: Option<String>,
}

/// What a worker should do.
enum Step {
    /// Nothing.
    Rest,
    /// Say what it has.
    Ask,
    /// The same, and consume nothing meanwhile.
    Quiet,
    /// Have other slots than now; it consumes nothing if these are processes and become less.
    Resize(u64),
}

impl Resizing {
    /// Looks at the workers of a WorkerPool.
    pub fn look(&mut self, fleet: &Fleet, loads: &Loads, now: Moment) -> Resized {
        let pool = fleet.pool;
        let mut result = Resized::default();
        let why = self.read(pool, loads, now, &mut result);
        result.restores = self.processes && (pool.dynamic.is_some() || self.engaged);
        let all = u64::from(pool.slots);
        let Some(high) = self.high.filter(|_| !pool.terminating && pool.conflict.is_none()) else {
            return result;
        };
        let own = |member: &&Member| {
            // One of an older revision gets back what was taken from it, and nothing more is taken.
            let heeds = member.pod.revision == pool.revision || !high;
            !member.pod.draining && !member.is_parked() && heeds
        };
        let mut groups: BTreeMap<(bool, u64), Vec<String>> = BTreeMap::new();
        let (mut nodes, mut whole) = (BTreeSet::new(), true);
        let (mut acts, mut reduced) = (false, 0);
        for member in fleet.members.iter().filter(own) {
            nodes.insert(member.node());
            let target = if high {
                half(all)
            } else {
                u64::from(member.made_with)
            };
            let step = self.step(member, target, now);
            whole &= matches!(step, Step::Rest);
            if !matches!(step, Step::Rest) {
                result.ask.push(member.node().to_owned());
            }
            let is_reduced = member
                .size()
                .map(|size| size.value < all || !matches!(step, Step::Rest));
            // Of one that has not said it yet it stands as it was.
            acts |= is_reduced.unwrap_or(self.acts);
            reduced += usize::from(is_reduced.unwrap_or(true));
            let size = member.size().map_or(target, |size| size.value);
            let quiet = matches!(step, Step::Quiet) || matches!(step, Step::Resize(to) if to < size);
            if quiet && self.processes {
                result.quiet.insert(member.node().to_owned());
            }
            if let Step::Resize(to) = step {
                let group = groups.entry((to > size, to.abs_diff(size))).or_default();
                if group.len() < NODES_MAX {
                    group.push(member.node().to_owned());
                    self.tell(member, to, now);
                }
            }
        }
        let takes = high && half(all) < all;
        self.acts = acts && takes;
        if let Some(why) = why.filter(|_| takes) {
            let others = fleet.consuming().count().saturating_sub(reduced);
            self.say(pool, &why, others, &mut result);
        }
        self.told.retain(|node, _| nodes.contains(node.as_str()));
        self.deaf.retain(|node, _| result.quiet.contains(node));
        self.engaged = pool.dynamic.is_some() || self.engaged && !(whole && all_consume(fleet));
        let call = |((grow, by), nodes)| Resize { grow, by, nodes };
        result.resizes = groups.into_iter().map(call).collect();
        result
    }

    /// Says what a high load does, and of which workers it takes nothing.
    fn say(&self, pool: &PoolInput, why: &str, others: usize, result: &mut Resized) {
        let left = u32::try_from(half(u64::from(pool.slots))).unwrap_or(pool.slots);
        let kept = (others > 0).then(|| {
            let who = counted(others, "worker keeps all, being", "workers keep all, being");
            format!("{who} of an older revision, out of reach, or holding tasks that are not due")
        });
        if self.acts {
            let kept = kept.map(|kept| format!("; {kept}")).unwrap_or_default();
            let all = pool.slots;
            result.slots = Some((all, left));
            result.words = Some(format!("workers run {left} of {all} slots: {why}{kept}"));
        } else {
            result.words = kept.map(|kept| format!("{why}: {kept}"));
        }
    }

    /// Takes in the load; why slots are taken away, if it is high.
    fn read(&mut self, pool: &PoolInput, loads: &Loads, now: Moment, result: &mut Resized) -> Option<String> {
        let Some(dynamic) = &pool.dynamic else {
            // What was taken is given back.
            self.high = self.engaged.then_some(false);
            return None;
        };
        self.processes = dynamic.processes;
        let load = loads.get(&dynamic.load);
        let percent = fresh(load, now);
        if percent.is_some() || self.high.is_some() {
            let was = self.high.unwrap_or(false);
            self.high = Some(is_high(dynamic.high_percent, percent, was));
        }
        let limit = dynamic.high_percent;
        let why = load.and_then(|load| load.fault.as_ref());
        let why = why.map_or("no reading yet", |fault| fault.message.as_str());
        result.unknown = percent.is_none().then(|| why.to_owned());
        let words = match percent {
            Some(percent) => format!("load {} is above {limit} %", words(percent)),
            None => format!("load was above {limit} % when it was last known"),
        };
        (self.high == Some(true)).then_some(words)
    }

    fn step(&mut self, member: &Member, target: u64, now: Moment) -> Step {
        let Some(worker) = member.heard().filter(|worker| worker.unreadable.is_none()) else {
            return Step::Rest;
        };
        let Some(size) = member.size() else {
            return Step::Ask;
        };
        let process = worker.first_seen;
        if let Some(told) = self.told.get_mut(member.node()) {
            if told.process.0 == process && told.is_open(size, now) {
                return if told.to < size.value {
                    Step::Quiet
                } else {
                    Step::Ask
                };
            }
            self.told.remove(member.node());
        }
        let is_new = now.since(size.at) <= CLEARANCE_AGE;
        if size.value == target {
            Step::Rest
        } else if size.value > target && self.processes && waits_for_later(member) {
            // It would hold them for longer than anybody can wait, and take nothing meanwhile.
            Step::Rest
        } else if size.value > target && self.processes {
            let ready = self.is_quiet(member, target, now) && is_new;
            if ready { Step::Resize(target) } else { Step::Quiet }
        } else if is_new {
            Step::Resize(target)
        } else {
            Step::Ask
        }
    }

    fn tell(&mut self, member: &Member, to: u64, now: Moment) {
        if let Some(worker) = member.worker {
            let (process, passed) = ((worker.first_seen, now), None);
            self.told
                .insert(member.node().to_owned(), Told { process, to, passed });
        }
    }

    /// It consumes nothing, holds nothing that could begin, and runs no more than will be left.
    fn is_quiet(&mut self, member: &Member, target: u64, now: Moment) -> bool {
        let Some((worker, answer)) = member.heard().zip(member.answer()) else {
            return false;
        };
        if !answer.value.queues.is_empty() {
            self.deaf.remove(member.node());
            return false;
        }
        let process = (worker.first_seen, answer.at);
        let since = self.deaf.entry(member.node().to_owned()).or_insert(process);
        if since.0 != process.0 {
            *since = process;
        }
        let long = answer.value.asked_at >= since.1.after(DEAF_FOR);
        long && now.since(answer.at) <= CLEARANCE_AGE && worker.active <= target && fits(answer, target)
    }
}

impl Told {
    /// It is neither done nor known to have no effect.
    fn is_open(&mut self, size: &Sample<u64>, now: Moment) -> bool {
        let at = self.process.1;
        if size.value == self.to && size.at >= at {
            return false;
        }
        if self.passed.is_none() && size.at > at.after(SENT) {
            self.passed = Some(now);
        }
        self.passed.is_none_or(|passed| size.at <= passed.after(SHOWN))
    }
}

/// True if it holds tasks that are not due: no process of it may go before they have run.
fn waits_for_later(member: &Member) -> bool {
    member
        .answer()
        .is_some_and(|answer| answer.value.scheduled.values().any(|count| *count > 0))
}

fn fits(answer: &Sample<Arc<Answer>>, target: u64) -> bool {
    let said = &answer.value;
    let running = said.running.values();
    let running = sum(running.flat_map(|one| [one.acknowledged, one.unacknowledged]));
    let mut held = said.reserved.values().chain(said.scheduled.values());
    running <= target && held.all(|count| *count == 0)
}

/// No worker has said that it consumes nothing.
fn all_consume(fleet: &Fleet) -> bool {
    let mut working = fleet.consuming().filter_map(Member::answer);
    working.all(|answer| !answer.value.queues.is_empty())
}
