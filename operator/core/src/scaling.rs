//! How many pods a WorkerPool should have.
//!
//! Decides `to`, the pods that should take work, and writes down why. Growth needs one fresh reading; scale-in needs all of
//! them, without a gap, for the whole window. Missing is not zero. Which pods take no more work, and when they go, is
//! decided in `parking`. This module knows no broker, no Kubernetes and no clock.

use std::collections::BTreeSet;
use std::mem::take;

use poolwright_api::Reason;

use crate::bounds::{bound, cap};
use crate::budget::Allowance;
use crate::cause::Cause;
use crate::crowding::Known;
use crate::decision::{Decision, Facts, Limit, POOL, THROUGHPUT};
use crate::demand::{Demand, PodState};
use crate::draft::Draft;
use crate::fleet::Fleet;
use crate::ledger::sum;
use crate::member::Member;
use crate::memory::PoolMemory;
use crate::parking::{Yard, park};
use crate::policy::{LITTLE_MORE_FOR, Wanted, learn_stay, useful_pods, wanted};
use crate::rollout::{Cast, Ground, allocate};
use crate::sample::BrokerView;
use crate::schedule::Raise;
use crate::snapshot::{PoolInput, Snapshot};
use crate::text::counted;
use crate::time::Moment;
use crate::words::Words;

/// What the steps of a decision look at.
pub(crate) struct Scene<'a> {
    pub(crate) pool: &'a PoolInput,
    pub(crate) demand: &'a Demand,
    pub(crate) view: &'a BrokerView,
    pub(crate) fleet: &'a Fleet<'a>,
    pub(crate) now: Moment,
    pub(crate) from: u32,
    /// What stays where nothing may change, and what is parked and would come back to it.
    pub(crate) stands: (u32, u32),
}

/// What a WorkerPool wants, before its Pools are asked.
pub struct Sketch<'a> {
    /// By its policy alone.
    wanted: Wanted,
    from: u32,
    draft: Draft,
    /// Least pods, by `minReplicas` and schedules.
    least: u32,
    cast: Cast<'a>,
    ask: BTreeSet<String>,
    /// Its demand.
    pub demand: Demand,
    /// Names of its pods that were lost with their node.
    pub lost: Vec<String>,
    /// Pods that take new work, or will, over all revisions.
    pub serving: u32,
    /// Since when it has had no pod because its Pools give none.
    pub without_since: Option<Moment>,
}

impl Sketch<'_> {
    /// Pods that it wants to take work.
    #[must_use]
    pub const fn to(&self) -> u32 {
        self.draft.to
    }

    /// Of these, pods that it would give up for what others need.
    #[must_use]
    pub const fn spare(&self) -> u32 {
        self.draft.spare
    }

    /// One pod more while a new revision comes up.
    #[must_use]
    pub fn extra(&self) -> u32 {
        let proving = self.cast.proving.is_some_and(|newest| !newest.failed);
        u32::from(self.draft.to > 0 && (proving || self.cast.rolls()))
    }
}

/// Sketches what one WorkerPool wants.
#[must_use]
pub fn sketch<'a>(
    snapshot: &Snapshot,
    fleet: &'a Fleet<'a>,
    view: &BrokerView,
    mut demand: Demand,
    memory: &mut PoolMemory,
) -> Sketch<'a> {
    let now = snapshot.now;
    let wanted = wanted(fleet, &demand, memory, snapshot);
    if let Some((soon, _)) = wanted.ahead.counted {
        demand.count_soon(soon, now);
    }
    let raise = memory.raise(fleet.pool, snapshot.wall);
    let least = raise.as_ref().map_or(0, |raise| raise.pods);
    // What a schedule keeps is needed, so that after its end pods stay as long as after any other need.
    memory.observe(fleet, view, &demand, (wanted.pods, wanted.hold.max(least)), now);
    learn_stay(fleet, &demand, memory, now);
    let cast = Cast::new(fleet, &demand, snapshot);
    let decided = memory.decided.or_else(|| told(fleet.pool, &cast));
    let from = match decided {
        // Both revisions' pods together are no measure of what is wanted.
        Some(decided) if cast.rolls() => decided.min(cast.serving()),
        _ => cast.serving(),
    };
    // While one revision makes way for another, pods are few for a moment, and what is parked then does not come back.
    let returning = || cast.leader.map_or(0, |leader| parked(fleet, &leader.name));
    let stands = (
        decided
            .filter(|_| !cast.is_alone())
            .map_or(from, |decided| decided.max(from)),
        if cast.rolls() { 0 } else { returning() },
    );
    let mut draft = Draft {
        to: wanted.formula,
        spare: wanted.formula.saturating_sub(wanted.needed),
        reason: Reason::AsDesired,
        limits: Vec::new(),
        clauses: Vec::new(),
    };
    if wanted.pods != wanted.formula {
        let little = LITTLE_MORE_FOR.as_secs();
        let clause = format!(
            "a little more for the load alone must be wanted for {little} s, and a task wait for a quarter of the target"
        );
        draft.limit("littleMore", wanted.pods, clause);
    }
    let mut ask: BTreeSet<String> = demand.unasked.iter().cloned().collect();
    ask.extend(fleet.unheard(now).map(|member| member.node().to_owned()));
    let scene = Scene {
        stands,
        ..Scene::new(fleet, view, &demand, now, from)
    };
    scene.settle(memory, raise.as_ref(), wanted.needed, &mut draft, &mut ask);
    let lost = fleet
        .members
        .iter()
        .filter(|member| member.is_lost(view, snapshot));
    Sketch {
        lost: lost.map(|member| member.pod.name.to_string()).collect(),
        wanted,
        from,
        draft,
        least: fleet.pool.min.max(least),
        serving: fleet.serving(),
        without_since: memory.without_since,
        cast,
        ask,
        demand,
    }
}

/// What a process that has decided on nothing yet takes for decided. The status may be old, or edited: no revision has more
/// pods than were wanted once, and nobody wants more than the most.
fn told(pool: &PoolInput, cast: &Cast) -> Option<u32> {
    let most = pool.most().max(cast.largest());
    pool.desired.map(|desired| desired.clamp(cast.largest(), most))
}

/// Decides for one WorkerPool, with what its Pools allow. What the sketch holds goes into the decision.
#[must_use]
pub fn decide(
    snapshot: &Snapshot,
    fleet: &Fleet,
    view: &BrokerView,
    sketch: &mut Sketch,
    allowance: &Allowance,
    memory: &mut PoolMemory,
) -> Decision {
    let now = snapshot.now;
    let Sketch {
        wanted,
        from,
        draft,
        least,
        cast,
        ask,
        demand,
        lost,
        ..
    } = sketch;
    let (from, least) = (*from, *least);
    let scene = Scene::new(fleet, view, demand, now, from);
    let taken_back = scene.fit(allowance, memory, draft);
    if draft.reason == Reason::AsDesired && draft.to != from {
        draft.reason = if draft.to > from {
            Reason::ScaledUp
        } else {
            Reason::ScaledDown
        };
    }
    let ground = Ground {
        fleet,
        view,
        demand,
        snapshot,
        least,
        room: allowance.room,
        extra: allowance.extra,
        fits: !matches!(
            allowance.cause,
            Some(Cause::TooLarge { .. } | Cause::Missing { .. } | Cause::Unreadable { .. })
        ),
    };
    let is_cut = |limit: &Limit| limit.name == POOL;
    let cause = allowance.waits.as_ref().or(allowance.cause.as_ref());
    let budget = cause.filter(|_| draft.limits.iter().any(is_cut)).cloned();
    let allocation = allocate(&ground, cast, draft.to);
    // The last pod may go for another's sake, or for that of its own successor.
    let may_empty = scene.may_empty(memory) || taken_back || allocation.makes_room;
    let yard = Yard {
        fleet,
        view,
        demand,
        memory,
        may_empty,
        now,
    };
    let parking = park(&yard, &allocation);
    let misplaced = memory.exits.after(fleet, &parking.replicas);
    ask.extend(parking.ask.iter().cloned());
    memory.decided = Some(draft.to);
    if draft.to > from && wanted.pods > from {
        memory.grew(now);
    }
    let inputs = wanted.inputs(take(&mut demand.inputs));
    let words = Words::new(draft, wanted, fleet.slots, demand);
    let facts = facts(fleet, view, demand);
    Decision {
        from,
        to: draft.to,
        reason: draft.reason,
        words,
        limits: take(&mut draft.limits),
        inputs,
        allocation,
        parking,
        ask: take(ask).into_iter().collect(),
        budget,
        facts: Facts {
            lost: take(lost),
            missing: take(&mut demand.missing),
            pods: take(&mut demand.pods),
            foreign: (
                take(&mut demand.foreign.0).into_iter().collect(),
                demand.foreign.1,
            ),
            misplaced,
            ..facts
        },
    }
}

/// `ceil(tasks ÷ slots)`.
#[must_use]
pub fn need(tasks: u64, slots: u32) -> u32 {
    u32::try_from(tasks.div_ceil(u64::from(slots.max(1)))).unwrap_or(u32::MAX)
}

impl<'a> Scene<'a> {
    const fn new(
        fleet: &'a Fleet<'a>,
        view: &'a BrokerView,
        demand: &'a Demand,
        now: Moment,
        from: u32,
    ) -> Self {
        let pool = fleet.pool;
        Self {
            pool,
            demand,
            fleet,
            view,
            now,
            from,
            stands: (from, 0),
        }
    }
}

impl Scene<'_> {
    fn settle(
        &self,
        memory: &mut PoolMemory,
        raise: Option<&Raise>,
        needed: u32,
        draft: &mut Draft,
        ask: &mut BTreeSet<String>,
    ) {
        let (pool, from) = (self.pool, self.from);
        let least = raise.map_or(pool.min, |raise| raise.pods.max(pool.min));
        if let Some(conflict) = &pool.conflict {
            draft.reason = Reason::Conflict;
            draft.limit("conflict", from, format!("held: {conflict}"));
        } else if pool.terminating {
            draft.limit("terminating", from, "held: it is being deleted".to_owned());
        } else if let Some(hold) = &pool.hold {
            draft.reason = Reason::ManualHold;
            let clause = format!("held at {} by spec.replicas", hold.replicas);
            draft.limit("spec.replicas", hold.replicas, clause);
            cap(pool, draft);
        } else {
            self.grow(memory, draft);
            self.crowd(memory, least, draft);
            bound(pool, raise, draft);
            if draft.to < from {
                self.shrink(memory, needed, draft, ask);
            }
            self.keep_for_later(draft);
            self.fall_back(memory, draft);
            self.brake(draft);
        }
        draft.spare = self.spare(memory, least, draft);
    }

    /// Pods that may be left to others: none where somebody has said how many there should be or that none may go, or where
    /// what there is to do is not known for certain. What the cluster refuses does nobody any good, whatever it is for; one
    /// more than there are is enough to see when that is over.
    fn spare(&self, memory: &PoolMemory, least: u32, draft: &Draft) -> u32 {
        let pool = self.pool;
        let told = pool.hold.is_some() || pool.recommend || pool.pause.scale_in;
        let certain = self.demand.complete && memory.suspect_for(self.now).is_none() && self.unheard() == 0;
        if told || pool.conflict.is_some() || pool.terminating || !certain {
            return 0;
        }
        let spare = draft.spare.min(draft.to.saturating_sub(least));
        self.fleet
            .with_one_refused()
            .map_or(spare, |pods| spare.max(draft.to.saturating_sub(pods)))
    }

    /// Asks for no more pods than have been seen to be of use, or than are kept anyway.
    fn crowd(&self, memory: &PoolMemory, least: u32, draft: &mut Draft) {
        let Some((most, useful)) = useful_pods(self.fleet, memory) else {
            return;
        };
        let most = most.max(least);
        if draft.to > most {
            let minute = format!("{:.0} tasks a minute", useful.each_minute);
            let clause = match useful.known {
                Known::Lower => {
                    format!("{most} on trial: tasks take longer with more slots, which do {minute}")
                }
                Known::Suffices => format!("{most} suffice: more slots do no more than {minute}"),
                Known::Higher => format!("{most} on trial: fewer do {minute}"),
            };
            draft.limit(THROUGHPUT, most, clause);
        }
    }

    /// Holds growth where more pods could not help or nothing is known.
    fn grow(&self, memory: &PoolMemory, draft: &mut Draft) {
        let (demand, from) = (self.demand, self.from);
        if !demand.any {
            draft.reason = Reason::HeldStale;
            let clause = format!("held: no fresh data of {}", sources(demand));
            draft.limit("signals", from, clause);
            return;
        }
        // A task that a heartbeat shows may have ended, and its successor may wait: two readings tell.
        let least = u32::from(demand.orphaned > 0).max(from);
        let certain = need(demand.certain, self.fleet.slots)
            .max(memory.confirmed())
            .max(least);
        if draft.to > certain {
            let clause = format!("growth beyond {certain} waits for a second reading");
            draft.limit("confirmation", certain, clause);
        }
        let most = from.max(1);
        if draft.to > most && memory.barren {
            draft.reason = Reason::NoProgress;
            let clause = "growth stopped: the pods that came up have started no task".to_owned();
            draft.limit("progress", most, clause);
        }
        if draft.to > most && is_elsewhere(demand) {
            let unseen = demand.count(|state| state == PodState::Unseen);
            draft.reason = Reason::WrongBroker;
            let clause = format!(
                "growth stopped: {} running and none is heard on the broker of its queues",
                counted(unseen, "pod is", "pods are")
            );
            draft.limit("heartbeats", most, clause);
        }
    }
}

pub(crate) fn sources(demand: &Demand) -> String {
    let names: Vec<&str> = demand.missing.iter().map(|(name, _)| name.as_str()).collect();
    match names.len() {
        0 => "the broker".to_owned(),
        1..=3 => names.join(", "),
        more => format!("{} and {} more", names[..2].join(", "), more - 2),
    }
}

/// True if workers run and not one shows on the broker of its queues.
fn is_elsewhere(demand: &Demand) -> bool {
    let heard = demand.count(|state| matches!(state, PodState::Busy(_) | PodState::Idle(_)));
    let unseen = demand.count(|state| state == PodState::Unseen);
    // Those that are silent at work are busy, too.
    let busy = demand.busy.max(demand.parked_busy);
    heard == 0 && busy == 0 && unseen > 0 && !demand.all_consume && demand.seen_consuming == 0
}

fn parked(fleet: &Fleet, revision: &str) -> u32 {
    let own = fleet
        .members
        .iter()
        .filter(|member| *member.pod.revision == *revision);
    pods(own.filter(|member| member.is_parked()))
}

pub(crate) fn pods<'a>(members: impl Iterator<Item = &'a Member<'a>>) -> u32 {
    u32::try_from(members.count()).unwrap_or(u32::MAX)
}

/// All but what is moved there from elsewhere.
fn facts(fleet: &Fleet, view: &BrokerView, demand: &Demand) -> Facts {
    let running = fleet
        .consuming()
        .filter(|member| member.pod.running_since.is_some());
    let unseen = fleet
        .members
        .iter()
        .filter(|member| member.state == PodState::Unseen);
    let staying = fleet.members.iter().filter(|member| !member.pod.draining);
    let unreadable: Vec<&String> = staying
        .filter_map(|member| member.heard()?.unreadable.as_ref())
        .collect();
    Facts {
        busy: demand.known_busy(),
        queued: demand.known_queued(),
        slots: sum(running.map(Member::slots)),
        start_up: fleet.start_up(),
        unseen: unseen.map(|member| member.pod.name.to_string()).collect(),
        elsewhere: is_elsewhere(demand),
        parked: pods(fleet.members.iter().filter(|member| member.is_parked())),
        orphaned: demand.orphaned,
        load_unknown: None,
        is_rabbitmq: !view.zero_is_suspect && !view.address.is_empty(),
        unreadable: unreadable
            .first()
            .map(|first| (unreadable.len(), (*first).clone())),
        ..Facts::default()
    }
}
