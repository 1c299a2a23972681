//! Airflow's database: what its tables say of pools and tasks.
//!
//! One exchange reads both tables in a read-only transaction, so that they are of one moment, and it is text without
//! prepared statements, as a `PgBouncer` between transactions wants it. Nothing is written, and no text of an answer is
//! repeated but names and descriptions of pools, and names of queues.

use std::collections::BTreeMap;
use std::time::Duration;

use poolwright_core::airflow_pool::{POKE_SECONDS, PoolView};
use poolwright_core::broker::Secret;
use poolwright_core::executor::Executors;
use poolwright_core::sample::FaultKind;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

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
    client: Option<Client>,
    /// Exchanges that were begun.
    pub(super) requests: u64,
}

impl Database {
    pub(super) fn new(url: &Secret, access: &Access, network: &Network) -> Result<Self, SignalError> {
        let invalid = |words: &str| SignalError::new(FaultKind::InvalidAddress, format!("{FIELD}: {words}"));
        let form = || {
            invalid(
                "must hold a url such as postgresql://user:password@host:5432/airflow?sslmode=require, without other \
                     options than libpq's",
            )
        };
        let mut config: Config = plain(url.expose())
            .ok_or_else(form)?
            .parse()
            .map_err(|_| form())?;
        // libpq would go on without TLS where the server has none.
        if !url.expose().contains("sslmode=") {
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
            client: None,
            requests: 0,
        })
    }

    /// All pools, with what their tasks take.
    pub(super) async fn pools(&mut self) -> Result<BTreeMap<String, PoolView>, SignalError> {
        let late = |_| fault(FaultKind::Unreachable, "does not answer within 5 s");
        let rows = match timeout(DEADLINE, self.exchange()).await.map_err(late) {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) | Err(error) => {
                self.client = None;
                return Err(error);
            }
        };
        read(&rows, &self.executors)
    }

    async fn exchange(&mut self) -> Result<Vec<SimpleQueryRow>, SignalError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        self.requests += 1;
        let answers = client
            .simple_query(&self.query)
            .await
            .map_err(|error| failed(&error))?;
        self.client = Some(client);
        let rows = answers.into_iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }

    async fn connect(&self) -> Result<Client, SignalError> {
        let addresses = self.network.resolve(&self.host, self.port).await;
        let addresses = addresses.map_err(|unusable| unusable.error(FIELD))?;
        let nobody = |_| fault(FaultKind::Unreachable, "cannot be connected to");
        let stream = TcpStream::connect(&addresses[..]).await.map_err(nobody)?;
        // What the connection itself fails with, the next exchange tells.
        if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = self
                .config
                .connect_raw(stream, NoTls)
                .await
                .map_err(|error| failed(&error))?;
            tokio::spawn(async move { drop(connection.await) });
            return Ok(client);
        }
        let mut tls = MakeRustlsConnect::new(self.tls.clone());
        let name = |_| {
            fault(
                FaultKind::InvalidAddress,
                "has a host that no certificate can name",
            )
        };
        let tls = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::make_tls_connect(&mut tls, &self.host)
            .map_err(name)?;
        let (client, connection) = self
            .config
            .connect_raw(stream, tls)
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }
}

/// The url without the driver that `SQLAlchemy` names in its scheme.
fn plain(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.split('+').next()?;
    matches!(scheme, "postgres" | "postgresql").then(|| format!("postgresql://{rest}"))
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

/// Rows of both tables: those of pools have four columns, those of tasks seven.
fn read(rows: &[SimpleQueryRow], executors: &Executors) -> Result<BTreeMap<String, PoolView>, SignalError> {
    let strange = || {
        fault(
            FaultKind::Implausible,
            "holds something else than Airflow's tables",
        )
    };
    let mut pools = BTreeMap::new();
    let (of_pools, of_tasks): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.columns().len() == 4);
    if of_pools.len() > POOLS_MAX || of_tasks.len() > GROUPS_MAX {
        let words =
            format!("has more than {POOLS_MAX} pools or {GROUPS_MAX} groups of tasks, which are not read");
        return Err(fault(FaultKind::Implausible, &words));
    }
    for row in of_pools {
        let view = PoolView {
            slots: number(row, 1).ok_or_else(strange)?,
            description: row.get(2).unwrap_or_default().to_owned(),
            include_deferred: row.get(3) == Some("t"),
            poking: Some(0),
            ..PoolView::default()
        };
        pools.insert(row.get(0).ok_or_else(strange)?.to_owned(), view);
    }
    for row in of_tasks {
        let unsigned = |at| {
            number(row, at)
                .and_then(|number| u64::try_from(number).ok())
                .ok_or_else(strange)
        };
        let (tasks, slots, poking) = (unsigned(4)?, unsigned(5)?, unsigned(6)?);
        let state = row.get(2).unwrap_or_default();
        // A task of a pool that is not there is never scheduled, and what it ran in before has no number of slots.
        let Some(pool) = row.get(0).and_then(|name| pools.get_mut(name)) else {
            continue;
        };
        pool.counts.add(state, slots);
        let poking = u32::try_from(poking).unwrap_or(u32::MAX);
        pool.poking = pool.poking.map(|count| count.saturating_add(poking));
        if let Some(queue) = row.get(1).filter(|_| executors.is_celery(row.get(3))) {
            pool.queues.entry(queue.to_owned()).or_default().add(state, tasks);
        }
    }
    Ok(pools)
}

fn number(row: &SimpleQueryRow, at: usize) -> Option<i64> {
    row.get(at)?.parse().ok()
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
