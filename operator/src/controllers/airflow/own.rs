//! What was made in Airflow for a Pool: written down with the Pool before it is made, and deleted with it.
//!
//! A pool that this program did not make is never deleted. A request that breaks off may or may not have made one; the next
//! reading tells, and what it shows counts as made here only if it is what was asked for.

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::Pool;
use poolwright_core::airflow_pool::{PoolView, Step, Wanted, step};
use poolwright_core::constants::AIRFLOW_LEAVE;
use poolwright_core::sample::FaultKind;

use super::claims::{Claims, same_url};
use super::session::{Session, reason, shut};
use crate::kube::pool::{made, mark, mark_as_read, waits};
use crate::signals::SignalError;
use crate::signals::airflow::Access;

/// Before what is being made, and is not known to be there.
const MAKING: &str = "making ";

/// For which Pool it was made, in which Airflow, and its name there, as it is written down. With the uid of the Pool, so that
/// one that was copied or restored with its mark deletes nothing.
fn place(pool: &Pool, access: &Access, name: &str) -> String {
    let url = same_url(&access.url);
    format!("{} {url} {name}", pool.uid().unwrap_or_default())
}

/// True if what is written down is of this Pool and of a pool of this name, in whatever Airflow.
pub(super) fn is_of(pool: &Pool, name: &str) -> bool {
    let own = format!("{} ", pool.uid().unwrap_or_default());
    made(pool).is_some_and(|made| {
        let made = made.strip_prefix(MAKING).unwrap_or(made);
        made.starts_with(&own) && made.ends_with(&format!(" {name}"))
    })
}

/// What is written down of a pool that this Pool stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    /// It was made for it.
    Made,
    /// It was asked for, and nobody knows whether it was made.
    Asked,
    /// It was not.
    No,
}

impl Session {
    fn ours(&self, pool: &Pool, name: &str) -> Ours {
        let place = self.airflow.as_ref().map(|(access, _)| place(pool, access, name));
        let (Some(made), Some(place)) = (made(pool), place) else {
            return Ours::No;
        };
        match made.strip_prefix(MAKING) {
            None if made == place => Ours::Made,
            Some(asked) if asked == place => Ours::Asked,
            _ => Ours::No,
        }
    }

    async fn write_down(&self, pool: &Pool, made: Option<&str>) -> Result<(), SignalError> {
        let written = mark(&self.context.client, pool, made).await;
        let words = match written {
            Ok(true) => return Ok(()),
            Ok(false) => "this Pool is being written by somebody else, or is gone".to_owned(),
            Err(error) => format!("Kubernetes takes no note of what is made in Airflow: {error}"),
        };
        Err(SignalError::new(FaultKind::InvalidAddress, words))
    }

    /// What was asked for and is there now was made; what is there and is another was not.
    pub(super) async fn settle(&self, pool: &Pool, wanted: &Wanted, seen: Option<&PoolView>) {
        let (Some((access, airflow)), Some(_)) = (&self.airflow, seen) else {
            return;
        };
        if self.ours(pool, &wanted.name) != Ours::Asked {
            return;
        }
        let is_it = step(pool, seen, airflow.lists_unlimited()) == Step::Nothing;
        let place = place(pool, access, &wanted.name);
        // Of a Pool that has changed meanwhile this may have been settled already.
        if let Err(error) = mark_as_read(&self.context.client, pool, is_it.then_some(&*place)).await {
            tracing::warn!(
                pool = pool.name_any(),
                "what was made for a Pool is not written down: {error}"
            );
        }
    }

    /// Makes a pool in Airflow; false if one of that name is there by now.
    pub(super) async fn create(&mut self, pool: &Pool, wanted: &Wanted) -> Result<bool, SignalError> {
        let Some(place) = self
            .airflow
            .as_ref()
            .map(|(access, _)| place(pool, access, &wanted.name))
        else {
            return Ok(false);
        };
        let before = self.ours(pool, &wanted.name);
        if before == Ours::No {
            self.write_down(pool, Some(&format!("{MAKING}{place}"))).await?;
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
        match &created {
            Ok(true) => self.write_down(pool, Some(&place)).await?,
            // Nobody knows; the next reading tells.
            Err(error) if error.kind == FaultKind::Unreachable => {}
            Ok(false) | Err(_) if before == Ours::No => self.write_down(pool, None).await?,
            Ok(false) | Err(_) => {}
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
        if !waits(pool) {
            return Ok(());
        }
        let ours = self.ours(pool, &wanted.name);
        let Some((access, airflow)) = &mut self.airflow else {
            return Ok(());
        };
        let is_it = || step(pool, seen, airflow.lists_unlimited()) == Step::Nothing;
        let goes = ours == Ours::Made || ours == Ours::Asked && seen.is_some() && is_it();
        if let Some(heir) = claims.heir(pool, &wanted.name).filter(|_| goes) {
            let place = place(heir, access, &wanted.name);
            self.write_down(heir, Some(&place)).await?;
        } else if goes {
            let namespace = Some(self.key.namespace.as_str());
            let deleted = self
                .context
                .gate
                .guard_in(namespace, airflow.delete(&wanted.name))
                .await;
            deleted.unwrap_or_else(|refused| Err(shut(refused)))?;
            tracing::info!(
                pool = pool.name_any(),
                "Airflow's pool {:?} is deleted with its Pool",
                wanted.name
            );
        }
        if let Err(error) = mark(&self.context.client, pool, None).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {error}");
        }
        Ok(())
    }

    /// Lets a Pool go whose Airflow has not done as it was asked for long enough: nobody should have to wait for one that is
    /// gone.
    pub(super) async fn leave(&self, pool: &Pool, error: &SignalError) {
        let Some(since) = &pool.meta().deletion_timestamp else {
            return;
        };
        let deleted = self.context.clock.wall().duration_since(since.0);
        let failing = self.known.get(&pool.name_any()).and_then(|known| known.failing);
        let failing = failing.map(|since| self.context.clock.now().since(since));
        let is_early = deleted.as_secs() < AIRFLOW_LEAVE.as_secs().cast_signed()
            || failing.is_none_or(|failing| failing < AIRFLOW_LEAVE);
        if !waits(pool) || is_early {
            return;
        }
        let words = format!(
            "the pool that was made in Airflow for this Pool stays there: {}",
            error.message
        );
        tracing::warn!(pool = pool.name_any(), "{words}");
        let about = pool.object_ref(&());
        let reason: Reason = reason(error.kind);
        self.context
            .events
            .send(&about, true, reason.as_str(), "Leave", &words)
            .await;
        if let Err(error) = mark(&self.context.client, pool, None).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {error}");
        }
    }
}
