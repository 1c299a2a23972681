//! What watches cannot read: kinds that the cluster does not know, and such as this account may not list.
//!
//! Decides nothing. Readiness names them, so that whoever asks why a pod is not ready need not search its log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use kube::runtime::watcher;
use tokio::time::Instant;

/// A watch asks again within a minute, and closes what it told of when it is answered. One that told of nothing for longer
/// was answered with a stream on which nothing has come yet.
const TOLD: Duration = Duration::from_secs(120);

/// How many are named at once.
const NAMED: usize = 3;

/// A kind, and the namespace in which it is watched; `None` is all of them.
type Place = (String, Option<String>);

/// One thing that is missing.
#[derive(Debug)]
struct Open {
    words: String,
    /// The kind is missing, which concerns every namespace; otherwise a right is.
    unknown: bool,
    since: Instant,
}

/// All of them, shared by the watches.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Arc<Mutex<BTreeMap<Place, Open>>>);

/// That of one watch; closed when the watch ends.
#[derive(Debug)]
pub struct Gap {
    gaps: Gaps,
    place: Place,
}

impl Gaps {
    /// For the watch of `K` in `scope`.
    #[must_use]
    pub fn of<K: Resource>(&self, scope: Option<&str>) -> Gap
    where
        K::DynamicType: Default,
    {
        let kind = K::plural(&K::DynamicType::default()).into_owned();
        Gap {
            gaps: self.clone(),
            place: (kind, scope.map(str::to_owned)),
        }
    }

    /// Passes while no kind is missing.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn none_unknown(&self) -> Result<(), String> {
        self.named(|open| open.unknown).map_or(Ok(()), Err)
    }

    /// What first lists wait for, kinds and rights; `None` where nothing is known to be missing.
    #[must_use]
    pub fn all(&self) -> Option<String> {
        self.named(|_| true)
    }

    fn named(&self, which: impl Fn(&Open) -> bool) -> Option<String> {
        let opens = self.lock();
        let told = opens
            .values()
            .filter(|open| open.since.elapsed() < TOLD && which(open));
        let words: BTreeSet<&str> = told.map(|open| open.words.as_str()).collect();
        let more = words.len().saturating_sub(NAMED);
        let shown = words.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        match more {
            0 => (!shown.is_empty()).then_some(shown),
            more => Some(format!("{shown}; and {more} more")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gap {
    /// The watch was answered with this error, of which `words` tell.
    pub fn heed(&self, error: &watcher::Error, words: &str) {
        if let Some(code @ (403 | 404)) = refused(error) {
            let open = Open {
                words: words.to_owned(),
                unknown: code == 404,
                since: Instant::now(),
            };
            self.gaps.lock().insert(self.place.clone(), open);
        }
    }

    /// The watch was answered.
    pub fn close(&self) {
        self.gaps.lock().remove(&self.place);
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        self.close();
    }
}

/// With which HTTP status a list or a watch was refused.
#[must_use]
pub fn refused(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Secret};
    use kube::core::Status;

    use super::*;

    fn answer(code: u16) -> watcher::Error {
        let status = Status::failure("m", "r").with_code(code).boxed();
        watcher::Error::InitialListFailed(kube::Error::Api(status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_unknown_is_told_until_its_watch_is_answered_or_ends() {
        let gaps = Gaps::default();
        let (all, one) = (gaps.of::<Pod>(None), gaps.of::<Pod>(Some("n")));
        assert_eq!((gaps.none_unknown(), gaps.all()), (Ok(()), None));
        all.heed(&answer(404), "no pods");
        one.heed(&answer(404), "no pods");
        assert_eq!(gaps.none_unknown(), Err("no pods".to_owned()));
        all.close();
        assert_eq!(gaps.none_unknown(), Err("no pods".to_owned()));
        drop(one);
        assert_eq!(gaps.none_unknown(), Ok(()));

        all.heed(&answer(404), "no pods");
        tokio::time::advance(TOLD).await;
        assert_eq!(gaps.none_unknown(), Ok(()));
    }

    #[tokio::test]
    async fn a_right_that_is_missing_is_told_of_a_first_list_only_and_a_busy_server_is_neither() {
        let gaps = Gaps::default();
        let (pods, secrets) = (gaps.of::<Pod>(Some("n")), gaps.of::<Secret>(Some("n")));
        pods.heed(&answer(429), "busy");
        assert_eq!(gaps.all(), None);
        pods.heed(&answer(403), "not pods");
        secrets.heed(&answer(403), "not secrets");
        assert_eq!(gaps.none_unknown(), Ok(()));
        assert_eq!(gaps.all().as_deref(), Some("not pods; not secrets"));
        let others = ["c", "d", "e"].map(|name| gaps.of::<Pod>(Some(name)));
        for (other, words) in others.iter().zip(["3", "4", "5"]) {
            other.heed(&answer(403), words);
        }
        assert_eq!(gaps.all().as_deref(), Some("3; 4; 5; and 2 more"));
    }
}
