//! What keeps a WorkerPool from the pods that it wants, and how that is said.

use poolwright_api::Reason;

/// Why a WorkerPool gets fewer pods than it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such Pool.
    Missing {
        /// Its name.
        pool: String,
    },
    /// What the Pool has is not known.
    Unreadable {
        /// Its name.
        pool: String,
        /// Why.
        why: String,
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
        /// Pods that it gives in the end, which may be fewer than there still are.
        gives: u32,
        /// Of so many that are wanted.
        wanted: u32,
        /// Its slots that are missing for the others.
        missing: u64,
    },
    /// The slots are its own and others still have them.
    Waiting {
        /// The Pool.
        pool: String,
        /// Its slots that are missing.
        missing: u64,
    },
}

impl Cause {
    /// The Pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        match self {
            Self::Missing { pool }
            | Self::Unreadable { pool, .. }
            | Self::TooLarge { pool, .. }
            | Self::Limited { pool, .. }
            | Self::Waiting { pool, .. } => pool,
        }
    }
}

/// The words for a Pool that the API server takes and this program cannot read. What to do comes before what was wrong, of
/// which somebody else wrote the words, and much may be cut.
#[must_use]
pub fn unreadable(pool: &str, why: &str) -> String {
    format!(
        "Pool {pool:?} cannot be read, so nothing is granted from it: correct it, or run the operator that belongs to the \
         definitions ({why})"
    )
}

/// The reason and the words for a number of pods that is cut.
#[must_use]
pub fn cut(cause: &Cause) -> (Reason, String) {
    match cause {
        Cause::Missing { pool } => {
            let words = format!("Pool {pool:?} does not exist: create it, or correct spec.pool.name");
            (Reason::PoolMissing, words)
        }
        Cause::Unreadable { pool, why } => (Reason::PoolMissing, unreadable(pool, why)),
        Cause::TooLarge {
            pool,
            slots,
            pod,
            fits,
        } => {
            let fix = match fits {
                0 => "raise spec.slots there, or lower spec.pool.slotsPerTask of its queues".to_owned(),
                fits => format!("the largest concurrency that fits is {fits}"),
            };
            let words = format!("Pool {pool:?} has {slots} slots and one pod takes {pod}: {fix}");
            (Reason::PodLargerThanPool, words)
        }
        Cause::Waiting { pool, missing } => {
            let words = format!("waits for {missing} slots of Pool {pool:?} that others still have");
            (Reason::WaitingForSlots, words)
        }
        Cause::Limited {
            pool,
            gives,
            wanted,
            missing,
        } => {
            let words = format!("Pool {pool:?} gives {gives} of {wanted} pods: {missing} slots are missing");
            (Reason::PoolLimited, words)
        }
    }
}
