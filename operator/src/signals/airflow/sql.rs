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
        if let Some(queue) = row.get(1).filter(|queue| executors.is_celery(row.get(3), queue)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::guard::Policy;

    fn database(url: &str) -> Result<Database, SignalError> {
        judged(url, Policy::outside())
    }

    fn judged(url: &str, policy: Policy) -> Result<Database, SignalError> {
        let access = Access {
            url: "http://airflow:8080".to_owned(),
            credentials: super::super::Credentials::Token(Secret::new("t")),
            tls: poolwright_core::broker::Tls::default(),
            database: None,
            executor: "CeleryExecutor".to_owned(),
        };
        let network = Network::of_machine(policy, Vec::new());
        Database::new(&Secret::new(url), &access, &network)
    }

    #[tokio::test]
    async fn in_a_pod_no_database_is_at_an_address_of_its_own() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgresql://u:p@{}/airflow", listener.local_addr().unwrap());
        let database = judged(&url, Policy::inside(Vec::new())).unwrap();
        let refused = tokio::select! {
            _ = listener.accept() => panic!("it was connected to"),
            refused = database.connect() => refused.map(drop).unwrap_err(),
        };
        assert_eq!(refused.kind, FaultKind::Refused);
        let words = "databaseUrl in the Secret of spec.airflow.secretRef: 127.0.0.1 is a loopback address";
        assert!(refused.message.starts_with(words), "{}", refused.message);
    }

    #[test]
    fn tls_is_used_unless_the_url_says_otherwise() {
        use SslMode::{Disable, Prefer, Require};
        for (options, mode) in [
            ("", Require),
            ("?application_name=a", Require),
            ("?sslmode=require", Require),
            ("?sslmode=verify-ca", Require),
            (
                "?connect_timeout=5&sslmode=verify-full&application_name=a",
                Require,
            ),
            ("?sslmode=prefer", Prefer),
            ("?sslmode=disable", Disable),
        ] {
            for user in ["", "u:p@", "u:sslmode=disable@", "u:p?sslmode=disable@"] {
                let url = format!("postgresql+psycopg2://{user}db:5433/airflow{options}");
                let database = database(&url).map_err(|error| error.message).unwrap();
                assert_eq!(database.config.get_ssl_mode(), mode, "{url}");
                assert_eq!((database.host.as_str(), database.port), ("db", 5433), "{url}");
                assert_eq!(database.config.get_dbname(), Some("airflow"), "{url}");
            }
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_told_without_its_password() {
        for url in [
            "postgresql://u:sesame@db/airflow?sslmode=verify",
            "postgresql://u:sesame@db/airflow?sslmode=verify-full&sslrootcert=/ca.crt",
            "mysql://u:sesame@db/airflow",
        ] {
            let Err(error) = database(url) else {
                panic!("{url} is taken")
            };
            assert_eq!(error.kind, FaultKind::InvalidAddress, "{url}");
            let words = &error.message;
            assert!(
                words.contains("verify-full")
                    && words.contains("spec.airflow.tls")
                    && !words.contains("sesame"),
                "{words}"
            );
        }
    }
}
