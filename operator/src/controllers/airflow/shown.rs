//! What Airflow has and does not show, and shows and has not: as where its user may not see all pools, or where its database
//! is another's.
//!
//! One look may just have come too early, so the next one is awaited. After that it is said, and Airflow is not asked for the
//! same again and again.

use std::time::Duration;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::Pool;
use poolwright_core::airflow_pool::Wanted;
use poolwright_core::time::Moment;

use super::session::Session;
use crate::signals::SignalError;

/// A pool that Airflow does not let be made, or has and does not show, is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(60);

impl Session {
    /// What is said of a pool that was shown and is not there to be changed: the next look shows that it is gone, or never will.
    pub(super) fn gone(&mut self, wanted: &Wanted, again: bool) -> (Reason, String) {
        let name = &wanted.name;
        if !again {
            self.asked = None;
            let words = format!("Airflow has no pool {name:?} any more");
            return (Reason::Progressing, words);
        }
        let words = format!(
            "Airflow's API has no pool {name:?}, which is shown: is databaseUrl in the Secret that of the same Airflow?"
        );
        (Reason::AirflowPoolMissing, words)
    }

    /// Makes a pool, unless that was refused a moment ago: each try writes into the Pool, too. What is to be said if it is
    /// there already.
    pub(super) async fn make(
        &mut self,
        pool: &Pool,
        wanted: &Wanted,
        now: Moment,
    ) -> Result<Option<(Reason, String)>, SignalError> {
        let known = self.known(pool);
        let refused = known.refused.as_ref();
        let is_again = |at: Moment, what: &Wanted| what == wanted && now.since(at) < AGAIN;
        if let Some((_, _, error)) = refused.filter(|(at, what, _)| is_again(*at, what)) {
            return Err(error.clone());
        }
        let is_early = known.hidden.is_some_and(|at| now.since(at) < AGAIN);
        let made = if is_early {
            Ok(false)
        } else {
            self.create(pool, wanted, now).await
        };
        Ok((!made?).then(|| self.hidden(pool, wanted, now)))
    }

    /// What is said of a pool that Airflow has, as it says to whoever wants to make it: the next look shows it, or never will.
    fn hidden(&mut self, pool: &Pool, wanted: &Wanted, now: Moment) -> (Reason, String) {
        let known = self.known(pool);
        let at = known.hidden.get_or_insert(now);
        if *at == now {
            self.asked = None;
            return (
                Reason::Progressing,
                format!("Airflow has a pool {:?} by now", wanted.name),
            );
        }
        if now.since(*at) >= AGAIN {
            *at = now;
        }
        let words = format!(
            "Airflow has a pool {:?} and does not show it: may this user see all pools, and is databaseUrl in the Secret, if \
             it is there, that of the same Airflow?",
            wanted.name
        );
        (Reason::AirflowPoolMissing, words)
    }
}
