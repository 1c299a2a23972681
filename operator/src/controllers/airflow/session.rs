//! The session with one Airflow: reads it every few seconds, and takes one step for each Pool after each whole reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::{AirflowSync, Pool};
use poolwright_core::airflow_pool::{Link, Reading, Step, Wanted, step, wanted};
use poolwright_core::constants::{AIRFLOW_INTERVAL, AIRFLOW_LEAVE, SECRET_INTERVAL};
use poolwright_core::sample::FaultKind;
use poolwright_core::time::Moment;
use tokio::time::{Instant, sleep};

use super::{Context, Key, LOOK};
use crate::controllers::secrets;
use crate::gate::Shut;
use crate::kube::pool::{follow, made, mark, waits};
use crate::signals::SignalError;
use crate::signals::airflow::{Access, Airflow};

/// One session.
pub(super) struct Session {
    context: Arc<Context>,
    key: Key,
    airflow: Option<(Access, Airflow)>,
    /// When the Secrets were last read.
    resolved: Option<Moment>,
    /// When Airflow was last asked.
    asked: Option<Moment>,
    /// What Pools wanted then.
    heeded: Vec<(String, Option<Wanted>, bool)>,
    /// What was the same on both sides when it was last looked at, by Pool.
    agreed: BTreeMap<String, Wanted>,
}

/// Which reason a failure has in a condition.
fn reason(kind: FaultKind) -> Reason {
    match kind {
        FaultKind::Unreachable => Reason::AirflowUnreachable,
        FaultKind::Refused => Reason::AirflowRefused,
        FaultKind::QueueAbsent | FaultKind::Implausible => Reason::AirflowUnknown,
        FaultKind::InvalidAddress => Reason::InvalidSpec,
        FaultKind::SecretMissing => Reason::SecretMissing,
        FaultKind::SecretForbidden => Reason::SecretForbidden,
    }
}

/// For which Pool it was made, in which Airflow, and its name there, as it is written down. With the uid of the Pool, so that
/// one that was copied or restored with its mark deletes nothing.
fn place(pool: &Pool, access: &Access, name: &str) -> String {
    format!("{} {} {name}", pool.uid().unwrap_or_default(), access.url)
}

fn shut(shut: Shut) -> SignalError {
    SignalError::new(FaultKind::Unreachable, shut.to_string())
}

impl Session {
    pub(super) fn new(context: Arc<Context>, key: Key) -> Self {
        Self {
            context,
            key,
            airflow: None,
            resolved: None,
            asked: None,
            heeded: Vec::new(),
            agreed: BTreeMap::new(),
        }
    }

    /// Runs until it is ended.
    pub(super) async fn run(mut self) {
        loop {
            let pools = self.pools();
            let heeded = pools
                .iter()
                .map(|pool| {
                    (
                        pool.name_any(),
                        wanted(pool),
                        pool.meta().deletion_timestamp.is_some(),
                    )
                })
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

    /// The Pools of this session, in the order in which they were made: of two that name one pool the older has it.
    fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools = self.context.world.budgets.all(Some(&self.key.namespace));
        pools.retain(|pool| Key::of(pool).as_ref() == Some(&self.key));
        pools.sort_by_key(|pool| (pool.meta().creation_timestamp.clone(), pool.name_any()));
        pools
    }

    async fn turn(&mut self, pools: &[Arc<Pool>]) {
        match self.read(pools).await {
            Ok(Some(reading)) => {
                let mut names = BTreeSet::new();
                for pool in pools {
                    // One that has become silent is not waited for once for each Pool.
                    if !self.keep(pool, &reading, &mut names).await {
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
            if self.airflow.as_ref().is_none_or(|(known, _)| *known != access) {
                // Where the new one cannot be used, the old one is not used either.
                self.airflow = None;
                let airflow = Airflow::new(&access, &self.context.network)?;
                self.airflow = Some((access, airflow));
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
        if let Err(error) = &reading {
            // The Secrets may have changed, and so may what answers there.
            self.resolved = None;
            if error.kind != FaultKind::Unreachable {
                self.airflow = None;
            }
        }
        reading
    }

    /// Tells what could not be read; what was read before stands.
    fn fail(&self, pool: &Pool, error: &SignalError) {
        let known = self.context.links.of(&self.key.namespace, &pool.name_any());
        let mut link = known.map(|link| (*link).clone()).unwrap_or_default();
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
        self.context.links.put(pool, link);
    }

    /// One step for one Pool; false if Airflow was silent.
    async fn keep(&mut self, pool: &Pool, reading: &Reading, names: &mut BTreeSet<String>) -> bool {
        let Some(((access, airflow), wanted)) = self.airflow.as_ref().zip(wanted(pool)) else {
            return true;
        };
        let listable = airflow.lists_unlimited();
        let mut link = Link {
            url: Some(access.url.clone()),
            name: wanted.name.clone(),
            version: reading.version.clone(),
            seen: reading.pools.get(&wanted.name).cloned(),
            trouble: None,
        };
        if pool.meta().deletion_timestamp.is_some() {
            let gone = self.end(pool, &wanted.name).await;
            if let Err(error) = &gone {
                self.fail(pool, error);
                self.leave(pool, error).await;
            }
            return gone
                .err()
                .is_none_or(|error| error.kind != FaultKind::Unreachable);
        }
        let step = if names.insert(wanted.name.clone()) {
            step(pool, link.seen.as_ref(), listable)
        } else {
            let words = format!(
                "another Pool of this namespace stands for Airflow's pool {:?}",
                wanted.name
            );
            Step::Stuck(Reason::Conflict, words)
        };
        let taken = self.take(pool, step, &wanted).await;
        let answers = taken
            .as_ref()
            .err()
            .is_none_or(|error| error.kind != FaultKind::Unreachable);
        link.trouble = taken.unwrap_or_else(|error| Some((reason(error.kind), error.message)));
        self.context.links.put(pool, link);
        answers
    }

    /// Takes a step; what is to be said of it until the next reading shows that it was taken.
    async fn take(
        &mut self,
        pool: &Pool,
        step: Step,
        wanted: &Wanted,
    ) -> Result<Option<(Reason, String)>, SignalError> {
        let name = pool.name_any();
        self.context.metrics.drifts(&self.key.namespace, &name, 0);
        let drifted = self.agreed.get(&name) == Some(wanted);
        let (words, done) = match step {
            Step::Nothing => {
                self.agreed.insert(name, wanted.clone());
                return Ok(None);
            }
            Step::Stuck(reason, words) => return Ok(Some((reason, words))),
            Step::Create(wanted) => {
                self.create(pool, &wanted).await?;
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
                changed.unwrap_or_else(|refused| Err(shut(refused)))?;
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
        // The next look shows it.
        self.asked = None;
        let words = format!("{words}: {done}");
        let mirrors = pool
            .spec
            .airflow
            .as_ref()
            .is_some_and(|one| one.sync == AirflowSync::Mirror);
        if drifted || mirrors {
            self.context.metrics.drifts(&self.key.namespace, &name, 1);
            let reason = Reason::AirflowDrifted.as_str();
            let about = pool.object_ref(&());
            self.context
                .events
                .send(&about, !mirrors, reason, "Sync", &words)
                .await;
        }
        tracing::info!(pool = name, namespace = self.key.namespace, drifted, "{words}");
        let reason = if drifted || mirrors {
            Reason::AirflowDrifted
        } else {
            Reason::Progressing
        };
        Ok(Some((reason, words)))
    }

    /// Makes a pool in Airflow, and writes down that it was made for this Pool: in this order, so that no other's is ever
    /// taken for ours.
    async fn create(&mut self, pool: &Pool, wanted: &Wanted) -> Result<(), SignalError> {
        let Some((access, airflow)) = &mut self.airflow else {
            return Ok(());
        };
        let place = place(pool, access, &wanted.name);
        let namespace = Some(self.key.namespace.as_str());
        let made = self
            .context
            .gate
            .guard_in(namespace, airflow.create(wanted))
            .await;
        if made.unwrap_or_else(|refused| Err(shut(refused)))? {
            let marked = mark(&self.context.client, pool, Some(&place)).await;
            if !matches!(marked, Ok(true)) {
                tracing::warn!(
                    pool = pool.name_any(),
                    "a pool was made in Airflow that will not be deleted with its Pool"
                );
            }
        }
        Ok(())
    }

    /// Deletes what was made for a Pool that is being deleted, and lets it go.
    async fn end(&mut self, pool: &Pool, name: &str) -> Result<(), SignalError> {
        let Some((access, airflow)) = self.airflow.as_mut().filter(|_| waits(pool)) else {
            return Ok(());
        };
        if made(pool) == Some(&place(pool, access, name)) {
            let namespace = Some(self.key.namespace.as_str());
            let deleted = self.context.gate.guard_in(namespace, airflow.delete(name)).await;
            deleted.unwrap_or_else(|refused| Err(shut(refused)))?;
            tracing::info!(
                pool = pool.name_any(),
                "Airflow's pool {name:?} is deleted with its Pool"
            );
        }
        if let Err(error) = mark(&self.context.client, pool, None).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {error}");
        }
        Ok(())
    }

    /// Lets a Pool go whose Airflow has not answered for long enough: nobody should have to wait for one that is gone.
    async fn leave(&self, pool: &Pool, error: &SignalError) {
        let Some(since) = &pool.meta().deletion_timestamp else {
            return;
        };
        let waited = self.context.clock.wall().duration_since(since.0);
        if !waits(pool) || waited.as_secs() < AIRFLOW_LEAVE.as_secs().cast_signed() {
            return;
        }
        let words = format!(
            "the pool that was made in Airflow for this Pool stays there: {}",
            error.message
        );
        tracing::warn!(pool = pool.name_any(), "{words}");
        let about = pool.object_ref(&());
        let reason = reason(error.kind).as_str();
        self.context
            .events
            .send(&about, true, reason, "Leave", &words)
            .await;
        if let Err(error) = mark(&self.context.client, pool, None).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {error}");
        }
    }
}
