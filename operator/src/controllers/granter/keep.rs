//! Looks after all Pools: makes the one that every namespace gets, counts what is not known, releases what is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::api::ObjectMeta;
use kube::{Api, ResourceExt};
use poolwright_api::DEFAULT_POOL;
use poolwright_api::v1alpha1::{Holder, Pool, PoolSpec};
use poolwright_core::charge::whose;
use poolwright_core::grants::{Mark, Mode, mark, mode};
use poolwright_core::pool_status::PoolName;
use poolwright_core::snapshot::Budget;
use poolwright_core::time::Moment;
use tokio::task::JoinSet;

use super::Context;
use super::release::{Candidates, rebuild, release};
use super::report::{Unwritten, report};
use crate::kube::posting;

/// A grant that is larger than what is seen, and that no fall explains, is released after so long: until then it may belong
/// to a raise.
const PATIENCE: Duration = Duration::from_secs(5);
/// It is waited twice as long after each try that lowers nothing, at most so often.
const TRIES_MAX: u32 = 7;
/// What has no Deployment any more is believed to be left alone by controllers after so long.
const GONE_FOR: Duration = Duration::from_secs(60);
/// What failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(2);
/// Slots that a Pool may have at most.
const SLOTS_MAX: u64 = 1_000_000;

/// Namespace and name of a Pool, and uid of a holder.
type Place = (String, String, String);

/// A grant that is larger than what is seen.
#[derive(Clone)]
struct Slack {
    mark: Mark,
    granted: i64,
    since: Moment,
    /// When it was last tried to release it, and how often: what lowers nothing is tried less and less.
    tried: (Moment, u32),
}

/// Looks after one namespace at a time each.
pub(super) struct Keeper {
    context: Arc<Context>,
    tasks: JoinSet<(String, bool)>,
    busy: BTreeSet<String>,
    failed: BTreeMap<String, Moment>,
    /// Grants that are larger than what is seen.
    slack: BTreeMap<Place, Slack>,
    /// Since when the grants of a Pool have not been known.
    unknown: BTreeMap<(String, String), Moment>,
    known: BTreeSet<(String, String)>,
    /// Those whose status was not written.
    unwritten: Arc<Unwritten>,
}

/// What is to be done in one namespace.
#[derive(Default)]
struct Work {
    make_default: bool,
    unknown: Vec<String>,
    /// So long unknown that nothing is under way any more.
    settled: BTreeSet<String>,
    candidates: Candidates,
    patient: Candidates,
    gone: Candidates,
    pools: Vec<Arc<Pool>>,
}

impl Keeper {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            tasks: JoinSet::new(),
            busy: BTreeSet::new(),
            failed: BTreeMap::new(),
            slack: BTreeMap::new(),
            unknown: BTreeMap::new(),
            known: BTreeSet::new(),
            unwritten: Arc::default(),
        }
    }

    /// Resolves when a namespace has been looked after.
    pub(super) async fn finished(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok((namespace, well))) => {
                if !well {
                    self.failed.insert(namespace.clone(), self.context.clock.now());
                }
                self.busy.remove(&namespace);
            }
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// Starts what is to be done wherever nothing is under way.
    pub(super) fn look(&mut self) {
        let now = self.context.clock.now();
        self.failed.retain(|_, at| now.since(*at) < AGAIN);
        for (namespace, work) in self.survey(now) {
            if self.busy.contains(&namespace) || self.failed.contains_key(&namespace) {
                continue;
            }
            self.busy.insert(namespace.clone());
            let (context, unwritten) = (Arc::clone(&self.context), Arc::clone(&self.unwritten));
            self.tasks.spawn(async move {
                let done = AssertUnwindSafe(tend(&context, &unwritten, &namespace, work))
                    .catch_unwind()
                    .await;
                let well = match done {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::warn!(namespace, "Pools: {error}");
                        false
                    }
                    Err(_) => {
                        tracing::error!(namespace, "looking after Pools panicked");
                        false
                    }
                };
                (namespace, well)
            });
        }
    }

    /// What is to be done, by namespace.
    fn survey(&mut self, now: Moment) -> BTreeMap<String, Work> {
        let world = &self.context.world;
        let mut all: BTreeMap<String, Work> = BTreeMap::new();
        for queue in world.queues.all(None) {
            let namespace = queue.namespace().unwrap_or_default();
            let work = all.entry(namespace).or_default();
            work.make_default |= queue.metadata.deletion_timestamp.is_none();
        }
        let needed = all.iter().filter(|(_, work)| work.make_default);
        let needed = needed.map(|(namespace, _)| namespace.clone()).collect();
        world.unmade.keep(&needed);
        let namespaces = world.namespaces();
        let unreadable = world.budgets.all_unreadable(None);
        let unreadable: BTreeSet<PoolName> = unreadable.into_iter().map(|(place, _)| place).collect();
        for (namespace, _) in unreadable.iter().filter(|(_, name)| name == DEFAULT_POOL) {
            if let Some(work) = all.get_mut(namespace) {
                work.make_default = false;
            }
        }
        let mut known = BTreeSet::new();
        let mut slack = BTreeMap::new();
        let mut unknown = BTreeMap::new();
        for pool in world.budgets.all(None) {
            let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
            let place = (namespace.clone(), name.clone());
            if unreadable.contains(&place) {
                // What is known of it is old: it is left as it is, and no number of it is told.
                continue;
            }
            let work = all.entry(namespace.clone()).or_default();
            work.make_default &= name != DEFAULT_POOL;
            let budget = namespaces.get(&namespace).and_then(|one| one.pools.get(&name));
            match (mode(&pool), budget) {
                (Mode::Unknown | Mode::Opening, _) => {
                    let since = self.unknown.get(&place).copied().unwrap_or(now);
                    if now.since(since) >= GONE_FOR {
                        work.settled.insert(name.clone());
                    }
                    unknown.insert(place.clone(), since);
                    work.unknown.push(name);
                }
                (Mode::Limited, Some(budget)) => self.find_slack(&pool, budget, work, &mut slack, now),
                _ => {}
            }
            known.insert(place);
            work.pools.push(pool);
        }
        (self.slack, self.unknown) = (slack, unknown);
        for (namespace, name) in self.known.difference(&known) {
            self.context.metrics.forget_pool(namespace, name);
        }
        self.unwritten
            .retain(|place| known.contains(place) || unreadable.contains(place));
        self.known = known;
        let alive = world.pools.all(None).iter().filter_map(|wp| wp.uid()).collect();
        self.context.grants.retain(&alive);
        all
    }

    /// Holders whose pods take less than is granted.
    fn find_slack(
        &self,
        pool: &Pool,
        budget: &Budget,
        work: &mut Work,
        slack: &mut BTreeMap<Place, Slack>,
        now: Moment,
    ) {
        let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
        let figures = self.context.latest.budgets();
        let figures = figures.get(&(namespace.clone(), name.clone()));
        let is_waited_for = figures.is_some_and(|figures| !figures.waiters.is_empty());
        for holder in pool.status.iter().flat_map(|status| &status.holders) {
            let used = budget.used.get(&holder.uid).copied().unwrap_or(0);
            let is_less = u64::try_from(holder.granted).is_ok_and(|granted| used < granted);
            let Some(mark) = mark(pool, &holder.uid).filter(|_| is_less) else {
                continue;
            };
            let place = (namespace.clone(), name.clone(), holder.uid.clone());
            let known = self.slack.get(&place);
            let known = known.filter(|known| known.mark == mark && known.granted == holder.granted);
            let mut one = known.cloned().unwrap_or_else(|| Slack {
                mark: mark.clone(),
                granted: holder.granted,
                since: now,
                tried: (now, 0),
            });
            let (fallen, leaving) = self.explained(&namespace, &name, holder, &mark);
            let wait = PATIENCE.saturating_mul(1 << one.tried.1.min(TRIES_MAX));
            let patient = now.since(one.tried.0) >= wait;
            let gone = now.since(one.since) >= GONE_FOR;
            // While nobody waits for them, all that are leaving are released in one write.
            let waits = fallen && leaving && !is_waited_for;
            if !waits && !self.busy.contains(&namespace) {
                let add = |to: &mut Candidates| {
                    to.entry(name.clone()).or_default().insert(holder.uid.clone());
                };
                if fallen || patient {
                    add(&mut work.candidates);
                }
                if patient {
                    add(&mut work.patient);
                    one.tried = (now, one.tried.1 + 1);
                }
                if patient && gone {
                    add(&mut work.gone);
                }
            }
            slack.insert(place, one);
        }
    }

    /// True if a fall of every Deployment explains that a holder has more than it takes; and if pods are still leaving.
    fn explained(&self, namespace: &str, pool: &str, holder: &Holder, mark: &Mark) -> (bool, bool) {
        let group = (namespace.to_owned(), holder.worker_pool.clone());
        let objects = self.context.world.objects(&group);
        let own = objects
            .deployments
            .iter()
            .filter(|one| whose(&one.charge, one.owner.as_deref()) == holder.uid);
        let uids = own.map(|one| one.uid.as_str());
        let fallen = self.context.grants.has_fallen(&holder.uid, uids, pool, mark);
        let leaving = objects.pods.iter().any(|pod| pod.draining && !pod.ended);
        (fallen, leaving)
    }
}

/// Each part whatever becomes of the others: a Pool that may not be made keeps no grant of another.
async fn tend(
    context: &Context,
    unwritten: &Unwritten,
    namespace: &str,
    work: Work,
) -> Result<(), kube::Error> {
    let mut first = Ok(());
    let mut note = |done: Result<(), kube::Error>| {
        if first.is_ok() {
            first = done;
        }
    };
    if work.make_default {
        let made = make_default(context, namespace).await;
        let (unmade, now) = (&context.world.unmade, context.clock.now());
        unmade.tried(namespace, made.as_ref().err(), now);
        note(made);
    }
    let mut written = BTreeSet::new();
    for name in &work.unknown {
        let rebuilt = rebuild(context, namespace, name, work.settled.contains(name)).await;
        note(rebuilt.map(|is_written| written.extend(is_written.then(|| name.clone()))));
    }
    if !work.candidates.is_empty() {
        let released = release(context, namespace, &work.candidates, (&work.patient, &work.gone)).await;
        note(released.map(|names| written.extend(names)));
    }
    // What was written just now says all, or the watch shows it in a moment; what was read before it is old.
    for pool in work
        .pools
        .iter()
        .filter(|pool| !written.contains(&pool.name_any()))
    {
        note(report(context, unwritten, namespace, pool).await);
    }
    first
}

/// Makes the Pool of queues that name none: as large as what runs already, so that nothing is cut.
async fn make_default(context: &Context, namespace: &str) -> Result<(), kube::Error> {
    let Some(taken) = context.world.taken(namespace, DEFAULT_POOL) else {
        return Ok(());
    };
    let slots = i32::try_from(taken.min(SLOTS_MAX))
        .unwrap_or(i32::MAX)
        .max(context.default_slots);
    let pool = Pool {
        metadata: ObjectMeta {
            name: Some(DEFAULT_POOL.to_owned()),
            ..ObjectMeta::default()
        },
        spec: PoolSpec {
            slots,
            description: Some("The budget of TaskQueues that name no other Pool".to_owned()),
            ..PoolSpec::default()
        },
        status: None,
    };
    let api: Api<Pool> = Api::namespaced(context.client.clone(), namespace);
    match api.create(&posting(), &pool).await {
        Ok(_) => {
            tracing::info!(namespace, slots, "made {DEFAULT_POOL}");
            Ok(())
        }
        // Another was faster, or the namespace is going.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("terminated") => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
