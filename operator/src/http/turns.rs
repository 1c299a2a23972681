//! Whose turn it is to have a question asked about a token that nobody knows.
//!
//! Decides by who asks and when, and asks nothing itself. One address gets but a part of what there is: a pod that sends
//! tokens at random leaves the rest to a scraper that comes for the first time, or with a new token. What is remembered
//! of an address is forgotten within two seconds, so it is never more than a few dozen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::pace::Pace;

/// Questions at a time.
pub(super) const AT_ONCE: usize = 4;
/// Of these so many for one address.
const AT_ONCE_EACH: usize = 2;
/// Questions in a row: ten, and ten more in each second.
const PACE: Pace = Pace {
    every: Duration::from_millis(100),
    in_a_row: 10,
};
/// Of these for one address.
const PACE_EACH: Pace = Pace {
    every: Duration::from_millis(500),
    in_a_row: 4,
};

/// What one address has of it.
struct Share {
    free: Instant,
    under_way: usize,
}

struct Taken {
    free: Instant,
    each: HashMap<IpAddr, Share>,
}

/// Who has a turn, or had one lately.
pub(super) struct Turns(Mutex<Taken>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Taken {
            free: Instant::now(),
            each: HashMap::new(),
        }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn for this address, if there is one now.
    pub(super) fn take(&self, address: IpAddr) -> Option<Turn<'_>> {
        let now = Instant::now();
        let mut taken = self.taken();
        let taken = &mut *taken;
        taken
            .each
            .retain(|_, share| share.under_way > 0 || now < share.free);
        let under_way: usize = taken.each.values().map(|share| share.under_way).sum();
        if under_way >= AT_ONCE {
            return None;
        }
        let free = PACE.next(taken.free, now)?;
        // Only after all of that: a new address always gets its turn, so that there are no more of them than turns.
        let share = taken.each.entry(address).or_insert(Share {
            free: now,
            under_way: 0,
        });
        if share.under_way >= AT_ONCE_EACH {
            return None;
        }
        share.free = PACE_EACH.next(share.free, now)?;
        share.under_way += 1;
        taken.free = free;
        Some(Turn { turns: self, address })
    }
}

/// Is under way until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    address: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.turns.taken().each.get_mut(&self.address) {
            share.under_way = share.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn pod(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_but_a_part_of_the_turns() {
        let turns = Turns::new();
        let in_a_row = |address| {
            std::iter::from_fn(|| turns.take(address).map(drop))
                .take(100)
                .count()
        };
        assert_eq!(in_a_row(pod(1)), 4);
        assert_eq!(in_a_row(pod(2)), 4);
        assert_eq!(in_a_row(pod(3)), 2, "ten in all");
        advance(Duration::from_millis(500)).await;
        assert_eq!(in_a_row(pod(1)), 1);
        assert_eq!(in_a_row(pod(4)), 4);
        assert_eq!(in_a_row(pod(5)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_but_half_of_those_that_are_under_way() {
        let turns = Turns::new();
        let mut held = vec![turns.take(pod(1)), turns.take(pod(1))];
        assert!(held.iter().all(Option::is_some));
        assert!(turns.take(pod(1)).is_none());
        held.extend([turns.take(pod(2)), turns.take(pod(3))]);
        assert!(held.iter().all(Option::is_some));
        // However long they hang.
        advance(Duration::from_secs(60)).await;
        assert!(turns.take(pod(4)).is_none());
        held.remove(0);
        assert!(turns.take(pod(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_have_no_more_than_the_pace_and_no_memory() {
        let turns = Turns::new();
        let mut granted = 0;
        for number in 0..1000 {
            granted += usize::from(turns.take(pod(number)).is_some());
            assert!(turns.taken().each.len() <= 40);
            advance(Duration::from_millis(10)).await;
        }
        assert!((100..=110).contains(&granted), "{granted} in ten seconds");
    }
}
