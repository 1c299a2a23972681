//! The API server: Pools, WorkerPools, and for each Deployment a [`Branch`] with its `ReplicaSet` and its pods.

use std::rc::Rc;
use std::sync::Arc;

use poolwright_api::v1alpha1::{Pool, PoolSpec, PoolStatus};
use poolwright_core::charge::Charge;

use crate::guarantees::Promises;

/// Names of the Pools, in order.
pub const POOLS: [&str; 2] = ["pool-a", "pool-b"];
/// A budget without a limit.
pub const ENDLESS: u64 = u64::MAX;

/// A note for whoever reads the schedule of a failure.
macro_rules! say {
    ($world:expr, $($words:tt)*) => {
        if let Some(log) = &mut $world.log {
            log.push(format!("{:>4} {}", $world.now, format_args!($($words)*)));
        }
    };
}
pub(crate) use say;

/// A Deployment or `ReplicaSet` as it was at one resourceVersion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    pub rv: u64,
    pub generation: i64,
    pub replicas: u32,
}

/// A Deployment or `ReplicaSet`, and how far the cache of the controllers is behind.
#[derive(Default)]
pub struct Object {
    /// `None` while it does not exist.
    pub now: Option<Version>,
    pub observed: i64,
    /// From the version in the cache to the newest.
    pub unread: Vec<Version>,
}

impl Object {
    pub fn create(&mut self, rv: u64, replicas: u32) {
        self.observed = 0;
        self.put(Version {
            rv,
            generation: 1,
            replicas,
        });
    }

    fn put(&mut self, version: Version) {
        self.now = Some(version);
        self.unread.push(version);
    }

    /// A write that is no change of the spec.
    pub fn touch(&mut self, rv: u64) {
        if let Some(version) = self.now {
            self.put(Version { rv, ..version });
        }
    }

    pub fn scale(&mut self, rv: u64, replicas: u32) {
        if let Some(version) = self.now {
            let generation = version.generation + i64::from(replicas != version.replicas);
            self.put(Version {
                rv,
                generation,
                replicas,
            });
        }
    }

    pub fn is_settled(&self) -> bool {
        self.now.is_none_or(|now| self.observed >= now.generation)
    }

    /// The cache takes in so many events.
    pub fn read(&mut self, events: usize) {
        let kept = usize::from(self.now.is_some());
        let events = events.min(self.unread.len().saturating_sub(kept));
        self.unread.drain(..events);
    }
}

/// A Deployment controller on its way through one sync.
#[derive(Clone, Copy)]
pub struct Roll {
    pub deployment: Version,
    pub set: Option<Version>,
    pub is_done: bool,
}

/// A `ReplicaSet` controller on its way through one sync.
#[derive(Clone, Copy)]
pub struct Fill {
    pub set: Version,
    pub is_done: bool,
}

/// A Deployment, also after it was deleted, with what came of it.
pub struct Branch {
    /// Name of the WorkerPool, as a number.
    pub name: usize,
    /// Uid of the WorkerPool, as a number.
    pub holder: usize,
    pub revision: String,
    pub charge: Arc<Charge>,
    /// What a pod takes, by Pool.
    pub slots: [u64; 2],
    pub nonce: u64,
    pub deployment: Object,
    pub set: Object,
    pub roll: Option<Roll>,
    pub fill: Option<Fill>,
    pub live: u32,
    /// Pods on their way out.
    pub draining: u32,
    /// Those of them that others deleted and that are replaced.
    pub evicted: u32,
    /// Pods that others asked for.
    pub lifted: u32,
}

impl Branch {
    /// Pods that there are, and that there may be at most if nobody writes anything any more: controllers read one number
    /// after another, and a pod that the lower one ends is still there when the higher one makes another.
    pub fn committed(&self) -> u32 {
        let roll = self.roll.filter(|roll| !roll.is_done);
        let fill = self.fill.filter(|fill| !fill.is_done);
        let filled = fill
            .map(|fill| fill.set)
            .into_iter()
            .chain(self.set.unread.iter().copied());
        let rolled = roll
            .map(|roll| roll.deployment)
            .into_iter()
            .chain(self.deployment.unread.iter().copied());
        let (mut all, mut live) = (self.live + self.draining, self.live);
        for version in filled.chain(rolled) {
            all += version.replicas.saturating_sub(live);
            live = version.replicas;
        }
        all
    }

    /// The same without what others have added.
    pub fn ours(&self) -> u32 {
        self.committed().saturating_sub(self.evicted + self.lifted)
    }

    /// The `ReplicaSet` is as the Deployment asks.
    pub fn is_rolled_out(&self) -> bool {
        let is_asked = |now: Version| self.set.now.is_some_and(|set| set.replicas == now.replicas);
        self.deployment.is_settled() && self.deployment.now.is_none_or(is_asked)
    }

    /// The pods are as the `ReplicaSet` asks.
    pub fn is_filled(&self) -> bool {
        self.set.is_settled() && self.set.now.map_or(0, |now| now.replicas) == self.live
    }

    /// No controller is at work on something that is gone.
    pub fn is_quiet(&self) -> bool {
        let rolled =
            self.deployment.now.is_some() || (self.deployment.unread.is_empty() && self.roll.is_none());
        let filled = self.set.now.is_some() || (self.set.unread.is_empty() && self.fill.is_none());
        rolled && filled
    }
}

/// What can be read of a branch.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub deployment: Option<Version>,
    pub nonce: u64,
    pub settled: bool,
    pub set: Option<Version>,
    pub set_settled: bool,
    pub live: u32,
    pub draining: u32,
}

/// A Pool that exists, as it was read.
#[derive(Clone)]
pub struct Live {
    pub rv: u64,
    pub pool: Rc<Pool>,
}

/// A write of an operator, under a resourceVersion.
#[derive(Clone)]
pub enum Write {
    Status {
        pool: usize,
        rv: u64,
        status: Box<PoolStatus>,
    },
    Fence {
        branch: usize,
        rv: u64,
    },
    Replicas {
        branch: usize,
        rv: u64,
        replicas: u32,
        /// Of a raise: when it was permitted by each Pool.
        permits: Vec<(usize, u64)>,
    },
}

/// All that there is.
pub struct World {
    pub now: u64,
    rv: u64,
    pub pools: [Option<Live>; 2],
    uids: u32,
    /// The budgets that each Pool has had, and since when.
    budgets: [Vec<(u64, u64)>; 2],
    /// Name of each WorkerPool by its uid, and whether it exists.
    pub worker_pools: Vec<(usize, bool)>,
    pub branches: Vec<Branch>,
    pub promises: Promises,
    /// Requests that are still under way though their sender has given up.
    pub late: Vec<Write>,
    /// What was wrong.
    pub broken: Option<String>,
    pub log: Option<Vec<String>>,
}

impl World {
    pub fn new(promises: Promises, is_logged: bool) -> Self {
        Self {
            now: 0,
            rv: 0,
            pools: [None, None],
            uids: 0,
            budgets: [vec![(0, 0)], vec![(0, 0)]],
            worker_pools: Vec::new(),
            branches: Vec::new(),
            promises,
            late: Vec::new(),
            broken: None,
            log: is_logged.then(Vec::new),
        }
    }

    pub fn rv(&mut self) -> u64 {
        self.rv += 1;
        self.rv
    }

    /// Creates or replaces a Pool.
    pub fn make_pool(&mut self, pool: usize, slots: i32, status: Option<PoolStatus>) {
        self.uids += 1;
        let spec = PoolSpec {
            slots,
            ..PoolSpec::default()
        };
        let mut made = Pool::new(POOLS[pool], spec);
        made.metadata.uid = Some(format!("p{}", self.uids));
        made.status = status;
        self.put_pool(pool, Some(made));
    }

    /// A write of a Pool that is no operator's.
    pub fn put_pool(&mut self, at: usize, mut pool: Option<Pool>) {
        if let Some(pool) = &mut pool {
            self.promises.write(at, pool);
        }
        let slots = pool
            .as_ref()
            .map_or(0, |pool| pool.spec.limit().unwrap_or(ENDLESS));
        let rv = self.rv();
        self.pools[at] = pool.map(|pool| Live {
            rv,
            pool: Rc::new(pool),
        });
        self.budgets[at].push((self.now, slots));
        say!(self, "{} now has {slots} slots", POOLS[at]);
    }

    /// The largest budget of a Pool since a moment.
    fn budget_since(&self, pool: usize, since: u64) -> u64 {
        let mut most = 0;
        for (from, slots) in self.budgets[pool].iter().rev() {
            most = most.max(*slots);
            if *from <= since {
                break;
            }
        }
        most
    }

    /// What is taken of a Pool without what others have added.
    pub fn ours(&self, pool: usize) -> u64 {
        let taken = |branch: &Branch| u64::from(branch.ours()) * branch.slots[pool];
        self.branches.iter().map(taken).sum()
    }

    pub fn look(&self) -> Vec<Seen> {
        let see = |branch: &Branch| Seen {
            deployment: branch.deployment.now,
            nonce: branch.nonce,
            settled: branch.deployment.is_settled(),
            set: branch.set.now,
            set_settled: branch.set.is_settled(),
            live: branch.live,
            draining: branch.draining,
        };
        self.branches.iter().map(see).collect()
    }

    /// Applies a write, if its resourceVersion is the present one.
    pub fn apply(&mut self, write: Write) -> bool {
        match write {
            Write::Status { pool, rv, status } => {
                let Some(live) = self.pools[pool].as_ref().filter(|live| live.rv == rv) else {
                    return false;
                };
                let mut changed = Pool::clone(&live.pool);
                let holders = status
                    .holders
                    .iter()
                    .map(|one| (&*one.uid, one.granted, one.epoch));
                say!(self, "  {} grants {:?}", POOLS[pool], holders.collect::<Vec<_>>());
                changed.status = Some(*status);
                let rv = self.rv();
                self.pools[pool] = Some(Live {
                    rv,
                    pool: Rc::new(changed),
                });
                true
            }
            Write::Fence { branch, rv } => {
                let fresh = self.rv();
                let fenced = &mut self.branches[branch];
                let is_current = fenced.deployment.now.is_some_and(|now| now.rv == rv);
                if is_current {
                    fenced.nonce = fresh;
                    fenced.deployment.touch(fresh);
                    say!(self, "  fenced d{branch}");
                }
                is_current
            }
            Write::Replicas {
                branch,
                rv,
                replicas,
                permits,
            } => {
                let fresh = self.rv();
                let scaled = &mut self.branches[branch].deployment;
                let is_current = scaled.now.is_some_and(|now| now.rv == rv);
                if is_current {
                    scaled.scale(fresh, replicas);
                    say!(self, "  d{branch} is to have {replicas}");
                    self.judge(&permits);
                }
                is_current
            }
        }
    }

    /// The property: see the top of the test.
    fn judge(&mut self, permits: &[(usize, u64)]) {
        for (pool, since) in permits {
            let (ours, budget) = (self.ours(*pool), self.budget_since(*pool, *since));
            if ours > budget {
                let what = format!("a raise takes {} to {ours} of {budget} slots", POOLS[*pool]);
                say!(self, "{what}");
                self.broken = Some(what);
            }
        }
    }
}
