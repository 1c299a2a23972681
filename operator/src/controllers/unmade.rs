//! Why a namespace has no `default-pool` although the operator makes one.
//!
//! For a moment after the first TaskQueue it is only on its way, and saying that it is missing would be noise. Where the
//! API server refuses it, somebody has to be told, in the server's words: nothing starts without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use poolwright_api::{DEFAULT_POOL, Reason};
use poolwright_core::snapshot::{Trouble, WORDS_MAX};
use poolwright_core::text::bounded;
use poolwright_core::time::Moment;

/// What has been refused for so long is told.
const LASTING: Duration = Duration::from_secs(5);

/// Namespaces in which it could not be made, since when, and the newest words.
#[derive(Default)]
pub struct Unmade(Mutex<BTreeMap<String, (Moment, String)>>);

impl Unmade {
    /// It was tried once more; `error` is what came of it, if it was not made.
    pub fn tried(&self, namespace: &str, error: Option<&kube::Error>, now: Moment) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            all.remove(namespace);
            return;
        };
        let words = match error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        let since = all.get(namespace).map_or(now, |(since, _)| *since);
        all.insert(namespace.to_owned(), (since, bounded(&words, WORDS_MAX)));
    }

    /// Of other namespaces than these nothing is known any more: nobody needs it there.
    pub fn keep(&self, needed: &BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|namespace, _| needed.contains(namespace));
    }

    /// What is to be said of it, once it has lasted.
    pub fn lasting(&self, namespace: &str, now: Moment) -> Option<Trouble> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, words) = all.get(namespace)?;
        (now.since(*since) >= LASTING).then(|| Trouble {
            reason: Reason::PoolMissing,
            message: format!(
                "Pool {DEFAULT_POOL:?} does not exist, and could not be made, so no worker is started: {words}; create \
                 it, or write another Pool in spec.pool.name of the TaskQueue"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_lasts_is_told_in_the_servers_words_until_it_is_over() {
        let denied = kube::core::Status::failure("exceeded quota: pools", "Forbidden").boxed();
        let denied = kube::Error::Api(denied);
        let unmade = Unmade::default();
        unmade.tried("shop", Some(&denied), Moment(1000));
        unmade.tried("shop", Some(&denied), Moment(3000));
        assert_eq!(unmade.lasting("shop", Moment(5999)), None);
        let said = unmade.lasting("shop", Moment(6000)).expect("it lasts");
        assert_eq!(said.reason, Reason::PoolMissing);
        assert!(
            said.message.contains("exceeded quota: pools; create it"),
            "{}",
            said.message
        );
        assert_eq!(unmade.lasting("other", Moment(6000)), None);
        unmade.keep(&BTreeSet::from(["shop".to_owned()]));
        assert!(unmade.lasting("shop", Moment(6000)).is_some());
        unmade.keep(&BTreeSet::new());
        assert_eq!(unmade.lasting("shop", Moment(90_000)), None, "nobody needs it");
        unmade.tried("shop", Some(&denied), Moment(91_000));
        assert_eq!(unmade.lasting("shop", Moment(91_000)), None, "it begins anew");
        unmade.tried("shop", None, Moment(92_000));
        assert_eq!(unmade.lasting("shop", Moment(190_000)), None);
    }
}
