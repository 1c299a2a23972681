//! The WorkerPool controller: plan, carry out, then say so in the status.
//!
//! The cycle has already decided and tells which pools are concerned, so this keeps no watch of its own. Relies
//! on being the only writer of Deployments, pod marks and WorkerPool status; guarantees that a write that scales
//! never waits for one that reports, and that a failed write is planned anew, not repeated.

mod queue;
mod refusals;
mod tell;
mod waits;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, ResourceExt};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{WorkerPool, WorkerPoolStatus};
use poolwright_api::{ConditionType, DEFAULT_POOL, Reason};
use poolwright_core::charge::{Slots, add, whose};
use poolwright_core::decision::Decision;
use poolwright_core::deployment::render;
use poolwright_core::plan::{Stamp, Step, Written, plan};
use poolwright_core::snapshot::PoolInput;
use poolwright_core::status::{self, Facts, only_numbers};
use poolwright_core::time::Moment;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::cycle::{Decided, Latest};
use super::granter::{Ask, Grants};
use super::turns::Half;
use super::wake::Wake;
use super::world::World;
use crate::clock::Clock;
use crate::kube::events::Events;
use crate::kube::execute::{Executor, Failure};
use crate::kube::index::Group;
use crate::kube::lenient::Lenient;
use crate::kube::status::{Budget, Written as Reported, write};
use crate::metrics::Metrics;
use queue::{Outcome, Queue};
use refusals::Refusals;
use waits::Waits;

/// First and longest wait after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The longest wait after a race with another writer, or for slots that another has.
const LOST_RACE: Duration = Duration::from_millis(500);
/// A server that refuses is asked again this often.
const REFUSED_AGAIN: Duration = Duration::from_secs(15);
/// A spec that has become invalid is told after so long.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// A status that had to wait tries again after this.
const BUDGET_AGAIN: Duration = Duration::from_secs(1);
/// So many decisions that were carried out wait to be told; with more, the later ones give way to the newest.
const UNTOLD_MAX: usize = 8;
/// In so short a time after its start the operator has not heard every worker.
const SETTLING: Duration = Duration::from_secs(5);
/// A plan that was just carried out is not repeated until the watch had this long to show its effect.
const EFFECT: Duration = Duration::from_secs(5);

/// What the controller works with.
pub struct Context {
    /// For writing.
    pub client: Client,
    /// The cluster.
    pub world: Arc<World>,
    /// Decisions.
    pub latest: Arc<Latest>,
    /// Who is asked before a number of replicas rises.
    pub grants: Arc<Grants>,
    /// Events.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Writes of numbers.
    pub budget: Arc<Budget>,
    /// Clocks.
    pub clock: Clock,
}

/// What is remembered of one WorkerPool between two rounds.
#[derive(Default)]
struct Past {
    /// The status as last written.
    status: Option<Reported<WorkerPoolStatus>>,
    /// What each Deployment (by uid) was after we last settled it.
    settled: BTreeMap<String, Stamp>,
    /// Since when the spec has been invalid.
    invalid_since: Option<Moment>,
    /// The last plan, and when it was carried out.
    plan: Option<(Vec<Step>, Moment)>,
    /// Marks that were written a moment ago, and may not be seen yet.
    written: Written,
    /// Decisions that were carried out and are not told yet: a newer one must not hide them.
    acted: VecDeque<Decided>,
    /// Lost pods that were told of.
    lost: Vec<String>,
    /// What the server has refused.
    refusals: Refusals,
    /// What a Pool has refused.
    waits: Waits,
}

/// After a failure nothing that is seen brings a WorkerPool its turn sooner than this, or than its next try if that is
/// sooner: a busy one is woken with every poll.
const FLOOR: Duration = Duration::from_secs(5);

/// Runs rounds for the pools that are woken.
pub struct Controller {
    context: Arc<Context>,
    pasts: Arc<Mutex<Pasts>>,
    queue: Queue,
}

/// By WorkerPool, with the uid that it had.
type Pasts = BTreeMap<Group, (String, Arc<tokio::sync::Mutex<Past>>)>;

impl Controller {
    /// A controller that has seen nothing yet.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            pasts: Arc::default(),
            queue: Queue::default(),
        }
    }

    /// Runs for ever.
    pub async fn run(mut self, wake: Arc<Wake>) {
        let mut rounds: JoinSet<(Half, Group, Outcome)> = JoinSet::new();
        loop {
            while let Some((half, group)) = self.queue.take() {
                let (context, pasts) = (Arc::clone(&self.context), Arc::clone(&self.pasts));
                rounds.spawn(async move {
                    let work = AssertUnwindSafe(round(&context, &pasts, half, &group));
                    let result = work.catch_unwind().await.unwrap_or_else(|_| {
                        tracing::error!(namespace = group.0, worker_pool = group.1, "a round panicked");
                        Ok(Some(BACK_OFF.1))
                    });
                    (half, group, result)
                });
            }
            let next = self.queue.next();
            tokio::select! {
                woken = wake.take_all() => {
                    for group in woken {
                        self.queue.wake(group);
                    }
                }
                Some(done) = rounds.join_next() => {
                    if let Ok((half, group, outcome)) = done {
                        self.queue.finish(half, group, outcome);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.queue.pass();
                }
            }
        }
    }
}

async fn round(
    context: &Context,
    pasts: &Mutex<Pasts>,
    half: Half,
    group: &Group,
) -> Result<Option<Duration>, Failure> {
    let Some(wp) = context.world.pools.get(&group.0, &group.1) else {
        context.metrics.forget_worker_pool(&group.0, &group.1);
        // Should it come back, as with the labels of its namespace, others may have written its status.
        pasts.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
        return Ok(None);
    };
    let uid = wp.uid().unwrap_or_default();
    let past = remembered(pasts, group, uid);
    let mut past = past.lock().await;
    let Some(decided) = context.latest.of(group) else {
        return Ok(None);
    };
    if decided.state.wp.metadata.uid != wp.metadata.uid {
        // Decided for an older namesake: the next cycle sees this one.
        return Ok(None);
    }
    match half {
        Half::Act => {
            tell::count(context, &decided, group);
            tell::lost(context, &decided, &mut past.lost);
            carry_out(context, &decided, &mut past, group).await
        }
        Half::Report => match past.acted.front().cloned() {
            Some(acted) => {
                report(context, &wp, &acted, &mut past, group).await?;
                past.acted.pop_front();
                Ok(Some(Duration::ZERO))
            }
            None => report(context, &wp, &decided, &mut past, group).await,
        },
    }
}

/// What is remembered of this WorkerPool; of an older namesake nothing is.
fn remembered(pasts: &Mutex<Pasts>, group: &Group, uid: String) -> Arc<tokio::sync::Mutex<Past>> {
    let mut pasts = pasts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, past)) = pasts.get(group).filter(|(known, _)| *known == uid) {
        return Arc::clone(past);
    }
    let past = Arc::default();
    pasts.insert(group.clone(), (uid, Arc::clone(&past)));
    past
}

/// How long a spec that has just become invalid is not told yet: what it names may be applied with it, and be seen a moment
/// later.
fn unsettled(
    since: &mut Option<Moment>,
    invalid: bool,
    old: &WorkerPoolStatus,
    now: Moment,
) -> Option<Duration> {
    if !invalid {
        *since = None;
        return None;
    }
    let since = *since.get_or_insert(now);
    let told = find(&old.conditions, ConditionType::Stalled).is_some_and(|one| one.status == "True");
    let left = TOLD_AFTER.saturating_sub(now.since(since));
    (!told && !left.is_zero()).then_some(left)
}

/// Two plans that would write the same.
fn same(left: &[Step], right: &[Step]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(one, other)| one.repeats(other))
}

/// Says what a step has scaled, and why.
fn log(decision: &Decision, step: &Step, group: &Group) {
    if let Step::Scale {
        deployment, from, to, ..
    } = step
    {
        tracing::info!(
            namespace = group.0,
            worker_pool = group.1,
            deployment,
            from,
            to,
            reason = decision.reason.as_str(),
            rollout = !decision.allocation.complete,
            "{}",
            decision.text()
        );
    }
}

async fn carry_out(
    context: &Context,
    decided: &Decided,
    past: &mut Past,
    group: &Group,
) -> Result<Option<Duration>, Failure> {
    let state = &decided.state;
    let (Ok(spec), Some(input), Some(decision)) = (&state.spec, &state.input, &decided.decision) else {
        return Ok(None);
    };
    let deployments = &state.objects.deployments;
    past.settled
        .retain(|uid, _| deployments.iter().any(|one| one.uid == *uid));
    let now = context.clock.now();
    let settled = |uid: &str| past.settled.get(uid).copied();
    let mut steps = plan(
        &state.wp,
        &render(&spec.pool, &state.wp),
        input,
        &state.objects,
        decision,
        settled,
        context.clock.wall(),
    );
    let tried_again = past.refusals.leave_out(&mut steps, now);
    if steps.is_empty() {
        (past.plan, past.waits) = (None, Waits::default());
        return Ok(tried_again);
    }
    past.written.leave_out(&mut steps, &input.pods, EFFECT, now);
    if steps.is_empty() {
        return Ok(Some(EFFECT));
    }
    if let Some((_, at)) = past.plan.as_ref().filter(|(last, _)| same(last, &steps)) {
        let left = EFFECT.saturating_sub(now.since(*at));
        if !left.is_zero() {
            return Ok(Some(left));
        }
    }
    let executor = Executor::new(&context.client, &group.0);
    let (mut no_room, mut refused) = (None, None);
    for step in &steps {
        let outcome = within_budget(context, &executor, step, input, group).await;
        if outcome.is_ok() {
            past.written.note(step, now);
            past.refusals.over(step);
        }
        match outcome {
            Ok(Some(deployment)) => {
                let meta = deployment.metadata;
                if let (Step::Settle(settle), Some(uid)) = (step, meta.uid) {
                    let labels = meta.labels.unwrap_or_default();
                    let stamp = Stamp::new(meta.generation, &labels, settle.paused);
                    past.settled.insert(uid, stamp);
                    if settle.template.is_some() {
                        tell::restored(context, &state.wp, &settle.seen.name);
                    }
                }
            }
            Ok(None) => {
                log(decision, step, group);
                let last = past.acted.back().and_then(|last| last.decision.as_ref());
                let noted = last.is_some_and(|last| Arc::ptr_eq(last, decision));
                let scales = matches!(step, Step::Scale { .. } | Step::Mark { .. });
                if scales && decision.to != decision.from && !noted {
                    past.acted.truncate(UNTOLD_MAX - 1);
                    past.acted.push_back(decided.clone());
                }
            }
            // What a Pool has no room for keeps nothing else from being done, nor does what the server refuses.
            Err(Failure::NoRoom(trouble)) => no_room = Some(trouble),
            Err(Failure::Refused(trouble)) => {
                // What others keep may be free at any moment; all else is refused again, and often.
                let is_kept = trouble.reason == Reason::Conflict;
                let wait = if is_kept { EFFECT } else { REFUSED_AGAIN };
                past.refusals.note(step, &trouble, now.after(wait));
                refused = Some(trouble);
            }
            Err(failure) => {
                past.plan = None;
                return Err(failure);
            }
        }
    }
    if let Some(trouble) = no_room {
        past.plan = None;
        past.waits.note(&trouble, now);
        return Err(Failure::NoRoom(trouble));
    }
    past.refusals.without(&mut steps, now);
    (past.plan, past.waits) = (Some((steps, now)), Waits::default());
    refused.map_or(Ok(Some(EFFECT)), |trouble| Err(Failure::Refused(trouble)))
}

/// Carries out a step: one that raises a number of replicas when every Pool has granted it, and of one that lowers it the
/// granter is told.
async fn within_budget(
    context: &Context,
    executor: &Executor,
    step: &Step,
    input: &PoolInput,
    group: &Group,
) -> Result<Option<Deployment>, Failure> {
    let Step::Scale {
        from,
        to,
        charge,
        seen,
        ..
    } = step
    else {
        return executor.run(step).await;
    };
    // Pods that a namesake has left behind stay on its account, and so do more of their kind.
    let uid = whose(charge, Some(&input.key.uid));
    if to > from {
        let mut slots = Slots::new();
        add(&mut slots, charge, u64::from(to - from));
        let ask = Ask {
            namespace: group.0.clone(),
            uid: uid.to_owned(),
            worker_pool: group.1.clone(),
            slots,
        };
        context.grants.raise(ask).await?;
        return executor.run(step).await;
    }
    let noted = context.grants.before_fall(&group.0, uid);
    let outcome = executor.run(step).await;
    if outcome.is_ok() {
        context.grants.fell(uid, &seen.uid, noted);
    }
    outcome
}

async fn report(
    context: &Context,
    wp: &Arc<WorkerPool>,
    decided: &Decided,
    past: &mut Past,
    group: &Group,
) -> Result<Option<Duration>, Failure> {
    let state = &decided.state;
    let stored = wp.status.clone().unwrap_or_default();
    let (old, version) = Reported::latest(past.status.as_ref(), &wp.metadata, &stored);
    if state.spec.is_ok() && decided.decision.is_none() && !old.conditions.is_empty() {
        // A process that has just started knows nothing yet; what its predecessor said stands until it does.
        return Ok(None);
    }
    let young = SETTLING.saturating_sub(context.clock.now().since(Moment(0)));
    let moved = |decision: &Arc<Decision>| {
        old.desired_replicas.and_then(|to| u32::try_from(to).ok()) != Some(decision.to)
    };
    if !young.is_zero() && !old.conditions.is_empty() && !decided.decision.as_ref().is_some_and(moved) {
        // Nor does it know its workers before each has sent a heartbeat: a whole fleet would be told anew, twice.
        return Ok(Some(young));
    }
    let now = context.clock.now();
    if let Some(left) = unsettled(&mut past.invalid_since, state.spec.is_err(), old, now) {
        return Ok(Some(left));
    }
    let needs = |input: &Arc<PoolInput>| input.bid.charge.slots.contains_key(DEFAULT_POOL);
    let needs_default = state.input.as_ref().is_some_and(needs);
    let unmade = context.world.no_default(&group.0, now).filter(|_| needs_default);
    let lasting = past.waits.lasting(now).or(unmade.as_ref());
    let facts = Facts {
        generation: state.wp.metadata.generation,
        name: &group.1,
        old,
        spec: match (&state.spec, &state.input) {
            (Ok(_), Some(input)) => Ok((input, decided.decision.as_deref())),
            (Err(invalid), _) => Err(invalid),
            (Ok(_), None) => return Ok(None),
        },
        concurrency: state
            .spec
            .as_ref()
            .ok()
            .map(|spec| spec.pool.concurrency_from.as_str()),
        objects: &state.objects,
        advice: state.spec.as_ref().map_or(&[][..], |spec| &spec.advice),
        refused: past.refusals.last().or(lasting),
        wall: context.clock.wall(),
    };
    let new = status::status(&facts);
    tell::stalled(context, &new, group);
    let may_wait = only_numbers(old, &new);
    let uid = wp.metadata.uid.as_deref().unwrap_or_default();
    if *old == new {
        context.budget.leave(uid);
        return Ok(None);
    }
    if !context.budget.take(uid, context.clock.now(), may_wait) {
        return Ok(Some(BUDGET_AGAIN));
    }
    let api: Api<Lenient<WorkerPool>> = Api::namespaced(context.client.clone(), &group.0);
    let written = write(&api, &wp.metadata, (old, version), new.clone()).await;
    let old = old.clone();
    match written {
        Ok(written) => past.status = written,
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(None),
        Err(error) => {
            past.status = None;
            let moved = matches!(&error, kube::Error::Api(status) if status.code == 409);
            return Err(if moved { Failure::Moved } else { error.into() });
        }
    }
    tell::changes(context, wp, &old, &new, group);
    Ok(None)
}
