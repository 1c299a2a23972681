//! Keeps Pools and pools of Airflow the same, and tells what those hold.
//!
//! One session for each Airflow that Pools of a namespace name, however many do. What is to be done is decided in
//! `core::airflow_pool`; here it is asked and carried out. Workers are not touched: while an Airflow cannot be read, all
//! stays as it is.

mod claims;
#[cfg(test)]
pub(crate) mod fuzzed;
mod mark;
mod own;
mod refusal;
mod session;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, ResourceExt as _};
use poolwright_api::v1alpha1::{AirflowSync, Pool};
use poolwright_core::airflow_pool::{Link, wanted};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::session::Session;
use super::world::World;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::kube::events::Events;
use crate::kube::pool::waits;
use crate::metrics::Metrics;
use crate::signals::network::Network;

/// So soon an Airflow that is new is asked, and a Pool that has changed is seen to.
const LOOK: Duration = Duration::from_secs(1);

/// Namespace and name of a Pool.
type Place = (String, String);

fn place(pool: &Pool) -> Place {
    (pool.namespace().unwrap_or_default(), pool.name_any())
}

/// How every Pool stands with its Airflow.
#[derive(Default)]
pub struct Links(Mutex<BTreeMap<Place, Linked>>);

/// What is known of one Pool.
struct Linked {
    /// Of another Pool of the same name nothing is known.
    uid: Option<String>,
    /// The Airflow of which it is known.
    key: Key,
    link: Arc<Link>,
}

impl Links {
    /// Of one Pool; `None` before it was read.
    pub fn of(&self, pool: &Pool) -> Option<Arc<Link>> {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = links.get(&place(pool)).filter(|known| known.uid == pool.uid());
        found.map(|known| Arc::clone(&known.link))
    }

    /// To go on from where a reading has failed: what is known of this Pool, if that is of the same Airflow and the same pool.
    fn before(&self, pool: &Pool, key: &Key, name: &str) -> Link {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = links.get(&place(pool)).filter(|known| known.uid == pool.uid());
        match known {
            Some(known) if known.key == *key && known.link.name == name => (*known.link).clone(),
            known => Link {
                name: name.to_owned(),
                absent: known.is_some(),
                ..Link::default()
            },
        }
    }

    fn put(&self, pool: &Pool, key: &Key, link: Link) {
        let linked = Linked {
            uid: pool.uid(),
            key: key.clone(),
            link: Arc::new(link),
        };
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.insert(place(pool), linked);
    }

    fn retain(&self, pools: &BTreeSet<Place>) {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|place, _| pools.contains(place));
    }
}

/// What all sessions share.
pub struct Context {
    /// For reading Secrets and writing Pools.
    pub client: Client,
    /// The cluster as the watches show it.
    pub world: Arc<World>,
    /// Where it is told.
    pub links: Arc<Links>,
    /// Events.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where addresses of users may lead.
    pub network: Network,
    /// Whether anything may be written to Airflow.
    pub gate: Gate,
    /// Clocks.
    pub clock: Clock,
}

impl Context {
    /// False for a Pool that was known and cannot be read any more. What is known of it is old: nothing is done by that, and
    /// it keeps its place among the others.
    fn can_read(&self, pool: &Pool) -> bool {
        let (namespace, name) = place(pool);
        self.world.budgets.unreadable(&namespace, &name).is_none()
    }
}

/// An Airflow as Pools of one namespace name it: those that write the same share a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    text: String,
}

impl Key {
    fn of(pool: &Pool) -> Option<Self> {
        let airflow = pool.spec.airflow.as_ref()?.without_pool();
        let text = serde_json::to_string(&airflow).ok()?;
        let namespace = pool.namespace().unwrap_or_default();
        Some(Self { namespace, text })
    }
}

/// Starts and ends sessions.
pub struct Supervisor(pub Arc<Context>);

impl Supervisor {
    /// Runs for ever.
    pub async fn run(self) {
        let mut running: JoinSet<()> = JoinSet::new();
        let mut sessions = BTreeMap::new();
        loop {
            let pools = self.0.world.budgets.all(None);
            let keys: BTreeSet<Key> = pools.iter().filter_map(|pool| Key::of(pool)).collect();
            sessions.retain(|key, handle: &mut tokio::task::AbortHandle| {
                let stays = keys.contains(key) && !handle.is_finished();
                if !stays {
                    handle.abort();
                }
                stays
            });
            while running.try_join_next().is_some() {}
            for key in keys {
                sessions.entry(key.clone()).or_insert_with(|| {
                    let session = Session::new(Arc::clone(&self.0), key);
                    running.spawn(session.run())
                });
            }
            let linked = pools.iter().filter(|pool| pool.spec.airflow.is_some());
            self.0.links.retain(&linked.map(|pool| place(pool)).collect());
            for pool in pools.iter().filter(|pool| self.0.can_read(pool)) {
                self.let_go(pool).await;
            }
            sleep(LOOK).await;
        }
    }

    /// Whoever names another pool, follows Airflow, or is a copy with its original's mark has no claim on what was made for it: that stays in Airflow.
    async fn let_go(&self, pool: &Pool) {
        let sync = pool.spec.airflow.as_ref().map(|airflow| airflow.sync);
        let of_name = wanted(pool).is_some_and(|wanted| mark::is_of(pool, &wanted.name));
        let why = match sync {
            _ if !waits(pool) => return,
            Some(AirflowSync::Apply) if of_name => return,
            Some(AirflowSync::Apply) => own::RENAMED,
            Some(AirflowSync::Mirror) => "this Pool follows Airflow now",
            None => "this Pool stands for none of Airflow now",
        };
        if let Err(error) = own::abandon(&self.0, pool, why).await {
            tracing::warn!(pool = pool.name_any(), "a Pool is not let go: {}", error.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use poolwright_api::v1alpha1::{AirflowPool, PoolSpec};

    use super::*;

    fn named(secret: &str, name: &str) -> Pool {
        let mut airflow = AirflowPool {
            name: Some(name.to_owned()),
            ..AirflowPool::default()
        };
        airflow.secret_ref.name = secret.to_owned();
        let spec = PoolSpec {
            airflow: Some(airflow),
            ..PoolSpec::default()
        };
        Pool::new("p", spec)
    }

    #[test]
    fn what_is_known_of_one_airflow_or_pool_is_not_said_of_another() {
        let links = Links::default();
        let before = |pool: &Pool, name| links.before(pool, &Key::of(pool).expect("a key"), name);
        let pool = named("a", "x");
        assert_eq!((before(&pool, "x").absent, before(&pool, "x").url), (false, None));
        let read = Link {
            name: "x".to_owned(),
            url: Some("http://a".to_owned()),
            ..Link::default()
        };
        links.put(&pool, &Key::of(&pool).expect("a key"), read.clone());
        assert_eq!(before(&pool, "x"), read);
        for (secret, name) in [("b", "x"), ("a", "y")] {
            let now = before(&named(secret, name), name);
            assert_eq!((now.absent, now.url), (true, None));
        }
        assert_eq!(links.of(&pool).as_deref(), Some(&read));
        let mut anew = pool;
        anew.metadata.uid = Some("another".to_owned());
        assert_eq!((links.of(&anew), before(&anew, "x").url), (None, None));
    }
}
