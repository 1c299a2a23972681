//! What keeps a WorkerPool from the pods that it wants, and how that is said.

use std::fmt::Write as _;

use poolwright_api::Reason;

/// Why a WorkerPool gets fewer pods than it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such Pool.
    Missing {
        /// Its name.
        pool: String,
    },
    /// One pod takes more than the whole Pool has.
    TooLarge {
        /// The Pool.
        pool: String,
        /// Its slots.
        slots: u64,
        /// Slots of one pod.
        pod: u64,
        /// The largest concurrency that fits; 0 if not even one slot does.
        fits: u64,
    },
    /// The Pool gives no more.
    Limited {
        /// The Pool.
        pool: String,
        /// Its slots that are missing.
        missing: u64,
    },
    /// The slots are its own and others still have them.
    Waiting {
        /// The Pool.
        pool: String,
        /// Its slots that are missing.
        missing: u64,
    },
    /// `maxActiveTasks` of its queue allows no more.
    Capped,
}

/// The reason, the limit's name and the words for a number of pods that is cut from `wanted` to `target`.
#[must_use]
pub fn cut(why: Option<&Cause>, target: u32, wanted: u32) -> (Reason, &'static str, String) {
    match why {
        Some(Cause::Missing { pool }) => {
            let clause = format!("Pool {pool:?} does not exist: create it, or correct spec.pool.name");
            (Reason::PoolMissing, "pool", clause)
        }
        Some(Cause::TooLarge {
            pool,
            slots,
            pod,
            fits,
        }) => {
            let mut clause = format!("Pool {pool:?} has {slots} slots and one pod takes {pod}");
            if *fits > 0 {
                let _ = write!(clause, ": the largest concurrency that fits is {fits}");
            }
            (Reason::PodLargerThanPool, "pool", clause)
        }
        Some(Cause::Waiting { pool, missing }) => {
            let clause = format!("waits for {missing} slots of Pool {pool:?} that others still have");
            (Reason::WaitingForSlots, "pool", clause)
        }
        Some(Cause::Limited { pool, missing }) => {
            let clause =
                format!("Pool {pool:?} gives {target} of {wanted} pods: {missing} slots are missing");
            (Reason::PoolLimited, "pool", clause)
        }
        Some(Cause::Capped) | None => {
            let clause = format!("capped at {target} pods by maxActiveTasks");
            (Reason::AtMaximum, "maxActiveTasks", clause)
        }
    }
}
