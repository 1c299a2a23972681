//! Addresses, and a server that does not do what a database does.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
            words.contains("verify-full") && words.contains("spec.airflow.tls") && !words.contains("sesame"),
            "{words}"
        );
    }
}

/// A database at a server that says nothing yet.
async fn served() -> (TcpListener, Database) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let url = format!("postgresql://u:p@{place}/airflow?sslmode=disable");
    (listener, database(&url).map_err(|error| error.message).unwrap())
}

/// Reads a message whose length has been told.
async fn skip(stream: &mut TcpStream) {
    let length = stream.read_u32().await.unwrap();
    let mut rest = vec![0; length as usize - 4];
    stream.read_exact(&mut rest).await.unwrap();
}

/// Waits for a query.
async fn asked(stream: &mut TcpStream) {
    assert_eq!(stream.read_u8().await.unwrap(), b'Q');
    skip(stream).await;
}

/// Lets somebody in, and waits for a query.
async fn greeted(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    skip(&mut stream).await;
    let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    stream.write_all(&welcome).await.unwrap();
    asked(&mut stream).await;
    stream
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// That rows of so many columns follow.
fn columns(count: u16) -> Vec<u8> {
    let column = [&b"c\0"[..], &[0; 18]].concat();
    let body = [&count.to_be_bytes()[..], &column.repeat(count.into())].concat();
    message(b'T', &body)
}

fn row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'D', &body)
}

/// The end of an answer.
fn done() -> Vec<u8> {
    [message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat()
}

/// What is read of a server that answers with this, and then with `again` for as long as somebody is there; or why nothing is.
async fn read(first: Vec<u8>, again: Vec<u8>) -> (BTreeMap<String, PoolView>, Option<SignalError>) {
    let (listener, mut database) = served().await;
    let serves = tokio::spawn(async move {
        let mut stream = greeted(&listener).await;
        let mut goes_on = stream.write_all(&first).await.is_ok();
        while goes_on && !again.is_empty() {
            goes_on = stream.write_all(&again).await.is_ok();
        }
        drop(stream.read_u8().await);
    });
    let read = database.exchange().await;
    assert_eq!(
        database.session.is_some(),
        read.is_ok(),
        "what is not read to its end is left"
    );
    drop(database);
    timeout(DEADLINE, serves).await.expect("it is left").unwrap();
    match read {
        Ok(pools) => (pools, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    }
}

#[tokio::test]
async fn what_the_tables_hold_is_told_and_nothing_that_no_table_of_airflow_does() {
    let long = "ö".repeat(2000);
    let of_pools = [columns(4), row(&["p", "5", long.as_str(), "t"])].concat();
    let of_tasks = [columns(7), row(&["p", "q", "running", "", "2", "3", "1"])].concat();
    let (pools, error) = read([of_pools.clone(), of_tasks, done()].concat(), Vec::new()).await;
    assert_eq!(error.map(|error| error.message), None);
    let pool = &pools["p"];
    assert_eq!((pool.slots, pool.counts.running, pool.poking), (5, 3, Some(1)));
    assert_eq!(pool.description.chars().count(), DESCRIPTION_MAX);
    assert_eq!(pool.queues["q"].running, 2);

    let mut no_text = row(&["p", "5", "x", "t"]);
    for byte in no_text.iter_mut().filter(|byte| **byte == b'x') {
        *byte = 0xff;
    }
    for strange in [
        [columns(4), row(&[long.as_str(), "5", "", "t"])].concat(),
        [columns(4), row(&["p", "many", "", "t"])].concat(),
        [columns(4), no_text].concat(),
        [of_pools, columns(2), row(&["p", "q"])].concat(),
    ] {
        let (_, error) = read([strange, done()].concat(), Vec::new()).await;
        let error = error.unwrap();
        assert_eq!(error.kind, FaultKind::Implausible, "{}", error.message);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let many = row(&["p", "5", "", "t"]).repeat(1000);
    let much = message(b'S', format!("a\0{}\0", "x".repeat(1 << 20)).as_bytes());
    for (first, again, words) in [
        (columns(4), many, "has more than 10000 pools"),
        (Vec::new(), much, "answers with more than 64 MiB"),
    ] {
        let (_, error) = read(first, again).await;
        let error = error.unwrap();
        assert_eq!(error.kind, FaultKind::Implausible);
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[tokio::test]
async fn a_server_that_is_not_waited_for_any_more_is_left() {
    let (listener, mut database) = served().await;
    let mut stream = tokio::select! {
        read = database.exchange() => panic!("{:?}", read.map(drop)),
        stream = greeted(&listener) => stream,
    };
    let end = timeout(DEADLINE, stream.read_u8()).await;
    assert!(end.expect("the connection goes on").is_err());
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_exchange() {
    let (listener, mut database) = served().await;
    tokio::spawn(async move {
        let mut stream = greeted(&listener).await;
        stream.write_all(&done()).await.unwrap();
        asked(&mut stream).await;
        stream.write_all(&done()).await.unwrap();
        // Nobody else is let in.
        asked(&mut stream).await;
    });
    for _ in 0..2 {
        let read = timeout(DEADLINE, database.exchange()).await;
        assert!(read.expect("another connection").is_ok());
    }
}

#[tokio::test]
async fn a_connection_over_which_much_has_come_is_not_kept() {
    let (listener, mut database) = served().await;
    tokio::spawn(async move {
        for part in 0.. {
            let mut stream = greeted(&listener).await;
            loop {
                let name = format!("{part}\0{}\0", "x".repeat(40 << 20));
                let much = message(b'S', name.as_bytes());
                if stream.write_all(&[much, done()].concat()).await.is_err()
                    || stream.read_u8().await.is_err()
                {
                    break;
                }
                skip(&mut stream).await;
            }
        }
    });
    for is_kept in [true, false, true] {
        let read = timeout(DEADLINE, database.exchange()).await;
        assert!(read.expect("another connection").is_ok());
        assert_eq!(database.session.is_some(), is_kept);
    }
}
