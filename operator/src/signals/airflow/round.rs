//! The reading of the list of pools that is under way, page by page.
//!
//! What is told is a whole reading or none. Whoever answers says how many pools there are and what they are called, so
//! none of that is believed beyond what a page, a name and an Airflow can have. Asks nothing itself.

use std::collections::BTreeMap;

use poolwright_core::airflow_pool::PoolView;
use poolwright_core::sample::FaultKind;

use super::POOLS_MAX;
use super::answers::{Pools, is_long};
use super::rest::{PAGE, fault};
use crate::signals::SignalError;

/// So often a reading begins anew before that is a failure: one that never becomes whole must not go unsaid.
const RESTARTS_MAX: u32 = 3;

/// What is asked next, and what is known of the reading that is under way.
#[derive(Default)]
pub(super) struct Round {
    pub(super) next: Ask,
    /// Pools that there are, as the first page says.
    pub(super) total: usize,
    pools: BTreeMap<String, PoolView>,
    /// How often it has begun anew since the last whole reading.
    restarts: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Ask {
    Pools(usize),
    /// The next page: one after each list of pools, which is more urgent.
    Tasks,
}

impl Default for Ask {
    fn default() -> Self {
        Self::Pools(0)
    }
}

impl Round {
    /// Takes the page that begins at `offset`; all pools, if it is the last.
    ///
    /// # Errors
    /// No reading can be built on that page.
    pub(super) fn take(
        &mut self,
        offset: usize,
        page: Pools,
    ) -> Result<Option<BTreeMap<String, PoolView>>, SignalError> {
        let wrong = |words: &str| Err(fault(FaultKind::Implausible, words));
        if offset == 0 {
            self.pools.clear();
            self.total = page.total;
        }
        let seen = offset + page.pools.len();
        if page.pools.len() > PAGE {
            return wrong("shows more pools at once than it was asked for");
        }
        if page.total > POOLS_MAX {
            let words = format!("has {} pools, and at most {POOLS_MAX} are read", page.total);
            return wrong(&words);
        }
        if page.pools.iter().any(|(name, _)| is_long(name)) {
            return wrong("has a pool with a longer name than Airflow gives any");
        }
        if seen < page.total && page.pools.is_empty() {
            let words = format!(
                "says that it has {} pools and shows {seen}: may this user see all of them?",
                page.total
            );
            return wrong(&words);
        }
        let before = self.pools.len();
        self.pools.extend(page.pools);
        if page.total != self.total {
            // Pools came or went between two pages, so that one may be in none of them.
            return self.restart();
        }
        if seen < page.total {
            if self.pools.len() == before {
                return wrong("shows the same pools on every page");
            }
            self.next = Ask::Pools(seen);
            return Ok(None);
        }
        if self.pools.len() < self.total {
            return self.restart();
        }
        self.next = Ask::Tasks;
        self.restarts = 0;
        Ok(Some(std::mem::take(&mut self.pools)))
    }

    fn restart<T>(&mut self) -> Result<Option<T>, SignalError> {
        self.next = Ask::Pools(0);
        self.pools.clear();
        self.restarts += 1;
        if self.restarts < RESTARTS_MAX {
            return Ok(None);
        }
        let words = "changes its list of pools each time while it is read";
        Err(fault(FaultKind::Implausible, words))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::answers::NAME_MAX;
    use super::*;

    fn page(ids: Range<usize>, total: usize) -> Pools {
        let named = |id: usize| (id.to_string(), PoolView::default());
        Pools {
            pools: ids.map(named).collect(),
            total,
        }
    }

    /// How many pools it tells after these pages, 0 for none.
    fn told(round: &mut Round, pages: &[(usize, Range<usize>, usize)]) -> Result<usize, String> {
        let mut told = 0;
        for (offset, ids, total) in pages.iter().cloned() {
            let taken = round.take(offset, page(ids, total));
            let pools = taken.map_err(|error| {
                assert_eq!(error.kind, FaultKind::Implausible);
                error.message
            })?;
            told = pools.as_ref().map_or(0, BTreeMap::len);
        }
        Ok(told)
    }

    #[test]
    fn a_page_that_no_airflow_gives_is_refused() {
        let mut round = Round::default();
        assert_eq!(told(&mut round, &[(0, 0..100, 100)]), Ok(100));
        for (pages, words) in [
            (&[(0, 0..101, 200)][..], "at once"),
            (&[(0, 0..101, 101)][..], "at once"),
            (&[(0, 0..100, 10_001)][..], "at most 10000"),
            (&[(0, 0..100, 300), (100, 0..100, 300)][..], "the same pools"),
            (&[(0, 0..100, 300), (100, 0..0, 300)][..], "shows 100"),
        ] {
            let said = told(&mut Round::default(), pages).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_name_has_no_more_than_so_many_characters() {
        for (more, is_taken) in [(0, true), (1, false)] {
            let name = "ö".repeat(NAME_MAX + more);
            let page = Pools {
                pools: vec![(name, PoolView::default())],
                total: 1,
            };
            assert_eq!(Round::default().take(0, page).is_ok(), is_taken, "{more}");
        }
    }

    #[test]
    fn what_never_becomes_a_whole_reading_is_a_failure() {
        let come = [(0, 0..100, 150), (100, 100..150, 151)];
        let twice = [(0, 0..100, 150), (100, 99..149, 150)];
        for torn in [come, twice] {
            let mut round = Round::default();
            for _ in 0..2 {
                for _ in 0..2 {
                    assert_eq!(told(&mut round, &torn), Ok(0));
                    assert!(matches!(round.next, Ask::Pools(0)));
                }
                let whole = [(0, 0..100, 150), (100, 100..150, 150)];
                assert_eq!(told(&mut round, &whole), Ok(150), "and none is counted any more");
            }
            assert_eq!(told(&mut round, &torn), Ok(0));
            assert_eq!(told(&mut round, &torn), Ok(0));
            let said = told(&mut round, &torn).unwrap_err();
            assert!(said.contains("changes its list of pools"), "{said}");
        }
    }
}
