//! What a decision remembers of the past of one WorkerPool.
//!
//! All of it is bounded, and all of it may be lost: a process that has just started knows nothing, and nothing
//! known means that no pod goes for a full window.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_api::v1alpha1::AckMode;

use crate::acks::Acks;
use crate::crowding::Crowding;
use crate::demand::Demand;
use crate::estimate::{Counts, Estimates, OCCUPANCY_EVERY};
use crate::evidence::{Evidence, Proof};
use crate::exits::Exits;
use crate::fleet::Fleet;
use crate::flow::Flows;
use crate::ledger::{fleet_capacity, max_age, sum};
use crate::member::{Member, PodState};
use crate::pod_name::PodName;
use crate::resizing::Resizing;
use crate::sample::{Answer, BrokerView, WorkerView};
use crate::schedule::{Agenda, Raise};
use crate::snapshot::{PodInput, PoolInput};
use crate::start_ups::StartUps;
use crate::stay::Stay;
use crate::time::Moment;
use crate::wait_target::{PRIOR_START_UP, floor};
use crate::window::Window;

/// A worker that came up for a growth and has started no task for so long will start none.
const BARREN_AFTER: Duration = Duration::from_secs(6);
/// By then a heartbeat says that a task has ended whose message is gone.
const BEATEN_WITHIN: Duration = Duration::from_secs(6);
/// A zero that workers do not explain is doubted for so long at least while tasks run, whatever the scale-in delay.
const DOUBTED_FOR: Duration = Duration::from_secs(300);
/// The same while none runs.
const IDLE_DOUBTED_FOR: Duration = Duration::from_secs(60);
/// What a pod held with an ETA is back in its queue, and out of it again, so soon after the pod is gone.
const ADRIFT_FOR: Duration = Duration::from_secs(30);
/// Messages that have waited so long are due: a worker takes those that are not at once, whatever else it holds.
const SWALLOWED_WITHIN: Duration = Duration::from_secs(10);

/// One pod's worker, as last looked at.
#[derive(Clone, Debug, Default)]
struct Track {
    /// The pod was seen before its container ran: all that its worker has started, it started before our eyes.
    young: bool,
    pid: Option<i64>,
    last_seen: Moment,
    processed: u64,
    /// Tasks that ran at its last heartbeat and at the one before.
    lasting: u64,
    /// Its start-up time has been taken in.
    timed: bool,
    /// Messages with an ETA that it said it held.
    later: u64,
    /// Of its last answer that was looked at: when it was given, and whether it told of running tasks.
    told: Option<(Moment, bool)>,
    /// Which run of its container has been heard, by its beginning, and when first.
    heard: Option<(Moment, Moment)>,
    /// That it is empty, while it is parked.
    evidence: Evidence,
    /// It was proven empty when it was last seen parked.
    empty: bool,
}

impl Track {
    /// Takes in a heartbeat; tells how many tasks were started since the last.
    fn beat(&mut self, worker: &WorkerView) -> u64 {
        let started = match self.pid {
            Some(pid) if pid == worker.pid => worker.processed.saturating_sub(self.processed),
            Some(_) => worker.processed,
            None if self.young => worker.processed,
            None => 0,
        };
        if self.pid != Some(worker.pid) {
            self.lasting = 0;
        } else if self.last_seen != worker.last_seen {
            self.lasting = worker.active.saturating_sub(started);
        }
        self.pid = Some(worker.pid);
        self.last_seen = worker.last_seen;
        self.processed = worker.processed;
        started
    }

    /// Takes in that its present container is heard, or has said that it ends.
    fn hear(&mut self, member: &Member) {
        if let Some((run, worker)) = member.pod.running_since.zip(member.worker) {
            let known = self.heard.filter(|(known, _)| *known == run && !worker.offline);
            self.heard = known.or_else(|| (!worker.offline).then_some((run, worker.first_seen)));
        }
    }

    /// Its newest answer, once, if the one before told of running tasks, too: tasks that began when it turned busy
    /// are all young, and say nothing of how long tasks run.
    fn news<'a>(&mut self, member: &Member<'a>) -> Option<&'a Answer> {
        let answer = member.answer()?;
        let before = self.told.filter(|(at, _)| *at != answer.at);
        if before.is_some() || self.told.is_none() {
            self.told = Some((answer.at, !answer.value.running.is_empty()));
        }
        before.filter(|(_, ran)| *ran).map(|_| &*answer.value)
    }
}

/// The past of one WorkerPool.
#[derive(Clone, Debug, Default)]
pub struct PoolMemory {
    /// Needs of the last while.
    pub window: Window,
    /// When its tasks acknowledge.
    pub acks: Acks,
    /// Since when not every source has been fresh.
    pub stale_since: Option<Moment>,
    /// Until when a sudden zero is not believed.
    pub suspect_until: Option<Moment>,
    /// The last growth has added nothing.
    pub barren: bool,
    /// The last number that was decided.
    pub decided: Option<u32>,
    /// Since when it has had no pod because its Pools give none.
    pub without_since: Option<Moment>,
    /// Since when others have waited for what it has above its share, and since when others of a higher tier have.
    pub pressed_since: (Option<Moment>, Option<Moment>),
    /// The number at which what was spare will have been given up.
    pub giving: Option<u32>,
    /// Its load.
    pub estimates: Estimates,
    /// The same by queue.
    pub flows: Flows,
    /// Whether more slots do more.
    pub crowding: Crowding,
    /// For how long its pods stay.
    pub stay: Stay,
    /// Since when a little more than there is has been wanted.
    pub little_more_since: Option<Moment>,
    /// Since when a little less than there is would have sufficed.
    pub little_less_since: Option<Moment>,
    /// Pods that work or will be up in time, and are kept while tasks wait.
    pub at_work: u32,
    /// Pods that are worth being kept warm.
    pub warm: u32,
    /// Who of its pods has gone.
    pub exits: Exits,
    /// How many slots its workers were told to have.
    pub resizing: Resizing,
    /// Which of its schedules is on; absent for a WorkerPool that has none.
    agenda: Option<Box<Agenda>>,
    /// How long its workers take to come up.
    start_ups: StartUps,
    /// Since when tasks that are not due have waited on a queue that a worker takes from.
    pub(crate) unfetched_since: Option<Moment>,
    /// Its pods, in name order.
    tracks: Vec<(PodName, Track)>,
    /// Tasks that were started before our eyes.
    started: u64,
    /// The same at the last look at the queues.
    flowed: u64,
    /// One was, at the last look.
    pub(crate) progressed: bool,
    /// The last look.
    looked: Option<Moment>,
    /// What growth would need by the newest reading and by the one before, and when each was read.
    readings: [(Moment, u32); 2],
    /// What the broker showed before it showed nothing, what ran then, and what had been started by then.
    before_zero: Option<(u64, u64, u64)>,
    /// When it began to show nothing.
    zero_since: Option<Moment>,
    /// When a task was started last that the broker, which shows nothing, would have to show.
    belied: Option<Moment>,
    /// When the last growth was decided.
    growth: Option<Moment>,
    /// Messages with an ETA that pods held which are gone, and when the last of these pods went.
    adrift: (u64, Moment),
    /// The same of pods that are draining: they give them back when they end, a little before they are gone.
    leaving: u64,
    /// Since when messages wait that may be those.
    drift_since: Option<Moment>,
}

impl PoolMemory {
    /// Looks at the workers. First in a cycle: what is demanded depends on it.
    pub fn track(&mut self, fleet: &Fleet, view: &BrokerView, now: Moment) {
        let gone = self.keep_present(fleet);
        let (mut started, mut leaving) = (0u64, 0u64);
        for (member, (_, track)) in fleet.members.iter().zip(&mut self.tracks) {
            if let Some(worker) = member.heard() {
                started = started.saturating_add(track.beat(worker));
            }
            track.hear(member);
            if let Some(start_up) = member.start_up().filter(|_| !track.timed) {
                track.timed = true;
                self.start_ups.observe(start_up);
            }
            track.evidence.observe(member);
            if !member.pod.draining {
                track.empty = member.is_parked() && track.evidence.proof(member, now) == Proof::Empty;
            }
            if fleet.pool.queues.len() > 1
                && let Some(answer) = track.news(member)
            {
                self.flows.told(&answer.running);
            }
            if let Some(answer) = member.answer().filter(|_| !view.zero_is_suspect) {
                track.later = sum(answer.value.scheduled.values().copied());
            }
            if member.pod.draining {
                leaving = leaving.saturating_add(track.later);
            }
        }
        if now.since(self.adrift.1) > ADRIFT_FOR {
            self.adrift.0 = 0;
        }
        if gone > 0 {
            self.adrift = (self.adrift.0.saturating_add(gone), now);
        }
        self.progressed = started > 0;
        self.started = self.started.saturating_add(started);
        if self.adrift.0 == 0 && leaving == 0 {
            self.drift_since = None;
        }
        self.leaving = leaving;
        self.look_for_growth(fleet, now);
    }

    /// The schedule that raises the minimum at this time.
    pub fn raise(&mut self, pool: &PoolInput, wall: Timestamp) -> Option<Raise> {
        if pool.schedules.is_empty() {
            self.agenda = None;
            return None;
        }
        let agenda = self.agenda.get_or_insert_default();
        let raise = agenda.at(&pool.schedules, wall);
        raise.filter(|raise| raise.pods > pool.min).cloned()
    }

    /// How long a worker needs from its pod's creation until it takes tasks: as observed, and no less than those that
    /// are still coming up have needed by now.
    #[must_use]
    pub fn start_up(&self, fleet: &Fleet, now: Moment) -> Duration {
        let prior = || Duration::from_secs_f64(PRIOR_START_UP);
        let known = self.start_ups.longest().unwrap_or_else(prior);
        let coming = fleet.consuming().filter_map(|member| {
            let coming = matches!(member.state, PodState::Starting);
            let since = member.pod.running_since.filter(|_| coming)?;
            Some(now.since(since))
        });
        coming.max().map_or(known, |longest| longest.max(known))
    }

    /// The least that one of the last workers needed from its pod's creation until it took tasks; zero while none was seen to.
    #[must_use]
    pub fn quickest(&self) -> Duration {
        self.start_ups.quickest().unwrap_or_default()
    }

    /// Keeps a track of each pod that is there; returns the messages with an ETA that the others held.
    fn keep_present(&mut self, fleet: &Fleet) -> u64 {
        let members = || fleet.members.iter().map(|member| &member.pod.name);
        if members().eq(self.tracks.iter().map(|(name, _)| name)) {
            return 0;
        }
        let mut old: BTreeMap<PodName, Track> = self.tracks.drain(..).collect();
        for member in &fleet.members {
            let track = old.remove(&member.pod.name).unwrap_or_else(|| Track {
                young: member.pod.running_since.is_none(),
                ..Track::default()
            });
            self.tracks.push((member.pod.name.clone(), track));
        }
        sum(old.values().map(|track| track.later))
    }

    fn track_of(&self, pod: &PodInput) -> Option<&Track> {
        let at = self.tracks.binary_search_by(|(name, _)| name.cmp(&pod.name));
        Some(&self.tracks[at.ok()?].1)
    }

    /// When the worker of its present container was first heard, whether it is forgotten by now or not.
    #[must_use]
    pub fn first_heard(&self, pod: &PodInput) -> Option<Moment> {
        let (run, at) = self.track_of(pod)?.heard?;
        (pod.running_since == Some(run)).then_some(at)
    }

    /// What a parked pod has been proven to hold.
    #[must_use]
    pub fn proof(&self, member: &Member, now: Moment) -> Proof {
        let track = self.track_of(member.pod);
        track.map_or(Proof::None, |track| track.evidence.proof(member, now))
    }

    /// True for a pod that is on its way out and was proven empty when it was asked to go: it is silent now, and holds
    /// nothing.
    #[must_use]
    pub fn went_empty(&self, member: &Member) -> bool {
        member.pod.draining && self.track_of(member.pod).is_some_and(|track| track.empty)
    }

    /// For how long the zero that is seen has been suspect, while it is.
    #[must_use]
    pub fn suspect_for(&self, now: Moment) -> Option<Duration> {
        self.suspect_until.filter(|until| now < *until)?;
        Some(now.since(self.zero_since?))
    }

    /// For how long the oldest of so many waiting tasks has waited.
    #[must_use]
    pub fn age(&self, waiting: u64, now: Moment) -> Duration {
        self.estimates.age(waiting, self.started, now)
    }

    /// Tasks that have been running for more than one heartbeat.
    #[must_use]
    pub fn lasting(&self, fleet: &Fleet) -> u64 {
        let lasting = |member: &Member| {
            let heard = member.heard().and_then(|_| self.track_of(member.pod));
            // Two heartbeats that did not come say as much as two that show it.
            heard
                .map_or(0, |track| track.lasting)
                .max(u64::from(member.engaged))
        };
        sum(fleet.consuming().map(lasting))
    }

    /// How many of `ready` messages are probably those that leaving pods gave back and that are not due. At least
    /// one is believed, and after a while all: those that are not due do not stay in a queue that has a worker.
    #[must_use]
    pub fn doubtful(&self, ready: u64, now: Moment) -> u64 {
        let believed = self
            .drift_since
            .is_some_and(|since| now.since(since) >= SWALLOWED_WITHIN);
        if believed {
            return 0;
        }
        self.adrift
            .0
            .saturating_add(self.leaving)
            .min(ready.saturating_sub(1))
    }

    /// What growth would need by both of the last two readings.
    #[must_use]
    pub fn confirmed(&self) -> u32 {
        self.readings[0].1.min(self.readings[1].1)
    }

    /// Takes in one look at the world. `full` is what growth would need if every heartbeat were true still, `hold`
    /// what keeps pods.
    pub fn observe(
        &mut self,
        fleet: &Fleet,
        view: &BrokerView,
        demand: &Demand,
        (full, hold): (u32, u32),
        now: Moment,
    ) {
        self.acks.observe(demand.early_seen, now);
        if demand.any && self.readings[0].0 != demand.read_at {
            self.readings = [(demand.read_at, full), self.readings[0]];
        }
        if demand.ready == 0 {
            self.drift_since = None;
        } else if self.adrift.0 > 0 || self.leaving > 0 {
            self.drift_since.get_or_insert(now);
        }
        self.look_for_zero(fleet, view, demand, now);
        let slept = self
            .looked
            .is_some_and(|last| now.since(last) > max_age(view).saturating_mul(2));
        self.looked = Some(now);
        if slept || !demand.complete {
            self.window.gap();
            self.estimates.gap(now);
            self.crowding.gap();
            self.stay.gap();
        }
        if !demand.complete {
            self.stale_since.get_or_insert(now);
            return;
        }
        self.stale_since = None;
        let counts = Counts {
            waiting: demand.ready.saturating_add(demand.reserved),
            busy: demand.busy.saturating_add(demand.parked_busy),
            started: self.started,
        };
        let room = fleet_capacity(fleet, |_| true).max(demand.reserved);
        let believed = self.suspect_for(now).is_none();
        let sampled = self.estimates.observe(counts, believed.then_some(room), now);
        self.flows
            .observe(&demand.by_queue, self.started - self.flowed, room, now);
        self.flowed = self.started;
        self.crowding
            .observe(counts.waiting, fleet.slots, &self.estimates, now);
        if sampled {
            let start_up = self.start_up(fleet, now).as_secs_f64();
            self.warm = floor(self.estimates.occupancy(), OCCUPANCY_EVERY, start_up, fleet.slots);
        }
        // Heartbeats sample every two seconds and miss short tasks: a count that moved is work, too.
        let least = u32::from(self.progressed || !demand.nothing());
        let most = fleet.pool.max.max(fleet.pool.replicas());
        self.window
            .push(now, demand.seen_at, hold.max(least).min(most.max(1)));
    }

    /// The pool was given more pods because of what it has to do.
    pub fn grew(&mut self, now: Moment) {
        self.growth.get_or_insert(now);
    }

    /// On Redis a flush or an empty failover reads as zero. A fall to zero is believed once the workers have
    /// started as many tasks as vanished; until then it is suspect, for a minute if all workers are idle: what waits they would
    /// take. So it is while tasks run that acknowledge late, which the broker would count, until none has been started for
    /// minutes.
    fn look_for_zero(&mut self, fleet: &Fleet, view: &BrokerView, demand: &Demand, now: Moment) {
        if !view.zero_is_suspect || !demand.complete {
            return;
        }
        let draining = fleet_capacity(fleet, |member| member.pod.draining);
        let busy = demand.busy.saturating_add(demand.parked_busy);
        if demand.visible > 0 {
            self.before_zero = Some((demand.visible, busy.saturating_add(draining), self.started));
            self.zero_since = None;
            self.belied = None;
            self.suspect_until = None;
            return;
        }
        let Some((vanished, ran, started)) = self.before_zero else {
            return;
        };
        let since = *self.zero_since.get_or_insert(now);
        // What ran at that time was counted as started before it vanished; a few run unseen between heartbeats.
        let explained = sum([
            self.started - started,
            ran.max(busy),
            // Silent, and done with what they held before they go.
            draining,
            u64::from(fleet.slots),
        ]);
        let contradicted = busy > 0 && self.is_late(fleet.pool.ack_mode);
        if contradicted && now.since(since) < BEATEN_WITHIN {
            return;
        }
        if explained >= vanished && !contradicted {
            self.before_zero = None;
            self.suspect_until = None;
            return;
        }
        let delay = fleet.pool.scale_down_delay;
        self.suspect_until = Some(if contradicted {
            // What starts comes from somewhere. Where nothing does any more, tasks of a broker that was emptied run on.
            if self.progressed {
                self.belied = Some(now);
            }
            self.belied.unwrap_or(since).after(DOUBTED_FOR.max(delay))
        } else if busy > 0 {
            since.after(DOUBTED_FOR.max(delay))
        } else {
            since.after(IDLE_DOUBTED_FOR.max(delay))
        });
    }

    /// True if all its tasks are known to acknowledge late.
    fn is_late(&self, mode: AckMode) -> bool {
        match mode {
            // It was told so, and nothing has shown otherwise.
            AckMode::Late => self.acks.with(None).is_none_or(|(_, most)| most == 0),
            AckMode::Early => false,
            AckMode::Auto => self.acks.with(None).is_some_and(|(_, most)| most == 0),
        }
    }

    /// Growth is barren while all the pods that came up since have been idle, and there is at least one of them.
    fn look_for_growth(&mut self, fleet: &Fleet, now: Moment) {
        self.barren = false;
        let Some(grown) = self.growth else { return };
        let heard = fleet.consuming().filter_map(Member::heard);
        let new: Vec<&WorkerView> = heard.filter(|worker| worker.first_seen >= grown).collect();
        let works = fleet.consuming().any(|member| {
            let since = member.worker.map(|worker| worker.first_seen);
            member.engaged && since.is_some_and(|since| since >= grown)
        });
        if works || new.iter().any(|worker| worker.active > 0 || worker.processed > 0) {
            self.growth = None;
            return;
        }
        let coming = fleet.count(|state| matches!(state, PodState::Pending | PodState::Starting));
        let newest = new.iter().map(|worker| worker.first_seen).max();
        self.barren = coming == 0 && newest.is_some_and(|seen| now.since(seen) >= BARREN_AFTER);
    }
}
