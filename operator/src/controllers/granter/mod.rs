//! The granter: the only writer of Pools, and who every raise asks first.
//!
//! What a status may say is computed by `core::grants`, which also tells why the steps come in this order; here they are
//! taken. One round of raises at a time in a namespace, each Pool written once for all that ask. Releases, rebuilds and
//! numbers are kept up beside that: whoever comes second finds the resourceVersion changed, and computes anew. Relies on
//! nothing but the API server and what the watches have shown; guarantees that no status is written but under the
//! resourceVersion that it was computed from.

mod keep;
mod live;
mod raise;
mod release;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use kube::{Api, Client};
use poolwright_api::Reason;
use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_core::cause;
use poolwright_core::charge::Slots;
use poolwright_core::grants::{Mark, mark};
use poolwright_core::snapshot::Trouble;
use std::panic::AssertUnwindSafe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::airflow::Links;
use super::cycle::Latest;
use super::turns;
use super::world::World;
use crate::clock::Clock;
use crate::kube::events::Events;
use crate::kube::execute::Failure;
use crate::kube::lenient::Lenient;
use crate::kube::status::{Budget, write_as_read};
use crate::metrics::Metrics;

/// Pools are looked after this often.
const TICK: Duration = Duration::from_millis(250);

/// What one WorkerPool asks for before it raises a Deployment.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub worker_pool: String,
    /// Slots besides those that it has, by Pool.
    pub slots: Slots,
}

/// Why a raise may not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Another has the slots at the moment.
    #[error("Pool {0:?} has no room at the moment")]
    Full(String),
    /// Its status has no room for another holder.
    #[error(
        "Pool {0:?} has 1000 holders, and its status has room for no more: give some WorkerPools another Pool"
    )]
    TooManyHolders(String),
    /// There is no such Pool.
    #[error(
        "Pool {0:?} does not exist, and pods of a revision that draws on it are asked for: create it, or wait until \
         another revision has taken over"
    )]
    Missing(String),
    /// It is there and cannot be read, and why.
    #[error("{}", cause::unreadable(.0, .1))]
    Unreadable(String, String),
    /// Its grants are not known yet.
    #[error("Pool {0:?} cannot grant yet: what is taken of it is being counted")]
    NotReady(String),
    /// The API server could not be asked.
    #[error("{0}")]
    Failed(String),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        let trouble = |reason| Trouble { reason, message };
        match refused {
            // Only somebody who gives it another Pool can help it.
            Refused::TooManyHolders(_) => Self::Refused(trouble(Reason::TooManyHolders)),
            Refused::Missing(_) | Refused::Unreadable(..) => Self::NoRoom(trouble(Reason::PoolMissing)),
            Refused::Full(_) | Refused::NotReady(_) | Refused::Failed(_) => {
                Self::NoRoom(trouble(Reason::WaitingForSlots))
            }
        }
    }
}

type Question = (Ask, oneshot::Sender<Result<(), Refused>>);

/// What was noted of a Pool's holder before a number of replicas fell.
type Noted = BTreeMap<String, Mark>;

/// Where raises are asked for, and falls are told.
pub struct Grants {
    asks: mpsc::Sender<Question>,
    world: Arc<World>,
    /// By uid of the WorkerPool and of the Deployment.
    falls: Mutex<BTreeMap<String, BTreeMap<String, Noted>>>,
}

impl Grants {
    /// The granter's door, and what comes through it.
    #[must_use]
    pub fn new(world: Arc<World>) -> (Arc<Self>, mpsc::Receiver<Question>) {
        // Who asks waits for the answer, so there are never more questions than rounds at work.
        let (asks, asked) = mpsc::channel(turns::CONCURRENCY);
        let grants = Self {
            asks,
            world,
            falls: Mutex::default(),
        };
        (Arc::new(grants), asked)
    }

    /// Asks for slots; returns when they are granted in every Pool, or refused in one. The Deployment must have been read
    /// before, and be written under what was read.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn raise(&self, ask: Ask) -> Result<(), Refused> {
        let gone = || Refused::Failed("the granter has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.asks.send((ask, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// What must be noted before a number of replicas falls: the holder's marks, by Pool.
    pub fn before_fall(&self, namespace: &str, uid: &str) -> Noted {
        let pools = self.world.budgets.all(Some(namespace));
        let noted = pools.iter().filter_map(|pool| {
            let name = pool.metadata.name.clone()?;
            Some((name, mark(pool, uid)?))
        });
        noted.collect()
    }

    /// The number of a Deployment fell; `noted` is what was noted before.
    pub fn fell(&self, uid: &str, deployment: &str, noted: Noted) {
        let mut falls = self.falls.lock().unwrap_or_else(PoisonError::into_inner);
        falls
            .entry(uid.to_owned())
            .or_default()
            .insert(deployment.to_owned(), noted);
    }

    /// True if since this mark every one of these Deployments of the WorkerPool has been written by a fall.
    fn has_fallen<'a>(
        &self,
        uid: &str,
        deployments: impl IntoIterator<Item = &'a str>,
        pool: &str,
        mark: &Mark,
    ) -> bool {
        let falls = self.falls.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = falls.get(uid) else { return false };
        let noted = |deployment: &str| known.get(deployment).and_then(|noted| noted.get(pool));
        deployments
            .into_iter()
            .all(|deployment| noted(deployment) == Some(mark))
    }

    /// Forgets those that are gone.
    fn retain(&self, uids: &BTreeSet<String>) {
        let mut falls = self.falls.lock().unwrap_or_else(PoisonError::into_inner);
        falls.retain(|uid, _| uids.contains(uid));
    }
}

/// What the granter works with.
pub struct Context {
    /// For reading and writing.
    pub client: Client,
    /// The cluster as the watches show it.
    pub world: Arc<World>,
    /// What the cycle says of Pools.
    pub latest: Arc<Latest>,
    /// Its own door.
    pub grants: Arc<Grants>,
    /// Events.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Writes of numbers.
    pub budget: Arc<Budget>,
    /// How Pools stand with their Airflows.
    pub links: Arc<Links>,
    /// Slots that a new `default-pool` has at least.
    pub default_slots: i32,
    /// Clocks.
    pub clock: Clock,
}

/// A Pool that others write at the same time is read again this often.
const ATTEMPTS: usize = 8;

/// The Pools of one namespace. One that cannot be read is to keep no other from being granted from.
type Pools = Api<Lenient<Pool>>;

/// The Pool as it is now, or why it cannot be read; `None` if there is none.
async fn read(api: &Pools, name: &str) -> Result<Option<Result<Pool, String>>, kube::Error> {
    let pool = api.get_opt(name).await?.map(Lenient::open);
    Ok(pool.map(|pool| pool.map_err(|unreadable| unreadable.words().to_owned())))
}

/// Writes a Pool's status under the resourceVersion that it was read at; returns the Pool as it then is, or `None` if it
/// has changed meanwhile or is gone.
async fn write(api: &Pools, pool: &Pool, new: &PoolStatus) -> Result<Option<Pool>, kube::Error> {
    write_as_read(api, pool, &pool.status.clone().unwrap_or_default(), new).await
}

/// Answers raises and keeps Pools.
pub struct Granter {
    context: Arc<Context>,
    asked: mpsc::Receiver<Question>,
}

impl Granter {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(context: Context, asked: mpsc::Receiver<Question>) -> Self {
        Self {
            context: Arc::new(context),
            asked,
        }
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        let mut waiting: BTreeMap<String, Vec<Question>> = BTreeMap::new();
        let mut busy: BTreeSet<String> = BTreeSet::new();
        let mut rounds: JoinSet<String> = JoinSet::new();
        let mut keeper = keep::Keeper::new(Arc::clone(&self.context));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                question = self.asked.recv() => match question {
                    Some(question) => waiting.entry(question.0.namespace.clone()).or_default().push(question),
                    None => return,
                },
                Some(done) = rounds.join_next() => {
                    if let Ok(namespace) = done {
                        busy.remove(&namespace);
                    }
                }
                _ = ticks.tick() => keeper.look(),
                () = keeper.finished() => {}
            }
            let free: Vec<String> = waiting
                .keys()
                .filter(|name| !busy.contains(*name))
                .cloned()
                .collect();
            for namespace in free {
                let questions = waiting.remove(&namespace).unwrap_or_default();
                busy.insert(namespace.clone());
                let context = Arc::clone(&self.context);
                rounds.spawn(async move {
                    let work = AssertUnwindSafe(raise::round(&context, &namespace, questions));
                    if work.catch_unwind().await.is_err() {
                        tracing::error!(namespace, "a round of grants panicked");
                    }
                    namespace
                });
            }
        }
    }
}
