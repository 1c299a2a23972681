//! What was made in Airflow for a Pool: written down with the Pool before it is made, and deleted with it.
//!
//! A pool that this program did not make is never deleted. A request that breaks off may or may not have made one; the next
//! reading tells, and what it shows counts as made here only if it is what was asked for.

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::Pool;
use poolwright_core::airflow_pool::{PoolView, Wanted};
use poolwright_core::constants::{AIRFLOW_INTERVAL, AIRFLOW_LEAVE};
use poolwright_core::sample::FaultKind;
use poolwright_core::time::Moment;

use super::Context;
use super::claims::{Claims, same_url};
use super::mark::{Mark, Ours, place};
use super::session::{Session, mirrors, shut};
use crate::kube::events::table;
use crate::kube::pool::{mark, settle, waits};
use crate::signals::SignalError;

impl Session {
    fn ours<'a>(&self, pool: &'a Pool, name: &str) -> Ours<'a> {
        let Some((access, _)) = &self.airflow else {
            return Ours::No;
        };
        Mark::of(pool).map_or(Ours::No, |mark| mark.ours(&access.url, name))
    }

    async fn write_down(&self, pool: &Pool, made: Option<&str>) -> Result<(), SignalError> {
        match mark(&self.context.client, pool, made).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let words = "this Pool is being written by somebody else, or is gone";
                Err(SignalError::new(FaultKind::InvalidAddress, words))
            }
            Err(error) => Err(unnoted(&error)),
        }
    }

    /// What was asked for and is there now was made; what is there and is another was not. What was made in another Airflow
    /// stays there. False while that is not written down, since the Pool has changed meanwhile: a pool that is changed before
    /// would be another by then.
    pub(super) async fn settle(
        &self,
        pool: &Pool,
        wanted: &Wanted,
        seen: Option<&PoolView>,
    ) -> Result<bool, SignalError> {
        let Some((access, _)) = &self.airflow else {
            return Ok(true);
        };
        let url = &access.url;
        match (self.ours(pool, &wanted.name), seen) {
            (Ours::Asked(shapes), Some(seen)) => {
                let is_it = shapes.contains(&seen.shape().as_str());
                let place = place(pool, url, &wanted.name);
                // Of a Pool that has changed meanwhile this may have been settled already: the next look tells.
                let written = settle(&self.context.client, pool, is_it.then_some(&*place)).await;
                written.map_err(|error| unnoted(&error))
            }
            (Ours::OtherAirflow, _) => abandon(&self.context, pool, &elsewhere(url)).await,
            (Ours::OtherName, _) => abandon(&self.context, pool, RENAMED).await,
            _ => Ok(true),
        }
    }

    /// Makes a pool in Airflow; false if one of that name is there by now.
    pub(super) async fn create(
        &mut self,
        pool: &Pool,
        wanted: &Wanted,
        now: Moment,
    ) -> Result<bool, SignalError> {
        let Some((access, _)) = &self.airflow else {
            return Ok(false);
        };
        let place = place(pool, &access.url, &wanted.name);
        let (before, shape) = (self.ours(pool, &wanted.name), wanted.shape());
        // Also of one that was made and is gone: what somebody else makes instead is not ours.
        if !before.has_asked(&shape) {
            self.write_down(pool, Some(&before.asking(&shape, &place)))
                .await?;
        }
        let Some((_, airflow)) = &mut self.airflow else {
            return Ok(false);
        };
        let namespace = Some(self.key.namespace.as_str());
        let created = self
            .context
            .gate
            .guard_in(namespace, airflow.create(wanted))
            .await;
        let created = created.unwrap_or_else(|refused| Err(shut(refused)));
        if let Err(error) = created.as_ref().map_err(SignalError::clone)
            && error.kind != FaultKind::Unreachable
        {
            let known = self.known(pool);
            known.refused = Some((now, wanted.clone(), error));
        }
        match &created {
            Ok(true) => self.write_down(pool, Some(&place)).await?,
            // Nobody knows; the next reading tells.
            Err(error) if error.kind == FaultKind::Unreachable => {}
            // One that was made before, and is not shown to this user, may be what is there.
            Ok(false) if matches!(before, Ours::Made | Ours::Asked(_)) => {}
            // Of what was asked for before nobody knows.
            Err(_) if matches!(before, Ours::Asked(_)) => {}
            Ok(false) | Err(_) => self.write_down(pool, None).await?,
        }
        created
    }

    /// Deletes what was made for a Pool that is being deleted, and lets it go. Where another Pool stands for the same pool, it
    /// is that one's from now on.
    pub(super) async fn end(
        &mut self,
        pool: &Pool,
        wanted: &Wanted,
        seen: Option<&PoolView>,
        claims: &Claims,
    ) -> Result<(), SignalError> {
        // What a Pool that follows Airflow has made before stays: whoever looks after all Pools ends that.
        if !waits(pool) || mirrors(pool) {
            return Ok(());
        }
        let Some((access, _)) = &self.airflow else {
            return Ok(());
        };
        let goes = match (self.ours(pool, &wanted.name), seen) {
            (Ours::Made, _) => true,
            (Ours::Asked(shapes), Some(seen)) => shapes.contains(&seen.shape().as_str()),
            (Ours::Asked(_), None) if self.is_fresh(pool) => return Ok(()),
            (Ours::Asked(_), None) => {
                let why = "Airflow does not show whether it was";
                return abandon(&self.context, pool, why).await.map(drop);
            }
            (Ours::OtherName, _) => return Ok(()),
            (Ours::OtherAirflow | Ours::No, _) => {
                let why = elsewhere(&access.url);
                return abandon(&self.context, pool, &why).await.map(drop);
            }
        };
        // What is there by now is somebody else's.
        let goes = goes && !self.known(pool).ended;
        let Some((access, airflow)) = &mut self.airflow else {
            return Ok(());
        };
        if let Some(heir) = claims.heir(pool, &wanted.name).filter(|_| goes) {
            let place = place(heir, &access.url, &wanted.name);
            self.write_down(heir, Some(&place)).await?;
        } else if goes {
            let namespace = Some(self.key.namespace.as_str());
            let deleted = self
                .context
                .gate
                .guard_in(namespace, airflow.delete(&wanted.name))
                .await;
            deleted.unwrap_or_else(|refused| Err(shut(refused)))?;
            self.known(pool).ended = true;
            tracing::info!(
                pool = pool.name_any(),
                "Airflow's pool {:?} is deleted with its Pool",
                wanted.name
            );
        }
        let freed = mark(&self.context.client, pool, None).await;
        freed.map(drop).map_err(|error| unnoted(&error))
    }

    /// True for a Pool whose deletion has just begun: a request that broke off before may still be at work in Airflow.
    fn is_fresh(&self, pool: &Pool) -> bool {
        let since = pool.meta().deletion_timestamp.as_ref();
        let deleted = since.map(|since| self.context.clock.wall().duration_since(since.0));
        deleted.is_some_and(|deleted| deleted.unsigned_abs() <= 2 * AIRFLOW_INTERVAL)
    }

    /// Lets a Pool go whose Airflow has not done as it was asked for long enough: nobody should have to wait for one that is
    /// gone.
    pub(super) async fn leave(&mut self, pool: &Pool, error: &SignalError) {
        let Some(since) = &pool.meta().deletion_timestamp else {
            return;
        };
        let deleted = self.context.clock.wall().duration_since(since.0);
        let failing = self.known(pool).failing;
        let failing = failing.map(|since| self.context.clock.now().since(since));
        let is_early = deleted.as_secs() < AIRFLOW_LEAVE.as_secs().cast_signed()
            || failing.is_none_or(|failing| failing < AIRFLOW_LEAVE);
        if !waits(pool) || is_early {
            return;
        }
        if let Err(error) = abandon(&self.context, pool, &error.message).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {}", error.message);
        }
    }
}

/// Why what was made under another name stays there.
pub(super) const RENAMED: &str = "this Pool stands for another one now";

/// Why what was made in another Airflow than this one stays there.
fn elsewhere(url: &str) -> String {
    let url = same_url(url);
    format!("the Secret of spec.airflow.secretRef names the one at {url} now")
}

fn unnoted(error: &kube::Error) -> SignalError {
    let words = format!("Kubernetes takes no note of what is made in Airflow: {error}");
    SignalError::new(FaultKind::InvalidAddress, words)
}

/// Ends what a Pool has to do with what was made for it, and says where that stays. False if it has changed meanwhile: to be
/// judged anew.
pub(super) async fn abandon(context: &Context, pool: &Pool, why: &str) -> Result<bool, SignalError> {
    let freed = settle(&context.client, pool, None).await;
    if !freed.map_err(|error| unnoted(&error))? {
        return Ok(false);
    }
    // Of a copy with its original's mark there is nothing to say.
    if let Some(words) = Mark::of(pool).map(|mark| mark.left(why)) {
        tracing::warn!(pool = pool.name_any(), "{words}");
        let (about, reason) = (pool.object_ref(&()), Reason::AirflowPoolLeft.as_str());
        context.events.send(&about, &table::LEFT, reason, &words);
    }
    Ok(true)
}
