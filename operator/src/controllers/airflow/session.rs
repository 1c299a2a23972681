//! The session with one Airflow: reads it every few seconds, and takes one step for each Pool after each whole reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::{AirflowSync, Pool};
use poolwright_core::airflow_pool::{Link, Reading, Step, Wanted, agreed, reason, step, wanted};
use poolwright_core::constants::{AIRFLOW_INTERVAL, SECRET_INTERVAL};
use poolwright_core::sample::FaultKind;
use poolwright_core::time::Moment;
use tokio::time::{Instant, sleep};

use super::claims::{Claims, same_url};
use super::refusal::Refusal;
use super::{Context, Key, LOOK};
use crate::controllers::secrets;
use crate::gate::Shut;
use crate::kube::events::table;
use crate::kube::pool::follow;
use crate::signals::SignalError;
use crate::signals::airflow::{Access, Airflow};

/// One session.
pub(super) struct Session {
    pub(super) context: Arc<Context>,
    pub(super) key: Key,
    pub(super) airflow: Option<(Access, Airflow)>,
    /// Credentials that are not used again for a while.
    refusal: Option<Refusal>,
    /// When the Secrets were last read.
    resolved: Option<Moment>,
    /// When Airflow was last asked.
    pub(super) asked: Option<Moment>,
    /// What Pools were then, and wanted.
    heeded: Vec<(Option<String>, Option<i64>, Option<Wanted>)>,
    /// The Pool for which Airflow was silent in the last turn.
    silent: Option<String>,
    /// By the uid of a Pool.
    known: BTreeMap<String, Known>,
}

/// What is remembered of one Pool.
#[derive(Default)]
pub(super) struct Known {
    /// What was the same on both sides when it was last looked at, and where; before that what another process has left.
    agreed: Option<(Wanted, String)>,
    /// When the last step was taken.
    stepped: Option<Moment>,
    /// When Airflow last said that it has the pool, which it does not show.
    pub(super) hidden: Option<Moment>,
    /// Whether Airflow has last said that it has no such pool, which was shown.
    gone: bool,
    /// When it last refused to make what, and how.
    pub(super) refused: Option<(Moment, Wanted, SignalError)>,
    /// Whether Airflow has deleted what was made for it.
    pub(super) ended: bool,
    /// Since when nothing has gone well.
    pub(super) failing: Option<Moment>,
}

pub(super) fn shut(shut: Shut) -> SignalError {
    SignalError::new(FaultKind::Unreachable, shut.to_string())
}

/// All, those first that come after the one of this name.
fn from<'a>(pools: &'a [Arc<Pool>], name: Option<&str>) -> impl Iterator<Item = &'a Arc<Pool>> + use<'a> {
    let at = name.and_then(|name| pools.iter().position(|pool| pool.name_any() == name));
    let (before, after) = pools.split_at(at.map_or(0, |at| at + 1));
    after.iter().chain(before)
}

/// Whether something has failed by being waited for.
fn was_silent<T>(done: &Result<T, SignalError>, began: Instant) -> bool {
    done.is_err() && began.elapsed() >= LOOK
}

/// What is said of the younger of two Pools that stand for the same pool.
fn taken(pool: &Pool, rival: &Pool, name: &str) -> String {
    if rival.namespace() == pool.namespace() {
        let rival = rival.name_any();
        return format!(
            "another Pool of this namespace, {rival:?}, stands for Airflow's pool {name:?}: give this one another"
        );
    }
    let namespace = rival.namespace().unwrap_or_default();
    format!(
        "a Pool of namespace {namespace:?} stands for pool {name:?} of the same Airflow: give this one another, or sync: Mirror"
    )
}

pub(super) fn mirrors(pool: &Pool) -> bool {
    let airflow = pool.spec.airflow.as_ref();
    airflow.is_some_and(|airflow| airflow.sync == AirflowSync::Mirror)
}

/// Whether the side that is to follow has left what was the same on both: Airflow's pool, or a Pool that mirrors it.
fn has_drifted(pool: &Pool, wanted: &Wanted, agreed: Option<&Wanted>) -> bool {
    agreed.is_some_and(|agreed| agreed == wanted || mirrors(pool) && agreed.name == wanted.name)
}

impl Session {
    pub(super) fn new(context: Arc<Context>, key: Key) -> Self {
        Self {
            context,
            key,
            airflow: None,
            refusal: None,
            resolved: None,
            asked: None,
            heeded: Vec::new(),
            silent: None,
            known: BTreeMap::new(),
        }
    }

    /// Runs until it is ended.
    pub(super) async fn run(mut self) {
        loop {
            let pools = self.pools();
            let heeded = pools
                .iter()
                .map(|pool| (pool.uid(), pool.meta().generation, wanted(pool)))
                .collect();
            let now = self.context.clock.now();
            let is_due = self.asked.is_none_or(|at| now.since(at) >= AIRFLOW_INTERVAL);
            if is_due || self.heeded != heeded {
                (self.asked, self.heeded) = (Some(now), heeded);
                self.turn(&pools).await;
            }
            sleep(LOOK).await;
        }
    }

    fn is_own(&self, pool: &Pool) -> bool {
        Key::of(pool).as_ref() == Some(&self.key)
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools = self.context.world.budgets.all(Some(&self.key.namespace));
        pools.retain(|pool| self.is_own(pool) && self.context.can_read(pool));
        pools
    }

    /// Where Airflow is; empty while that is not known.
    fn url(&self) -> &str {
        self.airflow
            .as_ref()
            .map_or("", |(access, _)| same_url(&access.url))
    }

    fn claims(&self) -> Claims {
        let all = self.context.world.budgets.all(None);
        let link = |pool: &Pool| self.context.links.of(pool);
        Claims::new(all, self.url(), |pool| self.is_own(pool), link)
    }

    pub(super) fn known(&mut self, pool: &Pool) -> &mut Known {
        let new = || Known {
            agreed: agreed(pool),
            ..Known::default()
        };
        let uid = pool.uid().unwrap_or_default();
        self.known.entry(uid).or_insert_with(new)
    }

    async fn turn(&mut self, pools: &[Arc<Pool>]) {
        let uids: BTreeSet<String> = pools.iter().filter_map(|pool| pool.uid()).collect();
        self.known.retain(|uid, _| uids.contains(uid));
        // Before the first reading, which may fail, and then its status says that.
        for pool in pools {
            self.known(pool);
        }
        match self.read(pools).await {
            Ok(Some(reading)) => {
                let claims = self.claims();
                for pool in from(pools, self.silent.take().as_deref()) {
                    // One that has become silent is not waited for once for each Pool. The next turn begins with the others.
                    if !self.keep(pool, &reading, &claims).await {
                        self.silent = Some(pool.name_any());
                        break;
                    }
                }
            }
            // Another look goes on with it.
            Ok(None) => self.asked = None,
            Err(error) => {
                for pool in pools {
                    self.fail(pool, &error);
                    self.leave(pool, &error).await;
                }
            }
        }
    }

    async fn read(&mut self, pools: &[Arc<Pool>]) -> Result<Option<Reading>, SignalError> {
        let Some(written) = pools.first().and_then(|pool| pool.spec.airflow.as_ref()) else {
            return Ok(None);
        };
        let now = self.context.clock.now();
        if self.resolved.is_none_or(|at| now.since(at) >= SECRET_INTERVAL) {
            let access = secrets::airflow(&self.context.client, &self.key.namespace, written).await?;
            if let Some(error) = self.refusal.as_ref().and_then(|refusal| refusal.of(&access, now)) {
                return Err(error.clone());
            }
            if self.airflow.as_ref().is_none_or(|(known, _)| *known != access) {
                // Where the new one cannot be used, the old one is not used either.
                self.airflow = None;
                let airflow = Airflow::new(&access, &self.context.network)?;
                self.airflow = Some((access, airflow));
                for known in self.known.values_mut() {
                    (known.refused, known.hidden) = (None, None);
                }
            }
            self.resolved = Some(now);
        }
        let wall = self.context.clock.wall();
        let Some((_, airflow)) = &mut self.airflow else {
            return Ok(None);
        };
        let (began, before) = (Instant::now(), airflow.requests());
        let reading = airflow.look(wall).await;
        let (milliseconds, requests) = (began.elapsed().as_millis(), airflow.requests() - before);
        let whole = matches!(reading, Ok(Some(_)));
        tracing::debug!(milliseconds, requests, whole, "looked at Airflow");
        if reading.is_ok() {
            self.refusal = None;
        }
        if let Err(error) = &reading {
            // The Secrets may have changed, and so may what answers there.
            self.resolved = None;
            if error.kind != FaultKind::Unreachable {
                let access = self.airflow.take().map(|(access, _)| access);
                let access = access.filter(|_| error.kind == FaultKind::Refused);
                let before = self.refusal.take();
                self.refusal = access.map(|access| Refusal::after(before, access, error, now));
            }
        }
        reading
    }

    /// Tells what could not be read; what was read before stands.
    fn fail(&mut self, pool: &Pool, error: &SignalError) {
        let now = self.context.clock.now();
        self.known(pool).failing.get_or_insert(now);
        let name = wanted(pool).map(|wanted| wanted.name).unwrap_or_default();
        let mut link = self.context.links.before(pool, &self.key, &name);
        link.generation = pool.meta().generation;
        let trouble = Some((reason(error.kind), error.message.clone()));
        if link.trouble != trouble {
            tracing::warn!(
                pool = pool.name_any(),
                namespace = self.key.namespace,
                "{}",
                error.message
            );
        }
        link.trouble = trouble;
        self.context.links.put(pool, &self.key, link);
    }

    /// One step for one Pool; false if Airflow was silent.
    async fn keep(&mut self, pool: &Pool, reading: &Reading, claims: &Claims) -> bool {
        let Some(((access, airflow), wanted)) = self.airflow.as_ref().zip(wanted(pool)) else {
            return true;
        };
        let (listable, began) = (airflow.lists_unlimited(), Instant::now());
        let seen = reading.pools.get(&wanted.name).cloned();
        let mut link = Link {
            url: Some(same_url(&access.url).to_owned()),
            name: wanted.name.clone(),
            version: reading.version.clone(),
            absent: seen.is_none(),
            seen,
            trouble: None,
            generation: pool.meta().generation,
        };
        if pool.meta().deletion_timestamp.is_some() {
            let gone = self.end(pool, &wanted, link.seen.as_ref(), claims).await;
            if let Err(error) = &gone {
                self.fail(pool, error);
                self.leave(pool, error).await;
            }
            return !was_silent(&gone, began);
        }
        let step = match claims.rival(pool, &wanted.name) {
            None => match self.settle(pool, &wanted, link.seen.as_ref()).await {
                Ok(true) => step(pool, link.seen.as_ref(), listable),
                Ok(false) => return true,
                Err(error) => Step::Stuck(reason(error.kind), error.message),
            },
            Some(rival) => Step::Stuck(Reason::Conflict, taken(pool, rival, &wanted.name)),
        };
        let taken = self.take(pool, step, &wanted).await;
        let is_silent = was_silent(&taken, began);
        if matches!(&taken, Err(error) if error.kind == FaultKind::Refused) {
            // The Secrets may have changed.
            self.resolved = None;
        }
        let now = self.context.clock.now();
        let known = self.known(pool);
        known.failing = taken.is_err().then(|| known.failing.unwrap_or(now));
        link.trouble = taken.unwrap_or_else(|error| Some((reason(error.kind), error.message)));
        self.context.links.put(pool, &self.key, link);
        !is_silent
    }

    /// Takes a step; what is to be said of it until the next reading shows that it was taken.
    async fn take(
        &mut self,
        pool: &Pool,
        step: Step,
        wanted: &Wanted,
    ) -> Result<Option<(Reason, String)>, SignalError> {
        let name = pool.name_any();
        let now = self.context.clock.now();
        // The Airflow may have been read for long, and its series go with a Pool.
        let stands = self.context.world.budgets.get(&self.key.namespace, &name);
        if stands.is_none_or(|one| one.metadata.uid != pool.metadata.uid) || !self.context.can_read(pool) {
            return Ok(None);
        }
        self.context.metrics.drifts(&self.key.namespace, &name, 0);
        let url = self.url().to_owned();
        let known = self.known(pool);
        // Of another Airflow it says nothing.
        let agreed = known.agreed.as_ref().filter(|(_, at)| *at == url);
        let drifted = has_drifted(pool, wanted, agreed.map(|(agreed, _)| agreed));
        if !matches!(step, Step::Create(_)) {
            (known.hidden, known.refused) = (None, None);
        }
        if !matches!(step, Step::Change(..)) {
            known.gone = false;
        }
        let (words, done) = match step {
            Step::Nothing => {
                known.agreed = Some((wanted.clone(), url));
                return Ok(None);
            }
            Step::Stuck(reason, words) => return Ok(Some((reason, words))),
            Step::Create(wanted) => {
                if let Some(trouble) = self.make(pool, &wanted, now).await? {
                    return Ok(Some(trouble));
                }
                (format!("Airflow has no pool {:?}", wanted.name), "it is made")
            }
            Step::Change(wanted, words) => {
                let namespace = Some(self.key.namespace.as_str());
                let Some((_, airflow)) = &mut self.airflow else {
                    return Ok(None);
                };
                let changed = self
                    .context
                    .gate
                    .guard_in(namespace, airflow.change(&wanted))
                    .await;
                let is_there = changed.unwrap_or_else(|refused| Err(shut(refused)))?;
                let was_gone = std::mem::replace(&mut self.known(pool).gone, !is_there);
                if !is_there {
                    return Ok(Some(self.gone(&wanted, was_gone)));
                }
                (words, "Airflow's pool is changed")
            }
            Step::Follow(to, words) => {
                let followed = follow(&self.context.client, pool, &to).await;
                let followed = followed.map_err(|error| {
                    let words = format!("Kubernetes does not let this Pool follow Airflow: {error}");
                    SignalError::new(FaultKind::InvalidAddress, words)
                })?;
                if !followed {
                    self.asked = None;
                    let words =
                        format!("{words}: the Pool is being written by somebody else, and follows then");
                    return Ok(Some((Reason::Progressing, words)));
                }
                (words, "this Pool is changed")
            }
        };
        // The next look shows it. What must be done again and again is done at the usual pace.
        let before = self.known(pool).stepped.replace(now);
        if before.is_none_or(|at| now.since(at) >= AIRFLOW_INTERVAL) {
            self.asked = None;
        }
        let words = format!("{words}: {done}");
        if drifted {
            self.context.metrics.drifts(&self.key.namespace, &name, 1);
            let reason = Reason::AirflowDrifted.as_str();
            let sort = if mirrors(pool) {
                &table::FOLLOWED
            } else {
                &table::TAKEN_BACK
            };
            let about = pool.object_ref(&());
            self.context.events.send(&about, sort, reason, &words);
        }
        tracing::info!(pool = name, namespace = self.key.namespace, drifted, "{words}");
        let reason = if drifted {
            Reason::AirflowDrifted
        } else {
            Reason::Progressing
        };
        Ok(Some((reason, words)))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
