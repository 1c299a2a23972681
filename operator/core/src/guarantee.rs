//! What guarantees keep from whom at the moment.
//!
//! A guarantee's slots are kept free for the WorkerPools of its queue, as far as these do not take them. The cycle that
//! gives room and the granter that permits each raise ask this one module, so that neither waits for the other. It knows
//! no Pool and no WorkerPool: who takes what is the business of those who ask.

/// One guarantee, and what its queue's WorkerPools take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Slots that are guaranteed.
    pub slots: u64,
    /// Slots that its WorkerPools take or may take, within the guarantee or not.
    pub used: u64,
    /// The least that one pod of theirs takes; `None` while nobody consumes the queue.
    pub unit: Option<u64>,
}

impl Use {
    /// What is kept free. A rest in which none of their pods fits is kept for nobody.
    fn spare(self) -> u64 {
        let unused = self.slots.saturating_sub(self.used);
        unused - self.unit.map_or(0, |unit| unused % unit.max(1))
    }

    /// What is used of it and what is kept free.
    fn whole(self) -> u64 {
        self.used.min(self.slots).saturating_add(self.spare())
    }
}

/// Slots of a budget of `slots` that guarantees keep from one WorkerPool; `all` says of each guarantee whether it is
/// for a queue of its own.
///
/// A high load may leave fewer slots than all guarantees together. What does not fit beside the others is then kept from
/// nobody who has a guarantee himself: whoever comes first gets his own, and who has none gets nothing.
#[must_use]
pub fn kept(slots: u64, all: impl IntoIterator<Item = (Use, bool)>) -> u64 {
    let (mut others, mut whole) = (0_u64, 0_u64);
    for (one, is_own) in all {
        whole = whole.saturating_add(one.whole());
        if !is_own {
            others = others.saturating_add(one.spare());
        }
    }
    others.saturating_sub(whole.saturating_sub(slots))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use proptest::sample::Index;

    use super::*;

    fn used(slots: u64, used: u64) -> Use {
        Use {
            slots,
            used,
            unit: Some(1),
        }
    }

    #[test]
    fn what_is_not_used_is_kept_from_others_but_for_a_rest() {
        let one = |unit, is_own| {
            let one = Use { unit, ..used(9, 2) };
            kept(20, [(one, is_own)])
        };
        assert_eq!(
            (one(Some(1), false), one(Some(3), false), one(None, false)),
            (7, 6, 7)
        );
        assert_eq!(one(Some(1), true), 0);
    }

    #[test]
    fn what_does_not_fit_is_kept_from_nobody() {
        let all = |own| [used(5, 0), used(5, 3)].into_iter().zip([own == 0, own == 1]);
        assert_eq!((kept(10, all(0)), kept(10, all(1)), kept(10, all(2))), (2, 5, 7));
        assert_eq!((kept(8, all(0)), kept(8, all(1)), kept(8, all(2))), (0, 3, 5));
    }

    proptest! {
        /// While nobody takes more than his guarantee, each gets the rest of it as far as there are slots, and nobody
        /// without one gets what is kept.
        #[test]
        fn each_gets_his_own_before_anybody_gets_more(
            all in vec((0u64..20, 0u64..20, 1u64..5), 1..6), lent in 0u64..40, own in any::<Index>()
        ) {
            let all: Vec<Use> = all
                .into_iter()
                .map(|(slots, used, unit)| Use { slots, used: used.min(slots), unit: Some(unit) })
                .collect();
            let sum: u64 = all.iter().map(|one| one.slots).sum();
            let taken: u64 = all.iter().map(|one| one.used).sum();
            let budget = sum.saturating_sub(lent).max(taken);
            let own = own.index(all.len());
            let room = |own: Option<usize>| {
                let owned = all.iter().enumerate().map(|(at, one)| (*one, Some(at) == own));
                (budget - taken).saturating_sub(kept(budget, owned))
            };
            assert!(room(Some(own)) >= all[own].spare().min(budget - taken));
            let whole: u64 = all.iter().map(|one| one.whole()).sum();
            assert_eq!(room(None), budget.saturating_sub(whole));
        }
    }
}
