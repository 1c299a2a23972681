//! Airflow's database: what its tables say of pools and tasks.
//!
//! One exchange reads both tables in a read-only transaction, so that they are of one moment, and it is text without
//! prepared statements, as a `PgBouncer` between transactions wants it. Nothing is written, and no text of an answer is
//! repeated but names and descriptions of pools, and names of queues.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt as _;
use poolwright_core::airflow_pool::{POKE_SECONDS, PoolView};
use poolwright_core::broker::Secret;
use poolwright_core::executor::Executors;
use poolwright_core::sample::FaultKind;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::answers::{DESCRIPTION_MAX, NAME_MAX, cut, is_long};
use super::bounded::{Bounded, Came};
use super::{Access, POOLS_MAX};
use crate::signals::SignalError;
use crate::signals::network::Network;
use crate::signals::tls::{self, client_config};

/// Deadline of one statement, and of everything together.
const DEADLINE: Duration = Duration::from_secs(5);
/// Different rows of tasks, by pool, queue, state and executor, that are read.
const GROUPS_MAX: usize = 100_000;
/// Where the address comes from.
const FIELD: &str = "databaseUrl in the Secret of spec.airflow.secretRef";

/// A connection to the database, made when it is needed.
pub(super) struct Database {
    config: Config,
    host: String,
    port: u16,
    tls: rustls::ClientConfig,
    network: Network,
    executors: Executors,
    query: String,
    session: Option<Session>,
    /// Exchanges that were begun.
    pub(super) requests: u64,
}

/// An open connection.
struct Session {
    client: Client,
    came: Came,
    /// Ends with the session. By itself the library's task waits for the answers to whatever it was asked, which a server
    /// that is in no hurry never sends.
    _connection: JoinSet<()>,
}

impl Session {
    fn new(
        client: Client,
        connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
        came: Came,
    ) -> Self {
        let mut task = JoinSet::new();
        // What the connection itself fails with, the next exchange tells.
        task.spawn(async move { drop(connection.await) });
        Self {
            client,
            came,
            _connection: task,
        }
    }
}

impl Database {
    pub(super) fn new(url: &Secret, access: &Access, network: &Network) -> Result<Self, SignalError> {
        let invalid = |words: &str| SignalError::new(FaultKind::InvalidAddress, format!("{FIELD}: {words}"));
        let form = || {
            invalid(
                "must hold a url such as postgresql://user:password@host:5432/airflow?sslmode=require, with an sslmode of \
                 disable, prefer, require, verify-ca or verify-full, and without options that name files: certificates are \
                 those of spec.airflow.tls",
            )
        };
        let (plain, has_mode) = plain(url.expose()).ok_or_else(form)?;
        let mut config: Config = plain.parse().map_err(|_| form())?;
        // libpq would go on without TLS where the server has none.
        if !has_mode {
            config.ssl_mode(SslMode::Require);
        }
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            _ => return Err(invalid("must name one host")),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Ok(Self {
            host,
            port,
            tls: client_config(&access.tls)?,
            network: network.clone(),
            executors: Executors::read(&access.executor),
            query: query(),
            config,
            session: None,
            requests: 0,
        })
    }

    /// All pools, with what their tasks take.
    pub(super) async fn pools(&mut self) -> Result<BTreeMap<String, PoolView>, SignalError> {
        let late = |_| fault(FaultKind::Unreachable, "does not answer within 5 s");
        timeout(DEADLINE, self.exchange()).await.map_err(late)?
    }

    /// A session that was not heard to the end of its answer is not kept, nor one over which very much has come: the library
    /// keeps what a server says of its settings.
    async fn exchange(&mut self) -> Result<BTreeMap<String, PoolView>, SignalError> {
        let session = match self.session.take().filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => self.connect().await?,
        };
        self.requests += 1;
        session.came.reset();
        let ended = |error: tokio_postgres::Error| ended(&error, &session.came);
        let answers = session.client.simple_query_raw(&self.query).await;
        let mut answers = pin!(answers.map_err(ended)?);
        let mut tables = Tables::default();
        while let Some(answer) = answers.try_next().await.map_err(ended)? {
            if let SimpleQueryMessage::Row(row) = answer {
                tables.take(&row, &self.executors)?;
            }
        }
        self.session = Some(session).filter(|session| !session.came.is_enough());
        Ok(tables.pools)
    }

    async fn connect(&self) -> Result<Session, SignalError> {
        let addresses = self.network.resolve(&self.host, self.port).await;
        let addresses = addresses.map_err(|unusable| unusable.error(FIELD))?;
        let nobody = |_| fault(FaultKind::Unreachable, "cannot be connected to");
        let stream = TcpStream::connect(&addresses[..]).await.map_err(nobody)?;
        let came = Came::default();
        let ended = |error: tokio_postgres::Error| ended(&error, &came);
        let stream = Bounded::new(stream, came.clone());
        if self.config.get_ssl_mode() == SslMode::Disable {
            let connected = self.config.connect_raw(stream, NoTls).await;
            let (client, connection) = connected.map_err(ended)?;
            return Ok(Session::new(client, connection, came));
        }
        let mut tls = MakeRustlsConnect::new(self.tls.clone());
        let name = |_| {
            fault(
                FaultKind::InvalidAddress,
                "has a host that no certificate can name",
            )
        };
        let tls =
            <MakeRustlsConnect as MakeTlsConnect<Bounded<TcpStream>>>::make_tls_connect(&mut tls, &self.host)
                .map_err(name)?;
        let connected = self.config.connect_raw(stream, tls).await;
        let (client, connection) = connected.map_err(ended)?;
        Ok(Session::new(client, connection, came))
    }
}

/// The url without the driver that `SQLAlchemy` names in its scheme, and whether it has an `sslmode`. TLS is always verified as
/// `verify-full` asks, unless `spec.airflow.tls` says otherwise; so `require`, the strictest that the library knows, stands
/// for it.
pub(super) fn plain(url: &str) -> Option<(String, bool)> {
    const MODE: &str = "sslmode=";
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.split('+').next()?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    // A password may hold what begins the options behind it.
    let (user, place) = rest.split_at(rest.find('@').unwrap_or(0));
    let Some((place, options)) = place.split_once('?') else {
        return Some((format!("postgresql://{rest}"), false));
    };
    let has_mode = options.split('&').any(|option| option.starts_with(MODE));
    let options: Vec<&str> = options
        .split('&')
        .map(|option| match option.strip_prefix(MODE) {
            Some("verify-ca" | "verify-full") => "sslmode=require",
            _ => option,
        })
        .collect();
    Some((
        format!("postgresql://{user}{place}?{}", options.join("&")),
        has_mode,
    ))
}

/// One transaction, text without parameters. A sensor whose trigger has fired (`next_method`) runs for a moment, with the time
/// of its first start: it does not poke.
fn query() -> String {
    let limits = (POOLS_MAX + 1, GROUPS_MAX + 1);
    format!(
        "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}; \
         SELECT pool, slots, description, include_deferred FROM slot_pool LIMIT {}; \
         SELECT pool, queue, state, executor, count(*), sum(pool_slots), count(*) FILTER (WHERE state = 'running' \
         AND operator ILIKE '%sensor%' AND next_method IS NULL AND start_date < now() - interval '{POKE_SECONDS} seconds') \
         FROM task_instance WHERE state IN ('running', 'queued', 'scheduled', 'deferred') GROUP BY 1, 2, 3, 4 LIMIT {}; \
         COMMIT",
        DEADLINE.as_millis(),
        limits.0,
        limits.1
    )
}

/// What the rows of both tables say, each taken as it comes: those of pools, which come first, have four columns, those of
/// tasks seven.
#[derive(Default)]
struct Tables {
    pools: BTreeMap<String, PoolView>,
    of_pools: usize,
    of_tasks: usize,
}

impl Tables {
    /// # Errors
    /// There are too many rows, or this is none of Airflow's.
    fn take(&mut self, row: &SimpleQueryRow, executors: &Executors) -> Result<(), SignalError> {
        let is_pool = row.columns().len() == 4;
        let rows = if is_pool {
            &mut self.of_pools
        } else {
            &mut self.of_tasks
        };
        *rows += 1;
        if self.of_pools > POOLS_MAX || self.of_tasks > GROUPS_MAX {
            let words = format!(
                "has more than {POOLS_MAX} pools or {GROUPS_MAX} groups of tasks, which are not read"
            );
            return Err(fault(FaultKind::Implausible, &words));
        }
        let taken = if is_pool {
            self.pool(row)
        } else {
            self.tasks(row, executors)
        };
        let words = "holds something else than Airflow's tables";
        taken.ok_or_else(|| fault(FaultKind::Implausible, words))
    }

    fn pool(&mut self, row: &SimpleQueryRow) -> Option<()> {
        let view = PoolView {
            slots: number(row, 1)?,
            description: cut(row.try_get(2).ok()?.unwrap_or_default(), DESCRIPTION_MAX),
            include_deferred: row.try_get(3).ok()? == Some("t"),
            poking: Some(0),
            ..PoolView::default()
        };
        let name = row.try_get(0).ok()?.filter(|name| !is_long(name))?;
        self.pools.insert(name.to_owned(), view);
        Some(())
    }

    fn tasks(&mut self, row: &SimpleQueryRow, executors: &Executors) -> Option<()> {
        let unsigned = |at| number(row, at).and_then(|number| u64::try_from(number).ok());
        let (tasks, slots, poking) = (unsigned(4)?, unsigned(5)?, unsigned(6)?);
        let (pool, queue, state) = (
            row.try_get(0).ok()?,
            row.try_get(1).ok()?,
            row.try_get(2).ok()?.unwrap_or_default(),
        );
        let executor = row.try_get(3).ok()?;
        // A task of a pool that is not there is never scheduled, and what it ran in before has no number of slots.
        let Some(pool) = pool.and_then(|name| self.pools.get_mut(name)) else {
            return Some(());
        };
        pool.counts.add(state, slots);
        let poking = u32::try_from(poking).unwrap_or(u32::MAX);
        pool.poking = pool.poking.map(|count| count.saturating_add(poking));
        if let Some(queue) = queue.filter(|queue| executors.is_celery(executor, queue)) {
            pool.queues
                .entry(cut(queue, NAME_MAX))
                .or_default()
                .add(state, tasks);
        }
        Some(())
    }
}

fn number(row: &SimpleQueryRow, at: usize) -> Option<i64> {
    row.try_get(at).ok()??.parse().ok()
}

/// Why an exchange has failed.
fn ended(error: &tokio_postgres::Error, came: &Came) -> SignalError {
    // What the stream fails with does not get through to the client.
    if came.is_too_much() {
        return fault(FaultKind::Implausible, "answers with more than 64 MiB");
    }
    failed(error)
}

fn failed(error: &tokio_postgres::Error) -> SignalError {
    if let Some(broken) = tls::behind(error) {
        return SignalError::new(FaultKind::Unreachable, tls::words(broken, "Airflow's database"));
    }
    let Some(code) = error.code() else {
        let words =
            "cannot be talked to: it broke off, or wants another sslmode (require, if databaseUrl has none)";
        return fault(FaultKind::Unreachable, words);
    };
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        let words = "refuses: that user needs SELECT on slot_pool and task_instance";
        return fault(FaultKind::Refused, words);
    }
    if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::UNDEFINED_COLUMN {
        let words = "has no tables of an Airflow from 2.10 on: is it the right database and schema?";
        return fault(FaultKind::Implausible, words);
    }
    if *code == SqlState::QUERY_CANCELED {
        return fault(FaultKind::Unreachable, "takes longer than 5 s for a statement");
    }
    // Wrong passwords, users and databases.
    if code.code().starts_with("28") || code.code().starts_with("3D") {
        let words = "refuses: correct user, password and database in databaseUrl of the Secret";
        return fault(FaultKind::Refused, words);
    }
    fault(
        FaultKind::Unreachable,
        &format!("answers with error {}", code.code()),
    )
}

fn fault(kind: FaultKind, words: &str) -> SignalError {
    SignalError::new(kind, format!("Airflow's database {words}"))
}
