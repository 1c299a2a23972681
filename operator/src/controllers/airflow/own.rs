//! What was made in Airflow for a Pool: written down with the Pool before it is made, and deleted with it.
//!
//! A pool that this program did not make is never deleted. A request that breaks off may or may not have made one; the next
//! reading tells, and what it shows counts as made here only if it is what was asked for.

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::Pool;
use poolwright_core::airflow_pool::{PoolView, Wanted, reason};
use poolwright_core::constants::{AIRFLOW_INTERVAL, AIRFLOW_LEAVE};
use poolwright_core::sample::FaultKind;
use poolwright_core::time::Moment;

use super::claims::{Claims, same_url};
use super::session::{Session, shut};
use crate::kube::pool::{made, mark, mark_as_read, waits};
use crate::signals::SignalError;
use crate::signals::airflow::Access;

/// Before the shape of what is being made, and is not known to be there.
const MAKING: &str = "making ";

/// What is written down of a pool: `uid url name` of one that was made, and `making shape uid url name` before that. With the
/// uid of its Pool, so that one that was copied or restored with its mark deletes nothing.
struct Mark<'a> {
    /// What was asked for, where nobody knows whether that was made.
    asked: Option<&'a str>,
    uid: &'a str,
    url: &'a str,
    name: &'a str,
}

impl<'a> Mark<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (asked, made) = match text.strip_prefix(MAKING) {
            Some(rest) => rest.split_once(' ').map(|(shape, made)| (Some(shape), made))?,
            None => (None, text),
        };
        let (uid, rest) = made.split_once(' ')?;
        let (url, name) = rest.split_once(' ')?;
        Some(Self {
            asked,
            uid,
            url,
            name,
        })
    }

    /// That of this Pool, if it has one of its own.
    fn of(pool: &'a Pool) -> Option<Self> {
        let own = |mark: &Self| pool.meta().uid.as_deref() == Some(mark.uid);
        made(pool).and_then(Self::read).filter(own)
    }
}

/// The mark of a pool that was made.
fn place(pool: &Pool, access: &Access, name: &str) -> String {
    let url = same_url(&access.url);
    format!("{} {url} {name}", pool.uid().unwrap_or_default())
}

/// True if what is written down is of this Pool and of a pool of this name, in whatever Airflow.
pub(super) fn is_of(pool: &Pool, name: &str) -> bool {
    Mark::of(pool).is_some_and(|mark| mark.name == name)
}

/// What is written down of a pool that this Pool stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours<'a> {
    /// It was made for it.
    Made,
    /// One of this shape was asked for, and nobody knows whether it was made.
    Asked(&'a str),
    /// It was not.
    No,
}

impl Session {
    fn ours<'a>(&self, pool: &'a Pool, name: &str) -> Ours<'a> {
        let url = self.airflow.as_ref().map(|(access, _)| same_url(&access.url));
        match Mark::of(pool).filter(|mark| mark.name == name && Some(same_url(mark.url)) == url) {
            Some(Mark {
                asked: Some(shape), ..
            }) => Ours::Asked(shape),
            Some(_) => Ours::Made,
            None => Ours::No,
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

    /// What was asked for and is there now was made; what is there and is another was not. False while that is not written
    /// down: a pool that is changed before would be another by then.
    pub(super) async fn settle(&self, pool: &Pool, wanted: &Wanted, seen: Option<&PoolView>) -> bool {
        let (Some((access, _)), Some(seen)) = (&self.airflow, seen) else {
            return true;
        };
        let Ours::Asked(shape) = self.ours(pool, &wanted.name) else {
            return true;
        };
        let is_it = seen.shape() == shape;
        let place = place(pool, access, &wanted.name);
        // Of a Pool that has changed meanwhile this may have been settled already: the next look tells.
        let written = mark_as_read(&self.context.client, pool, is_it.then_some(&*place)).await;
        written.unwrap_or_else(|error| {
            tracing::warn!(
                pool = pool.name_any(),
                "what was made for a Pool is not written down: {error}"
            );
            false
        })
    }

    /// Makes a pool in Airflow; false if one of that name is there by now.
    pub(super) async fn create(
        &mut self,
        pool: &Pool,
        wanted: &Wanted,
        now: Moment,
    ) -> Result<bool, SignalError> {
        let Some(place) = self
            .airflow
            .as_ref()
            .map(|(access, _)| place(pool, access, &wanted.name))
        else {
            return Ok(false);
        };
        let (before, shape) = (self.ours(pool, &wanted.name), wanted.shape());
        if before != Ours::Made && before != Ours::Asked(&shape) {
            let asked = format!("{MAKING}{shape} {place}");
            self.write_down(pool, Some(&asked)).await?;
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
            let known = self.known.entry(pool.name_any()).or_default();
            known.refused = Some((now, wanted.clone(), error));
        }
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
        let goes = match (ours, seen) {
            (Ours::Made, _) => true,
            (Ours::Asked(shape), Some(seen)) => seen.shape() == shape,
            (Ours::Asked(_), None) if self.is_fresh(pool) => return Ok(()),
            (Ours::Asked(_), None) => {
                let words = format!(
                    "it is not known whether pool {:?} was made in Airflow for this Pool: Airflow does not show it",
                    wanted.name
                );
                self.abandon(pool, Reason::AirflowUnreachable, &words).await;
                return Ok(());
            }
            (Ours::No, _) => false,
        };
        let Some((access, airflow)) = &mut self.airflow else {
            return Ok(());
        };
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

    /// True for a Pool whose deletion has just begun: a request that broke off before may still be at work in Airflow.
    fn is_fresh(&self, pool: &Pool) -> bool {
        let since = pool.meta().deletion_timestamp.as_ref();
        let deleted = since.map(|since| self.context.clock.wall().duration_since(since.0));
        deleted.is_some_and(|deleted| deleted.unsigned_abs() <= 2 * AIRFLOW_INTERVAL)
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
        self.abandon(pool, reason(error.kind), &words).await;
    }

    /// Lets a Pool go, and says what may be left of it.
    async fn abandon(&self, pool: &Pool, reason: Reason, words: &str) {
        tracing::warn!(pool = pool.name_any(), "{words}");
        let about = pool.object_ref(&());
        self.context
            .events
            .send(&about, true, reason.as_str(), "Leave", words)
            .await;
        if let Err(error) = mark(&self.context.client, pool, None).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use poolwright_api::ANNOTATION_AIRFLOW_MADE;

    use super::*;

    fn marked(text: &str) -> Pool {
        let mut pool = Pool::default();
        pool.metadata.uid = Some("u-1".to_owned());
        pool.metadata.annotations = Some([(ANNOTATION_AIRFLOW_MADE.to_owned(), text.to_owned())].into());
        pool
    }

    #[test]
    fn a_mark_is_read_as_it_is_written_and_counts_for_its_own_pool() {
        for (text, asked, name) in [
            ("u-1 http://a x", None, "x"),
            ("u-1 http://a/ two words", None, "two words"),
            ("making 0f u-1 http://a x", Some("0f"), "x"),
        ] {
            let pool = marked(text);
            let mark = Mark::of(&pool).expect("its mark");
            assert_eq!(
                (mark.asked, same_url(mark.url), mark.name),
                (asked, "http://a", name)
            );
            assert!(is_of(&pool, name) && !is_of(&pool, "y"));
        }
        // That of the Pool it was copied from, and what somebody has written by hand.
        for text in ["u-2 http://a x", "making 0f u-2 http://a x", "u-1", "", "making "] {
            assert!(Mark::of(&marked(text)).is_none(), "{text:?}");
        }
    }
}
