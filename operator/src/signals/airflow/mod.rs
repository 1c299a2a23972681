//! One Airflow: its pools and what their tasks take, read over its API or from its database, and changed over its API.
//!
//! One look makes at most two requests, so that many pools are read over several looks; what is told is always one whole
//! reading, never a part of one. Nothing is kept but the session, and nothing is decided. The database is only read.

mod answers;
#[cfg(feature = "airflow-sql")]
mod bounded;
#[cfg(test)]
pub(super) mod fuzzed;
mod rest;
mod round;
#[cfg(feature = "airflow-sql")]
mod sql;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use poolwright_core::airflow_pool::{PoolView, Reading, Wanted};
use poolwright_core::broker::{Secret, Tls};
use poolwright_core::executor::Executors;

use self::answers::cut;
use self::rest::{Rest, Version};
use self::round::{Ask, Round};
use self::tasks::Pass;
use super::SignalError;
use super::network::Network;

/// Requests of one look.
const REQUESTS: usize = 2;
/// Characters of a version that are kept.
const VERSION_MAX: usize = 64;
/// Pools of one Airflow that are believed.
const POOLS_MAX: usize = 10_000;

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// With a name and a password.
    Password(String, Secret),
    /// With a token that somebody else has made.
    Token(Secret),
}

/// Where an Airflow is, and how to ask it. Shows no secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Root of its API server.
    pub url: String,
    /// How to log in.
    pub credentials: Credentials,
    /// TLS to the API and the database.
    pub tls: Tls,
    /// URL of its database, where that is to be read.
    pub database: Option<Secret>,
    /// Its `[core] executor`.
    pub executor: String,
}

/// A session with one Airflow.
pub struct Airflow {
    rest: Rest,
    #[cfg(feature = "airflow-sql")]
    sql: Option<sql::Database>,
    round: Round,
    pass: Pass,
    has_looked: bool,
    /// Whether the API has taken the credentials, where all is read from the database.
    #[cfg(feature = "airflow-sql")]
    is_proven: bool,
}

impl Airflow {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The address or TLS cannot be used, or this program was built without what it takes to read a database.
    pub fn new(access: &Access, network: &Network) -> Result<Self, SignalError> {
        #[cfg(not(feature = "airflow-sql"))]
        if access.database.is_some() {
            let words = "databaseUrl in the Secret of spec.airflow.secretRef: this operator was built without the feature airflow-sql";
            let kind = poolwright_core::sample::FaultKind::InvalidAddress;
            return Err(SignalError::new(kind, words));
        }
        Ok(Self {
            rest: Rest::new(access, network)?,
            #[cfg(feature = "airflow-sql")]
            sql: access
                .database
                .as_ref()
                .map(|url| sql::Database::new(url, access, network))
                .transpose()?,
            round: Round::default(),
            pass: Pass::new(Executors::read(&access.executor)),
            has_looked: false,
            #[cfg(feature = "airflow-sql")]
            is_proven: false,
        })
    }

    /// Goes on reading; `None` while a reading takes another look.
    ///
    /// # Errors
    /// Airflow cannot be read, and why. The reading begins anew.
    pub async fn look(&mut self, now: Timestamp) -> Result<Option<Reading>, SignalError> {
        let looked = self.go_on(now).await;
        if looked.is_err() {
            self.round = Round::default();
            self.rest.forget_version();
        }
        looked
    }

    async fn go_on(&mut self, now: Timestamp) -> Result<Option<Reading>, SignalError> {
        // A first look does what it takes; later ones ask for the version now and then, instead of something else.
        self.rest.expire();
        let before = self.rest.requests;
        let version = self.rest.version().await?.text.clone();
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let most = if is_first || self.rest.requests == before {
            REQUESTS
        } else {
            REQUESTS - 1
        };
        let pools = self.pools(now, most).await?;
        Ok(pools.map(|pools| Reading {
            version: Some(version),
            pools,
        }))
    }

    async fn pools(
        &mut self,
        now: Timestamp,
        requests: usize,
    ) -> Result<Option<BTreeMap<String, PoolView>>, SignalError> {
        #[cfg(feature = "airflow-sql")]
        if let Some(database) = &mut self.sql {
            // Whoever has a database of somebody's Airflow is none that may say what stands in it.
            if !self.is_proven {
                self.rest.prove().await?;
                self.is_proven = true;
            }
            return database.pools().await.map(Some);
        }
        let mut done = None;
        for left in (0..requests).rev() {
            match self.round.next {
                Ask::Pools(offset) => done = self.page(offset).await?.or(done),
                Ask::Tasks => {
                    // Pools are told also where nobody may look at tasks.
                    if let Err(error) = self.tasks(now).await {
                        tracing::debug!("tasks are not looked through: {}", error.message);
                        self.pass.fail(now, &error);
                    }
                    self.round.next = Ask::Pools(0);
                    // Pools that one look can read are of one moment, and are not waited for over two.
                    let pages = self.round.total.div_ceil(rest::PAGE);
                    if (left + 1..=REQUESTS).contains(&pages) {
                        break;
                    }
                }
            }
        }
        Ok(done)
    }

    /// Reads one page of pools; all of them, if it is the last.
    async fn page(&mut self, offset: usize) -> Result<Option<BTreeMap<String, PoolView>>, SignalError> {
        let page = self.rest.pools(offset).await?;
        let Some(mut pools) = self.round.take(offset, page)? else {
            return Ok(None);
        };
        for (name, pool) in &mut pools {
            self.pass.tell(name, pool);
        }
        Ok(Some(pools))
    }

    /// Looks through the next page of tasks.
    async fn tasks(&mut self, now: Timestamp) -> Result<(), SignalError> {
        if let Some((filter, offset)) = self.pass.next(now) {
            let page = self.rest.tasks(filter, offset).await?;
            self.pass.take(page, now);
        }
        Ok(())
    }

    /// Requests to the API and to the database so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        #[cfg(feature = "airflow-sql")]
        if let Some(database) = &self.sql {
            return self.rest.requests + database.requests;
        }
        self.rest.requests
    }

    /// False where a pool without a limit keeps Airflow from listing its pools to anybody: 2.x over its API.
    #[must_use]
    pub fn lists_unlimited(&self) -> bool {
        self.rest.known().is_some_and(|version| version.major > 2)
    }

    /// Makes a pool; false if one of that name is there by now.
    ///
    /// # Errors
    /// Airflow does not make it, and why.
    pub async fn create(&mut self, wanted: &Wanted) -> Result<bool, SignalError> {
        self.rest.create(wanted).await
    }

    /// Changes a pool; false if there is none by now.
    ///
    /// # Errors
    /// Airflow does not change it, and why.
    pub async fn change(&mut self, wanted: &Wanted) -> Result<bool, SignalError> {
        self.rest.change(wanted).await
    }

    /// Deletes a pool; well also if there is none.
    ///
    /// # Errors
    /// Airflow does not delete it, and why.
    pub async fn delete(&mut self, name: &str) -> Result<(), SignalError> {
        self.rest.delete(name).await
    }
}

impl Version {
    /// From its text; 2.x and 3.x are known.
    pub(super) fn read(text: &str) -> Option<Self> {
        let major = text.split('.').next()?.parse().ok()?;
        matches!(major, 2 | 3).then(|| Self {
            text: cut(text, VERSION_MAX),
            major,
        })
    }
}
